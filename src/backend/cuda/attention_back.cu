// SPDX-License-Identifier: Apache-2.0
/* Attention over ragged sequences, backward: probabilities are made again from q, k and
 * the log-sum-exp of the forward, in registers, and nothing is summed by atomics.
 *
 * Three kernels.  stats: for each query row and head its log-sum-exp and delta =
 * dout . out, side by side in scratch.  keys: a block owns a tile of key rows and one
 * head of keys, and goes over the query rows of all heads that share it, head by head;
 * it works on transposed scores, so that the warp which owns a key row has its
 * probabilities as left operand for dv += P^T dout and dk += dS^T q.  queries: a block
 * owns a tile of query rows and goes over the keys, dq += dS k.
 *
 * With P the probabilities, M the dropout factors and dP = dout v^T:
 * dS = P (M dP - delta), dq = scale dS k, dk = scale dS^T q, dv = (M P)^T dout.
 *
 * Bound: 14 hd flops per query and key it sees, 8 in keys and 6 in queries; the scores
 * are made twice so that sums need no atomics. */
#include "attention_tile.h"

namespace
{

/* MT: 16-row tiles of a warp; STEP: rows of the tiles that the block goes over. */
template <typename T_, int HD_, int MT_, int STEP_> struct shape {
    using T = T_;
    static constexpr int HD = HD_, MT = MT_, STEP = STEP_, WARP_ROWS = 16 * MT,
                         ROWS = WARP_ROWS * ATTENTION_WARPS, LD = TILE_LD<T, HD>;
    static constexpr size_t TILES = (2 * ROWS + 4 * STEP) * ROW_BYTES<T, HD>,
                            SHARED = TILES + 2 * STEP * (sizeof(float2) + 8);
};

template <typename T> struct back {
    problem<T> a;
    window<const T> dout;
    window<T> dq, dk, dv;
    float2 *stats; /* [H, n_q]: lse log2(e), delta */
};

template <typename S> using scores = float[S::MT][S::STEP / 8][4];
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

/* One of the two buffers of the keys kernel: query rows and what belongs to them. */
template <typename S> struct queries {
    typename S::T *q, *dout;
    float2 *stats;
    uint64_t *keys; /* of dropout */

    __device__ __forceinline__ queries(typename S::T *shared, int i)
    {
        unsigned char *behind = reinterpret_cast<unsigned char *>(shared) + S::TILES;

        q = shared + (2 * S::ROWS + 2 * i * S::STEP) * S::LD;
        dout = q + S::STEP * S::LD;
        stats = reinterpret_cast<float2 *>(behind) + i * S::STEP;
        keys = reinterpret_cast<uint64_t *>(behind + 2 * S::STEP * sizeof(float2)) +
               i * S::STEP;
    }

    /* N rows from row ROW on of HEAD. */
    __device__ __forceinline__ void fetch(const back<typename S::T> &b, int64_t row,
                                          int n, int head) const
    {
        const problem<typename S::T> &a = b.a;
        const int i = (int)threadIdx.x;

        tile_load<typename S::T, S::HD, S::STEP>(
            q, {a.q.data + row * a.q.ld + head * a.hd, a.q.ld}, n, a.hd, a.packed);
        tile_load<typename S::T, S::HD, S::STEP>(
            dout, {b.dout.data + row * b.dout.ld + head * a.hd, b.dout.ld}, n, a.hd,
            a.packed);
        if (i < S::STEP) {
            cp_async8(stats + i, b.stats + head * a.n_q + row + (i < n ? i : 0), i < n);
            if (a.drop.on)
                cp_async8(keys + i, a.drop.row_keys + row + (i < n ? i : 0), i < n);
        }
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

/* What was kept of transposed scores: bit (n % 8) * 4 + i of KEEP[m][n / 8] belongs to
 * element [m][n][i]; all ones without dropout. */
template <typename S> struct kept {
    uint32_t bits[S::MT][(S::STEP + 63) / 64];

    __device__ __forceinline__ kept(const struct drop &d, uint32_t site,
                                    const uint64_t *keys, int first_key)
    {
        const int g = lane_id() / 4, t = lane_id() % 4;

        memset(bits, d.on ? 0 : 0xff, sizeof bits);
        if (!d.on)
            return;
#pragma unroll
        for (int m = 0; m < S::MT; m++) {
#pragma unroll
            for (int n = 0; n < S::STEP / 8; n += 2) {
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

/* Keys [key, key + WARP_ROWS) of the warp and the queries [query, query + STEP) of one
 * head, all counted from the sequence's start. */
template <typename S, typename L>
__device__ __forceinline__ void keys_step(const problem<typename S::T> &a, const L &k,
                                          const L &v, const queries<S> &of, int head,
                                          int key, int query, sums<S> &dk, sums<S> &dv)
{
    const int g = lane_id() / 4, t = lane_id() % 4;
    const bool diagonal = a.causal && query < key + S::WARP_ROWS - 1;
    scores<S> s, ds;
    const kept<S> keep(a.drop, drop_site(a.drop, head), of.keys, key);

    product_nt(s, k, of.q);
    product_nt(ds, v, of.dout);
#pragma unroll
    for (int n = 0; n < S::STEP / 8; n++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const float2 row = of.stats[8 * n + 2 * t + e];

#pragma unroll
            for (int i = 0; i < 2 * S::MT; i++) {
                const int m = i / 2, x = i % 2 * 2 + e;
                const bool hidden =
                    diagonal && key + g + 8 * i > query + 8 * n + 2 * t + e;
                const float p =
                    hidden ? 0.0f : exp2_fast(s[m][n][x] * a.scale2 - row.x);
                const float dp = keep(m, n, x) ? ds[m][n][x] * a.drop.keep : 0.0f;

                s[m][n][x] = keep(m, n, x) ? p : 0.0f;
                ds[m][n][x] = p * (dp - row.y);
            }
        }
    }
    product_nn(dv, s, of.dout);
    product_nn(dk, ds, of.q);
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
__global__ void __launch_bounds__(ATTENTION_THREADS)
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
              steps = n_q > begin ? (n_q - begin + S::STEP - 1) / S::STEP : 0,
              row = warp_id() * S::WARP_ROWS, n = t.n - row, key = t.first + row,
              col = (int)blockIdx.y * a.hd, head = (int)blockIdx.y * a.group;
    T *k = shared, *v = shared + S::ROWS * S::LD;

    tile_load<T, S::HD, S::ROWS>(k, {a.k.data + kv_row * a.k.ld + col, a.k.ld}, t.n,
                                 a.hd, a.packed);
    tile_load<T, S::HD, S::ROWS>(v, {a.v.data + kv_row * a.v.ld + col, a.v.ld}, t.n,
                                 a.hd, a.packed);
    if (steps > 0)
        queries<S>(shared, 0).fetch(b, q_row + begin, n_q - begin, head);

    const left<T, S::MT, S::HD, false> of_k(k + row * S::LD), of_v(v + row * S::LD);
    sums<S> dk, dv;

    memset(dk, 0, sizeof dk);
    memset(dv, 0, sizeof dv);
    for (int i = 0; i < steps * a.group; i++) {
        const int query = begin + i % steps * S::STEP, next = (i + 1) % steps * S::STEP;

        cp_async_wait();
        __syncthreads();
        if (i + 1 < steps * a.group)
            queries<S>(shared, (i + 1) % 2)
                .fetch(b, q_row + begin + next, n_q - begin - next,
                       head + (i + 1) / steps);
        if (n > 0 && !(a.causal && query + S::STEP <= key))
            keys_step<S>(a, of_k, of_v, queries<S>(shared, i % 2), head + i / steps,
                         key, query, dk, dv);
    }
    cp_async_wait(); /* where there was no step */
    __syncthreads();
    const int64_t to = kv_row + row;
    store_sums<S>(k + row * S::LD, dk, a.scale,
                  {b.dk.data + to * b.dk.ld + col, b.dk.ld}, n, a);
    store_sums<S>(v + row * S::LD, dv, a.drop.keep,
                  {b.dv.data + to * b.dv.ld + col, b.dv.ld}, n, a);
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

/* Queries [pos, pos + n) of the warp and the keys [key, key + STEP). */
template <typename S, typename L>
__device__ __forceinline__ void
queries_step(const problem<typename S::T> &a, const L &q, const L &dout,
             const row_stats<S> &rows, const typename S::T *k, const typename S::T *v,
             int64_t q_row, int pos, int n, int key, int n_keys, sums<S> &dq)
{
    const int g = lane_id() / 4, t = lane_id() % 4, head = (int)blockIdx.y;
    const bool edge = key + S::STEP > n_keys || (a.causal && key + S::STEP > pos + 1);
    scores<S> s, ds;

    product_nt(ds, dout, v);
    if (a.drop.on)
        drop_rows(a.drop, drop_site(a.drop, head), a.drop.row_keys + q_row, n, key, ds);
    product_nt(s, q, k);
#pragma unroll
    for (int i = 0; i < 2 * S::MT; i++) {
        const float2 row = rows.of[i / 2][i % 2];
        const int seen = attention_keys_end(a.causal, pos + g + 8 * i, 1, n_keys) - key;

#pragma unroll
        for (int j = 0; j < S::STEP / 4; j++) {
            const int c = j / 2, x = i % 2 * 2 + j % 2;
            const bool hidden = edge && 8 * c + 2 * t + j % 2 >= seen;
            const float p =
                hidden ? 0.0f : exp2_fast(s[i / 2][c][x] * a.scale2 - row.x);

            ds[i / 2][c][x] = p * (ds[i / 2][c][x] * a.drop.keep - row.y);
        }
    }
    product_nn(dq, ds, k);
}

/* Tile J of the sequence's keys and values on its way into BUFFER. */
template <typename S>
__device__ __forceinline__ void fetch_keys(const problem<typename S::T> &a,
                                           int64_t kv_row, int n_keys, int j,
                                           typename S::T *buffer)
{
    const int64_t row = kv_row + j * S::STEP;
    const int col = (int)blockIdx.y / a.group * a.hd, n = n_keys - j * S::STEP;

    tile_load<typename S::T, S::HD, S::STEP>(
        buffer, {a.k.data + row * a.k.ld + col, a.k.ld}, n, a.hd, a.packed);
    tile_load<typename S::T, S::HD, S::STEP>(buffer + S::STEP * S::LD,
                                             {a.v.data + row * a.v.ld + col, a.v.ld}, n,
                                             a.hd, a.packed);
}

template <typename S>
__global__ void __launch_bounds__(ATTENTION_THREADS)
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
              warp_end = attention_keys_end(a.causal, pos, n, n_keys),
              head = (int)blockIdx.y, col = head * a.hd;
    T *q = shared, *dout = shared + S::ROWS * S::LD, *buffers = dout + S::ROWS * S::LD;

    tile_load<T, S::HD, S::ROWS>(q, {a.q.data + q_row * a.q.ld + col, a.q.ld}, t.n,
                                 a.hd, a.packed);
    tile_load<T, S::HD, S::ROWS>(
        dout, {b.dout.data + q_row * b.dout.ld + col, b.dout.ld}, t.n, a.hd, a.packed);
    fetch_keys<S>(a, kv_row, end, 0, buffers);

    const left<T, S::MT, S::HD, false> of_q(q + row * S::LD),
        of_dout(dout + row * S::LD);
    const row_stats<S> rows(b.stats + head * a.n_q + q_row + row, n);
    sums<S> dq;

    memset(dq, 0, sizeof dq);
    for (int j = 0; j * S::STEP < end; j++) {
        const T *k = buffers + 2 * (j % 2) * S::STEP * S::LD;

        cp_async_wait();
        __syncthreads();
        if ((j + 1) * S::STEP < end)
            fetch_keys<S>(a, kv_row, end, j + 1,
                          buffers + 2 * ((j + 1) % 2) * S::STEP * S::LD);
        if (n > 0 && j * S::STEP < warp_end)
            queries_step<S>(a, of_q, of_dout, rows, k, k + S::STEP * S::LD, q_row + row,
                            pos, n, j * S::STEP, n_keys, dq);
    }
    cp_async_wait(); /* where there was no key */
    __syncthreads();
    store_sums<S>(q + row * S::LD, dq, a.scale,
                  {b.dq.data + (q_row + row) * b.dq.ld + col, b.dq.ld}, n, a);
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
    KD_TRY(
        cuda_allow_shared(reinterpret_cast<const void *>(keys_kernel<S>), S::SHARED));
    KD_LAUNCH((keys_kernel<S>), grid, ATTENTION_THREADS, S::SHARED, cuda_stream(be), b);
    return cuda_check_launch("attention_back (keys)");
}

template <typename S>
int launch_queries(struct kd_backend *be, const struct kd_attention *d,
                   back<typename S::T> b)
{
    const dim3 grid((unsigned)attention_slots(&d->q_seqs, S::ROWS),
                    (unsigned)d->n_heads);

    b.a.one_tile = attention_one_tile(&d->q_seqs, S::ROWS);
    KD_TRY(
        cuda_allow_shared(reinterpret_cast<const void *>(queries_kernel<S>), S::TILES));
    KD_LAUNCH((queries_kernel<S>), grid, ATTENTION_THREADS, S::TILES, cuda_stream(be),
              b);
    return cuda_check_launch("attention_back (queries)");
}

/* WIDE: with tiles of 128 rows for long sequences. */
template <typename T, int HD, int STEP, bool WIDE>
int launch_all(struct kd_backend *be, const struct kd_attention *d, const back<T> &b)
{
    const int n_sm = cuda_of(be)->n_sm;
    const bool keys =
                   WIDE && attention_wide_pays(&d->kv_seqs, 128, d->n_kv_heads, n_sm),
               queries = WIDE && attention_wide_pays(&d->q_seqs, 128, d->n_heads, n_sm);
    constexpr int MT = WIDE ? 2 : 1;

    if (d->q.rows > 0)
        KD_TRY((launch_stats<T, HD>(be, b)));
    if (d->k.rows > 0 && keys)
        KD_TRY((launch_keys<shape<T, HD, MT, STEP>>(be, d, b)));
    if (d->k.rows > 0 && !keys)
        KD_TRY((launch_keys<shape<T, HD, 1, STEP>>(be, d, b)));
    if (d->q.rows > 0 && queries)
        KD_TRY((launch_queries<shape<T, HD, MT, STEP>>(be, d, b)));
    if (d->q.rows > 0 && !queries)
        KD_TRY((launch_queries<shape<T, HD, 1, STEP>>(be, d, b)));
    return KD_OK;
}

template <typename T>
int by_head_size(struct kd_backend *be, const struct kd_attention *d, const back<T> &b)
{
    constexpr bool half = sizeof(T) == 2;

    if (d->head_dim <= 16)
        return launch_all<T, 16, 32, false>(be, d, b);
    if (d->head_dim <= 32)
        return launch_all<T, 32, 32, false>(be, d, b);
    if (d->head_dim <= 64)
        return launch_all<T, 64, 32, half>(be, d, b);
    return launch_all < T, 128, half ? 32 : 16, false > (be, d, b);
}

template <typename T>
int back_of(struct kd_backend *be, const struct kd_attention *a, struct kd_mat dout,
            struct kd_mat dq, struct kd_mat dk, struct kd_mat dv)
{
    back<T> b;
    void *stats;

    KD_TRY(cuda_scratch(be, (size_t)(a->q.rows * a->n_heads + 1) * sizeof(float2),
                        &stats));
    b.a = problem_of<T>(a);
    b.a.packed = b.a.packed && window_packed<T>(dout, a->head_dim) &&
                 window_packed<T>(dq, a->head_dim) &&
                 window_packed<T>(dk, a->head_dim) && window_packed<T>(dv, a->head_dim);
    b.dout = window_of<const T>(dout);
    b.dq = window_of<T>(dq);
    b.dk = window_of<T>(dk);
    b.dv = window_of<T>(dv);
    b.stats = static_cast<float2 *>(stats);
    return by_head_size<T>(be, a, b);
}

} // namespace

extern "C" int cuda_attention_back(struct kd_backend *be, const struct kd_attention *a,
                                   struct kd_mat dout, struct kd_mat dq,
                                   struct kd_mat dk, struct kd_mat dv, float *dbias)
{
    (void)dbias;
    if (a->n_heads == 0 || a->q_seqs.n == 0)
        return KD_OK;
    KD_TRY(attention_check(a->head_dim));
    CUDA_BY_TYPE(a->q.dtype, T, return back_of<T>(be, a, dout, dq, dk, dv));
}
