/* SPDX-License-Identifier: Apache-2.0 */
/* Small whole files and paths.
 *
 * What is written appears under its name only when it is complete and on disk: bytes go
 * to PATH.part, which is flushed, synced and renamed.  A killed run therefore leaves a
 * .part at worst, never a torn file. */
#include "kdhpc/base/str.h"

#include "kdhpc/base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK_BYTES = 1 << 16 };

int kd_path_join(const char *dir, const char *name, char **out)
{
    struct kd_str path = {0};
    size_t n = strlen(dir);
    const char *slash = n == 0 || dir[n - 1] == '/' ? "" : "/";

    KD_TRY(kd_str_printf(&path, "%s%s%s", dir, slash, name));
    *out = path.data;
    return KD_OK;
}

bool kd_path_exists(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0;
}

bool kd_path_is_dir(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int make_dir(const char *dir)
{
    int err;

    if (mkdir(dir, 0777) == 0)
        return KD_OK;
    err = errno;
    if (kd_path_is_dir(dir))
        return KD_OK;
    return KD_FAIL(KD_EOUTPUT, "cannot create directory %s: %s", dir, strerror(err));
}

int kd_make_dirs(const char *dir)
{
    char *path = NULL;
    int rc = KD_OK;

    KD_TRY(kd_strdup(dir, &path));
    for (char *at = path; *at; at++) {
        if (*at != '/' || at == path)
            continue;
        *at = '\0';
        KD_GO(make_dir(path));
        *at = '/';
    }
    KD_GO(make_dir(path));
out:
    free(path);
    return rc;
}

static int read_all(FILE *f, const char *path, struct kd_str *out)
{
    for (;;) {
        size_t got;

        KD_TRY(kd_grow(&out->data, &out->cap, out->len + CHUNK_BYTES + 1, 1));
        got = fread(out->data + out->len, 1, CHUNK_BYTES, f);
        out->len += (int64_t)got;
        out->data[out->len] = '\0';
        if (got == CHUNK_BYTES)
            continue;
        if (ferror(f))
            return KD_FAIL(KD_EINPUT, "cannot read %s: %s", path, strerror(errno));
        return KD_OK;
    }
}

int kd_read_file(const char *path, struct kd_str *out)
{
    FILE *f = fopen(path, "rb");
    int rc;

    kd_str_clear(out);
    if (!f)
        return KD_FAIL(KD_EINPUT, "cannot open %s: %s", path, strerror(errno));
    rc = read_all(f, path, out);
    fclose(f);
    return rc;
}

static int write_failed(const char *path, int err)
{
    return KD_FAIL(KD_EOUTPUT, "cannot write %s: %s", path, strerror(err));
}

/* Flush, sync and close F, then give PART its NAME. */
static int commit(FILE *f, const char *part, const char *name)
{
    int err = 0;

    if (fflush(f) || fsync(fileno(f)))
        err = errno;
    if (fclose(f) && !err)
        err = errno;
    if (!err && rename(part, name))
        err = errno;
    if (!err)
        return KD_OK;
    unlink(part);
    return write_failed(name, err);
}

int kd_write_file(const char *path, const char *bytes, int64_t len)
{
    struct kd_str part = {0};
    FILE *f = NULL;
    int rc = KD_OK;

    KD_GO(kd_str_printf(&part, "%s.part", path));
    f = fopen(part.data, "wb");
    if (!f) {
        rc = write_failed(path, errno);
        goto out;
    }
    if (len > 0 && fwrite(bytes, 1, (size_t)len, f) != (size_t)len) {
        rc = write_failed(path, errno);
        fclose(f);
        unlink(part.data);
        goto out;
    }
    rc = commit(f, part.data, path);
out:
    kd_str_free(&part);
    return rc;
}

/* Copy bytes until the end of FROM. */
static int pump(FILE *from, const char *from_path, FILE *to, const char *to_path)
{
    char chunk[8192];
    size_t n;

    while ((n = fread(chunk, 1, sizeof chunk, from)) > 0) {
        if (fwrite(chunk, 1, n, to) != n)
            return write_failed(to_path, errno);
    }
    if (ferror(from))
        return KD_FAIL(KD_EINPUT, "cannot read %s: %s", from_path, strerror(errno));
    return KD_OK;
}

int kd_copy_file(const char *from, const char *to)
{
    struct kd_str part = {0};
    FILE *in = NULL, *out_file = NULL;
    int rc = KD_OK;

    KD_GO(kd_str_printf(&part, "%s.part", to));
    in = fopen(from, "rb");
    if (!in) {
        rc = KD_FAIL(KD_EINPUT, "cannot open %s: %s", from, strerror(errno));
        goto out;
    }
    out_file = fopen(part.data, "wb");
    if (!out_file) {
        rc = write_failed(to, errno);
        goto out;
    }
    rc = pump(in, from, out_file, to);
    if (rc) {
        fclose(out_file);
        unlink(part.data);
        goto out;
    }
    rc = commit(out_file, part.data, to);
out:
    if (in)
        fclose(in);
    kd_str_free(&part);
    return rc;
}
