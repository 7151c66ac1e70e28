/* SPDX-License-Identifier: Apache-2.0 */
/* The generation options that pseudo-label, eval and generate share: option rows, and
 * their meeting with the model's generation config. */
#include "kdhpc/mode/generation_options.h"

#include "kdhpc/base/json.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define ROW_INT(NAME, MIN, HELP)                                                       \
    {                                                                                  \
        .name = #NAME, .type = KD_OPT_INT,                                             \
        .offset = offsetof(struct kd_generation_options, NAME), .min = (MIN),          \
        .max = KD_NO_MAX, .help = HELP                                                 \
    }
#define ROW_FLOAT(NAME, MIN, MAX, HELP)                                                \
    {                                                                                  \
        .name = #NAME, .type = KD_OPT_FLOAT,                                           \
        .offset = offsetof(struct kd_generation_options, NAME), .min = (MIN),          \
        .max = (MAX), .help = HELP                                                     \
    }

const struct kd_opt_row kd_generation_rows[] = {
    ROW_INT(num_beams, 1, "beams of the search; 1: greedy, or sampling"),
    ROW_INT(max_length, 2, "most ids of an output, the start token included"),
    ROW_INT(min_length, 0, "fewest ids before eos, the start token included"),
    ROW_INT(max_new_tokens, 1, "most new ids; goes before max_length"),
    ROW_INT(min_new_tokens, 0, "fewest new ids before eos; goes before min_length"),
    ROW_FLOAT(length_penalty, KD_NO_MIN, KD_NO_MAX,
              "beam scores are divided by length to this power"),
    ROW_INT(no_repeat_ngram_size, 0, "n-grams of this size occur once; 0: off"),
    {.name = "early_stopping",
     .type = KD_OPT_CHOICE,
     .offset = offsetof(struct kd_generation_options, early_stopping),
     .choices = "false|true|never",
     .help = "stop at num_beams outputs, by a heuristic (false), or when none can win"},
    ROW_FLOAT(repetition_penalty, 1e-6, KD_NO_MAX,
              "above 1 makes ids that occurred less likely"),
    {.name = "do_sample",
     .type = KD_OPT_CHOICE,
     .offset = offsetof(struct kd_generation_options, do_sample),
     .choices = "false|true",
     .help = "draw tokens instead of taking the likeliest"},
    ROW_FLOAT(temperature, 1e-6, KD_NO_MAX, "logits are divided by it when sampling"),
    ROW_INT(top_k, 0, "sample from this many likeliest ids; 0: all"),
    ROW_FLOAT(top_p, 1e-9, 1.0, "sample from the likeliest ids with this mass"),
    ROW_FLOAT(min_p, 0.0, 1.0,
              "sample ids with this share of the likeliest one's mass"),
    ROW_FLOAT(typical_p, 1e-9, 1.0,
              "sample the ids nearest the entropy, with this mass"),
    ROW_FLOAT(epsilon_cutoff, 0.0, 1.0, "sample ids with this mass; 0 or 1: off"),
    ROW_FLOAT(eta_cutoff, 0.0, 1.0, "the same, lower where entropy is high"),
    ROW_INT(num_return_sequences, 1, "outputs of each source"),
    ROW_INT(num_beam_groups, 1, "groups of beams that avoid each other's choices"),
    ROW_FLOAT(diversity_penalty, 0.0, KD_NO_MAX,
              "taken from scores for each beam of earlier groups with the same id"),
    ROW_INT(encoder_no_repeat_ngram_size, 0,
            "n-grams of the source of this size do not occur; 0: off"),
    ROW_FLOAT(encoder_repetition_penalty, 1e-6, KD_NO_MAX,
              "above 1 makes ids of the source more likely"),
    {.name = "renormalize_logits",
     .type = KD_OPT_CHOICE,
     .offset = offsetof(struct kd_generation_options, renormalize_logits),
     .choices = "false|true",
     .help = "beam scores are log-probabilities after bans and penalties"},
    {.name = "task",
     .type = KD_OPT_STR,
     .offset = offsetof(struct kd_generation_options, task),
     .help = "generate as the model's task_specific_params say for it; sources of a "
             "corpus have the prefix that tokenize gave them"},
    {.name = "tgt_lang",
     .type = KD_OPT_STR,
     .offset = offsetof(struct kd_generation_options, tgt_lang),
     .help = "language code that outputs begin with, e.g. ro_RO (mBART tokenizers)"},
    {.name = NULL},
};

