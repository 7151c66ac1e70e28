/* SPDX-License-Identifier: Apache-2.0 */
/* Corners of tokenizer.json where components meet, and patterns that Oniguruma and
 * PCRE2 read differently: ids and text as the tokenizers library 0.22 makes them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kdhpc/base/log.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/** What a tokenizer.json of JSON makes of TEXT: " 1 2 3" and the decoded text. */
static void check(const char *json, const char *text, const char *ids,
                  const char *decoded)
{
    char dir[] = "/tmp/kd_tokenizer_XXXXXX", path[64];
    struct kd_tokenizer *t = NULL;
    struct kd_token_ids got = {0};
    struct kd_str said = {0}, back = {0};
    FILE *f = NULL;

    assert_non_null(mkdtemp(dir));
    assert_int_equal(kd_format(path, sizeof path, "%s/tokenizer.json", dir), KD_OK);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(json, f) >= 0 && fclose(f) == 0);
    if (kd_tokenizer_load(dir, &t))
        fail_msg("%s", kd_error_get()->text);
    (void)unlink(path);
    (void)rmdir(dir);
    assert_int_equal(
        kd_tokenizer_encode(t, KD_SOURCE, text, (int64_t)strlen(text), 0, &got, NULL),
        KD_OK);
    for (int64_t i = 0; i < got.n; i++)
        assert_int_equal(kd_str_printf(&said, " %d", (int)got.v[i]), KD_OK);
    assert_string_equal(said.data, ids);
    assert_int_equal(kd_tokenizer_decode(t, got.v, got.n, &back), KD_OK);
    if (decoded)
        assert_string_equal(back.data, decoded);
    kd_str_free(&said);
    kd_str_free(&back);
    kd_token_ids_free(&got);
    kd_tokenizer_free(t);
}

#define WORDS(vocab)                                                                   \
    "\"model\": {\"type\": \"WordLevel\", \"unk_token\": \"?\", \"vocab\": {\"?\": "   \
    "0, " vocab "}}"

static void components_meet(void **state)
{
    (void)state;
    /* A token in the white space that another swallows. */
    check("{" WORDS("\"a\": 1") ", \"pre_tokenizer\": {\"type\": \"WhitespaceSplit\"}, "
                                "\"added_tokens\": [{\"id\": 2, \"content\": \"ing\", "
                                "\"rstrip\": true}, "
                                "{\"id\": 3, \"content\": \" b\"}]}",
          "ing ba", " 2 3 1", "ing  b a");
    /* Bytes as characters, twice: the second time of what the first time wrote. */
    check(
        "{" WORDS(
            "\"\\u00c3\\u0125\\u00c4\\u00a7\\u00c4\\u0142b\": 1") ", "
                                                                  "\"pre_tokenizer\": "
                                                                  "{\"type\": "
                                                                  "\"Sequence\", "
                                                                  "\"pretokenizers\": ["
                                                                  "{\"type\": "
                                                                  "\"ByteLevel\", "
                                                                  "\"add_prefix_"
                                                                  "space\": false, "
                                                                  "\"use_regex\": "
                                                                  "false}, {\"type\": "
                                                                  "\"ByteLevel\", "
                                                                  "\"add_prefix_"
                                                                  "space\": false, "
                                                                  "\"use_regex\": "
                                                                  "false}]}}",
        "\xc3\x85 b", " 1", NULL);
    /* Fallback is to the bytes of what stands for a byte. */
    check("{\"model\": {\"type\": \"BPE\", \"byte_fallback\": true, \"merges\": [], "
          "\"vocab\": {\"<0xC4>\": 0, \"<0x8A>\": 1}}, \"pre_tokenizer\": {\"type\": "
          "\"ByteLevel\", \"add_prefix_space\": false}}",
          "\n", " 0 1", NULL);
    /* Two tokens that the normaliser makes one: the special one. */
    check("{" WORDS("\"b\": 1") ", \"normalizer\": {\"type\": \"Lowercase\"}, "
                                "\"added_tokens\": [{\"id\": 2, \"content\": \"A\", "
                                "\"normalized\": true}, "
                                "{\"id\": 3, \"content\": \"a\", \"normalized\": true, "
                                "\"special\": true}]}",
          "A", " 3", "");
    /* A text whose first character the normaliser drops does not begin at its start. */
    check("{" WORDS("\"a\": 1, \"\\u2581a\": 2") ", \"normalizer\": {\"type\": "
                                                 "\"Strip\", \"strip_left\": true}, "
                                                 "\"pre_tokenizer\": {\"type\": "
                                                 "\"Metaspace\", \"prepend_scheme\": "
                                                 "\"first\"}}",
          " a", " 1", "a");
    /* What only moves offsets may follow a template. */
    check("{" WORDS("\"a\": 1, \"<s>\": 2") ", \"post_processor\": {\"type\": "
                                            "\"Sequence\", \"processors\": [{\"type\": "
                                            "\"TemplateProcessing\", \"single\": "
                                            "[{\"SpecialToken\": {\"id\": \"<s>\"}}, "
                                            "{\"Sequence\": {\"id\": \"A\"}}], "
                                            "\"special_tokens\": {\"<s>\": {\"ids\": "
                                            "[2]}}}, {\"type\": \"ByteLevel\"}]}}",
          "a", " 2 1", "<s> a");
    /* Bytes that are no text are strings of their own. */
    check("{" WORDS(
              "\"<0xFF>\": 1, \"<0xFE>\": 2") ", \"pre_tokenizer\": {\"type\": "
                                              "\"Split\", \"behavior\": \"Isolated\", "
                                              "\"pattern\": {\"Regex\": \"<[^>]*>\"}}, "
                                              "\"decoder\": {\"type\": "
                                              "\"Sequence\", \"decoders\": [{\"type\": "
                                              "\"ByteFallback\"}, {\"type\": "
                                              "\"WordPiece\", \"cleanup\": false}]}}",
          "<0xFF><0xFE>", " 1 2", "\xef\xbf\xbd \xef\xbf\xbd");
}

