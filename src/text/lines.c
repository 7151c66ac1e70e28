/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of text files, see the header: one buffer of a megabyte, longer only for a line
 * that is longer. */
#include "kdhpc/text/lines.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 1 << 20 };

static const char BOM[] = "\xEF\xBB\xBF";
enum { BOM_BYTES = sizeof BOM - 1 };

struct kd_lines {
    int fd;
    const char *path; /* borrowed from the tail of this allocation */
    char *buffer;
    int64_t cap, start, stop; /* unread bytes are buffer[start..stop) */
    int64_t offset;           /* of buffer[stop] in the file */
    bool end, bom;
    int64_t returns;
};

static int open_text(const char *path, int *fd)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    return *fd >= 0
               ? KD_OK
               : KD_FAIL(KD_EINPUT, "%s: cannot be opened: %s", path, strerror(errno));
}

/** Read up to N bytes at OFFSET; *GOT 0 at the end of the file. */
static int read_at(int fd, const char *path, char *buffer, int64_t n, int64_t offset,
                   int64_t *got)
{
    ssize_t r = 0;

    do
        r = pread(fd, buffer, (size_t)n, (off_t)offset);
    while (r < 0 && errno == EINTR);
    *got = r;
    return r >= 0 ? KD_OK
                  : KD_FAIL(KD_EINPUT, "%s: cannot be read: %s", path, strerror(errno));
}

int kd_lines_size(const char *path, int64_t *bytes, bool *newline_last)
{
    struct stat st;
    char end[BOM_BYTES] = {0};
    int64_t got = 0, n;
    int fd = -1, rc = KD_OK;

    *bytes = 0;
    *newline_last = false;
    KD_TRY(open_text(path, &fd));
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        rc = KD_FAIL(KD_EINPUT, "%s: not a regular file", path);
        goto out;
    }
    n = st.st_size < BOM_BYTES ? st.st_size : BOM_BYTES;
    KD_GO(read_at(fd, path, end, n, st.st_size - n, &got));
    *newline_last = n > 0 && end[n - 1] == '\n';
    if (st.st_size > BOM_BYTES || memcmp(end, BOM, BOM_BYTES) != 0)
        *bytes = st.st_size;
out:
    (void)close(fd);
    return rc;
}

int kd_lines_count(const char *path, int64_t from, int64_t to, int64_t *newlines)
{
    char *buffer = NULL;
    int fd = -1, rc = KD_OK;

    *newlines = 0;
    KD_TRY(open_text(path, &fd));
    KD_GO(kd_calloc(CHUNK, 1, &buffer));
    for (int64_t got = 1; from < to && got > 0; from += got) {
        int64_t want = to - from < CHUNK ? to - from : CHUNK;

        KD_GO(read_at(fd, path, buffer, want, from, &got));
        for (const char *p = buffer; (p = memchr(p, '\n', (size_t)(buffer + got - p)));
             p++)
            ++*newlines;
    }
out:
    free(buffer);
    (void)close(fd);
    return rc;
}

/** Read more behind what is unread; sets END where there is none. */
static int fill(struct kd_lines *l)
{
    int64_t got = 0;

    if (l->start > 0) {
        memmove(l->buffer, l->buffer + l->start, (size_t)(l->stop - l->start));
        l->stop -= l->start;
        l->start = 0;
    }
    KD_TRY(kd_grow(&l->buffer, &l->cap, l->stop + CHUNK, 1));
    KD_TRY(read_at(l->fd, l->path, l->buffer + l->stop, l->cap - l->stop, l->offset,
                   &got));
    l->stop += got;
    l->offset += got;
    l->end = got == 0;
    return KD_OK;
}

/** Bytes up to and with the next newline, or up to the end of the file. */
static int next_raw(struct kd_lines *l, int64_t *len)
{
    int64_t seen = 0;

    for (;;) {
        const char *p = l->stop > l->start + seen
                            ? memchr(l->buffer + l->start + seen, '\n',
                                     (size_t)(l->stop - l->start - seen))
                            : NULL;

        *len = p ? p + 1 - (l->buffer + l->start) : l->stop - l->start;
        if (p || l->end)
            return KD_OK;
        seen = *len;
        KD_TRY(fill(l));
    }
}

int kd_lines_open(const char *path, int64_t from, int64_t skip, struct kd_lines **out)
{
    struct kd_lines *l = NULL;
    int64_t len = 0;
    size_t path_bytes = strlen(path) + 1;
    int rc = KD_OK;

    *out = NULL;
    KD_TRY(kd_calloc(1, sizeof *l + path_bytes, &l));
    memcpy(l + 1, path, path_bytes);
    l->path = (const char *)(l + 1);
    l->fd = -1;
    l->offset = from;
    KD_GO(open_text(path, &l->fd));
    KD_GO(fill(l));
    if (from == 0 && l->stop >= BOM_BYTES && memcmp(l->buffer, BOM, BOM_BYTES) == 0) {
        l->bom = true;
        l->start = BOM_BYTES;
    }
    for (; skip > 0 && !(l->end && l->start == l->stop); skip--) {
        KD_GO(next_raw(l, &len));
        l->start += len;
    }
    *out = l;
    return KD_OK;
out:
    kd_lines_close(l);
    return rc;
}

int kd_lines_next(struct kd_lines *l, const char **line, int64_t *len)
{
    *line = NULL;
    KD_TRY(next_raw(l, len));
    if (*len == 0)
        return KD_OK;
    *line = l->buffer + l->start;
    l->start += *len;
    *len -= (*line)[*len - 1] == '\n';
    if (*len > 0 && (*line)[*len - 1] == '\r') {
        --*len;
        l->returns++;
    }
    return KD_OK;
}

int kd_line_check(const char *path, int64_t number, const char *line, int64_t len)
{
    int64_t bad = kd_utf8_invalid_at(line, len);

    return bad < 0
               ? KD_OK
               : KD_FAIL(KD_EINPUT, "%s:%lld: not valid UTF-8 at byte %lld of the line",
                         path, (long long)number, (long long)bad + 1);
}

bool kd_lines_had_bom(const struct kd_lines *l)
{
    return l->bom;
}

int64_t kd_lines_returns(const struct kd_lines *l)
{
    return l->returns;
}

void kd_lines_close(struct kd_lines *l)
{
    if (!l)
        return;
    if (l->fd >= 0)
        (void)close(l->fd);
    free(l->buffer);
    free(l);
}