void kd_generation_options_unset(struct kd_generation_options *o)
{
    *o = (struct kd_generation_options){
        .num_beams = KD_UNSET_INT,
        .max_length = KD_UNSET_INT,
        .min_length = KD_UNSET_INT,
        .max_new_tokens = KD_UNSET_INT,
        .min_new_tokens = KD_UNSET_INT,
        .no_repeat_ngram_size = KD_UNSET_INT,
        .top_k = KD_UNSET_INT,
        .num_return_sequences = KD_UNSET_INT,
        .num_beam_groups = KD_UNSET_INT,
        .encoder_no_repeat_ngram_size = KD_UNSET_INT,
        .length_penalty = NAN,
        .encoder_repetition_penalty = NAN,
        .diversity_penalty = NAN,
        .min_p = NAN,
        .typical_p = NAN,
        .epsilon_cutoff = NAN,
        .eta_cutoff = NAN,
        .renormalize_logits = -1,
        .repetition_penalty = NAN,
        .temperature = NAN,
        .top_p = NAN,
        .early_stopping = -1,
        .do_sample = -1,
    };
}

static void set_int(int64_t *to, int64_t value)
{
    if (value != KD_UNSET_INT)
        *to = value;
}

static void set_num(double *to, double value)
{
    if (!isnan(value))
        *to = value;
}

/* A limit in new tokens goes before one in all ids, wherever each comes from, as in
 * transformers. */
static void set_lengths(const struct kd_generation_options *o, struct kd_generation *g)
{
    set_int(&g->max_new_tokens, o->max_new_tokens);
    set_int(&g->min_new_tokens, o->min_new_tokens);
    if (g->max_new_tokens >= 0 && o->max_length != KD_UNSET_INT)
        kd_warn("max_new_tokens %lld goes before max_length",
                (long long)g->max_new_tokens);
    if (g->min_new_tokens >= 0 && o->min_length != KD_UNSET_INT)
        kd_warn("min_new_tokens %lld goes before min_length",
                (long long)g->min_new_tokens);
    if (g->max_new_tokens >= 0)
        g->max_length = g->max_new_tokens + 1;
    else
        set_int(&g->max_length, o->max_length);
    if (g->min_new_tokens >= 0)
        g->min_length = g->min_new_tokens + 1;
    else
        set_int(&g->min_length, o->min_length);
}

static void set_options(const struct kd_generation_options *o, uint64_t seed,
                        struct kd_generation *g)
{
    set_lengths(o, g);
    set_int(&g->num_beams, o->num_beams);
    set_int(&g->no_repeat_ngram_size, o->no_repeat_ngram_size);
    set_int(&g->top_k, o->top_k);
    set_int(&g->num_return_sequences, o->num_return_sequences);
    set_num(&g->length_penalty, o->length_penalty);
    set_num(&g->repetition_penalty, o->repetition_penalty);
    set_num(&g->temperature, o->temperature);
    set_num(&g->top_p, o->top_p);
    set_num(&g->min_p, o->min_p);
    set_num(&g->typical_p, o->typical_p);
    set_num(&g->epsilon_cutoff, o->epsilon_cutoff);
    set_num(&g->eta_cutoff, o->eta_cutoff);
    set_int(&g->num_beam_groups, o->num_beam_groups);
    set_num(&g->diversity_penalty, o->diversity_penalty);
    set_int(&g->encoder_no_repeat_ngram_size, o->encoder_no_repeat_ngram_size);
    set_num(&g->encoder_repetition_penalty, o->encoder_repetition_penalty);
    if (o->renormalize_logits >= 0)
        g->renormalize = o->renormalize_logits == 1;
    if (o->early_stopping >= 0)
        g->early_stopping = (enum kd_early_stopping)o->early_stopping;
    if (o->do_sample >= 0)
        g->do_sample = o->do_sample == 1;
    g->seed = seed;
}

bool kd_task_translates(const char *task)
{
    return task && strncmp(task, "translation", strlen("translation")) == 0;
}

