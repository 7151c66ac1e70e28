// SPDX-License-Identifier: Apache-2.0
/* The runtime's functions around the emulator's launches: devices, memory, streams.
 *
 * Memory is counted against a small device, so that running out can be tested, and
 * filled with NaN when allocated.  A copy or fill must stay inside one allocation and
 * name the direction that its pointers have, else the program ends with a line: a host
 * pointer where a device's belongs does not show by itself here.  Everything is done
 * before a call returns. */
#include "cuda_runtime.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <new>
#include <vector>

struct kd_host_graph;

namespace
{

constexpr size_t DEVICE_BYTES = (size_t)2 << 30, ALIGNMENT = 256;
constexpr int DEVICES = 3, SM_MAJOR = 9, SM_MINOR = 0, PROCESSORS = 4;

cudaError_t last_error;
int current_device;
size_t allocated;
kd_host_graph *capturing; /* of any stream, or null */
std::map<const char *, size_t> allocations;

/* Bytes from P to the end of its allocation; 0 if P is not the device's. */
size_t device_bytes(const void *p)
{
    const char *c = static_cast<const char *>(p);
    auto next = allocations.upper_bound(c);

    if (next == allocations.begin())
        return 0;
    --next;
    return c < next->first + next->second ? (size_t)(next->first + next->second - c)
                                          : 0;
}

void demand(const void *p, size_t bytes, bool on_device, const char *what)
{
    size_t there = device_bytes(p);

    if (bytes == 0 || (on_device ? there >= bytes : there == 0))
        return;
    fprintf(stderr, "emulated device: the %s of %zu bytes at %p is not inside %s\n",
            what, bytes, p, on_device ? "one allocation of the device" : "host memory");
    abort();
}

} // namespace

struct kd_host_graph {
    std::vector<std::function<void()>> work;
    bool valid;
};

struct kd_host_stream {
    int device;
    kd_host_graph *capture; /* or null */
};

struct kd_host_event {
    bool recorded;
};

/* A call that a graph cannot hold; a capture under way is lost. */
static bool refused_by_capture()
{
    if (!capturing)
        return false;
    capturing->valid = false;
    last_error = cudaErrorStreamCaptureUnsupported;
    return true;
}

void kd_host_submit(cudaStream_t s, const std::function<void()> &work)
{
    if (s && s->capture)
        s->capture->work.push_back(work);
    else
        work();
}

cudaError_t kd_host_error(cudaError_t e)
{
    last_error = e;
    return e;
}

int kd_host_stream_device(cudaStream_t s)
{
    return s ? s->device : current_device;
}

cudaError_t cudaGetLastError(void)
{
    return std::exchange(last_error, cudaSuccess);
}

cudaError_t cudaPeekAtLastError(void)
{
    return last_error;
}

const char *cudaGetErrorName(cudaError_t e)
{
    switch (e) {
    case cudaSuccess:
        return "cudaSuccess";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
        return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
        return "cudaErrorInvalidDevice";
    case cudaErrorStreamCaptureUnsupported:
        return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
        return "cudaErrorStreamCaptureInvalidated";
    default:
        return "cudaErrorInvalidValue";
    }
}

const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaSuccess ? "no error" : "emulated failure";
}

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = DEVICES;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    if (device < 0 || device >= DEVICES)
        return kd_host_error(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = current_device;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    *p = {};
    snprintf(p->name, sizeof p->name, "emulated device %d", device);
    p->totalGlobalMem = DEVICE_BYTES;
    p->major = SM_MAJOR;
    p->minor = SM_MINOR;
    p->multiProcessorCount = PROCESSORS;
    p->sharedMemPerBlockOptin = KD_HOST_SHARED_BYTES;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr a, int device)
{
    struct cudaDeviceProp p;

    cudaGetDeviceProperties(&p, device);
    *value = a == cudaDevAttrMultiProcessorCount      ? p.multiProcessorCount
             : a == cudaDevAttrComputeCapabilityMajor ? p.major
             : a == cudaDevAttrComputeCapabilityMinor ? p.minor
                                                      : (int)p.sharedMemPerBlockOptin;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    *free_bytes = DEVICE_BYTES - allocated;
    *total_bytes = DEVICE_BYTES;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    *p = nullptr;
    if (refused_by_capture())
        return cudaErrorStreamCaptureUnsupported;
    if (bytes == 0)
        return cudaSuccess;
    if (bytes > DEVICE_BYTES - allocated)
        return kd_host_error(cudaErrorMemoryAllocation);
    *p = ::operator new (bytes, std::align_val_t{ALIGNMENT}, std::nothrow);
    if (!*p)
        return kd_host_error(cudaErrorMemoryAllocation);
    memset(*p, 0xff, bytes);
    allocated += bytes;
    allocations[static_cast<char *>(*p)] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    auto found = allocations.find(static_cast<char *>(p));

    if (!p)
        return cudaSuccess;
    if (refused_by_capture())
        return cudaErrorStreamCaptureUnsupported;
    if (found == allocations.end())
        return kd_host_error(cudaErrorInvalidValue);
    allocated -= found->second;
    allocations.erase(found);
    ::operator delete (p, std::align_val_t{ALIGNMENT});
    return cudaSuccess;
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    *p = malloc(bytes);
    return *p ? cudaSuccess : kd_host_error(cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void *p)
{
    free(p);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes,
                            enum cudaMemcpyKind kind, cudaStream_t s)
{
    demand(dst, bytes,
           kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice,
           "destination of a copy");
    demand(src, bytes,
           kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice,
           "source of a copy");
    /* what the host has there is another thing when the graph is launched */
    if (kind != cudaMemcpyDeviceToDevice && s && s->capture && refused_by_capture())
        return cudaErrorStreamCaptureUnsupported;
    if (bytes)
        kd_host_submit(s, [=] { memmove(dst, src, bytes); });
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t s)
{
    demand(dst, bytes, true, "fill");
    if (bytes)
        kd_host_submit(s, [=] { memset(dst, value, bytes); });
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = new kd_host_stream{current_device, nullptr};
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    delete s;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    return s && s->capture && refused_by_capture() ? cudaErrorStreamCaptureUnsupported
                                                   : cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode)
{
    if (!s || capturing)
        return kd_host_error(cudaErrorInvalidValue);
    capturing = s->capture = new kd_host_graph{{}, true};
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph)
{
    *graph = nullptr;
    if (!s || !s->capture)
        return kd_host_error(cudaErrorInvalidValue);
    *graph = s->capture;
    capturing = s->capture = nullptr;
    if ((*graph)->valid)
        return cudaSuccess;
    delete std::exchange(*graph, nullptr);
    return kd_host_error(cudaErrorStreamCaptureInvalidated);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long)
{
    *exec = new kd_host_graph(*graph);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s)
{
    for (const auto &work : exec->work)
        kd_host_submit(s, work);
    return last_error;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    delete exec;
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned)
{
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = new kd_host_event{false};
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    if (s && s->capture && refused_by_capture())
        return cudaErrorStreamCaptureUnsupported;
    e->recorded = true;
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t)
{
    return cudaSuccess;
}
