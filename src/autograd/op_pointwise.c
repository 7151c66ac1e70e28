/* SPDX-License-Identifier: Apache-2.0 */
/* Dropout and plain residual sums.
 *
 * A dropout mask is a function of its counter, so it is made again in the backward pass
 * instead of being kept.  The gradient of a sum is handed to the residual branch as it
 * is: the buffer changes its owner, nothing is copied. */
#include "node.h"

struct pointwise {
    struct kd_dropout drop;
    struct kd_var *x, *sub;
};

/* dv (+)= dropout(dy). */
static int drop_back(struct kd_tape *t, const struct kd_dropout *drop,
                     const struct kd_tensor *dy, struct kd_var *v)
{
    struct kd_backend *be = kd_tape_backend(t);
    struct kd_tensor g;
    bool acc;

    KD_TRY(kd_grad_open(t, v, &g, &acc));
    return be->ops->dropout(be, drop, *dy, g, acc);
}

static int dropout_back(struct kd_tape *t, const struct kd_node *node)
{
    const struct pointwise *p = node->saved;

    return drop_back(t, &p->drop, &node->out[0]->g, p->x);
}

int kd_op_dropout(struct kd_ctx *ctx, struct kd_var *x, float p, uint32_t site,
                  const uint64_t *row_keys, struct kd_var **out)
{
    struct kd_dropout drop = kd_op_drop(ctx, p, site, row_keys);
    int64_t n = x->v.shape[0], d = x->v.shape[1];
    bool rec = ctx->tape && kd_wants(x);
    struct pointwise *saved;

    if (drop.p == 0.0f) {
        *out = x;
        return KD_OK;
    }
    KD_TRY(kd_op_check(ctx, "dropout", "x", x, -1, -1));
    KD_TRY(kd_op_result(ctx, n, d, rec, out));
    KD_TRY(ctx->be->ops->dropout(ctx->be, &drop, x->v, (*out)->v, false));
    if (!rec)
        return KD_OK;
    KD_TRY(kd_arena_host(ctx->arena, sizeof(*saved), &saved));
    *saved = (struct pointwise){drop, x, NULL};
    return kd_tape_record(
        ctx->tape, &(struct kd_node){
                       .back = dropout_back, .in = {x}, .out = {*out}, .saved = saved});
}

/* dv (+)= ds while ds is still needed. */
static int copy_back(struct kd_tape *t, const struct kd_tensor *ds, struct kd_var *v)
{
    struct kd_backend *be = kd_tape_backend(t);
    struct kd_tensor g;
    bool acc;

    KD_TRY(kd_grad_open(t, v, &g, &acc));
    if (acc)
        return be->ops->axpy(be, 1.0f, *ds, g);
    return be->ops->copy(be, g.data, ds->data, kd_tensor_bytes(ds));
}

int kd_back_residual(struct kd_tape *t, struct kd_var *sum,
                     const struct kd_dropout *drop, struct kd_var *x,
                     struct kd_var *sub)
{
    bool to_x = kd_wants(x), to_sub = kd_wants(sub);

    if (to_sub && drop->p > 0.0f) {
        KD_TRY(drop_back(t, drop, &sum->g, sub));
        to_sub = false;
    }
    if (to_x && to_sub && x->g_live) {
        KD_TRY(copy_back(t, &sum->g, x));
        to_x = false;
    }
    if (to_x && to_sub)
        KD_TRY(copy_back(t, &sum->g, sub));
    if (to_x || to_sub)
        KD_TRY(kd_grad_pass(t, sum, to_x ? x : sub));
    return KD_OK;
}

static int residual_back(struct kd_tape *t, const struct kd_node *node)
{
    const struct pointwise *p = node->saved;

    return kd_back_residual(t, node->out[0], &p->drop, p->x, p->sub);
}

/* sum = x + dropout(sub), by the shortest way. */
static int residual_forward(struct kd_backend *be, const struct kd_dropout *drop,
                            struct kd_tensor x, struct kd_tensor sub,
                            struct kd_tensor sum)
{
    if (drop->p == 0.0f)
        return be->ops->add(be, x, sub, sum);
    KD_TRY(be->ops->copy(be, sum.data, x.data, kd_tensor_bytes(&x)));
    return be->ops->dropout(be, drop, sub, sum, true);
}

int kd_op_residual(struct kd_ctx *ctx, struct kd_var *x, struct kd_var *sub, float p,
                   uint32_t site, const uint64_t *row_keys, struct kd_var **sum)
{
    struct kd_dropout drop = kd_op_drop(ctx, p, site, row_keys);
    int64_t n = x->v.shape[0], d = x->v.shape[1];
    bool rec = ctx->tape && (kd_wants(x) || kd_wants(sub));
    struct pointwise *saved;

    KD_TRY(kd_op_check(ctx, "residual", "x", x, -1, -1));
    KD_TRY(kd_op_check(ctx, "residual", "sub", sub, n, d));
    KD_TRY(kd_op_result(ctx, n, d, rec, sum));
    KD_TRY(residual_forward(ctx->be, &drop, x->v, sub->v, (*sum)->v));
    if (!rec)
        return KD_OK;
    KD_TRY(kd_arena_host(ctx->arena, sizeof(*saved), &saved));
    *saved = (struct pointwise){drop, x, sub};
    return kd_tape_record(ctx->tape, &(struct kd_node){.back = residual_back,
                                                       .in = {x, sub},
                                                       .out = {*sum},
                                                       .saved = saved});
}
