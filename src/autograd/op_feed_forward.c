/* SPDX-License-Identifier: Apache-2.0 */
/* The feed-forward sublayer as one op: y = D(act(x W1^T + b1)) W2^T + b2.
 *
 * Its inner matrices are four times as wide as the stream, so they are what a step's
 * memory goes to first.  Both passes go through the rows in chunks: forward keeps the
 * value before the activation and overwrites one chunk of its results; backward makes
 * them again from it, with the same dropout mask (a function of its counter), and has
 * one chunk that is first the inner gradient, then the activation.  What is done twice
 * is pointwise, and is done while the chunk is in cache.
 *
 * The chunks depend on the number of rows only, and gradients of weights are added up
 * chunk by chunk in ascending order: no result depends on the number of threads. */
#include "node.h"

/* On CPUs tall enough for products that keep a handful of threads busy, small enough
 * for caches; on a GPU as tall as it takes to fill it many times over. */
enum { CHUNK_ROWS = 1024, DEVICE_CHUNK_ROWS = 16384, ROW_UNIT = 16 };

struct feed_forward {
    struct kd_feed_forward f;
    struct kd_dropout drop;
    struct kd_var *x, *y;
    struct kd_tensor
        pre; /* [n, w1's rows] before the activation; data NULL: not kept */
    int64_t n, ffn, chunk;
};

/* The rows [first, first + n) of a pass. */
struct chunk {
    const struct feed_forward *p;
    struct kd_backend *be;
    int64_t first, n;
    struct kd_tensor inner; /* [n, ffn] scratch */
    struct kd_tensor pre;   /* [n, w1's rows], of the pass or scratch */
};

/* Chunks of nearly equal height. */
static int64_t chunk_rows(const struct kd_backend *be, int64_t asked, int64_t n)
{
    int64_t most = asked > 0              ? asked
                   : be->device == KD_CPU ? CHUNK_ROWS
                                          : DEVICE_CHUNK_ROWS;
    int64_t chunks = (n + most - 1) / most, even;

    if (chunks <= 1)
        return n;
    even = (n + chunks - 1) / chunks;
    even = (even + ROW_UNIT - 1) / ROW_UNIT * ROW_UNIT;
    return even < most ? even : most;
}

static int64_t chunk_count(const struct feed_forward *p)
{
    return p->n ? (p->n + p->chunk - 1) / p->chunk : 0;
}

/* Chunk I of a pass with SCRATCH [chunk, ffn] and PRE, all that is kept or scratch. */
static struct chunk chunk_at(const struct feed_forward *p, struct kd_backend *be,
                             struct kd_tensor scratch, struct kd_tensor pre, int64_t i)
{
    int64_t first = i * p->chunk, n = p->n - first < p->chunk ? p->n - first : p->chunk;

    return (struct chunk){
        p,
        be,
        first,
        n,
        kd_tensor_rows(scratch, 0, n),
        pre.data ? kd_tensor_rows(pre, pre.shape[0] == p->n ? first : 0, n) : pre};
}

static struct kd_mat rows_of(const struct chunk *c, struct kd_tensor t)
{
    return kd_mat_of(kd_tensor_rows(t, c->first, c->n));
}

/* inner = dropout(inner). */
static int drop_inner(const struct chunk *c)
{
    struct kd_dropout drop = c->p->drop;

    if (drop.p == 0.0f)
        return KD_OK;
    drop.row_keys += c->first;
    return c->be->ops->dropout(c->be, &drop, c->inner, c->inner, false);
}

/* ---- forward ---- */

/* inner = act(x W1^T + b1), or its gated form. */
static int up(const struct chunk *c)
{
    const struct kd_feed_forward *f = &c->p->f;
    struct kd_gemm g = {.trans_b = true,
                        .alpha = 1.0f,
                        .a = rows_of(c, c->p->x->v),
                        .b = kd_mat_of(f->w1->v),
                        .c = kd_mat_of(f->gated ? c->pre : c->inner),
                        .bias = f->b1 ? f->b1->v.data : NULL,
                        .bias_rounded = f->b1 ? f->b1->rounded : NULL,
                        .act = f->gated ? KD_ACT_NONE : f->act};

    if (!f->gated && c->pre.data)
        g.pre = kd_mat_of(c->pre);
    KD_TRY(c->be->ops->gemm(c->be, &g));
    return f->gated ? c->be->ops->glu(c->be, f->act, c->pre, c->inner) : KD_OK;
}

