/* SPDX-License-Identifier: Apache-2.0 */
/* Patterns written for Oniguruma, rewritten for PCRE2.
 *
 * Both read the syntax that tokenizers use alike, but for what some words of it stand
 * for: \s is White_Space (PCRE2 has U+180E besides), \w has all letters, marks, digits
 * and connectors, the letter-like symbols and (outside a class) Latin-1's other
 * numbers, \h is a hexadecimal digit, \v one character, \b is by that \w, scripts are
 * by Script alone, bracketed names are by the properties of Unicode, m lets a point
 * match a newline.  These are spelled out.  Classes within classes, their
 * intersections, and sets that a class cannot hold become alternatives beside it;
 * whatever a class says, what comes of it matches one character. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer_impl.h"

#include <ctype.h>
#include <pcre2.h>
#include <string.h>

#define SPACES                                                                         \
    "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"     \
    "\\x{202f}\\x{205f}\\x{3000}"
#define WORDS                                                                          \
    "\\p{L}\\p{Nl}\\p{M}\\p{Nd}\\p{Pc}"                                                \
    "\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-"         \
    "\\x{1f189}"
#define LATIN_NUMBERS "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#define ANY_WORD "[" WORDS LATIN_NUMBERS "]"
#define AFTER "(?<=" ANY_WORD ")"
#define AFTER_NOT "(?<!" ANY_WORD ")"
#define BEFORE "(?=" ANY_WORD ")"
#define BEFORE_NOT "(?!" ANY_WORD ")"
#define HEX "0-9A-Fa-f"

enum { MAX_NESTING = 16 };

/** What an escape stands for. */
static const struct {
    char letter;
    const char *text, *in_class; /* NULL in a class: what the class lacks */
    const char *not_in_class;
} ESCAPES[] = {
    {'s', "[" SPACES "]", SPACES, NULL},
    {'S', "[^" SPACES "]", NULL, SPACES},
    {'w', ANY_WORD, WORDS, NULL},
    {'W', "[^" WORDS LATIN_NUMBERS "]", NULL, WORDS},
    {'h', "[" HEX "]", HEX, NULL},
    {'H', "[^" HEX "]", NULL, HEX},
    {'v', "\\x0b", "\\x0b", NULL},
    {'b', "(?:" AFTER BEFORE_NOT "|" AFTER_NOT BEFORE ")", "\\b", NULL},
    {'B', "(?:" AFTER BEFORE "|" AFTER_NOT BEFORE_NOT ")", "\\B", NULL},
};

/** What [:name:] stands for; those that are not here are alike. */
static const struct {
    const char *name, *has, *lacks;
} BRACKETS[] = {
    {"alnum", "\\p{Alphabetic}\\p{Nd}", NULL},
    {"alpha", "\\p{Alphabetic}", NULL},
    {"blank", "\\x09\\p{Zs}", NULL},
    {"graph", NULL, SPACES "\\p{Cc}\\p{Cn}\\p{Cs}"},
    {"lower", "\\p{Lowercase}", NULL},
    {"print", NULL, "\\p{Cc}\\p{Cn}\\p{Cs}\\p{Zl}\\p{Zp}"},
    {"punct", "\\p{P}\\p{S}", NULL},
    {"space", SPACES, NULL},
    {"upper", "\\p{Uppercase}", NULL},
    {"word", WORDS, NULL},
};

static int put(struct kd_str *out, const char *s)
{
    return kd_str_append(out, s, (int64_t)strlen(s));
}

/* ---- escapes ---- */

/** Whether PCRE2 knows the script NAME[n]; plain names have its Script_Extensions. */
static bool is_script(const char *name, int64_t n)
{
    struct kd_str pattern = {0};
    pcre2_code *code = NULL;
    PCRE2_SIZE at = 0;
    int error = 0;

    if (kd_str_printf(&pattern, "\\p{sc:%.*s}", (int)n, name) == KD_OK)
        code = pcre2_compile((PCRE2_SPTR)pattern.data, PCRE2_ZERO_TERMINATED, PCRE2_UTF,
                             &error, &at, NULL);
    kd_str_free(&pattern);
    pcre2_code_free(code);
    return code != NULL;
}

/** The escape at **P as it stands, scripts by Script, code points as PCRE2 has them. */
static int put_plain_escape(const char **p, struct kd_str *out)
{
    const char *s = *p, *name = s + 3, *end = NULL;

    if ((s[1] == 'p' || s[1] == 'P') && s[2] == '{' && (end = strchr(name, '}'))) {
        name += *name == '^';
        *p = end + 1;
        KD_TRY(kd_str_append(out, s, name - s));
        if (end - name > 2 && is_script(name, end - name))
            KD_TRY(put(out, "sc:"));
        return kd_str_append(out, name, end + 1 - name);
    }
    if (s[1] == 'u' && strspn(s + 2, "0123456789abcdefABCDEF") >= 4) {
        *p += 6;
        return kd_str_printf(out, "\\x{%.4s}", s + 2);
    }
    *p += s[1] ? 2 : 1;
    return kd_str_append(out, s, *p - s);
}

static int put_escape(const char **p, struct kd_str *out)
{
    for (size_t i = 0; i < sizeof ESCAPES / sizeof *ESCAPES; i++)
        if ((*p)[1] == ESCAPES[i].letter) {
            *p += 2;
            return put(out, ESCAPES[i].text);
        }
    return put_plain_escape(p, out);
}

/* ---- classes ---- */

/** A class: its own characters, and "|" with what else it has, each. */
struct char_class {
    struct kd_str has, also;
};

