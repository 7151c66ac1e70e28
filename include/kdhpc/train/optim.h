/* SPDX-License-Identifier: Apache-2.0 */
/* Optimisers over the parameter slab: AdamW in torch's order, transformers 4.1's order
 * under --compat, and Adafactor; learning-rate schedules.
 *
 * AdamW may be sharded over the ranks: each updates the slab ranges that it owns and
 * holds the moments of no others.  Who owns what is gradsync's plan.  Checkpoints do
 * not show it: state arrays are read and written by their places in the slab. */
#ifndef KDHPC_TRAIN_OPTIM_H
#define KDHPC_TRAIN_OPTIM_H

#include "kdhpc/comm/comm.h"
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
    enum kd_dtype moments; /* of AdamW: KD_F32 or KD_BF16 (tensor/rounding.h) */
    uint64_t seed;         /* of the rounding of moments */
};

struct kd_optim;

/** OWNED[n_owned]: ascending slab ranges that this rank updates, NULL: all.  Not NULL
 * is for AdamW only, and then the other ranks own the rest, and whoever calls
 * kd_optim_step makes the values whole and refreshes the rounded ones.  Local. */
int kd_optim_new(struct kd_params *params, const struct kd_optim_options *o,
                 const struct kd_part *owned, int64_t n_owned,
                 struct kd_optim **out) KD_MUST_CHECK;
void kd_optim_free(struct kd_optim *opt);

/** One update at rate LR with gradients times GRAD_SCALE; STEP from 1.  Local. */
int kd_optim_step(struct kd_optim *opt, double lr, double grad_scale,
                  int64_t step) KD_MUST_CHECK;

/** Bytes of backend memory that the state takes on this rank.  Local. */
int64_t kd_optim_bytes(const struct kd_optim *opt);

/* ---- the state, for checkpoints: flat float32 arrays ---- */

/** Name of the K-th array and its number of values over all ranks, or NULL at the end.
 * For AdamW a value has its parameter's place in the slab.  Local. */
const char *kd_optim_state(const struct kd_optim *opt, int k, int64_t *n);

/** Copy values [FIRST, FIRST + N) of array K, wherever they are, to host memory OUT;
 * places without state are 0.  Every rank asks for what it wants, perhaps for nothing.
 * Collective. */
int kd_optim_get_state(struct kd_optim *opt, struct kd_comm *comm, int k, int64_t first,
                       int64_t n, float *out) KD_MUST_CHECK;

/** Take those of values [FIRST, FIRST + N) of array K, in host memory IN, that this
 * rank holds.  Local; waits. */
int kd_optim_put_state(struct kd_optim *opt, int k, int64_t first, int64_t n,
                       const float *in) KD_MUST_CHECK;

#endif
