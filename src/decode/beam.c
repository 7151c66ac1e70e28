/* SPDX-License-Identifier: Apache-2.0 */
/* Beam search with the semantics of transformers 4.50 and later (the vectorised form
 * read at 4.57), in float32 as there.
 *
 * A step takes the K = max(2, 1 + eos ids) * n best of the n * V continuations of a
 * sentence.  A continuation hits when it ends in eos or reaches max_length.  The n best
 * after taking 1e9 from those that hit run on; those that hit at rank < n compete, by
 * score / length^penalty, for the n finished places, older ones first on ties.
 *
 * transformers runs every sentence until the whole batch may stop; here a sentence
 * leaves as soon as nothing can change what it will return:
 *  - can_improve, once false, stays false, and from then on 1e9 is taken from all its
 *    candidates, so none gets past a finished place;
 *  - with early_stopping true the same 1e9 is taken once all places are finished;
 *  - when all K candidates hit (max_length) no continuation exists.
 * So the result of a sentence is that of a batch of one, whatever runs beside it.
 *
 * transformers before 4.50 (a list of hypotheses per sentence, scores in double, "done"
 * judged by the best candidate including eos, and at max_length all n running beams
 * added) can return other tokens; that form is not offered. */
#include "decode_impl.h"
#include "kdhpc/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float OUT_OF_REACH = -1.0e9f;

/* A finished place of a sentence. */
struct place {
    float score; /* normalised; OUT_OF_REACH while empty */
    bool finished;
    int32_t len;    /* ids without the start token */
    int32_t buffer; /* row of beam.ids */
};

struct candidate {
    float score, running; /* running: less 1e9 if it hit */
    int32_t beam, token;
    bool hit;
};

struct beam {
    int64_t k;                /* candidates of a sentence */
    int64_t top_k;            /* of each row */
    const float *top;         /* [rows, top_k] this step's, in the search's memory */
    const int32_t *cols;      /* [rows, top_k] */
    float *running;           /* [sources, n] */
    struct place *places;     /* [sources, n], best first */
    int32_t *ids;             /* [sources * n, max_length] */
    struct candidate *chosen; /* [k] */
    int64_t *head;            /* [n] next of each beam's list; then the running order */
};

static int64_t candidates(const struct kd_generation *g)
{
    int64_t per_beam = g->n_eos > 1 ? 1 + g->n_eos : 2;

    return per_beam * g->num_beams;
}

static int64_t beam_top_k(const struct kd_search *s)
{
    int64_t k = candidates(s->g);

    return k < s->vocab ? k : s->vocab;
}

static size_t beam_down(const struct kd_search *s)
{
    return (size_t)beam_top_k(s) * (sizeof(float) + sizeof(int32_t));
}

static int beam_open(struct kd_search *s)
{
    int64_t n = s->per_source, all = s->n_sources * n;
    struct beam *b = NULL;

    KD_TRY(kd_calloc(1, sizeof *b, &b));
    s->state = b;
    b->k = candidates(s->g);
    b->top_k = beam_top_k(s);
    KD_TRY(kd_calloc(all, sizeof *b->running, &b->running));
    KD_TRY(kd_calloc(all, sizeof *b->places, &b->places));
    KD_TRY(kd_calloc(all * s->g->max_length, sizeof *b->ids, &b->ids));
    KD_TRY(kd_calloc(b->k, sizeof *b->chosen, &b->chosen));
    KD_TRY(kd_calloc(n, sizeof *b->head, &b->head));
    for (int64_t i = 0; i < all; i++) {
        b->running[i] = i % n == 0 ? 0.0f : OUT_OF_REACH;
        b->places[i].score = OUT_OF_REACH;
        b->places[i].buffer = (int32_t)i;
    }
    return KD_OK;
}

/* The K best continuations of the sentence whose sequences start at Q, best first: a
 * merge of the per-row lists.  Ties go to the lowest beam, then to the list's order
 * (log-probability, then lowest id). */
static void choose(struct kd_search *s, struct beam *b, int64_t q, const float *running)
{
    int64_t n = s->per_source;

    memset(b->head, 0, (size_t)n * sizeof *b->head);
    for (int64_t c = 0; c < b->k; c++) {
        struct candidate best = {.beam = -1};

        for (int64_t j = 0; j < n; j++) {
            int64_t at = kd_search_row(s, q + j) * b->top_k + b->head[j];
            float score;

            if (b->head[j] == b->top_k)
                continue;
            score = b->top[at] + running[j];
            if (best.beam < 0 || score > best.score) {
                best.score = score;
                best.beam = (int32_t)j;
                best.token = b->cols[at];
            }
        }
        b->head[best.beam]++;
        best.hit = kd_is_eos(s->g, best.token) || s->cur_len + 1 >= s->g->max_length;
        best.running = best.score + (best.hit ? OUT_OF_REACH : 0.0f);
        b->chosen[c] = best;
    }
}

static float length_divisor(const struct kd_generation *g, int64_t len)
{
    return (float)pow((double)len, g->length_penalty);
}

/* Put a candidate that hit into the places of its sentence if it earns one. */
static void finish(struct kd_search *s, struct beam *b, struct place *places, int64_t q,
                   const struct candidate *c)
{
    int64_t n = s->per_source, at = n, ld = s->g->max_length;
    float score = c->score / length_divisor(s->g, s->cur_len);
    struct place new = {.score = score, .finished = true, .len = (int32_t)s->cur_len};
    int32_t *ids;

    while (at > 0 && places[at - 1].score < score)
        at--;
    if (at == n)
        return;
    new.buffer = places[n - 1].buffer;
    memmove(places + at + 1, places + at, (size_t)(n - 1 - at) * sizeof *places);
    places[at] = new;
    ids = b->ids + new.buffer *ld;
    memcpy(ids, s->now.ids + (q + c->beam) * ld + 1,
           (size_t)(s->cur_len - 1) * sizeof *ids);
    ids[s->cur_len - 1] = c->token;
}

