/* SPDX-License-Identifier: Apache-2.0 */
/* Reference backend: what generation asks for.  Sampling sorts and sums in float64, as
 * the definition says, without the integers of the backends. */
#include "ref_backend.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int ref_log_sum(struct kd_backend *be, const float *x, int64_t rows, int64_t cols,
                float *sums)
{
    (void)be;
    for (int64_t r = 0; r < rows; r++, x += cols) {
        double max = -INFINITY, sum = 0.0;

        for (int64_t c = 0; c < cols; c++)
            max = fmax(max, x[c]);
        for (int64_t c = 0; c < cols; c++)
            sum += exp(x[c] - max);
        sums[2 * r] = (float)(max + log(sum));
        sums[2 * r + 1] = (float)(max + log(sum) - sums[2 * r]);
    }
    return KD_OK;
}

int ref_topk(struct kd_backend *be, const float *x, const float *sums, int64_t rows,
             int64_t cols, int64_t k, float *values, int32_t *columns)
{
    (void)be;
    for (int64_t r = 0; r < rows; r++, x += cols) {
        float high = sums ? sums[2 * r] : 0.0f, low = sums ? sums[2 * r + 1] : 0.0f;

        for (int64_t i = 0; i < k; i++) {
            int64_t best = -1;

            for (int64_t c = 0; c < cols; c++) {
                bool taken = false;

                for (int64_t j = 0; j < i; j++)
                    taken = taken || columns[r * k + j] == c;
                if (!taken &&
                    (best < 0 || (x[c] - high) - low > (x[best] - high) - low))
                    best = c;
            }
            values[r * k + i] = (x[best] - high) - low;
            columns[r * k + i] = (int32_t)best;
        }
    }
    return KD_OK;
}

int ref_advance_slots(struct kd_backend *be, const struct kd_slot_step *s)
{
    int64_t n = s->n_rows, len = *s->step;
    int32_t *now = malloc(sizeof *now * (size_t)(n * len + 1));

    (void)be;
    if (!now)
        return KD_FAIL(KD_ENOMEM, "reference slots: no memory");
    for (int64_t i = 0; i < n * len; i++)
        now[i] = s->slots[s->parents[i / len] * s->ld + i % len];
    for (int64_t r = 0; r < n; r++) {
        for (int64_t t = 0; t < len; t++)
            s->slots[r * s->ld + t] = now[r * len + t];
        s->slots[r * s->ld + len] = (int32_t)(len * s->stride + r);
    }
    free(now);
    return KD_OK;
}

int ref_edit_scores(struct kd_backend *be, float *x, int64_t rows, int64_t cols,
                    const struct kd_score_edits *e)
{
    (void)be;
    for (int64_t r = 0; r < rows; r++, x += cols) {
        for (int64_t c = 0; e->forced >= 0 && c < cols; c++)
            x[c] = c == e->forced ? 0.0f : -INFINITY;
        for (int64_t i = 0; e->forced < 0 && i < e->n; i++) {
            float *v = x + e->list[i].token;

            if (e->list[i].row >= 0 && e->list[i].row != r)
                continue;
            if (i < e->n_bans)
                *v = -INFINITY;
            else if (e->kind == KD_EDIT_RAISE)
                *v = *v == -INFINITY ? *v : fmaf(fabsf(*v), e->penalty, *v);
            else
                *v = *v < 0.0f ? *v * e->penalty : *v / e->penalty;
        }
    }
    return KD_OK;
}

struct option {
    double weight; /* exp of the score, less the largest, over the temperature */
    float score, distance;
    int32_t token;
};

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

/* Ascending options O[*N] less what top-k and top-p take; the sum of weights. */
static double warp(const struct kd_sample *s, struct option *o, int64_t *n)
{
    double total = 0.0, sum = 0.0, rest = 0.0;
    int64_t drop = 0;

    while (s->top_k > 0 && drop < *n - s->top_k &&
           o[drop].score < o[*n - s->top_k].score)
        drop++;
    for (int64_t i = drop; i < *n; i++)
        total += o[i].weight;
    while (s->top_p < 1.0 && drop < *n - 1) {
        sum += o[drop].weight / total;
        if (sum > 1.0 - s->top_p)
            break;
        drop++;
    }
    *n -= drop;
    memmove(o, o + drop, (size_t)*n * sizeof *o);
    for (int64_t i = 0; i < *n; i++)
        rest += o[i].weight;
    return rest;
}

