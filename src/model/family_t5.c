/* SPDX-License-Identifier: Apache-2.0 */
/* T5, its version 1.1 and mT5: tables and the keys of their config.json.
 *
 * Pre-norm with root-mean-square norms and no biases.  There are no positions in the
 * stream: a table of distances, which the first layer of a stack owns and all its
 * layers use, is added to the scores of self attention, which are not scaled.  Version
 * 1.0 ties the head to the table and scales what goes in; 1.1 and mT5 have a head of
 * their own and gated layers.  Heads may be wider or narrower together than d_model. */
#include "family.h"

#include "kdhpc/base/log.h"

#include <math.h>
#include <string.h>

/* Positions have no table and no limit; this one guards sums of lengths. */
enum { MAX_POSITIONS = 1 << 20 };

static const char *const names[KD_SLOT_COUNT] = {
    [KD_SLOT_EMBED] = "shared.weight",
    [KD_SLOT_HEAD] = "lm_head.weight",
    [KD_SLOT_DISTANCES] =
        "@.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    [KD_SLOT_FINAL_NORM] = "@.final_layer_norm.weight",
    [KD_SLOT_SELF_Q] = "@.block.#.layer.0.SelfAttention.q.weight",
    [KD_SLOT_SELF_K] = "@.block.#.layer.0.SelfAttention.k.weight",
    [KD_SLOT_SELF_V] = "@.block.#.layer.0.SelfAttention.v.weight",
    [KD_SLOT_SELF_O] = "@.block.#.layer.0.SelfAttention.o.weight",
    [KD_SLOT_SELF_NORM] = "@.block.#.layer.0.layer_norm.weight",
    [KD_SLOT_CROSS_Q] = "@.block.#.layer.1.EncDecAttention.q.weight",
    [KD_SLOT_CROSS_K] = "@.block.#.layer.1.EncDecAttention.k.weight",
    [KD_SLOT_CROSS_V] = "@.block.#.layer.1.EncDecAttention.v.weight",
    [KD_SLOT_CROSS_O] = "@.block.#.layer.1.EncDecAttention.o.weight",
    [KD_SLOT_CROSS_NORM] = "@.block.#.layer.1.layer_norm.weight",
    [KD_SLOT_FC1] = "@.block.#.layer.^.DenseReluDense.wi.weight",
    [KD_SLOT_GATE] = "@.block.#.layer.^.DenseReluDense.wi_0.weight",
    [KD_SLOT_GATED] = "@.block.#.layer.^.DenseReluDense.wi_1.weight",
    [KD_SLOT_FC2] = "@.block.#.layer.^.DenseReluDense.wo.weight",
    [KD_SLOT_FFN_NORM] = "@.block.#.layer.^.layer_norm.weight",
};

static const char *const embed_aliases[] = {"shared.weight",
                                            "encoder.embed_tokens.weight",
                                            "decoder.embed_tokens.weight", NULL};

static const char *const head_aliases[] = {"lm_head.weight", NULL};

/* Old files carry one for cross attention, which never had a use. */
static const char *const ignored[] = {"EncDecAttention.relative_attention_bias.weight",
                                      NULL};

/* What the classes of T5 and mT5 have for keys that are absent. */
struct defaults {
    int64_t ffn, layers, heads;
    const char *proj;
    bool tied;
};

static int parse_sizes(const struct kd_json *c, const struct kd_family *f,
                       const struct defaults *def, struct kd_arch *a)
{
    int64_t n_enc, n_dec, heads, ffn, distances;

    KD_TRY(kd_arch_count(c, "vocab_size", f->vocab_default, &a->vocab_size));
    a->source_vocab_size = a->vocab_size;
    KD_TRY(kd_arch_count(c, "d_model", 512, &a->d_model));
    KD_TRY(kd_arch_count(c, "d_kv", 64, &a->head_dim));
    KD_TRY(kd_arch_count(c, "num_layers", def->layers, &n_enc));
    KD_TRY(kd_arch_count(c, "num_decoder_layers", n_enc, &n_dec));
    KD_TRY(kd_arch_count(c, "num_heads", def->heads, &heads));
    KD_TRY(kd_arch_count(c, "d_ff", def->ffn, &ffn));
    KD_TRY(kd_arch_count(c, "relative_attention_num_buckets", 32, &distances));
    KD_TRY(kd_arch_count(c, "relative_attention_max_distance", 128, &a->max_distance));
    if (n_enc > 999 || n_dec > 999)
        return KD_FAIL(KD_EINPUT, "config.json: more than 999 layers in a stack");
    if (distances < 4 || distances % 2 || distances / 2 >= a->max_distance)
        return KD_FAIL(KD_EINPUT,
                       "config.json: relative_attention_num_buckets is %lld, must be "
                       "even, at least 4 and below twice the max_distance of %lld",
                       (long long)distances, (long long)a->max_distance);
    a->n_enc = (int)n_enc;
    a->n_dec = (int)n_dec;
    a->n_heads_enc = a->n_heads_dec = heads;
    a->ffn_enc = a->ffn_dec = ffn;
    a->n_distances = (int)distances;
    a->max_positions = MAX_POSITIONS;
    return KD_OK;
}

