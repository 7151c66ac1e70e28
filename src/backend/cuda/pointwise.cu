/* SPDX-License-Identifier: Apache-2.0 */
/* Pointwise kernels: sums, activations and their slopes, dropout, casts, and what
 * follows a product.
 *
 * All are bound by memory: each value is read and written once, eight to a thread in
 * 16-byte accesses, so 2 to 3 times n values of 2 or 4 bytes are moved.  A kernel is an
 * operation on eight values at a position, a struct, under one of two drivers: `flat`
 * for tensors without gaps, `grid` for rows of windows, whose chunks of eight start at
 * multiples of eight columns, as dropout masks do.  Where pointers or rows are not
 * 16-byte aligned the same threads go value by value. */
#include "act.h"

#include <cuda_runtime.h>
#ifndef KD_CUDA_HOST
#include <cuda_fp16.h>
#endif

namespace
{

enum { THREADS = 256 };

/* An activation that is looked up for each value: where types are mixed, which is rare.
 */
constexpr int ANY = -1;

/* Where a thread's eight values are, and how many of them exist. */
struct spot {
    int64_t row, col; /* flat: row 0 */
    int n;
    bool packed;
};

template <typename Op> __global__ void flat(Op op, int64_t n, bool aligned)
{
    const int64_t first = 8 * ((int64_t)blockIdx.x * THREADS + threadIdx.x);

    if (first >= n)
        return;
    op(spot{0, first, (int)min(n - first, (int64_t)8), aligned && first + 8 <= n});
}

template <typename Op>
__global__ void grid(Op op, int64_t rows, int64_t cols, bool aligned)
{
    /* chunks fit 32 bits, as what they stand for fits a device; so division is short */
    const uint32_t across = (uint32_t)ceil_div(cols, 8);
    const uint32_t chunk = blockIdx.x * THREADS + threadIdx.x;
    const int64_t row = chunk / across, col = 8 * (int64_t)(chunk % across);

    if (row >= rows)
        return;
    op(spot{row, col, (int)min(cols - col, (int64_t)8), aligned && col + 8 <= cols});
}

template <typename Op>
int run_flat(struct kd_backend *be, const Op &op, int64_t n, bool aligned,
             const char *what)
{
    if (n == 0)
        return KD_OK;
    KD_LAUNCH((flat<Op>), (unsigned)ceil_div(n, 8 * THREADS), THREADS, 0,
              cuda_stream(be), op, n, aligned);
    return cuda_check_launch(what);
}

template <typename Op>
int run_grid(struct kd_backend *be, const Op &op, int64_t rows, int64_t cols,
             bool aligned, const char *what)
{
    if (rows == 0 || cols == 0)
        return KD_OK;
    KD_LAUNCH((grid<Op>), (unsigned)ceil_div(rows * ceil_div(cols, 8), THREADS),
              THREADS, 0, cuda_stream(be), op, rows, cols, aligned);
    return cuda_check_launch(what);
}

bool aligned16(const void *a, const void *b = NULL, const void *c = NULL)
{
    return ((uintptr_t)a | (uintptr_t)b | (uintptr_t)c) % 16 == 0;
}

template <typename T> struct add_op {
    const T *x, *y;
    T *out;
    __device__ void operator()(const spot &s) const
    {
        float a[8], b[8];

        load_eight(x + s.col, a, s.packed, s.n);
        load_eight(y + s.col, b, s.packed, s.n);
        for (int i = 0; i < 8; i++)
            a[i] += b[i];
        store_eight(out + s.col, a, s.packed, s.n);
    }
};

template <typename X, typename Y> struct axpy_op {
    float alpha;
    const X *x;
    Y *y;
    __device__ void operator()(const spot &s) const
    {
        float a[8], b[8];

        load_eight(x + s.col, a, s.packed, s.n);
        load_eight(y + s.col, b, s.packed, s.n);
        for (int i = 0; i < 8; i++)
            b[i] += alpha * a[i];
        store_eight(y + s.col, b, s.packed, s.n);
    }
};

template <typename T> struct scale_op {
    float alpha;
    T *x;
    __device__ void operator()(const spot &s) const
    {
        float a[8];

        load_eight(x + s.col, a, s.packed, s.n);
        for (int i = 0; i < 8; i++)
            a[i] *= alpha;
        store_eight(x + s.col, a, s.packed, s.n);
    }
};

/* The kind is a template argument: a switch per value would cost more than the value.
 */
template <enum kd_act ACT, typename T> struct act_back_op {
    const T *pre, *dy;
    T *dx;
    __device__ void operator()(const spot &s) const
    {
        float x[8], d[8];

        load_eight(pre + s.col, x, s.packed, s.n);
        load_eight(dy + s.col, d, s.packed, s.n);
        for (int i = 0; i < 8; i++)
            d[i] *= act_slope_as<T>(ACT, x[i]);
        store_eight(dx + s.col, d, s.packed, s.n);
    }
};

/* y = act(a) * b, rows of pre being a | b; y [rows, cols]. */
template <typename T> struct glu_op {
    enum kd_act act;
    const T *pre;
    T *y;
    int64_t cols;
    __device__ void operator()(const spot &s) const
    {
        const T *from = pre + 2 * s.row * cols + s.col;
        float a[8], b[8];

        load_eight(from, a, s.packed, s.n);
        load_eight(from + cols, b, s.packed, s.n);
        for (int i = 0; i < 8; i++)
            a[i] = act_as<T>(act, a[i]) * b[i];
        store_eight(y + s.row * cols + s.col, a, s.packed, s.n);
    }
};

template <typename T> struct glu_back_op {
    enum kd_act act;
    const T *pre, *dy; /* pre may be dpre */
    T *dpre;
    int64_t cols;
    __device__ void operator()(const spot &s) const
    {
        const int64_t at = 2 * s.row * cols + s.col;
        float a[8], b[8], d[8];

        load_eight(pre + at, a, s.packed, s.n);
        load_eight(pre + at + cols, b, s.packed, s.n);
        load_eight(dy + s.row * cols + s.col, d, s.packed, s.n);
        for (int i = 0; i < 8; i++) {
            const float x = a[i];

            a[i] = d[i] * b[i] * act_slope_as<T>(act, x);
            b[i] = d[i] * act_as<T>(act, x);
        }
        store_eight(dpre + at, a, s.packed, s.n);
        store_eight(dpre + at + cols, b, s.packed, s.n);
    }
};

/* y = act(x + bias) on windows. */
template <int ACT, typename X, typename Y> struct bias_act_op {
    enum kd_act act;
    const X *x;
    Y *y;
    int64_t x_ld, y_ld;
    const float *bias; /* or NULL */
    bool bias_aligned;
    __device__ void operator()(const spot &s) const
    {
        float v[8], b[8];

        load_eight(x + s.row * x_ld + s.col, v, s.packed, s.n);
        if (bias) {
            load_eight(bias + s.col, b, s.packed && bias_aligned, s.n);
            for (int i = 0; i < 8; i++)
                v[i] += b[i];
        }
        for (int i = 0; i < 8; i++)
            v[i] = act_as<Y>(ACT == ANY ? act : (enum kd_act)ACT, v[i]);
        store_eight(y + s.row * y_ld + s.col, v, s.packed, s.n);
    }
};

template <typename T> struct scale_mat_op {
    float beta;
    T *c;
    int64_t ld;
    __device__ void operator()(const spot &s) const
    {
        T *p = c + s.row * ld + s.col;
        float v[8] = {0, 0, 0, 0, 0, 0, 0, 0};

        if (beta != 0.0f) {
            load_eight(p, v, s.packed, s.n);
            for (int i = 0; i < 8; i++)
                v[i] *= beta;
        }
        store_eight(p, v, s.packed, s.n);
    }
};

template <typename T> struct dropout_op {
    struct drop d;
    const T *x;
    T *out;
    int64_t cols;
    bool acc;
    __device__ void operator()(const spot &s) const
    {
        const int64_t at = s.row * cols + s.col;
        float v[8], factor[8], old[8];

        load_eight(x + at, v, s.packed, s.n);
        if (d.on) {
            drop_eight(d, d.site, d.row_keys[s.row], (uint32_t)(s.col / 8), factor);
            for (int i = 0; i < 8; i++)
                v[i] *= factor[i];
        }
        if (acc) {
            load_eight(out + at, old, s.packed, s.n);
            for (int i = 0; i < 8; i++)
                v[i] += old[i];
        }
        store_eight(out + at, v, s.packed, s.n);
    }
};

/* The types that are only cast. */
struct f16 {
    uint16_t bits;
};

__device__ inline double value_of(const f16 *p)
{
#ifdef KD_CUDA_HOST
    return kd_f16_to_f32(p->bits);
#else
    return __half2float(__ushort_as_half(p->bits));
#endif
}

__device__ inline double value_of(const double *p)
{
    return *p;
}

template <typename T> __device__ inline double value_of(const T *p)
{
    return cuda_load(p);
}

__device__ inline void put(f16 *p, double wide)
{
    const float v = (float)wide;

#ifdef KD_CUDA_HOST
    p->bits = kd_f32_to_f16(v);
#else
    p->bits = __half_as_ushort(__float2half_rn(v));
#endif
}

__device__ inline void put(double *p, double v)
{
    *p = v;
}

__device__ inline void put(float *p, double v)
{
    *p = (float)v;
}

__device__ inline void put(bf16 *p, double v)
{
    *p = bf16_of((float)v);
}

/* Value I of P, of one of the four types. */
__device__ inline double get_any(const void *p, enum kd_dtype dtype, int64_t i)
{
    switch (dtype) {
    case KD_F32:
        return value_of((const float *)p + i);
    case KD_BF16:
        return value_of((const bf16 *)p + i);
    case KD_F16:
        return value_of((const f16 *)p + i);
    default:
        return value_of((const double *)p + i);
    }
}

__device__ inline void put_any(void *p, enum kd_dtype dtype, int64_t i, double v)
{
    switch (dtype) {
    case KD_F32:
        return put((float *)p + i, v);
    case KD_BF16:
        return put((bf16 *)p + i, v);
    case KD_F16:
        return put((f16 *)p + i, v);
    default:
        return put((double *)p + i, v);
    }
}

/* From any type to any: weights on their way in and out, so one kernel for all. */
struct cast_op {
    const void *src;
    void *dst;
    enum kd_dtype from, to;
    __device__ void operator()(const spot &s) const
    {
        for (int64_t i = s.col; i < s.col + s.n; i++)
            put_any(dst, to, i, get_any(src, from, i));
    }
};

/* Between the two types of activations: in packs. */
template <typename S, typename D> struct convert_op {
    const S *src;
    D *dst;
    __device__ void operator()(const spot &s) const
    {
        float v[8];

        load_eight(src + s.col, v, s.packed, s.n);
        store_eight(dst + s.col, v, s.packed, s.n);
    }
};

template <typename S, typename D>
int convert(struct kd_backend *be, const void *src, void *dst, int64_t n)
{
    return run_flat(be, convert_op<S, D>{(const S *)src, (D *)dst}, n,
                    aligned16(src, dst), "casting");
}

template <int ACT, typename X, typename Y>
int bias_act_typed(struct kd_backend *be, enum kd_act act, const float *bias,
                   const struct kd_mat &x, const struct kd_mat &y)
{
    const X *from = (const X *)x.data;
    Y *to = (Y *)y.data;

    return run_grid(
        be, bias_act_op<ACT, X, Y>{act, from, to, x.ld, y.ld, bias, aligned16(bias)},
        x.rows, x.cols, pack_fits<X>(from, x.ld) && pack_fits<Y>(to, y.ld),
        "activation");
}

template <enum kd_act ACT>
int bias_act(struct kd_backend *be, const float *bias, const struct kd_mat &x,
             const struct kd_mat &y)
{
    if (x.dtype == KD_BF16 && y.dtype == KD_BF16)
        return bias_act_typed<ACT, bf16, bf16>(be, ACT, bias, x, y);
    if (x.dtype == KD_BF16)
        return bias_act_typed<ANY, bf16, float>(be, ACT, bias, x, y);
    if (y.dtype == KD_BF16)
        return bias_act_typed<ANY, float, bf16>(be, ACT, bias, x, y);
    return bias_act_typed<ACT, float, float>(be, ACT, bias, x, y);
}

template <enum kd_act ACT>
int act_back(struct kd_backend *be, const struct kd_tensor &pre,
             const struct kd_tensor &dy, const struct kd_tensor &dx)
{
    CUDA_BY_TYPE(pre.dtype, T,
                 return run_flat(be,
                                 act_back_op<ACT, T>{(const T *)pre.data,
                                                     (const T *)dy.data, (T *)dx.data},
                                 kd_tensor_count(&pre),
                                 aligned16(pre.data, dy.data, dx.data), "act_back"));
}

/* The rows of a tensor without gaps as one long row. */
struct kd_mat flat_mat(const struct kd_tensor &t)
{
    const int64_t n = kd_tensor_count(&t);

