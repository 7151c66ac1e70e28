/* SPDX-License-Identifier: Apache-2.0 */
/* Tokenizers against what the reference library made of the same texts with the same
 * files (tests/golden/make_tokenizers.py), then what those files cannot show: refusals,
 * threads, very long words, languages, and training. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kdhpc/base/json.h"
#include "kdhpc/base/log.h"
#include "kdhpc/text/tokenizer.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GOLDEN KD_SOURCE_DIR "/tests/golden/tokenizers/"
enum { N_TRUNCATED = 13, TRUNCATED_LENGTH = 7 };

static struct kd_tokenizer *load(const char *dir)
{
    struct kd_tokenizer *t = NULL;
    int rc = kd_tokenizer_load(dir, &t);

    if (rc)
        print_message("%s\n", kd_error_get()->text);
    assert_int_equal(rc, KD_OK);
    return t;
}

static struct kd_json *parse(const char *path)
{
    struct kd_json *j = NULL;

    assert_int_equal(kd_json_parse_file(path, &j), KD_OK);
    return j;
}

/** Encode TEXT and compare with the JSON array IDS. */
static void check_ids(const struct kd_tokenizer *t, enum kd_text_side side,
                      const char *text, int64_t max, const struct kd_json *ids)
{
    struct kd_token_ids got = {0};
    bool truncated = false;

    assert_int_equal(kd_tokenizer_encode(t, side, text, (int64_t)strlen(text), max,
                                         &got, &truncated),
                     KD_OK);
    if (got.n != kd_json_len(ids))
        print_message("text: %s\n", text);
    assert_int_equal(got.n, kd_json_len(ids));
    for (int64_t i = 0; i < got.n; i++) {
        if (got.v[i] != kd_json_as_int(kd_json_at(ids, i), -1))
            print_message("text: %s\n", text);
        assert_int_equal(got.v[i], kd_json_as_int(kd_json_at(ids, i), -1));
    }
    assert_true(max == 0 || !truncated || got.n == max);
    kd_token_ids_free(&got);
}

static void check_decoded(const struct kd_tokenizer *t, const struct kd_json *ids,
                          const char *text)
{
    struct kd_str got = {0};
    int64_t n = kd_json_len(ids);
    int32_t *v = calloc((size_t)n + 1, sizeof *v);

    assert_non_null(v);
    for (int64_t i = 0; i < n; i++)
        v[i] = (int32_t)kd_json_as_int(kd_json_at(ids, i), -1);
    assert_int_equal(kd_tokenizer_decode(t, v, n, &got), KD_OK);
    assert_string_equal(got.data, text);
    kd_str_free(&got);
    free(v);
}

static void matches_reference(void **state)
{
    const char *name = *state;
    char path[512], dir[512];
    struct kd_json *texts = parse(GOLDEN "texts.json"), *expected = NULL;
    struct kd_tokenizer *t = NULL;
    int64_t n = kd_json_len(texts);

    assert_int_equal(kd_format(dir, sizeof dir, "%s%s", GOLDEN, name), KD_OK);
    assert_int_equal(kd_format(path, sizeof path, "%s/expected.json", dir), KD_OK);
    expected = parse(path);
    t = load(dir);
    assert_int_equal(kd_tokenizer_size(t), kd_json_int(expected, "size", -2));
    assert_int_equal(kd_tokenizer_special(t)->eos, kd_json_int(expected, "eos", -1));
    assert_int_equal(kd_tokenizer_special(t)->pad, kd_json_int(expected, "pad", -1));
    assert_int_equal(kd_tokenizer_special(t)->bos, kd_json_int(expected, "bos", -1));
    assert_true(n > 100);
    for (int64_t i = 0; i < n; i++) {
        const char *text = kd_json_as_str(kd_json_at(texts, i), NULL);
        const struct kd_json *ids = kd_json_at(kd_json_get(expected, "ids"), i);

        if (!kd_json_is_array(ids)) /* the reference stops at this text */
            continue;
        check_ids(t, KD_SOURCE, text, 0, ids);
        if (kd_json_has(expected, "target"))
            check_ids(t, KD_TARGET, text, 0,
                      kd_json_at(kd_json_get(expected, "target"), i));
        check_decoded(
            t, ids,
            kd_json_as_str(kd_json_at(kd_json_get(expected, "decoded"), i), NULL));
    }
    for (int64_t i = 0; i < N_TRUNCATED; i++)
        check_ids(
            t, KD_SOURCE, kd_json_as_str(kd_json_at(texts, n - N_TRUNCATED + i), NULL),
            TRUNCATED_LENGTH, kd_json_at(kd_json_get(expected, "truncated_7"), i));
    print_message("passed: tokenizer %s\n", name);
    kd_tokenizer_free(t);
    kd_json_free(expected);
    kd_json_free(texts);
}

