/* SPDX-License-Identifier: Apache-2.0 */
/* Writing HDF5 by all ranks together.
 *
 * Every step is: prepare locally, vote, call the library, vote on its status.  A rank
 * without rows selects none and still calls, since one rank that stays away would hang
 * the others.  Fault sites stand in local preparation, or after a library call where
 * they play a failed status; before one they would be the very hang to be avoided.
 *
 * Datasets are contiguous, unfiltered and aligned, so that readers can map them.  The
 * digest of a dataset is the xxh64 of its values in rank order: the hash state is
 * handed from rank to rank, which makes it the same for any number of writers without
 * reading anything back. */
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

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

enum {
    RESERVE_BYTES = 1 << 16, /* for the metadata that closing writes */
    ALIGN_FROM_BYTES = 512,  /* objects from this size on start at multiples of ... */
    ALIGN_BYTES = 64,
    ATTR_MAX_BYTES = 60000, /* HDF5 limits an attribute to 64 KiB with its header */
    ROUND_BYTES = 1 << 30   /* a rank's share of one library call: below int counts */
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

/* ---- digests ---- */

void kd_h5_digest_text(uint64_t digest, char out[KD_DIGEST_CHARS + 1])
{
    snprintf(out, KD_DIGEST_CHARS + 1, "%016llx", (unsigned long long)digest);
}

int kd_h5_note_digest(struct kd_h5 *f, const char *name, uint64_t digest)
{
    struct kd_h5_digest *d;

    KD_TRY(kd_grow(&f->digests, &f->cap_digests, f->n_digests + 1, sizeof *d));
    d = &f->digests[f->n_digests];
    KD_TRY(kd_format(d->name, sizeof d->name, "%s", name));
    d->digest = digest;
    f->n_digests++;
    return KD_OK;
}

static int by_name(const void *a, const void *b)
{
    const struct kd_h5_digest *x = a, *y = b;

    return strcmp(x->name, y->name);
}

uint64_t kd_h5_file_digest(struct kd_h5 *f)
{
    XXH64_state_t state;

    XXH64_reset(&state, 0);
    if (f->n_digests > 1)
        qsort(f->digests, (size_t)f->n_digests, sizeof *f->digests, by_name);
    for (int64_t i = 0; i < f->n_digests; i++) {
        const struct kd_h5_digest *d = &f->digests[i];
        char text[KD_DIGEST_CHARS + 1];

        if (strcmp(d->name, "options") == 0)
            continue;
        kd_h5_digest_text(d->digest, text);
        XXH64_update(&state, d->name, strlen(d->name) + 1);
        XXH64_update(&state, text, KD_DIGEST_CHARS);
    }
    return XXH64_digest(&state);
}

/* Hash of the ranks' BYTES one after the other: each rank goes on with the state of the
 * rank below it. */
static int digest_in_rank_order(struct kd_comm *comm, const void *values, int64_t bytes,
                                uint64_t *out)
{
    XXH64_state_t state;

    XXH64_reset(&state, 0);
    for (int r = 0; r < kd_comm_size(comm); r++) {
        if (r == kd_comm_rank(comm) && bytes)
            XXH64_update(&state, values, (size_t)bytes);
        KD_TRY(kd_bcast(comm, &state, sizeof state, r));
    }
    *out = XXH64_digest(&state);
    return KD_OK;
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

/* ---- datasets ---- */

/* Handles of one write; all invalid at first. */
struct slab {
    hid_t lcpl, dcpl, dxpl, file_space, type, set;
    hsize_t first, rows, total, cols;
    int n_dims;
};

static const struct slab SLAB_NONE = {H5I_INVALID_HID,
                                      H5I_INVALID_HID,
                                      H5I_INVALID_HID,
                                      H5I_INVALID_HID,
                                      H5I_INVALID_HID,
                                      H5I_INVALID_HID,
                                      0,
                                      0,
                                      0,
                                      0,
                                      0};

static void slab_close(struct slab *s)
{
    if (s->set >= 0)
        H5Dclose(s->set);
    if (s->type >= 0)
        H5Tclose(s->type);
    if (s->file_space >= 0)
        H5Sclose(s->file_space);
    if (s->dxpl >= 0)
        H5Pclose(s->dxpl);
    if (s->dcpl >= 0)
        H5Pclose(s->dcpl);
    if (s->lcpl >= 0)
        H5Pclose(s->lcpl);
}

/* Property lists and the file's space; no rank talks to another here. */
static int slab_prepare(struct slab *s, struct kd_h5 *f, hid_t type)
{
    hsize_t dims[2] = {s->total, s->cols};
    bool ok;

    KD_TRY(KD_FAULT("h5.prepare"));
    s->type = H5Tcopy(type);
    s->file_space =
        s->n_dims ? H5Screate_simple(s->n_dims, dims, NULL) : H5Screate(H5S_SCALAR);
    s->lcpl = H5Pcreate(H5P_LINK_CREATE);
    s->dcpl = H5Pcreate(H5P_DATASET_CREATE);
    s->dxpl = H5Pcreate(H5P_DATASET_XFER);
    ok = s->type >= 0 && s->file_space >= 0 && s->lcpl >= 0 && s->dcpl >= 0 &&
         s->dxpl >= 0;
    ok = ok && H5Pset_create_intermediate_group(s->lcpl, 1) >= 0 &&
         H5Pset_layout(s->dcpl, H5D_CONTIGUOUS) >= 0 &&
         H5Pset_fill_time(s->dcpl, H5D_FILL_TIME_NEVER) >= 0 &&
         H5Pset_dxpl_mpio(s->dxpl, H5FD_MPIO_COLLECTIVE) >= 0;
    if (!ok)
        return KD_H5_FAIL(KD_EINTERNAL, f->part, "cannot prepare a dataset");
    return KD_OK;
}

static int slab_create_call(struct slab *s, struct kd_h5 *f, const char *name)
{
    s->set = H5Dcreate2(f->file, name, s->type, s->file_space, s->lcpl, s->dcpl,
                        H5P_DEFAULT);
    if (s->set < 0)
        return KD_H5_FAIL(KD_EOUTPUT, f->part, name);
    return KD_FAULT("h5.dataset");
}

/* What rank 0 reserves on the disk. */
struct reservation {
    const char *part;
    int64_t bytes; /* from the beginning of the file */
};

/* A disk without room must be found here: inside a collective write or close some ranks
 * would fail and others wait for them.  File systems that cannot reserve may still do
 * that. */
static int root_reserve(void *arg)
{
    const struct reservation *r = arg;
    int fd = open(r->part, O_RDWR | O_CLOEXEC), err = 0;

    if (fd < 0 || fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)r->bytes))
        err = errno;
    if (fd >= 0)
        close(fd);
    if (err == ENOSPC || err == EDQUOT || err == EFBIG)
        return KD_FAIL(KD_EOUTPUT, "cannot write %s (%lld bytes so far): %s", r->part,
                       (long long)r->bytes, strerror(err));
    return KD_OK;
}

