/* SPDX-License-Identifier: Apache-2.0 */
/* Moses detokenisation, as sacremoses does it: words back to text.
 *
 * Every word is looked at in turn; what it is decides whether a space goes before it
 * and whether one goes before the next. */
#include "moses_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

struct word {
    const char *s;
    int64_t n;
};

/** What the loop over words knows; COUNTS of quotation marks by kind. */
struct joining {
    const struct kd_moses *m;
    const struct word *words;
    int64_t n;
    bool space; /* one goes before the next word */
    int counts[6];
    struct kd_str *out;
};

/* ---- words ---- */

static uint32_t first_char(struct word w)
{
    int n = 0;

    return kd_utf8_next(w.s, w.n, &n);
}

static uint32_t last_char(struct word w)
{
    int64_t i = w.n - 1;
    int n = 0;

    while (i > 0 && ((unsigned char)w.s[i] & 0xC0) == 0x80)
        i--;
    return kd_utf8_next(w.s + i, w.n - i, &n);
}

static bool is_lang(const struct joining *j, const char *lang)
{
    return strcmp(j->m->lang, lang) == 0;
}

static bool is_word(struct word w, const char *text)
{
    return w.n == (int64_t)strlen(text) && memcmp(w.s, text, (size_t)w.n) == 0;
}

typedef bool char_test(const struct kd_moses *m, uint32_t cp);

static bool all_chars(const struct kd_moses *m, struct word w, char_test *test)
{
    for (int64_t i = 0; i < w.n;) {
        int n = 0;

        if (!test(m, kd_utf8_next(w.s + i, w.n - i, &n)))
            return false;
        i += n;
    }
    return true;
}

static bool is_opening(const struct kd_moses *m, uint32_t cp)
{
    return (kd_moses_class_of(m, cp) & KD_MOSES_IS_CURRENCY) || cp == '(' ||
           cp == '[' || cp == '{' || cp == 0xBF || cp == 0xA1;
}

static bool is_closing(const struct kd_moses *m, uint32_t cp)
{
    (void)m;
    return cp < 0x80 && cp && strchr(",.?!:;\\%}])", (int)cp);
}

static bool is_quote(const struct kd_moses *m, uint32_t cp)
{
    (void)m;
    return cp == '\'' || cp == '"' || cp == '`' || cp == 0x201E || cp == 0x201C;
}

static bool is_digit(const struct kd_moses *m, uint32_t cp)
{
    (void)m;
    return cp >= '0' && cp <= '9';
}

static bool is_alpha(const struct kd_moses *m, uint32_t cp)
{
    return kd_moses_class_of(m, cp) & KD_MOSES_IS_ALPHA;
}

static bool is_east_asian(uint32_t cp)
{
    static const struct kd_char_range ranges[] = {
        {0x1100, 0x11FF},   {0x2E80, 0xA4CF},   {0xA840, 0xA87F},   {0xAC00, 0xD7AF},
        {0xF900, 0xFAFF},   {0xFE30, 0xFE4F},   {0xFF65, 0xFFDC},   {0x17000, 0x18AFF},
        {0x1B000, 0x1B0FF}, {0x1B130, 0x1B16F}, {0x20000, 0x2FFFF},
    };

    return kd_char_in(ranges, sizeof ranges / sizeof *ranges, cp);
}

/* ---- putting words together ---- */

static int put(struct joining *j, struct word w, bool space_before, bool space_after)
{
    if (space_before && j->space)
        KD_TRY(kd_str_append(j->out, " ", 1));
    j->space = space_after;
    return kd_str_append(j->out, w.s, w.n);
}

/** The kind of a quotation mark: which counter it has. */
static int quote_kind(struct word w)
{
    static const char *const kinds[] = {"\"", "'", "``", "`", "''"};
    bool curly = true;

    for (int64_t i = 0; i < w.n && curly; i += 3)
        curly = i + 3 <= w.n && (memcmp(w.s + i, "\xE2\x80\x9E", 3) == 0 ||
                                 memcmp(w.s + i, "\xE2\x80\x9C", 3) == 0 ||
                                 memcmp(w.s + i, "\xE2\x80\x9D", 3) == 0);
    if (curly)
        return 0;
    for (int k = 0; k < 5; k++)
        if (is_word(w, kinds[k]))
            return k;
    return 5;
}

static int put_quote(struct joining *j, int64_t i)
{
    struct word w = j->words[i];
    int *count = &j->counts[quote_kind(w)];

    if (is_lang(j, "cs") && is_word(w, "\xE2\x80\x9E"))
        *count = 0;
    if (is_lang(j, "cs") && is_word(w, "\xE2\x80\x9C"))
        *count = 1;
    if (*count % 2 == 0) {
        if (is_lang(j, "en") && is_word(w, "'") && i > 0 &&
            last_char(j->words[i - 1]) == 's')
            return put(j, w, false, true);
        ++*count;
        return put(j, w, true, false);
    }
    ++*count;
    return put(j, w, false, true);
}

/** Whether word I and its neighbours are a contraction that takes no space; *AFTER: one
 * goes after it, else before it. */
