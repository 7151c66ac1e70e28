/* SPDX-License-Identifier: Apache-2.0 */
/* Moses normalisation of punctuation, as sacremoses does it.
 *
 * A list of replacements, each applied to the whole text before the next; most are
 * literal.  Before it, full-width and East Asian signs become ASCII; after it, every
 * character of category C goes. */
#include "moses_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

#define NBSP "\xC2\xA0"

/** For which languages a rule is: those in the list, or (!) those that are not. */
struct kd_moses_rule {
    const char *pattern; /* NULL: LITERAL */
    const char *literal;
    const char *to;        /* of a pattern, $1 and $2 are its groups */
    const char *languages; /* NULL: all */
};

static const struct kd_moses_rule RULES[] = {
    {NULL, "\r", "", NULL},
    {NULL, "(", " (", NULL},
    {NULL, ")", ") ", NULL},
    {" +", NULL, " ", NULL},
    {"\\) ([.!:?;,])", NULL, ")$1", NULL},
    {NULL, "( ", "(", NULL},
    {NULL, " )", ")", NULL},
    {"(\\d) %", NULL, "$1%", NULL},
    {NULL, " :", ":", NULL},
    {NULL, " ;", ";", NULL},
    {NULL, "`", "'", NULL},
    {NULL, "''", " \" ", NULL},
    {NULL, "„", "\"", NULL},
    {NULL, "“", "\"", NULL},
    {NULL, "”", "\"", NULL},
    {NULL, "–", "-", NULL},
    {NULL, "—", " - ", NULL},
    {" +", NULL, " ", NULL},
    {NULL, "´", "'", NULL},
    {"([a-zA-Z])‘([a-zA-Z])", NULL, "$1'$2", NULL},
    {"([a-zA-Z])’([a-zA-Z])", NULL, "$1'$2", NULL},
    {NULL, "‘", "'", NULL},
    {NULL, "‚", "'", NULL},
    {NULL, "’", "'", NULL},
    {NULL, "''", "\"", NULL},
    {NULL, "´´", "\"", NULL},
    {NULL, "…", "...", NULL},
    {NULL, NBSP "«" NBSP, "\"", NULL},
    {NULL, "«" NBSP, "\"", NULL},
    {NULL, "«", "\"", NULL},
    {NULL, NBSP "»" NBSP, "\"", NULL},
    {NULL, NBSP "»", "\"", NULL},
    {NULL, "»", "\"", NULL},
    {NULL, NBSP "%", "%", NULL},
    {NULL, "nº" NBSP, "nº ", NULL},
    {NULL, NBSP ":", ":", NULL},
    {NULL, NBSP "ºC", " ºC", NULL},
    {NULL, NBSP "cm", " cm", NULL},
    {NULL, NBSP "?", "?", NULL},
    {NULL, NBSP "!", "!", NULL},
    {NULL, NBSP ";", ";", NULL},
    {NULL, "," NBSP, ", ", NULL},
    {" +", NULL, " ", NULL},
    {"\"([,.]+)", NULL, "$1\"", "en"},
    {NULL, ",\"", "\",", "de es fr"},
    {"(\\.+)\"(\\s*[^<])", NULL, "\"$1$2", "de es fr"},
    {"(\\d)" NBSP "(\\d)", NULL, "$1,$2", "de es cz cs fr"},
    {"(\\d)" NBSP "(\\d)", NULL, "$1.$2", "!de es cz cs fr"},
};
enum { N_RULES = sizeof RULES / sizeof *RULES };

/** Whether the rule is one for LANG. */
static bool is_for(const struct kd_moses_rule *r, const char *lang)
{
    bool listed = false, inverted = r->languages && r->languages[0] == '!';
    size_t n = strlen(lang);

    if (!r->languages)
        return true;
    for (const char *p = r->languages + inverted; *p; p += *p == ' ') {
        size_t len = strcspn(p, " ");

        listed = listed || (len == n && memcmp(p, lang, n) == 0);
        p += len;
    }
    return listed != inverted;
}

int kd_moses_rules_new(struct kd_moses *m)
{
    KD_TRY(kd_calloc(N_RULES, sizeof(struct kd_regex *), &m->rules));
    for (int i = 0; i < N_RULES; i++)
        if (RULES[i].pattern && is_for(&RULES[i], m->lang))
            KD_TRY(kd_regex_new(RULES[i].pattern, "Moses", &m->rules[i]));
    return KD_OK;
}

