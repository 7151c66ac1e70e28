/* SPDX-License-Identifier: Apache-2.0 */
/* What the attention kernels share: the problem as kernels take it, a block's tile,
 * tiles in shared memory, products of a warp, dropout bits.
 *
 * A warp owns 16 MT rows of a product and holds it as accumulators of 16 x 8 tiles in
 * the layout of mma.h: with g = lane / 4 and t = lane % 4, acc[m][n][2 r + e] is row
 * 16 m + g + 8 r, column 8 n + 2 t + e.  bfloat16 products run on tensor cores; float32
 * ones are multiply-adds in the same layout, so that everything around them is one
 * text.  A product's accumulators are the left operand of the next in registers.
 *
 * Rows in shared memory are padded by 16 bytes, an odd number of 16-byte units in all,
 * so that eight rows of one column meet eight different groups of banks. */
#ifndef KDHPC_CUDA_ATTENTION_TILE_H
#define KDHPC_CUDA_ATTENTION_TILE_H

#include "attention_schedule.h"
#include "mma.h"

enum { ATTENTION_WARPS = 4, ATTENTION_THREADS = ATTENTION_WARPS * WARP };

constexpr float LOG2_E = 1.44269504f;

/* What a block may have of shared memory on the device with the least, sm_80. */
constexpr size_t MOST_SHARED = 163 << 10;

template <typename T> struct window {
    T *data;
    int64_t ld;
};

/* struct kd_distance_bias: what heads have for N distances, row ZERO for none. */
struct distances {
    const float *table; /* [n, H] or NULL */
    int n, zero, n_heads;
};

inline struct distances distances_of(const struct kd_distance_bias *b)
{
    struct distances d = {NULL, 0, 0, 0};

    if (!b->table.data)
        return d;
    d.table = static_cast<const float *>(b->table.data);
    d.n = (int)b->table.shape[0];
    d.zero = (int)b->zero;
    d.n_heads = (int)b->table.shape[1];
    return d;
}

/* struct kd_attention with everything a kernel needs, by value. */
template <typename T> struct problem {
    window<const T> q, k, v;
    window<T> out;
    float *lse; /* [n_q, H] or NULL */
    const int64_t *q_offsets, *kv_offsets;
    int64_t n_q;
    int n_seq, n_heads, group, hd; /* group: heads that share keys */
    float scale, scale2;           /* scale2: times log2(e) */
    bool causal;
    bool packed;   /* rows can be read and written 16 bytes at a time */
    bool one_tile; /* every sequence of the tiled side fits in a tile */
    struct drop drop;
    struct distances bias;
};

template <typename T> inline window<T> window_of(struct kd_mat m)
{
    return {static_cast<T *>(m.data), m.ld};
}

/* The rows from ROW on, from column COL on. */
template <typename T>
__device__ __forceinline__ window<T> window_at(window<T> w, int64_t row, int col)
{
    return {w.data + row * w.ld + col, w.ld};
}

template <typename T> inline bool window_packed(struct kd_mat m, int64_t hd)
{
    return pack_fits<T>(m.data, m.ld) && hd % PACKED<T> == 0;
}

/* What the kernels can do: KD_EINPUT for other models. */
inline int attention_check(int64_t head_dim)
{
    return head_dim <= 128 ? KD_OK
                           : KD_FAIL(KD_EINPUT,
                                     "attention on a GPU takes heads of at most 128 "
                                     "values, these have %lld: use --device cpu",
                                     (long long)head_dim);
}

