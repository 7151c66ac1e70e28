/* SPDX-License-Identifier: Apache-2.0 */
/* Reading of corpora: files are mapped, rows are views into the map.
 *
 * All ranks of a node share the pages; nothing is copied unless a dataset is not plain
 * little-endian numbers (a file repacked by other tools), which is then read into
 * memory.  Before the first row is handed out the whole split has been checked, each
 * rank looking at its share of the rows: lengths of the five datasets, offsets from 0,
 * monotone, ending at the number of values, ids inside the vocabulary.  So the row
 * functions need no checks and cannot leave the map. */
#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"

#include "corpus_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct kd_h5_schema SCHEMA = {.name = "kdhpc.corpus",
                                           .or_name = "kdhpc.labels",
                                           .what = "corpus",
                                           .version = KD_CORPUS_VERSION};

/* Values of one dataset, in the map or in memory of their own. */
struct column {
    const void *values;
    int64_t n;
    void *owned; /* NULL: mapped */
};

struct ragged_column {
    struct column offsets, values;
};

struct corpus_file {
    char *path;
    char *tokenizer_digest, *digest;
    int64_t vocab_size;
    void *map; /* MAP_FAILED or NULL: none */
    size_t map_bytes;
    int64_t n; /* rows */
    struct column id;
    struct ragged_column fields[KD_CORPUS_RAGGED];
};

struct kd_corpus {
    int64_t n, n_files;
    struct corpus_file *files;
    int64_t *firsts; /* [n_files + 1]: file f holds rows firsts[f] .. firsts[f + 1] */
    int64_t vocab_size;
    int64_t max_id[KD_CORPUS_RAGGED]; /* -1: not ids, or none */
};

/* ---- one file ---- */

/* Names of the groups of a file, for a message. */
static int list_splits(struct kd_h5 *f, struct kd_str *out)
{
    H5G_info_t info;

    if (H5Gget_info(f->file, &info) < 0)
        return KD_OK;
    for (hsize_t i = 0; i < info.nlinks; i++) {
        char name[KD_H5_NAME_MAX] = "";
        H5O_info_t object;

        if (H5Lget_name_by_idx(f->file, ".", H5_INDEX_NAME, H5_ITER_INC, i, name,
                               sizeof name, H5P_DEFAULT) < 0 ||
            H5Oget_info_by_name(f->file, name, &object, H5P_DEFAULT) < 0 ||
            object.type != H5O_TYPE_GROUP)
            continue;
        KD_TRY(kd_str_printf(out, "%s%s", out->len ? ", " : "", name));
    }
    return KD_OK;
}

static int split_absent(struct kd_h5 *f, const char *split)
{
    struct kd_str names = {0};
    int rc = list_splits(f, &names);

    if (!rc)
        rc = KD_FAIL(KD_EINPUT, "%s has no split %s; it has: %s", f->path, split,
                     names.len ? names.data : "none");
    kd_str_free(&names);
    return rc;
}

static int map_file(struct corpus_file *file)
{
    struct stat st;
    int fd = open(file->path, O_RDONLY | O_CLOEXEC), err = 0;

    if (fd < 0 || fstat(fd, &st))
        err = errno;
    if (!err) {
        file->map_bytes = (size_t)st.st_size;
        file->map = mmap(NULL, file->map_bytes, PROT_READ, MAP_SHARED, fd, 0);
        if (file->map == MAP_FAILED)
            err = errno;
    }
    if (fd >= 0)
        close(fd);
    if (err) {
        file->map = NULL;
        return KD_FAIL(KD_EINPUT, "cannot map %s: %s", file->path, strerror(err));
    }
    return KD_OK;
}

