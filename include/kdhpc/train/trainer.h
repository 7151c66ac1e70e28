/* SPDX-License-Identifier: Apache-2.0 */
/* One update: gradients of micro-batches, their sum over the ranks, clipping, the
 * optimiser.  What a micro-batch computes is the caller's (distill/objective.h).
 *
 * An update never returns early on one rank: a local failure and a stop signal ride on
 * reductions of scalars, so all ranks leave by the same door. */
#ifndef KDHPC_TRAIN_TRAINER_H
#define KDHPC_TRAIN_TRAINER_H

#include "kdhpc/comm/comm.h"
#include "kdhpc/train/gradsync.h"
#include "kdhpc/train/optim.h"

enum { KD_MAX_TERMS = 8 };

struct kd_trainer_options {
    double learning_rate, warmup_steps, total_steps,
        max_grad_norm; /* norm 0: no clipping */
    enum kd_schedule schedule;
    int64_t max_skipped_steps; /* updates in a row with non-finite loss or gradient */
    bool zero;            /* AdamW and its moments sharded over the ranks (ZeRO-1) */
    int64_t bucket_bytes; /* of a gradient bucket; 0: the default */
    struct kd_optim_options optim;
};

struct kd_trainer;

/** PARAMS get gradients.  Collective.  PARAMS and COMM are borrowed. */
int kd_trainer_new(struct kd_comm *comm, struct kd_params *params,
                   const struct kd_trainer_options *o,
                   struct kd_trainer **out) KD_MUST_CHECK;
void kd_trainer_free(struct kd_trainer *t);

/** Forward and backward of micro-batch MICRO's local share: gradients into the slab,
 * local sums added to TERMS.  READY is to be passed to kd_tape_backward in the last
 * micro-batch of the update (it is NULL before).  Called for every micro-batch, also
 * after one that failed, since it may exchange what other ranks wait for. */
typedef int (*kd_micro_fn)(void *arg, int64_t micro, kd_param_ready_fn ready,
                           void *ready_arg, double terms[KD_MAX_TERMS]);

/** What an update did. */
struct kd_update {
    double terms[KD_MAX_TERMS]; /* global sums */
    double lr, grad_norm;       /* rate applied; norm before clipping */
    bool skipped;               /* not finite: nothing was changed */
    bool stop;                  /* some rank was asked to stop */
};

/** Run update STEP (from 1) of N_MICRO micro-batches.  Collective.  Fails alike on
 * every rank with the first local failure, or KD_ENUMERIC after too many skips. */
int kd_trainer_update(struct kd_trainer *t, int64_t step, int64_t n_micro,
                      kd_micro_fn micro, void *arg,
                      struct kd_update *out) KD_MUST_CHECK;

struct kd_optim *kd_trainer_optim(struct kd_trainer *t);
int64_t kd_trainer_skipped(const struct kd_trainer *t); /* updates skipped in all */
void kd_trainer_set_skipped(struct kd_trainer *t, int64_t n); /* of a resumed run */

#endif
