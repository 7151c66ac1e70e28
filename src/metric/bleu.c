/* SPDX-License-Identifier: Apache-2.0 */
/* Corpus BLEU (Papineni et al., 2002) with the options and the values of sacreBLEU.
 *
 * All that the score needs of an example is ten counts, so examples may be counted
 * anywhere and in any order, and the sums are exact.  Smoothing acts on the sums (Chen
 * and Cherry, 2014).  Called by eval and by validation during training. */
#include "metric_impl.h"

#include "kdhpc/base/str.h"

#include <math.h>
#include <stdlib.h>

static int tokens_of(struct kd_mt_scorer *s, const struct kd_bleu_options *o,
                     struct kd_text text, struct kd_sequence *out)
{
    KD_TRY(kd_points_set(&s->points, text, o->lowercase));
    KD_TRY(kd_segment_bleu(o->tokenizer, &s->points, &s->spare));
    return kd_words_split(s->words, &s->points, out);
}

/* Of the lengths of the references the one next to N, the shorter of two. */
static int64_t closest_length(const struct kd_sequence *refs, int64_t n_refs, int64_t n)
{
    int64_t best = refs[0].n;

    for (int64_t r = 1; r < n_refs; r++) {
        int64_t diff = llabs(n - refs[r].n), least = llabs(n - best);

        if (diff < least || (diff == least && refs[r].n < best))
            best = refs[r].n;
    }
    return best;
}

int kd_bleu_add(struct kd_mt_scorer *s, const struct kd_bleu_options *o,
                struct kd_text output, const struct kd_text *refs, int64_t n_refs,
                struct kd_bleu *b)
{
    int64_t matches[KD_BLEU_ORDERS];

    KD_TRY(kd_mt_scorer_refs(s, n_refs));
    kd_words_clear(s->words);
    KD_TRY(tokens_of(s, o, output, &s->hyp));
    for (int64_t r = 0; r < n_refs; r++)
        KD_TRY(tokens_of(s, o, refs[r], &s->refs[r]));
    KD_TRY(
        kd_ngrams_match(s->ngrams, &s->hyp, s->refs, n_refs, KD_BLEU_ORDERS, matches));
    b->output_tokens += (double)s->hyp.n;
    b->reference_tokens += (double)closest_length(s->refs, n_refs, s->hyp.n);
    for (int n = 0; n < KD_BLEU_ORDERS; n++) {
        b->correct[n] += (double)matches[n];
        b->total[n] += (double)kd_ngrams_in(s->hyp.n, n + 1);
    }
    return KD_OK;
}

/* ---- the score ---- */

static double smooth_value(const struct kd_bleu_options *o)
{
    if (o->smooth_value >= 0)
        return o->smooth_value;
    return o->smoothing == KD_BLEU_FLOOR ? 0.1 : 1;
}

double kd_bleu_brevity(const struct kd_bleu *b)
{
    if (b->output_tokens >= b->reference_tokens)
        return 1;
    return b->output_tokens > 0 ? exp(1 - b->reference_tokens / b->output_tokens) : 0;
}

/* Precisions x 100; returns how many orders count. */
static int precisions(const struct kd_bleu *b, const struct kd_bleu_options *o,
                      double out[KD_BLEU_ORDERS])
{
    double exponential = 1;
    int orders = KD_BLEU_ORDERS;

    for (int n = 0; n < KD_BLEU_ORDERS; n++)
        out[n] = 0;
    for (int n = 0; n < KD_BLEU_ORDERS; n++) {
        double more = o->smoothing == KD_BLEU_ADD_K && n > 0 ? smooth_value(o) : 0;
        double correct = b->correct[n] + more, total = b->total[n] + more;

        if (total == 0)
            break;
        if (o->effective_order)
            orders = n + 1;
        if (correct > 0) {
            out[n] = 100 * correct / total;
        } else if (o->smoothing == KD_BLEU_EXP) {
            exponential *= 2;
            out[n] = 100 / (exponential * total);
        } else if (o->smoothing == KD_BLEU_FLOOR) {
            out[n] = 100 * smooth_value(o) / total;
        }
    }
    return orders;
}

/* No n-gram of any order: what follows would be smoothing alone. */
static bool has_match(const struct kd_bleu *b)
{
    for (int n = 0; n < KD_BLEU_ORDERS; n++)
        if (b->correct[n] > 0)
            return true;
    return false;
}

double kd_bleu_score(const struct kd_bleu *b, const struct kd_bleu_options *o)
{
    double p[KD_BLEU_ORDERS], log_sum = 0;
    int orders = precisions(b, o, p);

    if (!has_match(b))
        return 0;
    for (int n = 0; n < orders; n++) {
        if (p[n] <= 0)
            return 0;
        log_sum += log(p[n]);
    }
    return kd_bleu_brevity(b) * exp(log_sum / orders);
}

void kd_bleu_precisions(const struct kd_bleu *b, const struct kd_bleu_options *o,
                        double out[KD_BLEU_ORDERS])
{
    (void)precisions(b, o, out);
    if (!has_match(b))
        for (int n = 0; n < KD_BLEU_ORDERS; n++)
            out[n] = 0;
}

int kd_bleu_signature(const struct kd_bleu_options *o, int64_t n_refs,
                      struct kd_str *out)
{
    static const char *const tokenizers[] = {"13a", "intl", "char", "zh", "none"};
    static const char *const smoothings[] = {"exp", "floor", "add-k", "none"};

    KD_TRY(kd_str_printf(out, "nrefs:%lld|case:%s|eff:%s|tok:%s|smooth:%s",
                         (long long)n_refs, o->lowercase ? "lc" : "mixed",
                         o->effective_order ? "yes" : "no", tokenizers[o->tokenizer],
                         smoothings[o->smoothing]));
    if (o->smoothing == KD_BLEU_FLOOR || o->smoothing == KD_BLEU_ADD_K)
        KD_TRY(kd_str_printf(out, "[%.2f]", smooth_value(o)));
    return kd_str_printf(out, "|version:%s", KD_SACREBLEU_VERSION);
}
