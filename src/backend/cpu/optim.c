/* SPDX-License-Identifier: Apache-2.0 */
/* Optimiser steps: AdamW in one pass over a flat range, Adafactor in three over a
 * matrix (row and column means; size of the update; update).
 *
 * Moments in bfloat16 pass through float32 buffers that stay in cache, and are rounded
 * as tensor/rounding.h says.
 *
 * Scalars such as bias corrections are made in float64.  Adafactor's sums over rows and
 * over the whole matrix go through fixed row blocks that are added in order. */
#include "cpu_impl.h"
#include "kdhpc/tensor/rounding.h"

#include <math.h>
#include <string.h>

/* The bfloat16 copy of PARAM[n], where there is one. */
static void write_copy(uint16_t *copy, const float *param, int64_t n)
{
    for (int64_t i = 0; copy && i < n; i++)
        copy[i] = kd_f32_to_bf16(param[i]);
}

struct adamw {
    const struct kd_adamw *a;
    float beta1, beta2, fresh1, fresh2; /* fresh = 1 - beta, not from float betas */
    float rate;                         /* of the update m / (sqrt(v) c + eps) */
    float root_scale;                   /* c */
    float decay_before, decay_after, eps, grad_scale;
};

/* N values; all pointers are to the first of them. */
static void adamw_values(const struct adamw *p, float *restrict param,
                         const float *restrict grad, float *restrict m,
                         float *restrict v, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float g = grad[i] * p->grad_scale;
        float mi = p->beta1 * m[i] + p->fresh1 * g;
        float vi = p->beta2 * v[i] + p->fresh2 * (g * g);
        float x = param[i] * p->decay_before;

        m[i] = mi;
        v[i] = vi;
        x -= p->rate * mi / (sqrtf(vi) * p->root_scale + p->eps);
        param[i] = x * p->decay_after;
    }
}

enum { ROUNDED_BLOCK = 1024 }; /* values between memory and float32 buffers */

static void load_bf16(const uint16_t *from, int64_t n, float *to)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)from[i] << 16;

        memcpy(to + i, &bits, sizeof bits);
    }
}

/* TO[n] = FROM rounded by the 16 bits of RANDOM from SHIFT on. */
static void store_rounded(const float *from, int64_t n, const uint32_t *random,
                          int shift, uint16_t *to)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;

        memcpy(&bits, from + i, sizeof bits);
        to[i] = (uint16_t)(kd_round_stochastic(bits, random[i] >> shift) >> 16);
    }
}

/* Values AT .. AT + N of the range, N <= ROUNDED_BLOCK, with moments in bfloat16. */
static void adamw_rounded(const struct adamw *p, int64_t at, int64_t n)
{
    const struct kd_adamw *a = p->a;
    uint16_t *m16 = (uint16_t *)a->m + at, *v16 = (uint16_t *)a->v + at;
    float m[ROUNDED_BLOCK], v[ROUNDED_BLOCK];
    uint32_t random[ROUNDED_BLOCK + 8];
    uint64_t index = (uint64_t)(a->first + at);
    int64_t before = (int64_t)(index % 4), fours = cpu_ceil_div(before + n, 4);

    load_bf16(m16, n, m);
    load_bf16(v16, n, v);
    adamw_values(p, a->param + at, a->grad + at, m, v, n);
#pragma omp simd
    for (int64_t i = 0; i < fours; i++)
        kd_rounding_random(a->seed, (uint32_t)a->step, index / 4 + (uint64_t)i,
                           random + 4 * i);
    store_rounded(m, n, random + before, 0, m16);
    store_rounded(v, n, random + before, 16, v16);
}

static void adamw_task(void *arg, int64_t task, int thread)
{
    const struct adamw *p = arg;
    const struct kd_adamw *a = p->a;
    int64_t first = task * CPU_FLAT, n = cpu_min(a->n - first, CPU_FLAT);

    (void)thread;
    if (a->moments == KD_F32)
        adamw_values(p, a->param + first, a->grad + first, (float *)a->m + first,
                     (float *)a->v + first, n);
    for (int64_t i = 0; a->moments == KD_BF16 && i < n; i += ROUNDED_BLOCK)
        adamw_rounded(p, first + i, cpu_min(ROUNDED_BLOCK, n - i));
    write_copy(a->copy ? a->copy + first : NULL, a->param + first, n);
}

int cpu_adamw(struct kd_backend *be, const struct kd_adamw *a)
{
    double correct1 = 1.0 - pow(a->beta1, (double)a->step),
           correct2 = 1.0 - pow(a->beta2, (double)a->step);
    float decay = (float)(1.0 - a->lr * a->weight_decay);
    struct adamw p = {.a = a,
                      .beta1 = (float)a->beta1,
                      .beta2 = (float)a->beta2,
                      .fresh1 = (float)(1.0 - a->beta1),
                      .fresh2 = (float)(1.0 - a->beta2),
                      .decay_before = a->hf_order ? 1.0f : decay,
                      .decay_after = a->hf_order ? decay : 1.0f,
                      .eps = (float)a->eps,
                      .grad_scale = (float)a->grad_scale};

    /* hf: lr sqrt(c2) / c1 * m / (sqrt(v) + eps); torch: lr / c1 * m / (sqrt(v / c2) +
     * eps) */
    p.rate =
        (float)(a->hf_order ? a->lr * sqrt(correct2) / correct1 : a->lr / correct1);
    p.root_scale = a->hf_order ? 1.0f : (float)(1.0 / sqrt(correct2));
    cpu_for(be, cpu_ceil_div(a->n, CPU_FLAT), adamw_task, &p);
    return KD_OK;
}

