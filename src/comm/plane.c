/* SPDX-License-Identifier: Apache-2.0 */
/* The front of the data plane: which plane a tensor takes, and the verbs over planes.
 *
 * The choice is made once for a backend, by all ranks from facts of all ranks.  NCCL
 * refuses two ranks on one GPU, so GPUs are compared by their bus addresses within each
 * node; what is missing on any rank sends all of them through host memory.  A device
 * without a stream is none that NCCL could order itself against.  Plane "self" is here:
 * with one rank a transfer is its own result. */
#include "kdhpc/base/log.h"
#include "kdhpc/base/mem.h"

#include "nccl_plane.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- parts ---- */

enum { PART_VALUES = 64 }; /* parts start at multiples of it: 128 bytes and more */

struct kd_part kd_comm_part(int64_t n, int size, int rank)
{
    int64_t each = n / ((int64_t)PART_VALUES * size) * PART_VALUES;
    int64_t first = each * rank;

    return (struct kd_part){first, rank == size - 1 ? n - first : each};
}

/* ---- one rank ---- */

void *kd_transfer_new(struct kd_comm *comm, size_t bytes,
                      const struct kd_transfer *what)
{
    struct kd_transfer *x = calloc(1, bytes);

    if (!x) {
        fprintf(stderr, "kdhpc: error: rank %d: out of memory starting a transfer\n",
                comm->rank);
        kd_comm_abort(comm, KD_ENOMEM);
    }
    *x = *what;
    return x;
}

static int self_start(struct kd_comm *comm, const struct kd_transfer *what,
                      struct kd_transfer **out)
{
    *out = kd_transfer_new(comm, sizeof **out, what);
    return KD_OK;
}

static int self_finish(struct kd_comm *comm, struct kd_transfer *x)
{
    (void)comm;
    free(x);
    return KD_OK;
}

static int self_wait(struct kd_comm *comm, struct kd_backend *be)
{
    (void)comm;
    return be->ops->sync(be);
}

static const struct kd_plane plane_self = {
    .name = "self", .start = self_start, .finish = self_finish, .wait = self_wait};

/* ---- the choice ---- */

enum wish { WISH_NONE, WISH_MPI, WISH_NCCL };

/* What stands against nccl, on this rank and then on any. */
enum { NO_GPU, NO_NCCL, SHARED_GPU, N_FACTS };

static int read_wish(enum wish *out)
{
    const char *text = getenv("KD_PLANE");

    *out = WISH_NONE;
    if (!text || !*text)
        return KD_OK;
    if (strcmp(text, "mpi") == 0)
        *out = WISH_MPI;
    else if (strcmp(text, "nccl") == 0)
        *out = WISH_NCCL;
    else
        return KD_FAIL(KD_EUSAGE,
                       "KD_PLANE in the environment is %s; allowed here: mpi, nccl",
                       text);
    return KD_OK;
}

/* Rank 0's wish, on all ranks. */
static int agree_on_wish(struct kd_comm *comm, enum wish *wish)
{
    *wish = WISH_NONE;
    KD_ALL(comm, comm->rank == 0 ? read_wish(wish) : KD_OK);
    return kd_bcast(comm, wish, sizeof *wish, 0);
}

static bool has_gpu(struct kd_backend *be)
{
    return be->device == KD_CUDA && be->ops->stream(be);
}

/* Whether another rank of this node has the GPU with this ADDRESS ("": none). */
static int find_sharing(struct kd_comm *comm, const char *address, int64_t *shares)
{
    char *all = NULL;

    *shares = 0;
    KD_ALL(comm, kd_calloc(comm->node_size, KD_GPU_ADDRESS, &all));
    kd_comm_enter(comm, "gpu_addresses", 0);
    kd_comm_check(comm,
                  MPI_Allgather(address, KD_GPU_ADDRESS, MPI_BYTE, all, KD_GPU_ADDRESS,
                                MPI_BYTE, comm->node),
                  "MPI_Allgather");
    kd_comm_leave(comm);
    for (int r = 0; r < comm->node_size; r++)
        if (r != comm->node_rank && address[0] &&
            strcmp(all + (ptrdiff_t)r * KD_GPU_ADDRESS, address) == 0)
            *shares = 1;
    free(all);
    return KD_OK;
}

static int find_facts(struct kd_comm *comm, struct kd_backend *be, int64_t *facts)
{
    char address[KD_GPU_ADDRESS] = "";
    int rc = KD_OK;

    facts[NO_GPU] = !has_gpu(be);
    facts[NO_NCCL] = facts[NO_GPU] || kd_nccl_missing();
    if (!facts[NO_NCCL])
        rc = kd_gpu_address(address);
    KD_ALL(comm, rc);
    KD_TRY(find_sharing(comm, address, &facts[SHARED_GPU]));
    return kd_allreduce_i64(comm, facts, N_FACTS, KD_MAX);
}

/* Why not nccl; NULL if it can be. */
static const char *against_nccl(struct kd_backend *be, const int64_t *facts)
{
    const char *missing = has_gpu(be) ? kd_nccl_missing() : NULL;

    if (facts[NO_GPU])
        return "not every rank has a GPU to compute on";
    if (facts[SHARED_GPU])
        return "ranks of a node share a GPU, which NCCL does not allow";
    if (facts[NO_NCCL])
        return missing ? missing : "another rank's machine lacks NCCL";
    return NULL;
}

