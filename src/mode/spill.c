/* SPDX-License-Identifier: Apache-2.0 */
/* Data on its way to a file whose layout needs the sizes first.
 *
 * Up to a buffer stays in memory.  More goes to a file beside the output that has no
 * name any more once it is open, so that nothing is left behind whatever happens. */
#include "spill.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int open_nameless(const char *dir, int *out)
{
    char *path = NULL;

    KD_TRY(kd_path_join(dir, "spill.XXXXXX", &path));
    *out = mkostemp(path, O_CLOEXEC);
    if (*out >= 0)
        (void)unlink(path);
    free(path);
    return *out >= 0 ? KD_OK
                     : KD_FAIL(KD_EOUTPUT, "cannot make a temporary file in %s: %s",
                               dir, strerror(errno));
}

static int write_out(struct kd_spill *s)
{
    int64_t at = s->bytes - s->used;

    if (!s->fd)
        KD_TRY(open_nameless(s->dir, &s->fd));
    for (int64_t done = 0; done < s->used;) {
        ssize_t n = pwrite(s->fd, s->buffer + done, (size_t)(s->used - done),
                           (off_t)(at + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return KD_FAIL(
                KD_EOUTPUT,
                "cannot write a temporary file in %s (%lld bytes so far): %s", s->dir,
                (long long)(at + done), strerror(n < 0 ? errno : ENOSPC));
        done += n;
    }
    s->used = 0;
    return KD_OK;
}

int kd_spill_append(struct kd_spill *s, const void *bytes, int64_t n)
{
    const char *from = bytes;

    if (!s->buffer)
        KD_TRY(kd_calloc(KD_SPILL_BYTES, 1, &s->buffer));
    while (n > 0) {
        int64_t some = KD_SPILL_BYTES - s->used < n ? KD_SPILL_BYTES - s->used : n;

        if (some == 0) {
            KD_TRY(write_out(s));
            continue;
        }
        memcpy(s->buffer + s->used, from, (size_t)some);
        s->used += some;
        s->bytes += some;
        from += some;
        n -= some;
    }
    return KD_OK;
}

int kd_spill_read(struct kd_spill *s, int64_t at, int64_t n, const void **out)
{
    *out = s->buffer;
    if (!s->fd) {
        if (s->buffer)
            *out = s->buffer + at;
        return KD_OK;
    }
    if (s->used > 0)
        KD_TRY(write_out(s));
    for (int64_t done = 0; done < n;) {
        ssize_t got =
            pread(s->fd, s->buffer + done, (size_t)(n - done), (off_t)(at + done));

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return KD_FAIL(KD_EOUTPUT, "cannot read back a temporary file in %s: %s",
                           s->dir, got < 0 ? strerror(errno) : "it became shorter");
        done += got;
    }
    return KD_OK;
}

static int read_values(void *arg, int64_t at, int64_t n, const void **out,
                       int64_t bytes)
{
    return kd_spill_read(arg, at * bytes, n * bytes, out);
}

static int read_8(void *arg, int64_t at, int64_t n, const void **out)
{
    return read_values(arg, at, n, out, 8);
}

static int read_4(void *arg, int64_t at, int64_t n, const void **out)
{
    return read_values(arg, at, n, out, 4);
}

static int read_1(void *arg, int64_t at, int64_t n, const void **out)
{
    return read_values(arg, at, n, out, 1);
}

struct kd_h5_values kd_spill_values(struct kd_spill *s, enum kd_dtype dtype)
{
    int64_t unit = (int64_t)kd_dtype_bytes(dtype);

    return (struct kd_h5_values){s->bytes / unit, KD_SPILL_BYTES / unit,
                                 unit == 8   ? read_8
                                 : unit == 4 ? read_4
                                             : read_1,
                                 s};
}

void kd_spill_free(struct kd_spill *s)
{
    if (s->fd)
        (void)close(s->fd);
    free(s->buffer);
    *s = (struct kd_spill){0};
}
