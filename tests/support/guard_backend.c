/* SPDX-License-Identifier: Apache-2.0 */
/* A device whose memory the host cannot touch, made of the CPU backend: it stands
 * behind kd_backend_cuda in the programs that link this file, so that --device cuda can
 * be tested where there is no device.
 *
 * Memory is one region that is only accessible while a slot runs.  Whoever dereferences
 * a pointer into it from outside dies of a segmentation fault; a slot that is handed
 * host memory where it wants its own, or offsets that are not the same on both sides,
 * fails with a line.  New memory is full of NaN.  Nothing is used twice, so a pointer
 * into freed memory shows, too.  Only float32, with the CPU backend's bits.
 *
 * The environment makes the device small: GUARD_HAS, bytes that it says it has, and
 * GUARD_GIVES, bytes that it gives.  GUARD_PEAK names a file for the most it gave. */
#include "kdhpc/base/mem.h"
#include "kdhpc/tensor/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define REGION_BYTES ((size_t)1 << 37) /* of addresses, not of memory */

enum { PAGE = 4096 };

struct part {
    char *start;
    size_t bytes, asked;
};

struct guard {
    struct kd_backend base;
    struct kd_backend *inner;
    char *region;
    size_t used, given, peak;
    bool recording;     /* between graph_begin and graph_end */
    struct part *parts; /* what was given out */
    int64_t n_parts, cap_parts;
};

static struct guard *guard_of(struct kd_backend *be)
{
    return be->impl;
}

static void set_access(struct guard *g, int access)
{
    if (g->used && mprotect(g->region, g->used, access))
        abort();
}

static bool is_ours(const struct guard *g, const void *p)
{
    return (const char *)p >= g->region && (const char *)p < g->region + g->used;
}

/* Begin a slot: its pointers PTRS[n] are ours or NULL, and then we may be read. */
static int enter(struct kd_backend *be, const char *slot, const void *const *ptrs,
                 size_t n)
{
    struct guard *g = guard_of(be);

    for (size_t i = 0; i < n; i++)
        if (ptrs[i] && !is_ours(g, ptrs[i]))
            return KD_FAIL(KD_EINTERNAL, "%s: pointer %zu is host memory", slot, i);
    set_access(g, PROT_READ | PROT_WRITE);
    return KD_OK;
}

static int leave(struct kd_backend *be, int rc)
{
    set_access(guard_of(be), PROT_NONE);
    return rc;
}

/* Run SLOT of the inner backend with ARGS in parentheses, after a check of the pointers
 * that follow. */
