/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a labelling job: rounds, and the labels.h5 that they become. */
#ifndef KDHPC_SRC_MODE_LABEL_ROUNDS_H
#define KDHPC_SRC_MODE_LABEL_ROUNDS_H

#include "labels.h"

#include "kdhpc/mode/mode.h"

/** What all files of one job agree on. */
struct kd_label_files {
    struct kd_run *run;
    const char *split;
    const char *tokenizer_digest; /* borrowed */
    char *parents;                /* JSON object: digests and the request; owned */
    struct kd_str options;        /* the resolved options */
    int64_t n, per_source;        /* sources; labels of each */
    int64_t round_size, n_rounds;
    int64_t vocab_size;
};

/** Write ROWS of every rank as PATH.  Collective.  KD_EOUTPUT. */
int kd_label_write(const struct kd_label_files *f, const char *path,
                   const struct kd_label_rows *rows) KD_MUST_CHECK;

/** The share [FIRST, LAST) of N rows that this rank writes.  Local. */
void kd_label_share(const struct kd_run *run, int64_t n, int64_t *first, int64_t *last);

/** Put the source side of example I of CORPUS into the open row of R.  Local. */
int kd_label_put_source(struct kd_label_rows *r, const struct kd_corpus *corpus,
                        int64_t i) KD_MUST_CHECK;

int64_t kd_label_round_sources(const struct kd_label_files *f, int64_t round);

/** Path of a round (malloc'ed).  Local. */
int kd_label_round_path(const struct kd_label_files *f, int64_t round,
                        char **out) KD_MUST_CHECK;

/** *FIRST = the round after the whole ones that lie there, all of this job.
 * Collective.  KD_EINPUT: a round is of another job. */
int kd_label_rounds_resume(const struct kd_label_files *f,
                           int64_t *first) KD_MUST_CHECK;

/** Remove the rounds that lie there, whichever job wrote them.  Collective. */
int kd_label_rounds_remove(const struct kd_label_files *f) KD_MUST_CHECK;

/** Merge all rounds into PATH.  Collective. */
int kd_label_rounds_merge(const struct kd_label_files *f,
                          const char *path) KD_MUST_CHECK;

/** Check that PATH is of this job and has N_ROWS rows.  Collective.  KD_EINPUT. */
int kd_label_check(const struct kd_label_files *f, char *path,
                   int64_t n_rows) KD_MUST_CHECK;

#endif
