/* SPDX-License-Identifier: Apache-2.0 */
/* Products in registers: the inner loops of gemm.c, and the small products of
 * attention.
 *
 * C [m, n] (+)= alpha A B.  A tile of KN_ROWS x 2 vectors of C stays in registers while
 * k runs; A is read one value at a time with any strides, so a transposed A costs
 * nothing while it is in the cache; B is read in rows, best contiguous.  Each element
 * of C is one chain of (fused) multiply-adds in the order of k, then one with alpha, so
 * its bits depend neither on the tile it is in nor on the other rows.
 *
 * Written with the compilers' vector type: one source for AVX-512, AVX2, NEON and
 * narrower machines.  Fused multiply-adds are named, since compilers tuned for some
 * processors split them in chains like these. */
#ifndef KDHPC_CPU_KERNEL_H
#define KDHPC_CPU_KERNEL_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__FMA__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__ARM_FEATURE_FMA)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define KN_BYTES 64
#elif defined(__AVX__)
#define KN_BYTES 32
#else
#define KN_BYTES 16
#endif

typedef float kn_vec __attribute__((vector_size(KN_BYTES)));

/* Rows of a tile: its sums take half of 32 registers, or 12 of 16. */
#if defined(__AVX512F__) || defined(__aarch64__)
enum { KN_ROWS = 8 };
#else
enum { KN_ROWS = 6 };
#endif

enum { KN_WIDTH = KN_BYTES / 4, KN_COLS = 2 * KN_WIDTH };

#define KN_INLINE static inline __attribute__((always_inline))

/* The same at any address of a float. */
typedef float kn_any __attribute__((vector_size(KN_BYTES), aligned(4), may_alias));

KN_INLINE kn_vec kn_load(const float *p)
{
    return *(const kn_any *)p;
}

KN_INLINE void kn_store(float *p, kn_vec v)
{
    *(kn_any *)p = v;
}

/* X Y + Z, rounded once where the processor can. */
KN_INLINE kn_vec kn_fma(kn_vec x, kn_vec y, kn_vec z)
{
#if defined(__AVX512F__)
    return (kn_vec)_mm512_fmadd_ps((__m512)x, (__m512)y, (__m512)z);
#elif defined(__FMA__)
    return (kn_vec)_mm256_fmadd_ps((__m256)x, (__m256)y, (__m256)z);
#elif defined(__ARM_NEON) && defined(__ARM_FEATURE_FMA)
    return (kn_vec)vfmaq_f32((float32x4_t)z, (float32x4_t)x, (float32x4_t)y);
#else
    return x * y + z;
#endif
}

KN_INLINE kn_vec kn_all(float x)
{
    return x - (kn_vec){0}; /* a plain broadcast: x - 0 is x for every x */
}

/* Sum of the four lanes of the narrowest vector, and of wider ones by halves. */
typedef float kn_four __attribute__((vector_size(16)));

KN_INLINE float kn_sum4(kn_four v)
{
    return (v[0] + v[2]) + (v[1] + v[3]);
}

KN_INLINE float kn_sum(kn_vec v)
{
    union {
        kn_vec all;
        kn_four part[KN_BYTES / 16];
    } u = {.all = v};

#if KN_BYTES == 64
    return kn_sum4((u.part[0] + u.part[2]) + (u.part[1] + u.part[3]));
#elif KN_BYTES == 32
    return kn_sum4(u.part[0] + u.part[1]);
#else
    return kn_sum4(u.part[0]);
#endif
}

/* A matrix whose element (r, c) is data[r * row + c * col]. */
struct kn_mat {
    const float *data;
    int64_t row, col;
};

struct kn_out {
    float *data;
    int64_t ld;
    float alpha;
    bool add;
};

