/* SPDX-License-Identifier: Apache-2.0 */
/* The HDF5 library, and the life of a file that all ranks write together.
 *
 * A file is made as PATH.part and gets its name when it is whole: created, filled
 * (h5_write.c, h5_attr.c), then committed or abandoned.  Every step is: prepare
 * locally, vote, call the library, vote on its status.  Fault sites stand in local
 * preparation, or after a library call where they play a failed status; before one they
 * would be the very hang to be avoided. */
#include "kdhpc/base/log.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"
#include "kdhpc/base/version.h"
#include "kdhpc/comm/comm_mpi.h"

#include "h5_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    ALIGN_FROM_BYTES = 512, /* objects from this size on start at multiples of ... */
    ALIGN_BYTES = 64
};

/* ---- the library ---- */

#define TEXT_OF_(x) #x
#define TEXT_OF(x) TEXT_OF_(x)

const char *kd_h5_library(void)
{
    return "HDF5 " TEXT_OF(H5_VERS_MAJOR) "." TEXT_OF(H5_VERS_MINOR) "." TEXT_OF(
        H5_VERS_RELEASE);
}

void kd_h5_quiet(void)
{
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

struct reason {
    char text[256];
};

static herr_t keep_innermost(unsigned n, const H5E_error2_t *e, void *arg)
{
    struct reason *r = arg;

    if (n == 0 && e->desc)
        snprintf(r->text, sizeof r->text, "%s", e->desc);
    return 0;
}

int kd_h5_fail_at(const char *file, int line, int code, const char *path,
                  const char *what)
{
    struct reason r = {""};

    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &r);
    H5Eclear2(H5E_DEFAULT);
    return kd_fail_at(file, line, code, "%s: %s%s%s", path, what, r.text[0] ? ": " : "",
                      r.text);
}

hid_t kd_h5_type(enum kd_dtype dtype)
{
    switch (dtype) {
    case KD_F32:
        return H5T_NATIVE_FLOAT;
    case KD_F64:
        return H5T_NATIVE_DOUBLE;
    case KD_I32:
        return H5T_NATIVE_INT32;
    case KD_I64:
        return H5T_NATIVE_INT64;
    case KD_U64:
        return H5T_NATIVE_UINT64;
    case KD_U8:
        return H5T_NATIVE_UINT8;
    case KD_BF16:
    case KD_F16:
        break;
    }
    return H5T_NATIVE_UINT16;
}

/* ---- create, commit, abandon ---- */

static void file_free(struct kd_h5 *f)
{
    if (!f)
        return;
    free(f->path);
    free(f->part);
    free(f->digests);
    free(f);
}

static int file_new(struct kd_comm *comm, const char *path, struct kd_h5 **out)
{
    struct kd_h5 *f;
    struct kd_str part = {0};

    KD_TRY(KD_FAULT("h5.create"));
    KD_TRY(kd_calloc(1, sizeof *f, out));
    f = *out;
    f->comm = comm;
    f->file = H5I_INVALID_HID;
    KD_TRY(kd_strdup(path, &f->path));
    KD_TRY(kd_str_printf(&part, "%s.part", path));
    f->part = part.data;
    return KD_OK;
}

