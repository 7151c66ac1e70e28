/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the optimiser share. */
#ifndef KDHPC_SRC_TRAIN_OPTIM_IMPL_H
#define KDHPC_SRC_TRAIN_OPTIM_IMPL_H

#include "kdhpc/train/optim.h"

/* Values that this rank updates in one call, and where their state is. */
struct kd_optim_range {
    int64_t offset, count; /* in the slab, or in Adafactor's state */
    int64_t at;            /* in the state arrays that this rank holds */
    bool decays;
};

struct kd_optim_factors {
    int64_t row, col; /* offsets in the state */
    int param;
};

struct kd_optim {
    struct kd_params *params;
    struct kd_optim_options o;
    int64_t n_ranges, cap_ranges;
    struct kd_optim_range *ranges; /* ascending; one for all of Adafactor's state */
    int n_factors;
    struct kd_optim_factors *factors;
    bool shared;     /* other ranks hold the rest of the state */
    int64_t n_whole; /* values of each state array over all ranks: in checkpoints */
    int64_t n_state; /* of them held here, with some padding */
    void *m, *v;     /* [n_state] of o.moments, backend memory; Adafactor: v alone */
};

/** The values of range R in the slab from FIRST on and before END: *BEGIN and their
 * number, <= 0: none.  Local. */
static inline int64_t kd_optim_overlap(const struct kd_optim_range *r, int64_t first,
                                       int64_t end, int64_t *begin)
{
    int64_t stop = r->offset + r->count < end ? r->offset + r->count : end;

    *begin = r->offset > first ? r->offset : first;
    return stop - *begin;
}

#endif
