/* SPDX-License-Identifier: Apache-2.0 */
/* The planning backend (tensor/plan.h): addresses that mean nothing, and two counters.
 *
 * Every allocation gets addresses of its own, in ascending order from a place where no
 * process has memory, so that pointers into two of them never compare equal and a freed
 * one is found by bisection.  Slots that give a result to the host give zeros; all
 * others do nothing. */
#include "kdhpc/tensor/plan.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_ADDRESS ((uintptr_t)1 << 42)

enum { GRAIN = 256 }; /* between addresses of allocations */

struct part {
    uintptr_t at;
    size_t bytes;
};

struct plan {
    struct kd_backend base;
    struct part *parts; /* [n], ascending */
    int64_t n, cap;
    uintptr_t next;
    size_t bytes, peak;
};

static struct plan *plan_of(const struct kd_backend *be)
{
    return be->impl;
}

/* ---- memory ---- */

static int plan_alloc(struct kd_backend *be, size_t bytes, void **out)
{
    struct plan *p = plan_of(be);

    KD_TRY(kd_grow(&p->parts, &p->cap, p->n + 1, sizeof *p->parts));
    p->parts[p->n++] = (struct part){p->next, bytes};
    *out = (void *)p->next;
    p->next += (bytes / GRAIN + 1) * GRAIN;
    p->bytes += bytes;
    if (p->bytes > p->peak)
        p->peak = p->bytes;
    return KD_OK;
}

static void plan_free(struct kd_backend *be, void *mem)
{
    struct plan *p = plan_of(be);
    int64_t first = 0, last = p->n;

    while (first < last) {
        int64_t mid = first + (last - first) / 2;

        if (p->parts[mid].at < (uintptr_t)mem)
            first = mid + 1;
        else
            last = mid;
    }
    if (first == p->n || p->parts[first].at != (uintptr_t)mem)
        return;
    p->bytes -= p->parts[first].bytes;
    p->n--;
    memmove(p->parts + first, p->parts + first + 1,
            (size_t)(p->n - first) * sizeof *p->parts);
}

static int plan_copy(struct kd_backend *be, void *dst, const void *src, size_t bytes)
{
    (void)be, (void)dst, (void)src, (void)bytes;
    return KD_OK;
}

static int plan_download(struct kd_backend *be, void *dst, const void *src,
                         size_t bytes)
{
    (void)be, (void)src;
    memset(dst, 0, bytes);
    return KD_OK;
}

static int plan_zero(struct kd_backend *be, void *dst, size_t bytes)
{
    (void)be, (void)dst, (void)bytes;
    return KD_OK;
}

static int plan_sync(struct kd_backend *be)
{
    (void)be;
    return KD_OK;
}

static void *plan_stream(struct kd_backend *be)
{
    (void)be;
    return NULL;
}

static int plan_mem_info(struct kd_backend *be, size_t *free_bytes, size_t *total_bytes)
{
    *total_bytes = SIZE_MAX;
    *free_bytes = SIZE_MAX - plan_of(be)->bytes;
    return KD_OK;
}

static void plan_destroy(struct kd_backend *be)
{
    struct plan *p = plan_of(be);

    free(p->parts);
    free(p);
}

/* ---- slots that only compute ---- */

static int plan_gemm(struct kd_backend *be, const struct kd_gemm *g)
{
    (void)be, (void)g;
    return KD_OK;
}

static int plan_col_sum(struct kd_backend *be, struct kd_mat x, float *out, bool acc)
{
    (void)be, (void)x, (void)out, (void)acc;
    return KD_OK;
}

static int plan_attention(struct kd_backend *be, const struct kd_attention *a)
{
    (void)be, (void)a;
    return KD_OK;
}

static int plan_attention_back(struct kd_backend *be, const struct kd_attention *a,
                               struct kd_mat dout, struct kd_mat dq, struct kd_mat dk,
                               struct kd_mat dv, float *dbias)
{
    (void)be, (void)a, (void)dout, (void)dq, (void)dk, (void)dv, (void)dbias;
    return KD_OK;
}

static int plan_attention_cached(struct kd_backend *be,
                                 const struct kd_attention_cached *a)
{
    (void)be, (void)a;
    return KD_OK;
}

