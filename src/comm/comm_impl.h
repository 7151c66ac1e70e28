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
struct kd_nccl;

enum kd_transfer_kind {
    KD_TRANSFER_SUM,     /* all-reduce */
    KD_TRANSFER_SCATTER, /* reduce-scatter */
    KD_TRANSFER_GATHER,  /* all-gather */
    KD_TRANSFER_BCAST
};

/* What every plane's transfer begins with. */
struct kd_transfer {
    const struct kd_plane *plane;
    enum kd_transfer_kind kind;
    struct kd_backend *be;
    struct kd_tensor t;
};

/* One way between the ranks.  Start makes the transfer WHAT (see kd_transfer_new) and
 * finish frees it; both are collective.  DEFERS: they return no failure of this rank
 * alone, it is in kd_transfer_status. */
struct kd_plane {
    const char *name;
    bool defers;
    int (*start)(struct kd_comm *comm, const struct kd_transfer *what,
                 struct kd_transfer **out);
    int (*finish)(struct kd_comm *comm, struct kd_transfer *x);
    int (*wait)(struct kd_comm *comm, struct kd_backend *be);
};

/* Host memory that device memory is staged through, kept from transfer to transfer. */
struct kd_staging {
    void *data;
    size_t bytes;
    bool pinned, taken;
};

struct kd_comm {
    MPI_Comm world, node;
    int rank, size, node_rank, node_size;
    int failed_rank;             /* of the last failed vote, or -1 */
    int64_t sequence;            /* collectives entered so far */
    double *gather;              /* [size * KD_COMM_GATHER_VALUES] */
    struct kd_node_stage *stage; /* NULL: one rank, or ranks on several nodes */

    struct kd_backend *be;        /* in use, or NULL */
    const struct kd_plane *plane; /* of its tensors */
    bool pins;                    /* staging memory is pinned for its GPU */
    struct kd_staging *staging;   /* [n_staging] */
    int64_t n_staging, cap_staging;
    struct kd_nccl *nccl; /* of plane nccl, or NULL */
    int transfer_rc;      /* kd_transfer_status */
};

/** End the job if MPI's status RC of WHAT is a failure: such an error is on its way on
 * some ranks only and cannot be voted on.  Local. */
void kd_comm_check(struct kd_comm *comm, int rc, const char *what);

/** A zeroed plane's transfer of BYTES that begins with WHAT.  Ends the job without
 * memory: the other ranks are already on their way into the transfer.  Local. */
void *kd_transfer_new(struct kd_comm *comm, size_t bytes,
                      const struct kd_transfer *what);

/** The plane of host memory, see mpi.c, and what it keeps. */
extern const struct kd_plane kd_plane_mpi;
void kd_staging_free(struct kd_comm *comm);

/** Tell the watchdog that the main thread waits in collective NAME, or no longer.
 * Local. */
void kd_watchdog_enter(const char *name, int64_t sequence);
void kd_watchdog_leave(void);

/** Seconds that a wait inside a collective may take if it is to end before the watchdog
 * ends it with less to say; 0: no bound.  Local. */
double kd_watchdog_wait_s(void);

#endif
