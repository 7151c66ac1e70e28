/* SPDX-License-Identifier: Apache-2.0 */
/* Added tokens: strings that are found in the text before any model sees it.
 *
 * The leftmost match wins, then the longest.  A token may swallow the white space next
 * to it (lstrip, rstrip) or want to stand alone (single_word); one that is `normalized`
 * is looked for, in its normalised form, in normalised text. */
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

int64_t kd_added_find(const struct kd_tokenizer *t, const char *content)
{
    for (int64_t i = 0; i < t->n_added; i++)
        if (strcmp(t->added[i].content, content) == 0)
            return i;
    return -1;
}

int64_t kd_added_find_bytes(const struct kd_tokenizer *t, const char *content,
                            int64_t len)
{
    for (int64_t i = 0; i < t->n_added; i++)
        if (t->added[i].content_len == len &&
            memcmp(t->added[i].content, content, (size_t)len) == 0)
            return i;
    return -1;
}

int32_t kd_token_id(const struct kd_tokenizer *t, const char *content)
{
    int64_t i = kd_added_find(t, content);

    return i >= 0 ? t->added[i].id
                  : kd_strtab_find(&t->pieces, content, (int64_t)strlen(content));
}

/** Id for a token that the model does not have: after all others. */
static int32_t next_free_id(const struct kd_tokenizer *t)
{
    int64_t id = t->slow ? t->slow->n_vocab : t->pieces.n_strings;

    for (int64_t i = 0; i < t->n_added; i++)
        if (t->added[i].id >= id)
            id = t->added[i].id + 1;
    return (int32_t)id;
}

int kd_added_put(struct kd_tokenizer *t, const struct kd_added_token *token,
                 const char *content)
{
    int64_t at = kd_added_find(t, content);
    struct kd_added_token *a = NULL;

    if (!*content)
        return KD_OK;
    if (at < 0) {
        int32_t id = kd_strtab_find(&t->pieces, content, (int64_t)strlen(content));

        if (id < 0)
            id = next_free_id(t);
        KD_TRY(kd_grow(&t->added, &t->cap_added, t->n_added + 1, sizeof *t->added));
        at = t->n_added++;
        t->added[at] = (struct kd_added_token){.id = id};
        KD_TRY(kd_strdup(content, &t->added[at].content));
    }
    a = &t->added[at];
    a->content_len = (int64_t)strlen(content);
    a->lstrip = token->lstrip;
    a->rstrip = token->rstrip;
    a->single_word = token->single_word;
    a->normalized = token->normalized;
    a->special = a->special || token->special;
    return KD_OK;
}

void kd_added_free(struct kd_tokenizer *t)
{
    for (int64_t i = 0; i < t->n_added; i++) {
        free(t->added[i].content);
        free(t->added[i].pattern);
    }
    free(t->added);
    free(t->added_by_id);
    free(t->raw_index.order);
    free(t->normalized_index.order);
}

/* ---- the index ---- */

static unsigned first_byte(const struct kd_added_token *a)
{
    return (unsigned char)a->pattern[0];
}

/** Whether token B stays before A: by first byte, longest first, special first. */
static bool stays_before(const struct kd_added_token *b, const struct kd_added_token *a)
{
    if (first_byte(b) != first_byte(a))
        return first_byte(b) < first_byte(a);
    if (b->pattern_len != a->pattern_len)
        return b->pattern_len > a->pattern_len;
    return b->special >= a->special;
}

/** Insertion sort, the lists are short. */
static void sort_order(const struct kd_tokenizer *t, struct kd_added_index *x)
{
    for (int64_t i = 1; i < x->n; i++) {
        int32_t moved = x->order[i];
        const struct kd_added_token *a = &t->added[moved];
        int64_t k = i;

        for (; k > 0; k--) {
            if (stays_before(&t->added[x->order[k - 1]], a))
                break;
            x->order[k] = x->order[k - 1];
        }
        x->order[k] = moved;
    }
}

static int index_build(const struct kd_tokenizer *t, bool normalized,
                       struct kd_added_index *x)
{
    int64_t at = 0;

