/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics: a row per example, then a reduction in example order, so that digits do not
 * depend on who computed which row. */
#ifndef KDHPC_METRIC_METRIC_H
#define KDHPC_METRIC_METRIC_H

#include "kdhpc/base/status.h"

#include <stdint.h>

struct kd_prf {
    double precision, recall, f1;
};

struct kd_rouge {
    struct kd_prf r1, r2, rl, rlsum;
};

/** Scores pairs of texts; keeps what it learns about words from pair to pair, so that
 * scoring allocates nothing once it is warm.  One per thread. */
struct kd_rouge_scorer;

int kd_rouge_scorer_new(struct kd_rouge_scorer **out) KD_MUST_CHECK;
void kd_rouge_scorer_free(struct kd_rouge_scorer *s);

/** ROUGE of PREDICTION against TARGET (valid UTF-8) as rouge_score computes it with the
 * Porter stemmer: rougeLsum splits at newlines.  Local.  KD_ENOMEM. */
int kd_rouge_score(struct kd_rouge_scorer *s, const char *target, int64_t target_len,
                   const char *prediction, int64_t prediction_len,
                   struct kd_rouge *out) KD_MUST_CHECK;

enum { KD_BLEU_ORDERS = 4 };

/** Sums over pairs from which corpus BLEU comes; zero-initialise.  Counts, so sums of
 * sums are exact in any order. */
struct kd_bleu {
    double correct[KD_BLEU_ORDERS], total[KD_BLEU_ORDERS]; /* n-grams by order - 1 */
    double prediction_tokens, target_tokens;
};

/** Count a pair of texts (valid UTF-8).  Local.  KD_ENOMEM. */
int kd_bleu_add(struct kd_bleu *b, const char *target, int64_t target_len,
                const char *prediction, int64_t prediction_len) KD_MUST_CHECK;

/** BLEU of the pairs counted, 0..100, as sacrebleu computes it with its defaults
 * (13a tokens, exponential smoothing).  Local. */
double kd_bleu_score(const struct kd_bleu *b);

/** Mean of V[n] and the 2.5 and 97.5 percentiles (linear interpolation) of N_RESAMPLES
 * bootstrap means, drawn from SEED; 0 resamples: LOW and HIGH are the mean.  Local.
 * KD_ENOMEM. */
int kd_bootstrap(const double *v, int64_t n, int64_t n_resamples, uint64_t seed,
                 double *mean, double *low, double *high) KD_MUST_CHECK;

/** Porter stem of a word of a-z and 0-9 in place, as NLTK's PorterStemmer with its
 * extensions; returns the new length, never above LEN.  Local. */
int64_t kd_porter_stem(char *word, int64_t len);

#endif
