/* SPDX-License-Identifier: Apache-2.0 */
/* The safetensors reader against files made by hand, byte by byte: the three float
 * kinds, shards, and every rule of the header broken once.  Then writing and reading
 * back, with the file's bytes compared to the format's description. */
#include "kdhpc/store/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];

static const char *path_of(const char *name)
{
    static char path[128];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void remove_all(void)
{
    static const char *const names[] = {"model.safetensors",
                                        "model.safetensors.index.json",
                                        "s1.safetensors", "s2.safetensors"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(path_of(names[i]));
}

/* Write NAME: the length of HEADER plus LENGTH_MORE, HEADER, DATA. */
static void put(const char *name, const char *header, long length_more,
                const void *data, size_t bytes)
{
    FILE *f = fopen(path_of(name), "wb");
    size_t n = strlen(header) + (size_t)length_more;
    unsigned char length[8];

    assert_non_null(f);
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)(n >> (8 * i));
    fwrite(length, 1, 8, f);
    fwrite(header, 1, strlen(header), f);
    fwrite(data, 1, bytes, f);
    assert_int_equal(fclose(f), 0);
}

static const unsigned char data16[16] = {
    0x00, 0x00, 0x80, 0x3f, /* 1 */
    0x00, 0x00, 0x20, 0xc0, /* -2.5 */
    0x80, 0x3f, 0x20, 0xc0, /* bfloat16 1, -2.5 */
    0x00, 0x3c, 0x00, 0xc1, /* float16 1, -2.5 */
};

static const char three_kinds[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"h\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[12,16]},"
    "\"f\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]},"
    "\"e\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[8,8]},"
    "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,1],\"data_offsets\":[8,12]}} ";

static void check_pair(const struct kd_weights *s, const char *name,
                       enum kd_dtype dtype, int ndim, int64_t rows, int64_t cols)
{
    const struct kd_weight *t = kd_weights_find(s, name);
    enum kd_dtype found;
    float out[2] = {0, 0};

    assert_non_null(t);
    assert_int_equal(kd_weight_check(t), KD_OK);
    assert_true(kd_weight_is_float(t, &found));
    assert_int_equal(found, dtype);
    assert_int_equal(t->ndim, ndim);
    assert_int_equal(t->shape[0], rows);
    assert_int_equal(ndim > 1 ? t->shape[1] : 1, cols);
    kd_weight_to_f32(t, 0, 2, out);
    assert_true(out[0] == 1.0f && out[1] == -2.5f);
    kd_weight_to_f32(t, 1, 1, out);
    assert_true(out[0] == -2.5f);
}

static void three_float_kinds_are_read(void **state)
{
    struct kd_weights *s = NULL;

    (void)state;
    remove_all();
    put("model.safetensors", three_kinds, 0, data16, 16);
    assert_int_equal(kd_weights_open(dir, &s), KD_OK);
    assert_int_equal(kd_weights_count(s), 4);
    assert_string_equal(kd_weights_at(s, 0)->name, "b");
    check_pair(s, "f", KD_F32, 2, 1, 2);
    check_pair(s, "b", KD_BF16, 2, 2, 1);
    check_pair(s, "h", KD_F16, 1, 2, 1);
    assert_non_null(kd_weights_find(s, "e"));
    assert_int_equal(kd_weights_find(s, "e")->count, 0);
    assert_null(kd_weights_find(s, "absent"));
    kd_weights_close(s);
}

static void scalars_and_other_kinds(void **state)
{
    struct kd_weights *s = NULL;
    const struct kd_weight *t;
    int32_t last;

    (void)state;
    remove_all();
    put("model.safetensors",
        "{\"s\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
        "\"i\":{\"dtype\":\"I32\",\"shape\":[3],\"data_offsets\":[4,16]}}",
        0, data16, 16);
    assert_int_equal(kd_weights_open(dir, &s), KD_OK);
    t = kd_weights_find(s, "s");
    assert_int_equal(t->ndim, 0);
    assert_int_equal(t->count, 1);
    t = kd_weights_find(s, "i");
    assert_int_equal(t->count, 3);
    assert_false(kd_weight_is_float(t, NULL));
    assert_int_equal(kd_weight_check(t), KD_EINPUT);
    assert_non_null(strstr(kd_error_get()->text, "I32"));
    kd_error_clear();
    kd_weight_copy(t, 2, 1, &last);
    assert_memory_equal(&last, data16 + 12, 4);
    kd_weights_close(s);
}

static void refused_with(const char *word)
{
    struct kd_weights *s = NULL;

    assert_int_equal(kd_weights_open(dir, &s), KD_EINPUT);
    assert_null(s);
    if (!strstr(kd_error_get()->text, word))
        print_error("'%s' not in: %s\n", word, kd_error_get()->text);
    assert_non_null(strstr(kd_error_get()->text, word));
    kd_error_clear();
}

#define F32_AT(name, n, b, e)                                                          \
    "\"" name "\":{\"dtype\":\"F32\",\"shape\":[" #n "],\"data_offsets\":[" #b "," #e  \
    "]}"

static void broken_headers_are_refused(void **state)
{
    static const struct {
        const char *header;
        const char *word;
    } cases[] = {
        {"{" F32_AT("a", 2, 0, 8) "," F32_AT("b", 2, 4, 12) "}", "overlapping"},
        {"{" F32_AT("a", 2, 0, 8) "," F32_AT("b", 1, 12, 16) "}", "gap"},
        {"{" F32_AT("a", 2, 4, 12) "}", "gap"},
        {"{" F32_AT("a", 2, 0, 8) "}", "longer than its header"},
        {"{" F32_AT("a", 5, 0, 20) "}", "truncated"},
        {"{" F32_AT("a", 3, 0, 16) "}", "shape needs"},
        {"{" F32_AT("a", -4, 0, 16) "}", "not valid"},
        {"{" F32_AT("a", 4, 16, 0) "}", "not valid"},
        {"{" F32_AT("a", 4.5, 0, 16) "}", "not valid"},
        {"{" F32_AT("a", 4, 0, 16) "," F32_AT("a", 4, 0, 16) "}", "twice"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],"
         "\"data_offsets\":[0,16]}}",
         "not valid"},
        {"{\"a\":{\"dtype\":\"F9\",\"shape\":[4],\"data_offsets\":[0,16]}}", "F9"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":4,\"data_offsets\":[0,16]}}",
         "not a tensor"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0]}}",
         "not a tensor"},
        {"{\"a\":7}", "not a tensor"},
        {"{\"a\":", "JSON"},
        {"[1,2]", "not a safetensors"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        remove_all();
        put("model.safetensors", cases[i].header, 0, data16, 16);
        refused_with(cases[i].word);
    }
}

