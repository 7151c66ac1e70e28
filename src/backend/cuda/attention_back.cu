// SPDX-License-Identifier: Apache-2.0
/* Attention over ragged sequences, backward: probabilities are made again from q, k and
 * the log-sum-exp of the forward, in registers, and no floats are summed by atomics.
 *
 * Three kernels.  stats: for each query row and head its log-sum-exp and delta =
 * dout . out, side by side in scratch.  keys: a block owns a tile of key rows and one
 * head of keys, and goes over the query rows of all heads that share it, head by head;
 * it works on transposed scores, so that the warp which owns a key row has its
 * probabilities as left operand for dv += P^T dout and dk += dS^T q.  queries: a block
 * owns a tile of query rows and goes over the keys, dq += dS k; where distances count,
 * it adds dS along diagonals for their gradient too (attention_dbias.h).
 *
 * With P the probabilities, M the dropout factors and dP = dout v^T:
 * dS = P (M dP - delta), dq = scale dS k, dk = scale dS^T q, dv = (M P)^T dout.
 *
 * In bfloat16 what a warp owns stays in registers as fragments; only the other side's
 * rows are read in the loops, at head size 64 by 16 ldmatrix for the 64 mma of 16
 * queries in keys and by 24 for the 96 of 32 keys in queries.  By calculation those
 * take 64 and 96 of the some 100 and 150 cycles of the products.  Both have 255
 * registers on sm_90 and spill none in the loops (keys with dropout: ten); two blocks
 * of 74 KiB share a multiprocessor.
 *
 * Bound: 14 hd flops per query and key it sees, 8 in keys and 6 in queries; the scores
 * are made twice so that sums need no atomics. */
#include "attention_dbias.h"

