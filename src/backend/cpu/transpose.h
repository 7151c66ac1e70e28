/* SPDX-License-Identifier: Apache-2.0 */
/* Transposed copies, a square of vectors at a time in registers.
 *
 * Packing for products: rows of weights become columns of a strip, tokens of a gradient
 * become its inner dimension.  A square of KN_WIDTH vectors is transposed by swapping
 * halves, quarters, ... single lanes between pairs of vectors; adding the two of a pair
 * at each step in place of keeping both gives the sums of all vectors at once. */
#ifndef KDHPC_CPU_TRANSPOSE_H
#define KDHPC_CPU_TRANSPOSE_H

#include "kernel.h"

#define KN_LANES4(f, i, d) f(i, d), f(i + 1, d), f(i + 2, d), f(i + 3, d)
#define KN_LANES8(f, i, d) KN_LANES4(f, i, d), KN_LANES4(f, i + 4, d)
#if KN_BYTES == 64
#define KN_LANES(f, d) KN_LANES8(f, 0, d), KN_LANES8(f, 8, d)
#elif KN_BYTES == 32
#define KN_LANES(f, d) KN_LANES8(f, 0, d)
#else
#define KN_LANES(f, d) KN_LANES4(f, 0, d)
#endif

/* Lane I of the first and second vector of a pair after swapping groups of D lanes;
 * lanes of the second vector count from KN_WIDTH. */
#define KN_FIRST(i, d) ((i) & (d) ? KN_WIDTH + ((i) ^ (d)) : (i))
#define KN_SECOND(i, d) ((i) & (d) ? KN_WIDTH + (i) : ((i) ^ (d)))

#if defined(__clang__)
#define KN_PICK(x, y, f, d) __builtin_shufflevector(x, y, KN_LANES(f, d))
#else
typedef int kn_lanes __attribute__((vector_size(KN_BYTES)));
#define KN_PICK(x, y, f, d) __builtin_shuffle(x, y, (kn_lanes){KN_LANES(f, d)})
#endif

#define KN_SWAP(x, d)                                                                  \
    for (int i = 0; i < KN_WIDTH; i++) {                                               \
        if (!(i & (d))) {                                                              \
            kn_vec first = KN_PICK(x[i], x[i | (d)], KN_FIRST, d);                     \
                                                                                       \
            x[i | (d)] = KN_PICK(x[i], x[i | (d)], KN_SECOND, d);                      \
            x[i] = first;                                                              \
        }                                                                              \
    }

/* Adds lanes I and I ^ D of vector i, i < D, beside those of vector i + D. */
#define KN_FOLD(x, d)                                                                  \
    for (int i = 0; i < (d); i++)                                                      \
        x[i] = KN_PICK(x[i], x[i + (d)], KN_FIRST, d) +                                \
               KN_PICK(x[i], x[i + (d)], KN_SECOND, d);

/* The square whose rows are X[KN_WIDTH]. */
KN_INLINE void kn_transpose(kn_vec *x)
{
    KN_SWAP(x, 1)
    KN_SWAP(x, 2)
#if KN_BYTES >= 32
    KN_SWAP(x, 4)
#endif
#if KN_BYTES == 64
    KN_SWAP(x, 8)
#endif
}

/* DST [KN_WIDTH, lanes] = SRC [lanes, KN_WIDTH] transposed; the same place AHEAD floats
 * later is read soon.  Not inlined: in a loop compilers keep the addresses of all rows,
 * which takes more registers than there are. */
static __attribute__((noinline)) void
kn_square(float *dst, int64_t ld, const float *src, int64_t ld_src, int64_t ahead)
{
    kn_vec x[KN_WIDTH];

    for (int i = 0; i < KN_WIDTH; i++) {
        x[i] = kn_load(src);
        __builtin_prefetch(src + ahead);
        src += ld_src;
    }
    kn_transpose(x);
    for (int i = 0; i < KN_WIDTH; i++) {
        kn_store(dst, x[i]);
        dst += ld;
    }
}

/* The same for ROWS x WIDTH values of SRC, zeros in the other lanes of DST's WIDTH
 * rows. */
static inline void kn_square_edge(float *dst, int64_t ld, const float *src,
                                  int64_t ld_src, int64_t rows, int64_t width)
{
    for (int64_t c = 0; c < width; c++) {
        for (int64_t r = 0; r < KN_WIDTH; r++)
            dst[c * ld + r] = r < rows ? src[r * ld_src + c] : 0.0f;
    }
}

/* DST [width, ld] = SRC [rows, width] transposed, zeros up to LD, which is a multiple
 * of KN_WIDTH.  Rows are asked for one square ahead, those after the last too: packing
 * mostly goes on there. */
static inline void kn_pack_transposed(float *dst, int64_t ld, const float *src,
                                      int64_t ld_src, int64_t rows, int64_t width)
{
    for (int64_t r = 0; r < ld; r += KN_WIDTH) {
        const float *x = src + r * ld_src;
        int64_t n = rows - r < KN_WIDTH ? rows - r : KN_WIDTH, c = 0;

        if (n == KN_WIDTH) {
            for (; c + KN_WIDTH <= width; c += KN_WIDTH)
                kn_square(dst + c * ld + r, ld, x + c, ld_src, KN_WIDTH * ld_src);
        }
        for (; c < width; c += KN_WIDTH)
            kn_square_edge(dst + c * ld + r, ld, x + c, ld_src, n,
                           width - c < KN_WIDTH ? width - c : KN_WIDTH);
    }
}

/* Lane i is the sum over the lanes of X[i], in the order of kn_sum; X is overwritten.
 */
KN_INLINE kn_vec kn_sums(kn_vec *x)
{
#if KN_BYTES == 64
    KN_FOLD(x, 8)
#endif
#if KN_BYTES >= 32
    KN_FOLD(x, 4)
#endif
    KN_FOLD(x, 2)
    KN_FOLD(x, 1)
    return x[0];
}

#endif
