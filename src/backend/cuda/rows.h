/* SPDX-License-Identifier: Apache-2.0 */
/* What the row kernels share: chunks of eight columns, sums over the threads of a row,
 * sums of partial sums.
 *
 * A chunk lies where 16-byte accesses are possible in nearly all calls, and each access
 * looks at its address, so odd widths and windows work, value by value.  Rows of odd
 * width that matter (logits) are cut at aligned addresses instead of at their start:
 * chunk i has the columns from 8 i - lead on. */
#ifndef KDHPC_CUDA_ROWS_H
#define KDHPC_CUDA_ROWS_H

#include "launch.h"
#include "rows_geometry.h"

/* Eight values as they lie in memory.  They become floats where they are used, so that
 * a thread that loads several chunks first has all its loads under way. */
template <typename T> struct chunk {
    unsigned w[CHUNK * sizeof(T) / 4];
};

__device__ __forceinline__ void chunk_put(chunk<float> &c, int e, const float *p)
{
    c.w[e] = __float_as_uint(*p);
}

__device__ __forceinline__ void chunk_put(chunk<bf16> &c, int e, const bf16 *p)
{
    c.w[e / 2] |= (unsigned)p->bits << (e % 2 * 16);
}

__device__ __forceinline__ float chunk_get(const chunk<float> &c, int e)
{
    return __uint_as_float(c.w[e]);
}

__device__ __forceinline__ float chunk_get(const chunk<bf16> &c, int e)
{
    return __uint_as_float(e % 2 ? c.w[e / 2] & 0xffff0000u : c.w[e / 2] << 16);
}

/* P[0 .. 8), and 0 for those outside [FIRST, END). */
template <typename T>
__device__ __forceinline__ chunk<T> chunk_load(const T *p, int first, int end)
{
    chunk<T> c;

    if (first <= 0 && end >= CHUNK && ((uintptr_t)p & 15) == 0) {
#pragma unroll
        for (int i = 0; i < CHUNK; i += PACKED<T>) {
            const pack<T> x = pack_load(p + i);

            memcpy(c.w + i * sizeof(T) / 4, &x, sizeof x);
        }
        return c;
    }
    memset(c.w, 0, sizeof c.w);
#pragma unroll
    for (int e = 0; e < CHUNK; e++)
        if (e >= first && e < end)
            chunk_put(c, e, p + e);
    return c;
}

template <typename T>
__device__ __forceinline__ void chunk_floats(const chunk<T> &c, float (&v)[CHUNK])
{
#pragma unroll
    for (int e = 0; e < CHUNK; e++)
        v[e] = chunk_get(c, e);
}

/* V[8] = P[0 .. 8), and 0 for those outside [FIRST, END). */
template <typename T>
__device__ __forceinline__ void load_eight(const T *p, int first, int end,
                                           float (&v)[CHUNK])
{
    chunk_floats(chunk_load(p, first, end), v);
}

/* The same with PAD instead of 0. */
__device__ __forceinline__ void load_padded(const float *p, int first, int end,
                                            float pad, float (&v)[CHUNK])
{
    load_eight(p, first, end, v);
    if (first > 0 || end < CHUNK) {
#pragma unroll
        for (int e = 0; e < CHUNK; e++)
            v[e] = e >= first && e < end ? v[e] : pad;
    }
}

/* P[FIRST .. END) = V, of [0 .. 8). */
template <typename T>
__device__ __forceinline__ void store_eight(T *p, int first, int end,
                                            const float (&v)[CHUNK])
{
    if (first <= 0 && end >= CHUNK && ((uintptr_t)p & 15) == 0) {
#pragma unroll
        for (int i = 0; i < CHUNK; i += PACKED<T>) {
            pack<T> x;

#pragma unroll
            for (int e = 0; e < PACKED<T>; e++)
                cuda_store(x.v + e, v[i + e]);
            pack_store(p + i, x);
        }
        return;
    }
#pragma unroll
    for (int e = 0; e < CHUNK; e++)
        if (e >= first && e < end)
            cuda_store(p + e, v[e]);
}

/* Columns of a float32 row by which its chunks begin early, so that they are aligned.
 */
__device__ __forceinline__ int chunk_lead(const float *row)
{
    return (int)((uintptr_t)row / sizeof(float) % CHUNK);
}

/* The place of a thread in the groups of its block (struct row_group). */
struct row_place {
    int group, thread; /* of the group */
};

__device__ __forceinline__ row_place row_place_of(int group_threads)
{
    const int t = (int)threadIdx.x, g = t / group_threads;

    return {g, t - g * group_threads};
}

/* V[N] = sums over the threads of each group; all threads of the block call it and all
 * of a group get the same.  SHARED[N * 32] may be the same in successive calls. */
template <typename S, int N>
__device__ __forceinline__ void group_sum(S (&v)[N], int group_threads, S *shared)
{
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP,
              warps = group_threads / WARP, first = warp / warps * warps;

#pragma unroll
    for (int i = 0; i < N; i++)
        v[i] = warp_sum(v[i]);
    if (warps == 1)
        return;
    __syncthreads();
    if (lane == 0) {
#pragma unroll
        for (int i = 0; i < N; i++)
            shared[i * WARP + warp] = v[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; i++) {
        v[i] = (S)0;
        for (int w = first; w < first + warps; w++)
            v[i] += shared[i * WARP + w];
    }
}

/* Sum of PART[n] in an order that depends on N and the block; every thread gets it. */
__device__ __forceinline__ double sum_parts(const double *part, int n, double *shared)
{
    double sum = 0.0;

    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x)
        sum += part[i];
    return block_sum(sum, shared);
}

/* For both OUTs that are not NULL: out[j][c] = beta out[j][c] + alpha sum over i <
 * n_parts of part[i * stride + j * n + c], c < n; beta 0 does not read. */
struct partial_sums {
    const float *part;
    int64_t n_parts, stride, n;
    float alpha, beta;
    float *out[2];
};

int rows_add_partials(struct kd_backend *be, const struct partial_sums &p);

#endif
