/* SPDX-License-Identifier: Apache-2.0 */
/* Greedy search and sampling: one token a sequence, each sequence on its own.
 *
 * Sampling is the backend's `sample` slot: temperature, then top-k with ties kept, then
 * top-p over the ascending cumulative sum, min-p, typical, epsilon and eta sampling as
 * transformers does, and the cumulative distribution inverted in token order at
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

#include <stdlib.h>
#include <string.h>

struct sampler {
    double *score;      /* [sources * per_source] */
    int32_t *ids, *len; /* [.., max_length], [..] of finished sequences */
};

static int sampler_open(struct kd_search *s)
{
    int64_t all = s->n_sources * s->per_source;
    struct sampler *p = NULL;

    KD_TRY(kd_calloc(1, sizeof *p, &p));
    s->state = p;
    KD_TRY(kd_calloc(all, sizeof *p->score, &p->score));
    KD_TRY(kd_calloc(all, sizeof *p->len, &p->len));
    return kd_calloc(all * s->g->max_length, sizeof *p->ids, &p->ids);
}

static void sampler_close(struct kd_search *s)
{
    struct sampler *p = s->state;

    if (!p)
        return;
    free(p->score);
    free(p->ids);
    free(p->len);
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

static size_t greedy_down(const struct kd_search *s)
{
    (void)s;
    return sizeof(int32_t) + 3 * sizeof(float);
}

/* The token is the largest logit, first on ties; its log-probability is found after
 * that, since rounding in a log-softmax can make ties that the logits do not have. */
static int greedy_advance(struct kd_search *s, struct kd_tensor scores)
{
    const struct kd_backend_ops *ops = s->be->ops;
    int64_t rows = scores.shape[0];
    float *sums = (void *)s->down_dev, *top = sums + 2 * rows;
    const float *got = (const void *)s->down;
    const int32_t *tokens = (const void *)(got + 3 * rows);

    KD_TRY(kd_search_edit(s, scores));
    KD_TRY(ops->log_sum(s->be, scores.data, rows, s->vocab, sums));
    KD_TRY(ops->topk(s->be, scores.data, NULL, rows, s->vocab, 1, top,
                     (void *)(top + rows)));
    KD_TRY(kd_search_down(s, (size_t)rows * greedy_down(s)));
    for (int64_t q = 0; q < s->now.n; q++) {
        int64_t r = kd_search_row(s, q);
        float log_prob = (got[2 * rows + r] - got[2 * r]) - got[2 * r + 1];

        extend(s, q, tokens[r], (double)log_prob);
    }
    return KD_OK;
}

static size_t sample_down(const struct kd_search *s)
{
    (void)s;
    return sizeof(double) + sizeof(int32_t);
}

/* Where each sequence draws. */
static void sample_prepare(struct kd_search *s)
{
    double *u = (void *)s->up;

    for (int64_t q = 0; q < s->now.n; q++) {
        int64_t slot = s->now.slot[q],
                key = s->example_ids[slot / s->per_source] * s->per_source +
                      slot % s->per_source;

        u[q] = kd_rng_uniform(s->g->seed, KD_RNG_SAMPLE, (uint64_t)key,
                              (uint64_t)s->cur_len - 1);
    }
    s->up_bytes = (size_t)s->now.n * sizeof *u;
}

/* A cutoff as transformers takes it: from 1 on it is off. */
static double share(double cutoff)
{
    return cutoff < 1.0 ? cutoff : 0.0;
}

static int sample_advance(struct kd_search *s, struct kd_tensor scores)
{
    int64_t n = s->now.n;
    double *log_probs = (void *)s->down_dev;
    const double *got = (const void *)s->down;
    const int32_t *tokens = (const void *)(got + n);
    const struct kd_sample sample = {.x = scores.data,
                                     .n = n,
                                     .per_row = s->first ? s->per_source : 1,
                                     .cols = s->vocab,
                                     .u = s->ride.dev,
                                     .temperature = s->g->temperature,
                                     .top_p = s->g->top_p,
                                     .top_k = s->g->top_k,
                                     .log_probs = log_probs,
                                     .tokens = (void *)(log_probs + n),
                                     .min_p = s->g->min_p,
                                     .typical_p = s->g->typical_p,
                                     .epsilon = share(s->g->epsilon_cutoff),
                                     .eta = share(s->g->eta_cutoff)};

    KD_TRY(kd_search_edit(s, scores));
    KD_TRY(s->be->ops->sample(s->be, &sample));
    KD_TRY(kd_search_down(s, (size_t)n * sample_down(s)));
    for (int64_t q = 0; q < n; q++)
        extend(s, q, tokens[q], got[q]);
    return KD_OK;
}

const struct kd_policy kd_policy_greedy = {
    .down_bytes = greedy_down,
    .open = sampler_open,
    .advance = greedy_advance,
    .result = sampler_result,
    .close = sampler_close,
};

const struct kd_policy kd_policy_sample = {
    .up_bytes = sizeof(double),
    .down_bytes = sample_down,
    .open = sampler_open,
    .prepare = sample_prepare,
    .advance = sample_advance,
    .result = sampler_result,
    .close = sampler_close,
};
