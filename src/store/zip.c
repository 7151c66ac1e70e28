/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of a zip archive, with 64-bit sizes, over mapped bytes.
 *
 * PyTorch stores its members uncompressed and aligned, so that they can be used where
 * they lie; the packaged zip libraries copy members out and do not say where they are.
 * What is needed instead is small: the end record, the central directory, and each
 * member's local header, whose extra field (padding for alignment) may differ from the
 * directory's.  Every offset is checked against the archive before it is used.
 * Checksums are not compared: PyTorch can leave them out, and does not read them.
 * Source of the format: PKWARE's APPNOTE.TXT 6.3.  Caller: torchbin.c. */
#include "zip.h"

#include "kdhpc/base/mem.h"
#include "weights_impl.h"

#include <stdlib.h>
#include <string.h>

enum {
    LOCAL_BYTES = 30,
    ENTRY_BYTES = 46,
    END_BYTES = 22,
    LOCATOR_BYTES = 20,
    END64_BYTES = 56,
    COMMENT_MAX = 65535,
    EXTRA_64 = 1,
    STORED = 0,
    ENCRYPTED = 1
};

#define LOCAL_MAGIC 0x04034b50u
#define ENTRY_MAGIC 0x02014b50u
#define END_MAGIC 0x06054b50u
#define LOCATOR_MAGIC 0x07064b50u
#define END64_MAGIC 0x06064b50u

struct archive {
    const unsigned char *bytes;
    int64_t n;
    const char *path;
    int64_t n_entries, dir_at, dir_end; /* of the central directory */
};

static uint64_t at2(const unsigned char *b)
{
    return kd_little(b, 2);
}

static uint64_t at4(const unsigned char *b)
{
    return kd_little(b, 4);
}

static int damaged(const struct archive *a, const char *what)
{
    return KD_FAIL(KD_EINPUT, "%s: its zip archive is damaged: %s", a->path, what);
}

bool kd_zip_begins(const unsigned char *bytes, int64_t n)
{
    return n >= 4 && at4(bytes) == LOCAL_MAGIC;
}

/* ---- the end record ---- */

static int64_t find_end(const struct archive *a)
{
    int64_t low = a->n - END_BYTES - COMMENT_MAX;

    for (int64_t at = a->n - END_BYTES; at >= 0 && at >= low; at--)
        if (at4(a->bytes + at) == END_MAGIC &&
            (int64_t)at2(a->bytes + at + 20) == a->n - at - END_BYTES)
            return at;
    return -1;
}

/* The 64-bit end record, which a locator before the plain one at END names. */
static int read_end64(struct archive *a, int64_t end, uint64_t *count, uint64_t *bytes,
                      uint64_t *at)
{
    const unsigned char *locator = a->bytes + end - LOCATOR_BYTES, *r;
    uint64_t place;

    if (end < LOCATOR_BYTES || at4(locator) != LOCATOR_MAGIC)
        return KD_OK;
    place = kd_little(locator + 8, 8);
    if (end < END64_BYTES || place > (uint64_t)(end - END64_BYTES) ||
        at4(a->bytes + place) != END64_MAGIC)
        return damaged(a, "its 64-bit end record is not where it should be");
    r = a->bytes + place;
    *count = kd_little(r + 32, 8);
    *bytes = kd_little(r + 40, 8);
    *at = kd_little(r + 48, 8);
    return KD_OK;
}

static int read_end(struct archive *a)
{
    int64_t end = find_end(a);
    const unsigned char *r = a->bytes + end;
    uint64_t count, bytes, at;

    if (end < 0)
        return damaged(a, "no directory at its end, the file is cut short");
    count = at2(r + 10);
    bytes = at4(r + 12);
    at = at4(r + 16);
    KD_TRY(read_end64(a, end, &count, &bytes, &at));
    if (at > (uint64_t)end || bytes > (uint64_t)end - at || count > bytes / ENTRY_BYTES)
        return damaged(a, "its directory lies outside the file");
    a->n_entries = (int64_t)count;
    a->dir_at = (int64_t)at;
    a->dir_end = (int64_t)(at + bytes);
    return KD_OK;
}

/* ---- members ---- */

/* Sizes and place of a member, as 32 bits hold them or as its extra field does. */
struct entry {
    uint64_t packed, size, place;
};

static int read_extra(const struct archive *a, const unsigned char *extra, int64_t n,
                      struct entry *e)
{
    uint64_t *fields[] = {&e->size, &e->packed, &e->place};

