/* SPDX-License-Identifier: Apache-2.0 */
/* Layer norm and RMS norm with their residual and dropout, one pass over memory.
 *
 * Forward, per row: s = x + dropout(sub); mean and 1 / sigma; y = (s - mean) / sigma *
 * gamma + beta.  Backward, with n = (s - mean) / sigma and g = dy gamma: ds = (g -
 * mean(g) - n mean(g n)) / sigma (RMS: without mean(g)).  Gradients of gamma and beta
 * are summed over fixed row blocks and the blocks added in order. */
#include "cpu_impl.h"
#include "vecmath.h"

enum { NORM_BLOCK = 32, NORM_BLOCKS = 64 };

struct norm {
    struct kd_backend *be;
    const struct kd_norm *norm;
    const struct kd_dropout *drop;
    const float *x, *sub;
    float *sum, *y, *stats;
    int64_t rows, cols;
};

/* S[cols] = x + dropout(sub) of row R. */
static void residual_row(const struct norm *p, int64_t r, float *s)
{
    int64_t cols = p->cols;
    const float *x = p->x ? p->x + r * cols : NULL,
                *sub = p->sub ? p->sub + r * cols : NULL;
    float mask[CPU_DROP];

    if (!sub) {
        memcpy(s, x, (size_t)cols * sizeof *s);
        return;
    }
    if (!cpu_drops(p->drop)) {
        for (int64_t c = 0; c < cols; c++)
            s[c] = x ? x[c] + sub[c] : sub[c];
        return;
    }
    for (int64_t c0 = 0; c0 < cols; c0 += CPU_DROP) {
        int64_t n = cpu_min(CPU_DROP, cols - c0);

        cpu_drop_mask(p->drop, p->drop->site, r, c0, n, mask);
        for (int64_t c = 0; c < n; c++)
            s[c0 + c] = mask[c] * sub[c0 + c] + (x ? x[c0 + c] : 0.0f);
    }
}

/* MEAN (0 for RMS) and 1 / SIGMA of S[n]. */
static void row_stats(const struct kd_norm *norm, const float *s, int64_t n,
                      float stats[2])
{
    float mean = 0.0f, square = 0.0f;

    if (norm->kind == KD_NORM_LAYER) {
#pragma omp simd reduction(+ : mean)
        for (int64_t c = 0; c < n; c++)
            mean += s[c];
        mean /= (float)n;
    }
#pragma omp simd reduction(+ : square)
    for (int64_t c = 0; c < n; c++)
        square += (s[c] - mean) * (s[c] - mean);
    stats[0] = mean;
    stats[1] = 1.0f / sqrtf(square / (float)n + norm->eps);
}

static void norm_row(const struct norm *p, int64_t r, float *buffer)
{
    int64_t cols = p->cols;
    float *s = p->sum ? p->sum + r * cols : buffer, *y = p->y + r * cols;
    const float *gamma = p->norm->gamma, *beta = p->norm->beta;
    float stats[2];

    residual_row(p, r, s);
    row_stats(p->norm, s, cols, stats);
    if (p->stats)
        memcpy(p->stats + 2 * r, stats, sizeof stats);
    if (beta)
        for (int64_t c = 0; c < cols; c++)
            y[c] = (s[c] - stats[0]) * stats[1] * gamma[c] + beta[c];
    else
        for (int64_t c = 0; c < cols; c++)
            y[c] = (s[c] - stats[0]) * stats[1] * gamma[c];
}

static void norm_task(void *arg, int64_t task, int thread)
{
    const struct norm *p = arg;
    int64_t per = cpu_rows_per_task(p->cols), end = cpu_min(p->rows, (task + 1) * per);

    for (int64_t r = task * per; r < end; r++)
        norm_row(p, r, cpu_thread_scratch(p->be, thread));
}

int cpu_norm(struct kd_backend *be, const struct kd_norm *norm, struct kd_tensor x,
             struct kd_tensor sub, const struct kd_dropout *drop, struct kd_tensor sum,
             struct kd_tensor y, float *stats)
{
    int64_t rows = y.shape[0], cols = y.shape[1];
    struct norm p = {be,       norm,   drop,  x.data, sub.data,
                     sum.data, y.data, stats, rows,   cols};

    KD_TRY(cpu_f32("norm", x.dtype | sub.dtype | sum.dtype | y.dtype));
    KD_TRY(cpu_scratch(be, (size_t)cols * sizeof(float), 0));
    cpu_for(be, cpu_ceil_div(rows, cpu_rows_per_task(cols)), norm_task, &p);
    return KD_OK;
}

struct norm_back {
    const struct kd_norm *norm;
    const struct kd_dropout *drop;
    const float *sum, *stats, *dy, *dsum;
    float *dx, *dsub, *dgamma, *dbeta;
    float *partial; /* [blocks, 2, cols]: dgamma, dbeta */
    bool acc_dx;
    int64_t rows, cols, block_rows;
};

