/* SPDX-License-Identifier: Apache-2.0 */
/* From ids back to text: token strings, without the special ones, through the decoder's
 * steps, then put together.
 *
 * Each step makes a list of strings from a list of strings.  Lists lie in one buffer
 * with the end of each string, two of which take turns. */
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

int kd_decode_add(struct kd_tokenizer *t, enum kd_decode_kind kind, const char *pattern,
                  const char *content)
{
    struct kd_decode_step *step = &t->decode[t->n_decode];

    if (t->n_decode == KD_MAX_DECODE_STEPS)
        return KD_FAIL(KD_EINPUT, "the tokenizer has more than %d decoders",
                       KD_MAX_DECODE_STEPS);
    t->n_decode++;
    step->kind = kind;
    if (pattern)
        KD_TRY(kd_strdup(pattern, &step->pattern));
    return content ? kd_strdup(content, &step->content) : KD_OK;
}

void kd_decode_free(struct kd_tokenizer *t)
{
    for (int i = 0; i < t->n_decode; i++) {
        free(t->decode[i].pattern);
        free(t->decode[i].content);
        kd_regex_free(t->decode[i].regex);
    }
}

/* ---- clean-up ---- */

static int replace(struct kd_str *s, const char *from, const char *to)
{
    int64_t n = (int64_t)strlen(from), m = (int64_t)strlen(to), out = 0;

    for (int64_t i = 0; i < s->len;) { /* M <= N: in place */
        if (i + n <= s->len && s->data[i] == from[0] &&
            memcmp(s->data + i, from, (size_t)n) == 0) {
            memcpy(s->data + out, to, (size_t)m);
            out += m;
            i += n;
        } else {
            s->data[out++] = s->data[i++];
        }
    }
    s->len = out;
    if (s->data)
        s->data[out] = '\0';
    return KD_OK;
}

int kd_clean_up(struct kd_str *s, bool word_piece)
{
    static const char *const rules[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };

    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (word_piece || strcmp(rules[i][0], " do not") != 0)
            KD_TRY(replace(s, rules[i][0], rules[i][1]));
    return KD_OK;
}

/* ---- lists of strings ---- */

struct list {
    struct kd_str bytes;
    int64_t *end; /* [n] */
    int64_t n, cap;
};

static void list_free(struct list *l)
{
    kd_str_free(&l->bytes);
    free(l->end);
}

static int list_put(struct list *l, const char *s, int64_t len)
{
    return kd_str_append(&l->bytes, s, len);
}

/** What was put since the last end is one string. */
static int list_end(struct list *l)
{
    KD_TRY(kd_grow(&l->end, &l->cap, l->n + 1, sizeof *l->end));
    l->end[l->n++] = l->bytes.len;
    return KD_OK;
}

static const char *list_get(const struct list *l, int64_t i, int64_t *len)
{
    int64_t start = i ? l->end[i - 1] : 0;

    *len = l->end[i] - start;
    return l->bytes.data ? l->bytes.data + start : "";
}

/* ---- steps, one string at a time ---- */

static int put_replaced(struct list *out, const char *s, int64_t len, const char *from,
                        const char *to)
{
    int64_t n = (int64_t)strlen(from);
    const char *at = NULL, *end = s + len;

    while (n && (at = memmem(s, (size_t)(end - s), from, (size_t)n))) {
        KD_TRY(list_put(out, s, at - s));
        KD_TRY(list_put(out, to, (int64_t)strlen(to)));
        s = at + n;
    }
    return list_put(out, s, end - s);
}

static int put_matches_replaced(const struct kd_decode_step *step, void *match,
                                struct list *out, const char *s, int64_t len)
{
    struct kd_regex_walk w = KD_REGEX_WALK;
    int64_t done = 0;
    bool found = len > 0;

    while (found) {
        KD_TRY(kd_regex_next(step->regex, match, s, len, &w, &found));
        if (!found)
            break;
        KD_TRY(list_put(out, s + done, w.start - done));
        KD_TRY(list_put(out, step->content, (int64_t)strlen(step->content)));
        done = w.stop;
    }
    return list_put(out, s + done, len - done);
}

