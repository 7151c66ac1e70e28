// SPDX-License-Identifier: Apache-2.0
/* The k largest of each row, in order, ties by lowest column.
 *
 * A column's key has its value above its (inverted) column, as integers, so keys are
 * distinct and their order is the answer's.  A block has a tile of a row in registers.
 * The k-th largest of a warp's 32 lane maxima is below none of the tile's k largest:
 * with it as the limit few keys are left, and each one's place in the answer is the
 * number of larger ones.  A second kernel does the same with the lists of a row's
 * tiles.  Beyond 32, further passes look below the last key found.
 *
 * The key of -0 is that of 0, NaN counts as -inf.
 *
 * Bound: 4 rows cols bytes read for each 32 of k. */
#include "rows.h"

namespace
{

enum {
    TILE_THREADS = 256,
    TILE_CHUNKS = TOPK_TILE / CHUNK / TILE_THREADS, /* of a thread */
    TILE_LISTS = TILE_THREADS / WARP,
    MERGE_THREADS = 128
};

typedef unsigned long long key_t_; /* 0: none */

__device__ __forceinline__ float comparable(float v)
{
    return v != v ? -INFINITY : v + 0.0f;
}

__device__ __forceinline__ key_t_ key_of(float v, int column)
{
    const unsigned u = __float_as_uint(comparable(v));
    const unsigned order = u >> 31 ? ~u : u | 0x80000000u;

    return (key_t_)order << 32 | (0xffffffffu - (unsigned)column);
}

__device__ __forceinline__ int column_of(key_t_ key)
{
    return (int)(0xffffffffu - (unsigned)key);
}

__device__ __forceinline__ key_t_ key_max(key_t_ a, key_t_ b)
{
    return a > b ? a : b;
}

/* The K-th largest (from 1) of the lanes' keys: a bitonic sort, descending. */
__device__ __forceinline__ key_t_ warp_select(key_t_ key, int k)
{
    const int lane = (int)threadIdx.x % WARP;

    for (int size = 2; size <= WARP; size *= 2) {
        for (int step = size / 2; step > 0; step /= 2) {
            const key_t_ other = __shfl_xor_sync(0xffffffffu, key, step);
            const bool larger = ((lane & step) == 0) == ((lane & size) == 0);

            key = (key > other) == larger ? key : other;
        }
    }
    return __shfl_sync(0xffffffffu, key, k - 1);
}

/* OUT[k] = the k largest of KEYS[n], descending; the rest 0. */
__device__ __forceinline__ void rank_keys(const key_t_ *keys, int n, int k, key_t_ *out)
{
    for (int i = (int)threadIdx.x; i < k; i += (int)blockDim.x)
        if (i >= n)
            out[i] = 0;
    for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) {
        const key_t_ key = keys[i];
        int rank = 0;

        for (int j = 0; j < n && rank < k; j++)
            rank += keys[j] > key;
        if (rank < k)
            out[rank] = key;
    }
}

/* X less the two sums of its row, which may be 0. */
struct row_sums {
    float high, low;

    __device__ __forceinline__ row_sums(const float *sums, int64_t r)
        : high(sums ? sums[2 * r] : 0.0f), low(sums ? sums[2 * r + 1] : 0.0f)
    {
    }
    __device__ __forceinline__ float of(float x) const
    {
        return (x - high) - low;
    }
};

struct tile_args {
    const float *x, *sums;
    int cols, tiles, k;
    const key_t_ *below; /* [rows]: keys from here on are taken, or NULL */
    key_t_ *lists;       /* [rows, tiles, k] */
};

/* A thread's part of a tile. */
struct tile_part {
    float v[TILE_CHUNKS][CHUNK];
    int c[TILE_CHUNKS]; /* column of v[i][0], may be negative */

    __device__ __forceinline__ void load(const float *x, const row_sums &sums, int cols,
                                         int first)
    {
#pragma unroll
        for (int i = 0; i < TILE_CHUNKS; i++) {
            c[i] = first + (i * TILE_THREADS + (int)threadIdx.x) * CHUNK;
            load_eight(x + c[i], -c[i], cols - c[i], v[i]);
#pragma unroll
            for (int e = 0; e < CHUNK; e++)
                v[i][e] = comparable(sums.of(v[i][e]));
        }
    }

    /* The largest key below LIMIT (0: any), 0 if there is none. */
    __device__ __forceinline__ key_t_ largest(int cols, key_t_ limit) const
    {
        float best = -INFINITY;
        int at = -1;

#pragma unroll
        for (int i = 0; i < TILE_CHUNKS; i++) {
#pragma unroll
            for (int e = 0; e < CHUNK; e++) {
                const int col = c[i] + e;
                bool take = (v[i][e] > best || at < 0) && col >= 0 && col < cols;

                if (limit)
                    take = take && key_of(v[i][e], col) < limit;
                best = take ? v[i][e] : best;
                at = take ? col : at;
            }
        }
        return at < 0 ? 0 : key_of(best, at);
    }

    /* Keys in [LEAST, LIMIT) into KEYS, in any order; COUNT is shared. */
    __device__ __forceinline__ void collect(int cols, key_t_ least, float least_value,
                                            key_t_ limit, key_t_ *keys,
                                            int *count) const
    {
#pragma unroll
        for (int i = 0; i < TILE_CHUNKS; i++) {
#pragma unroll
            for (int e = 0; e < CHUNK; e++) {
                const int col = c[i] + e;
                key_t_ key;

                if (v[i][e] < least_value || col < 0 || col >= cols)
                    continue;
                key = key_of(v[i][e], col);
                if (key >= least && (!limit || key < limit))
                    keys[atomicAdd(count, 1)] = key;
            }
        }
    }
};

