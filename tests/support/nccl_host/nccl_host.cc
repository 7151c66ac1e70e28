// SPDX-License-Identifier: Apache-2.0
/* A stand-in for NCCL between processes of one machine, on emulated streams.
 *
 * Ranks meet in POSIX shared memory that is named by the unique id.  A collective goes
 * in chunks: every rank writes its chunk and says so, and once all have, each combines
 * them, sums in rank order.  Two buffers alternate, so that a rank may be a chunk
 * ahead.  Nothing here waits: a collective is an item on its stream (stream.cc) which
 * advances when somebody looks.
 *
 * As the real one does without blocking, a call or group returns "in progress" and puts
 * its work on the stream only some looks at the asynchronous error later; a call in
 * between is refused.  An abort drops what is under way on this rank.
 *
 * KD_NCCL_HOST=KIND:RANK:N in the environment makes one rank fail: "init" (the call),
 * "connect" (after it), "call" (the N-th collective, from 0, is refused), "async" (an
 * asynchronous error after it has started; it never ends), "device" (the device fails
 * in it). */
#include "nccl.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

extern "C" {
#include "nccl_api.h"
}

namespace
{

constexpr int MAX_RANKS = 8, LOOKS = 3; /* looks until a call has been taken */
constexpr size_t CHUNK = 1 << 16;

enum kind { ALL_REDUCE, REDUCE_SCATTER, REDUCE, ALL_GATHER, BROADCAST };

struct shape { /* what must be the same on every rank */
    int64_t what, count, type, root, at;
};

struct place {
    std::atomic<uint64_t> posted, taken; /* chunks */
    shape shapes[2];
    alignas(16) char data[2][CHUNK];
};

struct room {
    std::atomic<int> came;
    place ranks[MAX_RANKS];
};

struct fault {
    std::string kind;
    int rank = -1;
    long n = 0;
};

struct state {
    room *shared = nullptr;
    std::string name;
    int rank = 0, size = 0;
    uint64_t chunks = 0; /* combined here */
    int busy = 0;        /* looks until the last call has been taken */
    long calls = 0;
    bool aborted = false, finalized = false, connected = false;
    ncclResult_t error = ncclSuccess;
    fault injected;
    std::deque<struct work *> waiting; /* taken calls, not yet on a stream */
    int on_stream = 0;

