/* SPDX-License-Identifier: Apache-2.0 */
/* BLEU against counts and scores by sacrebleu, over a growing corpus, and its sums
 * against the order in which pairs come. */
#include "kdhpc/metric/metric.h"

#include "../golden/bleu_golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { N_GOLDEN = sizeof bleu_golden / sizeof bleu_golden[0] };

static void add(struct kd_bleu *b, int k)
{
    const char *t = bleu_golden[k].target, *p = bleu_golden[k].prediction;

    assert_int_equal(kd_bleu_add(b, t, (int64_t)strlen(t), p, (int64_t)strlen(p)), 0);
}

static void scores_are_sacrebleus(void **state)
{
    struct kd_bleu b = {0};

    (void)state;
    for (int k = 0; k < N_GOLDEN; k++) {
        add(&b, k);
        if (fabs(kd_bleu_score(&b) - bleu_golden[k].score) > 1e-9)
            fail_msg("pair %d: BLEU %.12g, not %.12g", k, kd_bleu_score(&b),
                     bleu_golden[k].score);
        for (int n = 0; n < KD_BLEU_ORDERS; n++) {
            assert_true(b.correct[n] == bleu_golden[k].correct[n]);
            assert_true(b.total[n] == bleu_golden[k].total[n]);
        }
        assert_true(b.prediction_tokens == bleu_golden[k].prediction_tokens);
        assert_true(b.target_tokens == bleu_golden[k].target_tokens);
    }
}

static void order_does_not_matter(void **state)
{
    struct kd_bleu forward = {0}, backward = {0};

    (void)state;
    for (int k = 0; k < N_GOLDEN; k++) {
        add(&forward, k);
        add(&backward, N_GOLDEN - 1 - k);
    }
    assert_memory_equal(&forward, &backward, sizeof forward);
    assert_true(kd_bleu_score(&forward) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_sacrebleus),
        cmocka_unit_test(order_does_not_matter),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
