/* SPDX-License-Identifier: Apache-2.0 */
/* Writing of the safetensors container: values are cast on the way out, a buffer at a
 * time, so neither saving nor converting needs a second copy of a model.
 *
 * Tensors are ordered by name, which makes the file a function of its content; a file
 * gets its name when it is whole and on disk, and an index is written after the shards
 * that it names.  Model saving and conversion call this on rank 0. */
#include "kdhpc/store/safetensors.h"

#include "kdhpc/base/json.h"
#include "kdhpc/base/log.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"
#include "kdhpc/comm/watchdog.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LENGTH_BYTES = 8, NAME_BYTES = 64 };

/* ---- types ---- */

/* Of the file: how safetensors spells it, and bytes of a value. */
struct out_type {
    const char *name;
    int bytes;
    enum kd_dtype dtype; /* what values are cast to, unless ... */
    bool as_it_is;       /* ... they are copied */
};

static struct out_type type_of(const struct kd_named_tensor *t, int dtype)
{
    enum kd_dtype own = KD_F32;
    bool is_float = !t->from || kd_weight_is_float(t->from, &own);

    if (t->own_type)
        dtype = KD_AS_IT_IS;
    if (!is_float || (dtype == KD_AS_IT_IS && t->from))
        return (struct out_type){t->from->dtype, t->from->item_bytes, own, true};
    if (dtype == KD_AS_IT_IS)
        dtype = KD_F32;
    return (struct out_type){dtype == KD_F32   ? "F32"
                             : dtype == KD_F16 ? "F16"
                                               : "BF16",
                             dtype == KD_F32 ? 4 : 2, (enum kd_dtype)dtype,
                             t->from && (int)own == dtype};
}

static int64_t count_of(const struct kd_named_tensor *t)
{
    int64_t n = 1;

    for (int i = 0; i < t->ndim; i++)
        n *= t->shape[i];
    return n;
}

static int64_t bytes_of(const struct kd_named_tensor *t, int dtype)
{
    return count_of(t) * type_of(t, dtype).bytes;
}

/* ---- header ---- */

static int set_entry(struct kd_json *header, const struct kd_named_tensor *t, int dtype,
                     int64_t begin)
{
    struct kd_json *e = kd_json_object(), *shape = kd_json_array(),
                   *offsets = kd_json_array();
    int rc = e && shape && offsets ? KD_OK : KD_ENOMEM;

    for (int i = 0; !rc && i < t->ndim; i++)
        rc = kd_json_append_int(shape, t->shape[i]);
    if (!rc)
        rc = kd_json_append_int(offsets, begin);
    if (!rc)
        rc = kd_json_append_int(offsets, begin + bytes_of(t, dtype));
    if (rc) {
        kd_json_free(e);
        kd_json_free(shape);
        kd_json_free(offsets);
        return KD_FAIL(KD_ENOMEM, "out of memory describing tensor %s", t->name);
    }
    /* Each of the following takes its value, failed or not. */
    rc = kd_json_set_str(e, "dtype", type_of(t, dtype).name);
    if (kd_json_set_json(e, "shape", shape))
        rc = KD_ENOMEM;
    if (kd_json_set_json(e, "data_offsets", offsets))
        rc = KD_ENOMEM;
    if (kd_json_set_json(header, t->name, e))
        rc = KD_ENOMEM;
    return rc;
}

/* The header as text, padded with spaces so that the data starts 8-aligned. */
static int make_header(const struct kd_named_tensor *const *order, int n, int dtype,
                       struct kd_str *out)
{
    struct kd_json *header = kd_json_object(), *meta = kd_json_object();
    char *text = NULL;
    int64_t at = 0;
    int rc = KD_OK;

    if (!header || !meta) {
        kd_json_free(meta);
        rc = KD_FAIL(KD_ENOMEM, "out of memory making a safetensors header");
        goto out;
    }
    rc = kd_json_set_str(meta, "format", "pt");
    if (kd_json_set_json(header, "__metadata__", meta))
        rc = KD_ENOMEM;
    KD_GO(rc);
    for (int i = 0; i < n; i++) {
        KD_GO(set_entry(header, order[i], dtype, at));
        at += bytes_of(order[i], dtype);
    }
    KD_GO(kd_json_dump(header, &text));
    KD_GO(kd_str_append(out, text, (int64_t)strlen(text)));
    while (out->len % 8)
        KD_GO(kd_str_append(out, " ", 1));
out:
    free(text);
    kd_json_free(header);
    return rc;
}

