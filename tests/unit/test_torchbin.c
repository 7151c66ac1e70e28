/* SPDX-License-Identifier: Apache-2.0 */
/* The reader of PyTorch's files: what torch.save wrote (tests/golden/make_torchbin.py)
 * has the values that torch says, and archives and pickles made by hand, each wrong in
 * one way, are refused with the words that say so.  Then the conversions against the
 * scalar ones. */
#include "kdhpc/base/str.h"
#include "kdhpc/store/weights.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FIXTURE(name) KD_SOURCE_DIR "/tests/golden/torchbin/" name

static struct kd_weights *open_file(const char *path)
{
    struct kd_weights *w = NULL;

    if (kd_weights_open_file(path, &w))
        fail_msg("%s", kd_error_get()->text);
    return w;
}

/* ---- files of torch.save ---- */

static void same_values(const struct kd_weight *got, const struct kd_weight *want)
{
    float *a = malloc((size_t)got->count * sizeof *a + 1),
          *b = malloc((size_t)got->count * sizeof *b + 1);

    assert_int_equal(got->ndim, want->ndim);
    for (int i = 0; i < got->ndim; i++)
        assert_int_equal(got->shape[i], want->shape[i]);
    assert_int_equal(got->count, want->count);
    kd_weight_to_f32(got, 0, got->count, a);
    kd_weight_to_f32(want, 0, want->count, b);
    if (memcmp(a, b, (size_t)got->count * sizeof *a) != 0)
        fail_msg("%s has other values", got->name);
    for (int64_t i = 0; i < got->count; i++) { /* from any place on */
        kd_weight_to_f32(got, i, got->count - i, a);
        assert_memory_equal(a, b + i, (size_t)(got->count - i) * sizeof *a);
    }
    free(a);
    free(b);
}

static void files_of_torch_have_their_values(void **state)
{
    static const char *const files[] = {FIXTURE("plain.bin"), FIXTURE("protocol4.bin"),
                                        FIXTURE("nested.bin")};
    struct kd_weights *want = open_file(FIXTURE("expect.safetensors"));

    (void)state;
    for (int f = 0; f < 3; f++) {
        struct kd_weights *w = open_file(files[f]);
        int64_t ids[5];
        unsigned char flags[2];

        assert_int_equal(kd_weights_count(w), kd_weights_count(want));
        for (int i = 0; i < kd_weights_count(w); i++) {
            const struct kd_weight *t = kd_weights_at(w, i);
            const struct kd_weight *e = kd_weights_find(want, t->name);

            assert_non_null(e);
            if (kd_weight_is_float(t, NULL))
                same_values(t, e);
        }
        assert_string_equal(kd_weights_find(w, "brain")->dtype, "BF16");
        assert_string_equal(kd_weights_find(w, "double")->dtype, "F64");
        assert_string_equal(kd_weights_find(w, "flags")->dtype, "BOOL");
        assert_ptr_equal(kd_weights_find(w, "tied.a")->data,
                         kd_weights_find(w, "tied.b")->data);
        kd_weight_copy(kd_weights_find(w, "ids"), 0, 5, ids);
        assert_true(ids[0] == 0 && ids[4] == 4);
        kd_weight_copy(kd_weights_find(w, "flags"), 0, 2, flags);
        assert_true(flags[0] && !flags[1]);
        kd_weights_close(w);
    }
    kd_weights_close(want);
}

static void refused(int rc, struct kd_weights *w, const char *word)
{
    assert_int_equal(rc, KD_EINPUT);
    assert_null(w);
    if (!strstr(kd_error_get()->text, word))
        fail_msg("no \"%s\" in: %s", word, kd_error_get()->text);
    kd_error_clear();
}

