/* SPDX-License-Identifier: Apache-2.0 */
/* The examples that the engine is measured on: lengths of real text (bench_lengths.h),
 * over and over, with random ids; and the batches that they come in.
 *
 * Everything is a function of options and example number, simple enough to be told to
 * another program: example i has the lengths of pair i mod 2,000.  Batches are cut from
 * as many whole lists as hold batch_size examples, in their order or, with
 * sortish_sampler, longest source first (then longest target, then first number):
 * batch_size examples at a time, a rest being left out, or as many as have
 * max_tokens_per_batch tokens of source and target, and at least one.  Update u takes
 * batch (u - 1) stride mod n, the stride being the largest number up to 0.618 n that
 * shares no factor with n, so that the first few updates see long and short batches. */
#include "bench.h"

#include "bench_lengths.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/base/rng.h"

#include <stdio.h>
#include <stdlib.h>

enum { FIRST_ID = 3 }; /* ids below are special */

int64_t bench_length(int64_t example, bool target)
{
    int64_t i = example % BENCH_LENGTHS;

    return target ? bench_target_lengths[i] : bench_source_lengths[i];
}

int32_t bench_id(uint64_t seed, int64_t example, bool target, int64_t position,
                 int64_t vocab)
{
    uint64_t r = kd_rng_u64(seed, KD_RNG_TEST, (uint64_t)example,
                            (uint64_t)target << 32 | (uint64_t)position);

    return FIRST_ID + (int32_t)(r % (uint64_t)(vocab - FIRST_ID));
}

static int longest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b, d;

    d = bench_length(y, false) - bench_length(x, false);
    if (d == 0)
        d = bench_length(y, true) - bench_length(x, true);
    if (d == 0)
        d = x - y;
    return (d > 0) - (d < 0);
}

static int64_t factor_shared(int64_t a, int64_t b)
{
    while (b) {
        int64_t rest = a % b;

        a = b;
        b = rest;
    }
    return a;
}

static int64_t stride_of(int64_t n)
{
    int64_t stride = (int64_t)(0.618 * (double)n);

    while (stride > 1 && factor_shared(stride, n) != 1)
        stride--;
    return stride > 1 ? stride : 1;
}

static void cut(const struct bench_config *c, struct bench_plan *p, int64_t n)
{
    int64_t tokens = 0, start = 0;

    for (int64_t i = 0; i < n; i++) {
        int64_t more =
            bench_length(p->order[i], false) + bench_length(p->order[i], true);
        bool full = c->max_tokens_per_batch > 0
                        ? tokens + more > c->max_tokens_per_batch
                        : i - start == c->batch_size;

        if (full && i > start) {
            p->starts[++p->n_batches] = start = i;
            tokens = 0;
        }
        tokens += more;
    }
    if (c->max_tokens_per_batch > 0 || n - start == c->batch_size)
        p->starts[++p->n_batches] = n;
}

int bench_plan_new(const struct bench_config *c, struct bench_plan *out)
{
    int64_t lists =
        c->max_tokens_per_batch > 0 ? 1 : 1 + (c->batch_size - 1) / BENCH_LENGTHS;
    int64_t n = lists * BENCH_LENGTHS;

    *out = (struct bench_plan){0};
    KD_TRY(kd_calloc(n, sizeof *out->order, &out->order));
    KD_TRY(kd_calloc(n + 1, sizeof *out->starts, &out->starts));
    for (int64_t i = 0; i < n; i++)
        out->order[i] = i;
    if (c->sortish_sampler)
        qsort(out->order, (size_t)n, sizeof *out->order, longest_first);
    cut(c, out, n);
    out->stride = stride_of(out->n_batches);
    return KD_OK;
}

const int64_t *bench_plan_batch(const struct bench_plan *p, int64_t step, int64_t *n)
{
    int64_t b = (step - 1) * p->stride % p->n_batches;

    *n = p->starts[b + 1] - p->starts[b];
    return p->order + p->starts[b];
}

void bench_plan_free(struct bench_plan *p)
{
    free(p->order);
    free(p->starts);
}

void bench_batch_text(const struct bench_config *c, char *out, size_t cap)
{
    if (c->max_tokens_per_batch > 0)
        snprintf(out, cap, "%lld tokens", (long long)c->max_tokens_per_batch);
    else
        snprintf(out, cap, "batch %lld", (long long)c->batch_size);
}
