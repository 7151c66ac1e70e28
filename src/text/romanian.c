/* SPDX-License-Identifier: Apache-2.0 */
/* Texts as the Romanian references of WMT16 are scored by custom: Moses' replacement
 * of Unicode punctuation, its normalisation of punctuation, no invisible characters,
 * comma below for cedilla, then no diacritics at all, and Moses' tokenizer without
 * escapes.  Published BLEU of English to Romanian is of such tokens, with no further
 * tokenization and no smoothing.
 *
 * A step is a list of substitutions, each over the whole text before the next, through
 * PCRE2.  The first two steps look at bytes, as the Perl programs do that define them;
 * they see the newline of the line, which one rule asks for. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "kdhpc/text/romanian.h"

#include "kdhpc/base/mem.h"

#include <pcre2.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define NBSP "\xC2\xA0"
#define ALNUM "\\p{L}\\p{Nl}\\p{Nd}"

struct rule {
    const char *pattern, *to; /* $1 and $2 in TO are groups */
};

/* Bytes. */
static const struct rule NORMALISE[] = {
    {"，|、", ","},
    {"(?:。|．) *", ". "},
    {"“|”|《|》|」|「", "\""},
    {"∶|：", ":"},
    {"？", "?"},
    {"）", ")"},
    {"！", "!"},
    {"（", "("},
    {"；", ";"},
    {"０", "0"},
    {"１", "1"},
    {"２", "2"},
    {"３", "3"},
    {"４", "4"},
    {"５", "5"},
    {"６", "6"},
    {"７", "7"},
    {"８", "8"},
    {"９", "9"},
    {"～", "~"},
    {"’", "'"},
    {"…", "..."},
    {"━", "-"},
    {"〈", "<"},
    {"〉", ">"},
    {"【", "["},
    {"】", "]"},
    {"％", "%"},
    {"\\r", ""},
    {"\\(", " ("},
    {"\\)", ") "},
    {" +", " "},
    {"\\) ([.!:?;,])", ")$1"},
    {"\\( ", "("},
    {" \\)", ")"},
    {"([0-9]) %", "$1%"},
    {" ([:;])", "$1"},
    {"`", "'"},
    {"''", " \" "},
    {"„", "\""},
    {"–", "-"},
    {"—", " - "},
    {" +", " "},
    {"´", "'"},
    {"([a-zA-Z])‘([a-zA-Z])", "$1'$2"},
    {"‘|‚", "'"},
    {"''", "\""},
    {NBSP "«" NBSP, " \""},
    {"«(?:" NBSP ")?", "\""},
    {NBSP "»" NBSP, "\" "},
    {"(?:" NBSP ")?»", "\""},
    {NBSP "(?=[%:?!;])", ""},
    {"nº" NBSP, "nº "},
    {NBSP "(?=ºC|cm)", " "},
    {"," NBSP, ", "},
    {" +", " "},
    {",\"", "\","},
    {"(\\.+)\"(\\s*[^<])", "\"$1$2"},
    {"([0-9])" NBSP "([0-9])", "$1.$2"},
};

/* Characters from here on. */
static const struct rule PLAIN[] = {
    {"\\n+$", ""}, {"\\p{C}", " "}, {"[ŞȘ]", "S"}, {"[şș]", "s"}, {"[ŢȚ]", "T"},
    {"[ţț]", "t"}, {"[ĂÂ]", "A"},   {"[ăâ]", "a"}, {"Î", "I"},    {"î", "i"},
};

static const struct rule TOKENIZE[] = {
    {"\\s+", " "},
    {"^ | $", ""},
    {"([^" ALNUM "\\s.'`,\\-])", " $1 "},
    {"\\.(\\.+)", " DOTMULTI$1"},
};

/* While there is a group of dots left. */
static const struct rule DOTS[] = {
    {"DOTMULTI\\.([^.])", "DOTDOTMULTI $1"},
    {"DOTMULTI\\.", "DOTDOTMULTI"},
};

static const struct rule SPLIT[] = {
    {"([^\\p{N}]),", "$1 , "},
    {",([^\\p{N}])", " , $1"},
    {"(\\p{N}),$", "$1 ,"},
    {"'", " ' "},
};

