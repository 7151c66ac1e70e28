// SPDX-License-Identifier: Apache-2.0
/* Losses of rows: cross-entropy, label smoothing and KL over a vocabulary with their
 * gradient, and squared distances of hidden states.
 *
 * A block has a row of logits.  One pass gathers all sums of exponentials (expsum.h:
 * no maximum is needed beforehand), the sum of the logits and the first largest; a
 * second pass makes the gradient from the logits once more, so nothing is kept.  With p
 * = softmax(z / T) the KL part needs sum e_t (z_t - z_s) / T in float64: what both rows
 * are shifted by cancels there.  Rows of hidden states are held in registers (struct
 * row_group).
 *
 * Bounds, in bytes moved for n = rows cols and t = sizeof of the gradient's type:
 * vocab_loss 4 n, and 4 n + t n for the gradient; a teacher adds 4 n to either reading
 * (the second finds in the cache what fits there); mse_rows 2 t n, and t n for the
 * gradient (twice if it adds). */
#include "expsum.h"

namespace
{

enum { VOCAB_THREADS = 512, MSE_THREADS = 256 };

template <typename D> struct vocab_args {
    const float *zs, *zt; /* zt may be NULL */
    D *dz;                /* NULL: no gradient; may be zs */
    const int32_t *labels;
    const float *kl_mask;
    double *out; /* [rows, 4] */
    int64_t ld;
    int cols;
    float w_ce, w_smooth, w_kl, inv_t;
};

/* A row's columns, and what is asked of it. */
struct vocab_row {
    const float *zs, *zt;
    int cols, lead, chunks;
    float inv_t;
    bool ce, kl;
    bool own; /* the student's sum at temperature T differs from that of ce */
};

struct vocab_sums {
    exp_sum ce, s, t; /* of exp(zs), exp(zs / T), exp(zt / T) */
    double zs;        /* sum of zs */
    double cross;     /* of e_t (zt - zs), in the units of t */
    float top;        /* largest of zs and its first column */
    int at;
};

struct vocab_shared {
    float f[WARP];
    double d[WARP];
};

/* Largest of V[8] and its first index. */
__device__ __forceinline__ float chunk_max(const float (&v)[CHUNK], int *at)
{
    float most = -INFINITY;

#pragma unroll
    for (int e = 0; e < CHUNK; e++)
        most = fmaxf(most, v[e]);
#pragma unroll
    for (int e = CHUNK - 1; e >= 0; e--)
        if (v[e] == most)
            *at = e;
    return most;
}

/* A chunk's share of the student's sums; columns outside [FIRST, END) hold -inf. */
__device__ __forceinline__ void student_sums(const vocab_row &row, int c, int first,
                                             int end, const float (&z)[CHUNK],
                                             vocab_sums *a)
{
    int at = 0;
    const float most = chunk_max(z, &at);

    if (most > a->top) {
        a->top = most;
        a->at = c + at;
        if (row.ce)
            (void)a->ce.raise(most);
        if (row.own)
            (void)a->s.raise(most * row.inv_t);
    }
    if (row.ce) {
#pragma unroll
        for (int e = 0; e < CHUNK; e++) {
            a->ce.sum += (double)exp_over(z[e], a->ce.ref);
            a->zs += (double)(e >= first && e < end ? z[e] : 0.0f);
        }
    }
    if (row.own) {
#pragma unroll
        for (int e = 0; e < CHUNK; e++)
            a->s.sum += (double)exp_scaled(z[e], row.inv_t, a->s.ref);
    }
}

__device__ __forceinline__ void teacher_sums(const vocab_row &row,
                                             const float (&z)[CHUNK],
                                             const float (&zt)[CHUNK], float *top,
                                             vocab_sums *a)
{
    int at = 0;
    const float most = chunk_max(zt, &at);

    if (most > *top) {
        *top = most;
        a->cross *= a->t.raise(most * row.inv_t);
    }
#pragma unroll
    for (int e = 0; e < CHUNK; e++) {
        const double et = (double)exp_scaled(zt[e], row.inv_t, a->t.ref);

        a->t.sum += et;
        if (et > 0.0) /* 0 log 0 = 0 */
            a->cross += et * ((double)zt[e] - (double)z[e]);
    }
}

/* The thread's sums, then the block's. */
__device__ __forceinline__ vocab_sums sums_of(const vocab_row &row, vocab_shared *m)
{
    vocab_sums a = {
        exp_sum_none(), exp_sum_none(), exp_sum_none(), 0.0, 0.0, -INFINITY, 0};
    float top_t = -INFINITY, top;
    double factor;

    for (int i = (int)threadIdx.x; i < row.chunks; i += VOCAB_THREADS) {
        const int c = i * CHUNK - row.lead, first = -c, end = row.cols - c;
        float z[CHUNK], zt[CHUNK];

        load_padded(row.zs + c, first, end, -INFINITY, z);
        if (row.kl)
            load_padded(row.zt + c, first, end, -INFINITY, zt);
        student_sums(row, c, first, end, z, &a);
        if (row.kl)
            teacher_sums(row, z, zt, &top_t, &a);
    }
    top = block_max(a.top, m->f);
    a.at = (int)-block_max(a.top == top ? -(float)a.at : -INFINITY, m->f);
    if (row.ce) {
        a.ce = exp_sum_block(a.ce, &factor, m->f, m->d);
        a.zs = block_sum(a.zs, m->d);
    }
    if (row.kl) {
        a.s = row.own ? exp_sum_block(a.s, &factor, m->f, m->d) : a.ce;
        a.t = exp_sum_block(a.t, &factor, m->f, m->d);
        a.cross = block_sum(a.cross * factor, m->d);
    }
    return a;
}

/* dz = a e + b e_s - c e_t - d - [column = label] w_ce */
template <typename D>
__device__ __forceinline__ void vocab_gradient(const vocab_args<D> &p,
                                               const vocab_row &row,
                                               const vocab_sums &s, int label, D *dz)
{
    const double w = (double)p.w_ce + (double)p.w_smooth * (double)p.cols,
                 kl = (double)p.w_kl * (double)p.inv_t;
    const float a = row.ce ? (float)(w / s.ce.sum) : 0.0f,
                d = row.ce ? p.w_smooth : 0.0f, b = row.kl ? (float)(kl / s.s.sum) : 0,
                c = row.kl ? (float)(kl / s.t.sum) : 0.0f;

    for (int i = (int)threadIdx.x; i < row.chunks; i += VOCAB_THREADS) {
        const int at = i * CHUNK - row.lead, first = -at, end = row.cols - at;
        float z[CHUNK], g[CHUNK];

        load_eight(row.zs + at, first, end, z);
#pragma unroll
        for (int e = 0; e < CHUNK; e++) {
            g[e] = row.ce ? a * exp_over(z[e], s.ce.ref) - d : 0.0f;
            if (row.ce && at + e == label)
                g[e] -= p.w_ce;
        }
        if (row.kl) {
            float zt[CHUNK];

            load_eight(row.zt + at, first, end, zt);
#pragma unroll
            for (int e = 0; e < CHUNK; e++)
                g[e] += b * exp_scaled(z[e], row.inv_t, s.s.ref) -
                        c * exp_scaled(zt[e], row.inv_t, s.t.ref);
        }
        store_eight(dz + at, first, end, g);
    }
}

/* Zeros, for the gradient of a row without losses. */
template <typename D>
__device__ __forceinline__ void vocab_zero(const vocab_row &row, D *dz)
{
    const float none[CHUNK] = {};

    for (int i = (int)threadIdx.x; i < row.chunks; i += VOCAB_THREADS) {
        const int at = i * CHUNK - row.lead;

        store_eight(dz + at, -at, row.cols - at, none);
    }
}

template <typename D>
__global__ void __launch_bounds__(VOCAB_THREADS, 2) vocab_kernel(const vocab_args<D> p)
{
    __shared__ vocab_shared shared;
    const int64_t r = blockIdx.x, first = r * p.ld;
    const int label = p.labels[r];
    double *out = p.out + 4 * r, z_label = 0.0, loss[4] = {0.0, 0.0, 0.0, 0.0};
    vocab_row row = {p.zs + first, NULL,       p.cols, 0,    0,
                     p.inv_t,      label >= 0, false,  false};
    vocab_sums s;

    row.kl = p.zt && (!p.kl_mask || p.kl_mask[r] != 0.0f);
    row.own = row.kl && (!row.ce || p.inv_t != 1.0f);
    if (row.kl)
        row.zt = p.zt + first;
    row.lead = chunk_lead(row.zs);
    row.chunks = (p.cols + row.lead + CHUNK - 1) / CHUNK;
    if (row.ce && threadIdx.x == 0)
        z_label = (double)row.zs[label]; /* before the gradient takes its place */
    if (row.ce || row.kl) {
        s = sums_of(row, &shared);
        if (p.dz)
            vocab_gradient(p, row, s, label, p.dz + first);
    } else if (p.dz) {
        vocab_zero(row, p.dz + first);
    }
    if (threadIdx.x > 0)
        return;
    if (row.ce) {
        const double log_sum = s.ce.log_sum();

        loss[0] = log_sum - z_label;
        loss[1] = (double)p.cols * log_sum - s.zs;
        loss[3] = s.at == label && s.ce.sum == s.ce.sum ? 1.0 : 0.0;
    }
    if (row.kl)
        loss[2] = s.cross / s.t.sum * (double)p.inv_t - s.t.log_sum() + s.s.log_sum();
    for (int i = 0; i < 4; i++)
        out[i] = loss[i];
}

template <typename D> int vocab_of(struct kd_backend *be, const struct kd_vocab_loss *l)
{
    const vocab_args<D> a = {(const float *)l->zs.data,
                             (const float *)l->zt.data,
                             l->grad ? (D *)l->dz.data : NULL,
                             l->labels,
                             l->kl_mask,
                             (double *)l->rows_out.data,
                             kd_vocab_loss_ld(l),
                             (int)l->zs.shape[1],
                             l->w_ce,
                             l->w_smooth,
                             l->w_kl,
                             1.0f / l->temperature};

    KD_LAUNCH((vocab_kernel<D>), (unsigned)l->zs.shape[0], VOCAB_THREADS, 0,
              cuda_stream(be), a);
    return cuda_check_launch("vocab_loss");
}

template <typename T> struct mse_args {
    const T *s, *t;
    const float *mask; /* or NULL */
    bool normalize, acc;
    float w;
    double *out;
    T *ds; /* or NULL */
    int64_t rows;
    int cols, group;
};

/* A group's row, and what standardises both sides: (x - mean) scale, or the identity.
 */
struct mse_row {
    row_place at;
    int64_t r;
    int cols;                /* 0 for masked rows and behind the last row */
    int chunks;              /* of a thread */
    float mean[2], scale[2]; /* of s, of t */
};

/* S and T of a chunk, 0 behind the row's end. */
template <int HELD> struct mse_held {
    float s[HELD ? HELD : 1][CHUNK], t[HELD ? HELD : 1][CHUNK];
};

/* Chunk I of the thread, which begins at column *C, and where it is held.  Where
 * chunks are not held, AGAIN reads it. */
template <typename T, int HELD>
__device__ __forceinline__ int mse_chunk(const mse_args<T> &a, const mse_row &w, int i,
                                         bool again, mse_held<HELD> &h, int *c)
{
    const int k = HELD ? i : 0;

    *c = (i * a.group + w.at.thread) * CHUNK;
    if (again) {
        const int64_t at = w.r * a.cols + *c;
        const chunk<T> x = chunk_load(a.s + at, 0, w.cols - *c),
                       y = chunk_load(a.t + at, 0, w.cols - *c);

        chunk_floats(x, h.s[k]);
        chunk_floats(y, h.t[k]);
    }
    return k;
}

/* Means, then scales of both sides. */
template <typename T, int HELD>
__device__ __forceinline__ void mse_moments(const mse_args<T> &a, mse_held<HELD> &h,
                                            float *shared, mse_row *w)
{
    for (int pass = 0; pass < 2; pass++) {
        float sum[2] = {0.0f, 0.0f};

#pragma unroll
        for (int i = 0; i < (HELD ? HELD : w->chunks); i++) {
            int c;
            const int k = mse_chunk(a, *w, i, !HELD, h, &c);

#pragma unroll
            for (int e = 0; e < CHUNK; e++) {
                const float ds = h.s[k][e] - w->mean[0], dt = h.t[k][e] - w->mean[1];

                if (c + e < w->cols) {
                    sum[0] += pass == 0 ? ds : ds * ds;
                    sum[1] += pass == 0 ? dt : dt * dt;
                }
            }
        }
        group_sum(sum, a.group, shared);
        for (int j = 0; j < 2; j++) {
            if (pass == 0)
                w->mean[j] = sum[j] / (float)a.cols;
            else
                w->scale[j] = 1.0f / sqrtf(sum[j] / (float)a.cols + 1e-5f);
        }
    }
}

/* Sums of e^2, e, e n over the row, with n = s and e = s - t, both standardised. */
template <typename T, int HELD>
__device__ __forceinline__ void mse_sums(const mse_args<T> &a, const mse_row &w,
                                         mse_held<HELD> &h, double (&sums)[3])
{
#pragma unroll
    for (int i = 0; i < (HELD ? HELD : w.chunks); i++) {
        int c;
        const int k = mse_chunk(a, w, i, !HELD, h, &c);
        float sum_e = 0.0f, sum_en = 0.0f;

#pragma unroll
        for (int e = 0; e < CHUNK; e++) {
            const float n = (h.s[k][e] - w.mean[0]) * w.scale[0],
                        diff = n - (h.t[k][e] - w.mean[1]) * w.scale[1];

            if (c + e < w.cols) {
                sums[0] += (double)diff * (double)diff;
                sum_e += diff;
                sum_en += diff * n;
            }
        }
        sums[1] += (double)sum_e;
        sums[2] += (double)sum_en;
    }
}

/* ds (+)= 2 w (e - mean(e) - n mean(e n)) scale, the means only when standardised; 0
 * for masked rows. */
template <typename T, int HELD>
__device__ __forceinline__ void mse_gradient(const mse_args<T> &a, const mse_row &w,
                                             mse_held<HELD> &h, float mean_e,
                                             float mean_en)
{
    const float rate = w.cols > 0 ? 2.0f * a.w * w.scale[0] : 0.0f;

#pragma unroll
    for (int i = 0; i < (HELD ? HELD : w.chunks); i++) {
        int c;
        const int k = mse_chunk(a, w, i, !HELD, h, &c);
        const int64_t at = w.r * a.cols + c;
        float g[CHUNK], old[CHUNK] = {};

        if (a.acc)
            load_eight(a.ds + at, 0, a.cols - c, old);
#pragma unroll
        for (int e = 0; e < CHUNK; e++) {
            const float n = (h.s[k][e] - w.mean[0]) * w.scale[0],
                        diff = n - (h.t[k][e] - w.mean[1]) * w.scale[1];

            g[e] = old[e] + rate * (diff - mean_e - n * mean_en);
        }
        store_eight(a.ds + at, 0, a.cols - c, g);
    }
}

/* HELD as in norm.cu. */
template <typename T, int HELD>
__global__ void __launch_bounds__(ROW_THREADS, 1) mse_kernel(const mse_args<T> a)
{
    __shared__ float shared[2 * WARP];
    __shared__ double shared_sums[3 * WARP];
    const row_place at = row_place_of(a.group);
    mse_row w = {at, blockIdx.x * (int64_t)(blockDim.x / (unsigned)a.group) + at.group,
                 0,  HELD ? HELD : (a.cols - 1) / (a.group * CHUNK) + 1,
                 {}, {1.0f, 1.0f}};
    const bool live = w.r < a.rows, on = live && (!a.mask || a.mask[w.r] != 0.0f);
    mse_held<HELD> h;
    double sums[3] = {0.0, 0.0, 0.0};
    int c;

    w.cols = on ? a.cols : 0;
#pragma unroll
    for (int i = 0; i < HELD; i++)
        (void)mse_chunk(a, w, i, true, h, &c);
    if (a.normalize)
        mse_moments(a, h, shared, &w);
    mse_sums(a, w, h, sums);
    group_sum(sums, a.group, shared_sums);
    if (live && at.thread == 0)
        a.out[w.r] = sums[0];
    if (!live || !a.ds || (!on && a.acc))
        return;
    if (!a.normalize)
        sums[1] = sums[2] = 0.0;
    mse_gradient(a, w, h, (float)(sums[1] / (double)a.cols),
                 (float)(sums[2] / (double)a.cols));
}

template <typename T>
int mse_of(struct kd_backend *be, const mse_args<T> &a, const row_group &g)
{
    const unsigned blocks = (unsigned)ceil_div(a.rows, g.rows),
                   threads = (unsigned)(g.threads * g.rows);

    if (g.held == 1)
        KD_LAUNCH((mse_kernel<T, 1>), blocks, threads, 0, cuda_stream(be), a);
    else
        KD_LAUNCH((mse_kernel<T, 0>), blocks, threads, 0, cuda_stream(be), a);
    return cuda_check_launch("mse_rows");
}

} // namespace

extern "C" int cuda_vocab_loss(struct kd_backend *be, const struct kd_vocab_loss *l)
{
    if (l->zs.shape[0] == 0)
        return KD_OK;
    CUDA_BY_TYPE(l->grad ? l->dz.dtype : KD_F32, D, return vocab_of<D>(be, l));
}

extern "C" int cuda_mse_rows(struct kd_backend *be, struct kd_tensor s,
                             struct kd_tensor t, const float *row_mask, bool normalize,
                             float w, double *rows_out, struct kd_tensor ds, bool acc)
{
    const int64_t rows = s.shape[0], cols = s.shape[1];
    const row_group g = row_group_of(cols, MSE_THREADS);

    if (rows == 0)
        return KD_OK;
    CUDA_BY_TYPE(
        s.dtype, T,
        return mse_of<T>(be,
                         {(const T *)s.data, (const T *)t.data, row_mask, normalize,
                          acc, w, rows_out, (T *)ds.data, rows, (int)cols, g.threads},
                         g));
}
