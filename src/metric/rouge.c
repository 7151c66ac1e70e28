/* SPDX-License-Identifier: Apache-2.0 */
/* ROUGE-1, -2, -L and -Lsum of one pair of texts (Lin, 2004), with the conventions of
 * the Python package rouge_score: lower case, words of a-z and 0-9, Porter stems for
 * words of more than three letters.
 *
 * Texts become ids through a table from word to stem that lives as long as the scorer,
 * so a word is stemmed once.  Everything after that works on 64 target positions at a
 * time: a machine word holds, for each distinct token, where it stands in the block,
 * and n-gram matches and the longest common subsequence (Hyyro's bit-vector form) are
 * a few operations per predicted token and block.  Memory is reused; the word table is
 * emptied when it has grown large.  Callers: mode/evaluation.c, one scorer a rank. */
#include "kdhpc/base/mem.h"
#include "kdhpc/metric/metric.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { TABLE_START = 1 << 14, WORDS_MAX = 1 << 20, POOL_MAX = 1 << 26, BLOCK = 64 };

/* A word seen: its bytes in the pool, the id of its stem. */
struct word {
    uint64_t hash;
    int64_t at;
    int32_t len, id; /* len 0: free slot */
};

/* Open addressing; a stem and a word of the same letters are different entries. */
struct word_table {
    struct word *slots;
    int64_t n_slots, n_used;
};

/* One text: stems as ids, then as indices of distinct target tokens; lines. */
struct tokens {
    int32_t *v;
    int64_t n, cap;
    int64_t *line_ends; /* token counts at the ends of the lines that are not empty */
    int64_t n_lines, cap_lines;
};

/* What is kept for each distinct token of the target. */
struct distinct {
    uint64_t here,
        before; /* positions in the block: of the token; of what it follows */
    int64_t n_target, n_pred;
    int32_t id;
};

struct kd_rouge_scorer {
    struct word_table words, stems;
    char *pool; /* bytes of words and stems */
    int64_t pool_used, pool_cap;
    int32_t n_ids;
    int32_t *local; /* [n_ids] index among the target's distinct tokens + 1, or 0 */
    int64_t local_cap;
    char *lower; /* the word being read */
    int64_t lower_cap;
    struct tokens target, pred;
    struct distinct *distinct;
    int64_t n_distinct, distinct_cap;
    uint8_t *carry, *taken; /* [pred.n] carry into the next block; bigram j matched */
    int64_t carry_cap, taken_cap;
    uint64_t *columns; /* [blocks][tokens of a line of pred], see block_lcs */
    int64_t columns_cap;
    uint64_t *lcs_union; /* [blocks] */
    int64_t union_cap;
};

/* ---- words ---- */

static int table_reset(struct word_table *t, int64_t n_slots)
{
    struct word *slots;

    KD_TRY(kd_calloc(n_slots, sizeof *slots, &slots));
    free(t->slots);
    *t = (struct word_table){slots, n_slots, 0};
    return KD_OK;
}

/* The slot of TEXT, or the free one where it belongs. */
static struct word *table_find(const struct kd_rouge_scorer *s,
                               const struct word_table *t, const char *text,
                               int32_t len, uint64_t hash)
{
    uint64_t mask = (uint64_t)t->n_slots - 1;

    for (uint64_t i = hash & mask;; i = (i + 1) & mask) {
        struct word *w = &t->slots[i];

        if (w->len == 0 || (w->hash == hash && w->len == len &&
                            memcmp(s->pool + w->at, text, (size_t)len) == 0))
            return w;
    }
}

static int table_double(struct word_table *t)
{
    struct word_table bigger = {0};
    uint64_t mask;

    KD_TRY(table_reset(&bigger, 2 * t->n_slots));
    mask = (uint64_t)bigger.n_slots - 1;
    for (int64_t k = 0; k < t->n_slots; k++) {
        uint64_t i = t->slots[k].hash & mask;

        if (t->slots[k].len == 0)
            continue;
        while (bigger.slots[i].len)
            i = (i + 1) & mask;
        bigger.slots[i] = t->slots[k];
    }
    bigger.n_used = t->n_used;
    free(t->slots);
    *t = bigger;
    return KD_OK;
}

