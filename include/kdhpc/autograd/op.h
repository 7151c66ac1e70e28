/* SPDX-License-Identifier: Apache-2.0 */
/* The differentiable operations.  Each checks shapes, computes through the backend, and
 * records its backward.  Outputs are new vars in the step arena.  All Local.
 *
 * n, n_q, n_kv are rows (tokens), d widths, H heads, hd the width of a head. */
#ifndef KDHPC_AUTOGRAD_OP_H
#define KDHPC_AUTOGRAD_OP_H

#include "kdhpc/autograd/tape.h"

/** out [n, d_out] = act(x [n, d_in] W [d_out, d_in]^T + b [d_out]); b may be NULL. */
int kd_op_linear(struct kd_ctx *ctx, struct kd_var *x, struct kd_var *w,
                 struct kd_var *b, enum kd_act act, struct kd_var **out) KD_MUST_CHECK;

/** A feed-forward sublayer: two linear layers, an activation and dropout between them.
 * Gated, the first layer has two halves, and what goes on is act(first) * second. */
struct kd_feed_forward {
    struct kd_var *w1, *b1; /* [ffn, d], [ffn] or NULL; gated: [2 ffn, d], [2 ffn] */
    struct kd_var *w2, *b2; /* [d_out, ffn], [d_out] or NULL */
    enum kd_act act;
    float p_drop; /* of the activation's values, at SITE */
    uint32_t site;
    const uint64_t *row_keys;
    int64_t chunk_rows; /* 0: about 1,000 */
    bool gated;
};

/** out [n, d_out] = dropout(act(x [n, d] W1^T + b1)) W2^T + b2, a chunk of rows at a
 * time: of what lies between the layers only the value before the activation is kept,
 * and nothing at all without a tape. */
int kd_op_feed_forward(struct kd_ctx *ctx, const struct kd_feed_forward *f,
                       struct kd_var *x, struct kd_var **out) KD_MUST_CHECK;

/** out [n, d] = scale * table[ids] (+ pos[pos_ids]); the lookup gradient of row PAD_ID
 * (-1: none) is dropped. */
int kd_op_embed(struct kd_ctx *ctx, struct kd_var *table, const int32_t *ids, int64_t n,
                float scale, struct kd_var *pos, const int32_t *pos_ids, int32_t pad_id,
                struct kd_var **out) KD_MUST_CHECK;

/** out = dropout(x) with probability P at SITE (identity if not training or P is 0:
 * *OUT = X). */
int kd_op_dropout(struct kd_ctx *ctx, struct kd_var *x, float p, uint32_t site,
                  const uint64_t *row_keys, struct kd_var **out) KD_MUST_CHECK;

/** A norm's constants. */
struct kd_norm_desc {
    enum kd_norm_kind kind;
    float eps;
};

/** y = norm(x). */
int kd_op_norm(struct kd_ctx *ctx, const struct kd_norm_desc *desc, struct kd_var *x,
               struct kd_var *gamma, struct kd_var *beta,
               struct kd_var **y) KD_MUST_CHECK;

/** sum = x + dropout(sub), y = norm(sum) in one pass.  The sum takes the memory of SUB,
 * whose value is gone after the call.  SUM may be NULL when the caller does not need
 * it. */
int kd_op_residual_norm(struct kd_ctx *ctx, const struct kd_norm_desc *desc,
                        struct kd_var *x, struct kd_var *sub, float p, uint32_t site,
                        const uint64_t *row_keys, struct kd_var *gamma,
                        struct kd_var *beta, struct kd_var **sum,
                        struct kd_var **y) KD_MUST_CHECK;

/** sum = x + dropout(sub). */
int kd_op_residual(struct kd_ctx *ctx, struct kd_var *x, struct kd_var *sub, float p,
                   uint32_t site, const uint64_t *row_keys,
                   struct kd_var **sum) KD_MUST_CHECK;

/** What attention needs besides its inputs. */
struct kd_attention_desc {
    int64_t n_heads, n_kv_heads, head_dim;
    float scale;
    bool causal;
    float p_drop;
    uint32_t site;
    const uint64_t *row_keys; /* of the query rows */
    struct kd_seqs q_seqs, kv_seqs;
    struct kd_var
        *bias; /* [distances, H] float32 of struct kd_distance_bias, or NULL */
    int64_t bias_zero;
};

/** Self attention: qkv [n, (H + 2 Hkv) hd] packed q|k|v -> out [n, H hd]. */
int kd_op_self_attention(struct kd_ctx *ctx, const struct kd_attention_desc *desc,
                         struct kd_var *qkv, struct kd_var **out) KD_MUST_CHECK;

/** Cross attention: q [n_q, H hd], kv [n_kv, 2 Hkv hd] packed k|v -> out [n_q, H hd].
 */
