/* SPDX-License-Identifier: Apache-2.0 */
/* Properties and normal forms of characters, through utf8proc.
 *
 * The fast tokenizers were built with older tables (Unicode 8 for categories, 9 for
 * normal forms), which stay as they are because trained vocabularies depend on them.
 * So utf8proc's answer is taken except for the characters below, which came to their
 * property later.  The lists were found by asking that library about every code point
 * that utf8proc's Unicode 15 knows. */
#include "tokenizer_impl.h"

#include <stdlib.h>
#include <utf8proc.h>

/* Category P, not so there. */
static const struct kd_char_range LATER_PUNCTUATION[] = {
    {0x61D, 0x61D},     {0x9FD, 0x9FD},     {0xA76, 0xA76},     {0xC77, 0xC77},
    {0xC84, 0xC84},     {0x1B7D, 0x1B7E},   {0x2E43, 0x2E4F},   {0x2E52, 0x2E5D},
    {0x10EAD, 0x10EAD}, {0x10F55, 0x10F59}, {0x10F86, 0x10F89}, {0x1144B, 0x1144F},
    {0x1145A, 0x1145B}, {0x1145D, 0x1145D}, {0x11660, 0x1166C}, {0x116B9, 0x116B9},
    {0x1183B, 0x1183B}, {0x11944, 0x11946}, {0x119E2, 0x119E2}, {0x11A3F, 0x11A46},
    {0x11A9A, 0x11A9C}, {0x11A9E, 0x11AA2}, {0x11B00, 0x11B09}, {0x11C41, 0x11C45},
    {0x11C70, 0x11C71}, {0x11EF7, 0x11EF8}, {0x11F43, 0x11F4F}, {0x11FFF, 0x11FFF},
    {0x12FF1, 0x12FF2}, {0x16E97, 0x16E9A}, {0x16FE2, 0x16FE2}, {0x1E95E, 0x1E95F},
};

/* Category Mn, not so there. */
static const struct kd_char_range LATER_NONSPACING[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8E1},     {0x9FE, 0x9FE},
    {0xAFA, 0xAFF},     {0xB55, 0xB55},     {0xC04, 0xC04},     {0xC3C, 0xC3C},
    {0xD00, 0xD00},     {0xD3B, 0xD3C},     {0xD81, 0xD81},     {0xEBA, 0xEBA},
    {0xECE, 0xECE},     {0x180F, 0x180F},   {0x1885, 0x1886},   {0x1ABF, 0x1ACE},
    {0x1DF6, 0x1DFB},   {0xA82C, 0xA82C},   {0xA8C5, 0xA8C5},   {0xA8FF, 0xA8FF},
    {0xA9BD, 0xA9BD},   {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x11073, 0x11074},
    {0x110C2, 0x110C2}, {0x111C9, 0x111C9}, {0x111CF, 0x111CF}, {0x1123E, 0x1123E},
    {0x11241, 0x11241}, {0x1133B, 0x1133B}, {0x11438, 0x1143F}, {0x11442, 0x11444},
    {0x11446, 0x11446}, {0x1145E, 0x1145E}, {0x1182F, 0x11837}, {0x11839, 0x1183A},
    {0x1193B, 0x1193C}, {0x1193E, 0x1193E}, {0x11943, 0x11943}, {0x119D4, 0x119D7},
    {0x119DA, 0x119DB}, {0x119E0, 0x119E0}, {0x11A01, 0x11A0A}, {0x11A33, 0x11A38},
    {0x11A3B, 0x11A3E}, {0x11A47, 0x11A47}, {0x11A51, 0x11A56}, {0x11A59, 0x11A5B},
    {0x11A8A, 0x11A96}, {0x11A98, 0x11A99}, {0x11C30, 0x11C36}, {0x11C38, 0x11C3D},
    {0x11C3F, 0x11C3F}, {0x11C92, 0x11CA7}, {0x11CAA, 0x11CB0}, {0x11CB2, 0x11CB3},
    {0x11CB5, 0x11CB6}, {0x11D31, 0x11D36}, {0x11D3A, 0x11D3A}, {0x11D3C, 0x11D3D},
    {0x11D3F, 0x11D45}, {0x11D47, 0x11D47}, {0x11D90, 0x11D91}, {0x11D95, 0x11D95},
    {0x11D97, 0x11D97}, {0x11EF3, 0x11EF4}, {0x11F00, 0x11F01}, {0x11F36, 0x11F3A},
    {0x11F40, 0x11F40}, {0x11F42, 0x11F42}, {0x13440, 0x13440}, {0x13447, 0x13455},
    {0x16F4F, 0x16F4F}, {0x16FE4, 0x16FE4}, {0x1CF00, 0x1CF2D}, {0x1CF30, 0x1CF46},
    {0x1E000, 0x1E006}, {0x1E008, 0x1E018}, {0x1E01B, 0x1E021}, {0x1E023, 0x1E024},
    {0x1E026, 0x1E02A}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE},
    {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1E944, 0x1E94A},
};