/* Enter TEXT, which is not in T, with ID. */
static int table_add(struct kd_rouge_scorer *s, struct word_table *t, const char *text,
                     int32_t len, uint64_t hash, int32_t id)
{
    if (2 * t->n_used >= t->n_slots)
        KD_TRY(table_double(t));
    KD_TRY(kd_grow(&s->pool, &s->pool_cap, s->pool_used + len, 1));
    memcpy(s->pool + s->pool_used, text, (size_t)len);
    *table_find(s, t, text, len, hash) = (struct word){hash, s->pool_used, len, id};
    s->pool_used += len;
    t->n_used++;
    return KD_OK;
}

static inline uint64_t hash_step(uint64_t h, char c)
{
    return (h ^ (unsigned char)c) * 0x9E3779B97F4A7C15u;
}

static inline uint64_t hash_end(uint64_t h)
{
    return h ^ h >> 29;
}

static uint64_t hash_of(const char *text, int64_t len)
{
    uint64_t h = 0;

    for (int64_t i = 0; i < len; i++)
        h = hash_step(h, text[i]);
    return hash_end(h);
}

/* Id of a word met for the first time: that of its stem, which may be new too. */
static int learn_word(struct kd_rouge_scorer *s, int32_t len, uint64_t hash,
                      int32_t *id)
{
    char *w = s->lower;
    struct word *stem;
    uint64_t stem_hash;
    int32_t n;

    /* The word's letters are still needed after the stemmer has changed them. */
    KD_TRY(kd_grow(&s->lower, &s->lower_cap, 2 * (int64_t)len, 1));
    w = s->lower + len;
    memcpy(w, s->lower, (size_t)len);
    n = len > 3 ? (int32_t)kd_porter_stem(w, len) : len;
    stem_hash = hash_of(w, n);
    stem = table_find(s, &s->stems, w, n, stem_hash);
    if (stem->len) {
        *id = stem->id;
    } else {
        *id = s->n_ids;
        KD_TRY(
            kd_grow(&s->local, &s->local_cap, (int64_t)s->n_ids + 1, sizeof *s->local));
        s->local[s->n_ids++] = 0;
        KD_TRY(table_add(s, &s->stems, w, n, stem_hash, *id));
    }
    return table_add(s, &s->words, s->lower, len, hash, *id);
}

/* ---- texts ---- */

/* Lower-case letter or digit for a byte, or 0. */
static inline char letter_of(unsigned char c)
{
    unsigned lower = c | 0x20u;

    if (lower - 'a' < 26u)
        return (char)lower;
    return c - (unsigned)'0' < 10u ? (char)c : 0;
}

/* Letter that starts at TEXT and the bytes it takes: ASCII, or one of the two others
 * whose lower case is an ASCII letter: U+0130 (then a mark, which ends the word), and
 * the Kelvin sign U+212A.  0: not a letter. */
static inline char next_letter(const char *text, int64_t len, int *n_bytes, bool *ends)
{
    *n_bytes = 1;
    if ((text[0] & 0x80) == 0)
        return letter_of((unsigned char)text[0]);
    if (len >= 2 && memcmp(text, "\xC4\xB0", 2) == 0) {
        *n_bytes = 2;
        *ends = true;
        return 'i';
    }
    if (len >= 3 && memcmp(text, "\xE2\x84\xAA", 3) == 0) {
        *n_bytes = 3;
        return 'k';
    }
    return 0;
}

/* End the word of LEN letters in S->lower and add its id. */
static int push_word(struct kd_rouge_scorer *s, struct tokens *t, int32_t len,
                     uint64_t hash)
{
    struct word *w = table_find(s, &s->words, s->lower, len, hash);
    int32_t id = w->id;

    if (w->len == 0)
        KD_TRY(learn_word(s, len, hash, &id));
    t->v[t->n++] = id;
    return KD_OK;
}

static int push_line(struct tokens *t)
{
    KD_TRY(kd_grow(&t->line_ends, &t->cap_lines, t->n_lines + 1, sizeof *t->line_ends));
    t->line_ends[t->n_lines++] = t->n;
    return KD_OK;
}

