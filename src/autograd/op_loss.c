/* SPDX-License-Identifier: Apache-2.0 */
/* Losses: the head with its vocabulary losses, and the distance of hidden states.
 *
 * Losses are leaves of the graph: they know their weight, so they add their gradients
 * to their inputs in the forward pass, where logits or differences are still at hand.
 * The head goes through the rows in chunks: [chunk, V] logits are made, turned into
 * losses and into their gradient, used for dh and dW, and overwritten by the next
 * chunk.  Logits are float32; their gradient has the compute type, for the two products
 * that follow, and takes the logits' place where that is float32.  Only a node without
 * work is recorded, which keeps W pending until the backward pass has reached it.
 *
 * Sums are taken on the host in float64 and row order.  Waiting for the rows would let
 * a device run dry between forward and backward, so a context may ask for its sums
 * later: the rows then stay in backend memory until kd_later_wait. */
#include "node.h"

/* Bytes of a chunk's logits: on CPUs they should stay in cache; on a GPU a product
 * needs some thousand rows to be worth the pass over the gradient of W that it makes.
 */
enum { CHUNK_BYTES = 16 << 20, DEVICE_CHUNK_BYTES = 384 << 20, MIN_CHUNK_ROWS = 16 };

/* ---- sums of rows ---- */

struct kd_row_sums {
    struct kd_tensor rows; /* [n, cols] float64, backend memory */
    double *sums;          /* [cols], to be added to */
    struct kd_row_sums *next;
};

/* The rows of one op's losses, and what it does with them at its end. */
struct row_losses {
    struct kd_row_sums sums;
    double *host;              /* [n, cols], or NULL */
    struct kd_row_sums *noted; /* for later, or NULL */
    struct kd_arena_mark mark; /* to release */
};

static int sum_rows(struct kd_ctx *ctx, const struct kd_row_sums *s, double *host)
{
    int64_t n = s->rows.shape[0], cols = s->rows.shape[1];

    if (!host)
        KD_TRY(kd_arena_host(ctx->arena, kd_tensor_bytes(&s->rows), &host));
    KD_TRY(
        ctx->be->ops->download(ctx->be, host, s->rows.data, kd_tensor_bytes(&s->rows)));
    for (int64_t r = 0; r < n; r++)
        for (int64_t c = 0; c < cols; c++)
            s->sums[c] += host[r * cols + c];
    return KD_OK;
}

/* Room for the losses [N, COLS] of an op; HOST: where its caller wants them, or NULL.
 * What is summed later stays in the arena when the op has ended. */
static int losses_begin(struct kd_ctx *ctx, int64_t n, int64_t cols, double *sums,
                        double *host, struct row_losses *l)
{
    *l = (struct row_losses){
        .sums = {.sums = sums}, .host = host, .mark = kd_arena_mark(ctx->arena)};
    KD_TRY(kd_arena_tensor(ctx->arena, KD_F64, n, cols, &l->sums.rows));
    if (!ctx->later || host)
        return KD_OK;
    KD_TRY(kd_arena_host(ctx->arena, sizeof *l->noted, &l->noted));
    l->mark = kd_arena_mark(ctx->arena);
    return KD_OK;
}

static int losses_end(struct kd_ctx *ctx, const struct row_losses *l)
{
    struct kd_later *later = ctx->later;

    if (!l->noted)
        return sum_rows(ctx, &l->sums, l->host);
    *l->noted = l->sums;
    if (later->last)
        later->last->next = l->noted;
    else
        later->first = l->noted;
    later->last = l->noted;
    return KD_OK;
}

int kd_later_wait(struct kd_ctx *ctx)
{
    const struct kd_row_sums *s = ctx->later->first;

    *ctx->later = (struct kd_later){0};
    for (; s; s = s->next)
        KD_TRY(sum_rows(ctx, s, NULL));
    return KD_OK;
}

/* ---- the head ---- */

/* One pass over the rows of h. */
struct head_pass {
    struct kd_ctx *ctx;
    const struct kd_head *head, *teacher; /* teacher NULL: none */
    struct kd_var *h, *h_teacher;
    const struct kd_head_loss_desc *desc;
    int64_t chunk, vocab, ld;
    struct kd_tensor zs, zt; /* [chunk, ld] float32, the first V columns are used */
    struct kd_tensor dz;     /* the same of the compute type */
    struct kd_tensor rows;   /* [n, 4] float64, backend memory */
    bool to_h, to_w;         /* gradients wanted */
    float beta_h, beta_w;    /* 1: the gradient holds contributions already */
};

/* The first N rows of the logits, or their gradient, in Z. */
static struct kd_mat logits_of(const struct head_pass *p, struct kd_tensor z, int64_t n)
{
    return (struct kd_mat){z.data, z.dtype, n, p->vocab, p->ld};
}

/* z = scale * h[first .. first + n) W^T + bias. */
static int head_logits(struct kd_ctx *ctx, const struct kd_head *head,
                       struct kd_tensor h, struct kd_mat z)
{
    struct kd_gemm g = {.trans_b = true,
                        .alpha = head->scale,
                        .a = kd_mat_of(h),
                        .b = kd_mat_of(head->w->v),
                        .c = z,
                        .bias = head->bias};

