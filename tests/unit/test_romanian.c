/* SPDX-License-Identifier: Apache-2.0 */
/* Romanian texts against the programs that define how they are scored. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../golden/romanian_golden.h"

#include "kdhpc/text/romanian.h"

#include <string.h>

enum { N_GOLDEN = sizeof golden_romanian / sizeof *golden_romanian };

/* Words of S with one space between, in place. */
static void squeeze(struct kd_str *s)
{
    int64_t n = 0;

    for (int64_t i = 0; i < s->len; i++)
        if (s->data[i] != ' ' || (n > 0 && s->data[n - 1] != ' '))
            s->data[n++] = s->data[i];
    n -= n > 0 && s->data[n - 1] == ' ';
    s->data[n] = '\0';
    s->len = n;
}

static void romanian_is_scored_as_usual(void **state)
{
    struct kd_romanian *r;
    struct kd_str out = {0};

    (void)state;
    assert_int_equal(kd_romanian_new(&r), KD_OK);
    for (int i = 0; i < N_GOLDEN; i++) {
        const char *text = golden_romanian[i].text;

        assert_int_equal(kd_romanian_apply(r, text, (int64_t)strlen(text), &out),
                         KD_OK);
        squeeze(&out);
        assert_string_equal(out.data, golden_romanian[i].tokens);
    }
    kd_str_free(&out);
    kd_romanian_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(romanian_is_scored_as_usual),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
