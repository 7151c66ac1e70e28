/* SPDX-License-Identifier: Apache-2.0 */
/* The base layer against values that were not made by it: Philox vectors of the
 * Random123 distribution, UTF-8 cases of the Unicode standard, small files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kdhpc/base/json.h"
#include "kdhpc/base/log.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/base/rng.h"
#include "kdhpc/base/signal.h"
#include "kdhpc/base/str.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LEN(array) (sizeof(array) / sizeof *(array))

/* ---- status ---- */

static void first_failure_wins(void **state)
{
    (void)state;
    kd_error_clear();
    assert_int_equal(KD_FAIL(KD_EINPUT, "first %d\n\033line", 1), KD_EINPUT);
    assert_int_equal(KD_FAIL(KD_EOUTPUT, "second"), KD_EOUTPUT);
    assert_int_equal(kd_error_get()->code, KD_EINPUT);
    assert_string_equal(kd_error_get()->text, "first 1  line");
    assert_string_equal(kd_error_get()->file, "test_base.c");
    kd_error_clear();
    assert_int_equal(kd_error_get()->code, KD_OK);
    assert_int_equal(KD_FAIL(KD_ENOMEM, "again"), KD_ENOMEM);
    assert_string_equal(kd_error_get()->text, "again");
    kd_error_clear();
}

static void faults_hit_their_site_and_rank(void **state)
{
    (void)state;
    setenv("KD_FAULT", "here:0", 1);
    assert_int_equal(KD_FAULT("her"), KD_OK);
    assert_int_equal(KD_FAULT("there"), KD_OK);
#ifdef KDHPC_FAULTS
    assert_int_equal(KD_FAULT("here"), KD_EINTERNAL);
    kd_error_clear();
    setenv("KD_FAULT", "here:*", 1);
    assert_int_equal(KD_FAULT("here"), KD_EINTERNAL);
    kd_error_clear();
#endif
    setenv("KD_FAULT", "here:3", 1);
    assert_int_equal(KD_FAULT("here"), KD_OK);
    unsetenv("KD_FAULT");
}

/* ---- memory ---- */

static void memory_is_checked(void **state)
{
    int32_t *array = NULL;
    int64_t cap = 0;

    (void)state;
    assert_int_equal(kd_grow(&array, &cap, 100, sizeof *array), KD_OK);
    assert_true(cap >= 100);
    array[99] = 7;
    assert_int_equal(kd_grow(&array, &cap, 1000, sizeof *array), KD_OK);
    assert_int_equal(array[99], 7);
    free(array);
    assert_int_equal(kd_calloc(0, 8, &array), KD_OK);
    assert_non_null(array);
    free(array);
    assert_int_equal(kd_calloc(-1, 8, &array), KD_ENOMEM);
    kd_error_clear();
    assert_int_equal(kd_calloc(INT64_MAX, 64, &array), KD_ENOMEM);
    assert_null(array);
    kd_error_clear();
    assert_true(kd_peak_rss_bytes() > 100000);
}

/* ---- random numbers ---- */

/* philox4x32-10 of kat_vectors in Random123 1.14. */
static void philox_known_answers(void **state)
{
    static const struct {
        uint32_t ctr[4], key[2], want[4];
    } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    (void)state;
    for (size_t i = 0; i < LEN(kat); i++) {
        uint32_t got[4];

        kd_philox(kat[i].key, kat[i].ctr, got);
        assert_memory_equal(got, kat[i].want, sizeof got);
    }
}

static void draws_have_their_distribution(void **state)
{
    enum { N = 20000 };
    double sum = 0, sq = 0, mean = 0, below = 0;

    (void)state;
    for (uint64_t i = 0; i < N; i++) {
        double u = kd_rng_uniform(42, KD_RNG_TEST, 1, i),
               z = kd_rng_normal(42, KD_RNG_TEST, 2, i);

        assert_true(u >= 0 && u < 1);
        mean += u / N;
        sum += z / N;
        sq += z * z / N;
        below += z < -1.0;
    }
    assert_true(fabs(mean - 0.5) < 0.01); /* 5 standard errors: 0.0102 */
    assert_true(fabs(sum) < 0.035);
    assert_true(fabs(sq - 1) < 0.05);
    assert_true(fabs(below / N - 0.158655) < 0.013);
    assert_true(kd_rng_u64(42, KD_RNG_TEST, 0, 0) != kd_rng_u64(42, KD_RNG_INIT, 0, 0));
    assert_true(kd_rng_u64(42, KD_RNG_TEST, 0, 1) != kd_rng_u64(42, KD_RNG_TEST, 1, 0));
    assert_true(kd_rng_u64(1, KD_RNG_TEST, 0, 0) !=
                kd_rng_u64((uint64_t)1 << 32, KD_RNG_TEST, 0, 0));
}

