/* SPDX-License-Identifier: Apache-2.0 */
/* The data plane between GPUs.
 *
 * Transfers have a stream of their own, of the highest priority, beside the backend's
 * compute stream.  A start makes it wait for an event behind what the compute stream
 * has so far; a finish makes the compute stream wait for an event behind the transfer.
 * So transfers run while the backward pass goes on, and the host waits for nothing.
 *
 * Failures.  A start always tries to take part, whatever failed before, because the
 * other GPUs wait in the transfer; the first failure is kept (kd_transfer_status) and
 * meets the others in the update's one vote.  When that fails, every rank gives what is
 * under way a moment and then aborts it (kd_nccl_settle), so that GPUs which wait for a
 * rank that never came are free again before anyone frees memory.  What goes wrong
 * after the vote, in a kernel, in NCCL or in the network, shows at the update's one
 * wait (kd_comm_wait) and is known to some ranks only: it ends the job.  Every wait of
 * the host polls the event, NCCL's asynchronous error and a deadline; nothing here
 * synchronizes blindly.
 *
 * All ranks get the same bits: NCCL adds each value in one place and copies it. */
#include "kdhpc/base/log.h"
#include "kdhpc/base/mem.h"

#include "nccl_api.h"
#include "nccl_plane.h"

#include <cuda_runtime_api.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    POLLS_BEFORE_SLEEP = 2000, /* looks at an event before the core is given up */
    SLEEP_NS = 20000,
    LOOK_NS = 5000000,   /* between votes while GPUs connect */
    POLLS_PER_CHECK = 16 /* looks at an event per look at NCCL and the clock */
};

/* What may still end by itself after a failure, and NCCL's own ending, take less. */
static const double settle_s = 1.0;

struct nccl_transfer {
    struct kd_transfer base;
    cudaEvent_t done; /* behind it on the transfers' stream */
    struct nccl_transfer *next;
};

struct kd_nccl {
    const struct kd_nccl_api *api;
    ncclComm_t comm; /* NULL once aborted */
    cudaStream_t compute, stream;
    cudaEvent_t ready, end;      /* of the compute stream: at a start, at a wait */
    struct nccl_transfer *spare; /* finished ones, with their events */
    bool refused;      /* a call failed here: the next would meet the others' last */
    int64_t unsettled; /* transfers started since the last good wait, on all ranks */
};

/* ---- checks ---- */

static int check_cuda(cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return KD_OK;
    (void)cudaGetLastError();
    return KD_FAIL(error == cudaErrorMemoryAllocation ? KD_ENOMEM : KD_EINTERNAL,
                   "the GPU failed (%s, or a kernel before it): %s, %s", what,
                   cudaGetErrorString(error), cudaGetErrorName(error));
}

/* NCCL's last error is of the process and so may be asked for without a communicator.
 */
static int check_nccl(const struct kd_nccl *n, ncclResult_t result, const char *what)
{
    if (result == ncclSuccess || result == ncclInProgress)
        return KD_OK;
    return KD_FAIL(KD_EINTERNAL,
                   "NCCL failed (%s): %s (%s); NCCL_DEBUG=INFO in the "
                   "environment says more",
                   what, n->api->error_text(result), n->api->last_error(NULL));
}

static int no_more(void)
{
    return KD_FAIL(KD_EINTERNAL, "transfers between GPUs were aborted before");
}

/* Keep the first failure of this rank for the vote. */
static void keep(struct kd_comm *comm, int rc)
{
    if (!comm->transfer_rc)
        comm->transfer_rc = rc;
}

/* Free the GPU from what does not end; later transfers fail on this rank. */
static void abort_comm(struct kd_comm *comm)
{
    (void)comm->nccl->api->abort(comm->nccl->comm);
    comm->nccl->comm = NULL;
    keep(comm, KD_EINTERNAL);
}

/* ---- waiting ---- */

/* A wait of the host: what it looks at, and until when. */
struct wait {
    double began_s, bound_s; /* bound 0: none */
    int polls;
};

