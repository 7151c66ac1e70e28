/* SPDX-License-Identifier: Apache-2.0 */
/* Linear layers: y = act(x W^T + b), one product with its epilogue.
 *
 * The backward pass needs x, W and, with an activation, the value before it.  ReLU's
 * derivative can be read off its result, so nothing extra is kept for it.  The gradient
 * before the activation is made in place in y's buffer, which nobody needs after us. */
#include "node.h"

struct linear {
    enum kd_act act;
    struct kd_tensor pre; /* [n, d_out] before act; y itself for ReLU */
    struct kd_var *x, *w, *b;
};

/* dW [d_out, d_in] += dy^T x, db += column sums of dy. */
static int back_params(struct kd_tape *t, const struct linear *l, struct kd_tensor dy)
{
    struct kd_backend *be = kd_tape_backend(t);
    struct kd_tensor g;
    bool acc;

    if (kd_wants(l->w)) {
        KD_TRY(kd_grad_open(t, l->w, &g, &acc));
        struct kd_gemm dw = {.trans_a = true,
                             .alpha = 1.0f,
                             .beta = acc ? 1.0f : 0.0f,
                             .a = kd_mat_of(dy),
                             .b = kd_mat_of(l->x->v),
                             .c = kd_mat_of(g)};
        KD_TRY(be->ops->gemm(be, &dw));
    }
    if (kd_wants(l->b)) {
        KD_TRY(kd_grad_open(t, l->b, &g, &acc));
        KD_TRY(be->ops->col_sum(be, kd_mat_of(dy), g.data, acc));
    }
    return KD_OK;
}

static int linear_back(struct kd_tape *t, const struct kd_node *node)
{
    const struct linear *l = node->saved;
    struct kd_backend *be = kd_tape_backend(t);
    struct kd_tensor dy = node->out[0]->g, g;
    bool acc;

    if (l->act != KD_ACT_NONE)
        KD_TRY(be->ops->act_back(be, l->act, l->pre, dy, dy));
    KD_TRY(back_params(t, l, dy));
    if (!kd_wants(l->x))
        return KD_OK;
    KD_TRY(kd_grad_open(t, l->x, &g, &acc));
    struct kd_gemm dx = {.alpha = 1.0f,
                         .beta = acc ? 1.0f : 0.0f,
                         .a = kd_mat_of(dy),
                         .b = kd_mat_of(l->w->v),
                         .c = kd_mat_of(g)};
    return be->ops->gemm(be, &dx);
}

int kd_op_linear(struct kd_ctx *ctx, struct kd_var *x, struct kd_var *w,
                 struct kd_var *b, enum kd_act act, struct kd_var **out)
{
    int64_t n = x->v.shape[0], d_out = w->v.shape[0];
    bool rec = ctx->tape && (kd_wants(x) || kd_wants(w) || kd_wants(b));
    struct kd_tensor pre = {0};
    struct linear *l;

    KD_TRY(kd_op_check(ctx, "linear", "x", x, -1, w->v.shape[1]));
    KD_TRY(kd_op_check(ctx, "linear", "weight", w, -1, -1));
    KD_TRY(kd_op_check_vector("linear", "bias", b, d_out));
    KD_TRY(kd_op_result(ctx, n, d_out, rec, out));
    if (rec && act != KD_ACT_NONE && act != KD_ACT_RELU)
        KD_TRY(kd_arena_tensor(ctx->arena, ctx->dtype, n, d_out, &pre));

    struct kd_gemm y = {.trans_b = true,
                        .alpha = 1.0f,
                        .a = kd_mat_of(x->v),
                        .b = kd_mat_of(w->v),
                        .c = kd_mat_of((*out)->v),
                        .bias = b ? b->v.data : NULL,
                        .bias_rounded = b ? b->rounded : NULL,
                        .act = act,
                        .pre = kd_mat_of(pre)};
    KD_TRY(ctx->be->ops->gemm(ctx->be, &y));
    if (!rec)
        return KD_OK;
    KD_TRY(kd_arena_host(ctx->arena, sizeof(*l), &l));
    *l = (struct linear){act, pre.data ? pre : (*out)->v, x, w, b};
    return kd_tape_record(ctx->tape, &(struct kd_node){.back = linear_back,
                                                       .in = {x, w, b},
                                                       .out = {*out},
                                                       .saved = l,
                                                       .spare = pre});
}
