/* SPDX-License-Identifier: Apache-2.0 */
/* Normalisation, alone or fused with the residual sum before it.
 *
 * Both are one node type: y = norm(s) with s = x + dropout(sub), where sub may be
 * absent (then s is x).  The backward pass reads s and the row statistics (mean,
 * 1 / sigma); the gradient of s is that of the norm plus what later users of s left. */
#include "node.h"

struct norm {
    struct kd_norm k;
    struct kd_dropout drop;
    struct kd_tensor s; /* [n, d] what was normalised */
    float *stats;       /* [n, 2] */
    struct kd_var *x, *sub, *gamma, *beta;
};

/* out[0] is y, out[1] the published sum or NULL. */
static int norm_back(struct kd_tape *t, const struct kd_node *node)
{
    const struct norm *m = node->saved;
    struct kd_var *y = node->out[0], *sum = node->out[1];
    struct kd_backend *be = kd_tape_backend(t);
    struct kd_tensor dx = {0}, dsub = {0}, dsum = {0}, dgamma, dbeta;
    bool acc = false;

    if (!y->g_live) /* only the sum was used */
        return kd_back_residual(t, sum, &m->drop, m->x, m->sub);
    KD_TRY(kd_grad_add(t, m->gamma, &dgamma));
    KD_TRY(kd_grad_add(t, m->beta, &dbeta));
    if (kd_wants(m->sub))
        KD_TRY(kd_grad_set_begin(t, m->sub, &dsub));
    if (kd_wants(m->x))
        KD_TRY(kd_grad_open(t, m->x, &dx, &acc));
    if (sum && sum->g_live)
        dsum = sum->g;
    KD_TRY(be->ops->norm_back(be, &m->k, m->s, m->stats, y->g, dsum, &m->drop, dx, acc,
                              dsub, dgamma.data, dbeta.data));
    return dsub.data ? kd_grad_set_end(t, m->sub, dsub) : KD_OK;
}

/* Check the shapes and fill M but for what the forward pass makes. */
static int norm_prepare(const struct kd_ctx *ctx, const struct kd_norm_desc *desc,
                        struct kd_var *x, struct kd_var *sub, struct kd_var *gamma,
                        struct kd_var *beta, struct kd_dropout drop, struct norm *m)
{
    int64_t n = x->v.shape[0], d = x->v.shape[1];

    KD_TRY(kd_op_check(ctx, "norm", "x", x, -1, -1));
    if (sub)
        KD_TRY(kd_op_check(ctx, "norm", "sub", sub, n, d));
    KD_TRY(kd_op_check_vector("norm", "gamma", gamma, d));
    KD_TRY(kd_op_check_vector("norm", "beta", beta, d));
    *m = (struct norm){
        .k = {desc->kind, desc->eps, gamma->v.data, beta ? beta->v.data : NULL},
        .drop = drop,
        .s = x->v,
        .x = x,
        .sub = sub,
        .gamma = gamma,
        .beta = beta};
    return KD_OK;
}

static bool norm_records(const struct kd_ctx *ctx, const struct norm *m)
{
    return ctx->tape && (kd_wants(m->x) || kd_wants(m->sub) || kd_wants(m->gamma) ||
                         kd_wants(m->beta));
}

/* Compute y (and the sum, at m->s, where there is a sub), and record. */
static int norm_run(struct kd_ctx *ctx, struct norm *m, struct kd_var *sum,
                    struct kd_var **y)
{
    int64_t n = m->s.shape[0], d = m->s.shape[1];
    bool rec = norm_records(ctx, m);
    struct kd_tensor stats = {0}, none = {0};
    struct norm *saved;

    KD_TRY(kd_op_result(ctx, n, d, rec, y));
    if (rec)
        KD_TRY(kd_arena_tensor(ctx->arena, KD_F32, n, 2, &stats));
    m->stats = stats.data;
    KD_TRY(ctx->be->ops->norm(ctx->be, &m->k, m->x->v, m->sub ? m->sub->v : none,
                              &m->drop, m->sub ? m->s : none, (*y)->v, m->stats));
    if (!rec)
        return KD_OK;
    KD_TRY(kd_arena_host(ctx->arena, sizeof(*saved), &saved));
    *saved = *m;
    return kd_tape_record(ctx->tape,
                          &(struct kd_node){.back = norm_back,
                                            .in = {m->x, m->sub, m->gamma, m->beta},
                                            .out = {*y, sum},
                                            .saved = saved});
}

int kd_op_norm(struct kd_ctx *ctx, const struct kd_norm_desc *desc, struct kd_var *x,
               struct kd_var *gamma, struct kd_var *beta, struct kd_var **y)
{
    struct norm m;

    KD_TRY(norm_prepare(ctx, desc, x, NULL, gamma, beta, (struct kd_dropout){0}, &m));
    return norm_run(ctx, &m, NULL, y);
}

int kd_op_residual_norm(struct kd_ctx *ctx, const struct kd_norm_desc *desc,
                        struct kd_var *x, struct kd_var *sub, float p, uint32_t site,
                        const uint64_t *row_keys, struct kd_var *gamma,
                        struct kd_var *beta, struct kd_var **sum, struct kd_var **y)
{
    struct kd_dropout drop = kd_op_drop(ctx, p, site, row_keys);
    struct kd_var *s = NULL;
    struct norm m;

    KD_TRY(norm_prepare(ctx, desc, x, sub, gamma, beta, drop, &m));
    m.s.data = sum || norm_records(ctx, &m) ? sub->v.data : NULL; /* in place */
    if (sum) {
        bool needs = ctx->tape && (kd_wants(x) || kd_wants(sub));

        KD_TRY(kd_var_new(ctx, m.s, needs, &s));
        *sum = s;
    }
    return norm_run(ctx, &m, s, y);
}
