/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding with a cache: one new row per live hypothesis and step.
 *
 * Self attention: keys and values of layer l are rows [k | v] of self[l], row
 * t * max_rows + r for hypothesis r of step t, written once and never moved.  Which
 * rows a hypothesis descends from is a small table slots[row][t], rebuilt each step
 * from the parents (two buffers), so that re-ordering beams costs the same for any
 * depth and width.  Cross attention: keys and values of each source are computed once
 * and shared by its hypotheses, which are the query rows of that source's sequence; a
 * source without hypotheses has an empty query range and costs nothing.
 *
 * Keys and values have the context's compute type, logits are float32.
 *
 * The cache lies in the context's arena until kd_decoder_free, so that one batch after
 * the other uses the same pages; a step uses the arena above it between a mark and its
 * release.  Called by decode/. */
#include "model_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

struct kd_decoder {
    struct kd_ctx ctx;          /* no tape, no dropout, no taps */
    struct kd_arena_mark begin; /* what lies above it in the arena is ours */
    struct kd_model *m;
    int64_t max_rows, max_len, n_src_rows, step;
    struct kd_seqs src;     /* owned copies */
    int64_t *src_offsets;   /* host [n + 1] */
    int64_t *q_offsets;     /* host [n + 1]: query rows of each source, this step */
    int64_t *q_offsets_dev; /* [n + 1] */
    int32_t *slots[2];      /* host [max_rows, step + 1], packed; [step % 2] is new */
    int32_t *slots_dev;
    int32_t *host_ids;            /* tokens and positions of a step */
    int32_t *ids_dev;             /* [2 max_rows] */
    struct kd_tensor self;        /* [n_dec max_len max_rows, 2 d] */
    struct kd_tensor cross;       /* [n_dec n_src_rows, 2 d] */
    struct kd_tensor logits;      /* [max_rows, V] */
    struct kd_distance_bias bias; /* of self attention */
};

/* N values of SIZE bytes in the arena, until the decoder is freed. */
static int device(struct kd_decoder *d, int64_t n, size_t size, void *out)
{
    return kd_arena_alloc(d->ctx.arena, (size_t)n * size, out);
}

/* All heads of the decoder together. */
static int64_t inner_width(const struct kd_model *m)
{
    return m->stacks[KD_DEC].n_heads * m->stacks[KD_DEC].head_dim;
}

static int allocate(struct kd_decoder *d, const struct kd_seqs *src)
{
    const struct kd_arch *a = &d->m->arch;
    int64_t slots = d->max_rows * d->max_len, width = 2 * inner_width(d->m);
    struct kd_arena *arena = d->ctx.arena;

    d->n_src_rows = src->n_rows;
    KD_TRY(kd_calloc(src->n + 1, sizeof(int64_t), &d->src_offsets));
    KD_TRY(kd_calloc(src->n + 1, sizeof(int64_t), &d->q_offsets));
    KD_TRY(kd_calloc(slots, sizeof(int32_t), &d->slots[0]));
    KD_TRY(kd_calloc(slots, sizeof(int32_t), &d->slots[1]));
    KD_TRY(kd_calloc(2 * d->max_rows, sizeof(int32_t), &d->host_ids));
    KD_TRY(device(d, 2 * (src->n + 1), sizeof(int64_t), &d->q_offsets_dev));
    KD_TRY(device(d, slots, sizeof(int32_t), &d->slots_dev));
    KD_TRY(device(d, 2 * d->max_rows, sizeof(int32_t), &d->ids_dev));
    KD_TRY(kd_arena_tensor(arena, d->ctx.dtype, a->n_dec * slots, width, &d->self));
    KD_TRY(
        kd_arena_tensor(arena, d->ctx.dtype, a->n_dec * src->n_rows, width, &d->cross));
    return kd_arena_tensor(arena, KD_F32, d->max_rows, a->vocab_size, &d->logits);
}