enum { ROW_BLOCKS = 64 };

struct adafactor {
    const struct kd_adafactor *a;
    float keep;         /* of the running means */
    float row_scale;    /* 1 / mean(row), factored */
    float rate, decay;  /* of the last pass */
    int64_t block_rows; /* rows of a task */
    float *partial;     /* [blocks, cols]: column sums of the squares */
    double *sums;       /* [blocks]: of the squared update */
};

static void task_rows(const struct adafactor *p, int64_t task, int64_t *r, int64_t *end)
{
    *r = task * p->block_rows;
    *end = cpu_min(p->a->rows, *r + p->block_rows);
}

/* Running means of u = g^2 + eps: rows now, columns as partial sums; or all of u. */
static void mean_task(void *arg, int64_t task, int thread)
{
    const struct adafactor *p = arg;
    const struct kd_adafactor *a = p->a;
    int64_t cols = a->cols, r, end;
    float scale = (float)a->grad_scale, eps = (float)a->eps, fresh = 1.0f - p->keep;
    float *partial = p->partial + task * cols;

    (void)thread;
    memset(partial, 0, (size_t)cols * sizeof *partial);
    for (task_rows(p, task, &r, &end); r < end; r++) {
        const float *grad = a->grad + r * cols;
        float sum = 0.0f;

        if (!a->factored) {
            for (int64_t c = 0; c < cols; c++) {
                float g = grad[c] * scale, *v = a->row + r * cols + c;

                *v = p->keep * *v + fresh * (g * g + eps);
            }
            continue;
        }
#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < cols; c++) {
            float g = grad[c] * scale, u = g * g + eps;

            partial[c] += u;
            sum += u;
        }
        a->row[r] = p->keep * a->row[r] + fresh * sum / (float)cols;
    }
}

/* The update of row R before lr and clipping is G[c] * factor of (r, c). */
static float row_factor(const struct adafactor *p, int64_t r)
{
    return (float)p->a->grad_scale *
           (p->a->factored ? 1.0f / sqrtf(p->a->row[r] * p->row_scale) : 1.0f);
}

static void size_task(void *arg, int64_t task, int thread)
{
    const struct adafactor *p = arg;
    const struct kd_adafactor *a = p->a;
    int64_t cols = a->cols, r, end;
    double sum = 0.0;

    (void)thread;
    for (task_rows(p, task, &r, &end); r < end; r++) {
        const float *grad = a->grad + r * cols,
                    *v = a->factored ? a->col : a->row + r * cols;
        float factor = row_factor(p, r);

#pragma omp simd reduction(+ : sum)
        for (int64_t c = 0; c < cols; c++) {
            float u = grad[c] * factor / sqrtf(v[c]);

            sum += (double)u * (double)u;
        }
    }
    p->sums[task] = sum;
}

static void apply_task(void *arg, int64_t task, int thread)
{
    const struct adafactor *p = arg;
    const struct kd_adafactor *a = p->a;
    int64_t cols = a->cols, r, end;

    (void)thread;
    for (task_rows(p, task, &r, &end); r < end; r++) {
        const float *grad = a->grad + r * cols,
                    *v = a->factored ? a->col : a->row + r * cols;
        float *param = a->param + r * cols, factor = row_factor(p, r) * p->rate;

        for (int64_t c = 0; c < cols; c++)
            param[c] = param[c] * p->decay - grad[c] * factor / sqrtf(v[c]);
        write_copy(a->copy ? a->copy + r * cols : NULL, param, cols);
    }
}

/* Column means from the partial sums, and 1 / the mean of the row means. */
static void finish_means(struct adafactor *p, int64_t n_blocks)
{
    const struct kd_adafactor *a = p->a;
    double row_sum = 0.0;
    float fresh = (1.0f - p->keep) / (float)a->rows;

    for (int64_t c = 0; c < a->cols; c++)
        a->col[c] *= p->keep;
    for (int64_t b = 0; b < n_blocks; b++) {
        for (int64_t c = 0; c < a->cols; c++)
            a->col[c] += fresh * p->partial[b * a->cols + c];
    }
    for (int64_t r = 0; r < a->rows; r++)
        row_sum += a->row[r];
    p->row_scale = (float)((double)a->rows / row_sum);
}

int cpu_adafactor(struct kd_backend *be, const struct kd_adafactor *a)
{
    struct adafactor p = {
        .a = a,
        .keep = (float)(1.0 - pow((double)a->step, a->decay_rate)),
        .decay = (float)(1.0 - a->lr * a->weight_decay),
        .block_rows =
            cpu_max(cpu_rows_per_task(a->cols), cpu_ceil_div(a->rows, ROW_BLOCKS)),
    };
    int64_t n_blocks = cpu_ceil_div(a->rows, p.block_rows);
    double sum = 0.0, rms;

    KD_TRY(cpu_scratch(
        be, 0, (size_t)n_blocks * ((size_t)a->cols * sizeof(float) + sizeof(double))));
    p.sums = cpu_shared_scratch(be);
    p.partial = (float *)(p.sums + n_blocks);
    cpu_for(be, n_blocks, mean_task, &p);
    if (a->factored)
        finish_means(&p, n_blocks);
    cpu_for(be, n_blocks, size_task, &p);
    for (int64_t b = 0; b < n_blocks; b++)
        sum += p.sums[b];
    rms = sqrt(sum / (double)cpu_max(1, a->rows * a->cols));
    p.rate = (float)(a->lr / fmax(1.0, rms / a->clip_threshold));
    cpu_for(be, n_blocks, apply_task, &p);
    return KD_OK;
}