    return ctx->be->ops->gemm(ctx->be, &g);
}

/* dh = scale * dz W, dW += scale * dz^T h for the rows of one chunk. */
static int head_chunk_back(struct head_pass *p, int64_t first, struct kd_mat dz)
{
    struct kd_backend *be = p->ctx->be;
    int64_t n = dz.rows;

    if (p->to_h) {
        struct kd_gemm dh = {.alpha = p->head->scale,
                             .beta = p->beta_h,
                             .a = dz,
                             .b = kd_mat_of(p->head->w->v),
                             .c = kd_mat_of(kd_tensor_rows(p->h->g, first, n))};
        KD_TRY(be->ops->gemm(be, &dh));
    }
    if (p->to_w) {
        struct kd_gemm dw = {.trans_a = true,
                             .alpha = p->head->scale,
                             .beta = p->beta_w,
                             .a = dz,
                             .b = kd_mat_of(kd_tensor_rows(p->h->v, first, n)),
                             .c = kd_mat_of(p->head->w->g)};
        KD_TRY(be->ops->gemm(be, &dw));
        p->beta_w = 1.0f;
    }
    return KD_OK;
}

static int head_chunk(struct head_pass *p, int64_t first, int64_t n)
{
    const struct kd_head_loss_desc *d = p->desc;
    struct kd_vocab_loss l = {
        .zs = kd_tensor2(p->zs.data, KD_F32, n, p->vocab),
        .dz = kd_tensor2(p->dz.data, p->dz.dtype, n, p->vocab),
        .labels = d->labels + first,
        .kl_mask = d->kl_mask ? d->kl_mask + first : NULL,
        .w_ce = d->w_ce,
        .w_smooth = d->w_smooth,
        .w_kl = p->teacher ? d->w_kl : 0.0f,
        .temperature = d->temperature,
        .grad = p->to_h || p->to_w,
        .rows_out = kd_tensor_rows(p->rows, first, n),
        .ld = p->ld,
    };

    KD_TRY(head_logits(p->ctx, p->head, kd_tensor_rows(p->h->v, first, n),
                       logits_of(p, p->zs, n)));
    if (p->teacher) {
        l.zt = kd_tensor2(p->zt.data, KD_F32, n, p->vocab);
        KD_TRY(head_logits(p->ctx, p->teacher,
                           kd_tensor_rows(p->h_teacher->v, first, n),
                           logits_of(p, p->zt, n)));
    }
    KD_TRY(p->ctx->be->ops->vocab_loss(p->ctx->be, &l));
    return l.grad ? head_chunk_back(p, first, logits_of(p, p->dz, n)) : KD_OK;
}

/* Decide which gradients are made, and prepare their buffers. */
static int head_open_gradients(struct head_pass *p)
{
    const struct kd_head_loss_desc *d = p->desc;
    struct kd_var *h = p->h, *w = p->head->w;
    struct kd_tensor g;
    bool acc;

    if (!p->ctx->tape ||
        (d->w_ce == 0.0f && d->w_smooth == 0.0f && (!p->teacher || d->w_kl == 0.0f)))
        return KD_OK;
    p->to_h = kd_wants(h);
    p->to_w = kd_wants(w);
    if (p->to_h) {
        KD_TRY(kd_grad_open(p->ctx->tape, h, &g, &acc));
        p->beta_h = acc ? 1.0f : 0.0f;
    }
    if (p->to_w) {
        KD_TRY(kd_grad_open(p->ctx->tape, w, &g, &acc));
        p->beta_w = acc ? 1.0f : 0.0f;
    }
    if (!p->to_h && !p->to_w)
        return KD_OK;
    return kd_tape_record(p->ctx->tape, &(struct kd_node){.in = {h, w}});
}

static int head_check(const struct head_pass *p)
{
    int64_t n = p->h->v.shape[0], vocab = p->head->w->v.shape[0];

    KD_TRY(kd_op_check(p->ctx, "head", "weight", p->head->w, -1, -1));
    KD_TRY(kd_op_check(p->ctx, "head", "h", p->h, -1, p->head->w->v.shape[1]));
    if (!p->teacher)
        return KD_OK;
    KD_TRY(kd_op_check(p->ctx, "teacher's head", "weight", p->teacher->w, vocab, -1));
    return kd_op_check(p->ctx, "teacher's head", "h", p->h_teacher, n,
                       p->teacher->w->v.shape[1]);
}

/* On a GPU rows of logits begin at multiples of this many values: vocabularies are of
 * odd sizes, and tensor cores want rows that are aligned to 16 bytes. */
enum { DEVICE_LOGITS_UNIT = 64 };

static int64_t logits_ld(const struct kd_backend *be, int64_t vocab)
{
    int64_t unit = be->device == KD_CPU ? 1 : DEVICE_LOGITS_UNIT;

    return (vocab + unit - 1) / unit * unit;
}

