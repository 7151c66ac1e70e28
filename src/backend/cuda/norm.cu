// SPDX-License-Identifier: Apache-2.0
/* Layer norm and RMS norm with their residual and dropout, one pass over memory.
 *
 * A row is held in the registers of a group of threads (struct row_group), so mean,
 * variance and result come from one reading; rows wider than 4096 are read again for
 * each.  The backward kernel has about two blocks for each multiprocessor; their groups
 * take rows in turn and keep the gradients of gamma and beta of their columns in
 * registers too.  While a row is worked on, the next one is under way: the sums over a
 * row are barriers, behind which memory would idle.  The gradients of gamma and beta
 * are added over the groups of a block in order, and over the blocks by a second
 * kernel.
 *
 * Bounds, in bytes moved for rows cols = n, with T's size t: forward t n (x) + t n
 * (sub) + t n (sum) + t n (y); backward t n for each of sum, dy, dsum, dx (twice if it
 * adds), dsub; absent parts count nothing. */
#include "rows.h"

namespace
{

enum { NORM_THREADS = 256, BACK_THREADS = ROW_THREADS };

/* What both directions know of a call. */
struct norm_shape {
    int rows, cols, group; /* group: threads of a row */
    bool layer;
    float eps;
    const float *gamma, *beta;
    drop dropout;
};

/* FACTOR of the eight columns from C on of row R; only where dropout is on. */
__device__ __forceinline__ void drop_chunk(const drop &d, int64_t r, int c,
                                           float (&factor)[CHUNK])
{
    drop_eight(d, d.site, d.row_keys[r], (uint32_t)c / CHUNK, factor);
}

template <typename T> struct norm_args {
    norm_shape s;
    const T *x, *sub; /* one may be NULL */
    T *sum, *y;       /* sum may be NULL */
    float *stats;     /* or NULL */
};

/* V as a T holds it. */
template <typename T> __device__ __forceinline__ float rounded(float v)
{
    T t;

    cuda_store(&t, v);
    return cuda_load(&t);
}

/* V = x + dropout(sub), 0 behind the row's end; rounded as it is stored, so that the
 * statistics are those of what the backward pass will read. */
template <typename T>
__device__ __forceinline__ void residual(const norm_args<T> &a, int64_t r, int c, int n,
                                         float (&v)[CHUNK])
{
    const int64_t at = r * a.s.cols + c;
    const chunk<T> x = chunk_load(a.x ? a.x + at : NULL, 0, a.x ? n : 0),
                   sub = chunk_load(a.sub ? a.sub + at : NULL, 0, a.sub ? n : 0);
    float factor[CHUNK];

    chunk_floats(x, v);
    if (!a.sub)
        return;
    if (a.s.dropout.on && n > 0) {
        drop_chunk(a.s.dropout, r, c, factor);
#pragma unroll
        for (int e = 0; e < CHUNK; e++)
            v[e] = rounded<T>(v[e] + factor[e] * chunk_get(sub, e));
    } else {
#pragma unroll
        for (int e = 0; e < CHUNK; e++)
            v[e] = rounded<T>(v[e] + chunk_get(sub, e));
    }
}

/* A row's threads: chunk i of a thread begins at column (i threads + thread) CHUNK. */
struct row_walk {
    row_place at;
    int r;
    int cols;   /* 0 for groups behind the last row */
    int chunks; /* of a thread */
    int group;