    KD_TRY(kd_calloc(t->n_added, sizeof *x->order, &x->order));
    for (int64_t i = 0; i < t->n_added; i++)
        if (t->added[i].normalized == normalized && t->added[i].pattern_len > 0)
            x->order[x->n++] = (int32_t)i;
    sort_order(t, x);
    for (unsigned b = 0; b <= 256; b++) {
        while (at < x->n && first_byte(&t->added[x->order[at]]) < b)
            at++;
        x->first[b] = (int32_t)at;
    }
    return KD_OK;
}

static int set_patterns(struct kd_tokenizer *t, struct kd_scratch *s)
{
    for (int64_t i = 0; i < t->n_added; i++) {
        struct kd_added_token *a = &t->added[i];
        const char *text = a->content;
        int64_t len = a->content_len;

        if (t->slow)
            a->normalized = false; /* all are found in raw text */
        if (a->normalized)
            KD_TRY(kd_normalise(t, s, a->content, a->content_len, &text, &len, NULL));
        free(a->pattern);
        KD_TRY(kd_strndup(text, len, &a->pattern));
        a->pattern_len = len;
    }
    return KD_OK;
}

int kd_added_prepare(struct kd_tokenizer *t)
{
    struct kd_scratch *s = NULL;
    int rc = KD_OK;

    KD_TRY(kd_scratch_take(t, &s));
    KD_GO(set_patterns(t, s));
    KD_GO(index_build(t, false, &t->raw_index));
    KD_GO(index_build(t, true, &t->normalized_index));
    t->size = t->slow ? t->slow->n_vocab : t->pieces.n;
    for (int64_t i = 0; i < t->n_added; i++)
        if (t->added[i].id >= t->size)
            t->size = t->added[i].id + 1;
    KD_GO(kd_calloc(t->size, sizeof *t->added_by_id, &t->added_by_id));
    memset(t->added_by_id, 0xff, (size_t)t->size * sizeof *t->added_by_id);
    for (int64_t i = 0; i < t->n_added; i++)
        t->added_by_id[t->added[i].id] = (int32_t)i;
out:
    kd_scratch_give(t, s);
    return rc;
}

/* ---- matching ---- */

/** Start of the last character of TEXT[len], LEN > 0. */
static int64_t last_char(const char *text, int64_t len)
{
    int64_t i = len - 1;

    while (i > 0 && ((unsigned char)text[i] & 0xC0) == 0x80)
        i--;
    return i;
}

static bool stands_alone(const char *text, int64_t len, int64_t start, int64_t stop)
{
    int n = 0;

    if (start > 0) {
        int64_t i = last_char(text, start);

        if (kd_is_word_char(kd_utf8_next(text + i, start - i, &n)))
            return false;
    }
    return stop == len || !kd_is_word_char(kd_utf8_next(text + stop, len - stop, &n));
}

static void swallow_space(const struct kd_added_token *a, const char *text, int64_t len,
                          int64_t floor, struct kd_added_match *m)
{
    int n = 0;

    while (a->lstrip && m->start > floor) {
        int64_t i = last_char(text, m->start);

        if (!kd_is_white_space(kd_utf8_next(text + i, m->start - i, &n)))
            break;
        m->start = i;
    }
    while (a->rstrip && m->stop < len &&
           kd_is_white_space(kd_utf8_next(text + m->stop, len - m->stop, &n)))
        m->stop += n;
}

bool kd_added_next(const struct kd_tokenizer *t, const struct kd_added_index *index,
                   const char *text, int64_t len, int64_t from, int64_t floor,
                   struct kd_added_match *out)
{
    if (index->n == 0)
        return false;
    for (int64_t i = from; i < len; i++) {
        unsigned char byte = (unsigned char)text[i];

        for (int32_t k = index->first[byte]; k < index->first[byte + 1]; k++) {
            const struct kd_added_token *a = &t->added[index->order[k]];

            if (a->pattern_len > len - i ||
                memcmp(text + i, a->pattern, (size_t)a->pattern_len) != 0)
                continue;
            *out = (struct kd_added_match){i, i + a->pattern_len, i + a->pattern_len,
                                           a->id};
            if (a->single_word && !stands_alone(text, len, out->start, out->stop)) {
                i = out->next - 1; /* a discarded match is passed over whole */
                break;
            }
            swallow_space(a, text, len, floor, out);
            return true;
        }
    }
    return false;
}