#define RUN(slot, args, ...)                                                           \
    do {                                                                               \
        const void *const ptrs_[] = {__VA_ARGS__};                                     \
        struct kd_backend *inner = guard_of(be)->inner;                                \
                                                                                       \
        KD_TRY(enter(be, #slot, ptrs_, sizeof ptrs_ / sizeof *ptrs_));                 \
        return leave(be, inner->ops->slot args);                                       \
    } while (0)

static const void *keys_of(const struct kd_dropout *d)
{
    return d && d->p > 0.0f ? d->row_keys : NULL;
}

/* ---- memory ---- */

/* Bytes that the environment says, or OTHERWISE. */
static size_t size_from(const char *name, size_t otherwise)
{
    const char *text = getenv(name);

    return text && *text ? (size_t)strtoull(text, NULL, 10) : otherwise;
}

static void write_peak(const struct guard *g)
{
    const char *path = getenv("GUARD_PEAK");
    FILE *f = path ? fopen(path, "w") : NULL;

    if (!f)
        return;
    fprintf(f, "%zu\n", g->peak);
    fclose(f);
}

static void guard_destroy(struct kd_backend *be)
{
    struct guard *g = guard_of(be);

    write_peak(g);

    kd_backend_free(g->inner);
    munmap(g->region, REGION_BYTES);
    free(g->parts);
    free(g);
}

static int guard_alloc(struct kd_backend *be, size_t bytes, void **out)
{
    struct guard *g = guard_of(be);
    size_t padded = (bytes + PAGE) / PAGE * PAGE;

    if (padded > REGION_BYTES - g->used)
        return KD_FAIL(KD_ENOMEM, "the guarded region is used up");
    if (g->given + bytes > size_from("GUARD_GIVES", SIZE_MAX))
        return KD_FAIL(KD_ENOMEM, "the guarded device gives no more");
    KD_TRY(kd_grow(&g->parts, &g->cap_parts, g->n_parts + 1, sizeof *g->parts));
    *out = g->region + g->used;
    g->parts[g->n_parts++] = (struct part){*out, padded, bytes};
    g->used += padded;
    g->given += bytes;
    g->peak = g->given > g->peak ? g->given : g->peak;
    set_access(g, PROT_READ | PROT_WRITE);
    memset(*out, 0xff, padded);
    set_access(g, PROT_NONE);
    return KD_OK;
}

/* The addresses are not used again; the pages go back, and are zero from now on. */
static void guard_free(struct kd_backend *be, void *p)
{
    struct guard *g = guard_of(be);

    for (int64_t i = 0; p && i < g->n_parts; i++) {
        if (g->parts[i].start != p)
            continue;
        if (madvise(p, g->parts[i].bytes, MADV_DONTNEED))
            abort();
        g->given -= g->parts[i].asked;
        g->parts[i] = g->parts[--g->n_parts];
        return;
    }
    if (p)
        abort(); /* not ours, or freed before */
}

static int check_not_recording(struct kd_backend *be, const char *slot)
{
    if (guard_of(be)->recording)
        return KD_FAIL(KD_EINTERNAL, "%s: a graph is being recorded", slot);
    return KD_OK;
}

static int guard_upload(struct kd_backend *be, void *dst, const void *src, size_t bytes)
{
    if (bytes && is_ours(guard_of(be), src))
        return KD_FAIL(KD_EINTERNAL, "upload: the source is not host memory");
    KD_TRY(check_not_recording(be, "upload"));
    RUN(upload, (inner, dst, src, bytes), dst);
}

static int guard_download(struct kd_backend *be, void *dst, const void *src,
                          size_t bytes)
{
    if (bytes && is_ours(guard_of(be), dst))
        return KD_FAIL(KD_EINTERNAL, "download: the target is not host memory");
    KD_TRY(check_not_recording(be, "download"));
    RUN(download, (inner, dst, src, bytes), src);
}

static int guard_copy(struct kd_backend *be, void *dst, const void *src, size_t bytes)
{
    RUN(copy, (inner, dst, src, bytes), dst, src);
}

static int guard_zero(struct kd_backend *be, void *dst, size_t bytes)
{
    RUN(zero, (inner, dst, bytes), dst);
}

static int guard_sync(struct kd_backend *be)
{
    KD_TRY(check_not_recording(be, "sync"));
    return guard_of(be)->inner->ops->sync(guard_of(be)->inner);
}

static void *guard_stream(struct kd_backend *be)
{
    (void)be;
    return NULL;
}

static int guard_mem_info(struct kd_backend *be, size_t *free_bytes,
                          size_t *total_bytes)
{
    struct guard *g = guard_of(be);

    KD_TRY(g->inner->ops->mem_info(g->inner, free_bytes, total_bytes));
    *total_bytes = size_from("GUARD_HAS", *total_bytes);
    if (getenv("GUARD_HAS"))
        *free_bytes = *total_bytes - g->given;
    return KD_OK;
}

/* Nothing is recorded; but between the two, calls may not do what recorded ones could
 * not (see check_not_recording). */
static int guard_graph_begin(struct kd_backend *be, const struct kd_graph_key *key,
                             bool *done)
{
    struct guard *g = guard_of(be);

    (void)key;
    *done = false;
    if (g->recording)
        return KD_FAIL(KD_EINTERNAL, "graph_begin: one is open");
    g->recording = true;
    return KD_OK;
}

static int guard_graph_end(struct kd_backend *be, bool ok)
{
    struct guard *g = guard_of(be);

    if (!g->recording && ok)
        return KD_FAIL(KD_EINTERNAL, "graph_end: none is open");
    g->recording = false;
    return KD_OK;
}

static void guard_graph_drop(struct kd_backend *be)
{
    guard_of(be)->recording = false;
}

/* ---- products and attention ---- */

static int guard_gemm(struct kd_backend *be, const struct kd_gemm *g)
{
    RUN(gemm, (inner, g), g->a.data, g->b.data, g->c.data, g->bias, g->pre.data);
}

static int guard_col_sum(struct kd_backend *be, struct kd_mat x, float *out, bool acc)
{
    RUN(col_sum, (inner, x, out, acc), x.data, out);
}

static int read_back(struct kd_backend *be, void *dst, const void *src, size_t bytes)
{
    RUN(download, (inner, dst, src, bytes), src);
}

/* The offsets of both sides are the same. */
static int check_seqs(struct kd_backend *be, const struct kd_seqs *s)
{
    struct guard *g = guard_of(be);
    size_t bytes = (size_t)(s->n + 1) * sizeof *s->offsets;
    int64_t *copy = NULL;
    int rc = KD_OK;

    KD_TRY(kd_calloc(s->n + 1, sizeof *copy, &copy));
    KD_GO(is_ours(g, s->offsets_dev.data)
              ? read_back(be, copy, s->offsets_dev.data, bytes)
              : KD_FAIL(KD_EINTERNAL, "attention: offsets_dev is host memory"));
    if (memcmp(copy, s->offsets, bytes) != 0 || s->offsets[s->n] != s->n_rows)
        rc = KD_FAIL(KD_EINTERNAL, "attention: offsets_dev are not the offsets");
out:
    free(copy);
    return rc;
}

static int guard_attention(struct kd_backend *be, const struct kd_attention *a)
{
    KD_TRY(check_seqs(be, &a->q_seqs));
    KD_TRY(check_seqs(be, &a->kv_seqs));
    RUN(attention, (inner, a), a->q.data, a->k.data, a->v.data, a->out.data,
        a->lse.data, a->bias.table.data, keys_of(&a->dropout));
}

static int guard_attention_back(struct kd_backend *be, const struct kd_attention *a,
                                struct kd_mat dout, struct kd_mat dq, struct kd_mat dk,
                                struct kd_mat dv, float *dbias)
{
    KD_TRY(check_seqs(be, &a->q_seqs));
    KD_TRY(check_seqs(be, &a->kv_seqs));
    RUN(attention_back, (inner, a, dout, dq, dk, dv, dbias), a->q.data, a->k.data,
        a->v.data, a->out.data, a->lse.data, keys_of(&a->dropout), a->bias.table.data,
        dout.data, dq.data, dk.data, dv.data, dbias);
}

static int guard_attention_cached(struct kd_backend *be,
                                  const struct kd_attention_cached *a)
{
    RUN(attention_cached, (inner, a), a->q.data, a->k.data, a->v.data, a->out.data,
        a->k_new.data, a->v_new.data, a->slots, a->step, a->bias.table.data);
}

static int guard_advance_slots(struct kd_backend *be, const struct kd_slot_step *s)
{
    RUN(advance_slots, (inner, s), s->slots, s->parents, s->step);
}

/* ---- pointwise ---- */

static int guard_add(struct kd_backend *be, struct kd_tensor x, struct kd_tensor y,
                     struct kd_tensor out)
{
    RUN(add, (inner, x, y, out), x.data, y.data, out.data);
}

static int guard_axpy(struct kd_backend *be, float alpha, struct kd_tensor x,
                      struct kd_tensor y)
{
    RUN(axpy, (inner, alpha, x, y), x.data, y.data);
}

static int guard_scale(struct kd_backend *be, float alpha, struct kd_tensor x)
{
    RUN(scale, (inner, alpha, x), x.data);
}

static int guard_act(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                     struct kd_tensor y)
{
    RUN(act, (inner, act, pre, y), pre.data, y.data);
}

static int guard_act_back(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                          struct kd_tensor dy, struct kd_tensor dx)
{
    RUN(act_back, (inner, act, pre, dy, dx), pre.data, dy.data, dx.data);
}

static int guard_glu(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                     struct kd_tensor y)
{
    RUN(glu, (inner, act, pre, y), pre.data, y.data);
}

static int guard_glu_back(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                          struct kd_tensor dy, struct kd_tensor dpre)
{
    RUN(glu_back, (inner, act, pre, dy, dpre), pre.data, dy.data, dpre.data);
}

static int guard_dropout(struct kd_backend *be, const struct kd_dropout *d,
                         struct kd_tensor x, struct kd_tensor out, bool acc)
{
    RUN(dropout, (inner, d, x, out, acc), keys_of(d), x.data, out.data);
}

static int guard_cast(struct kd_backend *be, struct kd_tensor src, struct kd_tensor dst)
{
    RUN(cast, (inner, src, dst), src.data, dst.data);
}

/* ---- norms and rows ---- */

static int guard_norm(struct kd_backend *be, const struct kd_norm *norm,
                      struct kd_tensor x, struct kd_tensor sub,
                      const struct kd_dropout *drop, struct kd_tensor sum,
                      struct kd_tensor y, float *stats)
{
    RUN(norm, (inner, norm, x, sub, drop, sum, y, stats), norm->gamma, norm->beta,
        x.data, sub.data, sum.data, y.data, stats, keys_of(drop));
}

static int guard_norm_back(struct kd_backend *be, const struct kd_norm *norm,
                           struct kd_tensor sum, const float *stats,
                           struct kd_tensor dy, struct kd_tensor dsum,
                           const struct kd_dropout *drop, struct kd_tensor dx,
                           bool acc_dx, struct kd_tensor dsub, float *dgamma,
                           float *dbeta)
{
    RUN(norm_back,
        (inner, norm, sum, stats, dy, dsum, drop, dx, acc_dx, dsub, dgamma, dbeta),
        norm->gamma, norm->beta, sum.data, stats, dy.data, dsum.data, keys_of(drop),
        dx.data, dsub.data, dgamma, dbeta);
}

static int guard_gather_rows(struct kd_backend *be, struct kd_tensor table,
                             const int32_t *ids, float scale, struct kd_tensor pos,
                             const int32_t *pos_ids, struct kd_tensor out)
{
    RUN(gather_rows, (inner, table, ids, scale, pos, pos_ids, out), table.data, ids,
        pos.data, pos_ids, out.data);
}

static int guard_scatter_add_rows(struct kd_backend *be, struct kd_tensor dx,
                                  const int32_t *ids, int32_t skip_id, float scale,
                                  float *table, int64_t table_rows)
{
    RUN(scatter_add_rows, (inner, dx, ids, skip_id, scale, table, table_rows), dx.data,
        ids, table);
}

static int guard_log_softmax(struct kd_backend *be, float *x, int64_t rows,
                             int64_t cols)
{
    RUN(log_softmax, (inner, x, rows, cols), x);
}

static int guard_log_sum(struct kd_backend *be, const float *x, int64_t rows,
                         int64_t cols, float *sums)
{
    RUN(log_sum, (inner, x, rows, cols, sums), x, sums);
}

static int guard_topk(struct kd_backend *be, const float *x, const float *sums,
                      int64_t rows, int64_t cols, int64_t k, float *values,
                      int32_t *columns)
{
    RUN(topk, (inner, x, sums, rows, cols, k, values, columns), x, sums, values,
        columns);
}

/* ---- generation ---- */

static int guard_edit_scores(struct kd_backend *be, float *x, int64_t rows,
                             int64_t cols, const struct kd_score_edits *e)
{
    RUN(edit_scores, (inner, x, rows, cols, e), x, e->forced < 0 ? e->list : NULL);
}

static int guard_sample(struct kd_backend *be, const struct kd_sample *s)
{
    RUN(sample, (inner, s), s->x, s->u, s->log_probs, s->tokens);
}

/* ---- losses and the optimiser ---- */

static int guard_vocab_loss(struct kd_backend *be, const struct kd_vocab_loss *l)
{
    RUN(vocab_loss, (inner, l), l->zs.data, l->grad ? l->dz.data : NULL, l->zt.data,
        l->labels, l->kl_mask, l->rows_out.data);
}

static int guard_mse_rows(struct kd_backend *be, struct kd_tensor s, struct kd_tensor t,
                          const float *row_mask, bool normalize, float w,
                          double *rows_out, struct kd_tensor ds, bool acc)
{
    RUN(mse_rows, (inner, s, t, row_mask, normalize, w, rows_out, ds, acc), s.data,
        t.data, row_mask, rows_out, ds.data);
}

static int guard_adamw(struct kd_backend *be, const struct kd_adamw *a)
{
    RUN(adamw, (inner, a), a->param, a->m, a->v, a->copy, a->grad);
}

static int guard_adafactor(struct kd_backend *be, const struct kd_adafactor *a)
{
    RUN(adafactor, (inner, a), a->param, a->copy, a->grad, a->row, a->col);
}

static int guard_sum_sq(struct kd_backend *be, const struct kd_span *spans,
                        int64_t n_spans, double *out)
{
    for (int64_t i = 0; i < n_spans; i++)
        if (spans[i].n && !is_ours(guard_of(be), spans[i].x))
            return KD_FAIL(KD_EINTERNAL, "sum_sq: span %lld is host memory",
                           (long long)i);
    RUN(sum_sq, (inner, spans, n_spans, out), out);
}

static const struct kd_backend_ops ops = {
    .name = "guarded",
    .destroy = guard_destroy,
    .alloc = guard_alloc,
    .free = guard_free,
    .upload = guard_upload,
    .download = guard_download,
    .copy = guard_copy,
    .zero = guard_zero,
    .sync = guard_sync,
    .stream = guard_stream,
    .mem_info = guard_mem_info,
    .graph_begin = guard_graph_begin,
    .graph_end = guard_graph_end,
    .graph_drop = guard_graph_drop,
    .gemm = guard_gemm,
    .col_sum = guard_col_sum,
    .attention = guard_attention,
    .attention_back = guard_attention_back,
    .attention_cached = guard_attention_cached,
    .advance_slots = guard_advance_slots,
    .add = guard_add,
    .axpy = guard_axpy,
    .scale = guard_scale,
    .act = guard_act,
    .act_back = guard_act_back,
    .glu = guard_glu,
    .glu_back = guard_glu_back,
    .dropout = guard_dropout,
    .cast = guard_cast,
    .norm = guard_norm,
    .norm_back = guard_norm_back,
    .gather_rows = guard_gather_rows,
    .scatter_add_rows = guard_scatter_add_rows,
    .log_softmax = guard_log_softmax,
    .log_sum = guard_log_sum,
    .topk = guard_topk,
    .edit_scores = guard_edit_scores,
    .sample = guard_sample,
    .vocab_loss = guard_vocab_loss,
    .mse_rows = guard_mse_rows,
    .adamw = guard_adamw,
    .adafactor = guard_adafactor,
    .sum_sq = guard_sum_sq,
};

/* ---- what the program asks of CUDA ---- */

/* As with the driver, an empty CUDA_VISIBLE_DEVICES hides the device. */
int kd_cuda_devices(void)
{
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");

    return visible && !*visible ? 0 : 1;
}

const char *kd_backend_cuda_library(void)
{
    return "guarded host memory";
}

void kd_backend_cuda_tf32(struct kd_backend *be, bool on)
{
    (void)be;
    (void)on;
}

int kd_backend_cuda(int index, struct kd_backend **out)
{
    struct guard *g = NULL;
    void *region;
    int rc = KD_OK;

    *out = NULL;
    if (index != 0)
        return KD_FAIL(KD_EINPUT, "there is no device %d", index);
    KD_TRY(kd_calloc(1, sizeof *g, &g));
    region = mmap(NULL, REGION_BYTES, PROT_NONE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (region == MAP_FAILED)
        KD_GO(KD_FAIL(KD_ENOMEM, "no addresses for the guarded region"));
    g->region = region;
    KD_GO(kd_backend_cpu(1, &g->inner));
    g->base = (struct kd_backend){&ops, KD_CUDA, 1, g};
    *out = &g->base;
    return KD_OK;
out:
    if (g->region)
        munmap(g->region, REGION_BYTES);
    free(g);
    return rc;
}
