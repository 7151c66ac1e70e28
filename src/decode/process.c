/* SPDX-License-Identifier: Apache-2.0 */
/* Logits processors: the chain that edits scores before a token is chosen, with the
 * results of transformers' _get_logits_processor (4.57): encoder repetition penalty,
 * repetition penalty, no-repeat n-gram, n-grams of the source, bad words, minimum
 * length, forced first and forced last token, exponential decay, suppressed tokens.
 *
 * Greedy search and sampling run it on raw logits, beam search on log-probabilities.
 * What changes depends on ids alone, never on scores, so the host lists it before the
 * model's step and the backend applies it to scores where they lie, in up to three
 * passes:
 *
 *  1. penalties for ids of the source;
 *  2. bans, and penalties for ids of the sequence;
 *  3. eos after exponential decay, where a ban stays one.
 *
 * A pass names an entry once: bans overwrite what penalties made, so an entry has its
 * ban only, and an id that a sequence holds twice is penalised once.  A forced token
 * overwrites all. */
#include "decode_impl.h"
#include "kdhpc/base/mem.h"

#include <math.h>
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

/* Rows take entries for ids that they hold or that their source holds, all rows for
 * those of the settings: eos twice, banned and decayed. */
int64_t kd_process_most(const struct kd_generation *g, int64_t rows, int64_t max_src)
{
    int64_t of_row = g->bad_words.n;

    if (g->repetition_penalty != 1.0 || g->no_repeat_ngram_size > 0)
        of_row += g->max_length;
    if (g->encoder_repetition_penalty != 1.0)
        of_row += max_src;
    if (g->encoder_no_repeat_ngram_size > 0)
        of_row += max_src;
    return g->n_suppress + g->n_begin_suppress + 2 * g->n_eos + rows * of_row;
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
    p->list[p->n++] = (struct kd_score_edit){(int32_t)row, token};
}

/* Begin a pass: nothing is named. */
static struct kd_score_edits *new_pass(struct kd_process *p)
{
    struct kd_score_edits *e = &p->pass[p->n_passes];

    p->all = p->stamp = ++p->last_stamp;
    *e = (struct kd_score_edits){.n = p->n, .forced = -1};
    return e;
}

/* End the pass E: E->n was where its entries begin. */
static void end_pass(struct kd_process *p, struct kd_score_edits *e, int64_t n_bans)
{
    e->n = p->n - e->n;
    e->n_bans = n_bans;
    p->n_passes += e->n > 0;
    p->penalised = p->penalised || e->n > n_bans;
}

static void source_of(const struct kd_process *p, int64_t source, const int32_t **ids,
                      int64_t *n)
{
    *ids = p->src.ids + p->src.offsets[source];
    *n = p->src.offsets[source + 1] - p->src.offsets[source];
}

static void penalise_source(struct kd_process *p, const struct kd_generation *g,
                            const struct kd_process_rows *rows)
{
    struct kd_score_edits *e = new_pass(p);
    const int32_t *ids;
    int64_t n;

    e->penalty = (float)(1.0 / g->encoder_repetition_penalty);
    for (int64_t r = 0; r < rows->n; r++) {
        p->stamp = ++p->last_stamp;
        source_of(p, rows->source[r], &ids, &n);
        for (int64_t i = 0; i < n; i++)
            name(p, r, ids[i]);
    }
    end_pass(p, e, 0);
}

/* Ids that no row may produce at this length.  Where the first id is forced, the one
 * after it counts as the first. */
static void ban_everywhere(struct kd_process *p, const struct kd_generation *g,
                           int64_t cur_len)
{
    int64_t first = g->forced_bos_id >= 0 ? 2 : 1;

    for (int i = 0; i < g->n_suppress; i++)
        name(p, -1, g->suppress[i]);
    for (int i = 0; cur_len == first && i < g->n_begin_suppress; i++)
        name(p, -1, g->begin_suppress[i]);
    for (int i = 0; cur_len < g->min_length && i < g->n_eos; i++)
        name(p, -1, g->eos_ids[i]);
}

/* Every id of TEXT that follows an occurrence of the last N - 1 of the LEN ids; the
 * start token counts, and N = 1 bans all of TEXT. */
