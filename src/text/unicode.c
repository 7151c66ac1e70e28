/* SPDX-License-Identifier: Apache-2.0 */
/* The little Unicode that tokenizers need beyond what base/str.h has.
 *
 * White_Space is a short fixed list.  Grapheme clusters come from PCRE2's \X, called
 * only where a character from a script with marks, joiners or emoji is near: between
 * two characters of the plain ranges below there is always a boundary (except CR LF).
 * Properties that need tables are in characters.c. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

struct kd_graphemes {
    pcre2_code *cluster;
};

bool kd_is_white_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || cp == 0x20 || cp == 0x85 || cp == 0xA0 ||
           cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 ||
           cp == 0x2029 || cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

bool kd_is_python_space(uint32_t cp)
{
    return kd_is_white_space(cp) || (cp >= 0x1C && cp <= 0x1F);
}

void kd_python_strip(const char **text, int64_t *len)
{
    int n = 0;

    while (*len > 0 && kd_is_python_space(kd_utf8_next(*text, *len, &n))) {
        *text += n;
        *len -= n;
    }
    while (*len > 0) {
        int64_t start = *len - 1;

        while (start > 0 && ((unsigned char)(*text)[start] & 0xC0) == 0x80)
            start--;
        if (!kd_is_python_space(kd_utf8_next(*text + start, *len - start, &n)))
            break;
        *len = start;
    }
}

bool kd_next_word(const char **text, int64_t *len, const char **word, int64_t *n)
{
    int n_bytes = 0;

    while (*len > 0 && kd_is_python_space(kd_utf8_next(*text, *len, &n_bytes))) {
        *text += n_bytes;
        *len -= n_bytes;
    }
    *word = *text;
    while (*len > 0 && !kd_is_python_space(kd_utf8_next(*text, *len, &n_bytes))) {
        *text += n_bytes;
        *len -= n_bytes;
    }
    *n = *text - *word;
    return *n > 0;
}

static pcre2_code *compile(const char *pattern)
{
    int error = 0;
    PCRE2_SIZE at = 0;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                     PCRE2_UTF | PCRE2_UCP, &error, &at, NULL);

    if (code)
        (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); /* slower without, same */
    return code;
}

int kd_graphemes_new(struct kd_graphemes **out)
{
    KD_TRY(kd_calloc(1, sizeof **out, out));
    (*out)->cluster = compile("\\X");
    if (!(*out)->cluster)
        return KD_FAIL(KD_EINTERNAL, "PCRE2 cannot compile \\X: is it built with "
                                     "Unicode support?");
    return KD_OK;
}

void kd_graphemes_free(struct kd_graphemes *g)
{
    if (g)
        pcre2_code_free(g->cluster);
    free(g);
}

/* Letters, digits and ideographs that neither extend nor prepend anything. */
static bool is_plain(uint32_t cp)
{
    return cp < 0x300 || (cp >= 0x3400 && cp < 0xA000);
}

int64_t kd_grapheme_len(const struct kd_graphemes *g, void *match, const char *s,
                        int64_t len)
{
    int n = 0, n_next = 0;
    uint32_t cp = kd_utf8_next(s, len, &n);

    if (n >= len)
        return len;
    if (is_plain(cp)) {
        uint32_t next = kd_utf8_next(s + n, len - n, &n_next);

        if (is_plain(next))
            return cp == '\r' && next == '\n' ? 2 : n;
    }
    if (pcre2_match(g->cluster, (PCRE2_SPTR)s, (PCRE2_SIZE)len, 0,
                    PCRE2_ANCHORED | PCRE2_NO_UTF_CHECK, match, NULL) < 0)
        return n;
    return (int64_t)pcre2_get_ovector_pointer(match)[1];
}

/** Length of the well-formed start of a UTF-8 character at S[len]; *WHOLE: it is
 * complete. */
static int utf8_prefix(const unsigned char *s, int64_t len, bool *whole)
{
    unsigned char c = s[0], low = 0x80, high = 0xBF;
    int need = 0, have = 1;

    *whole = c < 0x80;
    if (c < 0xC2 || c > 0xF4)
        return 1;
    need = c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
    low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
    high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    while (have < need && have < len && s[have] >= low && s[have] <= high) {
        have++;
        low = 0x80;
        high = 0xBF;
    }
    *whole = have == need;
    return have;
}

int kd_str_append_lossy(struct kd_str *out, const char *s, int64_t len)
{
    for (int64_t at = 0; at < len;) {
        int64_t start = at;
        bool whole = true;
        int n = 0;

        while (at < len) {
            n = utf8_prefix((const unsigned char *)s + at, len - at, &whole);
            if (!whole)
                break;
            at += n;
        }
        KD_TRY(kd_str_append(out, s + start, at - start));
        if (at < len) {
            KD_TRY(kd_str_append(out, "\xEF\xBF\xBD", 3));
            at += n;
        }
    }
    return KD_OK;
}
