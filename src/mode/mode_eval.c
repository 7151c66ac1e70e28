/* SPDX-License-Identifier: Apache-2.0 */
/* Evaluation by generation: outputs of a model for a split, their ROUGE, BLEU, chrF or
 * TER against the untruncated target texts with bootstrap bounds, their length, and the
 * speed.
 *
 * --baseline lead scores the first words of each source in place of a model, which is
 * what every summariser is to be compared with; --predictions scores the lines of a
 * file, whatever made them. */
#include "generator.h"
#include "results.h"
#include "translation.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

enum baseline { BASELINE_NONE, BASELINE_LEAD };

struct eval_config {
    const char *model, *split, *tokenizer, *predictions;
    struct kd_str_list corpus, metrics, references;
    int64_t n_obs, eval_batch_size, bootstrap_resamples, lead_words;
    int baseline; /* enum baseline */
    struct kd_generation_options generation;
    struct kd_translation_options translation;
    bool rouge, wants[KD_N_TRANSLATION]; /* of metrics */
};

#define FIELD(f) .name = #f, .offset = offsetof(struct eval_config, f)

static const struct kd_opt_row rows[] = {
    {FIELD(model), .type = KD_OPT_STR, .help = "model directory"},
    {FIELD(corpus), .type = KD_OPT_STR_LIST,
     .help = "corpus.h5 or labels.h5 files, concatenated in order",
     .flags = KD_OPT_REQUIRED},
    {FIELD(split), .type = KD_OPT_STR, .def = "test", .help = "split to evaluate"},
    {FIELD(tokenizer), .type = KD_OPT_STR,
     .help = "directory of the tokenizer that decodes outputs (default: the model's)"},
    {FIELD(n_obs), .type = KD_OPT_INT, .def = "-1", .min = -1, .max = KD_NO_MAX,
     .help = "number of examples, the first ones (-1: all)"},
    {FIELD(eval_batch_size), .type = KD_OPT_INT, .def = "32", .min = 1,
     .max = KD_NO_MAX, .help = "sources in a generation batch"},
    {FIELD(bootstrap_resamples), .type = KD_OPT_INT, .def = "1000", .min = 0,
     .max = 1e6, .help = "resamples behind the _low and _high bounds (95%)"},
    {FIELD(baseline), .type = KD_OPT_CHOICE, .def = "none", .choices = "none|lead",
     .help = "lead: outputs are the first words of the sources; needs no model"},
    {FIELD(lead_words), .type = KD_OPT_INT, .def = "10", .min = 1, .max = KD_NO_MAX,
     .help = "words of the lead baseline"},
    {FIELD(predictions), .type = KD_OPT_STR,
     .help = "file with an output a line to score; needs no model"},
    {FIELD(metrics), .type = KD_OPT_STR_LIST,
     .help = "what to compute: rouge, bleu, chrf, ter (default: rouge, for a task of "
             "translation bleu)"},
    {FIELD(references), .type = KD_OPT_STR_LIST,
     .help = "files with a further reference a line, for bleu, chrf and ter"},
};

static const struct kd_opt_group groups[] = {
    {"Evaluation", rows, sizeof rows / sizeof *rows, 0},
    {"Generation", kd_generation_rows, 0, offsetof(struct eval_config, generation)},
    {"Translation metrics", kd_translation_rows, 0,
     offsetof(struct eval_config, translation)},
};

static const char *const outputs[] = {"metrics.json", "generations.txt", "examples.h5",
                                      NULL};

static int choose_metrics(struct eval_config *o)
{
    if (o->metrics.n < 0) {
        o->wants[KD_BLEU] = kd_task_translates(o->generation.task);
        o->rouge = !o->wants[KD_BLEU];
        return KD_OK;
    }
    for (int64_t i = 0; i < o->metrics.n; i++) {
        const char *name = o->metrics.v[i];
        bool known = strcmp(name, "rouge") == 0;

        o->rouge = o->rouge || known;
        for (int k = 0; k < KD_N_TRANSLATION; k++)
            if (strcmp(name, kd_translation_names[k]) == 0)
                o->wants[k] = known = true;
        if (!known)
            return KD_FAIL(KD_EUSAGE, "--metrics %s is none of rouge, bleu, chrf, ter",
                           name);
    }
    return o->metrics.n > 0 ? KD_OK : KD_FAIL(KD_EUSAGE, "--metrics is empty");
}