/* Own copy of the source offsets, on both sides. */
static int copy_sources(struct kd_decoder *d, const struct kd_seqs *src)
{
    size_t bytes = (size_t)(src->n + 1) * sizeof(int64_t);
    int64_t *dev = d->q_offsets_dev + src->n + 1;

    memcpy(d->src_offsets, src->offsets, bytes);
    d->src = *src;
    d->src.offsets = d->src_offsets;
    d->src.offsets_dev = kd_tensor1(dev, KD_I64, src->n + 1);
    return d->m->be->ops->upload(d->m->be, dev, d->src_offsets, bytes);
}

/* The encoder over the sources; *OUT in the arena. */
static int encode(struct kd_decoder *d, const int32_t *ids, struct kd_var **out)
{
    struct kd_backend *be = d->m->be;
    int64_t n = d->src.n_rows;
    size_t bytes = (size_t)n * sizeof(int32_t);
    struct kd_batch batch = {.src = d->src};
    int32_t *pos = NULL;
    void *dev_ids, *dev_pos;
    int rc = KD_OK;

    KD_TRY(kd_calloc(n, sizeof *pos, &pos));
    for (int64_t i = 0; i < d->src.n; i++)
        for (int64_t r = d->src_offsets[i]; r < d->src_offsets[i + 1]; r++)
            pos[r] = (int32_t)(r - d->src_offsets[i]);
    KD_GO(kd_arena_alloc(d->ctx.arena, bytes, &dev_ids));
    KD_GO(kd_arena_alloc(d->ctx.arena, bytes, &dev_pos));
    KD_GO(be->ops->upload(be, dev_ids, ids, bytes));
    KD_GO(be->ops->upload(be, dev_pos, pos, bytes));
    KD_GO(be->ops->sync(be)); /* pos is ours */
    batch.src_ids = dev_ids;
    batch.src_pos = dev_pos;
    rc = kd_model_encode(&d->ctx, d->m, &batch, out);
out:
    free(pos);
    return rc;
}

/* Product of X [n, d] and rows [first, first + OUT's columns) of a packed linear, into
 * OUT [n, any]. */
static int project(struct kd_decoder *d, const struct kd_var *x,
                   const struct kd_linear_vars *l, int64_t first, struct kd_tensor out)
{
    struct kd_backend *be = d->m->be;
    struct kd_tensor w = kd_tensor_rows(l->w.v, first, out.shape[1]);
    const float *bias = l->b.v.data;
    struct kd_gemm g = {.trans_b = true,
                        .alpha = 1,
                        .a = kd_mat_of(x->v),
                        .b = kd_mat_of(w),
                        .c = kd_mat_of(out),
                        .bias = bias ? bias + first : NULL,
                        .act = KD_ACT_NONE};

    return be->ops->gemm(be, &g);
}

/* Keys and values of the sources in one layer, [n_src_rows, 2 d]. */
static struct kd_tensor cross_of(const struct kd_decoder *d, int layer)
{
    return kd_tensor_rows(d->cross, layer * d->n_src_rows, d->n_src_rows);
}

static int fill_cross(struct kd_decoder *d, const struct kd_var *enc)
{
    for (int l = 0; l < d->m->arch.n_dec; l++)
        KD_TRY(project(d, enc, &d->m->stacks[KD_DEC].layers[l].cross_kv, 0,
                       cross_of(d, l)));
    return KD_OK;
}

static int make_bias(struct kd_decoder *d)
{
    struct kd_stack *stack = &d->m->stacks[KD_DEC];
    struct kd_var *table;

    if (!stack->distances.v.data)
        return KD_OK;
    KD_TRY(kd_distance_table(&d->ctx, d->m, stack, d->max_len, &table, &d->bias.zero));
    d->bias.table = table->v;
    return KD_OK;
}

int kd_decoder_new(struct kd_ctx *ctx, struct kd_model *m, const struct kd_seqs *src,
                   const int32_t *src_ids_host, int64_t max_rows, int64_t max_len,
                   struct kd_decoder **out)
{
    struct kd_decoder *d = NULL;
    struct kd_arena_mark cached;
    struct kd_var *enc;
    int rc = KD_OK;