static int tokenize(struct kd_rouge_scorer *s, const char *text, int64_t len,
                    struct tokens *t)
{
    int32_t n = 0;
    uint64_t h = 0;
    int bytes;

    t->n = t->n_lines = 0;
    if (len > INT32_MAX / 2)
        return KD_FAIL(KD_EINPUT, "a text of %lld bytes is too long to score",
                       (long long)len);
    KD_TRY(kd_grow(&t->v, &t->cap, len / 2 + 1, sizeof *t->v));
    KD_TRY(kd_grow(&s->lower, &s->lower_cap, len + 1, 1));
    for (int64_t i = 0; i < len; i += bytes) {
        bool ends = false;
        char c = next_letter(text + i, len - i, &bytes, &ends);

        if (c) {
            s->lower[n++] = c;
            h = hash_step(h, c);
        }
        if (n && (!c || ends)) {
            KD_TRY(push_word(s, t, n, hash_end(h)));
            n = 0;
            h = 0;
        }
        if (text[i] == '\n' && i > 0 && text[i - 1] != '\n')
            KD_TRY(push_line(t));
    }
    if (n)
        KD_TRY(push_word(s, t, n, hash_end(h)));
    if (len > 0 && text[len - 1] != '\n')
        KD_TRY(push_line(t));
    return KD_OK;
}

/* Replace ids by indices among the target's distinct tokens (-1 in the prediction:
 * not in the target) and count. */
static int index_tokens(struct kd_rouge_scorer *s)
{
    KD_TRY(kd_grow(&s->distinct, &s->distinct_cap, s->target.n, sizeof *s->distinct));
    s->n_distinct = 0;
    for (int64_t i = 0; i < s->target.n; i++) {
        int32_t id = s->target.v[i], *local = &s->local[id];

        if (*local == 0) {
            s->distinct[s->n_distinct++] = (struct distinct){.id = id};
            *local = (int32_t)s->n_distinct;
        }
        s->target.v[i] = *local - 1;
        s->distinct[*local - 1].n_target++;
    }
    for (int64_t i = 0; i < s->pred.n; i++) {
        int32_t k = s->local[s->pred.v[i]] - 1;

        s->pred.v[i] = k;
        if (k >= 0)
            s->distinct[k].n_pred++;
    }
    for (int64_t k = 0; k < s->n_distinct; k++)
        s->local[s->distinct[k].id] = 0;
    return KD_OK;
}

/* ---- counts ---- */

static struct kd_prf prf(int64_t hits, int64_t n_target, int64_t n_pred)
{
    struct kd_prf r = {0};

    if (n_pred > 0)
        r.precision = (double)hits / (double)n_pred;
    if (n_target > 0)
        r.recall = (double)hits / (double)n_target;
    if (r.precision + r.recall > 0)
        r.f1 = 2 * r.precision * r.recall / (r.precision + r.recall);
    return r;
}

static int64_t unigram_hits(const struct kd_rouge_scorer *s)
{
    int64_t hits = 0;

    for (int64_t k = 0; k < s->n_distinct; k++) {
        const struct distinct *d = &s->distinct[k];

        hits += d->n_target < d->n_pred ? d->n_target : d->n_pred;
    }
    return hits;
}

/* ---- 64 target positions at a time ---- */

/* A window of the target, at most BLOCK long. */
struct block {
    const int32_t *v;
    int64_t n;
    bool more; /* v[n] exists */
};

static struct block block_at(const int32_t *v, int64_t n, int64_t first)
{
    int64_t left = n - first;

    return (struct block){v + first, left < BLOCK ? left : BLOCK, left > BLOCK};
}

static void block_mark(struct kd_rouge_scorer *s, const struct block *b)
{
    for (int64_t i = 0; i < b->n; i++) {
        s->distinct[b->v[i]].here |= (uint64_t)1 << i;
        if (i + 1 < b->n || b->more)
            s->distinct[b->v[i + 1]].before |= (uint64_t)1 << i;
    }
}

