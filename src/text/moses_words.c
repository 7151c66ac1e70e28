/* SPDX-License-Identifier: Apache-2.0 */
/* Moses tokenisation, as sacremoses does it with aggressive dash splits and escapes.
 *
 * The text is an array of code points that passes rewrite one after another.  A pass
 * looks for one character between two others of given classes; as with a regular
 * expression, a character that one match has used cannot begin the next, which is why a
 * second pass over the same text may find more. */
#include "moses_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

int kd_chars_push(struct kd_chars *c, uint32_t cp)
{
    if (c->n == c->cap)
        KD_TRY(kd_grow(&c->v, &c->cap, c->n + 1, sizeof *c->v));
    c->v[c->n++] = cp;
    return KD_OK;
}

int kd_chars_text(struct kd_chars *c, const char *ascii)
{
    for (; *ascii; ascii++)
        KD_TRY(kd_chars_push(c, (unsigned char)*ascii));
    return KD_OK;
}

/* ---- the rules of a language ---- */

static void set_class(struct kd_moses *m, const struct kd_char_range *r, int n,
                      unsigned class)
{
    for (int i = 0; i < n; i++)
        for (uint32_t cp = r[i].first; cp <= r[i].last && cp < KD_MOSES_N_CHARS; cp++)
            m->classes[cp] |= (uint8_t) class;
}

static int set_classes(struct kd_moses *m)
{
    KD_TRY(kd_calloc(KD_MOSES_N_CHARS, 1, &m->classes));
    set_class(m, KD_MOSES_ALPHA, KD_MOSES_N_ALPHA, KD_MOSES_IS_ALPHA);
    set_class(m, KD_MOSES_DIGIT, KD_MOSES_N_DIGIT, KD_MOSES_IS_DIGIT);
    set_class(m, KD_MOSES_NUMBER, KD_MOSES_N_NUMBER, KD_MOSES_IS_NUMBER);
    set_class(m, KD_MOSES_CURRENCY, KD_MOSES_N_CURRENCY, KD_MOSES_IS_CURRENCY);
    for (uint32_t cp = 0; cp < KD_MOSES_N_CHARS; cp++)
        if (kd_is_lower_letter(cp))
            m->classes[cp] |= KD_MOSES_IS_LOWER;
    for (int i = 0; i < KD_MOSES_N_NOT_LOWER; i++)
        for (uint32_t cp = KD_MOSES_NOT_LOWER[i].first;
             cp <= KD_MOSES_NOT_LOWER[i].last && cp < KD_MOSES_N_CHARS; cp++)
            m->classes[cp] &= (uint8_t)~KD_MOSES_IS_LOWER;
    set_class(m, KD_MOSES_LOWER, KD_MOSES_N_LOWER, KD_MOSES_IS_LOWER);
    return KD_OK;
}

static int set_prefixes(struct kd_moses *m, const char *words)
{
    while (*words) {
        size_t n = strcspn(words, " ");
        bool numeric = words[n - 1] == '#';
        struct kd_strtab *table = numeric ? &m->numeric_prefixes : &m->prefixes;

        KD_TRY(kd_strtab_put(table, table->n, words, (int64_t)n - numeric));
        words += n + (words[n] == ' ');
    }
    KD_TRY(kd_strtab_index(&m->prefixes));
    return kd_strtab_index(&m->numeric_prefixes);
}

/** Abbreviations of LANG; English ones for a language that has no list at all. */
static const char *find_prefixes(const char *lang)
{
    const char *english = NULL;

    for (int i = 0; i < KD_MOSES_N_LANGUAGES; i++) {
        if (strcmp(KD_MOSES_LANGUAGES[i].name, lang) == 0)
            return KD_MOSES_LANGUAGES[i].prefixes;
        if (strcmp(KD_MOSES_LANGUAGES[i].name, "en") == 0)
            english = KD_MOSES_LANGUAGES[i].prefixes;
    }
    for (int i = 0; KD_MOSES_OTHERS[i]; i++)
        if (strcmp(KD_MOSES_OTHERS[i], lang) == 0)
            return NULL;
    return english;
}

static int moses_fill(struct kd_moses *m, const char *lang)
{
    const char *prefixes = find_prefixes(lang);

    if (!prefixes || strlen(lang) >= sizeof m->lang)
        return KD_FAIL(KD_EINPUT,
                       "Moses rules for the language %s are not among those that are "
                       "known",
                       lang);
    KD_TRY(kd_format(m->lang, sizeof m->lang, "%s", lang));
    KD_TRY(set_classes(m));
    KD_TRY(set_prefixes(m, prefixes));
    return kd_moses_rules_new(m);
}