static int put_word_piece(const struct kd_decode_step *step, struct list *out,
                          const char *s, int64_t len, bool first)
{
    int64_t n = (int64_t)strlen(step->pattern), before = out->bytes.len;
    struct kd_str cleaned = {0};
    int rc = KD_OK;

    if (!first && len >= n && memcmp(s, step->pattern, (size_t)n) == 0) {
        s += n;
        len -= n;
    } else if (!first) {
        KD_TRY(list_put(out, " ", 1));
    }
    KD_TRY(list_put(out, s, len));
    if (!step->flag || out->bytes.len == before)
        return KD_OK;
    KD_GO(kd_str_append(&cleaned, out->bytes.data + before, out->bytes.len - before));
    KD_GO(kd_clean_up(&cleaned, true));
    out->bytes.len = before;
    KD_GO(list_put(out, cleaned.data, cleaned.len));
out:
    kd_str_free(&cleaned);
    return rc;
}

static int put_stripped(const struct kd_decode_step *step, struct list *out,
                        const char *s, int64_t len)
{
    int64_t n = (int64_t)strlen(step->pattern);

    for (int64_t k = 0;
         k < step->start && n && len >= n && memcmp(s, step->pattern, (size_t)n) == 0;
         k++) {
        s += n;
        len -= n;
    }
    for (int64_t k = 0; k < step->stop && n && len >= n &&
                        memcmp(s + len - n, step->pattern, (size_t)n) == 0;
         k++)
        len -= n;
    return list_put(out, s, len);
}

static int put_one(const struct kd_decode_step *step, void *match, struct list *out,
                   const char *s, int64_t len, bool first, bool last)
{
    switch (step->kind) {
    case KD_DECODE_METASPACE:
        return put_replaced(out, s, len, step->pattern, first && step->flag ? "" : " ");
    case KD_DECODE_SUFFIX:
        return put_replaced(out, s, len, step->pattern, last ? "" : " ");
    case KD_DECODE_REPLACE:
        return put_matches_replaced(step, match, out, s, len);
    case KD_DECODE_WORD_PIECE:
        return put_word_piece(step, out, s, len, first);
    default:
        return put_stripped(step, out, s, len);
    }
}

/* ---- steps over the whole list ---- */

/** Append one token's bytes: characters mapped back, or as they are if one does not
 * map. */
static int append_bytes(const char *token, int64_t len, struct kd_str *out)
{
    int64_t before = out->len;

    for (int64_t i = 0; i < len;) {
        int n = 0, byte = kd_byte_level_byte(kd_utf8_next(token + i, len - i, &n));
        char c = (char)byte;

        if (byte < 0) {
            out->len = before;
            return kd_str_append(out, token, len);
        }
        KD_TRY(kd_str_append(out, &c, 1));
        i += n;
    }
    return KD_OK;
}

