/* SPDX-License-Identifier: Apache-2.0 */
/* The control plane: start and stop of MPI, the vote, and host values.
 *
 * A failure of MPI itself inside a collective is known to some ranks only and cannot be
 * agreed on, so it ends the job at once (kd_comm_check); everything else that can fail
 * locally (memory, fault sites) is voted on before the MPI call.  That is why most
 * functions here return KD_OK or end the process.
 *
 * Every entry point brackets its waiting with kd_comm_enter and kd_comm_leave, for the
 * watchdog and for the argument check of debug builds. */
#include "kdhpc/base/log.h"
#include "kdhpc/base/mem.h"

#include "nccl_plane.h"
#include "node_stage.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- start and stop ---- */

/* ROMIO is the safer MPI-IO under parallel HDF5 in Open MPI 4.1; a user's own choice
 * (which mpirun hands on as this variable) stays. */
static int choose_mpi_io(void)
{
    if (setenv("OMPI_MCA_io", "romio321", 0))
        return KD_FAIL(KD_ENOMEM, "cannot set OMPI_MCA_io");
    return KD_OK;
}

static int init_mpi(void)
{
    int provided = MPI_THREAD_SINGLE;

    KD_TRY(choose_mpi_io());
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
        return KD_FAIL(KD_EINTERNAL, "MPI_Init_thread failed");
    if (provided < MPI_THREAD_FUNNELED) {
        MPI_Finalize();
        return KD_FAIL(KD_EINTERNAL, "this MPI library does not allow threads beside "
                                     "the main one; build it with thread support");
    }
    return KD_OK;
}

static void find_places(struct kd_comm *c)
{
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    kd_comm_check(c, MPI_Comm_dup(MPI_COMM_WORLD, &c->world), "MPI_Comm_dup");
    MPI_Comm_set_errhandler(c->world, MPI_ERRORS_RETURN);
    MPI_Comm_rank(c->world, &c->rank);
    MPI_Comm_size(c->world, &c->size);
    kd_comm_check(c,
                  MPI_Comm_split_type(c->world, MPI_COMM_TYPE_SHARED, c->rank,
                                      MPI_INFO_NULL, &c->node),
                  "MPI_Comm_split_type");
    MPI_Comm_set_errhandler(c->node, MPI_ERRORS_RETURN);
    MPI_Comm_rank(c->node, &c->node_rank);
    MPI_Comm_size(c->node, &c->node_size);
}

/* KD_NODE_STAGE=0 sends sums through MPI also on one node, to compare the two. */
static bool stage_unwanted(void)
{
    const char *want = getenv("KD_NODE_STAGE");

    return want && strcmp(want, "0") == 0;
}

static int alloc_gather(struct kd_comm *c)
{
    KD_TRY(KD_FAULT("comm.start"));
    return kd_calloc((int64_t)c->size * KD_COMM_GATHER_VALUES, sizeof *c->gather,
                     &c->gather);
}

int kd_comm_start(struct kd_comm **out)
{
    struct kd_comm *c = NULL;
    int64_t no_stage;
    int rc = KD_OK;

    *out = NULL;
    KD_TRY(kd_calloc(1, sizeof *c, &c));
    c->failed_rank = -1;
    c->world = c->node = MPI_COMM_NULL;
    rc = init_mpi();
    if (rc) {
        free(c);
        return rc;
    }
    find_places(c);
    kd_log_setup(c->rank, c->size, KD_LOG_INFO, KD_PROGRESS_AUTO);
    KD_GO(kd_agree(c, alloc_gather(c)));
    no_stage = c->node_size != c->size || stage_unwanted();
    KD_GO(kd_allreduce_i64(c, &no_stage, 1, KD_MAX));
    if (c->size > 1 && !no_stage)
        KD_GO(kd_node_stage_new(c, &c->stage));
    *out = c;
    return KD_OK;
out:
    kd_comm_stop(c);
    return rc;
}

