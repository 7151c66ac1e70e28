/* SPDX-License-Identifier: Apache-2.0 */
/* Draws over Philox: the seed is the key; the counter is (A, B) with the stream in the
 * top byte of B, so that streams of one seed never meet while B < 2^56. */
#include "kdhpc/base/rng.h"

#include <math.h>

static void block(uint64_t seed, enum kd_rng_stream stream, uint64_t a, uint64_t b,
                  uint64_t out[2])
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t ctr[4] = {(uint32_t)a, (uint32_t)(a >> 32), (uint32_t)b,
                       (uint32_t)(b >> 32) ^ ((uint32_t)stream << 24)};
    uint32_t word[4];

    kd_philox(key, ctr, word);
    out[0] = (uint64_t)word[1] << 32 | word[0];
    out[1] = (uint64_t)word[3] << 32 | word[2];
}

static double unit(uint64_t bits) /* [0, 1) */
{
    return (double)(bits >> 11) * 0x1p-53;
}

uint64_t kd_rng_u64(uint64_t seed, enum kd_rng_stream stream, uint64_t a, uint64_t b)
{
    uint64_t bits[2];

    block(seed, stream, a, b, bits);
    return bits[0];
}

double kd_rng_uniform(uint64_t seed, enum kd_rng_stream stream, uint64_t a, uint64_t b)
{
    return unit(kd_rng_u64(seed, stream, a, b));
}

double kd_rng_normal(uint64_t seed, enum kd_rng_stream stream, uint64_t a, uint64_t b)
{
    const double two_pi = 6.283185307179586476925286766559;
    uint64_t bits[2];

    block(seed, stream, a, b, bits);
    /* 1 - u is in (0, 1], where the logarithm is finite */
    return sqrt(-2.0 * log(1.0 - unit(bits[0]))) * cos(two_pi * unit(bits[1]));
}

void kd_rng_permute(uint64_t seed, enum kd_rng_stream stream, uint64_t a, int64_t *perm,
                    int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        perm[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        /* high half of a 64 x 64 bit product: uniform in 0..i up to i / 2^64 */
        unsigned __int128 wide =
            (unsigned __int128)kd_rng_u64(seed, stream, a, (uint64_t)i) *
            ((uint64_t)i + 1);
        int64_t j = (int64_t)(wide >> 64), held = perm[i];

        perm[i] = perm[j];
        perm[j] = held;
    }
}
