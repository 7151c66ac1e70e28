/* SPDX-License-Identifier: Apache-2.0 */
/* Batches: which examples make update u, formed globally and the same for every number
 * of ranks, then split over the ranks by tokens.
 *
 * A plan is a pure function of (lengths, options, seed, epoch), so a resumed run
 * continues exactly where it stopped. */
#ifndef KDHPC_TRAIN_LOADER_H
#define KDHPC_TRAIN_LOADER_H

#include "kdhpc/base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct kd_loader_options {
    int64_t batch_size;           /* examples */
    int64_t max_tokens_per_batch; /* real tokens, source + target; > 0 replaces
                                     batch_size */
    bool shuffle, sortish;
    uint64_t seed;
};

/** Batches of one epoch: batch b is examples order[starts[b] .. starts[b + 1]). */
struct kd_epoch_plan {
    int64_t n_batches;
    int64_t *starts; /* [n_batches + 1] */
    int64_t *order;  /* [n_examples] */
};

/** Plan EPOCH over N examples with SRC_LEN[n] and TGT_LEN[n] tokens.  Local. KD_EINPUT:
 * an example longer than max_tokens_per_batch. */
int kd_plan_epoch(const struct kd_loader_options *o, const int32_t *src_len,
                  const int32_t *tgt_len, int64_t n, int64_t epoch,
                  struct kd_epoch_plan *out) KD_MUST_CHECK;
void kd_plan_free(struct kd_epoch_plan *p);

/** Deal items of COST[n] over N_PARTS: the costliest first (ties by index), each to the
 * part with the least so far (ties by part); OWNER[n] gets the part of each item.
 * Local.  KD_ENOMEM. */
int kd_deal_by_cost(const int64_t *cost, int64_t n, int n_parts,
                    int *owner) KD_MUST_CHECK;

/** Batches for scoring and generation: all examples, longest source first (ties by
 * index), BATCH_SIZE at a time.  Local. */
int kd_plan_longest_first(const int32_t *src_len, int64_t n, int64_t batch_size,
                          struct kd_epoch_plan *out) KD_MUST_CHECK;

#endif
