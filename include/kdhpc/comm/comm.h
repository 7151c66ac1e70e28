/* SPDX-License-Identifier: Apache-2.0 */
/* The ranks of a run and what they may say to each other.
 *
 * Control plane: small host values over MPI.  Data plane: sums, parts and copies of
 * tensors.  A failure on one rank becomes a failure on all through kd_agree; the macros
 * below say which status is already agreed (KD_TRY, KD_GO) and which is a local fact
 * that must be voted on first (KD_ALL, KD_ALL_GO).  Every collective counts as a
 * heartbeat of this rank for the watchdog (comm/watchdog.h). */
#ifndef KDHPC_COMM_COMM_H
#define KDHPC_COMM_COMM_H

#include "kdhpc/base/status.h"
#include "kdhpc/tensor/backend.h"

#include <stdbool.h>
#include <stdint.h>

struct kd_comm;

/** Start MPI (alone or under a launcher) and make the world communicator.  Collective.
 *  Sets the ROMIO default for MPI-IO unless the user chose; call once, first. */
int kd_comm_start(struct kd_comm **out) KD_MUST_CHECK;

/** End MPI; frees COMM.  Collective. */
void kd_comm_stop(struct kd_comm *comm);

/** End every rank at once, after an error that cannot be agreed on.  Local.  Does not
 * return. */
_Noreturn void kd_comm_abort(struct kd_comm *comm, int code);

int kd_comm_rank(const struct kd_comm *comm);
int kd_comm_size(const struct kd_comm *comm);
int kd_comm_node_rank(const struct kd_comm *comm); /* among the ranks of this node */
int kd_comm_node_size(const struct kd_comm *comm);

/** Library version text of MPI.  Local; works before kd_comm_start. */
const char *kd_comm_library(void);

/** Vote: KD_OK iff RC is KD_OK on every rank; else the lowest failed rank's code, whose
 *  error record every rank then holds (and *FAILED_RANK of kd_comm_failed_rank).
 * Collective. */
int kd_agree(struct kd_comm *comm, int rc) KD_MUST_CHECK;

/** The rank whose failure won the last failed vote, or -1.  Local. */
int kd_comm_failed_rank(const struct kd_comm *comm);

#define KD_ALL(comm, e) KD_TRY(kd_agree((comm), (e)))
#define KD_ALL_GO(comm, e) KD_GO(kd_agree((comm), (e)))

/** Run FN(ARG) on rank 0 and agree on its status.  Collective. */
int kd_root_do(struct kd_comm *comm, int (*fn)(void *arg), void *arg) KD_MUST_CHECK;

enum kd_reduce { KD_SUM, KD_MAX, KD_MIN };

/** Reduce N values in place; every rank gets the result.  Collective.  Sums of f64 are
 * taken in rank order, so every rank holds the same bits. */
int kd_allreduce_f64(struct kd_comm *comm, double *v, int64_t n,
                     enum kd_reduce op) KD_MUST_CHECK;
int kd_allreduce_i64(struct kd_comm *comm, int64_t *v, int64_t n,
                     enum kd_reduce op) KD_MUST_CHECK;

/** *FIRST = sum of N_LOCAL over the lower ranks, *TOTAL over all.  Collective. */
int kd_exscan_i64(struct kd_comm *comm, int64_t n_local, int64_t *first,
                  int64_t *total) KD_MUST_CHECK;

/** Copy BYTES bytes (any size) from rank ROOT's BUF.  Collective. */
int kd_bcast(struct kd_comm *comm, void *buf, int64_t bytes, int root) KD_MUST_CHECK;

/** Gather each rank's BYTES_LOCAL bytes in rank order on every rank: *OUT malloc'ed
 * (caller frees), sizes into SIZES[n_ranks] if not NULL.  Collective. */
int kd_allgather_bytes(struct kd_comm *comm, const void *local, int64_t bytes_local,
                       void **out, int64_t *sizes) KD_MUST_CHECK;

int kd_barrier(struct kd_comm *comm) KD_MUST_CHECK;

/* ---- data plane ---- */

/* Tensors travel on one of three planes: "self" (one rank: nothing moves), "mpi" (host
 * memory, or device memory staged through host memory), "nccl" (from GPU to GPU on a
 * stream of its own).  Tensors of the backend that kd_comm_use_backend was told of take
 * the plane chosen there, others mpi; calls and results are the same on all.
 *
 * On nccl nothing waits on the host: a start orders the transfer behind what is on BE's
 * stream, a finish orders BE's stream behind the transfer.  So there neither can tell
 * what fails on this rank alone, and neither returns early, for the others are on their
 * way into the transfer.  Whoever uses start and finish therefore
 *   1. votes on kd_transfer_status, with whatever else it votes on, once after all its
 *      finishes, and goes on only if no rank failed, and then
 *   2. calls kd_comm_wait before anything else that waits for BE's stream (sync,
 *      download, sum_sq): failures of a GPU or of NCCL under way come up in it.
 * The other planes need neither, so the same program serves all. */

