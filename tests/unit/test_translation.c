/* SPDX-License-Identifier: Apache-2.0 */
/* BLEU, chrF and TER against scores, counts and signatures by sacreBLEU over texts that
 * are hard to cut, for all tokenizers and options; and sums against the order in which
 * examples come. */
#include "kdhpc/metric/metric.h"

#include "../golden/translation_golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static struct kd_mt_scorer *scorer;

static struct kd_text text_of(const char *s)
{
    return (struct kd_text){s, (int64_t)strlen(s)};
}

/* Output and references of row I. */
static struct kd_text row(int i, struct kd_text refs[GOLDEN_REFS])
{
    for (int r = 0; r < GOLDEN_REFS; r++)
        refs[r] = text_of(golden_rows[i].refs[r]);
    return text_of(golden_rows[i].output);
}

static void expect(const char *what, int k, double got, double want)
{
    if (!(fabs(got - want) <= 1e-9))
        fail_msg("%s, case %d: %.15g, not %.15g", what, k, got, want);
}

static void expect_text(struct kd_str *got, const char *want)
{
    assert_string_equal(got->data, want);
    kd_str_free(got);
}

static void bleu_add(const struct kd_bleu_options *o, int i, int n_refs,
                     struct kd_bleu *b)
{
    struct kd_text refs[GOLDEN_REFS], output = row(i, refs);

    assert_int_equal(kd_bleu_add(scorer, o, output, refs, n_refs, b), KD_OK);
}

static void bleu_is_sacrebleus(void **state)
{
    (void)state;
    for (int k = 0; k < COUNT(golden_bleu); k++) {
        const struct kd_bleu_options *o = &golden_bleu[k].options;
        struct kd_str signature = {0};
        struct kd_bleu b = {0};

        for (int i = 0; i < COUNT(golden_rows); i++)
            bleu_add(o, i, golden_bleu[k].n_refs, &b);
        expect("BLEU", k, kd_bleu_score(&b, o), golden_bleu[k].score);
        expect("output tokens", k, b.output_tokens, golden_bleu[k].output_tokens);
        expect("reference tokens", k, b.reference_tokens,
               golden_bleu[k].reference_tokens);
        for (int n = 0; n < KD_BLEU_ORDERS; n++) {
            expect("correct", k, b.correct[n], golden_bleu[k].correct[n]);
            expect("total", k, b.total[n], golden_bleu[k].total[n]);
        }
        assert_int_equal(kd_bleu_signature(o, golden_bleu[k].n_refs, &signature), 0);
        expect_text(&signature, golden_bleu[k].signature);
    }
}

static void chrf_is_sacrebleus(void **state)
{
    (void)state;
    for (int k = 0; k < COUNT(golden_chrf); k++) {
        const struct kd_chrf_options *o = &golden_chrf[k].options;
        struct kd_str signature = {0}, name = {0};
        struct kd_chrf c = {0};

        for (int i = 0; i < COUNT(golden_rows); i++) {
            struct kd_text refs[GOLDEN_REFS], output = row(i, refs);

            assert_int_equal(
                kd_chrf_add(scorer, o, output, refs, golden_chrf[k].n_refs, &c), 0);
        }
        expect("chrF", k, kd_chrf_score(&c, o), golden_chrf[k].score);
        assert_int_equal(kd_chrf_signature(o, golden_chrf[k].n_refs, &signature), 0);
        expect_text(&signature, golden_chrf[k].signature);
        assert_int_equal(kd_chrf_name(o, &name), 0);
        expect_text(&name, golden_chrf[k].name);
    }
}