/* Room for the dataset, whose place in the file is known, and for metadata. */
static int slab_reserve(const struct slab *s, struct kd_h5 *f)
{
    haddr_t at = H5Dget_offset(s->set);
    struct reservation r = {f->part, RESERVE_BYTES};

    if (at != HADDR_UNDEF)
        r.bytes += (int64_t)(at + H5Dget_storage_size(s->set));
    return kd_root_do(f->comm, root_reserve, &r);
}

/* Select this rank's rows [AT, AT + N) of its share, or none. */
static int slab_select(struct slab *s, hsize_t at, hsize_t n, hid_t *mem)
{
    hsize_t start[2] = {s->first + at, 0}, count[2] = {n, s->cols};
    hsize_t n_values = n * s->cols;

    KD_TRY(KD_FAULT("h5.select"));
    *mem = H5Screate_simple(1, &n_values, NULL);
    if (*mem < 0)
        return KD_H5_FAIL(KD_EINTERNAL, "write", "cannot make a selection");
    if (n_values == 0) {
        if (H5Sselect_none(s->file_space) < 0 || H5Sselect_none(*mem) < 0)
            return KD_H5_FAIL(KD_EINTERNAL, "write", "cannot select nothing");
    } else if (s->n_dims == 0) {
        if (H5Sselect_all(s->file_space) < 0)
            return KD_H5_FAIL(KD_EINTERNAL, "write", "cannot select a scalar");
    } else if (H5Sselect_hyperslab(s->file_space, H5S_SELECT_SET, start, NULL, count,
                                   NULL) < 0) {
        return KD_H5_FAIL(KD_EINTERNAL, "write", "cannot select rows");
    }
    return KD_OK;
}

