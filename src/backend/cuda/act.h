/* SPDX-License-Identifier: Apache-2.0 */
/* Activations and their slopes in float32, one value at a time.
 *
 * Written without cancellation: gelu through erfc, its tanh form and silu through one
 * exponential of a negative number, so that relative errors stay at a few roundings far
 * on the left too and nothing overflows.  NaN stays NaN. */
#ifndef KDHPC_CUDA_ACT_H
#define KDHPC_CUDA_ACT_H

#include "launch.h"

/* The logistic function of V, and S (1 - S) without the cancellation of 1 - S. */
struct logistic {
    float s, slope;
};

__device__ inline struct logistic logistic_of(float v)
{
    const float e = expf(-fabsf(v)), part = 1.0f / (1.0f + e);

    return {v < 0.0f ? e * part : part, e * part * part};
}

/* Twice the argument of tanh in the tanh form of gelu: 1 + tanh(u) = 2 s(2 u). */
__device__ inline float gelu_new_twice(float x)
{
    return 1.59576912f * (x + 0.044715f * x * x * x);
}

__device__ inline float act_of(enum kd_act act, float x)
{
    switch (act) {
    case KD_ACT_RELU:
        return x < 0.0f ? 0.0f : x;
    case KD_ACT_GELU:
        return 0.5f * x * erfcf(-0.70710678f * x);
    case KD_ACT_GELU_NEW:
        return x * logistic_of(gelu_new_twice(x)).s;
    case KD_ACT_SILU:
        return x * logistic_of(x).s;
    case KD_ACT_TANH:
        return tanhf(x);
    default:
        return x;
    }
}

__device__ inline float act_slope(enum kd_act act, float x)
{
    switch (act) {
    case KD_ACT_RELU:
        return x > 0.0f ? 1.0f : 0.0f;
    case KD_ACT_GELU:
        return 0.5f * erfcf(-0.70710678f * x) + 0.39894228f * x * expf(-0.5f * x * x);
    case KD_ACT_GELU_NEW: {
        const struct logistic g = logistic_of(gelu_new_twice(x));

        return g.s + x * g.slope * 1.59576912f * (1.0f + 0.134145f * x * x);
    }
    case KD_ACT_SILU: {
        const struct logistic g = logistic_of(x);

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

#endif
