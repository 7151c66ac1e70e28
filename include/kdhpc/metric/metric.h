/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics: a row per example, then a reduction in example order, so that digits do not
 * depend on who computed which row. */
#ifndef KDHPC_METRIC_METRIC_H
#define KDHPC_METRIC_METRIC_H

#include "kdhpc/base/status.h"
#include "kdhpc/base/str.h"

#include <stdbool.h>
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

/* ---- BLEU, chrF and TER, with the options and the values of sacreBLEU ---- */

/** The version of sacreBLEU whose definitions are followed; ends every signature. */
#define KD_SACREBLEU_VERSION "2.6.0"

/** A text: valid UTF-8, borrowed. */
struct kd_text {
    const char *data;
    int64_t len;
};

/** Working memory of these metrics: scoring allocates nothing once it is warm.  One
 * per thread. */
struct kd_mt_scorer;

int kd_mt_scorer_new(struct kd_mt_scorer **out) KD_MUST_CHECK;
void kd_mt_scorer_free(struct kd_mt_scorer *s);

/* Each metric has sums over examples: counts held as doubles, so that sums of sums are
 * exact in any order; zero-initialise.  kd_x_add counts an OUTPUT and its REFS[n_refs]
 * (n_refs at least 1, the same for all); kd_x_score is the score of what was counted;
 * kd_x_signature appends what sacreBLEU would say of the options.  All Local.
 * KD_ENOMEM. */

enum { KD_BLEU_ORDERS = 4 };

enum kd_bleu_tokenizer {
    KD_BLEU_13A,
    KD_BLEU_INTL,
    KD_BLEU_CHAR,
    KD_BLEU_ZH,
    KD_BLEU_NONE
};

enum kd_bleu_smoothing {
    KD_BLEU_EXP,
    KD_BLEU_FLOOR,
    KD_BLEU_ADD_K,
    KD_BLEU_UNSMOOTHED
};

struct kd_bleu_options {
    enum kd_bleu_tokenizer tokenizer;
    enum kd_bleu_smoothing smoothing;
    double smooth_value; /* of floor and add-k; negative: their defaults */
    bool lowercase;
    bool effective_order; /* leave out orders longer than all outputs */
};

#define KD_BLEU_DEFAULTS ((struct kd_bleu_options){.smooth_value = -1})

struct kd_bleu {
    double correct[KD_BLEU_ORDERS], total[KD_BLEU_ORDERS]; /* n-grams by order - 1 */
    double output_tokens, reference_tokens;
};

int kd_bleu_add(struct kd_mt_scorer *s, const struct kd_bleu_options *o,
                struct kd_text output, const struct kd_text *refs, int64_t n_refs,
                struct kd_bleu *b) KD_MUST_CHECK;

double kd_bleu_score(const struct kd_bleu *b, const struct kd_bleu_options *o);
double kd_bleu_brevity(const struct kd_bleu *b); /* the penalty, at most 1 */
void kd_bleu_precisions(const struct kd_bleu *b, const struct kd_bleu_options *o,
                        double out[KD_BLEU_ORDERS]); /* x 100, smoothed */
int kd_bleu_signature(const struct kd_bleu_options *o, int64_t n_refs,
                      struct kd_str *out) KD_MUST_CHECK;

enum { KD_CHRF_ORDERS = 16 };

struct kd_chrf_options {
    int char_order, word_order; /* together at most KD_CHRF_ORDERS */
    int beta;
    bool lowercase, whitespace, eps_smoothing;
};

#define KD_CHRF_DEFAULTS ((struct kd_chrf_options){.char_order = 6, .beta = 2})

struct kd_chrf { /* n-grams of characters by order - 1, then of words */
    double in_output[KD_CHRF_ORDERS], in_reference[KD_CHRF_ORDERS],
        matches[KD_CHRF_ORDERS];
};

int kd_chrf_add(struct kd_mt_scorer *s, const struct kd_chrf_options *o,
                struct kd_text output, const struct kd_text *refs, int64_t n_refs,
                struct kd_chrf *sums) KD_MUST_CHECK;
double kd_chrf_score(const struct kd_chrf *c, const struct kd_chrf_options *o);
int kd_chrf_name(const struct kd_chrf_options *o,
                 struct kd_str *out) KD_MUST_CHECK; /* appends, e.g. chrF2++ */
int kd_chrf_signature(const struct kd_chrf_options *o, int64_t n_refs,
                      struct kd_str *out) KD_MUST_CHECK;

struct kd_ter_options {
    bool normalized, no_punct, asian_support, case_sensitive;
};

struct kd_ter {
    double edits, reference_tokens; /* tokens of all references */
};

int kd_ter_add(struct kd_mt_scorer *s, const struct kd_ter_options *o,
               struct kd_text output, const struct kd_text *refs, int64_t n_refs,
               struct kd_ter *t) KD_MUST_CHECK;
double kd_ter_score(const struct kd_ter *t, int64_t n_refs);
int kd_ter_signature(const struct kd_ter_options *o, int64_t n_refs,
                     struct kd_str *out) KD_MUST_CHECK;

/* ---- reductions ---- */

/** Mean of V[n] and the 2.5 and 97.5 percentiles (linear interpolation) of N_RESAMPLES
 * bootstrap means, drawn from SEED; 0 resamples: LOW and HIGH are the mean.  Local.
 * KD_ENOMEM. */
int kd_bootstrap(const double *v, int64_t n, int64_t n_resamples, uint64_t seed,
                 double *mean, double *low, double *high) KD_MUST_CHECK;

/** The same bounds for a score of a corpus: SCORE(sums, ARG) of the sums of ROWS
 * [n][width] over bootstrap resamples.  N and N_RESAMPLES at least 1.  Local.
 * KD_ENOMEM. */
int kd_bootstrap_sums(const double *rows, int64_t n, int64_t width, int64_t n_resamples,
                      uint64_t seed, double (*score)(const double *sums, void *arg),
                      void *arg, double *low, double *high) KD_MUST_CHECK;

/** Porter stem of a word of a-z and 0-9 in place, as NLTK's PorterStemmer with its
 * extensions; returns the new length, never above LEN.  Local. */
int64_t kd_porter_stem(char *word, int64_t len);

#endif
