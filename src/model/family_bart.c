/* SPDX-License-Identifier: Apache-2.0 */
/* BART, mBART, Pegasus, Marian and FSMT: tables and the keys of their config.json.
 *
 * One class once served all of them through flags (normalize_before,
 * normalize_embedding, add_final_layer_norm, static_position_embeddings); those keys
 * still sit in many files and are stale: since transformers 4.2 model_type alone
 * decides.  They are passed over, with a warning where they disagree.  mBART and
 * Pegasus are the pre-norm ones with a norm at the end of each stack; mBART's decoder
 * starts with the last label.  Marian may have a table for each side, and so has FSMT
 * (fairseq's models of WMT19) unless tie_word_embeddings says otherwise; FSMT's head is
 * the decoder's table under another name. */
#include "family.h"

#include "kdhpc/base/log.h"

#include <math.h>

/* A layer of all of them. */
#define LAYER_NAMES                                                                    \
    [KD_SLOT_SELF_Q] = "model.@.layers.#.self_attn.q_proj.weight",                     \
    [KD_SLOT_SELF_K] = "model.@.layers.#.self_attn.k_proj.weight",                     \
    [KD_SLOT_SELF_V] = "model.@.layers.#.self_attn.v_proj.weight",                     \
    [KD_SLOT_SELF_Q_B] = "model.@.layers.#.self_attn.q_proj.bias",                     \
    [KD_SLOT_SELF_K_B] = "model.@.layers.#.self_attn.k_proj.bias",                     \
    [KD_SLOT_SELF_V_B] = "model.@.layers.#.self_attn.v_proj.bias",                     \
    [KD_SLOT_SELF_O] = "model.@.layers.#.self_attn.out_proj.weight",                   \
    [KD_SLOT_SELF_O_B] = "model.@.layers.#.self_attn.out_proj.bias",                   \
    [KD_SLOT_SELF_NORM] = "model.@.layers.#.self_attn_layer_norm.weight",              \
    [KD_SLOT_SELF_NORM_B] = "model.@.layers.#.self_attn_layer_norm.bias",              \
    [KD_SLOT_CROSS_Q] = "model.@.layers.#.encoder_attn.q_proj.weight",                 \
    [KD_SLOT_CROSS_Q_B] = "model.@.layers.#.encoder_attn.q_proj.bias",                 \
    [KD_SLOT_CROSS_K] = "model.@.layers.#.encoder_attn.k_proj.weight",                 \
    [KD_SLOT_CROSS_V] = "model.@.layers.#.encoder_attn.v_proj.weight",                 \
    [KD_SLOT_CROSS_K_B] = "model.@.layers.#.encoder_attn.k_proj.bias",                 \
    [KD_SLOT_CROSS_V_B] = "model.@.layers.#.encoder_attn.v_proj.bias",                 \
    [KD_SLOT_CROSS_O] = "model.@.layers.#.encoder_attn.out_proj.weight",               \
    [KD_SLOT_CROSS_O_B] = "model.@.layers.#.encoder_attn.out_proj.bias",               \
    [KD_SLOT_CROSS_NORM] = "model.@.layers.#.encoder_attn_layer_norm.weight",          \
    [KD_SLOT_CROSS_NORM_B] = "model.@.layers.#.encoder_attn_layer_norm.bias",          \
    [KD_SLOT_FC1] = "model.@.layers.#.fc1.weight",                                     \
    [KD_SLOT_FC1_B] = "model.@.layers.#.fc1.bias",                                     \
    [KD_SLOT_FC2] = "model.@.layers.#.fc2.weight",                                     \
    [KD_SLOT_FC2_B] = "model.@.layers.#.fc2.bias",                                     \
    [KD_SLOT_FFN_NORM] = "model.@.layers.#.final_layer_norm.weight",                   \
    [KD_SLOT_FFN_NORM_B] = "model.@.layers.#.final_layer_norm.bias"

