/* SPDX-License-Identifier: Apache-2.0 */
/* Writing of the safetensors container: values are cast on the way out, a buffer at a
 * time, so saving needs no second copy of a model.
 *
 * Tensors are ordered by name, which makes the file a function of its content; the file
 * gets its name when it is whole and on disk.  Model saving calls this on rank 0. */
#include "kdhpc/base/json.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"
#include "kdhpc/store/safetensors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LENGTH_BYTES = 8 };

static const char *dtype_text(enum kd_dtype dtype)
{
    return dtype == KD_F32 ? "F32" : dtype == KD_F16 ? "F16" : "BF16";
}

static int64_t count_of(const struct kd_named_tensor *t)
{
    int64_t n = 1;

    for (int i = 0; i < t->ndim; i++)
        n *= t->shape[i];
    return n;
}

static int set_entry(struct kd_json *header, const struct kd_named_tensor *t,
                     enum kd_dtype dtype, int64_t begin)
{
    struct kd_json *e = kd_json_object(), *shape = kd_json_array(),
                   *offsets = kd_json_array();
    int rc = e && shape && offsets ? KD_OK : KD_ENOMEM;

    for (int i = 0; !rc && i < t->ndim; i++)
        rc = kd_json_append_int(shape, t->shape[i]);
    if (!rc)
        rc = kd_json_append_int(offsets, begin);
    if (!rc)
        rc = kd_json_append_int(offsets,
                                begin + count_of(t) * (int64_t)kd_dtype_bytes(dtype));
    if (rc) {
        kd_json_free(e);
        kd_json_free(shape);
        kd_json_free(offsets);
        return KD_FAIL(KD_ENOMEM, "out of memory describing tensor %s", t->name);
    }
    /* Each of the following takes its value, failed or not. */
    rc = kd_json_set_str(e, "dtype", dtype_text(dtype));
    if (kd_json_set_json(e, "shape", shape))
        rc = KD_ENOMEM;
    if (kd_json_set_json(e, "data_offsets", offsets))
        rc = KD_ENOMEM;
    if (kd_json_set_json(header, t->name, e))
        rc = KD_ENOMEM;
    return rc;
}

/* The header as text, padded with spaces so that the data starts 8-aligned. */
static int make_header(const struct kd_named_tensor *const *order, int n,
                       enum kd_dtype dtype, struct kd_str *out)
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
        at += count_of(order[i]) * (int64_t)kd_dtype_bytes(dtype);
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

/* Write T's values as DTYPE, a buffer at a time. */
static bool put_values(FILE *file, const struct kd_named_tensor *t, enum kd_dtype dtype)
{
    enum { VALUES = 4096 };
    uint16_t half[VALUES];
    int64_t n = count_of(t);

    if (dtype == KD_F32)
        return fwrite(t->values, sizeof *t->values, (size_t)n, file) == (size_t)n;
    for (int64_t at = 0; at < n; at += VALUES) {
        int64_t part = n - at < VALUES ? n - at : VALUES;

        for (int64_t i = 0; i < part; i++)
            half[i] = dtype == KD_BF16 ? kd_f32_to_bf16(t->values[at + i])
                                       : kd_f32_to_f16(t->values[at + i]);
        if (fwrite(half, sizeof half[0], (size_t)part, file) != (size_t)part)
            return false;
    }
    return true;
}

static bool put_file(FILE *file, const struct kd_str *header,
                     const struct kd_named_tensor *const *order, int n,
                     enum kd_dtype dtype)
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
    }
    return fflush(file) == 0 && fsync(fileno(file)) == 0;
}

static int write_part(const char *part, const struct kd_str *header,
                      const struct kd_named_tensor *const *order, int n,
                      enum kd_dtype dtype)
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

static int by_tensor_name(const void *a, const void *b)
{
    const struct kd_named_tensor *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

int kd_safetensors_write(const char *path, enum kd_dtype dtype,
                         const struct kd_named_tensor *tensors, int n)
{
    const struct kd_named_tensor **order = NULL;
    struct kd_str header = {0}, part = {0};
    int rc = KD_OK;

    KD_GO(kd_calloc(n, sizeof *order, &order));
    for (int i = 0; i < n; i++)
        order[i] = &tensors[i];
    qsort(order, (size_t)n, sizeof *order, by_tensor_name);
    KD_GO(make_header(order, n, dtype, &header));
    KD_GO(kd_str_printf(&part, "%s.part", path));
    rc = write_part(part.data, &header, order, n, dtype);
    if (!rc && rename(part.data, path))
        rc = KD_FAIL(KD_EOUTPUT, "cannot rename %s to %s: %s", part.data, path,
                     strerror(errno));
    if (rc)
        unlink(part.data);
out:
    free(order);
    kd_str_free(&header);
    kd_str_free(&part);
    return rc;
}
