/* SPDX-License-Identifier: Apache-2.0 */
/* Byte-pair encoding: merge the adjacent pair of lowest rank until none merges.
 *
 * Pairs wait in a heap ordered by rank, then place, so a word of n symbols costs
 * n log n whatever its length; entries whose symbols changed since are dropped when
 * they come up.  Byte-level vocabularies start from bytes, each written as a printable
 * character; SentencePiece ones start from characters. */
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

struct kd_symbol {
    int32_t id;
    int32_t prev, next; /* -1: none */
    bool gone;          /* swallowed by the symbol to its left */
};

struct kd_heap_entry {
    int32_t rank, place, result;
};

/* ---- bytes as characters ---- */

static bool stands_for_itself(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
           byte >= 0xAE;
}

/* The others take the characters from U+0100 on: 0 to 0x20, 0x7F to 0xA0, 0xAD. */
uint32_t kd_byte_level_char(uint8_t byte)
{
    if (stands_for_itself(byte))
        return byte;
    return byte <= 0x20 ? 0x100u + byte : byte <= 0xA0 ? 0x121u + byte - 0x7F : 0x143u;
}

int kd_byte_level_byte(uint32_t cp)
{
    if (cp < 0x100)
        return stands_for_itself(cp) ? (int)cp : -1;
    if (cp <= 0x120)
        return (int)cp - 0x100;
    return cp <= 0x142 ? (int)cp - 0x121 + 0x7F : cp == 0x143 ? 0xAD : -1;
}

int kd_str_append_byte_chars(struct kd_str *out, const char *text, int64_t len)
{
    for (int64_t i = 0; i < len; i++) {
        char utf8[4];

        KD_TRY(kd_str_append(out, utf8,
                             kd_utf8_put(kd_byte_level_char((uint8_t)text[i]), utf8)));
    }
    return KD_OK;
}

/* ---- merges ---- */

int kd_merges_reserve(struct kd_merges *m, int64_t n)
{
    for (m->n_slots = 16; m->n_slots < 2 * n;)
        m->n_slots *= 2;
    KD_TRY(kd_calloc(m->n_slots, sizeof *m->pair, &m->pair));
    KD_TRY(kd_calloc(m->n_slots, sizeof *m->rank, &m->rank));
    KD_TRY(kd_calloc(m->n_slots, sizeof *m->result, &m->result));
    memset(m->pair, 0xff, (size_t)m->n_slots * sizeof *m->pair);
    return KD_OK;
}

/** Slot of PAIR, or the free one where it belongs. */
static int64_t merge_slot(const struct kd_merges *m, uint64_t pair)
{
    int64_t mask = m->n_slots - 1;
    int64_t i = (int64_t)((pair * 0x9E3779B97F4A7C15u) >> 20) & mask;

    while (m->pair[i] != UINT64_MAX && m->pair[i] != pair)
        i = (i + 1) & mask;
    return i;
}

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

int kd_merges_add(struct kd_tokenizer *t, const char *left, int64_t left_len,
                  const char *right, int64_t right_len, int64_t rank)
{
    struct kd_merges *m = &t->merges;
    int32_t l = kd_strtab_find(&t->pieces, left, left_len),
            r = kd_strtab_find(&t->pieces, right, right_len), joined = -1;
    int64_t skip = m->prefix ? (int64_t)strlen(m->prefix) : 0, slot = 0;
    struct kd_str s = {0};
    int rc = KD_OK;

    skip =
        skip < right_len ? skip : right_len; /* the join goes on without the prefix */
    KD_GO(kd_str_append(&s, left, left_len));
    KD_GO(kd_str_append(&s, right + skip, right_len - skip));
    joined = kd_strtab_find(&t->pieces, s.data, s.len);
    if (l < 0 || r < 0 || joined < 0) {
        rc = KD_FAIL(KD_EINPUT,
                     "merge %lld of the tokenizer, \"%.*s\" + \"%.*s\", has a part or "
                     "a result that is not in the vocabulary",
                     (long long)rank + 1, (int)left_len, left, (int)right_len, right);
        goto out;
    }
    slot = merge_slot(m, pair_of(l, r));
    if (m->pair[slot] != UINT64_MAX) /* a pair said twice: the first counts */
        goto out;
    m->pair[slot] = pair_of(l, r);
    m->rank[slot] = (int32_t)rank;
    m->result[slot] = joined;
    m->n++;
out:
    kd_str_free(&s);
    return rc;
}

