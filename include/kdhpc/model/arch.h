/* SPDX-License-Identifier: Apache-2.0 */
/* The descriptor: everything a config.json says about the network, in one struct that
 * the one transformer reads.  A family (model/family_*.c) is a table that fills it and
 * that names the tensors; the engine never asks for a family. */
#ifndef KDHPC_MODEL_ARCH_H
#define KDHPC_MODEL_ARCH_H

#include "kdhpc/base/json.h"
#include "kdhpc/tensor/backend.h"

enum kd_positions {
    KD_POS_LEARNED,
    KD_POS_SINUSOID, /* sin of all angles, then cos; angle k of p: p / 10000^(2 k/d) */
    KD_POS_SINUSOID_T2T, /* tensor2tensor's angles: p exp(-k ln(10000) / (d/2 - 1)) */
    KD_POS_RELATIVE      /* no table: T5's bias of attention by distance */
};
enum kd_start_rule {
    KD_START_TOKEN,     /* decoder input = start token, labels[:-1] */
    KD_START_LAST_LABEL /* decoder input = last label, labels[:-1] (mBART) */
};

struct kd_arch {
    char model_type[32];
    int n_enc, n_dec;
    int64_t d_model, n_heads_enc, n_heads_dec, ffn_enc, ffn_dec;
    int64_t head_dim;   /* 0: d_model / heads */
    int64_t vocab_size; /* of targets, which the head predicts */
    int64_t source_vocab_size;
    bool shared_embed; /* one table embeds sources and targets */
    bool tied_head;    /* the head is the targets' table */
    float head_scale;  /* logits = head_scale * h W^T + bias */
    enum kd_norm_kind norm;
    float norm_eps;
    bool prenorm;    /* norm before each sublayer; else after its residual */
    bool emb_norm;   /* norm after the embeddings */
    bool final_norm; /* norm at the end of each stack */
    float emb_scale;
    enum kd_positions positions;
    int64_t max_positions, pos_offset; /* row of the table = position + pos_offset */
    int n_distances;                   /* KD_POS_RELATIVE: buckets of distances, ... */
    int64_t max_distance;              /* ... of which the last starts here */
    bool scaled_scores;                /* scores of attention times head_dim^-1/2 */
    enum kd_act act;
    bool gated;       /* act(x W^T) * (x V^T) in place of act(x W^T) */
    bool logits_bias; /* final_logits_bias buffer */
    float p_emb, p_resid, p_attn, p_act, p_final; /* dropouts */
    bool one_dropout; /* the config has a single rate for all of them */
    double init_std;
    int32_t bos_id, eos_id, pad_id, unk_id, decoder_start_id; /* -1: none */
    int32_t padding_row;   /* of the tables: starts at zero and gets no gradient from
                              lookups; -1: none */
    int32_t forced_eos_id; /* of generation; -1: none */
    enum kd_start_rule start_rule;
    bool old_start_last; /* before transformers 4.2 training began with the last label,
                            whatever decoding begins with */
};

struct kd_family;

/** Parse CONFIG (a config.json) into *ARCH and *FAMILY.  Local.  KD_EINPUT names the
 * key; a model type that is not supported is named with those that are. */
int kd_arch_parse(const struct kd_json *config, struct kd_arch *arch,
                  const struct kd_family **family) KD_MUST_CHECK;

/** How a family's config.json speaks of vocabularies and of the ends of outputs: what a
 * new model needs to be told that comes with a tokenizer. */
struct kd_arch_keys {
    const char *source_vocab;
    const char *target_vocab; /* NULL: one vocabulary serves both sides */
    bool starts_with_pad;     /* decoders start with the padding token; else with eos */
    bool forces_eos;          /* outputs that reach the limit end with eos */
};

/** The keys of CONFIG's family.  Local.  KD_EINPUT as kd_arch_parse. */
int kd_arch_keys_of(const struct kd_json *config,
                    struct kd_arch_keys *out) KD_MUST_CHECK;

#endif
