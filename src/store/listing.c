/* SPDX-License-Identifier: Apache-2.0 */
/* Lists the datasets of a file and recomputes their digests.
 *
 * This is the one reader that takes any file of the store, whatever its schema: inspect
 * shows it, and the choice of a checkpoint rests on its verification.  Values that lie
 * plainly in the file are hashed in pieces, so size is no matter. */
#include "kdhpc/store/listing.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"

#include "h5_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

enum { MAX_DEPTH = 8, MAX_ITEMS = 100000, PIECE_BYTES = 1 << 20 };

/* A walk through one file. */
struct walk {
    struct kd_h5 *file;
    struct kd_store_listing *listing;
    int64_t cap;
};

/* ---- one dataset ---- */

/* The dtype that values of TYPE are read as; false: not one of ours. */
static bool dtype_of(hid_t type, enum kd_dtype *out, const char **name)
{
    static const struct {
        H5T_class_t class;
        size_t bytes;
        H5T_sign_t sign;
        enum kd_dtype dtype;
        const char *name;
    } known[] = {
        {H5T_FLOAT, 4, H5T_SGN_ERROR, KD_F32, "float32"},
        {H5T_FLOAT, 8, H5T_SGN_ERROR, KD_F64, "float64"},
        {H5T_INTEGER, 1, H5T_SGN_NONE, KD_U8, "uint8"},
        {H5T_INTEGER, 2, H5T_SGN_NONE, KD_BF16, "uint16"},
        {H5T_INTEGER, 4, H5T_SGN_2, KD_I32, "int32"},
        {H5T_INTEGER, 8, H5T_SGN_2, KD_I64, "int64"},
        {H5T_INTEGER, 8, H5T_SGN_NONE, KD_U64, "uint64"},
    };
    H5T_class_t class = H5Tget_class(type);
    size_t bytes = H5Tget_size(type);

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].class != class || known[i].bytes != bytes ||
            (class == H5T_INTEGER && known[i].sign != H5Tget_sign(type)))
            continue;
        *out = known[i].dtype;
        *name = known[i].name;
        return true;
    }
    return false;
}

static int hash_bytes_at(const char *path, int64_t at, int64_t bytes, uint64_t *out)
{
    XXH64_state_t state;
    char *piece = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc = kd_calloc(PIECE_BYTES, 1, &piece);

    if (!rc && fd < 0)
        rc = KD_FAIL(KD_EINPUT, "cannot open %s: %s", path, strerror(errno));
    XXH64_reset(&state, 0);
    while (!rc && bytes > 0) {
        int64_t want = bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
        ssize_t got = pread(fd, piece, (size_t)want, (off_t)at);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            rc = KD_FAIL(KD_EINPUT, "cannot read %s at byte %lld: %s", path,
                         (long long)at, got < 0 ? strerror(errno) : "end of file");
            break;
        }
        XXH64_update(&state, piece, (size_t)got);
        at += got;
        bytes -= got;
    }
    *out = XXH64_digest(&state);
    if (fd >= 0)
        close(fd);
    free(piece);
    return rc;
}

static int hash_values(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
                       uint64_t *out)
{
    struct kd_h5_place p;
    void *values = NULL;
    int64_t n = 0;

    KD_TRY(kd_h5_find(f, name, dtype, &p));
    if (p.offset >= 0)
        return hash_bytes_at(f->path, p.offset, p.n * (int64_t)kd_dtype_bytes(dtype),
                             out);
    KD_TRY(kd_h5_read_local(f, name, dtype, &values, &n));
    *out = XXH64(values, (size_t)n * kd_dtype_bytes(dtype), 0);
    free(values);
    return KD_OK;
}

static int describe(struct kd_h5 *f, struct kd_store_item *item, enum kd_dtype *dtype)
{
    hid_t set = H5Dopen2(f->file, item->name, H5P_DEFAULT);
    hid_t type = set >= 0 ? H5Dget_type(set) : H5I_INVALID_HID;
    const char *name = "text";
    bool text = type >= 0 && H5Tget_class(type) == H5T_STRING,
         known = text || (type >= 0 && dtype_of(type, dtype, &name));

    if (type >= 0)
        H5Tclose(type);
    if (set >= 0)
        H5Dclose(set);
    if (!known)
        return KD_FAIL(KD_EINPUT, "%s: %s holds values of an unknown kind", f->path,
                       item->name);
    return kd_format(item->dtype, sizeof item->dtype, "%s", name);
}

static int measure(struct kd_h5 *f, struct kd_store_item *item, enum kd_dtype dtype,
                   bool verify, uint64_t *digest)
{
    struct kd_h5_place p;
    char *text = NULL;

    if (strcmp(item->dtype, "text") != 0) {
        KD_TRY(kd_h5_find(f, item->name, dtype, &p));
        item->rows = p.rows;
        item->cols = p.cols;
        return verify ? hash_values(f, item->name, dtype, digest) : KD_OK;
    }
    KD_TRY(kd_h5_read_text_local(f, item->name, &text));
    item->rows = (int64_t)strlen(text);
    item->cols = 1;
    *digest = XXH64(text, strlen(text), 0);
    free(text);
    return KD_OK;
}

