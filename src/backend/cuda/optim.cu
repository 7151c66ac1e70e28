// SPDX-License-Identifier: Apache-2.0
/* Optimiser steps: AdamW in one pass over a flat range; Adafactor over a matrix in
 * three (row and column means, size of the update, update), over a vector in two.
 *
 * Scalars known beforehand are made in float64 on the host.  Those that Adafactor finds
 * on its way (the mean of the row means, the size of the update) never leave the
 * device: they stay partial sums, which every block of the next pass adds up in the
 * same order.
 *
 * Bounds, in bytes moved for n values: AdamW 28 n, 20 n with moments in bfloat16;
 * Adafactor 20 n on a matrix (grad three times, param read and written), 28 n on a
 * vector; 2 n more for the bfloat16 copy. */
#include "rows.h"

#include "kdhpc/tensor/rounding.h"

namespace
{

enum { FLAT_THREADS = 256, TILE_THREADS = TILE_WARPS * WARP };

struct adamw_args {
    float *param;
    void *m, *v; /* of the type of the moments */
    bf16 *copy;  /* or NULL */
    const float *grad;
    int64_t n, first;
    uint64_t seed;
    uint32_t step;
    float beta1, beta2, fresh1, fresh2; /* fresh = 1 - beta, not from float betas */
    float rate, root_scale; /* of the update m / (sqrt(v) root_scale + eps) */
    float decay_before, decay_after, eps, grad_scale;
};

/* The moments of slab values INDEX .. INDEX + 7, a multiple of 8, as they are to be
 * stored. */
__device__ __forceinline__ void round_moments(const adamw_args &a, int64_t index,
                                              float (&m)[CHUNK], float (&v)[CHUNK])
{
#pragma unroll
    for (int four = 0; four < CHUNK; four += 4) {
        uint32_t random[4];

        kd_rounding_random(a.seed, a.step, (uint64_t)(index + four) / 4, random);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int e = four + i;

            m[e] =
                __uint_as_float(kd_round_stochastic(__float_as_uint(m[e]), random[i]));
            v[e] = __uint_as_float(
                kd_round_stochastic(__float_as_uint(v[e]), random[i] >> 16));
        }
    }
}

/* Chunks lie where the slab's do.  M is the type of the moments. */
template <typename M>
__global__ void __launch_bounds__(FLAT_THREADS) adamw_kernel(const adamw_args a)
{
    const int lead = (int)(a.first % CHUNK);
    const int64_t c = ((int64_t)blockIdx.x * FLAT_THREADS + threadIdx.x) * CHUNK - lead;
    const int first = c < 0 ? lead : 0, end = (int)min((int64_t)CHUNK, a.n - c);
    M *const am = (M *)a.m + c, *const av = (M *)a.v + c;
    float g[CHUNK], m[CHUNK], v[CHUNK], x[CHUNK];

    if (end <= 0)
        return;
    load_eight(a.grad + c, first, end, g);
    load_eight(am, first, end, m);
    load_eight(av, first, end, v);
    load_eight(a.param + c, first, end, x);
#pragma unroll
    for (int e = 0; e < CHUNK; e++) {
        const float gs = g[e] * a.grad_scale;

        m[e] = a.beta1 * m[e] + a.fresh1 * gs;
        v[e] = a.beta2 * v[e] + a.fresh2 * (gs * gs);
        x[e] = x[e] * a.decay_before -
               a.rate * m[e] / (sqrtf(v[e]) * a.root_scale + a.eps);
        x[e] *= a.decay_after;
    }
    store_eight(a.param + c, first, end, x);
    if (a.copy)
        store_eight(a.copy + c, first, end, x);
    if (sizeof(M) == sizeof(bf16))
        round_moments(a, a.first + c, m, v);
    store_eight(am, first, end, m);
    store_eight(av, first, end, v);
}

struct adafactor_args {
    float *param;
    bf16 *copy; /* or NULL */
    const float *grad;
    float *row, *col;
    int64_t rows, cols, tile_rows;
    float keep, eps, grad_scale, decay;
    double lr, clip_threshold;
    float *row_part, *col_part; /* [column tiles, rows], [row tiles, cols] of g^2 */
    double *row_sums, *sizes;   /* partial sums: of row; of the squared update */
    int n_row_sums, n_sizes;
};