static void languages_are_set(void **state)
{
    struct kd_tokenizer *t = load(GOLDEN "mbart"), *other = load(GOLDEN "t5");
    struct kd_token_ids a = {0}, b = {0};
    int32_t en = 0;

    (void)state;
    assert_int_equal(kd_tokenizer_encode(t, KD_SOURCE, "x", 1, 0, &a, NULL), KD_OK);
    en = a.v[a.n - 1]; /* en_XX is the fourth code, ro_RO the twentieth */
    assert_int_equal(a.v[a.n - 2], 2);
    assert_int_equal(kd_tokenizer_encode(t, KD_TARGET, "x", 1, 0, &b, NULL), KD_OK);
    assert_int_equal(b.v[b.n - 1], en + 16);
    assert_int_equal(kd_tokenizer_set_langs(t, "ar_AR", NULL), KD_OK);
    assert_int_equal(kd_tokenizer_encode(t, KD_SOURCE, "x", 1, 0, &a, NULL), KD_OK);
    assert_int_equal(a.v[a.n - 1], en - 3);
    assert_int_equal(kd_tokenizer_set_langs(t, "xx_YY", NULL), KD_EINPUT);
    kd_error_clear();
    assert_int_equal(kd_tokenizer_set_langs(other, "en_XX", NULL), KD_EINPUT);
    kd_error_clear();
    kd_token_ids_free(&a);
    kd_token_ids_free(&b);
    kd_tokenizer_free(t);
    kd_tokenizer_free(other);
}

/* ---- directories ---- */

static void make_dir(char *path)
{
    assert_non_null(mkdtemp(path));
}

static void write_text(const char *dir, const char *name, const char *bytes,
                       int64_t len)
{
    char path[512];

    assert_int_equal(kd_format(path, sizeof path, "%s/%s", dir, name), KD_OK);
    assert_int_equal(kd_write_file(path, bytes, len), KD_OK);
}

static void remove_dir(const char *dir)
{
    static const char *const names[] = {"vocab-src.json",
                                        "vocab-tgt.json",
                                        "spiece.model",
                                        "tokenizer.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "in.txt"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];

        assert_int_equal(kd_format(path, sizeof path, "%s/%s", dir, names[i]), KD_OK);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(dir), 0);
}

/* ---- two vocabularies, files ---- */

static void copy_as(const char *from, const char *name, const char *dir, const char *as)
{
    char a[512], b[512];

    assert_int_equal(kd_format(a, sizeof a, "%s%s/%s", GOLDEN, from, name), KD_OK);
    assert_int_equal(kd_format(b, sizeof b, "%s/%s", dir, as), KD_OK);
    assert_int_equal(kd_copy_file(a, b), KD_OK);
}

/** Where the vocabularies differ, a target is encoded as a source would be by the
 * tokenizer of the other direction, which the reference was compared with. */
