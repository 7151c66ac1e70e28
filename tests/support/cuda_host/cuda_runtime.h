/* SPDX-License-Identifier: Apache-2.0 */
/* The part of CUDA C++ that kernels of kdhpc use, as C++17 for the host compiler.
 *
 * Threads of a block are fibers: one runs until it meets a barrier, a shuffle or its
 * end, so that what comes between two barriers runs in one of three orders (see
 * cuda_runtime_api.h).  Static shared arrays are static, one block at a time uses them;
 * dynamic shared memory is allocated to the byte and poisoned for each block.  A
 * barrier or shuffle that not all its threads reach ends the program with a line. */
#ifndef KD_HOST_CUDA_RUNTIME_H
#define KD_HOST_CUDA_RUNTIME_H

#include "cuda_runtime_api.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

#define KD_HOST_VECTOR(T, name)                                                        \
    struct alignas(2 * sizeof(T)) name##2                                              \
    {                                                                                  \
        T x, y;                                                                        \
    };                                                                                 \
    struct alignas(sizeof(T) < 8 ? 4 * sizeof(T) : 16) name##4                         \
    {                                                                                  \
        T x, y, z, w;                                                                  \
    };                                                                                 \
    inline name##2 make_##name##2(T x, T y)                                            \
    {                                                                                  \
        return {x, y};                                                                 \
    }                                                                                  \
    inline name##4 make_##name##4(T x, T y, T z, T w)                                  \
    {                                                                                  \
        return {x, y, z, w};                                                           \
    }
KD_HOST_VECTOR(float, float)
KD_HOST_VECTOR(double, double)
KD_HOST_VECTOR(int, int)
KD_HOST_VECTOR(unsigned, uint)
#undef KD_HOST_VECTOR

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

/* Between the emulator's files: the last error, returned as given; a stream's device;
 * what a block may have of shared memory (sm_90).  Work of a stream is done at once, or
 * behind what the stream has to wait for; settling waits for that. */
constexpr size_t KD_HOST_SHARED_BYTES = 227 << 10;
cudaError_t kd_host_error(cudaError_t e);
int kd_host_stream_device(cudaStream_t s);
/* Do WORK in its turn, or when the graph is launched that S is captured into. */
void kd_host_stream_do(cudaStream_t s, std::function<void()> work);
bool kd_host_captured(cudaStream_t s);
bool kd_host_refused_by_capture(); /* if there is one, it is lost */
void kd_host_stream_settle(cudaStream_t s);
void kd_host_device_settle(); /* all streams, as freeing memory does */

/* Launches: BODY is the kernel's call, made by every thread. */
void kd_host_run(const void *kernel, dim3 grid, dim3 block, size_t shared_bytes,
                 cudaStream_t stream, std::function<void()> body);
void *kd_host_dynamic_shared();
void kd_host_aligned(const void *p, size_t bytes); /* else the program ends */
uint16_t kd_host_bf16(float v);

template <typename... P, typename... A>
void kd_host_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                    cudaStream_t stream, A... args)
{
    kd_host_run(reinterpret_cast<const void *>(kernel), grid, block, shared_bytes,
                stream, [=] { kernel(args...); });
}

/* Barriers and what warps exchange: every lane of MASK gives VALUE and gets the value
 * of lane SOURCE, or the union of ballots. */
void __syncthreads();
int __syncthreads_or(int predicate);
int __syncthreads_count(int predicate);
void __syncwarp(unsigned mask = 0xffffffffu);
uint64_t kd_host_exchange(unsigned mask, uint64_t value, int source);
unsigned __ballot_sync(unsigned mask, int predicate);
int kd_host_lane();

inline int __any_sync(unsigned mask, int predicate)
{
    return __ballot_sync(mask, predicate) != 0;
}

inline int __all_sync(unsigned mask, int predicate)
{
    return __ballot_sync(mask, !predicate) == 0;
}

