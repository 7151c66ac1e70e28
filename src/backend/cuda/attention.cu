// SPDX-License-Identifier: Apache-2.0
/* Attention over ragged sequences, forward: one block per tile of query rows and head,
 * over tiles of keys, with the softmax running along; scores live in registers.
 *
 * Tiles of keys and values are loaded into one of two buffers while the other is worked
 * on, with one barrier per tile.  Usually the four warps of a block have query rows of
 * their own.  Where no sequence has more than 16 (decoding, where the few rows of a
 * sequence's beams share its many keys) they have the same rows and a quarter of the
 * keys each, and their sums are merged in the order of the warps.
 *
 * In bfloat16 a warp of 32 rows needs 32 ldmatrix for 128 mma at head size 64; by
 * calculation they take 128 of the products' some 200 cycles.  It has 254 registers on
 * sm_90, none of them spilled, and its block 54 KiB, so that two blocks share a
 * multiprocessor; four do with 16 rows to a warp.
 *
 * Bound: 4 hd flops per query and key it sees (half of all for causal), 2 hd values
 * read per key and tile of queries.  With dropout the ten rounds of Philox for eight
 * probabilities cost about as much as the products at head size 64. */
#include "attention_bias.h"

namespace
{

/* MT: 16-row tiles of a warp; KEYS: keys of a tile; SPLIT: warps that share rows, and
 * the keys of a tile among them; BIASED: distances count. */
template <typename T_, int HD_, int MT_, int KEYS_, int SPLIT_, bool BIASED_ = false>
struct shape {
    using T = T_;
    static constexpr int HD = HD_, MT = MT_, KEYS = KEYS_, SPLIT = SPLIT_,
                         WARP_ROWS = 16 * MT,
                         ROWS = WARP_ROWS * ATTENTION_WARPS / SPLIT,
                         WARP_KEYS = KEYS / SPLIT, LD = TILE_LD<T, HD>;
    static constexpr bool KEEP = sizeof(T) == 2 && HD <= 64, BIASED = BIASED_;
    /* of a multiprocessor, as registers allow: short sequences wait for memory most */
    static constexpr int BLOCKS = MT == 2 ? 2 : KEEP && SPLIT == 1 ? 4 : 3;
    /* of a tile, of which there are two as of the keys */
    static constexpr int DISTANCES = BIASED ? ROWS + KEYS : 0;
    static constexpr size_t TILES = (ROWS + 4 * KEYS) * ROW_BYTES<T, HD>,
                            SHARED = TILES + 2 * DISTANCES * sizeof(float);
    static_assert(SHARED <= MOST_SHARED, "every device can run it");
    static_assert(SPLIT == 1 || !BIASED, "warps with keys of their own add nothing");
    static_assert(SPLIT == 1 || (SPLIT == ATTENTION_WARPS && MT == 1 &&
                                 4 * KEYS * ROW_BYTES<T, HD> >=
                                     SPLIT * 16 * (HD + 2) * sizeof(float)),
                  "the warps' sums fit where the keys were");
};

/* What a warp has of its rows: sums of values and of probabilities (of this lane's
 * columns) relative to exp(top scale). */
template <typename S> struct running {
    float out[S::MT][S::HD / 8][4], top[S::MT][2], sum[S::MT][2];

    __device__ __forceinline__ running()
    {
        memset(out, 0, sizeof out);
        memset(sum, 0, sizeof sum);
#pragma unroll
        for (int i = 0; i < 2 * S::MT; i++)
            top[i / 2][i % 2] = -INFINITY;
    }
};

template <typename S> using scores = float[S::MT][S::WARP_KEYS / 8][4];

__device__ __forceinline__ float quad_max(float v)
{
    v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 1));
    return fmaxf(v, __shfl_xor_sync(0xffffffffu, v, 2));
}

