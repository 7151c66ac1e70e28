/* SPDX-License-Identifier: Apache-2.0 */
/* Values of a checkpoint's tensors, in the type they have or as float32.
 *
 * Almost every tensor is contiguous and goes through one of four loops, which are
 * written so that compilers vectorise them and which give the same bits as the scalar
 * conversions of tensor/tensor.h.  A tensor with other strides (PyTorch saves
 * transposed views so) is gathered row by row, a buffer at a time.  Loading calls this
 * from many threads on ranges of one tensor. */
#include "weights_impl.h"

#include <string.h>

static const struct {
    const char *name;
    int bytes;
    int dtype; /* enum kd_dtype of a floating-point type, else -1 */
} dtypes[] = {{"F32", 4, KD_F32}, {"BF16", 2, KD_BF16}, {"F16", 2, KD_F16},
              {"F64", 8, KD_F64}, {"I64", 8, -1},       {"I32", 4, -1},
              {"I16", 2, -1},     {"I8", 1, -1},        {"U64", 8, -1},
              {"U32", 4, -1},     {"U16", 2, -1},       {"U8", 1, -1},
              {"BOOL", 1, -1}};

enum { N_DTYPES = sizeof dtypes / sizeof *dtypes };

bool kd_weight_set_dtype(struct kd_weight *t, const char *dtype)
{
    for (int i = 0; i < N_DTYPES; i++) {
        if (strcmp(dtype, dtypes[i].name) == 0) {
            t->dtype = dtypes[i].name;
            t->item_bytes = dtypes[i].bytes;
            return true;
        }
    }
    return false;
}

static int float_dtype(const struct kd_weight *t)
{
    for (int i = 0; i < N_DTYPES; i++)
        if (strcmp(t->dtype, dtypes[i].name) == 0)
            return dtypes[i].dtype;
    return -1;
}

bool kd_weight_is_float(const struct kd_weight *t, enum kd_dtype *dtype)
{
    int found = float_dtype(t);

    if (found >= 0 && dtype)
        *dtype = (enum kd_dtype)found;
    return found >= 0;
}

enum kd_dtype kd_weights_dtype(const struct kd_weights *w)
{
    double values[KD_U8 + 1] = {0};
    enum kd_dtype most = KD_F32, own = KD_F32;

    for (int i = 0; i < w->n; i++)
        if (kd_weight_is_float(&w->items[i], &own))
            values[own] += (double)w->items[i].count;
    for (int k = 0; k <= KD_U8; k++)
        if (values[k] > values[most])
            most = (enum kd_dtype)k;
    return most;
}

int kd_weight_check(const struct kd_weight *t)
{
    if (float_dtype(t) < 0 || t->ndim > KD_MAX_DIMS)
        return KD_FAIL(KD_EINPUT,
                       "%s: %s is %s with %d dimensions; weights are F32, F16, BF16 or "
                       "F64 with at most %d",
                       t->path, t->name, t->dtype, t->ndim, KD_MAX_DIMS);
    return KD_OK;
}

/* ---- values in order ---- */

static bool in_order(const struct kd_weight *t)
{
    int64_t next = 1;

    for (int i = t->ndim; i-- > 0;) {
        if (t->shape[i] != 1 && t->stride[i] != next)
            return false;
        next *= t->shape[i];
    }
    return true;
}

/* Copy N values from FIRST on, which are STRIDE values apart. */
static void copy_row(const struct kd_weight *t, int64_t first, int64_t stride,
                     int64_t n, unsigned char *out)
{
    size_t item = (size_t)t->item_bytes;

    for (int64_t i = 0; i < n; i++)
        memcpy(out + (size_t)i * item, t->data + (size_t)(first + i * stride) * item,
               item);
}

static void gather(const struct kd_weight *t, int64_t first, int64_t n,
                   unsigned char *out)
{
    int last = t->ndim - 1;
    int64_t row = t->shape[last];

    while (n > 0) {
        int64_t col = first % row, rest = first / row, part = row - col;
        int64_t at = col * t->stride[last];

        for (int i = last; i-- > 0; rest /= t->shape[i])
            at += rest % t->shape[i] * t->stride[i];
        part = part < n ? part : n;
        copy_row(t, at, t->stride[last], part, out);
        out += part * t->item_bytes;
        first += part;
        n -= part;
    }
}

void kd_weight_copy(const struct kd_weight *t, int64_t first, int64_t n, void *out)
{
    if (n < 1)
        return;
    if (in_order(t))
        memcpy(out, t->data + first * t->item_bytes, (size_t)(n * t->item_bytes));
    else
        gather(t, first, n, out);
}

/* ---- float32 ---- */

static float float_of(uint32_t u)
{
    float x;

    memcpy(&x, &u, sizeof x);
    return x;
}

/* Every file may have its values at odd addresses, hence bytes and memcpy. */
static void from_bf16(const unsigned char *restrict in, int64_t n, float *restrict out)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t half;

        memcpy(&half, in + 2 * i, sizeof half);
        out[i] = float_of((uint32_t)half << 16);
    }
}

/* The bits of a half, moved to a float's place, are 2^-112 of its value; infinities and
 * NaN get the largest exponent back. */
static void from_f16(const unsigned char *restrict in, int64_t n, float *restrict out)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t half;
        uint32_t bits, sign;
        float value;

        memcpy(&half, in + 2 * i, sizeof half);
        sign = (uint32_t)(half & 0x8000) << 16;
        value = float_of((uint32_t)(half & 0x7fff) << 13) * 0x1p112f;
        memcpy(&bits, &value, sizeof bits);
        bits |= (half & 0x7c00) == 0x7c00 ? 0x7f800000 : 0;
        out[i] = float_of(bits | sign);
    }
}

static void from_f64(const unsigned char *restrict in, int64_t n, float *restrict out)
{
    for (int64_t i = 0; i < n; i++) {
        double x;

        memcpy(&x, in + 8 * i, sizeof x);
        out[i] = (float)x;
    }
}

static void to_f32(enum kd_dtype dtype, const unsigned char *in, int64_t n, float *out)
{
    if (dtype == KD_BF16)
        from_bf16(in, n, out);
    else if (dtype == KD_F16)
        from_f16(in, n, out);
    else if (dtype == KD_F64)
        from_f64(in, n, out);
    else
        memcpy(out, in, (size_t)n * sizeof *out);
}

void kd_weight_to_f32(const struct kd_weight *t, int64_t first, int64_t n, float *out)
{
    enum { VALUES = 512 };
    unsigned char buf[VALUES * 8];
    enum kd_dtype dtype = KD_F32;

    if (n < 1 || !kd_weight_is_float(t, &dtype))
        return;
    if (in_order(t)) {
        to_f32(dtype, t->data + first * t->item_bytes, n, out);
        return;
    }
    for (int64_t at = 0; at < n; at += VALUES) {
        int64_t part = n - at < VALUES ? n - at : VALUES;

        gather(t, first + at, part, buf);
        to_f32(dtype, buf, part, out + at);
    }
}
