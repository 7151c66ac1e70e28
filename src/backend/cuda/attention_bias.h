/* SPDX-License-Identifier: Apache-2.0 */
/* What distances of key and query add to scores: the table as kernels take it, and a
 * tile's part of a head's column in shared memory.
 *
 * A tile of scores has no more different distances than rows and columns in all, so the
 * block copies those beside the tile's rows and reads the strided table once for each.
 * In the layout of attention_tile.h a lane's distances in column tile n and row tile m
 * depend on n - m alone: it reads each once.
 *
 * Kernels that add distances are instances of their own, BIASED in their shapes; the
 * others have neither these registers nor this memory.  Biased scores are scaled here,
 * log2(e) in the scale, so that what follows takes them for exponents of two. */
#ifndef KDHPC_CUDA_ATTENTION_BIAS_H
#define KDHPC_CUDA_ATTENTION_BIAS_H

#include "attention_tile.h"

constexpr float LN_2 = 0.693147181f;

/* What scores are multiplied by to be exponents of two, and these to be of e. */
template <typename S>
__device__ __forceinline__ float scale2_of(const problem<typename S::T> &p)
{
    return S::BIASED ? 1.0f : p.scale2;
}

template <typename S>
__device__ __forceinline__ float scale_of(const problem<typename S::T> &p)
{
    return S::BIASED ? LN_2 : p.scale;
}

/* TO[n] = what HEAD has for the distances from FIRST on, zeros beside the table; there
 * behind cp_async_wait and a barrier.  All threads of the block. */
__device__ inline void fetch_distances(const struct distances &d, int head, int first,
                                       int n, float *to)
{
    for (int i = (int)threadIdx.x; i < n; i += ATTENTION_THREADS) {
        const int at = d.zero + first + i;
        const bool there = at >= 0 && at < d.n;

        cp_async4(to + i, d.table + (int64_t)(there ? at : 0) * d.n_heads + head,
                  there);
    }
}

/* S = S scale2 + the bias: FROM is where element [0, 0] has its distance, SIGN 1 for
 * rows that are queries and -1 for rows that are keys. */
template <int SIGN, int MT, int NT>
__device__ __forceinline__ void add_distances(float (&s)[MT][NT][4], float scale2,
                                              const float *from)
{
    const float *mine = from + SIGN * (2 * (lane_id() % 4) - lane_id() / 4);

#pragma unroll
    for (int c = 1 - 2 * MT; c < NT; c++) { /* column tile less rows / 8 */
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const float bias = mine[SIGN * (8 * c + e)] * LOG2_E;

#pragma unroll
            for (int i = 0; i < 2 * MT; i++) {
                if (c + i >= 0 && c + i < NT)
                    s[i / 2][c + i][i % 2 * 2 + e] =
                        s[i / 2][c + i][i % 2 * 2 + e] * scale2 + bias;
            }
        }
    }
}

#endif