template <typename T> problem<T> problem_of(const struct kd_attention *a)
{
    problem<T> p;

    p.q = window_of<const T>(a->q);
    p.k = window_of<const T>(a->k);
    p.v = window_of<const T>(a->v);
    p.out = window_of<T>(a->out);
    p.lse = static_cast<float *>(a->lse.data);
    p.q_offsets = static_cast<const int64_t *>(a->q_seqs.offsets_dev.data);
    p.kv_offsets = static_cast<const int64_t *>(a->kv_seqs.offsets_dev.data);
    p.n_q = a->q.rows;
    p.n_seq = (int)a->q_seqs.n;
    p.n_heads = (int)a->n_heads;
    p.group = (int)(a->n_heads / a->n_kv_heads);
    p.hd = (int)a->head_dim;
    p.scale = a->scale;
    p.scale2 = a->scale * LOG2_E;
    p.causal = a->causal;
    p.one_tile = false;
    p.packed =
        window_packed<T>(a->q, a->head_dim) && window_packed<T>(a->k, a->head_dim) &&
        window_packed<T>(a->v, a->head_dim) && window_packed<T>(a->out, a->head_dim);
    p.drop = drop_of(&a->dropout);
    p.bias = distances_of(&a->bias);
    return p;
}

/* The rows of one block: rows [first, first + n) of a sequence. */
struct tile {
    int seq, first, n;
};

__device__ inline int lane_id()
{
    return (int)threadIdx.x % WARP;
}

__device__ inline int warp_id()
{
    return (int)threadIdx.x / WARP;
}

/* The sequence that owns SLOT, by a search in 32 steps at a time. */
__device__ inline int slot_sequence(const int64_t *offsets, int n, int rows, int slot)
{
    int low = 0;

    while (n > 1) { /* the owner is in [low, low + n) */
        const int step = (n + WARP - 1) / WARP, i = lane_id() * step;
        const bool begun =
            i < n && attention_slot(offsets[low + i], low + i, rows) <= slot;
        const int skip = (__popc(__ballot_sync(0xffffffffu, begun)) - 1) * step;

        low += skip;
        n = n - skip < step ? n - skip : step;
    }
    return low;
}

/* n <= 0 for a slot that is left over. */
__device__ inline struct tile find_tile(const int64_t *offsets, int n_seq, int rows,
                                        bool one_tile, int slot)
{
    struct tile t;
    int seq = one_tile ? slot : slot_sequence(offsets, n_seq, rows, slot);
    const int64_t begin = offsets[seq];
    int left;

    t.seq = seq;
    t.first = one_tile ? 0 : (slot - (int)attention_slot(begin, seq, rows)) * rows;
    left = (int)(offsets[seq + 1] - begin) - t.first;
    t.n = left < rows ? left : rows;
    return t;
}

template <typename T, int HD> constexpr int TILE_LD = HD + PACKED<T>;
template <typename T, int HD> constexpr size_t ROW_BYTES = TILE_LD<T, HD> * sizeof(T);

/* TILE [ROWS, HD] = N rows of HD_USED values, zeros beyond; there behind cp_async_wait
 * and a barrier.  All threads of the block, each with a column of its own. */
template <typename T, int HD, int ROWS>
__device__ __forceinline__ void tile_load(T *tile, window<const T> src, int n,
                                          int hd_used, bool packed)
{
    constexpr int CHUNKS = HD / PACKED<T>, STEP = ATTENTION_THREADS / CHUNKS;
    const int r0 = (int)threadIdx.x / CHUNKS, c = (int)threadIdx.x % CHUNKS * PACKED<T>,
              rows = c < hd_used ? n - r0 : 0;
    const T *from = src.data + r0 * src.ld + c;
    T *to = tile + r0 * TILE_LD<T, HD> + c;

    if (packed) {
#pragma unroll
        for (int r = 0; r < ROWS; r += STEP, from += STEP * src.ld) {
            if (ROWS % STEP == 0 || r0 + r < ROWS)
                cp_async16(to + r * TILE_LD<T, HD>, r < rows ? from : src.data,
                           r < rows);
        }
        return;
    }
#pragma unroll 1
    for (int r = 0; r0 + r < ROWS; r += STEP, from += STEP * src.ld) {
#pragma unroll 1
        for (int e = 0; e < PACKED<T>; e++)
            to[r * TILE_LD<T, HD> + e] = r < rows && c + e < hd_used ? from[e] : T{};
    }
}

