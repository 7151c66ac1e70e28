/* SPDX-License-Identifier: Apache-2.0 */
/* Words as numbers, and clipped matches of n-grams.
 *
 * An n-gram is known by the number of its first n - 1 tokens and its last token, both
 * exact, so nothing rests on hashes being different.  Orders go up one by one over the
 * same positions; an n-gram of the output whose beginning no reference has is dropped
 * for good.  Tables are emptied by a stamp, so a short text costs little after a long
 * one.  Characters are their own numbers; words get theirs per example. */
#include "metric_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

static inline uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

int kd_sequence_push(struct kd_sequence *s, int32_t token)
{
    if (s->n == s->cap)
        KD_TRY(kd_grow(&s->v, &s->cap, s->n + 1, sizeof *s->v));
    s->v[s->n++] = token;
    return KD_OK;
}

/* ---- words ---- */

struct word {
    uint64_t hash;
    int64_t at; /* in the pool */
    int32_t n;
};

struct kd_words {
    struct kd_points pool;
    struct word *list; /* by number */
    int64_t n, cap;
    int32_t *slots; /* number + 1, or 0 */
    int64_t n_slots;
};

int kd_words_new(struct kd_words **out)
{
    KD_TRY(kd_calloc(1, sizeof **out, out));
    (*out)->n_slots = 256;
    return kd_calloc((*out)->n_slots, sizeof *(*out)->slots, &(*out)->slots);
}

void kd_words_free(struct kd_words *w)
{
    if (!w)
        return;
    free(w->pool.v);
    free(w->list);
    free(w->slots);
    free(w);
}

void kd_words_clear(struct kd_words *w)
{
    memset(w->slots, 0, (size_t)w->n_slots * sizeof *w->slots);
    w->pool.n = w->n = 0;
}

/* The slot of the word, or the free one where it belongs. */
static int32_t *find_word(const struct kd_words *w, const uint32_t *p, int64_t n,
                          uint64_t hash)
{
    uint64_t mask = (uint64_t)w->n_slots - 1;

    for (uint64_t i = hash & mask;; i = (i + 1) & mask) {
        const struct word *x;

        if (!w->slots[i])
            return &w->slots[i];
        x = &w->list[w->slots[i] - 1];
        if (x->hash == hash && x->n == n &&
            memcmp(w->pool.v + x->at, p, (size_t)n * sizeof *p) == 0)
            return &w->slots[i];
    }
}

static int grow_slots(struct kd_words *w)
{
    int32_t *slots;

    KD_TRY(kd_calloc(2 * w->n_slots, sizeof *slots, &slots));
    free(w->slots);
    w->slots = slots;
    w->n_slots *= 2;
    for (int64_t k = 0; k < w->n; k++) {
        const struct word *x = &w->list[k];

        *find_word(w, w->pool.v + x->at, x->n, x->hash) = (int32_t)k + 1;
    }
    return KD_OK;
}

int kd_words_id(struct kd_words *w, const uint32_t *p, int64_t n, int32_t *id)
{
    uint64_t hash = 1;
    int32_t *slot;

    for (int64_t i = 0; i < n; i++)
        hash = mix(hash, p[i]);
    slot = find_word(w, p, n, hash);
    if (!*slot) {
        if (2 * (w->n + 1) > w->n_slots) {
            KD_TRY(grow_slots(w));
            slot = find_word(w, p, n, hash);
        }
        KD_TRY(kd_grow(&w->list, &w->cap, w->n + 1, sizeof *w->list));
        KD_TRY(kd_grow(&w->pool.v, &w->pool.cap, w->pool.n + n, sizeof *w->pool.v));
        memcpy(w->pool.v + w->pool.n, p, (size_t)n * sizeof *p);
        w->list[w->n++] = (struct word){hash, w->pool.n, (int32_t)n};
        w->pool.n += n;
        *slot = (int32_t)w->n;
    }
    *id = *slot - 1;
    return KD_OK;
}

int kd_words_split(struct kd_words *w, const struct kd_points *p, struct kd_sequence *s)
{
    s->n = 0;
    for (int64_t i = 0, first = 0; i <= p->n; i++) {
        int32_t id;

        if (i < p->n && !kd_point_is_space(p->v[i]))
            continue;
        if (i > first) {
            KD_TRY(kd_words_id(w, p->v + first, i - first, &id));
            KD_TRY(kd_sequence_push(s, id));
        }
        first = i + 1;
    }
    return KD_OK;
}