static void broken_lengths_are_refused(void **state)
{
    (void)state;
    remove_all();
    refused_with("neither");
    put("model.safetensors", "{}", 1000, data16, 0);
    refused_with("not in the file");
    put("model.safetensors", "{}", 2000000000L, data16, 0);
    refused_with("not in the file");
    put("model.safetensors", "", 0, data16, 0);
    refused_with("not a safetensors");
    assert_int_equal(truncate(path_of("model.safetensors"), 5), 0);
    refused_with("too short");
    assert_int_equal(truncate(path_of("model.safetensors"), 0), 0);
    refused_with("too short");
}

static void put_text(const char *name, const char *text)
{
    FILE *f = fopen(path_of(name), "wb");

    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static void shards_are_one_table(void **state)
{
    static const char index_name[] = "model.safetensors.index.json";
    struct kd_weights *s = NULL;

    (void)state;
    remove_all();
    put("s1.safetensors", "{" F32_AT("x", 2, 0, 8) "}", 0, data16, 8);
    put("s2.safetensors", "{" F32_AT("y", 2, 0, 8) "}", 0, data16, 8);
    put_text(index_name, "{\"metadata\":{\"total_size\":16},\"weight_map\":"
                         "{\"x\":\"s1.safetensors\",\"y\":\"s2.safetensors\"}}");
    assert_int_equal(kd_weights_open(dir, &s), KD_OK);
    assert_int_equal(kd_weights_count(s), 2);
    check_pair(s, "x", KD_F32, 1, 2, 1);
    check_pair(s, "y", KD_F32, 1, 2, 1);
    kd_weights_close(s);

    put_text(index_name, "{\"weight_map\":{\"x\":\"s2.safetensors\"}}");
    refused_with("x is not in s2");
    put_text(index_name, "{\"weight_map\":{\"x\":\"../s1.safetensors\"}}");
    refused_with("not in a file of this directory");
    put_text(index_name, "{\"weight_map\":{\"x\":\"s3.safetensors\"}}");
    refused_with("s3.safetensors");
    put_text(index_name, "{}");
    refused_with("weight_map");
    put("s2.safetensors", "{" F32_AT("x", 2, 0, 8) "}", 0, data16, 8);
    put_text(index_name, "{\"weight_map\":"
                         "{\"x\":\"s1.safetensors\",\"y\":\"s2.safetensors\"}}");
    refused_with("twice");
}

static void what_is_written_is_read(void **state)
{
    static const float a[6] = {0, 1, -2.5f, 1024, -0.125f, 3}, b[2] = {1, -2.5f};
    const struct kd_named_tensor tensors[] = {
        {.name = "z \"quoted\"", .ndim = 2, .shape = {2, 3}, .values = a},
        {.name = "b", .ndim = 1, .shape = {2}, .values = b},
        {.name = "empty", .ndim = 1, .shape = {0}, .values = b},
    };
    static const enum kd_dtype dtypes[] = {KD_F32, KD_BF16, KD_F16};

    (void)state;
    for (int k = 0; k < 3; k++) {
        struct kd_weights *s = NULL;
        const struct kd_weight *t;
        float out[6];

        remove_all();
        assert_int_equal(
            kd_safetensors_write(path_of("model.safetensors"), dtypes[k], tensors, 3),
            KD_OK);
        assert_int_not_equal(access(path_of("model.safetensors.part"), F_OK), 0);
        assert_int_equal(kd_weights_open(dir, &s), KD_OK);
        assert_int_equal(kd_weights_count(s), 3);
        check_pair(s, "b", dtypes[k], 1, 2, 1);
        t = kd_weights_find(s, "z \"quoted\"");
        assert_true(t && t->ndim == 2 && t->shape[0] == 2 && t->shape[1] == 3);
        kd_weight_to_f32(t, 0, 6, out);
        assert_memory_equal(out, a, sizeof a);
        kd_weights_close(s);
    }
}

static void written_bytes_follow_the_format(void **state)
{
    static const float b[2] = {1, -2.5f};
    static const char start[] = "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{";
    const struct kd_named_tensor t = {
        .name = "b", .ndim = 1, .shape = {2}, .values = b};
    unsigned char bytes[512];
    size_t n, header;
    FILE *f;

    (void)state;
    remove_all();
    assert_int_equal(kd_safetensors_write(path_of("model.safetensors"), KD_BF16, &t, 1),
                     KD_OK);
    f = fopen(path_of("model.safetensors"), "rb");
    assert_non_null(f);
    n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    header = bytes[0];
    assert_int_equal(header % 8, 0);
    assert_int_equal(n, 8 + header + 4);
    assert_memory_equal(bytes + 8, start, sizeof start - 1);
    assert_memory_equal(bytes + 8 + header, data16 + 8, 4);
}

static void unwritable_places_are_output_errors(void **state)
{
    const struct kd_named_tensor t = {.name = "b", .ndim = 1, .shape = {0}};

    (void)state;
    assert_int_equal(
        kd_safetensors_write(path_of("no/model.safetensors"), KD_F32, &t, 1),
        KD_EOUTPUT);
    kd_error_clear();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_float_kinds_are_read),
        cmocka_unit_test(scalars_and_other_kinds),
        cmocka_unit_test(broken_headers_are_refused),
        cmocka_unit_test(broken_lengths_are_refused),
        cmocka_unit_test(shards_are_one_table),
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(written_bytes_follow_the_format),
        cmocka_unit_test(unwritable_places_are_output_errors),
    };
    int failed;

    strcpy(dir, "/tmp/kdhpc-test-XXXXXX");
    if (!mkdtemp(dir))
        return 1;
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove_all();
    rmdir(dir);
    return failed;
}
