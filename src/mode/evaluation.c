/* SPDX-License-Identifier: Apache-2.0 */
/* Evaluation: ROUGE of outputs, and teacher-forced scores of examples.
 *
 * Rows are computed where it is convenient and put together by example, every row by
 * exactly one rank: a sum over the ranks with zeros elsewhere is then exact, and all
 * later reductions run in example order, so that digits do not depend on the number of
 * ranks.  Scoring deals whole batches, formed globally, because products of other
 * heights differ in the last bit.  Callers: the modes eval and score, and validation
 * during training. */
#include "kdhpc/mode/generation_options.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/comm/watchdog.h"
#include "kdhpc/metric/metric.h"
#include "kdhpc/mode/batch.h"
#include "kdhpc/train/loader.h"

#include <stdlib.h>
#include <string.h>

/* ---- ROUGE ---- */

enum { N_ROUGE = 4 };

/* This rank's contiguous share of the rows, the others left zero. */
static int rouge_share(struct kd_comm *comm, char *const *outputs,
                       const struct kd_corpus *corpus, int64_t n, double *rows)
{
    int64_t rank = kd_comm_rank(comm), size = kd_comm_size(comm);
    struct kd_rouge_scorer *scorer = NULL;
    int rc = KD_OK;

    KD_GO(kd_rouge_scorer_new(&scorer));
    for (int64_t i = n * rank / size; i < n * (rank + 1) / size; i++) {
        struct kd_rouge r;
        int64_t len;
        const char *target = kd_corpus_target_text(corpus, i, &len);

        KD_GO(kd_rouge_score(scorer, target, len, outputs[i],
                             (int64_t)strlen(outputs[i]), &r));
        rows[i * N_ROUGE] = r.r1.f1;
        rows[i * N_ROUGE + 1] = r.r2.f1;
        rows[i * N_ROUGE + 2] = r.rl.f1;
        rows[i * N_ROUGE + 3] = r.rlsum.f1;
        if (i % 1024 == 0)
            kd_heartbeat();
    }
out:
    kd_rouge_scorer_free(scorer);
    return rc;
}

int kd_rouge_rows(struct kd_run *run, char *const *outputs,
                  const struct kd_corpus *corpus, int64_t n, double *rows)
{
    memset(rows, 0, (size_t)(n * N_ROUGE) * sizeof *rows);
    KD_ALL(run->comm, rouge_share(run->comm, outputs, corpus, n, rows));
    return kd_allreduce_f64(run->comm, rows, n * N_ROUGE, KD_SUM);
}

int kd_rouge_summarise(const double *rows, int64_t n, int64_t resamples, uint64_t seed,
                       struct kd_rouge_summary *out)
{
    double *const means[N_ROUGE] = {&out->r1, &out->r2, &out->rl, &out->rlsum};
    double *const lows[N_ROUGE] = {&out->r1_low, &out->r2_low, &out->rl_low,
                                   &out->rlsum_low};
    double *const highs[N_ROUGE] = {&out->r1_high, &out->r2_high, &out->rl_high,
                                    &out->rlsum_high};
    double *column = NULL;
    int rc = KD_OK;

    KD_GO(kd_calloc(n, sizeof *column, &column));
    for (int k = 0; k < N_ROUGE; k++) {
        for (int64_t i = 0; i < n; i++)
            column[i] = 100 * rows[i * N_ROUGE + k];
        KD_GO(kd_bootstrap(column, n, resamples, seed, means[k], lows[k], highs[k]));
        kd_heartbeat();
    }
out:
    free(column);
    return rc;
}

/* ---- teacher-forced scores ---- */

/* What scoring needs from batch to batch; ROWS [n, 2]: nll, correct. */
struct scoring {
    struct kd_run *run;
    struct kd_model *m;
    const struct kd_corpus *corpus;
    struct kd_epoch_plan plan;
    int *owner; /* [n_batches] */
    int64_t n_own;
    struct kd_arena *arena;
    struct kd_batch_buffer buffer;
    double *loss_rows; /* [tgt rows, 4], see kd_op_head_loss */
    int64_t loss_rows_cap;
    double *rows;
};