static bool is_contraction(const struct joining *j, int64_t i, bool *after)
{
    struct word w = j->words[i];
    int n = 0;

    *after = true;
    if (is_lang(j, "en") && i > 0 && w.n > 1 && w.s[0] == '\'' &&
        is_alpha(j->m, kd_utf8_next(w.s + 1, w.n - 1, &n)))
        return true;
    if (is_lang(j, "cs") && i > 1 && all_chars(j->m, j->words[j->n - 2], is_digit) &&
        (is_word(j->words[j->n - 1], ".") || is_word(j->words[j->n - 1], ",")) &&
        all_chars(j->m, w, is_digit))
        return true;
    *after = false;
    if (!is_lang(j, "fr") && !is_lang(j, "it") && !is_lang(j, "ga"))
        return false;
    if (i + 2 > j->n || w.n < 2 || w.s[w.n - 1] != '\'')
        return false;
    return i + 1 < j->n && is_alpha(j->m, last_char((struct word){w.s, w.n - 1})) &&
           is_alpha(j->m, first_char(j->words[i + 1]));
}

static int put_word(struct joining *j, int64_t i)
{
    struct word w = j->words[i];
    bool after = true;

    if (is_east_asian(first_char(w)) && !is_lang(j, "ko"))
        return put(j, w, i == 0 || !is_east_asian(last_char(j->words[i - 1])), true);
    if (all_chars(j->m, w, is_opening))
        return put(j, w, true, false);
    if (all_chars(j->m, w, is_closing)) {
        if (is_lang(j, "fr") && w.n == 1 && strchr("?!:;\\%", w.s[0]))
            KD_TRY(kd_str_append(j->out, " ", 1));
        return put(j, w, false, true);
    }
    if (is_contraction(j, i, &after))
        return put(j, w, !after, after);
    if (all_chars(j->m, w, is_quote))
        return put_quote(j, i);
    return put(j, w, true, true);
}

/* ---- escapes ---- */

static int unescape(const char *text, int64_t len, struct kd_str *out)
{
    static const char *const pairs[][2] = {
        {" @-@ ", "-"},  {"&bar;", "|"}, {"&#124;", "|"}, {"&lt;", "<"},
        {"&gt;", ">"},   {"&bra;", "["}, {"&ket;", "]"},  {"&quot;", "\""},
        {"&apos;", "'"}, {"&#91;", "["}, {"&#93;", "]"},  {"&amp;", "&"},
    };
    struct kd_str side[2] = {0};
    int at = 0, rc = KD_OK;

    KD_GO(kd_str_append(&side[0], text, len));
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        const char *p = side[at].data, *end = p + side[at].len, *found = NULL;
        size_t n = strlen(pairs[i][0]);

        kd_str_clear(&side[!at]);
        while ((found = memmem(p, (size_t)(end - p), pairs[i][0], n))) {
            KD_GO(kd_str_append(&side[!at], p, found - p));
            KD_GO(kd_str_append(&side[!at], pairs[i][1], 1));
            p = found + n;
        }
        KD_GO(kd_str_append(&side[!at], p, end - p));
        at = !at;
    }
    rc = kd_str_append(out, side[at].data, side[at].len);
out:
    kd_str_free(&side[0]);
    kd_str_free(&side[1]);
    return rc;
}

/** Words with one space between and at both ends. */
static int rejoin(const char *words, int64_t len, struct kd_str *out)
{
    const char *w = NULL;
    int64_t n = 0;

    KD_TRY(kd_str_append(out, " ", 1));
    while (kd_next_word(&words, &len, &w, &n)) {
        KD_TRY(kd_str_append(out, w, n));
        KD_TRY(kd_str_append(out, " ", 1));
    }
    return KD_OK;
}

/** Append TEXT[len] to OUT, spaces in a row as one, none at the ends. */
static int append_tidy(const char *text, int64_t len, struct kd_str *out)
{
    kd_python_strip(&text, &len);
    for (int64_t i = 0; i < len; i++)
        if (text[i] != ' ' || text[i - 1] != ' ')
            KD_TRY(kd_str_append(out, text + i, 1));
    return KD_OK;
}

int kd_moses_detokenise(const struct kd_moses *m, const char *words, int64_t len,
                        struct kd_str *out)
{
    struct kd_str spaced = {0}, plain = {0}, text = {0};
    struct joining j = {.m = m, .space = true, .out = &text};
    struct word *list = NULL, w = {0};
    const char *p = NULL;
    int64_t cap = 0, left = 0;
    int rc = KD_OK;

    KD_GO(rejoin(words, len, &spaced));
    KD_GO(unescape(spaced.data, spaced.len, &plain));
    p = plain.data;
    left = plain.len;
    while (kd_next_word(&p, &left, &w.s, &w.n)) {
        KD_GO(kd_grow(&list, &cap, j.n + 1, sizeof *list));
        list[j.n++] = w;
    }
    j.words = list;
    for (int64_t i = 0; i < j.n; i++)
        KD_GO(put_word(&j, i));
    rc = append_tidy(text.data ? text.data : "", text.len, out);
out:
    free(list);
    kd_str_free(&spaced);
    kd_str_free(&plain);
    kd_str_free(&text);
    return rc;
}