    return kd_mat{t.data, t.dtype, 1, n, (n + 7) / 8 * 8};
}

bool is_float(enum kd_dtype dtype)
{
    return dtype == KD_F32 || dtype == KD_BF16 || dtype == KD_F16 || dtype == KD_F64;
}

} // namespace

/* RUN<kind>(args...) for the kind of an activation. */
#define BY_ACT(act, RUN, ...)                                                          \
    switch (act) {                                                                     \
    case KD_ACT_NONE:                                                                  \
        return RUN<KD_ACT_NONE>(__VA_ARGS__);                                          \
    case KD_ACT_RELU:                                                                  \
        return RUN<KD_ACT_RELU>(__VA_ARGS__);                                          \
    case KD_ACT_GELU:                                                                  \
        return RUN<KD_ACT_GELU>(__VA_ARGS__);                                          \
    case KD_ACT_GELU_NEW:                                                              \
        return RUN<KD_ACT_GELU_NEW>(__VA_ARGS__);                                      \
    case KD_ACT_SILU:                                                                  \
        return RUN<KD_ACT_SILU>(__VA_ARGS__);                                          \
    case KD_ACT_TANH:                                                                  \
        return RUN<KD_ACT_TANH>(__VA_ARGS__);                                          \
    }                                                                                  \
    return KD_FAIL(KD_EINTERNAL, "activation %d is unknown", (int)(act))