static int column_open(struct kd_h5 *f, const struct corpus_file *file,
                       const char *name, enum kd_dtype dtype, struct column *out)
{
    struct kd_h5_place p;

    KD_TRY(kd_h5_find(f, name, dtype, &p));
    if (p.cols != 1)
        return KD_FAIL(KD_EINPUT, "%s: %s has two dimensions, not one", f->path, name);
    if (p.offset >= 0 &&
        (size_t)p.offset + (size_t)p.n * kd_dtype_bytes(dtype) <= file->map_bytes) {
        out->values = (const char *)file->map + p.offset;
        out->n = p.n;
        return KD_OK;
    }
    KD_TRY(kd_h5_read_local(f, name, dtype, &out->owned, &out->n));
    out->values = out->owned;
    return KD_OK;
}

static int ragged_open(struct kd_h5 *f, const struct corpus_file *file,
                       const char *split, const struct kd_corpus_field *field,
                       struct ragged_column *out)
{
    char name[KD_H5_NAME_MAX];
    const int64_t *offsets;

    KD_TRY(kd_format(name, sizeof name, "%s/%s/offsets", split, field->name));
    KD_TRY(column_open(f, file, name, KD_I64, &out->offsets));
    KD_TRY(kd_format(name, sizeof name, "%s/%s/values", split, field->name));
    KD_TRY(column_open(f, file, name, field->dtype, &out->values));

    if (out->offsets.n != file->n + 1)
        return KD_FAIL(KD_EINPUT, "%s: %s/%s has %lld offsets for %lld rows", f->path,
                       split, field->name, (long long)out->offsets.n,
                       (long long)file->n);
    offsets = out->offsets.values;
    if (offsets[0] != 0 || offsets[file->n] != out->values.n)
        return KD_FAIL(KD_EINPUT,
                       "%s: offsets of %s/%s run from %lld to %lld over %lld values",
                       f->path, split, field->name, (long long)offsets[0],
                       (long long)offsets[file->n], (long long)out->values.n);
    return KD_OK;
}

static int read_meta(struct kd_h5 *f, struct corpus_file *file)
{
    KD_TRY(kd_h5_check_schema(f, &SCHEMA));
    KD_TRY(kd_h5_attr_local(f, "tokenizer_digest", &file->tokenizer_digest));
    KD_TRY(kd_h5_attr_local(f, "digest", &file->digest));
    return kd_h5_attr_i64_local(f, "vocab_size", &file->vocab_size);
}

static int open_split(struct kd_h5 *f, struct corpus_file *file, const char *split)
{
    char name[KD_H5_NAME_MAX];

    KD_TRY(read_meta(f, file));
    KD_TRY(kd_format(name, sizeof name, "%s/id", split));
    if (!kd_h5_has(f, name))
        return split_absent(f, split);
    KD_TRY(map_file(file));
    KD_TRY(column_open(f, file, name, KD_I64, &file->id));
    file->n = file->id.n;
    for (int k = 0; k < KD_CORPUS_RAGGED; k++)
        KD_TRY(ragged_open(f, file, split, &kd_corpus_fields[k], &file->fields[k]));
    return KD_OK;
}

static int file_open(struct corpus_file *file, const char *path, const char *split)
{
    struct kd_h5 *f = NULL;
    int rc;

    KD_TRY(KD_FAULT("corpus.open"));
    KD_TRY(kd_strdup(path, &file->path));
    KD_TRY(kd_h5_open_local(path, &f));
    rc = open_split(f, file, split);
    kd_h5_close_local(f);
    return rc;
}

static void file_close(struct corpus_file *file)
{
    for (int k = 0; k < KD_CORPUS_RAGGED; k++) {
        free(file->fields[k].offsets.owned);
        free(file->fields[k].values.owned);
    }
    free(file->id.owned);
    if (file->map)
        munmap(file->map, file->map_bytes);
    free(file->path);
    free(file->tokenizer_digest);
    free(file->digest);
}

/* ---- all files ---- */