    while (n >= 4) {
        int64_t id = (int64_t)at2(extra), len = (int64_t)at2(extra + 2), used = 0;

        extra += 4;
        n -= 4;
        if (len > n)
            return damaged(a, "an extra field is longer than its place");
        for (int i = 0; id == EXTRA_64 && i < 3; i++) {
            if (*fields[i] != UINT32_MAX)
                continue;
            if (used + 8 > len)
                return damaged(a, "a 64-bit size is missing");
            *fields[i] = kd_little(extra + used, 8);
            used += 8;
        }
        extra += len;
        n -= len;
    }
    return KD_OK;
}

/* The bytes of a stored member, behind its local header. */
static int find_data(const struct archive *a, const struct entry *e,
                     struct kd_zip_member *m)
{
    const unsigned char *local = a->bytes + e->place;
    int64_t at;

    if (a->dir_at < LOCAL_BYTES || e->place > (uint64_t)(a->dir_at - LOCAL_BYTES) ||
        at4(local) != LOCAL_MAGIC)
        return damaged(a, "a member is not where the directory says");
    at = (int64_t)e->place + LOCAL_BYTES + (int64_t)at2(local + 26) +
         (int64_t)at2(local + 28);
    if (at > a->dir_at || e->size > (uint64_t)(a->dir_at - at) || e->packed != e->size)
        return damaged(a, "a member is longer than the file, or has two sizes");
    m->data = a->bytes + at;
    m->n_bytes = (int64_t)e->size;
    return KD_OK;
}

/* The member whose entry is at *AT, which moves to the next. */
static int read_entry(const struct archive *a, int64_t *at, struct kd_zip_member *m)
{
    const unsigned char *r = a->bytes + *at;
    int64_t left = a->dir_end - *at, name, extra, comment;
    struct entry e;

    if (left < ENTRY_BYTES || at4(r) != ENTRY_MAGIC)
        return damaged(a, "its directory is not one");
    name = (int64_t)at2(r + 28);
    extra = (int64_t)at2(r + 30);
    comment = (int64_t)at2(r + 32);
    if (name + extra + comment > left - ENTRY_BYTES)
        return damaged(a, "its directory is cut short");
    *m =
        (struct kd_zip_member){.name = (const char *)r + ENTRY_BYTES, .name_len = name};
    e = (struct entry){at4(r + 20), at4(r + 24), at4(r + 42)};
    KD_TRY(read_extra(a, r + ENTRY_BYTES + name, extra, &e));
    *at += ENTRY_BYTES + name + extra + comment;
    if (at2(r + 10) != STORED || (at2(r + 8) & ENCRYPTED))
        return KD_OK;
    return find_data(a, &e, m);
}

static int compare_names(const char *a, int64_t a_len, const char *b, int64_t b_len)
{
    int order = memcmp(a, b, (size_t)(a_len < b_len ? a_len : b_len));

    return order ? order : (a_len > b_len) - (a_len < b_len);
}

static int by_name(const void *a, const void *b)
{
    const struct kd_zip_member *x = a, *y = b;

    return compare_names(x->name, x->name_len, y->name, y->name_len);
}

int kd_zip_read(const unsigned char *bytes, int64_t n, const char *path,
                struct kd_zip *out)
{
    struct archive a = {.bytes = bytes, .n = n, .path = path};
    int64_t at;

    *out = (struct kd_zip){0};
    KD_TRY(read_end(&a));
    KD_TRY(kd_grow(&out->members, &out->cap, a.n_entries, sizeof *out->members));
    at = a.dir_at;
    for (; out->n < a.n_entries; out->n++)
        KD_TRY(read_entry(&a, &at, &out->members[out->n]));
    if (out->n > 1)
        qsort(out->members, (size_t)out->n, sizeof *out->members, by_name);
    for (int64_t i = 1; i < out->n; i++)
        if (by_name(&out->members[i - 1], &out->members[i]) == 0)
            return damaged(&a, "a name is there twice");
    return KD_OK;
}

void kd_zip_free(struct kd_zip *z)
{
    free(z->members);
    *z = (struct kd_zip){0};
}

const struct kd_zip_member *kd_zip_find(const struct kd_zip *z, const char *name,
                                        int64_t len)
{
    struct kd_zip_member key = {.name = name, .name_len = len};

    if (!z->n)
        return NULL;
    return bsearch(&key, z->members, (size_t)z->n, sizeof key, by_name);
}