static void files_that_are_refused(void **state)
{
    static const struct {
        const char *path, *word;
    } cases[] = {
        {FIXTURE("evil.bin"), "asks for posix.system"},
        {FIXTURE("old.bin"), "old format of before 1.6"},
        {FIXTURE("packed.bin"), "compressed"},
        {FIXTURE("lacking.bin"), "tensor brain has a storage that is not in the"},
        {FIXTURE("absent.bin"), "cannot open"},
        {FIXTURE(""), "Is a directory"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kd_weights *w = NULL;

        refused(kd_weights_open_file(cases[i].path, &w), w, cases[i].word);
    }
}

static void bytes_refused(const void *bytes, int64_t n, const char *word)
{
    struct kd_weights *w = NULL;
    int rc = kd_weights_open_bytes(bytes, n, "x.bin", &w);

    refused(rc, w, word);
}

static void what_is_not_an_archive(void **state)
{
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:";
    struct kd_str file = {0};
    char tar[512] = {0};

    (void)state;
    memcpy(tar + 257, "ustar", 5);
    bytes_refused(tar, sizeof tar, "tar format");
    bytes_refused(lfs, sizeof lfs - 1, "Git LFS pointer");
    bytes_refused("nothing of the kind", 19, "not a file of torch.save");
    bytes_refused("", 0, "not a file of torch.save");
    assert_int_equal(kd_read_file(FIXTURE("plain.bin"), &file), KD_OK);
    for (int64_t n = 4; n < file.len; n += 7)
        bytes_refused(file.data, n, "cut short");
    kd_str_free(&file);
}

/* ---- archives by hand ---- */

struct member {
    const char *name;
    const char *data;
    int64_t n;
};

static void put(struct kd_str *s, uint64_t x, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        char c = i < 8 ? (char)(x >> (8 * i)) : 0;

        assert_int_equal(kd_str_append(s, &c, 1), KD_OK);
    }
}

static void put_bytes(struct kd_str *s, const char *bytes, int64_t n)
{
    assert_int_equal(kd_str_append(s, bytes, n), KD_OK);
}

/* What is wrong with an archive; all zero: nothing. */
struct wrong {
    int64_t place, size, dir_at, count, extra; /* added to what is right */
};

static void make_zip(struct kd_str *s, const struct member *m, int n,
                     const struct wrong *x)
{
    struct kd_str dir = {0};
    int64_t at, bytes;

    kd_str_clear(s);
    for (int i = 0; i < n; i++) {
        uint64_t name = strlen(m[i].name), size = (uint64_t)(m[i].n + x->size);

        at = s->len;
        put(s, 0x04034b50, 4);
        put(s, 0, 22);
        put(s, name, 2);
        put(s, 3, 2);
        put_bytes(s, m[i].name, (int64_t)name);
        put_bytes(s, "pad", 3);
        put_bytes(s, m[i].data, m[i].n);
        put(&dir, 0x02014b50, 4);
        put(&dir, 0, 16);
        put(&dir, size, 4);
        put(&dir, size, 4);
        put(&dir, name, 2);
        put(&dir, (uint64_t)x->extra, 2);
        put(&dir, 0, 10);
        put(&dir, (uint64_t)(at + x->place), 4);
        put_bytes(&dir, m[i].name, (int64_t)name);
    }
    at = s->len;
    bytes = dir.len;
    put_bytes(s, dir.data, dir.len);
    kd_str_free(&dir);
    put(s, 0x06054b50, 4);
    put(s, 0, 4);
    put(s, (uint64_t)(n + x->count), 2);
    put(s, (uint64_t)(n + x->count), 2);
    put(s, (uint64_t)bytes, 4);
    put(s, (uint64_t)(at + x->dir_at), 4);
    put(s, 0, 2);
}

/* The pickle of {"t": tensor(storage "0" of COUNT floats, OFFSET, (ROWS,), (STRIDE,))}.
 */
#define STORAGE(count)                                                                 \
    "((X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"                                \
    "0X\3\0\0\0cpuK" count "tQ"
#define TENSOR(count, offset, rows, stride)                                            \
    "\x80\2ccollections\nOrderedDict\n)R(X\1\0\0\0tctorch._utils\n_rebuild_tensor_"    \
    "v2\n" STORAGE(count) "K" offset "K" rows "\x85K" stride "\x85\x89"                \
                          "}tRu."

