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

/** ROUGE of PREDICTION against TARGET as rouge_score computes it with the Porter
 * stemmer: rougeLsum splits at newlines. Local, thread-safe.  KD_ENOMEM. */
int kd_rouge_score(const char *target, int64_t target_len, const char *prediction,
                   int64_t prediction_len, struct kd_rouge *out) KD_MUST_CHECK;

/** Mean of V[n] and the 2.5 and 97.5 percentiles of N_RESAMPLES bootstrap means, drawn
 * from SEED.  Local. */
int kd_bootstrap(const double *v, int64_t n, int64_t n_resamples, uint64_t seed,
                 double *mean, double *low, double *high) KD_MUST_CHECK;

/** Porter stem of a lower-case ASCII word in place, as NLTK's PorterStemmer with its
 * extensions; returns the new length. */
int64_t kd_porter_stem(char *word, int64_t len);

#endif