/* Try plain creation first: its reason is clearer than what MPI-IO says. */
static int root_touch(void *arg)
{
    const char *part = arg;
    int fd = open(part, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

    if (fd < 0)
        return KD_FAIL(KD_EOUTPUT, "cannot create %s: %s", part, strerror(errno));
    close(fd);
    return KD_OK;
}

static int create_call(struct kd_h5 *f, hid_t fapl)
{
    f->file = H5Fcreate(f->part, H5F_ACC_TRUNC, H5P_DEFAULT, fapl);
    if (f->file < 0)
        return KD_H5_FAIL(KD_EOUTPUT, f->part, "cannot create it");
    return KD_OK;
}

static int access_local(struct kd_h5 *f, hid_t *fapl)
{
    *fapl = H5Pcreate(H5P_FILE_ACCESS);
    if (*fapl < 0 || H5Pset_alignment(*fapl, ALIGN_FROM_BYTES, ALIGN_BYTES) < 0)
        return KD_H5_FAIL(KD_EINTERNAL, f->part, "cannot set its access");
    return KD_OK;
}

/* Copies the communicator: a library call of all ranks. */
static int access_call(struct kd_h5 *f, hid_t fapl)
{
    if (H5Pset_fapl_mpio(fapl, kd_comm_mpi(f->comm), MPI_INFO_NULL) < 0)
        return KD_H5_FAIL(KD_EINTERNAL, f->part, "cannot set parallel access");
    return KD_OK;
}

/* A file that only some ranks could create cannot even be closed together. */
static int all_or_none(struct kd_h5 *f)
{
    int64_t have[2] = {f->file >= 0, f->file < 0};

    KD_TRY(kd_allreduce_i64(f->comm, have, 2, KD_MAX));
    if (have[0] && have[1]) {
        if (kd_comm_rank(f->comm) == 0)
            fprintf(stderr, "kdhpc: error: %s was created on some ranks only\n",
                    f->part);
        kd_comm_abort(f->comm, KD_EOUTPUT);
    }
    return KD_OK;
}

int kd_h5_create(struct kd_comm *comm, const char *path, struct kd_h5 **out)
{
    struct kd_h5 *f = NULL;
    hid_t fapl = H5I_INVALID_HID;
    int rc = KD_OK;

    *out = NULL;
    kd_h5_quiet();
    KD_ALL_GO(comm, file_new(comm, path, &f));
    KD_GO(kd_root_do(comm, root_touch, f->part));
    KD_ALL_GO(comm, access_local(f, &fapl));
    KD_ALL_GO(comm, access_call(f, fapl));
    kd_comm_enter(comm, "h5_create", 0);
    rc = create_call(f, fapl);
    kd_comm_leave(comm);
    KD_GO(all_or_none(f));
    KD_ALL_GO(comm, rc);
    KD_GO(kd_h5_set_attr(f, "kdhpc_version", KDHPC_VERSION));
out:
    if (fapl >= 0)
        H5Pclose(fapl);
    if (rc) {
        kd_h5_abandon(f);
        f = NULL;
    }
    *out = f;
    return rc;
}

static int close_call(struct kd_h5 *f)
{
    herr_t err = H5Fclose(f->file);

    f->file = H5I_INVALID_HID;
    if (err < 0)
        return KD_H5_FAIL(KD_EOUTPUT, f->part, "cannot close it");
    return KD_FAULT("h5.close");
}

static int sync_path(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC), err = 0;

    if (fd < 0 || fsync(fd))
        err = errno;
    if (fd >= 0)
        close(fd);
    /* Some file systems cannot sync a directory, and need not. */
    if (err && err != EINVAL && err != ENOTSUP)
        return KD_FAIL(KD_EOUTPUT, "cannot flush %s: %s", path, strerror(err));
    return KD_OK;
}

static int root_rename(void *arg)
{
    struct kd_h5 *f = arg;
    char *dir = NULL;
    int rc = KD_OK;

    KD_TRY(KD_FAULT("h5.rename"));
    KD_TRY(sync_path(f->part, O_RDONLY));
    if (rename(f->part, f->path))
        return KD_FAIL(KD_EOUTPUT, "cannot rename %s to %s: %s", f->part, f->path,
                       strerror(errno));
    KD_TRY(kd_strdup(f->path, &dir));
    rc = sync_path(dirname(dir), O_RDONLY | O_DIRECTORY);
    free(dir);
    return rc;
}

int kd_h5_commit(struct kd_h5 *f)
{
    char digest[KD_DIGEST_CHARS + 1];
    int rc = KD_OK;

    if (!f->part) {
        kd_h5_close_local(f);
        return KD_OK;
    }
    kd_h5_digest_text(kd_h5_file_digest(f), digest);
    KD_GO(kd_h5_set_attr(f, "digest", digest));
    kd_comm_enter(f->comm, "h5_close", 0);
    rc = close_call(f);
    kd_comm_leave(f->comm);
    KD_ALL_GO(f->comm, rc);
    KD_GO(kd_root_do(f->comm, root_rename, f));
    file_free(f);
    return KD_OK;
out:
    kd_h5_abandon(f);
    return rc;
}

static int root_empty(void *part)
{
    if (truncate(part, 0))
        kd_debug("cannot empty %s: %s", (const char *)part, strerror(errno));
    return KD_OK;
}

/* Closing flushes metadata, and a write that fails there on one rank leaves the others
 * waiting inside the library.  So the space that the file takes, which may be what was
 * lacking, is given back first. */
void kd_h5_abandon(struct kd_h5 *f)
{
    if (!f)
        return;
    if (f->file >= 0 && (!f->part || !kd_root_do(f->comm, root_empty, f->part)))
        H5Fclose(f->file);
    if (f->part && kd_comm_rank(f->comm) == 0)
        unlink(f->part);
    file_free(f);
}

void kd_h5_close_local(struct kd_h5 *f)
{
    if (f && f->file >= 0)
        H5Fclose(f->file);
    file_free(f);
}
