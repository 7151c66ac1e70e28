/* SPDX-License-Identifier: Apache-2.0 */
/* Normalisation of text before it is cut into words: a list of steps.
 *
 * A step narrows the view of the text or writes the other of two buffers; steps that
 * would change nothing of pure ASCII pass it on as it is. */
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

static int64_t leading_space(const char *text, int64_t len)
{
    int64_t i = 0;

    while (i < len) {
        int n = 0;

        if (!kd_is_white_space(kd_utf8_next(text + i, len - i, &n)))
            break;
        i += n;
    }
    return i;
}

static int64_t without_trailing_space(const char *text, int64_t len)
{
    while (len > 0) {
        int64_t start = len - 1;
        int n = 0;

        while (start > 0 && ((unsigned char)text[start] & 0xC0) == 0x80)
            start--;
        if (!kd_is_white_space(kd_utf8_next(text + start, len - start, &n)))
            break;
        len = start;
    }
    return len;
}

static int replace_space_runs(const char *text, int64_t len, const char *content,
                              struct kd_str *out)
{
    int64_t done = 0;

    for (int64_t i = 0; i + 1 < len;) {
        int64_t stop = i;

        while (stop < len && text[stop] == ' ')
            stop++;
        if (stop - i >= 2) {
            KD_TRY(kd_str_append(out, text + done, i - done));
            KD_TRY(kd_str_append(out, content, (int64_t)strlen(content)));
            done = stop;
        }
        i = stop > i ? stop : i + 1;
    }
    return kd_str_append(out, text + done, len - done);
}

static int replace_all(const char *text, int64_t len, const char *pattern,
                       const char *content, struct kd_str *out)
{
    int64_t done = 0, n = (int64_t)strlen(pattern);
    const char *at = text;

    while (n && (at = memmem(text + done, (size_t)(len - done), pattern, (size_t)n))) {
        KD_TRY(kd_str_append(out, text + done, at - text - done));
        KD_TRY(kd_str_append(out, content, (int64_t)strlen(content)));
        done = at - text + n;
    }
    return kd_str_append(out, text + done, len - done);
}

static int replace_matches(const struct kd_norm_step *step, void *match,
                           const char *text, int64_t len, struct kd_str *out)
{
    struct kd_regex_walk w = KD_REGEX_WALK;
    int64_t done = 0;
    bool found = len > 0;

    while (found) {
        KD_TRY(kd_regex_next(step->regex, match, text, len, &w, &found));
        if (!found)
            break;
        KD_TRY(kd_str_append(out, text + done, w.start - done));
        KD_TRY(kd_str_append(out, step->content, (int64_t)strlen(step->content)));
        done = w.stop;
    }
    return kd_str_append(out, text + done, len - done);
}

/* ---- steps that look at one character at a time ---- */

/** What a step makes of CP: UTF8[return value]; 0 drops it. */
static int map_char(enum kd_norm_kind kind, uint32_t cp, char *utf8)
{
    switch (kind) {
    case KD_NORM_BERT_CLEAN:
        if (cp == '\t' || cp == '\n' || cp == '\r')
            cp = ' ';
        else if (cp == 0xFFFD || kd_is_invisible(cp))
            return 0;
        else if (kd_is_white_space(cp))
            cp = ' ';
        break;
    case KD_NORM_DROP_MARKS:
        if (kd_is_mark(cp))
            return 0;
        break;
    case KD_NORM_DROP_NONSPACING:
        if (kd_is_nonspacing(cp))
            return 0;
        break;
    case KD_NORM_NMT:
        if ((cp >= 1 && cp <= 8) || cp == 0xB || (cp >= 0xE && cp <= 0x1F) ||
            cp == 0x7F || cp == 0x8F || cp == 0x9F)
            return 0;
        if (cp == 9 || cp == 0xA || cp == 0xC || cp == 0xD || cp == 0x1680 ||
            (cp >= 0x200B && cp <= 0x200F) || cp == 0x2028 || cp == 0x2029 ||
            cp == 0x2581 || cp == 0xFEFF || cp == 0xFFFD)
            cp = ' ';
        break;
    default:
        break;
    }
    return kd_utf8_put(cp, utf8);
}

/** Bytes at the start of TEXT[len] that a mapping step leaves as they are. */
static int64_t unchanged_run(enum kd_norm_kind kind, const char *text, int64_t len)
{
    int64_t n = 0;

    if (kind == KD_NORM_DROP_MARKS || kind == KD_NORM_DROP_NONSPACING)
        return kd_ascii_run(text, len);
    while (n < len && text[n] >= 0x20 && text[n] < 0x7F)
        n++;
    return n;
}

static int map_chars(enum kd_norm_kind kind, const char *text, int64_t len,
                     struct kd_str *out)
{
    for (int64_t i = 0; i < len;) {
        int64_t run = unchanged_run(kind, text + i, len - i);
        char utf8[4];
        int n = 0;

        KD_TRY(kd_str_append(out, text + i, run));
        i += run;
        if (i == len)
            break;
        KD_TRY(kd_str_append(
            out, utf8, map_char(kind, kd_utf8_next(text + i, len - i, &n), utf8)));
        i += n;
    }
    return KD_OK;
}

/** The last range begins later than it should, as in the reference. */
static bool is_ideograph(uint32_t cp)
{
    return (cp >= 0x4E00 && cp <= 0x9FFF) || (cp >= 0x3400 && cp <= 0x4DBF) ||
           (cp >= 0x20000 && cp <= 0x2A6DF) || (cp >= 0x2A700 && cp <= 0x2B81F) ||
           (cp >= 0x2B920 && cp <= 0x2CEAF) || (cp >= 0xF900 && cp <= 0xFAFF) ||
           (cp >= 0x2F800 && cp <= 0x2FA1F);
}

