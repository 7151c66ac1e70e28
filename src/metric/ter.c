/* SPDX-License-Identifier: Apache-2.0 */
/* Translation edit rate (Snover et al., 2006) with the search of sacreBLEU, which
 * follows Tercom: greedy shifts of phrases of at most ten words, each the one that
 * lowers the edit distance most, then the edit distance.
 *
 * The distance is taken in a band around the diagonal of the two lengths, which is part
 * of the definition: it can miss the optimum.  A row of the matrix depends on the words
 * up to it and on the lengths, which shifts do not change; so a candidate is taken from
 * the first word that it moves on, over the rows of the text as it stands.  Rows are
 * stored as bands; beyond a band a cell is infinite. */
#include "metric_impl.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    SHIFT_SIZE_MAX = 10,
    SHIFT_DISTANCE_MAX = 50,
    CANDIDATES_MAX = 1000,
    BEAM = 25,
    FAR = 1 << 29 /* infinite: more than any distance, far from overflow */
};

enum edit { KEEP, REPLACE, INSERT, DELETE }; /* what makes the output the reference */

/* Rows 0..n of an edit distance matrix, each [width] cells from column FIRST on. */
struct rows {
    int32_t *cost;
    uint8_t *edit; /* enum edit */
    int64_t cost_cap, edit_cap;
};

struct kd_ter_work {
    struct rows now, trial; /* of the text as it stands; of a candidate */
    int64_t *first, *end;   /* [n + 1] columns of the band by row */
    int64_t first_cap, end_cap, width;
    struct kd_sequence words, shifted;
    int64_t *align;   /* [reference] the word that stands there or before */
    uint8_t *ref_bad; /* [reference] not matched */
    uint8_t *hyp_bad; /* [output] not matched */
    int64_t align_cap, ref_bad_cap, hyp_bad_cap;
};

void kd_ter_work_free(struct kd_ter_work *w)
{
    if (!w)
        return;
    free(w->now.cost);
    free(w->now.edit);
    free(w->trial.cost);
    free(w->trial.edit);
    free(w->first);
    free(w->end);
    free(w->words.v);
    free(w->shifted.v);
    free(w->align);
    free(w->ref_bad);
    free(w->hyp_bad);
    free(w);
}

/* ---- edit distance ---- */

/* The band for N words of output and M of reference. */
static int plan_band(struct kd_ter_work *w, int64_t n, int64_t m)
{
    double ratio = n > 0 ? (double)m / (double)n : 1;
    int64_t beam = BEAM < ratio / 2 ? (int64_t)ceil(ratio / 2 + BEAM) : BEAM;

    KD_TRY(kd_grow(&w->first, &w->first_cap, n + 1, sizeof *w->first));
    KD_TRY(kd_grow(&w->end, &w->end_cap, n + 1, sizeof *w->end));
    w->first[0] = 0;
    w->end[0] = m + 1;
    w->width = m + 1;
    for (int64_t i = 1; i <= n; i++) {
        int64_t diagonal = (int64_t)floor((double)i * ratio);

        w->first[i] = diagonal > beam ? diagonal - beam : 0;
        w->end[i] = i < n && diagonal + beam < m + 1 ? diagonal + beam : m + 1;
    }
    if (2 * beam + 2 < w->width)
        w->width = 2 * beam + 2; /* row 0 is not stored */
    return KD_OK;
}

static int rows_reserve(struct rows *r, int64_t n, int64_t width)
{
    KD_TRY(kd_grow(&r->cost, &r->cost_cap, (n + 1) * width, sizeof *r->cost));
    return kd_grow(&r->edit, &r->edit_cap, (n + 1) * width, sizeof *r->edit);
}

/* Cost in row I, column J. */
static inline int32_t cost_at(const struct kd_ter_work *w, const int32_t *row,
                              int64_t i, int64_t j)
{
    if (i == 0)
        return (int32_t)j;
    return j >= w->first[i] && j < w->end[i] ? row[j - w->first[i]] : FAR;
}

/* Row I for the word WORD, from row I - 1 at BEFORE. */
static void fill_row(const struct kd_ter_work *w, int64_t i, int32_t word,
                     const struct kd_sequence *ref, const int32_t *before,
                     int32_t *cost, uint8_t *edit)
{
    int64_t first = w->first[i];
    int32_t left = FAR,
            diagonal = first > 0 ? cost_at(w, before, i - 1, first - 1) : FAR;

    for (int64_t j = first; j < w->end[i]; j++) {
        int32_t above = cost_at(w, before, i - 1, j), best = FAR;
        enum edit e = DELETE;

        if (j > 0) {
            bool same = ref->v[j - 1] == word;

            best = diagonal + !same;
            e = same ? KEEP : REPLACE;
        }
        if (above + 1 < best) {
            best = above + 1;
            e = DELETE;
        }
        if (left + 1 < best) {
            best = left + 1;
            e = INSERT;
        }
        if (best > FAR)
            best = FAR;
        cost[j - first] = left = best;
        edit[j - first] = (uint8_t)e;
        diagonal = above;
    }
}

