// SPDX-License-Identifier: Apache-2.0
/* Attention of one new row per hypothesis over cached keys and values, which lie where
 * the table of slots says; the new key and value are put there on the way.  The number
 * of keys is read on the device, so that a recorded launch serves many steps.
 *
 * A warp has a row and head.  LANES lanes share a key, 16 bytes each, so that a warp
 * reads several keys at a time, each in one piece of memory, and UNROLL of them ahead.
 * Each group of lanes has a softmax running along its own keys; the groups are merged
 * at the end in a fixed order.  Few rows and a long past: the four warps of a block
 * have a quarter of the keys each and are merged in their order.
 *
 * Bound: 2 len Hkv hd values read per hypothesis; what beams share comes from the
 * second-level cache. */
#include "attention_tile.h"

namespace
{

enum { UNROLL = 4, SPLIT_BELOW = 4096, SPLIT_FROM = 64 };

template <typename T> struct cached {
    window<const T> q, k_new, v_new;
    window<T> k, v, out;
    const int32_t *slots, *step;
    int64_t slots_ld;
    int n_rows, n_heads, group, hd;
    float scale2;
    bool packed;
    struct distances bias;
};

template <typename T> struct values {
    float v[PACKED<T>];
};

/* PACKED<T> values from P on as floats, zeros from N on. */
template <typename T>
__device__ __forceinline__ values<T> load_values(const T *p, int n, bool packed)
{
    values<T> out;

    if (packed && n > 0) {
        const pack<T> x = pack_load(p);

#pragma unroll
        for (int e = 0; e < PACKED<T>; e++)
            out.v[e] = cuda_load(x.v + e);
        return out;
    }
#pragma unroll
    for (int e = 0; e < PACKED<T>; e++)
        out.v[e] = e < n ? cuda_load(p + e) : 0.0f;
    return out;
}

/* A softmax so far: sums relative to 2^top; before the first key top is -inf. */
template <typename T> struct part {
    float top, sum;
    values<T> out;

    /* UNROLL more keys; scores of -inf do not count. */
    __device__ __forceinline__ void add(const float (&score)[UNROLL],
                                        const values<T> (&v)[UNROLL])
    {
        float most = top;

#pragma unroll
        for (int u = 0; u < UNROLL; u++)
            most = fmaxf(most, score[u]);
        if (most == -INFINITY)
            return;
        scale_to(most);
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            const float p = exp2_fast(score[u] - most);

            sum += p;
#pragma unroll
            for (int e = 0; e < PACKED<T>; e++)
                out.v[e] += p * v[u].v[e];
        }
    }

    __device__ __forceinline__ void scale_to(float most)
    {
        const float f = exp2_fast(top - most);

        top = most;
        sum *= f;
#pragma unroll
        for (int e = 0; e < PACKED<T>; e++)
            out.v[e] *= f;
    }

    __device__ __forceinline__ void merge(part other)
    {
        const float most = fmaxf(top, other.top);

        if (most == -INFINITY)
            return;
        scale_to(most);
        other.scale_to(most);
        sum += other.sum;
#pragma unroll
        for (int e = 0; e < PACKED<T>; e++)
            out.v[e] += other.out.v[e];
    }

    /* The same of the lane STEP away. */
    __device__ __forceinline__ part beside(int step) const
    {
        part other;

        other.top = __shfl_xor_sync(0xffffffffu, top, step);
        other.sum = __shfl_xor_sync(0xffffffffu, sum, step);
#pragma unroll
        for (int e = 0; e < PACKED<T>; e++)
            other.out.v[e] = __shfl_xor_sync(0xffffffffu, out.v[e], step);
        return other;
    }
};

/* This lane's values of the new key or value, from FROM to TO in the cache. */
template <typename T>
__device__ __forceinline__ void append(const T *from, T *to, int n, bool packed)
{
    if (packed && n > 0)
        pack_store(to, pack_load(from));
    for (int e = 0; !packed && e < PACKED<T> && e < n; e++)
        to[e] = from[e];
}