static struct wait wait_begin(double bound_s)
{
    return (struct wait){kd_now_s(), bound_s, 0};
}

static bool wait_expired(const struct wait *w)
{
    return w->bound_s > 0 && kd_now_s() - w->began_s > w->bound_s;
}

/* Let time pass: at once at first, for a step's wait is short, then asleep. */
static void wait_pause(struct wait *w)
{
    const struct timespec nap = {0, SLEEP_NS};

    if (++w->polls < POLLS_BEFORE_SLEEP)
        sched_yield();
    else
        nanosleep(&nap, NULL);
}

/* NCCL's own view: *BUSY while it still works on a call that it has taken. */
static int poll_nccl(struct kd_nccl *n, bool *busy)
{
    ncclResult_t state = ncclSuccess;

    KD_TRY(check_nccl(n, n->api->async_error(n->comm, &state), "asking for errors"));
    *busy = state == ncclInProgress;
    return check_nccl(n, state, "while transfers were under way");
}

/* This rank alone knows that what is under way will not end: say so, free the GPU, end
 * the job.  Also for a deadline, at which others may still wait in what never comes. */
static _Noreturn void end_job(struct kd_comm *comm)
{
    fprintf(stderr, "kdhpc: error: rank %d: %s\n", comm->rank, kd_error_get()->text);
    fflush(stderr);
    abort_comm(comm);
    kd_comm_abort(comm, kd_error_get()->code);
}

static _Noreturn void end_job_late(struct kd_comm *comm, double bound_s)
{
    kd_error_clear();
    (void)KD_FAIL(KD_EINTERNAL,
                  "a transfer between GPUs did not end within %.1f s: another rank or "
                  "its GPU is stuck, or the network is (raise --deadline_s if a rank's "
                  "work may take that long)",
                  bound_s);
    end_job(comm);
}

/* Wait until NCCL has put the last call on the stream; the first ones of a kind wait
 * for the other ranks, to connect. */
static int until_enqueued(struct kd_comm *comm)
{
    struct wait w = wait_begin(kd_watchdog_wait_s());
    bool busy = false;

    for (;;) {
        KD_TRY(poll_nccl(comm->nccl, &busy));
        if (!busy)
            return KD_OK;
        if (wait_expired(&w))
            end_job_late(comm, w.bound_s);
        wait_pause(&w);
    }
}

/* ---- transfers ---- */

static ncclResult_t first_failure(ncclResult_t a, ncclResult_t b)
{
    return a != ncclSuccess && a != ncclInProgress ? a : b;
}

static ncclResult_t post_scatter(struct kd_comm *comm, float *p, int64_t n)
{
    struct kd_nccl *c = comm->nccl;
    size_t each = (size_t)kd_comm_part(n, comm->size, 0).count;
    size_t even = each * (size_t)comm->size, rest = (size_t)n - even;
    ncclResult_t r = c->api->group_start();

    if (each)
        r = first_failure(r, c->api->reduce_scatter(p, p + each * (size_t)comm->rank,
                                                    each, ncclFloat32, ncclSum, c->comm,
                                                    c->stream));
    if (rest)
        r = first_failure(r,
                          c->api->reduce(p + even, p + even, rest, ncclFloat32, ncclSum,
                                         comm->size - 1, c->comm, c->stream));
    return first_failure(r, c->api->group_end());
}

static ncclResult_t post_gather(struct kd_comm *comm, char *p, int64_t n, size_t value)
{
    struct kd_nccl *c = comm->nccl;
    size_t each = (size_t)kd_comm_part(n, comm->size, 0).count * value;
    size_t even = each * (size_t)comm->size, rest = (size_t)n * value - even;
    ncclResult_t r = c->api->group_start();

    if (each)
        r = first_failure(r, c->api->all_gather(p + each * (size_t)comm->rank, p, each,
                                                ncclUint8, c->comm, c->stream));
    if (rest)
        r = first_failure(r, c->api->broadcast(p + even, p + even, rest, ncclUint8,
                                               comm->size - 1, c->comm, c->stream));
    return first_failure(r, c->api->group_end());
}

