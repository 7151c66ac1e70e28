/* SPDX-License-Identifier: Apache-2.0 */
/* The safetensors container: 8 bytes of header length, a JSON header, one buffer.
 *
 * Files are mapped and tensors are views into the map.  A header is believed only after
 * every rule of the format was checked: its length, each tensor's size against its
 * shape, tensors that cover the buffer from start to end without gap or overlap, no
 * name twice.  Local, and free of MPI and HDF5.  Source of the format: the safetensors
 * project's format description; shard index as in Hugging Face's hub. */
#include "kdhpc/store/safetensors.h"
#include "kdhpc/base/json.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_MAX_BYTES = 100000000, LENGTH_BYTES = 8, DTYPE_CHARS = 12 };

struct shard {
    char *path;
    const unsigned char *map;
    int64_t bytes;
};

struct entry {
    char *name;
    int shard;
    char dtype[DTYPE_CHARS];
    int ndim;
    int64_t shape[KD_MAX_DIMS];
    bool too_deep;      /* more dimensions than we hold: an error only if asked for */
    int64_t begin, end; /* in the shard's buffer */
    const unsigned char *data;
};

struct kd_safetensors {
    int n_shards, n;
    int64_t cap_shards, cap;
    struct shard *shards;
    struct entry *entries; /* sorted by name once everything is open */
};

/* ---- dtypes ---- */

/* Bytes of one value of a dtype that may occur, or 0. */
static int64_t dtype_bytes(const char *dtype)
{
    static const struct {
        const char *name;
        int bytes;
    } known[] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8},
                 {"I32", 4}, {"I16", 2}, {"I8", 1},  {"U64", 8},  {"U32", 4},
                 {"U16", 2}, {"U8", 1},  {"BOOL", 1}};

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(dtype, known[i].name) == 0)
            return known[i].bytes;
    }
    return 0;
}

static bool float_dtype(const char *name, enum kd_dtype *out)
{
    if (strcmp(name, "F32") == 0)
        *out = KD_F32;
    else if (strcmp(name, "F16") == 0)
        *out = KD_F16;
    else if (strcmp(name, "BF16") == 0)
        *out = KD_BF16;
    else
        return false;
    return true;
}

/* ---- header ---- */

static bool as_count(const struct kd_json *j, int64_t *out)
{
    double x = kd_json_is_number(j) ? kd_json_as_num(j, -1) : -1;

    *out = kd_json_as_int(j, -1);
    return *out >= 0 && x == (double)*out;
}

/* Product of the shape and the size of a value; false if it does not fit. */
static bool read_shape(const struct kd_json *shape, int64_t item, struct entry *e,
                       int64_t *bytes)
{
    int64_t n_dims = kd_json_len(shape);

    *bytes = item;
    e->too_deep = n_dims > KD_MAX_DIMS;
    e->ndim = e->too_deep ? KD_MAX_DIMS : (int)n_dims;
    for (int64_t i = 0; i < n_dims; i++) {
        int64_t dim;

        if (!as_count(kd_json_at(shape, i), &dim) ||
            __builtin_mul_overflow(*bytes, dim, bytes))
            return false;
        if (i < KD_MAX_DIMS)
            e->shape[i] = dim;
    }
    for (int i = e->ndim; i < KD_MAX_DIMS; i++)
        e->shape[i] = 1;
    return true;
}

static int read_entry(const struct shard *s, const char *name, const struct kd_json *j,
                      struct entry *e)
{
    const struct kd_json *shape = kd_json_get(j, "shape"),
                         *offsets = kd_json_get(j, "data_offsets");
    const char *dtype = kd_json_str(j, "dtype", "");
    int64_t item = dtype_bytes(dtype), bytes = 0;