/* What the distance of key T from the query at NOW adds to the exponent of two; threads
 * beside this one ask for the heads beside HEAD. */
template <typename T>
__device__ __forceinline__ float bias_of(const cached<T> &a, int head, int t, int now)
{
    const int64_t at = a.bias.zero + t - now;

    return a.bias.table[at * a.bias.n_heads + head] * LOG2_E;
}

/* Keys t, t + STEP, ... below LEN in runs of UNROLL for one group of lanes, of which
 * this one has N values from column C of HEAD on.  The last key is taken from where it
 * was made: the warp that puts it into the cache may be another. */
template <typename T, int LANES, bool BIASED>
__device__ __forceinline__ part<T> attend(const cached<T> &a, int len, int row,
                                          int head, int c, int t, int step)
{
    const int n = a.hd - c, col = head / a.group * a.hd + c;
    const int32_t *slots = a.slots + row * a.slots_ld;
    const values<T> q =
        load_values(a.q.data + row * a.q.ld + head * a.hd + c, n, a.packed);
    part<T> sum = {-INFINITY, 0.0f, {}};

    for (int t0 = t; t0 - t < len; t0 += UNROLL * step) {
        values<T> k[UNROLL], v[UNROLL];
        float score[UNROLL], bias[UNROLL];

#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            const int at = t0 + u * step, last = len - 1;
            const int64_t slot = slots[at < last ? at : last];
            const T *key = at < last ? a.k.data + slot * a.k.ld
                                     : a.k_new.data + row * a.k_new.ld,
                    *value = at < last ? a.v.data + slot * a.v.ld
                                       : a.v_new.data + row * a.v_new.ld;

            bias[u] = BIASED ? bias_of(a, head, at < last ? at : last, last) : 0.0f;
            k[u] = load_values(key + col, n, a.packed);
            v[u] = load_values(value + col, n, a.packed);
        }
#pragma unroll
        for (int u = 0; u < UNROLL; u++) {
            score[u] = 0.0f;
#pragma unroll
            for (int e = 0; e < PACKED<T>; e++)
                score[u] += q.v[e] * k[u].v[e];
            for (int lane = LANES / 2; lane > 0; lane /= 2)
                score[u] += __shfl_xor_sync(0xffffffffu, score[u], lane);
            if (BIASED)
                score[u] = score[u] * a.scale2 + bias[u];
            else
                score[u] *= a.scale2;
            score[u] = t0 + u * step < len ? score[u] : -INFINITY;
        }
        sum.add(score, v);
    }
    return sum;
}

template <typename T>
__device__ __forceinline__ void write(const cached<T> &a, int row, int head, int c,
                                      const part<T> &sum)
{
    T *to = a.out.data + row * a.out.ld + head * a.hd + c;
    const float f = sum.sum > 0.0f ? 1.0f / sum.sum : 0.0f;
    pack<T> x;

#pragma unroll
    for (int e = 0; e < PACKED<T>; e++)
        cuda_store(x.v + e, sum.out.v[e] * f);
    if (a.packed && c < a.hd)
        pack_store(to, x);
    for (int e = 0; !a.packed && e < PACKED<T> && c + e < a.hd; e++)
        to[e] = x.v[e];
}