static ncclResult_t post(struct kd_comm *comm, const struct kd_transfer *x)
{
    struct kd_nccl *c = comm->nccl;
    int64_t n = kd_tensor_count(&x->t);
    void *p = x->t.data;

    switch (x->kind) {
    case KD_TRANSFER_SUM:
        return c->api->all_reduce(p, p, (size_t)n, ncclFloat32, ncclSum, c->comm,
                                  c->stream);
    case KD_TRANSFER_SCATTER:
        return post_scatter(comm, p, n);
    case KD_TRANSFER_GATHER:
        return post_gather(comm, p, n, kd_dtype_bytes(x->t.dtype));
    case KD_TRANSFER_BCAST:
        break;
    }
    return c->api->broadcast(p, p, kd_tensor_bytes(&x->t), ncclUint8, 0, c->comm,
                             c->stream);
}

/* Make stream LATER wait for all that stream FIRST has so far. */
static int order(cudaStream_t first, cudaEvent_t event, cudaStream_t later)
{
    KD_TRY(check_cuda(cudaEventRecord(event, first), "recording an event"));
    return check_cuda(cudaStreamWaitEvent(later, event, 0), "waiting for an event");
}

/* Tries to take part even if the order failed, for the others wait; but not once it has
 * missed a transfer, for the next would meet the one that they are in. */
static int enqueue(struct kd_comm *comm, struct nccl_transfer *x)
{
    struct kd_nccl *n = comm->nccl;
    int ordered, rc;

    if (!n->comm || n->refused)
        return no_more();
    ordered = order(n->compute, n->ready, n->stream);
    rc = check_nccl(n, post(comm, &x->base), "starting a transfer");
    if (!rc)
        rc = until_enqueued(comm);
    n->refused = rc != KD_OK;
    if (!rc)
        rc = check_cuda(cudaEventRecord(x->done, n->stream), "recording an event");
    return ordered ? ordered : rc;
}

/* A transfer with its event; after a failure to make one, without. */
static struct nccl_transfer *take(struct kd_comm *comm, const struct kd_transfer *what)
{
    struct nccl_transfer *x = comm->nccl->spare;

    if (x) {
        comm->nccl->spare = x->next;
        x->base = *what;
        return x;
    }
    x = kd_transfer_new(comm, sizeof *x, what);
    keep(comm, check_cuda(cudaEventCreateWithFlags(&x->done, cudaEventDisableTiming),
                          "making an event"));
    return x;
}

static int nccl_start(struct kd_comm *comm, const struct kd_transfer *what,
                      struct kd_transfer **out)
{
    struct nccl_transfer *x = take(comm, what);

    if (kd_tensor_count(&what->t) > 0) {
        kd_comm_enter(comm, "transfer_start", kd_tensor_count(&what->t));
        comm->nccl->unsettled++;
        keep(comm, enqueue(comm, x));
        kd_comm_leave(comm);
    }
    *out = &x->base;
    return KD_OK;
}

static int nccl_finish(struct kd_comm *comm, struct kd_transfer *base)
{
    struct nccl_transfer *x = (struct nccl_transfer *)base;
    struct kd_nccl *n = comm->nccl;

    if (kd_tensor_count(&base->t) > 0)
        keep(comm, check_cuda(cudaStreamWaitEvent(n->compute, x->done, 0),
                              "waiting for a transfer"));
    x->next = n->spare;
    n->spare = x;
    return KD_OK;
}

/* Poll until EVENT has come; ends the job instead of failing. */
static void until_event(struct kd_comm *comm, cudaEvent_t event)
{
    struct wait w = wait_begin(kd_watchdog_wait_s());
    cudaError_t state;
    bool busy;

    while ((state = cudaEventQuery(event)) == cudaErrorNotReady) {
        if (w.polls % POLLS_PER_CHECK == 0) {
            if (poll_nccl(comm->nccl, &busy))
                end_job(comm);
            if (wait_expired(&w))
                end_job_late(comm, w.bound_s);
        }
        wait_pause(&w);
    }
    if (check_cuda(state, "waiting for the GPU"))
        end_job(comm);
}