extern "C" int cuda_bias_act(struct kd_backend *be, enum kd_act act, const float *bias,
                             struct kd_mat x, struct kd_mat y)
{
    BY_ACT(act, bias_act, be, bias, x, y);
}

extern "C" int cuda_scale_mat(struct kd_backend *be, float beta, struct kd_mat c)
{
    CUDA_BY_TYPE(c.dtype, T,
                 return run_grid(be, scale_mat_op<T>{beta, (T *)c.data, c.ld}, c.rows,
                                 c.cols, pack_fits<T>(c.data, c.ld), "gemm"));
}

extern "C" int cuda_round(struct kd_backend *be, const float *x, uint16_t *out,
                          int64_t n)
{
    return convert<float, bf16>(be, x, out, n);
}

extern "C" int cuda_add(struct kd_backend *be, struct kd_tensor x, struct kd_tensor y,
                        struct kd_tensor out)
{
    CUDA_BY_TYPE(out.dtype, T,
                 return run_flat(
                     be, add_op<T>{(const T *)x.data, (const T *)y.data, (T *)out.data},
                     kd_tensor_count(&out), aligned16(x.data, y.data, out.data),
                     "add"));
}

template <typename X, typename Y>
static int axpy(struct kd_backend *be, float alpha, const struct kd_tensor &x,
                const struct kd_tensor &y)
{
    return run_flat(be, axpy_op<X, Y>{alpha, (const X *)x.data, (Y *)y.data},
                    kd_tensor_count(&x), aligned16(x.data, y.data), "axpy");
}