/* SPLIT: warps that share a row and head, 1 or all. */
template <typename T, int LANES, int SPLIT, bool BIASED>
__global__ void __launch_bounds__(ATTENTION_THREADS) cached_kernel(const cached<T> a)
{
    constexpr int GROUPS = WARP / LANES;
    __shared__ part<T> parts_of[SPLIT == 1 ? 1 : SPLIT * LANES];
    const int64_t item = SPLIT == 1 ? (int64_t)blockIdx.x * ATTENTION_WARPS + warp_id()
                                    : (int64_t)blockIdx.x;
    const int row = (int)(item / a.n_heads), head = (int)(item % a.n_heads),
              group = lane_id() / LANES, sub = lane_id() % LANES, c = sub * PACKED<T>,
              first = SPLIT == 1 ? 0 : warp_id() * GROUPS;

    if (row >= a.n_rows)
        return;

    const int now = *a.step, kv = head / a.group * a.hd + c;
    const int64_t slot = a.slots[row * a.slots_ld + now];

    if (first + group == 0 && head % a.group == 0) {
        append(a.k_new.data + row * a.k_new.ld + kv, a.k.data + slot * a.k.ld + kv,
               a.hd - c, a.packed);
        append(a.v_new.data + row * a.v_new.ld + kv, a.v.data + slot * a.v.ld + kv,
               a.hd - c, a.packed);
    }
    part<T> sum = attend<T, LANES, BIASED>(a, now + 1, row, head, c, first + group,
                                           GROUPS * SPLIT);

#pragma unroll
    for (int step = LANES; step < WARP; step *= 2)
        sum.merge(sum.beside(step));
    if (SPLIT > 1) {
        if (group == 0)
            parts_of[warp_id() * LANES + sub] = sum;
        __syncthreads();
        if (warp_id() > 0)
            return;
        for (int w = 1; w < SPLIT; w++)
            sum.merge(parts_of[w * LANES + sub]);
    }
    if (group == 0)
        write(a, row, head, c, sum);
}

template <typename T, int LANES, bool BIASED>
int launch_of(struct kd_backend *be, const cached<T> &a, int64_t max_len)
{
    const int64_t items = (int64_t)a.n_rows * a.n_heads;

    if (items < SPLIT_BELOW && max_len > SPLIT_FROM)
        KD_LAUNCH((cached_kernel<T, LANES, ATTENTION_WARPS, BIASED>), (unsigned)items,
                  ATTENTION_THREADS, 0, cuda_stream(be), a);
    else
        KD_LAUNCH((cached_kernel<T, LANES, 1, BIASED>),
                  (unsigned)ceil_div(items, ATTENTION_WARPS), ATTENTION_THREADS, 0,
                  cuda_stream(be), a);
    return cuda_check_launch("attention_cached");
}

template <typename T, int LANES>
int launch(struct kd_backend *be, const cached<T> &a, int64_t max_len)
{
    return a.bias.table ? launch_of<T, LANES, true>(be, a, max_len)
                        : launch_of<T, LANES, false>(be, a, max_len);
}

template <typename T>
int cached_of(struct kd_backend *be, const struct kd_attention_cached *d)
{
    const int64_t hd = d->head_dim;
    cached<T> a;

    a.q = window_of<const T>(d->q);
    a.k_new = window_of<const T>(d->k_new);
    a.v_new = window_of<const T>(d->v_new);
    a.k = window_of<T>(d->k);
    a.v = window_of<T>(d->v);
    a.out = window_of<T>(d->out);
    a.slots = d->slots;
    a.step = d->step;
    a.slots_ld = d->slots_ld;
    a.n_rows = (int)d->q.rows;
    a.n_heads = (int)d->n_heads;
    a.group = (int)(d->n_heads / d->n_kv_heads);
    a.hd = (int)hd;
    a.scale2 = d->scale * LOG2_E;
    a.bias = distances_of(&d->bias);
    a.packed = window_packed<T>(d->q, hd) && window_packed<T>(d->k, hd) &&
               window_packed<T>(d->v, hd) && window_packed<T>(d->k_new, hd) &&
               window_packed<T>(d->v_new, hd) && window_packed<T>(d->out, hd);
    if (hd <= 4 * PACKED<T>)
        return launch<T, 4>(be, a, d->max_len);
    if (hd <= 8 * PACKED<T>)
        return launch<T, 8>(be, a, d->max_len);
    if (hd <= 16 * PACKED<T>)
        return launch<T, 16>(be, a, d->max_len);
    return launch<T, 32>(be, a, d->max_len);
}

} // namespace

extern "C" int cuda_attention_cached(struct kd_backend *be,
                                     const struct kd_attention_cached *a)
{
    if (a->q.rows == 0 || a->n_heads == 0)
        return KD_OK;
    KD_TRY(attention_check(a->head_dim));
    CUDA_BY_TYPE(a->q.dtype, T, return cached_of<T>(be, a));
}