static void open_members(const struct member *m, int n, const char *word)
{
    static const struct wrong none = {0};
    struct kd_weights *w = NULL;
    struct kd_str zip = {0};

    make_zip(&zip, m, n, &none);
    if (word) {
        bytes_refused(zip.data, zip.len, word);
    } else {
        const struct kd_weight *t;
        float x[3];

        if (kd_weights_open_bytes(zip.data, zip.len, "x.bin", &w))
            fail_msg("%s", kd_error_get()->text);
        t = kd_weights_find(w, "t");
        assert_non_null(t);
        kd_weight_to_f32(t, 0, t->count, x);
        assert_true(t->count == 2 && x[0] == 1 && x[1] == 3);
        kd_weights_close(w);
    }
    kd_str_free(&zip);
}

/* An archive of the pickle and four floats 0 1 2 3. */
static void open_pickle(const char *pickle, int64_t n, const char *word)
{
    static const float values[4] = {0, 1, 2, 3};
    struct member m[] = {{"a/data.pkl", pickle, n},
                         {"a/data/0", (const char *)values, sizeof values}};

    open_members(m, 2, word);
}

#define OPEN_PICKLE(text, word) open_pickle(text, sizeof(text) - 1, word)

static void tensors_must_lie_in_their_storage(void **state)
{
    (void)state;
    OPEN_PICKLE(TENSOR("\4", "\1", "\2", "\2"), NULL);
    OPEN_PICKLE(TENSOR("\4", "\2", "\2", "\2"), "reaches beyond");
    OPEN_PICKLE(TENSOR("\4", "\1", "\4", "\1"), "reaches beyond");
    OPEN_PICKLE(TENSOR("\4", "\5", "\1", "\1"), "reaches beyond");
    OPEN_PICKLE(TENSOR("\5", "\0", "\1", "\1"), "another size");
    OPEN_PICKLE(TENSOR("\3", "\0", "\1", "\1"), "another size");
    OPEN_PICKLE("\x80\2}X\1\0\0\0tctorch._utils\n_rebuild_tensor_v2\n" STORAGE(
                    "\4") "K\0J\0\0\0\x40\x85K\0\x85\x89}tRs.",
                "larger than the file"); /* 2^30 times one value */
    /* (-1,), strides that overflow, sizes and strides of different lengths */
    OPEN_PICKLE("\x80\2}X\1\0\0\0tctorch._utils\n_rebuild_tensor_v2\n" STORAGE(
                    "\4") "K\0J\xff\xff\xff\xff\x85K\1\x85\x89}tRs.",
                "not valid");
    OPEN_PICKLE(
        "\x80\2}X\1\0\0\0tctorch._utils\n_rebuild_tensor_v2\n" STORAGE(
            "\4") "K\0K\3\x85\x8a\10\xff\xff\xff\xff\xff\xff\xff\x7f\x85\x89}tRs.",
        "not valid");
    OPEN_PICKLE("\x80\2}X\1\0\0\0tctorch._utils\n_rebuild_tensor_v2\n" STORAGE(
                    "\4") "K\0)K\1\x85\x89}tRs.",
                "do not match");
    OPEN_PICKLE(
        "\x80\2}X\1\0\0\0tctorch._utils\n_rebuild_tensor_v2\n" STORAGE("\4") "tRs.",
        "described by too little");
    OPEN_PICKLE("\x80\2}X\1\0\0\0tctorch._utils\n_rebuild_tensor_v2\n(K\1K\1)K\1tRs.",
                "has no storage");
    OPEN_PICKLE("\x80\2}X\2\0\0\0t\0ctorch._utils\n_rebuild_tensor_v2\n" STORAGE(
                    "\4") "K\0K\1\x85K\1\x85\x89}tRs.",
                "a name that is not text");
}