/* ROWS x VECS vectors of C at its start; both are constants where this is inlined. */
KN_INLINE void kn_tile(int rows, int vecs, int64_t k, struct kn_mat a, const float *b,
                       int64_t ldb, struct kn_out c)
{
    /* in memory: with 16 registers the loop has none left for it */
    const volatile float scale = c.alpha;
    kn_vec left[KN_ROWS], right[KN_ROWS], alpha;

    for (int r = 0; r < rows; r++) {
        left[r] = right[r] = (kn_vec){0};
        if (c.add) {
            __builtin_prefetch(c.data + r * c.ld, 1);
            __builtin_prefetch(c.data + r * c.ld + (vecs * KN_WIDTH - 1), 1);
        }
    }
    for (int64_t i = 0; i < k; i++) {
        const float *x = b + i * ldb;
        kn_vec x0 = kn_load(x), x1 = vecs > 1 ? kn_load(x + KN_WIDTH) : x0;

        for (int r = 0; r < rows; r++) {
            kn_vec y = kn_all(a.data[r * a.row + i * a.col]);

            left[r] = kn_fma(y, x0, left[r]);
            if (vecs > 1)
                right[r] = kn_fma(y, x1, right[r]);
        }
    }
    alpha = kn_all(scale);
    for (int r = 0; r < rows; r++) {
        float *p = c.data + r * c.ld;

        kn_store(p, c.add ? kn_fma(alpha, left[r], kn_load(p)) : alpha * left[r]);
        p += KN_WIDTH;
        if (vecs > 1)
            kn_store(p, c.add ? kn_fma(alpha, right[r], kn_load(p)) : alpha * right[r]);
    }
}

/* A strip of VECS vectors of columns, all rows. */
KN_INLINE void kn_strip(int vecs, int64_t m, int64_t k, struct kn_mat a, const float *b,
                        int64_t ldb, struct kn_out c)
{
    for (; m >= KN_ROWS; m -= KN_ROWS) {
        kn_tile(KN_ROWS, vecs, k, a, b, ldb, c);
        a.data += KN_ROWS * a.row;
        c.data += KN_ROWS * c.ld;
    }
    switch (m) {
    case 1:
        kn_tile(1, vecs, k, a, b, ldb, c);
        break;
    case 2:
        kn_tile(2, vecs, k, a, b, ldb, c);
        break;
    case 3:
        kn_tile(3, vecs, k, a, b, ldb, c);
        break;
    case 4:
        kn_tile(4, vecs, k, a, b, ldb, c);
        break;
    case 5:
        kn_tile(5, vecs, k, a, b, ldb, c);
        break;
#if defined(__AVX512F__) || defined(__aarch64__)
    case 6:
        kn_tile(6, vecs, k, a, b, ldb, c);
        break;
    case 7:
        kn_tile(7, vecs, k, a, b, ldb, c);
        break;
#endif
    default:
        break;
    }
}

/* The last columns, fewer than a vector. */
static inline void kn_edge(int64_t m, int64_t n, int64_t k, struct kn_mat a,
                           const float *b, int64_t ldb, struct kn_out c)
{
    for (int64_t r = 0; r < m; r++) {
        for (int64_t j = 0; j < n; j++) {
            float sum = 0.0f, *p = c.data + r * c.ld + j;

            for (int64_t i = 0; i < k; i++)
                sum += a.data[r * a.row + i * a.col] * b[i * ldb + j];
            *p = c.add ? *p + c.alpha * sum : c.alpha * sum;
        }
    }
}

/* C [m, n] (+)= alpha A [m, k] B [k, n]. */
static inline void kn_product(int64_t m, int64_t n, int64_t k, struct kn_mat a,
                              const float *b, int64_t ldb, struct kn_out c)
{
    int64_t j = 0;
    float *data = c.data;

    for (; j + KN_COLS <= n; j += KN_COLS) {
        c.data = data + j;
        kn_strip(2, m, k, a, b + j, ldb, c);
    }
    for (; j + KN_WIDTH <= n; j += KN_WIDTH) {
        c.data = data + j;
        kn_strip(1, m, k, a, b + j, ldb, c);
    }
    c.data = data + j;
    if (j < n)
        kn_edge(m, n - j, k, a, b + j, ldb, c);
}

/* OUT[r * ld] = alpha sum_c Q_r[c] K[c] for ROWS (constant) rows Q_r of leading
 * dimension LDQ. */
KN_INLINE void kn_dots(int rows, const float *q, int64_t ldq, const float *k, int64_t n,
                       float alpha, float *out, int64_t ld)
{
    kn_vec acc[KN_ROWS];
    int64_t c = 0;

    for (int r = 0; r < rows; r++)
        acc[r] = (kn_vec){0};
    for (; c + KN_WIDTH <= n; c += KN_WIDTH) {
        kn_vec x = kn_load(k + c);

        for (int r = 0; r < rows; r++)
            acc[r] = kn_fma(kn_load(q + r * ldq + c), x, acc[r]);
    }
    for (int r = 0; r < rows; r++) {
        float sum = kn_sum(acc[r]);

        for (int64_t e = c; e < n; e++)
            sum += q[r * ldq + e] * k[e];
        out[r * ld] = alpha * sum;
    }
}

#endif
