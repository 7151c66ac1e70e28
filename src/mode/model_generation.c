/* SPDX-License-Identifier: Apache-2.0 */
/* Generation settings of a model directory, between its two files.
 *
 * Old checkpoints carry them in config.json; transformers wants them in
 * generation_config.json, warns about each one in config.json, and lets
 * generation_config.json alone count where there is one.  So both places are read, and
 * one is written: what a config.json without the other file says moves over, with the
 * defaults of its model type.  config.json keeps the special ids, which training needs
 * too.  Callers: reading in model_io.c and the modes, writing in model_save.c. */
#include "kdhpc/mode/model_io.h"

#include "kdhpc/base/str.h"

#include <stdlib.h>

/* Keys that transformers 4.57 calls generation parameters of a config.json, and two
 * that it takes from there without saying so. */
static const char *const keys[] = {"max_length",
                                   "min_length",
                                   "max_new_tokens",
                                   "min_new_tokens",
                                   "do_sample",
                                   "early_stopping",
                                   "num_beams",
                                   "num_beam_groups",
                                   "diversity_penalty",
                                   "temperature",
                                   "top_k",
                                   "top_p",
                                   "typical_p",
                                   "repetition_penalty",
                                   "length_penalty",
                                   "no_repeat_ngram_size",
                                   "encoder_no_repeat_ngram_size",
                                   "bad_words_ids",
                                   "num_return_sequences",
                                   "output_scores",
                                   "return_dict_in_generate",
                                   "forced_bos_token_id",
                                   "forced_eos_token_id",
                                   "remove_invalid_values",
                                   "exponential_decay_length_penalty",
                                   "suppress_tokens",
                                   "begin_suppress_tokens"};
/* The old name of "forced_bos_token_id is bos_token_id". */
static const char force_bos[] = "force_bos_token_to_be_generated";

enum { N_KEYS = sizeof keys / sizeof *keys };

int kd_generation_json(const char *dir, struct kd_json **out)
{
    char *path = NULL;
    int rc = KD_OK;

    *out = NULL;
    KD_TRY(kd_path_join(dir, "generation_config.json", &path));
    if (kd_path_exists(path))
        rc = kd_json_parse_file(path, out);
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

/* What CONFIG of ARCH's model says of generation, into G. */
static int from_config(const struct kd_json *config, const struct kd_arch *arch,
                       struct kd_json *g)
{
    KD_TRY(set_id(g, config, "bos_token_id", arch->bos_id));
    KD_TRY(set_id(g, config, "eos_token_id", arch->eos_id));
    KD_TRY(set_id(g, config, "pad_token_id", arch->pad_id));
    KD_TRY(set_id(g, config, "decoder_start_token_id", arch->decoder_start_id));
    KD_TRY(set_id(g, config, "forced_eos_token_id", arch->forced_eos_id));
    if (kd_json_bool(config, force_bos, false))
        KD_TRY(set_id(g, config, "forced_bos_token_id", arch->bos_id));
    for (int i = 0; i < N_KEYS; i++)
        if (kd_json_has(config, keys[i]))
            KD_TRY(set_copy(g, keys[i], kd_json_get(config, keys[i])));
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
    kd_json_del(g, "_from_model_config"); /* it is not any more */
    if (!given)
        KD_GO(from_config(config, arch, g));
    for (int i = 0; i < N_KEYS; i++)
        kd_json_del(config, keys[i]);
    kd_json_del(config, force_bos);
    *out = g;
    return KD_OK;
out:
    kd_json_free(g);
    return rc;
}
