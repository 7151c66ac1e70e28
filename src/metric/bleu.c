/* SPDX-License-Identifier: Apache-2.0 */
/* Corpus BLEU (Papineni et al., 2002) as sacrebleu computes it by default: tokens of
 * mteval-v13a, n-grams up to four, exponential smoothing of orders without a match.
 *
 * All that the score needs of a pair is ten counts, so pairs may be counted anywhere
 * and in any order, and the sums are exact.  The tokenisation is four substitutions in
 * a row, each over the whole text; n-grams are compared as 64-bit hashes of their
 * tokens. Called by validation during training. */
#include "kdhpc/metric/metric.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* ---- tokenisation ---- */

/* Replace every FROM in S by TO, which is not longer. */
static void replace(struct kd_str *s, const char *from, const char *to)
{
    size_t n_from = strlen(from), n_to = strlen(to);
    int64_t out = 0;

    for (int64_t i = 0; i < s->len;) {
        if (s->len - i >= (int64_t)n_from && !memcmp(s->data + i, from, n_from)) {
            memcpy(s->data + out, to, n_to);
            out += (int64_t)n_to;
            i += (int64_t)n_from;
        } else {
            s->data[out++] = s->data[i++];
        }
    }
    s->len = out;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_not_digit(char c)
{
    return !is_digit(c);
}

static bool is_point(char c)
{
    return c == '.' || c == ',';
}

static bool is_dash(char c)
{
    return c == '-';
}

/* ASCII punctuation but for the apostrophe, comma, dash and point. */
static bool is_symbol(char c)
{
    return (c >= '{' && c <= '~') || (c >= '[' && c <= '`') || (c >= ' ' && c <= '&') ||
           (c >= '(' && c <= '+') || (c >= ':' && c <= '@') || c == '/';
}

/* Symbols of S[len] become tokens of their own, in OUT (replaced). */
static int split_symbols(const struct kd_str *s, struct kd_str *out)
{
    kd_str_clear(out);
    for (int64_t i = 0; i < s->len; i++) {
        const char spaced[3] = {' ', s->data[i], ' '};

        KD_TRY(is_symbol(s->data[i]) ? kd_str_append(out, spaced, 3)
                                     : kd_str_append(out, spaced + 1, 1));
    }
    return KD_OK;
}

/* Where a byte A is followed by a byte B: "a b " or, if LEAD, " a b". */
static int split_pairs(const struct kd_str *s, bool (*a)(char), bool (*b)(char),
                       bool lead, struct kd_str *out)
{
    kd_str_clear(out);
    for (int64_t i = 0; i < s->len; i++) {
        if (i + 1 < s->len && a(s->data[i]) && b(s->data[i + 1])) {
            const char spaced[5] = {' ', s->data[i], ' ', s->data[i + 1], ' '};

            KD_TRY(kd_str_append(out, spaced + !lead, 4));
            i++;
        } else {
            KD_TRY(kd_str_append(out, s->data + i, 1));
        }
    }
    return KD_OK;
}

/* TEXT[len] into OUT (replaced), with tokens between white space; TMP is scratch. */
static int tokenise(const char *text, int64_t len, struct kd_str *out,
                    struct kd_str *tmp)
{
    static const char *const replacements[][2] = {
        {"<skipped>", ""}, {"-\n", ""},   {"\n", " "},  {"&quot;", "\""},
        {"&amp;", "&"},    {"&lt;", "<"}, {"&gt;", ">"}};

    kd_str_clear(tmp);
    KD_TRY(kd_str_append(tmp, text, len));
    for (size_t i = 0; i < sizeof replacements / sizeof *replacements; i++)
        replace(tmp, replacements[i][0], replacements[i][1]);
    kd_str_clear(out);
    KD_TRY(kd_str_append(out, " ", 1));
    KD_TRY(kd_str_append(out, tmp->data ? tmp->data : "", tmp->len));
    KD_TRY(kd_str_append(out, " ", 1));
    KD_TRY(split_symbols(out, tmp));
    KD_TRY(split_pairs(tmp, is_not_digit, is_point, false, out));
    KD_TRY(split_pairs(out, is_point, is_not_digit, true, tmp));
    return split_pairs(tmp, is_digit, is_dash, false, out);
}

/* White space of Unicode, as Python splits at it. */
static bool is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 ||
           c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* ---- n-grams ---- */

struct hashes {
    uint64_t *v;
    int64_t n, cap;
};

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static int add_hash(struct hashes *h, uint64_t x)
{
    KD_TRY(kd_grow(&h->v, &h->cap, h->n + 1, sizeof *h->v));
    h->v[h->n++] = x;
    return KD_OK;
}

/* Hashes of the tokens of S, in order. */
static int hash_tokens(const struct kd_str *s, struct hashes *out)
{
    uint64_t h = 0;
    bool open = false;
    int bytes;

    out->n = 0;
    for (int64_t i = 0; i < s->len; i += bytes) {
        uint32_t c = kd_utf8_next(s->data + i, s->len - i, &bytes);

        if (!is_space(c)) {
            h = mix(open ? h : 1, c);
            open = true;
        } else if (open) {
            KD_TRY(add_hash(out, h));
            open = false;
        }
    }
    return KD_OK; /* the text ends with a space */
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* Sorted hashes of the N-grams of TOKENS. */
static int hash_ngrams(const struct hashes *tokens, int n, struct hashes *out)
{
    out->n = 0;
    for (int64_t i = 0; i + n <= tokens->n; i++) {
        uint64_t h = 2;

        for (int k = 0; k < n; k++)
            h = mix(h, tokens->v[i + k]);
        KD_TRY(add_hash(out, h));
    }
    if (out->n > 0)
        qsort(out->v, (size_t)out->n, sizeof *out->v, by_value);
    return KD_OK;
}

/* Common elements of two sorted lists, each counted as often as both have it. */
static int64_t n_common(const struct hashes *a, const struct hashes *b)
{
    int64_t common = 0;

    for (int64_t i = 0, j = 0; i < a->n && j < b->n;) {
        bool same = a->v[i] == b->v[j], less = a->v[i] < b->v[j];

        common += same;
        i += same || less;
        j += same || !less;
    }
    return common;
}

/* ---- the score ---- */

int kd_bleu_add(struct kd_bleu *b, const char *target, int64_t target_len,
                const char *prediction, int64_t prediction_len)
{
    struct kd_str text = {0}, tmp = {0};
    struct hashes t = {0}, p = {0}, grams_t = {0}, grams_p = {0};
    int rc = KD_OK;

    KD_GO(tokenise(target, target_len, &text, &tmp));
    KD_GO(hash_tokens(&text, &t));
    KD_GO(tokenise(prediction, prediction_len, &text, &tmp));
    KD_GO(hash_tokens(&text, &p));
    b->target_tokens += (double)t.n;
    b->prediction_tokens += (double)p.n;
    for (int n = 1; n <= KD_BLEU_ORDERS; n++) {
        KD_GO(hash_ngrams(&t, n, &grams_t));
        KD_GO(hash_ngrams(&p, n, &grams_p));
        b->total[n - 1] += (double)grams_p.n;
        b->correct[n - 1] += (double)n_common(&grams_t, &grams_p);
    }
out:
    kd_str_free(&text);
    kd_str_free(&tmp);
    free(t.v);
    free(p.v);
    free(grams_t.v);
    free(grams_p.v);
    return rc;
}

double kd_bleu_score(const struct kd_bleu *b)
{
    double log_sum = 0, smooth = 1, brevity = 1;

    if (b->correct[0] == 0)
        return 0;
    for (int n = 0; n < KD_BLEU_ORDERS; n++) {
        if (b->total[n] == 0)
            return 0;
        if (b->correct[n] == 0)
            smooth *= 2;
        log_sum += log(b->correct[n] > 0 ? 100 * b->correct[n] / b->total[n]
                                         : 100 / (smooth * b->total[n]));
    }
    if (b->prediction_tokens < b->target_tokens)
        brevity = exp(1 - b->target_tokens / b->prediction_tokens);
    return brevity * exp(log_sum / KD_BLEU_ORDERS);
}
