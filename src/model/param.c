/* SPDX-License-Identifier: Apache-2.0 */
/* The parameter slabs: look-up, memory, rounded values, and transfer of one parameter.
 *
 * model.c lays the slab out; everything here works on any layout.  Gradients exist only
 * in training, as a second slab of the same shape, so that a parameter's value and
 * gradient have one offset. */
#include "kdhpc/model/param.h"

#include <stdlib.h>
#include <string.h>

int kd_params_find(const struct kd_params *p, const char *name)
{
    for (int i = 0; i < p->n; i++)
        if (!strcmp(p->items[i].name, name))
            return i;
    return -1;
}

int64_t kd_params_count(const struct kd_params *p)
{
    int64_t n = 0;

    for (int i = 0; i < p->n; i++)
        if (!kd_param_is_constant(&p->items[i]))
            n += p->items[i].count;
    return n;
}

/* A slab; OUT points to a pointer of its type. */
static int alloc(const struct kd_params *p, size_t value_bytes, void *out)
{
    void *mem;

    KD_TRY(p->be->ops->alloc(p->be, (size_t)p->n_slab * value_bytes, &mem));
    memcpy(out, &mem, sizeof mem);
    return KD_OK;
}

static int alloc_zeroed(const struct kd_params *p, size_t value_bytes, void *out)
{
    void *mem;

    KD_TRY(alloc(p, value_bytes, out));
    memcpy(&mem, out, sizeof mem);
    return p->be->ops->zero(p->be, mem, (size_t)p->n_slab * value_bytes);
}

/* Values [FIRST, END). */
static int zero_range(const struct kd_params *p, int64_t first, int64_t end)
{
    if (first == end)
        return KD_OK;
    return p->be->ops->zero(p->be, p->values + first,
                            (size_t)(end - first) * sizeof *p->values);
}

/* Zero the constants, which a checkpoint may lack, and the gaps between parameters.
 * What certainly gets values is not touched before: that would double the writing. */
static int zero_rest(const struct kd_params *p)
{
    int64_t end = 0; /* of the last parameter */

    for (int i = 0; i < p->n; i++) {
        const struct kd_param *item = &p->items[i];

        if (kd_param_is_constant(item))
            continue;
        KD_TRY(zero_range(p, end, item->offset));
        end = item->offset + item->count;
    }
    return zero_range(p, end, p->n_slab);
}

int kd_params_alloc(struct kd_params *p, enum kd_dtype dtype)
{
    if (dtype != KD_F32 && dtype != KD_BF16)
        return KD_FAIL(KD_EINTERNAL, "a model cannot compute in %s",
                       kd_dtype_name(dtype));
    p->dtype = dtype;
    KD_TRY(alloc(p, sizeof *p->values, &p->values));
    KD_TRY(zero_rest(p));
    return dtype == KD_F32 ? KD_OK : alloc_zeroed(p, sizeof *p->rounded, &p->rounded);
}

void kd_params_free(struct kd_params *p)
{
    void *slabs[] = {p->values, p->grads, p->rounded};

    for (size_t i = 0; i < sizeof slabs / sizeof *slabs; i++)
        if (slabs[i])
            p->be->ops->free(p->be, slabs[i]);
    free(p->items);
}

/* Rounded values [FIRST, FIRST + N) from the values. */
static int round_range(struct kd_params *p, int64_t first, int64_t n)
{
    if (!p->rounded)
        return KD_OK;
    return p->be->ops->cast(p->be, kd_tensor1(p->values + first, KD_F32, n),
                            kd_tensor1(p->rounded + first, KD_BF16, n));
}

int kd_params_refresh(struct kd_params *p)
{
    return round_range(p, 0, p->n_slab);
}

void *kd_params_read_from(const struct kd_params *p, const struct kd_param *item,
                          int64_t first, enum kd_dtype *dtype)
{
    bool matrix = item->kind == KD_PARAM_WEIGHT || item->kind == KD_PARAM_EMBED ||
                  item->kind == KD_PARAM_POS || item->kind == KD_PARAM_SINUSOID;

    *dtype = matrix ? p->dtype : KD_F32;
    return *dtype == KD_F32 ? (void *)(p->values + first) : p->rounded + first;
}

int kd_params_alloc_grads(struct kd_params *p)
{
    if (!p->grads)
        return alloc_zeroed(p, sizeof *p->grads, &p->grads);
    return p->be->ops->zero(p->be, p->grads, (size_t)p->n_slab * sizeof *p->grads);
}

int kd_params_download(const struct kd_params *p, int index, float *out)
{
    const struct kd_param *it = &p->items[index];

    return p->be->ops->download(p->be, out, p->values + it->offset,
                                (size_t)it->count * sizeof(float));
}

int kd_params_upload(struct kd_params *p, int index, const float *in)
{
    const struct kd_param *it = &p->items[index];

    KD_TRY(p->be->ops->upload(p->be, p->values + it->offset, in,
                              (size_t)it->count * sizeof(float)));
    return round_range(p, it->offset, it->count);
}