static const char *const names[KD_SLOT_COUNT] = {
    [KD_SLOT_EMBED] = "model.shared.weight",
    [KD_SLOT_HEAD] = "lm_head.weight",
    [KD_SLOT_LOGITS_BIAS] = "final_logits_bias",
    [KD_SLOT_STACK_EMBED] = "model.@.embed_tokens.weight",
    [KD_SLOT_POS] = "model.@.embed_positions.weight",
    [KD_SLOT_EMB_NORM] = "model.@.layernorm_embedding.weight",
    [KD_SLOT_EMB_NORM_B] = "model.@.layernorm_embedding.bias",
    [KD_SLOT_FINAL_NORM] = "model.@.layer_norm.weight",
    [KD_SLOT_FINAL_NORM_B] = "model.@.layer_norm.bias",
    LAYER_NAMES};

static const char *const fsmt_names[KD_SLOT_COUNT] = {
    [KD_SLOT_EMBED] = "model.encoder.embed_tokens.weight",
    [KD_SLOT_STACK_EMBED] = "model.@.embed_tokens.weight",
    [KD_SLOT_POS] = "model.@.embed_positions.weight",
    LAYER_NAMES};

static const char *const embed_aliases[] = {"model.shared.weight",
                                            "model.encoder.embed_tokens.weight",
                                            "model.decoder.embed_tokens.weight", NULL};

static const char *const head_aliases[] = {"lm_head.weight", NULL};

static const char *const fsmt_embed_aliases[] = {
    "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", NULL};

static const char *const fsmt_head_aliases[] = {
    "model.decoder.output_projection.weight", NULL};

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

/* What a family's class has for keys that are absent; -1: no id. */
struct id_defaults {
    int32_t bos, pad, eos;
};

static struct id_defaults id_defaults(const struct kd_family *f)
{
    if (f == &kd_family_pegasus)
        return (struct id_defaults){-1, 0, 1};
    if (f == &kd_family_marian)
        return (struct id_defaults){-1, 58100, 0};
    return (struct id_defaults){0, 1, 2};
}

static int parse_ids(const struct kd_json *c, const struct kd_family *f,
                     struct kd_arch *a)
{
    struct id_defaults d = id_defaults(f);

    KD_TRY(kd_arch_id(c, "bos_token_id", d.bos, &a->bos_id));
    KD_TRY(kd_arch_id(c, "pad_token_id", d.pad, &a->pad_id));
    KD_TRY(kd_arch_id(c, "eos_token_id", d.eos, &a->eos_id));
    KD_TRY(kd_arch_id(c, "unk_token_id", -1, &a->unk_id));
    KD_TRY(kd_arch_id(c, "forced_eos_token_id", d.eos, &a->forced_eos_id));
    a->padding_row = a->pad_id;
    return kd_arch_id(c, "decoder_start_token_id", f->decoder_start_default,
                      &a->decoder_start_id);
}

static int parse_tables(const struct kd_json *c, const struct kd_family *f,
                        struct kd_arch *a)
{
    a->tied_head = kd_json_bool(c, "tie_word_embeddings", true);
    a->shared_embed = kd_json_bool(c, "share_encoder_decoder_embeddings", true);
    KD_TRY(kd_arch_count(c, "vocab_size", f->vocab_default, &a->source_vocab_size));
    a->vocab_size = a->source_vocab_size;
    if (!a->shared_embed)
        KD_TRY(kd_arch_count(c, "decoder_vocab_size", a->vocab_size, &a->vocab_size));
    return KD_OK;
}

static int parse_network(const struct kd_json *c, const struct kd_family *f,
                         bool scales, const char *act, struct kd_arch *a)
{
    KD_TRY(parse_sizes(c, a));
    KD_TRY(parse_dropouts(c, a));
    KD_TRY(parse_ids(c, f, a));
    KD_TRY(kd_arch_act(c, "activation_function", act, &a->act));
    KD_TRY(kd_arch_real(c, "init_std", 0.02, 0, 1e6, &a->init_std));
    a->norm = KD_NORM_LAYER;
    a->norm_eps = 1e-5f; /* not a key: torch's default */
    a->emb_scale =
        kd_json_bool(c, "scale_embedding", scales) ? sqrtf((float)a->d_model) : 1.0f;
    return KD_OK;
}