static int check_eval(const struct kd_common *common, void *config)
{
    struct eval_config *o = config;
    int n_sources =
        (o->model != NULL) + (o->baseline != BASELINE_NONE) + (o->predictions != NULL);

    (void)common;
    if (n_sources == 0)
        return KD_FAIL(KD_EUSAGE, "--model is required (or --baseline lead, or "
                                  "--predictions)");
    if (n_sources > 1)
        return KD_FAIL(KD_EUSAGE, "--baseline and --predictions replace the model: "
                                  "give one of --model, --baseline, --predictions");
    KD_TRY(choose_metrics(o));
    KD_TRY(kd_translation_check(&o->translation));
    if (o->generation.num_return_sequences != KD_UNSET_INT &&
        o->generation.num_return_sequences != 1)
        return KD_FAIL(KD_EUSAGE, "--num_return_sequences must be 1 for eval");
    return KD_OK;
}

/* What was generated; IDS is empty for a baseline. */
struct outputs {
    int64_t n;
    char **lines;
    struct kd_generated ids;
    double seconds;
};

static void outputs_free(struct outputs *o)
{
    for (int64_t i = 0; o->lines && i < o->n; i++)
        free(o->lines[i]);
    free(o->lines);
    kd_generated_free(&o->ids);
}

/* ---- the lead baseline ---- */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The first N_WORDS words of TEXT[len], a space between them. */
static int lead_of(const char *text, int64_t len, int64_t n_words, char **out)
{
    struct kd_str line = {0};
    int64_t i = 0, first;
    int rc = KD_OK;

    KD_GO(kd_str_append(&line, "", 0));
    for (int64_t w = 0; w < n_words; w++) {
        while (i < len && is_space(text[i]))
            i++;
        first = i;
        while (i < len && !is_space(text[i]))
            i++;
        if (i == first)
            break;
        if (w)
            KD_GO(kd_str_append(&line, " ", 1));
        KD_GO(kd_str_append(&line, text + first, i - first));
    }
    KD_GO(kd_strndup(line.data, line.len, out));
out:
    kd_str_free(&line);
    return rc;
}

static int lead_outputs(const struct kd_eval_corpus *c, int64_t n_words,
                        struct outputs *out)
{
    KD_TRY(kd_calloc(c->n, sizeof *out->lines, &out->lines));
    for (int64_t i = 0; i < c->n; i++) {
        int64_t len;
        const char *text = kd_corpus_source_text(c->corpus, i, &len);

        KD_TRY(lead_of(text, len, n_words, &out->lines[i]));
    }
    return KD_OK;
}

/* ---- a model ---- */

static const int32_t *source_of(const void *arg, int64_t i, int64_t *n)
{
    return kd_corpus_source(arg, i, n);
}

static int example_ids(const struct kd_eval_corpus *c, int64_t **ids)
{
    KD_TRY(kd_calloc(c->n, sizeof **ids, ids));
    for (int64_t i = 0; i < c->n; i++)
        (*ids)[i] = kd_corpus_id(c->corpus, i);
    return KD_OK;
}

static int generate(struct kd_run *run, const struct eval_config *o,
                    struct kd_generator *g, const struct kd_eval_corpus *c,
                    struct outputs *out)
{
    int64_t *ids = NULL;
    double start;
    int rc = KD_OK;

    KD_ALL_GO(run->comm, example_ids(c, &ids));
    KD_GO(kd_generator_memory(run, g, source_of, c->corpus, c->n, o->eval_batch_size));
    start = kd_now_s();
    KD_GO(
        kd_generator_stopped(kd_generator_run(run, g, source_of, c->corpus, ids, c->n,
                                              o->eval_batch_size, "eval", &out->ids)));
    out->seconds = kd_now_s() - start;
    KD_GO(kd_allreduce_f64(run->comm, &out->seconds, 1, KD_MAX));
    KD_ALL_GO(run->comm, kd_decode_lines(g->tokenizer, &out->ids, &out->lines));
out:
    free(ids);
    return rc;
}

static int model_outputs(struct kd_run *run, const struct eval_config *o,
                         const struct kd_eval_corpus *c, struct outputs *out)
{
    struct kd_generator g = {0};
    int rc = KD_OK;

    KD_GO(kd_generator_open(run, o->model, o->tokenizer, &o->generation, &g));
    KD_ALL_GO(run->comm, kd_generator_fits(&g, c->corpus, o->corpus.v[0]));
    if (g.g.num_return_sequences != 1) {
        kd_warn("the model's generation config asks for %lld sequences a source; eval "
                "takes the best one",
                (long long)g.g.num_return_sequences);
        g.g.num_return_sequences = 1;
    }
    KD_GO(generate(run, o, &g, c, out));
out:
    kd_generator_close(&g);
    return rc;
}

/* ---- texts from files ---- */

/* PATHS[n] as lists of lines, one of each for every example. */
struct text_lists {
    char ***v;
    int64_t n, n_lines;
};