void kd_comm_stop(struct kd_comm *comm)
{
    if (!comm)
        return;
    kd_comm_drop_backend(comm);
    kd_node_stage_free(comm->stage);
    MPI_Comm_free(&comm->node);
    MPI_Comm_free(&comm->world);
    MPI_Finalize();
    free(comm->gather);
    free(comm);
}

void kd_comm_abort(struct kd_comm *comm, int code)
{
    fflush(NULL);
    MPI_Abort(comm && comm->world != MPI_COMM_NULL ? comm->world : MPI_COMM_WORLD,
              code);
    _exit(code);
}

void kd_comm_check(struct kd_comm *comm, int rc, const char *what)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int len = 0;

    if (rc == MPI_SUCCESS)
        return;
    if (MPI_Error_string(rc, text, &len) != MPI_SUCCESS)
        text[0] = '\0';
    fprintf(stderr, "kdhpc: error: rank %d: %s failed: %s\n", comm->rank, what, text);
    kd_comm_abort(comm, KD_EINTERNAL);
}

int kd_comm_rank(const struct kd_comm *comm)
{
    return comm->rank;
}

int kd_comm_size(const struct kd_comm *comm)
{
    return comm->size;
}

int kd_comm_node_rank(const struct kd_comm *comm)
{
    return comm->node_rank;
}

int kd_comm_node_size(const struct kd_comm *comm)
{
    return comm->node_size;
}

MPI_Comm kd_comm_mpi(const struct kd_comm *comm)
{
    return comm->world;
}

const char *kd_comm_library(void)
{
    /* Filled with the same text by every call: MPI hands its name out by copy only. */
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int len = 0;

    if (MPI_Get_library_version(text, &len) != MPI_SUCCESS)
        return "unknown MPI";
    text[strcspn(text, ",\n")] = '\0';
    return text;
}

/* ---- the bracket around every collective ---- */

#ifndef NDEBUG
/* FNV-1a; only equality matters. */
static int64_t name_hash(const char *name)
{
    uint32_t h = 2166136261u;

    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 16777619u;
    return (int64_t)h;
}

static void compare_arguments(struct kd_comm *comm, const char *name, int64_t count)
{
    int64_t mine[3] = {comm->sequence, name_hash(name), count};
    int64_t pair[6], extreme[6];

    for (int i = 0; i < 3; i++) {
        pair[i] = mine[i];
        pair[3 + i] = -mine[i];
    }
    kd_comm_check(comm,
                  MPI_Allreduce(pair, extreme, 6, MPI_INT64_T, MPI_MAX, comm->world),
                  "MPI_Allreduce");
    for (int i = 0; i < 3; i++) {
        if (extreme[i] == -extreme[3 + i])
            continue;
        fprintf(stderr,
                "kdhpc: error: rank %d: collective %s, number %lld, count %lld does "
                "not match another rank's\n",
                comm->rank, name, (long long)comm->sequence, (long long)count);
        kd_comm_abort(comm, KD_EINTERNAL);
    }
}
#endif

void kd_comm_enter(struct kd_comm *comm, const char *name, int64_t count)
{
    comm->sequence++;
    kd_watchdog_enter(name, comm->sequence);
#ifndef NDEBUG
    compare_arguments(comm, name, count);
#else
    (void)count;
#endif
}

void kd_comm_leave(struct kd_comm *comm)
{
    (void)comm;
    kd_watchdog_leave();
}

/* ---- votes ---- */

/* Give every rank the record of the failed rank ROOT, whose own status is RC.  A
 * failure that was agreed on before comes back from all ranks: it stays the first
 * one's. */
static int share_record(struct kd_comm *comm, int rc, int root)
{
    struct kd_error record = {0};

    if (comm->rank == root) {
        record = *kd_error_get();
        if (!record.code)
            memcpy(record.text, "failed without a message", 25);
        record.code = rc;
    }
    kd_comm_check(comm,
                  MPI_Bcast(&record, (int)sizeof record, MPI_BYTE, root, comm->world),
                  "MPI_Bcast");
    if (!record.agreed)
        comm->failed_rank = root;
    record.agreed = true;
    kd_error_set(&record);
    return record.code;
}

