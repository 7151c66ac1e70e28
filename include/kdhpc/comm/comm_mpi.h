/* SPDX-License-Identifier: Apache-2.0 */
/* The raw MPI behind a communicator: for the store, whose library speaks MPI itself,
 * and for the data planes.  Nobody else includes this header. */
#ifndef KDHPC_COMM_COMM_MPI_H
#define KDHPC_COMM_COMM_MPI_H

#include "kdhpc/comm/comm.h"

#include <mpi.h>

/** The MPI communicator of COMM; borrowed.  Local. */
MPI_Comm kd_comm_mpi(const struct kd_comm *comm);

/** Say that this rank goes into a collective NAME (a literal), so that waiting in it is
 * not taken for silence; builds without NDEBUG compare {sequence, NAME, COUNT} of all
 * ranks first and end the job where they differ.  Collective. */
void kd_comm_enter(struct kd_comm *comm, const char *name, int64_t count);

/** Say that it came out.  Local. */
void kd_comm_leave(struct kd_comm *comm);

#endif