static void block_unmark(struct kd_rouge_scorer *s, const struct block *b)
{
    for (int64_t i = 0; i < b->n + b->more; i++)
        s->distinct[b->v[i]].here = s->distinct[b->v[i]].before = 0;
}

/* Take the block through the tokens P[n] of the other text; the length that it adds to
 * the subsequence.  With T[i][j] the length for prefixes i and j, bit i - 1 of column j
 * is 0 iff T[i][j] = T[i - 1][j] + 1.  S->carry [n] goes from block to block. */
static int64_t block_lcs(struct kd_rouge_scorer *s, const struct block *b,
                         const int32_t *p, int64_t n, uint64_t *columns)
{
    uint64_t v = ~(uint64_t)0;
    uint64_t used = b->n < BLOCK ? ((uint64_t)1 << b->n) - 1 : v;

    for (int64_t j = 0; j < n; j++) {
        uint64_t match = p[j] >= 0 ? s->distinct[p[j]].here : 0, sum;
        bool over;

        over = __builtin_add_overflow(v, v & match, &sum);
        over |= __builtin_add_overflow(sum, (uint64_t)s->carry[j], &sum);
        v = sum | (v & ~match);
        s->carry[j] = over;
        if (columns)
            columns[j] = v;
    }
    return __builtin_popcountll(~v & used);
}

/* Bigrams of P[n] that start in the block, each position and each bigram of P used
 * once: equal bigrams are alike, so taking any free position gives the clipped count.
 */
static int64_t block_bigrams(struct kd_rouge_scorer *s, const int32_t *p, int64_t n)
{
    uint64_t used = 0;
    int64_t hits = 0;

    for (int64_t j = 0; j + 1 < n; j++) {
        uint64_t at;

        if (p[j] < 0 || p[j + 1] < 0 || s->taken[j])
            continue;
        at = s->distinct[p[j]].here & s->distinct[p[j + 1]].before & ~used;
        used |= at & (0 - at);
        s->taken[j] = at != 0;
        hits += at != 0;
    }
    return hits;
}

/* LCS length and clipped bigram matches of the two texts. */
static void match_texts(struct kd_rouge_scorer *s, int64_t *lcs, int64_t *bigrams)
{
    *lcs = *bigrams = 0;
    memset(s->carry, 0, (size_t)s->pred.n);
    memset(s->taken, 0, (size_t)s->pred.n);
    for (int64_t at = 0; at < s->target.n; at += BLOCK) {
        struct block b = block_at(s->target.v, s->target.n, at);

        block_mark(s, &b);
        *lcs += block_lcs(s, &b, s->pred.v, s->pred.n, NULL);
        *bigrams += block_bigrams(s, s->pred.v, s->pred.n);
        block_unmark(s, &b);
    }
}

/* ---- lines ---- */

/* Add to S->lcs_union the positions of one LCS of T[m] and P[n], read back from the end
 * as rouge_score does: a match goes to the diagonal; else to the left iff T[i][j - 1] >
 * T[i - 1][j], which for a mismatch means T[i][j] > T[i - 1][j], a bit of column j. */
static int line_lcs(struct kd_rouge_scorer *s, const int32_t *t, int64_t m,
                    const int32_t *p, int64_t n)
{
    int64_t n_blocks = (m + BLOCK - 1) / BLOCK, i = m, j = n;

    KD_TRY(kd_grow(&s->columns, &s->columns_cap, n_blocks * n, sizeof *s->columns));
    memset(s->carry, 0, (size_t)n);
    for (int64_t k = 0; k < n_blocks; k++) {
        struct block b = block_at(t, m, k * BLOCK);

        block_mark(s, &b);
        block_lcs(s, &b, p, n, s->columns + k * n);
        block_unmark(s, &b);
    }
    while (i > 0 && j > 0) {
        int64_t block = (i - 1) / BLOCK;
        uint64_t bit = (uint64_t)1 << (i - 1) % BLOCK;

        if (t[i - 1] == p[j - 1]) {
            s->lcs_union[block] |= bit;
            i--;
            j--;
        } else if (s->columns[block * n + j - 1] & bit) {
            i--;
        } else {
            j--;
        }
    }
    return KD_OK;
}