/* ---- n-grams ---- */

struct gram {
    uint64_t key; /* number of the beginning, last token */
    int64_t stamp;
    int32_t id;
    int32_t ref, n_ref; /* the reference being counted, and its count */
    int32_t n_max, n_used;
};

struct kd_ngrams {
    struct gram *slots;
    int64_t n_slots, stamp;
    int32_t *begin; /* numbers of the n-grams at every position: references, output */
    int64_t begin_cap;
};

int kd_ngrams_new(struct kd_ngrams **out)
{
    return kd_calloc(1, sizeof **out, out);
}

void kd_ngrams_free(struct kd_ngrams *g)
{
    if (!g)
        return;
    free(g->slots);
    free(g->begin);
    free(g);
}

static struct gram *find_gram(struct kd_ngrams *g, uint64_t key)
{
    uint64_t mask = (uint64_t)g->n_slots - 1;

    for (uint64_t i = mix(key, 0) & mask;; i = (i + 1) & mask) {
        struct gram *x = &g->slots[i];

        if (x->stamp != g->stamp || x->key == key)
            return x;
    }
}

static uint64_t key_of(int32_t begin, int32_t token)
{
    return (uint64_t)(uint32_t)begin << 32 | (uint32_t)token;
}

/* Enter the n-grams of ORDER tokens of reference R, whose beginnings are in BEGIN. */
static void enter(struct kd_ngrams *g, const struct kd_sequence *ref, int32_t r,
                  int order, int32_t *begin, int32_t *n_ids)
{
    for (int64_t i = 0; i + order <= ref->n; i++) {
        uint64_t key = key_of(begin[i], ref->v[i + order - 1]);
        struct gram *x = find_gram(g, key);

        if (x->stamp != g->stamp)
            *x = (struct gram){.key = key, .stamp = g->stamp, .id = (*n_ids)++};
        if (x->ref != r) {
            x->ref = r;
            x->n_ref = 0;
        }
        if (++x->n_ref > x->n_max)
            x->n_max = x->n_ref;
        begin[i] = x->id;
    }
}

static int64_t match(struct kd_ngrams *g, const struct kd_sequence *hyp, int order,
                     int32_t *begin)
{
    int64_t matches = 0;

    for (int64_t i = 0; i + order <= hyp->n; i++) {
        struct gram *x;

        if (begin[i] < 0)
            continue;
        x = find_gram(g, key_of(begin[i], hyp->v[i + order - 1]));
        begin[i] = x->stamp == g->stamp ? x->id : -1;
        if (begin[i] >= 0 && x->n_used < x->n_max) {
            x->n_used++;
            matches++;
        }
    }
    return matches;
}

static int reserve(struct kd_ngrams *g, int64_t n_ref_tokens, int64_t n_tokens)
{
    int64_t n_slots = g->n_slots ? g->n_slots : 1024;
    struct gram *slots;

    KD_TRY(kd_grow(&g->begin, &g->begin_cap, n_tokens + 1, sizeof *g->begin));
    while (n_slots < 2 * n_ref_tokens)
        n_slots *= 2;
    if (n_slots == g->n_slots)
        return KD_OK;
    KD_TRY(kd_calloc(n_slots, sizeof *slots, &slots));
    free(g->slots);
    g->slots = slots;
    g->n_slots = n_slots;
    g->stamp = 0;
    return KD_OK;
}

int kd_ngrams_match(struct kd_ngrams *g, const struct kd_sequence *hyp,
                    const struct kd_sequence *refs, int64_t n_refs, int max_order,
                    int64_t *matches)
{
    int64_t n_ref_tokens = 0;

    for (int64_t r = 0; r < n_refs; r++)
        n_ref_tokens += refs[r].n;
    KD_TRY(reserve(g, n_ref_tokens, n_ref_tokens + hyp->n));
    memset(g->begin, 0, (size_t)(n_ref_tokens + hyp->n) * sizeof *g->begin);
    for (int order = 1; order <= max_order; order++) {
        int32_t *begin = g->begin;
        int32_t n_ids = 0;

        g->stamp++;
        for (int64_t r = 0; r < n_refs; r++) {
            enter(g, &refs[r], (int32_t)r, order, begin, &n_ids);
            begin += refs[r].n;
        }
        matches[order - 1] = match(g, hyp, order, begin);
    }
    return KD_OK;
}