/* Where a thread of a tile is: lanes have a chunk of columns each, warps take rows in
 * turn. */
struct tile_place {
    int64_t c, r, end;
    int n; /* columns of the chunk, <= 0: none */
};

__device__ __forceinline__ tile_place tile_place_of(const adafactor_args &a)
{
    tile_place t;
    const int64_t first = (int64_t)blockIdx.y * a.tile_rows;

    t.c = (int64_t)blockIdx.x * TILE_COLS + threadIdx.x % WARP * CHUNK;
    t.r = first + threadIdx.x / WARP;
    t.end = min(a.rows, first + a.tile_rows);
    t.n = (int)min((int64_t)CHUNK, a.cols - t.c);
    return t;
}

/* Sums of u = g^2 + eps over the tile's columns for each row, over its rows for each
 * column. */
__global__ void __launch_bounds__(TILE_THREADS) mean_tile(const adafactor_args a)
{
    alignas(16) __shared__ float sums[TILE_WARPS][TILE_COLS];
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int64_t col = (int64_t)blockIdx.x * TILE_COLS + threadIdx.x;
    const tile_place t = tile_place_of(a);
    float down[CHUNK] = {}, total = 0.0f;

    for (int64_t r = t.r; r < t.end; r += TILE_WARPS) {
        float g[CHUNK], across = 0.0f;

        load_eight(a.grad + r * a.cols + t.c, 0, t.n, g);
#pragma unroll
        for (int e = 0; e < CHUNK; e++) {
            const float gs = g[e] * a.grad_scale, u = e < t.n ? gs * gs + a.eps : 0.0f;

            down[e] += u;
            across += u;
        }
        across = warp_sum(across);
        if (lane == 0)
            a.row_part[blockIdx.x * a.rows + r] = across;
    }
    store_eight(sums[warp] + lane * CHUNK, 0, CHUNK, down);
    __syncthreads();
    if (col >= a.cols)
        return;
    for (int w = 0; w < TILE_WARPS; w++)
        total += sums[w][threadIdx.x];
    a.col_part[blockIdx.y * a.cols + col] = total;
}

/* Running means of the rows, and partial sums over them. */
__global__ void __launch_bounds__(FLAT_THREADS)
    mean_rows(const adafactor_args a, int col_tiles)
{
    __shared__ double shared[WARP];
    const int64_t r = (int64_t)blockIdx.x * FLAT_THREADS + threadIdx.x;
    float sum = 0.0f, mean = 0.0f;
    double total;

    if (r < a.rows) {
        for (int i = 0; i < col_tiles; i++)
            sum += a.row_part[i * a.rows + r];
        mean = a.keep * a.row[r] + (1.0f - a.keep) * sum / (float)a.cols;
        a.row[r] = mean;
    }
    total = block_sum((double)mean, shared);
    if (threadIdx.x == 0)
        a.row_sums[blockIdx.x] = total;
}

/* 1 / the mean of the row means. */
__device__ __forceinline__ float row_scale(const adafactor_args &a, double *shared)
{
    return (float)((double)a.rows / sum_parts(a.row_sums, a.n_row_sums, shared));
}

/* lr, less where the update is larger than the threshold. */
__device__ __forceinline__ float update_rate(const adafactor_args &a, double *shared)
{
    const double rms =
        sqrt(sum_parts(a.sizes, a.n_sizes, shared) / ((double)a.rows * (double)a.cols));

    return (float)(a.lr / fmax(1.0, rms / a.clip_threshold));
}

/* The update of row R before lr and clipping is g * this / sqrt(col). */
__device__ __forceinline__ float row_factor(const adafactor_args &a, int64_t r,
                                            float scale)
{
    return a.grad_scale * (1.0f / sqrtf(a.row[r] * scale));
}