__device__ __forceinline__ float value_of(key_t_ key)
{
    const unsigned order = (unsigned)(key >> 32);

    return __uint_as_float(order >> 31 ? order & 0x7fffffffu : ~order);
}

/* At most k lanes of a warp have keys from its limit on, so the block keeps at most
 * that many lanes' keys of each warp. */
__global__ void __launch_bounds__(TILE_THREADS) topk_tiles_kernel(const tile_args a)
{
    KD_DYNAMIC_SHARED(key_t_, keys); /* [TILE_LISTS * k * TILE_CHUNKS * CHUNK] */
    __shared__ key_t_ limits[TILE_LISTS];
    __shared__ int count;
    const int64_t r = blockIdx.x / (unsigned)a.tiles;
    const int tile = (int)(blockIdx.x % (unsigned)a.tiles),
              warp = (int)threadIdx.x / WARP;
    const float *x = a.x + r * a.cols;
    const key_t_ limit = a.below ? a.below[r] : 0;
    key_t_ least;
    tile_part part;

    if (threadIdx.x == 0)
        count = 0;
    part.load(x, row_sums(a.sums, r), a.cols, tile * TOPK_TILE - chunk_lead(x));
    least = warp_select(part.largest(a.cols, limit), a.k);
    if (threadIdx.x % WARP == 0)
        limits[warp] = least;
    __syncthreads();
    least = 1;
    for (int w = 0; w < TILE_LISTS; w++)
        least = key_max(least, limits[w]);
    part.collect(a.cols, least, least == 1 ? -INFINITY : value_of(least), limit, keys,
                 &count);
    __syncthreads();
    rank_keys(keys, count, a.k, a.lists + (int64_t)blockIdx.x * a.k);
}

struct merge_args {
    const float *x, *sums;
    const key_t_ *lists; /* [rows, tiles, k] */
    int cols, tiles, k;
    int64_t ld, first; /* of the output: row length, first place of this pass */
    key_t_ *below;     /* [rows]: the last key found, or NULL */
    float *values;
    int32_t *columns;
};

__global__ void __launch_bounds__(MERGE_THREADS) topk_merge_kernel(const merge_args a)
{
    KD_DYNAMIC_SHARED(key_t_, keys); /* [tiles * k] */
    __shared__ key_t_ found[TOPK_PASS], limits[MERGE_THREADS];
    __shared__ int count;
    const int64_t r = blockIdx.x;
    const key_t_ *list = a.lists + r * a.tiles * a.k;
    const int t = (int)threadIdx.x;
    key_t_ least = 1;

    if (t == 0)
        count = 0;
    for (int i = t; i < a.tiles; i += MERGE_THREADS)
        least = key_max(least, list[i * a.k + a.k - 1]);
    limits[t] = least;
    __syncthreads();
    for (int i = 0; i < MERGE_THREADS && i < a.tiles; i++)
        least = key_max(least, limits[i]);
    for (int i = t; i < a.tiles * a.k; i += MERGE_THREADS) {
        const key_t_ key = list[i];

        if (key >= least)
            keys[atomicAdd(&count, 1)] = key;
    }
    __syncthreads();
    rank_keys(keys, count, a.k, found);
    __syncthreads();
    if (t < a.k) {
        const int64_t at = r * a.ld + a.first + t;
        const int col = column_of(found[t]);
        const float v = row_sums(a.sums, r).of(a.x[r * a.cols + col]);

        a.values[at] = v != v ? -INFINITY : v;
        a.columns[at] = col;
        if (t == a.k - 1 && a.below)
            a.below[r] = found[t];
    }
}

} // namespace

extern "C" int cuda_topk(struct kd_backend *be, const float *x, const float *sums,
                         int64_t rows, int64_t cols, int64_t k, float *values,
                         int32_t *columns)
{
    const int64_t tiles = topk_tiles(cols), most = rows_min(k, TOPK_PASS);
    const int64_t n_lists = rows * tiles * most;
    key_t_ *below, *lists;
    void *scratch;

    if (rows == 0 || k == 0)
        return KD_OK;
    KD_TRY(cuda_scratch(be, (size_t)(rows + n_lists) * sizeof(key_t_), &scratch));
    below = (key_t_ *)scratch;
    lists = below + rows;
    for (int64_t first = 0; first < k; first += TOPK_PASS) {
        const int n = (int)rows_min(k - first, TOPK_PASS);
        const tile_args tile = {
            x, sums, (int)cols, (int)tiles, n, first ? below : NULL, lists};
        const merge_args merge = {x, sums,  lists, (int)cols, (int)tiles, n,
                                  k, first, below, values,    columns};
        const size_t tile_bytes = (size_t)(TOPK_TILE / WARP * n) * sizeof(key_t_),
                     merge_bytes = (size_t)(tiles * n) * sizeof(key_t_);

        KD_TRY(cuda_allow_shared((const void *)topk_tiles_kernel, tile_bytes));
        KD_TRY(cuda_allow_shared((const void *)topk_merge_kernel, merge_bytes));
        KD_LAUNCH(topk_tiles_kernel, (unsigned)(rows * tiles), TILE_THREADS, tile_bytes,
                  cuda_stream(be), tile);
        KD_LAUNCH(topk_merge_kernel, (unsigned)rows, MERGE_THREADS, merge_bytes,
                  cuda_stream(be), merge);
    }
    return cuda_check_launch("topk");
}