static int nccl_wait(struct kd_comm *comm, struct kd_backend *be)
{
    struct kd_nccl *n = comm->nccl;

    (void)be;
    if (!n->comm)
        return no_more();
    kd_comm_enter(comm, "transfer_wait", 0);
    if (check_cuda(cudaEventRecord(n->end, n->compute), "recording an event"))
        end_job(comm);
    until_event(comm, n->end);
    kd_comm_leave(comm);
    n->unsettled = 0;
    return KD_OK;
}

const struct kd_plane kd_plane_nccl = {.name = "nccl",
                                       .defers = true,
                                       .start = nccl_start,
                                       .finish = nccl_finish,
                                       .wait = nccl_wait};

/* ---- opening ---- */

const char *kd_nccl_missing(void)
{
    const char *missing = NULL;

    return kd_nccl_load(&missing) ? NULL : missing;
}

const char *kd_comm_nccl_library(void)
{
    static char text[256];
    const char *missing = "";
    const struct kd_nccl_api *api;
    int version = 0, n = 0;

    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) {
        (void)cudaGetLastError();
        snprintf(text, sizeof text, "built for %d.%d, not used: no device", NCCL_MAJOR,
                 NCCL_MINOR);
        return text;
    }
    api = kd_nccl_load(&missing);
    if (!api || api->version(&version) != ncclSuccess)
        snprintf(text, sizeof text, "built for %d.%d, not usable: %s", NCCL_MAJOR,
                 NCCL_MINOR, missing);
    else
        snprintf(text, sizeof text, "NCCL %d.%d.%d", version / 10000,
                 version / 100 % 100, version % 100);
    return text;
}

int kd_gpu_address(char address[KD_GPU_ADDRESS])
{
    int device = 0;

    address[0] = '\0';
    KD_TRY(check_cuda(cudaGetDevice(&device), "asking for the GPU in use"));
    return check_cuda(cudaDeviceGetPCIBusId(address, KD_GPU_ADDRESS, device),
                      "asking for the GPU's address");
}

int kd_pinned_alloc(size_t bytes, void **out)
{
    *out = NULL;
    return check_cuda(cudaMallocHost(out, bytes), "pinning memory");
}

void kd_pinned_free(void *p)
{
    (void)cudaFreeHost(p); /* fails only after an error that was reported */
}

static int open_streams(struct kd_nccl *n)
{
    int least = 0, most = 0;

    KD_TRY(check_cuda(cudaDeviceGetStreamPriorityRange(&least, &most),
                      "asking for priorities"));
    KD_TRY(check_cuda(
        cudaStreamCreateWithPriority(&n->stream, cudaStreamNonBlocking, most),
        "making a stream"));
    KD_TRY(check_cuda(cudaEventCreateWithFlags(&n->ready, cudaEventDisableTiming),
                      "making an event"));
    return check_cuda(cudaEventCreateWithFlags(&n->end, cudaEventDisableTiming),
                      "making an event");
}

static int open_local(struct kd_comm *comm, struct kd_backend *be)
{
    const char *missing = "";
    struct kd_nccl *n;

    KD_TRY(kd_calloc(1, sizeof *n, &comm->nccl));
    n = comm->nccl;
    n->api = kd_nccl_load(&missing);
    if (!n->api)
        return KD_FAIL(KD_EINPUT, "%s", missing);
    n->compute = be->ops->stream(be);
    return open_streams(n);
}

/* Begin to connect; returns before the other ranks have come. */
static int connect_local(struct kd_comm *comm, ncclUniqueId id)
{
    struct kd_nccl *n = comm->nccl;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;

    config.blocking = 0;
    return check_nccl(n, n->api->init(&n->comm, comm->size, id, comm->rank, &config),
                      "connecting the ranks' GPUs");
}

