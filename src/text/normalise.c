/* SPDX-License-Identifier: Apache-2.0 */
/* Normalisation of text before it is cut into words.
 *
 * The character map of a SentencePiece model is a darts-clone double array over UTF-8
 * that maps short strings to replacements.  The library applies the longest match at
 * each byte; the fast tokenizers apply it per grapheme cluster: a cluster of fewer
 * than six bytes is looked up whole, others character by character, and the shortest
 * entry that begins the looked-up text replaces all of it.  Models are used with the
 * second rule, so it is the one followed here. */
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

/* ---- character map ---- */

static uint32_t read_u32(const char *p)
{
    const unsigned char *b = (const unsigned char *)p;

    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

void kd_charsmap_free(struct kd_charsmap *m)
{
    free(m->units);
    free(m->replacements);
    *m = (struct kd_charsmap){0};
}

static uint32_t unit_offset(uint32_t unit)
{
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
}

/** Replacement of the shortest entry that begins TEXT[len], or NULL. */
static const char *charsmap_find(const struct kd_charsmap *m, const char *text,
                                 int64_t len)
{
    int64_t at = unit_offset(m->units[0]);

    for (int64_t i = 0; i < len && text[i]; i++) {
        unsigned char c = (unsigned char)text[i];
        uint32_t unit = 0, value = 0;

        at ^= c;
        if (at >= m->n_units)
            return NULL;
        unit = m->units[at];
        if ((unit & 0x800000FFu) != c)
            return NULL;
        at ^= unit_offset(unit);
        if (!((unit >> 8) & 1))
            continue;
        if (at >= m->n_units)
            return NULL;
        value = m->units[at] & 0x7FFFFFFFu;
        return value <= m->replacements_len ? m->replacements + value : NULL;
    }
    return NULL;
}

/** Whether no printable ASCII character has an entry of its own. */
static bool leaves_ascii(const struct kd_charsmap *m)
{
    for (char c = 0x20; c < 0x7F; c++)
        if (charsmap_find(m, &c, 1))
            return false;
    return true;
}

int kd_charsmap_read(const char *blob, int64_t len, struct kd_charsmap *out)
{
    int64_t trie_bytes = len >= 4 ? (int64_t)read_u32(blob) : -1;

    if (trie_bytes < 4 || trie_bytes > len - 4)
        return KD_FAIL(KD_EINPUT, "the character map of the tokenizer is damaged");
    out->n_units = trie_bytes / 4;
    out->replacements_len = len - 4 - trie_bytes;
    KD_TRY(kd_calloc(out->n_units, sizeof *out->units, &out->units));
    for (int64_t i = 0; i < out->n_units; i++)
        out->units[i] = read_u32(blob + 4 + 4 * i);
    KD_TRY(
        kd_strndup(blob + 4 + trie_bytes, out->replacements_len, &out->replacements));
    if (kd_utf8_invalid_at(out->replacements, out->replacements_len) >= 0)
        return KD_FAIL(KD_EINPUT, "the character map of the tokenizer is damaged: its "
                                  "replacements are not UTF-8");
    out->ascii_is_plain = leaves_ascii(out);
    return KD_OK;
}

enum { WHOLE_CLUSTER_BELOW = 6 }; /* bytes */

static int append_mapped(const struct kd_tokenizer *t, const char *cluster, int64_t len,
                         struct kd_str *out)
{
    const char *r = NULL;

    if (len < WHOLE_CLUSTER_BELOW) {
        r = charsmap_find(&t->charsmap, cluster, len);
        if (r)
            return kd_str_append(out, r, (int64_t)strlen(r));
    }
    for (int64_t i = 0; i < len;) {
        int n = 0;

        (void)kd_utf8_next(cluster + i, len - i, &n);
        r = charsmap_find(&t->charsmap, cluster + i, n);
        KD_TRY(r ? kd_str_append(out, r, (int64_t)strlen(r))
                 : kd_str_append(out, cluster + i, n));
        i += n;
    }
    return KD_OK;
}

/** Bytes at the start of TEXT[len] that a character map leaves alone: printable ASCII,
 * but for the last one, which may begin a cluster. */
static int64_t plain_run(const char *text, int64_t len)
{
    int64_t n = 0;

    while (n < len && text[n] >= 0x20 && text[n] < 0x7F)
        n++;
    return n == len ? n : n > 0 ? n - 1 : 0;
}

static int apply_charsmap(const struct kd_tokenizer *t, struct kd_scratch *s,
                          const char *text, int64_t len, struct kd_str *out)
{
    for (int64_t i = 0; i < len;) {
        int64_t n = t->charsmap.ascii_is_plain ? plain_run(text + i, len - i) : 0;

        if (n) {
            KD_TRY(kd_str_append(out, text + i, n));
        } else {
            n = kd_grapheme_len(t->graphemes, s->match, text + i, len - i);
            KD_TRY(append_mapped(t, text + i, n, out));
        }
        i += n;
    }
    return KD_OK;
}

/* ---- the other steps ---- */

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

    for (int64_t i = 0; n && i + n <= len;) {
        if (memcmp(text + i, pattern, (size_t)n) != 0) {
            i++;
            continue;
        }
        KD_TRY(kd_str_append(out, text + done, i - done));
        KD_TRY(kd_str_append(out, content, (int64_t)strlen(content)));
        i += n;
        done = i;
    }
    return kd_str_append(out, text + done, len - done);
}

/** Apply STEP to *TEXT[*LEN]: either narrow the view or write to OUT and view it. */
static int apply_step(const struct kd_tokenizer *t, struct kd_scratch *s,
                      const struct kd_norm_step *step, struct kd_str *out,
                      const char **text, int64_t *len)
{
    int64_t left = 0;

    switch (step->kind) {
    case KD_NORM_STRIP:
        if (step->strip_right)
            *len = without_trailing_space(*text, *len);
        left = step->strip_left ? leading_space(*text, *len) : 0;
        *text += left;
        *len -= left;
        return KD_OK;
    case KD_NORM_CHARSMAP:
        KD_TRY(apply_charsmap(t, s, *text, *len, out));
        break;
    case KD_NORM_SPACE_RUNS:
        if (!memmem(*text, (size_t)*len, "  ", 2))
            return KD_OK;
        KD_TRY(replace_space_runs(*text, *len, step->content, out));
        break;
    case KD_NORM_REPLACE:
        KD_TRY(replace_all(*text, *len, step->pattern, step->content, out));
        break;
    case KD_NORM_PREPEND:
        if (*len == 0)
            return KD_OK;
        KD_TRY(kd_str_append(out, step->content, (int64_t)strlen(step->content)));
        KD_TRY(kd_str_append(out, *text, *len));
        break;
    }
    *text = out->data ? out->data : "";
    *len = out->len;
    return KD_OK;
}

int kd_normalise(const struct kd_tokenizer *t, struct kd_scratch *s, const char *text,
                 int64_t len, const char **out, int64_t *out_len)
{
    int side = 0;

    for (int i = 0; i < t->n_norm; i++) {
        struct kd_str *buffer = &s->norm[side];

        kd_str_clear(buffer);
        KD_TRY(apply_step(t, s, &t->norm[i], buffer, &text, &len));
        if (buffer->len > 0)
            side = !side; /* TEXT lies in BUFFER now: write to the other next */
    }
    *out = text;
    *out_len = len;
    return KD_OK;
}