/* Form the batches and deal them by their tokens; the same on every rank. */
static int plan_batches(struct scoring *s, int64_t n, int64_t batch_size)
{
    int rank = kd_comm_rank(s->run->comm);
    int32_t *src_len = NULL;
    int64_t *cost = NULL;
    int rc = KD_OK;

    KD_GO(kd_calloc(n, sizeof *src_len, &src_len));
    for (int64_t i = 0; i < n; i++) {
        int64_t len;

        kd_corpus_source(s->corpus, i, &len);
        src_len[i] = (int32_t)len;
    }
    KD_GO(kd_plan_longest_first(src_len, n, batch_size, &s->plan));
    KD_GO(kd_calloc(s->plan.n_batches, sizeof *cost, &cost));
    KD_GO(kd_calloc(s->plan.n_batches, sizeof *s->owner, &s->owner));
    for (int64_t b = 0; b < s->plan.n_batches; b++)
        for (int64_t k = s->plan.starts[b]; k < s->plan.starts[b + 1]; k++) {
            int64_t len;

            kd_corpus_target(s->corpus, s->plan.order[k], &len);
            cost[b] += src_len[s->plan.order[k]] + len;
        }
    KD_GO(
        kd_deal_by_cost(cost, s->plan.n_batches, kd_comm_size(s->run->comm), s->owner));
    for (int64_t b = 0; b < s->plan.n_batches; b++)
        s->n_own += s->owner[b] == rank;
out:
    free(src_len);
    free(cost);
    return rc;
}

/* Sum the rows of each sequence, in position order. */
static void collect(struct scoring *s, const struct kd_batch *b, const int64_t *index)
{
    for (int64_t i = 0; i < b->tgt.n; i++) {
        double *row = s->rows + 2 * index[i];

        for (int64_t r = b->tgt.offsets[i]; r < b->tgt.offsets[i + 1]; r++) {
            row[0] += s->loss_rows[4 * r];
            row[1] += s->loss_rows[4 * r + 3];
        }
    }
}

static int score_batch(struct scoring *s, int64_t batch)
{
    const int64_t *index = s->plan.order + s->plan.starts[batch];
    struct kd_ctx ctx = {.be = s->run->be, .arena = s->arena, .dtype = s->run->dtype};
    struct kd_head head = kd_model_head(s->m);
    struct kd_head_loss_desc desc = {.w_ce = 1, .temperature = 1};
    struct kd_head_loss_sums sums;
    struct kd_var *enc, *dec;
    struct kd_batch b;

    kd_arena_reset(s->arena);
    KD_TRY(kd_batch_build(&s->buffer, s->run->be, s->arena, kd_model_arch(s->m), NULL,
                          s->corpus, index,
                          s->plan.starts[batch + 1] - s->plan.starts[batch], &b));
    desc.labels = b.labels;
    KD_TRY(kd_grow(&s->loss_rows, &s->loss_rows_cap, 4 * b.tgt.n_rows + 1,
                   sizeof *s->loss_rows));
    KD_TRY(kd_model_encode(&ctx, s->m, &b, &enc));
    KD_TRY(kd_model_decode(&ctx, s->m, &b, enc, &dec));
    KD_TRY(kd_op_head_loss(&ctx, &head, dec, NULL, NULL, &desc, &sums, s->loss_rows));
    collect(s, &b, index);
    return KD_OK;
}

static int score_own(struct scoring *s, const char *progress_label)
{
    int rank = kd_comm_rank(s->run->comm);
    struct kd_progress progress = kd_progress_start(progress_label, s->n_own, 0);
    int64_t done = 0;
    int rc = KD_OK;

    KD_GO(KD_FAULT("score"));
    for (int64_t b = 0; b < s->plan.n_batches; b++) {
        if (s->owner[b] != rank)
            continue;
        KD_GO(score_batch(s, b));
        kd_heartbeat();
        if (progress_label)
            kd_progress_update(&progress, ++done, "batches");
    }
out:
    if (progress_label)
        kd_progress_end(&progress);
    return rc;
}

