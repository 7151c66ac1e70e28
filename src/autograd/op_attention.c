/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over ragged sequences, on packed projections.
 *
 * Self attention reads q, k and v as windows of one [n, (H + 2 Hkv) hd] matrix, cross
 * attention k and v as windows of one [n_kv, 2 Hkv hd] matrix, and the backward pass
 * writes the gradients into the same windows of one gradient, so neither unpacks
 * anything.  A table of distances is added to the scores; its gradient collects those
 * of all layers that use it.  Probabilities are never kept: the backward makes them
 * again from the log-sum-exp of each row and head. */
#include "node.h"

struct attention {
    struct kd_attention k;
    struct kd_var *q, *kv; /* kv NULL: q is the packed qkv */
    struct kd_var *bias;   /* or NULL */
};

static struct kd_mat q_window(const struct attention *a, struct kd_tensor t)
{
    return kd_mat_cols(t, 0, a->k.n_heads * a->k.head_dim);
}

/* Window of k (WHICH 0) or v (1) in the packed qkv or kv. */
static struct kd_mat kv_window(const struct attention *a, struct kd_tensor t, int which)
{
    int64_t w = a->k.n_kv_heads * a->k.head_dim;
    int64_t first = a->kv ? 0 : a->k.n_heads * a->k.head_dim;

    return kd_mat_cols(t, first + which * w, w);
}

static int attention_back(struct kd_tape *t, const struct kd_node *node)
{
    const struct attention *a = node->saved;
    struct kd_backend *be = kd_tape_backend(t);
    struct kd_tensor dq, dkv, dbias;

    KD_TRY(kd_grad_set_begin(t, a->q, &dq));
    dkv = dq;
    if (a->kv)
        KD_TRY(kd_grad_set_begin(t, a->kv, &dkv));
    KD_TRY(kd_grad_add(t, a->bias, &dbias));
    KD_TRY(be->ops->attention_back(be, &a->k, kd_mat_of(node->out[0]->g),
                                   q_window(a, dq), kv_window(a, dkv, 0),
                                   kv_window(a, dkv, 1), dbias.data));
    KD_TRY(kd_grad_set_end(t, a->q, dq));
    return a->kv ? kd_grad_set_end(t, a->kv, dkv) : KD_OK;
}

static int attention_run(struct kd_ctx *ctx, const struct kd_attention_desc *desc,
                         struct kd_var *q, struct kd_var *kv, struct kd_var **out)
{
    struct kd_tensor from = kv ? kv->v : q->v;
    bool rec = ctx->tape && (kd_wants(q) || kd_wants(kv) || kd_wants(desc->bias));
    struct attention *saved,
        a = {
            .k = {.q_seqs = desc->q_seqs,
                  .kv_seqs = desc->kv_seqs,
                  .n_heads = desc->n_heads,
                  .n_kv_heads = desc->n_kv_heads,
                  .head_dim = desc->head_dim,
                  .scale = desc->scale,
                  .causal = desc->causal,
                  .dropout = kd_op_drop(ctx, desc->p_drop, desc->site, desc->row_keys)},
            .q = q,
            .kv = kv,
            .bias = desc->bias};

    KD_TRY(kd_op_result(ctx, q->v.shape[0], desc->n_heads * desc->head_dim, rec, out));
    a.k.q = q_window(&a, q->v);
    a.k.k = kv_window(&a, from, 0);
    a.k.v = kv_window(&a, from, 1);
    a.k.out = kd_mat_of((*out)->v);
    if (desc->bias)
        a.k.bias = (struct kd_distance_bias){desc->bias->v, desc->bias_zero};
    if (rec)
        KD_TRY(kd_arena_tensor(ctx->arena, KD_F32, q->v.shape[0], desc->n_heads,
                               &a.k.lse));
    KD_TRY(ctx->be->ops->attention(ctx->be, &a.k));
    if (!rec)
        return KD_OK;
    KD_TRY(kd_arena_host(ctx->arena, sizeof(*saved), &saved));
    *saved = a;
    return kd_tape_record(ctx->tape, &(struct kd_node){.back = attention_back,
                                                       .in = {q, kv, desc->bias},
                                                       .out = {*out},
                                                       .saved = saved});
}

static int check_seqs(const struct kd_attention_desc *desc)
{
    if (desc->q_seqs.n == desc->kv_seqs.n && desc->n_kv_heads > 0 &&
        desc->n_heads % desc->n_kv_heads == 0)
        return KD_OK;
    return KD_FAIL(KD_EINTERNAL,
                   "attention: %lld query and %lld key sequences, %lld heads over %lld "
                   "key heads do not match",
                   (long long)desc->q_seqs.n, (long long)desc->kv_seqs.n,
                   (long long)desc->n_heads, (long long)desc->n_kv_heads);
}

int kd_op_self_attention(struct kd_ctx *ctx, const struct kd_attention_desc *desc,
                         struct kd_var *qkv, struct kd_var **out)
{
    KD_TRY(check_seqs(desc));
    KD_TRY(kd_op_check(ctx, "self attention", "qkv", qkv, desc->q_seqs.n_rows,
                       (desc->n_heads + 2 * desc->n_kv_heads) * desc->head_dim));
    return attention_run(ctx, desc, qkv, NULL, out);
}

int kd_op_cross_attention(struct kd_ctx *ctx, const struct kd_attention_desc *desc,
                          struct kd_var *q, struct kd_var *kv, struct kd_var **out)
{
    KD_TRY(check_seqs(desc));
    KD_TRY(kd_op_check(ctx, "cross attention", "q", q, desc->q_seqs.n_rows,
                       desc->n_heads * desc->head_dim));
    KD_TRY(kd_op_check(ctx, "cross attention", "kv", kv, desc->kv_seqs.n_rows,
                       2 * desc->n_kv_heads * desc->head_dim));
    return attention_run(ctx, desc, q, kv, out);
}
