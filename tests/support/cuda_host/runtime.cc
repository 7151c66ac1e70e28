// SPDX-License-Identifier: Apache-2.0
/* The runtime's functions around the emulator's launches: devices and memory.
 *
 * Memory is counted against a small device, so that running out can be tested, and
 * filled with NaN when allocated.  A copy or fill must stay inside one allocation and
 * name the direction that its pointers have, else the program ends with a line: a host
 * pointer where a device's belongs does not show by itself here.  A copy or fill is
 * done before its call returns. */
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
constexpr int DEVICES = 3, MOST_DEVICES = 8, SM_MAJOR = 9, SM_MINOR = 0, PROCESSORS = 4;

cudaError_t last_error;
int current_device;
size_t allocated;

/* The most that was allocated; its number goes to the file that EMULATED_PEAK names. */
struct high_water {
    size_t bytes;

    ~high_water()
    {
        const char *path = getenv("EMULATED_PEAK");
        FILE *f = path ? fopen(path, "w") : nullptr;

        if (!f)
            return;
        fprintf(f, "%zu\n", bytes);
        fclose(f);
    }
} peak;

std::map<const char *, size_t> allocations;

/* KD_HOST_DEVICES in the environment says how many there are. */
int devices()
{
    const char *text = getenv("KD_HOST_DEVICES");
    int n = text ? (int)strtol(text, nullptr, 10) : DEVICES;

    return n < 0 ? 0 : n > MOST_DEVICES ? MOST_DEVICES : n;
}

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

cudaError_t kd_host_error(cudaError_t e)
{
    last_error = e;
    return e;
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
    *n = devices();
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    if (device < 0 || device >= devices())
        return kd_host_error(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device)
{
    *device = current_device;
    return cudaSuccess;
}

/* Device N of any process is one GPU. */
cudaError_t cudaDeviceGetPCIBusId(char *id, int bytes, int device)
{
    snprintf(id, (size_t)bytes, "0000:%02x:00.0", device + 1);
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
    if (kd_host_refused_by_capture())
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
    peak.bytes = allocated > peak.bytes ? allocated : peak.bytes;
    allocations[static_cast<char *>(*p)] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
    auto found = allocations.find(static_cast<char *>(p));

    if (!p)
        return cudaSuccess;
    if (kd_host_refused_by_capture())
        return cudaErrorStreamCaptureUnsupported;
    if (found == allocations.end())
        return kd_host_error(cudaErrorInvalidValue);
    kd_host_device_settle();
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
                            enum cudaMemcpyKind kind, cudaStream_t stream)
{
    demand(dst, bytes,
           kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice,
           "destination of a copy");
    demand(src, bytes,
           kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice,
           "source of a copy");
    /* what the host has there is another thing when the graph is launched */
    if (kind != cudaMemcpyDeviceToDevice && kd_host_captured(stream) &&
        kd_host_refused_by_capture())
        return cudaErrorStreamCaptureUnsupported;
    if (bytes)
        kd_host_stream_do(stream, [=] { memmove(dst, src, bytes); });
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream)
{
    demand(dst, bytes, true, "fill");
    if (bytes)
        kd_host_stream_do(stream, [=] { memset(dst, value, bytes); });
    return cudaSuccess;
}
