/* SPDX-License-Identifier: Apache-2.0 */
/* Stochastic rounding of AdamW's moments to bfloat16.
 *
 * A step moves the second moment by at most a thousandth of itself where the gradient
 * grows smaller, and bfloat16 has 8 bits: rounded to nearest, the moment would never
 * shrink again, nor grow before the squared gradient is some four times as large.  So
 * a value is rounded up with the probability of its distance from the bfloat16 below:
 * then the stored moment is right on average, and its noise is a few per cent.
 *
 * Whether it goes up is a function of (seed, step, index in the slab): the same on the
 * CPU and on devices, for any number of ranks that share the moments, and after a
 * resume.  CPU and CUDA backends call this. */
#ifndef KDHPC_TENSOR_ROUNDING_H
#define KDHPC_TENSOR_ROUNDING_H

#include "kdhpc/base/rng.h"

/* The last word of the counter; dropout sites stay below it. */
#define KD_ROUNDING_SITE 0xffffffffu

/** RANDOM[i] rounds slab value 4 FOUR + i of STEP: its low half the first moment, its
 * high half the second.  Local. */
KD_DEVICE static inline void kd_rounding_random(uint64_t seed, uint32_t step,
                                                uint64_t four, uint32_t random[4])
{
    const uint32_t key[2] = {(uint32_t)seed ^ (uint32_t)(seed >> 32), step};
    const uint32_t ctr[4] = {(uint32_t)four, (uint32_t)(four >> 32), 0,
                             KD_ROUNDING_SITE};

    kd_philox(key, ctr, random);
}

/** The float32 BITS, rounded to a bfloat16 by 16 random bits (higher ones are not
 * read); the lower half is zero.  A NaN stays one.  Local. */
KD_DEVICE static inline uint32_t kd_round_stochastic(uint32_t bits, uint32_t random)
{
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (bits | 0x00400000u) & 0xffff0000u;
    return (bits + (random & 0xffffu)) & 0xffff0000u;
}

#endif