static int join_bytes(const struct list *in, struct list *out)
{
    struct kd_str bytes = {0};
    int rc = KD_OK;

    for (int64_t i = 0; i < in->n; i++) {
        int64_t len = 0;
        const char *s = list_get(in, i, &len);

        KD_GO(append_bytes(s, len, &bytes));
    }
    KD_GO(kd_str_append_lossy(&out->bytes, bytes.data ? bytes.data : "", bytes.len));
    rc = list_end(out);
out:
    kd_str_free(&bytes);
    return rc;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/** The byte that the piece S[len] spells as <0x..>, or -1. */
static int spelt_byte(const char *s, int64_t len)
{
    if (len != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>' || hex_digit(s[3]) < 0 ||
        hex_digit(s[4]) < 0)
        return -1;
    return hex_digit(s[3]) * 16 + hex_digit(s[4]);
}

/** Bytes in a row are one string if they are UTF-8, else a U+FFFD each. */
static int end_bytes(struct kd_str *bytes, struct list *out)
{
    if (bytes->len == 0)
        return KD_OK;
    if (kd_utf8_invalid_at(bytes->data, bytes->len) < 0) {
        KD_TRY(list_put(out, bytes->data, bytes->len));
        KD_TRY(list_end(out));
    } else {
        for (int64_t i = 0; i < bytes->len; i++) {
            KD_TRY(list_put(out, "\xEF\xBF\xBD", 3));
            KD_TRY(list_end(out));
        }
    }
    kd_str_clear(bytes);
    return KD_OK;
}

static int fall_back(const struct list *in, struct list *out)
{
    struct kd_str bytes = {0};
    int rc = KD_OK;

    for (int64_t i = 0; i < in->n; i++) {
        int64_t len = 0;
        const char *s = list_get(in, i, &len);
        int byte = spelt_byte(s, len);
        char c = (char)byte;

        if (byte >= 0) {
            KD_GO(kd_str_append(&bytes, &c, 1));
            continue;
        }
        KD_GO(end_bytes(&bytes, out));
        KD_GO(list_put(out, s, len));
        KD_GO(list_end(out));
    }
    rc = end_bytes(&bytes, out);
out:
    kd_str_free(&bytes);
    return rc;
}

static int apply_step(const struct kd_decode_step *step, void *match,
                      const struct list *in, struct list *out)
{
    kd_str_clear(&out->bytes);
    out->n = 0;
    if (step->kind == KD_DECODE_BYTE_LEVEL)
        return join_bytes(in, out);
    if (step->kind == KD_DECODE_BYTE_FALLBACK)
        return fall_back(in, out);
    if (step->kind == KD_DECODE_FUSE) {
        KD_TRY(list_put(out, in->bytes.data ? in->bytes.data : "", in->bytes.len));
        return list_end(out);
    }
    for (int64_t i = 0; i < in->n; i++) {
        int64_t len = 0;
        const char *s = list_get(in, i, &len);

        KD_TRY(put_one(step, match, out, s, len, i == 0, i + 1 == in->n));
        KD_TRY(list_end(out));
    }
    return KD_OK;
}

/* ---- decoding ---- */

/** The text of ID, or NULL for one that is skipped or unknown. */
static const char *token_text(const struct kd_tokenizer *t, int32_t id, int64_t *len)
{
    if (id >= 0 && id < t->size && t->added_by_id[id] >= 0) {
        const struct kd_added_token *a = &t->added[t->added_by_id[id]];

        *len = a->content_len;
        return a->special ? NULL : a->content;
    }
    return kd_strtab_get(&t->pieces, id, len);
}

static int decode_with(const struct kd_tokenizer *t, struct kd_scratch *s,
                       struct list lists[2], const int32_t *ids, int64_t n,
                       struct kd_str *out)
{
    int at = 0;

    for (int64_t i = 0; i < n; i++) {
        int64_t len = 0;
        const char *token = token_text(t, ids[i], &len);

        if (!token)
            continue;
        if (t->decode_joins && lists[0].n)
            KD_TRY(list_put(&lists[0], " ", 1));
        KD_TRY(list_put(&lists[0], token, len));
        KD_TRY(list_end(&lists[0]));
    }
    for (int i = 0; i < t->n_decode; i++) {
        KD_TRY(apply_step(&t->decode[i], s->match, &lists[at], &lists[!at]));
        at = !at;
    }
    return kd_str_append(out, lists[at].bytes.data ? lists[at].bytes.data : "",
                         lists[at].bytes.len);
}

int kd_tokenizer_decode(const struct kd_tokenizer *t, const int32_t *ids, int64_t n,
                        struct kd_str *out)
{
    struct list lists[2] = {0};
    struct kd_scratch *s = NULL;
    int rc = KD_OK;

    kd_str_clear(out);
    KD_TRY(kd_scratch_take(t, &s));
    KD_GO(kd_str_append(out, "", 0));
    KD_GO(t->slow ? kd_slow_decode(t, ids, n, out)
                  : decode_with(t, s, lists, ids, n, out));
    if (t->cleanup)
        KD_GO(kd_clean_up(out, false));
out:
    kd_scratch_give(t, s);
    list_free(&lists[0]);
    list_free(&lists[1]);
    return rc;
}
