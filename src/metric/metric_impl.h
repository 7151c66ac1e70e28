/* SPDX-License-Identifier: Apache-2.0 */
/* What the translation metrics share: text as code points, tokens, and the matching of
 * n-grams. */
#ifndef KDHPC_SRC_METRIC_METRIC_IMPL_H
#define KDHPC_SRC_METRIC_METRIC_IMPL_H

#include "kdhpc/metric/metric.h"

#include <stdbool.h>

/* ---- characters.c ---- */

/** Code points; zero-initialise, free V. */
struct kd_points {
    uint32_t *v;
    int64_t n, cap;
};

int kd_points_push(struct kd_points *p, uint32_t c) KD_MUST_CHECK;

/** Replace P by the code points of TEXT, in lower case if LOWER (as Python's
 * str.lower, final sigma included).  Local.  KD_ENOMEM. */
int kd_points_set(struct kd_points *p, struct kd_text text, bool lower) KD_MUST_CHECK;

/** Code points from FIRST to LAST. */
struct kd_point_range {
    uint32_t first, last;
};

/** Whether C is in one of the N ranges R.  Local. */
bool kd_point_in(const struct kd_point_range *r, size_t n, uint32_t c);

/** White space as Python splits at it. */
bool kd_point_is_space(uint32_t c);

/** Drop white space at the end of P. */
void kd_points_rstrip(struct kd_points *p);

/* Unicode categories P, S and N. */
bool kd_point_is_punctuation(uint32_t c);
bool kd_point_is_symbol(uint32_t c);
bool kd_point_is_number(uint32_t c);

/* ---- segment.c ---- */

/** Rewrite P as BLEU's tokenizer does, tokens apart by white space; TMP is scratch.
 * Local.  KD_ENOMEM. */
int kd_segment_bleu(enum kd_bleu_tokenizer kind, struct kd_points *p,
                    struct kd_points *tmp) KD_MUST_CHECK;

/** The same for TER.  A REFERENCE is normalised twice, as sacreBLEU does it, which
 * matters where the first time sets a possessive apart.  P is lower case if it is to
 * be. */
int kd_segment_ter(const struct kd_ter_options *o, bool reference, struct kd_points *p,
                   struct kd_points *tmp) KD_MUST_CHECK;

/* ---- ngram.c ---- */

/** A sequence of tokens as numbers; zero-initialise, free V. */
struct kd_sequence {
    int32_t *v;
    int64_t n, cap;
};

int kd_sequence_push(struct kd_sequence *s, int32_t token) KD_MUST_CHECK;

/** Numbers of the words of one example, the same word the same number. */
struct kd_words;

int kd_words_new(struct kd_words **out) KD_MUST_CHECK;
void kd_words_free(struct kd_words *w);

/** Number of the word P[n] in *ID; equal words have equal numbers until kd_words_clear.
 * Local.  KD_ENOMEM. */
int kd_words_id(struct kd_words *w, const uint32_t *p, int64_t n,
                int32_t *id) KD_MUST_CHECK;
void kd_words_clear(struct kd_words *w);

/** Replace S by the words of P between white space.  Local.  KD_ENOMEM. */
int kd_words_split(struct kd_words *w, const struct kd_points *p,
                   struct kd_sequence *s) KD_MUST_CHECK;

/** A table of n-grams. */
struct kd_ngrams;

int kd_ngrams_new(struct kd_ngrams **out) KD_MUST_CHECK;
void kd_ngrams_free(struct kd_ngrams *g);

/** MATCHES[k]: n-grams of k + 1 tokens of HYP, each counted at most as often as the
 * sequence of REFS[n_refs] has it that has it most.  Local.  KD_ENOMEM. */
int kd_ngrams_match(struct kd_ngrams *g, const struct kd_sequence *hyp,
                    const struct kd_sequence *refs, int64_t n_refs, int max_order,
                    int64_t *matches) KD_MUST_CHECK;

/** N-grams of ORDER tokens in a sequence of N. */
static inline int64_t kd_ngrams_in(int64_t n, int order)
{
    return n >= order ? n - order + 1 : 0;
}

/* ---- scorer.c ---- */

/** Working memory of the translation metrics. */
struct kd_mt_scorer {
    struct kd_points points, spare;
    struct kd_words *words;
    struct kd_ngrams *ngrams;
    struct kd_sequence hyp; /* tokens of the output */
    struct kd_sequence *refs;
    int64_t n_refs_cap;
    struct kd_ter_work *ter;
};

/** Room for the sequences of N references.  Local.  KD_ENOMEM. */
int kd_mt_scorer_refs(struct kd_mt_scorer *s, int64_t n) KD_MUST_CHECK;

/* ---- ter.c ---- */

struct kd_ter_work;
void kd_ter_work_free(struct kd_ter_work *w);

#endif