static void permutations_are_fair(void **state)
{
    enum { DRAWS = 6000 };
    int counts[6] = {0};
    int64_t p[100], seen = 0;

    (void)state;
    for (uint64_t a = 0; a < DRAWS; a++) {
        kd_rng_permute(7, KD_RNG_SHUFFLE, a, p, 3);
        counts[p[0] * 2 + (p[1] > p[2])]++;
    }
    for (int i = 0; i < 6; i++)
        assert_in_range(counts[i], 850, 1150); /* 1000 +- 5 sigma */
    kd_rng_permute(7, KD_RNG_SHUFFLE, 0, p, 100);
    for (int i = 0; i < 100; i++)
        seen += (int64_t)1 << (p[i] % 32);
    assert_int_equal(seen, 3 * ((INT64_C(1) << 32) - 1) + 15); /* each of 0..99 once */
    kd_rng_permute(7, KD_RNG_SHUFFLE, 0, p, 0);
}

/* ---- strings and files ---- */

static void strings_grow_and_bound(void **state)
{
    struct kd_str s = {0};
    char small[4], *copy;

    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_int_equal(kd_str_printf(&s, "%d,", i), KD_OK);
    assert_int_equal(s.len, 3890);
    assert_int_equal(strlen(s.data), 3890);
    kd_str_clear(&s);
    assert_int_equal(kd_str_append(&s, "a\0b", 3), KD_OK);
    assert_int_equal(s.len, 3);
    kd_str_free(&s);
    assert_int_equal(kd_format(small, sizeof small, "%d", 123), KD_OK);
    assert_int_equal(kd_format(small, sizeof small, "%d", 1234), KD_EINTERNAL);
    kd_error_clear();
    assert_int_equal(kd_strndup("hello", 2, &copy), KD_OK);
    assert_string_equal(copy, "he");
    free(copy);
    assert_int_equal(kd_path_join("a/", "b", &copy), KD_OK);
    assert_string_equal(copy, "a/b");
    free(copy);
}

static void utf8_is_validated(void **state)
{
    static const struct {
        const char *text;
        int64_t bad;
    } cases[] = {
        {"plain", -1},
        {"\xC3\xA9", -1},
        {"\xE2\x82\xAC\xF0\x9F\x98\x80", -1},
        {"\xF4\x8F\xBF\xBF", -1},
        {"a\x80", 1},              /* lone continuation */
        {"\xC0\xAF", 0},           /* overlong */
        {"\xE0\x9F\xBF", 0},       /* overlong */
        {"\xED\xA0\x80", 0},       /* surrogate */
        {"ab\xF4\x90\x80\x80", 2}, /* above U+10FFFF */
        {"\xE2\x82", 0},           /* cut short */
        {"\xC3(", 0},
    };
    static const uint32_t points[] = {0x24,   0x7F,   0x80,    0x7FF,   0x800,
                                      0x20AC, 0xFFFF, 0x10000, 0x10FFFF};

    (void)state;
    for (size_t i = 0; i < LEN(cases); i++)
        assert_int_equal(
            kd_utf8_invalid_at(cases[i].text, (int64_t)strlen(cases[i].text)),
            cases[i].bad);
    for (size_t i = 0; i < LEN(points); i++) {
        char bytes[4];
        int n = kd_utf8_put(points[i], bytes), used;

        assert_int_equal(kd_utf8_invalid_at(bytes, n), -1);
        assert_int_equal(kd_utf8_next(bytes, n, &used), points[i]);
        assert_int_equal(used, n);
    }
    assert_int_equal(kd_utf8_next("\xE2\x82\xAC", 3, &(int){0}), 0x20AC);
}

static void nearest_name_is_near(void **state)
{
    static const char *const names[] = {"max_steps", "learning_rate", "model", "mode"};

    (void)state;
    assert_int_equal(kd_nearest("max_stepz", names, 4), 0);
    assert_int_equal(kd_nearest("learnig_rate", names, 4), 1);
    assert_int_equal(kd_nearest("mod", names, 4), 3);
    assert_int_equal(kd_nearest("zzzzzzzz", names, 4), -1);
    assert_int_equal(kd_nearest("", names, 0), -1);
}

