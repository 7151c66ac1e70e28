/* SPDX-License-Identifier: Apache-2.0 */
/* The data plane of host memory.
 *
 * Sums and gathers happen in place: through shared memory in the finish where all ranks
 * are on one node (node_stage.c), else by non-blocking calls of MPI in pieces.  Memory
 * of a device is staged: download, transfer, upload, of what each kind needs.  A
 * reduce-scatter through MPI is the all-reduce, since MPI's own adds in another order
 * and the bits of a run shall not depend on who keeps which part.
 *
 * A start of host memory cannot return early on one rank, since the others wait for it;
 * what failed locally is kept in the transfer and voted on by the finish. */
#include "kdhpc/base/mem.h"

#include "nccl_plane.h"
#include "node_stage.h"

#include <stdlib.h>

struct mpi_transfer {
    struct kd_transfer base;
    struct kd_part own; /* this rank's values */
    char *host;         /* what is transferred: t's data, or staging memory */
    int64_t staging;    /* its number, or -1 */
    int local_rc;       /* voted on at the finish */
    int n_requests;
    MPI_Request requests[];
};

static bool on_host(const struct kd_backend *be)
{
    return be->device == KD_CPU;
}

/* ---- staging ---- */

static int staging_alloc(struct kd_comm *comm, struct kd_staging *s, size_t bytes)
{
    s->bytes = 0;
    s->pinned = comm->pins;
    s->data = NULL;
    KD_TRY(s->pinned ? kd_pinned_alloc(bytes, &s->data)
                     : kd_calloc((int64_t)bytes, 1, &s->data));
    s->bytes = bytes;
    return KD_OK;
}

static void staging_release(struct kd_staging *s)
{
    if (s->pinned)
        kd_pinned_free(s->data);
    else
        free(s->data);
}

/* *AT = the number of a free buffer of BYTES.  Updates ask for the same sizes in the
 * same order, so from the second on the first free one that is large enough fits. */
static int staging_take(struct kd_comm *comm, size_t bytes, int64_t *at)
{
    struct kd_staging *s;

    for (int64_t i = 0; i < comm->n_staging; i++) {
        s = &comm->staging[i];
        if (!s->taken && s->bytes >= bytes && s->bytes / 2 <= bytes) {
            s->taken = true;
            *at = i;
            return KD_OK;
        }
    }
    KD_TRY(kd_grow(&comm->staging, &comm->cap_staging, comm->n_staging + 1,
                   sizeof *comm->staging));
    s = &comm->staging[comm->n_staging];
    KD_TRY(staging_alloc(comm, s, bytes));
    s->taken = true;
    *at = comm->n_staging++;
    return KD_OK;
}

void kd_staging_free(struct kd_comm *comm)
{
    for (int64_t i = 0; i < comm->n_staging; i++)
        staging_release(&comm->staging[i]);
    free(comm->staging);
    comm->staging = NULL;
    comm->n_staging = comm->cap_staging = 0;
}

/* ---- between device and host ---- */

static struct kd_part all_of(const struct kd_transfer *x)
{
    return (struct kd_part){0, kd_tensor_count(&x->t)};
}

/* The values that this rank brings into the transfer. */
static struct kd_part brought(const struct kd_comm *comm, const struct mpi_transfer *x)
{
    switch (x->base.kind) {
    case KD_TRANSFER_GATHER:
        return x->own;
    case KD_TRANSFER_BCAST:
        return comm->rank == 0 ? all_of(&x->base) : (struct kd_part){0, 0};
    default:
        return all_of(&x->base);
    }
}

/* The values that it takes out of it. */
static struct kd_part taken(const struct kd_comm *comm, const struct mpi_transfer *x)
{
    if (x->base.kind == KD_TRANSFER_SCATTER)
        return x->own;
    if (x->base.kind == KD_TRANSFER_BCAST && comm->rank == 0)
        return (struct kd_part){0, 0};
    return all_of(&x->base);
}

static int stage_out(struct kd_comm *comm, struct mpi_transfer *x)
{
    struct kd_backend *be = x->base.be;
    const struct kd_tensor *t = &x->base.t;
    size_t value = kd_dtype_bytes(t->dtype);
    struct kd_part part = brought(comm, x);
    size_t at = (size_t)part.first * value;

    if (on_host(be))
        KD_TRY(be->ops->sync(be));
    KD_TRY(KD_FAULT("comm.stage_out"));
    if (on_host(be))
        return KD_OK;
    KD_TRY(staging_take(comm, kd_tensor_bytes(t), &x->staging));
    x->host = comm->staging[x->staging].data;
    if (part.count == 0)
        return KD_OK;
    return be->ops->download(be, x->host + at, (char *)t->data + at,
                             (size_t)part.count * value);
}

static int stage_in(struct kd_comm *comm, const struct mpi_transfer *x)
{
    struct kd_backend *be = x->base.be;
    size_t value = kd_dtype_bytes(x->base.t.dtype);
    struct kd_part part = taken(comm, x);
    size_t at = (size_t)part.first * value;

    KD_TRY(KD_FAULT("comm.stage_in"));
    if (on_host(be) || part.count == 0)
        return KD_OK;
    KD_TRY(be->ops->upload(be, (char *)x->base.t.data + at, x->host + at,
                           (size_t)part.count * value));
    return be->ops->sync(be);
}

/* ---- through MPI ---- */

/* Whether X goes through the memory that the ranks share. */
static bool shared(const struct kd_comm *comm, const struct kd_transfer *x)
{
    return comm->stage && x->kind != KD_TRANSFER_BCAST;
}

