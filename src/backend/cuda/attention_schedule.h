/* SPDX-License-Identifier: Apache-2.0 */
/* Which block of a grid works on which rows of which sequence: plain C, for kernels,
 * launchers and the test that every row is covered once.
 *
 * Sequences are cut into tiles of TILE rows.  Nobody makes a list of them: sequence s
 * owns the slots [offsets[s] / TILE + s, offsets[s + 1] / TILE + s + 1), at least as
 * many as it has tiles, so that the grid follows from n_rows and n, and a block finds
 * its sequence by a search in the offsets.  At most one slot in a sequence is left
 * over; its block returns at once.  Where every sequence fits in one tile, slot s is
 * sequence s. */
#ifndef KDHPC_CUDA_ATTENTION_SCHEDULE_H
#define KDHPC_CUDA_ATTENTION_SCHEDULE_H

#ifdef __cplusplus
extern "C" {
#endif

#include "kdhpc/base/rng.h"
#include "kdhpc/tensor/tensor.h"

#ifdef __cplusplus
}
#endif

/* First slot of sequence S, which begins at row OFFSET; rising with S. */
KD_DEVICE static inline int64_t attention_slot(int64_t offset, int64_t s, int tile)
{
    return offset / tile + s;
}

static inline bool attention_one_tile(const struct kd_seqs *s, int tile)
{
    return s->max_len <= tile;
}

/* Slots of all sequences. */
static inline int64_t attention_slots(const struct kd_seqs *s, int tile)
{
    return attention_one_tile(s, tile) ? s->n : attention_slot(s->n_rows, s->n, tile);
}

/* Whether tiles of WIDE rows are better than of half as many: they read the other
 * side's rows half as often, but short sequences leave them empty, and a few tiles for
 * N_HEADS heads leave multiprocessors idle, of which there are N_SM. */
static inline bool attention_wide_pays(const struct kd_seqs *s, int wide,
                                       int64_t n_heads, int n_sm)
{
    return s->n_rows >= s->n * (wide * 3 / 4) &&
           s->n_rows / wide * n_heads >= 2 * (int64_t)n_sm;
}

/* Keys [0, result) are all that query rows [first, first + n) may see. */
KD_DEVICE static inline int attention_keys_end(bool causal, int first, int n,
                                               int n_keys)
{
    return causal && first + n < n_keys ? first + n : n_keys;
}

/* The first tile of STEP query rows of which one may see a key from FIRST_KEY on, as
 * its first row. */
KD_DEVICE static inline int attention_queries_begin(bool causal, int first_key,
                                                    int step)
{
    return causal ? first_key / step * step : 0;
}

#endif
