/* SPDX-License-Identifier: Apache-2.0 */
/* Sum of the gradients over the ranks, in buckets that start while backward goes on.
 *
 * A bucket is a range of the gradient slab without frozen parameters.  Buckets are
 * numbered from the slab's end, which is about the order in which backward completes
 * them, and always start in that order on every rank.  On plane "self" nothing happens.
 *
 * Sharded, every rank gets the sums of its part of each bucket only (kd_comm_part), for
 * an optimiser that updates these values and no others; then kd_gradsync_gather brings
 * the new values to all.  That is as much traffic as whole sums. */
#ifndef KDHPC_TRAIN_GRADSYNC_H
#define KDHPC_TRAIN_GRADSYNC_H

#include "kdhpc/comm/comm.h"
#include "kdhpc/model/param.h"

struct kd_gradsync;

enum { KD_BUCKET_BYTES = 8 << 20 }; /* enough for bandwidth, small enough to overlap */

/** Plan buckets of about BUCKET_BYTES over the trainable parameters of PARAMS, which
 * has gradients.  SHARDED has a meaning with more than one rank.  Collective.  COMM and
 * PARAMS are borrowed. */
int kd_gradsync_new(struct kd_comm *comm, const struct kd_params *params,
                    int64_t bucket_bytes, bool sharded,
                    struct kd_gradsync **out) KD_MUST_CHECK;
void kd_gradsync_free(struct kd_gradsync *s);

/** The same for one who only asks what this rank would own.  Local. */
int kd_gradsync_plan(struct kd_comm *comm, const struct kd_params *params,
                     int64_t bucket_bytes, bool sharded,
                     struct kd_gradsync **out) KD_MUST_CHECK;

/** The slab ranges whose sums this rank gets, ascending and not empty: OWNED[*N], or
 * NULL if all ranks get all sums.  Local; borrowed from S. */
const struct kd_part *kd_gradsync_owned(const struct kd_gradsync *s, int64_t *n);

/** The gradients of slab values [OFFSET, OFFSET + COUNT) are final on this rank; call
 * it once for each range.  May start buckets, so every rank does it at the same place
 * of its program, with no other collective between the first call and the finish;
 * ranges that a rank leaves out are taken up by the finish.  Collective. */
int kd_gradsync_ready(struct kd_gradsync *s, int64_t offset,
                      int64_t count) KD_MUST_CHECK;

/** Start what has not started, finish all, and make ready for the next update.
 * Collective.  What the backend does from now on sees the sums; on plane nccl they, and
 * what kd_gradsync_gather brings, are to be voted on and waited for as comm.h says. */
int kd_gradsync_finish(struct kd_gradsync *s) KD_MUST_CHECK;

/** Copy the owned ranges of SLAB, a float32 slab of the gradients' layout, from their
 * owners to all; nothing unless sharded.  Collective. */
int kd_gradsync_gather(struct kd_gradsync *s, float *slab) KD_MUST_CHECK;

#endif
