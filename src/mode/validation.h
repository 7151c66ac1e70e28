/* SPDX-License-Identifier: Apache-2.0 */
/* Validation during training: the loss and, unless the loss chooses the model, ROUGE of
 * generated outputs, by the same code as the score and eval modes; BLEU if it chooses.
 */
#ifndef KDHPC_MODE_VALIDATION_H
#define KDHPC_MODE_VALIDATION_H

#include "training.h"

struct kd_validation;

/** Prepare the first N_MAX (-1: all) examples of SPLIT, taken from those corpora that
 * have it; *OUT is NULL if none has, or N_MAX is 0.  Collective. */
int kd_validation_open(struct kd_run *run, const struct kd_training_options *o,
                       const struct kd_training_setup *setup, const char *split,
                       int64_t n_max, struct kd_validation **out) KD_MUST_CHECK;

/** Evaluate M: *LINE is a metrics line with PREFIX_loss, PREFIX_rouge1, ... (the caller
 * frees it), *METRIC what chooses the best model.  Collective. */
int kd_validation_run(struct kd_validation *v, struct kd_run *run, struct kd_model *m,
                      const char *prefix, int64_t step, struct kd_json **line,
                      double *metric) KD_MUST_CHECK;

/** Run what needs most memory of an evaluation in batches of BATCH_SIZE; RUN computes
 * on a planning backend, and M is on it.  Local. */
int kd_validation_rehearse(struct kd_validation *v, struct kd_run *run,
                           struct kd_model *m, int64_t batch_size) KD_MUST_CHECK;

/** What V (may be NULL) has outputs begin with, in place of what the model's files say.
 * Local. */
void kd_validation_set_start(struct kd_validation *v, int32_t id);

void kd_validation_close(struct kd_validation *v);

#endif