static void fsmt_targets_have_their_vocabulary(void **state)
{
    char dir[] = "/tmp/kd_tokenizer_XXXXXX";
    const char *config = "{\"tokenizer_class\": \"FSMTTokenizer\", "
                         "\"langs\": [\"de\", \"en\"]}";
    struct kd_json *texts = parse(GOLDEN "texts.json");
    struct kd_tokenizer *t = load(GOLDEN "fsmt_en_de"), *other = NULL;
    struct kd_token_ids a = {0}, b = {0};

    (void)state;
    assert_non_null(mkdtemp(dir));
    copy_as("fsmt_en_de", "vocab-src.json", dir, "vocab-tgt.json");
    copy_as("fsmt_en_de", "vocab-tgt.json", dir, "vocab-src.json");
    copy_as("fsmt_en_de", "merges.txt", dir, "merges.txt");
    write_text(dir, "tokenizer_config.json", config, (int64_t)strlen(config));
    other = load(dir);
    assert_int_equal(kd_tokenizer_target_size(t), kd_tokenizer_size(other));
    for (int64_t i = 0; i < kd_json_len(texts); i++) {
        const char *s = kd_json_as_str(kd_json_at(texts, i), "");
        int64_t n = (int64_t)strlen(s);

        assert_int_equal(kd_tokenizer_encode(t, KD_TARGET, s, n, 0, &a, NULL), KD_OK);
        assert_int_equal(kd_tokenizer_encode(other, KD_SOURCE, s, n, 0, &b, NULL),
                         KD_OK);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.v, b.v, (size_t)a.n * sizeof *a.v);
    }
    kd_token_ids_free(&a);
    kd_token_ids_free(&b);
    kd_tokenizer_free(t);
    kd_tokenizer_free(other);
    kd_json_free(texts);
    remove_dir(dir);
}

static void files_are_listed(void **state)
{
    static const char *const want[][6] = {
        {"marian_two", "source.spm", "target.spm", "vocab.json", "target_vocab.json"},
        {"fsmt_en_de", "vocab-src.json", "vocab-tgt.json", "merges.txt"},
        {"bert", "vocab.txt"},
        {"pegasus", "spiece.model"},
        {"mbart50", "sentencepiece.bpe.model"},
        {"bpe_split_json", "tokenizer.json"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const char *names[16] = {0};
        char dir[512];
        int n = 1;

        assert_int_equal(kd_format(dir, sizeof dir, "%s%s", GOLDEN, want[i][0]), KD_OK);
        assert_int_equal(kd_tokenizer_files(dir, names, 16), KD_OK);
        for (; want[i][n]; n++)
            assert_string_equal(names[n - 1], want[i][n]);
        assert_string_equal(names[n - 1], "tokenizer_config.json");
        assert_null(names[n]);
    }
}

/* ---- damaged and unsupported directories ---- */

/** A directory with one file is refused with KD_EINPUT and a text that holds WORD. */
static void refused(const char *name, const char *bytes, int64_t len, const char *word)
{
    char dir[] = "/tmp/kd_tokenizer_XXXXXX";
    struct kd_tokenizer *t = NULL;

    make_dir(dir);
    if (name)
        write_text(dir, name, bytes, len);
    kd_error_clear();
    assert_int_equal(kd_tokenizer_load(dir, &t), KD_EINPUT);
    assert_null(t);
    assert_non_null(strstr(kd_error_get()->text, word));
    kd_error_clear();
    remove_dir(dir);
}

static void refuses_what_it_cannot_read(void **state)
{
    struct kd_str model = {0};
    const char *class = "{\"tokenizer_class\": \"XLNetTokenizer\"}";
    static const char *const parts[][2] = {
        {"normaliser Runes", "\"normalizer\": {\"type\": \"Runes\"}"},
        {"UnicodeScripts", "\"pre_tokenizer\": {\"type\": \"UnicodeScripts\"}"},
        {"decoder CTC", "\"decoder\": {\"type\": \"CTC\"}"},
        {"model Neural", "\"model\": {\"type\": \"Neural\"}"},
        {"dropout", "\"model\": {\"type\": \"BPE\", \"dropout\": 0.1}"},
        {"post-processor Odd", "\"model\": {\"type\": \"WordLevel\", \"vocab\": {}}, "
                               "\"post_processor\": {\"type\": \"Odd\"}"},
        {"behaviour Loose", "\"pre_tokenizer\": {\"type\": \"Split\", \"behavior\": "
                            "\"Loose\", \"pattern\": {\"Regex\": \"a\"}}"},
        {"cannot read the pattern", "\"pre_tokenizer\": {\"type\": \"Split\", "
                                    "\"pattern\": {\"Regex\": \"(a\"}}"},
        {"unk_id", "\"model\": {\"type\": \"Unigram\", \"unk_id\": 3, \"vocab\": "
                   "[[\"a\", 0]]}"},
    };
    struct kd_tokenizer *t = NULL;

    (void)state;
    assert_int_equal(kd_tokenizer_load("/nonexistent", &t), KD_EINPUT);
    refused(NULL, NULL, 0, "no tokenizer");
    refused("tokenizer_config.json", class, (int64_t)strlen(class), "XLNetTokenizer");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char json[512];

        assert_int_equal(kd_format(json, sizeof json, "{%s}", parts[i][1]), KD_OK);
        refused("tokenizer.json", json, (int64_t)strlen(json), parts[i][0]);
    }
    refused("tokenizer_config.json", "{\"extra_ids\": 2147483648}", 25, "extra_ids");
    refused("spiece.model", "garbage", 7, "spiece.model");
    assert_int_equal(kd_read_file(GOLDEN "t5/spiece.model", &model), KD_OK);
    for (int64_t len = 0; len < model.len; len += 97) { /* must not crash */
        char dir[] = "/tmp/kd_tokenizer_XXXXXX";

        make_dir(dir);
        write_text(dir, "spiece.model", model.data, len);
        if (kd_tokenizer_load(dir, &t) == KD_OK)
            kd_tokenizer_free(t);
        kd_error_clear();
        remove_dir(dir);
    }
    kd_str_free(&model);
}

