/* SPDX-License-Identifier: Apache-2.0 */
/* The generation options that pseudo-label, eval and generate share, and dealing of
 * generation batches over the ranks. */
#ifndef KDHPC_MODE_GENERATION_OPTIONS_H
#define KDHPC_MODE_GENERATION_OPTIONS_H

#include "kdhpc/mode/model_io.h"

/** Unset fields keep the model's generation config. */
struct kd_generation_options {
    int64_t num_beams, max_length, min_length, max_new_tokens, min_new_tokens,
        no_repeat_ngram_size, top_k, num_return_sequences, num_beam_groups,
        encoder_no_repeat_ngram_size;
    double length_penalty, repetition_penalty, temperature, top_p, min_p, typical_p,
        epsilon_cutoff, eta_cutoff, diversity_penalty, encoder_repetition_penalty;
    int early_stopping;     /* choice false|true|never, -1 unset */
    int do_sample;          /* choice false|true, -1 unset */
    int renormalize_logits; /* the same */
    const char *task;       /* NULL: none */
    const char *tgt_lang;   /* NULL: what the model's settings begin with */
    bool quiet;             /* no word about settings that are not known */
};

/** Set every field to "unset", for callers without option rows.  Local. */
void kd_generation_options_unset(struct kd_generation_options *o);

extern const struct kd_opt_row kd_generation_rows[];

/** Whether outputs of TASK (NULL: none) are translations, which BLEU measures.  Local.
 */
bool kd_task_translates(const char *task);

/** What is put before sources: GIVEN, or else what CONFIG (of a model) has in
 * task_specific_params for TASK, or nothing; both may be NULL, without a TASK CONFIG
 * too.  *OUT is borrowed from either.  Local.  KD_EUSAGE: no such task. */
int kd_task_prefix(const struct kd_json *config, const char *task, const char *given,
                   const char **out) KD_MUST_CHECK;

/** Put the settings that CONFIG's task_specific_params have for TASK (NULL: none) over
 * those in SETTINGS, which may be CONFIG.  Local.  KD_EUSAGE: no such task. */
int kd_task_apply(const struct kd_json *config, const char *task,
                  struct kd_json *settings) KD_MUST_CHECK;

/** Options over the generation config of model directory DIR over the defaults.  Local.
 * KD_EUSAGE, KD_EINPUT. */
int kd_generation_resolve(const struct kd_generation_options *o, const char *dir,
                          struct kd_model *m, uint64_t seed,
                          struct kd_generation *out) KD_MUST_CHECK;

/** Generated rows of this rank. */
struct kd_generated_set {
    int64_t n;                /* local sources */
    int64_t *index;           /* [n] their positions in the corpus or input */
    struct kd_generated rows; /* n * num_return_sequences rows, in the order of index */
};

/** Rows of source ids by index, for dealing. */
typedef const int32_t *(*kd_source_fn)(const void *arg, int64_t i, int64_t *n);

/** Generate for sources 0..n-1 (batches formed globally, longest first, dealt whole
 * over the ranks), results on the rank that made them.  IDS[i] keys the sampler.
 * Collective at the end only.  PROGRESS_LABEL may be NULL.  STOP (may be NULL) is asked
 * before each batch: KD_ESTOPPED if it says yes on some rank. */
int kd_generate_dealt(struct kd_run *run, struct kd_model *m,
                      const struct kd_generation *g, kd_source_fn source,
                      const void *arg, const int64_t *ids, int64_t n,
                      int64_t batch_size, const char *progress_label,
                      bool (*stop)(void), struct kd_generated_set *out) KD_MUST_CHECK;

/** Generate for the batch that needs most memory, the longest sources', for a few
 * steps; RUN computes on a planning backend, and M is on it.  Local. */
int kd_generate_rehearse(struct kd_run *run, struct kd_model *m,
                         const struct kd_generation *g, kd_source_fn source,
                         const void *arg, int64_t n, int64_t batch_size) KD_MUST_CHECK;

/** Collect the sets on every rank into rows in index order, all N sources.  Collective.
 */
int kd_generated_gather(struct kd_run *run, const struct kd_generated_set *local,
                        int64_t n_sources, int64_t num_return_sequences,
                        struct kd_generated *out) KD_MUST_CHECK;
void kd_generated_set_free(struct kd_generated_set *s);

/** Output text of every row as lines: decoded by TOKENIZER, newlines as spaces; *OUT
 * has N strings (malloc'ed). */
int kd_decode_lines(const struct kd_tokenizer *t, const struct kd_generated *rows,
                    char ***out) KD_MUST_CHECK;

/* ---- evaluation, shared by eval and by validation during training ---- */

/** Mean ROUGE F1 x 100 with bootstrap bounds. */
struct kd_rouge_summary {
    double r1, r2, rl, rlsum;
    double r1_low, r1_high, r2_low, r2_high, rl_low, rl_high, rlsum_low, rlsum_high;
};

/** ROUGE rows (F1 in 0..1, [n][4]: 1, 2, L, Lsum) of OUTPUTS against the target texts
 * of CORPUS, each rank scoring its share; every rank gets all rows.  Collective. */
int kd_rouge_rows(struct kd_run *run, char *const *outputs,
                  const struct kd_corpus *corpus, int64_t n,
                  double *rows) KD_MUST_CHECK;

/** Summary of rows in order; bounds from RESAMPLES bootstrap means drawn from SEED
 * (RESAMPLES 0: the bounds are the means).  Local. */
int kd_rouge_summarise(const double *rows, int64_t n, int64_t resamples, uint64_t seed,
                       struct kd_rouge_summary *out) KD_MUST_CHECK;

/** Teacher-forced scores of examples. */
struct kd_scores {
    int64_t n;
    double *nll;        /* [n] nats, sum over labels */
    int64_t *n_labels;  /* [n] */
    int64_t *n_correct; /* [n] */
};

/** Score examples 0..n-1 of CORPUS, batches formed globally and dealt whole; every rank
 * gets all rows (free with kd_scores_free).  PROGRESS_LABEL may be NULL.  Collective.
 */
int kd_score_corpus(struct kd_run *run, struct kd_model *m,
                    const struct kd_corpus *corpus, int64_t n, int64_t batch_size,
                    const char *progress_label, struct kd_scores *out) KD_MUST_CHECK;
void kd_scores_free(struct kd_scores *s);

/** Score the batches of this rank that need most memory; RUN computes on a planning
 * backend, and M is on it.  Local. */
int kd_score_rehearse(struct kd_run *run, struct kd_model *m,
                      const struct kd_corpus *corpus, int64_t n,
                      int64_t batch_size) KD_MUST_CHECK;

#endif