static const struct rule FINISH[] = {
    {" +", " "},
    {"^ | $", ""},
    {"\\.' ?$", " . ' "},
};

static const struct rule RESTORE[] = {
    {"DOTDOTMULTI", "DOTMULTI."},
};

static const struct rule END[] = {
    {"DOTMULTI", "."},
};

#define STEP(rules, bytes)                                                             \
    {                                                                                  \
        rules, (int)(sizeof(rules) / sizeof *(rules)), bytes                           \
    }

enum { NORMALISED, PLAINED, PADDED, DOTTED, CUT, FINISHED, RESTORED, ENDED, N_STEPS };

static const struct step {
    const struct rule *rules;
    int n;
    bool bytes;
} STEPS[N_STEPS] = {STEP(NORMALISE, true), STEP(PLAIN, false), STEP(TOKENIZE, false),
                    STEP(DOTS, false),     STEP(SPLIT, false), STEP(FINISH, false),
                    STEP(RESTORE, false),  STEP(END, false)};

enum { RULES_MAX = 64 };

struct kd_romanian {
    pcre2_code *code[N_STEPS][RULES_MAX];
    pcre2_code *abbreviation; /* a word that keeps its point */
    pcre2_code *small;        /* a word that begins with a small letter */
    pcre2_match_data *match;
    struct kd_str spare;
};

_Static_assert(sizeof NORMALISE / sizeof *NORMALISE <= RULES_MAX, "room for rules");

/* ---- patterns ---- */

static int compile(const char *pattern, bool bytes, pcre2_code **out)
{
    PCRE2_SIZE at = 0;
    int error = 0;

    *out = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                         PCRE2_DOLLAR_ENDONLY | (bytes ? 0 : PCRE2_UTF | PCRE2_UCP),
                         &error, &at, NULL);
    if (!*out)
        return KD_FAIL(KD_EINTERNAL, "PCRE2 cannot compile %s (at %d)", pattern,
                       (int)at);
    (void)pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE); /* slower without, same */
    return KD_OK;
}

static int compile_all(struct kd_romanian *r)
{
    for (int s = 0; s < N_STEPS; s++)
        for (int i = 0; i < STEPS[s].n; i++)
            KD_TRY(compile(STEPS[s].rules[i].pattern, STEPS[s].bytes, &r->code[s][i]));
    KD_TRY(compile("^(?:[A-Z]|dpdv|etc|M\\.Ap\\.N|[dD]l|[dD]-na|[dD]vs|[pP]t|"
                   "(?=.*\\.).*[\\p{L}\\p{Nl}].*)$",
                   false, &r->abbreviation));
    KD_TRY(compile("^[\\p{Ll}ªºⅰ-ⅿⓐ-ⓩ]", false, &r->small));
    r->match = pcre2_match_data_create(4, NULL);
    return r->match ? KD_OK : KD_FAIL(KD_ENOMEM, "no memory for PCRE2");
}

int kd_romanian_new(struct kd_romanian **out)
{
    struct kd_romanian *r;
    int rc;

    *out = NULL;
    KD_TRY(kd_calloc(1, sizeof *r, &r));
    rc = compile_all(r);
    if (rc)
        kd_romanian_free(r);
    else
        *out = r;
    return rc;
}

void kd_romanian_free(struct kd_romanian *r)
{
    if (!r)
        return;
    for (int s = 0; s < N_STEPS; s++)
        for (int i = 0; i < STEPS[s].n; i++)
            pcre2_code_free(r->code[s][i]);
    pcre2_code_free(r->abbreviation);
    pcre2_code_free(r->small);
    pcre2_match_data_free(r->match);
    kd_str_free(&r->spare);
    free(r);
}

static bool matches(struct kd_romanian *r, const pcre2_code *code, const char *s,
                    int64_t len)
{
    return pcre2_match(code, (PCRE2_SPTR)s, (PCRE2_SIZE)len, 0, PCRE2_NO_UTF_CHECK,
                       r->match, NULL) > 0;
}

/* ---- substitutions ---- */

static void swap(struct kd_str *a, struct kd_str *b)
{
    struct kd_str t = *a;

    *a = *b;
    *b = t;
}

