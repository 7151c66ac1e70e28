/* SPDX-License-Identifier: Apache-2.0 */
/* What kernels are written with: launches, the bfloat16 type, 16-byte accesses, sums
 * over warps and blocks, dropout masks.
 *
 * A .cu file is compiled twice: by nvcc for devices, and by the host compiler with
 * KD_CUDA_HOST against the emulator in tests/support/cuda_host, which runs the same
 * kernels where there is no device.  So kernels use launches and dynamic shared memory
 * through the macros below, and nothing that only nvcc can parse.
 *
 * Blocks are one-dimensional and a multiple of 32 threads; sums run in an order that
 * depends on the block size only. */
#ifndef KDHPC_CUDA_LAUNCH_H
#define KDHPC_CUDA_LAUNCH_H

#include "cuda_impl.h"
#include "kdhpc/base/rng.h"

#include <cuda_runtime.h>
#ifndef KD_CUDA_HOST
#include <cuda_bf16.h>
#endif

#include <math.h>
#include <string.h>

/* KD_LAUNCH(kernel, grid, block, shared_bytes, stream, args...): a kernel with template
 * arguments stands in parentheses.  A grid of 0 blocks is an error. */
#ifdef KD_CUDA_HOST
#define KD_LAUNCH(kernel, grid, block, shared, stream, ...)                            \
    kd_host_launch((kernel), (grid), (block), (shared), (stream), __VA_ARGS__)
#define KD_DYNAMIC_SHARED(type, name)                                                  \
    type *name = static_cast<type *>(kd_host_dynamic_shared())
#else
#define KD_LAUNCH(kernel, grid, block, shared, stream, ...)                            \
    (kernel)<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__)
#define KD_DYNAMIC_SHARED(type, name)                                                  \
    extern __shared__ __align__(128) unsigned char kd_dynamic_shared[];                \
    type *name = reinterpret_cast<type *>(kd_dynamic_shared)
#endif

/* Run the statement with T = float or bf16, as DTYPE says. */
#define CUDA_BY_TYPE(dtype, T, ...)                                                    \
    do {                                                                               \
        if ((dtype) == KD_BF16) {                                                      \
            using T = bf16;                                                            \
            __VA_ARGS__;                                                               \
        } else {                                                                       \
            using T = float;                                                           \
            __VA_ARGS__;                                                               \
        }                                                                              \
    } while (0)

enum { WARP = 32 };

struct bf16 {
    uint16_t bits;
};

__host__ __device__ inline int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* One value to and from float32; stores round to nearest even. */
__device__ inline float cuda_load(const float *p)
{
    return *p;
}

__device__ inline float cuda_load(const bf16 *p)
{
    return __uint_as_float((unsigned)p->bits << 16);
}

__device__ inline void cuda_store(float *p, float v)
{
    *p = v;
}

__device__ inline bf16 bf16_of(float v)
{
#ifdef KD_CUDA_HOST
    return bf16{kd_host_bf16(v)};
#else
    return bf16{__bfloat16_as_ushort(__float2bfloat16_rn(v))};
#endif
}

__device__ inline void cuda_store(bf16 *p, float v)
{
    *p = bf16_of(v);
}

/* What one 16-byte access moves.  Pointers are 16-byte aligned; PACKED<T> values. */
template <typename T> struct alignas(16) pack {
    T v[16 / sizeof(T)];
};

template <typename T> constexpr int PACKED = 16 / sizeof(T);

template <typename T> __device__ inline pack<T> pack_load(const T *p)
{
    pack<T> out;
#ifdef KD_CUDA_HOST
    kd_host_aligned(p, 16);
    memcpy(&out, p, 16);
#else
    const int4 raw = *reinterpret_cast<const int4 *>(p);
    memcpy(&out, &raw, 16);
#endif
    return out;
}

template <typename T> __device__ inline void pack_store(T *p, const pack<T> &x)
{
#ifdef KD_CUDA_HOST
    kd_host_aligned(p, 16);
    memcpy(p, &x, 16);
#else
    int4 raw;
    memcpy(&raw, &x, 16);
    *reinterpret_cast<int4 *>(p) = raw;
#endif
}

/* Eight values: the unit of pointwise kernels and of dropout masks.  PACKED says that
 * all eight are there and 16-byte aligned; else the first N are taken one by one. */
template <typename T>
__device__ inline void load_eight(const T *p, float v[8], bool packed, int n)
{
    if (packed) {
        for (int i = 0; i < 8; i += PACKED<T>) {
            const pack<T> x = pack_load(p + i);

            for (int k = 0; k < PACKED<T>; k++)
                v[i + k] = cuda_load(&x.v[k]);
        }
    } else {
        for (int i = 0; i < 8; i++)
            v[i] = i < n ? cuda_load(p + i) : 0.0f;
    }
}