int kd_agree(struct kd_comm *comm, int rc)
{
    int mine = rc ? comm->rank : INT_MAX, lowest = INT_MAX;

    kd_comm_enter(comm, "agree", 0);
    kd_comm_check(comm, MPI_Allreduce(&mine, &lowest, 1, MPI_INT, MPI_MIN, comm->world),
                  "MPI_Allreduce");
    rc = lowest == INT_MAX ? KD_OK : share_record(comm, rc, lowest);
    if (rc)
        kd_nccl_settle(comm); /* the failed rank may never come into it */
    kd_comm_leave(comm);
    return rc;
}

int kd_comm_failed_rank(const struct kd_comm *comm)
{
    return comm->failed_rank;
}

int kd_root_do(struct kd_comm *comm, int (*fn)(void *arg), void *arg)
{
    return kd_agree(comm, comm->rank == 0 ? fn(arg) : KD_OK);
}

/* ---- host values ---- */

static MPI_Op mpi_op(enum kd_reduce op)
{
    return op == KD_SUM ? MPI_SUM : op == KD_MAX ? MPI_MAX : MPI_MIN;
}

/* Number of the next elements to handle: at most LIMIT of the N left. */
static int64_t piece_of(int64_t n, int64_t limit)
{
    return n < limit ? n : limit;
}

/* Gather at most KD_COMM_GATHER_VALUES values of each rank and add them in rank order,
 * so that the bits do not depend on how MPI would have paired the ranks. */
static void sum_in_rank_order(struct kd_comm *comm, double *v, int n)
{
    kd_comm_check(
        comm, MPI_Allgather(v, n, MPI_DOUBLE, comm->gather, n, MPI_DOUBLE, comm->world),
        "MPI_Allgather");
    for (int i = 0; i < n; i++) {
        double sum = comm->gather[i];

        for (int r = 1; r < comm->size; r++)
            sum += comm->gather[(int64_t)r * n + i];
        v[i] = sum;
    }
}

int kd_allreduce_f64(struct kd_comm *comm, double *v, int64_t n, enum kd_reduce op)
{
    kd_comm_enter(comm, "allreduce_f64", n);
    for (int64_t at = 0; at < n;) {
        int64_t part = piece_of(n - at, KD_COMM_GATHER_VALUES);

        if (op == KD_SUM)
            sum_in_rank_order(comm, v + at, (int)part);
        else
            kd_comm_check(comm,
                          MPI_Allreduce(MPI_IN_PLACE, v + at, (int)part, MPI_DOUBLE,
                                        mpi_op(op), comm->world),
                          "MPI_Allreduce");
        at += part;
    }
    kd_comm_leave(comm);
    return KD_OK;
}

int kd_allreduce_i64(struct kd_comm *comm, int64_t *v, int64_t n, enum kd_reduce op)
{
    kd_comm_enter(comm, "allreduce_i64", n);
    for (int64_t at = 0; at < n;) {
        int64_t part = piece_of(n - at, KD_COMM_PIECE_BYTES / (int64_t)sizeof *v);

        kd_comm_check(comm,
                      MPI_Allreduce(MPI_IN_PLACE, v + at, (int)part, MPI_INT64_T,
                                    mpi_op(op), comm->world),
                      "MPI_Allreduce");
        at += part;
    }
    kd_comm_leave(comm);
    return KD_OK;
}

int kd_exscan_i64(struct kd_comm *comm, int64_t n_local, int64_t *first, int64_t *total)
{
    int64_t below = 0, all = 0;

    kd_comm_enter(comm, "exscan_i64", 1);
    kd_comm_check(comm,
                  MPI_Exscan(&n_local, &below, 1, MPI_INT64_T, MPI_SUM, comm->world),
                  "MPI_Exscan");
    kd_comm_check(comm,
                  MPI_Allreduce(&n_local, &all, 1, MPI_INT64_T, MPI_SUM, comm->world),
                  "MPI_Allreduce");
    kd_comm_leave(comm);
    *first = comm->rank == 0 ? 0 : below; /* MPI leaves rank 0's undefined */
    *total = all;
    return KD_OK;
}

