/* SPDX-License-Identifier: Apache-2.0 */
/* Diverse beam search: groups of beams, each a beam search of its own, that pay for
 * choosing what groups before them chose in the same step.
 *
 * transformers 4.57 has left this search to a repository of the model hub, but still
 * has its parts, BeamSearchScorer and HammingDiversityLogitsProcessor; the results are
 * those of the loop of its last own version (4.55) over them:
 *  - a group takes the (1 + eos ids), at least 2, times its beams best continuations.
 *    In their order, those that end in eos become hypotheses if their rank is below the
 *    number of beams, the others run on until all beams are found;
 *  - a hypothesis is worth sum / length^penalty in double, where length counts eos, and
 *    a full list drops its worst, the oldest on ties;
 *  - a group is done by the best continuation, ended or not, and then counts as
 *    choosing pads; a sentence is done with its last group;
 *  - what runs at max_length becomes a hypothesis too; the best of all groups'
 *    hypotheses are returned, each ended in the first eos id if there is room.
 *
 * The diversity penalty comes first in the chain of processors, before those that the
 * backend has applied when scores come down.  These are bans, which it does not
 * change, and products, through which it passes: so an entry is diminished by penalty
 * times count times the product of its penalties.  As it only lowers scores, and of as
 * many tokens as earlier beams chose, that many more candidates of each row suffice. */
#include "decode_impl.h"
#include "kdhpc/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float OUT_OF_REACH = -1.0e9f;

struct hypothesis {
    double score;
    int64_t age; /* order of adding, over all groups */
    int32_t len; /* ids without the start token */
    int32_t buffer;
};

struct group {
    int64_t n;    /* hypotheses, at .list of the group's first slot */
    double worst; /* of them */
    bool done;
};

struct candidate {
    float score;
    int32_t beam, token;
};

struct groups {
    int64_t size, k, top_k;  /* beams of a group, its candidates, those of a row */
    const float *top;        /* [rows, top_k] this step's, in the search's memory */
    const int32_t *cols;     /* [rows, top_k] */
    float *running;          /* [sources, n] */
    struct group *groups;    /* [sources, groups] */
    struct hypothesis *list; /* [sources, n], a group's size each */
    int32_t *ids;            /* [sources * n, max_length] */
    struct candidate *best;  /* [k] */
    int32_t *chosen;         /* [n] tokens of this step */
    int64_t age;
};

static int64_t group_candidates(const struct kd_generation *g)
{
    int64_t per_beam = g->n_eos > 1 ? 1 + g->n_eos : 2;

    return per_beam * (g->num_beams / g->num_beam_groups);
}

static int64_t row_candidates(const struct kd_search *s)
{
    int64_t size = s->g->num_beams / s->g->num_beam_groups,
            k = group_candidates(s->g) + s->g->num_beams - size;

    return k < s->vocab ? k : s->vocab;
}

static size_t groups_down(const struct kd_search *s)
{
    return (size_t)row_candidates(s) * (sizeof(float) + sizeof(int32_t));
}

static int groups_open(struct kd_search *s)
{
    int64_t n = s->per_source, all = s->n_sources * n;
    struct groups *b = NULL;

    KD_TRY(kd_calloc(1, sizeof *b, &b));
    s->state = b;
    b->size = n / s->g->num_beam_groups;
    b->k = group_candidates(s->g);
    b->top_k = row_candidates(s);
    KD_TRY(kd_calloc(all, sizeof *b->running, &b->running));
    KD_TRY(kd_calloc(all / b->size, sizeof *b->groups, &b->groups));
    KD_TRY(kd_calloc(all, sizeof *b->list, &b->list));
    KD_TRY(kd_calloc(all * s->g->max_length, sizeof *b->ids, &b->ids));
    KD_TRY(kd_calloc(b->k, sizeof *b->best, &b->best));
    KD_TRY(kd_calloc(n, sizeof *b->chosen, &b->chosen));
    for (int64_t i = 0; i < all; i++) {
        b->running[i] = i % b->size == 0 ? 0.0f : OUT_OF_REACH;
        b->list[i].buffer = (int32_t)i;
    }
    return KD_OK;
}

static bool holds(const int32_t *ids, int64_t n, int32_t token)
{
    for (int64_t i = 0; i < n; i++)
        if (ids[i] == token)
            return true;
    return false;
}

