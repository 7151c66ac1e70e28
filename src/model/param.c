/* SPDX-License-Identifier: Apache-2.0 */
/* The parameter slabs: look-up, gradients, and transfer of one parameter.
 *
 * model.c lays the slab out; everything here works on any layout.  Gradients exist only
 * in training, as a second slab of the same shape, so that a parameter's value and
 * gradient have one offset. */
#include "kdhpc/model/param.h"

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
        if (p->items[i].kind != KD_PARAM_BUFFER)
            n += p->items[i].count;
    return n;
}

int kd_params_alloc_grads(struct kd_params *p)
{
    size_t bytes = (size_t)p->n_slab * sizeof(float);
    void *mem;

    if (!p->grads) {
        KD_TRY(p->be->ops->alloc(p->be, bytes, &mem));
        p->grads = mem;
    }
    return p->be->ops->zero(p->be, p->grads, bytes);
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

    return p->be->ops->upload(p->be, p->values + it->offset, in,
                              (size_t)it->count * sizeof(float));
}
