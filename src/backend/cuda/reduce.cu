// SPDX-License-Identifier: Apache-2.0
/* Reductions over rows and columns: column sums, log-softmax, the sum of squares.
 *
 * Sums over many rows or values are partial sums of blocks, added in block order by a
 * second kernel: no atomics, the same bits every time.  Sums that feed a logarithm or a
 * norm are float64.
 *
 * Bounds, in bytes moved: col_sum rows cols sizeof(T); log_softmax 12 rows cols (8
 * where a row's second reading finds it in the cache), log_sum 4 rows cols; sum_sq 4 n.
 */
#include "expsum.h"

namespace
{

enum {
    SUM_THREADS = TILE_WARPS * WARP,
    AHEAD = 4, /* rows that a warp has under way */
    SOFTMAX_THREADS = 512,
    SQUARE_THREADS = 256,
    SQUARE_SPANS = 64 /* of one launch: they travel as its argument */
};

template <typename T> struct col_args {
    const T *x;
    int64_t ld, cols, tile_rows, rows;
    float *part, *out; /* part [row tiles, cols], or NULL: one tile, straight to out */
    bool acc;
};

/* A tile: warps take rows in turn, lanes have a chunk each; then the warps' sums are
 * added in their order. */
template <typename T>
__global__ void __launch_bounds__(SUM_THREADS) col_sum_kernel(const col_args<T> a)
{
    alignas(16) __shared__ float sums[TILE_WARPS][TILE_COLS];
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int64_t c = (int64_t)blockIdx.x * TILE_COLS + lane * CHUNK,
                  first = (int64_t)blockIdx.y * a.tile_rows,
                  end = min(a.rows, first + a.tile_rows),
                  col = (int64_t)blockIdx.x * TILE_COLS + threadIdx.x;
    const int n = (int)min((int64_t)CHUNK, a.cols - c);
    float sum[CHUNK] = {}, total = 0.0f;

    for (int64_t r = first + warp; r < end; r += AHEAD * TILE_WARPS) {
        chunk<T> x[AHEAD];

#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            x[i] = chunk_load(a.x + (r + i * TILE_WARPS) * a.ld + c, 0,
                              r + i * TILE_WARPS < end ? n : 0);
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
#pragma unroll
            for (int e = 0; e < CHUNK; e++)
                sum[e] += chunk_get(x[i], e);
        }
    }
    store_eight(sums[warp] + lane * CHUNK, 0, CHUNK, sum);
    __syncthreads();
    if (col >= a.cols)
        return;
    for (int w = 0; w < TILE_WARPS; w++)
        total += sums[w][threadIdx.x];
    if (a.part)
        a.part[blockIdx.y * a.cols + col] = total;
    else
        a.out[col] = a.acc ? a.out[col] + total : total;
}

/* Columns of 32 to a block; warps take partial sums in turn and are added in order. */
__global__ void __launch_bounds__(SUM_THREADS) add_partials(const partial_sums p)
{
    __shared__ float sums[TILE_WARPS][WARP];
    const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
    const int64_t c = (int64_t)blockIdx.x * WARP + lane;
    const float *part = p.part + blockIdx.y * p.n + c;
    float *out = blockIdx.y == 0 ? p.out[0] : p.out[1];
    float sum = 0.0f;

#pragma unroll 8
    for (int64_t i = warp; i < p.n_parts; i += TILE_WARPS)
        sum += c < p.n ? part[i * p.stride] : 0.0f;
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp > 0 || c >= p.n || !out)
        return;
    for (int w = 1; w < TILE_WARPS; w++)
        sum += sums[w][lane];
    out[c] = p.beta == 0.0f ? p.alpha * sum : p.beta * out[c] + p.alpha * sum;
}

template <typename T>
int col_sum_of(struct kd_backend *be, struct kd_mat x, float *out, bool acc)
{
    const struct tiling t = tiling_of(x.rows, x.cols, cuda_of(be)->n_sm, 4);
    col_args<T> a = {(const T *)x.data, x.ld, x.cols, t.rows, x.rows, NULL, out, acc};

    if (t.row_tiles > 1) {
        void *part;

        KD_TRY(cuda_scratch(be, (size_t)(t.row_tiles * x.cols) * sizeof(float), &part));
        a.part = (float *)part;
    }
    KD_LAUNCH((col_sum_kernel<T>), dim3((unsigned)t.col_tiles, (unsigned)t.row_tiles),
              SUM_THREADS, 0, cuda_stream(be), a);
    KD_TRY(cuda_check_launch("col_sum"));
    if (!a.part)
        return KD_OK;
    return rows_add_partials(
        be,
        {a.part, t.row_tiles, x.cols, x.cols, 1.0f, acc ? 1.0f : 0.0f, {out, NULL}});
}