static int forward_chunk(const struct chunk *c)
{
    const struct kd_feed_forward *f = &c->p->f;
    struct kd_gemm down = {.trans_b = true,
                           .alpha = 1.0f,
                           .a = kd_mat_of(c->inner),
                           .b = kd_mat_of(f->w2->v),
                           .c = rows_of(c, c->p->y->v),
                           .bias = f->b2 ? f->b2->v.data : NULL,
                           .bias_rounded = f->b2 ? f->b2->rounded : NULL};

    KD_TRY(up(c));
    KD_TRY(drop_inner(c));
    return c->be->ops->gemm(c->be, &down);
}

static int forward(struct kd_ctx *ctx, const struct feed_forward *p)
{
    struct kd_arena_mark mark = kd_arena_mark(ctx->arena);
    struct kd_tensor scratch, pre = p->pre;
    int rc = KD_OK;

    KD_TRY(kd_arena_tensor(ctx->arena, ctx->dtype, p->chunk, p->ffn, &scratch));
    if (p->f.gated && !pre.data)
        KD_TRY(kd_arena_tensor(ctx->arena, ctx->dtype, p->chunk, 2 * p->ffn, &pre));
    for (int64_t i = 0; i < chunk_count(p) && !rc; i++) {
        struct chunk c = chunk_at(p, ctx->be, scratch, pre, i);

        rc = forward_chunk(&c);
    }
    kd_arena_release(ctx->arena, mark);
    return rc;
}

/* ---- backward ---- */

/* Gradients that are wanted; data NULL: not wanted. */
struct gradients {
    struct kd_tensor w1, b1, w2, b2, x;
    float beta_x; /* 1: x's holds contributions already */
};

/* Weights first: should x be one of them, its gradient is then added to, not set. */
static int open_gradients(struct kd_tape *t, const struct feed_forward *p,
                          struct gradients *g)
{
    bool acc;

    *g = (struct gradients){0};
    KD_TRY(kd_grad_add(t, p->f.w1, &g->w1));
    KD_TRY(kd_grad_add(t, p->f.b1, &g->b1));
    KD_TRY(kd_grad_add(t, p->f.w2, &g->w2));
    KD_TRY(kd_grad_add(t, p->f.b2, &g->b2));
    if (!kd_wants(p->x))
        return KD_OK;
    KD_TRY(kd_grad_open(t, p->x, &g->x, &acc));
    g->beta_x = acc ? 1.0f : 0.0f;
    return KD_OK;
}

/* The gradient of what the first layer gave, from that of inner: in inner's place, or
 * gated, being twice as wide, in that of pre, which nobody needs any more. */
static int act_back(const struct chunk *c, struct kd_tensor *out)
{
    const struct kd_feed_forward *f = &c->p->f;

    *out = f->gated ? c->pre : c->inner;
    if (f->gated)
        return c->be->ops->glu_back(c->be, f->act, c->pre, c->inner, c->pre);
    return c->be->ops->act_back(c->be, f->act, c->pre, c->inner, c->inner);
}

/* From inner = dropout(dy W2) to the gradients of the first layer and of x. */
static int back_inner(const struct chunk *c, const struct gradients *g)
{
    const struct feed_forward *p = c->p;
    struct kd_mat inner = kd_mat_of(c->inner), x = rows_of(c, p->x->v);
    struct kd_tensor dpre;
    struct kd_gemm dh = {.alpha = 1.0f,
                         .a = rows_of(c, p->y->g),
                         .b = kd_mat_of(p->f.w2->v),
                         .c = inner};

    KD_TRY(c->be->ops->gemm(c->be, &dh));
    KD_TRY(drop_inner(c));
    KD_TRY(act_back(c, &dpre));
    inner = kd_mat_of(dpre);
    if (g->w1.data) {
        struct kd_gemm dw = {.trans_a = true,
                             .alpha = 1.0f,
                             .beta = 1.0f,
                             .a = inner,
                             .b = x,
                             .c = kd_mat_of(p->f.w1->g)};
        KD_TRY(c->be->ops->gemm(c->be, &dw));
    }
    if (g->b1.data)
        KD_TRY(c->be->ops->col_sum(c->be, inner, g->b1.data, true));
    if (g->x.data) {
        struct kd_gemm dx = {.alpha = 1.0f,
                             .beta = g->beta_x,
                             .a = inner,
                             .b = kd_mat_of(p->f.w1->v),
                             .c = rows_of(c, p->x->g)};
        KD_TRY(c->be->ops->gemm(c->be, &dx));
    }
    return KD_OK;
}

