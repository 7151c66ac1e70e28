// SPDX-License-Identifier: Apache-2.0
/* Table lookups and their gradient.
 *
 * The gradient adds rows of dx that may share a table row, in ascending row order for
 * each id.  The rows of each id are listed first: counts by integer atomics give every
 * row some place among those of its id, an integer cursor gives every id some part of
 * one list (both in any order, which nothing depends on), and a row's place in the
 * sorted list is the number of earlier rows of its id.  Then the first-counted row of
 * an id speaks for all: its threads walk the list with their columns in registers.  The
 * cost does not grow with table rows x columns, only 8 bytes for each table row.
 *
 * Bounds, in bytes moved for n = rows cols of size t: gather 2 t n (3 t n with
 * positions); scatter t n + 8 bytes for each column of a table row that is named; its
 * list 28 bytes a row, and the square of the most frequent id's count in comparisons.
 */
#include "rows.h"

namespace
{

enum {
    GATHER_WARPS = 8,
    LIST_THREADS = 256,
    ADD_THREADS = 256,
    ADD_COLS = 2,
    AHEAD = 8
};

template <typename T> struct gather_args {
    const T *table, *pos;
    const int32_t *ids, *pos_ids;
    float scale;
    T *out;
    int64_t rows, cols;
};

template <typename T>
__global__ void __launch_bounds__(GATHER_WARPS *WARP)
    gather_kernel(const gather_args<T> a)
{
    const int lane = (int)threadIdx.x % WARP;
    const int64_t r = (int64_t)blockIdx.x * GATHER_WARPS + threadIdx.x / WARP;
    const T *x, *p = NULL;

    if (r >= a.rows)
        return;
    x = a.table + a.ids[r] * a.cols;
    if (a.pos)
        p = a.pos + a.pos_ids[r] * a.cols;
    for (int64_t c = lane * CHUNK; c < a.cols; c += WARP * CHUNK) {
        const int n = (int)min((int64_t)CHUNK, a.cols - c);
        const chunk<T> from = chunk_load(x + c, 0, n),
                       place = chunk_load(p ? p + c : NULL, 0, p ? n : 0);
        float v[CHUNK];

#pragma unroll
        for (int e = 0; e < CHUNK; e++)
            v[e] = p ? a.scale * chunk_get(from, e) + chunk_get(place, e)
                     : a.scale * chunk_get(from, e);
        store_eight(a.out + r * a.cols + c, 0, n, v);
    }
}

/* The lists of rows by id. */
struct lists {
    const int32_t *ids;
    int32_t skip_id;
    int rows;
    int *counts;  /* [table rows], and behind them the cursor; 0 at first */
    int *starts;  /* [table rows] where an id's part of the list begins */
    int *arrival; /* [rows] place among the rows of the id, in any order; -1: skipped */
    int *members; /* [rows] the list: parts in any order, rows in any order */
    int *sorted;  /* [rows] the same with each part's rows ascending */
    int *cursor;
};

__device__ __forceinline__ int list_row(const lists &l)
{
    const int r = (int)(blockIdx.x * LIST_THREADS + threadIdx.x);

    return r < l.rows ? r : -1;
}

__global__ void __launch_bounds__(LIST_THREADS) list_count(const lists l)
{
    const int r = list_row(l);

    if (r >= 0)
        l.arrival[r] = l.ids[r] == l.skip_id ? -1 : atomicAdd(l.counts + l.ids[r], 1);
}

__global__ void __launch_bounds__(LIST_THREADS) list_start(const lists l)
{
    const int r = list_row(l);

    if (r >= 0 && l.arrival[r] == 0)
        l.starts[l.ids[r]] = atomicAdd(l.cursor, l.counts[l.ids[r]]);
}

__global__ void __launch_bounds__(LIST_THREADS) list_place(const lists l)
{
    const int r = list_row(l);

    if (r >= 0 && l.arrival[r] >= 0)
        l.members[l.starts[l.ids[r]] + l.arrival[r]] = r;
}

__global__ void __launch_bounds__(LIST_THREADS) list_sort(const lists l)
{
    const int r = list_row(l);
    const int *members;
    int n, rank = 0;

    if (r < 0 || l.arrival[r] < 0)
        return;
    members = l.members + l.starts[l.ids[r]];
    n = l.counts[l.ids[r]];
#pragma unroll 8
    for (int i = 0; i < n; i++)
        rank += members[i] < r;
    l.sorted[l.starts[l.ids[r]] + rank] = r;
}

/* Two columns of a row as they lie in memory. */
template <typename T> struct alignas(ADD_COLS * sizeof(T)) pair {
    T v[ADD_COLS];
};

template <typename T> struct add_args {
    lists l;
    const T *dx;
    float scale;
    float *table;
    int64_t cols;
    bool paired; /* two columns can be one access */
};

/* Two columns at P, or the first and 0. */
template <typename T>
__device__ __forceinline__ pair<T> load_pair(const T *p, bool paired, bool second)
{
    pair<T> x = {};

    if (paired) {
#ifdef KD_CUDA_HOST
        kd_host_aligned(p, sizeof(pair<T>));
#endif
        return *reinterpret_cast<const pair<T> *>(p);
    }
    x.v[0] = p[0];
    if (second)
        x.v[1] = p[1];
    return x;
}

/* A block has one row of dx and columns of the table; it works if that row speaks for
 * its id.  The next rows of the list are read while this lot is added. */
template <typename T>
__global__ void __launch_bounds__(ADD_THREADS) scatter_kernel(const add_args<T> a)
{
    const int r = (int)blockIdx.x;
    const int64_t c = ((int64_t)blockIdx.y * ADD_THREADS + threadIdx.x) * ADD_COLS;
    const bool second = c + 1 < a.cols;
    const int *rows;
    float *out, sum[ADD_COLS];
    int n;

    if (a.l.arrival[r] != 0 || c >= a.cols)
        return;
    rows = a.l.sorted + a.l.starts[a.l.ids[r]];
    n = a.l.counts[a.l.ids[r]];
    out = a.table + a.l.ids[r] * a.cols + c;
    sum[0] = out[0];
    sum[1] = second ? out[1] : 0.0f;
    for (int i = 0; i < n; i += AHEAD) {
        pair<T> x[AHEAD];

#pragma unroll
        for (int j = 0; j < AHEAD; j++)
            if (i + j < n)
                x[j] = load_pair(a.dx + rows[i + j] * a.cols + c, a.paired, second);
#pragma unroll
        for (int j = 0; j < AHEAD; j++)
            if (i + j < n) {
                sum[0] += a.scale * cuda_load(x[j].v);
                sum[1] += a.scale * cuda_load(x[j].v + 1);
            }
    }
    out[0] = sum[0];
    if (second)
        out[1] = sum[1];
}

template <typename T> int gather_of(struct kd_backend *be, const gather_args<T> &a)
{
    KD_LAUNCH((gather_kernel<T>), (unsigned)ceil_div(a.rows, GATHER_WARPS),
              GATHER_WARPS * WARP, 0, cuda_stream(be), a);
    return cuda_check_launch("gather_rows");
}

int make_lists(struct kd_backend *be, lists *l, int64_t table_rows)
{
    const unsigned blocks = (unsigned)ceil_div(l->rows, LIST_THREADS);
    void *scratch;

    KD_TRY(cuda_scratch(be, (size_t)(2 * table_rows + 1 + 3 * l->rows) * sizeof(int),
                        &scratch));
    l->counts = (int *)scratch;
    l->cursor = l->counts + table_rows;
    l->starts = l->cursor + 1;
    l->arrival = l->starts + table_rows;
    l->members = l->arrival + l->rows;
    l->sorted = l->members + l->rows;
    KD_TRY(
        cuda_check(cudaMemsetAsync(l->counts, 0, (size_t)(table_rows + 1) * sizeof(int),
                                   cuda_stream(be)),
                   "scatter_add_rows"));
    KD_LAUNCH(list_count, blocks, LIST_THREADS, 0, cuda_stream(be), *l);
    KD_LAUNCH(list_start, blocks, LIST_THREADS, 0, cuda_stream(be), *l);
    KD_LAUNCH(list_place, blocks, LIST_THREADS, 0, cuda_stream(be), *l);
    KD_LAUNCH(list_sort, blocks, LIST_THREADS, 0, cuda_stream(be), *l);
    return cuda_check_launch("scatter_add_rows");
}

template <typename T> int scatter_of(struct kd_backend *be, const add_args<T> &a)
{
    KD_LAUNCH(
        (scatter_kernel<T>),
        dim3((unsigned)a.l.rows, (unsigned)ceil_div(a.cols, ADD_THREADS * ADD_COLS)),
        ADD_THREADS, 0, cuda_stream(be), a);
    return cuda_check_launch("scatter_add_rows");
}

} // namespace

