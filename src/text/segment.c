/* SPDX-License-Identifier: Apache-2.0 */
/* From a word to its ids by the model, and the memory that encoding borrows.
 *
 * Words repeat, so each borrowed scratch keeps a direct-mapped cache from short words
 * to their ids; a hit is compared byte for byte, so the cache never changes a result.
 * WordPiece takes the longest piece that begins the rest of a word, again and again; a
 * word of which any part has no piece is unknown as a whole.  Pieces that go on a word
 * are looked up without the prefix that marks them. */
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

/* ---- scratch ---- */

static void scratch_free(struct kd_scratch *s)
{
    kd_str_free(&s->norm[0]);
    kd_str_free(&s->norm[1]);
    for (int i = 0; i < KD_MAX_CUT_STEPS; i++) {
        kd_str_free(&s->cut[i]);
        kd_str_free(&s->bytes[i]);
    }
    kd_str_free(&s->word);
    kd_str_free(&s->symbol);
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
    switch (t->segmenter) {
    case KD_UNIGRAM:
        return kd_unigram_segment(t, s, word, len, ids);
    case KD_BPE:
        return kd_bpe_segment(t, s, word, len, ids);
    case KD_WORD_PIECE:
        return kd_word_piece_segment(t, s, word, len, ids);
    case KD_WORD_LEVEL:
        break;
    }
    return kd_word_level_segment(t, word, len, ids);
}

int kd_segment(const struct kd_tokenizer *t, struct kd_scratch *s, const char *word,
               int64_t len, struct kd_token_ids *ids)
{
    struct kd_word *slot = NULL;
    int64_t before = ids->n;

    if (len == 0)
        return KD_OK;
    if (len >= WORD_BYTES || t->segmenter == KD_WORD_LEVEL)
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

/* ---- WordPiece, WordLevel ---- */

int kd_word_piece_prepare(struct kd_tokenizer *t, const char *prefix)
{
    struct kd_word_pieces *w = &t->word_pieces;
    int64_t n = (int64_t)strlen(prefix);

    for (int64_t id = 0; id < t->pieces.n; id++) {
        int64_t len = 0;
        const char *s = kd_strtab_get(&t->pieces, id, &len);

        if (!s || kd_strtab_find(&t->pieces, s, len) != id)
            continue;
        if (len > w->max_head)
            w->max_head = len;
        if (len < n || memcmp(s, prefix, (size_t)n) != 0)
            continue;
        if (len - n > w->max_tail)
            w->max_tail = len - n;
        KD_TRY(kd_strtab_put(&w->tails, id, s + n, len - n));
    }
    return kd_strtab_index(&w->tails);
}

static int push_unknown(const struct kd_tokenizer *t, struct kd_token_ids *ids)
{
    if (t->unk_piece < 0)
        return KD_FAIL(KD_EINPUT,
                       "the tokenizer has no unknown token, and the text has "
                       "a word that it does not know");
    return kd_token_ids_push(ids, t->unk_piece);
}

/** Id of the longest piece that begins WORD[len], or -1; *N: its bytes. */
static int32_t longest_piece(const struct kd_strtab *pieces, int64_t max,
                             const char *word, int64_t len, int64_t *n)
{
    for (*n = len < max ? len : max; *n > 0; --*n) {
        int32_t id = -1;

        if (*n < len && ((unsigned char)word[*n] & 0xC0) == 0x80)
            continue; /* within a character */
        id = kd_strtab_find(pieces, word, *n);
        if (id >= 0)
            return id;
    }
    return -1;
}

static bool has_more_chars(const char *word, int64_t len, int64_t max)
{
    int64_t n = 0;

    if (len <= max)
        return false;
    for (int64_t i = 0; i < len; i++)
        n += ((unsigned char)word[i] & 0xC0) != 0x80;
    return n > max;
}

int kd_word_piece_segment(const struct kd_tokenizer *t, struct kd_scratch *s,
                          const char *word, int64_t len, struct kd_token_ids *ids)
{
    const struct kd_word_pieces *w = &t->word_pieces;
    int64_t before = ids->n, n = 0;

    (void)s;
    if (has_more_chars(word, len, w->max_chars))
        return push_unknown(t, ids);
    for (int64_t at = 0; at < len; at += n) {
        int32_t id =
            longest_piece(at ? &w->tails : &t->pieces, at ? w->max_tail : w->max_head,
                          word + at, len - at, &n);

        if (id < 0) {
            ids->n = before;
            return push_unknown(t, ids);
        }
        KD_TRY(kd_token_ids_push(ids, id));
    }
    return KD_OK;
}

int kd_word_level_segment(const struct kd_tokenizer *t, const char *word, int64_t len,
                          struct kd_token_ids *ids)
{
    int32_t id = kd_strtab_find(&t->pieces, word, len);

    return id >= 0 ? kd_token_ids_push(ids, id) : push_unknown(t, ids);
}
