/* SPDX-License-Identifier: Apache-2.0 */
/* Attributes, among them those that say what a file is; and texts.
 *
 * Putting an attribute is the same call with the same value on every rank; getting one
 * is local, since each rank has the file open for itself.  A text may have been written
 * by other tools, so both kinds of HDF5 strings are read, up to a size that no
 * attribute or state of ours comes near. */
#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"

#include "h5_impl.h"

#include <stdlib.h>
#include <string.h>

enum {
    ATTR_MAX_BYTES = 60000, /* HDF5 limits an attribute to 64 KiB with its header */
    TEXT_MAX_BYTES = 1 << 26
};

/* ---- putting ---- */

int kd_h5_put_text(hid_t object, const char *path, const char *name, const char *text)
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

int kd_h5_set_attr(struct kd_h5 *f, const char *name, const char *text)
{
    size_t bytes = strlen(text);

    if (bytes > ATTR_MAX_BYTES) /* the same on every rank */
        return KD_FAIL(KD_EOUTPUT, "%s: %zu bytes of %s are too long for an attribute",
                       f->part, bytes, name);
    return kd_agree(f->comm, kd_h5_put_text(f->file, f->part, name, text));
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

/* ---- getting ---- */

bool kd_h5_has_attr(struct kd_h5 *f, const char *name)
{
    return H5Aexists(f->file, name) > 0;
}

static bool is_one_string(hid_t type, hid_t space)
{
    return type >= 0 && H5Tget_class(type) == H5T_STRING && space >= 0 &&
           H5Sget_simple_extent_npoints(space) == 1;
}

int kd_h5_read_string(hid_t type, hid_t space, kd_h5_reader *read, void *arg,
                      char **out)
{
    hid_t mem;
    size_t bytes;
    int rc = KD_OK;

    if (!is_one_string(type, space))
        return KD_EINPUT;
    mem = H5Tcopy(H5T_C_S1);
    bytes = H5Tget_size(type);
    if (mem < 0 || H5Tset_cset(mem, H5Tget_cset(type)) < 0) {
        rc = KD_EINPUT;
    } else if (H5Tis_variable_str(type) > 0) {
        char *text = NULL;

        if (H5Tset_size(mem, H5T_VARIABLE) < 0 || read(arg, mem, &text) < 0)
            rc = KD_EINPUT;
        else
            rc = kd_strdup(text ? text : "", out);
        H5free_memory(text);
    } else if (bytes > TEXT_MAX_BYTES) {
        rc = KD_EINPUT;
    } else {
        rc = kd_calloc((int64_t)bytes + 1, 1, out);
        if (!rc && (H5Tset_size(mem, bytes + 1) < 0 || read(arg, mem, *out) < 0)) {
            free(*out);
            *out = NULL;
            rc = KD_EINPUT;
        }
    }
    if (mem >= 0)
        H5Tclose(mem);
    return rc;
}

int kd_h5_agree_text(struct kd_comm *comm, int rc, char **text)
{
    rc = kd_agree(comm, rc);
    if (rc) {
        free(*text);
        *text = NULL;
    }
    return rc;
}

/* An attribute being read; an object that has none of that name leaves it invalid. */
struct attr {
    hid_t attr, type, space;
};

static int attr_open(hid_t object, const char *path, const char *name, struct attr *a)
{
    a->attr = a->type = a->space = H5I_INVALID_HID;
    if (H5Aexists(object, name) <= 0)
        return KD_FAIL(KD_EINPUT, "%s has no attribute %s", path, name);
    a->attr = H5Aopen(object, name, H5P_DEFAULT);
    if (a->attr >= 0) {
        a->type = H5Aget_type(a->attr);
        a->space = H5Aget_space(a->attr);
    }
    if (a->type < 0 || a->space < 0)
        return KD_H5_FAIL(KD_EINPUT, path, name);
    return KD_OK;
}

static void attr_close(struct attr *a)
{
    if (a->space >= 0)
        H5Sclose(a->space);
    if (a->type >= 0)
        H5Tclose(a->type);
    if (a->attr >= 0)
        H5Aclose(a->attr);
}

static herr_t read_attr(void *arg, hid_t mem, void *out)
{
    return H5Aread(*(hid_t *)arg, mem, out);
}

int kd_h5_attr_of(hid_t object, const char *path, const char *name, char **out)
{
    struct attr a;
    int rc = attr_open(object, path, name, &a);

    *out = NULL;
    if (!rc && kd_h5_read_string(a.type, a.space, read_attr, &a.attr, out))
        rc = KD_FAIL(KD_EINPUT, "%s: attribute %s is not a text", path, name);
    attr_close(&a);
    return rc;
}

int kd_h5_attr_local(struct kd_h5 *f, const char *name, char **out)
{
    return kd_h5_attr_of(f->file, f->path, name, out);
}

int kd_h5_attr_i64_local(struct kd_h5 *f, const char *name, int64_t *out)
{
    struct attr a;
    int rc = attr_open(f->file, f->path, name, &a);

    if (!rc && (H5Tget_class(a.type) != H5T_INTEGER ||
                H5Sget_simple_extent_npoints(a.space) != 1 ||
                H5Aread(a.attr, H5T_NATIVE_INT64, out) < 0))
        rc = KD_FAIL(KD_EINPUT, "%s: attribute %s is not a number", f->path, name);
    attr_close(&a);
    return rc;
}

int kd_h5_get_attr(struct kd_h5 *f, const char *name, char **out)
{
    return kd_h5_agree_text(f->comm, kd_h5_attr_local(f, name, out), out);
}

int kd_h5_get_attr_i64(struct kd_h5 *f, const char *name, int64_t *out)
{
    return kd_agree(f->comm, kd_h5_attr_i64_local(f, name, out));
}

/* ---- what a file is ---- */

int kd_h5_check_schema(struct kd_h5 *f, const struct kd_h5_schema *want)
{
    char *schema = NULL;
    int64_t version = 0;
    int rc = KD_OK;

    KD_GO(kd_h5_attr_local(f, "schema", &schema));
    if (strcmp(schema, want->name) != 0 &&
        (!want->or_name || strcmp(schema, want->or_name) != 0))
        KD_GO(KD_FAIL(KD_EINPUT, "%s is a %s, not a %s", f->path, schema, want->what));
    KD_GO(kd_h5_attr_i64_local(f, "schema_version", &version));
    if (version != want->version)
        rc = KD_FAIL(KD_EINPUT,
                     "%s has version %lld of its schema; this program reads version "
                     "%lld",
                     f->path, (long long)version, (long long)want->version);
out:
    free(schema);
    return rc;
}
