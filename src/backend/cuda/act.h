/* SPDX-License-Identifier: Apache-2.0 */
/* Activations and their slopes in float32, one value at a time.
 *
 * Written without cancellation: gelu through erfc, its tanh form and silu through one
 * exponential of a negative number, so that relative errors stay at a few roundings far
 * on the left too and nothing overflows.  NaN stays NaN.
 *
 * Accurate divisions, exponentials and erfc are more arithmetic than a GPU has in the
 * time in which it moves two bfloat16 values.  So there is a short form of each, SHORT,
 * for results in bfloat16: good to 4e-5, a fiftieth of what their rounding may change.
 */
#ifndef KDHPC_CUDA_ACT_H
#define KDHPC_CUDA_ACT_H

#include "launch.h"

/* The logistic function of V, and S (1 - S) without the cancellation of 1 - S. */
struct logistic {
    float s, slope;
};

template <bool SHORT> __device__ inline struct logistic logistic_of(float v)
{
    const float e = SHORT ? __expf(-fabsf(v)) : expf(-fabsf(v)),
                part = SHORT ? __fdividef(1.0f, 1.0f + e) : 1.0f / (1.0f + e);

    return {v < 0.0f ? e * part : part, e * part * part};
}

/* Twice the argument of tanh in the tanh form of gelu: 1 + tanh(u) = 2 s(2 u). */
__device__ inline float gelu_new_twice(float x)
{
    return 1.59576912f * (x + 0.044715f * x * x * x);
}

/* The normal distribution function at X, and exp(-X^2 / 2). */
struct normal {
    float cdf, bell;
};

template <bool SHORT> __device__ inline struct normal normal_of(float x)
{
    if (!SHORT)
        return {0.5f * erfcf(-0.70710678f * x), expf(-0.5f * x * x)};

    /* the tail beyond |x| is bell times a smooth function of it, here a polynomial in
     * t = 1 / (1 + 0.38 |x|) with the least relative error for |x| < 14 */
    const float t = __fdividef(1.0f, fmaf(0.38f, fabsf(x), 1.0f)),
                bell = __expf(-0.5f * x * x);
    float tail = fmaf(-0.0899225231f, t, 0.18886348f);

    tail = fmaf(tail, t, 0.0919900598f);
    tail = fmaf(tail, t, 0.157826006f);
    tail = fmaf(tail, t, 0.151225556f);
    tail *= t * bell;
    return {x > 0.0f ? 1.0f - tail : tail, bell};
}

template <bool SHORT> __device__ inline float act_form(enum kd_act act, float x)
{
    switch (act) {
    case KD_ACT_RELU:
        return x < 0.0f ? 0.0f : x;
    case KD_ACT_GELU:
        return x * normal_of<SHORT>(x).cdf;
    case KD_ACT_GELU_NEW:
        return x * logistic_of<SHORT>(gelu_new_twice(x)).s;
    case KD_ACT_SILU:
        return x * logistic_of<SHORT>(x).s;
    case KD_ACT_TANH:
        return tanhf(x);
    default:
        return x;
    }
}

template <bool SHORT> __device__ inline float slope_form(enum kd_act act, float x)
{
    switch (act) {
    case KD_ACT_RELU:
        return x > 0.0f ? 1.0f : 0.0f;
    case KD_ACT_GELU: {
        const struct normal n = normal_of<SHORT>(x);

        return n.cdf + 0.39894228f * x * n.bell;
    }
    case KD_ACT_GELU_NEW: {
        const struct logistic g = logistic_of<SHORT>(gelu_new_twice(x));

        return g.s + x * g.slope * 1.59576912f * (1.0f + 0.134145f * x * x);
    }
    case KD_ACT_SILU: {
        const struct logistic g = logistic_of<SHORT>(x);

        return g.s + x * g.slope;
    }
    case KD_ACT_TANH: {
        const float t = tanhf(x);

        return 1.0f - t * t;
    }
    default:
        return 1.0f + 0.0f * x;
    }
}

__device__ inline float act_of(enum kd_act act, float x)
{
    return act_form<false>(act, x);
}

__device__ inline float act_slope(enum kd_act act, float x)
{
    return slope_form<false>(act, x);
}

/* The same for results of type T. */
template <typename T> __device__ inline float act_as(enum kd_act act, float x)
{
    return act_form<sizeof(T) == 2>(act, x);
}

template <typename T> __device__ inline float act_slope_as(enum kd_act act, float x)
{
    return slope_form<sizeof(T) == 2>(act, x);
}

#endif
