/* SPDX-License-Identifier: Apache-2.0 */
/* Generation settings from a model directory, by the rules of transformers 4.57: if
 * generation_config.json exists it alone counts, over the defaults of GenerationConfig;
 * if not, the generation keys of config.json count, over the defaults of its model
 * type's class.  Settings that would change the output and that are not offered are
 * errors, never passed over. */
#include "decode_impl.h"
#include "kdhpc/base/json.h"
#include "kdhpc/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_MAX_LENGTH = 20 };

/* What a model type's config class has when config.json is silent. */
struct class_values {
    const char *model_type;
    int32_t bos, pad, eos, start, forced_eos;
    int32_t num_beams, max_length;
};

static const struct class_values CLASSES[] = {
    {"bart", 0, 1, 2, 2, 2, 1, DEFAULT_MAX_LENGTH},
    {"mbart", 0, 1, 2, -1, 2, 1, DEFAULT_MAX_LENGTH},
    {"t5", -1, 0, 1, 0, -1, 1, DEFAULT_MAX_LENGTH},
    {"mt5", -1, 0, 1, 0, -1, 1, DEFAULT_MAX_LENGTH},
    {"pegasus", -1, 0, 1, 0, 1, 1, DEFAULT_MAX_LENGTH},
    {"fsmt", 0, 1, 2, 2, 2, 5, 200},
    {"marian", -1, 58100, 0, 58100, 0, 1, DEFAULT_MAX_LENGTH},
    {"", -1, -1, -1, -1, -1, 1, DEFAULT_MAX_LENGTH},
};
static const struct class_values *const NO_CLASS =
    &CLASSES[sizeof CLASSES / sizeof *CLASSES - 1];

static const struct class_values *class_of(const struct kd_json *config)
{
    const char *type = kd_json_str(config, "model_type", "");
    const struct class_values *c = CLASSES;

    while (c != NO_CLASS && strcmp(c->model_type, type) != 0)
        c++;
    return c;
}

double kd_generation_class_value(const struct kd_json *config, const char *key)
{
    const struct class_values *class = class_of(config);

    if (strcmp(key, "num_beams") == 0)
        return class->num_beams;
    if (strcmp(key, "max_length") == 0)
        return class->max_length;
    return strcmp(key, "forced_eos_token_id") == 0 && class->forced_eos >= 0
               ? class->forced_eos
               : NAN;
}

/* An id: DEF if the key is absent, -1 if it is null; a list of one counts as its item.
 */
static int get_id(const struct kd_json *j, const char *key, int32_t def, int32_t *out)
{
    const struct kd_json *v = kd_json_get(j, key);

    if (v && !kd_json_has(j, key))
        def = -1;
    if (v && kd_json_is_array(v)) {
        if (kd_json_len(v) != 1)
            return KD_FAIL(KD_EINPUT, "generation config: '%s' must be one id", key);
        v = kd_json_at(v, 0);
    }
    *out = v && kd_json_is_number(v) ? (int32_t)kd_json_as_int(v, def) : def;
    return KD_OK;
}

static int get_eos(const struct kd_json *j, int32_t def, struct kd_generation *g)
{
    const struct kd_json *v = kd_json_get(j, "eos_token_id");
    int64_t n = v && kd_json_is_array(v) ? kd_json_len(v) : 0;
    int32_t one = -1;

    if (n > (int64_t)(sizeof g->eos_ids / sizeof *g->eos_ids))
        return KD_FAIL(KD_EINPUT, "generation config: more than %zu eos_token_id",
                       sizeof g->eos_ids / sizeof *g->eos_ids);
    for (int64_t i = 0; i < n; i++)
        g->eos_ids[g->n_eos++] = (int32_t)kd_json_as_int(kd_json_at(v, i), -1);
    if (n == 0) {
        KD_TRY(get_id(j, "eos_token_id", def, &one));
        if (one >= 0)
            g->eos_ids[g->n_eos++] = one;
    }
    for (int i = 0; i < g->n_eos; i++)
        if (g->eos_ids[i] < 0)
            return KD_FAIL(KD_EINPUT, "generation config: eos_token_id is not an id");
    return KD_OK;
}

/* Settings that change the output and that this program does not offer, with the value
 * that means off.  (penalty_alpha is contrastive search, which transformers has left to
 * the model hub as it has groups of beams; the latter are kept.) */