namespace
{

/* MT: 16-row tiles of a warp; STEP: rows of the tiles that the block goes over; PART:
 * how many of these a warp works on at a time; DROPS: there may be dropout; BIASED:
 * distances count. */
template <typename T_, int HD_, int MT_, int STEP_, int PART_, bool DROPS_,
          bool BIASED_ = false>
struct shape {
    using T = T_;
    static constexpr int HD = HD_, MT = MT_, STEP = STEP_, PART = PART_,
                         WARP_ROWS = 16 * MT, ROWS = WARP_ROWS * ATTENTION_WARPS,
                         LD = TILE_LD<T, HD>;
    static constexpr bool KEEP = sizeof(T) == 2, DROPS = DROPS_, BIASED = BIASED_;
    static constexpr int BLOCKS = MT == 2 || HD > 64 ? 2 : 3; /* of a multiprocessor */
    static constexpr size_t TILES = (2 * ROWS + 4 * STEP) * ROW_BYTES<T, HD>,
                            STATS = 2 * STEP * (sizeof(float2) + sizeof(uint64_t));
    /* of a tile, of which there are two; what a warp adds diagonals in */
    static constexpr int DISTANCES = BIASED ? ROWS + STEP : 0,
                         DIAGONALS = BIASED ? DIAGONAL_FLOATS<MT, PART / 8> : 0;
    static constexpr size_t KEYS_SHARED = TILES + STATS + 2 * DISTANCES * sizeof(float),
                            QUERIES_SHARED =
                                TILES + (2 * DISTANCES + ATTENTION_WARPS * DIAGONALS) *
                                            sizeof(float);
    static_assert(KEYS_SHARED <= MOST_SHARED && QUERIES_SHARED <= MOST_SHARED,
                  "every device can run it");
};

template <typename T> struct back {
    problem<T> a;
    window<const T> dout;
    window<T> dq, dk, dv;
    float2 *stats; /* [H, n_q]: lse log2(e), delta */
    struct dbias_sums sums;
};

template <typename S> using scores = float[S::MT][S::PART / 8][4];
template <typename S> using sums = float[S::MT][S::HD / 8][4];

/* LANES share a row and head, 16 bytes each. */
template <typename T, int LANES>
__global__ void __launch_bounds__(ATTENTION_THREADS) stats_kernel(const back<T> b)
{
    const int64_t i =
        (int64_t)blockIdx.x * (ATTENTION_THREADS / LANES) + (int)threadIdx.x / LANES;
    const int64_t row = i / b.a.n_heads;
    const int head = (int)(i % b.a.n_heads), c = (int)threadIdx.x % LANES * PACKED<T>;
    float sum = 0.0f;

    if (row < b.a.n_q && c < b.a.hd) {
        const T *out = b.a.out.data + row * b.a.out.ld + head * b.a.hd + c,
                *dout = b.dout.data + row * b.dout.ld + head * b.a.hd + c;

        if (b.a.packed) {
            const pack<T> x = pack_load(out), y = pack_load(dout);

            for (int e = 0; e < PACKED<T>; e++)
                sum += cuda_load(x.v + e) * cuda_load(y.v + e);
        } else {
            for (int e = 0; e < PACKED<T> && c + e < b.a.hd; e++)
                sum += cuda_load(out + e) * cuda_load(dout + e);
        }
    }
    for (int step = LANES / 2; step > 0; step /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (row < b.a.n_q && c == 0) {
        float2 s;

        s.x = b.a.lse[i] * LOG2_E;
        s.y = sum;
        b.stats[head * b.a.n_q + row] = s;
    }
}

/* One of the two buffers of the keys kernel: query rows and what belongs to them.  The
 * last of the distances is that of the block's last key from the first query. */
template <typename S> struct queries {
    typename S::T *q, *dout;
    float2 *stats;
    uint64_t *keys; /* of dropout */
    float *distances;

    __device__ __forceinline__ queries(typename S::T *shared, int i)
    {
        unsigned char *behind = reinterpret_cast<unsigned char *>(shared) + S::TILES;

        q = shared + (2 * S::ROWS + 2 * i * S::STEP) * S::LD;
        dout = q + S::STEP * S::LD;
        stats = reinterpret_cast<float2 *>(behind) + i * S::STEP;
        keys = reinterpret_cast<uint64_t *>(behind + 2 * S::STEP * sizeof(float2)) +
               i * S::STEP;
        distances = reinterpret_cast<float *>(behind + S::STATS) + i * S::DISTANCES;
    }

    /* N rows from row ROW on of HEAD, DISTANCE before the block's first key. */
    __device__ __forceinline__ void fetch(const back<typename S::T> &b, int64_t row,
                                          int n, int head, int distance) const
    {
        const problem<typename S::T> &a = b.a;
        const int i = (int)threadIdx.x;

        tile_load<typename S::T, S::HD, S::STEP>(q, window_at(a.q, row, head * a.hd), n,
                                                 a.hd, a.packed);
        tile_load<typename S::T, S::HD, S::STEP>(
            dout, window_at(b.dout, row, head * a.hd), n, a.hd, a.packed);
        if (i < S::STEP) {
            cp_async8(stats + i, b.stats + head * a.n_q + row + (i < n ? i : 0), i < n);
            if (S::DROPS && a.drop.on)
                cp_async8(keys + i, a.drop.row_keys + row + (i < n ? i : 0), i < n);
        }
        if constexpr (S::BIASED)
            fetch_distances(a.bias, head, distance - (S::STEP - 1), S::DISTANCES - 1,
                            distances);
    }
};

/* Bit 16 r + e, r and e in {0, 1}: query 8 N + 2 t + e keeps key g + 8 r, of 16 queries
 * named by KEYS and 16 keys from 8 COL8 on.  BITS of lane l are the keys of query
 * l % 16. */
__device__ __forceinline__ uint32_t keep_columns(const struct drop &d, uint32_t site,
                                                 const uint64_t *keys, uint32_t col8)
{
    const int lane = lane_id();
    const uint32_t bits =
        keep_eight(d, site, keys[lane % 16], col8 + (uint32_t)(lane / 16))
        << (lane / 16 * 8);

    return bits | __shfl_xor_sync(0xffffffffu, bits, 16);
}

/* What was kept of transposed scores: bit (n % 8) * 4 + i of BITS[m][n / 8] belongs to
 * element [m][n][i]. */
template <typename S> struct kept {
    uint32_t bits[S::MT][(S::PART + 63) / 64] = {};

    __device__ __forceinline__ void draw(const struct drop &d, uint32_t site,
                                         const uint64_t *keys, int first_key)
    {
        const int g = lane_id() / 4, t = lane_id() % 4;

#pragma unroll
        for (int m = 0; m < S::MT; m++) {
#pragma unroll
            for (int n = 0; n < S::PART / 8; n += 2) {
                const uint32_t mine = keep_columns(d, site, keys + 8 * n,
                                                   (uint32_t)(first_key / 8 + 2 * m));

#pragma unroll
                for (int i = 0; i < 4; i++) { /* i = 2 (n % 2) + e */
                    const uint32_t of =
                        __shfl_sync(0xffffffffu, mine, i / 2 * 8 + 2 * t + i % 2) >> g;
                    const int to = (n % 8 + i / 2) * 4 + i % 2;

                    bits[m][n / 8] |= (of & 1) << to | (of >> 8 & 1) << (to + 2);
                }
            }
        }
    }
    __device__ __forceinline__ bool operator()(int m, int n, int i) const
    {
        return bits[m][n / 8] >> (n % 8 * 4 + i) & 1;
    }
};

struct all_kept {
    __device__ __forceinline__ bool operator()(int, int, int) const
    {
        return true;
    }
};

/* Transposed scores of keys that a query does not see are -inf. */
template <typename S>
__device__ __forceinline__ void hide_queries(scores<S> &s, int key, int query)
{
    const int before = key - query + lane_id() / 4 - 2 * (lane_id() % 4);

#pragma unroll
    for (int i = 0; i < 2 * S::MT; i++) {
#pragma unroll
        for (int j = 0; j < S::PART / 4; j++) {
            if (before + 8 * i > j / 2 * 8 + j % 2)
                s[i / 2][j / 2][i % 2 * 2 + j % 2] = -INFINITY;
        }
    }
}

/* Transposed scores of queries beyond N, which have no log-sum-exp, are -inf. */
template <typename S> __device__ __forceinline__ void hide_absent(scores<S> &s, int n)
{
#pragma unroll
    for (int j = 0; j < S::PART / 4; j++) {
        if (j / 2 * 8 + 2 * (lane_id() % 4) + j % 2 < n)
            continue;
#pragma unroll
        for (int i = 0; i < 2 * S::MT; i++)
            s[i / 2][j / 2][i % 2 * 2 + j % 2] = -INFINITY;
    }
}

/* S, scores, and DS, dout v^T, both transposed: S = the probabilities that KEEP kept,
 * DS = their part of the gradient; STATS are those of the queries. */
template <typename S, typename Keep>
__device__ __forceinline__ void score_gradients(const problem<typename S::T> &a,
                                                const float2 *stats, const Keep &keep,
                                                scores<S> &s, scores<S> &ds)
{
    const int t = lane_id() % 4;

#pragma unroll
    for (int n = 0; n < S::PART / 8; n++) {
        const float4 two = *reinterpret_cast<const float4 *>(stats + 8 * n + 2 * t);

#pragma unroll
        for (int e = 0; e < 2; e++) {
            const float lse2 = e ? two.z : two.x, delta = e ? two.w : two.y;

#pragma unroll
            for (int i = 0; i < 2 * S::MT; i++) {
                const int m = i / 2, x = i % 2 * 2 + e;
                const float p = exp2_fast(s[m][n][x] * scale2_of<S>(a) - lse2);
                const float dp = keep(m, n, x) ? ds[m][n][x] : 0.0f;

                s[m][n][x] = keep(m, n, x) ? p : 0.0f;
                ds[m][n][x] = p * (dp * (S::DROPS ? a.drop.keep : 1.0f) - delta);
            }
        }
    }
}

/* Keys [key, key + WARP_ROWS) of the warp and the queries [query, query + PART) of one
 * head, all counted from the sequence's start, which has N_Q queries; FROM is where
 * these are in OF. */
template <typename S, typename L>
__device__ __forceinline__ void
keys_step(const problem<typename S::T> &a, const L &k, const L &v, const queries<S> &of,
          int from, int head, int key, int query, int n_q, sums<S> &dk, sums<S> &dv)
{
    const typename S::T *q = of.q + from * S::LD, *dout = of.dout + from * S::LD;
    const bool drops = S::DROPS && a.drop.on;
    kept<S> keep;
    scores<S> s, ds;

    if (drops) /* first, while few registers are in use */
        keep.draw(a.drop, drop_site(a.drop, head), of.keys + from, key);
    product_nt(s, k, q);
    if constexpr (S::BIASED) {
        add_distances<-1>(s, a.scale2,
                          of.distances + warp_id() * S::WARP_ROWS - from + S::STEP - 1);
        if (query + S::PART > n_q)
            hide_absent<S>(s, n_q - query);
    }
    if (a.causal && query < key + S::WARP_ROWS - 1)
        hide_queries<S>(s, key, query);
    product_nt(ds, v, dout);
    if (drops)
        score_gradients<S>(a, of.stats + from, keep, s, ds);
    else
        score_gradients<S>(a, of.stats + from, all_kept(), s, ds);
    product_nn(dv, s, dout);
    product_nn(dk, ds, q);
}

template <typename S>
__device__ __forceinline__ void store_sums(typename S::T *own, const sums<S> &x,
                                           float factor, window<typename S::T> dst,
                                           int n, const problem<typename S::T> &a)
{
    float factors[S::MT][2];

#pragma unroll
    for (int i = 0; i < 2 * S::MT; i++)
        factors[i / 2][i % 2] = factor;
    warp_store(own, x, factors, dst, n, a.hd, a.packed);
}

template <typename S>
__global__ void __launch_bounds__(ATTENTION_THREADS, S::BLOCKS)
    keys_kernel(const back<typename S::T> b)
{
    using T = typename S::T;
    KD_DYNAMIC_SHARED(T, shared);
    const problem<T> &a = b.a;
    const struct tile t =
        find_tile(a.kv_offsets, a.n_seq, S::ROWS, a.one_tile, (int)blockIdx.x);

    if (t.n <= 0)
        return;
    const int64_t q_row = a.q_offsets[t.seq], kv_row = a.kv_offsets[t.seq] + t.first;
    const int n_q = (int)(a.q_offsets[t.seq + 1] - q_row),
              begin = attention_queries_begin(a.causal, t.first, S::STEP),
              row = warp_id() * S::WARP_ROWS, n = t.n - row, key = t.first + row,
              col = (int)blockIdx.y * a.hd;
    int head = (int)blockIdx.y * a.group, end = n_q > begin ? head + a.group : head;
    T *k = shared, *v = shared + S::ROWS * S::LD;

    tile_load<T, S::HD, S::ROWS>(k, window_at(a.k, kv_row, col), t.n, a.hd, a.packed);
    tile_load<T, S::HD, S::ROWS>(v, window_at(a.v, kv_row, col), t.n, a.hd, a.packed);
    if (head < end)
        queries<S>(shared, 0).fetch(b, q_row + begin, n_q - begin, head,
                                    t.first - begin);
    cp_async_wait();
    __syncthreads();

    const left<T, S::MT, S::HD, S::KEEP> of_k(k + row * S::LD), of_v(v + row * S::LD);
    sums<S> dk = {}, dv = {};

    for (int query = begin, buffer = 0; head < end; buffer ^= 1) {
        const bool last = query + S::STEP >= n_q; /* of this head */
        const int next = last ? begin : query + S::STEP, next_head = head + last;

        if (next_head < end)
            queries<S>(shared, buffer ^ 1)
                .fetch(b, q_row + next, n_q - next, next_head, t.first - next);
#pragma unroll 1
        for (int at = 0; n > 0 && at < S::STEP && query + at < n_q; at += S::PART) {
            if (!(a.causal && query + at + S::PART <= key))
                keys_step<S>(a, of_k, of_v, queries<S>(shared, buffer), at, head, key,
                             query + at, n_q, dk, dv);
        }
        query = next;
        head = next_head;
        cp_async_wait(); /* the next queries are there, nobody reads these any more */
        __syncthreads();
    }
    store_sums<S>(k + row * S::LD, dk, a.scale, window_at(b.dk, kv_row + row, col), n,
                  a);
    store_sums<S>(v + row * S::LD, dv, a.drop.keep, window_at(b.dv, kv_row + row, col),
                  n, a);
}

/* What the rows of a warp need in every step: lse and delta. */
template <typename S> struct row_stats {
    float2 of[S::MT][2];

    __device__ __forceinline__ row_stats(const float2 *stats, int n)
    {
        const int g = lane_id() / 4;

#pragma unroll
        for (int i = 0; i < 2 * S::MT; i++) {
            of[i / 2][i % 2].x = of[i / 2][i % 2].y = 0.0f;
            if (g + 8 * i < n)
                of[i / 2][i % 2] = stats[g + 8 * i];
        }
    }
};

/* Scores of rows beyond N, which may lie at distances of others, are -inf. */
template <typename S> __device__ __forceinline__ void hide_rows(scores<S> &s, int n)
{
#pragma unroll
    for (int i = 0; i < 2 * S::MT; i++) {
        if (lane_id() / 4 + 8 * i < n)
            continue;
#pragma unroll
        for (int j = 0; j < S::PART / 4; j++)
            s[i / 2][j / 2][i % 2 * 2 + j % 2] = -INFINITY;
    }
}

/* What distances need in the queries kernel: the two buffers of a head's part, what the
 * warp adds diagonals in, and the scale of their sums. */
template <typename S> struct by_distance {
    float *buffers, *own;
    float scale;

    __device__ __forceinline__ by_distance(const struct dbias_sums &sums,
                                           typename S::T *shared)
    {
        buffers = reinterpret_cast<float *>(shared + S::TILES / sizeof(typename S::T));
        own = buffers + 2 * S::DISTANCES + warp_id() * S::DIAGONALS;
        scale = S::BIASED && sums.of ? power_of_two(dbias_exponent(sums)) : 0.0f;
    }

    /* Those of keys from FIRST_KEY on and the block's rows from FIRST_ROW on. */
    __device__ __forceinline__ void fetch(const problem<typename S::T> &a, int tile,
                                          int first_key, int first_row) const
    {
        if constexpr (S::BIASED)
            fetch_distances(a.bias, (int)blockIdx.y,
                            first_key - first_row - (S::ROWS - 1), S::DISTANCES - 1,
                            buffers + tile % 2 * S::DISTANCES);
    }

    /* Where the warp's first row has that of key AT of TILE. */
    __device__ __forceinline__ const float *from(int tile, int at) const
    {
        return buffers + tile % 2 * S::DISTANCES + S::ROWS - 1 + at -
               warp_id() * S::WARP_ROWS;
    }
};

/* Queries [pos, pos + n) of the warp and the keys [key, key + PART). */
template <typename S, typename L>
__device__ __forceinline__ void
queries_step(const back<typename S::T> &b, const L &q, const L &dout,
             const row_stats<S> &rows, const typename S::T *k, const typename S::T *v,
             int64_t q_row, int pos, int n, int key, int n_keys,
             const by_distance<S> &distances, const float *bias, sums<S> &dq)
{
    const problem<typename S::T> &a = b.a;
    scores<S> s, ds;

    product_nt(ds, dout, v);
    if (a.drop.on)
        drop_rows(a.drop, drop_site(a.drop, (int)blockIdx.y), a.drop.row_keys + q_row,
                  n, key, ds);
    product_nt(s, q, k);
    if constexpr (S::BIASED) {
        add_distances<1>(s, a.scale2, bias);
        if (n < S::WARP_ROWS)
            hide_rows<S>(s, n);
    }
    if (key + S::PART > n_keys || (a.causal && key + S::PART > pos + 1))
        hide_keys(s, a.causal, pos, key, n_keys);
#pragma unroll
    for (int i = 0; i < 2 * S::MT; i++) {
        const float2 row = rows.of[i / 2][i % 2];

#pragma unroll
        for (int j = 0; j < S::PART / 4; j++) {
            const int c = j / 2, x = i % 2 * 2 + j % 2;
            const float p = exp2_fast(s[i / 2][c][x] * scale2_of<S>(a) - row.x);

            ds[i / 2][c][x] = p * (ds[i / 2][c][x] * a.drop.keep - row.y);
        }
    }
    if constexpr (S::BIASED) {
        if (b.sums.of)
            add_diagonals(b.sums, a.bias, distances.scale, (int)blockIdx.y, key - pos,
                          distances.own, ds);
    }
    product_nn(dq, ds, k);
}

template <typename S>
__global__ void __launch_bounds__(ATTENTION_THREADS, S::BLOCKS)
    queries_kernel(const back<typename S::T> b)
{
    using T = typename S::T;
    KD_DYNAMIC_SHARED(T, shared);
    const problem<T> &a = b.a;
    const struct tile t =
        find_tile(a.q_offsets, a.n_seq, S::ROWS, a.one_tile, (int)blockIdx.x);

    if (t.n <= 0)
        return;
    const int64_t q_row = a.q_offsets[t.seq] + t.first, kv_row = a.kv_offsets[t.seq];
    const int n_keys = (int)(a.kv_offsets[t.seq + 1] - kv_row),
              end = attention_keys_end(a.causal, t.first, t.n, n_keys),
              row = warp_id() * S::WARP_ROWS, n = t.n - row, pos = t.first + row,
              warp_end = warp_keys_end<S::MT>(a.causal, pos, n, n_keys),
              head = (int)blockIdx.y, col = head * a.hd;
    T *q = shared, *dout = shared + S::ROWS * S::LD, *buffers = dout + S::ROWS * S::LD;
    const by_distance<S> distances(b.sums, shared);

    tile_load<T, S::HD, S::ROWS>(q, window_at(a.q, q_row, col), t.n, a.hd, a.packed);
    tile_load<T, S::HD, S::ROWS>(dout, window_at(b.dout, q_row, col), t.n, a.hd,
                                 a.packed);
    fetch_keys<T, S::HD, S::STEP>(a, kv_row, end, 0, buffers);
    distances.fetch(a, 0, 0, t.first);
    cp_async_wait();
    __syncthreads();

    const left<T, S::MT, S::HD, S::KEEP> of_q(q + row * S::LD),
        of_dout(dout + row * S::LD);
    const row_stats<S> rows(b.stats + head * a.n_q + q_row + row, n);
    sums<S> dq = {};

    for (int j = 0; j * S::STEP < end; j++) {
        const T *k = buffers + 2 * (j % 2) * S::STEP * S::LD;

        if ((j + 1) * S::STEP < end) {
            fetch_keys<T, S::HD, S::STEP>(
                a, kv_row, end, j + 1, buffers + 2 * ((j + 1) % 2) * S::STEP * S::LD);
            distances.fetch(a, j + 1, (j + 1) * S::STEP, t.first);
        }
#pragma unroll 1
        for (int at = 0; at < S::STEP; at += S::PART) {
            const int key = j * S::STEP + at;

            if (n > 0 && key < warp_end)
                queries_step<S>(b, of_q, of_dout, rows, k + at * S::LD,
                                k + (S::STEP + at) * S::LD, q_row + row, pos, n, key,
                                n_keys, distances, distances.from(j, at), dq);
        }
        cp_async_wait(); /* the next keys are there, nobody reads these any more */
        __syncthreads();
    }
    store_sums<S>(q + row * S::LD, dq, a.scale, window_at(b.dq, q_row + row, col), n,
                  a);
}

template <typename T, int HD> int launch_stats(struct kd_backend *be, const back<T> &b)
{
    constexpr int LANES = HD / PACKED<T>, EACH = ATTENTION_THREADS / LANES;

    KD_LAUNCH((stats_kernel<T, LANES>), (unsigned)ceil_div(b.a.n_q * b.a.n_heads, EACH),
              ATTENTION_THREADS, 0, cuda_stream(be), b);
    return cuda_check_launch("attention_back (stats)");
}

template <typename S>
int launch_keys(struct kd_backend *be, const struct kd_attention *d,
                back<typename S::T> b)
{
    const dim3 grid((unsigned)attention_slots(&d->kv_seqs, S::ROWS),
                    (unsigned)d->n_kv_heads);

    b.a.one_tile = attention_one_tile(&d->kv_seqs, S::ROWS);
    KD_TRY(cuda_allow_shared(reinterpret_cast<const void *>(keys_kernel<S>),
                             S::KEYS_SHARED));
    KD_LAUNCH((keys_kernel<S>), grid, ATTENTION_THREADS, S::KEYS_SHARED,
              cuda_stream(be), b);
    return cuda_check_launch("attention_back (keys)");
}

template <typename S>
int launch_queries(struct kd_backend *be, const struct kd_attention *d,
                   back<typename S::T> b)
{
    static_assert(S::DROPS, "one kernel serves with dropout and without");
    const dim3 grid((unsigned)attention_slots(&d->q_seqs, S::ROWS),
                    (unsigned)d->n_heads);

    b.a.one_tile = attention_one_tile(&d->q_seqs, S::ROWS);
    KD_TRY(cuda_allow_shared(reinterpret_cast<const void *>(queries_kernel<S>),
                             S::QUERIES_SHARED));
    KD_LAUNCH((queries_kernel<S>), grid, ATTENTION_THREADS, S::QUERIES_SHARED,
              cuda_stream(be), b);
    return cuda_check_launch("attention_back (queries)");
}

/* WIDE: with tiles of 128 rows for long sequences; in bfloat16 their fragments leave no
 * registers for dropout, which has a kernel of its own. */
template <typename T, int HD, int STEP, int PART, bool WIDE>
int choose_keys(struct kd_backend *be, const struct kd_attention *d, const back<T> &b)
{
    if constexpr (WIDE) {
        if (attention_wide_pays(&d->kv_seqs, 128, d->n_kv_heads, cuda_of(be)->n_sm))
            return b.a.bias.table
                       ? launch_keys<shape<T, HD, 2, STEP, PART, true, true>>(be, d, b)
                   : b.a.drop.on
                       ? launch_keys<shape<T, HD, 2, STEP, PART, true>>(be, d, b)
                       : launch_keys<shape<T, HD, 2, STEP, PART, sizeof(T) == 4>>(be, d,
                                                                                  b);
    }
    return b.a.bias.table
               ? launch_keys<shape<T, HD, 1, STEP, PART, true, true>>(be, d, b)
               : launch_keys<shape<T, HD, 1, STEP, PART, true>>(be, d, b);
}

template <typename T, int HD, int STEP, int PART, bool WIDE>
int choose_queries(struct kd_backend *be, const struct kd_attention *d,
                   const back<T> &b)
{
    if constexpr (WIDE) {
        if (attention_wide_pays(&d->q_seqs, 128, d->n_heads, cuda_of(be)->n_sm))
            return b.a.bias.table
                       ? launch_queries<shape<T, HD, 2, STEP, PART, true, true>>(be, d,
                                                                                 b)
                       : launch_queries<shape<T, HD, 2, STEP, PART, true>>(be, d, b);
    }
    return b.a.bias.table
               ? launch_queries<shape<T, HD, 1, STEP, PART, true, true>>(be, d, b)
               : launch_queries<shape<T, HD, 1, STEP, PART, true>>(be, d, b);
}

template <typename T, int HD, int STEP, int PART_K, int PART_Q, bool WIDE>
int launch_all(struct kd_backend *be, const struct kd_attention *d, const back<T> &b)
{
    if (d->q.rows > 0)
        KD_TRY((launch_stats<T, HD>(be, b)));
    if (d->k.rows > 0)
        KD_TRY((choose_keys<T, HD, STEP, PART_K, WIDE>(be, d, b)));
    return d->q.rows > 0 ? choose_queries<T, HD, STEP, PART_Q, WIDE>(be, d, b) : KD_OK;
}

template <typename T>
int by_head_size(struct kd_backend *be, const struct kd_attention *d, const back<T> &b)
{
    constexpr bool half = sizeof(T) == 2;

    if (d->head_dim <= 16)
        return launch_all<T, 16, 64, 32, 32, false>(be, d, b);
    if (d->head_dim <= 32)
        return launch_all<T, 32, 64, 32, 32, false>(be, d, b);
    if (d->head_dim <= 64)
        return launch_all < T, 64, half ? 64 : 32, 16, 32, true > (be, d, b);
    return launch_all < T, 128, half ? 32 : 16, 16, half ? 32 : 16, false > (be, d, b);
}

template <typename T>
int back_of(struct kd_backend *be, const struct kd_attention *a, struct kd_mat dout,
            struct kd_mat dq, struct kd_mat dk, struct kd_mat dv, float *dbias)
{
    const bool sums = dbias && a->bias.table.data && a->q.rows > 0 && a->k.rows > 0;
    const int64_t n_stats = a->q.rows * a->n_heads + 1;
    back<T> b;
    void *stats;

    KD_TRY(cuda_scratch(
        be, (size_t)n_stats * sizeof(float2) + (sums ? dbias_bytes(a) : 0), &stats));
    b.a = problem_of<T>(a);
    b.a.packed = b.a.packed && window_packed<T>(dout, a->head_dim) &&
                 window_packed<T>(dq, a->head_dim) &&
                 window_packed<T>(dk, a->head_dim) && window_packed<T>(dv, a->head_dim);
    b.dout = window_of<const T>(dout);
    b.dq = window_of<T>(dq);
    b.dk = window_of<T>(dk);
    b.dv = window_of<T>(dv);
    b.stats = static_cast<float2 *>(stats);
    b.sums.of = NULL;
    if (sums)
        KD_TRY(dbias_begin<T>(be, a, dout, b.stats + n_stats, &b.sums));
    KD_TRY(by_head_size<T>(be, a, b));
    return sums ? dbias_finish(be, b.sums, b.a.bias, dbias) : KD_OK;
}

} // namespace

extern "C" int cuda_attention_back(struct kd_backend *be, const struct kd_attention *a,
                                   struct kd_mat dout, struct kd_mat dq,
                                   struct kd_mat dk, struct kd_mat dv, float *dbias)
{
    if (a->n_heads == 0 || a->q_seqs.n == 0)
        return KD_OK;
    KD_TRY(attention_check(a->head_dim));
    CUDA_BY_TYPE(a->q.dtype, T, return back_of<T>(be, a, dout, dq, dk, dv, dbias));
}
