/* SPDX-License-Identifier: Apache-2.0 */
/* Step arena: bump allocation in a backend's memory, reset each step, and beside it a
 * host part of the same lifetimes for the small structures (vars, closures) that
 * describe what lies in backend memory.
 *
 * Memory comes in blocks that stay allocated, so after the first few steps nothing is
 * allocated any more; at a reset several blocks are replaced by one of the size that
 * was needed.  mark/release frees what a teacher or a recomputed segment used. */
#ifndef KDHPC_TENSOR_ARENA_H
#define KDHPC_TENSOR_ARENA_H

#include "kdhpc/tensor/backend.h"

struct kd_arena;

struct kd_arena_mark {
    int block, host_block;
    size_t used, host_used;
};

int kd_arena_new(struct kd_backend *be, struct kd_arena **out) KD_MUST_CHECK;
void kd_arena_free(struct kd_arena *a);

/** Make A's first block of backend memory hold BYTES, which a plan says it will need:
 * then it never grows on the way there.  Local; before the first allocation. */
void kd_arena_reserve(struct kd_arena *a, size_t bytes);

/** BYTES of backend memory, 64-byte aligned, valid until reset or release.  Local.
 * KD_ENOMEM. */
int kd_arena_alloc(struct kd_arena *a, size_t bytes, void **out) KD_MUST_CHECK;

/** BYTES of host memory with the same lifetime, zeroed, 64-byte aligned.  Local.
 * KD_ENOMEM. */
int kd_arena_host(struct kd_arena *a, size_t bytes, void *out) KD_MUST_CHECK;

/** A tensor in the arena (not zeroed).  Local. */
int kd_arena_tensor(struct kd_arena *a, enum kd_dtype dtype, int64_t rows, int64_t cols,
                    struct kd_tensor *out) KD_MUST_CHECK;

struct kd_arena_mark kd_arena_mark(const struct kd_arena *a);
void kd_arena_release(struct kd_arena *a, struct kd_arena_mark mark);
void kd_arena_reset(struct kd_arena *a);
size_t kd_arena_peak_bytes(const struct kd_arena *a); /* of backend memory */

#endif
