/* SPDX-License-Identifier: Apache-2.0 */
/* chrF and chrF++ (Popovic, 2015 and 2017) with the options and the values of
 * sacreBLEU: an F score of the mean precision and the mean recall of n-grams of
 * characters, and of words for chrF++.
 *
 * Of several references the one with the best F for the example is counted.  Sums over
 * examples are counts, exact in any order. */
#include "metric_impl.h"

#include "kdhpc/base/str.h"

#include <string.h>

static bool is_ascii_punctuation(uint32_t c)
{
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
           (c >= '{' && c <= '~');
}

/* The characters of P, without white space unless SPACES. */
static int characters_of(const struct kd_points *p, bool spaces,
                         struct kd_sequence *out)
{
    out->n = 0;
    for (int64_t i = 0; i < p->n; i++)
        if (spaces || !kd_point_is_space(p->v[i]))
            KD_TRY(kd_sequence_push(out, (int32_t)p->v[i]));
    return KD_OK;
}

/* One word, or two where punctuation ends it or, failing that, begins it. */
static int push_word(struct kd_words *w, const uint32_t *p, int64_t n,
                     struct kd_sequence *out)
{
    int64_t cut = 0;
    int32_t id;

    if (n > 1 && is_ascii_punctuation(p[n - 1]))
        cut = n - 1;
    else if (n > 1 && is_ascii_punctuation(p[0]))
        cut = 1;
    if (cut) {
        KD_TRY(kd_words_id(w, p, cut, &id));
        KD_TRY(kd_sequence_push(out, id));
    }
    KD_TRY(kd_words_id(w, p + cut, n - cut, &id));
    return kd_sequence_push(out, id);
}

static int words_of(struct kd_words *w, const struct kd_points *p,
                    struct kd_sequence *out)
{
    out->n = 0;
    for (int64_t i = 0, first = 0; i <= p->n; i++) {
        if (i < p->n && !kd_point_is_space(p->v[i]))
            continue;
        if (i > first)
            KD_TRY(push_word(w, p->v + first, i - first, out));
        first = i + 1;
    }
    return KD_OK;
}

/* Counts of ORDERS orders from FIRST on.  Outputs are not counted where the reference
 * has no n-gram of an order. */
static int count(struct kd_mt_scorer *s, const struct kd_sequence *ref, int orders,
                 struct kd_chrf *out, int first)
{
    int64_t matches[KD_CHRF_ORDERS];

    KD_TRY(kd_ngrams_match(s->ngrams, &s->hyp, ref, 1, orders, matches));
    for (int n = 0; n < orders; n++) {
        int64_t in_ref = kd_ngrams_in(ref->n, n + 1);

        out->in_output[first + n] =
            (double)(in_ref ? kd_ngrams_in(s->hyp.n, n + 1) : 0);
        out->in_reference[first + n] = (double)in_ref;
        out->matches[first + n] = (double)matches[n];
    }
    return KD_OK;
}

/* Characters go through all references before words do: S->hyp holds one kind. */
static int count_characters(struct kd_mt_scorer *s, const struct kd_chrf_options *o,
                            struct kd_text output, struct kd_text ref,
                            struct kd_chrf *out)
{
    KD_TRY(kd_points_set(&s->points, output, o->lowercase));
    KD_TRY(characters_of(&s->points, o->whitespace, &s->hyp));
    KD_TRY(kd_points_set(&s->points, ref, o->lowercase));
    KD_TRY(characters_of(&s->points, o->whitespace, &s->refs[0]));
    return count(s, &s->refs[0], o->char_order, out, 0);
}

static int count_words(struct kd_mt_scorer *s, const struct kd_chrf_options *o,
                       struct kd_text output, struct kd_text ref, struct kd_chrf *out)
{
    kd_words_clear(s->words);
    KD_TRY(kd_points_set(&s->points, output, o->lowercase));
    KD_TRY(words_of(s->words, &s->points, &s->hyp));
    KD_TRY(kd_points_set(&s->points, ref, o->lowercase));
    KD_TRY(words_of(s->words, &s->points, &s->refs[0]));
    return count(s, &s->refs[0], o->word_order, out, o->char_order);
}

int kd_chrf_add(struct kd_mt_scorer *s, const struct kd_chrf_options *o,
                struct kd_text output, const struct kd_text *refs, int64_t n_refs,
                struct kd_chrf *sums)
{
    struct kd_chrf best = {0};
    double best_score = -1;

    KD_TRY(kd_mt_scorer_refs(s, 1));
    for (int64_t r = 0; r < n_refs; r++) {
        struct kd_chrf c = {0};
        double score;

        KD_TRY(count_characters(s, o, output, refs[r], &c));
        if (o->word_order > 0)
            KD_TRY(count_words(s, o, output, refs[r], &c));
        score = n_refs > 1 ? kd_chrf_score(&c, o) : 0;
        if (score > best_score) {
            best_score = score;
            best = c;
        }
    }
    for (int n = 0; n < KD_CHRF_ORDERS; n++) {
        sums->in_output[n] += best.in_output[n];
        sums->in_reference[n] += best.in_reference[n];
        sums->matches[n] += best.matches[n];
    }
    return KD_OK;
}

double kd_chrf_score(const struct kd_chrf *c, const struct kd_chrf_options *o)
{
    const double eps = 1e-16;
    double factor = (double)o->beta * o->beta, score = 0, precision = 0, recall = 0;
    int orders = o->char_order + o->word_order, effective = 0;

    for (int n = 0; n < orders; n++) {
        double p = c->in_output[n] > 0 ? c->matches[n] / c->in_output[n] : eps;
        double r = c->in_reference[n] > 0 ? c->matches[n] / c->in_reference[n] : eps;
        double weight = factor * p + r;

        score += weight > 0 ? (1 + factor) * p * r / weight : eps;
        if (c->in_output[n] > 0 && c->in_reference[n] > 0) {
            precision += p;
            recall += r;
            effective++;
        }
    }
    if (o->eps_smoothing)
        return 100 * score / orders;
    if (effective > 0) {
        precision /= effective;
        recall /= effective;
    }
    if (precision + recall == 0)
        return 0;
    return 100 * ((1 + factor) * precision * recall / (factor * precision + recall));
}

int kd_chrf_name(const struct kd_chrf_options *o, struct kd_str *out)
{
    KD_TRY(kd_str_printf(out, "chrF%d", o->beta));
    for (int i = 0; i < o->word_order; i++)
        KD_TRY(kd_str_append(out, "+", 1));
    return KD_OK;
}

int kd_chrf_signature(const struct kd_chrf_options *o, int64_t n_refs,
                      struct kd_str *out)
{
    return kd_str_printf(out,
                         "nrefs:%lld|case:%s|eff:%s|nc:%d|nw:%d|space:%s|version:%s",
                         (long long)n_refs, o->lowercase ? "lc" : "mixed",
                         o->eps_smoothing ? "no" : "yes", o->char_order, o->word_order,
                         o->whitespace ? "yes" : "no", KD_SACREBLEU_VERSION);
}