/* What penalties have made of 1 at (sequence Q, TOKEN): log-probabilities, which are
 * multiplied. */
static float factor(const struct kd_search *s, int64_t q, int32_t token)
{
    const struct kd_generation *g = s->g;
    const struct kd_source_ids *src = &s->process.src;
    int64_t source = s->now.slot[q] / s->per_source;
    float f = 1.0f;

    if (g->encoder_repetition_penalty != 1.0 &&
        holds(src->ids + src->offsets[source],
              src->offsets[source + 1] - src->offsets[source], token))
        f *= (float)(1.0 / g->encoder_repetition_penalty);
    if (g->repetition_penalty != 1.0 &&
        holds(s->now.ids + q * g->max_length, s->cur_len, token))
        f *= (float)g->repetition_penalty;
    return f;
}

/* Whether A goes before B: ties to the lowest beam, then the lowest token. */
static bool before(const struct candidate *a, const struct candidate *b)
{
    if (a->score != b->score)
        return a->score > b->score;
    return a->beam != b->beam ? a->beam < b->beam : a->token < b->token;
}

/* The best continuations of the group whose sequences start at Q, of which FIRST beams
 * of the sentence have chosen already. */
static void choose(const struct kd_search *s, struct groups *b, int64_t q,
                   int64_t first, const float *running)
{
    int64_t filled = 0;

    for (int64_t j = 0; j < b->size; j++) {
        int64_t row = kd_search_row(s, q + j) * b->top_k;

        for (int64_t i = 0; i < b->top_k; i++) {
            struct candidate c = {b->top[row + i], (int32_t)j, b->cols[row + i]};
            int64_t at, count = 0;
            float less = 0.0f;

            for (int64_t e = 0; e < first; e++)
                count += b->chosen[e] == c.token;
            if (count > 0 && s->process.forced < 0)
                less = (float)s->g->diversity_penalty * (float)count *
                       factor(s, q + j, c.token);
            c.score -= less;
            c.score += running[j];
            for (at = filled; at > 0 && before(&c, &b->best[at - 1]); at--)
                ;
            if (at == b->k)
                continue;
            filled += filled < b->k;
            memmove(b->best + at + 1, b->best + at,
                    (size_t)(filled - 1 - at) * sizeof *b->best);
            b->best[at] = c;
        }
    }
}

/* Take the LEN ids of FROM into GROUP's LIST, if they earn a place. */
static int32_t *add(const struct kd_search *s, struct groups *b, struct group *group,
                    struct hypothesis *list, const int32_t *from, float sum,
                    int64_t len)
{
    double divisor = pow((double)len, s->g->length_penalty);
    struct hypothesis new = {
        .score = (double)sum / divisor, .age = b->age++, .len = (int32_t)len};
    int64_t at = group->n;
    int32_t *ids;

    if (at == b->size && !(new.score > group->worst))
        return NULL;
    if (at == b->size)
        for (int64_t i = at = 0; i < b->size; i++)
            if (list[i].score < list[at].score ||
                (list[i].score == list[at].score && list[i].age < list[at].age))
                at = i;
    new.buffer = list[at].buffer;
    list[at] = new;
    group->n += at == group->n;
    group->worst = list[0].score;
    for (int64_t i = 1; i < group->n; i++)
        group->worst = fmin(group->worst, list[i].score);
    ids = b->ids + new.buffer * s->g->max_length;
    memcpy(ids, from, (size_t)len * sizeof *ids);
    return ids;
}

/* The same for sequence Q and the first eos id after it. */
static void add_ended(const struct kd_search *s, struct groups *b, struct group *group,
                      struct hypothesis *list, int64_t q, float sum)
{
    int64_t len = s->cur_len;
    int32_t *ids =
        add(s, b, group, list, s->now.ids + q * s->g->max_length + 1, sum, len);

    if (ids)
        ids[len - 1] = s->g->eos_ids[0];
}

static bool is_done(const struct kd_search *s, const struct groups *b,
                    const struct group *group)
{
    const struct kd_generation *g = s->g;
    int64_t len = s->cur_len;

    if (group->n < b->size)
        return false;
    if (g->early_stopping == KD_STOP_TRUE)
        return true;
    if (g->early_stopping == KD_STOP_NEVER && g->length_penalty > 0.0)
        len = g->max_length - 1;
    return group->worst >=
           (double)b->best[0].score / pow((double)len, g->length_penalty);
}