static int64_t line_start(const struct tokens *t, int64_t line)
{
    return line ? t->line_ends[line - 1] : 0;
}

/* Hits of the summary-level LCS: for each target line the union over the lines of the
 * prediction, each token counted while the prediction has some left.  Consumes
 * n_pred. */
static int union_hits(struct kd_rouge_scorer *s, int64_t *hits)
{
    *hits = 0;
    for (int64_t r = 0; r < s->target.n_lines; r++) {
        int64_t at = line_start(&s->target, r), m = s->target.line_ends[r] - at;
        int64_t n_blocks = (m + BLOCK - 1) / BLOCK;

        KD_TRY(kd_grow(&s->lcs_union, &s->union_cap, n_blocks, sizeof *s->lcs_union));
        for (int64_t k = 0; k < n_blocks; k++)
            s->lcs_union[k] = 0;
        for (int64_t c = 0; c < s->pred.n_lines; c++) {
            int64_t from = line_start(&s->pred, c);

            KD_TRY(line_lcs(s, s->target.v + at, m, s->pred.v + from,
                            s->pred.line_ends[c] - from));
        }
        for (int64_t i = 0; i < m; i++) {
            struct distinct *d = &s->distinct[s->target.v[at + i]];

            if (s->lcs_union[i / BLOCK] >> i % BLOCK & 1 && d->n_pred > 0) {
                d->n_pred--;
                ++*hits;
            }
        }
    }
    return KD_OK;
}

/* ---- the scorer ---- */

/* Start with empty tables, at first and when they have grown large. */
static int forget_words(struct kd_rouge_scorer *s)
{
    KD_TRY(table_reset(&s->words, TABLE_START));
    KD_TRY(table_reset(&s->stems, TABLE_START));
    s->pool_used = 0;
    s->n_ids = 0;
    return KD_OK;
}

int kd_rouge_scorer_new(struct kd_rouge_scorer **out)
{
    struct kd_rouge_scorer *s;
    int rc;

    *out = NULL;
    KD_TRY(kd_calloc(1, sizeof *s, &s));
    rc = forget_words(s);
    if (rc)
        kd_rouge_scorer_free(s);
    else
        *out = s;
    return rc;
}

void kd_rouge_scorer_free(struct kd_rouge_scorer *s)
{
    if (!s)
        return;
    free(s->words.slots);
    free(s->stems.slots);
    free(s->pool);
    free(s->local);
    free(s->lower);
    free(s->target.v);
    free(s->target.line_ends);
    free(s->pred.v);
    free(s->pred.line_ends);
    free(s->distinct);
    free(s->carry);
    free(s->taken);
    free(s->columns);
    free(s->lcs_union);
    free(s);
}

int kd_rouge_score(struct kd_rouge_scorer *s, const char *target, int64_t target_len,
                   const char *prediction, int64_t prediction_len, struct kd_rouge *out)
{
    int64_t m, n, lcs, bigrams, hits;

    if (s->words.n_used > WORDS_MAX || s->pool_used > POOL_MAX)
        KD_TRY(forget_words(s));
    KD_TRY(tokenize(s, target, target_len, &s->target));
    KD_TRY(tokenize(s, prediction, prediction_len, &s->pred));
    m = s->target.n;
    n = s->pred.n;
    KD_TRY(kd_grow(&s->carry, &s->carry_cap, n + 1, 1));
    KD_TRY(kd_grow(&s->taken, &s->taken_cap, n + 1, 1));
    KD_TRY(index_tokens(s));
    match_texts(s, &lcs, &bigrams);
    out->r1 = prf(unigram_hits(s), m, n);
    out->r2 = prf(bigrams, m - 1, n - 1);
    out->rl = prf(lcs, m, n);
    if (s->target.n_lines > 1 || s->pred.n_lines > 1)
        KD_TRY(union_hits(s, &hits));
    else
        hits = lcs; /* one line each: the union is that subsequence */
    out->rlsum = prf(hits, m, n);
    return KD_OK;
}
