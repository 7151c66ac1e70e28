/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of exponentials in one pass, without knowing the largest.
 *
 * exp(x) = y 2^n with n = round(x / ln 2) and y a polynomial; a sum counts in units of
 * 2^ref for an integer ref, so raising ref multiplies by a power of two: exactly.  The
 * sum is float64, hence the same (to its last digits) for any order and any cut of the
 * row, and what a row gives does not depend on where it lies in memory.
 *
 * Range: exponents from -2e6 to 2e6.  Lower ones (-inf: a forbidden token) count as 0
 * beside any in the range; a higher one, or NaN, makes the sum NaN. */
#ifndef KDHPC_CUDA_EXPSUM_H
#define KDHPC_CUDA_EXPSUM_H

#include "rows.h"

constexpr float EXP_RANGE = 2e6f;
constexpr float EXP_ROUND = 12582912.0f; /* 1.5 * 2^23: adding it rounds to integers */
constexpr int EXP_ROUND_BITS = 0x4b400000;
constexpr float LOG2_OF_E = 1.44269504f;

/* n of exp(x), |x| within the range. */
__device__ __forceinline__ int exp_power(float x)
{
    return __float_as_int(fmaf(x, LOG2_OF_E, EXP_ROUND)) - EXP_ROUND_BITS;
}

/* exp(x + low) / 2^ref for |low| below half an ulp of x; n of exp(x) is at most REF.
 * Below 2^-126 it is 0. */
__device__ __forceinline__ float exp_over(float x, float low, int ref)
{
    const bool tiny = x < -EXP_RANGE; /* NaN is not */
    const float in = tiny ? -EXP_RANGE : x;
    const float shifted = fmaf(in, LOG2_OF_E, EXP_ROUND), n = shifted - EXP_ROUND;
    float r = fmaf(-n, 0.693145752f, in), p = 1.3814598e-3f, y;
    const int power = __float_as_int(shifted) - (EXP_ROUND_BITS + ref);

    r = fmaf(-n, 1.42860682e-6f, r) + (tiny ? 0.0f : low);
    p = fmaf(p, r, 8.3687169e-3f);
    p = fmaf(p, r, 4.1668389e-2f);
    p = fmaf(p, r, 1.6666521e-1f);
    p = fmaf(p, r, 4.9999993e-1f);
    y = fmaf(p * r, r, r) + 1.0f;
    return y * (power < -126 ? 0.0f : __uint_as_float((unsigned)(power + 127) << 23));
}

__device__ __forceinline__ float exp_over(float x, int ref)
{
    return exp_over(x, 0.0f, ref);
}

/* exp(x scale) / 2^ref, without the rounding of the product. */
__device__ __forceinline__ float exp_scaled(float x, float scale, int ref)
{
    const float h = x * scale;

    return exp_over(h, fmaf(x, scale, -h), ref);
}

/* 2^power, power <= 0; 0 below the normal numbers. */
__device__ __forceinline__ double power_of_two(int power)
{
    return power < -1022 ? 0.0 : __longlong_as_double((long long)(power + 1023) << 52);
}

struct exp_sum {
    double sum; /* in units of 2^ref */
    int ref;

    /* The largest exponent so far is now TOP; what sums in these units must be
     * multiplied by. */
    __device__ __forceinline__ double raise(float top)
    {
        const int before = ref;
        double factor;

        ref = top < EXP_RANGE ? exp_power(fmaxf(top, -EXP_RANGE)) : 0;
        factor = power_of_two(before < ref ? before - ref : 0);
        sum *= factor;
        if (!(top < EXP_RANGE))
            sum = NAN;
        return factor;
    }

    /* log of the sum */
    __device__ __forceinline__ double log_sum() const
    {
        return log(sum) + (double)ref * 0.693147180559945309417232;
    }
};

__device__ __forceinline__ exp_sum exp_sum_none()
{
    return {0.0, 0};
}

/* Merge S over the threads of the block; every thread gets it.  *FACTOR: what this
 * thread's sums in the units of S must be multiplied by. */
__device__ __forceinline__ exp_sum exp_sum_block(exp_sum s, double *factor,
                                                 float *shared, double *shared_sum)
{
    /* references are below 2^24: exact */
    const float top = block_max(s.sum == 0.0 ? -1e9f : (float)s.ref, shared);
    const int ref = top > -1e9f ? (int)top : 0;

    *factor = power_of_two(s.ref < ref ? s.ref - ref : 0);
    return {block_sum(s.sum * *factor, shared_sum), ref};
}

#endif