    ~state()
    {
        munmap(shared, sizeof *shared);
    }
};

struct work {
    std::shared_ptr<state> of;
    kind what;
    const char *send;
    char *recv;
    size_t bytes, value; /* of what a rank sends, of one value */
    int type, root;
    cudaStream_t stream;
    size_t at = 0; /* bytes done */
    bool posted = false, broken = false, lost = false;
};

int group_depth;
std::vector<work *> group;

bool sends(const work &w)
{
    return w.what != BROADCAST || w.of->rank == w.root;
}

/* Write this rank's next chunk, if its buffer is free again. */
bool post(work &w, size_t n)
{
    state &s = *w.of;
    place &mine = s.shared->ranks[s.rank];
    int set = (int)(s.chunks & 1);

    for (int r = 0; r < s.size; r++)
        if (s.shared->ranks[r].taken.load(std::memory_order_acquire) + 1 < s.chunks)
            return false;
    mine.shapes[set] = {w.what, (int64_t)w.bytes, w.type, w.root, (int64_t)w.at};
    if (sends(w))
        memcpy(mine.data[set], w.send + w.at, n);
    mine.posted.store(s.chunks + 1, std::memory_order_release);
    return true;
}

bool all_posted(const state &s)
{
    for (int r = 0; r < s.size; r++)
        if (s.shared->ranks[r].posted.load(std::memory_order_acquire) < s.chunks + 1)
            return false;
    return true;
}

bool same_shapes(const state &s)
{
    int set = (int)(s.chunks & 1);

    for (int r = 0; r < s.size; r++)
        if (memcmp(&s.shared->ranks[r].shapes[set],
                   &s.shared->ranks[s.rank].shapes[set], sizeof(shape)) != 0)
            return false;
    return true;
}

/* Sum the chunk of N bytes; FROM and TO bound what this rank keeps, OUT is where
 * FROM's value goes. */
void sum_chunk(const work &w, size_t n, size_t from, size_t to, char *out)
{
    const state &s = *w.of;
    int set = (int)(s.chunks & 1);

    for (size_t b = 0; b < n; b += sizeof(float)) {
        float sum = 0.0f, v;

        if (w.at + b < from || w.at + b >= to)
            continue;
        for (int r = 0; r < s.size; r++) {
            memcpy(&v, s.shared->ranks[r].data[set] + b, sizeof v);
            sum = r ? sum + v : v;
        }
        memcpy(out + (w.at + b - from), &sum, sizeof sum);
    }
}

void combine(work &w, size_t n)
{
    state &s = *w.of;
    int set = (int)(s.chunks & 1);
    size_t part = w.bytes / (size_t)s.size;

    switch (w.what) {
    case ALL_REDUCE:
        sum_chunk(w, n, 0, w.bytes, w.recv);
        break;
    case REDUCE_SCATTER:
        sum_chunk(w, n, part * (size_t)s.rank, part * (size_t)(s.rank + 1), w.recv);
        break;
    case REDUCE:
        if (s.rank == w.root)
            sum_chunk(w, n, 0, w.bytes, w.recv);
        break;
    case ALL_GATHER:
        for (int r = 0; r < s.size; r++)
            memcpy(w.recv + (size_t)r * w.bytes + w.at, s.shared->ranks[r].data[set],
                   n);
        break;
    case BROADCAST:
        memcpy(w.recv + w.at, s.shared->ranks[w.root].data[set], n);
        break;
    }
    s.shared->ranks[s.rank].taken.store(++s.chunks, std::memory_order_release);
}

/* One more chunk; whether there was one to do. */
bool step(work &w)
{
    state &s = *w.of;
    size_t n = std::min(CHUNK, w.bytes - w.at);

    if (!w.posted)
        w.posted = post(w, n);
    if (!w.posted || !all_posted(s))
        return false;
    if (!same_shapes(s)) {
        fprintf(stderr, "stand-in for NCCL: rank %d's collective is not the others'\n",
                s.rank);
        abort();
    }
    combine(w, n);
    w.at += n;
    w.posted = false;
    return true;
}

int advance(void *arg)
{
    work *w = static_cast<work *>(arg);

    if (w->lost)
        kd_host_lose_device();
    while (!w->of->aborted && w->at < w->bytes)
        if (w->broken || w->lost || !step(*w))
            return 0;
    w->of->on_stream--;
    delete w;
    return 1;
}

fault read_fault()
{
    const char *text = getenv("KD_NCCL_HOST");
    char kind[16] = "";
    fault f;

    if (text && sscanf(text, "%15[a-z]:%d:%ld", kind, &f.rank, &f.n) >= 2)
        f.kind = kind;
    return f;
}

bool is_due(const state &s, const char *kind, long n)
{
    return s.injected.kind == kind && s.injected.rank == s.rank && s.injected.n == n;
}

/* The calls of a group, or one call, have been made. */
ncclResult_t take(std::vector<work *> calls)
{
    if (calls.empty())
        return ncclSuccess;
    state &s = *calls[0]->of;

    for (work *w : calls)
        s.waiting.push_back(w);
    s.busy = LOOKS;
    return ncclInProgress;
}

} // namespace

struct ncclComm {
    std::shared_ptr<state> s;
};

namespace
{

ncclResult_t call(ncclComm_t comm, kind what, const void *send, void *recv,
                  size_t count, ncclDataType_t type, int root, cudaStream_t stream)
{
    std::shared_ptr<state> s = comm->s;
    size_t value = type == ncclFloat32 ? sizeof(float) : 1;
    long n = s->calls++;

    if (s->busy || !s->connected || s->aborted || s->finalized)
        return ncclInvalidUsage;
    if (is_due(*s, "call", n))
        return ncclUnhandledCudaError;
    work *w = new work{s,
                       what,
                       static_cast<const char *>(send),
                       static_cast<char *>(recv),
                       count * value,
                       value,
                       (int)type,
                       root,
                       stream};
    w->broken = is_due(*s, "async", n);
    w->lost = is_due(*s, "device", n);
    if (group_depth) {
        group.push_back(w);
        return ncclSuccess;
    }
    return take({w});
}

/* The calls taken go on their streams. */
void release(state &s)
{
    for (work *w : s.waiting) {
        if (w->broken)
            s.error = ncclRemoteError;
        s.on_stream++;
        kd_host_stream_push(w->stream, advance, w);
    }
    s.waiting.clear();
}

bool connect(state &s)
{
    s.connected = s.shared->came.load() == s.size;
    return s.connected;
}

} // namespace