extern "C" int cuda_axpy(struct kd_backend *be, float alpha, struct kd_tensor x,
                         struct kd_tensor y)
{
    CUDA_BY_TYPE(x.dtype, X,
                 CUDA_BY_TYPE(y.dtype, Y, return (axpy<X, Y>(be, alpha, x, y))));
}

extern "C" int cuda_scale(struct kd_backend *be, float alpha, struct kd_tensor x)
{
    CUDA_BY_TYPE(x.dtype, T,
                 return run_flat(be, scale_op<T>{alpha, (T *)x.data},
                                 kd_tensor_count(&x), aligned16(x.data), "scale"));
}

extern "C" int cuda_act(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                        struct kd_tensor y)
{
    return cuda_bias_act(be, act, NULL, flat_mat(pre), flat_mat(y));
}

extern "C" int cuda_act_back(struct kd_backend *be, enum kd_act act,
                             struct kd_tensor pre, struct kd_tensor dy,
                             struct kd_tensor dx)
{
    BY_ACT(act, act_back, be, pre, dy, dx);
}

extern "C" int cuda_glu(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                        struct kd_tensor y)
{
    const int64_t cols = y.shape[1];

    CUDA_BY_TYPE(
        pre.dtype, T,
        return run_grid(
            be, glu_op<T>{act, (const T *)pre.data, (T *)y.data, cols}, y.shape[0],
            cols, pack_fits<T>(pre.data, cols) && pack_fits<T>(y.data, cols), "glu"));
}