/* feed_forward_proj: "ACT" or "gated-ACT", where "gated-gelu" means gelu_new. */
static int parse_activation(const struct kd_json *c, const char *def, struct kd_arch *a)
{
    const char *key = "feed_forward_proj", *proj = kd_json_str(c, key, def);

    a->gated = !strncmp(proj, "gated-", 6);
    if (!strcmp(proj, "gated-gelu")) {
        a->act = KD_ACT_GELU_NEW;
        return KD_OK;
    }
    return kd_arch_act_name(key, a->gated ? proj + 6 : proj, &a->act);
}

static int parse_ids(const struct kd_json *c, struct kd_arch *a)
{
    KD_TRY(kd_arch_id(c, "bos_token_id", -1, &a->bos_id));
    KD_TRY(kd_arch_id(c, "pad_token_id", 0, &a->pad_id));
    KD_TRY(kd_arch_id(c, "eos_token_id", 1, &a->eos_id));
    KD_TRY(kd_arch_id(c, "unk_token_id", -1, &a->unk_id));
    KD_TRY(kd_arch_id(c, "forced_eos_token_id", -1, &a->forced_eos_id));
    a->padding_row = -1;
    return kd_arch_id(c, "decoder_start_token_id", 0, &a->decoder_start_id);
}

static int parse_as(const struct kd_json *c, const struct kd_family *f,
                    const struct defaults *def, struct kd_arch *a)
{
    double eps;

    KD_TRY(parse_sizes(c, f, def, a));
    KD_TRY(parse_activation(c, def->proj, a));
    KD_TRY(parse_ids(c, a));
    KD_TRY(kd_arch_real(c, "layer_norm_epsilon", 1e-6, 0, 1, &eps));
    KD_TRY(kd_arch_real(c, "initializer_factor", 1, 0, 1e6, &a->init_std));
    KD_TRY(kd_arch_prob(c, "dropout_rate", 0.1, &a->p_resid));
    a->p_emb = a->p_attn = a->p_act = a->p_final = a->p_resid;
    a->one_dropout = true;
    a->norm = KD_NORM_RMS;
    a->norm_eps = (float)eps;
    a->scaled_scores = false;
    a->tied_head = kd_json_bool(c, "tie_word_embeddings", def->tied);
    if (a->tied_head)
        a->head_scale = 1.0f / sqrtf((float)a->d_model);
    return KD_OK;
}

static int parse_t5(const struct kd_json *c, const struct kd_family *f,
                    struct kd_arch *a)
{
    static const struct defaults defaults = {2048, 6, 8, "relu", true};

    return parse_as(c, f, &defaults, a);
}

static int parse_mt5(const struct kd_json *c, const struct kd_family *f,
                     struct kd_arch *a)
{
    static const struct defaults defaults = {1024, 8, 6, "gated-gelu", false};

    return parse_as(c, f, &defaults, a);
}

/* Source: transformers' T5PreTrainedModel._init_weights; init_std is its factor. */
static double init_std(const struct kd_arch *a, enum kd_slot slot)
{
    double d = (double)a->d_model, inner = (double)(a->n_heads_enc * a->head_dim);

    switch (slot) {
    case KD_SLOT_EMBED:
    case KD_SLOT_HEAD:
        return a->init_std;
    case KD_SLOT_SELF_Q:
    case KD_SLOT_CROSS_Q:
        return a->init_std / sqrt(d * (double)a->head_dim);
    case KD_SLOT_SELF_O:
    case KD_SLOT_CROSS_O:
        return a->init_std / sqrt(inner);
    case KD_SLOT_FC2:
        return a->init_std / sqrt((double)a->ffn_enc);
    default:
        return a->init_std / sqrt(d);
    }
}

#define COMMON                                                                         \
    .prenorm = true, .final_norm = true, .positions = KD_POS_RELATIVE,                 \
    .decoder_start_default = 0, .keys = {"vocab_size", NULL, true, false},             \
    .enc_layers_key = "num_layers", .dec_layers_key = "num_decoder_layers",            \
    .prefix = "", .names = names, .embed_aliases = embed_aliases,                      \
    .head_aliases = head_aliases, .ignored = ignored, .init_std = init_std

const struct kd_family kd_family_t5 = {.model_type = "t5",
                                       .architecture = "T5ForConditionalGeneration",
                                       COMMON,
                                       .vocab_default = 32128,
                                       .parse = parse_t5};

const struct kd_family kd_family_mt5 = {.model_type = "mt5",
                                        .architecture = "MT5ForConditionalGeneration",
                                        COMMON,
                                        .vocab_default = 250112,
                                        .parse = parse_mt5};