/* Keys [J ROWS, (J + 1) ROWS) of a sequence and their values on their way to BUFFER. */
template <typename T, int HD, int ROWS>
__device__ __forceinline__ void fetch_keys(const problem<T> &p, int64_t kv_row,
                                           int n_keys, int j, T *buffer)
{
    const int64_t row = kv_row + j * ROWS;
    const int col = (int)blockIdx.y / p.group * p.hd, n = n_keys - j * ROWS;

    tile_load<T, HD, ROWS>(buffer, window_at(p.k, row, col), n, p.hd, p.packed);
    tile_load<T, HD, ROWS>(buffer + ROWS * TILE_LD<T, HD>, window_at(p.v, row, col), n,
                           p.hd, p.packed);
}

/* The 16 MT rows of a warp in shared memory as a left operand; KEEP: in registers from
 * here on. */
template <typename T, int MT, int HD, bool KEEP> struct left {
    const T *rows;

    __device__ explicit left(const T *tile) : rows(tile)
    {
    }
    __device__ __forceinline__ void get(int k, int m, uint32_t (&a)[4]) const
    {
        ldmatrix(a, rows + (16 * m + lane_id() % 16) * TILE_LD<T, HD> + 16 * k +
                        lane_id() / 16 * 8);
    }
};

template <int MT, int HD> struct left<bf16, MT, HD, true> {
    uint32_t held[HD / 16][MT][4];

    __device__ __forceinline__ explicit left(const bf16 *tile)
    {
        const left<bf16, MT, HD, false> from(tile);

#pragma unroll
        for (int k = 0; k < HD / 16; k++) {
#pragma unroll
            for (int m = 0; m < MT; m++)
                from.get(k, m, held[k][m]);
        }
    }
    __device__ __forceinline__ void get(int k, int m, uint32_t (&a)[4]) const
    {
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[i] = held[k][m][i];
    }
};

/* ACC = A B^T, B [8 NT, HD] in shared memory. */
template <int MT, int NT, int HD, bool KEEP>
__device__ __forceinline__ void
product_nt(float (&acc)[MT][NT][4], const left<bf16, MT, HD, KEEP> &a, const bf16 *b)
{
    const int lane = lane_id();
    const bf16 *from =
        b + (lane / 16 * 8 + lane % 8) * TILE_LD<bf16, HD> + lane / 8 % 2 * 8;

    memset(acc, 0, sizeof acc);
#pragma unroll
    for (int k = 0; k < HD / 16; k++) {
        uint32_t fa[MT][4];

#pragma unroll
        for (int m = 0; m < MT; m++)
            a.get(k, m, fa[m]);
#pragma unroll
        for (int n = 0; n < NT; n += 2) {
            uint32_t fb[4];

            ldmatrix(fb, from + 8 * n * TILE_LD<bf16, HD> + 16 * k);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma(acc[m][n], fa[m], fb[0], fb[1]);
                mma(acc[m][n + 1], fa[m], fb[2], fb[3]);
            }
        }
    }
}

template <int MT, int NT, int HD, bool KEEP>
__device__ __forceinline__ void
product_nt(float (&acc)[MT][NT][4], const left<float, MT, HD, KEEP> &a, const float *b)
{
    const int g = lane_id() / 4, t = lane_id() % 4;

    memset(acc, 0, sizeof acc);
#pragma unroll 2
    for (int k = 0; k < HD; k += 4) {
        pack<float> x[2 * MT];

#pragma unroll
        for (int i = 0; i < 2 * MT; i++)
            x[i] = pack_load(a.rows + (g + 8 * i) * TILE_LD<float, HD> + k);
#pragma unroll
        for (int i = 0; i < 2 * NT; i++) {
            const int n = i / 2, e = i % 2;
            const pack<float> y =
                pack_load(b + (8 * n + 2 * t + e) * TILE_LD<float, HD> + k);

#pragma unroll
            for (int r = 0; r < 2 * MT; r++) {
#pragma unroll
                for (int j = 0; j < 4; j++)
                    acc[r / 2][n][r % 2 * 2 + e] += x[r].v[j] * y.v[j];
            }
        }
    }
}

