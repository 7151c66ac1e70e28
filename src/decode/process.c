/* SPDX-License-Identifier: Apache-2.0 */
/* Logits processors: the chain that edits the scores of one row before a token is
 * chosen, in the order of transformers' _get_logits_processor (4.57): repetition
 * penalty, no-repeat n-gram, bad words, minimum length, forced first and forced last
 * token.
 *
 * Greedy search and sampling run it on raw logits, beam search on log-probabilities.
 * Every processor touches a few entries only, except the forced ones, which happen once
 * in a sequence; so the chain works on the host and is skipped for the steps in which
 * nothing applies. */
#include "decode_impl.h"

#include <math.h>

bool kd_is_eos(const struct kd_generation *g, int32_t id)
{
    for (int i = 0; i < g->n_eos; i++)
        if (g->eos_ids[i] == id)
            return true;
    return false;
}

static bool forced_first(const struct kd_generation *g, int64_t cur_len)
{
    return g->forced_bos_id >= 0 && cur_len == 1;
}

static bool forced_last(const struct kd_generation *g, int64_t cur_len)
{
    return g->forced_eos_id >= 0 && cur_len == g->max_length - 1;
}

bool kd_process_active(const struct kd_generation *g, int64_t cur_len)
{
    int64_t n = g->no_repeat_ngram_size;

    return g->repetition_penalty != 1.0 || (n > 0 && cur_len + 1 >= n) ||
           g->n_suppress > 0 || (g->n_eos > 0 && cur_len < g->min_length) ||
           forced_first(g, cur_len) || forced_last(g, cur_len);
}

/* Every id that the sequence holds is made less likely, once: values are read before
 * any is written. */
static void penalise_repetition(float penalty, const int32_t *ids, int64_t len,
                                float *scores, float *scratch)
{
    for (int64_t i = 0; i < len; i++)
        scratch[i] = scores[ids[i]];
    for (int64_t i = 0; i < len; i++)
        scores[ids[i]] =
            scratch[i] < 0.0f ? scratch[i] * penalty : scratch[i] / penalty;
}

/* Ban every id that followed an earlier occurrence of the last n - 1 ids; the start
 * token counts, and n = 1 bans all that was seen. */
static void ban_repeated_ngrams(int64_t n, const int32_t *ids, int64_t len,
                                float *scores)
{
    const int32_t *tail = ids + len - (n - 1);

    if (len + 1 < n)
        return;
    for (int64_t i = 0; i + n <= len; i++) {
        bool same = true;

        for (int64_t j = 0; same && j < n - 1; j++)
            same = ids[i + j] == tail[j];
        if (same)
            scores[ids[i + n - 1]] = -INFINITY;
    }
}

static void force(int32_t id, float *scores, int64_t vocab)
{
    for (int64_t v = 0; v < vocab; v++)
        scores[v] = -INFINITY;
    scores[id] = 0.0f;
}

void kd_process_row(const struct kd_generation *g, const int32_t *ids, int64_t cur_len,
                    float *scores, int64_t vocab, float *scratch)
{
    if (forced_last(g, cur_len)) {
        force(g->forced_eos_id, scores, vocab);
        return;
    }
    if (forced_first(g, cur_len)) {
        force(g->forced_bos_id, scores, vocab);
        return;
    }
    if (g->repetition_penalty != 1.0)
        penalise_repetition((float)g->repetition_penalty, ids, cur_len, scores,
                            scratch);
    if (g->no_repeat_ngram_size > 0)
        ban_repeated_ngrams(g->no_repeat_ngram_size, ids, cur_len, scores);
    for (int i = 0; i < g->n_suppress; i++)
        scores[g->suppress[i]] = -INFINITY;
    if (cur_len < g->min_length)
        for (int i = 0; i < g->n_eos; i++)
            scores[g->eos_ids[i]] = -INFINITY;
}