    KD_TRY(kd_calloc(1, sizeof *d, &d));
    d->ctx = *ctx;
    d->ctx.tape = NULL;
    d->ctx.train = false;
    d->ctx.taps = NULL;
    d->m = m;
    d->begin = kd_arena_mark(ctx->arena);
    d->max_rows = max_rows;
    d->max_len = max_len;
    KD_GO(allocate(d, src));
    KD_GO(copy_sources(d, src));
    KD_GO(make_bias(d));
    cached = kd_arena_mark(ctx->arena);
    KD_GO(encode(d, src_ids_host, &enc));
    KD_GO(fill_cross(d, enc));
    kd_arena_release(ctx->arena, cached);
    *out = d;
    return KD_OK;
out:
    kd_decoder_free(d);
    return rc;
}

void kd_decoder_free(struct kd_decoder *d)
{
    if (!d)
        return;
    kd_arena_release(d->ctx.arena, d->begin);
    free(d->src_offsets);
    free(d->q_offsets);
    free(d->slots[0]);
    free(d->slots[1]);
    free(d->host_ids);
    free(d);
}

/* slots[row] = slots of its parent, then its own new row. */
static int advance_slots(struct kd_decoder *d, int64_t n, const int32_t *parent)
{
    int64_t old_ld = d->step, ld = d->step + 1;
    const int32_t *old = d->slots[(d->step + 1) % 2];
    int32_t *now = d->slots[d->step % 2];

    for (int64_t r = 0; r < n; r++) {
        if (old_ld > 0)
            memcpy(now + r * ld, old + parent[r] * old_ld,
                   (size_t)old_ld * sizeof *now);
        now[r * ld + old_ld] = (int32_t)(d->step * d->max_rows + r);
    }
    return d->m->be->ops->upload(d->m->be, d->slots_dev, now,
                                 (size_t)(n * ld) * sizeof *now);
}

/* The query rows of each source as sequences. */
static int group_rows(struct kd_decoder *d, int64_t n, const int32_t *source,
                      struct kd_seqs *out)
{
    int64_t r = 0, max_len = 0;

    for (int64_t i = 0; i < d->src.n; i++) {
        d->q_offsets[i] = r;
        while (r < n && source[r] == i)
            r++;
        if (r - d->q_offsets[i] > max_len)
            max_len = r - d->q_offsets[i];
    }
    d->q_offsets[d->src.n] = r;
    if (r != n)
        return KD_FAIL(KD_EINTERNAL, "decoder step: sources of rows are not ascending");
    *out = (struct kd_seqs){.n = d->src.n,
                            .n_rows = n,
                            .max_len = max_len,
                            .offsets = d->q_offsets,
                            .offsets_dev =
                                kd_tensor1(d->q_offsets_dev, KD_I64, d->src.n + 1)};
    return d->m->be->ops->upload(d->m->be, d->q_offsets_dev, d->q_offsets,
                                 (size_t)(d->src.n + 1) * sizeof(int64_t));
}

static int upload_ids(struct kd_decoder *d, int64_t n, const int32_t *tokens)
{
    for (int64_t r = 0; r < n; r++) {
        d->host_ids[r] = tokens[r];
        d->host_ids[n + r] = (int32_t)d->step;
    }
    return d->m->be->ops->upload(d->m->be, d->ids_dev, d->host_ids,
                                 (size_t)(2 * n) * sizeof(int32_t));
}

int kd_cache_self(struct kd_decoder *d, struct kd_ctx *ctx, int layer, struct kd_var *x,
                  struct kd_var **out)
{
    const struct kd_linear_vars *qkv = &d->m->stacks[KD_DEC].layers[layer].qkv;
    int64_t n = x->v.shape[0], w = inner_width(d->m);
    int64_t heads = d->m->stacks[KD_DEC].n_heads;
    struct kd_tensor rows = kd_tensor_rows(d->self, layer * d->max_len * d->max_rows,
                                           (d->step + 1) * d->max_rows);
    struct kd_tensor q, mixed;