    __device__ __forceinline__ int column(int i) const
    {
        return (i * group + at.thread) * CHUNK;
    }
};

/* Row FIRST of this block and those behind it.  HELD: chunks of a thread, or 0 where
 * each pass over the row makes them anew. */
template <int HELD>
__device__ __forceinline__ row_walk walk_of(const norm_shape &s, int first)
{
    row_walk w;

    w.at = row_place_of(s.group);
    w.r = first + w.at.group;
    w.cols = w.r < s.rows ? s.cols : 0;
    w.chunks = HELD ? HELD : (s.cols - 1) / (s.group * CHUNK) + 1;
    w.group = s.group;
    return w;
}

template <typename T>
__device__ __forceinline__ void norm_store(const norm_args<T> &a, const row_walk &w,
                                           int c, float mean, float scale,
                                           float (&v)[CHUNK])
{
    const int64_t at = (int64_t)w.r * a.s.cols + c;
    const int n = w.cols - c;
    float gamma[CHUNK], beta[CHUNK] = {};

    if (a.sum)
        store_eight(a.sum + at, 0, n, v);
    load_eight(a.s.gamma + c, 0, n, gamma);
    if (a.s.beta)
        load_eight(a.s.beta + c, 0, n, beta);
#pragma unroll
    for (int e = 0; e < CHUNK; e++)
        v[e] = (v[e] - mean) * scale * gamma[e] + beta[e];
    store_eight(a.y + at, 0, n, v);
}

template <typename T, int HELD>
__global__ void __launch_bounds__(ROW_THREADS) norm_kernel(const norm_args<T> a)
{
    __shared__ float shared[WARP];
    const row_walk w =
        walk_of<HELD>(a.s, (int)(blockIdx.x * (blockDim.x / (unsigned)a.s.group)));
    float held[HELD ? HELD : 1][CHUNK], sum[1] = {0.0f}, square[1] = {0.0f}, mean,
                                        scale;

#pragma unroll
    for (int i = 0; i < w.chunks; i++) {
        float(&v)[CHUNK] = held[HELD ? i : 0];

        residual(a, w.r, w.column(i), w.cols - w.column(i), v);
#pragma unroll
        for (int e = 0; e < CHUNK; e++)
            sum[0] += v[e];
    }
    if (a.s.layer)
        group_sum(sum, a.s.group, shared);
    mean = a.s.layer ? sum[0] / (float)a.s.cols : 0.0f;
#pragma unroll
    for (int i = 0; i < w.chunks; i++) {
        float(&v)[CHUNK] = held[HELD ? i : 0];

        if (!HELD)
            residual(a, w.r, w.column(i), w.cols - w.column(i), v);
#pragma unroll
        for (int e = 0; e < CHUNK; e++)
            square[0] += w.column(i) + e < w.cols ? (v[e] - mean) * (v[e] - mean) : 0;
    }
    group_sum(square, a.s.group, shared);
    scale = 1.0f / sqrtf(square[0] / (float)a.s.cols + a.s.eps);
    if (a.stats && w.at.thread == 0 && w.cols > 0) {
        a.stats[2 * w.r] = mean;
        a.stats[2 * w.r + 1] = scale;
    }
#pragma unroll
    for (int i = 0; i < w.chunks; i++) {
        float(&v)[CHUNK] = held[HELD ? i : 0];

        if (!HELD)
            residual(a, w.r, w.column(i), w.cols - w.column(i), v);
        norm_store(a, w, w.column(i), mean, scale, v);
    }
}

template <typename T> struct back_args {
    norm_shape s;
    const T *sum, *dy, *dsum; /* dsum may be NULL */
    const float *stats;
    T *dx, *dsub; /* or NULL */
    bool acc_dx;
    float *part; /* [blocks, 2, cols]: dgamma, dbeta; or NULL */
};

/* What a thread keeps of its row and its columns. */
template <int HELD> struct back_held {
    float norm[HELD ? HELD : 1][CHUNK]; /* n = (s - mean) / sigma */
    float g[HELD ? HELD : 1][CHUNK];    /* dy gamma; 0 behind the row's end */
    float dgamma[HELD ? HELD : 1][CHUNK], dbeta[HELD ? HELD : 1][CHUNK];
};

/* What is read of a row, as it lies in memory. */
template <typename T, int HELD> struct back_input {
    chunk<T> sum[HELD ? HELD : 1], dy[HELD ? HELD : 1];
    float mean, scale;
};

/* Chunk I of the row, 0 behind its end. */
template <typename T, int HELD>
__device__ __forceinline__ void back_read(const back_args<T> &a, const row_walk &w,
                                          int i, back_input<T, HELD> &in)
{
    const int k = HELD ? i : 0, n = w.cols - w.column(i);
    const int64_t at = (int64_t)w.r * a.s.cols + w.column(i);

    in.sum[k] = chunk_load(a.sum + at, 0, n);
    in.dy[k] = chunk_load(a.dy + at, 0, n);
}

/* The row's statistics and the chunks that are held. */
template <typename T, int HELD>
__device__ __forceinline__ void back_begin(const back_args<T> &a, const row_walk &w,
                                           back_input<T, HELD> &in)
{
    in.mean = w.cols > 0 ? a.stats[2 * w.r] : 0.0f;
    in.scale = w.cols > 0 ? a.stats[2 * w.r + 1] : 0.0f;
#pragma unroll
    for (int i = 0; i < HELD; i++)
        back_read(a, w, i, in);
}

/* n and dy of the chunk in place K. */
template <typename T, int HELD>
__device__ __forceinline__ void back_chunk(const back_input<T, HELD> &in, int k,
                                           float (&norm)[CHUNK], float (&d)[CHUNK])
{
#pragma unroll
    for (int e = 0; e < CHUNK; e++) {
        norm[e] = (chunk_get(in.sum[k], e) - in.mean) * in.scale;
        d[e] = chunk_get(in.dy[k], e);
    }
}

/* Add a row to the gradients of gamma and beta, and to SUMS of g and g n.  PART: the
 * block's own gradients [2, cols], where they are not held. */
template <typename T, int HELD>
__device__ __forceinline__ void back_sums(const back_args<T> &a, const row_walk &w,
                                          float *part, back_input<T, HELD> &in,
                                          back_held<HELD> &h, float (&sums)[2])
{
#pragma unroll
    for (int i = 0; i < w.chunks; i++) {
        const int k = HELD ? i : 0, c = w.column(i), n = w.cols - c;
        float gamma[CHUNK];

        if (!HELD)
            back_read(a, w, i, in);
        back_chunk(in, k, h.norm[k], h.g[k]);
        load_eight(a.s.gamma + c, 0, n, gamma);
        if (!HELD && part) {
            load_eight(part + c, 0, n, h.dgamma[0]);
            load_eight(part + a.s.cols + c, 0, n, h.dbeta[0]);
        }
#pragma unroll
        for (int e = 0; e < CHUNK; e++) {
            h.dgamma[k][e] += h.g[k][e] * h.norm[k][e];
            h.dbeta[k][e] += h.g[k][e];
            h.g[k][e] *= gamma[e];
            sums[0] += h.g[k][e];
            sums[1] += h.g[k][e] * h.norm[k][e];
        }
        if (!HELD && part) {
            store_eight(part + c, 0, n, h.dgamma[0]);
            store_eight(part + a.s.cols + c, 0, n, h.dbeta[0]);
        }
    }
}

/* Write the gradients of a chunk: DS is that of the norm's input. */
template <typename T>
__device__ __forceinline__ void back_store(const back_args<T> &a, int64_t r, int c,
                                           int n, float (&ds)[CHUNK])
{
    const int64_t at = r * a.s.cols + c;
    float v[CHUNK];

    if (a.dsum) {
        load_eight(a.dsum + at, 0, n, v);
#pragma unroll
        for (int e = 0; e < CHUNK; e++)
            ds[e] += v[e];
    }
    if (a.dx && a.acc_dx) {
        load_eight(a.dx + at, 0, n, v);
#pragma unroll
        for (int e = 0; e < CHUNK; e++)
            v[e] += ds[e];
        store_eight(a.dx + at, 0, n, v);
    } else if (a.dx) {
        store_eight(a.dx + at, 0, n, ds);
    }
    if (!a.dsub)
        return;
    if (a.s.dropout.on && n > 0) {
        drop_chunk(a.s.dropout, r, c, v);
#pragma unroll
        for (int e = 0; e < CHUNK; e++)
            ds[e] *= v[e];
    }
    store_eight(a.dsub + at, 0, n, ds);
}

/* The row's gradients from MEANS of g and g n. */
template <typename T, int HELD>
__device__ __forceinline__ void back_row(const back_args<T> &a, const row_walk &w,
                                         back_input<T, HELD> &in, back_held<HELD> &h,
                                         const float (&means)[2])
{
#pragma unroll
    for (int i = 0; i < w.chunks; i++) {
        const int k = HELD ? i : 0, c = w.column(i), n = w.cols - c;

        if (!HELD) {
            float gamma[CHUNK];

            back_read(a, w, i, in);
            back_chunk(in, k, h.norm[k], h.g[k]);
            load_eight(a.s.gamma + c, 0, n, gamma);
#pragma unroll
            for (int e = 0; e < CHUNK; e++)
                h.g[k][e] *= gamma[e];
        }
#pragma unroll
        for (int e = 0; e < CHUNK; e++)
            h.g[k][e] = (h.g[k][e] - means[0] - h.norm[k][e] * means[1]) * in.scale;
        back_store(a, w.r, c, n, h.g[k]);
    }
}

/* SUM[CHUNK] of the groups of the block, added in their order, to OUT; OWN is the
 * place that the threads of these columns share. */
__device__ __forceinline__ void groups_to(float *out, int n, float (&sum)[CHUNK],
                                          int group, int groups, float *own)
{
    for (int g = 0; g < groups; g++) {
        if (group == g) {
#pragma unroll
            for (int e = 0; e < CHUNK; e++) {
                sum[e] += g > 0 ? own[e] : 0.0f;
                own[e] = sum[e];
            }
            if (g == groups - 1)
                store_eight(out, 0, n, sum);
        }
        __syncthreads();
    }
}

/* The walk of this thread's group in the rows from FIRST on. */
__device__ __forceinline__ row_walk walk_at(row_walk w, const norm_shape &s, int first)
{
    w.r = first + w.at.group;
    w.cols = w.r < s.rows ? s.cols : 0;
    return w;
}

template <typename T, int HELD>
__global__ void __launch_bounds__(ROW_THREADS, HELD && sizeof(T) == 2 ? 2 : 1)
    norm_back_kernel(const back_args<T> a)
{
    KD_DYNAMIC_SHARED(float, groups_sum); /* [2, group threads, CHUNK] */
    __shared__ float shared[2 * WARP];
    const int groups = (int)(blockDim.x / (unsigned)a.s.group),
              step = (int)gridDim.x * groups;
    float *part = a.part ? a.part + (int64_t)blockIdx.x * 2 * a.s.cols : NULL;
    const row_walk w = walk_of<HELD>(a.s, 0);
    back_held<HELD> h = {};
    back_input<T, HELD> next;

    if (!HELD && part)
        for (int i = 0; i < w.chunks; i++) {
            const int c = w.column(i);

            store_eight(part + c, 0, a.s.cols - c, h.dgamma[0]);
            store_eight(part + a.s.cols + c, 0, a.s.cols - c, h.dbeta[0]);
        }
    back_begin(a, walk_at(w, a.s, (int)blockIdx.x * groups), next);
    for (int r = (int)blockIdx.x * groups; r < a.s.rows; r += step) {
        const row_walk row = walk_at(w, a.s, r);
        back_input<T, HELD> in = next;
        float sums[2] = {0.0f, 0.0f};

        back_begin(a, walk_at(w, a.s, r + step), next);
        back_sums(a, row, part, in, h, sums);
        group_sum(sums, a.s.group, shared);
        sums[0] = a.s.layer ? sums[0] / (float)a.s.cols : 0.0f;
        sums[1] /= (float)a.s.cols;
        back_row(a, row, in, h, sums);
    }
#pragma unroll
    for (int i = 0; i < w.chunks && HELD && part; i++) {
        const int k = HELD ? i : 0, c = w.column(i);
        float *own = groups_sum + w.at.thread * CHUNK;

        groups_to(part + c, a.s.cols - c, h.dgamma[k], w.at.group, groups, own);
        groups_to(part + a.s.cols + c, a.s.cols - c, h.dbeta[k], w.at.group, groups,
                  own + a.s.group * CHUNK);
    }
}

norm_shape shape_of(const struct kd_norm *norm, const struct kd_dropout *drop,
                    struct kd_tensor t, int group)
{
    return {(int)t.shape[0], (int)t.shape[1], group,      norm->kind == KD_NORM_LAYER,
            norm->eps,       norm->gamma,     norm->beta, drop_of(drop)};
}

template <typename T>
int norm_of(struct kd_backend *be, const norm_args<T> &a, const row_group &g)
{
    const unsigned blocks = (unsigned)ceil_div(a.s.rows, g.rows),
                   threads = (unsigned)(g.threads * g.rows);

    if (g.held == 1)
        KD_LAUNCH((norm_kernel<T, 1>), blocks, threads, 0, cuda_stream(be), a);
    else
        KD_LAUNCH((norm_kernel<T, 0>), blocks, threads, 0, cuda_stream(be), a);
    return cuda_check_launch("norm");
}

template <typename T>
int norm_back_of(struct kd_backend *be, const back_args<T> &a, const row_group &g,
                 unsigned blocks)
{
    const unsigned threads = (unsigned)(g.threads * g.rows);
    const size_t shared = (size_t)(2 * g.threads * CHUNK) * sizeof(float);

    if (g.held == 1)
        KD_LAUNCH((norm_back_kernel<T, 1>), blocks, threads, shared, cuda_stream(be),
                  a);
    else
        KD_LAUNCH((norm_back_kernel<T, 0>), blocks, threads, shared, cuda_stream(be),
                  a);
    return cuda_check_launch("norm_back");
}

} // namespace

