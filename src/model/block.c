/* SPDX-License-Identifier: Apache-2.0 */
/* One block, one loop over blocks: for training (tape, which may keep layers' inputs
 * only), the teacher (no tape) and decoding (cache).
 *
 * x is the residual stream.  Post-norm: x = norm(x + D(sub(x))).  Pre-norm:
 * x = x + D(sub(norm(x))); there the sum is left to the next norm, which adds and
 * normalises in one pass, so `sub` holds what is still to be added.  Either way x is
 * settled after the first norm of the following sublayer, where the taps look:
 * "K.out" is what layer K outputs before any final norm, "K.in" its input.
 *
 * Attention is the only place that knows whether rows are whole sequences or one new
 * row per hypothesis. */
#include "model_impl.h"

#include <math.h>

static struct kd_norm_desc norm_desc(const struct kd_block *b)
{
    return (struct kd_norm_desc){b->m->arch.norm, b->m->arch.norm_eps};
}

/* LAYER -1: the stack's own sites. */
static uint32_t site_of(const struct kd_block *b, int layer, enum kd_site site)
{
    return (uint32_t)((b->stack->which * 1024 + layer + 1) * KD_SITE_COUNT) + site;
}

static struct kd_var *bias_of(struct kd_linear_vars *l)
{
    return l->b.v.data ? &l->b : NULL;
}

static struct kd_var *beta_of(struct kd_norm_vars *n)
{
    return n->beta.v.data ? &n->beta : NULL;
}

static int linear(struct kd_block *b, struct kd_var *x, struct kd_linear_vars *l,
                  struct kd_var **out)
{
    return kd_op_linear(b->ctx, x, &l->w, bias_of(l), KD_ACT_NONE, out);
}

/* The input of a sublayer.  Pre-norm: settles x, then its norm. */
static int sublayer_begin(struct kd_block *b, struct kd_norm_vars *norm,
                          struct kd_var **y)
{
    struct kd_norm_desc desc = norm_desc(b);
    struct kd_var *sub = b->sub;

    if (!b->m->arch.prenorm) {
        *y = b->x;
        return KD_OK;
    }
    if (!sub)
        return kd_op_norm(b->ctx, &desc, b->x, &norm->gamma, beta_of(norm), y);
    b->sub = NULL;
    return kd_op_residual_norm(b->ctx, &desc, b->x, sub, b->m->arch.p_resid,
                               b->sub_site, b->row_keys, &norm->gamma, beta_of(norm),
                               &b->x, y);
}

/* SUB is the output of a sublayer whose norm is NORM. */
static int sublayer_end(struct kd_block *b, struct kd_norm_vars *norm,
                        struct kd_var *sub, uint32_t site)
{
    struct kd_norm_desc desc = norm_desc(b);

    if (!b->m->arch.prenorm)
        return kd_op_residual_norm(b->ctx, &desc, b->x, sub, b->m->arch.p_resid, site,
                                   b->row_keys, &norm->gamma, beta_of(norm), NULL,
                                   &b->x);
    b->sub = sub;
    b->sub_site = site;
    return KD_OK;
}

float kd_score_scale(const struct kd_model *m, const struct kd_stack *s)
{
    return m->arch.scaled_scores ? 1.0f / sqrtf((float)s->head_dim) : 1.0f;
}

static struct kd_attention_desc attention_desc(const struct kd_block *b, uint32_t site)
{
    int64_t head_dim = b->stack->head_dim;

    return (struct kd_attention_desc){.n_heads = b->stack->n_heads,
                                      .n_kv_heads = b->stack->n_heads,
                                      .head_dim = head_dim,
                                      .scale = kd_score_scale(b->m, b->stack),
                                      .p_drop = b->m->arch.p_attn,
                                      .site = site,
                                      .row_keys = b->row_keys,
                                      .q_seqs = b->q_seqs,
                                      .kv_seqs = b->q_seqs};
}

static int self_attention(struct kd_block *b, int l, struct kd_var *x,
                          struct kd_var **out)
{
    struct kd_layer *y = &b->stack->layers[l];
    struct kd_attention_desc desc;
    struct kd_var *qkv, *mixed;

    if (b->cache) {
        KD_TRY(kd_cache_self(b->cache, b->ctx, l, x, &mixed));
    } else {
        desc = attention_desc(b, site_of(b, l, KD_SITE_SELF_PROBS));
        desc.causal = b->stack->which == KD_DEC;
        desc.bias = b->distances;
        desc.bias_zero = b->zero_distance;
        KD_TRY(linear(b, x, &y->qkv, &qkv));
        KD_TRY(kd_op_self_attention(b->ctx, &desc, qkv, &mixed));
    }
    return linear(b, mixed, &y->self_o, out);
}

