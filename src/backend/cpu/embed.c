/* SPDX-License-Identifier: Apache-2.0 */
/* Table lookups and their gradient.
 *
 * The gradient adds rows that may share a table row, so a task owns a strip of columns
 * of the whole table and walks all rows in order: no two tasks touch the same value,
 * no sorting, and each table row receives its parts in ascending row order. */
#include "cpu_impl.h"

enum { STRIP = 32 };

struct gather {
    const float *table, *pos;
    const int32_t *ids, *pos_ids;
    float scale;
    float *out;
    int64_t rows, cols;
};

static void gather_task(void *arg, int64_t task, int thread)
{
    const struct gather *g = arg;
    int64_t cols = g->cols, per = cpu_rows_per_task(cols),
            end = cpu_min(g->rows, (task + 1) * per);

    (void)thread;
    for (int64_t r = task * per; r < end; r++) {
        const float *x = g->table + g->ids[r] * cols;
        float *out = g->out + r * cols;

        if (g->pos) {
            const float *p = g->pos + g->pos_ids[r] * cols;

            for (int64_t c = 0; c < cols; c++)
                out[c] = g->scale * x[c] + p[c];
        } else {
            for (int64_t c = 0; c < cols; c++)
                out[c] = g->scale * x[c];
        }
    }
}

int cpu_gather_rows(struct kd_backend *be, struct kd_tensor table, const int32_t *ids,
                    float scale, struct kd_tensor pos, const int32_t *pos_ids,
                    struct kd_tensor out)
{
    int64_t rows = out.shape[0], cols = out.shape[1];
    struct gather g = {table.data, pos.data, ids, pos_ids, scale, out.data, rows, cols};

    KD_TRY(cpu_f32("gather_rows", table.dtype | pos.dtype | out.dtype));
    cpu_for(be, cpu_ceil_div(rows, cpu_rows_per_task(cols)), gather_task, &g);
    return KD_OK;
}

struct scatter {
    const float *dx;
    const int32_t *ids;
    int32_t skip_id;
    float scale;
    float *table;
    int64_t rows, cols;
};

static void scatter_task(void *arg, int64_t task, int thread)
{
    const struct scatter *s = arg;
    int64_t first = task * STRIP, n = cpu_min(STRIP, s->cols - first);

    (void)thread;
    for (int64_t r = 0; r < s->rows; r++) {
        const float *x = s->dx + r * s->cols + first;
        float *t = s->table + s->ids[r] * s->cols + first;

        if (s->ids[r] == s->skip_id)
            continue;
        for (int64_t c = 0; c < n; c++)
            t[c] += s->scale * x[c];
    }
}

int cpu_scatter_add_rows(struct kd_backend *be, struct kd_tensor dx, const int32_t *ids,
                         int32_t skip_id, float scale, float *table, int64_t table_rows)
{
    struct scatter s = {dx.data, ids, skip_id, scale, table, dx.shape[0], dx.shape[1]};

    (void)table_rows;
    KD_TRY(cpu_f32("scatter_add_rows", dx.dtype));
    cpu_for(be, cpu_ceil_div(s.cols, STRIP), scatter_task, &s);
    return KD_OK;
}
