/* SPDX-License-Identifier: Apache-2.0 */
/* Reductions over rows and columns: column sums, log-softmax, the largest k, and the
 * sum of squares.
 *
 * Sums over many rows go through partial sums of fixed row blocks that are added in
 * block order; sums that feed a logarithm or a norm are in float64. */
#include "cpu_impl.h"
#include "vecmath.h"

enum { COL_BLOCK = 64, MAX_BLOCKS = 32 };

struct col_sum {
    struct kd_backend *be;
    struct kd_mat x;
    float *partial, *out; /* partial [blocks, cols] */
    int64_t block_rows, n_blocks;
    bool acc;
};

static void col_sum_task(void *arg, int64_t task, int thread)
{
    const struct col_sum *s = arg;
    int64_t cols = s->x.cols, first = task * s->block_rows,
            end = cpu_min(s->x.rows, first + s->block_rows);
    float *sum = s->partial + task * cols;

    (void)thread;
    memset(sum, 0, (size_t)cols * sizeof *sum);
    for (int64_t r = first; r < end; r++) {
        const float *x = (const float *)s->x.data + r * s->x.ld;

        for (int64_t c = 0; c < cols; c++)
            sum[c] += x[c];
    }
}

int cpu_col_sum(struct kd_backend *be, struct kd_mat x, float *out, bool acc)
{
    struct col_sum s = {.be = be, .x = x, .out = out, .acc = acc};

    KD_TRY(cpu_f32("col_sum", x.dtype));
    s.block_rows = cpu_max(COL_BLOCK, cpu_ceil_div(x.rows, MAX_BLOCKS));
    s.n_blocks = cpu_ceil_div(x.rows, s.block_rows);
    KD_TRY(cpu_scratch(be, 0, (size_t)(s.n_blocks * x.cols) * sizeof(float)));
    s.partial = cpu_shared_scratch(be);
    cpu_for(be, s.n_blocks, col_sum_task, &s);
    if (!acc)
        memset(out, 0, (size_t)x.cols * sizeof *out);
    for (int64_t b = 0; b < s.n_blocks; b++) {
        for (int64_t c = 0; c < x.cols; c++)
            out[c] += s.partial[b * x.cols + c];
    }
    return KD_OK;
}

struct rows {
    float *x;
    int64_t rows, cols;
};

/* log softmax(x) = (x - SUMS[0]) - SUMS[1] */
static void row_sums(const float *x, int64_t n, float sums[2])
{
    float top = vm_max(x, n);
    double sum = 0.0;

#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += (double)vm_exp(x[i] - top);
    sums[0] = top;
    sums[1] = (float)log(sum);
}

static void log_softmax_row(float *x, int64_t n)
{
    float sums[2];

    row_sums(x, n, sums);
    for (int64_t i = 0; i < n; i++)
        x[i] = (x[i] - sums[0]) - sums[1];
}

static void log_softmax_task(void *arg, int64_t task, int thread)
{
    const struct rows *p = arg;
    int64_t per = cpu_rows_per_task(p->cols), end = cpu_min(p->rows, (task + 1) * per);

    (void)thread;
    for (int64_t r = task * per; r < end; r++)
        log_softmax_row(p->x + r * p->cols, p->cols);
}

int cpu_log_softmax(struct kd_backend *be, float *x, int64_t rows, int64_t cols)
{
    struct rows p = {x, rows, cols};

    if (cols > 0)
        cpu_for(be, cpu_ceil_div(rows, cpu_rows_per_task(cols)), log_softmax_task, &p);
    return KD_OK;
}

struct log_sum {
    const float *x;
    int64_t rows, cols;
    float *sums;
};

static void log_sum_task(void *arg, int64_t task, int thread)
{
    const struct log_sum *p = arg;
    int64_t per = cpu_rows_per_task(p->cols), end = cpu_min(p->rows, (task + 1) * per);

    (void)thread;
    for (int64_t r = task * per; r < end; r++)
        row_sums(p->x + r * p->cols, p->cols, p->sums + 2 * r);
}

