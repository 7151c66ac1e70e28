/* SPDX-License-Identifier: Apache-2.0 */
/* Batch plans and schedules: invariants of plans, and multipliers of the references. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "kdhpc/train/loader.h"
#include "kdhpc/train/optim.h"

#include <math.h>

enum { N = 1003 };
static int32_t src[N], tgt[N];

static int set_up(void **state)
{
    (void)state;
    for (int i = 0; i < N; i++) {
        src[i] = 5 + (i * 7919) % 120;
        tgt[i] = 3 + (i * 104729) % 17;
    }
    return 0;
}

/* Every example once, batches in order and none empty. */
static void assert_plan(const struct kd_epoch_plan *p, int64_t n)
{
    char *seen = calloc((size_t)n, 1);

    assert_int_equal(p->starts[0], 0);
    assert_int_equal(p->starts[p->n_batches], n);
    for (int64_t b = 0; b < p->n_batches; b++)
        assert_true(p->starts[b] < p->starts[b + 1]);
    for (int64_t i = 0; i < n; i++) {
        assert_in_range(p->order[i], 0, n - 1);
        assert_int_equal(seen[p->order[i]]++, 0);
    }
    free(seen);
}

static void corpus_order(void **state)
{
    struct kd_loader_options o = {.batch_size = 10, .sortish = true};
    struct kd_epoch_plan p;

    (void)state;
    assert_int_equal(kd_plan_epoch(&o, src, tgt, N, 0, &p), KD_OK);
    assert_plan(&p, N);
    assert_int_equal(p.n_batches, 101);
    for (int64_t i = 0; i < N; i++)
        assert_int_equal(p.order[i], i); /* --shuffle false wins over sortish */
    kd_plan_free(&p);
}

static void sortish_sorts_and_leads_with_the_longest(void **state)
{
    struct kd_loader_options o = {
        .batch_size = 10, .shuffle = true, .sortish = true, .seed = 3};
    struct kd_epoch_plan p, q;
    int64_t spread = 0, differ = 0;

    (void)state;
    assert_int_equal(kd_plan_epoch(&o, src, tgt, N, 0, &p), KD_OK);
    assert_int_equal(kd_plan_epoch(&o, src, tgt, N, 1, &q), KD_OK);
    assert_plan(&p, N);
    assert_plan(&q, N);
    for (int64_t b = 0; b < p.n_batches; b++) {
        int32_t longest = src[p.order[p.starts[b]]];

        assert_true(longest <= src[p.order[0]]);
        for (int64_t i = p.starts[b] + 1; i < p.starts[b + 1]; i++) {
            assert_true(src[p.order[i]] <= src[p.order[i - 1]]);
            spread += longest - src[p.order[i]];
        }
    }
    assert_true(spread <
                3 * N); /* neighbours in length; random batches give about 60 N */
    for (int64_t i = 0; i < N; i++)
        differ += p.order[i] != q.order[i];
    assert_true(differ > N / 2);
    kd_plan_free(&p);
    kd_plan_free(&q);
}

static void token_batches_respect_the_bound(void **state)
{
    struct kd_loader_options o = {
        .max_tokens_per_batch = 600, .shuffle = true, .sortish = true, .seed = 1};
    struct kd_epoch_plan p;

    (void)state;
    assert_int_equal(kd_plan_epoch(&o, src, tgt, N, 0, &p), KD_OK);
    assert_plan(&p, N);
    for (int64_t b = 0; b < p.n_batches; b++) {
        int64_t tokens = 0;

        for (int64_t i = p.starts[b]; i < p.starts[b + 1]; i++)
            tokens += src[p.order[i]] + tgt[p.order[i]];
        assert_true(tokens <= 600);
    }
    kd_plan_free(&p);
    o.max_tokens_per_batch = 50;
    assert_int_equal(kd_plan_epoch(&o, src, tgt, N, 0, &p), KD_EINPUT);
    kd_error_clear();
}

static void dealing_balances(void **state)
{
    int64_t cost[64], load[3] = {0};
    int owner[64];

    (void)state;
    for (int i = 0; i < 64; i++)
        cost[i] = src[i] + tgt[i];
    assert_int_equal(kd_deal_by_cost(cost, 64, 3, owner), KD_OK);
    for (int i = 0; i < 64; i++)
        load[owner[i]] += cost[i];
    for (int p = 0; p < 3; p++)
        assert_true(llabs(load[p] - load[0]) < 20);
}

static void longest_first(void **state)
{
    struct kd_epoch_plan p;

    (void)state;
    assert_int_equal(kd_plan_longest_first(src, N, 32, &p), KD_OK);
    assert_plan(&p, N);
    for (int64_t i = 1; i < N; i++) {
        int32_t a = src[p.order[i - 1]], b = src[p.order[i]];

        assert_true(a > b || (a == b && p.order[i - 1] < p.order[i]));
    }
    kd_plan_free(&p);
}

/* Multipliers at updates 0, 1, 2, 6, 10, 11 for peak 3e-4, 2 of 10 updates of warm-up.
 */
static void schedules(void **state)
{
    static const int64_t at[] = {0, 1, 2, 6, 10, 11};
    static const struct {
        enum kd_schedule kind;
        double f[6];
    } cases[] = {
        {KD_LR_LINEAR, {0, .5, 1, .5, 0, 0}},
        {KD_LR_COSINE, {0, .5, 1, .5, 0, .038060}},
        {KD_LR_COSINE_RESTARTS, {0, .5, 1, .5, 0, 0}},
        {KD_LR_POLYNOMIAL, {0, .5, 1, .500167, .000333, .000333}},
        {KD_LR_CONSTANT, {0, .5, 1, 1, 1, 1}},
    };

    (void)state;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
        for (int i = 0; i < 6; i++)
            assert_true(fabs(kd_schedule_at(cases[c].kind, at[i], 2, 10, 3e-4) -
                             cases[c].f[i]) < 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(corpus_order),
        cmocka_unit_test(sortish_sorts_and_leads_with_the_longest),
        cmocka_unit_test(token_batches_respect_the_bound),
        cmocka_unit_test(dealing_balances),
        cmocka_unit_test(longest_first),
        cmocka_unit_test(schedules),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
