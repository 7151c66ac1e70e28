/* SPDX-License-Identifier: Apache-2.0 */
/* Reading HDF5: each rank opens the file by itself and the ranks vote on the outcome.
 *
 * Plain POSIX access needs no communication, shares the page cache on a node, and a
 * damaged file then is a local failure like any other.  Nothing in a file is believed
 * before it is checked: class and size of values, number of dimensions, and that the
 * bytes lie inside the file, so that sizes from a damaged header never reach an
 * allocation. */
#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"

#include "h5_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { DEFLATE_MAX_RATIO = 1032 };

/* ---- open ---- */

static int check_is_file(const char *path)
{
    struct stat st;

    KD_TRY(KD_FAULT("h5.open"));
    if (stat(path, &st))
        return KD_FAIL(KD_EINPUT, "cannot open %s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return KD_FAIL(KD_EINPUT, "%s is not a file", path);
    return KD_OK;
}

/* Readers take no lock: some network file systems have none, and files here are whole
 * from the moment they have their name. */
static hid_t reading_access(void)
{
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS);

#if H5_VERSION_GE(1, 10, 7)
    if (fapl >= 0 && H5Pset_file_locking(fapl, 0, 1) < 0) {
        H5Pclose(fapl);
        fapl = H5I_INVALID_HID;
    }
#endif
    return fapl;
}

int kd_h5_open_local(const char *path, struct kd_h5 **out)
{
    struct kd_h5 *f = NULL;
    hid_t fapl = H5I_INVALID_HID;
    int rc = KD_OK;

    *out = NULL;
    kd_h5_quiet();
    KD_TRY(check_is_file(path));
    KD_GO(kd_calloc(1, sizeof *f, &f));
    f->file = H5I_INVALID_HID;
    KD_GO(kd_strdup(path, &f->path));
    fapl = reading_access();
    f->file = H5Fopen(path, H5F_ACC_RDONLY, fapl >= 0 ? fapl : H5P_DEFAULT);
    if (f->file < 0)
        rc = KD_H5_FAIL(KD_EINPUT, path, "not a whole HDF5 file");
out:
    if (fapl >= 0)
        H5Pclose(fapl);
    if (rc) {
        kd_h5_close_local(f);
        f = NULL;
    }
    *out = f;
    return rc;
}

int kd_h5_open(struct kd_comm *comm, const char *path, struct kd_h5 **out)
{
    int rc = kd_agree(comm, kd_h5_open_local(path, out));

    if (rc) {
        kd_h5_close_local(*out);
        *out = NULL;
    } else {
        (*out)->comm = comm;
    }
    return rc;
}

bool kd_h5_has(struct kd_h5 *f, const char *name)
{
    char part[KD_H5_NAME_MAX];
    size_t len = strlen(name);

    if (len >= sizeof part)
        return false;
    /* H5Lexists wants every group on the way to exist. */
    for (size_t i = 1; i <= len; i++) {
        if (name[i] != '/' && name[i] != '\0')
            continue;
        memcpy(part, name, i);
        part[i] = '\0';
        if (H5Lexists(f->file, part, H5P_DEFAULT) <= 0)
            return false;
    }
    return len > 0;
}

static herr_t read_dataset(void *arg, hid_t mem, void *out)
{
    return H5Dread(*(hid_t *)arg, mem, H5S_ALL, H5S_ALL, H5P_DEFAULT, out);
}

/* ---- datasets ---- */

/* Handles of a dataset being read. */
struct source {
    hid_t set, type, space, dcpl;
};

static void source_close(struct source *s)
{
    if (s->dcpl >= 0)
        H5Pclose(s->dcpl);
    if (s->space >= 0)
        H5Sclose(s->space);
    if (s->type >= 0)
        H5Tclose(s->type);
    if (s->set >= 0)
        H5Dclose(s->set);
}

static int source_open(struct kd_h5 *f, const char *name, struct source *s)
{
    s->set = s->type = s->space = s->dcpl = H5I_INVALID_HID;
    if (!kd_h5_has(f, name))
        return KD_FAIL(KD_EINPUT, "%s has no dataset %s", f->path, name);
    s->set = H5Dopen2(f->file, name, H5P_DEFAULT);
    if (s->set >= 0) {
        s->type = H5Dget_type(s->set);
        s->space = H5Dget_space(s->set);
        s->dcpl = H5Dget_create_plist(s->set);
    }
    if (s->type < 0 || s->space < 0 || s->dcpl < 0)
        return KD_H5_FAIL(KD_EINPUT, f->path, name);
    return KD_OK;
}

static int source_dims(struct kd_h5 *f, const char *name, const struct source *s,
                       struct kd_h5_place *p)
{
    hsize_t dims[2] = {1, 1};
    int n_dims = H5Sget_simple_extent_ndims(s->space);

    if (n_dims < 1 || n_dims > 2 ||
        H5Sget_simple_extent_dims(s->space, dims, NULL) != n_dims)
        return KD_FAIL(KD_EINPUT, "%s: %s has %d dimensions, not 1 or 2", f->path, name,
                       n_dims);
    if (dims[1] && dims[0] > (hsize_t)INT64_MAX / 16 / dims[1])
        return KD_FAIL(KD_EINPUT, "%s: %s claims more values than can be", f->path,
                       name);
    p->rows = (int64_t)dims[0];
    p->cols = (int64_t)dims[1];
    p->n = p->rows * p->cols;
    return KD_OK;
}

