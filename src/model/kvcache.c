/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding with a cache: one new row per live hypothesis and step.
 *
 * Self attention: keys and values of layer l are rows [k | v] of self[l], row
 * t * max_rows + r for hypothesis r of step t, written once and never moved.  Which
 * rows a hypothesis descends from is a small table slots[row][t] in backend memory,
 * which each step brings up to date from the parents, so that re-ordering beams costs
 * the same for any depth and width.  Cross attention: keys and values of each source
 * are computed once and shared by its hypotheses, which are the query rows of that
 * source's sequence; a source without hypotheses has an empty query range and costs
 * nothing.
 *
 * All that a step needs goes up in one piece (struct packed): 12 bytes a row, 8 a
 * source, 8, and what the caller has riding along; nothing that grows with t.  What
 * depends on t is read in backend memory, so the calls of a step follow from its number
 * of rows.  On a device the rows are filled up to one of few numbers, too: with
 * hypotheses that nobody asked for, whose source is one of some sequences without keys
 * behind the real ones.
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

enum {
    PAD_ROWS = 16,  /* most rows of a sequence without keys */
    LEAST_STEP = 16 /* rows are filled up to a multiple of it at least */
};

struct kd_decoder {
    struct kd_ctx ctx;          /* no tape, no dropout, no taps */
    struct kd_arena_mark begin; /* what lies above it in the arena is ours */
    struct kd_model *m;
    int64_t max_rows, max_len, n_src_rows, step;
    struct kd_seqs src;           /* owned copies */
    struct kd_seqs keys;          /* src and, behind it, sequences without keys */
    int64_t *src_offsets;         /* host [keys.n + 1] */
    char *up;                     /* host: what goes up with a step */
    size_t ride_bytes;            /* most that rides along */
    char *up_dev;                 /* the same in backend memory */
    int32_t *slots;               /* [max_rows, max_len] in backend memory */
    const int32_t *step_dev;      /* of this step */
    struct kd_tensor self;        /* [n_dec max_len max_rows, 2 d] */
    struct kd_tensor cross;       /* [n_dec n_src_rows, 2 d] */
    struct kd_tensor logits;      /* [max_rows, V] */
    struct kd_distance_bias bias; /* of self attention */
};

/* What goes up with a step of some number of rows, at BASE on either side. */
struct packed {
    int64_t *q_offsets;                    /* [keys.n + 1] */
    int32_t *step;                         /* [2], the second one unused */
    int32_t *tokens, *positions, *parents; /* [rows] */
    char *ride;
    size_t bytes; /* without the ride */
};

static struct packed packed_at(const struct kd_decoder *d, char *base, int64_t rows)
{
    struct packed p = {.q_offsets = (void *)base};

    p.step = (void *)(p.q_offsets + d->keys.n + 1);
    p.tokens = p.step + 2;
    p.positions = p.tokens + rows;
    p.parents = p.positions + rows;
    p.ride = (char *)(p.parents + rows + rows % 2);
    p.bytes = (size_t)(p.ride - base);
    return p;
}

/* Rows that a step of N is filled up to: on a device one of four numbers an octave,
 * since a number that comes once is not worth recording, and a few rows more cost
 * little beside reading the weights. */
static int64_t filled(const struct kd_decoder *d, int64_t n)
{
    int64_t step = LEAST_STEP;

    if (d->ctx.be->device == KD_CPU)
        return n;
    while (8 * step <= n)
        step *= 2;
    n = (n + step - 1) / step * step;
    return n < d->max_rows ? n : d->max_rows;
}

/* Sequences that the most rows ever filled in take. */
static int64_t pad_sequences(const struct kd_decoder *d)
{
    int64_t most = d->max_rows / 4 > LEAST_STEP ? d->max_rows / 4 : LEAST_STEP;

    return d->ctx.be->device == KD_CPU ? 0 : (most + PAD_ROWS - 1) / PAD_ROWS;
}

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

static int allocate(struct kd_decoder *d)
{
    const struct kd_arch *a = &d->m->arch;
    int64_t slots = d->max_rows * d->max_len, width = 2 * inner_width(d->m);
    size_t up = packed_at(d, NULL, d->max_rows).bytes + d->ride_bytes;
    struct kd_arena *arena = d->ctx.arena;

    KD_TRY(kd_calloc((int64_t)up, 1, &d->up));
    KD_TRY(device(d, (int64_t)up, 1, &d->up_dev));
    KD_TRY(device(d, slots, sizeof(int32_t), &d->slots));
    KD_TRY(kd_arena_tensor(arena, d->ctx.dtype, a->n_dec * slots, width, &d->self));
    KD_TRY(kd_arena_tensor(arena, d->ctx.dtype, a->n_dec * d->n_src_rows, width,
                           &d->cross));
    return kd_arena_tensor(arena, KD_F32, d->max_rows, a->vocab_size, &d->logits);
}

