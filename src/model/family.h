/* SPDX-License-Identifier: Apache-2.0 */
/* What a family of models is to the engine: a parser of its config.json and a table of
 * tensor names.
 *
 * A slot is a place in the one transformer.  The name of a slot is a template: '@' is
 * the stack ("encoder", "decoder"), '#' the layer, '^' the number of the last sublayer
 * (1, or 2 after cross attention).  A family without a slot leaves its template NULL.
 * arch.c looks families up by model_type; model.c registers parameters in the order of
 * the slots, so the order below is memory order: q, k and v adjacent, weights first, so
 * that [3 d, d] and [3 d] views exist, and k and v of the cross attention and the two
 * halves of a gated feed-forward layer likewise. */
#ifndef KDHPC_SRC_MODEL_FAMILY_H
#define KDHPC_SRC_MODEL_FAMILY_H

#include "kdhpc/model/arch.h"

enum kd_slot {
    /* the model */
    KD_SLOT_EMBED,
    KD_SLOT_HEAD,
    KD_SLOT_LOGITS_BIAS,
    /* a stack */
    KD_SLOT_STACK_EMBED,
    KD_SLOT_POS,
    KD_SLOT_DISTANCES,
    KD_SLOT_EMB_NORM,
    KD_SLOT_EMB_NORM_B,
    KD_SLOT_FINAL_NORM,
    KD_SLOT_FINAL_NORM_B,
    /* a layer */
    KD_SLOT_SELF_Q,
    KD_SLOT_SELF_K,
    KD_SLOT_SELF_V,
    KD_SLOT_SELF_Q_B,
    KD_SLOT_SELF_K_B,
    KD_SLOT_SELF_V_B,
    KD_SLOT_SELF_O,
    KD_SLOT_SELF_O_B,
    KD_SLOT_SELF_NORM,
    KD_SLOT_SELF_NORM_B,
    KD_SLOT_CROSS_Q,
    KD_SLOT_CROSS_Q_B,
    KD_SLOT_CROSS_K,
    KD_SLOT_CROSS_V,
    KD_SLOT_CROSS_K_B,
    KD_SLOT_CROSS_V_B,
    KD_SLOT_CROSS_O,
    KD_SLOT_CROSS_O_B,
    KD_SLOT_CROSS_NORM,
    KD_SLOT_CROSS_NORM_B,
    KD_SLOT_FC1,
    KD_SLOT_FC1_B,
    KD_SLOT_GATE,
    KD_SLOT_GATED,
    KD_SLOT_FC2,
    KD_SLOT_FC2_B,
    KD_SLOT_FFN_NORM,
    KD_SLOT_FFN_NORM_B,
    KD_SLOT_COUNT
};

struct kd_family {
    const char *model_type;
    const char *architecture; /* class name written to config.json */
    /* What the model type fixes, whatever the file says. */
    bool prenorm, emb_norm, final_norm;
    enum kd_positions positions;
    enum kd_start_rule start_rule;
    bool old_start_last;
    int32_t decoder_start_default; /* -1: none */
    int64_t vocab_default;         /* size of a vocabulary that the file leaves out */
    struct kd_arch_keys keys;

    const char *enc_layers_key, *dec_layers_key; /* depths in config.json */
    const char *prefix;               /* of the base model; a checkpoint may lack it */
    const char *const *names;         /* [KD_SLOT_COUNT] templates */
    const char *const *embed_aliases; /* names of the shared table, NULL-terminated */
    const char *const *head_aliases;  /* names of the head where it is tied to a table,
                                         NULL-terminated */
    const char *const *ignored; /* endings of names that say nothing, NULL-terminated */

    int (*parse)(const struct kd_json *config, const struct kd_family *family,
                 struct kd_arch *arch);
    /* Standard deviation of a slot's initial values; NULL: arch's init_std for all. */
    double (*init_std)(const struct kd_arch *arch, enum kd_slot slot);
};

extern const struct kd_family kd_family_bart, kd_family_mbart, kd_family_pegasus,
    kd_family_marian, kd_family_fsmt, kd_family_t5, kd_family_mt5;

/** Readers for parsers; a value of the wrong type or out of bounds is KD_EINPUT naming
 * the key.  Local. */
int kd_arch_count(const struct kd_json *config, const char *key, int64_t def,
                  int64_t *out) KD_MUST_CHECK;
int kd_arch_real(const struct kd_json *config, const char *key, double def, double min,
                 double max, double *out) KD_MUST_CHECK;
int kd_arch_prob(const struct kd_json *config, const char *key, double def,
                 float *out) KD_MUST_CHECK;
int kd_arch_id(const struct kd_json *config, const char *key, int32_t def,
               int32_t *out) KD_MUST_CHECK; /* null: -1; a list: its first */
int kd_arch_act(const struct kd_json *config, const char *key, const char *def,
                enum kd_act *out) KD_MUST_CHECK;
int kd_arch_act_name(const char *key, const char *name,
                     enum kd_act *out) KD_MUST_CHECK; /* the value itself */

#endif