/* Rows of a chunk: as many as fit the bytes, in multiples of MIN_CHUNK_ROWS. */
static int64_t chunk_rows(const struct kd_backend *be, int64_t asked, int64_t n,
                          int64_t vocab)
{
    int64_t bytes = be->device == KD_CPU ? CHUNK_BYTES : DEVICE_CHUNK_BYTES,
            rows = asked;

    if (rows <= 0) {
        rows = bytes / (vocab * (int64_t)sizeof(float));
        rows -= rows % MIN_CHUNK_ROWS;
        if (rows < MIN_CHUNK_ROWS)
            rows = MIN_CHUNK_ROWS;
    }
    return rows < n ? rows : n;
}

/* Room for the logits, or their gradient, of a chunk: where a backward pass follows,
 * from the pool that it will use. */
static int logits_begin(struct head_pass *p, enum kd_dtype dtype, struct kd_tensor *z)
{
    if (!p->ctx->tape)
        return kd_arena_tensor(p->ctx->arena, dtype, p->chunk, p->ld, z);
    *z = kd_tensor2(NULL, dtype, p->chunk, p->ld);
    return kd_pool_take(p->ctx->tape, kd_tensor_bytes(z), &z->data);
}

static void logits_end(struct head_pass *p, const struct kd_tensor *z)
{
    if (p->ctx->tape && z->data)
        kd_pool_give(p->ctx->tape, z->data);
}

static int head_run(struct head_pass *p)
{
    int64_t n = p->h->v.shape[0];

    KD_TRY(logits_begin(p, KD_F32, &p->zs));
    p->dz = p->zs;
    if (p->ctx->dtype != KD_F32 && (p->to_h || p->to_w))
        KD_TRY(logits_begin(p, p->ctx->dtype, &p->dz));
    if (p->teacher)
        KD_TRY(logits_begin(p, KD_F32, &p->zt));
    for (int64_t first = 0; first < n; first += p->chunk)
        KD_TRY(head_chunk(p, first, n - first < p->chunk ? n - first : p->chunk));
    return KD_OK;
}

int kd_op_head_loss(struct kd_ctx *ctx, const struct kd_head *head, struct kd_var *h,
                    const struct kd_head *teacher, struct kd_var *h_teacher,
                    const struct kd_head_loss_desc *desc,
                    struct kd_head_loss_sums *sums, double *rows_out)
{
    struct head_pass p = {.ctx = ctx,
                          .head = head,
                          .teacher = h_teacher ? teacher : NULL,
                          .h = h,
                          .h_teacher = h_teacher,
                          .desc = desc};
    struct row_losses losses;
    int rc = KD_OK;

    *sums = (struct kd_head_loss_sums){0};
    KD_TRY(head_check(&p));
    p.vocab = head->w->v.shape[0];
    p.ld = logits_ld(ctx->be, p.vocab);
    p.chunk = chunk_rows(ctx->be, desc->chunk_rows, h->v.shape[0], p.vocab);
    if (h->v.shape[0] == 0)
        return KD_OK;
    KD_TRY(losses_begin(ctx, h->v.shape[0], 4, (double *)sums, rows_out, &losses));
    p.rows = losses.sums.rows;
    KD_GO(head_open_gradients(&p));
    KD_GO(head_run(&p));
    KD_GO(losses_end(ctx, &losses));
out:
    if (p.dz.data != p.zs.data)
        logits_end(&p, &p.dz);
    logits_end(&p, &p.zs);
    logits_end(&p, &p.zt);
    kd_arena_release(ctx->arena, losses.mark);
    return rc;
}

static int hidden_run(struct kd_ctx *ctx, struct kd_var *s, struct kd_var *t,
                      const float *row_mask, bool normalize, float w,
                      struct row_losses *losses)
{
    struct kd_tensor ds = {0};
    bool acc = false;

    if (ctx->tape && kd_wants(s) && w != 0.0f)
        KD_TRY(kd_grad_open(ctx->tape, s, &ds, &acc));
    KD_TRY(ctx->be->ops->mse_rows(ctx->be, s->v, t->v, row_mask, normalize, w,
                                  losses->sums.rows.data, ds, acc));
    return losses_end(ctx, losses);
}

int kd_op_hidden_mse(struct kd_ctx *ctx, struct kd_var *s, struct kd_var *t,
                     const float *row_mask, bool normalize, float w, double *sum)
{
    struct row_losses losses;
    int rc;

    *sum = 0.0;
    KD_TRY(kd_op_check(ctx, "hidden distance", "student", s, -1, -1));
    KD_TRY(kd_op_check(ctx, "hidden distance", "teacher", t, s->v.shape[0],
                       s->v.shape[1]));
    if (s->v.shape[0] == 0)
        return KD_OK;
    KD_TRY(losses_begin(ctx, s->v.shape[0], 1, sum, NULL, &losses));
    rc = hidden_run(ctx, s, t, row_mask, normalize, w, &losses);
    kd_arena_release(ctx->arena, losses.mark);
    return rc;
}
