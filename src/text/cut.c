/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting normalised text into words, and the memory that encoding borrows.
 *
 * Metaspace: spaces become U+2581, which begins a word.  Byte level: the GPT-2 pattern
 * through PCRE2, with white space spelled out because PCRE2's \s has U+180E besides.
 * Words repeat, so each borrowed scratch keeps a direct-mapped cache from short words
 * to their ids; a hit is compared byte for byte, so the cache never changes a result.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { WORD_BYTES = 23, WORD_IDS = 8, N_WORDS = 1 << 14 };

/** A cached word: its text and ids (n_ids 0: free). */
struct kd_word {
    uint8_t len, n_ids;
    char text[WORD_BYTES - 1];
    int32_t ids[WORD_IDS];
};

#define MARK "\xE2\x96\x81" /* U+2581 */
enum { MARK_LEN = 3 };

/* ---- scratch ---- */

static void scratch_free(struct kd_scratch *s)
{
    kd_str_free(&s->norm[0]);
    kd_str_free(&s->norm[1]);
    kd_str_free(&s->cut);
    pcre2_match_data_free(s->match);
    free(s->nodes);
    free(s->symbols);
    free(s->heap);
    free(s->words);
    free(s);
}

int kd_scratch_take(const struct kd_tokenizer *t, struct kd_scratch **out)
{
    struct kd_scratch *s = NULL;

    (void)pthread_mutex_lock(&t->pool->lock);
    s = t->pool->free;
    if (s)
        t->pool->free = s->next;
    (void)pthread_mutex_unlock(&t->pool->lock);
    *out = s;
    if (s)
        return KD_OK;
    KD_TRY(kd_calloc(1, sizeof *s, &s));
    s->match = pcre2_match_data_create(1, NULL);
    if (!s->match || kd_calloc(N_WORDS, sizeof *s->words, &s->words)) {
        scratch_free(s);
        return KD_FAIL(KD_ENOMEM, "no memory for the tokenizer's buffers");
    }
    *out = s;
    return KD_OK;
}

void kd_scratch_give(const struct kd_tokenizer *t, struct kd_scratch *s)
{
    (void)pthread_mutex_lock(&t->pool->lock);
    s->next = t->pool->free;
    t->pool->free = s;
    (void)pthread_mutex_unlock(&t->pool->lock);
}

void kd_scratch_free_all(struct kd_scratch_pool *pool)
{
    while (pool->free) {
        struct kd_scratch *next = pool->free->next;

        scratch_free(pool->free);
        pool->free = next;
    }
}

/* ---- one word ---- */

static int segment_uncached(const struct kd_tokenizer *t, struct kd_scratch *s,
                            const char *word, int64_t len, struct kd_token_ids *ids)
{
    return t->segmenter == KD_UNIGRAM ? kd_unigram_segment(t, s, word, len, ids)
                                      : kd_bpe_segment(t, s, word, len, ids);
}

static int segment(const struct kd_tokenizer *t, struct kd_scratch *s, const char *word,
                   int64_t len, struct kd_token_ids *ids)
{
    struct kd_word *slot = NULL;
    int64_t before = ids->n;

    if (len == 0)
        return KD_OK;
    if (len >= WORD_BYTES)
        return segment_uncached(t, s, word, len, ids);
    slot = &s->words[kd_text_hash(word, len) & (N_WORDS - 1)];
    if (slot->n_ids && slot->len == len && memcmp(slot->text, word, (size_t)len) == 0) {
        for (int i = 0; i < slot->n_ids; i++)
            KD_TRY(kd_token_ids_push(ids, slot->ids[i]));
        return KD_OK;
    }
    KD_TRY(segment_uncached(t, s, word, len, ids));
    if (ids->n > before && ids->n - before <= WORD_IDS) {
        slot->len = (uint8_t)len;
        slot->n_ids = (uint8_t)(ids->n - before);
        memcpy(slot->text, word, (size_t)len);
        memcpy(slot->ids, ids->v + before, slot->n_ids * sizeof *slot->ids);
    }
    return KD_OK;
}

/* ---- metaspace ---- */

/** Write TEXT[len] with its spaces as marks, and a mark in front if asked, to S->cut.
 */
static int write_marked(struct kd_scratch *s, const char *text, int64_t len, bool mark)
{
    kd_str_clear(&s->cut);
    if (mark && *text != ' ' && (len < MARK_LEN || memcmp(text, MARK, MARK_LEN) != 0))
        KD_TRY(kd_str_append(&s->cut, MARK, MARK_LEN));
    for (int64_t i = 0; i < len;) {
        const char *space = memchr(text + i, ' ', (size_t)(len - i));
        int64_t stop = space ? space - text : len;

        KD_TRY(kd_str_append(&s->cut, text + i, stop - i));
        if (space)
            KD_TRY(kd_str_append(&s->cut, MARK, MARK_LEN));
        i = stop + 1;
    }
    return KD_OK;
}