static void class_clear(struct char_class *c)
{
    kd_str_clear(&c->has);
    kd_str_clear(&c->also);
}

static int class_put_all_but(struct char_class *c, const char *lacks)
{
    return kd_str_printf(&c->also, "|[^%s]", lacks);
}

/** Append what matches one character of C, or of none of it. */
static int put_class(const struct char_class *c, bool negated, struct kd_str *out)
{
    bool has = c->has.len > 0, also = c->also.len > 0;

    if (!also)
        return kd_str_printf(out, negated ? "[^%s]" : "[%s]", has ? c->has.data : "");
    if (negated)
        return has ? kd_str_printf(out, "(?:(?!%s)[^%s])", c->also.data + 1,
                                   c->has.data)
                   : kd_str_printf(out, "(?:(?!%s)(?s:.))", c->also.data + 1);
    return has ? kd_str_printf(out, "(?:[%s]%s)", c->has.data, c->also.data)
               : kd_str_printf(out, "(?:%s)", c->also.data + 1);
}

static int read_class_escape(const char **p, struct char_class *c)
{
    for (size_t i = 0; i < sizeof ESCAPES / sizeof *ESCAPES; i++)
        if ((*p)[1] == ESCAPES[i].letter) {
            *p += 2;
            return ESCAPES[i].in_class ? put(&c->has, ESCAPES[i].in_class)
                                       : class_put_all_but(c, ESCAPES[i].not_in_class);
        }
    return put_plain_escape(p, &c->has);
}

/** The name at **P, "[:name:]" or "[:^name:]". */
static int read_bracket(const char **p, struct char_class *c)
{
    const char *name = *p + 2, *end = strstr(name, ":]");
    bool negated = *name == '^';

    name += negated;
    for (size_t i = 0; end && i < sizeof BRACKETS / sizeof *BRACKETS; i++)
        if ((size_t)(end - name) == strlen(BRACKETS[i].name) &&
            strncmp(name, BRACKETS[i].name, (size_t)(end - name)) == 0) {
            const char *has = BRACKETS[i].has, *lacks = BRACKETS[i].lacks;

            *p = end + 2;
            if (negated == !has)
                return put(&c->has, has ? has : lacks);
            return class_put_all_but(c, has ? has : lacks);
        }
    KD_TRY(kd_str_append(&c->has, *p, 2));
    *p += 2;
    return KD_OK;
}

static int read_class(const char **p, int depth, struct kd_str *out);

/** One item of a class. */
static int read_item(const char **p, int depth, struct char_class *c)
{
    if (**p == '\\')
        return read_class_escape(p, c);
    if (**p == '[' && (*p)[1] == ':')
        return read_bracket(p, c);
    if (**p == '[') {
        KD_TRY(put(&c->also, "|"));
        return read_class(p, depth + 1, &c->also);
    }
    return kd_str_append(&c->has, (*p)++, 1);
}

/** The class at **P, of which each part between && must have a character. */
static int read_class(const char **p, int depth, struct kd_str *out)
{
    bool negated = (*p)[1] == '^';
    const char *first = *p + 1 + negated;
    struct kd_str parts = {0};
    struct char_class c = {0};
    int rc = KD_OK;

    if (depth == MAX_NESTING)
        return KD_FAIL(KD_EINPUT,
                       "tokenizer.json: a pattern nests more than %d classes",
                       MAX_NESTING);
    for (*p = first; **p && (**p != ']' || *p == first);) {
        if (strncmp(*p, "&&", 2) != 0) {
            KD_GO(read_item(p, depth, &c));
            continue;
        }
        *p += 2;
        KD_GO(put(&parts, "(?="));
        KD_GO(put_class(&c, false, &parts));
        KD_GO(put(&parts, ")"));
        class_clear(&c);
    }
    if (!**p) {
        rc = KD_FAIL(KD_EINPUT, "tokenizer.json: a class of a pattern has no end");
        goto out;
    }
    ++*p;
    if (parts.len) { /* the whole intersection stands beside an empty class */
        KD_GO(put_class(&c, false, &parts));
        class_clear(&c);
        KD_GO(kd_str_printf(&c.also, "|%s", parts.data));
    }
    rc = put_class(&c, negated, out);
out:
    kd_str_free(&parts);
    kd_str_free(&c.has);
    kd_str_free(&c.also);
    return rc;
}

/* ---- patterns ---- */

/** Options "(?imx-imx", which end in ")" or ":". */
static int put_options(const char **p, struct kd_str *out)
{
    size_t n = strspn(*p + 2, "imx-");

    KD_TRY(put(out, "(?"));
    for (*p += 2; n > 0; n--, ++*p)
        KD_TRY(kd_str_append(out, **p == 'm' ? "s" : *p, 1));
    return KD_OK;
}

static bool is_options(const char *p)
{
    size_t n = strncmp(p, "(?", 2) == 0 ? strspn(p + 2, "imx-") : 0;

    return n > 0 && (p[2 + n] == ')' || p[2 + n] == ':');
}

int kd_regex_translate(const char *pattern, struct kd_str *out)
{
    for (const char *p = pattern; *p;) {
        if (*p == '\\') {
            KD_TRY(put_escape(&p, out));
        } else if (*p == '[') {
            KD_TRY(read_class(&p, 0, out));
        } else if (is_options(p)) {
            KD_TRY(put_options(&p, out));
        } else if (p[0] == '{' && p[1] == ',' && isdigit((unsigned char)p[2])) {
            KD_TRY(put(out, "{0"));
            p++;
        } else {
            KD_TRY(kd_str_append(out, p++, 1));
        }
    }
    return KD_OK;
}
