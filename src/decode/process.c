/* SPDX-License-Identifier: Apache-2.0 */
/* Logits processors: the chain that edits scores before a token is chosen, with the
 * results of transformers' _get_logits_processor (4.57): repetition penalty, no-repeat
 * n-gram, bad words, minimum length, forced first and forced last token.
 *
 * Greedy search and sampling run it on raw logits, beam search on log-probabilities.
 * What changes depends on ids alone, never on scores, so the host lists it before the
 * model's step and the backend applies it to scores where they lie.  The list names an
 * entry once: bans overwrite what penalties made, so an entry has its ban only, and an
 * id that a sequence holds twice is penalised once.  A forced token overwrites all. */
#include "decode_impl.h"
#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

bool kd_is_eos(const struct kd_generation *g, int32_t id)
{
    for (int i = 0; i < g->n_eos; i++)
        if (g->eos_ids[i] == id)
            return true;
    return false;
}

static int32_t forced_id(const struct kd_generation *g, int64_t cur_len)
{
    if (g->forced_eos_id >= 0 && cur_len == g->max_length - 1)
        return g->forced_eos_id;
    return cur_len == 1 ? g->forced_bos_id : -1;
}

/* Rows take entries for ids that they hold, all rows for those of the settings. */
int64_t kd_process_most(const struct kd_generation *g, int64_t rows)
{
    bool by_row = g->repetition_penalty != 1.0 || g->no_repeat_ngram_size > 0;

    return g->n_suppress + g->n_eos + (by_row ? rows * g->max_length : 0);
}

int kd_process_open(int64_t vocab, struct kd_process *p)
{
    return kd_calloc(vocab, sizeof *p->seen, &p->seen);
}

void kd_process_close(struct kd_process *p)
{
    free(p->seen);
}

/* Name (ROW, TOKEN), unless it is named already. */
static void name(struct kd_process *p, int64_t row, int32_t token)
{
    if (p->seen[token] == p->all || p->seen[token] == p->stamp)
        return;
    p->seen[token] = p->stamp;
    p->list[p->edits.n++] = (struct kd_score_edit){(int32_t)row, token};
}

static void ban_everywhere(struct kd_process *p, const struct kd_generation *g,
                           int64_t cur_len)
{
    p->all = p->stamp = ++p->last_stamp;
    for (int i = 0; i < g->n_suppress; i++)
        name(p, -1, g->suppress[i]);
    for (int i = 0; cur_len < g->min_length && i < g->n_eos; i++)
        name(p, -1, g->eos_ids[i]);
}

/* Every id that followed an earlier occurrence of the last N - 1 ids; the start token
 * counts, and N = 1 bans all that was seen. */
static void ban_repeated_ngrams(struct kd_process *p, int64_t n, int64_t row,
                                const int32_t *ids, int64_t len)
{
    const int32_t *tail = ids + len - (n - 1);

    if (len + 1 < n)
        return;
    for (int64_t i = 0; i + n <= len; i++)
        if (memcmp(ids + i, tail, (size_t)(n - 1) * sizeof *ids) == 0)
            name(p, row, ids[i + n - 1]);
}

/* The ids of each row that are not banned there; the bans of rows lie in order from
 * list[AT] on. */
static void penalise_repetition(struct kd_process *p, int64_t at, int64_t rows,
                                int64_t stride, const int32_t *ids, int64_t len)
{
    for (int64_t r = 0; r < rows; r++, ids += stride) {
        p->stamp = ++p->last_stamp;
        for (; at < p->edits.n_bans && p->list[at].row == r; at++)
            p->seen[p->list[at].token] = p->stamp;
        for (int64_t i = 0; i < len; i++)
            name(p, r, ids[i]);
    }
}

void kd_process_list(struct kd_process *p, const struct kd_generation *g, int64_t rows,
                     int64_t stride, const int32_t *ids, int64_t cur_len,
                     struct kd_score_edit *list)
{
    int64_t n_all;

    p->list = list;
    p->edits = (struct kd_score_edits){.penalty = (float)g->repetition_penalty,
                                       .forced = forced_id(g, cur_len)};
    if (p->edits.forced >= 0)
        return;
    ban_everywhere(p, g, cur_len);
    n_all = p->edits.n;
    for (int64_t r = 0; g->no_repeat_ngram_size > 0 && r < rows; r++) {
        p->stamp = ++p->last_stamp;
        ban_repeated_ngrams(p, g->no_repeat_ngram_size, r, ids + r * stride, cur_len);
    }
    p->edits.n_bans = p->edits.n;
    if (g->repetition_penalty != 1.0)
        penalise_repetition(p, n_all, rows, stride, ids, cur_len);
}