/* ACC += P B, P [16 MT, 8 NT] accumulators of another product, B [8 NT, HD] in shared
 * memory. */
template <int MT, int NT, int NC>
__device__ __forceinline__ void product_nn(float (&acc)[MT][NC][4],
                                           const float (&p)[MT][NT][4], const bf16 *b)
{
    constexpr int LD = TILE_LD<bf16, 8 * NC>;
    const bf16 *from = b + lane_id() % 16 * LD + lane_id() / 16 * 8;

#pragma unroll
    for (int k = 0; k < NT; k += 2) {
        uint32_t fa[MT][4];

#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float *two = p[m][k + i / 2] + i % 2 * 2;

                fa[m][i] = two_bf16(two[0], two[1]);
            }
        }
#pragma unroll
        for (int n = 0; n < NC; n += 2) {
            uint32_t fb[4];

            ldmatrix_trans(fb, from + 8 * k * LD + 8 * n);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma(acc[m][n], fa[m], fb[0], fb[1]);
                mma(acc[m][n + 1], fa[m], fb[2], fb[3]);
            }
        }
    }
}

template <int MT, int NT, int NC>
__device__ __forceinline__ void product_nn(float (&acc)[MT][NC][4],
                                           const float (&p)[MT][NT][4], const float *b)
{
    const int quad = lane_id() / 4 * 4, t = lane_id() % 4;

#pragma unroll
    for (int i = 0; i < 2 * NT; i++) {
        const int k = i / 2, e = i % 2;

#pragma unroll 1
        for (int from = 0; from < 4; from++) { /* row 8 k + 2 from + e of B */
            const float *row =
                b + (8 * k + 2 * from + e) * TILE_LD<float, 8 * NC> + 2 * t;
            float x[2 * MT];

#pragma unroll
            for (int r = 0; r < 2 * MT; r++)
                x[r] =
                    __shfl_sync(0xffffffffu, p[r / 2][k][r % 2 * 2 + e], quad + from);
#pragma unroll
            for (int n = 0; n < NC; n++) {
                const float2 y = *reinterpret_cast<const float2 *>(row + 8 * n);

#pragma unroll
                for (int r = 0; r < 2 * MT; r++) {
                    acc[r / 2][n][r % 2 * 2] += x[r] * y.x;
                    acc[r / 2][n][r % 2 * 2 + 1] += x[r] * y.y;
                }
            }
        }
    }
}

/* Rows [0, n) of DST = the warp's accumulators, row by row times FACTOR, by way of the
 * warp's own rows in shared memory, which only it has read. */
template <typename T, int MT, int NC>
__device__ __forceinline__ void warp_store(T *own, const float (&acc)[MT][NC][4],
                                           const float (&factor)[MT][2], window<T> dst,
                                           int n, int hd_used, bool packed)
{
    constexpr int HD = 8 * NC, LD = TILE_LD<T, HD>, CHUNKS = HD / PACKED<T>;
    const int g = lane_id() / 4, t = lane_id() % 4;

    __syncwarp();
#pragma unroll
    for (int i = 0; i < 2 * MT; i++) {
        const float f = factor[i / 2][i % 2];

#pragma unroll
        for (int c = 0; c < NC; c++) {
            const float *two = acc[i / 2][c] + i % 2 * 2;

            store_two(own + (g + 8 * i) * LD + 8 * c + 2 * t, two[0] * f, two[1] * f);
        }
    }
    __syncwarp();
    for (int i = lane_id(); i < 16 * MT * CHUNKS; i += WARP) {
        const int r = i / CHUNKS, c = i % CHUNKS * PACKED<T>;
        T *to = dst.data + r * dst.ld + c;

        if (r >= n || c >= hd_used)
            continue;
        if (packed)
            pack_store(to, pack_load(own + r * LD + c));
        else
            for (int e = 0; e < PACKED<T> && c + e < hd_used; e++)
                to[e] = own[r * LD + c + e];
    }
}