static void text_lists_free(struct text_lists *t)
{
    for (int64_t k = 0; t->v && k < t->n; k++) {
        for (int64_t i = 0; t->v[k] && i < t->n_lines; i++)
            free(t->v[k][i]);
        free(t->v[k]);
    }
    free(t->v);
}

static int text_lists_read(const struct kd_str_list *paths,
                           const struct kd_eval_corpus *c, struct text_lists *out)
{
    out->n = paths->n > 0 ? paths->n : 0;
    out->n_lines = c->n;
    KD_TRY(kd_calloc(out->n, sizeof *out->v, &out->v));
    for (int64_t k = 0; k < out->n; k++)
        KD_TRY(kd_eval_read_lines(paths->v[k], c, &out->v[k]));
    return KD_OK;
}

/* ---- results ---- */

/* What was computed; scores are ROUGE rows [n][4], NULL if not asked for. */
struct scores {
    double *rouge;
    struct kd_translation *translation[KD_N_TRANSLATION];
};

static void scores_free(struct scores *s)
{
    free(s->rouge);
    for (int k = 0; k < KD_N_TRANSLATION; k++)
        kd_translation_free(s->translation[k]);
}

static int compute_scores(struct kd_run *run, const struct eval_config *o,
                          const struct kd_eval_corpus *c, const struct outputs *out,
                          struct scores *s)
{
    struct text_lists refs = {0};
    struct kd_translation_texts texts = {
        .outputs = out->lines, .corpus = c->corpus, .n = c->n};
    int rc = KD_OK;

    KD_ALL_GO(run->comm, text_lists_read(&o->references, c, &refs));
    texts.more_refs = (char *const *const *)refs.v;
    texts.n_more_refs = refs.n;
    if (o->rouge) {
        KD_ALL_GO(run->comm, kd_calloc(4 * c->n, sizeof *s->rouge, &s->rouge));
        KD_GO(kd_rouge_rows(run, out->lines, c->corpus, c->n, s->rouge));
    }
    for (int k = 0; k < KD_N_TRANSLATION; k++)
        if (o->wants[k])
            KD_GO(kd_translation_count(run, &o->translation,
                                       (enum kd_translation_metric)k, &texts,
                                       &s->translation[k]));
out:
    text_lists_free(&refs);
    return rc;
}

static int set_rouge(struct kd_json *j, const struct kd_rouge_summary *s)
{
    const struct {
        const char *key;
        double value;
    } items[] = {
        {"rouge1", s->r1},
        {"rouge1_low", s->r1_low},
        {"rouge1_high", s->r1_high},
        {"rouge2", s->r2},
        {"rouge2_low", s->r2_low},
        {"rouge2_high", s->r2_high},
        {"rougeL", s->rl},
        {"rougeL_low", s->rl_low},
        {"rougeL_high", s->rl_high},
        {"rougeLsum", s->rlsum},
        {"rougeLsum_low", s->rlsum_low},
        {"rougeLsum_high", s->rlsum_high},
    };

    for (size_t i = 0; i < sizeof items / sizeof *items; i++)
        KD_TRY(kd_json_set_num(j, items[i].key, items[i].value));
    return KD_OK;
}

static int set_scores(const struct kd_run *run, const struct eval_config *o,
                      const struct scores *s, int64_t n, struct kd_json *j)
{
    uint64_t seed = (uint64_t)run->common->seed;
    struct kd_rouge_summary sum;

    if (s->rouge) {
        KD_TRY(kd_rouge_summarise(s->rouge, n, o->bootstrap_resamples, seed, &sum));
        KD_TRY(set_rouge(j, &sum));
        kd_info("eval: rouge1 %.2f  rouge2 %.2f  rougeL %.2f  rougeLsum %.2f", sum.r1,
                sum.r2, sum.rl, sum.rlsum);
    }
    for (int k = 0; k < KD_N_TRANSLATION; k++)
        if (s->translation[k])
            KD_TRY(kd_translation_report(s->translation[k], o->bootstrap_resamples,
                                         seed, j));
    return KD_OK;
}

static int write_metrics(struct kd_run *run, const struct eval_config *o,
                         const struct scores *s, const struct outputs *out)
{
    struct kd_json *j = kd_json_object();
    double tokens = out->ids.offsets ? (double)out->ids.offsets[out->n] : 0;
    int rc = KD_OK;

    KD_ALL_GO(run->comm, set_scores(run, o, s, out->n, j));
    KD_ALL_GO(run->comm, kd_json_set_int(j, "n_obs", out->n));
    if (out->ids.offsets) {
        KD_ALL_GO(run->comm, kd_json_set_num(j, "gen_len", tokens / (double)out->n));
        KD_ALL_GO(run->comm, kd_json_set_num(j, "seconds_per_sample",
                                             out->seconds / (double)out->n));
        KD_ALL_GO(run->comm,
                  kd_json_set_num(j, "generated_tokens_per_s", tokens / out->seconds));
    }
    KD_GO(kd_metrics_write(run, j));
    kd_info("eval: %lld examples, %.1f s of generation", (long long)out->n,
            out->seconds);
out:
    kd_json_free(j);
    return rc;
}