int cpu_log_sum(struct kd_backend *be, const float *x, int64_t rows, int64_t cols,
                float *sums)
{
    struct log_sum p = {x, rows, cols, sums};

    if (cols > 0)
        cpu_for(be, cpu_ceil_div(rows, cpu_rows_per_task(cols)), log_sum_task, &p);
    return KD_OK;
}

struct topk {
    const float *x, *sums;
    int64_t rows, cols, k;
    float *values;
    int32_t *columns;
};

/* Put (v, c) into the descending list of N; equal values stay before it. */
static void insert(float *values, int32_t *columns, int64_t n, float v, int32_t c)
{
    int64_t i = n;

    for (; i > 0 && v > values[i - 1]; i--) {
        values[i] = values[i - 1];
        columns[i] = columns[i - 1];
    }
    values[i] = v;
    columns[i] = c;
}

/* What a column is ranked by: X less a row's two sums, which may be 0; NaN counts as
 * minus infinity. */
static inline float ranked(float x, const float sums[2])
{
    float v = (x - sums[0]) - sums[1];

    return v != v ? -INFINITY : v;
}

/* Columns come in ascending order and must beat the smallest kept, so ties keep the
 * lowest column.  A run of columns is searched only if one of them beats it. */
static void topk_row(const float *x, const float sums[2], int64_t n, int64_t k,
                     float *values, int32_t *columns)
{
    enum { RUN = 64 };

    for (int64_t c = 0; c < k; c++)
        insert(values, columns, c, ranked(x[c], sums), (int32_t)c);
    for (int64_t i = k; i < n; i += RUN) {
        int64_t end = cpu_min(n, i + RUN);
        float least = values[k - 1];
        int any = 0;

#pragma omp simd reduction(| : any)
        for (int64_t c = i; c < end; c++)
            any |= (x[c] - sums[0]) - sums[1] > least;
        for (int64_t c = i; any && c < end; c++) {
            float v = ranked(x[c], sums);

            if (v > values[k - 1])
                insert(values, columns, k - 1, v, (int32_t)c);
        }
    }
}

static void topk_task(void *arg, int64_t task, int thread)
{
    static const float none[2] = {0.0f, 0.0f};
    const struct topk *t = arg;
    int64_t per = cpu_rows_per_task(t->cols), end = cpu_min(t->rows, (task + 1) * per);

    (void)thread;
    for (int64_t r = task * per; r < end; r++)
        topk_row(t->x + r * t->cols, t->sums ? t->sums + 2 * r : none, t->cols, t->k,
                 t->values + r * t->k, t->columns + r * t->k);
}

int cpu_topk(struct kd_backend *be, const float *x, const float *sums, int64_t rows,
             int64_t cols, int64_t k, float *values, int32_t *columns)
{
    struct topk t = {x, sums, rows, cols, k, values, columns};

    if (k > 0)
        cpu_for(be, cpu_ceil_div(rows, cpu_rows_per_task(cols)), topk_task, &t);
    return KD_OK;
}

struct sum_sq {
    const float *x;
    int64_t n;
    double *partial;
};

static void sum_sq_task(void *arg, int64_t task, int thread)
{
    const struct sum_sq *s = arg;
    const float *x = s->x + task * CPU_FLAT;
    int64_t n = cpu_min(CPU_FLAT, s->n - task * CPU_FLAT);
    double sum = 0.0;

    (void)thread;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    s->partial[task] = sum;
}

int cpu_sum_sq(struct kd_backend *be, const struct kd_span *spans, int64_t n_spans,
               double *out)
{
    *out = 0.0;
    for (int64_t i = 0; i < n_spans; i++) {
        int64_t n_blocks = cpu_ceil_div(spans[i].n, CPU_FLAT);
        struct sum_sq s = {.x = spans[i].x, .n = spans[i].n};

        KD_TRY(cpu_scratch(be, 0, (size_t)n_blocks * sizeof(double)));
        s.partial = cpu_shared_scratch(be);
        cpu_for(be, n_blocks, sum_sq_task, &s);
        for (int64_t b = 0; b < n_blocks; b++)
            *out += s.partial[b];
    }
    return KD_OK;
}