template <typename T> T kd_host_shuffle(unsigned mask, T v, int source)
{
    uint64_t bits = 0;

    static_assert(sizeof v == 4 || sizeof v == 8, "shuffles move 4 or 8 bytes");
    memcpy(&bits, &v, sizeof v);
    bits = kd_host_exchange(mask, bits, source);
    memcpy(&v, &bits, sizeof v);
    return v;
}

template <typename T> T __shfl_sync(unsigned mask, T v, int lane, int width = 32)
{
    return kd_host_shuffle(mask, v, (kd_host_lane() & -width) + (lane & (width - 1)));
}

template <typename T> T __shfl_xor_sync(unsigned mask, T v, int lanes, int width = 32)
{
    int source = kd_host_lane() ^ lanes;

    return kd_host_shuffle(
        mask, v, source / width > kd_host_lane() / width ? kd_host_lane() : source);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32)
{
    int source = kd_host_lane() + (int)by;

    return kd_host_shuffle(
        mask, v, source / width != kd_host_lane() / width ? kd_host_lane() : source);
}

template <typename T> T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32)
{
    int source = kd_host_lane() - (int)by;

    return kd_host_shuffle(
        mask, v, source < (kd_host_lane() & -width) ? kd_host_lane() : source);
}

/* One thread runs at a time: plain reads and writes are atomic. */
template <typename T> T atomicAdd(T *p, T v)
{
    T old = *p;

    *p = old + v;
    return old;
}

template <typename T> T atomicMax(T *p, T v)
{
    T old = *p;

    *p = old > v ? old : v;
    return old;
}

template <typename T> T atomicExch(T *p, T v)
{
    return std::exchange(*p, v);
}

template <typename T> T atomicCAS(T *p, T expected, T v)
{
    T old = *p;

    *p = old == expected ? v : old;
    return old;
}

inline void __threadfence()
{
}

inline void __threadfence_block()
{
}

template <typename T> T __ldg(const T *p)
{
    return *p;
}

template <typename T> T __ldcs(const T *p)
{
    return *p;
}

template <typename T> void __stcs(T *p, T v)
{
    *p = v;
}

template <typename To, typename From> To kd_host_bits(From v)
{
    To out;

    static_assert(sizeof out == sizeof v, "same size");
    memcpy(&out, &v, sizeof out);
    return out;
}

inline float __uint_as_float(unsigned v)
{
    return kd_host_bits<float>(v);
}

inline float __int_as_float(int v)
{
    return kd_host_bits<float>(v);
}

inline unsigned __float_as_uint(float v)
{
    return kd_host_bits<unsigned>(v);
}

inline int __float_as_int(float v)
{
    return kd_host_bits<int>(v);
}

inline long long __double_as_longlong(double v)
{
    return kd_host_bits<long long>(v);
}

inline double __longlong_as_double(long long v)
{
    return kd_host_bits<double>(v);
}

inline int __clz(int v)
{
    return v ? __builtin_clz((unsigned)v) : 32;
}

inline int __ffs(int v)
{
    return __builtin_ffs(v);
}

inline int __popc(unsigned v)
{
    return __builtin_popcount(v);
}

inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}

inline float rsqrtf(float v)
{
    return 1.0f / sqrtf(v);
}

inline double rsqrt(double v)
{
    return 1.0 / sqrt(v);
}

/* macros: the C library declares functions of these names */
#define __expf expf
#define __logf logf

inline float __fdividef(float a, float b)
{
    return a / b;
}

inline float __frcp_rn(float v)
{
    return 1.0f / v;
}

inline float __frsqrt_rn(float v)
{
    return 1.0f / sqrtf(v);
}

inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}

inline float __fadd_rn(float a, float b)
{
    return a + b;
}

inline float __fmul_rn(float a, float b)
{
    return a * b;
}

template <typename T> constexpr T min(T a, T b)
{
    return b < a ? b : a;
}

template <typename T> constexpr T max(T a, T b)
{
    return a < b ? b : a;
}

#endif