/* ---- values ---- */

/* Values [FIRST, FIRST + N) of T in its type, through SCRATCH[n], into OUT.  Returns
 * how many are too large for float16. */
static int64_t fill(const struct kd_named_tensor *t, struct out_type type,
                    int64_t first, int64_t n, float *scratch, unsigned char *out)
{
    const float *values = t->from ? scratch : t->values + first;
    int64_t there = n, too_large = 0;

    if (t->from) {
        there = t->from->count - first;
        there = there < 0 ? 0 : there < n ? there : n;
        if (type.as_it_is)
            kd_weight_copy(t->from, first, there, out);
        else
            kd_weight_to_f32(t->from, first, there, scratch);
    }
    for (int64_t i = 0; i < there && !type.as_it_is; i++) {
        uint16_t half = 0;

        if (type.dtype == KD_F32) {
            memcpy(out + 4 * i, &values[i], sizeof *values);
            continue;
        }
        half = type.dtype == KD_BF16 ? kd_f32_to_bf16(values[i])
                                     : kd_f32_to_f16(values[i]);
        too_large +=
            type.dtype == KD_F16 && (half & 0x7fff) == 0x7c00 && isfinite(values[i]);
        memcpy(out + 2 * i, &half, sizeof half);
    }
    memset(out + there * type.bytes, 0, (size_t)((n - there) * type.bytes));
    return too_large;
}

static bool put_values(FILE *file, const struct kd_named_tensor *t, int dtype)
{
    enum { VALUES = 4096 };
    unsigned char out[VALUES * 8];
    float scratch[VALUES];
    struct out_type type = type_of(t, dtype);
    int64_t n = count_of(t), too_large = 0;

    if (!t->from && type.dtype == KD_F32)
        return fwrite(t->values, sizeof *t->values, (size_t)n, file) == (size_t)n;
    for (int64_t at = 0; at < n; at += VALUES) {
        int64_t part = n - at < VALUES ? n - at : VALUES;

        too_large += fill(t, type, at, part, scratch, out);
        if (fwrite(out, (size_t)type.bytes, (size_t)part, file) != (size_t)part)
            return false;
    }
    if (too_large)
        kd_warn("%s: %lld values are beyond the range of float16 and become infinite; "
                "bfloat16 has room for them",
                t->name, (long long)too_large);
    return true;
}

static bool put_file(FILE *file, const struct kd_str *header,
                     const struct kd_named_tensor *const *order, int n, int dtype)
{
    unsigned char length[LENGTH_BYTES];

    for (int i = 0; i < LENGTH_BYTES; i++)
        length[i] = (unsigned char)((uint64_t)header->len >> (8 * i));
    if (fwrite(length, 1, sizeof length, file) != sizeof length ||
        fwrite(header->data, 1, (size_t)header->len, file) != (size_t)header->len)
        return false;
    for (int i = 0; i < n; i++) {
        if (!put_values(file, order[i], dtype))
            return false;
        kd_heartbeat();
    }
    return fflush(file) == 0 && fsync(fileno(file)) == 0;
}

/* ---- files ---- */

static int write_part(const char *part, const struct kd_str *header,
                      const struct kd_named_tensor *const *order, int n, int dtype)
{
    FILE *file = fopen(part, "wb");
    int err = 0;

    if (!file)
        return KD_FAIL(KD_EOUTPUT, "cannot create %s: %s", part, strerror(errno));
    if (!put_file(file, header, order, n, dtype))
        err = errno ? errno : EIO;
    if (fclose(file) && !err)
        err = errno;
    if (err)
        return KD_FAIL(KD_EOUTPUT, "cannot write %s: %s", part, strerror(err));
    return KD_FAULT("safetensors.write");
}

static int write_file(const char *path, int dtype,
                      const struct kd_named_tensor *const *order, int n)
{
    struct kd_str header = {0}, part = {0};
    int rc;

    KD_GO(make_header(order, n, dtype, &header));
    KD_GO(kd_str_printf(&part, "%s.part", path));
    rc = write_part(part.data, &header, order, n, dtype);
    if (!rc && rename(part.data, path))
        rc = KD_FAIL(KD_EOUTPUT, "cannot rename %s to %s: %s", part.data, path,
                     strerror(errno));
    if (rc)
        unlink(part.data);
out:
    kd_str_free(&header);
    kd_str_free(&part);
    return rc;
}