static int files_open(struct kd_corpus *c, char *const *paths, int64_t n_paths,
                      const char *split)
{
    const char *known = "";

    if (n_paths < 1)
        return KD_FAIL(KD_EINPUT, "no corpus file was given");
    KD_TRY(kd_calloc(n_paths, sizeof *c->files, &c->files));
    KD_TRY(kd_calloc(n_paths + 1, sizeof *c->firsts, &c->firsts));
    c->n_files = n_paths;
    for (int64_t i = 0; i < n_paths; i++) {
        struct corpus_file *file = &c->files[i];
        const char *digest;

        KD_TRY(file_open(file, paths[i], split));
        digest = file->tokenizer_digest;
        if (known[0] && digest[0] && strcmp(known, digest) != 0)
            return KD_FAIL(KD_EINPUT,
                           "%s was tokenized with another tokenizer (%s) "
                           "than the files before it (%s)",
                           paths[i], digest, known);
        if (digest[0])
            known = digest;
        if (file->vocab_size > c->vocab_size)
            c->vocab_size = file->vocab_size;
        c->firsts[i + 1] = c->firsts[i] + file->n;
    }
    c->n = c->firsts[n_paths];
    return KD_OK;
}

static int check_monotone(const struct corpus_file *file, int field, int64_t begin,
                          int64_t end)
{
    const int64_t *offsets = file->fields[field].offsets.values;

    for (int64_t i = begin; i < end; i++) {
        if (offsets[i + 1] < offsets[i] || offsets[i] < 0 ||
            offsets[i + 1] > file->fields[field].values.n)
            return KD_FAIL(KD_EINPUT, "%s: offsets of %s are not monotone at row %lld",
                           file->path, kd_corpus_fields[field].name, (long long)i);
    }
    return KD_OK;
}

/* Largest id of rows [BEGIN, END), whose offsets are checked already. */
static int check_ids(const struct corpus_file *file, int field, int64_t begin,
                     int64_t end, int64_t *max_id)
{
    const int64_t *offsets = file->fields[field].offsets.values;
    const int32_t *ids = file->fields[field].values.values;

    for (int64_t k = offsets[begin]; k < offsets[end]; k++) {
        if (ids[k] < 0 || (file->vocab_size > 0 && ids[k] >= file->vocab_size))
            return KD_FAIL(KD_EINPUT,
                           "%s: %s holds id %d, outside its vocabulary of "
                           "%lld",
                           file->path, kd_corpus_fields[field].name, (int)ids[k],
                           (long long)file->vocab_size);
        if (ids[k] > *max_id)
            *max_id = ids[k];
    }
    return KD_OK;
}

/* This rank's share of the rows of every file; MAX_ID[KD_CORPUS_RAGGED]. */
static int check_share(const struct kd_corpus *c, int rank, int n_ranks,
                       int64_t *max_id)
{
    for (int64_t i = 0; i < c->n_files; i++) {
        const struct corpus_file *file = &c->files[i];
        int64_t begin = file->n * rank / n_ranks, end = file->n * (rank + 1) / n_ranks;

        for (int k = 0; k < KD_CORPUS_RAGGED; k++) {
            KD_TRY(check_monotone(file, k, begin, end));
            if (kd_corpus_fields[k].dtype == KD_I32)
                KD_TRY(check_ids(file, k, begin, end, &max_id[k]));
        }
    }
    return KD_OK;
}

int kd_corpus_open(struct kd_comm *comm, char *const *paths, int64_t n_paths,
                   const char *split, struct kd_corpus **out)
{
    struct kd_corpus *c = NULL;
    int rc = KD_OK;

    *out = NULL;
    KD_ALL_GO(comm, kd_calloc(1, sizeof *c, &c));
    for (int k = 0; k < KD_CORPUS_RAGGED; k++)
        c->max_id[k] = -1;
    KD_ALL_GO(comm, files_open(c, paths, n_paths, split));
    KD_ALL_GO(comm, check_share(c, kd_comm_rank(comm), kd_comm_size(comm), c->max_id));
    KD_GO(kd_allreduce_i64(comm, c->max_id, KD_CORPUS_RAGGED, KD_MAX));
    *out = c;
    return KD_OK;
out:
    kd_corpus_close(c);
    return rc;
}

