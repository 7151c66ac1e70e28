/* SPDX-License-Identifier: Apache-2.0 */
/* Growing and bounded strings, UTF-8, and the nearest name.
 *
 * A kd_str grows by doubling and always ends in a NUL, so it serves both as bytes and
 * as a C string.  UTF-8 is validated where text enters the program; kd_utf8_next may
 * then assume it.  Small files are in file.c. */
#include "kdhpc/base/str.h"

#include "kdhpc/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- strings ---- */

int kd_str_append(struct kd_str *s, const char *bytes, int64_t len)
{
    KD_TRY(kd_grow(&s->data, &s->cap, s->len + len + 1, 1));
    if (len > 0)
        memcpy(s->data + s->len, bytes, (size_t)len);
    s->len += len;
    s->data[s->len] = '\0';
    return KD_OK;
}

int kd_str_printf(struct kd_str *s, const char *fmt, ...)
{
    va_list ap, again;
    int n;

    va_start(ap, fmt);
    va_copy(again, ap);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || kd_grow(&s->data, &s->cap, s->len + n + 1, 1)) {
        va_end(again);
        return KD_FAIL(KD_ENOMEM, "cannot format a text of %d bytes", n);
    }
    vsnprintf(s->data + s->len, (size_t)n + 1, fmt, again);
    va_end(again);
    s->len += n;
    return KD_OK;
}

void kd_str_clear(struct kd_str *s)
{
    s->len = 0;
    if (s->data)
        s->data[0] = '\0';
}

void kd_str_free(struct kd_str *s)
{
    free(s->data);
    *s = (struct kd_str){0};
}

int kd_strndup(const char *text, int64_t len, char **out)
{
    KD_TRY(kd_calloc(len + 1, 1, out));
    if (len > 0)
        memcpy(*out, text, (size_t)len);
    return KD_OK;
}

int kd_strdup(const char *text, char **out)
{
    return kd_strndup(text, (int64_t)strlen(text), out);
}

int kd_format(char *out, size_t cap, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(out, cap, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= cap)
        return KD_FAIL(KD_EINTERNAL, "text of %d bytes does not fit %zu: %s", n, cap,
                       out);
    return KD_OK;
}

/* ---- UTF-8 ---- */

/* Length of the valid sequence at S with N bytes left, or 0. */
static int sequence_length(const unsigned char *s, int64_t n)
{
    unsigned char lo = 0x80, hi = 0xBF; /* bounds of the second byte */
    int len;

    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xC2 || s[0] > 0xF4) /* continuation, overlong, above U+10FFFF */
        return 0;
    len = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    if (len > n)
        return 0;
    if (s[0] == 0xE0)
        lo = 0xA0; /* overlong */
    else if (s[0] == 0xED)
        hi = 0x9F; /* surrogates */
    else if (s[0] == 0xF0)
        lo = 0x90; /* overlong */
    else if (s[0] == 0xF4)
        hi = 0x8F; /* above U+10FFFF */
    if (s[1] < lo || s[1] > hi)
        return 0;
    for (int i = 2; i < len; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 0;
    }
    return len;
}

int64_t kd_utf8_invalid_at(const char *bytes, int64_t len)
{
    const unsigned char *s = (const unsigned char *)bytes;
    int64_t at = 0;

    while (at < len) {
        int n = sequence_length(s + at, len - at);

        if (!n)
            return at;
        at += n;
    }
    return -1;
}

uint32_t kd_utf8_next(const char *bytes, int64_t len, int *n_bytes)
{
    static const unsigned char first_mask[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    const unsigned char *s = (const unsigned char *)bytes;
    int n = s[0] < 0x80 ? 1 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    uint32_t cp;

    if (n > len) /* never with valid text; keeps a broken caller inside its bytes */
        n = (int)len;
    cp = s[0] & first_mask[n];
    for (int i = 1; i < n; i++)
        cp = cp << 6 | (s[i] & 0x3Fu);
    *n_bytes = n;
    return cp;
}

int kd_utf8_put(uint32_t cp, char *out)
{
    static const unsigned char first[] = {0, 0, 0xC0, 0xE0, 0xF0};
    int n = cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;

    for (int i = n - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (cp & 0x3F));
        cp >>= 6;
    }
    out[0] = (char)(first[n] | cp);
    return n;
}

/* ---- nearest name ---- */

enum { NAME_MAX_BYTES = 64 };

/* Edits (insert, delete, replace) that turn A into B, both at most NAME_MAX_BYTES long.
 */
static int edit_distance(const char *a, const char *b)
{
    int row[NAME_MAX_BYTES + 1];
    int n = (int)strlen(b);

    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 1; *a; i++, a++) {
        int diagonal = row[0];

        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int best = diagonal + (*a != b[j - 1]);

            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

int kd_nearest(const char *word, const char *const *names, int n)
{
    size_t len = strlen(word);
    int best = -1, best_distance = (int)(len / 3) + 2;

    if (len > NAME_MAX_BYTES)
        return -1;
    for (int i = 0; i < n; i++) {
        int distance;

        if (strlen(names[i]) > NAME_MAX_BYTES)
            continue;
        distance = edit_distance(word, names[i]);
        if (distance < best_distance) {
            best = i;
            best_distance = distance;
        }
    }
    return best;
}