__device__ __forceinline__ float quad_sum(float v)
{
    v += __shfl_xor_sync(0xffffffffu, v, 1);
    return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

/* S = exp(S scale - top scale) under the new maximum; what RUN has is brought under it
 * too.  SCALE2 is the scale times log2(e). */
template <typename S>
__device__ __forceinline__ void softmax_step(running<S> &run, scores<S> &s,
                                             float scale2)
{
    constexpr int NT = S::WARP_KEYS / 8;

#pragma unroll
    for (int i = 0; i < 2 * S::MT; i++) {
        const int m = i / 2, r = i % 2 * 2;
        float top = run.top[m][i % 2], sum = 0.0f, base, old;

#pragma unroll
        for (int n = 0; n < NT; n++)
            top = fmaxf(top, fmaxf(s[m][n][r], s[m][n][r + 1]));
        top = quad_max(top);
        base = top == -INFINITY ? 0.0f : top * scale2; /* no key seen yet */
        old = exp2_fast(run.top[m][i % 2] * scale2 - base);
        run.top[m][i % 2] = top;
#pragma unroll
        for (int n = 0; n < NT; n++) {
            s[m][n][r] = exp2_fast(s[m][n][r] * scale2 - base);
            s[m][n][r + 1] = exp2_fast(s[m][n][r + 1] * scale2 - base);
            sum += s[m][n][r] + s[m][n][r + 1];
        }
        run.sum[m][i % 2] = run.sum[m][i % 2] * old + sum;
#pragma unroll
        for (int c = 0; c < S::HD / 8; c++) {
            run.out[m][c][r] *= old;
            run.out[m][c][r + 1] *= old;
        }
    }
}

/* One tile of keys and values for one warp: KEY is the position of its first key, K and
 * V are where that lies, BIAS where its distance from the warp's first row is. */
template <typename S, typename L>
__device__ __forceinline__ void attend(const problem<typename S::T> &p, running<S> &run,
                                       const L &q, int64_t q_row, int pos, int n,
                                       int key, int n_keys, const typename S::T *k,
                                       const typename S::T *v, const float *bias)
{
    scores<S> s;

    product_nt(s, q, k);
    if constexpr (S::BIASED)
        add_distances<1>(s, p.scale2, bias);
    if (key + S::WARP_KEYS > n_keys || (p.causal && key + S::WARP_KEYS > pos + 1))
        hide_keys(s, p.causal, pos, key, n_keys);
    softmax_step<S>(run, s, scale2_of<S>(p));
    if (p.drop.on)
        drop_rows(p.drop, drop_site(p.drop, (int)blockIdx.y), p.drop.row_keys + q_row,
                  n, key, s);
    product_nn(run.out, s, v);
}

/* The rows of one warp alone: out and lse. */
template <typename S>
__device__ __forceinline__ void finish(const problem<typename S::T> &p, running<S> &run,
                                       int64_t q_row, int n, typename S::T *own)
{
    const int g = lane_id() / 4, head = (int)blockIdx.y;
    float factor[S::MT][2];

#pragma unroll
    for (int i = 0; i < 2 * S::MT; i++) {
        const float sum = quad_sum(run.sum[i / 2][i % 2]);

        factor[i / 2][i % 2] = sum > 0.0f ? p.drop.keep / sum : 0.0f;
        if (p.lse && lane_id() % 4 == 0 && g + 8 * i < n)
            p.lse[(q_row + g + 8 * i) * p.n_heads + head] =
                run.top[i / 2][i % 2] * scale_of<S>(p) + logf(sum);
    }
    warp_store(own, run.out, factor, window_at(p.out, q_row, head * p.hd), n, p.hd,
               p.packed);
}

/* The warps' shares of the same rows: each leaves its sums in PART, [SPLIT][16][HD] and
 * behind them tops and sums of probabilities [SPLIT][16]. */
template <typename S> __device__ inline void leave_part(running<S> &run, float *part)
{
    const int g = lane_id() / 4, t = lane_id() % 4;
    float *out = part + warp_id() * 16 * S::HD,
          *top = part + S::SPLIT * 16 * S::HD + warp_id() * 16,
          *sum = top + S::SPLIT * 16;

#pragma unroll
    for (int r = 0; r < 2; r++) {
        const float total = quad_sum(run.sum[0][r]);

#pragma unroll
        for (int c = 0; c < S::HD / 8; c++) {
            out[(g + 8 * r) * S::HD + 8 * c + 2 * t] = run.out[0][c][2 * r];
            out[(g + 8 * r) * S::HD + 8 * c + 2 * t + 1] = run.out[0][c][2 * r + 1];
        }
        if (t == 0) {
            top[g + 8 * r] = run.top[0][r];
            sum[g + 8 * r] = total;
        }
    }
}

/* Row R of the block from the parts: FACTOR[SPLIT] for their sums; returns the lse. */
template <typename S>
__device__ inline float merge_row(const problem<typename S::T> &p, const float *part,
                                  int r, float (&factor)[S::SPLIT])
{
    const float *top = part + S::SPLIT * 16 * S::HD + r, *sum = top + S::SPLIT * 16;
    float most = -INFINITY, total = 0.0f;

#pragma unroll
    for (int w = 0; w < S::SPLIT; w++)
        most = fmaxf(most, top[16 * w]);
#pragma unroll
    for (int w = 0; w < S::SPLIT; w++) {
        const float under = top[16 * w] - most;

        factor[w] = sum[16 * w] > 0.0f ? exp2_fast(under * p.scale2) : 0.0f;
        total += factor[w] * sum[16 * w];
    }
#pragma unroll
    for (int w = 0; w < S::SPLIT; w++)
        factor[w] = total > 0.0f ? factor[w] * p.drop.keep / total : 0.0f;
    return most * p.scale + logf(total);
}

template <typename S>
__device__ inline void merge_parts(const problem<typename S::T> &p, const float *part,
                                   int64_t q_row, int n)
{
    using T = typename S::T;
    constexpr int CHUNKS = S::HD / PACKED<T>;
    const int head = (int)blockIdx.y;

    for (int i = (int)threadIdx.x; i < n * CHUNKS; i += ATTENTION_THREADS) {
        const int r = i / CHUNKS, c = i % CHUNKS * PACKED<T>;
        T *to = p.out.data + (q_row + r) * p.out.ld + head * p.hd + c;
        float factor[S::SPLIT];
        const float lse = merge_row<S>(p, part, r, factor);
        pack<T> x;

        if (p.lse && c == 0)
            p.lse[(q_row + r) * p.n_heads + head] = lse;
        for (int e = 0; e < PACKED<T>; e++) {
            float sum = 0.0f;

            for (int w = 0; w < S::SPLIT; w++)
                sum += factor[w] * part[(w * 16 + r) * S::HD + c + e];
            cuda_store(x.v + e, sum);
        }
        if (p.packed && c < p.hd)
            pack_store(to, x);
        for (int e = 0; !p.packed && e < PACKED<T> && c + e < p.hd; e++)
            to[e] = x.v[e];
    }
}

/* Tile J of the keys and values, END of which the block sees, and what their distances
 * from its rows add, on their way to one of the two buffers. */
template <typename S>
__device__ __forceinline__ void fetch(const problem<typename S::T> &p, int64_t kv_row,
                                      int end, int j, int first_row,
                                      typename S::T *buffers, float *distances)
{
    fetch_keys<typename S::T, S::HD, S::KEYS>(p, kv_row, end, j,
                                              buffers + 2 * (j % 2) * S::KEYS * S::LD);
    if constexpr (S::BIASED)
        fetch_distances(p.bias, (int)blockIdx.y,
                        j * S::KEYS - first_row - (S::ROWS - 1), S::DISTANCES - 1,
                        distances + j % 2 * S::DISTANCES);
}

template <typename S>
__global__ void __launch_bounds__(ATTENTION_THREADS, S::BLOCKS)
    attention_kernel(const problem<typename S::T> p)
{
    using T = typename S::T;
    KD_DYNAMIC_SHARED(T, shared);
    const struct tile t =
        find_tile(p.q_offsets, p.n_seq, S::ROWS, p.one_tile, (int)blockIdx.x);

    if (t.n <= 0)
        return;
    const int64_t kv_row = p.kv_offsets[t.seq];
    const int n_keys = (int)(p.kv_offsets[t.seq + 1] - kv_row),
              end = attention_keys_end(p.causal, t.first, t.n, n_keys),
              part = S::SPLIT == 1 ? 0 : warp_id(),
              row = S::SPLIT == 1 ? warp_id() * S::WARP_ROWS : 0, n = t.n - row,
              pos = t.first + row,
              warp_end = warp_keys_end<S::MT>(p.causal, pos, n, n_keys);
    const int64_t q_row = p.q_offsets[t.seq] + pos;
    T *own = shared + row * S::LD, *buffers = shared + S::ROWS * S::LD;
    float *distances = reinterpret_cast<float *>(shared + S::TILES / sizeof(T));

    tile_load<T, S::HD, S::ROWS>(shared,
                                 window_at(p.q, q_row - row, (int)blockIdx.y * p.hd),
                                 t.n, p.hd, p.packed);
    fetch<S>(p, kv_row, end, 0, t.first, buffers, distances);
    cp_async_wait();
    __syncthreads();

    const left<T, S::MT, S::HD, S::KEEP> q(own);
    running<S> run;

    for (int j = 0; j * S::KEYS < end; j++) {
        const T *k = buffers + (2 * (j % 2) * S::KEYS + part * S::WARP_KEYS) * S::LD;
        const int key = j * S::KEYS + part * S::WARP_KEYS;

        if ((j + 1) * S::KEYS < end)
            fetch<S>(p, kv_row, end, j + 1, t.first, buffers, distances);
        if (n > 0 && key < warp_end)
            attend<S>(p, run, q, q_row, pos, n, key, n_keys, k, k + S::KEYS * S::LD,
                      distances + j % 2 * S::DISTANCES + S::ROWS - 1 - row);
        cp_async_wait(); /* the next tile is there, nobody reads this one any more */
        __syncthreads();
    }
    if constexpr (S::SPLIT == 1) {
        finish<S>(p, run, q_row, n, own);
    } else {
        leave_part<S>(run, reinterpret_cast<float *>(buffers));
        __syncthreads();
        merge_parts<S>(p, reinterpret_cast<float *>(buffers), q_row, n);
    }
}

template <typename S> int launch(struct kd_backend *be, const struct kd_attention *a)
{
    problem<typename S::T> p = problem_of<typename S::T>(a);
    const dim3 grid((unsigned)attention_slots(&a->q_seqs, S::ROWS),
                    (unsigned)a->n_heads);

    p.one_tile = attention_one_tile(&a->q_seqs, S::ROWS);
    KD_TRY(cuda_allow_shared(reinterpret_cast<const void *>(attention_kernel<S>),
                             S::SHARED));
    KD_LAUNCH((attention_kernel<S>), grid, ATTENTION_THREADS, S::SHARED,
              cuda_stream(be), p);
    return cuda_check_launch("attention");
}

/* WIDE_KEYS: keys of a tile for long sequences, whose tiles have 128 rows; 0: none. */
template <typename T, int HD, int KEYS, int SPLIT_KEYS, int WIDE_KEYS>
int choose(struct kd_backend *be, const struct kd_attention *a)
{
    if (a->bias.table.data) {
        if constexpr (WIDE_KEYS > 0) {
            if (attention_wide_pays(&a->q_seqs, 128, a->n_heads, cuda_of(be)->n_sm))
                return launch<shape<T, HD, 2, WIDE_KEYS, 1, true>>(be, a);
        }
        return launch<shape<T, HD, 1, KEYS, 1, true>>(be, a);
    }
    if (a->q_seqs.max_len <= 16)
        return launch<shape<T, HD, 1, SPLIT_KEYS, ATTENTION_WARPS>>(be, a);
    if constexpr (WIDE_KEYS > 0) {
        if (attention_wide_pays(&a->q_seqs, 128, a->n_heads, cuda_of(be)->n_sm))
            return launch<shape<T, HD, 2, WIDE_KEYS, 1>>(be, a);
    }
    return launch<shape<T, HD, 1, KEYS, 1>>(be, a);
}

template <typename T>
int by_head_size(struct kd_backend *be, const struct kd_attention *a)
{
    constexpr bool half = sizeof(T) == 2;

    if (a->head_dim <= 16)
        return choose<T, 16, 64, 128, 0>(be, a);
    if (a->head_dim <= 32)
        return choose<T, 32, 64, 128, 0>(be, a);
    if (a->head_dim <= 64)
        return choose < T, 64, 64, half ? 128 : 64, half ? 64 : 32 > (be, a);
    return choose < T, 128, 32, half ? 64 : 32, half ? 32 : 0 > (be, a);
}

} // namespace

extern "C" int cuda_attention(struct kd_backend *be, const struct kd_attention *a)
{
    if (a->q.rows == 0 || a->n_heads == 0)
        return KD_OK;
    KD_TRY(attention_check(a->head_dim));
    CUDA_BY_TYPE(a->q.dtype, T, return by_head_size<T>(be, a));
}
