/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of files: counts over any byte ranges, starts at any line, and what does not
 * belong to a line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kdhpc/base/str.h"
#include "kdhpc/text/lines.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/tmp/kd_lines_XXXXXX";

static void write_bytes(const char *bytes, int64_t len)
{
    assert_int_equal(kd_write_file(path, bytes, len), KD_OK);
}

/** The rest of L are exactly LINES[n]. */
static void check_lines(struct kd_lines *l, const char *const *lines, int n)
{
    const char *line = NULL;
    int64_t len = 0;

    for (int i = 0; i < n; i++) {
        assert_int_equal(kd_lines_next(l, &line, &len), KD_OK);
        assert_non_null(line);
        assert_int_equal(len, strlen(lines[i]));
        assert_memory_equal(line, lines[i], (size_t)len);
    }
    assert_int_equal(kd_lines_next(l, &line, &len), KD_OK);
    assert_null(line);
}

static void marks_and_returns_are_no_text(void **state)
{
    static const char *const lines[] = {"one", "", "three\rx", "", "last"};
    const char text[] = "\xEF\xBB\xBFone\r\n\nthree\rx\n\r\nlast";
    struct kd_lines *l = NULL;
    bool newline_last = true;
    int64_t bytes = 0, n = 0;

    (void)state;
    write_bytes(text, sizeof text - 1);
    assert_int_equal(kd_lines_size(path, &bytes, &newline_last), KD_OK);
    assert_int_equal(bytes, sizeof text - 1);
    assert_false(newline_last);
    assert_int_equal(kd_lines_count(path, 0, bytes, &n), KD_OK);
    assert_int_equal(n, 4);
    assert_int_equal(kd_lines_open(path, 0, 0, &l), KD_OK);
    assert_true(kd_lines_had_bom(l));
    check_lines(l, lines, 5);
    assert_int_equal(kd_lines_returns(l), 2);
    kd_lines_close(l);
    write_bytes(text, 3);
    assert_int_equal(kd_lines_size(path, &bytes, &newline_last), KD_OK);
    assert_int_equal(bytes, 0);
    write_bytes("\n", 1);
    assert_int_equal(kd_lines_size(path, &bytes, &newline_last), KD_OK);
    assert_int_equal(bytes, 1);
    assert_true(newline_last);
}

static void any_range_and_any_start(void **state)
{
    const char text[] = "a\nbb\n\nccc\ndddd\n";
    static const char *const lines[] = {"a", "bb", "", "ccc", "dddd"};
    const int64_t size = sizeof text - 1;

    (void)state;
    write_bytes(text, size);
    for (int64_t cut = 0; cut <= size; cut++) {
        int64_t left = 0, right = 0;

        assert_int_equal(kd_lines_count(path, 0, cut, &left), KD_OK);
        assert_int_equal(kd_lines_count(path, cut, size, &right), KD_OK);
        assert_int_equal(left + right, 5);
        for (int64_t first = left + 1; first <= 5; first++) {
            struct kd_lines *l = NULL;

            assert_int_equal(kd_lines_open(path, cut, first - left, &l), KD_OK);
            check_lines(l, lines + first, (int)(5 - first));
            kd_lines_close(l);
        }
    }
}

static void lines_longer_than_the_buffer(void **state)
{
    const int64_t n = 3 * 1000 * 1000;
    char *text = malloc((size_t)n + 4);
    struct kd_lines *l = NULL;
    const char *line = NULL;
    int64_t len = 0;

    (void)state;
    assert_non_null(text);
    memset(text, 'x', (size_t)n);
    memcpy(text + n, "\ny\n", 3);
    write_bytes(text, n + 3);
    assert_int_equal(kd_lines_open(path, 0, 0, &l), KD_OK);
    assert_int_equal(kd_lines_next(l, &line, &len), KD_OK);
    assert_int_equal(len, n);
    assert_memory_equal(line, text, (size_t)n);
    check_lines(l, (const char *const[]){"y"}, 1);
    kd_lines_close(l);
    free(text);
}

static void missing_files_and_directories(void **state)
{
    struct kd_lines *l = NULL;
    int64_t bytes = 0;
    bool newline_last = false;

    (void)state;
    assert_int_equal(kd_lines_open("/nonexistent", 0, 0, &l), KD_EINPUT);
    assert_null(l);
    assert_int_equal(kd_lines_size("/tmp", &bytes, &newline_last), KD_EINPUT);
    kd_error_clear();
    write_bytes("", 0);
    assert_int_equal(kd_lines_open(path, 0, 0, &l), KD_OK);
    check_lines(l, NULL, 0);
    kd_lines_close(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_and_returns_are_no_text),
        cmocka_unit_test(any_range_and_any_start),
        cmocka_unit_test(lines_longer_than_the_buffer),
        cmocka_unit_test(missing_files_and_directories),
    };
    int fd = mkstemp(path), rc = 0;

    if (fd < 0)
        return 1;
    (void)close(fd);
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    return rc;
}