/* Sum of exponentials of chunks [I, END) of the row X, by all threads of the block. */
__device__ __forceinline__ exp_sum row_exp_sum(const float *x, int cols, int i, int end,
                                               float *shared, double *shared_sum)
{
    const int lead = chunk_lead(x);
    exp_sum s = exp_sum_none();
    float top = -INFINITY;
    double factor;

#pragma unroll 2
    for (i += (int)threadIdx.x; i < end; i += (int)blockDim.x) {
        const int c = i * CHUNK - lead;
        float v[CHUNK], most = -INFINITY;

        load_padded(x + c, -c, cols - c, -INFINITY, v);
#pragma unroll
        for (int e = 0; e < CHUNK; e++)
            most = fmaxf(most, v[e]);
        if (most > top)
            (void)s.raise(top = most);
#pragma unroll
        for (int e = 0; e < CHUNK; e++)
            s.sum += (double)exp_over(v[e], s.ref);
    }
    return exp_sum_block(s, &factor, shared, shared_sum);
}

/* x -= high + low for chunks [I, END). */
__device__ __forceinline__ void row_shift(float *x, int cols, int i, int end,
                                          double shift)
{
    const int lead = chunk_lead(x);
    const float high = (float)shift, low = (float)(shift - (double)high);

    for (i += (int)threadIdx.x; i < end; i += (int)blockDim.x) {
        const int c = i * CHUNK - lead;
        float v[CHUNK];

        load_eight(x + c, -c, cols - c, v);
#pragma unroll
        for (int e = 0; e < CHUNK; e++)
            v[e] = (v[e] - high) - low;
        store_eight(x + c, -c, cols - c, v);
    }
}

struct softmax_args {
    float *x;
    int cols, splits, per; /* per: chunks of a split */
    exp_sum *part;         /* [rows, splits], or NULL: one split */
    float *sums;           /* [rows, 2]: leave the sums there; NULL: change x */
};

/* The log-sum of row R, for which x is (x - high) - low. */
__device__ __forceinline__ void row_log_sum(const softmax_args &a, int64_t r,
                                            double log_sum)
{
    const float high = (float)log_sum;

    if (threadIdx.x > 0)
        return;
    a.sums[2 * r] = high;
    a.sums[2 * r + 1] = (float)(log_sum - (double)high);
}

__device__ __forceinline__ int row_chunks(int cols)
{
    return (cols + 2 * CHUNK - 2) / CHUNK;
}

__global__ void __launch_bounds__(SOFTMAX_THREADS, 2) softmax_sums(const softmax_args a)
{
    __shared__ float shared[WARP];
    __shared__ double shared_sum[WARP], log_sum;
    const int64_t r = blockIdx.x / (unsigned)a.splits;
    const int split = (int)(blockIdx.x % (unsigned)a.splits), first = split * a.per,
              end = min(row_chunks(a.cols), first + a.per);
    float *x = a.x + r * a.cols;
    const exp_sum s = row_exp_sum(x, a.cols, first, end, shared, shared_sum);

    if (a.part) {
        if (threadIdx.x == 0)
            a.part[blockIdx.x] = s;
        return;
    }
    if (threadIdx.x == 0)
        log_sum = s.log_sum();
    __syncthreads();
    if (a.sums)
        row_log_sum(a, r, log_sum);
    else
        row_shift(x, a.cols, first, end, log_sum);
}

/* A row's log-sum from the sums of its splits (32 at most), and a split of the row. */
__global__ void __launch_bounds__(SOFTMAX_THREADS) softmax_apply(const softmax_args a)
{
    __shared__ double log_sum;
    const int64_t r = blockIdx.x / (unsigned)a.splits;
    const int split = (int)(blockIdx.x % (unsigned)a.splits), first = split * a.per,
              lane = (int)threadIdx.x;

    if (lane < WARP) {
        const exp_sum s =
            lane < a.splits ? a.part[r * a.splits + lane] : exp_sum_none();
        const float top = warp_max(s.sum == 0.0 ? -1e9f : (float)s.ref);
        exp_sum all = {0.0, top > -1e9f ? (int)top : 0};

        all.sum = warp_sum(s.sum * power_of_two(s.ref < all.ref ? s.ref - all.ref : 0));
        if (lane == 0)
            log_sum = all.log_sum();
    }
    __syncthreads();
    if (a.sums)
        row_log_sum(a, r, log_sum); /* of all splits the same */
    else
        row_shift(a.x + r * a.cols, a.cols, first,
                  min(row_chunks(a.cols), first + a.per), log_sum);
}

struct square_args {
    struct kd_span spans[SQUARE_SPANS]; /* one a row of the grid */
    double *part;                       /* [blocks of the grid] */
};

