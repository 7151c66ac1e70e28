/* SPDX-License-Identifier: Apache-2.0 */
/* Teacher-forced scores of a corpus: loss, perplexity and token accuracy of the labels
 * under a model, never smoothed, with a row per example. */
#include "results.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/mode/generation_options.h"

#include <math.h>
#include <stdlib.h>

struct score_config {
    const char *model, *split;
    struct kd_str_list corpus;
    int64_t n_obs, eval_batch_size;
};

static const struct kd_opt_row rows[] = {
    {.name = "model",
     .type = KD_OPT_STR,
     .offset = offsetof(struct score_config, model),
     .help = "model directory",
     .flags = KD_OPT_REQUIRED},
    {.name = "corpus",
     .type = KD_OPT_STR_LIST,
     .offset = offsetof(struct score_config, corpus),
     .help = "corpus.h5 or labels.h5 files, concatenated in order",
     .flags = KD_OPT_REQUIRED},
    {.name = "split",
     .type = KD_OPT_STR,
     .offset = offsetof(struct score_config, split),
     .def = "test",
     .help = "split to score"},
    {.name = "n_obs",
     .type = KD_OPT_INT,
     .offset = offsetof(struct score_config, n_obs),
     .def = "-1",
     .min = -1,
     .max = KD_NO_MAX,
     .help = "number of examples, the first ones (-1: all)"},
    {.name = "eval_batch_size",
     .type = KD_OPT_INT,
     .offset = offsetof(struct score_config, eval_batch_size),
     .def = "32",
     .min = 1,
     .max = KD_NO_MAX,
     .help = "examples in a batch"},
};

static const struct kd_opt_group groups[] = {
    {"Scoring", rows, sizeof rows / sizeof *rows, 0},
};

static const char *const outputs[] = {"metrics.json", "examples.h5", NULL};

/* metrics.json of the scores, sums in example order. */
static int metrics_of(const struct kd_scores *s, double seconds, struct kd_json **out)
{
    struct kd_json *j = kd_json_object();
    double nll = 0, loss;
    int64_t labels = 0, correct = 0;
    int rc = KD_OK;

    *out = NULL;
    for (int64_t i = 0; i < s->n; i++) {
        nll += s->nll[i];
        labels += s->n_labels[i];
        correct += s->n_correct[i];
    }
    loss = labels ? nll / (double)labels : 0;
    if (!isfinite(loss))
        KD_GO(KD_FAIL(KD_ENUMERIC,
                      "the loss over %lld labels is not finite: the "
                      "model's weights or its input are damaged",
                      (long long)labels));
    KD_GO(kd_json_set_num(j, "loss", loss));
    KD_GO(kd_json_set_num(j, "perplexity", exp(loss)));
    KD_GO(kd_json_set_num(j, "token_accuracy",
                          labels ? (double)correct / (double)labels : 0));
    KD_GO(kd_json_set_int(j, "n_tokens", labels));
    KD_GO(kd_json_set_int(j, "n_obs", s->n));
    KD_GO(kd_json_set_num(j, "seconds", seconds));
    kd_info("score: loss %.4f  perplexity %.3f  token accuracy %.4f  (%lld examples, "
            "%lld labels, %.1f s)",
            loss, exp(loss), labels ? (double)correct / (double)labels : 0,
            (long long)s->n, (long long)labels, seconds);
    *out = j;
    j = NULL;
out:
    kd_json_free(j);
    return rc;
}

static int write_examples(struct kd_run *run, const struct kd_eval_corpus *c,
                          const char *parents, const struct kd_scores *s)
{
    struct kd_share share = kd_share_of(run, s->n);
    struct kd_h5 *f = NULL;
    int rc = KD_OK;

    KD_TRY(kd_examples_create(run, c, parents, &f));
    KD_GO(kd_h5_write(f, "nll", KD_F64, s->nll + share.first, share.n, 1));
    KD_GO(kd_h5_write(f, "n_labels", KD_I64, s->n_labels + share.first, share.n, 1));
    KD_GO(kd_h5_write(f, "n_correct", KD_I64, s->n_correct + share.first, share.n, 1));
    return kd_h5_commit(f);
out:
    kd_h5_abandon(f);
    return rc;
}

static int run_score(struct kd_run *run, void *config)
{
    struct score_config *o = config;
    struct kd_eval_corpus c = {0};
    struct kd_scores scores = {0};
    struct kd_model *m = NULL;
    struct kd_json *metrics = NULL;
    char *parents = NULL;
    double start;
    int rc = KD_OK;

    KD_GO(kd_eval_corpus_open(run, &o->corpus, o->split, o->n_obs, &c));
    KD_GO(kd_model_load(run, o->model, &m));
    KD_ALL_GO(run->comm, kd_model_fits_corpus(m, c.corpus, o->corpus.v[0]));
    KD_ALL_GO(run->comm, kd_eval_parents(&c, &o->corpus, o->model, &parents));
    start = kd_now_s();
    KD_GO(kd_score_corpus(run, m, c.corpus, c.n, o->eval_batch_size, "score", &scores));
    KD_ALL_GO(run->comm, metrics_of(&scores, kd_now_s() - start, &metrics));
    KD_GO(write_examples(run, &c, parents, &scores));
    KD_GO(kd_metrics_write(run, metrics));
out:
    kd_json_free(metrics);
    free(parents);
    kd_scores_free(&scores);
    kd_model_free(m);
    kd_corpus_close(c.corpus);
    return rc;
}

const struct kd_mode kd_mode_score = {
    .name = "score",
    .summary = "loss, perplexity and token accuracy of a corpus under a model",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .config_bytes = sizeof(struct score_config),
    .outputs = outputs,
    .needs_output_dir = true,
    .computes = true,
    .run = run_score,
};