static int add_item(struct walk *w, const char *name, bool verify)
{
    struct kd_store_item item = {.name = ""};
    enum kd_dtype dtype = KD_U8;
    uint64_t digest = 0;

    KD_TRY(kd_format(item.name, sizeof item.name, "%s", name));
    KD_TRY(describe(w->file, &item, &dtype));
    KD_TRY(measure(w->file, &item, dtype, verify, &digest));
    if (verify) {
        KD_TRY(kd_h5_check_digest(w->file, name, digest));
        KD_TRY(kd_h5_note_digest(w->file, name, digest));
    }
    KD_TRY(kd_grow(&w->listing->items, &w->cap, w->listing->n + 1, sizeof item));
    w->listing->items[w->listing->n++] = item;
    return KD_OK;
}

/* ---- the file ---- */

/* Add the datasets of GROUP ("" for the root) in the order of their names. */
static int walk_group(struct walk *w, const char *group, int depth, bool verify)
{
    const char *at = group[0] ? group : ".";
    H5G_info_t info;

    if (depth > MAX_DEPTH || w->listing->n > MAX_ITEMS)
        return KD_FAIL(KD_EINPUT, "%s: groups are nested without end", w->file->path);
    if (H5Gget_info_by_name(w->file->file, at, &info, H5P_DEFAULT) < 0)
        return KD_H5_FAIL(KD_EINPUT, w->file->path, "cannot list it");
    for (hsize_t i = 0; i < info.nlinks; i++) {
        char link[KD_STORE_NAME_MAX] = "", name[KD_STORE_NAME_MAX];
        hid_t object;
        H5I_type_t kind;

        if (H5Lget_name_by_idx(w->file->file, at, H5_INDEX_NAME, H5_ITER_INC, i, link,
                               sizeof link, H5P_DEFAULT) < 0)
            return KD_H5_FAIL(KD_EINPUT, w->file->path, "cannot list it");
        KD_TRY(
            kd_format(name, sizeof name, "%s%s%s", group, group[0] ? "/" : "", link));
        object = H5Oopen(w->file->file, name, H5P_DEFAULT);
        if (object < 0)
            return KD_H5_FAIL(KD_EINPUT, w->file->path, name);
        kind = H5Iget_type(object);
        H5Oclose(object);
        if (kind == H5I_GROUP)
            KD_TRY(walk_group(w, name, depth + 1, verify));
        else if (kind == H5I_DATASET)
            KD_TRY(add_item(w, name, verify));
    }
    return KD_OK;
}

static int optional_attr(struct kd_h5 *f, const char *name, char **out)
{
    if (kd_h5_has_attr(f, name))
        return kd_h5_attr_local(f, name, out);
    return kd_strdup("", out);
}

static int read_attributes(struct kd_h5 *f, struct kd_store_listing *out)
{
    KD_TRY(optional_attr(f, "schema", &out->schema));
    KD_TRY(optional_attr(f, "kdhpc_version", &out->version));
    KD_TRY(optional_attr(f, "digest", &out->digest));
    KD_TRY(optional_attr(f, "parents", &out->parents));
    if (kd_h5_has_attr(f, "schema_version"))
        KD_TRY(kd_h5_attr_i64_local(f, "schema_version", &out->schema_version));
    return KD_OK;
}

static int check_file_digest(struct kd_h5 *f, const struct kd_store_listing *l)
{
    char text[KD_DIGEST_CHARS + 1];

    kd_h5_digest_text(kd_h5_file_digest(f), text);
    if (strcmp(text, l->digest) != 0)
        return KD_FAIL(KD_EINPUT,
                       "%s has digest %s, not %s: datasets were added, "
                       "removed or renamed",
                       f->path, text, l->digest[0] ? l->digest : "(none)");
    return KD_OK;
}

int kd_store_list(const char *path, bool verify, struct kd_store_listing *out)
{
    struct walk w = {.listing = out};
    int rc = KD_OK;

    memset(out, 0, sizeof *out);
    KD_TRY(kd_h5_open_local(path, &w.file));
    KD_GO(read_attributes(w.file, out));
    if (!out->schema[0])
        KD_GO(KD_FAIL(KD_EINPUT,
                      "%s has no attribute schema: it is not a file of this "
                      "program",
                      path));
    KD_GO(walk_group(&w, "", 0, verify));
    if (verify)
        KD_GO(check_file_digest(w.file, out));
out:
    kd_h5_close_local(w.file);
    if (rc)
        kd_store_listing_free(out);
    return rc;
}

void kd_store_listing_free(struct kd_store_listing *l)
{
    free(l->schema);
    free(l->version);
    free(l->digest);
    free(l->parents);
    free(l->items);
    memset(l, 0, sizeof *l);
}