/* One step of the group whose sequences start at Q and whose first slot is SLOT. */
static void advance_group(struct kd_search *s, struct groups *b, int64_t q,
                          int64_t slot)
{
    struct group *group = &b->groups[slot / b->size];
    struct hypothesis *list = b->list + slot;
    int64_t first = slot % s->per_source, found = 0, next = s->next.n;
    int32_t *chosen = b->chosen + first;
    float *running = b->running + slot;

    choose(s, b, q, first, running);
    for (int64_t c = 0; c < b->k && found < b->size; c++) {
        const struct candidate *best = &b->best[c];

        if (!kd_is_eos(s->g, best->token)) {
            kd_search_push(s, q + best->beam, slot + found, best->token);
            running[found] = best->score;
            chosen[found++] = best->token;
        } else if (c < b->size) {
            add_ended(s, b, group, list, q + best->beam, best->score);
        }
    }
    group->done = is_done(s, b, group);
    if (!group->done && s->cur_len + 1 < s->g->max_length)
        return;
    for (int64_t j = 0; !group->done && j < b->size; j++) /* no room to run on */
        (void)add(s, b, group, list, s->next.ids + (next + j) * s->g->max_length + 1,
                  running[j], s->cur_len);
    s->next.n = next;
    group->done = true;
}

static int groups_top(struct kd_search *s, struct groups *b, struct kd_tensor scores)
{
    const struct kd_backend_ops *ops = s->be->ops;
    int64_t rows = scores.shape[0];
    size_t bytes = (size_t)(rows * b->top_k) * sizeof(float);

    KD_TRY(ops->log_softmax(s->be, scores.data, rows, s->vocab));
    KD_TRY(kd_search_edit(s, scores));
    KD_TRY(ops->topk(s->be, scores.data, NULL, rows, s->vocab, b->top_k,
                     (void *)s->down_dev, (void *)(s->down_dev + bytes)));
    KD_TRY(kd_search_down(s, 2 * bytes));
    b->top = (const void *)s->down;
    b->cols = (const void *)(s->down + bytes);
    return KD_OK;
}

static int groups_advance(struct kd_search *s, struct kd_tensor scores)
{
    struct groups *b = s->state;
    int64_t source = -1;

    KD_TRY(groups_top(s, b, scores));
    for (int64_t q = 0; q < s->now.n; q += b->size) {
        int64_t slot = s->now.slot[q];

        if (slot / s->per_source != source)
            for (int64_t j = 0; j < s->per_source; j++)
                b->chosen[j] = s->g->pad_id;
        source = slot / s->per_source;
        advance_group(s, b, q, slot);
    }
    return KD_OK;
}

static bool better(const struct hypothesis *a, const struct hypothesis *b)
{
    return a->score > b->score;
}

/* The hypothesis with K others before it: best first, on ties the last group's latest.
 */
static void groups_result(const struct kd_search *s, int64_t source, int64_t k,
                          const int32_t **ids, int64_t *n, double *score)
{
    const struct groups *b = s->state;
    const struct hypothesis *list = b->list + source * s->per_source;
    const struct group *groups = b->groups + source * s->g->num_beam_groups;

    *ids = b->ids;
    *n = 0;
    *score = 0.0;
    for (int64_t i = 0; i < s->per_source; i++) {
        int64_t before_it = 0;

        if (i % b->size >= groups[i / b->size].n)
            continue;
        for (int64_t j = 0; j < s->per_source; j++) {
            int64_t gi = i / b->size, gj = j / b->size;
            bool later = gj != gi ? gj > gi : list[j].age > list[i].age;

            before_it += j % b->size < groups[gj].n &&
                         (better(&list[j], &list[i]) ||
                          (list[j].score == list[i].score && later));
        }
        if (before_it == k) {
            *ids = b->ids + list[i].buffer * s->g->max_length;
            *n = list[i].len;
            *score = list[i].score;
        }
    }
}

static void groups_close(struct kd_search *s)
{
    struct groups *b = s->state;

    if (!b)
        return;
    free(b->running);
    free(b->groups);
    free(b->list);
    free(b->ids);
    free(b->best);
    free(b->chosen);
    free(b);
}

const struct kd_policy kd_policy_groups = {
    .down_bytes = groups_down,
    .open = groups_open,
    .advance = groups_advance,
    .result = groups_result,
    .close = groups_close,
};
