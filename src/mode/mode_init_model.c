/* SPDX-License-Identifier: Apache-2.0 */
/* A model directory with random weights from a config.json.
 *
 * What the configuration leaves out about the vocabulary comes from the tokenizer; what
 * it says must agree with the tokenizer, because a model whose ids mean something else
 * trains without complaint and is worth nothing.  Generation settings in it go to
 * generation_config.json.  The weights depend on the seed alone. */
#include "kdhpc/mode/model_io.h"

#include <stddef.h>
#include <stdlib.h>

/* A vocabulary may be rounded up for alignment by fewer rows than this. */
enum { MAX_PADDING_ROWS = 128 };

struct init_config {
    const char *from, *tokenizer;
};

static const struct kd_opt_row rows[] = {
    {.name = "from",
     .type = KD_OPT_STR,
     .offset = offsetof(struct init_config, from),
     .help = "config.json of the model to make, or a directory that holds one",
     .flags = KD_OPT_REQUIRED},
    {.name = "tokenizer",
     .type = KD_OPT_STR,
     .offset = offsetof(struct init_config, tokenizer),
     .help =
         "tokenizer directory: gives an absent vocabulary size and special ids, and "
         "is copied"},
};

static const struct kd_opt_group groups[] = {
    {"Model", rows, sizeof rows / sizeof *rows, 0},
};

/* ---- configuration and tokenizer ---- */

static int read_config(const char *from, struct kd_json **out)
{
    char *path = NULL;
    int rc;

    if (!kd_path_is_dir(from))
        return kd_json_parse_file(from, out);
    KD_TRY(kd_path_join(from, "config.json", &path));
    rc = kd_json_parse_file(path, out);
    free(path);
    return rc;
}

static int set_null(struct kd_json *config, const char *key)
{
    static const char text[] = "{\"null\": null}";
    struct kd_json *object = NULL, *null;
    int rc;

    KD_TRY(kd_json_parse(text, sizeof text - 1, "null", &object));
    null = kd_json_copy(kd_json_get(object, "null"));
    if (null)
        rc = kd_json_set_json(config, key, null);
    else
        rc = KD_FAIL(KD_ENOMEM, "no memory for config.json");
    kd_json_free(object);
    return rc;
}

/* KEY NULL: the family has no such vocabulary. */
static int reconcile_vocab(struct kd_json *config, const char *key, int64_t size)
{
    int64_t given;

    if (!key)
        return KD_OK;
    given = kd_json_int(config, key, -1);
    if (!kd_json_has(config, key))
        return kd_json_set_int(config, key, size);
    if (given < size || given >= size + MAX_PADDING_ROWS)
        return KD_FAIL(KD_EINPUT,
                       "config: %s is %lld, but the tokenizer has %lld ids: correct "
                       "the config or leave %s out",
                       key, (long long)given, (long long)size, key);
    return KD_OK;
}

/* ID -1: the tokenizer has no such token. */
static int reconcile_id(struct kd_json *config, const char *key, int32_t id)
{
    int64_t given = kd_json_int(config, key, -1);

    if (!kd_json_has(config, key))
        return id >= 0 ? kd_json_set_int(config, key, id) : set_null(config, key);
    if (id >= 0 && given != id)
        return KD_FAIL(KD_EINPUT,
                       "config: %s is %lld, but the tokenizer's is %d: correct the "
                       "config or leave %s out",
                       key, (long long)given, (int)id, key);
    return KD_OK;
}

static int reconcile(struct kd_json *config, const struct kd_tokenizer *t)
{
    const struct kd_special_ids *ids = kd_tokenizer_special(t);
    struct kd_arch_keys keys;
    int32_t start;

    KD_TRY(kd_arch_keys_of(config, &keys));
    KD_TRY(reconcile_vocab(config, keys.source_vocab, kd_tokenizer_size(t)));
    KD_TRY(reconcile_vocab(config, keys.target_vocab, kd_tokenizer_target_size(t)));
    KD_TRY(reconcile_id(config, "bos_token_id", ids->bos));
    KD_TRY(reconcile_id(config, "eos_token_id", ids->eos));
    KD_TRY(reconcile_id(config, "pad_token_id", ids->pad));
    start = keys.starts_with_pad ? ids->pad : ids->eos;
    if (start >= 0 && !kd_json_get(config, "decoder_start_token_id"))
        KD_TRY(kd_json_set_int(config, "decoder_start_token_id", start));
    if (keys.forces_eos && ids->eos >= 0 && !kd_json_get(config, "forced_eos_token_id"))
        KD_TRY(kd_json_set_int(config, "forced_eos_token_id", ids->eos));
    return KD_OK;
}

static int check_vocab_given(const struct kd_json *config)
{
    struct kd_arch_keys keys;

    KD_TRY(kd_arch_keys_of(config, &keys));
    if (!kd_json_has(config, keys.source_vocab))
        return KD_FAIL(KD_EINPUT, "config has no %s: give it, or --tokenizer",
                       keys.source_vocab);
    return KD_OK;
}

/* ---- the mode ---- */

static int make_local(struct kd_run *run, const struct init_config *c,
                      struct kd_json **generation, struct kd_model **out)
{
    struct kd_json *config = NULL;
    struct kd_tokenizer *t = NULL;
    int rc;

    KD_GO(read_config(c->from, &config));
    if (kd_path_is_dir(c->from))
        KD_GO(kd_generation_json(c->from, generation));
    if (c->tokenizer) {
        KD_GO(kd_tokenizer_load(c->tokenizer, &t));
        KD_GO(reconcile(config, t));
    } else {
        KD_GO(check_vocab_given(config));
    }
    KD_GO(kd_model_new(run->be, run->dtype, config, out));
    if (kd_comm_rank(run->comm) == 0) /* which alone writes */
        rc = kd_model_init(*out, (uint64_t)run->common->seed);
out:
    if (t)
        kd_tokenizer_free(t);
    kd_json_free(config);
    return rc;
}

static int run_init(struct kd_run *run, void *config)
{
    const struct init_config *c = config;
    struct kd_json *generation = NULL;
    struct kd_model *m = NULL;
    int rc;

    KD_ALL_GO(run->comm, make_local(run, c, &generation, &m));
    KD_GO(kd_model_save(run, m, run->common->output_dir, KD_F32, c->tokenizer,
                        generation));
    kd_info("%s: a %s model of %lld parameters, vocabulary %lld",
            run->common->output_dir, kd_model_arch(m)->model_type,
            (long long)kd_params_count(kd_model_params(m)),
            (long long)kd_model_arch(m)->vocab_size);
out:
    kd_json_free(generation);
    kd_model_free(m);
    return rc;
}

static const char *const outputs[] = {"config.json", "generation_config.json",
                                      "model.safetensors", NULL};

const struct kd_mode kd_mode_init_model = {
    .name = "init-model",
    .summary = "make a model with random weights from a config.json",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .config_bytes = sizeof(struct init_config),
    .outputs = outputs,
    .needs_output_dir = true,
    .run = run_init,
};