template <typename T>
__device__ inline void store_eight(T *p, const float v[8], bool packed, int n)
{
    if (packed) {
        for (int i = 0; i < 8; i += PACKED<T>) {
            pack<T> x;

            for (int k = 0; k < PACKED<T>; k++)
                cuda_store(&x.v[k], v[i + k]);
            pack_store(p + i, x);
        }
    } else {
        for (int i = 0; i < 8; i++)
            if (i < n)
                cuda_store(p + i, v[i]);
    }
}

/* Whether rows of LD values from P on can be read in packs: the launcher's choice
 * between the fast path and one value at a time. */
template <typename T> inline bool pack_fits(const void *p, int64_t ld)
{
    return (uintptr_t)p % 16 == 0 && ld % PACKED<T> == 0;
}

/* Sum and maximum over the 32 lanes of a warp; every lane gets it. */
__device__ inline float warp_sum(float v)
{
    for (int lane = WARP / 2; lane > 0; lane /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, lane);
    return v;
}

__device__ inline double warp_sum(double v)
{
    for (int lane = WARP / 2; lane > 0; lane /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, lane);
    return v;
}

__device__ inline float warp_max(float v)
{
    for (int lane = WARP / 2; lane > 0; lane /= 2)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, lane));
    return v;
}

/* Over all threads of the block; every thread gets it.  SHARED[32] is the block's and
 * may be the same in successive calls: the first barrier waits for its readers. */
template <typename S> __device__ inline S block_sum(S v, S *shared)
{
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;

    v = warp_sum(v);
    __syncthreads();
    if (lane == 0)
        shared[warp] = v;
    __syncthreads();
    return warp_sum(lane < (int)blockDim.x / WARP ? shared[lane] : (S)0);
}

__device__ inline float block_max(float v, float *shared)
{
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;

    v = warp_max(v);
    __syncthreads();
    if (lane == 0)
        shared[warp] = v;
    __syncthreads();
    return warp_max(lane < (int)blockDim.x / WARP ? shared[lane] : shared[0]);
}

/* struct kd_dropout as kernels take it, by value. */
struct drop {
    bool on;
    uint32_t key[2];
    uint32_t site, limit;
    float keep; /* what kept values are scaled by */
    const uint64_t *row_keys;
};

inline struct drop drop_of(const struct kd_dropout *d)
{
    struct drop out = {false, {0, 0}, 0, 0, 1.0f, NULL};

    if (!cuda_drops(d))
        return out;
    out.on = true;
    out.key[0] = (uint32_t)d->seed ^ (uint32_t)(d->seed >> 32);
    out.key[1] = d->step;
    out.site = d->site;
    out.limit = (uint32_t)lrint((double)d->p * 65536.0);
    out.keep = 1.0f / (1.0f - d->p);
    out.row_keys = d->row_keys;
    return out;
}

/* FACTOR[8] = what columns 8 COL8 .. 8 COL8 + 7 of the row named ROW_KEY are multiplied
 * by at SITE.  Only where d.on. */
__device__ inline void drop_eight(const struct drop &d, uint32_t site, uint64_t row_key,
                                  uint32_t col8, float factor[8])
{
    const uint32_t ctr[4] = {col8, (uint32_t)row_key, (uint32_t)(row_key >> 32), site};
    uint32_t word[4];

    kd_philox(d.key, ctr, word);
    for (int i = 0; i < 4; i++) { /* lane 2 i is the low half of word i */
        factor[2 * i] = (word[i] & 0xffffu) < d.limit ? 0.0f : d.keep;
        factor[2 * i + 1] = (word[i] >> 16) < d.limit ? 0.0f : d.keep;
    }
}

/* The factor of one column: as drop_eight, at an eighth of its worth. */
__device__ inline float drop_keep(const struct drop &d, uint32_t site, uint64_t row_key,
                                  int64_t col)
{
    const uint32_t ctr[4] = {(uint32_t)(col / 8), (uint32_t)row_key,
                             (uint32_t)(row_key >> 32), site};
    uint32_t word[4], lane;

    kd_philox(d.key, ctr, word);
    /* selects: an array indexed at run time would live in local memory */
    lane = col & 4 ? (col & 2 ? word[3] : word[2]) : (col & 2 ? word[1] : word[0]);
    lane = (col & 1 ? lane >> 16 : lane) & 0xffffu;
    return lane < d.limit ? 0.0f : d.keep;
}

#endif