static void bcast_pieces(struct kd_comm *comm, char *buf, int64_t bytes, int root)
{
    for (int64_t at = 0; at < bytes;) {
        int64_t part = piece_of(bytes - at, KD_COMM_PIECE_BYTES);

        kd_comm_check(comm, MPI_Bcast(buf + at, (int)part, MPI_BYTE, root, comm->world),
                      "MPI_Bcast");
        at += part;
        kd_watchdog_enter("bcast", comm->sequence);
    }
}

int kd_bcast(struct kd_comm *comm, void *buf, int64_t bytes, int root)
{
    kd_comm_enter(comm, "bcast", bytes);
    bcast_pieces(comm, buf, bytes, root);
    kd_comm_leave(comm);
    return KD_OK;
}

/* What kd_allgather_bytes holds on to: the result and where each rank's part goes. */
struct gathering {
    char *all;
    int64_t *sizes; /* [n_ranks] */
    int *counts, *starts;
    int64_t total;
};

static int gathering_alloc_sizes(struct gathering *g, int n_ranks)
{
    KD_TRY(KD_FAULT("comm.allgather"));
    KD_TRY(kd_calloc(n_ranks, sizeof *g->sizes, &g->sizes));
    KD_TRY(kd_calloc(n_ranks, sizeof *g->counts, &g->counts));
    return kd_calloc(n_ranks, sizeof *g->starts, &g->starts);
}

static void gather_parts(struct kd_comm *comm, struct gathering *g, const void *local)
{
    int64_t at = 0;

    if (g->total <= KD_COMM_PIECE_BYTES) {
        for (int r = 0; r < comm->size; r++) {
            g->counts[r] = (int)g->sizes[r];
            g->starts[r] = (int)at;
            at += g->sizes[r];
        }
        kd_comm_check(comm,
                      MPI_Allgatherv(local, g->counts[comm->rank], MPI_BYTE, g->all,
                                     g->counts, g->starts, MPI_BYTE, comm->world),
                      "MPI_Allgatherv");
        return;
    }
    for (int r = 0; r < comm->size; r++) {
        if (r == comm->rank && g->sizes[r])
            memcpy(g->all + at, local, (size_t)g->sizes[r]);
        bcast_pieces(comm, g->all + at, g->sizes[r], r);
        at += g->sizes[r];
    }
}

int kd_allgather_bytes(struct kd_comm *comm, const void *local, int64_t bytes_local,
                       void **out, int64_t *sizes)
{
    struct gathering g = {0};
    int rc = KD_OK;

    *out = NULL;
    KD_ALL_GO(comm, gathering_alloc_sizes(&g, comm->size));
    kd_comm_enter(comm, "allgather_bytes", 0);
    kd_comm_check(comm,
                  MPI_Allgather(&bytes_local, 1, MPI_INT64_T, g.sizes, 1, MPI_INT64_T,
                                comm->world),
                  "MPI_Allgather");
    kd_comm_leave(comm);
    for (int r = 0; r < comm->size; r++)
        g.total += g.sizes[r];
    KD_ALL_GO(comm, kd_calloc(g.total, 1, &g.all));

    kd_comm_enter(comm, "allgather_bytes", g.total);
    gather_parts(comm, &g, local);
    kd_comm_leave(comm);
    if (sizes)
        memcpy(sizes, g.sizes, (size_t)comm->size * sizeof *sizes);
    *out = g.all;
    g.all = NULL;
out:
    free(g.all);
    free(g.sizes);
    free(g.counts);
    free(g.starts);
    return rc;
}

int kd_barrier(struct kd_comm *comm)
{
    kd_comm_enter(comm, "barrier", 0);
    kd_comm_check(comm, MPI_Barrier(comm->world), "MPI_Barrier");
    kd_comm_leave(comm);
    return KD_OK;
}