static int parse(const struct kd_json *c, const struct kd_family *f, struct kd_arch *a)
{
    KD_TRY(parse_tables(c, f, a));
    KD_TRY(parse_network(c, f, false, "gelu", a));
    warn_stale(c, "normalize_before", f->prenorm);
    warn_stale(c, "normalize_embedding", f->emb_norm);
    warn_stale(c, "add_final_layer_norm", f->final_norm);
    warn_stale(c, "static_position_embeddings", f->positions != KD_POS_LEARNED);
    a->pos_offset = f->positions == KD_POS_LEARNED ? 2 : 0;
    a->logits_bias = true;
    return KD_OK;
}

static int parse_fsmt(const struct kd_json *c, const struct kd_family *f,
                      struct kd_arch *a)
{
    a->shared_embed = kd_json_bool(c, "tie_word_embeddings", false);
    KD_TRY(kd_arch_count(c, "src_vocab_size", f->vocab_default, &a->source_vocab_size));
    KD_TRY(kd_arch_count(c, "tgt_vocab_size", f->vocab_default, &a->vocab_size));
    KD_TRY(parse_network(c, f, true, "relu", a));
    a->pos_offset = a->pad_id + 1;
    return KD_OK;
}

#define COMMON                                                                         \
    .enc_layers_key = "encoder_layers", .dec_layers_key = "decoder_layers",            \
    .prefix = "model.", .ignored = ignored, .old_start_last = true
#define BART_TABLES                                                                    \
    .names = names, .embed_aliases = embed_aliases, .head_aliases = head_aliases,      \
    .parse = parse

const struct kd_family kd_family_bart = {.model_type = "bart",
                                         .architecture = "BartForConditionalGeneration",
                                         .emb_norm = true,
                                         .decoder_start_default = 2,
                                         .vocab_default = 50265,
                                         .keys = {"vocab_size", NULL, false, true},
                                         COMMON,
                                         BART_TABLES};

const struct kd_family kd_family_mbart = {.model_type = "mbart",
                                          .architecture =
                                              "MBartForConditionalGeneration",
                                          .prenorm = true,
                                          .emb_norm = true,
                                          .final_norm = true,
                                          .start_rule = KD_START_LAST_LABEL,
                                          .decoder_start_default = -1,
                                          .vocab_default = 50265,
                                          .keys = {"vocab_size", NULL, false, true},
                                          COMMON,
                                          BART_TABLES};

const struct kd_family kd_family_pegasus = {.model_type = "pegasus",
                                            .architecture =
                                                "PegasusForConditionalGeneration",
                                            .prenorm = true,
                                            .final_norm = true,
                                            .positions = KD_POS_SINUSOID,
                                            .decoder_start_default = 0,
                                            .vocab_default = 50265,
                                            .keys = {"vocab_size", NULL, true, true},
                                            COMMON,
                                            BART_TABLES};

const struct kd_family kd_family_marian = {
    .model_type = "marian",
    .architecture = "MarianMTModel",
    .positions = KD_POS_SINUSOID,
    .decoder_start_default = 58100,
    .vocab_default = 58101,
    .keys = {"vocab_size", "decoder_vocab_size", true, true},
    COMMON,
    BART_TABLES};

const struct kd_family kd_family_fsmt = {
    .model_type = "fsmt",
    .architecture = "FSMTForConditionalGeneration",
    .positions = KD_POS_SINUSOID_T2T,
    .decoder_start_default = 2,
    .vocab_default = 42024,
    .keys = {"src_vocab_size", "tgt_vocab_size", false, true},
    COMMON,
    .names = fsmt_names,
    .embed_aliases = fsmt_embed_aliases,
    .head_aliases = fsmt_head_aliases,
    .parse = parse_fsmt};