/* All matches of CODE in S become TO; *N of them. */
static int substitute(struct kd_romanian *r, const pcre2_code *code, const char *to,
                      struct kd_str *s, int *n)
{
    const uint32_t how =
        PCRE2_SUBSTITUTE_GLOBAL | PCRE2_NO_UTF_CHECK | PCRE2_SUBSTITUTE_OVERFLOW_LENGTH;
    PCRE2_SIZE room = 0;

    for (int k = 0; k < 2; k++) {
        KD_TRY(kd_grow(&r->spare.data, &r->spare.cap,
                       (room > (PCRE2_SIZE)s->len ? (int64_t)room : s->len) + 64, 1));
        room = (PCRE2_SIZE)r->spare.cap;
        *n = pcre2_substitute(code, (PCRE2_SPTR)s->data, (PCRE2_SIZE)s->len, 0, how,
                              r->match, NULL, (PCRE2_SPTR)to, PCRE2_ZERO_TERMINATED,
                              (PCRE2_UCHAR *)r->spare.data, &room);
        if (*n != PCRE2_ERROR_NOMEMORY)
            break;
    }
    if (*n < 0)
        return KD_FAIL(KD_EINTERNAL, "PCRE2 cannot substitute (%d)", *n);
    r->spare.len = (int64_t)room;
    if (*n > 0)
        swap(s, &r->spare);
    return KD_OK;
}

/* Apply a step; *N: substitutions of its last rule. */
static int run_step(struct kd_romanian *r, int step, struct kd_str *s, int *n)
{
    for (int i = 0; i < STEPS[step].n; i++)
        KD_TRY(substitute(r, r->code[step][i], STEPS[step].rules[i].to, s, n));
    return KD_OK;
}

/* ---- words ---- */

/* One past the word at S[AT..LEN). */
static int64_t word_end(const char *s, int64_t at, int64_t len)
{
    const char *space = memchr(s + at, ' ', (size_t)(len - at));

    return space ? space - s : len;
}

/* Whether the point after PRE[n] belongs to it; the next word is at NEXT. */
static bool keeps_point(struct kd_romanian *r, const char *pre, int64_t n,
                        const char *next, int64_t n_next)
{
    return matches(r, r->abbreviation, pre, n) || matches(r, r->small, next, n_next);
}

/* Split the point off words that are no abbreviations, and off the last word.  Two
 * spaces have an empty word between. */
static int split_points(struct kd_romanian *r, struct kd_str *s)
{
    struct kd_str *out = &r->spare;
    int64_t len = s->len;

    while (len > 0 && s->data[len - 1] == ' ')
        len--;
    kd_str_clear(out);
    for (int64_t at = 0, end; at <= len; at = end + 1) {
        const char *word = s->data + at;
        int64_t n;
        bool apart;

        end = word_end(s->data, at, len);
        n = end - at;
        apart = n > 1 && word[n - 1] == '.' &&
                (end == len || !keeps_point(r, word, n - 1, s->data + end + 1,
                                            word_end(s->data, end + 1, len) - end - 1));
        KD_TRY(kd_str_append(out, word, n - apart));
        KD_TRY(kd_str_append(out, " . ", apart ? 3 : 0));
        KD_TRY(kd_str_append(out, " ", 1));
    }
    swap(s, out);
    return KD_OK;
}

int kd_romanian_apply(struct kd_romanian *r, const char *text, int64_t len,
                      struct kd_str *out)
{
    int n;

    kd_str_clear(out);
    KD_TRY(kd_str_append(out, text, len));
    for (int64_t i = 0; i < out->len; i++)
        if (out->data[i] == '\n')
            out->data[i] = ' ';
    KD_TRY(kd_str_append(out, "\n", 1));
    KD_TRY(run_step(r, NORMALISED, out, &n));
    KD_TRY(run_step(r, PLAINED, out, &n));
    KD_TRY(run_step(r, PADDED, out, &n));
    do
        KD_TRY(run_step(r, DOTTED, out, &n));
    while (n > 0);
    KD_TRY(run_step(r, CUT, out, &n));
    KD_TRY(split_points(r, out));
    KD_TRY(run_step(r, FINISHED, out, &n));
    do
        KD_TRY(run_step(r, RESTORED, out, &n));
    while (n > 0);
    return run_step(r, ENDED, out, &n);
}
