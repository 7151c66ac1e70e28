/* SPDX-License-Identifier: Apache-2.0 */
/* BART and mBART: tables and the keys of their config.json.
 *
 * One class once served both through flags (normalize_before, normalize_embedding,
 * add_final_layer_norm); those keys still sit in many files and are stale: since
 * transformers 4.2 model_type alone decides.  They are passed over, with a warning
 * where they disagree.  mBART is the pre-norm one with a norm at the end of each stack;
 * its decoder starts with the last label. */
#include "family.h"

#include "kdhpc/base/log.h"

#include <math.h>

static const char *const names[KD_SLOT_COUNT] = {
    [KD_SLOT_EMBED] = "model.shared.weight",
    [KD_SLOT_LOGITS_BIAS] = "final_logits_bias",
    [KD_SLOT_POS] = "model.@.embed_positions.weight",
    [KD_SLOT_EMB_NORM] = "model.@.layernorm_embedding.weight",
    [KD_SLOT_EMB_NORM_B] = "model.@.layernorm_embedding.bias",
    [KD_SLOT_FINAL_NORM] = "model.@.layer_norm.weight",
    [KD_SLOT_FINAL_NORM_B] = "model.@.layer_norm.bias",
    [KD_SLOT_SELF_Q] = "model.@.layers.#.self_attn.q_proj.weight",
    [KD_SLOT_SELF_K] = "model.@.layers.#.self_attn.k_proj.weight",
    [KD_SLOT_SELF_V] = "model.@.layers.#.self_attn.v_proj.weight",
    [KD_SLOT_SELF_Q_B] = "model.@.layers.#.self_attn.q_proj.bias",
    [KD_SLOT_SELF_K_B] = "model.@.layers.#.self_attn.k_proj.bias",
    [KD_SLOT_SELF_V_B] = "model.@.layers.#.self_attn.v_proj.bias",
    [KD_SLOT_SELF_O] = "model.@.layers.#.self_attn.out_proj.weight",
    [KD_SLOT_SELF_O_B] = "model.@.layers.#.self_attn.out_proj.bias",
    [KD_SLOT_SELF_NORM] = "model.@.layers.#.self_attn_layer_norm.weight",
    [KD_SLOT_SELF_NORM_B] = "model.@.layers.#.self_attn_layer_norm.bias",
    [KD_SLOT_CROSS_Q] = "model.@.layers.#.encoder_attn.q_proj.weight",
    [KD_SLOT_CROSS_Q_B] = "model.@.layers.#.encoder_attn.q_proj.bias",
    [KD_SLOT_CROSS_K] = "model.@.layers.#.encoder_attn.k_proj.weight",
    [KD_SLOT_CROSS_V] = "model.@.layers.#.encoder_attn.v_proj.weight",
    [KD_SLOT_CROSS_K_B] = "model.@.layers.#.encoder_attn.k_proj.bias",
    [KD_SLOT_CROSS_V_B] = "model.@.layers.#.encoder_attn.v_proj.bias",
    [KD_SLOT_CROSS_O] = "model.@.layers.#.encoder_attn.out_proj.weight",
    [KD_SLOT_CROSS_O_B] = "model.@.layers.#.encoder_attn.out_proj.bias",
    [KD_SLOT_CROSS_NORM] = "model.@.layers.#.encoder_attn_layer_norm.weight",
    [KD_SLOT_CROSS_NORM_B] = "model.@.layers.#.encoder_attn_layer_norm.bias",
    [KD_SLOT_FC1] = "model.@.layers.#.fc1.weight",
    [KD_SLOT_FC1_B] = "model.@.layers.#.fc1.bias",
    [KD_SLOT_FC2] = "model.@.layers.#.fc2.weight",
    [KD_SLOT_FC2_B] = "model.@.layers.#.fc2.bias",
    [KD_SLOT_FFN_NORM] = "model.@.layers.#.final_layer_norm.weight",
    [KD_SLOT_FFN_NORM_B] = "model.@.layers.#.final_layer_norm.bias",
};

static const char *const embed_aliases[] = {
    "model.shared.weight", "model.encoder.embed_tokens.weight",
    "model.decoder.embed_tokens.weight", "lm_head.weight", NULL};

static const char *const ignored[] = {"encoder.version", "decoder.version", NULL};

static void warn_stale(const struct kd_json *config, const char *key, bool preset)
{
    if (kd_json_has(config, key) && kd_json_bool(config, key, preset) != preset)
        kd_warn("config.json: %s is ignored, model_type \"%s\" decides it", key,
                kd_json_str(config, "model_type", ""));
}

