/* SPDX-License-Identifier: Apache-2.0 */
/* A training run in progress, as the loop (training.c) and its checkpoints
 * (training_checkpoint.c) share it. */
#ifndef KDHPC_SRC_MODE_TRAINING_SESSION_H
#define KDHPC_SRC_MODE_TRAINING_SESSION_H

#include "training.h"

#include "kdhpc/mode/batch.h"
#include "memory.h"
#include "run_dir.h"
#include "validation.h"

/* What a checkpoint's state holds. */
struct kd_training_progress {
    int64_t step;            /* updates done */
    int64_t epoch, in_epoch; /* where the next update starts */
    int64_t tokens;          /* real tokens seen */
    int64_t bad_checks;      /* validations in a row without progress */
    double best;             /* of the validation metric; NAN before the first */
    int64_t validated_step;
    double seconds; /* of the runs before this one */
};

struct kd_session {
    struct kd_run *run;
    const struct kd_training_options *o;
    const struct kd_training_setup *setup;
    struct kd_corpus *corpus;
    int32_t *src_len, *tgt_len; /* [n] */
    int64_t n;                  /* training examples */
    struct kd_objective *objective;
    struct kd_trainer *trainer;
    struct kd_tape *tape;
    struct kd_arena *arena;
    struct kd_batch_buffer buffer;
    struct kd_validation *validation; /* NULL: no validation split */
    struct kd_validation *test;       /* for --do_predict, else NULL */
    struct kd_run_dir *dir;
    char *fingerprint, *model_path;
    struct kd_json *generation; /* generation_config.json to write with the model */
    struct kd_training_progress at;
    int64_t total_steps;
    double start_s;
    struct kd_memory memory;
    size_t arena_bytes; /* of a step, as planned */
    /* speed since the last line of the log */
    double busy_s;
    int64_t busy_tokens;
};

/** Plan EPOCH; its batches are the same on every rank.  Local. */
int kd_session_plan(const struct kd_session *s, int64_t epoch,
                    struct kd_epoch_plan *plan) KD_MUST_CHECK;

/** Examples of BATCH that this rank owns, in batch order, into *OWN[N_OWN] (the caller
 * frees it).  Local. */
int kd_session_own(const struct kd_session *s, const struct kd_epoch_plan *plan,
                   int64_t batch, int64_t **own, int64_t *n_own) KD_MUST_CHECK;

/** How many of the N >= 1 examples OWN the network takes next at a time.  Local. */
int64_t kd_session_piece(const struct kd_session *s, const int64_t *own, int64_t n);

/** How examples of BATCH become rows.  Local. */
struct kd_batch_rules kd_session_rules(const struct kd_session *s,
                                       const struct kd_epoch_plan *plan, int64_t batch);

/** The objective over the N examples OWN (N may be 0) at STEP, losses divided by
 * COUNTS.  Collective if the objective reduces. */
int kd_session_run_piece(struct kd_session *s, const struct kd_batch_rules *rules,
                         const struct kd_counts *counts, int64_t step,
                         const int64_t *own, int64_t n, kd_param_ready_fn ready,
                         void *ready_arg, double terms[KD_MAX_TERMS]) KD_MUST_CHECK;

struct kd_optim_options kd_session_optim(const struct kd_session *s);

/** Estimate the memory that S needs, S->memory and S->arena_bytes: after the
 * corpus is open and before anything is allocated.  Collective.  KD_ENOMEM says which
 * option makes it fit. */
int kd_session_memory(struct kd_session *s) KD_MUST_CHECK;

/** Set S->fingerprint: what must agree for a checkpoint to continue this run bit for
 * bit.  Local. */
int kd_session_fingerprint(struct kd_session *s) KD_MUST_CHECK;

/** Write a checkpoint of the current step and remove those that are too many.
 * Collective. */
int kd_session_save(struct kd_session *s) KD_MUST_CHECK;

/** Remove checkpoints of the output directory beyond the current step: those of a run
 * that is overwritten, and those passed over by a resume, would count as newer than all
 * that this run will write.  Collective. */
int kd_session_drop_newer(struct kd_session *s) KD_MUST_CHECK;

/** Go on from the newest valid checkpoint of --resume.  Collective.  KD_EINPUT: none.
 */
int kd_session_resume(struct kd_session *s) KD_MUST_CHECK;

/** Write M as the run's model/.  Collective. */
int kd_session_save_model(struct kd_session *s, struct kd_model *m) KD_MUST_CHECK;

#endif
