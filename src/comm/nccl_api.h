/* SPDX-License-Identifier: Apache-2.0 */
/* NCCL as a table of functions, loaded when a plane is chosen.
 *
 * The program neither contains nor needs the library: it starts wherever the C library
 * does, and ranks that exchange nothing between GPUs never load it. */
#ifndef KDHPC_SRC_COMM_NCCL_API_H
#define KDHPC_SRC_COMM_NCCL_API_H

#include <nccl.h>
#include <stddef.h>

struct kd_nccl_api {
    __typeof__(ncclGetVersion) *version;
    __typeof__(ncclGetUniqueId) *unique_id;
    __typeof__(ncclGetErrorString) *error_text;
    __typeof__(ncclGetLastError) *last_error;
    __typeof__(ncclCommInitRankConfig) *init;
    __typeof__(ncclCommFinalize) *finalize;
    __typeof__(ncclCommDestroy) *destroy;
    __typeof__(ncclCommAbort) *abort;
    __typeof__(ncclCommGetAsyncError) *async_error;
    __typeof__(ncclGroupStart) *group_start;
    __typeof__(ncclGroupEnd) *group_end;
    __typeof__(ncclAllReduce) *all_reduce;
    __typeof__(ncclReduceScatter) *reduce_scatter;
    __typeof__(ncclReduce) *reduce;
    __typeof__(ncclAllGather) *all_gather;
    __typeof__(ncclBroadcast) *broadcast;
};

/** The table, or NULL and why in *MISSING.  Loads once.  Local. */
const struct kd_nccl_api *kd_nccl_load(const char **missing);

#endif