static int parse_sizes(const struct kd_json *c, struct kd_arch *a)
{
    int64_t n_enc, n_dec;

    KD_TRY(kd_arch_count(c, "vocab_size", 50265, &a->vocab_size));
    KD_TRY(kd_arch_count(c, "d_model", 1024, &a->d_model));
    KD_TRY(kd_arch_count(c, "encoder_layers", 12, &n_enc));
    KD_TRY(kd_arch_count(c, "decoder_layers", 12, &n_dec));
    KD_TRY(kd_arch_count(c, "encoder_attention_heads", 16, &a->n_heads_enc));
    KD_TRY(kd_arch_count(c, "decoder_attention_heads", 16, &a->n_heads_dec));
    KD_TRY(kd_arch_count(c, "encoder_ffn_dim", 4096, &a->ffn_enc));
    KD_TRY(kd_arch_count(c, "decoder_ffn_dim", 4096, &a->ffn_dec));
    KD_TRY(kd_arch_count(c, "max_position_embeddings", 1024, &a->max_positions));
    if (n_enc > 999 || n_dec > 999)
        return KD_FAIL(KD_EINPUT, "config.json: more than 999 layers in a stack");
    a->n_enc = (int)n_enc;
    a->n_dec = (int)n_dec;
    a->pos_offset = 2;
    return KD_OK;
}

static int parse_dropouts(const struct kd_json *c, struct kd_arch *a)
{
    double layerdrop;

    KD_TRY(kd_arch_prob(c, "dropout", 0.1, &a->p_resid));
    a->p_emb = a->p_resid;
    KD_TRY(kd_arch_prob(c, "attention_dropout", 0, &a->p_attn));
    KD_TRY(kd_arch_prob(c, "activation_dropout", 0, &a->p_act));
    KD_TRY(kd_arch_real(c, "encoder_layerdrop", 0, 0, 1, &layerdrop));
    if (layerdrop > 0)
        kd_warn("config.json: encoder_layerdrop is ignored, no layer is ever skipped");
    KD_TRY(kd_arch_real(c, "decoder_layerdrop", 0, 0, 1, &layerdrop));
    if (layerdrop > 0)
        kd_warn("config.json: decoder_layerdrop is ignored, no layer is ever skipped");
    return KD_OK;
}

static int parse_ids(const struct kd_json *c, const struct kd_family *f,
                     struct kd_arch *a)
{
    KD_TRY(kd_arch_id(c, "bos_token_id", 0, &a->bos_id));
    KD_TRY(kd_arch_id(c, "pad_token_id", 1, &a->pad_id));
    KD_TRY(kd_arch_id(c, "eos_token_id", 2, &a->eos_id));
    KD_TRY(kd_arch_id(c, "unk_token_id", -1, &a->unk_id));
    KD_TRY(kd_arch_id(c, "forced_eos_token_id", 2, &a->forced_eos_id));
    return kd_arch_id(c, "decoder_start_token_id", f->decoder_start_default,
                      &a->decoder_start_id);
}

static int parse(const struct kd_json *c, const struct kd_family *f, struct kd_arch *a)
{
    if (!kd_json_bool(c, "tie_word_embeddings", true))
        return KD_FAIL(KD_EINPUT,
                       "config.json: tie_word_embeddings false is not "
                       "supported for model_type \"%s\"",
                       f->model_type);
    KD_TRY(parse_sizes(c, a));
    KD_TRY(parse_dropouts(c, a));
    KD_TRY(parse_ids(c, f, a));
    KD_TRY(kd_arch_act(c, "activation_function", "gelu", &a->act));
    KD_TRY(kd_arch_real(c, "init_std", 0.02, 0, 1e6, &a->init_std));
    warn_stale(c, "normalize_before", f->prenorm);
    warn_stale(c, "normalize_embedding", f->emb_norm);
    warn_stale(c, "add_final_layer_norm", f->final_norm);
    a->norm = KD_NORM_LAYER;
    a->norm_eps = 1e-5f; /* not a key: torch's default */
    a->prenorm = f->prenorm;
    a->emb_norm = f->emb_norm;
    a->final_norm = f->final_norm;
    a->start_rule = f->start_rule;
    a->positions = KD_POS_LEARNED;
    a->logits_bias = true;
    a->emb_scale =
        kd_json_bool(c, "scale_embedding", false) ? sqrtf((float)a->d_model) : 1.0f;
    return KD_OK;
}

#define COMMON                                                                         \
    .enc_layers_key = "encoder_layers", .dec_layers_key = "decoder_layers",            \
    .prefix = "model.", .names = names, .embed_aliases = embed_aliases,                \
    .ignored = ignored, .parse = parse

const struct kd_family kd_families_bart[] = {
    {.model_type = "bart",
     .architecture = "BartForConditionalGeneration",
     .prenorm = false,
     .emb_norm = true,
     .final_norm = false,
     .start_rule = KD_START_TOKEN,
     .decoder_start_default = 2,
     COMMON},
    {.model_type = "mbart",
     .architecture = "MBartForConditionalGeneration",
     .prenorm = true,
     .emb_norm = true,
     .final_norm = true,
     .start_rule = KD_START_LAST_LABEL,
     .decoder_start_default = -1,
     COMMON},
};
const int kd_families_bart_n = sizeof kd_families_bart / sizeof *kd_families_bart;