/* A request handles at most this many bytes, for MPI's int counts. */
static int64_t pieces_of(int64_t bytes)
{
    return bytes / KD_COMM_PIECE_BYTES + (bytes % KD_COMM_PIECE_BYTES != 0);
}

static int64_t count_requests(const struct kd_comm *comm, const struct kd_transfer *x)
{
    if (shared(comm, x))
        return 0;
    return x->kind == KD_TRANSFER_GATHER ? 2
                                         : pieces_of((int64_t)kd_tensor_bytes(&x->t));
}

/* Piece I of a sum or broadcast. */
static int post_piece(struct kd_comm *comm, struct mpi_transfer *x, int i)
{
    int64_t at = (int64_t)i * KD_COMM_PIECE_BYTES;
    int64_t left = (int64_t)kd_tensor_bytes(&x->base.t) - at;
    int bytes = (int)(left < KD_COMM_PIECE_BYTES ? left : KD_COMM_PIECE_BYTES);

    if (x->base.kind == KD_TRANSFER_BCAST)
        return MPI_Ibcast(x->host + at, bytes, MPI_BYTE, 0, comm->world,
                          &x->requests[i]);
    return MPI_Iallreduce(MPI_IN_PLACE, x->host + at, bytes / (int)sizeof(float),
                          MPI_FLOAT, MPI_SUM, comm->world, &x->requests[i]);
}

/* Parts are equal but for what the last one has more: gathered in units of 64 values,
 * for MPI's int counts, and broadcast. */
static void post_gather(struct kd_comm *comm, struct mpi_transfer *x)
{
    int64_t value = (int64_t)kd_dtype_bytes(x->base.t.dtype);
    int64_t n = kd_tensor_count(&x->base.t);
    int64_t each = kd_comm_part(n, comm->size, 0).count, rest = each * comm->size;
    int last = comm->size - 1;
    MPI_Datatype unit;

    kd_comm_check(comm, MPI_Type_contiguous((int)(64 * value), MPI_BYTE, &unit),
                  "MPI_Type_contiguous");
    kd_comm_check(comm, MPI_Type_commit(&unit), "MPI_Type_commit");
    kd_comm_check(comm,
                  MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, x->host,
                                 (int)(each / 64), unit, comm->world, &x->requests[0]),
                  "MPI_Iallgather");
    MPI_Type_free(&unit); /* when the request is done */
    kd_comm_check(comm,
                  MPI_Ibcast(x->host + rest * value, (int)((n - rest) * value),
                             MPI_BYTE, last, comm->world, &x->requests[1]),
                  "MPI_Ibcast");
}

static void post(struct kd_comm *comm, struct mpi_transfer *x)
{
    if (shared(comm, &x->base))
        return;
    if (x->base.kind == KD_TRANSFER_GATHER) {
        post_gather(comm, x);
        return;
    }
    for (int i = 0; i < x->n_requests; i++)
        kd_comm_check(comm, post_piece(comm, x, i), "a collective of MPI");
}

static void complete(struct kd_comm *comm, struct mpi_transfer *x)
{
    const struct kd_tensor *t = &x->base.t;
    int64_t n = kd_tensor_count(t);

    if (!shared(comm, &x->base))
        kd_comm_check(comm,
                      MPI_Waitall(x->n_requests, x->requests, MPI_STATUSES_IGNORE),
                      "MPI_Waitall");
    else if (x->base.kind == KD_TRANSFER_GATHER)
        kd_node_stage_gather(comm->stage, x->host, n,
                             (int64_t)kd_dtype_bytes(t->dtype));
    else
        kd_node_stage_sum(comm->stage, (float *)(void *)x->host, n, taken(comm, x));
}

/* ---- the plane ---- */

static struct mpi_transfer *transfer_new(struct kd_comm *comm,
                                         const struct kd_transfer *what)
{
    int64_t n = count_requests(comm, what);
    struct mpi_transfer *x =
        kd_transfer_new(comm, sizeof *x + (size_t)n * sizeof x->requests[0], what);

    x->own = kd_comm_part(kd_tensor_count(&what->t), comm->size, comm->rank);
    x->host = what->t.data;
    x->staging = -1;
    x->n_requests = (int)n;
    return x;
}

static void transfer_free(struct kd_comm *comm, struct mpi_transfer *x)
{
    if (x->staging >= 0)
        comm->staging[x->staging].taken = false;
    free(x);
}

static int mpi_start(struct kd_comm *comm, const struct kd_transfer *what,
                     struct kd_transfer **out)
{
    struct mpi_transfer *x = transfer_new(comm, what);
    int rc = KD_OK;

    x->local_rc = stage_out(comm, x);
    if (!on_host(what->be))
        KD_ALL_GO(comm, x->local_rc); /* may lack the memory to take part */
    kd_comm_enter(comm, "transfer_start", kd_tensor_count(&what->t));
    post(comm, x);
    kd_comm_leave(comm);
    *out = &x->base;
    return KD_OK;
out:
    transfer_free(comm, x);
    return rc;
}

static int mpi_finish(struct kd_comm *comm, struct kd_transfer *base)
{
    struct mpi_transfer *x = (struct mpi_transfer *)base;
    int rc;

    kd_comm_enter(comm, "transfer_finish", kd_tensor_count(&base->t));
    complete(comm, x);
    kd_comm_leave(comm);
    rc = x->local_rc;
    if (!rc)
        rc = stage_in(comm, x);
    rc = kd_agree(comm, rc);
    transfer_free(comm, x);
    return rc;
}

static int mpi_wait(struct kd_comm *comm, struct kd_backend *be)
{
    (void)comm;
    return be->ops->sync(be);
}

const struct kd_plane kd_plane_mpi = {
    .name = "mpi", .start = mpi_start, .finish = mpi_finish, .wait = mpi_wait};