int kd_moses_new(const char *lang, struct kd_moses **out)
{
    struct kd_moses *m = NULL;
    int rc = KD_OK;

    *out = NULL;
    KD_TRY(kd_calloc(1, sizeof *m, &m));
    rc = moses_fill(m, lang);
    if (rc)
        kd_moses_free(m);
    else
        *out = m;
    return rc;
}

void kd_moses_free(struct kd_moses *m)
{
    if (!m)
        return;
    kd_moses_rules_free(m);
    kd_strtab_free(&m->prefixes);
    kd_strtab_free(&m->numeric_prefixes);
    free(m->classes);
    free(m);
}

/* ---- passes ---- */

/** A class with what it is not: (class & ANY) or, if NONE, no character of ANY. */
struct side {
    unsigned any;
    bool none;
};

/** The text that a pass reads, and the one that it writes; they take turns. */
struct pass {
    const struct kd_moses *m;
    struct kd_chars in, out;
};

static void pass_done(struct pass *p)
{
    struct kd_chars c = p->in;

    p->in = p->out;
    p->out = c;
    p->out.n = 0;
}

static bool is_in(const struct pass *p, struct side s, int64_t i)
{
    return i >= 0 && i < p->in.n &&
           ((kd_moses_class_of(p->m, p->in.v[i]) & s.any) != 0) != s.none;
}

/** L MID R becomes L TO R; R is only looked at (AHEAD) or used up. */
static int between(struct pass *p, struct side l, uint32_t mid, struct side r,
                   bool ahead, const char *to)
{
    int64_t i = 0;

    while (i < p->in.n) {
        if (i + 1 < p->in.n && p->in.v[i + 1] == mid && is_in(p, l, i) &&
            is_in(p, r, i + 2)) {
            KD_TRY(kd_chars_push(&p->out, p->in.v[i]));
            KD_TRY(kd_chars_text(&p->out, to));
            i += 2;
            if (!ahead)
                KD_TRY(kd_chars_push(&p->out, p->in.v[i++]));
        } else {
            KD_TRY(kd_chars_push(&p->out, p->in.v[i++]));
        }
    }
    pass_done(p);
    return KD_OK;
}

/** L MID becomes L TO, if AT_END only at the end of the text. */
static int after(struct pass *p, struct side l, uint32_t mid, bool at_end,
                 const char *to)
{
    for (int64_t i = 0; i < p->in.n; i++) {
        KD_TRY(kd_chars_push(&p->out, p->in.v[i]));
        if (i + 1 < p->in.n && p->in.v[i + 1] == mid && is_in(p, l, i) &&
            (!at_end || i + 2 == p->in.n)) {
            KD_TRY(kd_chars_text(&p->out, to));
            i++;
        }
    }
    pass_done(p);
    return KD_OK;
}

/** MID R becomes TO R. */
static int before(struct pass *p, uint32_t mid, struct side r, const char *to)
{
    for (int64_t i = 0; i < p->in.n; i++) {
        if (p->in.v[i] == mid && is_in(p, r, i + 1)) {
            KD_TRY(kd_chars_text(&p->out, to));
            i++;
        }
        KD_TRY(kd_chars_push(&p->out, p->in.v[i]));
    }
    pass_done(p);
    return KD_OK;
}

/** MID becomes TO everywhere. */
static int everywhere(struct pass *p, uint32_t mid, const char *to)
{
    for (int64_t i = 0; i < p->in.n; i++)
        KD_TRY(p->in.v[i] == mid ? kd_chars_text(&p->out, to)
                                 : kd_chars_push(&p->out, p->in.v[i]));
    pass_done(p);
    return KD_OK;
}

/** One space for all white space in a row, no control characters, none at the ends. */
static int squeeze(struct pass *p)
{
    bool space = false;

    for (int64_t i = 0; i < p->in.n; i++) {
        uint32_t cp = p->in.v[i];

        if (kd_is_python_space(cp)) {
            space = p->out.n > 0;
            continue;
        }
        if (cp < 0x20)
            continue;
        if (space)
            KD_TRY(kd_chars_push(&p->out, ' '));
        space = false;
        KD_TRY(kd_chars_push(&p->out, cp));
    }
    pass_done(p);
    return KD_OK;
}