static void files_are_whole(void **state)
{
    char dir[] = "/tmp/kdhpc-base-XXXXXX", *deep, *path, *copy;
    struct kd_str text = {0};
    char *big = calloc(1, 200000);

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(kd_path_join(dir, "a/b/c", &deep), KD_OK);
    assert_int_equal(kd_make_dirs(deep), KD_OK);
    assert_int_equal(kd_make_dirs(deep), KD_OK); /* again is fine */
    assert_true(kd_path_is_dir(deep));
    assert_int_equal(kd_path_join(deep, "file", &path), KD_OK);
    memset(big, 'x', 200000);
    assert_int_equal(kd_write_file(path, big, 200000), KD_OK);
    assert_int_equal(kd_path_join(deep, "copy", &copy), KD_OK);
    assert_int_equal(kd_copy_file(path, copy), KD_OK);
    assert_int_equal(kd_read_file(copy, &text), KD_OK);
    assert_int_equal(text.len, 200000);
    assert_memory_equal(text.data, big, 200000);
    assert_int_equal(kd_make_dirs(path), KD_EOUTPUT); /* a file is in the way */
    assert_non_null(strstr(kd_error_get()->text, path));
    kd_error_clear();
    assert_int_equal(unlink(copy), 0);
    assert_int_equal(kd_read_file(copy, &text), KD_EINPUT);
    kd_error_clear();
    assert_int_equal(unlink(path), 0); /* no .part is left: the directories empty */
    assert_int_equal(rmdir(deep), 0);
    *strrchr(deep, '/') = '\0';
    assert_int_equal(rmdir(deep), 0);
    *strrchr(deep, '/') = '\0';
    assert_int_equal(rmdir(deep), 0);
    assert_int_equal(rmdir(dir), 0);
    kd_str_free(&text);
    free(big);
    free(deep);
    free(path);
    free(copy);
}

/* ---- JSON ---- */

static void json_reads(void **state)
{
    static const char text[] =
        "{\"a\": 3, \"b\": 2.5, \"c\": null, \"d\": \"\\u00e9\", \"e\": [1, 2], "
        "\"f\": true, \"big\": 1000000000000000019884624838656, \"s\": "
        "\"1000000000000000019884624838656\"}";
    struct kd_json *j = NULL;
    int keys = 0;

    (void)state;
    assert_int_equal(kd_json_parse(text, sizeof text - 1, "text", &j), KD_OK);
    assert_int_equal(kd_json_int(j, "a", -1), 3);
    assert_true(kd_json_num(j, "a", -1) == 3.0);
    assert_true(kd_json_num(j, "b", -1) == 2.5);
    assert_int_equal(kd_json_int(j, "b", -1), -1);
    assert_int_equal(kd_json_int(j, "c", 9), 9);
    assert_false(kd_json_has(j, "c"));
    assert_true(kd_json_has(j, "f") && kd_json_bool(j, "f", false));
    assert_string_equal(kd_json_str(j, "d", ""), "\xC3\xA9");
    assert_string_equal(kd_json_str(j, "none", "def"), "def");
    assert_int_equal(kd_json_len(kd_json_get(j, "e")), 2);
    assert_int_equal(kd_json_as_int(kd_json_at(kd_json_get(j, "e"), 1), 0), 2);
    assert_true(kd_json_num(j, "big", 0) == 1e30);
    assert_string_equal(kd_json_str(j, "s", ""), "1000000000000000019884624838656");
    for (void *it = kd_json_first(j); it; it = kd_json_next(j, it))
        keys += kd_json_key(it) && kd_json_value(it);
    assert_int_equal(keys, 8);
    kd_json_free(j);
    assert_int_equal(kd_json_parse("{\"a\": }", 7, "some.json", &j), KD_EINPUT);
    assert_non_null(strstr(kd_error_get()->text, "some.json"));
    assert_null(j);
    kd_error_clear();
}

