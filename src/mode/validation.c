/* SPDX-License-Identifier: Apache-2.0 */
/* Loss, ROUGE and BLEU of a split.  Batches are formed globally and dealt whole, so the
 * digits do not depend on the number of ranks. */
#include "validation.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/metric/metric.h"
#include "kdhpc/mode/generation_options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct kd_validation {
    const struct kd_training_options *o;
    const char *model_dir;
    struct kd_corpus *corpus;
    struct kd_tokenizer *tokenizer;
    int64_t n;
    int32_t start_id; /* what outputs begin with; -1: as the model's files say */
};

/* The corpora with SPLIT into FILES (room for all).  Pseudo-labels have no validation
 * split; beside a corpus that has one they are still validated on that.  Collective. */
static int find_split(struct kd_comm *comm, const struct kd_str_list *corpora,
                      const char *split, char **files, int64_t *n)
{
    *n = 0;
    for (int64_t i = 0; i < corpora->n; i++) {
        bool has;

        KD_TRY(kd_corpus_has_split(comm, &corpora->v[i], 1, split, &has));
        if (has)
            files[(*n)++] = corpora->v[i];
    }
    if (*n > 0 && *n < corpora->n)
        kd_info("split %s comes from %lld of the %lld corpora", split, (long long)*n,
                (long long)corpora->n);
    return KD_OK;
}

int kd_validation_open(struct kd_run *run, const struct kd_training_options *o,
                       const struct kd_training_setup *setup, const char *split,
                       int64_t n_max, struct kd_validation **out)
{
    struct kd_validation *v = NULL;
    char **files = NULL;
    int64_t n_files;
    int rc = KD_OK;

    *out = NULL;
    KD_ALL_GO(run->comm, kd_calloc(o->corpus.n, sizeof *files, &files));
    KD_GO(find_split(run->comm, &o->corpus, split, files, &n_files));
    if (n_files == 0 || n_max == 0)
        goto out;
    KD_ALL_GO(run->comm, kd_calloc(1, sizeof *v, &v));
    v->o = o;
    v->start_id = -1;
    v->model_dir = setup->model_dir;
    KD_GO(kd_corpus_open(run->comm, files, n_files, split, &v->corpus));
    KD_ALL_GO(run->comm, kd_model_fits_corpus(setup->student, v->corpus, files[0]));
    v->n = kd_corpus_size(v->corpus);
    if (n_max > 0 && n_max < v->n)
        v->n = n_max;
    if (o->val_metric != KD_VAL_LOSS)
        KD_ALL_GO(run->comm,
                  kd_tokenizer_load(o->tokenizer ? o->tokenizer : setup->model_dir,
                                    &v->tokenizer));
    if (v->n > 0) {
        *out = v;
        v = NULL;
    }
out:
    kd_validation_close(v);
    free(files);
    return rc;
}

void kd_validation_set_start(struct kd_validation *v, int32_t id)
{
    if (v)
        v->start_id = id;
}

void kd_validation_close(struct kd_validation *v)
{
    if (!v)
        return;
    kd_corpus_close(v->corpus);
    kd_tokenizer_free(v->tokenizer);
    free(v);
}

static const int32_t *source_of(const void *arg, int64_t i, int64_t *n)
{
    return kd_corpus_source(arg, i, n);
}

/* How validation generates. */
static int resolve(const struct kd_validation *v, const struct kd_run *run,
                   struct kd_model *m, struct kd_generation *g)
{
    struct kd_generation_options go;

    kd_generation_options_unset(&go);
    go.task = v->o->task;
    go.num_beams = v->o->eval_beams;
    go.max_length = v->o->eval_max_gen_length;
    go.num_return_sequences = 1;
    go.quiet = true;
    KD_TRY(kd_generation_resolve(&go, v->model_dir, m, (uint64_t)run->common->seed, g));
    if (v->start_id >= 0)
        g->start_id = v->start_id;
    return KD_OK;
}

int kd_validation_rehearse(struct kd_validation *v, struct kd_run *run,
                           struct kd_model *m, int64_t batch_size)
{
    struct kd_generation g = {0};
    int rc;

    KD_TRY(kd_score_rehearse(run, m, v->corpus, v->n, batch_size));
    if (v->o->val_metric == KD_VAL_LOSS)
        return KD_OK;
    KD_TRY(resolve(v, run, m, &g));
    rc = kd_generate_rehearse(run, m, &g, source_of, v->corpus, v->n, batch_size);
    kd_generation_free(&g);
    return rc;
}

/* Outputs of the model for every example, decoded, on every rank. */
static int generate(struct kd_validation *v, struct kd_run *run, struct kd_model *m,
                    struct kd_generated *all, char ***lines)
{
    struct kd_generation g = {0};
    struct kd_generated_set set = {0};
    int64_t *ids = NULL;
    int rc = KD_OK;

    KD_ALL_GO(run->comm, resolve(v, run, m, &g));
    KD_ALL_GO(run->comm, kd_calloc(v->n, sizeof *ids, &ids));
    for (int64_t i = 0; i < v->n; i++)
        ids[i] = kd_corpus_id(v->corpus, i);
    KD_GO(kd_generate_dealt(run, m, &g, source_of, v->corpus, ids, v->n,
                            v->o->eval_batch_size, NULL, NULL, &set));
    KD_GO(kd_generated_gather(run, &set, v->n, 1, all));
    KD_ALL_GO(run->comm, kd_decode_lines(v->tokenizer, all, lines));
out:
    free(ids);
    kd_generated_set_free(&set);
    kd_generation_free(&g);
    return rc;
}