static void patterns_are_read_as_oniguruma_does(void **state)
{
    static const char *const cases[][2] = {
        {"[^\\\\W_]+", " 1 2 3 4 5 6"},
        {"[\\\\Wa]", " 1 7 4 5 8 9 10 11"},
        {"[\\\\S_]", " 1 2 3 4 5 8 9 10 11"},
        {"[[:punct:]]+", " 1 2 12 13 10 11"},
        {"[[:^alpha:]\\n]", " 1 2 3 4 5 8 9 10 11"},
        {"\\\\p{Han}+", " 14 5 6"},
        {"(?m).+", " 15"},
        {"[a[^\\n_[:punct:]]]", " 1 2 3 4 5 6"},
        {"[\\\\u4e00-\\\\u9fff]", " 14 5 6"},
        {"[\\\\p{L}&&[^a]]", " 14 5 6"},
        {"a{,1}_", " 16 17"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[1024];

        assert_int_equal(
            kd_format(json, sizeof json,
                      "{%s, \"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": "
                      "\"Isolated\", \"pattern\": {\"Regex\": \"%s\"}}}",
                      WORDS("\"a\": 1, \"_\": 2, \"\\u0301\": 3, \"\\u00b2\": 4, "
                            "\"\\u4e2d\": 5, \"\\u3001+\\n\\u00b0\": 6, \"_\\u0301\": "
                            "7, \"\\u3001\": 8, \"+\": 9, \"\\n\": 10, \"\\u00b0\": "
                            "11, \"\\u0301\\u00b2\\u4e2d\": 12, \"\\u3001+\": 13, "
                            "\"a_\\u0301\\u00b2\": 14, "
                            "\"a_\\u0301\\u00b2\\u4e2d\\u3001+\\n\\u00b0\": 15, "
                            "\"a_\": 16, \"\\u0301\\u00b2\\u4e2d\\u3001+\\n\\u00b0\": "
                            "17"),
                      cases[i][0]),
            KD_OK);
        print_message("%s\n", cases[i][0]);
        check(json, "a_\xcc\x81\xc2\xb2\xe4\xb8\xad\xe3\x80\x81+\n\xc2\xb0",
              cases[i][1], NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(components_meet),
        cmocka_unit_test(patterns_are_read_as_oniguruma_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
