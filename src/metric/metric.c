/* SPDX-License-Identifier: Apache-2.0 */
/* Reductions of per-example metrics: means in example order and percentile bounds of
 * the bootstrap (Efron, 1979), from counter-based random numbers, so that the same rows
 * and seed give the same digits anywhere. */
#include "kdhpc/metric/metric.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/rng.h"

#include <math.h>
#include <stdlib.h>

static double mean_of(const double *v, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += v[i];
    return n > 0 ? sum / (double)n : 0;
}

/* The examples DRAWN[4] of resample R at I..I + 3: four draws a block of random words.
 * N is far below 2^32. */
static void draw(uint64_t seed, int64_t r, int64_t i, int64_t n, int64_t drawn[4])
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const uint32_t ctr[4] = {(uint32_t)(i / 4), (uint32_t)(i / 4 >> 32), (uint32_t)r,
                             KD_RNG_BOOTSTRAP};
    uint32_t word[4];

    kd_philox(key, ctr, word);
    for (int k = 0; k < 4; k++)
        drawn[k] = (int64_t)(word[k] * 0x1p-32 * (double)n);
}

static double resampled_mean(const double *v, int64_t n, uint64_t seed, int64_t r)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i += 4) {
        int64_t drawn[4];

        draw(seed, r, i, n, drawn);
        for (int64_t k = 0; k < 4 && i + k < n; k++)
            sum += v[drawn[k]];
    }
    return sum / (double)n;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Percentile Q in [0, 1] of sorted V[n], linear between neighbours. */
static double percentile(const double *v, int64_t n, double q)
{
    double at = q * (double)(n - 1);
    int64_t below = (int64_t)floor(at), above = below + 1 < n ? below + 1 : below;

    return v[below] + (v[above] - v[below]) * (at - (double)below);
}

static void bounds(double *v, int64_t n, double *low, double *high)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    *low = percentile(v, n, 0.025);
    *high = percentile(v, n, 0.975);
}

int kd_bootstrap(const double *v, int64_t n, int64_t n_resamples, uint64_t seed,
                 double *mean, double *low, double *high)
{
    double *means = NULL;

    *mean = *low = *high = mean_of(v, n);
    if (n < 1 || n_resamples < 1)
        return KD_OK;
    KD_TRY(kd_calloc(n_resamples, sizeof *means, &means));
    for (int64_t r = 0; r < n_resamples; r++)
        means[r] = resampled_mean(v, n, seed, r);
    bounds(means, n_resamples, low, high);
    free(means);
    return KD_OK;
}

/* Sums over resample R. */
static void resampled_sums(const double *rows, int64_t n, int64_t width, uint64_t seed,
                           int64_t r, double *sums)
{
    for (int64_t j = 0; j < width; j++)
        sums[j] = 0;
    for (int64_t i = 0; i < n; i += 4) {
        int64_t drawn[4];

        draw(seed, r, i, n, drawn);
        for (int64_t k = 0; k < 4 && i + k < n; k++)
            for (int64_t j = 0; j < width; j++)
                sums[j] += rows[drawn[k] * width + j];
    }
}

int kd_bootstrap_sums(const double *rows, int64_t n, int64_t width, int64_t n_resamples,
                      uint64_t seed, double (*score)(const double *sums, void *arg),
                      void *arg, double *low, double *high)
{
    double *scores = NULL, *sums = NULL;
    int rc = KD_OK;

    KD_GO(kd_calloc(n_resamples, sizeof *scores, &scores));
    KD_GO(kd_calloc(width, sizeof *sums, &sums));
    for (int64_t r = 0; r < n_resamples; r++) {
        resampled_sums(rows, n, width, seed, r, sums);
        scores[r] = score(sums, arg);
    }
    bounds(scores, n_resamples, low, high);
out:
    free(scores);
    free(sums);
    return rc;
}
