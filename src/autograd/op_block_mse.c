/* SPDX-License-Identifier: Apache-2.0 */
/* The distance of hidden states as DistilBART's scripts normalised them: one mean and
 * one variance over the whole block [rows, d] of the global batch, student and teacher
 * apart.
 *
 * Everything follows from six sums, so ranks exchange six numbers: with s' = r_s (s -
 * m_s), t' alike and w the weight of the sum, the loss is sum (s' - t')^2 and its
 * gradient ds = r_s (2 w (s' - t') - c s'),   c = 2 w (mean s'^2 - mean s' t'), since
 * both blocks have mean zero.  A replication path: plain vector operations, no kernel
 * of its own. */
#include "node.h"

#include <math.h>

static const double block_eps = 1e-5; /* torch's layer_norm */

/* OUT = X in float32: X itself, or a copy in the arena. */
static int in_f32(struct kd_ctx *ctx, const struct kd_tensor *x, struct kd_tensor *out)
{
    *out = *x;
    if (x->dtype == KD_F32)
        return KD_OK;
    KD_TRY(kd_arena_tensor(ctx->arena, KD_F32, x->shape[0], x->shape[1], out));
    return ctx->be->ops->cast(ctx->be, *x, *out);
}

/* Sum of the squares of the values of X. */
static int sum_squares(struct kd_ctx *ctx, const struct kd_tensor *x, double *out)
{
    struct kd_tensor wide, sum;
    struct kd_span span;

    KD_TRY(in_f32(ctx, x, &wide));
    KD_TRY(kd_arena_tensor(ctx->arena, KD_F64, 1, 1, &sum));
    span = (struct kd_span){wide.data, kd_tensor_count(&wide)};
    KD_TRY(ctx->be->ops->sum_sq(ctx->be, &span, 1, sum.data));
    return ctx->be->ops->download(ctx->be, out, sum.data, sizeof *out);
}

/* Sum of the values of X [rows, d]. */
static int sum_values(struct kd_ctx *ctx, const struct kd_tensor *x, double *out)
{
    int64_t d = x->shape[1];
    struct kd_tensor cols;
    float *host;

    KD_TRY(kd_arena_tensor(ctx->arena, KD_F32, 1, d, &cols));
    KD_TRY(kd_arena_host(ctx->arena, (size_t)d * sizeof *host, &host));
    KD_TRY(ctx->be->ops->col_sum(ctx->be, kd_mat_of(*x), cols.data, false));
    KD_TRY(ctx->be->ops->download(ctx->be, host, cols.data, kd_tensor_bytes(&cols)));
    *out = 0;
    for (int64_t c = 0; c < d; c++)
        *out += host[c];
    return KD_OK;
}

int kd_op_block_sums(struct kd_ctx *ctx, struct kd_var *s, struct kd_var *t,
                     struct kd_block_sums *out)
{
    struct kd_arena_mark mark = kd_arena_mark(ctx->arena);
    struct kd_ctx plain = {.be = ctx->be, .arena = ctx->arena, .dtype = ctx->dtype};
    int64_t n = kd_tensor_count(&s->v);
    double distance;
    int rc = KD_OK;

    KD_TRY(kd_op_check(ctx, "block sums", "student", s, -1, -1));
    KD_TRY(kd_op_check(ctx, "block sums", "teacher", t, s->v.shape[0], s->v.shape[1]));
    *out = (struct kd_block_sums){.n = (double)n};
    KD_GO(sum_values(ctx, &s->v, &out->s));
    KD_GO(sum_values(ctx, &t->v, &out->t));
    KD_GO(sum_squares(ctx, &s->v, &out->ss));
    KD_GO(sum_squares(ctx, &t->v, &out->tt));
    KD_GO(kd_op_hidden_mse(&plain, s, t, NULL, false, 0, &distance));
    out->st = 0.5 * (out->ss + out->tt - distance);
out:
    kd_arena_release(ctx->arena, mark);
    return rc;
}

/* ds (+)= a s + b t + c, summed in float32. */
static int add_affine(struct kd_ctx *ctx, struct kd_var *s, struct kd_var *t, double a,
                      double b, double c)
{
    struct kd_backend *be = ctx->be;
    int64_t n = kd_tensor_count(&s->v);
    struct kd_tensor ones, ds, sum;
    float *host;

    KD_TRY(kd_grad_add(ctx->tape, s, &ds));
    KD_TRY(in_f32(ctx, &ds, &sum));
    KD_TRY(kd_arena_tensor(ctx->arena, KD_F32, s->v.shape[0], s->v.shape[1], &ones));
    KD_TRY(kd_arena_host(ctx->arena, kd_tensor_bytes(&ones), &host));
    for (int64_t i = 0; i < n; i++)
        host[i] = 1.0f;
    KD_TRY(be->ops->upload(be, ones.data, host, kd_tensor_bytes(&ones)));
    KD_TRY(be->ops->axpy(be, (float)a, s->v, sum));
    KD_TRY(be->ops->axpy(be, (float)b, t->v, sum));
    KD_TRY(be->ops->axpy(be, (float)c, ones, sum));
    return sum.data == ds.data ? KD_OK : be->ops->cast(be, sum, ds);
}

int kd_op_block_mse(struct kd_ctx *ctx, struct kd_var *s, struct kd_var *t,
                    const struct kd_block_sums *local, const struct kd_block_sums *all,
                    float w, double *sum)
{
    struct kd_arena_mark mark = kd_arena_mark(ctx->arena);
    double ms = all->s / all->n, mt = all->t / all->n;
    double rs = 1 / sqrt(all->ss / all->n - ms * ms + block_eps);
    double rt = 1 / sqrt(all->tt / all->n - mt * mt + block_eps);
    /* centred second moments of the local part, and of the whole */
    double ss = local->ss - 2 * ms * local->s + local->n * ms * ms;
    double tt = local->tt - 2 * mt * local->t + local->n * mt * mt;
    double st = local->st - ms * local->t - mt * local->s + local->n * ms * mt;
    double mean_ss = rs * rs * (all->ss / all->n - ms * ms);
    double mean_st = rs * rt * (all->st / all->n - ms * mt);
    double c = 2 * (double)w * (mean_ss - mean_st);
    double a = rs * rs * (2 * (double)w - c), b = -2 * (double)w * rs * rt;
    int rc = KD_OK;

    *sum = rs * rs * ss - 2 * rs * rt * st + rt * rt * tt;
    if (ctx->tape && kd_wants(s) && w != 0.0f)
        rc = add_affine(ctx, s, t, a, b, -a * ms - b * mt);
    kd_arena_release(ctx->arena, mark);
    return rc;
}