/* Ranks connect in the background while they vote again and again on how it goes, so
 * that one that fails leads all out. */
static int until_connected(struct kd_comm *comm, int rc)
{
    const struct timespec nap = {0, LOOK_NS};
    struct wait w = wait_begin(kd_watchdog_wait_s());

    for (;;) {
        bool busy = false;
        int64_t open;

        if (!rc)
            rc = poll_nccl(comm->nccl, &busy);
        if (!rc && busy && wait_expired(&w))
            rc = KD_FAIL(KD_EINTERNAL, "the ranks' GPUs did not connect within %.1f s",
                         w.bound_s);
        KD_ALL(comm, rc);
        open = busy;
        KD_TRY(kd_allreduce_i64(comm, &open, 1, KD_MAX));
        if (!open)
            return KD_OK;
        nanosleep(&nap, NULL);
    }
}

int kd_nccl_open(struct kd_comm *comm, struct kd_backend *be)
{
    ncclUniqueId id = {0};
    int rc = KD_OK;

    KD_ALL_GO(comm, open_local(comm, be));
    KD_ALL_GO(comm, comm->rank == 0
                        ? check_nccl(comm->nccl, comm->nccl->api->unique_id(&id),
                                     "making an id")
                        : KD_OK);
    KD_GO(kd_bcast(comm, &id, sizeof id, 0));
    KD_GO(until_connected(comm, connect_local(comm, id)));
out:
    if (rc && comm->nccl && comm->nccl->comm)
        abort_comm(comm); /* half connected */
    if (rc)
        kd_nccl_close(comm);
    return rc;
}

/* ---- ending ---- */

/* Give what is under way a moment; whether it ended without an error. */
static bool ends_soon(struct kd_nccl *n)
{
    struct wait w = wait_begin(settle_s);

    for (;;) {
        ncclResult_t state = ncclSuccess;
        cudaError_t stream = cudaStreamQuery(n->stream);
        bool asked = n->api->async_error(n->comm, &state) == ncclSuccess;

        if (!asked || (state != ncclSuccess && state != ncclInProgress) ||
            (stream != cudaSuccess && stream != cudaErrorNotReady))
            return false;
        if (stream == cudaSuccess && state == ncclSuccess)
            return true;
        if (wait_expired(&w))
            return false;
        wait_pause(&w);
    }
}

void kd_nccl_settle(struct kd_comm *comm)
{
    struct kd_nccl *n = comm->nccl;
    int ends, all_end = 0;

    if (!n || !n->unsettled)
        return;
    ends = n->comm && !n->refused && ends_soon(n);
    kd_comm_check(comm,
                  MPI_Allreduce(&ends, &all_end, 1, MPI_INT, MPI_MIN, comm->world),
                  "MPI_Allreduce");
    n->unsettled = 0;
    if (n->comm && !all_end)
        abort_comm(comm);
}

/* The ordinary end, which tells the other GPUs; else the hard one. */
static void disconnect(struct kd_nccl *n)
{
    ncclResult_t r = n->comm ? n->api->finalize(n->comm) : ncclSuccess;

    if (!n->comm)
        return;
    if ((r == ncclSuccess || r == ncclInProgress) && !n->refused && ends_soon(n))
        (void)n->api->destroy(n->comm);
    else
        (void)n->api->abort(n->comm);
    n->comm = NULL;
}

static void free_transfers(struct kd_nccl *n)
{
    while (n->spare) {
        struct nccl_transfer *x = n->spare;

        n->spare = x->next;
        if (x->done)
            (void)cudaEventDestroy(x->done);
        free(x);
    }
}

void kd_nccl_close(struct kd_comm *comm)
{
    struct kd_nccl *n = comm->nccl;

    if (!n)
        return;
    disconnect(n);
    free_transfers(n);
    if (n->end)
        (void)cudaEventDestroy(n->end);
    if (n->ready)
        (void)cudaEventDestroy(n->ready);
    if (n->stream)
        (void)cudaStreamDestroy(n->stream);
    free(n);
    comm->nccl = NULL;
}
