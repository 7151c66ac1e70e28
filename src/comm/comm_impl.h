/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of comm/ share: the communicator's parts and the watchdog's inside. */
#ifndef KDHPC_SRC_COMM_IMPL_H
#define KDHPC_SRC_COMM_IMPL_H

#include "kdhpc/comm/comm_mpi.h"

/* Large host copies go in pieces of this many bytes, far below MPI's int counts. */
enum { KD_COMM_PIECE_BYTES = 1 << 26 };

/* Values of each rank that kd_allreduce_f64 gathers at a time. */
enum { KD_COMM_GATHER_VALUES = 1024 };

struct kd_node_stage;

struct kd_comm {
    MPI_Comm world, node;
    int rank, size, node_rank, node_size;
    int failed_rank;             /* of the last failed vote, or -1 */
    int64_t sequence;            /* collectives entered so far */
    double *gather;              /* [size * KD_COMM_GATHER_VALUES] */
    struct kd_node_stage *stage; /* NULL: one rank, or ranks on several nodes */
};

/** End the job if MPI's status RC of WHAT is a failure: such an error is on its way on
 * some ranks only and cannot be voted on.  Local. */
void kd_comm_check(struct kd_comm *comm, int rc, const char *what);

/** Tell the watchdog that the main thread waits in collective NAME, or no longer.
 * Local. */
void kd_watchdog_enter(const char *name, int64_t sequence);
void kd_watchdog_leave(void);

#endif