/* Category M, not so there. */
static const struct kd_char_range LATER_MARKS[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xAFA, 0xAFF},     {0xB55, 0xB55},     {0xC04, 0xC04},     {0xC3C, 0xC3C},
    {0xCF3, 0xCF3},     {0xD00, 0xD00},     {0xD3B, 0xD3C},     {0xD81, 0xD81},
    {0xEBA, 0xEBA},     {0xECE, 0xECE},     {0x1715, 0x1715},   {0x180F, 0x180F},
    {0x1ABF, 0x1ACE},   {0x1CF7, 0x1CF7},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},
    {0xA8FF, 0xA8FF},   {0x10D24, 0x10D27}, {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF},
    {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x11073, 0x11074},
    {0x110C2, 0x110C2}, {0x11145, 0x11146}, {0x111C9, 0x111C9}, {0x111CE, 0x111CF},
    {0x11241, 0x11241}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x1182C, 0x1183A},
    {0x11930, 0x11935}, {0x11937, 0x11938}, {0x1193B, 0x1193E}, {0x11940, 0x11940},
    {0x11942, 0x11943}, {0x119D1, 0x119D7}, {0x119DA, 0x119E0}, {0x119E4, 0x119E4},
    {0x11A01, 0x11A0A}, {0x11A33, 0x11A39}, {0x11A3B, 0x11A3E}, {0x11A47, 0x11A47},
    {0x11A51, 0x11A5B}, {0x11A8A, 0x11A99}, {0x11D31, 0x11D36}, {0x11D3A, 0x11D3A},
    {0x11D3C, 0x11D3D}, {0x11D3F, 0x11D45}, {0x11D47, 0x11D47}, {0x11D8A, 0x11D8E},
    {0x11D90, 0x11D91}, {0x11D93, 0x11D97}, {0x11EF3, 0x11EF6}, {0x11F00, 0x11F01},
    {0x11F03, 0x11F03}, {0x11F34, 0x11F3A}, {0x11F3E, 0x11F42}, {0x13440, 0x13440},
    {0x13447, 0x13455}, {0x16F4F, 0x16F4F}, {0x16F7F, 0x16F87}, {0x16FE4, 0x16FE4},
    {0x16FF0, 0x16FF1}, {0x1CF00, 0x1CF2D}, {0x1CF30, 0x1CF46}, {0x1E08F, 0x1E08F},
    {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF},
};

/* Categories Cc, Cf and Co, not so there. */
static const struct kd_char_range LATER_INVISIBLE[] = {
    {0x890, 0x891},
    {0x8E2, 0x8E2},
    {0x110CD, 0x110CD},
    {0x13430, 0x1343F},
};

/* Decompositions that are not known there. */
static const struct kd_char_range LATER_DECOMPOSITIONS[] = {
    {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},   {0xAB69, 0xAB69},   {0x10781, 0x10785},
    {0x10787, 0x107B0}, {0x107B2, 0x107BA}, {0x11938, 0x11938}, {0x1E030, 0x1E06D},
    {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9},
};