/* Scores of keys that a row does not see are -inf: POS is the position of the warp's
 * first row, KEY that of the first column. */
template <int MT, int NT>
__device__ __forceinline__ void hide_keys(float (&s)[MT][NT][4], bool causal, int pos,
                                          int key, int n_keys)
{
    const int g = lane_id() / 4, t = lane_id() % 4;

#pragma unroll
    for (int i = 0; i < 2 * MT; i++) {
        const int seen = attention_keys_end(causal, pos + g + 8 * i, 1, n_keys) - key;

#pragma unroll
        for (int j = 0; j < 2 * NT; j++) {
            if (j / 2 * 8 + 2 * t + j % 2 >= seen)
                s[i / 2][j / 2][i % 2 * 2 + j % 2] = -INFINITY;
        }
    }
}

/* Keys [0, result) are all that the rows of a warp may see, N of its 16 MT at most. */
template <int MT>
__device__ __forceinline__ int warp_keys_end(bool causal, int pos, int n, int n_keys)
{
    return attention_keys_end(causal, pos, n < 16 * MT ? n : 16 * MT, n_keys);
}

/* Bit i: column 8 COL8 + i of the row named ROW_KEY is kept. */
__device__ inline uint32_t keep_eight(const struct drop &d, uint32_t site,
                                      uint64_t row_key, uint32_t col8)
{
    const uint32_t ctr[4] = {col8, (uint32_t)row_key, (uint32_t)(row_key >> 32), site};
    uint32_t word[4], bits = 0;

    kd_philox(d.key, ctr, word);
#pragma unroll
    for (int i = 0; i < 4; i++) { /* lane 2 i is the low half of word i */
        bits |= (uint32_t)((word[i] & 0xffffu) >= d.limit) << (2 * i);
        bits |= (uint32_t)((word[i] >> 16) >= d.limit) << (2 * i + 1);
    }
    return bits;
}

__device__ inline uint32_t drop_site(const struct drop &d, int head)
{
    return d.site + ((uint32_t)head << 20);
}

/* Bits of columns [8 COL8, 8 COL8 + 8 N), N <= 4, of the row that the quad shares: each
 * of its lanes draws eight. */
__device__ inline uint32_t keep_quad(const struct drop &d, uint32_t site,
                                     uint64_t row_key, uint32_t col8, int n)
{
    const int t = lane_id() % 4;
    uint32_t bits =
        t < n ? keep_eight(d, site, row_key, col8 + (uint32_t)t) << (8 * t) : 0;

    bits |= __shfl_xor_sync(0xffffffffu, bits, 1);
    return bits | __shfl_xor_sync(0xffffffffu, bits, 2);
}

/* X = X or 0 as dropout wants it of rows that are queries: KEYS names the warp's rows,
 * of which there are N; the columns are keys from FIRST_KEY on. */
template <int MT, int NT>
__device__ __forceinline__ void drop_rows(const struct drop &d, uint32_t site,
                                          const uint64_t *keys, int n, int first_key,
                                          float (&x)[MT][NT][4])
{
    constexpr int STEP = NT < 4 ? NT : 4;
    const int g = lane_id() / 4, t = lane_id() % 4;

#pragma unroll
    for (int i = 0; i < 2 * MT; i++) {
        const uint64_t key = g + 8 * i < n ? keys[g + 8 * i] : 0;

#pragma unroll
        for (int c = 0; c < NT; c += STEP) {
            const uint32_t bits =
                keep_quad(d, site, key, (uint32_t)(first_key / 8 + c), STEP) >> (2 * t);

#pragma unroll
            for (int j = 0; j < 2 * STEP; j++) {
                if (!(bits >> (8 * (j / 2) + j % 2) & 1))
                    x[i / 2][c + j / 2][i % 2 * 2 + j % 2] = 0.0f;
            }
        }
    }
}

#endif
