/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a model: parameters seen as the vars that the blocks use.
 *
 * A var may cover several parameters (packed q, k, v) or part of one (a position table
 * without the rows before its offset); `binding` remembers which, so that values,
 * gradients and freezing are looked up in one place, kd_model_bind, at the start of
 * every pass. */
#ifndef KDHPC_SRC_MODEL_MODEL_IMPL_H
#define KDHPC_SRC_MODEL_MODEL_IMPL_H

#include "family.h"

#include "kdhpc/model/model.h"

enum { KD_ENC, KD_DEC };

struct kd_linear_vars {
    struct kd_var w, b;
};

struct kd_norm_vars {
    struct kd_var gamma, beta;
};

struct kd_layer {
    struct kd_linear_vars qkv, self_o;                /* [3 d, d], [d, d] */
    struct kd_linear_vars cross_q, cross_kv, cross_o; /* decoder; [2 d, d] */
    struct kd_linear_vars fc1, fc2;                   /* [ffn, d], [d, ffn] */
    struct kd_linear_vars gate; /* [2 ffn, d] in place of fc1: activated, linear */
    struct kd_norm_vars self_norm, cross_norm, ffn_norm;
};

struct kd_stack {
    int which; /* KD_ENC, KD_DEC */
    int n;
    int64_t n_heads, head_dim, ffn;
    struct kd_var *embed;    /* one of the model's tables */
    struct kd_var pos;       /* [max_positions, d]: row = position; or empty */
    struct kd_var distances; /* [n_distances, heads] float32, or empty */
    struct kd_norm_vars emb_norm, final_norm;
    struct kd_layer *layers; /* [n] */
};

/** A var over parameters [first, first + n), from slab value `offset` on. */
struct kd_binding {
    struct kd_var *var;
    int first, n;
    int64_t offset;
};

/** Which place of the network a parameter fills. */
struct kd_place {
    enum kd_slot slot;
    int stack, layer; /* -1: of the model / of the stack */
};

struct kd_model {
    struct kd_backend *be;
    struct kd_json *config;
    struct kd_arch arch;
    const struct kd_family *family;
    struct kd_params params;
    struct kd_place *places; /* [params.n] */
    struct kd_var tables[2]; /* [V, d] of KD_ENC, KD_DEC; shared: KD_DEC's alone */
    struct kd_var own_head;  /* [V, d]; empty: the head is the decoder's table */
    int logits_bias;         /* parameter index, or -1 */
    struct kd_stack stacks[2];
    struct kd_binding *bindings;
    int64_t n_bindings, cap_bindings;
};

/** Name of a slot by M's family ("" if it has none) into OUT.  Local. */
int kd_model_slot_name(const struct kd_family *f, struct kd_place place,
                       char out[KD_PARAM_NAME_MAX]) KD_MUST_CHECK;

/** Fill the parameter table and the places; needs arch and family.  Local. */
int kd_model_register(struct kd_model *m) KD_MUST_CHECK;

/** Bind all vars; needs the slabs.  Local. */
int kd_model_bind_all(struct kd_model *m) KD_MUST_CHECK;

/** Compute the tables of sinusoidal positions.  Local. */
int kd_model_fill_positions(struct kd_model *m) KD_MUST_CHECK;

/** Refresh gradients and needs_grad of all vars from the parameter table. */
void kd_model_bind(struct kd_model *m);

/** Dropout sites: a number per place, below 2^20 (attention adds the head above). */
enum kd_site {
    KD_SITE_EMB,
    KD_SITE_SELF_PROBS,
    KD_SITE_SELF,
    KD_SITE_CROSS_PROBS,
    KD_SITE_CROSS,
    KD_SITE_ACT,
    KD_SITE_FFN,
    KD_SITE_FINAL,
    KD_SITE_COUNT
};

/** The stream of a stack's blocks. */
struct kd_block {
    struct kd_ctx *ctx;
    struct kd_model *m;
    struct kd_stack *stack;
    struct kd_seqs q_seqs;    /* rows of this stack */
    struct kd_seqs src_seqs;  /* rows of the encoder's output (decoder) */
    const uint64_t *row_keys; /* of the rows; NULL without dropout */
    struct kd_var *enc;       /* the encoder's output (decoder, uncached) */
    struct kd_decoder *cache; /* one new row per hypothesis; NULL: whole sequences */

    struct kd_var *distances; /* table of the stack's self attention, or NULL ... */
    int64_t zero_distance;    /* ... and its row for distance 0 */

    struct kd_var *x;   /* the residual stream */
    struct kd_var *at;  /* x as a layer's taps see it: its settled input */
    struct kd_var *sub; /* pre-norm: a sublayer's output not yet added to x */
    uint32_t sub_site;
};

/** The bias of each distance between positions below MAX_LEN, of a stack that has
 * distances: *TABLE [distances, heads] float32 in the arena, *ZERO its row for distance
 * 0.  Local. */
int kd_distance_table(struct kd_ctx *ctx, struct kd_model *m, struct kd_stack *s,
                      int64_t max_len, struct kd_var **table,
                      int64_t *zero) KD_MUST_CHECK;

/** Factor of the scores of attention in a stack.  Local. */
float kd_score_scale(const struct kd_model *m, const struct kd_stack *s);

/** Run the layers of B->stack, and its final norm, over B->x; *OUT is the result.
 * Local. */
int kd_block_stack(struct kd_block *b, struct kd_var **out) KD_MUST_CHECK;

/** Embed IDS[n] at POS (row of B->stack->pos) into B->x: lookup, norm, dropout.  Local.
 */
int kd_block_embed(struct kd_block *b, const int32_t *ids, const int32_t *pos,
                   int64_t n) KD_MUST_CHECK;

/* The cached forms of attention (kvcache.c), for one decoder step. */
int kd_cache_self(struct kd_decoder *d, struct kd_ctx *ctx, int layer, struct kd_var *x,
                  struct kd_var **out) KD_MUST_CHECK;
int kd_cache_cross_kv(struct kd_decoder *d, int layer,
                      struct kd_var *out) KD_MUST_CHECK;

#endif