/* That the file can hold the claimed values; sets the offset if they can be mapped. */
static int source_place(struct kd_h5 *f, const char *name, const struct source *s,
                        enum kd_dtype dtype, struct kd_h5_place *p)
{
    int64_t item = (int64_t)H5Tget_size(s->type), bytes = p->n * item;
    bool plain =
        H5Pget_layout(s->dcpl) == H5D_CONTIGUOUS && H5Pget_external_count(s->dcpl) == 0;
    int64_t stored = (int64_t)H5Dget_storage_size(s->set);
    haddr_t at = plain ? H5Dget_offset(s->set) : HADDR_UNDEF;
    struct stat st;

    p->offset = -1;
    if (p->n == 0)
        return KD_OK;
    if (item == 0 || bytes / item != p->n || stat(f->path, &st))
        return KD_FAIL(KD_EINPUT, "%s: %s claims more values than can be", f->path,
                       name);
    if (stored == 0 || bytes / DEFLATE_MAX_RATIO > stored ||
        (plain &&
         (at == HADDR_UNDEF || (int64_t)at < 0 || (int64_t)at > st.st_size - bytes)))
        return KD_FAIL(KD_EINPUT, "%s: the values of %s are not all in the file",
                       f->path, name);
    if (plain && H5Tequal(s->type, kd_h5_type(dtype)) > 0 && at % (haddr_t)item == 0)
        p->offset = (int64_t)at;
    return KD_OK;
}

static int source_check(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
                        const struct source *s, struct kd_h5_place *p)
{
    hid_t want = kd_h5_type(dtype);

    KD_TRY(source_dims(f, name, s, p));
    if (H5Tget_class(s->type) != H5Tget_class(want) ||
        H5Tget_size(s->type) != H5Tget_size(want))
        return KD_FAIL(KD_EINPUT, "%s: the values of %s are not %s", f->path, name,
                       kd_dtype_name(dtype));
    return source_place(f, name, s, dtype, p);
}

int kd_h5_find(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
               struct kd_h5_place *out)
{
    struct source s;
    int rc = source_open(f, name, &s);

    if (!rc)
        rc = source_check(f, name, dtype, &s, out);
    source_close(&s);
    return rc;
}

static int check_count(const struct kd_h5 *f, const char *name, int64_t n, int64_t want)
{
    if (n == want)
        return KD_OK;
    return KD_FAIL(KD_EINPUT, "%s: %s has %lld values, not %lld", f->path, name,
                   (long long)n, (long long)want);
}

int kd_h5_read_into(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
                    void *values, int64_t n)
{
    struct source s;
    struct kd_h5_place p;
    int rc = source_open(f, name, &s);

    if (!rc)
        rc = source_check(f, name, dtype, &s, &p);
    if (!rc)
        rc = check_count(f, name, p.n, n);
    if (!rc)
        rc = KD_FAULT("h5.read");
    if (!rc && n && read_dataset(&s.set, kd_h5_type(dtype), values) < 0)
        rc = KD_H5_FAIL(KD_EINPUT, f->path, name);
    source_close(&s);
    return rc;
}

static herr_t read_selected(const struct source *s, hid_t mem_type, int64_t first,
                            int64_t n, void *values)
{
    hsize_t start = (hsize_t)first, count = (hsize_t)n;
    hid_t mem = H5Screate_simple(1, &count, NULL);
    herr_t status = -1;

    if (mem < 0)
        return status;
    if (H5Sselect_hyperslab(s->space, H5S_SELECT_SET, &start, NULL, &count, NULL) >= 0)
        status = H5Dread(s->set, mem_type, mem, s->space, H5P_DEFAULT, values);
    H5Sclose(mem);
    return status;
}

int kd_h5_read_part(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
                    int64_t total, int64_t first, int64_t n, void *values)
{
    struct source s;
    struct kd_h5_place p;
    int rc = source_open(f, name, &s);

    if (!rc)
        rc = source_check(f, name, dtype, &s, &p);
    if (!rc)
        rc = check_count(f, name, p.n, total);
    if (!rc && p.cols != 1)
        rc = KD_FAIL(KD_EINPUT, "%s: %s is not one row of values", f->path, name);
    if (!rc)
        rc = KD_FAULT("h5.read");
    if (!rc && n && read_selected(&s, kd_h5_type(dtype), first, n, values) < 0)
        rc = KD_H5_FAIL(KD_EINPUT, f->path, name);
    source_close(&s);
    return rc;
}

int kd_h5_read_local(struct kd_h5 *f, const char *name, enum kd_dtype dtype, void **out,
                     int64_t *n)
{
    struct kd_h5_place p;
    int rc;

    *out = NULL;
    *n = 0;
    KD_TRY(kd_h5_find(f, name, dtype, &p));
    KD_TRY(kd_calloc(p.n, kd_dtype_bytes(dtype), out));
    rc = kd_h5_read_into(f, name, dtype, *out, p.n);
    if (rc) {
        free(*out);
        *out = NULL;
        return rc;
    }
    *n = p.n;
    return KD_OK;
}

int kd_h5_read_text_local(struct kd_h5 *f, const char *name, char **out)
{
    struct source s;
    int rc = source_open(f, name, &s);

    *out = NULL;
    if (!rc && kd_h5_read_string(s.type, s.space, read_dataset, &s.set, out))
        rc = KD_FAIL(KD_EINPUT, "%s: %s is not a text", f->path, name);
    source_close(&s);
    return rc;
}

int kd_h5_read_text(struct kd_h5 *f, const char *name, char **out)
{
    return kd_h5_agree_text(f->comm, kd_h5_read_text_local(f, name, out), out);
}