/* DS[cols] of row R into dsub through the dropout. */
static void sub_row(const struct norm_back *p, int64_t r, const float *ds)
{
    float mask[CPU_DROP];
    float *dsub = p->dsub + r * p->cols;

    if (!cpu_drops(p->drop)) {
        if (dsub != ds)
            memcpy(dsub, ds, (size_t)p->cols * sizeof *ds);
        return;
    }
    for (int64_t c0 = 0; c0 < p->cols; c0 += CPU_DROP) {
        int64_t n = cpu_min(CPU_DROP, p->cols - c0);

        cpu_drop_mask(p->drop, p->drop->site, r, c0, n, mask);
        for (int64_t c = 0; c < n; c++)
            dsub[c0 + c] = mask[c] * ds[c0 + c];
    }
}

/* The two means over a row of the formula above; also adds the row to the partial
 * gradients of gamma and beta. */
static void back_means(const struct norm_back *p, int64_t r, float *dgamma,
                       float *dbeta, float means[2])
{
    const float *s = p->sum + r * p->cols, *dy = p->dy + r * p->cols,
                *gamma = p->norm->gamma;
    float mean = p->stats[2 * r], scale = p->stats[2 * r + 1];
    float sum_g = 0.0f, sum_gn = 0.0f;

#pragma omp simd reduction(+ : sum_g, sum_gn)
    for (int64_t c = 0; c < p->cols; c++) {
        float n = (s[c] - mean) * scale, d = dy[c], g = d * gamma[c];

        dgamma[c] += d * n;
        dbeta[c] += d;
        sum_g += g;
        sum_gn += g * n;
    }
    means[0] = p->norm->kind == KD_NORM_LAYER ? sum_g / (float)p->cols : 0.0f;
    means[1] = sum_gn / (float)p->cols;
}

static void back_row(const struct norm_back *p, int64_t r, float *partial)
{
    int64_t cols = p->cols;
    const float *s = p->sum + r * cols, *dy = p->dy + r * cols, *gamma = p->norm->gamma,
                *dsum = p->dsum ? p->dsum + r * cols : NULL;
    float *dx = p->dx ? p->dx + r * cols : NULL;
    float mean = p->stats[2 * r], scale = p->stats[2 * r + 1];
    float *ds = partial + 2 * cols; /* [cols], behind the two partial rows */
    float means[2];

    back_means(p, r, partial, partial + cols, means);
    for (int64_t c = 0; c < cols; c++) {
        float n = (s[c] - mean) * scale;

        ds[c] = (dy[c] * gamma[c] - means[0] - n * means[1]) * scale;
    }
    if (dsum)
        for (int64_t c = 0; c < cols; c++)
            ds[c] += dsum[c];
    if (dx && p->acc_dx)
        for (int64_t c = 0; c < cols; c++)
            dx[c] += ds[c];
    else if (dx)
        memcpy(dx, ds, (size_t)cols * sizeof *dx);
    if (p->dsub)
        sub_row(p, r, ds);
}

static void norm_back_task(void *arg, int64_t task, int thread)
{
    const struct norm_back *p = arg;
    int64_t first = task * p->block_rows, end = cpu_min(p->rows, first + p->block_rows);
    float *partial = p->partial + task * 3 * p->cols;

    (void)thread;
    memset(partial, 0, 2 * (size_t)p->cols * sizeof *partial);
    for (int64_t r = first; r < end; r++)
        back_row(p, r, partial);
}

int cpu_norm_back(struct kd_backend *be, const struct kd_norm *norm,
                  struct kd_tensor sum, const float *stats, struct kd_tensor dy,
                  struct kd_tensor dsum, const struct kd_dropout *drop,
                  struct kd_tensor dx, bool acc_dx, struct kd_tensor dsub,
                  float *dgamma, float *dbeta)
{
    int64_t rows = dy.shape[0], cols = dy.shape[1], n_blocks;
    struct norm_back p = {norm,      drop,    sum.data,  stats,  dy.data,
                          dsum.data, dx.data, dsub.data, dgamma, dbeta,
                          NULL,      acc_dx,  rows,      cols,   0};

    KD_TRY(cpu_f32("norm_back",
                   sum.dtype | dy.dtype | dsum.dtype | dx.dtype | dsub.dtype));
    p.block_rows = cpu_max(NORM_BLOCK, cpu_ceil_div(rows, NORM_BLOCKS));
    n_blocks = cpu_ceil_div(rows, p.block_rows);
    KD_TRY(cpu_scratch(be, 0, (size_t)(n_blocks * 3 * cols) * sizeof(float)));
    p.partial = cpu_shared_scratch(be);
    cpu_for(be, n_blocks, norm_back_task, &p);
    for (int64_t b = 0; b < n_blocks; b++) {
        const float *partial = p.partial + b * 3 * cols;

        for (int64_t c = 0; dgamma && c < cols; c++)
            dgamma[c] += partial[c];
        for (int64_t c = 0; dbeta && c < cols; c++)
            dbeta[c] += partial[cols + c];
    }
    return KD_OK;
}
