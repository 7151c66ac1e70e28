/* SPDX-License-Identifier: Apache-2.0 */
/* What comm needs of a GPU's own libraries: nccl.c, or nccl_none.c in builds without
 * CUDA. */
#ifndef KDHPC_SRC_COMM_NCCL_PLANE_H
#define KDHPC_SRC_COMM_NCCL_PLANE_H

#include "comm_impl.h"

enum { KD_GPU_ADDRESS = 32 };

/** Why NCCL cannot be used on this machine, or NULL if it can.  Local. */
const char *kd_nccl_missing(void);

/** The bus address of this process's GPU: equal for two ranks of a node iff they share
 * it.  Local. */
int kd_gpu_address(char address[KD_GPU_ADDRESS]) KD_MUST_CHECK;

/** Host memory that the GPU copies from and to directly (plain memory without CUDA).
 * Local. */
int kd_pinned_alloc(size_t bytes, void **out) KD_MUST_CHECK;
void kd_pinned_free(void *p);

/** Connect the GPUs of all ranks: sets comm->nccl.  Collective. */
int kd_nccl_open(struct kd_comm *comm, struct kd_backend *be) KD_MUST_CHECK;

/** After a failed vote: give transfers under way a moment, and abort them on all ranks
 * if they hang on any.  Collective. */
void kd_nccl_settle(struct kd_comm *comm);

/** Free comm->nccl, if any; abort what is under way and does not end.  Local. */
void kd_nccl_close(struct kd_comm *comm);

extern const struct kd_plane kd_plane_nccl;

#endif
