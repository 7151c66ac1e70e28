/* SPDX-License-Identifier: Apache-2.0 */
/* Elementary functions without branches, for loops that the compiler vectorises.
 *
 * Each is a polynomial (our own weighted minimax fits) after an exact reduction of the
 * argument; relative errors are about 1e-7 (in tails that fall like exp(-x^2), the
 * rounding of x^2 is added), which the op tests check against double precision.  NaN
 * comes out as NaN; results below the smallest normal number are 0.  Nothing here needs
 * relaxed floating point.
 *
 * Maxima go through integers: a float whose sign-magnitude bits are turned into two's
 * complement orders like an int, and integer maxima vectorise where float ones, bound
 * by NaN rules, do not. */
#ifndef KDHPC_CPU_VECMATH_H
#define KDHPC_CPU_VECMATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t vm_bits(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float vm_float(uint32_t u)
{
    float x;

    memcpy(&x, &u, sizeof x);
    return x;
}

/* An int that orders like X (NaN with sign 0 above infinity), and back. */
static inline int32_t vm_order(float x)
{
    int32_t i = (int32_t)vm_bits(x);

    return i ^ ((i >> 31) & 0x7fffffff);
}

static inline float vm_unorder(int32_t i)
{
    return vm_float((uint32_t)(i ^ ((i >> 31) & 0x7fffffff)));
}

/* exp: n = round(x / ln 2) appears in the low bits of x / ln 2 + 1.5 * 2^23; then
 * e^r on |r| <= ln 2 / 2, and n is added to the exponent. */
static inline float vm_exp(float x)
{
    float shifted = x * 1.44269504f + 12582912.0f;
    float n = shifted - 12582912.0f;
    float r = (x - n * 0.693145752f) - n * 1.42860682e-6f;
    float p = 1.3814598e-3f;
    float y;

    p = p * r + 8.3687169e-3f;
    p = p * r + 4.1668389e-2f;
    p = p * r + 1.6666521e-1f;
    p = p * r + 4.9999993e-1f;
    y = (p * r) * r + r + 1.0f;
    y = vm_float(vm_bits(y) + (vm_bits(shifted) << 23));
    y = x > 88.7228394f ? INFINITY : y;
    y = x < -87.3365402f ? 0.0f : y;
    return x != x ? x : y;
}

/* tanh: odd polynomial near 0, 1 - 2 / (e^2x + 1) elsewhere. */
static inline float vm_tanh(float x)
{
    float a = fabsf(x), u = x * x;
    float p = -5.7170450e-3f;
    float big = 1.0f - 2.0f / (vm_exp(2.0f * a) + 1.0f);

    p = p * u + 2.0650587e-2f;
    p = p * u - 5.3743498e-2f;
    p = p * u + 1.3331491e-1f;
    p = p * u - 3.3333284e-1f;
    return a < 0.625f ? x + x * u * p : copysignf(big, x);
}

/* Q = P(N > |x|) for a standard normal N, and E = exp(-x^2 / 2): the tail divided by E
 * is smooth, a polynomial in t = 1 / (1 + 0.35 |x|). */
struct vm_tail {
    float q, e;
};

static inline struct vm_tail vm_normal_tail(float x)
{
    float a = fabsf(x), t = 1.0f / (1.0f + 0.35f * a);
    float e = vm_exp(-0.5f * (a * a));
    float p = -2.915818339e-2f;

    p = p * t + 1.440323165e-1f;
    p = p * t - 2.558417531e-1f;
    p = p * t + 1.593226391e-1f;
    p = p * t - 2.321421682e-2f;
    p = p * t + 1.055532123e-1f;
    p = p * t + 1.198211290e-1f;
    p = p * t + 1.398635345e-1f;
    p = p * t + 1.396213059e-1f;
    return (struct vm_tail){p * t * e, e};
}

/* sigmoid(x) and sigmoid(-x), each without cancellation. */
struct vm_sides {
    float at, other;
};

static inline struct vm_sides vm_sigmoid(float x)
{
    float e = vm_exp(-fabsf(x)), big = 1.0f / (1.0f + e), small = e * big;

    return (struct vm_sides){x > 0.0f ? big : small, x > 0.0f ? small : big};
}

static inline float vm_gelu(float x)
{
    float q = vm_normal_tail(x).q;

    return x > 0.0f ? x - x * q : x * q;
}

static inline float vm_gelu_slope(float x)
{
    struct vm_tail t = vm_normal_tail(x);

    return (x > 0.0f ? 1.0f - t.q : t.q) + x * t.e * 0.398942280f;
}

/* The tanh form of gelu: x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3). */
static inline float vm_gelu_new(float x)
{
    return x * vm_sigmoid(1.595769122f * (x + 0.044715f * x * x * x)).at;
}

static inline float vm_gelu_new_slope(float x)
{
    struct vm_sides s = vm_sigmoid(1.595769122f * (x + 0.044715f * x * x * x));

    return s.at + x * s.at * s.other * 1.595769122f * (1.0f + 0.134145f * x * x);
}

static inline float vm_silu(float x)
{
    return x * vm_sigmoid(x).at;
}

static inline float vm_silu_slope(float x)
{
    struct vm_sides s = vm_sigmoid(x);

    return s.at * (1.0f + x * s.other);
}

/* Largest of X[N], N >= 1. */
static inline float vm_max(const float *x, int64_t n)
{
    int32_t best = vm_order(x[0]);

#pragma omp simd reduction(max : best)
    for (int64_t i = 0; i < n; i++) {
        int32_t o = vm_order(x[i]);

        best = o > best ? o : best;
    }
    return vm_unorder(best);
}

#endif
