/* SPDX-License-Identifier: Apache-2.0 */
/* Frame for test programs that run on several ranks: one communicator for the whole
 * program, and a directory that all ranks know.  A failed assertion ends the process,
 * and with it the job: a rank that skipped to the next test would hang the others. */
#ifndef KDHPC_TESTS_MPI_TEST_H
#define KDHPC_TESTS_MPI_TEST_H

#include "kdhpc/comm/comm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define assert_ok(e) assert_int_equal((e), KD_OK)

/** Start the ranks; ends the program if that fails. */
static inline struct kd_comm *mpi_test_start(void)
{
    struct kd_comm *comm = NULL;

    setenv("CMOCKA_TEST_ABORT", "1", 1);
    if (kd_comm_start(&comm)) {
        fprintf(stderr, "cannot start: %s\n", kd_error_get()->text);
        exit(1);
    }
    return comm;
}

/** Start the ranks in a fresh directory, the same on every rank: its name into
 * DIR[CAP].
 */
static inline struct kd_comm *mpi_test_start_in(char *dir, size_t cap)
{
    struct kd_comm *comm = mpi_test_start();

    if (kd_comm_rank(comm) == 0) {
        snprintf(dir, cap, "/tmp/kdhpc-test-XXXXXX");
        assert_non_null(mkdtemp(dir));
    }
    assert_ok(kd_bcast(comm, dir, (int64_t)cap, 0));
    return comm;
}

/** Remove the flat directory DIR with its files, and stop the ranks. */
static inline void mpi_test_stop_in(struct kd_comm *comm, const char *dir)
{
    char command[300];

    assert_ok(kd_barrier(comm));
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    if (kd_comm_rank(comm) == 0)
        assert_int_equal(system(command), 0);
    kd_comm_stop(comm);
}

#endif