static int plan_add(struct kd_backend *be, struct kd_tensor x, struct kd_tensor y,
                    struct kd_tensor out)
{
    (void)be, (void)x, (void)y, (void)out;
    return KD_OK;
}

static int plan_axpy(struct kd_backend *be, float alpha, struct kd_tensor x,
                     struct kd_tensor y)
{
    (void)be, (void)alpha, (void)x, (void)y;
    return KD_OK;
}

static int plan_scale(struct kd_backend *be, float alpha, struct kd_tensor x)
{
    (void)be, (void)alpha, (void)x;
    return KD_OK;
}

static int plan_act(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                    struct kd_tensor y)
{
    (void)be, (void)act, (void)pre, (void)y;
    return KD_OK;
}

static int plan_act_back(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                         struct kd_tensor dy, struct kd_tensor dx)
{
    (void)be, (void)act, (void)pre, (void)dy, (void)dx;
    return KD_OK;
}

static int plan_dropout(struct kd_backend *be, const struct kd_dropout *d,
                        struct kd_tensor x, struct kd_tensor out, bool acc)
{
    (void)be, (void)d, (void)x, (void)out, (void)acc;
    return KD_OK;
}

static int plan_cast(struct kd_backend *be, struct kd_tensor src, struct kd_tensor dst)
{
    (void)be, (void)src, (void)dst;
    return KD_OK;
}

static int plan_norm(struct kd_backend *be, const struct kd_norm *norm,
                     struct kd_tensor x, struct kd_tensor sub,
                     const struct kd_dropout *drop, struct kd_tensor sum,
                     struct kd_tensor y, float *stats)
{
    (void)be, (void)norm, (void)x, (void)sub, (void)drop, (void)sum, (void)y;
    (void)stats;
    return KD_OK;
}

static int plan_norm_back(struct kd_backend *be, const struct kd_norm *norm,
                          struct kd_tensor sum, const float *stats, struct kd_tensor dy,
                          struct kd_tensor dsum, const struct kd_dropout *drop,
                          struct kd_tensor dx, bool acc_dx, struct kd_tensor dsub,
                          float *dgamma, float *dbeta)
{
    (void)be, (void)norm, (void)sum, (void)stats, (void)dy, (void)dsum, (void)drop;
    (void)dx, (void)acc_dx, (void)dsub, (void)dgamma, (void)dbeta;
    return KD_OK;
}

static int plan_gather_rows(struct kd_backend *be, struct kd_tensor table,
                            const int32_t *ids, float scale, struct kd_tensor pos,
                            const int32_t *pos_ids, struct kd_tensor out)
{
    (void)be, (void)table, (void)ids, (void)scale, (void)pos, (void)pos_ids, (void)out;
    return KD_OK;
}

static int plan_scatter_add_rows(struct kd_backend *be, struct kd_tensor dx,
                                 const int32_t *ids, int32_t skip_id, float scale,
                                 float *table, int64_t table_rows)
{
    (void)be, (void)dx, (void)ids, (void)skip_id, (void)scale, (void)table;
    (void)table_rows;
    return KD_OK;
}

static int plan_log_softmax(struct kd_backend *be, float *x, int64_t rows, int64_t cols)
{
    (void)be, (void)x, (void)rows, (void)cols;
    return KD_OK;
}

static int plan_log_sum(struct kd_backend *be, const float *x, int64_t rows,
                        int64_t cols, float *sums)
{
    (void)be, (void)x, (void)rows, (void)cols, (void)sums;
    return KD_OK;
}

static int plan_topk(struct kd_backend *be, const float *x, const float *sums,
                     int64_t rows, int64_t cols, int64_t k, float *values,
                     int32_t *columns)
{
    (void)be, (void)x, (void)sums, (void)rows, (void)cols, (void)k;
    (void)values, (void)columns;
    return KD_OK;
}

static int plan_edit_scores(struct kd_backend *be, float *x, int64_t rows, int64_t cols,
                            const struct kd_score_edits *e)
{
    (void)be, (void)x, (void)rows, (void)cols, (void)e;
    return KD_OK;
}