void kd_bpe_prepare(struct kd_tokenizer *t)
{
    for (int b = 0; b < 256; b++) {
        char utf8[4];
        int n = kd_utf8_put(kd_byte_level_char((uint8_t)b), utf8);

        t->merges.byte_id[b] = kd_strtab_find(&t->pieces, utf8, n);
    }
}

/* ---- heap ---- */

static bool entry_before(const struct kd_heap_entry *a, const struct kd_heap_entry *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->place < b->place;
}

static void sift_down(struct kd_heap_entry *h, int64_t n, int64_t i)
{
    struct kd_heap_entry e = h[i];

    for (int64_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && entry_before(&h[child + 1], &h[child]))
            child++;
        if (!entry_before(&h[child], &e))
            break;
        h[i] = h[child];
        i = child;
    }
    h[i] = e;
}

/** Queue the merge of the symbol at PLACE with the next one, if they merge. */
static int heap_offer(const struct kd_tokenizer *t, struct kd_scratch *s, int32_t place)
{
    const struct kd_symbol *a = &s->symbols[place];
    struct kd_heap_entry e = {.place = place};
    int64_t slot = 0, i = 0;

    if (a->next < 0)
        return KD_OK;
    slot = merge_slot(&t->merges, pair_of(a->id, s->symbols[a->next].id));
    if (t->merges.pair[slot] == UINT64_MAX)
        return KD_OK;
    e.rank = t->merges.rank[slot];
    e.result = t->merges.result[slot];
    KD_TRY(kd_grow(&s->heap, &s->cap_heap, s->n_heap + 1, sizeof *s->heap));
    for (i = s->n_heap++; i > 0 && entry_before(&e, &s->heap[(i - 1) / 2]);
         i = (i - 1) / 2)
        s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = e;
    return KD_OK;
}

static struct kd_heap_entry heap_pop(struct kd_scratch *s)
{
    struct kd_heap_entry top = s->heap[0];

    s->heap[0] = s->heap[--s->n_heap];
    if (s->n_heap > 0)
        sift_down(s->heap, s->n_heap, 0);
    return top;
}

/** Whether the queued merge is still what its two symbols say. */
static bool still_merges(const struct kd_tokenizer *t, const struct kd_scratch *s,
                         const struct kd_heap_entry *e)
{
    const struct kd_symbol *a = &s->symbols[e->place];
    int64_t slot = 0;

    if (a->gone || a->next < 0)
        return false;
    slot = merge_slot(&t->merges, pair_of(a->id, s->symbols[a->next].id));
    return t->merges.pair[slot] != UINT64_MAX && t->merges.result[slot] == e->result;
}

static int merge_all(const struct kd_tokenizer *t, struct kd_scratch *s, int32_t n)
{
    s->n_heap = 0;
    for (int32_t i = 0; i + 1 < n; i++)
        KD_TRY(heap_offer(t, s, i));
    while (s->n_heap > 0) {
        struct kd_heap_entry e = heap_pop(s);
        struct kd_symbol *a = &s->symbols[e.place], *b = NULL;

        if (!still_merges(t, s, &e))
            continue;
        b = &s->symbols[a->next];
        a->id = e.result;
        b->gone = true;
        a->next = b->next;
        if (b->next >= 0)
            s->symbols[b->next].prev = e.place;
        if (a->prev >= 0)
            KD_TRY(heap_offer(t, s, a->prev));
        KD_TRY(heap_offer(t, s, e.place));
    }
    return KD_OK;
}

/* ---- a word ---- */

static void add_symbol(struct kd_scratch *s, int32_t *n, int32_t id)
{
    if (*n > 0)
        s->symbols[*n - 1].next = *n;
    s->symbols[*n] = (struct kd_symbol){.id = id, .prev = *n - 1, .next = -1};
    ++*n;
}

/** Id of the character CHAR[n] of a word, with the prefix or suffix that it carries;
 * its text in *TEXT[*LEN]. */