__global__ void __launch_bounds__(TILE_THREADS) size_tile(const adafactor_args a)
{
    __shared__ double shared[WARP];
    const tile_place t = tile_place_of(a);
    const float scale = row_scale(a, shared);
    float col[CHUNK];
    double sum = 0.0;

    load_eight(a.col + t.c, 0, t.n, col);
    for (int64_t r = t.r; r < t.end; r += TILE_WARPS) {
        const float factor = row_factor(a, r, scale);
        float g[CHUNK];

        load_eight(a.grad + r * a.cols + t.c, 0, t.n, g);
#pragma unroll
        for (int e = 0; e < CHUNK; e++) {
            const float u = e < t.n ? g[e] * factor / sqrtf(col[e]) : 0.0f;

            sum += (double)u * (double)u;
        }
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0)
        a.sizes[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

/* param = param decay - g factor / sqrt(v) for a chunk. */
__device__ __forceinline__ void apply_chunk(const adafactor_args &a, int64_t at,
                                            int first, int end, float factor,
                                            const float (&v)[CHUNK])
{
    float g[CHUNK], x[CHUNK];

    load_eight(a.grad + at, first, end, g);
    load_eight(a.param + at, first, end, x);
#pragma unroll
    for (int e = 0; e < CHUNK; e++)
        x[e] = x[e] * a.decay - g[e] * factor / sqrtf(v[e]);
    store_eight(a.param + at, first, end, x);
    if (a.copy)
        store_eight(a.copy + at, first, end, x);
}

__global__ void __launch_bounds__(TILE_THREADS) apply_tile(const adafactor_args a)
{
    __shared__ double shared[WARP];
    const tile_place t = tile_place_of(a);
    const float scale = row_scale(a, shared), rate = update_rate(a, shared);
    float col[CHUNK];

    load_eight(a.col + t.c, 0, t.n, col);
    for (int64_t r = t.r; r < t.end; r += TILE_WARPS)
        apply_chunk(a, r * a.cols + t.c, 0, t.n, row_factor(a, r, scale) * rate, col);
}

/* Not factored: the running mean of every value, and the size of the update. */
__global__ void __launch_bounds__(FLAT_THREADS) mean_flat(const adafactor_args a)
{
    __shared__ double shared[WARP];
    const int lead = chunk_lead(a.grad);
    const int64_t n = a.rows * a.cols;
    double sum = 0.0;

    for (int64_t i = (int64_t)blockIdx.x * FLAT_THREADS + threadIdx.x;
         i * CHUNK - lead < n; i += (int64_t)gridDim.x * FLAT_THREADS) {
        const int64_t c = i * CHUNK - lead;
        const int first = c < 0 ? lead : 0, end = (int)min((int64_t)CHUNK, n - c);
        float g[CHUNK], v[CHUNK];

        load_eight(a.grad + c, first, end, g);
        load_eight(a.row + c, first, end, v);
#pragma unroll
        for (int e = 0; e < CHUNK; e++) {
            const float gs = g[e] * a.grad_scale;

            v[e] = a.keep * v[e] + (1.0f - a.keep) * (gs * gs + a.eps);
            if (e >= first && e < end) {
                const float u = gs / sqrtf(v[e]);

                sum += (double)u * (double)u;
            }
        }
        store_eight(a.row + c, first, end, v);
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0)
        a.sizes[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(FLAT_THREADS) apply_flat(const adafactor_args a)
{
    __shared__ double shared[WARP];
    const int lead = chunk_lead(a.grad);
    const int64_t n = a.rows * a.cols;
    const float factor = a.grad_scale * update_rate(a, shared);

    for (int64_t i = (int64_t)blockIdx.x * FLAT_THREADS + threadIdx.x;
         i * CHUNK - lead < n; i += (int64_t)gridDim.x * FLAT_THREADS) {
        const int64_t c = i * CHUNK - lead;
        const int first = c < 0 ? lead : 0, end = (int)min((int64_t)CHUNK, n - c);
        float v[CHUNK];

        load_eight(a.row + c, first, end, v);
        apply_chunk(a, c, first, end, factor, v);
    }
}

int factored_step(struct kd_backend *be, adafactor_args a)
{
    const struct tiling t = tiling_of(a.rows, a.cols, cuda_of(be)->n_sm, 8);
    const dim3 grid((unsigned)t.col_tiles, (unsigned)t.row_tiles);
    void *scratch;

    a.tile_rows = t.rows;
    a.n_row_sums = (int)ceil_div(a.rows, FLAT_THREADS);
    a.n_sizes = (int)(t.col_tiles * t.row_tiles);
    KD_TRY(cuda_scratch(be,
                        (size_t)(a.n_row_sums + a.n_sizes) * sizeof(double) +
                            (size_t)(t.row_tiles * a.cols + t.col_tiles * a.rows) *
                                sizeof(float),
                        &scratch));
    a.row_sums = (double *)scratch;
    a.sizes = a.row_sums + a.n_row_sums;
    a.col_part = (float *)(a.sizes + a.n_sizes);
    a.row_part = a.col_part + t.row_tiles * a.cols;
    KD_LAUNCH(mean_tile, grid, TILE_THREADS, 0, cuda_stream(be), a);
    KD_LAUNCH(mean_rows, (unsigned)a.n_row_sums, FLAT_THREADS, 0, cuda_stream(be), a,
              (int)t.col_tiles);
    KD_TRY(rows_add_partials(be, {a.col_part,
                                  t.row_tiles,
                                  a.cols,
                                  a.cols,
                                  (1.0f - a.keep) / (float)a.rows,
                                  a.keep,
                                  {a.col, NULL}}));
    KD_LAUNCH(size_tile, grid, TILE_THREADS, 0, cuda_stream(be), a);
    KD_LAUNCH(apply_tile, grid, TILE_THREADS, 0, cuda_stream(be), a);
    return cuda_check_launch("adafactor");
}

int flat_step(struct kd_backend *be, adafactor_args a)
{
    void *scratch;

    a.n_sizes = (int)flat_partials(a.rows * a.cols, FLAT_THREADS, cuda_of(be)->n_sm);
    KD_TRY(cuda_scratch(be, (size_t)a.n_sizes * sizeof(double), &scratch));
    a.sizes = (double *)scratch;
    KD_LAUNCH(mean_flat, (unsigned)a.n_sizes, FLAT_THREADS, 0, cuda_stream(be), a);
    KD_LAUNCH(apply_flat, (unsigned)a.n_sizes, FLAT_THREADS, 0, cuda_stream(be), a);
    return cuda_check_launch("adafactor");
}

} // namespace

extern "C" int cuda_adamw(struct kd_backend *be, const struct kd_adamw *a)
{
    const double correct1 = 1.0 - pow(a->beta1, (double)a->step),
                 correct2 = 1.0 - pow(a->beta2, (double)a->step);
    const float decay = (float)(1.0 - a->lr * a->weight_decay);
    adamw_args p = {a->param,
                    a->m,
                    a->v,
                    (bf16 *)a->copy,
                    a->grad,
                    a->n,
                    a->first,
                    a->seed,
                    (uint32_t)a->step,
                    (float)a->beta1,
                    (float)a->beta2,
                    (float)(1.0 - a->beta1),
                    (float)(1.0 - a->beta2),
                    0.0f,
                    1.0f,
                    a->hf_order ? 1.0f : decay,
                    a->hf_order ? decay : 1.0f,
                    (float)a->eps,
                    (float)a->grad_scale};

    if (a->n == 0)
        return KD_OK;
    /* hf: lr sqrt(c2) / c1 * m / (sqrt(v) + eps); torch: lr / c1 * m / (sqrt(v / c2) +
     * eps) */
    p.rate =
        (float)(a->hf_order ? a->lr * sqrt(correct2) / correct1 : a->lr / correct1);
    if (!a->hf_order)
        p.root_scale = (float)(1.0 / sqrt(correct2));
    CUDA_BY_TYPE(a->moments, M,
                 KD_LAUNCH((adamw_kernel<M>),
                           (unsigned)ceil_div(a->n + a->first % CHUNK,
                                              (int64_t)FLAT_THREADS * CHUNK),
                           FLAT_THREADS, 0, cuda_stream(be), p));
    return cuda_check_launch("adamw");
}

extern "C" int cuda_adafactor(struct kd_backend *be, const struct kd_adafactor *a)
{
    adafactor_args p = {};

    if (a->rows == 0 || a->cols == 0)
        return KD_OK;
    p.param = a->param;
    p.copy = (bf16 *)a->copy;
    p.grad = a->grad;
    p.row = a->row;
    p.col = a->col;
    p.rows = a->rows;
    p.cols = a->cols;
    p.keep = (float)(1.0 - pow((double)a->step, a->decay_rate));
    p.eps = (float)a->eps;
    p.grad_scale = (float)a->grad_scale;
    p.decay = (float)(1.0 - a->lr * a->weight_decay);
    p.lr = a->lr;
    p.clip_threshold = a->clip_threshold;
    return a->factored ? factored_step(be, p) : flat_step(be, p);
}
