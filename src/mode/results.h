/* SPDX-License-Identifier: Apache-2.0 */
/* The files an evaluation leaves: metrics.json, generations.txt, examples.h5. */
#ifndef KDHPC_MODE_RESULTS_H
#define KDHPC_MODE_RESULTS_H

#include "kdhpc/base/json.h"
#include "kdhpc/mode/mode.h"
#include "kdhpc/store/corpus.h"
#include "kdhpc/store/h5.h"

/** The rows of examples.h5 that this rank writes: [first, first + n). */
struct kd_share {
    int64_t first, n;
};

/** The corpus of an evaluation and how much of it is used. */
struct kd_eval_corpus {
    struct kd_corpus *corpus;
    int64_t n;
};

/** Open SPLIT of FILES, its first N_OBS examples (-1: all).  Collective.  KD_EINPUT:
 * also where there is no example. */
int kd_eval_corpus_open(struct kd_run *run, const struct kd_str_list *files,
                        const char *split, int64_t n_obs,
                        struct kd_eval_corpus *out) KD_MUST_CHECK;

/** The lines of PATH, one an example of the corpus (a file for the whole split may have
 * more than the C->n that are used) in malloc'ed *OUT [C->n] of malloc'ed strings; also
 * after a failure the caller frees both.  Local.  KD_EINPUT. */
int kd_eval_read_lines(const char *path, const struct kd_eval_corpus *c,
                       char ***out) KD_MUST_CHECK;

/** Share of this rank among N rows.  Local. */
struct kd_share kd_share_of(const struct kd_run *run, int64_t n);

/** Create OUTPUT_DIR/examples.h5 with attributes, options, and `id` of the first N
 * examples; PARENTS is a JSON object.  Close it with kd_h5_commit.  Collective. */
int kd_examples_create(struct kd_run *run, const struct kd_eval_corpus *c,
                       const char *parents, struct kd_h5 **out) KD_MUST_CHECK;

/** JSON object of the digests: files of the corpus, and the model directory MODEL_DIR
 * unless NULL.  Local. */
int kd_eval_parents(const struct kd_eval_corpus *c, const struct kd_str_list *files,
                    const char *model_dir, char **out) KD_MUST_CHECK;

/** Write J as OUTPUT_DIR/metrics.json on rank 0.  Collective. */
int kd_metrics_write(struct kd_run *run, const struct kd_json *j) KD_MUST_CHECK;

/** Write LINES[n] as OUTPUT_DIR/generations.txt on rank 0.  Collective. */
int kd_generations_write(struct kd_run *run, char *const *lines,
                         int64_t n) KD_MUST_CHECK;

#endif