static int by_distance(const void *a, const void *b)
{
    const struct option *x = a, *y = b;

    return (x->distance > y->distance) - (x->distance < y->distance);
}

static double sum_of(const struct option *o, int64_t n)
{
    double sum = 0.0;

    for (int64_t i = 0; i < n; i++)
        sum += o[i].weight;
    return sum;
}

static double entropy_of(const struct option *o, int64_t n)
{
    double total = sum_of(o, n), h = 0.0;

    for (int64_t i = 0; i < n; i++)
        h -= o[i].weight > 0 ? o[i].weight / total * log(o[i].weight / total) : 0.0;
    return h;
}

/* Leave the ascending options from the first on that weighs LIMIT, and the last. */
static void cut(struct option *o, int64_t *n, double limit)
{
    int64_t drop = 0;

    while (drop < *n - 1 && o[drop].weight < limit && o[drop].score < o[*n - 1].score)
        drop++;
    *n -= drop;
    memmove(o, o + drop, (size_t)*n * sizeof *o);
}

static void keep_typical(struct option *o, int64_t *n, double mass)
{
    double total = sum_of(o, *n), h = entropy_of(o, *n), sum = 0.0;
    int64_t last = 0;

    for (int64_t i = 0; i < *n; i++)
        o[i].distance = (float)fabs(-log(o[i].weight / total) - h);
    qsort(o, (size_t)*n, sizeof *o, by_distance);
    for (; last < *n - 1; last++) {
        sum += o[last].weight;
        if (sum >= mass * total)
            break;
    }
    while (last < *n - 1 && o[last + 1].distance == o[last].distance)
        last++;
    *n = last + 1;
    qsort(o, (size_t)*n, sizeof *o, by_score);
}

static double warp_further(const struct kd_sample *s, struct option *o, int64_t *n)
{
    if (s->min_p > 0.0)
        cut(o, n, s->min_p * o[*n - 1].weight);
    if (s->typical_p > 0.0 && s->typical_p < 1.0)
        keep_typical(o, n, s->typical_p);
    if (s->epsilon > 0.0)
        cut(o, n, s->epsilon * sum_of(o, *n));
    if (s->eta > 0.0)
        cut(o, n, fmin(s->eta, sqrt(s->eta) * exp(-entropy_of(o, *n))) * sum_of(o, *n));
    return sum_of(o, *n);
}

static void draw(const struct kd_sample *s, int64_t i, struct option *o)
{
    const float *x = s->x + i / s->per_row * s->cols;
    int64_t n = 0, at = 0;
    double total, sum = 0.0;

    s->tokens[i] = 0;
    s->log_probs[i] = -INFINITY;
    for (int64_t c = 0; c < s->cols; c++)
        if (x[c] > -INFINITY)
            o[n++] = (struct option){.score = x[c], .token = (int32_t)c};
    if (n == 0)
        return;
    qsort(o, (size_t)n, sizeof *o, by_score);
    for (int64_t k = 0; k < n; k++)
        o[k].weight = exp(((double)o[k].score - o[n - 1].score) / s->temperature);
    (void)warp(s, o, &n);
    total = warp_further(s, o, &n);
    qsort(o, (size_t)n, sizeof *o, by_token);
    for (; at < n - 1; at++) {
        sum += o[at].weight;
        if (s->u[i] * total < sum)
            break;
    }
    s->tokens[i] = o[at].token;
    s->log_probs[i] = log(o[at].weight / total);
}

int ref_sample(struct kd_backend *be, const struct kd_sample *s)
{
    struct option *o = malloc(sizeof *o * (size_t)s->cols);

    (void)be;
    if (!o)
        return KD_FAIL(KD_ENOMEM, "reference sampling: no memory");
    for (int64_t i = 0; i < s->n; i++)
        draw(s, i, o);
    free(o);
    return KD_OK;
}