static int refuse_unknown(const struct kd_json *j)
{
    static const struct {
        const char *key;
        double off;
    } numbers[] = {
        {"penalty_alpha", 0},
        {"guidance_scale", 1},
        {"prompt_lookup_num_tokens", 0},
        {"assistant_early_exit", 0},
        {"max_time", 0},
    };
    static const char *const lists[] = {
        "sequence_bias", "forced_decoder_ids",  "force_words_ids", "constraints",
        "dola_layers",   "watermarking_config", "stop_strings",
    };
    const char *bad = NULL;

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (kd_json_num(j, numbers[i].key, numbers[i].off) != numbers[i].off)
            bad = numbers[i].key;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (kd_json_has(j, lists[i]))
            bad = lists[i];
    if (kd_json_bool(j, "token_healing", false))
        bad = "token_healing";
    if (bad)
        return KD_FAIL(KD_EINPUT,
                       "generation config: '%s' is not supported; remove it from the "
                       "model's generation_config.json or config.json",
                       bad);
    return KD_OK;
}

/* Keys of transformers' GenerationConfig. */
static const char *const known[] = {"_from_model_config",
                                    "_commit_hash",
                                    "transformers_version",
                                    "max_length",
                                    "max_new_tokens",
                                    "min_length",
                                    "min_new_tokens",
                                    "early_stopping",
                                    "max_time",
                                    "stop_strings",
                                    "do_sample",
                                    "num_beams",
                                    "use_cache",
                                    "cache_implementation",
                                    "cache_config",
                                    "return_legacy_cache",
                                    "prefill_chunk_size",
                                    "temperature",
                                    "top_k",
                                    "top_p",
                                    "min_p",
                                    "typical_p",
                                    "epsilon_cutoff",
                                    "eta_cutoff",
                                    "repetition_penalty",
                                    "encoder_repetition_penalty",
                                    "length_penalty",
                                    "no_repeat_ngram_size",
                                    "bad_words_ids",
                                    "renormalize_logits",
                                    "forced_bos_token_id",
                                    "forced_eos_token_id",
                                    "remove_invalid_values",
                                    "exponential_decay_length_penalty",
                                    "suppress_tokens",
                                    "begin_suppress_tokens",
                                    "sequence_bias",
                                    "token_healing",
                                    "guidance_scale",
                                    "watermarking_config",
                                    "num_return_sequences",
                                    "output_attentions",
                                    "output_hidden_states",
                                    "output_scores",
                                    "output_logits",
                                    "return_dict_in_generate",
                                    "pad_token_id",
                                    "bos_token_id",
                                    "eos_token_id",
                                    "encoder_no_repeat_ngram_size",
                                    "decoder_start_token_id",
                                    "is_assistant",
                                    "num_assistant_tokens",
                                    "num_assistant_tokens_schedule",
                                    "assistant_confidence_threshold",
                                    "prompt_lookup_num_tokens",
                                    "max_matching_ngram_size",
                                    "assistant_early_exit",
                                    "assistant_lookbehind",
                                    "target_lookbehind",
                                    "compile_config",
                                    "disable_compile",
                                    "low_memory",
                                    "penalty_alpha",
                                    "dola_layers",
                                    "diversity_penalty",
                                    "num_beam_groups",
                                    "constraints",
                                    "force_words_ids",
                                    "forced_decoder_ids"};

const char *kd_generation_unknown_key(const struct kd_json *j)
{
    for (void *it = kd_json_first(j); it; it = kd_json_next(j, it)) {
        size_t i = 0;

        while (i < sizeof known / sizeof *known &&
               strcmp(known[i], kd_json_key(it)) != 0)
            i++;
        if (i == sizeof known / sizeof *known)
            return kd_json_key(it);
    }
    return NULL;
}

static int get_ids(const struct kd_json *config, const struct kd_json *j,
                   const struct class_values *class, struct kd_generation *g)
{
    int32_t bos = -1;

    KD_TRY(get_id(j, "bos_token_id", class->bos, &bos));
    KD_TRY(get_id(j, "pad_token_id", class->pad, &g->pad_id));
    KD_TRY(get_eos(j, class->eos, g));
    KD_TRY(get_id(j, "forced_bos_token_id", -1, &g->forced_bos_id));
    KD_TRY(get_id(j, "forced_eos_token_id", class->forced_eos, &g->forced_eos_id));
    KD_TRY(get_id(j, "decoder_start_token_id", class->start, &g->start_id));
    if (g->start_id < 0)
        g->start_id = bos;
    if (g->start_id < 0) /* where transformers would fail */
        KD_TRY(get_id(config, "decoder_start_token_id", class_of(config)->start,
                      &g->start_id));
    if (g->pad_id < 0 && g->n_eos > 0)
        g->pad_id = g->eos_ids[0];
    if (class != NO_CLASS && g->forced_bos_id < 0 &&
        kd_json_bool(j, "force_bos_token_to_be_generated", false))
        g->forced_bos_id = bos;
    return KD_OK;
}