    if (!kd_json_is_object(j) || !kd_json_is_array(shape) ||
        !kd_json_is_array(offsets) || kd_json_len(offsets) != 2)
        return KD_FAIL(KD_EINPUT, "%s: header entry of %s is not a tensor", s->path,
                       name);
    if (!item)
        return KD_FAIL(KD_EINPUT, "%s: %s has dtype %s, which is not read", s->path,
                       name, dtype[0] ? dtype : "(none)");
    if (!read_shape(shape, item, e, &bytes) ||
        !as_count(kd_json_at(offsets, 0), &e->begin) ||
        !as_count(kd_json_at(offsets, 1), &e->end) || e->end < e->begin)
        return KD_FAIL(KD_EINPUT, "%s: shape or offsets of %s are not valid", s->path,
                       name);
    if (e->end - e->begin != bytes)
        return KD_FAIL(KD_EINPUT, "%s: %s takes %lld bytes, but its shape needs %lld",
                       s->path, name, (long long)(e->end - e->begin), (long long)bytes);
    snprintf(e->dtype, sizeof e->dtype, "%s", dtype);
    return KD_OK;
}

static int by_begin(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* That entries [FIRST, n) cover the BYTES of their shard's buffer exactly. */
static int check_tiling(struct kd_safetensors *st, const struct shard *s, int first,
                        int64_t bytes)
{
    int64_t at = 0;

    if (st->n > first)
        qsort(st->entries + first, (size_t)(st->n - first), sizeof *st->entries,
              by_begin);
    for (int i = first; i < st->n; i++) {
        const struct entry *e = &st->entries[i];

        if (e->begin != at)
            return KD_FAIL(KD_EINPUT, "%s: %s begins at byte %lld of the data, %s %lld",
                           s->path, e->name, (long long)e->begin,
                           e->begin < at ? "overlapping what ends at"
                                         : "leaving a gap after",
                           (long long)at);
        at = e->end;
    }
    if (at != bytes)
        return KD_FAIL(KD_EINPUT,
                       "%s: tensors end at byte %lld of %lld: the file is %s", s->path,
                       (long long)at, (long long)bytes,
                       at > bytes ? "truncated" : "longer than its header says");
    return KD_OK;
}

static int add_entries(struct kd_safetensors *st, int shard, const struct kd_json *j)
{
    const struct shard *s = &st->shards[shard];

    for (void *it = kd_json_first(j); it; it = kd_json_next(j, it)) {
        struct entry e = {.shard = shard};

        if (strcmp(kd_json_key(it), "__metadata__") == 0)
            continue;
        KD_TRY(read_entry(s, kd_json_key(it), kd_json_value(it), &e));
        KD_TRY(kd_grow(&st->entries, &st->cap, st->n + 1, sizeof e));
        KD_TRY(kd_strdup(kd_json_key(it), &e.name));
        st->entries[st->n++] = e;
    }
    return KD_OK;
}

/* Members of the JSON object TEXT, which is known to be valid: a parsed object with
 * fewer keys had a name twice. */
static int64_t count_members(const char *text, int64_t len)
{
    int64_t n = 0;
    int depth = 0;
    bool in_string = false, any = false;

    for (int64_t i = 0; i < len; i++) {
        char c = text[i];

        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        in_string = c == '"';
        any = any || in_string;
        depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        n += c == ',' && depth == 1;
    }
    return any ? n + 1 : 0;
}

static uint64_t header_length(const unsigned char *b)
{
    uint64_t n = 0;

    for (int i = LENGTH_BYTES - 1; i >= 0; i--)
        n = n << 8 | b[i];
    return n;
}

static int read_header(struct kd_safetensors *st, int shard)
{
    const struct shard *s = &st->shards[shard];
    struct kd_json *j = NULL;
    int first = st->n;
    uint64_t len;
    int rc = KD_OK;

    if (s->bytes < LENGTH_BYTES)
        return KD_FAIL(KD_EINPUT, "%s is too short for safetensors", s->path);
    len = header_length(s->map);
    if (len > HEADER_MAX_BYTES || (int64_t)len > s->bytes - LENGTH_BYTES)
        return KD_FAIL(KD_EINPUT, "%s: its header of %llu bytes is not in the file",
                       s->path, (unsigned long long)len);
    if (len == 0 || s->map[LENGTH_BYTES] != '{')
        return KD_FAIL(KD_EINPUT, "%s is not a safetensors file", s->path);
    KD_GO(
        kd_json_parse((const char *)s->map + LENGTH_BYTES, (int64_t)len, s->path, &j));
    if (!kd_json_is_object(j) || count_members((const char *)s->map + LENGTH_BYTES,
                                               (int64_t)len) != kd_json_len(j))
        KD_GO(KD_FAIL(KD_EINPUT, "%s: its header has a name twice", s->path));
    KD_GO(add_entries(st, shard, j));
    KD_GO(check_tiling(st, s, first, s->bytes - LENGTH_BYTES - (int64_t)len));
    for (int i = first; i < st->n; i++)
        st->entries[i].data = s->map + LENGTH_BYTES + len + st->entries[i].begin;
out:
    kd_json_free(j);
    return rc;
}

/* ---- files ---- */

static int shard_map(struct shard *s)
{
    struct stat st;
    int fd = open(s->path, O_RDONLY | O_CLOEXEC), err = 0;
    void *map = NULL;

    if (fd < 0 || fstat(fd, &st))
        err = errno;
    if (!err && st.st_size > 0) {
        map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) {
            err = errno;
            map = NULL;
        }
    }
    if (fd >= 0)
        close(fd);
    if (err)
        return KD_FAIL(KD_EINPUT, "cannot open %s: %s", s->path, strerror(err));
    s->map = map;
    s->bytes = map ? (int64_t)st.st_size : 0;
    return KD_OK;
}