#define LENGTH(array) ((int)(sizeof(array) / sizeof *(array)))

bool kd_char_in(const struct kd_char_range *ranges, int n, uint32_t cp)
{
    int lo = 0, hi = n;

    while (lo < hi) {
        int mid = (lo + hi) / 2;

        if (ranges[mid].last < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && ranges[lo].first <= cp;
}

static utf8proc_category_t category(uint32_t cp)
{
    return utf8proc_category((utf8proc_int32_t)cp);
}

static bool is_between(utf8proc_category_t c, utf8proc_category_t first,
                       utf8proc_category_t last)
{
    return c >= first && c <= last;
}

/** Letter-like symbols, which are letters to patterns. */
static bool is_enclosed_letter(uint32_t cp)
{
    return (cp >= 0x24B6 && cp <= 0x24E9) || (cp >= 0x1F130 && cp <= 0x1F149) ||
           (cp >= 0x1F150 && cp <= 0x1F169) || (cp >= 0x1F170 && cp <= 0x1F189);
}

bool kd_is_word_char(uint32_t cp)
{
    utf8proc_category_t c = UTF8PROC_CATEGORY_CN;

    if (cp < 0x80)
        return cp == '_' || (cp >= '0' && cp <= '9') || (cp >= 'a' && cp <= 'z') ||
               (cp >= 'A' && cp <= 'Z');
    c = category(cp);
    return is_between(c, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_NL) ||
           c == UTF8PROC_CATEGORY_PC || cp == 0x200C || cp == 0x200D ||
           is_enclosed_letter(cp);
}

bool kd_is_number(uint32_t cp)
{
    if (cp < 0x80)
        return cp >= '0' && cp <= '9';
    return is_between(category(cp), UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NO);
}

bool kd_is_punctuation(uint32_t cp)
{
    if (cp < 0x80)
        return (cp >= 33 && cp <= 47) || (cp >= 58 && cp <= 64) ||
               (cp >= 91 && cp <= 96) || (cp >= 123 && cp <= 126);
    if (cp == 0x166D || cp == 0x111C9) /* no longer */
        return true;
    return is_between(category(cp), UTF8PROC_CATEGORY_PC, UTF8PROC_CATEGORY_PO) &&
           !kd_char_in(LATER_PUNCTUATION, LENGTH(LATER_PUNCTUATION), cp);
}

bool kd_is_invisible(uint32_t cp)
{
    utf8proc_category_t c = category(cp);

    return (c == UTF8PROC_CATEGORY_CC || c == UTF8PROC_CATEGORY_CF ||
            c == UTF8PROC_CATEGORY_CO) &&
           !kd_char_in(LATER_INVISIBLE, LENGTH(LATER_INVISIBLE), cp);
}

bool kd_is_category_c(uint32_t cp)
{
    utf8proc_category_t c = category(cp);

    return c == UTF8PROC_CATEGORY_CN ||
           is_between(c, UTF8PROC_CATEGORY_CC, UTF8PROC_CATEGORY_CO);
}

bool kd_is_nonspacing(uint32_t cp)
{
    if (cp < 0x300)
        return false;
    if (cp == 0x1734) /* no longer */
        return true;
    return category(cp) == UTF8PROC_CATEGORY_MN &&
           !kd_char_in(LATER_NONSPACING, LENGTH(LATER_NONSPACING), cp);
}

bool kd_is_mark(uint32_t cp)
{
    if (cp < 0x300)
        return false;
    if (cp == 0x1CF2 || cp == 0x1CF3) /* no longer */
        return true;
    return is_between(category(cp), UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_ME) &&
           !kd_char_in(LATER_MARKS, LENGTH(LATER_MARKS), cp);
}

bool kd_is_lower_letter(uint32_t cp)
{
    return category(cp) == UTF8PROC_CATEGORY_LL;
}

uint32_t kd_lower_char(uint32_t cp)
{
    if (cp < 0x80)
        return cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
}

int64_t kd_ascii_run(const char *text, int64_t len)
{
    int64_t n = 0;

    while (n < len && (unsigned char)text[n] < 0x80)
        n++;
    return n;
}

/* ---- normal forms ---- */

static int append_form(struct kd_str *out, enum kd_normal_form form, const char *text,
                       int64_t len)
{
    static const utf8proc_option_t options[] = {
        [KD_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [KD_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [KD_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [KD_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    utf8proc_uint8_t *mapped = NULL;
    utf8proc_ssize_t n = 0;
    int rc = KD_OK;

    if (len == 0)
        return KD_OK;
    n = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, &mapped,
                     options[form]);
    if (n < 0)
        return KD_FAIL(KD_ENOMEM, "normalising text failed: %s", utf8proc_errmsg(n));
    rc = kd_str_append(out, (const char *)mapped, (int64_t)n);
    free(mapped);
    return rc;
}

/** The later characters are starters, so text may be normalised on both sides of one.
 */
int kd_str_append_normal(struct kd_str *out, enum kd_normal_form form, const char *text,
                         int64_t len)
{
    int64_t done = 0;

    if (kd_ascii_run(text, len) == len)
        return kd_str_append(out, text, len);
    for (int64_t i = 0; i < len;) {
        int n = 0;
        uint32_t cp = kd_utf8_next(text + i, len - i, &n);

        if (cp >= LATER_DECOMPOSITIONS[0].first &&
            kd_char_in(LATER_DECOMPOSITIONS, LENGTH(LATER_DECOMPOSITIONS), cp)) {
            KD_TRY(append_form(out, form, text + done, i - done));
            KD_TRY(kd_str_append(out, text + i, n));
            done = i + n;
        }
        i += n;
    }
    return append_form(out, form, text + done, len - done);
}

/* ---- lower case ---- */

/** Whether the letter before byte AT, over marks and signs that case ignores, or
 * (AFTER) the one from AT on, has case. */
static bool next_to_case(const char *text, int64_t len, int64_t at, bool after)
{
    while (after ? at < len : at > 0) {
        int64_t start = at;
        utf8proc_category_t c = UTF8PROC_CATEGORY_CN;
        uint32_t cp = 0;
        int n = 0;

        if (!after)
            for (start--; start > 0 && ((unsigned char)text[start] & 0xC0) == 0x80;)
                start--;
        cp = kd_utf8_next(text + start, len - start, &n);
        c = category(cp);
        if (is_between(c, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LT))
            return true;
        if (!is_between(c, UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_ME) &&
            c != UTF8PROC_CATEGORY_LM && c != UTF8PROC_CATEGORY_SK &&
            c != UTF8PROC_CATEGORY_CF && cp != '\'' && cp != '.' && cp != ':' &&
            cp != 0xB7 && cp != 0x2018 && cp != 0x2019)
            return false;
        at = after ? start + n : start;
    }
    return false;
}

int kd_str_append_lower(struct kd_str *out, const char *text, int64_t len,
                        bool final_sigma)
{
    for (int64_t i = 0; i < len;) {
        char utf8[4] = "";
        int n = 1;
        uint32_t cp = (unsigned char)text[i];

        if (cp >= 0x80)
            cp = kd_utf8_next(text + i, len - i, &n);
        if (cp == 0x130) { /* the only one that becomes two */
            KD_TRY(kd_str_append(out, "i\xCC\x87", 3));
        } else if (cp == 0x3A3 && final_sigma && next_to_case(text, len, i, false) &&
                   !next_to_case(text, len, i + n, true)) {
            KD_TRY(kd_str_append(out, "\xCF\x82", 2));
        } else {
            KD_TRY(kd_str_append(out, utf8, kd_utf8_put(kd_lower_char(cp), utf8)));
        }
        i += n;
    }
    return KD_OK;
}