/* Lengths count the start token.  20 is the default of most classes and stands for 20
 * new tokens; a default stays within the model's positions. */
static void get_lengths(const struct kd_json *j, const struct class_values *class,
                        int64_t max_positions, struct kd_generation *g)
{
    g->max_length = kd_json_int(j, "max_length", class->max_length);
    g->min_length = kd_json_int(j, "min_length", 0);
    g->max_new_tokens = kd_json_int(j, "max_new_tokens", -1);
    g->min_new_tokens = kd_json_int(j, "min_new_tokens", -1);
    if (g->max_new_tokens >= 0) {
        g->max_length = g->max_new_tokens + 1;
    } else if (g->max_length == DEFAULT_MAX_LENGTH || !kd_json_has(j, "max_length")) {
        g->max_length += g->max_length == DEFAULT_MAX_LENGTH;
        if (max_positions > 0 && g->max_length > max_positions)
            g->max_length = max_positions;
    }
    if (g->min_new_tokens >= 0)
        g->min_length = g->min_new_tokens + 1;
}

static int get_early_stopping(const struct kd_json *j, enum kd_early_stopping *out)
{
    const struct kd_json *v = kd_json_get(j, "early_stopping");

    *out = kd_json_bool(j, "early_stopping", false) ? KD_STOP_TRUE : KD_STOP_HEURISTIC;
    if (!v || !kd_json_is_string(v))
        return KD_OK;
    if (strcmp(kd_json_as_str(v, ""), "never") != 0)
        return KD_FAIL(KD_EINPUT, "generation config: 'early_stopping' must be true, "
                                  "false or \"never\"");
    *out = KD_STOP_NEVER;
    return KD_OK;
}

static void get_numbers(const struct kd_json *j, const struct class_values *class,
                        struct kd_generation *g)
{
    bool no_top_k = kd_json_get(j, "top_k") && !kd_json_has(j, "top_k"); /* null */

    g->num_beams = kd_json_int(j, "num_beams", class->num_beams);
    g->num_return_sequences = kd_json_int(j, "num_return_sequences", 1);
    g->length_penalty = kd_json_num(j, "length_penalty", 1.0);
    g->repetition_penalty = kd_json_num(j, "repetition_penalty", 1.0);
    g->no_repeat_ngram_size = kd_json_int(j, "no_repeat_ngram_size", 0);
    g->do_sample = kd_json_bool(j, "do_sample", false);
    g->temperature = kd_json_num(j, "temperature", 1.0);
    g->top_p = kd_json_num(j, "top_p", 1.0);
    g->top_k = no_top_k ? 0 : kd_json_int(j, "top_k", 50);
    g->num_beam_groups = kd_json_int(j, "num_beam_groups", 1);
    g->diversity_penalty = kd_json_num(j, "diversity_penalty", 0.0);
    g->encoder_repetition_penalty = kd_json_num(j, "encoder_repetition_penalty", 1.0);
    g->encoder_no_repeat_ngram_size = kd_json_int(j, "encoder_no_repeat_ngram_size", 0);
    g->renormalize = kd_json_bool(j, "renormalize_logits", false);
    g->min_p = kd_json_num(j, "min_p", 0.0);
    g->typical_p = kd_json_num(j, "typical_p", 1.0);
    g->epsilon_cutoff = kd_json_num(j, "epsilon_cutoff", 0.0);
    g->eta_cutoff = kd_json_num(j, "eta_cutoff", 0.0);
}

int kd_generation_from_config(const struct kd_json *config,
                              const struct kd_json *generation, int64_t max_positions,
                              struct kd_generation *g)
{
    const struct kd_json *j = generation ? generation : config;
    const struct class_values *class = generation ? NO_CLASS : class_of(config);
    int rc = KD_OK;

    memset(g, 0, sizeof *g);
    KD_GO(refuse_unknown(j));
    KD_GO(get_ids(config, j, class, g));
    KD_GO(kd_generation_lists(j, g));
    KD_GO(get_early_stopping(j, &g->early_stopping));
    get_lengths(j, class, max_positions, g);
    get_numbers(j, class, g);
out:
    if (rc)
        kd_generation_free(g);
    return rc;
}