static int slab_write_call(struct slab *s, struct kd_h5 *f, const char *name, hid_t mem,
                           const void *values)
{
    static const char nothing[8];

    if (H5Dwrite(s->set, s->type, mem, s->file_space, s->dxpl,
                 values ? values : nothing) < 0)
        return KD_H5_FAIL(KD_EOUTPUT, f->part, name);
    return KD_FAULT("h5.write");
}

/* One round of the collective write. */
static int slab_write_round(struct slab *s, struct kd_h5 *f, const char *name,
                            const char *values, hsize_t at, hsize_t n)
{
    size_t row_bytes = (size_t)s->cols * H5Tget_size(s->type);
    hid_t mem = H5I_INVALID_HID;
    int rc = KD_OK;

    KD_ALL_GO(f->comm, slab_select(s, at, n, &mem));
    kd_comm_enter(f->comm, "h5_write", 0);
    rc = slab_write_call(s, f, name, mem, values ? values + at * row_bytes : NULL);
    kd_comm_leave(f->comm);
    rc = kd_agree(f->comm, rc);
out:
    if (mem >= 0)
        H5Sclose(mem);
    return rc;
}

/* As many rounds on every rank as the largest share needs. */
static int slab_write(struct slab *s, struct kd_h5 *f, const char *name,
                      const void *values)
{
    int64_t row_bytes = (int64_t)(s->cols * H5Tget_size(s->type));
    int64_t step = row_bytes < ROUND_BYTES ? ROUND_BYTES / row_bytes : 1;
    int64_t rounds = ((int64_t)s->rows + step - 1) / step;

    KD_TRY(kd_allreduce_i64(f->comm, &rounds, 1, KD_MAX));
    for (int64_t i = 0; i < rounds; i++) {
        int64_t at = i * step, left = (int64_t)s->rows - at;
        int64_t n = left <= 0 ? 0 : left < step ? left : step;

        KD_TRY(slab_write_round(s, f, name, values, n ? (hsize_t)at : 0, (hsize_t)n));
    }
    return KD_OK;
}

/* Put TEXT as attribute NAME on OBJECT: the same call with the same text on all ranks.
 */
static int attr_text_call(hid_t object, const char *path, const char *name,
                          const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR),
          attr = H5I_INVALID_HID;
    bool ok = type >= 0 && space >= 0 && H5Tset_size(type, strlen(text) + 1) >= 0 &&
              H5Tset_cset(type, H5T_CSET_UTF8) >= 0;
    int rc = KD_OK;

    if (ok)
        attr = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attr < 0 || H5Awrite(attr, type, text) < 0)
        rc = KD_H5_FAIL(KD_EOUTPUT, path, name);
    if (attr >= 0)
        H5Aclose(attr);
    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    return rc ? rc : KD_FAULT("h5.attr");
}

/* Create NAME, write this rank's rows, and leave the digest of the whole on it. */
static int write_slab(struct kd_h5 *f, const char *name, struct slab *s, hid_t type,
                      const void *values, int64_t digest_bytes)
{
    char text[KD_DIGEST_CHARS + 1];
    uint64_t digest = 0;
    int rc = KD_OK;

    KD_ALL_GO(f->comm, slab_prepare(s, f, type));
    KD_ALL_GO(f->comm, slab_create_call(s, f, name));
    KD_GO(slab_reserve(s, f));
    KD_GO(slab_write(s, f, name, values));
    KD_GO(digest_in_rank_order(f->comm, values, digest_bytes, &digest));
    kd_h5_digest_text(digest, text);
    KD_ALL_GO(f->comm, attr_text_call(s->set, f->part, "digest", text));
    KD_ALL_GO(f->comm, kd_h5_note_digest(f, name, digest));
out:
    slab_close(s);
    return rc;
}

int kd_h5_write(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
                const void *values, int64_t n_local, int64_t cols)
{
    struct slab s = SLAB_NONE;
    int64_t first, total;

    KD_TRY(kd_exscan_i64(f->comm, n_local, &first, &total));
    s.first = (hsize_t)first;
    s.rows = (hsize_t)n_local;
    s.total = (hsize_t)total;
    s.cols = (hsize_t)cols;
    s.n_dims = cols == 1 ? 1 : 2;
    return write_slab(f, name, &s, kd_h5_type(dtype), values,
                      n_local * cols * (int64_t)kd_dtype_bytes(dtype));
}