static int find_symbol(const struct kd_tokenizer *t, struct kd_scratch *s,
                       const char *c, int n, bool first, bool last, const char **text,
                       int64_t *len, int32_t *id)
{
    const char *prefix = first ? NULL : t->merges.prefix,
               *suffix = last ? t->merges.suffix : NULL;

    *text = c;
    *len = n;
    if (prefix || suffix) {
        kd_str_clear(&s->symbol);
        if (prefix)
            KD_TRY(kd_str_append(&s->symbol, prefix, (int64_t)strlen(prefix)));
        KD_TRY(kd_str_append(&s->symbol, c, n));
        if (suffix)
            KD_TRY(kd_str_append(&s->symbol, suffix, (int64_t)strlen(suffix)));
        *text = s->symbol.data;
        *len = s->symbol.len;
    }
    *id = kd_strtab_find(&t->pieces, *text, *len);
    return KD_OK;
}

/** Symbols of the characters of WORD; unknown ones in a row are one if they fuse. */
static int char_symbols(const struct kd_tokenizer *t, struct kd_scratch *s,
                        const char *word, int64_t len, int32_t *n)
{
    struct kd_token_ids bytes = {0};
    bool in_unknown = false;
    int rc = KD_OK, n_bytes = 0;

    for (int64_t i = 0; i < len; i += n_bytes) {
        const char *text = NULL;
        int64_t text_len = 0;
        bool done = false;
        int32_t id = 0;

        (void)kd_utf8_next(word + i, len - i, &n_bytes);
        KD_GO(find_symbol(t, s, word + i, n_bytes, i == 0, i + n_bytes == len, &text,
                          &text_len, &id));
        if (id < 0 && t->byte_fallback) {
            bytes.n = 0;
            KD_GO(kd_byte_pieces(t, text, text_len, &bytes, &done));
            KD_GO(kd_grow(&s->symbols, &s->cap_symbols, *n + bytes.n + len - i,
                          sizeof *s->symbols));
        }
        if (done) {
            for (int64_t k = 0; k < bytes.n; k++)
                add_symbol(s, n, bytes.v[k]);
        } else if (id >= 0) {
            add_symbol(s, n, id);
            in_unknown = false;
        } else if (t->unk_piece >= 0) {
            if (!in_unknown || !t->fuse_unk)
                add_symbol(s, n, t->unk_piece);
            in_unknown = true;
        }
    }
out:
    kd_token_ids_free(&bytes);
    return rc;
}

static void byte_symbols(const struct kd_tokenizer *t, struct kd_scratch *s,
                         const char *word, int64_t len, int32_t *n)
{
    bool in_unknown = false;

    for (int64_t i = 0; i < len; i++) {
        int32_t id = t->merges.byte_id[(unsigned char)word[i]];
        bool unknown = id < 0;

        if (!unknown)
            add_symbol(s, n, id);
        else if (t->unk_piece >= 0 && !(in_unknown && t->fuse_unk))
            add_symbol(s, n, t->unk_piece);
        in_unknown = unknown;
    }
}

/** The piece that WORD is, or -1. */
static int find_whole(const struct kd_tokenizer *t, struct kd_scratch *s,
                      const char *word, int64_t len, int32_t *id)
{
    if (t->merges.byte_level) {
        kd_str_clear(&s->symbol);
        KD_TRY(kd_str_append_byte_chars(&s->symbol, word, len));
        word = s->symbol.data;
        len = s->symbol.len;
    }
    *id = kd_strtab_find(&t->pieces, word, len);
    return KD_OK;
}

int kd_bpe_segment(const struct kd_tokenizer *t, struct kd_scratch *s, const char *word,
                   int64_t len, struct kd_token_ids *ids)
{
    int32_t n = 0, whole = -1;

    if (t->merges.ignore)
        KD_TRY(find_whole(t, s, word, len, &whole));
    if (whole >= 0)
        return kd_token_ids_push(ids, whole);
    if (len >= INT32_MAX)
        return KD_FAIL(KD_EINPUT, "a word of %lld bytes is too long", (long long)len);
    KD_TRY(kd_grow(&s->symbols, &s->cap_symbols, len, sizeof *s->symbols));
    if (t->merges.byte_level)
        byte_symbols(t, s, word, len, &n);
    else
        KD_TRY(char_symbols(t, s, word, len, &n));
    KD_TRY(merge_all(t, s, n));
    for (int32_t i = 0; i >= 0 && i < n; i = s->symbols[i].next)
        KD_TRY(kd_token_ids_push(ids, s->symbols[i].id));
    return KD_OK;
}
