/* SPDX-License-Identifier: Apache-2.0 */
/* The arithmetic of sampling, for every backend: scores become integers, so that sums
 * and comparisons are exact, whatever order a backend takes, and all draw the same
 * token from the same scores.
 *
 * A key orders scores.  A weight is exp((score - largest) / temperature) in units of
 * 2^-bits, cut off, where bits leaves room for the sum of a row below 2^62: at 2^17
 * tokens units of 3e-14.  The exponential is float32 (within 2e-7), of fused
 * multiply-adds only, which leave a compiler no choice of rounding. */
#ifndef KDHPC_TENSOR_SAMPLING_H
#define KDHPC_TENSOR_SAMPLING_H

#include "kdhpc/base/rng.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

/* A key is searched for digit by digit, from the top. */
enum { KD_SAMPLE_DIGIT_BITS = 8, KD_SAMPLE_DIGITS = 1 << KD_SAMPLE_DIGIT_BITS };

/** Ascending with V; 0 for what cannot be drawn: -inf and NaN.  Local. */
KD_DEVICE static inline uint32_t kd_sample_key(float v)
{
    uint32_t u;

    if (v != v || v == -INFINITY)
        return 0;
    v += 0.0f; /* -0 is 0 */
    memcpy(&u, &v, sizeof u);
    return u >> 31 ? ~u : u | 0x80000000u;
}

/** The score of a key other than 0.  Local. */
KD_DEVICE static inline float kd_sample_score(uint32_t key)
{
    const uint32_t u = key >> 31 ? key & 0x7fffffffu : ~key;
    float v;

    memcpy(&v, &u, sizeof v);
    return v;
}

/** Bits below the point of a weight, for rows of COLS scores.  Local. */
KD_DEVICE static inline int kd_sample_bits(int64_t cols)
{
    int bits = 62;

    while (bits > 0 && (int64_t)1 << (62 - bits) < cols)
        bits--;
    return bits;
}

/** The weight of score V <= TOP at a temperature, 2^BITS for TOP itself.  Local. */
KD_DEVICE static inline uint64_t kd_sample_weight(float v, float top, float temperature,
                                                  int bits)
{
    const float x = (v - top) / temperature, round = 12582912.0f; /* 1.5 * 2^23 */
    float n, r, y;
    int shift;

    if (v == top)
        return (uint64_t)1 << bits;
    if (!(x > -64.0f))
        return 0;
    n = fmaf(x, 1.44269504f, round) - round;
    r = fmaf(n, -0.693359375f, x); /* x - n ln 2, in two parts */
    r = fmaf(n, 2.12194440e-4f, r);
    y = fmaf(1.98412698e-4f, r, 1.38888889e-3f); /* exp(r), |r| below 0.35 */
    y = fmaf(y, r, 8.33333333e-3f);
    y = fmaf(y, r, 4.16666667e-2f);
    y = fmaf(y, r, 1.66666667e-1f);
    y = fmaf(y, r, 0.5f);
    y = fmaf(y, r, 1.0f);
    y = fmaf(y, r, 1.0f);
    shift = (int)n + bits - 24;
    return shift >= 0    ? (uint64_t)(y * 16777216.0f) << shift
           : shift > -64 ? (uint64_t)(y * 16777216.0f) >> -shift
                         : 0;
}

/** FRACTION of TOTAL > 0, below it.  Local. */
KD_DEVICE static inline uint64_t kd_sample_share(double fraction, uint64_t total)
{
    const double share = fraction * (double)total;

    return share < (double)(total - 1) ? (uint64_t)share : total - 1;
}

/** Whether typical sampling is on.  Local. */
KD_DEVICE static inline bool kd_sample_typical(double typical_p)
{
    return typical_p > 0.0 && typical_p < 1.0;
}

/** W times how far score V is below TOP, over the temperature: the surprise of V less
 * that of TOP.  Sums over a row stay below 2^62.  Local. */
KD_DEVICE static inline uint64_t kd_sample_surprise(uint64_t w, float v, float top,
                                                    float temperature)
{
    return w == 0 ? 0 : (uint64_t)((double)w * (double)((top - v) / temperature));
}

/** How far the surprise of V is from MEAN, that of the row, both less that of TOP.
 * Local. */
KD_DEVICE static inline float kd_sample_distance(float v, float top, float temperature,
                                                 float mean)
{
    return fabsf((top - v) / temperature - mean);
}

/** The least weight of a token whose share of TOTAL is SHARE or more.  Local. */
KD_DEVICE static inline uint64_t kd_sample_at_least(double share, uint64_t total)
{
    const double weight = ceil(share * (double)total);

    return weight < (double)total ? (uint64_t)weight : total;
}

/** The share of eta sampling: min(eta, sqrt(eta) exp(-entropy)) for a row whose weights
 * add to TOTAL and its surprises to SURPRISE.  Local. */
KD_DEVICE static inline double kd_sample_eta(double eta, uint64_t total,
                                             uint64_t surprise, int bits)
{
    const double share = sqrt(eta) * exp(-(double)surprise / (double)total) *
                         ((double)((uint64_t)1 << bits) / (double)total);

    return share < eta ? share : eta;
}

/** The log-probability of score V where weights add to TOTAL.  Local. */
KD_DEVICE static inline double kd_sample_log_prob(float v, float top, float temperature,
                                                  int bits, uint64_t total)
{
    const double x = v == top ? 0.0 : ((double)v - (double)top) / (double)temperature;

    return x - log((double)total / (double)((uint64_t)1 << bits));
}

#endif
