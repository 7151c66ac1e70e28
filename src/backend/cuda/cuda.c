/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA backend: its table, its device, memory and transfers.
 *
 * A process has one such backend, or several on one device: the device is chosen when
 * the backend is made, for the thread that makes it.
 * All work goes to one stream that does not wait for the default stream.  Uploads are
 * copied into a ring of pinned chunks first, so that they are asynchronous and the
 * caller may change its memory at once; a chunk is waited for only when the ring has
 * come round to it.  Errors of CUDA that belong to an earlier kernel come up in
 * whatever call is next; they are sticky, so the line says so and the run ends. */
#include "cuda_impl.h"

#include "cuda_lt.h"
#include "kdhpc/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OLDEST_MAJOR = 8 }; /* compute capability: bfloat16 and asynchronous copies */

static double mebibytes(size_t bytes)
{
    return (double)bytes / 1048576.0;
}

int cuda_check(cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return KD_OK;
    (void)cudaGetLastError(); /* what is not sticky must not come up again */
    if (error == cudaErrorMemoryAllocation)
        return KD_FAIL(KD_ENOMEM,
                       "the GPU is out of memory (%s): use smaller batches "
                       "(max_tokens_per_batch, train_batch_size, eval_batch_size)",
                       what);
    return KD_FAIL(KD_EINTERNAL,
                   "the GPU failed (%s, or a kernel before it): %s, %s; "
                   "CUDA_LAUNCH_BLOCKING=1 in the environment shows which",
                   what, cudaGetErrorString(error), cudaGetErrorName(error));
}

int cuda_check_launch(const char *what)
{
    return cuda_check(cudaGetLastError(), what);
}

static int slot_alloc(struct kd_backend *be, size_t bytes, void **out)
{
    size_t free_bytes = 0, total_bytes = 0;
    cudaError_t error = cudaMalloc(out, bytes ? bytes : 1);

    if (error != cudaErrorMemoryAllocation)
        return cuda_check(error, "allocating memory");
    *out = NULL;
    (void)cudaGetLastError();
    KD_TRY(cuda_check(cudaMemGetInfo(&free_bytes, &total_bytes), "asking for memory"));
    return KD_FAIL(KD_ENOMEM,
                   "cannot allocate %.1f MiB on GPU %d, of whose %.0f MiB %.1f MiB are "
                   "free: use smaller batches (max_tokens_per_batch, train_batch_size, "
                   "eval_batch_size)",
                   mebibytes(bytes), cuda_of(be)->device, mebibytes(total_bytes),
                   mebibytes(free_bytes));
}

static void slot_free(struct kd_backend *be, void *p)
{
    (void)be;
    (void)cudaFree(p); /* fails only after an error that was reported */
}

/* *AT = room for some of the N bytes that are left to upload, *N = how many. */
static int stage(struct kd_backend *be, size_t *n, char **at)
{
    struct cuda_staging *s = &cuda_of(be)->staging;
    size_t room = CUDA_STAGE_BYTES - s->used;

    if (room == 0) {
        KD_TRY(cuda_check(cudaEventRecord(s->done[s->chunk], cuda_stream(be)),
                          "uploading"));
        s->chunk = (s->chunk + 1) % CUDA_STAGES;
        KD_TRY(cuda_check(cudaEventSynchronize(s->done[s->chunk]), "uploading"));
        s->used = 0;
        room = CUDA_STAGE_BYTES;
    }
    *n = *n < room ? *n : room;
    *at = s->data + (size_t)s->chunk * CUDA_STAGE_BYTES + s->used;
    s->used += *n;
    return KD_OK;
}

static int slot_upload(struct kd_backend *be, void *dst, const void *src, size_t bytes)
{
    for (size_t first = 0; first < bytes;) {
        size_t n = bytes - first;
        char *at;

        KD_TRY(stage(be, &n, &at));
        memcpy(at, (const char *)src + first, n);
        KD_TRY(cuda_check(cudaMemcpyAsync((char *)dst + first, at, n,
                                          cudaMemcpyHostToDevice, cuda_stream(be)),
                          "uploading"));
        first += n;
    }
    return KD_OK;
}

static int slot_sync(struct kd_backend *be)
{
    return cuda_check(cudaStreamSynchronize(cuda_stream(be)), "waiting for the GPU");
}

/* Small results come through pinned memory, which saves the driver's own staging. */
static int slot_download(struct kd_backend *be, void *dst, const void *src,
                         size_t bytes)
{
    bool small = bytes <= CUDA_RESULT_BYTES;

    if (bytes == 0)
        return slot_sync(be);
    KD_TRY(cuda_check(cudaMemcpyAsync(small ? cuda_of(be)->result : dst, src, bytes,
                                      cudaMemcpyDeviceToHost, cuda_stream(be)),
                      "downloading"));
    KD_TRY(slot_sync(be));
    if (small)
        memcpy(dst, cuda_of(be)->result, bytes);
    return KD_OK;
}

