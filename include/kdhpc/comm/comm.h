/* SPDX-License-Identifier: Apache-2.0 */
/* The ranks of a run and what they may say to each other.
 *
 * Control plane: small host values over MPI.  Data plane: sums of tensors.  A failure
 * on one rank becomes a failure on all through kd_agree; the macros below say which
 * status is already agreed (KD_TRY, KD_GO) and which is a local fact that must be voted
 * on first (KD_ALL, KD_ALL_GO).  Every collective counts as a heartbeat of this rank
 * for the watchdog (comm/watchdog.h). */
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

/** Sum the float32 tensor T (on BE) over the ranks, in place; all ranks get the same
 * bits.  Collective.  Blocks until done.  Ranks of one node add in rank order through
 * memory that they share (KD_NODE_STAGE=0 in the environment: through MPI). */
int kd_allreduce_tensor(struct kd_comm *comm, struct kd_backend *be,
                        struct kd_tensor t) KD_MUST_CHECK;

/** A sum under way; at most one start/finish pair per tensor at a time. */
struct kd_reduction;

/** Start summing T; BE and the memory of T stay borrowed until the finish.  Collective.
 */
int kd_allreduce_start(struct kd_comm *comm, struct kd_backend *be, struct kd_tensor t,
                       struct kd_reduction **out) KD_MUST_CHECK;

/** Wait for a started sum and free it.  Collective. */
int kd_allreduce_finish(struct kd_comm *comm, struct kd_reduction *r) KD_MUST_CHECK;

/** Copy T from rank 0 to all, in place.  Collective. */
int kd_bcast_tensor(struct kd_comm *comm, struct kd_backend *be,
                    struct kd_tensor t) KD_MUST_CHECK;

#endif