extern "C" int cuda_glu_back(struct kd_backend *be, enum kd_act act,
                             struct kd_tensor pre, struct kd_tensor dy,
                             struct kd_tensor dpre)
{
    const int64_t cols = dy.shape[1];

    CUDA_BY_TYPE(
        pre.dtype, T,
        return run_grid(be,
                        glu_back_op<T>{act, (const T *)pre.data, (const T *)dy.data,
                                       (T *)dpre.data, cols},
                        dy.shape[0], cols,
                        pack_fits<T>(pre.data, cols) && pack_fits<T>(dy.data, cols) &&
                            pack_fits<T>(dpre.data, cols),
                        "glu_back"));
}

extern "C" int cuda_dropout(struct kd_backend *be, const struct kd_dropout *d,
                            struct kd_tensor x, struct kd_tensor out, bool acc)
{
    const int64_t rows = x.shape[0], cols = kd_tensor_count(&x) / (rows ? rows : 1);

    CUDA_BY_TYPE(
        x.dtype, T,
        return run_grid(
            be, dropout_op<T>{drop_of(d), (const T *)x.data, (T *)out.data, cols, acc},
            rows, cols, pack_fits<T>(x.data, cols) && pack_fits<T>(out.data, cols),
            "dropout"));
}

extern "C" int cuda_cast(struct kd_backend *be, struct kd_tensor src,
                         struct kd_tensor dst)
{
    const int64_t n = kd_tensor_count(&src);

    if (src.dtype == dst.dtype)
        return be->ops->copy(be, dst.data, src.data, kd_tensor_bytes(&src));
    if (!is_float(src.dtype) || !is_float(dst.dtype))
        return KD_FAIL(KD_EINTERNAL, "no cast from %s to %s", kd_dtype_name(src.dtype),
                       kd_dtype_name(dst.dtype));
    if (src.dtype == KD_F32 && dst.dtype == KD_BF16)
        return convert<float, bf16>(be, src.data, dst.data, n);
    if (src.dtype == KD_BF16 && dst.dtype == KD_F32)
        return convert<bf16, float>(be, src.data, dst.data, n);
    return run_flat(be, cast_op{src.data, dst.data, src.dtype, dst.dtype}, n, false,
                    "casting");
}