/* Whether the sentence goes on after this step: LEN is the number of generated ids, ALL
 * whether every place is finished, BEST the best running score. */
static bool goes_on(const struct kd_generation *g, const struct place *places,
                    int64_t n, float best, int64_t len)
{
    bool all = true;

    if (g->early_stopping == KD_STOP_NEVER && g->length_penalty > 0.0)
        len = g->max_length - 1;
    for (int64_t i = 0; i < n; i++)
        all = all && places[i].finished;
    if (all && g->early_stopping == KD_STOP_TRUE)
        return false;
    return best / length_divisor(g, len) > (all ? places[n - 1].score : OUT_OF_REACH);
}

/* Candidates of the n best running scores into ORDER, ties in candidate order.  Returns
 * the number of candidates that can be continued. */
static int64_t order_running(const struct beam *b, int64_t n, int64_t *order)
{
    int64_t n_open = 0, filled = 0;

    for (int64_t c = 0; c < b->k; c++) {
        int64_t at = filled;

        n_open += !b->chosen[c].hit;
        while (at > 0 && b->chosen[order[at - 1]].running < b->chosen[c].running)
            at--;
        if (at == n)
            continue;
        if (filled < n)
            filled++;
        memmove(order + at + 1, order + at, (size_t)(filled - 1 - at) * sizeof *order);
        order[at] = c;
    }
    return n_open;
}

static void advance_sentence(struct kd_search *s, struct beam *b, int64_t q)
{
    int64_t n = s->per_source, first_slot = s->now.slot[q], n_open;
    float *running = b->running + first_slot;
    struct place *places = b->places + first_slot;

    choose(s, b, q, running);
    for (int64_t c = 0; c < n; c++)
        if (b->chosen[c].hit)
            finish(s, b, places, q, &b->chosen[c]);
    n_open = order_running(b, n, b->head);
    for (int64_t j = 0; j < n; j++)
        running[j] = b->chosen[b->head[j]].running;
    if (n_open == 0 || !goes_on(s->g, places, n, running[0], s->cur_len))
        return;
    for (int64_t j = 0; j < n; j++) {
        const struct candidate *c = &b->chosen[b->head[j]];

        kd_search_push(s, q + c->beam, first_slot + j, c->token);
    }
}

/* Processors see log-probabilities.  A ban does the same to logits once the sum of
 * their exponentials is known, so that log-probabilities need not be written; a penalty
 * does not. */
static int beam_scores(struct kd_search *s, struct kd_tensor scores, const float **sums)
{
    const struct kd_backend_ops *ops = s->be->ops;
    int64_t rows = scores.shape[0];

    *sums = NULL;
    if (s->process.forced >= 0)
        return kd_search_edit(s, scores);
    if (s->g->renormalize) {
        KD_TRY(ops->log_softmax(s->be, scores.data, rows, s->vocab));
        KD_TRY(kd_search_edit(s, scores));
        *sums = s->sums;
        return ops->log_sum(s->be, scores.data, rows, s->vocab, s->sums);
    }
    if (s->process.penalised) {
        KD_TRY(ops->log_softmax(s->be, scores.data, rows, s->vocab));
    } else {
        KD_TRY(ops->log_sum(s->be, scores.data, rows, s->vocab, s->sums));
        *sums = s->sums;
    }
    return kd_search_edit(s, scores);
}

/* The largest of each row, with their tokens. */
static int beam_top(struct kd_search *s, struct beam *b, struct kd_tensor scores)
{
    int64_t rows = scores.shape[0];
    size_t bytes = (size_t)(rows * b->top_k) * sizeof(float);
    const float *sums;

    KD_TRY(beam_scores(s, scores, &sums));
    KD_TRY(s->be->ops->topk(s->be, scores.data, sums, rows, s->vocab, b->top_k,
                            (void *)s->down_dev, (void *)(s->down_dev + bytes)));
    KD_TRY(kd_search_down(s, 2 * bytes));
    b->top = (const void *)s->down;
    b->cols = (const void *)(s->down + bytes);
    return KD_OK;
}

static int beam_advance(struct kd_search *s, struct kd_tensor scores)
{
    KD_TRY(beam_top(s, s->state, scores));
    for (int64_t q = 0; q < s->now.n; q += s->per_source)
        advance_sentence(s, s->state, q);
    return KD_OK;
}

static void beam_result(const struct kd_search *s, int64_t source, int64_t k,
                        const int32_t **ids, int64_t *n, double *score)
{
    const struct beam *b = s->state;
    const struct place *p = &b->places[source * s->per_source + k];

    *ids = b->ids + p->buffer * s->g->max_length;
    *n = p->len;
    *score = p->score;
}

static void beam_close(struct kd_search *s)
{
    struct beam *b = s->state;

    if (!b)
        return;
    free(b->running);
    free(b->places);
    free(b->ids);
    free(b->chosen);
    free(b->head);
    free(b);
}

const struct kd_policy kd_policy_beam = {
    .down_bytes = beam_down,
    .open = beam_open,
    .advance = beam_advance,
    .result = beam_result,
    .close = beam_close,
};
