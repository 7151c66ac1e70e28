/* SPDX-License-Identifier: Apache-2.0 */
/* From corpus rows to a ragged batch in the backend's memory. */
#ifndef KDHPC_MODE_BATCH_H
#define KDHPC_MODE_BATCH_H

#include "kdhpc/model/model.h"
#include "kdhpc/store/corpus.h"

/** Host buffers that a batch is built in; reused from step to step.  Zero-initialise.
 */
struct kd_batch_buffer {
    int64_t *src_offsets, *tgt_offsets; /* [n + 1] */
    int32_t *ids; /* src ids, src positions, decoder ids, labels, target positions */
    uint64_t *keys;
    float *mask;
    int64_t cap_src_offsets, cap_tgt_offsets, cap_ids, cap_keys, cap_mask;
};

/** Deviations from the plain batch, for --compat; NULL: none. */
struct kd_batch_rules {
    bool start_last; /* decoder starts as in training before transformers 4.2: with the
                        last label in the families that did so */
    /* Decoder inputs reach one past the last label in sequences shorter than this, as
     * they do where the reference pads to the longest target: the extra row has no
     * label, and kd_mask is decoder input != pad.  0: no extra row, no mask. */
    int64_t extra_below;
};

/** Build the batch of examples INDEX[n] of CORPUS for ARCH: decoder inputs by the start
 * rule, labels as stored, dropout keys from example indices and positions.  Device
 * arrays live in ARENA; offsets stay in BUFFER until the next build.  Local. */
int kd_batch_build(struct kd_batch_buffer *buffer, struct kd_backend *be,
                   struct kd_arena *arena, const struct kd_arch *arch,
                   const struct kd_batch_rules *rules, const struct kd_corpus *corpus,
                   const int64_t *index, int64_t n, struct kd_batch *out) KD_MUST_CHECK;
void kd_batch_buffer_free(struct kd_batch_buffer *buffer);

/** Rows of EXAMPLE's target that distillation sees in a batch of these rules: those of
 * kd_mask, else all.  Local. */
int64_t kd_batch_kd_rows(const struct kd_arch *arch, const struct kd_batch_rules *rules,
                         const struct kd_corpus *corpus, int64_t example);

#endif
