/* SPDX-License-Identifier: Apache-2.0 */
/* The generation options that pseudo-label, eval and generate share: option rows, and
 * their meeting with the model's generation config. */
#include "kdhpc/mode/generation_options.h"

#include "kdhpc/base/json.h"

#include <math.h>
#include <stddef.h>

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
    ROW_INT(num_return_sequences, 1, "outputs of each source"),
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
        .length_penalty = NAN,
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
    if (o->early_stopping >= 0)
        g->early_stopping = (enum kd_early_stopping)o->early_stopping;
    if (o->do_sample >= 0)
        g->do_sample = o->do_sample == 1;
    g->seed = seed;
}

int kd_generation_resolve(const struct kd_generation_options *o, const char *dir,
                          struct kd_model *m, uint64_t seed, struct kd_generation *out)
{
    int64_t positions = kd_model_arch(m)->max_positions;
    struct kd_json *generation = NULL;
    int rc = KD_OK;

    *out = (struct kd_generation){0};
    KD_TRY(kd_generation_json(dir, &generation));
    KD_GO(kd_generation_from_config(kd_model_config(m), generation, positions, out));
    set_options(o, seed, out);
    KD_GO(kd_generation_check(out));
    if (positions > 0 && out->max_length > positions)
        KD_GO(KD_FAIL(KD_EUSAGE, "max_length %lld is beyond the model's %lld positions",
                      (long long)out->max_length, (long long)positions));
    if (out->min_length > out->max_length)
        kd_warn("min_length %lld is above max_length %lld: outputs end at max_length",
                (long long)out->min_length, (long long)out->max_length);
out:
    kd_json_free(generation);
    if (rc)
        kd_generation_free(out);
    return rc;
}