/* Own copy of the source offsets, on both sides, and behind them empty sequences. */
static int copy_sources(struct kd_decoder *d, const struct kd_seqs *src)
{
    int64_t n = src->n + pad_sequences(d);
    size_t bytes = (size_t)(n + 1) * sizeof(int64_t);
    void *dev;

    KD_TRY(kd_calloc(n + 1, sizeof(int64_t), &d->src_offsets));
    KD_TRY(device(d, (int64_t)bytes, 1, &dev));
    for (int64_t i = 0; i <= n; i++)
        d->src_offsets[i] = src->offsets[i < src->n ? i : src->n];
    d->n_src_rows = src->n_rows;
    d->src = *src;
    d->src.offsets = d->src_offsets;
    d->src.offsets_dev = kd_tensor1(dev, KD_I64, src->n + 1);
    d->keys = d->src;
    d->keys.n = n;
    d->keys.offsets_dev = kd_tensor1(dev, KD_I64, n + 1);
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

/* OUT [n, any] = X [n, d] through a linear. */
static int project(struct kd_decoder *d, const struct kd_var *x,
                   const struct kd_linear_vars *l, struct kd_tensor out)
{
    struct kd_backend *be = d->m->be;
    struct kd_gemm g = {.trans_b = true,
                        .alpha = 1,
                        .a = kd_mat_of(x->v),
                        .b = kd_mat_of(l->w.v),
                        .c = kd_mat_of(out),
                        .bias = l->b.v.data,
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
        KD_TRY(
            project(d, enc, &d->m->stacks[KD_DEC].layers[l].cross_kv, cross_of(d, l)));
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
                   size_t ride_bytes, struct kd_decoder **out)
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
    d->ride_bytes = ride_bytes;
    KD_GO(copy_sources(d, src));
    KD_GO(allocate(d));
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
    d->ctx.be->ops->graph_drop(d->ctx.be); /* they name the decoder's memory */
    kd_arena_release(d->ctx.arena, d->begin);
    free(d->src_offsets);
    free(d->up);
    free(d);
}

/* Query rows of each source, ROWS in all, of which those from N on go to the sequences
 * without keys.  *LONGEST is how many a sequence has. */
static int group_rows(struct kd_decoder *d, int64_t n, int64_t rows,
                      const int32_t *source, int64_t *offsets, int64_t *longest)
{
    int64_t r = 0;

    *longest = 0;
    for (int64_t i = 0; i < d->src.n; i++) {
        offsets[i] = r;
        while (r < n && source[r] == i)
            r++;
        if (r - offsets[i] > *longest)
            *longest = r - offsets[i];
    }
    if (r != n)
        return KD_FAIL(KD_EINTERNAL, "decoder step: sources of rows are not ascending");
    for (int64_t i = d->src.n; i <= d->keys.n; i++) {
        offsets[i] = r;
        r = r + PAD_ROWS < rows ? r + PAD_ROWS : rows;
    }
    return KD_OK;
}

static int64_t round_up(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

/* Send up what the step needs; *DEV is where it lies, *Q_SEQS the query rows. */
static int send_up(struct kd_decoder *d, int64_t n, int64_t rows, const int32_t *parent,
                   const int32_t *source, const int32_t *tokens, struct kd_ride *ride,
                   struct packed *dev, struct kd_seqs *q_seqs)
{
    struct packed p = packed_at(d, d->up, rows);
    size_t bytes = p.bytes;
    int64_t longest;

    *dev = packed_at(d, d->up_dev, rows);
    KD_TRY(group_rows(d, n, rows, source, p.q_offsets, &longest));
    p.step[0] = p.step[1] = (int32_t)d->step;
    for (int64_t r = 0; r < rows; r++) {
        p.tokens[r] = r < n ? tokens[r] : 0;
        p.positions[r] = (int32_t)d->step;
        p.parents[r] = r < n && parent ? parent[r] : 0;
    }
    if (ride) {
        if (ride->bytes > d->ride_bytes)
            return KD_FAIL(KD_EINTERNAL, "decoder step: %zu bytes ride along, not %zu",
                           ride->bytes, d->ride_bytes);
        memcpy(p.ride, ride->host, ride->bytes);
        ride->dev = dev->ride;
        bytes += ride->bytes;
    }
    *q_seqs = (struct kd_seqs){.n = d->keys.n,
                               .n_rows = rows,
                               .max_len = round_up(longest, PAD_ROWS),
                               .offsets = p.q_offsets,
                               .offsets_dev =
                                   kd_tensor1(dev->q_offsets, KD_I64, d->keys.n + 1)};
    return d->m->be->ops->upload(d->m->be, d->up_dev, d->up, bytes);
}

int kd_cache_self(struct kd_decoder *d, struct kd_ctx *ctx, int layer, struct kd_var *x,
                  struct kd_var **out)
{
    const struct kd_linear_vars *l = &d->m->stacks[KD_DEC].layers[layer].qkv;
    int64_t n = x->v.shape[0], w = inner_width(d->m),
            per_layer = d->max_len * d->max_rows;
    int64_t heads = d->m->stacks[KD_DEC].n_heads;
    struct kd_tensor cache = kd_tensor_rows(d->self, layer * per_layer, per_layer);
    struct kd_tensor qkv, mixed;

    KD_TRY(kd_arena_tensor(ctx->arena, ctx->dtype, n, 3 * w, &qkv));
    KD_TRY(kd_arena_tensor(ctx->arena, ctx->dtype, n, w, &mixed));
    KD_TRY(kd_var_new(ctx, mixed, false, out));
    KD_TRY(project(d, x, l, qkv));
    const struct kd_attention_cached a = {
        .q = kd_mat_cols(qkv, 0, w),
        .out = kd_mat_of(mixed),
        .k_new = kd_mat_cols(qkv, w, w),
        .v_new = kd_mat_cols(qkv, 2 * w, w),
        .k = kd_mat_cols(cache, 0, w),
        .v = kd_mat_cols(cache, w, w),
        .slots = d->slots,
        .bias = d->bias,
        .slots_ld = d->max_len,
        .step = d->step_dev,
        .max_len = d->max_len,
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

/* The table of slots, the stack over the new rows, then the head into the decoder's
 * logits. */
static int step_forward(struct kd_decoder *d, const struct packed *dev,
                        const struct kd_seqs *q_seqs)
{
    struct kd_model *m = d->m;
    int64_t n = q_seqs->n_rows;
    const struct kd_slot_step slots = {.slots = d->slots,
                                       .ld = d->max_len,
                                       .n_rows = n,
                                       .stride = d->max_rows,
                                       .parents = dev->parents,
                                       .step = dev->step,
                                       .max_len = d->max_len};
    struct kd_block block = {.ctx = &d->ctx,
                             .m = m,
                             .stack = &m->stacks[KD_DEC],
                             .q_seqs = *q_seqs,
                             .src_seqs = d->keys,
                             .cache = d};
    struct kd_head head = kd_model_head(m);
    struct kd_var *h;
    struct kd_gemm g = {.trans_b = true,
                        .alpha = head.scale,
                        .b = kd_mat_of(head.w->v),
                        .bias = head.bias,
                        .act = KD_ACT_NONE};

    KD_TRY(m->be->ops->advance_slots(m->be, &slots));
    KD_TRY(kd_block_embed(&block, dev->tokens, dev->positions, n));
    KD_TRY(kd_block_stack(&block, &h));
    g.a = kd_mat_of(h->v);
    g.c = kd_mat_of(kd_tensor_rows(d->logits, 0, n));
    return m->be->ops->gemm(m->be, &g);
}

/* The step's calls, as they come or as they were recorded: they follow from the sizes
 * in the key and from where the decoder's memory begins and ends, MARK. */
static int run_step(struct kd_decoder *d, struct kd_arena_mark mark,
                    const struct packed *dev, const struct kd_seqs *q_seqs)
{
    const struct kd_backend_ops *ops = d->m->be->ops;
    const struct kd_graph_key key = {
        .word = {(uintptr_t)d->up_dev, (uint64_t)mark.block, mark.used,
                 (uint64_t)q_seqs->n_rows, (uint64_t)q_seqs->max_len}};
    bool done;
    int rc, end;

    KD_TRY(ops->graph_begin(d->m->be, &key, &done));
    if (done)
        return KD_OK;
    rc = step_forward(d, dev, q_seqs);
    end = ops->graph_end(d->m->be, rc == KD_OK);
    return rc ? rc : end;
}

static int check_step(const struct kd_decoder *d, int64_t n_rows)
{
    if (n_rows > d->max_rows || d->step >= d->max_len)
        return KD_FAIL(KD_EINTERNAL, "decoder step %lld of %lld with %lld rows of %lld",
                       (long long)d->step, (long long)d->max_len, (long long)n_rows,
                       (long long)d->max_rows);
    if (d->step >= d->m->arch.max_positions)
        return KD_FAIL(KD_EINPUT,
                       "generation reached the model's %lld positions: lower "
                       "max_length or max_new_tokens",
                       (long long)d->m->arch.max_positions);
    return KD_OK;
}

int kd_decoder_step(struct kd_decoder *d, int64_t n_rows, const int32_t *parent,
                    const int32_t *source, const int32_t *tokens, struct kd_ride *ride,
                    struct kd_tensor *logits)
{
    struct kd_arena_mark mark = kd_arena_mark(d->ctx.arena);
    struct packed dev;
    struct kd_seqs q_seqs;
    int rc = KD_OK;

    KD_TRY(check_step(d, n_rows));
    KD_GO(send_up(d, n_rows, filled(d, n_rows), parent, source, tokens, ride, &dev,
                  &q_seqs));
    d->step_dev = dev.step;
    KD_GO(run_step(d, mark, &dev, &q_seqs));
    d->step++;
    *logits = kd_tensor_rows(d->logits, 0, n_rows);
out:
    kd_arena_release(d->ctx.arena, mark);
    return rc;
}