static int slot_copy(struct kd_backend *be, void *dst, const void *src, size_t bytes)
{
    if (bytes == 0)
        return KD_OK;
    return cuda_check(
        cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, cuda_stream(be)),
        "copying");
}

static int slot_zero(struct kd_backend *be, void *dst, size_t bytes)
{
    if (bytes == 0)
        return KD_OK;
    return cuda_check(cudaMemsetAsync(dst, 0, bytes, cuda_stream(be)), "zeroing");
}

static void *slot_stream(struct kd_backend *be)
{
    return cuda_stream(be);
}

static int slot_mem_info(struct kd_backend *be, size_t *free_bytes, size_t *total_bytes)
{
    (void)be;
    return cuda_check(cudaMemGetInfo(free_bytes, total_bytes), "asking for memory");
}

int cuda_scratch(struct kd_backend *be, size_t bytes, void **out)
{
    struct cuda *cuda = cuda_of(be);

    if (bytes > cuda->scratch_bytes) {
        KD_TRY(slot_sync(be));
        cuda_graphs_forget(cuda); /* they name the old one */
        slot_free(be, cuda->scratch);
        cuda->scratch = NULL;
        cuda->scratch_bytes = 0;
        bytes += bytes / 4;
        KD_TRY(slot_alloc(be, bytes, &cuda->scratch));
        cuda->scratch_bytes = bytes;
    }
    *out = cuda->scratch;
    return KD_OK;
}

int cuda_allow_shared(const void *kernel, size_t bytes)
{
    return cuda_check(cudaFuncSetAttribute(kernel,
                                           cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           (int)bytes),
                      "asking for shared memory");
}

static void slot_destroy(struct kd_backend *be)
{
    struct cuda *cuda = cuda_of(be);

    if (cuda->stream)
        (void)cudaStreamSynchronize(cuda->stream);
    cuda_graphs_close(cuda);
    cuda_blas_close(cuda);
    (void)cudaFree(cuda->scratch);
    for (int i = 0; i < CUDA_STAGES; i++) {
        if (cuda->staging.done[i])
            (void)cudaEventDestroy(cuda->staging.done[i]);
    }
    (void)cudaFreeHost(cuda->staging.data);
    (void)cudaFreeHost(cuda->result);
    if (cuda->stream)
        (void)cudaStreamDestroy(cuda->stream);
    free(cuda);
}

static const struct kd_backend_ops cuda_ops = {
    .name = "cuda",
    .destroy = slot_destroy,
    .alloc = slot_alloc,
    .free = slot_free,
    .upload = slot_upload,
    .download = slot_download,
    .copy = slot_copy,
    .zero = slot_zero,
    .sync = slot_sync,
    .stream = slot_stream,
    .mem_info = slot_mem_info,
    .graph_begin = cuda_graph_begin,
    .graph_end = cuda_graph_end,
    .graph_drop = cuda_graph_drop,
    .gemm = cuda_gemm,
    .col_sum = cuda_col_sum,
    .attention = cuda_attention,
    .attention_back = cuda_attention_back,
    .attention_cached = cuda_attention_cached,
    .advance_slots = cuda_advance_slots,
    .add = cuda_add,
    .axpy = cuda_axpy,
    .scale = cuda_scale,
    .act = cuda_act,
    .act_back = cuda_act_back,
    .glu = cuda_glu,
    .glu_back = cuda_glu_back,
    .dropout = cuda_dropout,
    .cast = cuda_cast,
    .norm = cuda_norm,
    .norm_back = cuda_norm_back,
    .gather_rows = cuda_gather_rows,
    .scatter_add_rows = cuda_scatter_add_rows,
    .log_softmax = cuda_log_softmax,
    .log_sum = cuda_log_sum,
    .topk = cuda_topk,
    .edit_scores = cuda_edit_scores,
    .sample = cuda_sample,
    .vocab_loss = cuda_vocab_loss,
    .mse_rows = cuda_mse_rows,
    .adamw = cuda_adamw,
    .adafactor = cuda_adafactor,
    .sum_sq = cuda_sum_sq,
};

int kd_cuda_devices(void)
{
    int n = 0, usable = 0, major = 0;
    const char *missing;

    if (cudaGetDeviceCount(&n) != cudaSuccess) {
        (void)cudaGetLastError();
        return 0;
    }
    if (n > 0 && !cuda_lt_load(&missing))
        return 0;
    while (usable < n &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, usable) ==
               cudaSuccess &&
           major >= OLDEST_MAJOR)
        usable++;
    return usable;
}