extern "C" int cuda_gather_rows(struct kd_backend *be, struct kd_tensor table,
                                const int32_t *ids, float scale, struct kd_tensor pos,
                                const int32_t *pos_ids, struct kd_tensor out)
{
    const int64_t rows = out.shape[0], cols = out.shape[1];

    if (rows == 0 || cols == 0)
        return KD_OK;
    CUDA_BY_TYPE(
        out.dtype, T,
        return gather_of<T>(be, {(const T *)table.data, (const T *)pos.data, ids,
                                 pos_ids, scale, (T *)out.data, rows, cols}));
}

extern "C" int cuda_scatter_add_rows(struct kd_backend *be, struct kd_tensor dx,
                                     const int32_t *ids, int32_t skip_id, float scale,
                                     float *table, int64_t table_rows)
{
    const int64_t cols = dx.shape[1];
    lists l = {ids, skip_id, (int)dx.shape[0], NULL, NULL, NULL, NULL, NULL, NULL};

    if (dx.shape[0] == 0 || cols == 0)
        return KD_OK;
    KD_TRY(make_lists(be, &l, table_rows));
    CUDA_BY_TYPE(
        dx.dtype, T,
        return scatter_of<T>(
            be, {l, (const T *)dx.data, scale, table, cols,
                 cols % ADD_COLS == 0 && (uintptr_t)dx.data % sizeof(pair<T>) == 0}));
}
