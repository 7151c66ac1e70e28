/* SPDX-License-Identifier: Apache-2.0 */
/* The stemmer against stems by NLTK: every rule, every condition, the irregular words.
 */
#include "kdhpc/metric/metric.h"

#include "../golden/porter_golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void stems_are_nltks(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof porter_golden / sizeof porter_golden[0]; i++) {
        char word[64] = {0};
        size_t len = strlen(porter_golden[i][0]);
        int64_t n;

        memcpy(word, porter_golden[i][0], len);
        n = kd_porter_stem(word, (int64_t)len);
        assert_true(n >= 0 && (size_t)n <= len);
        word[n] = 0;
        assert_string_equal(word, porter_golden[i][1]);
    }
}

static void long_words_are_fine(void **state)
{
    static char word[100001];
    int64_t n;

    (void)state;
    memset(word, 'y', 100000);
    n = kd_porter_stem(word, 100000);
    assert_int_equal(n, 100000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stems_are_nltks),
        cmocka_unit_test(long_words_are_fine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