/* Value of a metric for example I, as examples.h5 has it: METRIC below 4 is a column of
 * ROUGE, then come the translation metrics. */
static double value_of(const struct scores *s, int metric, int64_t i)
{
    return metric < 4 ? 100 * s->rouge[4 * i + metric]
                      : kd_translation_example(s->translation[metric - 4], i);
}

/* One metric of this rank's rows. */
static int write_metric(struct kd_run *run, struct kd_h5 *f, const char *name,
                        const struct scores *s, int metric, struct kd_share share)
{
    double *v = NULL;
    int rc = KD_OK;

    KD_ALL_GO(run->comm, kd_calloc(share.n, sizeof *v, &v));
    for (int64_t i = 0; i < share.n; i++)
        v[i] = value_of(s, metric, share.first + i);
    KD_GO(kd_h5_write(f, name, KD_F64, v, share.n, 1));
out:
    free(v);
    return rc;
}

/* This rank's rows of the generated ids, offsets from 0. */
static int write_ids(struct kd_run *run, struct kd_h5 *f,
                     const struct kd_generated *ids, struct kd_share share)
{
    const int64_t *offsets = ids->offsets + share.first;
    int64_t *own = NULL;
    int rc = KD_OK;

    KD_ALL_GO(run->comm, kd_calloc(share.n + 1, sizeof *own, &own));
    for (int64_t i = 0; i <= share.n; i++)
        own[i] = offsets[i] - offsets[0];
    KD_GO(kd_h5_write_ragged(f, "output", KD_I32, ids->ids + offsets[0], own, share.n));
out:
    free(own);
    return rc;
}

static int write_examples(struct kd_run *run, const struct eval_config *o,
                          const struct kd_eval_corpus *c, const struct scores *scores,
                          const struct outputs *out)
{
    static const char *const names[] = {"rouge1", "rouge2", "rougeL", "rougeLsum"};
    struct kd_share share = kd_share_of(run, c->n);
    struct kd_h5 *f = NULL;
    char *parents = NULL;
    int rc = KD_OK;

    KD_ALL_GO(run->comm, kd_eval_parents(c, &o->corpus, o->model, &parents));
    KD_GO(kd_examples_create(run, c, parents, &f));
    for (int k = 0; k < 4 && scores->rouge; k++)
        KD_GO(write_metric(run, f, names[k], scores, k, share));
    for (int k = 0; k < KD_N_TRANSLATION; k++)
        if (scores->translation[k])
            KD_GO(write_metric(run, f, kd_translation_names[k], scores, 4 + k, share));
    if (out->ids.offsets)
        KD_GO(write_ids(run, f, &out->ids, share));
    rc = kd_h5_commit(f);
    f = NULL;
out:
    if (f)
        kd_h5_abandon(f);
    free(parents);
    return rc;
}

static int run_eval(struct kd_run *run, void *config)
{
    const struct eval_config *o = config;
    struct kd_eval_corpus c = {0};
    struct outputs out = {0};
    struct scores scores = {0};
    int rc = KD_OK;

    KD_GO(kd_eval_corpus_open(run, &o->corpus, o->split, o->n_obs, &c));
    out.n = c.n;
    if (o->baseline == BASELINE_LEAD)
        KD_ALL_GO(run->comm, lead_outputs(&c, o->lead_words, &out));
    else if (o->predictions)
        KD_ALL_GO(run->comm, kd_eval_read_lines(o->predictions, &c, &out.lines));
    else
        KD_GO(model_outputs(run, o, &c, &out));
    KD_GO(compute_scores(run, o, &c, &out, &scores));
    KD_GO(kd_generations_write(run, out.lines, out.n));
    KD_GO(write_examples(run, o, &c, &scores, &out));
    KD_GO(write_metrics(run, o, &scores, &out));
out:
    scores_free(&scores);
    outputs_free(&out);
    kd_corpus_close(c.corpus);
    return rc;
}

const struct kd_mode kd_mode_eval = {
    .name = "eval",
    .summary = "generate for a split and score the outputs",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .config_bytes = sizeof(struct eval_config),
    .outputs = outputs,
    .needs_output_dir = true,
    .stops = true,
    .check = check_eval,
    .computes = true,
    .run = run_eval,
};