static void ban_ngrams(struct kd_process *p, int64_t n, int64_t row, const int32_t *ids,
                       int64_t len, const int32_t *text, int64_t text_len)
{
    const int32_t *tail = ids + len - (n - 1);

    if (len + 1 < n)
        return;
    for (int64_t i = 0; i + n <= text_len; i++)
        if (memcmp(text + i, tail, (size_t)(n - 1) * sizeof *ids) == 0)
            name(p, row, text[i + n - 1]);
}

/* The last id of each word whose others end the row.  A word that is longer than
 * the row never does, as in transformers. */
static void ban_words(struct kd_process *p, const struct kd_words *w, int64_t row,
                      const int32_t *ids, int64_t len)
{
    for (int64_t i = 0, at = 0; i < w->n; at = w->ends[i++]) {
        int64_t n = w->ends[i] - at;

        if (n <= len && memcmp(w->ids + at, ids + len - (n - 1),
                               (size_t)(n - 1) * sizeof *ids) == 0)
            name(p, row, w->ids[w->ends[i] - 1]);
    }
}

static void ban_in_row(struct kd_process *p, const struct kd_generation *g, int64_t row,
                       int32_t source, const int32_t *ids, int64_t len)
{
    const int32_t *text;
    int64_t n;

    p->stamp = ++p->last_stamp;
    if (g->no_repeat_ngram_size > 0)
        ban_ngrams(p, g->no_repeat_ngram_size, row, ids, len, ids, len);
    if (g->encoder_no_repeat_ngram_size > 0) {
        source_of(p, source, &text, &n);
        ban_ngrams(p, g->encoder_no_repeat_ngram_size, row, ids, len, text, n);
    }
    ban_words(p, &g->bad_words, row, ids, len);
}

/* The ids of each row that are not banned there; the bans of rows lie in order from
 * list[AT] up to list[END]. */
static void penalise_repetition(struct kd_process *p, int64_t at, int64_t end,
                                const struct kd_process_rows *rows)
{
    const int32_t *ids = rows->ids;

    for (int64_t r = 0; r < rows->n; r++, ids += rows->stride) {
        p->stamp = ++p->last_stamp;
        for (; at < end && p->list[at].row == r; at++)
            p->seen[p->list[at].token] = p->stamp;
        for (int64_t i = 0; i < rows->len; i++)
            name(p, r, ids[i]);
    }
}

static void ban_and_penalise(struct kd_process *p, const struct kd_generation *g,
                             const struct kd_process_rows *rows)
{
    struct kd_score_edits *e = new_pass(p);
    int64_t n_all, end;

    e->penalty = (float)g->repetition_penalty;
    ban_everywhere(p, g, rows->len);
    n_all = p->n;
    for (int64_t r = 0; r < rows->n; r++)
        ban_in_row(p, g, r, rows->source[r], rows->ids + r * rows->stride, rows->len);
    end = p->n;
    if (g->repetition_penalty != 1.0)
        penalise_repetition(p, n_all, end, rows);
    end_pass(p, e, end - e->n);
}

static void decay(struct kd_process *p, const struct kd_generation *g, int64_t steps)
{
    struct kd_score_edits *e = new_pass(p);

    e->kind = KD_EDIT_RAISE;
    e->penalty = (float)(pow(g->decay_factor, (double)steps) - 1.0);
    for (int i = 0; i < g->n_eos; i++)
        name(p, -1, g->eos_ids[i]);
    end_pass(p, e, 0);
}

void kd_process_list(struct kd_process *p, const struct kd_generation *g,
                     const struct kd_process_rows *rows, struct kd_score_edit *list)
{
    int64_t past = rows->len - (g->decay_start + 1);

    p->list = list;
    p->n = 0;
    p->n_passes = 0;
    p->penalised = false;
    p->forced = forced_id(g, rows->len);
    if (p->forced >= 0) {
        p->pass[p->n_passes++] = (struct kd_score_edits){.forced = p->forced};
        return;
    }
    if (g->encoder_repetition_penalty != 1.0)
        penalise_source(p, g, rows);
    ban_and_penalise(p, g, rows);
    if (g->decay_factor != 1.0 && past > 0)
        decay(p, g, past);
}