void kd_moses_rules_free(struct kd_moses *m)
{
    for (int i = 0; m->rules && i < N_RULES; i++)
        kd_regex_free(m->rules[i]);
    free(m->rules);
}

static int replace_literal(const struct kd_str *in, const char *from, const char *to,
                           struct kd_str *out)
{
    size_t n = strlen(from);
    const char *p = in->data, *end = in->data + in->len, *at = NULL;

    while ((at = memmem(p, (size_t)(end - p), from, n))) {
        KD_TRY(kd_str_append(out, p, at - p));
        KD_TRY(kd_str_append(out, to, (int64_t)strlen(to)));
        p = at + n;
    }
    return kd_str_append(out, p, end - p);
}

/* ---- signs of other scripts ---- */

/** What stands for a sign in ASCII, or NULL.  Full stops also take the space after. */
static const char *ascii_sign(uint32_t cp, char digit[2])
{
    static const struct {
        uint32_t cp;
        const char *to;
    } signs[] = {
        {0xFF0C, ","},  {0x3002, ". "}, {0x3001, ","}, {0x201D, "\""}, {0x201C, "\""},
        {0x2236, ":"},  {0xFF1A, ":"},  {0xFF1F, "?"}, {0x300A, "\""}, {0x300B, "\""},
        {0xFF09, ")"},  {0xFF01, "!"},  {0xFF08, "("}, {0xFF1B, ";"},  {0x300D, "\""},
        {0x300C, "\""}, {0xFF0E, ". "}, {0xFF5E, "~"}, {0x2019, "'"},  {0x2026, "..."},
        {0x2501, "-"},  {0x3008, "<"},  {0x3009, ">"}, {0x3010, "["},  {0x3011, "]"},
        {0xFF05, "%"},
    };

    if (cp < 0x2019)
        return NULL;
    if (cp >= 0xFF10 && cp <= 0xFF19) {
        digit[0] = (char)('0' + (cp - 0xFF10));
        digit[1] = '\0';
        return digit;
    }
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (signs[i].cp == cp)
            return signs[i].to;
    return NULL;
}

static int replace_signs(const char *text, int64_t len, struct kd_str *out)
{
    KD_TRY(kd_str_append(out, "", 0));
    for (int64_t i = 0; i < len;) {
        int n = 0;
        uint32_t cp = kd_utf8_next(text + i, len - i, &n);
        char digit[2];
        const char *to = ascii_sign(cp, digit);

        KD_TRY(to ? kd_str_append(out, to, (int64_t)strlen(to))
                  : kd_str_append(out, text + i, n));
        i += n;
        while ((cp == 0x3002 || cp == 0xFF0E) && i < len &&
               kd_is_python_space(kd_utf8_next(text + i, len - i, &n)))
            i += n;
    }
    return KD_OK;
}

int kd_moses_normalise(const struct kd_moses *m, const char *text, int64_t len,
                       struct kd_str *out)
{
    struct kd_str side[2] = {0};
    const char *p = NULL;
    int64_t left = 0;
    int at = 0, rc = KD_OK;

    KD_GO(replace_signs(text, len, &side[0]));
    for (int i = 0; i < N_RULES; i++) {
        const struct kd_moses_rule *r = &RULES[i];

        if (r->pattern
                ? !m->rules[i]
                : !is_for(r, m->lang) || !memmem(side[at].data, (size_t)side[at].len,
                                                 r->literal, strlen(r->literal)))
            continue;
        kd_str_clear(&side[!at]);
        KD_GO(r->pattern ? kd_regex_replace(m->rules[i], side[at].data, side[at].len,
                                            r->to, &side[!at])
                         : replace_literal(&side[at], r->literal, r->to, &side[!at]));
        at = !at;
    }
    p = side[at].data;
    left = side[at].len;
    kd_python_strip(&p, &left);
    while (left > 0) {
        int n = 0;

        if (!kd_is_category_c(kd_utf8_next(p, left, &n)))
            KD_GO(kd_str_append(out, p, n));
        p += n;
        left -= n;
    }
out:
    kd_str_free(&side[0]);
    kd_str_free(&side[1]);
    return rc;
}
