/* SPDX-License-Identifier: Apache-2.0 */
/* The character map of a SentencePiece model.
 *
 * It is a darts-clone double array over UTF-8 that maps short strings to replacements.
 * The library applies the longest match at each byte (the slow tokenizers); the fast
 * ones apply it per grapheme cluster: a cluster of fewer than six bytes is looked up
 * whole, others character by character, and the shortest entry that begins the
 * looked-up text replaces all of it. */
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

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

const char *kd_charsmap_longest(const struct kd_charsmap *m, const char *text,
                                int64_t len, int64_t *n)
{
    const char *found = NULL;
    int64_t at = m->n_units ? unit_offset(m->units[0]) : 0;

    for (int64_t i = 0; m->n_units && i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        uint32_t unit = 0, value = 0;

        at ^= c;
        if (at >= m->n_units)
            break;
        unit = m->units[at];
        if ((unit & 0x800000FFu) != c)
            break;
        at ^= unit_offset(unit);
        if (!((unit >> 8) & 1))
            continue;
        if (at >= m->n_units)
            break;
        value = m->units[at] & 0x7FFFFFFFu;
        if (value <= m->replacements_len) {
            found = m->replacements + value;
            *n = i + 1;
        }
    }
    return found;
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

static int append_mapped(const struct kd_charsmap *m, const char *cluster, int64_t len,
                         struct kd_str *out)
{
    const char *r = NULL;

    if (len < WHOLE_CLUSTER_BELOW) {
        r = charsmap_find(m, cluster, len);
        if (r)
            return kd_str_append(out, r, (int64_t)strlen(r));
    }
    for (int64_t i = 0; i < len;) {
        int n = 0;

        (void)kd_utf8_next(cluster + i, len - i, &n);
        r = charsmap_find(m, cluster + i, n);
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

int kd_charsmap_apply(const struct kd_charsmap *m, const struct kd_graphemes *g,
                      void *match, const char *text, int64_t len, struct kd_str *out)
{
    for (int64_t i = 0; i < len;) {
        int64_t n = m->ascii_is_plain ? plain_run(text + i, len - i) : 0;

        if (n) {
            KD_TRY(kd_str_append(out, text + i, n));
        } else {
            n = kd_grapheme_len(g, match, text + i, len - i);
            KD_TRY(append_mapped(m, text + i, n, out));
        }
        i += n;
    }
    return KD_OK;
}
