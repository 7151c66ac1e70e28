/* SPDX-License-Identifier: Apache-2.0 */
/* The data plane: sums and copies of tensors.
 *
 * Host memory is summed in place: through shared memory where all ranks are on one node
 * (node_stage.c), else by non-blocking MPI reductions in pieces.  Memory of another
 * device is staged: download, sum, upload.  With one rank nothing moves.
 *
 * A start cannot return early on one rank, since the others wait for it; what failed
 * locally is kept in the reduction and voted on by the finish. */
#include "kdhpc/base/mem.h"

#include "comm_impl.h"
#include "node_stage.h"

#include <stdio.h>
#include <stdlib.h>

struct kd_reduction {
    struct kd_backend *be;
    struct kd_tensor t;
    float *host;   /* what is summed: t's data, or STAGED */
    float *staged; /* NULL for host memory */
    int local_rc;  /* voted on at the finish */
    int n_requests;
    MPI_Request requests[];
};

static bool on_host(const struct kd_backend *be)
{
    return be->device == KD_CPU;
}

/* Copy T to new host memory at *HOST, or point *HOST at it where it is on the host. */
static int stage_out(struct kd_backend *be, const struct kd_tensor *t, float **host,
                     float **staged)
{
    *staged = NULL;
    *host = t->data;
    if (on_host(be))
        KD_TRY(be->ops->sync(be));
    KD_TRY(KD_FAULT("comm.stage_out"));
    if (on_host(be))
        return KD_OK;
    KD_TRY(kd_calloc(kd_tensor_count(t), sizeof **staged, staged));
    *host = *staged;
    return be->ops->download(be, *staged, t->data, kd_tensor_bytes(t));
}

static int stage_in(struct kd_backend *be, const struct kd_tensor *t,
                    const float *staged)
{
    KD_TRY(KD_FAULT("comm.stage_in"));
    if (!staged)
        return KD_OK;
    KD_TRY(be->ops->upload(be, t->data, staged, kd_tensor_bytes(t)));
    return be->ops->sync(be);
}

/* A request handles at most this many values, for MPI's int counts. */
enum { PIECE_VALUES = KD_COMM_PIECE_BYTES / (int)sizeof(float) };

/* An empty reduction of N values.  Ends the job without memory: the other ranks are
 * already on their way into the sum. */
static struct kd_reduction *reduction_new(struct kd_comm *comm, int64_t n)
{
    int64_t pieces = comm->size > 1 && !comm->stage ? 1 + (n - 1) / PIECE_VALUES : 0;
    struct kd_reduction *r =
        calloc(1, sizeof *r + (size_t)pieces * sizeof *r->requests);

    if (!r) {
        fprintf(stderr, "kdhpc: error: rank %d: out of memory starting a sum\n",
                comm->rank);
        kd_comm_abort(comm, KD_ENOMEM);
    }
    r->n_requests = (int)pieces;
    return r;
}

static void post_requests(struct kd_comm *comm, struct kd_reduction *r, int64_t n)
{
    for (int i = 0; i < r->n_requests; i++) {
        int64_t at = (int64_t)i * PIECE_VALUES, left = n - at;
        int part = (int)(left < PIECE_VALUES ? left : PIECE_VALUES);

        kd_comm_check(comm,
                      MPI_Iallreduce(MPI_IN_PLACE, r->host + at, part, MPI_FLOAT,
                                     MPI_SUM, comm->world, &r->requests[i]),
                      "MPI_Iallreduce");
    }
}

static void reduction_free(struct kd_reduction *r)
{
    free(r->staged);
    free(r);
}

int kd_allreduce_start(struct kd_comm *comm, struct kd_backend *be, struct kd_tensor t,
                       struct kd_reduction **out)
{
    int64_t n = kd_tensor_count(&t);
    struct kd_reduction *r = NULL;
    int rc = KD_OK;

    *out = NULL;
    if (t.dtype != KD_F32) /* the same on every rank */
        return KD_FAIL(KD_EINTERNAL, "sums over ranks are of float32, not %s",
                       kd_dtype_name(t.dtype));
    r = reduction_new(comm, n);
    r->be = be;
    r->t = t;
    if (comm->size > 1) {
        r->local_rc = stage_out(be, &t, &r->host, &r->staged);
        if (!on_host(be))
            KD_ALL_GO(comm, r->local_rc); /* may lack the memory to take part */
        kd_comm_enter(comm, "allreduce_start", n);
        post_requests(comm, r, n);
        kd_comm_leave(comm);
    }
    *out = r;
    return KD_OK;
out:
    reduction_free(r);
    return rc;
}

int kd_allreduce_finish(struct kd_comm *comm, struct kd_reduction *r)
{
    int rc = KD_OK;

    if (comm->size > 1) {
        kd_comm_enter(comm, "allreduce_finish", kd_tensor_count(&r->t));
        if (comm->stage)
            kd_node_stage_sum(comm->stage, r->host, kd_tensor_count(&r->t));
        else
            kd_comm_check(comm,
                          MPI_Waitall(r->n_requests, r->requests, MPI_STATUSES_IGNORE),
                          "MPI_Waitall");
        kd_comm_leave(comm);
        rc = r->local_rc;
        if (!rc)
            rc = stage_in(r->be, &r->t, r->staged);
        rc = kd_agree(comm, rc);
    }
    reduction_free(r);
    return rc;
}

int kd_allreduce_tensor(struct kd_comm *comm, struct kd_backend *be, struct kd_tensor t)
{
    struct kd_reduction *r = NULL;

    KD_TRY(kd_allreduce_start(comm, be, t, &r));
    return kd_allreduce_finish(comm, r);
}

int kd_bcast_tensor(struct kd_comm *comm, struct kd_backend *be, struct kd_tensor t)
{
    float *host = NULL, *staged = NULL;
    int rc = KD_OK;

    if (comm->size == 1)
        return KD_OK;
    KD_ALL_GO(comm, stage_out(be, &t, &host, &staged));
    KD_GO(kd_bcast(comm, host, (int64_t)kd_tensor_bytes(&t), 0));
    KD_ALL_GO(comm, stage_in(be, &t, staged));
out:
    free(staged);
    return rc;
}