static int check_sequences(const struct kd_generation *g)
{
    long long beams = (long long)g->num_beams, k = (long long)g->num_return_sequences;

    if (beams < 1 || k < 1)
        return KD_FAIL(KD_EUSAGE, "num_beams and num_return_sequences must be at least "
                                  "1");
    if (g->do_sample && beams > 1)
        return KD_FAIL(KD_EUSAGE,
                       "do_sample with num_beams %lld: sampling takes num_beams 1",
                       beams);
    if (beams > 1 && k > beams)
        return KD_FAIL(KD_EUSAGE,
                       "num_return_sequences %lld must be at most num_beams %lld", k,
                       beams);
    if (beams == 1 && !g->do_sample && k > 1)
        return KD_FAIL(KD_EUSAGE,
                       "num_return_sequences %lld needs num_beams of at least that, or "
                       "do_sample",
                       k);
    return KD_OK;
}

static int check_groups(const struct kd_generation *g)
{
    long long beams = (long long)g->num_beams, groups = (long long)g->num_beam_groups;

    if (groups < 1 || beams % groups != 0)
        return KD_FAIL(KD_EUSAGE, "num_beam_groups %lld must divide num_beams %lld",
                       groups, beams);
    if (!(g->diversity_penalty >= 0.0) || !isfinite(g->diversity_penalty))
        return KD_FAIL(KD_EUSAGE, "diversity_penalty must not be negative");
    if (groups == 1 && g->diversity_penalty > 0.0)
        return KD_FAIL(KD_EUSAGE, "diversity_penalty needs num_beam_groups above 1");
    if (groups == 1)
        return KD_OK;
    if (g->diversity_penalty == 0.0)
        return KD_FAIL(KD_EUSAGE,
                       "num_beam_groups %lld needs a diversity_penalty above "
                       "0: the groups would be alike",
                       groups);
    if (g->renormalize || g->decay_factor != 1.0)
        return KD_FAIL(KD_EUSAGE,
                       "num_beam_groups takes neither renormalize_logits nor "
                       "exponential_decay_length_penalty");
    return KD_OK;
}

static int check_penalties(const struct kd_generation *g)
{
    if (g->no_repeat_ngram_size < 0 || g->encoder_no_repeat_ngram_size < 0)
        return KD_FAIL(KD_EUSAGE, "no_repeat_ngram_size and "
                                  "encoder_no_repeat_ngram_size must not be negative");
    if (!(g->repetition_penalty > 0.0) || !isfinite(g->repetition_penalty))
        return KD_FAIL(KD_EUSAGE, "repetition_penalty must be above 0");
    if (!(g->encoder_repetition_penalty > 0.0) ||
        !isfinite(g->encoder_repetition_penalty))
        return KD_FAIL(KD_EUSAGE, "encoder_repetition_penalty must be above 0");
    if (!isfinite(g->length_penalty))
        return KD_FAIL(KD_EUSAGE, "length_penalty must be a finite number");
    return KD_OK;
}

static int check_sampling(const struct kd_generation *g)
{
    if (!(g->temperature > 0.0) || !isfinite(g->temperature))
        return KD_FAIL(KD_EUSAGE, "temperature must be above 0");
    if (!(g->top_p > 0.0 && g->top_p <= 1.0))
        return KD_FAIL(KD_EUSAGE, "top_p must be above 0 and at most 1");
    if (g->top_k < 0)
        return KD_FAIL(KD_EUSAGE, "top_k must not be negative");
    if (!(g->min_p >= 0.0 && g->min_p <= 1.0))
        return KD_FAIL(KD_EUSAGE, "min_p must be from 0 to 1");
    if (!(g->typical_p > 0.0))
        return KD_FAIL(KD_EUSAGE, "typical_p must be above 0");
    if (!(g->epsilon_cutoff >= 0.0 && g->eta_cutoff >= 0.0))
        return KD_FAIL(KD_EUSAGE, "epsilon_cutoff and eta_cutoff must not be negative");
    return KD_OK;
}

int kd_generation_check(const struct kd_generation *g)
{
    KD_TRY(check_sequences(g));
    KD_TRY(check_groups(g));
    KD_TRY(check_penalties(g));
    KD_TRY(check_sampling(g));
    if (g->max_length < 2)
        return KD_FAIL(KD_EUSAGE, "max_length must be at least 2: it counts the start "
                                  "token");
    if (g->start_id < 0)
        return KD_FAIL(KD_EINPUT, "neither decoder_start_token_id nor bos_token_id is "
                                  "in the model's generation config");
    return KD_OK;
}

void kd_generation_free(struct kd_generation *g)
{
    free(g->suppress);
    free(g->begin_suppress);
    free(g->bad_words.ids);
    free(g->bad_words.ends);
    g->suppress = g->begin_suppress = NULL;
    g->n_suppress = g->n_begin_suppress = 0;
    g->bad_words = (struct kd_words){0};
}