static int cross_attention(struct kd_block *b, int l, struct kd_var *x,
                           struct kd_var **out)
{
    struct kd_layer *y = &b->stack->layers[l];
    struct kd_attention_desc desc =
        attention_desc(b, site_of(b, l, KD_SITE_CROSS_PROBS));
    struct kd_var *q, *kv, *mixed, cached = {0};

    desc.kv_seqs = b->src_seqs;
    KD_TRY(linear(b, x, &y->cross_q, &q));
    if (b->cache) {
        KD_TRY(kd_cache_cross_kv(b->cache, l, &cached));
        kv = &cached;
    } else {
        KD_TRY(linear(b, b->enc, &y->cross_kv, &kv));
    }
    KD_TRY(kd_op_cross_attention(b->ctx, &desc, q, kv, &mixed));
    return linear(b, mixed, &y->cross_o, out);
}

static int feed_forward(struct kd_block *b, int l, struct kd_var *x,
                        struct kd_var **out)
{
    struct kd_layer *y = &b->stack->layers[l];
    struct kd_linear_vars *first = b->m->arch.gated ? &y->gate : &y->fc1;
    struct kd_feed_forward f = {.w1 = &first->w,
                                .b1 = bias_of(first),
                                .gated = b->m->arch.gated,
                                .w2 = &y->fc2.w,
                                .b2 = bias_of(&y->fc2),
                                .act = b->m->arch.act,
                                .p_drop = b->m->arch.p_act,
                                .site = site_of(b, l, KD_SITE_ACT),
                                .row_keys = b->row_keys};

    return kd_op_feed_forward(b->ctx, &f, x, out);
}

/* X is the settled input of layer L, which layer L - 1 output. */
static void tap_between(struct kd_block *b, int l, struct kd_var *x)
{
    const char *stack = b->stack->which == KD_ENC ? "enc" : "dec";

    b->at = x;
    if (l > 0)
        kd_tap(b->ctx, stack, l - 1, "out", x);
    if (l < b->stack->n)
        kd_tap(b->ctx, stack, l, "in", x);
}

static int layer_forward(struct kd_block *b, int l)
{
    struct kd_layer *y = &b->stack->layers[l];
    struct kd_var *in, *sub;

    KD_TRY(sublayer_begin(b, &y->self_norm, &in));
    tap_between(b, l, b->x);
    KD_TRY(self_attention(b, l, in, &sub));
    KD_TRY(sublayer_end(b, &y->self_norm, sub, site_of(b, l, KD_SITE_SELF)));
    if (b->stack->which == KD_DEC) {
        KD_TRY(sublayer_begin(b, &y->cross_norm, &in));
        KD_TRY(cross_attention(b, l, in, &sub));
        KD_TRY(sublayer_end(b, &y->cross_norm, sub, site_of(b, l, KD_SITE_CROSS)));
    }
    KD_TRY(sublayer_begin(b, &y->ffn_norm, &in));
    KD_TRY(feed_forward(b, l, in, &sub));
    return sublayer_end(b, &y->ffn_norm, sub, site_of(b, l, KD_SITE_FFN));
}

/* What one layer hands to the next, where nothing of a layer is needed afterwards. */
struct carry {
    bool on;
    struct kd_var *x, *sub; /* [n, d] each, made before the layers */
    struct kd_arena_mark mark;
};

/* Without a tape a layer's memory may be used again by the next, if what taps ask for
 * is copied. */
static int carry_begin(struct kd_block *b, struct carry *c)
{
    const struct kd_taps *taps = b->ctx->taps;
    int64_t n = b->x->v.shape[0], d = b->x->v.shape[1];
    struct kd_tensor x, sub;

    *c = (struct carry){.on = !b->ctx->tape && (!taps || !taps->n || taps->keep)};
    if (!c->on)
        return KD_OK;
    KD_TRY(kd_arena_tensor(b->ctx->arena, b->ctx->dtype, n, d, &x));
    KD_TRY(kd_arena_tensor(b->ctx->arena, b->ctx->dtype, n, d, &sub));
    KD_TRY(kd_var_new(b->ctx, x, false, &c->x));
    KD_TRY(kd_var_new(b->ctx, sub, false, &c->sub));
    c->mark = kd_arena_mark(b->ctx->arena);
    return KD_OK;
}

/* Move *FROM (NULL: absent) to TO. */
static int carry_over(struct kd_backend *be, struct kd_var **from, struct kd_var *to)
{
    if (!*from || *from == to)
        return KD_OK;
    KD_TRY(be->ops->copy(be, to->v.data, (*from)->v.data, kd_tensor_bytes(&to->v)));
    *from = to;
    return KD_OK;
}