static int space_ideographs(const char *text, int64_t len, struct kd_str *out)
{
    int64_t done = 0;

    for (int64_t i = kd_ascii_run(text, len); i < len;) {
        int n = 0;

        if (is_ideograph(kd_utf8_next(text + i, len - i, &n))) {
            KD_TRY(kd_str_append(out, text + done, i - done));
            KD_TRY(kd_str_append(out, " ", 1));
            KD_TRY(kd_str_append(out, text + i, n));
            KD_TRY(kd_str_append(out, " ", 1));
            done = i + n;
        }
        i += n;
    }
    return kd_str_append(out, text + done, len - done);
}

/** Whether STEP leaves text of ASCII characters alone. */
static bool leaves_ascii(enum kd_norm_kind kind)
{
    return kind == KD_NORM_FORM || kind == KD_NORM_DROP_MARKS ||
           kind == KD_NORM_DROP_NONSPACING || kind == KD_NORM_BERT_CJK;
}

/* ---- all steps ---- */

/** Whether STEP drops the first character of TEXT[len], LEN > 0, and puts nothing in
 * its place. */
static int drops_start(const struct kd_norm_step *step, void *match, const char *text,
                       int64_t len, bool *drops)
{
    struct kd_regex_walk w = KD_REGEX_WALK;
    int64_t n_pattern = step->pattern ? (int64_t)strlen(step->pattern) : 0;
    char utf8[4];
    int n = 0;
    uint32_t cp = kd_utf8_next(text, len, &n);

    *drops = false;
    switch (step->kind) {
    case KD_NORM_STRIP:
        *drops = step->strip_left && kd_is_white_space(cp);
        break;
    case KD_NORM_BERT_CLEAN:
    case KD_NORM_DROP_MARKS:
    case KD_NORM_DROP_NONSPACING:
    case KD_NORM_NMT:
        *drops = map_char(step->kind, cp, utf8) == 0;
        break;
    case KD_NORM_REPLACE:
        *drops = !*step->content && n_pattern > 0 && n_pattern <= len &&
                 memcmp(text, step->pattern, (size_t)n_pattern) == 0;
        break;
    case KD_NORM_REGEX:
        if (!*step->content)
            KD_TRY(kd_regex_next(step->regex, match, text, len, &w, drops));
        *drops = *drops && w.start == 0 && w.stop > 0;
        break;
    default:
        break;
    }
    return KD_OK;
}

static void strip(const struct kd_norm_step *step, const char **text, int64_t *len)
{
    int64_t left = 0;

    if (step->strip_right)
        *len = without_trailing_space(*text, *len);
    left = step->strip_left ? leading_space(*text, *len) : 0;
    *text += left;
    *len -= left;
}

/** Write what STEP makes of TEXT[len] to OUT. */
static int write_step(const struct kd_tokenizer *t, struct kd_scratch *s,
                      const struct kd_norm_step *step, const char *text, int64_t len,
                      struct kd_str *out)
{
    switch (step->kind) {
    case KD_NORM_CHARSMAP:
        return kd_charsmap_apply(&t->charsmap, t->graphemes, s->match, text, len, out);
    case KD_NORM_SPACE_RUNS:
        return replace_space_runs(text, len, step->content, out);
    case KD_NORM_REPLACE:
        return replace_all(text, len, step->pattern, step->content, out);
    case KD_NORM_REGEX:
        return replace_matches(step, s->match, text, len, out);
    case KD_NORM_FORM:
        return kd_str_append_normal(out, step->form, text, len);
    case KD_NORM_LOWER:
        return kd_str_append_lower(out, text, len, false);
    case KD_NORM_BERT_CJK:
        return space_ideographs(text, len, out);
    case KD_NORM_BYTE_CHARS:
        return kd_str_append_byte_chars(out, text, len);
    case KD_NORM_PREPEND:
        KD_TRY(kd_str_append(out, step->content, (int64_t)strlen(step->content)));
        return kd_str_append(out, text, len);
    default:
        return map_chars(step->kind, text, len, out);
    }
}

int kd_normalise(const struct kd_tokenizer *t, struct kd_scratch *s, const char *text,
                 int64_t len, const char **out, int64_t *out_len, bool *at_start)
{
    bool ascii = kd_ascii_run(text, len) == len, drops = false;
    int side = 0;

    for (int i = 0; i < t->n_norm && len > 0; i++) {
        const struct kd_norm_step *step = &t->norm[i];
        struct kd_str *buffer = &s->norm[side];

        if (at_start && *at_start) {
            KD_TRY(drops_start(step, s->match, text, len, &drops));
            *at_start = !drops;
        }
        if (step->kind == KD_NORM_STRIP) {
            strip(step, &text, &len);
            continue;
        }
        if ((ascii && leaves_ascii(step->kind)) ||
            (step->kind == KD_NORM_SPACE_RUNS && !memmem(text, (size_t)len, "  ", 2)))
            continue;
        kd_str_clear(buffer);
        KD_TRY(write_step(t, s, step, text, len, buffer));
        text = buffer->data ? buffer->data : "";
        len = buffer->len;
        ascii = kd_ascii_run(text, len) == len;
        side = !side; /* TEXT lies in BUFFER now: write to the other next */
    }
    *out = text;
    *out_len = len;
    return KD_OK;
}