static int shard_add(struct kd_safetensors *st, const char *dir, const char *name)
{
    struct shard *s;

    KD_TRY(kd_grow(&st->shards, &st->cap_shards, st->n_shards + 1, sizeof *s));
    s = &st->shards[st->n_shards];
    *s = (struct shard){0};
    KD_TRY(kd_path_join(dir, name, &s->path));
    st->n_shards++;
    KD_TRY(shard_map(s));
    return read_header(st, st->n_shards - 1);
}

static int shard_of(const struct kd_safetensors *st, const char *dir, const char *name)
{
    size_t skip = strlen(dir);

    for (int i = 0; i < st->n_shards; i++) {
        const char *path = st->shards[i].path + skip;

        if (strcmp(path + (path[0] == '/'), name) == 0)
            return i;
    }
    return -1;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static struct entry *find(const struct kd_safetensors *s, const char *name)
{
    struct entry key = {.name = (char *)(uintptr_t)name};

    if (!s->n)
        return NULL;
    return bsearch(&key, s->entries, (size_t)s->n, sizeof key, by_name);
}

static int sort_entries(struct kd_safetensors *st)
{
    if (st->n > 1)
        qsort(st->entries, (size_t)st->n, sizeof *st->entries, by_name);
    for (int i = 1; i < st->n; i++) {
        if (strcmp(st->entries[i].name, st->entries[i - 1].name) == 0)
            return KD_FAIL(KD_EINPUT, "%s: tensor %s is there twice",
                           st->shards[st->entries[i].shard].path, st->entries[i].name);
    }
    return KD_OK;
}

/* Open each distinct shard once; names that lead out of the directory are refused. */
static int open_shards(struct kd_safetensors *st, const char *dir, const char *path,
                       const struct kd_json *map)
{
    for (void *it = kd_json_first(map); it; it = kd_json_next(map, it)) {
        const char *file = kd_json_as_str(kd_json_value(it), "");

        if (!file[0] || strchr(file, '/'))
            return KD_FAIL(KD_EINPUT, "%s: %s is not in a file of this directory", path,
                           kd_json_key(it));
        if (shard_of(st, dir, file) < 0)
            KD_TRY(shard_add(st, dir, file));
    }
    KD_TRY(sort_entries(st));
    for (void *it = kd_json_first(map); it; it = kd_json_next(map, it)) {
        const struct entry *e = find(st, kd_json_key(it));
        const char *file = kd_json_as_str(kd_json_value(it), "");

        if (!e || e->shard != shard_of(st, dir, file))
            return KD_FAIL(KD_EINPUT, "%s: tensor %s is not in %s", path,
                           kd_json_key(it), file);
    }
    return KD_OK;
}

static int open_index(struct kd_safetensors *st, const char *dir, const char *path)
{
    struct kd_json *j = NULL;
    const struct kd_json *map;
    int rc = KD_OK;

    KD_GO(kd_json_parse_file(path, &j));
    map = kd_json_get(j, "weight_map");
    if (!kd_json_is_object(map))
        rc = KD_FAIL(KD_EINPUT, "%s has no weight_map", path);
    else
        rc = open_shards(st, dir, path, map);
out:
    kd_json_free(j);
    return rc;
}

int kd_safetensors_open(const char *dir, struct kd_safetensors **out)
{
    struct kd_safetensors *st = NULL;
    char *whole = NULL, *index = NULL;
    int rc = KD_OK;

    *out = NULL;
    KD_GO(kd_calloc(1, sizeof *st, &st));
    KD_GO(KD_FAULT("safetensors.open"));
    KD_GO(kd_path_join(dir, "model.safetensors", &whole));
    KD_GO(kd_path_join(dir, "model.safetensors.index.json", &index));
    if (kd_path_exists(whole)) {
        KD_GO(shard_add(st, dir, "model.safetensors"));
        KD_GO(sort_entries(st));
    } else if (kd_path_exists(index)) {
        KD_GO(open_index(st, dir, index));
    } else {
        rc = KD_FAIL(KD_EINPUT, "%s has neither model.safetensors nor its index", dir);
    }
out:
    free(whole);
    free(index);
    if (rc) {
        kd_safetensors_close(st);
        st = NULL;
    }
    *out = st;
    return rc;
}

void kd_safetensors_close(struct kd_safetensors *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->n; i++)
        free(s->entries[i].name);
    for (int i = 0; i < s->n_shards; i++) {
        if (s->shards[i].map)
            munmap((void *)(uintptr_t)s->shards[i].map, (size_t)s->shards[i].bytes);
        free(s->shards[i].path);
    }
    free(s->entries);
    free(s->shards);
    free(s);
}

