/* SPDX-License-Identifier: Apache-2.0 */
/* A training run in progress, as the loop (training.c) and its checkpoints
 * (training_checkpoint.c) share it. */
#ifndef KDHPC_SRC_MODE_TRAINING_SESSION_H
#define KDHPC_SRC_MODE_TRAINING_SESSION_H

#include "training.h"

#include "kdhpc/mode/batch.h"
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
    /* speed since the last line of the log */
    double busy_s;
    int64_t busy_tokens;
};

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