/* What CONFIG has for TASK, in *PARAMS: NULL if there is no task, and maybe for a kind
 * of task that is known by itself; any other name is misspelt. */
static int find_task(const struct kd_json *config, const char *task,
                     const struct kd_json **params)
{
    const struct kd_json *tasks = kd_json_get(config, "task_specific_params");

    *params = task && tasks ? kd_json_get(tasks, task) : NULL;
    if (!task || (*params && kd_json_is_object(*params)))
        return KD_OK;
    if (!*params && (!strcmp(task, "translation") || !strcmp(task, "summarization")))
        return KD_OK;
    return KD_FAIL(KD_EUSAGE,
                   "the model's config.json has no task_specific_params for task '%s'",
                   task);
}

int kd_task_prefix(const struct kd_json *config, const char *task, const char *given,
                   const char **out)
{
    const struct kd_json *params;

    KD_TRY(find_task(config, task, &params));
    *out = given ? given : params ? kd_json_str(params, "prefix", "") : "";
    return KD_OK;
}

/* As transformers' pipelines do. */
int kd_task_apply(const struct kd_json *config, const char *task,
                  struct kd_json *settings)
{
    const struct kd_json *params;
    struct kd_json *all = NULL;
    int rc = KD_OK;

    KD_TRY(find_task(config, task, &params));
    if (!params)
        return KD_OK;
    all = kd_json_copy(params); /* which may be part of SETTINGS */
    if (!all)
        return KD_FAIL(KD_ENOMEM, "no memory for generation settings");
    kd_json_del(all, "prefix"); /* of sources, not of outputs */
    for (void *it = kd_json_first(all); it && !rc; it = kd_json_next(all, it)) {
        struct kd_json *copy = kd_json_copy(kd_json_value(it));

        rc = copy ? kd_json_set_json(settings, kd_json_key(it), copy)
                  : KD_FAIL(KD_ENOMEM, "no memory for generation settings");
    }
    kd_json_free(all);
    return rc;
}

/* A key that says nothing is worth a word: it may be misspelt. */
static void warn_of_unknown(const struct kd_json *generation)
{
    const char *key = kd_generation_unknown_key(generation);

    if (key)
        kd_warn("generation_config.json: '%s' is not a generation setting and is "
                "passed over",
                key);
}

/* Outputs end where positions (0: no bound) do; who asks for more must know. */
static int fit_length(const struct kd_generation_options *o, int64_t positions,
                      struct kd_generation *g)
{
    bool asked = o->max_length != KD_UNSET_INT || o->max_new_tokens != KD_UNSET_INT;

    if (positions <= 0 || g->max_length <= positions)
        return KD_OK;
    if (asked)
        return KD_FAIL(KD_EUSAGE,
                       "max_length %lld is beyond the model's %lld positions",
                       (long long)g->max_length, (long long)positions);
    if (!o->quiet)
        kd_warn("max_length %lld of the model's settings is beyond its %lld positions: "
                "outputs end there",
                (long long)g->max_length, (long long)positions);
    g->max_length = positions;
    return KD_OK;
}

int kd_generation_resolve(const struct kd_generation_options *o, const char *dir,
                          struct kd_model *m, uint64_t seed, struct kd_generation *out)
{
    int64_t positions = kd_model_arch(m)->max_positions;
    struct kd_json *generation = NULL, *config = NULL;
    int rc = KD_OK;

    *out = (struct kd_generation){0};
    KD_TRY(kd_generation_json(dir, &generation));
    if (generation && !o->quiet)
        warn_of_unknown(generation);
    config = kd_json_copy(kd_model_config(m));
    if (!config)
        KD_GO(KD_FAIL(KD_ENOMEM, "no memory for generation settings"));
    KD_GO(kd_task_apply(kd_model_config(m), o->task, generation ? generation : config));
    KD_GO(kd_generation_from_config(config, generation, positions, out));
    set_options(o, seed, out);
    KD_GO(kd_generation_check(out));
    KD_GO(fit_length(o, positions, out));
    if (out->min_length > out->max_length)
        kd_warn("min_length %lld is above max_length %lld: outputs end at max_length",
                (long long)out->min_length, (long long)out->max_length);
out:
    kd_json_free(generation);
    kd_json_free(config);
    if (rc)
        kd_generation_free(out);
    return rc;
}