/* Edit distance of WORDS and REF into OUT from row FROM + 1 on, the rows up to FROM
 * being those of BASE. */
static int32_t distance(const struct kd_ter_work *w, const struct kd_sequence *words,
                        const struct kd_sequence *ref, const struct rows *base,
                        int64_t from, struct rows *out)
{
    const int32_t *before = base->cost + from * w->width;

    for (int64_t i = from + 1; i <= words->n; i++) {
        int32_t *row = out->cost + i * w->width;

        fill_row(w, i, words->v[i - 1], ref, before, row, out->edit + i * w->width);
        before = row;
    }
    return cost_at(w, before, words->n, ref->n);
}

/* Follow the edits of W->now back from the end: which words are matched, and where
 * each word of the reference falls in the output. */
static int trace(struct kd_ter_work *w, int64_t n, int64_t m)
{
    int64_t i = n, j = m;

    KD_TRY(kd_grow(&w->align, &w->align_cap, m + 1, sizeof *w->align));
    KD_TRY(kd_grow(&w->ref_bad, &w->ref_bad_cap, m + 1, 1));
    KD_TRY(kd_grow(&w->hyp_bad, &w->hyp_bad_cap, n + 1, 1));
    while (i > 0 || j > 0) {
        enum edit e = INSERT;

        if (i > 0)
            e = w->now.edit[i * w->width + j - w->first[i]];
        if (e != INSERT)
            w->hyp_bad[--i] = e != KEEP;
        if (e != DELETE) {
            w->ref_bad[--j] = e != KEEP;
            w->align[j] = e == INSERT ? i - 1 : i;
        }
    }
    return KD_OK;
}

/* ---- shifts ---- */

/* A shift of LENGTH words from START to before TARGET, and what it gains. */
struct shift {
    int32_t gain;
    int64_t length, start, target;
};

static bool is_better(const struct shift *a, const struct shift *b)
{
    if (a->gain != b->gain)
        return a->gain > b->gain;
    if (a->length != b->length)
        return a->length > b->length;
    if (a->start != b->start)
        return a->start < b->start;
    return a->target < b->target;
}

static int64_t copy(int32_t *to, const struct kd_sequence *s, int64_t from, int64_t end)
{
    int64_t n = (end < s->n ? end : s->n) - from;

    if (n <= 0)
        return 0;
    memcpy(to, s->v + from, (size_t)n * sizeof *to);
    return n;
}

/* OUT [words->n] is WORDS after the shift.  Within the phrase and its own length behind
 * it a target counts from the phrase's start. */
static void perform(const struct kd_sequence *words, const struct shift *s,
                    struct kd_sequence *out)
{
    int64_t end = s->start + s->length, n = 0;
    bool before = s->target < s->start;
    int64_t stop = s->target > end ? s->target : s->target + s->length;

    n += copy(out->v, words, 0, before ? s->target : s->start);
    if (!before)
        n += copy(out->v + n, words, end, stop);
    n += copy(out->v + n, words, s->start, end);
    if (before)
        n += copy(out->v + n, words, s->target, s->start);
    n += copy(out->v + n, words, before ? end : stop, words->n);
    out->n = n;
}

static int any(const uint8_t *v, int64_t from, int64_t n)
{
    for (int64_t i = from; i < from + n; i++)
        if (v[i])
            return 1;
    return 0;
}

/* Try the shifts of output words [START, START + LENGTH), which the reference has at
 * AT; keep the best. */
static void try_phrase(struct kd_ter_work *w, const struct kd_sequence *ref,
                       int32_t now, int64_t start, int64_t at, int64_t length,
                       struct shift *best, int64_t *candidates)
{
    int64_t last = -1;

    if (!any(w->hyp_bad, start, length) || !any(w->ref_bad, at, length))
        return;
    if (w->align[at] >= start && w->align[at] < start + length)
        return;
    for (int64_t k = at - 1; k < at + length && k < ref->n; k++) {
        struct shift s = {0, length, start, k < 0 ? 0 : w->align[k] + 1};

        if (s.target == last)
            continue;
        last = s.target;
        perform(&w->words, &s, &w->shifted);
        s.gain = now - distance(w, &w->shifted, ref, &w->now,
                                s.target < start ? s.target : start, &w->trial);
        ++*candidates;
        if (best->length == 0 || is_better(&s, best))
            *best = s;
    }
}