static void ter_is_sacrebleus(void **state)
{
    (void)state;
    for (int k = 0; k < COUNT(golden_ter); k++) {
        const struct kd_ter_options *o = &golden_ter[k].options;
        int n_refs = golden_ter[k].n_refs;
        struct kd_str signature = {0};
        struct kd_ter t = {0};

        for (int i = 0; i < COUNT(golden_rows); i++) {
            struct kd_text refs[GOLDEN_REFS], output = row(i, refs);

            assert_int_equal(kd_ter_add(scorer, o, output, refs, n_refs, &t), 0);
        }
        expect("TER", k, kd_ter_score(&t, n_refs), golden_ter[k].score);
        assert_int_equal(kd_ter_signature(o, n_refs, &signature), 0);
        expect_text(&signature, golden_ter[k].signature);
    }
}

static void examples_alone(void **state)
{
    struct kd_bleu_options bleu = KD_BLEU_DEFAULTS;
    struct kd_chrf_options chrf = KD_CHRF_DEFAULTS;
    const struct kd_ter_options ter = {0};

    (void)state;
    bleu.effective_order = true;
    chrf.word_order = 2;
    for (int i = 0; i < COUNT(golden_rows); i++) {
        struct kd_text refs[GOLDEN_REFS], output = row(i, refs);
        struct kd_bleu b = {0};
        struct kd_chrf c = {0};
        struct kd_ter t = {0};

        assert_int_equal(kd_bleu_add(scorer, &bleu, output, refs, 1, &b), 0);
        assert_int_equal(kd_chrf_add(scorer, &chrf, output, refs, 1, &c), 0);
        assert_int_equal(kd_ter_add(scorer, &ter, output, refs, 1, &t), 0);
        expect("BLEU of a row", i, kd_bleu_score(&b, &bleu), golden_alone[i][0]);
        expect("chrF++ of a row", i, kd_chrf_score(&c, &chrf), golden_alone[i][1]);
        expect("TER of a row", i, kd_ter_score(&t, 1), golden_alone[i][2]);
    }
}

static void order_does_not_matter(void **state)
{
    const int n = COUNT(golden_rows);
    struct kd_bleu forward = {0}, backward = {0};

    (void)state;
    for (int i = 0; i < n; i++) {
        bleu_add(&KD_BLEU_DEFAULTS, i, 2, &forward);
        bleu_add(&KD_BLEU_DEFAULTS, n - 1 - i, 2, &backward);
    }
    assert_memory_equal(&forward, &backward, sizeof forward);
    assert_true(kd_bleu_score(&forward, &KD_BLEU_DEFAULTS) > 0);
}

static double first_over_second(const double *sums, void *arg)
{
    (void)arg;
    return sums[0] / sums[1];
}

/* Bounds of a ratio of sums: equal rows have none, others hold the ratio between. */
static void bounds_of_sums(void **state)
{
    double alike[40], other[40], low, high;

    (void)state;
    for (int i = 0; i < 20; i++) {
        alike[2 * i] = 1;
        alike[2 * i + 1] = 4;
        other[2 * i] = i;
        other[2 * i + 1] = 20;
    }
    assert_int_equal(
        kd_bootstrap_sums(alike, 20, 2, 50, 1, first_over_second, NULL, &low, &high),
        0);
    assert_true(low == 0.25 && high == 0.25);
    assert_int_equal(
        kd_bootstrap_sums(other, 20, 2, 500, 1, first_over_second, NULL, &low, &high),
        0);
    assert_true(low > 0.3 && low < 0.45 && high > 0.5 && high < 0.65);
}

static int make_scorer(void **state)
{
    (void)state;
    return kd_mt_scorer_new(&scorer);
}

static int free_scorer(void **state)
{
    (void)state;
    kd_mt_scorer_free(scorer);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bleu_is_sacrebleus),    cmocka_unit_test(chrf_is_sacrebleus),
        cmocka_unit_test(ter_is_sacrebleus),     cmocka_unit_test(examples_alone),
        cmocka_unit_test(order_does_not_matter), cmocka_unit_test(bounds_of_sums),
    };

    return cmocka_run_group_tests(tests, make_scorer, free_scorer);
}
