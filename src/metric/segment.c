/* SPDX-License-Identifier: Apache-2.0 */
/* The tokenizers of BLEU and TER: those of mteval v13a and v14 (international), by
 * character, for Chinese, and Tercom's, with the behaviour of sacreBLEU's.
 *
 * Each is a chain of substitutions over the whole text, from left to right and without
 * overlap, that set spaces around some characters.  Here a substitution is a pass from
 * one array of code points to another; what it asks of a character is a function. */
#include "metric_impl.h"

#include "kdhpc/base/mem.h"

typedef bool predicate(uint32_t c);

#define IN_RANGES(r, c) kd_point_in(r, sizeof(r) / sizeof *(r), c)

/* ---- characters ---- */

static bool is_digit(uint32_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_not_digit(uint32_t c)
{
    return !is_digit(c);
}

static bool is_not_number(uint32_t c)
{
    return !kd_point_is_number(c);
}

static bool is_point(uint32_t c)
{
    return c == '.' || c == ',';
}

static bool is_dash(uint32_t c)
{
    return c == '-';
}

/* ASCII punctuation and space but for the apostrophe, comma, dash and point. */
static bool is_symbol(uint32_t c)
{
    return (c >= '{' && c <= '~') || (c >= '[' && c <= '`') || (c >= ' ' && c <= '&') ||
           (c >= '(' && c <= '+') || (c >= ':' && c <= '@') || c == '/';
}

/* What sacreBLEU takes for Chinese.  Two ranges that were meant to lie beyond U+FFFF
 * are read as these by Python, general punctuation and letter-like signs among them. */
static bool is_chinese(uint32_t c)
{
    static const struct kd_point_range ranges[] = {
        {0x3400, 0x4DB5}, {0x4E00, 0x9FBB}, {0xF900, 0xFA2D}, {0xFA30, 0xFA6A},
        {0xFA70, 0xFAD9}, {0x2001, 0x2A6D}, {0xFF00, 0xFFEF}, {0x2E80, 0x2EFF},
        {0x3000, 0x303F}, {0x31C0, 0x31EF}, {0x2F00, 0x2FDF}, {0x2FF0, 0x2FFF},
        {0x3100, 0x312F}, {0x31A0, 0x31BF}, {0xFE10, 0xFE1F}, {0xFE30, 0xFE4F},
        {0x3200, 0x33FF},
    };

    return c >= 0x2001 && IN_RANGES(ranges, c);
}

static bool is_asian_punctuation(uint32_t c)
{
    static const struct kd_point_range ranges[] = {
        {0x3001, 0x3002}, {0x3008, 0x3011}, {0x3014, 0x301F}, {0xFF61, 0xFF65},
        {0x30FB, 0x30FB}, {0xFF0E, 0xFF0E}, {0xFF0C, 0xFF0C}, {0xFF1F, 0xFF1F},
        {0xFF1A, 0xFF1B}, {0xFF01, 0xFF02}, {0xFF08, 0xFF09},
    };

    return c >= 0x3001 && IN_RANGES(ranges, c);
}

/* What Tercom sets apart in Asian text.  Kana are in no range: the rule for them asks
 * for a text of nothing else, which the spaces around every text prevent. */
static bool is_asian(uint32_t c)
{
    static const struct kd_point_range ranges[] = {
        {0x4E00, 0x9FFF}, {0x3400, 0x4DBF}, {0x31C0, 0x31EF}, {0x2E80, 0x2EFF},
        {0x3200, 0x3F22}, {0xF900, 0xFAFF}, {0xFE30, 0xFE4F},
    };

    return c >= 0x2E80 && (IN_RANGES(ranges, c) || is_asian_punctuation(c));
}

static bool is_western_punctuation(uint32_t c)
{
    return c == '.' || c == ',' || c == '?' || c == ':' || c == ';' || c == '!' ||
           c == '"' || c == '(' || c == ')';
}

/* ---- passes ---- */

static void swap(struct kd_points *a, struct kd_points *b)
{
    struct kd_points t = *a;

    *a = *b;
    *b = t;
}

/* Empty TMP, with room for N characters. */
static int make_room(struct kd_points *tmp, int64_t n)
{
    tmp->n = 0;
    return kd_grow(&tmp->v, &tmp->cap, n, sizeof *tmp->v);
}

/* Append where there is room. */
static inline void put(struct kd_points *p, uint32_t c)
{
    p->v[p->n++] = c;
}

/* Characters that are IS: spaces around them. */
static int pad(struct kd_points *p, struct kd_points *tmp, predicate *is)
{
    KD_TRY(make_room(tmp, 3 * p->n));
    for (int64_t i = 0; i < p->n; i++) {
        bool apart = is(p->v[i]);

        if (apart)
            put(tmp, ' ');
        put(tmp, p->v[i]);
        if (apart)
            put(tmp, ' ');
    }
    swap(p, tmp);
    return KD_OK;
}

static void drop(struct kd_points *p, predicate *is)
{
    int64_t n = 0;

    for (int64_t i = 0; i < p->n; i++)
        if (!is(p->v[i]))
            p->v[n++] = p->v[i];
    p->n = n;
}

/* Where an A is followed by a B: "a b " or, if LEAD, " a b". */
static int split_pairs(struct kd_points *p, struct kd_points *tmp, predicate *a,
                       predicate *b, bool lead)
{
    KD_TRY(make_room(tmp, 2 * p->n));
    for (int64_t i = 0; i < p->n; i++) {
        bool found = i + 1 < p->n && b(p->v[i + 1]) && a(p->v[i]);

        if (found && lead)
            put(tmp, ' ');
        put(tmp, p->v[i]);
        if (!found)
            continue;
        put(tmp, ' ');
        put(tmp, p->v[++i]);
        if (!lead)
            put(tmp, ' ');
    }
    swap(p, tmp);
    return KD_OK;
}

static bool is_at(const struct kd_points *p, int64_t i, const char *ascii)
{
    for (; *ascii; ascii++, i++)
        if (i >= p->n || p->v[i] != (unsigned char)*ascii)
            return false;
    return true;
}

/* Every FROM becomes TO, which is not longer. */
static void replace(struct kd_points *p, const char *from, const char *to)
{
    int64_t n = 0, length = 0;

    while (from[length])
        length++;
    for (int64_t i = 0; i < p->n;) {
        if (p->v[i] == (unsigned char)*from && is_at(p, i, from)) {
            for (const char *c = to; *c; c++)
                p->v[n++] = (unsigned char)*c;
            i += length;
        } else {
            p->v[n++] = p->v[i++];
        }
    }
    p->n = n;
}

static bool contains(const struct kd_points *p, uint32_t c)
{
    for (int64_t i = 0; i < p->n; i++)
        if (p->v[i] == c)
            return true;
    return false;
}

static void unescape(struct kd_points *p)
{
    if (!contains(p, '&'))
        return;
    replace(p, "&quot;", "\"");
    replace(p, "&amp;", "&");
    replace(p, "&lt;", "<");
    replace(p, "&gt;", ">");
}

/* A space at both ends. */
static int enclose(struct kd_points *p, struct kd_points *tmp)
{
    KD_TRY(make_room(tmp, p->n + 2));
    put(tmp, ' ');
    for (int64_t i = 0; i < p->n; i++)
        put(tmp, p->v[i]);
    put(tmp, ' ');
    swap(p, tmp);
    return KD_OK;
}

/* ---- BLEU ---- */

static int split_points(struct kd_points *p, struct kd_points *tmp)
{
    KD_TRY(split_pairs(p, tmp, is_not_digit, is_point, false));
    KD_TRY(split_pairs(p, tmp, is_point, is_not_digit, true));
    return split_pairs(p, tmp, is_digit, is_dash, false);
}

static int western(struct kd_points *p, struct kd_points *tmp)
{
    KD_TRY(pad(p, tmp, is_symbol));
    return split_points(p, tmp);
}

static int mteval_13a(struct kd_points *p, struct kd_points *tmp)
{
    replace(p, "<skipped>", "");
    replace(p, "-\n", "");
    replace(p, "\n", " ");
    unescape(p);
    KD_TRY(enclose(p, tmp));
    return western(p, tmp);
}

static int international(struct kd_points *p, struct kd_points *tmp)
{
    KD_TRY(split_pairs(p, tmp, is_not_number, kd_point_is_punctuation, false));
    KD_TRY(split_pairs(p, tmp, kd_point_is_punctuation, is_not_number, true));
    return pad(p, tmp, kd_point_is_symbol);
}

static bool is_any(uint32_t c)
{
    (void)c;
    return true;
}

/* White space at the beginning, which decides whether a point there has a character
 * before it. */
static void lstrip(struct kd_points *p)
{
    int64_t n = 0;

    while (n < p->n && kd_point_is_space(p->v[n]))
        n++;
    for (int64_t i = n; i < p->n; i++)
        p->v[i - n] = p->v[i];
    p->n -= n;
}

int kd_segment_bleu(enum kd_bleu_tokenizer kind, struct kd_points *p,
                    struct kd_points *tmp)
{
    kd_points_rstrip(p);
    switch (kind) {
    case KD_BLEU_13A:
        return mteval_13a(p, tmp);
    case KD_BLEU_INTL:
        return international(p, tmp);
    case KD_BLEU_CHAR:
        return pad(p, tmp, is_any);
    case KD_BLEU_ZH:
        lstrip(p);
        KD_TRY(pad(p, tmp, is_chinese));
        return western(p, tmp);
    case KD_BLEU_NONE:
        break;
    }
    return KD_OK;
}

/* ---- TER ---- */

/* The possessive at the end of a word becomes a word. */
static int split_possessives(struct kd_points *p, struct kd_points *tmp)
{
    KD_TRY(make_room(tmp, 2 * p->n));
    for (int64_t i = 0; i < p->n; i++) {
        if (p->v[i] == '\'' && is_at(p, i, "'s "))
            put(tmp, ' ');
        put(tmp, p->v[i]);
    }
    swap(p, tmp);
    return KD_OK;
}

static int normalise(struct kd_points *p, struct kd_points *tmp, bool asian)
{
    replace(p, "\n-", "");
    replace(p, "\n", " ");
    unescape(p);
    KD_TRY(enclose(p, tmp));
    KD_TRY(pad(p, tmp, is_symbol));
    KD_TRY(split_possessives(p, tmp));
    KD_TRY(split_points(p, tmp));
    return asian ? pad(p, tmp, is_asian) : KD_OK;
}

/* One space between words, none around them. */
static void squeeze(struct kd_points *p)
{
    int64_t n = 0;

    kd_points_rstrip(p);
    for (int64_t i = 0; i < p->n; i++) {
        bool space = kd_point_is_space(p->v[i]);

        if (!space)
            p->v[n++] = p->v[i];
        else if (n > 0 && p->v[n - 1] != ' ')
            p->v[n++] = ' ';
    }
    p->n = n;
}

static int tercom(const struct kd_ter_options *o, struct kd_points *p,
                  struct kd_points *tmp)
{
    kd_points_rstrip(p);
    if (o->normalized)
        KD_TRY(normalise(p, tmp, o->asian_support));
    if (o->no_punct)
        drop(p, is_western_punctuation);
    if (o->no_punct && o->asian_support)
        drop(p, is_asian_punctuation);
    return KD_OK;
}

int kd_segment_ter(const struct kd_ter_options *o, bool reference, struct kd_points *p,
                   struct kd_points *tmp)
{
    KD_TRY(tercom(o, p, tmp));
    if (!reference || !o->normalized)
        return KD_OK;
    squeeze(p);
    return tercom(o, p, tmp);
}
