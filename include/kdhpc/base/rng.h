/* SPDX-License-Identifier: Apache-2.0 */
/* Counter-based random numbers: a pure function of (key, counter), so that a value
 * does not depend on the number of ranks, threads or earlier draws.
 *
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011). */
#ifndef KDHPC_BASE_RNG_H
#define KDHPC_BASE_RNG_H

#include <stdint.h>

/* What kernels call too is compiled for both sides by nvcc. */
#ifdef __CUDACC__
#define KD_DEVICE __host__ __device__
#else
#define KD_DEVICE
#endif

/** One block of four 32-bit words.  Local. */
KD_DEVICE static inline void kd_philox(const uint32_t key[2], const uint32_t ctr[4],
                                       uint32_t out[4])
{
    uint32_t k0 = key[0], k1 = key[1], c0 = ctr[0], c1 = ctr[1], c2 = ctr[2],
             c3 = ctr[3];

    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0,
                 n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;

        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* Streams keep the uses of one seed apart. */
enum kd_rng_stream {
    KD_RNG_INIT = 1,
    KD_RNG_SHUFFLE = 2,
    KD_RNG_DROPOUT = 3,
    KD_RNG_SAMPLE = 4,
    KD_RNG_BOOTSTRAP = 5,
    KD_RNG_TEST = 6,
};

/** 64 random bits for (SEED, STREAM, A, B).  Local. */
uint64_t kd_rng_u64(uint64_t seed, enum kd_rng_stream stream, uint64_t a, uint64_t b);

/** Uniform in [0, 1) with 53 bits for (SEED, STREAM, A, B).  Local. */
double kd_rng_uniform(uint64_t seed, enum kd_rng_stream stream, uint64_t a, uint64_t b);

/** Standard normal by Box-Muller for (SEED, STREAM, A, B).  Local. */
double kd_rng_normal(uint64_t seed, enum kd_rng_stream stream, uint64_t a, uint64_t b);

/** Random permutation of 0..n-1 into PERM[n] (Fisher-Yates; A names the draw, e.g. the
 * epoch).  Local. */
void kd_rng_permute(uint64_t seed, enum kd_rng_stream stream, uint64_t a, int64_t *perm,
                    int64_t n);

#endif