/* dW2 += dy^T inner with the activation made again. */
static int back_w2(const struct chunk *c)
{
    const struct feed_forward *p = c->p;
    struct kd_gemm dw = {.trans_a = true,
                         .alpha = 1.0f,
                         .beta = 1.0f,
                         .a = rows_of(c, p->y->g),
                         .b = kd_mat_of(c->inner),
                         .c = kd_mat_of(p->f.w2->g)};

    KD_TRY((p->f.gated ? c->be->ops->glu : c->be->ops->act)(c->be, p->f.act, c->pre,
                                                            c->inner));
    KD_TRY(drop_inner(c));
    return c->be->ops->gemm(c->be, &dw);
}

static int feed_forward_back(struct kd_tape *t, const struct kd_node *node)
{
    const struct feed_forward *p = node->saved;
    struct kd_backend *be = kd_tape_backend(t);
    struct kd_tensor scratch = kd_tensor2(NULL, p->pre.dtype, p->chunk, p->ffn);
    struct gradients g;

    KD_TRY(open_gradients(t, p, &g));
    if (g.b2.data)
        KD_TRY(be->ops->col_sum(be, kd_mat_of(p->y->g), g.b2.data, true));
    if (!p->pre.data)
        return KD_OK;
    KD_TRY(kd_pool_take(t, kd_tensor_bytes(&scratch), &scratch.data));
    for (int64_t i = 0; i < chunk_count(p); i++) {
        struct chunk c = chunk_at(p, be, scratch, p->pre, i);

        if (g.w2.data)
            KD_TRY(back_w2(&c));
        if (g.x.data || g.w1.data || g.b1.data)
            KD_TRY(back_inner(&c, &g));
    }
    kd_pool_give(t, scratch.data);
    return KD_OK;
}

/* ---- the op ---- */

static int check(const struct kd_ctx *ctx, const struct kd_feed_forward *f,
                 const struct kd_var *x)
{
    int64_t rows = f->w1->v.shape[0], ffn = f->gated ? rows / 2 : rows;

    KD_TRY(kd_op_check(ctx, "feed-forward", "first weight", f->w1, -1, -1));
    KD_TRY(kd_op_check(ctx, "feed-forward", "second weight", f->w2, -1, ffn));
    KD_TRY(kd_op_check(ctx, "feed-forward", "x", x, -1, f->w1->v.shape[1]));
    KD_TRY(kd_op_check_vector("feed-forward", "first bias", f->b1, rows));
    return kd_op_check_vector("feed-forward", "second bias", f->b2, f->w2->v.shape[0]);
}

int kd_op_feed_forward(struct kd_ctx *ctx, const struct kd_feed_forward *f,
                       struct kd_var *x, struct kd_var **out)
{
    struct feed_forward *saved,
        p = {.f = *f,
             .drop = kd_op_drop(ctx, f->p_drop, f->site, f->row_keys),
             .x = x,
             .n = x->v.shape[0],
             .ffn = f->w2->v.shape[1],
             .chunk = chunk_rows(ctx->be, f->chunk_rows, x->v.shape[0])};
    bool inner = kd_wants(x) || kd_wants(f->w1) || kd_wants(f->b1) || kd_wants(f->w2);
    bool rec = ctx->tape && (inner || kd_wants(f->b2));

    KD_TRY(check(ctx, f, x));
    KD_TRY(kd_op_result(ctx, p.n, f->w2->v.shape[0], rec, out));
    p.y = *out;
    if (rec && inner)
        KD_TRY(kd_arena_tensor(ctx->arena, ctx->dtype, p.n, f->w1->v.shape[0], &p.pre));
    KD_TRY(forward(ctx, &p));
    if (!rec)
        return KD_OK;
    KD_TRY(kd_arena_host(ctx->arena, sizeof(*saved), &saved));
    *saved = p;
    return kd_tape_record(ctx->tape,
                          &(struct kd_node){.back = feed_forward_back,
                                            .in = {x, f->w1, f->b1, f->w2, f->b2},
                                            .out = {*out},
                                            .saved = saved,
                                            .spare = p.pre});
}