    KD_TRY(kd_arena_tensor(ctx->arena, ctx->dtype, n, w, &q));
    KD_TRY(kd_arena_tensor(ctx->arena, ctx->dtype, n, w, &mixed));
    KD_TRY(kd_var_new(ctx, mixed, false, out));
    KD_TRY(project(d, x, qkv, 0, q));
    KD_TRY(project(d, x, qkv, w, kd_tensor_rows(rows, d->step * d->max_rows, n)));
    const struct kd_attention_cached a = {
        .q = kd_mat_of(q),
        .out = kd_mat_of(mixed),
        .k = kd_mat_cols(rows, 0, w),
        .v = kd_mat_cols(rows, w, w),
        .slots = d->slots_dev,
        .bias = d->bias,
        .slots_ld = d->step + 1,
        .len = d->step + 1,
        .n_heads = heads,
        .n_kv_heads = heads,
        .head_dim = w / heads,
        .scale = kd_score_scale(d->m, &d->m->stacks[KD_DEC])};
    return d->m->be->ops->attention_cached(d->m->be, &a);
}

int kd_cache_cross_kv(struct kd_decoder *d, int layer, struct kd_var *out)
{
    *out = (struct kd_var){.v = cross_of(d, layer)};
    return KD_OK;
}

/* The stack over the new rows, then the head into the decoder's logits. */
static int step_forward(struct kd_decoder *d, const struct kd_seqs *q_seqs)
{
    struct kd_model *m = d->m;
    int64_t n = q_seqs->n_rows;
    struct kd_block block = {.ctx = &d->ctx,
                             .m = m,
                             .stack = &m->stacks[KD_DEC],
                             .q_seqs = *q_seqs,
                             .src_seqs = d->src,
                             .cache = d};
    struct kd_head head = kd_model_head(m);
    struct kd_var *h;
    struct kd_gemm g = {.trans_b = true,
                        .alpha = head.scale,
                        .b = kd_mat_of(head.w->v),
                        .bias = head.bias,
                        .act = KD_ACT_NONE};

    KD_TRY(kd_block_embed(&block, d->ids_dev, d->ids_dev + n, n));
    KD_TRY(kd_block_stack(&block, &h));
    g.a = kd_mat_of(h->v);
    g.c = kd_mat_of(kd_tensor_rows(d->logits, 0, n));
    return m->be->ops->gemm(m->be, &g);
}

int kd_decoder_step(struct kd_decoder *d, int64_t n_rows, const int32_t *parent,
                    const int32_t *source, const int32_t *tokens,
                    struct kd_tensor *logits)
{
    struct kd_arena_mark mark = kd_arena_mark(d->ctx.arena);
    struct kd_seqs q_seqs;
    int rc = KD_OK;

    if (n_rows > d->max_rows || d->step >= d->max_len)
        return KD_FAIL(KD_EINTERNAL, "decoder step %lld of %lld with %lld rows of %lld",
                       (long long)d->step, (long long)d->max_len, (long long)n_rows,
                       (long long)d->max_rows);
    if (d->step >= d->m->arch.max_positions)
        return KD_FAIL(KD_EINPUT,
                       "generation reached the model's %lld positions: lower "
                       "max_length or max_new_tokens",
                       (long long)d->m->arch.max_positions);
    KD_GO(upload_ids(d, n_rows, tokens));
    KD_GO(advance_slots(d, n_rows, parent));
    KD_GO(group_rows(d, n_rows, source, &q_seqs));
    KD_GO(step_forward(d, &q_seqs));
    d->step++;
    *logits = kd_tensor_rows(d->logits, 0, n_rows);
out:
    kd_arena_release(d->ctx.arena, mark);
    return rc;
}