static void refuses_invalid_utf8(void **state)
{
    struct kd_tokenizer *t = load(GOLDEN "bart");
    struct kd_token_ids ids = {0};

    (void)state;
    assert_int_equal(kd_tokenizer_encode(t, KD_SOURCE, "ab\xff", 3, 0, &ids, NULL),
                     KD_EINPUT);
    kd_error_clear();
    kd_token_ids_free(&ids);
    kd_tokenizer_free(t);
}

static void nul_is_a_character(void **state)
{
    static const char text[] = "The\0sea \0";
    static const struct {
        const char *name;
        int32_t ids[8];
        int64_t n;
    } cases[] = {
        {"marian_two", {24, 1, 1, 65, 1, 1, 0}, 7},
        {"t5", {32, 2, 4, 73, 3, 2, 1}, 7},
        {"t5_bpe", {59, 2, 290, 113, 286, 2, 1}, 7},
        {"bart", {0, 304, 193, 397, 69, 225, 193, 2}, 8},
    };
    struct kd_token_ids ids = {0};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char dir[512];
        struct kd_tokenizer *t = NULL;

        assert_int_equal(kd_format(dir, sizeof dir, "%s%s", GOLDEN, cases[i].name),
                         KD_OK);
        t = load(dir);
        assert_int_equal(
            kd_tokenizer_encode(t, KD_SOURCE, text, sizeof text - 1, 0, &ids, NULL),
            KD_OK);
        assert_int_equal(ids.n, cases[i].n);
        assert_memory_equal(ids.v, cases[i].ids, (size_t)ids.n * sizeof *ids.v);
        kd_tokenizer_free(t);
    }
    kd_token_ids_free(&ids);
}

/* ---- long words, threads ---- */

