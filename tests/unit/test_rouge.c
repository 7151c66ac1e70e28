/* SPDX-License-Identifier: Apache-2.0 */
/* ROUGE against numbers by rouge_score, against itself over block boundaries, and the
 * bootstrap against what it must satisfy. */
#include "kdhpc/base/rng.h"
#include "kdhpc/metric/metric.h"

#include "../golden/rouge_golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { N_GOLDEN = sizeof rouge_golden / sizeof rouge_golden[0] };

static struct kd_rouge score(struct kd_rouge_scorer *s, const char *t, const char *p)
{
    struct kd_rouge r;

    assert_int_equal(
        kd_rouge_score(s, t, (int64_t)strlen(t), p, (int64_t)strlen(p), &r), KD_OK);
    return r;
}

static void check_prf(struct kd_prf got, const double want[3])
{
    assert_true(fabs(got.precision - want[0]) < 1e-12);
    assert_true(fabs(got.recall - want[1]) < 1e-12);
    assert_true(fabs(got.f1 - want[2]) < 1e-12);
}

/* Twice over with one scorer: the second round finds its words known. */
static void scores_are_rouge_scores(void **state)
{
    struct kd_rouge_scorer *s;

    (void)state;
    assert_int_equal(kd_rouge_scorer_new(&s), KD_OK);
    for (int i = 0; i < 2 * N_GOLDEN; i++) {
        int k = i % N_GOLDEN;
        struct kd_rouge r =
            score(s, rouge_golden[k].target, rouge_golden[k].prediction);

        check_prf(r.r1, rouge_golden[k].prf[0]);
        check_prf(r.r2, rouge_golden[k].prf[1]);
        check_prf(r.rl, rouge_golden[k].prf[2]);
        check_prf(r.rlsum, rouge_golden[k].prf[3]);
    }
    kd_rouge_scorer_free(s);
}

/* More words than the table starts with: it grows, and ids stay right. */
static void many_words_stay_apart(void **state)
{
    struct kd_rouge_scorer *s;
    char a[64], b[64];

    (void)state;
    assert_int_equal(kd_rouge_scorer_new(&s), KD_OK);
    for (int i = 0; i < 20000; i++) {
        struct kd_rouge r;

        (void)snprintf(a, sizeof a, "w%d x%d y%d", i, i, i);
        (void)snprintf(b, sizeof b, "w%d x%d y%d", i, i + 1, i);
        r = score(s, a, b);
        assert_true(fabs(r.r1.f1 - 2.0 / 3) < 1e-12);
        assert_true(r.r2.f1 == 0);
    }
    kd_rouge_scorer_free(s);
}

/* A text against itself scores 1 at every length around the 64-position blocks. */
static void identity_at_every_length(void **state)
{
    struct kd_rouge_scorer *s;
    char text[1024];
    int64_t len = 0;

    (void)state;
    assert_int_equal(kd_rouge_scorer_new(&s), KD_OK);
    for (int n = 1; n <= 200; n++) {
        struct kd_rouge r;

        text[len++] = (char)('a' + n * n % 7);
        text[len++] = n % 10 ? ' ' : '\n';
        assert_int_equal(kd_rouge_score(s, text, len, text, len, &r), KD_OK);
        assert_true(r.r1.f1 == 1 && r.rl.f1 == 1 && r.rlsum.f1 == 1);
        assert_true(r.r2.f1 == (n > 1));
    }
    kd_rouge_scorer_free(s);
}

/* Bounds enclose the mean, and for many normal values they are its standard error
 * times 1.96; the same seed gives the same digits. */
static void bootstrap_bounds(void **state)
{
    enum { N = 2000 };
    static double v[N];
    double mean, low, high, low2, high2, sum = 0;

    (void)state;
    for (int i = 0; i < N; i++) {
        v[i] = kd_rng_normal(11, KD_RNG_TEST, 0, (uint64_t)i);
        sum += v[i];
    }
    assert_int_equal(kd_bootstrap(v, N, 1000, 5, &mean, &low, &high), KD_OK);
    assert_true(mean == sum / N);
    assert_true(fabs((high - low) / 2 - 1.96 / sqrt(N)) < 0.1 * 1.96 / sqrt(N));
    assert_true(fabs((high + low) / 2 - mean) < 0.01);
    assert_int_equal(kd_bootstrap(v, N, 1000, 5, &mean, &low2, &high2), KD_OK);
    assert_true(low2 == low && high2 == high);
    assert_int_equal(kd_bootstrap(v, N, 1000, 6, &mean, &low2, &high2), KD_OK);
    assert_true(low2 != low);
    assert_int_equal(kd_bootstrap(v, N, 0, 5, &mean, &low, &high), KD_OK);
    assert_true(low == mean && high == mean);
    assert_int_equal(kd_bootstrap(v, 0, 1000, 5, &mean, &low, &high), KD_OK);
    assert_true(mean == 0 && low == 0 && high == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_rouge_scores),
        cmocka_unit_test(many_words_stay_apart),
        cmocka_unit_test(identity_at_every_length),
        cmocka_unit_test(bootstrap_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
