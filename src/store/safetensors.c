/* SPDX-License-Identifier: Apache-2.0 */
/* The safetensors container: 8 bytes of header length, a JSON header, one buffer.
 *
 * A header is believed only after every rule of the format was checked: its length,
 * each tensor's size against its shape, tensors that cover the buffer from start to end
 * without gap or overlap, no name twice.  weights.c maps the file and keeps the table.
 * Source of the format: the safetensors project's format description. */
#include "weights_impl.h"

#include "kdhpc/base/json.h"

#include <stdlib.h>
#include <string.h>

enum { HEADER_MAX_BYTES = 100000000, LENGTH_BYTES = 8 };

/* The buffer of a file. */
struct buffer {
    const char *path;
    const unsigned char *bytes;
    int64_t n_bytes;
};

static bool as_count(const struct kd_json *j, int64_t *out)
{
    double x = kd_json_is_number(j) ? kd_json_as_num(j, -1) : -1;

    *out = kd_json_as_int(j, -1);
    return *out >= 0 && x == (double)*out;
}

/* Shape, strides and count; *BYTES that they take.  False if these do not fit. */
static bool read_shape(const struct kd_json *shape, struct kd_weight *t, int64_t *bytes)
{
    int64_t n_dims = kd_json_len(shape), stride = 1;

    t->count = 1;
    t->ndim = n_dims > 1000 ? 1000 : (int)n_dims;
    for (int64_t i = 0; i < n_dims; i++) {
        int64_t dim;

        if (!as_count(kd_json_at(shape, i), &dim) ||
            __builtin_mul_overflow(t->count, dim, &t->count))
            return false;
        if (i < KD_MAX_DIMS)
            t->shape[i] = dim;
    }
    for (int i = t->ndim < KD_MAX_DIMS ? t->ndim : KD_MAX_DIMS; i-- > 0;) {
        t->stride[i] = stride;
        if (__builtin_mul_overflow(stride, t->shape[i], &stride))
            stride = 0; /* some other dimension is 0, or there are too many */
    }
    return !__builtin_mul_overflow(t->count, t->item_bytes, bytes);
}

static int read_entry(const struct buffer *b, const char *name, const struct kd_json *j,
                      struct kd_weight *t)
{
    const struct kd_json *shape = kd_json_get(j, "shape"),
                         *offsets = kd_json_get(j, "data_offsets");
    const char *dtype = kd_json_str(j, "dtype", "");
    int64_t bytes = 0, begin, end;

    if (!kd_json_is_object(j) || !kd_json_is_array(shape) ||
        !kd_json_is_array(offsets) || kd_json_len(offsets) != 2)
        return KD_FAIL(KD_EINPUT, "%s: header entry of %s is not a tensor", b->path,
                       name);
    if (!kd_weight_set_dtype(t, dtype))
        return KD_FAIL(KD_EINPUT, "%s: %s has dtype %s, which is not read", b->path,
                       name, dtype[0] ? dtype : "(none)");
    if (!read_shape(shape, t, &bytes) || !as_count(kd_json_at(offsets, 0), &begin) ||
        !as_count(kd_json_at(offsets, 1), &end) || end < begin)
        return KD_FAIL(KD_EINPUT, "%s: shape or offsets of %s are not valid", b->path,
                       name);
    if (end - begin != bytes)
        return KD_FAIL(KD_EINPUT, "%s: %s takes %lld bytes, but its shape needs %lld",
                       b->path, name, (long long)(end - begin), (long long)bytes);
    if (end > b->n_bytes)
        return KD_FAIL(KD_EINPUT,
                       "%s: %s ends at byte %lld of %lld: the file is truncated",
                       b->path, name, (long long)end, (long long)b->n_bytes);
    t->data = b->bytes + begin;
    return KD_OK;
}

static int64_t bytes_of(const struct kd_weight *t)
{
    return t->count * t->item_bytes;
}

static int by_place(const void *a, const void *b)
{
    const struct kd_weight *x = a, *y = b;

    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return bytes_of(x) < bytes_of(y) ? -1 : bytes_of(x) > bytes_of(y);
}

/* That tensors [FIRST, n) cover the buffer exactly. */
static int check_tiling(struct kd_weights *w, const struct buffer *b, int first)
{
    int64_t at = 0;

    if (w->n > first)
        qsort(w->items + first, (size_t)(w->n - first), sizeof *w->items, by_place);
    for (int i = first; i < w->n; i++) {
        const struct kd_weight *t = &w->items[i];
        int64_t begin = t->data - b->bytes;

        if (begin != at)
            return KD_FAIL(KD_EINPUT, "%s: %s begins at byte %lld of the data, %s %lld",
                           b->path, t->name, (long long)begin,
                           begin < at ? "overlapping what ends at"
                                      : "leaving a gap after",
                           (long long)at);
        at = begin + bytes_of(t);
    }
    if (at != b->n_bytes)
        return KD_FAIL(KD_EINPUT,
                       "%s: tensors end at byte %lld of %lld: the file is longer than "
                       "its header says",
                       b->path, (long long)at, (long long)b->n_bytes);
    return KD_OK;
}

static int add_entries(struct kd_weights *w, const struct buffer *b,
                       const struct kd_json *j)
{
    for (void *it = kd_json_first(j); it; it = kd_json_next(j, it)) {
        const char *name = kd_json_key(it);
        struct kd_weight t = {.path = b->path};

        if (strcmp(name, "__metadata__") == 0)
            continue;
        KD_TRY(read_entry(b, name, kd_json_value(it), &t));
        KD_TRY(kd_weights_add(w, &t, name, (int64_t)strlen(name)));
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

int kd_safetensors_parse(struct kd_weights *w, const struct kd_weights_file *f)
{
    const char *text = (const char *)f->bytes + LENGTH_BYTES;
    struct kd_json *j = NULL;
    struct buffer b = {.path = f->path};
    int first = w->n, rc = KD_OK;
    uint64_t len;

    if (f->n_bytes < LENGTH_BYTES)
        return KD_FAIL(KD_EINPUT, "%s is too short for safetensors", f->path);
    len = kd_little(f->bytes, LENGTH_BYTES);
    if (len > HEADER_MAX_BYTES || (int64_t)len > f->n_bytes - LENGTH_BYTES)
        return KD_FAIL(KD_EINPUT, "%s: its header of %llu bytes is not in the file",
                       f->path, (unsigned long long)len);
    if (len == 0 || *text != '{')
        return KD_FAIL(KD_EINPUT, "%s is not a safetensors file", f->path);
    KD_GO(kd_json_parse(text, (int64_t)len, f->path, &j));
    if (!kd_json_is_object(j) || count_members(text, (int64_t)len) != kd_json_len(j))
        KD_GO(KD_FAIL(KD_EINPUT, "%s: its header has a name twice", f->path));
    b.bytes = f->bytes + LENGTH_BYTES + len;
    b.n_bytes = f->n_bytes - LENGTH_BYTES - (int64_t)len;
    KD_GO(add_entries(w, &b, j));
    rc = check_tiling(w, &b, first);
out:
    kd_json_free(j);
    return rc;
}