static bool stays_in_word(const struct pass *p, uint32_t cp)
{
    return (kd_moses_class_of(p->m, cp) & KD_MOSES_IS_ALNUM) || cp == ' ' ||
           cp == '.' || cp == '\'' || cp == '`' || cp == ',' || cp == '-';
}

/** Spaces around every other character. */
static int pad_others(struct pass *p)
{
    for (int64_t i = 0; i < p->in.n; i++) {
        bool stays = stays_in_word(p, p->in.v[i]);

        if (!stays)
            KD_TRY(kd_chars_push(&p->out, ' '));
        KD_TRY(kd_chars_push(&p->out, p->in.v[i]));
        if (!stays)
            KD_TRY(kd_chars_push(&p->out, ' '));
    }
    pass_done(p);
    return KD_OK;
}

/** Dots in a row become a word of their own, which no later pass splits. */
static int protect_dots(struct pass *p)
{
    for (int64_t i = 0; i < p->in.n;) {
        int64_t n = 0;

        while (i + n < p->in.n && p->in.v[i + n] == '.')
            n++;
        if (n < 2) {
            KD_TRY(kd_chars_push(&p->out, p->in.v[i++]));
            continue;
        }
        KD_TRY(kd_chars_push(&p->out, ' '));
        for (int64_t k = 0; k < n; k++)
            KD_TRY(kd_chars_text(&p->out, "DOT"));
        KD_TRY(kd_chars_text(&p->out, "MULTI"));
        i += n;
        if (i < p->in.n)
            KD_TRY(kd_chars_push(&p->out, ' '));
    }
    pass_done(p);
    return KD_OK;
}

/** Whether the ASCII text WORD is at I. */
static bool is_at(const struct kd_chars *c, int64_t i, const char *word)
{
    for (; *word; word++, i++)
        if (i >= c->n || c->v[i] != (unsigned char)*word)
            return false;
    return true;
}

static int restore_dots(struct pass *p)
{
    for (int64_t i = 0; i < p->in.n;) {
        int64_t n = 0;

        while (is_at(&p->in, i + 3 * n, "DOT"))
            n++;
        if (n == 0 || !is_at(&p->in, i + 3 * n, "MULTI")) {
            KD_TRY(kd_chars_push(&p->out, p->in.v[i++]));
            continue;
        }
        for (int64_t k = 0; k < n; k++)
            KD_TRY(kd_chars_push(&p->out, '.'));
        i += 3 * n + 5;
    }
    pass_done(p);
    return KD_OK;
}

static int split_apostrophes(struct pass *p)
{
    const struct side alpha = {KD_MOSES_IS_ALPHA, false},
                      other = {KD_MOSES_IS_ALPHA, true},
                      neither = {KD_MOSES_IS_ALPHA | KD_MOSES_IS_NUMBER, true},
                      number = {KD_MOSES_IS_NUMBER, false};
    bool english = strcmp(p->m->lang, "en") == 0;

    if (!english && strcmp(p->m->lang, "fr") != 0 && strcmp(p->m->lang, "it") != 0)
        return everywhere(p, '\'', " ' ");
    KD_TRY(between(p, other, '\'', other, false, " ' "));
    KD_TRY(between(p, english ? neither : other, '\'', alpha, false, " ' "));
    KD_TRY(between(p, alpha, '\'', other, false, " ' "));
    KD_TRY(between(p, alpha, '\'', alpha, false, english ? " '" : "' "));
    if (!english)
        return KD_OK;
    for (int64_t i = 0; i < p->in.n; i++) { /* a number's */
        KD_TRY(kd_chars_push(&p->out, p->in.v[i]));
        if (is_in(p, number, i) && is_at(&p->in, i + 1, "'s")) {
            KD_TRY(kd_chars_text(&p->out, " 's"));
            i += 2;
        }
    }
    pass_done(p);
    return KD_OK;
}

/* ---- the dot after an abbreviation ---- */

/** Whether the dot at the end of WORD[n], of which NEXT[n_next] is the next word, is
 * part of it. */
