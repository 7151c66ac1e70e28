/* SPDX-License-Identifier: Apache-2.0 */
/* Generation with every setting at its default, for tests that set a few. */
#ifndef KDHPC_TESTS_PLAIN_GENERATION_H
#define KDHPC_TESTS_PLAIN_GENERATION_H

#include "kdhpc/decode/decode.h"

static inline struct kd_generation plain_generation(int64_t max_length)
{
    return (struct kd_generation){
        .num_beams = 1,
        .num_return_sequences = 1,
        .max_length = max_length,
        .max_new_tokens = -1,
        .min_new_tokens = -1,
        .length_penalty = 1,
        .num_beam_groups = 1,
        .repetition_penalty = 1,
        .encoder_repetition_penalty = 1,
        .decay_factor = 1,
        .typical_p = 1,
        .temperature = 1,
        .top_p = 1,
        .start_id = 2,
        .pad_id = 1,
        .forced_bos_id = -1,
        .forced_eos_id = -1,
        .eos_ids = {2},
        .n_eos = 1,
        .seed = 5,
    };
}

#endif
