/* SPDX-License-Identifier: Apache-2.0 */
/* Greedy search and sampling: one token a sequence, each sequence on its own.
 *
 * Sampling warps the processed logits as transformers does (temperature, then top-k
 * with ties kept, then top-p over the ascending cumulative sum) and inverts the
 * cumulative distribution, in token order and float64, at
 *
 *     u = kd_rng_uniform(seed, KD_RNG_SAMPLE, example * num_return_sequences + k, step)
 *
 * with step 0 for the first generated token.  So an output depends on the model, the
 * options, the seed and the example, not on batches or ranks.  (The tokens are not
 * those that torch's generators would draw; the distribution is the same.)
 *
 * Scores are sums of log-probabilities of the chosen tokens: under the processed
 * distribution for greedy search, under the warped one for sampling. */
#include "decode_impl.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct option {
    double weight; /* exp(score - largest) */
    float score;
    int32_t token;
};

struct sampler {
    double *score;          /* [sources * per_source] */
    int32_t *ids, *len;     /* [.., max_length], [..] of finished sequences */
    struct option *options; /* [V] sampling only */
};

static int sampler_open(struct kd_search *s)
{
    int64_t all = s->n_sources * s->per_source;
    struct sampler *p = NULL;

    KD_TRY(kd_calloc(1, sizeof *p, &p));
    s->state = p;
    KD_TRY(kd_calloc(all, sizeof *p->score, &p->score));
    KD_TRY(kd_calloc(all, sizeof *p->len, &p->len));
    KD_TRY(kd_calloc(all * s->g->max_length, sizeof *p->ids, &p->ids));
    if (s->g->do_sample)
        KD_TRY(kd_calloc(s->vocab, sizeof *p->options, &p->options));
    return KD_OK;
}

static void sampler_close(struct kd_search *s)
{
    struct sampler *p = s->state;

    if (!p)
        return;
    free(p->score);
    free(p->ids);
    free(p->len);
    free(p->options);
    free(p);
}

static void sampler_result(const struct kd_search *s, int64_t source, int64_t k,
                           const int32_t **ids, int64_t *n, double *score)
{
    const struct sampler *p = s->state;
    int64_t slot = source * s->per_source + k;

    *ids = p->ids + slot * s->g->max_length;
    *n = p->len[slot];
    *score = p->score[slot];
}

/* Sequence Q goes on with TOKEN, or ends with it. */
static void extend(struct kd_search *s, int64_t q, int32_t token, double log_prob)
{
    struct sampler *p = s->state;
    int64_t slot = s->now.slot[q], ld = s->g->max_length;
    int32_t *ids = p->ids + slot * ld;

    p->score[slot] += log_prob;
    if (!kd_is_eos(s->g, token) && s->cur_len + 1 < ld) {
        kd_search_push(s, q, slot, token);
        return;
    }
    memcpy(ids, s->now.ids + q * ld + 1, (size_t)(s->cur_len - 1) * sizeof *ids);
    ids[s->cur_len - 1] = token;
    p->len[slot] = (int32_t)s->cur_len;
}

static int64_t greedy_top_k(const struct kd_search *s)
{
    (void)s;
    return 1;
}

/* The token is the largest logit, first on ties; its log-probability is found after
 * that, since rounding in a log-softmax can make ties that the logits do not have. */
static int greedy_advance(struct kd_search *s, struct kd_tensor scores)
{
    int64_t rows = scores.shape[0];
    int32_t *token = NULL;
    int rc = KD_OK;

    KD_TRY(kd_calloc(rows, sizeof *token, &token));
    KD_GO(kd_search_top(s, scores));
    memcpy(token, s->cols, (size_t)rows * sizeof *token);
    KD_GO(s->be->ops->log_softmax(s->be, scores.data, rows, s->vocab));
    KD_GO(kd_search_top(s, scores));
    for (int64_t q = 0; q < s->now.n; q++) {
        int64_t r = kd_search_row(s, q);

        extend(s, q, token[r], (double)s->top[r]);
    }
out:
    free(token);
    return rc;
}