static int cut_at_marks(const struct kd_tokenizer *t, struct kd_scratch *s,
                        const char *text, int64_t len, bool mark,
                        struct kd_token_ids *ids)
{
    const char *p = NULL, *end = NULL;

    KD_TRY(write_marked(s, text, len, mark));
    p = s->cut.data;
    end = p + s->cut.len;
    if (!t->metaspace_split)
        return segment(t, s, p, end - p, ids);
    while (p < end) {
        const char *next =
            end - p > 1 ? memmem(p + 1, (size_t)(end - p - 1), MARK, MARK_LEN) : NULL;

        if (!next)
            next = end;
        KD_TRY(segment(t, s, p, next - p, ids));
        p = next;
    }
    return KD_OK;
}

static int cut_metaspace(const struct kd_tokenizer *t, struct kd_scratch *s,
                         const char *text, int64_t len, bool at_start,
                         struct kd_token_ids *ids)
{
    bool always = t->prepend == KD_PREPEND_ALWAYS,
         first = t->prepend == KD_PREPEND_FIRST;
    int64_t word = 0;

    if (!t->white_space_first)
        return cut_at_marks(t, s, text, len, always || (first && at_start), ids);
    for (int64_t i = 0; i <= len;) {
        int n = 1;

        if (i == len || kd_is_white_space(kd_utf8_next(text + i, len - i, &n))) {
            if (i > word)
                KD_TRY(cut_at_marks(t, s, text + word, i - word,
                                    always || (first && at_start && word == 0), ids));
            word = i + n;
        }
        i += n;
    }
    return KD_OK;
}

/* ---- byte level ---- */

#define SPACES                                                                         \
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"     \
    "\\x{202f}\\x{205f}\\x{3000}"

/* Contractions; letters, digits, others, each with one space before them if there is
 * one; white space, which leaves its last character to a word that follows. */
static const char BYTE_LEVEL_PATTERN[] =
    "'(?:[stmd]|re|ve|ll)| ?\\p{L}++| ?\\p{N}++| ?[^" SPACES "\\p{L}\\p{N}]++|"
    "[" SPACES "]+(?![^" SPACES "])|[" SPACES "]++";

int kd_cutter_prepare(struct kd_tokenizer *t)
{
    int error = 0;
    PCRE2_SIZE at = 0;

    if (t->cutter != KD_CUT_BYTE_LEVEL || !t->use_regex)
        return KD_OK;
    t->cut_pattern =
        pcre2_compile((PCRE2_SPTR)BYTE_LEVEL_PATTERN, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_UCP, &error, &at, NULL);
    if (!t->cut_pattern)
        return KD_FAIL(KD_EINTERNAL,
                       "PCRE2 cannot compile the byte-level pattern "
                       "(error %d)",
                       error);
    (void)pcre2_jit_compile(t->cut_pattern, PCRE2_JIT_COMPLETE);
    return KD_OK;
}

void kd_cutter_free(struct kd_tokenizer *t)
{
    pcre2_code_free(t->cut_pattern);
}

static int cut_byte_level(const struct kd_tokenizer *t, struct kd_scratch *s,
                          const char *text, int64_t len, struct kd_token_ids *ids)
{
    if (t->add_prefix_space && *text != ' ') {
        kd_str_clear(&s->cut);
        KD_TRY(kd_str_append(&s->cut, " ", 1));
        KD_TRY(kd_str_append(&s->cut, text, len));
        text = s->cut.data;
        len = s->cut.len;
    }
    if (!t->use_regex)
        return segment(t, s, text, len, ids);
    for (int64_t i = 0; i < len;) {
        int rc = pcre2_match(t->cut_pattern, (PCRE2_SPTR)text, (PCRE2_SIZE)len,
                             (PCRE2_SIZE)i, PCRE2_NO_UTF_CHECK, s->match, NULL);
        const PCRE2_SIZE *v = pcre2_get_ovector_pointer(s->match);

        if (rc < 0)
            return KD_FAIL(KD_EINTERNAL, "PCRE2 error %d while cutting text", rc);
        KD_TRY(segment(t, s, text + v[0], (int64_t)(v[1] - v[0]), ids));
        i = (int64_t)v[1];
    }
    return KD_OK;
}

int kd_cut_and_segment(const struct kd_tokenizer *t, struct kd_scratch *s,
                       const char *text, int64_t len, bool at_start,
                       struct kd_token_ids *ids)
{
    if (len == 0)
        return KD_OK;
    return t->cutter == KD_CUT_METASPACE ? cut_metaspace(t, s, text, len, at_start, ids)
                                         : cut_byte_level(t, s, text, len, ids);
}
