/* SPDX-License-Identifier: Apache-2.0 */
/* What a tensor value knows about itself, and the two 16-bit float formats.
 *
 * Conversions work on the bits, so that they give the same result on every machine:
 * round to nearest, ties to even, NaN stays NaN, overflow of float16 becomes infinity.
 * Callers: every layer that touches a tensor or reads a model file. */
#include "kdhpc/tensor/tensor.h"

#include <string.h>

static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {
    [KD_F32] = {"float32", 4}, [KD_BF16] = {"bfloat16", 2}, [KD_F16] = {"float16", 2},
    [KD_F64] = {"float64", 8}, [KD_I32] = {"int32", 4},     [KD_I64] = {"int64", 8},
    [KD_U64] = {"uint64", 8},  [KD_U8] = {"uint8", 1},
};

size_t kd_dtype_bytes(enum kd_dtype dtype)
{
    return dtypes[dtype].bytes;
}

const char *kd_dtype_name(enum kd_dtype dtype)
{
    return dtypes[dtype].name;
}

int64_t kd_tensor_count(const struct kd_tensor *t)
{
    int64_t n = 1;

    for (int i = 0; i < t->ndim; i++)
        n *= t->shape[i];
    return n;
}

size_t kd_tensor_bytes(const struct kd_tensor *t)
{
    return (size_t)kd_tensor_count(t) * kd_dtype_bytes(t->dtype);
}

struct kd_tensor kd_tensor_rows(struct kd_tensor t, int64_t first, int64_t n)
{
    size_t row_bytes = kd_dtype_bytes(t.dtype);

    for (int i = 1; i < t.ndim; i++)
        row_bytes *= (size_t)t.shape[i];
    if (t.data)
        t.data = (char *)t.data + (size_t)first * row_bytes;
    t.shape[0] = n;
    return t;
}

struct kd_mat kd_mat_cols(struct kd_tensor t, int64_t first, int64_t n)
{
    struct kd_mat m = kd_mat_of(t);

    if (m.data)
        m.data = (char *)m.data + (size_t)first * kd_dtype_bytes(t.dtype);
    m.cols = n;
    return m;
}

static uint32_t bits_of(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float x;

    memcpy(&x, &u, sizeof x);
    return x;
}

float kd_bf16_to_f32(uint16_t x)
{
    return float_of((uint32_t)x << 16);
}

uint16_t kd_f32_to_bf16(float x)
{
    uint32_t u = bits_of(x);

    if (x != x)
        return (uint16_t)((u >> 16) | 0x40); /* quiet */
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

float kd_f16_to_f32(uint16_t x)
{
    uint32_t sign = (uint32_t)(x & 0x8000) << 16, exponent = (x >> 10) & 0x1f,
             mantissa = x & 0x3ff;

    if (exponent == 0x1f)
        return float_of(sign | 0x7f800000 | (mantissa << 13));
    if (exponent == 0) { /* zero and subnormals: mantissa * 2^-24 */
        float v = (float)mantissa * 0x1p-24f;

        return sign ? -v : v;
    }
    return float_of(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

uint16_t kd_f32_to_f16(float x)
{
    uint32_t u = bits_of(x), sign = (u >> 16) & 0x8000, a = u & 0x7fffffff;

    if (a > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (a >= 0x477ff000) /* rounds to 65520 or more */
        return (uint16_t)(sign | 0x7c00);
    if (a < 0x38800000) { /* subnormal: adding 0.5 leaves |x| * 2^24, rounded, in the
                             low bits of the mantissa */
        uint32_t r = bits_of(float_of(a) + 0.5f) - 0x3f000000;

        return (uint16_t)(sign | r);
    }
    a += 0xfff + ((a >> 13) & 1);
    return (uint16_t)(sign | ((a - 0x38000000) >> 13));
}