/** Choose the plane for tensors of BE, which is borrowed until kd_comm_drop_backend;
 * say on rank 0 which.  nccl if this build and this machine have it and every rank of
 * every node has a GPU of its own.  KD_PLANE in the environment (rank 0's counts)
 * overrides: mpi, or nccl, also for one rank and an error where it cannot be.
 * Collective.  KD_EUSAGE, KD_EINPUT. */
int kd_comm_use_backend(struct kd_comm *comm, struct kd_backend *be) KD_MUST_CHECK;

/** Forget the backend and free what belongs to its plane.  Call it before
 * kd_backend_free, after success and failure alike, and on every rank; transfers that
 * no kd_comm_wait has seen done are aborted if they hang.  Local. */
void kd_comm_drop_backend(struct kd_comm *comm);

/** "self", "mpi" or "nccl": the plane of the backend in use.  On self nothing need be
 * started.  Local. */
const char *kd_comm_plane(const struct kd_comm *comm);

/** One line about NCCL, e.g. "NCCL 2.28.9", "not built", "libnccl.so.2 cannot be
 * loaded".  Local; works before kd_comm_start. */
const char *kd_comm_nccl_library(void);

/** The values [first, first + count) of a tensor that one rank owns. */
struct kd_part {
    int64_t first, count;
};

/** The part of N values that RANK of SIZE owns in a sharded tensor.  Parts are
 * disjoint, in rank order, cover all, and start at multiples of 64 values; all have the
 * same count but the last, which has up to 64 * SIZE - 1 more.  Local. */
struct kd_part kd_comm_part(int64_t n, int size, int rank);

/** A transfer under way; at most one for a tensor at a time.  All ranks start and
 * finish the same transfers in the same order. */
struct kd_transfer;

/** Start summing the float32 tensor T (on BE) over the ranks, in place: after the
 * finish all ranks hold the same bits.  BE and the memory of T stay borrowed until the
 * finish.  Ranks of one node add in rank order through memory that they share
 * (KD_NODE_STAGE=0 in the environment: through MPI).  Collective. */
int kd_allreduce_start(struct kd_comm *comm, struct kd_backend *be, struct kd_tensor t,
                       struct kd_transfer **out) KD_MUST_CHECK;

/** As kd_allreduce_start, but after the finish only this rank's part of T (kd_comm_part
 * of its count) holds the sum, on plane mpi with the bits of an all-reduce; the rest of
 * T is undefined.  Collective. */
int kd_reduce_scatter_start(struct kd_comm *comm, struct kd_backend *be,
                            struct kd_tensor t, struct kd_transfer **out) KD_MUST_CHECK;

/** Start copying each rank's part of T (of any type) to all, in place.  Collective. */
int kd_allgather_start(struct kd_comm *comm, struct kd_backend *be, struct kd_tensor t,
                       struct kd_transfer **out) KD_MUST_CHECK;

/** Finish a started transfer and free it.  What BE does from now on sees its result.
 * Collective. */
int kd_transfer_finish(struct kd_comm *comm, struct kd_transfer *x) KD_MUST_CHECK;

/** The first failure on this rank, since its backend came into use, of a start or
 * finish that could not return it; KD_OK if none.  Vote on it.  Local. */
int kd_transfer_status(const struct kd_comm *comm) KD_MUST_CHECK;

/** Wait until everything on BE's stream is done, transfers that were finished included.
 * On nccl by polling: if NCCL or a GPU fails under way, or nothing has moved within the
 * watchdog's bound for collectives, it aborts NCCL and ends the job.  Every rank calls
 * it at the same place, after a vote.  What it returns is a fact of this rank.  Local.
 */
int kd_comm_wait(struct kd_comm *comm, struct kd_backend *be) KD_MUST_CHECK;

/** Start, finish, vote and wait in one.  Collective. */
int kd_allreduce_tensor(struct kd_comm *comm, struct kd_backend *be,
                        struct kd_tensor t) KD_MUST_CHECK;
int kd_reduce_scatter_tensor(struct kd_comm *comm, struct kd_backend *be,
                             struct kd_tensor t) KD_MUST_CHECK;
int kd_allgather_tensor(struct kd_comm *comm, struct kd_backend *be,
                        struct kd_tensor t) KD_MUST_CHECK;

/** Copy T (of any type) from rank 0 to all, in place.  Collective. */
int kd_bcast_tensor(struct kd_comm *comm, struct kd_backend *be,
                    struct kd_tensor t) KD_MUST_CHECK;

#endif
