/* SPDX-License-Identifier: Apache-2.0 */
/* BLEU, chrF and TER of a list of outputs: options, rows by example, and what of them
 * goes to metrics.json and examples.h5. */
#ifndef KDHPC_SRC_MODE_TRANSLATION_H
#define KDHPC_SRC_MODE_TRANSLATION_H

#include "results.h"

#include "kdhpc/metric/metric.h"

/** The options, as the rows fill them. */
struct kd_translation_options {
    const char *bleu_tokenize;
    bool bleu_lowercase;
    int bleu_smooth_method; /* enum kd_bleu_smoothing */
    double bleu_smooth_value;
    int64_t chrf_char_order, chrf_word_order, chrf_beta;
    bool chrf_lowercase, chrf_whitespace, chrf_eps_smoothing;
    bool ter_normalized, ter_no_punct, ter_asian_support, ter_case_sensitive;
    int post_process; /* enum kd_post_process */
};

enum kd_post_process { KD_POST_NONE, KD_POST_ROMANIAN };

extern const struct kd_opt_row kd_translation_rows[];

/** What is to be scored.  TARGETS and MORE_REFS are texts by example. */
struct kd_translation_texts {
    char *const *outputs;
    const struct kd_corpus *corpus; /* its target texts are the first reference */
    char *const *const *more_refs;  /* [n_more_refs][n] further ones */
    int64_t n_more_refs, n;
};

enum kd_translation_metric { KD_BLEU, KD_CHRF, KD_TER, KD_N_TRANSLATION };

/** Names as --metrics takes them, and as keys. */
extern const char *const kd_translation_names[KD_N_TRANSLATION];

/** Refuse what is not there.  Local.  KD_EUSAGE. */
int kd_translation_check(const struct kd_translation_options *o) KD_MUST_CHECK;

/** One metric over a list of texts: counts by example, on every rank. */
struct kd_translation;

/** Count METRIC for TEXTS, each rank a share.  Collective. */
int kd_translation_count(struct kd_run *run, const struct kd_translation_options *o,
                         enum kd_translation_metric metric,
                         const struct kd_translation_texts *texts,
                         struct kd_translation **out) KD_MUST_CHECK;
void kd_translation_free(struct kd_translation *t);

/** Score of example I alone (BLEU with effective order).  Local. */
double kd_translation_example(const struct kd_translation *t, int64_t i);

/** Put the score of the corpus into J with bounds from RESAMPLES resamples drawn from
 * SEED, the signature and the counts behind it; log it.  Local. */
int kd_translation_report(const struct kd_translation *t, int64_t resamples,
                          uint64_t seed, struct kd_json *j) KD_MUST_CHECK;

#endif