__global__ void __launch_bounds__(SQUARE_THREADS) square_sums(const square_args a)
{
    __shared__ double shared[WARP];
    const float *x = a.spans[blockIdx.y].x;
    const int64_t n = a.spans[blockIdx.y].n;
    const int lead = chunk_lead(x);
    double sum = 0.0;

#pragma unroll 2
    for (int64_t i = (int64_t)blockIdx.x * SQUARE_THREADS + threadIdx.x;
         i * CHUNK - lead < n; i += (int64_t)gridDim.x * SQUARE_THREADS) {
        const int64_t c = i * CHUNK - lead;
        float v[CHUNK];

        load_eight(x + c, c < 0 ? lead : 0, (int)min((int64_t)CHUNK, n - c), v);
#pragma unroll
        for (int e = 0; e < CHUNK; e++)
            sum += (double)v[e] * (double)v[e];
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0)
        a.part[blockIdx.y * gridDim.x + blockIdx.x] = sum;
}

__global__ void __launch_bounds__(SQUARE_THREADS)
    square_total(const double *part, int n, double *out)
{
    __shared__ double shared[WARP];
    const double sum = sum_parts(part, n, shared);

    if (threadIdx.x == 0)
        *out = sum;
}

} // namespace

int rows_add_partials(struct kd_backend *be, const struct partial_sums &p)
{
    KD_LAUNCH(add_partials, dim3((unsigned)ceil_div(p.n, WARP), p.out[1] ? 2 : 1),
              SUM_THREADS, 0, cuda_stream(be), p);
    return cuda_check_launch("a sum of partial sums");
}

extern "C" int cuda_col_sum(struct kd_backend *be, struct kd_mat x, float *out,
                            bool acc)
{
    if (x.cols == 0)
        return KD_OK;
    CUDA_BY_TYPE(x.dtype, T, return col_sum_of<T>(be, x, out, acc));
}

/* SUMS NULL: in place. */
static int softmax(struct kd_backend *be, float *x, int64_t rows, int64_t cols,
                   float *sums, const char *slot)
{
    const int splits = softmax_splits(rows, cols, cuda_of(be)->n_sm);
    const int64_t chunks = (cols + 2 * CHUNK - 2) / CHUNK;
    softmax_args a = {x, (int)cols, splits, (int)ceil_div(chunks, splits), NULL, sums};
    const unsigned blocks = (unsigned)(rows * splits);

    if (rows == 0 || cols == 0)
        return KD_OK;
    if (splits > 1) {
        void *part;

        KD_TRY(cuda_scratch(be, (size_t)blocks * sizeof(exp_sum), &part));
        a.part = (exp_sum *)part;
    }
    KD_LAUNCH(softmax_sums, blocks, SOFTMAX_THREADS, 0, cuda_stream(be), a);
    if (splits > 1)
        KD_LAUNCH(softmax_apply, blocks, SOFTMAX_THREADS, 0, cuda_stream(be), a);
    return cuda_check_launch(slot);
}

extern "C" int cuda_log_softmax(struct kd_backend *be, float *x, int64_t rows,
                                int64_t cols)
{
    return softmax(be, x, rows, cols, NULL, "log_softmax");
}

extern "C" int cuda_log_sum(struct kd_backend *be, const float *x, int64_t rows,
                            int64_t cols, float *sums)
{
    return softmax(be, const_cast<float *>(x), rows, cols, sums, "log_sum");
}

/* Blocks for each of N spans of one launch: as many as the longest needs. */
static int64_t square_blocks(struct kd_backend *be, const struct kd_span *spans, int n)
{
    int64_t longest = 0;

    for (int i = 0; i < n; i++)
        longest = rows_max(longest, spans[i].n);
    return flat_partials(longest, SQUARE_THREADS, cuda_of(be)->n_sm);
}

extern "C" int cuda_sum_sq(struct kd_backend *be, const struct kd_span *spans,
                           int64_t n_spans, double *out)
{
    int64_t n_parts = 0, most = 0;
    square_args a = {};
    double *part;
    void *scratch;

    for (int64_t i = 0; i < n_spans; i += SQUARE_SPANS) {
        const int n = (int)rows_min(SQUARE_SPANS, n_spans - i);

        most += n * square_blocks(be, spans + i, n);
    }
    KD_TRY(cuda_scratch(be, (size_t)rows_max(1, most) * sizeof(double), &scratch));
    part = (double *)scratch;
    for (int64_t i = 0; i < n_spans; i += SQUARE_SPANS) {
        const int n = (int)rows_min(SQUARE_SPANS, n_spans - i);
        const int64_t blocks = square_blocks(be, spans + i, n);

        memcpy(a.spans, spans + i, (size_t)n * sizeof *spans);
        a.part = part + n_parts;
        KD_LAUNCH(square_sums, dim3((unsigned)blocks, (unsigned)n), SQUARE_THREADS, 0,
                  cuda_stream(be), a);
        n_parts += n * blocks;
    }
    KD_LAUNCH(square_total, 1, SQUARE_THREADS, 0, cuda_stream(be), part, (int)n_parts,
              out);
    return cuda_check_launch("sum_sq");
}
