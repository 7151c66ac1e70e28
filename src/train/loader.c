/* SPDX-License-Identifier: Apache-2.0 */
/* Batch plans: pure functions of lengths, options, seed and epoch.
 *
 * Order of an epoch: corpus order, or a permutation of the epoch's own.  Sortish cuts
 * the permutation into windows of 50 batches, sorts each by source length, and permutes
 * the batches with the one of the longest source first, so that memory runs out at the
 * start or never.  Ranks do not appear here: kd_deal_by_cost splits what was planned.
 */
#include "kdhpc/train/loader.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/rng.h"

#include <stdlib.h>
#include <string.h>

enum { WINDOW_BATCHES = 50 }; /* sortish window, as DistilBART's sampler */

struct keyed {
    int64_t key, index;
};

/* Descending key, ties by index: a total order, so qsort is stable enough. */
static int by_key_desc(const void *a, const void *b)
{
    const struct keyed *x = a, *y = b;

    if (x->key != y->key)
        return x->key < y->key ? 1 : -1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* Sort ORDER[n] by source length, longest first; equal lengths keep their order. */
static int sort_window(const int32_t *src_len, int64_t *order, int64_t n)
{
    struct keyed *k = NULL;
    int64_t *copy = NULL;
    int rc = KD_OK;

    KD_GO(kd_calloc(n, sizeof *k, &k));
    KD_GO(kd_calloc(n, sizeof *copy, &copy));
    for (int64_t i = 0; i < n; i++) {
        copy[i] = order[i];
        k[i] = (struct keyed){src_len[order[i]], i};
    }
    qsort(k, (size_t)n, sizeof *k, by_key_desc);
    for (int64_t i = 0; i < n; i++)
        order[i] = copy[k[i].index];
out:
    free(k);
    free(copy);
    return rc;
}

/* Cut ORDER into batches by the options; STARTS has room for n + 1. */
static int cut(const struct kd_loader_options *o, const int32_t *src_len,
               const int32_t *tgt_len, const int64_t *order, int64_t n, int64_t *starts,
               int64_t *n_batches)
{
    int64_t tokens = 0, count = 0, batches = 0;

    for (int64_t i = 0; i < n; i++) {
        int64_t cost = (int64_t)src_len[order[i]] + tgt_len[order[i]];
        bool full = o->max_tokens_per_batch > 0
                        ? tokens + cost > o->max_tokens_per_batch
                        : count == o->batch_size;

        if (o->max_tokens_per_batch > 0 && cost > o->max_tokens_per_batch)
            return KD_FAIL(KD_EINPUT,
                           "example %lld has %lld tokens, more than "
                           "--max_tokens_per_batch %lld",
                           (long long)order[i], (long long)cost,
                           (long long)o->max_tokens_per_batch);
        if (i == 0 || full) {
            starts[batches++] = i;
            tokens = count = 0;
        }
        tokens += cost;
        count++;
    }
    starts[batches] = n;
    *n_batches = batches;
    return KD_OK;
}

/* Permute the batches of PLAN, the one that starts with the longest source first. */
static int shuffle_batches(const struct kd_loader_options *o, const int32_t *src_len,
                           int64_t epoch, struct kd_epoch_plan *plan)
{
    int64_t nb = plan->n_batches, n = nb ? plan->starts[nb] : 0, longest = 0, at = 0;
    int64_t *perm = NULL, *order = NULL, *starts = NULL;
    int rc = KD_OK;

    if (nb < 2)
        return KD_OK;
    KD_GO(kd_calloc(nb, sizeof *perm, &perm));
    KD_GO(kd_calloc(n, sizeof *order, &order));
    KD_GO(kd_calloc(nb + 1, sizeof *starts, &starts));
    kd_rng_permute(o->seed, KD_RNG_SHUFFLE, 2 * (uint64_t)epoch + 1, perm, nb);
    for (int64_t b = 1; b < nb; b++)
        if (src_len[plan->order[plan->starts[perm[b]]]] >
            src_len[plan->order[plan->starts[perm[longest]]]])
            longest = b;
    int64_t first = perm[longest];

    perm[longest] = perm[0];
    perm[0] = first;
    for (int64_t b = 0; b < nb; b++) {
        int64_t from = plan->starts[perm[b]], len = plan->starts[perm[b] + 1] - from;

        memcpy(order + at, plan->order + from, (size_t)len * sizeof *order);
        starts[b] = at;
        at += len;
    }
    starts[nb] = n;
    memcpy(plan->order, order, (size_t)n * sizeof *order);
    memcpy(plan->starts, starts, (size_t)(nb + 1) * sizeof *starts);
out:
    free(perm);
    free(order);
    free(starts);
    return rc;
}

/* Examples in a sortish window; by tokens, as many as would fill about 50 batches. */
static int64_t window_examples(const struct kd_loader_options *o,
                               const int32_t *src_len, const int32_t *tgt_len,
                               int64_t n)
{
    int64_t total = 0;

    if (o->max_tokens_per_batch <= 0)
        return WINDOW_BATCHES * o->batch_size;
    for (int64_t i = 0; i < n; i++)
        total += (int64_t)src_len[i] + tgt_len[i];
    return total ? 1 + WINDOW_BATCHES * o->max_tokens_per_batch * n / total : n;
}

int kd_plan_epoch(const struct kd_loader_options *o, const int32_t *src_len,
                  const int32_t *tgt_len, int64_t n, int64_t epoch,
                  struct kd_epoch_plan *out)
{
    struct kd_epoch_plan plan = {0};
    bool sortish = o->shuffle && o->sortish;
    int rc = KD_OK;

    KD_GO(kd_calloc(n, sizeof *plan.order, &plan.order));
    KD_GO(kd_calloc(n + 1, sizeof *plan.starts, &plan.starts));
    for (int64_t i = 0; i < n; i++)
        plan.order[i] = i;
    if (o->shuffle)
        kd_rng_permute(o->seed, KD_RNG_SHUFFLE, 2 * (uint64_t)epoch, plan.order, n);
    if (sortish) {
        int64_t window = window_examples(o, src_len, tgt_len, n);

        for (int64_t i = 0; i < n; i += window)
            KD_GO(
                sort_window(src_len, plan.order + i, n - i < window ? n - i : window));
    }
    KD_GO(cut(o, src_len, tgt_len, plan.order, n, plan.starts, &plan.n_batches));
    if (sortish)
        KD_GO(shuffle_batches(o, src_len, epoch, &plan));
    *out = plan;
    return KD_OK;
out:
    kd_plan_free(&plan);
    return rc;
}

void kd_plan_free(struct kd_epoch_plan *p)
{
    free(p->starts);
    free(p->order);
    *p = (struct kd_epoch_plan){0};
}

int kd_deal_by_cost(const int64_t *cost, int64_t n, int n_parts, int *owner)
{
    struct keyed *k = NULL;
    int64_t *load = NULL;
    int rc = KD_OK;

    KD_GO(kd_calloc(n, sizeof *k, &k));
    KD_GO(kd_calloc(n_parts, sizeof *load, &load));
    for (int64_t i = 0; i < n; i++)
        k[i] = (struct keyed){cost[i], i};
    qsort(k, (size_t)n, sizeof *k, by_key_desc);
    for (int64_t i = 0; i < n; i++) {
        int least = 0;

        for (int p = 1; p < n_parts; p++)
            if (load[p] < load[least])
                least = p;
        owner[k[i].index] = least;
        load[least] += k[i].key;
    }
out:
    free(k);
    free(load);
    return rc;
}

int kd_plan_longest_first(const int32_t *src_len, int64_t n, int64_t batch_size,
                          struct kd_epoch_plan *out)
{
    struct kd_loader_options o = {.batch_size = batch_size};
    struct kd_epoch_plan plan = {0};
    int rc = KD_OK;

    KD_GO(kd_plan_epoch(&o, src_len, src_len, n, 0, &plan));
    KD_GO(sort_window(src_len, plan.order, n));
    *out = plan;
    return KD_OK;
out:
    kd_plan_free(&plan);
    return rc;
}
