/* SPDX-License-Identifier: Apache-2.0 */
/* From corpus rows to a ragged batch in the backend's memory. */
#ifndef KDHPC_MODE_BATCH_H
#define KDHPC_MODE_BATCH_H

#include "kdhpc/model/model.h"
#include "kdhpc/store/corpus.h"

/** Host buffers that a batch is built in; reused from step to step.  Zero-initialise.
 */
struct kd_batch_buffer {
    int64_t *src_offsets, *tgt_offsets;
    int32_t *ids; /* src, dec, labels, positions, packed */
    uint64_t *keys;
    int64_t cap_seqs, cap_rows;
};

/** Build the batch of examples INDEX[n] of CORPUS for ARCH: decoder inputs by the start
 * rule (START_LAST overrides it with the last label, as the reference did), labels as
 * stored, dropout keys from example ids and positions.  Device arrays live in ARENA.
 * Local. */
int kd_batch_build(struct kd_batch_buffer *buffer, struct kd_backend *be,
                   struct kd_arena *arena, const struct kd_arch *arch, bool start_last,
                   const struct kd_corpus *corpus, const int64_t *index, int64_t n,
                   struct kd_batch *out) KD_MUST_CHECK;
void kd_batch_buffer_free(struct kd_batch_buffer *buffer);

#endif