/* Try all phrases that both texts have; *BEST has length 0 if there is no shift. */
static void find_shift(struct kd_ter_work *w, const struct kd_sequence *ref,
                       int32_t now, struct shift *best, int64_t *candidates)
{
    const struct kd_sequence *words = &w->words;

    for (int64_t start = 0; start < words->n; start++) {
        int64_t at = start > SHIFT_DISTANCE_MAX ? start - SHIFT_DISTANCE_MAX : 0;

        for (; at < ref->n && at <= start + SHIFT_DISTANCE_MAX; at++) {
            for (int64_t n = 1;
                 n <= SHIFT_SIZE_MAX && start + n <= words->n && at + n <= ref->n &&
                 words->v[start + n - 1] == ref->v[at + n - 1];
                 n++) {
                try_phrase(w, ref, now, start, at, n, best, candidates);
                if (*candidates >= CANDIDATES_MAX)
                    return;
            }
        }
    }
}

static int set_words(struct kd_sequence *to, const struct kd_sequence *from)
{
    KD_TRY(kd_grow(&to->v, &to->cap, from->n + 1, sizeof *to->v));
    to->n = from->n;
    if (from->n > 0)
        memcpy(to->v, from->v, (size_t)from->n * sizeof *to->v);
    return KD_OK;
}

/* Shifts and edits that make HYP the reference REF. */
static int count_edits(struct kd_ter_work *w, const struct kd_sequence *hyp,
                       const struct kd_sequence *ref, int64_t *edits)
{
    int64_t n = hyp->n, m = ref->n, candidates = 0;
    int32_t now;

    *edits = n;
    if (m == 0)
        return KD_OK;
    KD_TRY(set_words(&w->words, hyp));
    KD_TRY(set_words(&w->shifted, hyp));
    KD_TRY(plan_band(w, n, m));
    KD_TRY(rows_reserve(&w->now, n, w->width));
    KD_TRY(rows_reserve(&w->trial, n, w->width));
    *edits = 0;
    for (;;) {
        struct shift best = {0};

        now = distance(w, &w->words, ref, &w->now, 0, &w->now);
        if (now == 0)
            break;
        KD_TRY(trace(w, n, m));
        find_shift(w, ref, now, &best, &candidates);
        if (candidates >= CANDIDATES_MAX || best.gain <= 0)
            break;
        perform(&w->words, &best, &w->shifted);
        KD_TRY(set_words(&w->words, &w->shifted));
        ++*edits;
    }
    *edits += now;
    return KD_OK;
}

/* ---- the metric ---- */

static int tokens_of(struct kd_mt_scorer *s, const struct kd_ter_options *o,
                     bool reference, struct kd_text text, struct kd_sequence *out)
{
    KD_TRY(kd_points_set(&s->points, text, !o->case_sensitive));
    KD_TRY(kd_segment_ter(o, reference, &s->points, &s->spare));
    return kd_words_split(s->words, &s->points, out);
}

int kd_ter_add(struct kd_mt_scorer *s, const struct kd_ter_options *o,
               struct kd_text output, const struct kd_text *refs, int64_t n_refs,
               struct kd_ter *t)
{
    int64_t best = 0, length = 0;

    if (!s->ter)
        KD_TRY(kd_calloc(1, sizeof *s->ter, &s->ter));
    KD_TRY(kd_mt_scorer_refs(s, 1));
    kd_words_clear(s->words);
    KD_TRY(tokens_of(s, o, false, output, &s->hyp));
    for (int64_t r = 0; r < n_refs; r++) {
        int64_t edits;

        KD_TRY(tokens_of(s, o, true, refs[r], &s->refs[0]));
        KD_TRY(count_edits(s->ter, &s->hyp, &s->refs[0], &edits));
        if (r == 0 || edits < best)
            best = edits;
        length += s->refs[0].n;
    }
    t->edits += (double)best;
    t->reference_tokens += (double)length;
    return KD_OK;
}

double kd_ter_score(const struct kd_ter *t, int64_t n_refs)
{
    if (t->reference_tokens > 0)
        return 100 * (t->edits / (t->reference_tokens / (double)n_refs));
    return t->edits > 0 ? 100 : 0;
}

int kd_ter_signature(const struct kd_ter_options *o, int64_t n_refs, struct kd_str *out)
{
    return kd_str_printf(out,
                         "nrefs:%lld|case:%s|tok:tercom|norm:%s|punct:%s|asian:%s"
                         "|version:%s",
                         (long long)n_refs, o->case_sensitive ? "mixed" : "lc",
                         o->normalized ? "yes" : "no", o->no_punct ? "no" : "yes",
                         o->asian_support ? "yes" : "no", KD_SACREBLEU_VERSION);
}