static int carry_layer(struct kd_block *b, struct carry *c)
{
    if (!c->on)
        return KD_OK;
    KD_TRY(kd_taps_keep(b->m->be, b->ctx->taps));
    KD_TRY(carry_over(b->m->be, &b->x, c->x));
    KD_TRY(carry_over(b->m->be, &b->sub, c->sub));
    kd_arena_release(b->ctx->arena, c->mark);
    return KD_OK;
}

/* ---- layers that backward makes again ---- */

struct layer_again {
    struct kd_block block;
    int layer;
};

/* From (x, sub, encoder's output, distances) to (x, sub, settled input). */
static int run_again(const void *arg, struct kd_ctx *ctx,
                     struct kd_var *const in[KD_SEGMENT_INS],
                     struct kd_var *out[KD_SEGMENT_OUTS])
{
    const struct layer_again *again = arg;
    struct kd_block b = again->block;

    b.ctx = ctx;
    b.x = in[0];
    b.sub = in[1];
    b.enc = in[2];
    b.distances = in[3];
    KD_TRY(layer_forward(&b, again->layer));
    out[0] = b.x;
    out[1] = b.sub;
    out[2] = b.at == in[0] ? NULL : b.at;
    return KD_OK;
}

/* Layer L of which only the input and the output stay; a tap between layers that is
 * neither (pre-norm's settled sum) is kept as well. */
static int recomputed_layer(struct kd_block *b, int l)
{
    const struct layer_again again = {*b, l};
    bool taps = b->ctx->taps && b->ctx->taps->n > 0;
    struct kd_segment segment = {run_again, &again, sizeof again,
                                 b->m->arch.prenorm ? 2 + taps : 1};
    struct kd_var *in[KD_SEGMENT_INS] = {b->x, b->sub, b->enc, b->distances},
                  *out[KD_SEGMENT_OUTS];

    KD_TRY(kd_op_recompute(b->ctx, &segment, in, out));
    tap_between(b, l, out[2] ? out[2] : in[0]);
    b->x = out[0];
    b->sub = out[1];
    b->sub_site = site_of(b, l, KD_SITE_FFN);
    return KD_OK;
}

int kd_block_stack(struct kd_block *b, struct kd_var **out)
{
    struct kd_norm_vars *norm = &b->stack->final_norm;
    struct kd_norm_desc desc = norm_desc(b);
    struct carry carry;
    bool again = b->ctx->tape && b->ctx->recompute;

    if (b->stack->distances.v.data && !b->cache)
        KD_TRY(kd_distance_table(b->ctx, b->m, b->stack, b->q_seqs.max_len,
                                 &b->distances, &b->zero_distance));
    KD_TRY(carry_begin(b, &carry));
    for (int l = 0; l < b->stack->n; l++) {
        KD_TRY(again ? recomputed_layer(b, l) : layer_forward(b, l));
        KD_TRY(carry_layer(b, &carry));
    }
    if (!b->m->arch.final_norm) {
        if (b->sub)
            KD_TRY(kd_op_residual(b->ctx, b->x, b->sub, b->m->arch.p_resid, b->sub_site,
                                  b->row_keys, &b->x));
        *out = b->x;
    } else if (b->sub) {
        KD_TRY(sublayer_begin(b, norm, out));
    } else {
        KD_TRY(kd_op_norm(b->ctx, &desc, b->x, &norm->gamma, beta_of(norm), out));
    }
    tap_between(b, b->stack->n, b->x);
    KD_TRY(kd_op_dropout(b->ctx, *out, b->m->arch.p_final,
                         site_of(b, -1, KD_SITE_FINAL), b->row_keys, out));
    return kd_taps_keep(b->m->be, b->ctx->taps);
}

int kd_block_embed(struct kd_block *b, const int32_t *ids, const int32_t *pos,
                   int64_t n)
{
    const struct kd_arch *a = &b->m->arch;
    struct kd_norm_desc desc = norm_desc(b);
    struct kd_norm_vars *norm = &b->stack->emb_norm;

    KD_TRY(kd_op_embed(b->ctx, b->stack->embed, ids, n, a->emb_scale,
                       b->stack->pos.v.data ? &b->stack->pos : NULL, pos,
                       a->padding_row, &b->x));
    if (a->emb_norm)
        KD_TRY(kd_op_norm(b->ctx, &desc, b->x, &norm->gamma, beta_of(norm), &b->x));
    return kd_op_dropout(b->ctx, b->x, a->p_emb, site_of(b, -1, KD_SITE_EMB),
                         b->row_keys, &b->x);
}