int kd_safetensors_count(const struct kd_safetensors *s)
{
    return s->n;
}

const char *kd_safetensors_name(const struct kd_safetensors *s, int i)
{
    return s->entries[i].name;
}

int kd_safetensors_get(const struct kd_safetensors *s, const char *name,
                       struct kd_tensor *out, bool *found)
{
    const struct entry *e = find(s, name);

    *found = e != NULL;
    if (!e)
        return KD_OK;
    *out = (struct kd_tensor){.data = (void *)(uintptr_t)e->data, .ndim = e->ndim};
    memcpy(out->shape, e->shape, sizeof out->shape);
    if (!float_dtype(e->dtype, &out->dtype) || e->too_deep)
        return KD_FAIL(KD_EINPUT,
                       "%s: %s is %s with %d%s dimensions; weights are F32, F16 or "
                       "BF16 with at most %d",
                       s->shards[e->shard].path, name, e->dtype, e->ndim,
                       e->too_deep ? " or more" : "", KD_MAX_DIMS);
    return KD_OK;
}

void kd_safetensors_to_f32(const struct kd_tensor *t, float *out)
{
    int64_t n = kd_tensor_count(t);
    const unsigned char *in = t->data;
    uint16_t half;

    if (t->dtype == KD_F32) {
        if (n)
            memcpy(out, in, (size_t)n * sizeof *out);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        memcpy(&half, in + 2 * i, sizeof half); /* the map may be unaligned */
        out[i] = t->dtype == KD_BF16 ? kd_bf16_to_f32(half) : kd_f16_to_f32(half);
    }
}