static int64_t sample_top_k(const struct kd_search *s)
{
    int64_t k = s->g->top_k;

    return k > 0 && k < s->vocab ? k : 1;
}

static int by_score(const void *a, const void *b)
{
    const struct option *x = a, *y = b;

    if (x->score != y->score)
        return x->score < y->score ? -1 : 1;
    return (x->token > y->token) - (x->token < y->token);
}

static int by_token(const void *a, const void *b)
{
    const struct option *x = a, *y = b;

    return (x->token > y->token) - (x->token < y->token);
}

/* Drop the least likely options whose cumulative probability stays within 1 - top_p,
 * always keeping the likeliest.  Returns the number left. */
static int64_t keep_nucleus(double top_p, struct option *o, int64_t n, double total)
{
    int64_t drop = 0;
    double sum = 0.0;

    qsort(o, (size_t)n, sizeof *o, by_score);
    while (drop < n - 1) {
        sum += o[drop].weight / total;
        if (sum > 1.0 - top_p)
            break;
        drop++;
    }
    memmove(o, o + drop, (size_t)(n - drop) * sizeof *o);
    qsort(o, (size_t)(n - drop), sizeof *o, by_token);
    return n - drop;
}

/* Draw from one row of processed logits whose largest is LARGEST and whose k-th largest
 * is LEAST, at U. */
static void draw(const struct kd_search *s, const float *row, float largest,
                 float least, double u, int32_t *token, double *log_prob)
{
    const struct kd_generation *g = s->g;
    struct option *o = ((struct sampler *)s->state)->options;
    double total = 0.0, sum = 0.0;
    int64_t n = 0, at = 0;

    for (int64_t v = 0; v < s->vocab; v++) {
        if (!(row[v] >= least) || row[v] == -INFINITY)
            continue;
        o[n].token = (int32_t)v;
        o[n].score = row[v];
        o[n].weight = exp(((double)row[v] - (double)largest) / g->temperature);
        total += o[n++].weight;
    }
    if (g->top_p < 1.0 && n > 1) {
        n = keep_nucleus(g->top_p, o, n, total);
        total = 0.0;
        for (int64_t i = 0; i < n; i++)
            total += o[i].weight;
    }
    for (; at < n - 1; at++) {
        sum += o[at].weight;
        if (u * total < sum)
            break;
    }
    *token = n > 0 ? o[at].token : 0;
    *log_prob = n > 0 ? log(o[at].weight / total) : -INFINITY;
}

static int sample_advance(struct kd_search *s, struct kd_tensor scores)
{
    const struct kd_generation *g = s->g;
    bool limited = g->top_k > 0 && g->top_k < s->vocab;
    float *rows = NULL;

    KD_TRY(kd_search_host(s, scores, &rows));
    KD_TRY(kd_search_top(s, scores));
    for (int64_t q = 0; q < s->now.n; q++) {
        int64_t r = kd_search_row(s, q), slot = s->now.slot[q];
        uint64_t key = (uint64_t)(s->example_ids[slot / s->per_source] * s->per_source +
                                  slot % s->per_source);
        double u =
            kd_rng_uniform(g->seed, KD_RNG_SAMPLE, key, (uint64_t)s->cur_len - 1);
        float least = limited ? s->top[(r + 1) * s->k - 1] : -INFINITY;
        int32_t token;
        double log_prob;

        draw(s, rows + r * s->vocab, s->top[r * s->k], least, u, &token, &log_prob);
        extend(s, q, token, log_prob);
    }
    return KD_OK;
}

const struct kd_policy kd_policy_greedy = {
    .top_k = greedy_top_k,
    .open = sampler_open,
    .advance = greedy_advance,
    .result = sampler_result,
    .close = sampler_close,
};

const struct kd_policy kd_policy_sample = {
    .top_k = sample_top_k,
    .open = sampler_open,
    .advance = sample_advance,
    .result = sampler_result,
    .close = sampler_close,
};