static void long_words_take_linear_time(void **state)
{
    static const char *const names[] = {
        "t5", "t5_bpe", "bart", "unigram_json", "bpe_fallback_json", "marian_two"};
    const int64_t n = 300000;
    char *text = malloc((size_t)n);
    struct kd_token_ids ids = {0};

    (void)state;
    assert_non_null(text);
    memset(text, 'e', (size_t)n);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char dir[512];
        struct kd_tokenizer *t = NULL;
        double start = kd_now_s();

        assert_int_equal(kd_format(dir, sizeof dir, "%s%s", GOLDEN, names[i]), KD_OK);
        t = load(dir);
        assert_int_equal(kd_tokenizer_encode(t, KD_SOURCE, text, n, 0, &ids, NULL),
                         KD_OK);
        assert_true(ids.n > 1000);
        assert_true(kd_now_s() - start < 5.0); /* quadratic: minutes */
        kd_tokenizer_free(t);
    }
    kd_token_ids_free(&ids);
    free(text);
}

enum { N_THREADS = 4, N_ROUNDS = 20 };

struct shared {
    const struct kd_tokenizer *t;
    const struct kd_json *texts, *ids;
    int wrong;
};

static void *encode_all(void *arg)
{
    struct shared *s = arg;
    struct kd_token_ids got = {0};

    for (int round = 0; round < N_ROUNDS; round++)
        for (int64_t i = 0; i < kd_json_len(s->texts); i++) {
            const char *text = kd_json_as_str(kd_json_at(s->texts, i), "");
            const struct kd_json *ids = kd_json_at(s->ids, i);

            if (kd_tokenizer_encode(s->t, KD_SOURCE, text, (int64_t)strlen(text), 0,
                                    &got, NULL) ||
                got.n != kd_json_len(ids))
                s->wrong++;
            for (int64_t k = 0; k < got.n && k < kd_json_len(ids); k++)
                s->wrong += got.v[k] != kd_json_as_int(kd_json_at(ids, k), -1);
        }
    kd_token_ids_free(&got);
    return NULL;
}

static void threads_share_a_tokenizer(void **state)
{
    struct kd_json *texts = parse(GOLDEN "texts.json"),
                   *expected = parse(GOLDEN "t5/expected.json");
    struct kd_tokenizer *t = load(GOLDEN "t5");
    struct shared shared[N_THREADS];
    pthread_t threads[N_THREADS];

    (void)state;
    for (int i = 0; i < N_THREADS; i++) {
        shared[i] = (struct shared){t, texts, kd_json_get(expected, "ids"), 0};
        assert_int_equal(pthread_create(&threads[i], NULL, encode_all, &shared[i]), 0);
    }
    for (int i = 0; i < N_THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(shared[i].wrong, 0);
    }
    kd_tokenizer_free(t);
    kd_json_free(expected);
    kd_json_free(texts);
}

/* ---- training ---- */

/** Text with enough different words for a few hundred pieces. */
static void write_training_text(const char *dir)
{
    static const char *const words[] = {"river", "stone", "paper",  "window", "garden",
                                        "light", "quiet", "letter", "morning"};
    struct kd_str s = {0};

    for (int i = 0; i < 400; i++)
        assert_int_equal(kd_str_printf(&s, "the %s and %d %ss of a %s, %s\r\n",
                                       words[i % 9], i * 37, words[i / 9 % 9],
                                       words[i * 5 % 9], words[i * 7 % 9]),
                         KD_OK);
    write_text(dir, "in.txt", s.data, s.len);
    kd_str_free(&s);
}