static void pickles_that_are_refused(void **state)
{
    (void)state;
    OPEN_PICKLE("\x80\2cos\nsystem\nX\4\0\0\0true\x85R.", "asks for os.system");
    OPEN_PICKLE("\x80\4\x8c\2os\x8c\6system\x93.", "asks for os.system");
    OPEN_PICKLE("\x80\2cbuiltins\neval\n.", "builtins.eval");
    OPEN_PICKLE("\x80\2(S'x'\ni__main__\nX\n.", "instruction 0x53");
    OPEN_PICKLE("\x80\2ctorch\nFloatStorage\n)R)b.", "not the right container");
    OPEN_PICKLE("\x80\6.", "protocol");
    OPEN_PICKLE("\x80\2", "ends in the middle");
    OPEN_PICKLE("\x80\2X\xff\xff\xff\xffx.", "ends in the middle");
    OPEN_PICKLE("\x80\2ctorch", "ends in the middle of a name");
    OPEN_PICKLE("\x80\2.", "empty stack");
    OPEN_PICKLE("\x80\2(K\1.", "no dictionary of tensors");
    OPEN_PICKLE("\x80\2}(K\1u.", "do not match");
    OPEN_PICKLE("\x80\2]K\1K\2s.", "not the right container");
    OPEN_PICKLE("\x80\2K\1a.", "empty stack");
    OPEN_PICKLE("\x80\2t.", "a mark that is not there");
    OPEN_PICKLE("\x80\2h\7.", "did not remember");
    OPEN_PICKLE("\x80\2Nr\xff\xff\xff\x7f.", "more to remember");
    OPEN_PICKLE("\x80\2\x8a\11"
                "123456789.",
                "64 bits");
    OPEN_PICKLE("\x80\2]q\0h\0a.", "no dictionary of tensors"); /* holds itself */
    OPEN_PICKLE("\x80\2}q\0X\5\0\0\0modelh\0s.", "no dictionary of tensors");
    OPEN_PICKLE("\x80\2}X\1\0\0\0tK\1s.", "no dictionary of tensors");
}

static void archives_that_are_refused(void **state)
{
    static const struct {
        struct wrong x;
        const char *word;
    } cases[] = {
        {{.place = 1}, "not where the directory says"},
        {{.place = 1 << 30}, "not where the directory says"},
        {{.size = 1000000}, "longer than the file"},
        {{.dir_at = 1}, "directory"},
        {{.dir_at = 1 << 30}, "outside the file"},
        {{.count = 1}, "directory"},
        {{.extra = 60000}, "cut short"},
    };
    static const char pickle[] = TENSOR("\4", "\1", "\2", "\2");
    static const float values[4] = {0, 1, 2, 3};
    struct member m[] = {{"a/data.pkl", pickle, sizeof pickle - 1},
                         {"a/data/0", (const char *)values, sizeof values},
                         {"a/byteorder", "big", 3}};
    struct kd_str zip = {0};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        make_zip(&zip, m, 2, &cases[i].x);
        bytes_refused(zip.data, zip.len, cases[i].word);
    }
    kd_str_free(&zip);
    open_members(m, 2, NULL);
    open_members(m, 3, "big-endian");
    open_members(m, 1, "not in the archive");
    open_members(m + 1, 1, "without data.pkl");
    m[2] = m[0];
    open_members(m, 3, "twice");
}

/* ---- conversions ---- */

static void halves_are_converted_as_one_by_one(void **state)
{
    enum { N = 1 << 16 };
    uint16_t *in = malloc(N * sizeof *in + 1);
    unsigned char *odd = (unsigned char *)in + 1; /* values need not be aligned */
    float *out = malloc(N * sizeof *out);
    struct kd_weight t = {.item_bytes = 2, .ndim = 1, .count = N};

    (void)state;
    t.shape[0] = N;
    t.stride[0] = 1;
    t.data = odd;
    for (int i = 0; i < N; i++) {
        uint16_t half = (uint16_t)i;

        memcpy(odd + 2 * i, &half, 2);
    }
    for (int k = 0; k < 2; k++) {
        t.dtype = k ? "BF16" : "F16";
        kd_weight_to_f32(&t, 0, N, out);
        for (int i = 0; i < N; i++) {
            float want = k ? kd_bf16_to_f32((uint16_t)i) : kd_f16_to_f32((uint16_t)i);

            assert_memory_equal(&out[i], &want, sizeof want);
        }
    }
    free(in);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_of_torch_have_their_values),
        cmocka_unit_test(files_that_are_refused),
        cmocka_unit_test(what_is_not_an_archive),
        cmocka_unit_test(tensors_must_lie_in_their_storage),
        cmocka_unit_test(pickles_that_are_refused),
        cmocka_unit_test(archives_that_are_refused),
        cmocka_unit_test(halves_are_converted_as_one_by_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
