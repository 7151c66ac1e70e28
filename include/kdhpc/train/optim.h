/* SPDX-License-Identifier: Apache-2.0 */
/* Optimisers over the parameter slab: AdamW in torch's order, transformers 4.1's order
 * under --compat, and Adafactor; learning-rate schedules. */
#ifndef KDHPC_TRAIN_OPTIM_H
#define KDHPC_TRAIN_OPTIM_H

#include "kdhpc/model/param.h"

enum kd_schedule {
    KD_LR_LINEAR,
    KD_LR_COSINE,
    KD_LR_COSINE_RESTARTS,
    KD_LR_POLYNOMIAL,
    KD_LR_CONSTANT
};

/** Multiplier of the peak rate at update S (from 0) with WARMUP of TOTAL updates; LR is
 * the peak (for polynomial's end). Source: transformers.optimization.  Local. */
double kd_schedule_at(enum kd_schedule kind, int64_t s, double warmup, double total,
                      double lr);

struct kd_optim_options {
    bool adafactor, compat; /* compat: HF AdamW order, norms decayed */
    double weight_decay, eps;
};

struct kd_optim;

int kd_optim_new(struct kd_params *params, const struct kd_optim_options *o,
                 struct kd_optim **out) KD_MUST_CHECK;
void kd_optim_free(struct kd_optim *opt);

/** One update at rate LR with gradients times GRAD_SCALE; STEP from 1.  Local. */
int kd_optim_step(struct kd_optim *opt, double lr, double grad_scale,
                  int64_t step) KD_MUST_CHECK;

/** The state as flat float32 arrays in backend memory, for checkpoints: the K-th, name
 * and size, or NULL at the end. */
float *kd_optim_state(struct kd_optim *opt, int k, const char **name, int64_t *n);

#endif