static void json_writes(void **state)
{
    struct kd_json *j = kd_json_object(), *list = kd_json_array(), *back = NULL;
    char *text;

    (void)state;
    assert_int_equal(kd_json_set_num(j, "x", 0.1), KD_OK);
    assert_int_equal(kd_json_set_num(j, "n", NAN), KD_OK);
    assert_int_equal(kd_json_set_int(j, "i", INT64_MIN), KD_OK);
    assert_int_equal(kd_json_set_str(j, "s", "a\"b"), KD_OK);
    assert_int_equal(kd_json_set_bool(j, "t", true), KD_OK);
    assert_int_equal(kd_json_append_int(list, 1), KD_OK);
    assert_int_equal(kd_json_append_str(list, "z"), KD_OK);
    assert_int_equal(kd_json_set_json(j, "l", list), KD_OK);
    assert_int_equal(kd_json_set_str(j, "bad", "\xFF"), KD_ENOMEM);
    kd_error_clear();
    assert_int_equal(kd_json_dump(j, &text), KD_OK);
    assert_string_equal(text, "{\"x\":0.10000000000000001,\"n\":null,"
                              "\"i\":-9223372036854775808,\"s\":\"a\\\"b\",\"t\":true,"
                              "\"l\":[1,\"z\"]}");
    assert_int_equal(kd_json_parse(text, (int64_t)strlen(text), "t", &back), KD_OK);
    assert_true(kd_json_num(back, "x", 0) == 0.1);
    free(text);
    kd_json_del(back, "x");
    assert_false(kd_json_has(back, "x"));
    kd_json_free(back);
    kd_json_free(j);
}

static void a_signal_is_remembered(void **state)
{
    (void)state;
    kd_stop_install();
    assert_false(kd_stop_requested());
    assert_int_equal(raise(SIGTERM), 0);
    assert_true(kd_stop_requested());
}

/* ---- memory ---- */

/* TEXT into ROOT/NAME, with the directories on the way. */
static void put(const char *root, const char *name, const char *text)
{
    char path[512];
    FILE *f;

    snprintf(path, sizeof path, "%s%s", root, name);
    for (char *c = path + strlen(root) + 1; *c; c++) {
        if (*c != '/')
            continue;
        *c = '\0';
        (void)mkdir(path, 0700);
        *c = '/';
    }
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void control_groups_limit_memory(void **state)
{
    char root[] = "/tmp/kdhpc_groups_XXXXXX", remove_all[64];
    int64_t machine = kd_memory_limit_bytes("/nowhere");

    (void)state;
    assert_non_null(mkdtemp(root));
    assert_true(machine > 1 << 20 && machine % 4096 == 0);
    assert_true(kd_memory_limit_bytes("") <= machine);
    put(root, "/proc/self/cgroup", "0::/batch/job\n");
    assert_true(kd_memory_limit_bytes(root) == machine);
    put(root, "/sys/fs/cgroup/batch/job/memory.max", "max\n");
    assert_true(kd_memory_limit_bytes(root) == machine);
    put(root, "/sys/fs/cgroup/batch/memory.max", "900001\n");
    assert_true(kd_memory_limit_bytes(root) == 900001);
    put(root, "/sys/fs/cgroup/batch/job/memory.max", "800001\n");
    assert_true(kd_memory_limit_bytes(root) == 800001);
    put(root, "/sys/fs/cgroup/memory.max", "700001\n");
    assert_true(kd_memory_limit_bytes(root) == 700001);
    put(root, "/proc/self/cgroup", "0::/\n");
    assert_true(kd_memory_limit_bytes(root) == 700001);
    put(root, "/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "600001\n");
    put(root, "/proc/self/cgroup", "7:cpu:/\n5:cpuset,memory:/a/b/c\n0::/other\n");
    assert_true(kd_memory_limit_bytes(root) == 600001);
    put(root, "/proc/self/cgroup", "broken\n7:memory\n");
    assert_true(kd_memory_limit_bytes(root) == machine);
    snprintf(remove_all, sizeof remove_all, "rm -r %s", root);
    assert_int_equal(system(remove_all), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_failure_wins),
        cmocka_unit_test(faults_hit_their_site_and_rank),
        cmocka_unit_test(memory_is_checked),
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(draws_have_their_distribution),
        cmocka_unit_test(permutations_are_fair),
        cmocka_unit_test(strings_grow_and_bound),
        cmocka_unit_test(utf8_is_validated),
        cmocka_unit_test(nearest_name_is_near),
        cmocka_unit_test(files_are_whole),
        cmocka_unit_test(control_groups_limit_memory),
        cmocka_unit_test(json_reads),
        cmocka_unit_test(json_writes),
        cmocka_unit_test(a_signal_is_remembered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