/* Device INDEX exists, is new enough, and the library for products is there. */
static int check_device(int index, struct cudaDeviceProp *p)
{
    const char *missing = "";
    int n = 0;
    cudaError_t error = cudaGetDeviceCount(&n);

    if (error != cudaSuccess) {
        (void)cudaGetLastError();
        return KD_FAIL(KD_EINPUT, "no GPU can be used: %s (device = cpu runs without)",
                       cudaGetErrorString(error));
    }
    if (index < 0 || index >= n)
        return KD_FAIL(KD_EINPUT, "there is no GPU %d: this process sees %d", index, n);
    KD_TRY(cuda_check(cudaGetDeviceProperties(p, index), "asking what the GPU is"));
    if (p->major < OLDEST_MAJOR)
        return KD_FAIL(KD_EINPUT,
                       "GPU %d (%s) has compute capability %d.%d: %d.0 or newer is "
                       "needed",
                       index, p->name, p->major, p->minor, OLDEST_MAJOR);
    if (!cuda_lt_load(&missing))
        return KD_FAIL(KD_EINPUT, "the GPU needs cuBLASLt: %s", missing);
    return KD_OK;
}

/* *OUT = BYTES of host memory that the device reads and writes itself. */
static int pin(size_t bytes, void *out)
{
    void *p = NULL;
    cudaError_t error = cudaMallocHost(&p, bytes);

    if (error == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return KD_FAIL(KD_ENOMEM,
                       "cannot pin %.1f MiB of host memory for transfers to the GPU: "
                       "the machine, or this job's share of it, has no more",
                       mebibytes(bytes));
    }
    KD_TRY(cuda_check(error, "pinning memory"));
    memcpy(out, &p, sizeof p);
    return KD_OK;
}

static int open_memory(struct cuda *cuda)
{
    struct cuda_staging *s = &cuda->staging;

    KD_TRY(cuda_check(cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking),
                      "making a stream"));
    KD_TRY(pin(CUDA_RESULT_BYTES, &cuda->result));
    KD_TRY(pin((size_t)CUDA_STAGES * CUDA_STAGE_BYTES, &s->data));
    for (int i = 0; i < CUDA_STAGES; i++)
        KD_TRY(cuda_check(cudaEventCreateWithFlags(&s->done[i], cudaEventDisableTiming),
                          "making an event"));
    return KD_OK;
}

int kd_backend_cuda(int index, struct kd_backend **out)
{
    struct cudaDeviceProp p;
    struct cuda *cuda = NULL;
    int rc = KD_OK;

    *out = NULL;
    KD_TRY(check_device(index, &p));
    KD_TRY(cuda_check(cudaSetDevice(index), "choosing the GPU"));
    KD_TRY(kd_calloc(1, sizeof *cuda, &cuda));
    cuda->base = (struct kd_backend){&cuda_ops, KD_CUDA, 1, cuda};
    cuda->device = index;
    cuda->n_sm = p.multiProcessorCount;
    cuda->shared_bytes = p.sharedMemPerBlockOptin;
    KD_GO(open_memory(cuda));
    KD_GO(cuda_graphs_open(cuda));
    KD_GO(cuda_blas_open(cuda));
    *out = &cuda->base;
    cuda = NULL;
out:
    if (cuda)
        slot_destroy(&cuda->base);
    return rc;
}

void kd_backend_cuda_tf32(struct kd_backend *be, bool on)
{
    if (be->device != KD_CUDA)
        return;
    cuda_graph_drop(be); /* they hold products of the other kind */
    cuda_of(be)->tf32 = on;
}

const char *kd_backend_cuda_library(void)
{
    static char text[512];
    struct cudaDeviceProp p;
    int driver = 0, n = 0;
    const char *missing = "";
    int used = snprintf(text, sizeof text, "CUDA %d.%d for %s", CUDART_VERSION / 1000,
                        CUDART_VERSION % 1000 / 10, KD_CUDA_ARCHITECTURES);
    char *rest = text + used;
    size_t room = sizeof text - (size_t)used;
    const struct cuda_lt *lt;

    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0 ||
        cudaGetDeviceCount(&n) != cudaSuccess || n == 0 ||
        cudaGetDeviceProperties(&p, 0) != cudaSuccess) {
        (void)cudaGetLastError();
        snprintf(rest, room, driver ? ", no device" : ", no driver");
        return text;
    }
    lt = cuda_lt_load(&missing);
    if (lt)
        snprintf(rest, room, ", driver %d.%d, cuBLASLt %zu, %d x %s", driver / 1000,
                 driver % 1000 / 10, lt->version(), n, p.name);
    else
        snprintf(rest, room, ", driver %d.%d, %d x %s, not usable: %s", driver / 1000,
                 driver % 1000 / 10, n, p.name, missing);
    return text;
}