static bool keeps_dot(const struct kd_moses *m, const uint32_t *word, int64_t n,
                      const uint32_t *next, int64_t n_next)
{
    char text[128];
    int64_t len = 0;
    bool dots = false, letters = false, numeric = false;

    for (int64_t i = 0; i < n - 1; i++) {
        dots = dots || word[i] == '.';
        letters = letters || (kd_moses_class_of(m, word[i]) & KD_MOSES_IS_ALPHA);
        if (len >= 0 && len + 4 < (int64_t)sizeof text)
            len += kd_utf8_put(word[i], text + len);
        else
            len = -1; /* longer than any abbreviation */
    }
    if (dots && letters)
        return true;
    numeric = len > 0 && kd_strtab_find(&m->numeric_prefixes, text, len) >= 0;
    if (len > 0 && !numeric && kd_strtab_find(&m->prefixes, text, len) >= 0)
        return true;
    if (n_next > 0 && (kd_moses_class_of(m, next[0]) & KD_MOSES_IS_LOWER))
        return true;
    return numeric && n_next > 0 && next[0] >= '0' && next[0] <= '9';
}

/** Bounds of the word at or after *I. */
static void word_at(const struct kd_chars *c, int64_t *i, int64_t *n)
{
    while (*i < c->n && kd_is_python_space(c->v[*i]))
        ++*i;
    for (*n = 0; *i + *n < c->n && !kd_is_python_space(c->v[*i + *n]);)
        ++*n;
}

static int split_dots(struct pass *p)
{
    int64_t i = 0, n = 0;

    for (word_at(&p->in, &i, &n); n > 0;) {
        int64_t next = i + n, n_next = 0;
        const uint32_t *word = p->in.v + i;
        bool split = false;

        word_at(&p->in, &next, &n_next);
        split = n > 1 && word[n - 1] == '.' &&
                !keeps_dot(p->m, word, n, p->in.v + next, n_next);
        if (p->out.n > 0)
            KD_TRY(kd_chars_push(&p->out, ' '));
        for (int64_t k = 0; k < n - split; k++)
            KD_TRY(kd_chars_push(&p->out, word[k]));
        if (split)
            KD_TRY(kd_chars_text(&p->out, " ."));
        i = next;
        n = n_next;
    }
    pass_done(p);
    return KD_OK;
}

/** A dot and an apostrophe that end the text are words. */
static int split_end(struct pass *p)
{
    if (p->in.n >= 2 && p->in.v[p->in.n - 1] == '\'' && p->in.v[p->in.n - 2] == '.') {
        p->in.n -= 2;
        KD_TRY(kd_chars_text(&p->in, " . ' "));
    }
    return KD_OK;
}

/* ---- all of it ---- */

static int run_passes(struct pass *p)
{
    const struct side alnum = {KD_MOSES_IS_ALNUM, false},
                      number = {KD_MOSES_IS_NUMBER, false},
                      no_number = {KD_MOSES_IS_NUMBER, true};

    KD_TRY(squeeze(p));
    KD_TRY(pad_others(p));
    KD_TRY(between(p, alnum, '-', alnum, true, " @-@ "));
    KD_TRY(protect_dots(p));
    KD_TRY(after(p, no_number, ',', false, " , "));
    KD_TRY(before(p, ',', no_number, " , "));
    KD_TRY(after(p, number, ',', true, " , "));
    KD_TRY(split_apostrophes(p));
    KD_TRY(split_dots(p));
    KD_TRY(split_end(p));
    return restore_dots(p);
}

static const char *escape_of(uint32_t cp)
{
    switch (cp) {
    case '&':
        return "&amp;";
    case '|':
        return "&#124;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '\'':
        return "&apos;";
    case '"':
        return "&quot;";
    case '[':
        return "&#91;";
    case ']':
        return "&#93;";
    default:
        return NULL;
    }
}

int kd_moses_tokenise(const struct kd_moses *m, const char *text, int64_t len,
                      struct kd_str *out)
{
    struct pass p = {.m = m};
    int rc = KD_OK;

    for (int64_t i = 0; i < len;) {
        int n = 0;

        KD_GO(kd_chars_push(&p.in, kd_utf8_next(text + i, len - i, &n)));
        i += n;
    }
    KD_GO(run_passes(&p));
    for (int64_t i = 0; i < p.in.n; i++) {
        const char *escaped = escape_of(p.in.v[i]);
        char utf8[4];

        KD_GO(escaped ? kd_str_append(out, escaped, (int64_t)strlen(escaped))
                      : kd_str_append(out, utf8, kd_utf8_put(p.in.v[i], utf8)));
    }
out:
    free(p.in.v);
    free(p.out.v);
    return rc;
}