/* Run the batches of this rank that may need most memory: the first, as scoring would,
 * and those with the most rows of either side or both. */
static int score_largest(struct scoring *s)
{
    int64_t most[3] = {0}, of[4] = {0}, rank = kd_comm_rank(s->run->comm), n = 0;

    for (int64_t b = 0; b < s->plan.n_batches; b++) {
        int64_t rows[3] = {0}, len;

        if (s->owner[b] != rank)
            continue;
        for (int64_t k = s->plan.starts[b]; k < s->plan.starts[b + 1]; k++) {
            kd_corpus_source(s->corpus, s->plan.order[k], &len);
            rows[0] += len;
            kd_corpus_target(s->corpus, s->plan.order[k], &len);
            rows[1] += len;
        }
        rows[2] = rows[0] + rows[1];
        of[0] = n++ ? of[0] : b;
        for (int i = 0; i < 3; i++) {
            of[i + 1] = n == 1 || rows[i] > most[i] ? b : of[i + 1];
            most[i] = rows[i] > most[i] ? rows[i] : most[i];
        }
    }
    for (int i = 0; n > 0 && i < 4; i++)
        KD_TRY(score_batch(s, of[i]));
    return KD_OK;
}

static void scoring_free(struct scoring *s)
{
    kd_plan_free(&s->plan);
    kd_arena_free(s->arena);
    kd_batch_buffer_free(&s->buffer);
    free(s->owner);
    free(s->loss_rows);
    free(s->rows);
}

static int scores_alloc(struct scoring *s, int64_t n, struct kd_scores *out)
{
    out->n = n;
    KD_TRY(kd_calloc(n, sizeof *out->nll, &out->nll));
    KD_TRY(kd_calloc(n, sizeof *out->n_labels, &out->n_labels));
    KD_TRY(kd_calloc(n, sizeof *out->n_correct, &out->n_correct));
    KD_TRY(kd_calloc(2 * n, sizeof *s->rows, &s->rows));
    return kd_arena_new(s->run->be, &s->arena);
}

int kd_score_corpus(struct kd_run *run, struct kd_model *m,
                    const struct kd_corpus *corpus, int64_t n, int64_t batch_size,
                    const char *progress_label, struct kd_scores *out)
{
    struct scoring s = {.run = run, .m = m, .corpus = corpus};
    int rc = KD_OK;

    *out = (struct kd_scores){0};
    KD_ALL_GO(run->comm, scores_alloc(&s, n, out));
    KD_ALL_GO(run->comm, plan_batches(&s, n, batch_size));
    KD_ALL_GO(run->comm, score_own(&s, progress_label));
    KD_GO(kd_allreduce_f64(run->comm, s.rows, 2 * n, KD_SUM));
    for (int64_t i = 0; i < n; i++) {
        kd_corpus_target(corpus, i, &out->n_labels[i]);
        out->nll[i] = s.rows[2 * i];
        out->n_correct[i] = (int64_t)s.rows[2 * i + 1];
    }
out:
    scoring_free(&s);
    if (rc)
        kd_scores_free(out);
    return rc;
}

int kd_score_rehearse(struct kd_run *run, struct kd_model *m,
                      const struct kd_corpus *corpus, int64_t n, int64_t batch_size)
{
    struct scoring s = {.run = run, .m = m, .corpus = corpus};
    int rc = KD_OK;

    KD_GO(kd_calloc(2 * n, sizeof *s.rows, &s.rows));
    KD_GO(kd_arena_new(run->be, &s.arena));
    KD_GO(plan_batches(&s, n, batch_size));
    rc = score_largest(&s);
out:
    scoring_free(&s);
    return rc;
}

void kd_scores_free(struct kd_scores *s)
{
    free(s->nll);
    free(s->n_labels);
    free(s->n_correct);
    *s = (struct kd_scores){0};
}