static int check_offsets(const char *name, const int64_t *offsets, int64_t n)
{
    KD_TRY(KD_FAULT("h5.ragged"));
    for (int64_t i = 0; i < n; i++) {
        if (offsets[i + 1] < offsets[i])
            return KD_FAIL(KD_EINTERNAL,
                           "%s: row %lld to be written ends before it "
                           "begins",
                           name, (long long)i);
    }
    return KD_OK;
}

int kd_h5_write_ragged(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
                       const void *values, const int64_t *offsets, int64_t n_local)
{
    bool last = kd_comm_rank(f->comm) == kd_comm_size(f->comm) - 1;
    int64_t n_offsets = n_local + (last ? 1 : 0), n_values = 0, first, total;
    int64_t *global = NULL;
    char path[KD_H5_NAME_MAX];
    const char *begin = values;
    int rc = KD_OK;

    KD_ALL_GO(f->comm, check_offsets(name, offsets, n_local));
    KD_ALL_GO(f->comm, kd_calloc(n_offsets, sizeof *global, &global));
    if (n_local) {
        n_values = offsets[n_local] - offsets[0];
        begin += (size_t)offsets[0] * kd_dtype_bytes(dtype);
    }
    KD_GO(kd_exscan_i64(f->comm, n_values, &first, &total));
    for (int64_t i = 0; i < n_local; i++)
        global[i] = first + offsets[i] - offsets[0];
    if (last)
        global[n_local] = total;

    KD_ALL_GO(f->comm, kd_format(path, sizeof path, "%s/offsets", name));
    KD_GO(kd_h5_write(f, path, KD_I64, global, n_offsets, 1));
    KD_ALL_GO(f->comm, kd_format(path, sizeof path, "%s/values", name));
    KD_GO(kd_h5_write(f, path, dtype, n_values ? begin : NULL, n_values, 1));
out:
    free(global);
    return rc;
}

int kd_h5_set_attr(struct kd_h5 *f, const char *name, const char *text)
{
    size_t bytes = strlen(text);

    if (bytes > ATTR_MAX_BYTES) /* the same on every rank */
        return KD_FAIL(KD_EOUTPUT, "%s: %zu bytes of %s are too long for an attribute",
                       f->part, bytes, name);
    return kd_agree(f->comm, attr_text_call(f->file, f->part, name, text));
}

static int attr_i64_call(struct kd_h5 *f, const char *name, int64_t value)
{
    hid_t space = H5Screate(H5S_SCALAR), attr = H5I_INVALID_HID;
    int rc = KD_OK;

    if (space >= 0)
        attr =
            H5Acreate2(f->file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT);
    if (attr < 0 || H5Awrite(attr, H5T_NATIVE_INT64, &value) < 0)
        rc = KD_H5_FAIL(KD_EOUTPUT, f->part, name);
    if (attr >= 0)
        H5Aclose(attr);
    if (space >= 0)
        H5Sclose(space);
    return rc;
}

int kd_h5_set_attr_i64(struct kd_h5 *f, const char *name, int64_t value)
{
    return kd_agree(f->comm, attr_i64_call(f, name, value));
}

/* A scalar string that rank 0 writes; HDF5 strings cannot be empty, hence the NUL. */
int kd_h5_write_text(struct kd_h5 *f, const char *name, const char *text)
{
    struct slab s = SLAB_NONE;
    hid_t type = H5Tcopy(H5T_C_S1);
    bool root = kd_comm_rank(f->comm) == 0;
    int64_t bytes = (int64_t)strlen(text);
    int rc = KD_OK;

    if (type < 0 || H5Tset_size(type, (size_t)bytes + 1) < 0 ||
        H5Tset_cset(type, H5T_CSET_UTF8) < 0)
        rc = KD_H5_FAIL(KD_EINTERNAL, f->part, name);
    KD_ALL_GO(f->comm, rc);
    s.rows = root ? 1 : 0;
    s.total = s.cols = 1;
    rc = write_slab(f, name, &s, type, root ? text : NULL, root ? bytes : 0);
out:
    if (type >= 0)
        H5Tclose(type);
    return rc;
}