/* PREFIX_NAME: VALUE into the line.  Local: the caller votes. */
static int put(struct kd_json *line, const char *prefix, const char *name, double value)
{
    char key[32];

    KD_TRY(kd_format(key, sizeof key, "%s_%s", prefix, name));
    return kd_json_set_num(line, key, value);
}

static int add_rouge(struct kd_validation *v, struct kd_run *run, char *const *lines,
                     const char *prefix, struct kd_json *line, double *rouge2)
{
    struct kd_rouge_summary sum;
    double *rows = NULL;
    int rc = KD_OK;

    KD_ALL_GO(run->comm, kd_calloc(4 * v->n, sizeof *rows, &rows));
    KD_GO(kd_rouge_rows(run, lines, v->corpus, v->n, rows));
    KD_ALL_GO(run->comm, kd_rouge_summarise(rows, v->n, 0, 0, &sum));
    *rouge2 = sum.r2;
    const struct {
        const char *name;
        double value;
    } parts[] = {{"rouge1", sum.r1},
                 {"rouge2", sum.r2},
                 {"rougeL", sum.rl},
                 {"rougeLsum", sum.rlsum}};

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        KD_ALL_GO(run->comm, put(line, prefix, parts[i].name, parts[i].value));
    kd_info("%s: rouge1 %.2f  rouge2 %.2f  rougeL %.2f", prefix, sum.r1, sum.r2,
            sum.rl);
out:
    free(rows);
    return rc;
}

/* Counts of this rank's share of the pairs. */
static int bleu_share(struct kd_validation *v, const struct kd_comm *comm,
                      char *const *lines, struct kd_bleu *sums)
{
    int64_t rank = kd_comm_rank(comm), size = kd_comm_size(comm);
    struct kd_mt_scorer *scorer = NULL;
    int rc = KD_OK;

    KD_GO(kd_mt_scorer_new(&scorer));
    for (int64_t i = v->n * rank / size; i < v->n * (rank + 1) / size; i++) {
        struct kd_text output = {lines[i], (int64_t)strlen(lines[i])}, target;

        target.data = kd_corpus_target_text(v->corpus, i, &target.len);
        KD_GO(kd_bleu_add(scorer, &KD_BLEU_DEFAULTS, output, &target, 1, sums));
    }
out:
    kd_mt_scorer_free(scorer);
    return rc;
}

static int add_bleu(struct kd_validation *v, struct kd_run *run, char *const *lines,
                    const char *prefix, struct kd_json *line, double *bleu)
{
    struct kd_bleu sums = {0};

    KD_ALL(run->comm, bleu_share(v, run->comm, lines, &sums));
    KD_TRY(kd_allreduce_f64(run->comm, (double *)&sums, sizeof sums / sizeof(double),
                            KD_SUM));
    *bleu = kd_bleu_score(&sums, &KD_BLEU_DEFAULTS);
    kd_info("%s: bleu %.2f", prefix, *bleu);
    KD_ALL(run->comm, put(line, prefix, "bleu", *bleu));
    return KD_OK;
}

/* What generated outputs are worth; *METRIC: the one that chooses. */
static int add_generated(struct kd_validation *v, struct kd_run *run,
                         struct kd_model *m, const char *prefix, struct kd_json *line,
                         double *metric)
{
    struct kd_generated all = {0};
    char **lines = NULL;
    int rc = KD_OK;

    KD_GO(generate(v, run, m, &all, &lines));
    KD_GO(add_rouge(v, run, lines, prefix, line, metric));
    if (v->o->val_metric == KD_VAL_BLEU)
        KD_GO(add_bleu(v, run, lines, prefix, line, metric));
    KD_ALL_GO(run->comm,
              put(line, prefix, "gen_len", (double)all.offsets[all.n] / (double)v->n));
out:
    for (int64_t i = 0; lines && i < v->n; i++)
        free(lines[i]);
    free(lines);
    kd_generated_free(&all);
    return rc;
}

/* Mean unsmoothed cross-entropy over all labels, in example order. */
static int mean_loss(struct kd_validation *v, struct kd_run *run, struct kd_model *m,
                     double *loss)
{
    struct kd_scores scores = {0};
    double nll = 0;
    int64_t labels = 0;

    KD_TRY(
        kd_score_corpus(run, m, v->corpus, v->n, v->o->eval_batch_size, NULL, &scores));
    for (int64_t i = 0; i < v->n; i++) {
        nll += scores.nll[i];
        labels += scores.n_labels[i];
    }
    kd_scores_free(&scores);
    *loss = labels ? nll / (double)labels : 0;
    return KD_OK;
}

int kd_validation_run(struct kd_validation *v, struct kd_run *run, struct kd_model *m,
                      const char *prefix, int64_t step, struct kd_json **line,
                      double *metric)
{
    struct kd_json *j = NULL;
    double loss, start = kd_now_s();
    int rc = KD_OK;

    KD_GO(mean_loss(v, run, m, &loss));
    j = kd_json_object();
    KD_ALL_GO(run->comm, kd_json_set_int(j, "step", step));
    KD_ALL_GO(run->comm, put(j, prefix, "loss", loss));
    kd_info("%s: step %lld  loss %.4f", prefix, (long long)step, loss);
    *metric = loss;
    if (v->o->val_metric != KD_VAL_LOSS)
        KD_GO(add_generated(v, run, m, prefix, j, metric));
    KD_ALL_GO(run->comm, put(j, prefix, "seconds", kd_now_s() - start));
    *line = j;
    return KD_OK;
out:
    kd_json_free(j);
    return rc;
}