static void trained_tokenizers_load(void **state)
{
    char dir[] = "/tmp/kd_tokenizer_XXXXXX", input[512];
    char *inputs[] = {input};
    struct kd_tokenizer_training training = {
        .inputs = inputs,
        .n_inputs = 1,
        .vocab_size = 90,
        .character_coverage = 1.0,
        .n_threads = 2,
        .seed = 42,
    };
    char digest[17] = "";

    (void)state;
    make_dir(dir);
    write_training_text(dir);
    assert_int_equal(kd_format(input, sizeof input, "%s/in.txt", dir), KD_OK);
    for (int round = 0; round < 4; round++) { /* unigram twice, then BPE twice */
        struct kd_tokenizer *t = NULL;
        struct kd_token_ids ids = {0};
        struct kd_str text = {0};
        const char *line = "the quiet river and 37 stones";

        training.bpe = round >= 2;
        assert_int_equal(kd_tokenizer_train(&training, dir), KD_OK);
        t = load(dir);
        assert_int_equal(kd_tokenizer_size(t), 90);
        assert_int_equal(kd_tokenizer_special(t)->pad, 0);
        assert_int_equal(kd_tokenizer_special(t)->eos, 1);
        assert_int_equal(kd_tokenizer_special(t)->unk, 2);
        assert_int_equal(kd_tokenizer_encode(t, KD_TARGET, line, (int64_t)strlen(line),
                                             0, &ids, NULL),
                         KD_OK);
        assert_int_equal(ids.v[ids.n - 1], 1);
        assert_true(ids.n < (int64_t)strlen(line));
        assert_int_equal(kd_tokenizer_decode(t, ids.v, ids.n, &text), KD_OK);
        assert_string_equal(text.data, line);
        if (round % 2)
            assert_string_equal(kd_tokenizer_digest(t), digest);
        memcpy(digest, kd_tokenizer_digest(t), sizeof digest);
        kd_tokenizer_free(t);
        kd_token_ids_free(&ids);
        kd_str_free(&text);
    }
    training.vocab_size = 100000;
    assert_int_equal(kd_tokenizer_train(&training, dir), KD_EINPUT);
    kd_error_clear();
    write_text(dir, "in.txt", "good\nbad \xff\n", 11);
    assert_int_equal(kd_tokenizer_train(&training, dir), KD_EINPUT);
    assert_non_null(strstr(kd_error_get()->text, "in.txt:2"));
    kd_error_clear();
    remove_dir(dir);
}

#define REFERENCE(name)                                                                \
    {                                                                                  \
        "matches_reference " name, matches_reference, NULL, NULL, (void *)(name)       \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        REFERENCE("unigram_json"),
        REFERENCE("bpe_split_json"),
        REFERENCE("bpe_whole_json"),
        REFERENCE("bpe_suffix_json"),
        REFERENCE("bpe_prefix_json"),
        REFERENCE("bpe_fallback_json"),
        REFERENCE("word_piece_json"),
        REFERENCE("word_level_json"),
        REFERENCE("split_previous_json"),
        REFERENCE("split_next_json"),
        REFERENCE("split_empty_json"),
        REFERENCE("byte_words_json"),
        REFERENCE("bert"),
        REFERENCE("bert_cased"),
        REFERENCE("bart"),
        REFERENCE("bart_json"),
        REFERENCE("roberta"),
        REFERENCE("t5"),
        REFERENCE("t5_json"),
        REFERENCE("t5_bpe"),
        REFERENCE("pegasus"),
        REFERENCE("mbart"),
        REFERENCE("mbart50"),
        REFERENCE("marian_codes"),
        REFERENCE("marian_two"),
        REFERENCE("fsmt_en_de"),
        REFERENCE("fsmt_de_en"),
        REFERENCE("fsmt_ru_en_lower"),
        REFERENCE("fsmt_fr_fr"),
        cmocka_unit_test(languages_are_set),
        cmocka_unit_test(fsmt_targets_have_their_vocabulary),
        cmocka_unit_test(files_are_listed),
        cmocka_unit_test(refuses_what_it_cannot_read),
        cmocka_unit_test(refuses_invalid_utf8),
        cmocka_unit_test(nul_is_a_character),
        cmocka_unit_test(long_words_take_linear_time),
        cmocka_unit_test(threads_share_a_tokenizer),
        cmocka_unit_test(trained_tokenizers_load),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