static int plan_sample(struct kd_backend *be, const struct kd_sample *s)
{
    (void)be, (void)s;
    return KD_OK;
}

static int plan_advance_slots(struct kd_backend *be, const struct kd_slot_step *s)
{
    (void)be, (void)s;
    return KD_OK;
}

static int plan_graph_begin(struct kd_backend *be, const struct kd_graph_key *key,
                            bool *done)
{
    (void)be, (void)key;
    *done = false;
    return KD_OK;
}

static int plan_graph_end(struct kd_backend *be, bool ok)
{
    (void)be, (void)ok;
    return KD_OK;
}

static void plan_graph_drop(struct kd_backend *be)
{
    (void)be;
}

static int plan_vocab_loss(struct kd_backend *be, const struct kd_vocab_loss *l)
{
    (void)be, (void)l;
    return KD_OK;
}

static int plan_mse_rows(struct kd_backend *be, struct kd_tensor s, struct kd_tensor t,
                         const float *row_mask, bool normalize, float w,
                         double *rows_out, struct kd_tensor ds, bool acc)
{
    (void)be, (void)s, (void)t, (void)row_mask, (void)normalize, (void)w;
    (void)rows_out, (void)ds, (void)acc;
    return KD_OK;
}

static int plan_adamw(struct kd_backend *be, const struct kd_adamw *a)
{
    (void)be, (void)a;
    return KD_OK;
}

static int plan_adafactor(struct kd_backend *be, const struct kd_adafactor *a)
{
    (void)be, (void)a;
    return KD_OK;
}

static int plan_sum_sq(struct kd_backend *be, const struct kd_span *spans,
                       int64_t n_spans, double *out)
{
    (void)be, (void)spans, (void)n_spans, (void)out;
    return KD_OK;
}

static const struct kd_backend_ops plan_ops = {
    .name = "plan",
    .destroy = plan_destroy,
    .alloc = plan_alloc,
    .free = plan_free,
    .upload = plan_copy,
    .download = plan_download,
    .copy = plan_copy,
    .zero = plan_zero,
    .sync = plan_sync,
    .stream = plan_stream,
    .mem_info = plan_mem_info,
    .gemm = plan_gemm,
    .col_sum = plan_col_sum,
    .attention = plan_attention,
    .attention_back = plan_attention_back,
    .attention_cached = plan_attention_cached,
    .add = plan_add,
    .axpy = plan_axpy,
    .scale = plan_scale,
    .act = plan_act,
    .act_back = plan_act_back,
    .glu = plan_act,
    .glu_back = plan_act_back,
    .dropout = plan_dropout,
    .cast = plan_cast,
    .norm = plan_norm,
    .norm_back = plan_norm_back,
    .gather_rows = plan_gather_rows,
    .scatter_add_rows = plan_scatter_add_rows,
    .log_softmax = plan_log_softmax,
    .log_sum = plan_log_sum,
    .topk = plan_topk,
    .edit_scores = plan_edit_scores,
    .sample = plan_sample,
    .advance_slots = plan_advance_slots,
    .graph_begin = plan_graph_begin,
    .graph_end = plan_graph_end,
    .graph_drop = plan_graph_drop,
    .vocab_loss = plan_vocab_loss,
    .mse_rows = plan_mse_rows,
    .adamw = plan_adamw,
    .adafactor = plan_adafactor,
    .sum_sq = plan_sum_sq,
};

/* ---- the backend ---- */

int kd_backend_plan(enum kd_device device, struct kd_backend **out)
{
    struct plan *p = NULL;

    *out = NULL;
    KD_TRY(kd_calloc(1, sizeof *p, &p));
    p->base = (struct kd_backend){&plan_ops, device, 1, p};
    p->next = FIRST_ADDRESS;
    *out = &p->base;
    return KD_OK;
}

size_t kd_plan_bytes(const struct kd_backend *be)
{
    return plan_of(be)->bytes;
}

size_t kd_plan_peak_bytes(const struct kd_backend *be)
{
    return plan_of(be)->peak;
}

void kd_plan_restart(struct kd_backend *be)
{
    plan_of(be)->peak = plan_of(be)->bytes;
}
