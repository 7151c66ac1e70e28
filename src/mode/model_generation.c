/* SPDX-License-Identifier: Apache-2.0 */
/* Generation settings of a model directory, between its two files.
 *
 * Old checkpoints carry them in config.json; transformers wants them in
 * generation_config.json, warns about each one in config.json, and lets
 * generation_config.json alone count where there is one (unless that was made from
 * config.json, as it says, and config.json has such settings: then these count alone).
 * So both places are read, and one is written: what a config.json without the other
 * file says moves over, with the defaults of its model type.  config.json keeps the
 * special ids, which training needs too.  Callers: reading in model_io.c and the modes,
 * writing in model_save.c. */
#include "kdhpc/mode/model_io.h"

#include "model_weights.h"

#include "kdhpc/base/str.h"
#include "kdhpc/decode/decode.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Settings that move.  transformers 4.57 calls most of them generation parameters of a
 * config.json, which may depart from its defaults; the others it takes from there
 * without saying so. */
static const struct {
    const char *name;
    double def; /* NAN: null */
    bool is_parameter;
} keys[] = {
    {"max_length", 20, true},
    {"min_length", 0, true},
    {"do_sample", 0, true},
    {"early_stopping", 0, true},
    {"num_beams", 1, true},
    {"num_beam_groups", 1, true},
    {"diversity_penalty", 0, true},
    {"temperature", 1, true},
    {"top_k", 50, true},
    {"top_p", 1, true},
    {"typical_p", 1, true},
    {"repetition_penalty", 1, true},
    {"length_penalty", 1, true},
    {"no_repeat_ngram_size", 0, true},
    {"encoder_no_repeat_ngram_size", 0, true},
    {"bad_words_ids", NAN, true},
    {"num_return_sequences", 1, true},
    {"output_scores", 0, true},
    {"return_dict_in_generate", 0, true},
    {"forced_bos_token_id", NAN, true},
    {"forced_eos_token_id", NAN, true},
    {"remove_invalid_values", 0, true},
    {"exponential_decay_length_penalty", NAN, true},
    {"suppress_tokens", NAN, true},
    {"begin_suppress_tokens", NAN, true},
    {"max_new_tokens", NAN, false},
    {"min_new_tokens", NAN, false},
    {"encoder_repetition_penalty", 1, false},
    {"renormalize_logits", 0, false},
    {"min_p", NAN, false},
    {"epsilon_cutoff", 0, false},
    {"eta_cutoff", 0, false},
};
/* The old name of "forced_bos_token_id is bos_token_id". */
static const char force_bos[] = "force_bos_token_to_be_generated";

/* In a generation_config.json: it was made from config.json, which then goes before it
 * if it departs from its class. */
static const char from_model[] = "_from_model_config";

enum { N_KEYS = sizeof keys / sizeof *keys };

/* What key I is where CONFIG is silent. */
static double default_of(const struct kd_json *config, int i)
{
    double class = kd_generation_class_value(config, keys[i].name);

    return isnan(class) ? keys[i].def : class;
}

/* Whether CONFIG gives a generation parameter another value than its model type does.
 */
static bool departs(const struct kd_json *config)
{
    if (kd_json_bool(config, force_bos, false))
        return true;
    for (int i = 0; i < N_KEYS; i++) {
        const struct kd_json *v = kd_json_get(config, keys[i].name);

        if (!keys[i].is_parameter || !kd_json_has(config, keys[i].name))
            continue;
        if (kd_json_is_number(v) ? kd_json_as_num(v, 0) != default_of(config, i)
                                 : kd_json_is_array(v) || kd_json_is_string(v) ||
                                       kd_json_bool(config, keys[i].name, false))
            return true;
    }
    return false;
}

int kd_generation_json(const char *dir, struct kd_json **out)
{
    char *path = NULL;
    struct kd_json *config = NULL;
    int rc = KD_OK;

    *out = NULL;
    KD_TRY(kd_path_join(dir, "generation_config.json", &path));
    if (kd_path_exists(path))
        KD_GO(kd_json_parse_file(path, out));
    if (*out && kd_json_bool(*out, from_model, false))
        KD_GO(kd_model_dir_config(dir, &config));
    if (config && departs(config)) {
        kd_json_free(*out);
        *out = NULL;
    }
out:
    kd_json_free(config);
    free(path);
    return rc;
}

static int set_copy(struct kd_json *to, const char *key, const struct kd_json *value)
{
    struct kd_json *copy = kd_json_copy(value);

    if (!copy)
        return KD_FAIL(KD_ENOMEM, "no memory for generation_config.json");
    return kd_json_set_json(to, key, copy);
}

/* A special id as CONFIG has it (which may be a list), else ID unless it is -1. */
static int set_id(struct kd_json *g, const struct kd_json *config, const char *key,
                  int32_t id)
{
    if (kd_json_has(config, key))
        return set_copy(g, key, kd_json_get(config, key));
    return id < 0 ? KD_OK : kd_json_set_int(g, key, id);
}

/* VALUE of setting KEY, which as a length stays within ARCH's positions. */
static int64_t within(const struct kd_arch *arch, const char *key, double value)
{
    bool is_length = strcmp(key, "max_length") == 0 && arch->max_positions > 0;

    return is_length && value > (double)arch->max_positions ? arch->max_positions
                                                            : (int64_t)value;
}

/* What CONFIG of ARCH's model says of generation, into G. */
static int from_config(const struct kd_json *config, const struct kd_arch *arch,
                       struct kd_json *g)
{
    KD_TRY(set_id(g, config, "bos_token_id", arch->bos_id));
    KD_TRY(set_id(g, config, "eos_token_id", arch->eos_id));
    KD_TRY(set_id(g, config, "pad_token_id", arch->pad_id));
    KD_TRY(set_id(g, config, "decoder_start_token_id", arch->decoder_start_id));
    if (kd_json_bool(config, force_bos, false))
        KD_TRY(set_id(g, config, "forced_bos_token_id", arch->bos_id));
    for (int i = 0; i < N_KEYS; i++) {
        double own = kd_generation_class_value(config, keys[i].name);

        if (kd_json_has(config, keys[i].name))
            KD_TRY(set_copy(g, keys[i].name, kd_json_get(config, keys[i].name)));
        else if (!kd_json_get(config, keys[i].name) && !isnan(own) &&
                 own != keys[i].def)
            KD_TRY(kd_json_set_int(g, keys[i].name, within(arch, keys[i].name, own)));
    }
    return KD_OK;
}

int kd_generation_move(struct kd_json *config, const struct kd_arch *arch,
                       const struct kd_json *given, struct kd_json **out)
{
    struct kd_json *g = given ? kd_json_copy(given) : kd_json_object();
    int rc = KD_OK;

    *out = NULL;
    if (!g)
        return KD_FAIL(KD_ENOMEM, "no memory for generation_config.json");
    kd_json_del(g, from_model); /* it is not any more */
    if (!given)
        KD_GO(from_config(config, arch, g));
    for (int i = 0; i < N_KEYS; i++)
        kd_json_del(config, keys[i].name);
    kd_json_del(config, force_bos);
    *out = g;
    return KD_OK;
out:
    kd_json_free(g);
    return rc;
}
