/* SPDX-License-Identifier: Apache-2.0 */
/* Sum of the gradients over the ranks, in buckets that start while backward goes on.
 *
 * A bucket is a range of the gradient slab without frozen parameters.  Buckets are
 * numbered from the slab's end, which is about the order in which backward completes
 * them, and always start in that order on every rank.  With one rank nothing happens.
 */
#ifndef KDHPC_TRAIN_GRADSYNC_H
#define KDHPC_TRAIN_GRADSYNC_H

#include "kdhpc/comm/comm.h"
#include "kdhpc/model/param.h"

struct kd_gradsync;

/** Plan buckets of about BUCKET_BYTES over the trainable parameters of PARAMS, which
 * has gradients.  Collective.  COMM and PARAMS are borrowed. */
int kd_gradsync_new(struct kd_comm *comm, const struct kd_params *params,
                    int64_t bucket_bytes, struct kd_gradsync **out) KD_MUST_CHECK;
void kd_gradsync_free(struct kd_gradsync *s);

/** The gradients of slab values [OFFSET, OFFSET + COUNT) are final on this rank; call
 * it once for each range.  May start buckets, so every rank does it at the same place
 * of its program, with no other collective between the first call and the finish;
 * ranges that a rank leaves out are taken up by the finish. */
int kd_gradsync_ready(struct kd_gradsync *s, int64_t offset,
                      int64_t count) KD_MUST_CHECK;

/** Start what has not started, wait for all, and make ready for the next update.
 * Collective.  All ranks then hold the same bits. */
int kd_gradsync_finish(struct kd_gradsync *s) KD_MUST_CHECK;

#endif