static int by_tensor_name(const void *a, const void *b)
{
    const struct kd_named_tensor *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static int sort(const struct kd_named_tensor *tensors, int n,
                const struct kd_named_tensor ***out)
{
    KD_TRY(kd_calloc(n, sizeof **out, out));
    for (int i = 0; i < n; i++)
        (*out)[i] = &tensors[i];
    qsort(*out, (size_t)n, sizeof **out, by_tensor_name);
    return KD_OK;
}

int kd_safetensors_write(const char *path, int dtype,
                         const struct kd_named_tensor *tensors, int n)
{
    const struct kd_named_tensor **order = NULL;
    int rc;

    KD_TRY(sort(tensors, n, &order));
    rc = write_file(path, dtype, order, n);
    free(order);
    return rc;
}

/* ---- shards ---- */

/* Tensors in order, cut into shards as Hugging Face's libraries do: one that is larger
 * than the limit has its own shard and does not end the one that is being filled. */
struct shards {
    const char *dir;
    int dtype, n, n_shards;
    const struct kd_named_tensor **order;
    int *of;       /* [n] shard of each tensor, from 0 */
    int64_t total; /* bytes */
};

static void cut(struct shards *s, int64_t max_bytes)
{
    int64_t filled = 0;
    int current = -1;

    for (int i = 0; i < s->n; i++) {
        int64_t bytes = bytes_of(s->order[i], s->dtype);

        s->total += bytes;
        if (bytes > max_bytes) {
            s->of[i] = s->n_shards++;
            continue;
        }
        if (current < 0 || filled + bytes > max_bytes) {
            current = s->n_shards++;
            filled = 0;
        }
        s->of[i] = current;
        filled += bytes;
    }
}

static int shard_name(const struct shards *s, int shard, char name[NAME_BYTES])
{
    if (s->n_shards <= 1)
        return kd_format(name, NAME_BYTES, "model.safetensors");
    return kd_format(name, NAME_BYTES, "model-%05d-of-%05d.safetensors", shard + 1,
                     s->n_shards);
}

static int write_shard(const struct shards *s, int shard)
{
    const struct kd_named_tensor **part = NULL;
    char name[NAME_BYTES], *path = NULL;
    int rc, n = 0;

    KD_GO(kd_calloc(s->n, sizeof *part, &part));
    for (int i = 0; i < s->n; i++)
        if (s->of[i] == shard)
            part[n++] = s->order[i];
    KD_GO(shard_name(s, shard, name));
    KD_GO(kd_path_join(s->dir, name, &path));
    rc = write_file(path, s->dtype, part, n);
out:
    free(path);
    free(part);
    return rc;
}

static int fill_index(const struct shards *s, struct kd_json *index)
{
    struct kd_json *meta = kd_json_object(), *map = kd_json_object();
    char name[NAME_BYTES];
    int rc = meta && map ? kd_json_set_int(meta, "total_size", s->total)
                         : KD_FAIL(KD_ENOMEM, "no memory for an index of shards");

    for (int i = 0; !rc && i < s->n; i++) {
        rc = shard_name(s, s->of[i], name);
        if (!rc)
            rc = kd_json_set_str(map, s->order[i]->name, name);
    }
    if (rc) {
        kd_json_free(meta);
        kd_json_free(map);
        return rc;
    }
    rc = kd_json_set_json(index, "metadata", meta);
    return kd_json_set_json(index, "weight_map", map) ? KD_ENOMEM : rc;
}

static int write_index(const struct shards *s)
{
    struct kd_json *index = kd_json_object();
    char *path = NULL;
    int rc = index ? KD_OK : KD_FAIL(KD_ENOMEM, "no memory for an index of shards");

    KD_GO(rc);
    KD_GO(fill_index(s, index));
    KD_GO(kd_path_join(s->dir, "model.safetensors.index.json", &path));
    rc = kd_json_write_file(index, path);
out:
    free(path);
    kd_json_free(index);
    return rc;
}

int kd_safetensors_write_dir(const char *dir, int dtype, int64_t max_bytes,
                             const struct kd_named_tensor *tensors, int n)
{
    struct shards s = {.dir = dir, .dtype = dtype, .n = n};
    int rc;

    KD_GO(sort(tensors, n, &s.order));
    KD_GO(kd_calloc(n, sizeof *s.of, &s.of));
    cut(&s, max_bytes);
    if (!n)
        s.n_shards = 1;
    for (int i = 0; i < s.n_shards; i++)
        KD_GO(write_shard(&s, i));
    if (s.n_shards > 1)
        rc = write_index(&s);
out:
    free(s.order);
    free(s.of);
    return rc;
}