extern "C" int cuda_norm(struct kd_backend *be, const struct kd_norm *norm,
                         struct kd_tensor x, struct kd_tensor sub,
                         const struct kd_dropout *drop, struct kd_tensor sum,
                         struct kd_tensor y, float *stats)
{
    const row_group g = row_group_of(y.shape[1], NORM_THREADS);

    if (y.shape[0] == 0 || y.shape[1] == 0)
        return KD_OK;
    CUDA_BY_TYPE(
        y.dtype, T,
        return norm_of<T>(be,
                          {shape_of(norm, drop, y, g.threads), (const T *)x.data,
                           (const T *)sub.data, (T *)sum.data, (T *)y.data, stats},
                          g));
}

extern "C" int cuda_norm_back(struct kd_backend *be, const struct kd_norm *norm,
                              struct kd_tensor sum, const float *stats,
                              struct kd_tensor dy, struct kd_tensor dsum,
                              const struct kd_dropout *drop, struct kd_tensor dx,
                              bool acc_dx, struct kd_tensor dsub, float *dgamma,
                              float *dbeta)
{
    const int64_t rows = dy.shape[0], cols = dy.shape[1];
    const row_group g = row_group_of(cols, BACK_THREADS);
    const int64_t blocks = row_partials(rows, g.rows, cuda_of(be)->n_sm);
    void *part = NULL;

    if (rows == 0 || cols == 0)
        return KD_OK;
    if (dgamma || dbeta)
        KD_TRY(cuda_scratch(be, (size_t)(blocks * 2 * cols) * sizeof(float), &part));
    CUDA_BY_TYPE(dy.dtype, T,
                 KD_TRY(norm_back_of<T>(be,
                                        {shape_of(norm, drop, dy, g.threads),
                                         (const T *)sum.data, (const T *)dy.data,
                                         (const T *)dsum.data, stats, (T *)dx.data,
                                         (T *)dsub.data, acc_dx, (float *)part},
                                        g, (unsigned)blocks)));
    if (!part)
        return KD_OK;
    return rows_add_partials(
        be, {(float *)part, blocks, 2 * cols, cols, 1.0f, 1.0f, {dgamma, dbeta}});
}