void kd_corpus_close(struct kd_corpus *c)
{
    if (!c)
        return;
    for (int64_t i = 0; c->files && i < c->n_files; i++)
        file_close(&c->files[i]);
    free(c->files);
    free(c->firsts);
    free(c);
}

/* ---- presence of a split ---- */

static bool file_has_split(const char *path, const char *split)
{
    struct kd_h5 *f = NULL;
    char name[KD_H5_NAME_MAX];
    bool has = false;

    if (kd_format(name, sizeof name, "%s/id", split) == KD_OK &&
        kd_h5_open_local(path, &f) == KD_OK)
        has = kd_h5_check_schema(f, &SCHEMA) == KD_OK && kd_h5_has(f, name);
    kd_h5_close_local(f);
    return has;
}

int kd_corpus_has_split(struct kd_comm *comm, char *const *paths, int64_t n_paths,
                        const char *split, bool *out)
{
    unsigned char has = n_paths > 0;

    if (kd_comm_rank(comm) == 0) {
        for (int64_t i = 0; i < n_paths && has; i++)
            has = file_has_split(paths[i], split);
        if (!has)
            kd_error_clear(); /* an answer, not a failure */
    }
    KD_TRY(kd_bcast(comm, &has, 1, 0));
    *out = has != 0;
    return KD_OK;
}

/* ---- what the files say ---- */

int64_t kd_corpus_vocab_size(const struct kd_corpus *c)
{
    return c->vocab_size;
}

int32_t kd_corpus_max_source(const struct kd_corpus *c)
{
    return (int32_t)c->max_id[KD_CORPUS_SOURCE];
}

int32_t kd_corpus_max_target(const struct kd_corpus *c)
{
    return (int32_t)c->max_id[KD_CORPUS_TARGET];
}

const char *kd_corpus_tokenizer_digest(const struct kd_corpus *c)
{
    for (int64_t i = 0; i < c->n_files; i++) {
        if (c->files[i].tokenizer_digest[0])
            return c->files[i].tokenizer_digest;
    }
    return "";
}

const char *kd_corpus_digest(const struct kd_corpus *c, int64_t file)
{
    return c->files[file].digest;
}

/* ---- rows ---- */

int64_t kd_corpus_size(const struct kd_corpus *c)
{
    return c->n;
}

/* The file of row *I, which becomes its row in that file. */
static const struct corpus_file *file_of(const struct kd_corpus *c, int64_t *i)
{
    int64_t f = 0;

    while (*i >= c->firsts[f + 1])
        f++;
    *i -= c->firsts[f];
    return &c->files[f];
}

static const void *row_of(const struct kd_corpus *c, int64_t i, int field, int64_t *n)
{
    const struct corpus_file *file = file_of(c, &i);
    const struct ragged_column *r = &file->fields[field];
    const int64_t *offsets = r->offsets.values;

    *n = offsets[i + 1] - offsets[i];
    return (const char *)r->values.values +
           (size_t)offsets[i] * kd_dtype_bytes(kd_corpus_fields[field].dtype);
}

int64_t kd_corpus_id(const struct kd_corpus *c, int64_t i)
{
    const struct corpus_file *file = file_of(c, &i);

    return ((const int64_t *)file->id.values)[i];
}

const int32_t *kd_corpus_source(const struct kd_corpus *c, int64_t i, int64_t *n)
{
    return row_of(c, i, 0, n);
}

const int32_t *kd_corpus_target(const struct kd_corpus *c, int64_t i, int64_t *n)
{
    return row_of(c, i, 1, n);
}

const char *kd_corpus_source_text(const struct kd_corpus *c, int64_t i, int64_t *len)
{
    return row_of(c, i, 2, len);
}

const char *kd_corpus_target_text(const struct kd_corpus *c, int64_t i, int64_t *len)
{
    return row_of(c, i, 3, len);
}