int kd_op_cross_attention(struct kd_ctx *ctx, const struct kd_attention_desc *desc,
                          struct kd_var *q, struct kd_var *kv,
                          struct kd_var **out) KD_MUST_CHECK;

enum { KD_SEGMENT_INS = 4, KD_SEGMENT_OUTS = 3 };

/** A part of a forward pass: from the inputs IN (all but in[0] may be NULL) it makes
 * the results OUT, which have the shape of in[0] (NULL: absent).  It may overwrite the
 * value of in[1].  CTX has a tape and no taps. */
struct kd_segment {
    int (*run)(const void *arg, struct kd_ctx *ctx,
               struct kd_var *const in[KD_SEGMENT_INS],
               struct kd_var *out[KD_SEGMENT_OUTS]);
    const void *arg; /* copied; what it points to lives until after backward */
    size_t arg_bytes;
    int n_out; /* at most KD_SEGMENT_OUTS; further results are dropped */
};

/** Run a part and keep only its inputs and results: backward makes the rest again.
 * Values and gradients have the bits that they have without.  Parameters that the part
 * reads are read by nothing else.  CTX has a tape. */
int kd_op_recompute(struct kd_ctx *ctx, const struct kd_segment *segment,
                    struct kd_var *const in[KD_SEGMENT_INS],
                    struct kd_var *out[KD_SEGMENT_OUTS]) KD_MUST_CHECK;

/** A language-model head: logits = scale * h W^T + bias. */
struct kd_head {
    struct kd_var *w;  /* [V, d] */
    const float *bias; /* [V] constant (final_logits_bias), or NULL */
    float scale;
};

/** Weights of the vocabulary losses; each multiplies a SUM over rows (the caller
 * divides). */
struct kd_head_loss_desc {
    float w_ce, w_smooth, w_kl, temperature; /* see struct kd_vocab_loss */
    const int32_t *labels;                   /* [n] */
    const float *kl_mask;                    /* [n] or NULL */
    int64_t chunk_rows; /* 0: chosen for the device, see op_loss.c */
};

/** Sums over rows, in float64: -log p[label], -sum_v log p[v], KL(teacher || student),
 * argmax hits. */
struct kd_head_loss_sums {
    double ce, smooth, kl, n_correct;
};

/** Head and losses of rows h [n, d], a chunk of rows at a time: logits never exist as a
 * whole, and gradients of h and W are made on the way, while the chunk is in cache.
 * H_TEACHER and TEACHER may be NULL. ROWS_OUT: NULL or host [n, 4] float64 (ce, smooth,
 * kl, correct of each row).  Waits for the sums; with CTX->later and without ROWS_OUT,
 * SUMS are zero until kd_later_wait, and must stay where they are. */
int kd_op_head_loss(struct kd_ctx *ctx, const struct kd_head *head, struct kd_var *h,
                    const struct kd_head *teacher, struct kd_var *h_teacher,
                    const struct kd_head_loss_desc *desc,
                    struct kd_head_loss_sums *sums, double *rows_out) KD_MUST_CHECK;

/** *SUM = sum_r mask_r |s_r - t_r|^2 (rows standardised first if NORMALIZE) and W times
 * its gradient into s.  Waits, or leaves SUM to kd_later_wait, as kd_op_head_loss. */
int kd_op_hidden_mse(struct kd_ctx *ctx, struct kd_var *s, struct kd_var *t,
                     const float *row_mask, bool normalize, float w,
                     double *sum) KD_MUST_CHECK;

/** Fill the sums that losses left to CTX->later, in the order of their calls; before
 * the arena is reset.  Waits. */
int kd_later_wait(struct kd_ctx *ctx) KD_MUST_CHECK;

/** Sums over two blocks [rows, d]: values, n s, n t, n s^2, ... for kd_op_block_mse. */
struct kd_block_sums {
    double n, s, t, ss, tt, st;
};

/** *OUT = sums of the local parts of student S and teacher T.  Waits. */
int kd_op_block_sums(struct kd_ctx *ctx, struct kd_var *s, struct kd_var *t,
                     struct kd_block_sums *out) KD_MUST_CHECK;

/** *SUM = this part's share of sum |s' - t'|^2, each block standardised with one mean
 * and one biased variance (eps 1e-5) over ALL, the sums of LOCAL over the ranks; W
 * times the gradient into S.  Source: DistilBART's calc_hidden_loss with
 * normalize_hidden. */
int kd_op_block_mse(struct kd_ctx *ctx, struct kd_var *s, struct kd_var *t,
                    const struct kd_block_sums *local, const struct kd_block_sums *all,
                    float w, double *sum) KD_MUST_CHECK;

#endif
