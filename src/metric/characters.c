/* SPDX-License-Identifier: Apache-2.0 */
/* Text as code points, and what the metrics ask about a character.
 *
 * Categories and simple case mappings come from utf8proc.  Lower case follows Python's
 * str.lower, since scores are to be those of sacreBLEU: U+0130 becomes two characters,
 * and a capital sigma at the end of a word the final one, for which the properties
 * Cased and Case_Ignorable are needed; utf8proc lacks them, so they are put together
 * from categories and the few characters that no category names. */
#include "metric_impl.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"

#include <utf8proc.h>

enum { SIGMA = 0x3A3, SMALL_SIGMA = 0x3C3, FINAL_SIGMA = 0x3C2, I_WITH_DOT = 0x130 };

bool kd_point_in(const struct kd_point_range *r, size_t n, uint32_t c)
{
    for (size_t i = 0; i < n; i++)
        if (c >= r[i].first && c <= r[i].last)
            return true;
    return false;
}

static utf8proc_category_t category(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c);
}

bool kd_point_is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 ||
           c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool kd_point_is_punctuation(uint32_t c)
{
    utf8proc_category_t k = category(c);

    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

bool kd_point_is_symbol(uint32_t c)
{
    utf8proc_category_t k = category(c);

    return k >= UTF8PROC_CATEGORY_SM && k <= UTF8PROC_CATEGORY_SO;
}

bool kd_point_is_number(uint32_t c)
{
    utf8proc_category_t k = category(c);

    return k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO;
}

/* ---- lower case ---- */

/* Case_Ignorable: skipped when looking for a letter beside a sigma. */
static bool is_case_ignorable(uint32_t c)
{
    static const struct kd_point_range word_breaks[] = {
        {0x27, 0x27},     {0x2E, 0x2E},     {0x3A, 0x3A},     {0xB7, 0xB7},
        {0x387, 0x387},   {0x55F, 0x55F},   {0x5F4, 0x5F4},   {0x2018, 0x2019},
        {0x2024, 0x2024}, {0x2027, 0x2027}, {0xFE13, 0xFE13}, {0xFE52, 0xFE52},
        {0xFE55, 0xFE55}, {0xFF07, 0xFF07}, {0xFF0E, 0xFF0E}, {0xFF1A, 0xFF1A},
    };
    utf8proc_category_t k = category(c);

    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME ||
           k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_LM ||
           k == UTF8PROC_CATEGORY_SK ||
           kd_point_in(word_breaks, sizeof word_breaks / sizeof *word_breaks, c);
}

/* Cased, of the characters that are not Case_Ignorable. */
static bool is_cased(uint32_t c)
{
    static const struct kd_point_range others[] = {
        {0xAA, 0xAA},       {0xBA, 0xBA},       {0x2160, 0x217F},   {0x24B6, 0x24E9},
        {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189},
    };
    utf8proc_category_t k = category(c);

    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LT) ||
           kd_point_in(others, sizeof others / sizeof *others, c);
}

/* Whether the sigma at TEXT[AT] ends a word: BEFORE (not yet lower or lower, which is
 * the same here) has a cased character last, but for ignorable ones; what follows does
 * not begin with one. */
static bool is_final(const struct kd_points *before, struct kd_text text, int64_t at)
{
    int64_t i = before->n - 1;
    int n;

    while (i >= 0 && is_case_ignorable(before->v[i]))
        i--;
    if (i < 0 || !is_cased(before->v[i]))
        return false;
    for (at += 2; at < text.len; at += n) {
        uint32_t c = kd_utf8_next(text.data + at, text.len - at, &n);

        if (!is_case_ignorable(c))
            return !is_cased(c);
    }
    return true;
}

static uint32_t lower_of(uint32_t c)
{
    if (c < 0x80)
        return c >= 'A' && c <= 'Z' ? c + 32 : c;
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
}

/* ---- texts ---- */

int kd_points_push(struct kd_points *p, uint32_t c)
{
    if (p->n == p->cap)
        KD_TRY(kd_grow(&p->v, &p->cap, p->n + 1, sizeof *p->v));
    p->v[p->n++] = c;
    return KD_OK;
}

int kd_points_set(struct kd_points *p, struct kd_text text, bool lower)
{
    int n;

    p->n = 0;
    KD_TRY(kd_grow(&p->v, &p->cap, text.len + 1, sizeof *p->v));
    for (int64_t i = 0; i < text.len; i += n) {
        uint32_t c = (unsigned char)text.data[i];

        n = 1;
        if (c >= 0x80)
            c = kd_utf8_next(text.data + i, text.len - i, &n);
        if (lower && c == SIGMA) {
            c = is_final(p, text, i) ? FINAL_SIGMA : SMALL_SIGMA;
        } else if (lower && c == I_WITH_DOT) {
            KD_TRY(kd_points_push(p, 'i'));
            c = 0x307;
        } else if (lower) {
            c = lower_of(c);
        }
        KD_TRY(kd_points_push(p, c));
    }
    return KD_OK;
}

void kd_points_rstrip(struct kd_points *p)
{
    while (p->n > 0 && kd_point_is_space(p->v[p->n - 1]))
        p->n--;
}