ncclResult_t ncclGetVersion(int *version)
{
    *version = 20000;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    static int n;

    snprintf(id->internal, sizeof id->internal, "/kdhpc-nccl-host-%ld-%d",
             (long)getpid(), n++);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    return result == ncclSuccess ? "no error" : "emulated failure";
}

const char *ncclGetLastError(ncclComm_t)
{
    return "stand-in";
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int n_ranks, ncclUniqueId id,
                                    int rank, ncclConfig_t *config)
{
    auto s = std::make_shared<state>();
    int fd;

    s->injected = read_fault();
    s->rank = rank;
    s->size = n_ranks;
    s->name = id.internal;
    if (is_due(*s, "init", 0) || n_ranks > MAX_RANKS || config->blocking)
        return ncclSystemError;
    fd = shm_open(id.internal, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(room)))
        return ncclSystemError;
    void *at = mmap(nullptr, sizeof(room), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED)
        return ncclSystemError;
    s->shared = static_cast<room *>(at);
    if (is_due(*s, "connect", 0))
        s->error = ncclRemoteError;
    else if (s->shared->came.fetch_add(1) + 1 == n_ranks)
        shm_unlink(id.internal);
    *comm = new ncclComm{s};
    return ncclInProgress;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    if (comm->s->busy || comm->s->finalized)
        return ncclInvalidUsage;
    comm->s->finalized = true;
    return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    if (!comm->s->finalized || comm->s->on_stream) {
        fprintf(stderr, "stand-in for NCCL: destroyed with work under way\n");
        abort();
    }
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    comm->s->aborted = true;
    for (work *w : comm->s->waiting)
        delete w;
    comm->s->waiting.clear();
    shm_unlink(comm->s->name.c_str()); /* where not all came */
    delete comm;
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    state &s = *comm->s;

    *error = s.error;
    if (s.error != ncclSuccess)
        return ncclSuccess;
    if (!s.connected && !connect(s))
        *error = ncclInProgress;
    else if (s.busy && --s.busy)
        *error = ncclInProgress;
    else
        release(s);
    if (s.finalized && s.on_stream)
        *error = ncclInProgress;
    return ncclSuccess;
}

ncclResult_t ncclGroupStart(void)
{
    group_depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    if (group_depth-- != 1)
        return group_depth < 0 ? ncclInvalidUsage : ncclSuccess;
    return take(std::exchange(group, {}));
}

ncclResult_t ncclAllReduce(const void *send, void *recv, size_t count,
                           ncclDataType_t type, ncclRedOp_t, ncclComm_t comm,
                           cudaStream_t stream)
{
    return call(comm, ALL_REDUCE, send, recv, count, type, 0, stream);
}

ncclResult_t ncclReduceScatter(const void *send, void *recv, size_t recv_count,
                               ncclDataType_t type, ncclRedOp_t, ncclComm_t comm,
                               cudaStream_t stream)
{
    return call(comm, REDUCE_SCATTER, send, recv, recv_count * (size_t)comm->s->size,
                type, 0, stream);
}

ncclResult_t ncclReduce(const void *send, void *recv, size_t count, ncclDataType_t type,
                        ncclRedOp_t, int root, ncclComm_t comm, cudaStream_t stream)
{
    return call(comm, REDUCE, send, recv, count, type, root, stream);
}

ncclResult_t ncclAllGather(const void *send, void *recv, size_t send_count,
                           ncclDataType_t type, ncclComm_t comm, cudaStream_t stream)
{
    return call(comm, ALL_GATHER, send, recv, send_count, type, 0, stream);
}

ncclResult_t ncclBroadcast(const void *send, void *recv, size_t count,
                           ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream)
{
    return call(comm, BROADCAST, send, recv, count, type, root, stream);
}

/* What nccl_load.c finds in the library. */
const struct kd_nccl_api *kd_nccl_load(const char **missing)
{
    static const struct kd_nccl_api table = {
        ncclGetVersion,         ncclGetUniqueId,  ncclGetErrorString, ncclGetLastError,
        ncclCommInitRankConfig, ncclCommFinalize, ncclCommDestroy,    ncclCommAbort,
        ncclCommGetAsyncError,  ncclGroupStart,   ncclGroupEnd,       ncclAllReduce,
        ncclReduceScatter,      ncclReduce,       ncclAllGather,      ncclBroadcast};

    *missing = "";
    return &table;
}