/* Whether tensors of BE go from GPU to GPU; if not, why not. */
static int choose_nccl(struct kd_comm *comm, struct kd_backend *be, enum wish wish,
                       const char **against)
{
    int64_t facts[N_FACTS];

    *against = "KD_PLANE=mpi";
    if (wish == WISH_MPI || (wish == WISH_NONE && comm->size == 1))
        return KD_OK;
    KD_TRY(find_facts(comm, be, facts));
    *against = against_nccl(be, facts);
    if (wish == WISH_NCCL && *against)
        return KD_FAIL(KD_EINPUT, "KD_PLANE=nccl cannot be: %s", *against);
    return KD_OK;
}

int kd_comm_use_backend(struct kd_comm *comm, struct kd_backend *be)
{
    const char *against;
    enum wish wish;

    kd_comm_drop_backend(comm);
    KD_TRY(agree_on_wish(comm, &wish));
    KD_TRY(choose_nccl(comm, be, wish, &against));
    if (!against)
        KD_TRY(kd_nccl_open(comm, be));
    comm->plane = !against         ? &kd_plane_nccl
                  : comm->size > 1 ? &kd_plane_mpi
                                   : &plane_self;
    comm->be = be;
    comm->pins = has_gpu(be);
    if (!against)
        kd_info("ranks exchange tensors from GPU to GPU: %s", kd_comm_nccl_library());
    else if (comm->size > 1 && be->device != KD_CPU)
        kd_info("ranks exchange tensors through host memory: %s", against);
    return KD_OK;
}

void kd_comm_drop_backend(struct kd_comm *comm)
{
    kd_nccl_close(comm);
    kd_staging_free(comm);
    comm->be = NULL;
    comm->plane = NULL;
    comm->pins = false;
    comm->transfer_rc = KD_OK;
}

static const struct kd_plane *plane_of(const struct kd_comm *comm,
                                       const struct kd_backend *be)
{
    if (be && be == comm->be)
        return comm->plane;
    return comm->size > 1 ? &kd_plane_mpi : &plane_self;
}

const char *kd_comm_plane(const struct kd_comm *comm)
{
    return plane_of(comm, comm->be)->name;
}

/* ---- the verbs ---- */

static int start(struct kd_comm *comm, struct kd_backend *be, struct kd_tensor t,
                 enum kd_transfer_kind kind, struct kd_transfer **out)
{
    struct kd_transfer what = {plane_of(comm, be), kind, be, t};

    *out = NULL;
    if ((kind == KD_TRANSFER_SUM || kind == KD_TRANSFER_SCATTER) &&
        t.dtype != KD_F32) /* the same on every rank */
        return KD_FAIL(KD_EINTERNAL, "sums over ranks are of float32, not %s",
                       kd_dtype_name(t.dtype));
    return what.plane->start(comm, &what, out);
}

int kd_allreduce_start(struct kd_comm *comm, struct kd_backend *be, struct kd_tensor t,
                       struct kd_transfer **out)
{
    return start(comm, be, t, KD_TRANSFER_SUM, out);
}

int kd_reduce_scatter_start(struct kd_comm *comm, struct kd_backend *be,
                            struct kd_tensor t, struct kd_transfer **out)
{
    return start(comm, be, t, KD_TRANSFER_SCATTER, out);
}

int kd_allgather_start(struct kd_comm *comm, struct kd_backend *be, struct kd_tensor t,
                       struct kd_transfer **out)
{
    return start(comm, be, t, KD_TRANSFER_GATHER, out);
}

int kd_transfer_finish(struct kd_comm *comm, struct kd_transfer *x)
{
    return x->plane->finish(comm, x);
}

int kd_transfer_status(const struct kd_comm *comm)
{
    return comm->transfer_rc;
}

int kd_comm_wait(struct kd_comm *comm, struct kd_backend *be)
{
    return plane_of(comm, be)->wait(comm, be);
}

static int transfer(struct kd_comm *comm, struct kd_backend *be, struct kd_tensor t,
                    enum kd_transfer_kind kind)
{
    struct kd_transfer *x = NULL;

    KD_TRY(start(comm, be, t, kind, &x));
    KD_TRY(kd_transfer_finish(comm, x));
    if (!plane_of(comm, be)->defers)
        return KD_OK;
    KD_ALL(comm, kd_transfer_status(comm));
    return kd_agree(comm, kd_comm_wait(comm, be));
}

int kd_allreduce_tensor(struct kd_comm *comm, struct kd_backend *be, struct kd_tensor t)
{
    return transfer(comm, be, t, KD_TRANSFER_SUM);
}

int kd_reduce_scatter_tensor(struct kd_comm *comm, struct kd_backend *be,
                             struct kd_tensor t)
{
    return transfer(comm, be, t, KD_TRANSFER_SCATTER);
}

int kd_allgather_tensor(struct kd_comm *comm, struct kd_backend *be, struct kd_tensor t)
{
    return transfer(comm, be, t, KD_TRANSFER_GATHER);
}

int kd_bcast_tensor(struct kd_comm *comm, struct kd_backend *be, struct kd_tensor t)
{
    return transfer(comm, be, t, KD_TRANSFER_BCAST);
}
