/* SPDX-License-Identifier: Apache-2.0 */
/* Optimisers over the parameter slab.
 *
 * AdamW walks ranges: neighbouring parameters that share "decays or not" are one range,
 * so a step is a few long vector loops.  Its moments exist for these ranges only, not
 * for frozen parameters, and, if the state is sharded, not for what other ranks own:
 * they are packed one range after the other, at the slab's alignment.  Adafactor keeps
 * row and column means per matrix, packed in one array.  State to and from checkpoints
 * is in optim_state.c. */
#include "optim_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>

enum { ALIGN_VALUES = 16 }; /* 64 bytes of float32, 32 of bfloat16: see kd_adamw */

/* No decay on biases and norms; transformers 4.1 decayed the norms, whose names it
 * missed. */
static bool decays(const struct kd_param *p, bool compat)
{
    return p->kind != KD_PARAM_BIAS && (compat || p->kind != KD_PARAM_NORM);
}

/* Add COUNT values from OFFSET on, or extend the last range by them. */
static int add_range(struct kd_optim *opt, int64_t offset, int64_t count, bool d)
{
    struct kd_optim_range *last =
        opt->n_ranges > 0 ? &opt->ranges[opt->n_ranges - 1] : NULL;
    int64_t at = opt->n_state;

    if (last && last->decays == d && last->offset + last->count == offset) {
        last->count += count;
        opt->n_state += count;
        return KD_OK;
    }
    KD_TRY(kd_grow(&opt->ranges, &opt->cap_ranges, opt->n_ranges + 1, sizeof *last));
    at += (offset % ALIGN_VALUES - at % ALIGN_VALUES + ALIGN_VALUES) % ALIGN_VALUES;
    opt->ranges[opt->n_ranges++] = (struct kd_optim_range){offset, count, at, d};
    opt->n_state = at + count;
    return KD_OK;
}

/* What this rank owns of the trainable parameters.  Both lists ascend. */
static int find_ranges(struct kd_optim *opt, const struct kd_part *owned,
                       int64_t n_owned)
{
    const struct kd_params *ps = opt->params;
    int64_t first = 0;

    for (int i = 0; i < ps->n; i++) {
        const struct kd_param *p = &ps->items[i];
        struct kd_optim_range all = {.offset = p->offset, .count = p->count};

        while (first < n_owned && owned[first].first + owned[first].count <= p->offset)
            first++;
        for (int64_t k = first; !p->frozen && k < n_owned; k++) {
            int64_t begin,
                n = kd_optim_overlap(&all, owned[k].first,
                                     owned[k].first + owned[k].count, &begin);

            if (owned[k].first >= p->offset + p->count)
                break;
            if (n > 0)
                KD_TRY(add_range(opt, begin, n, decays(p, opt->o.compat)));
        }
    }
    return KD_OK;
}

static bool is_matrix(const struct kd_param *p)
{
    return p->ndim == 2 && p->shape[0] > 0 && p->shape[1] > 0;
}

static int find_factors(struct kd_optim *opt)
{
    const struct kd_params *ps = opt->params;

    KD_TRY(kd_calloc(ps->n, sizeof *opt->factors, &opt->factors));
    for (int i = 0; i < ps->n; i++) {
        const struct kd_param *p = &ps->items[i];

        if (p->frozen)
            continue;
        opt->factors[opt->n_factors++] =
            (struct kd_optim_factors){opt->n_state, opt->n_state + p->shape[0], i};
        opt->n_state += is_matrix(p) ? p->shape[0] + p->shape[1] : p->count;
    }
    return KD_OK;
}

static int alloc_zeroed(struct kd_optim *opt, void **out)
{
    struct kd_backend *be = opt->params->be;
    size_t bytes = (size_t)(opt->n_state + 1) * kd_dtype_bytes(opt->o.moments);

    KD_TRY(be->ops->alloc(be, bytes, out));
    return be->ops->zero(be, *out, bytes);
}

static int plan(struct kd_optim *opt, const struct kd_part *owned, int64_t n_owned)
{
    struct kd_part whole = {0, opt->params->n_slab};

    if (!opt->o.adafactor) {
        opt->n_whole = opt->params->n_slab;
        return find_ranges(opt, owned ? owned : &whole, owned ? n_owned : 1);
    }
    if (owned || opt->o.moments != KD_F32)
        return KD_FAIL(KD_EINTERNAL, "Adafactor's state is whole and in float32");
    KD_TRY(find_factors(opt));
    opt->n_whole = opt->n_state;
    KD_TRY(kd_calloc(1, sizeof *opt->ranges, &opt->ranges));
    opt->ranges[opt->n_ranges++] = (struct kd_optim_range){.count = opt->n_state};
    return KD_OK;
}

int kd_optim_new(struct kd_params *params, const struct kd_optim_options *o,
                 const struct kd_part *owned, int64_t n_owned, struct kd_optim **out)
{
    struct kd_optim *opt = NULL;
    int rc = KD_OK;

    KD_GO(kd_calloc(1, sizeof *opt, &opt));
    opt->params = params;
    opt->o = *o;
    opt->shared = owned != NULL;
    KD_GO(plan(opt, owned, n_owned));
    if (!o->adafactor)
        KD_GO(alloc_zeroed(opt, &opt->m));
    KD_GO(alloc_zeroed(opt, &opt->v));
    *out = opt;
    return KD_OK;
out:
    kd_optim_free(opt);
    return rc;
}

void kd_optim_free(struct kd_optim *opt)
{
    if (!opt)
        return;
    struct kd_backend *be = opt->params->be;

    if (opt->m)
        be->ops->free(be, opt->m);
    if (opt->v)
        be->ops->free(be, opt->v);
    free(opt->ranges);
    free(opt->factors);
    free(opt);
}

int64_t kd_optim_bytes(const struct kd_optim *opt)
{
    return (opt->m ? 2 : 1) * (opt->n_state + 1) *
           (int64_t)kd_dtype_bytes(opt->o.moments);
}

/* Place AT of a state array in backend memory. */
static void *state_at(const struct kd_optim *opt, void *state, int64_t at)
{
    return (char *)state + (size_t)at * kd_dtype_bytes(opt->o.moments);
}

static int adamw_step(struct kd_optim *opt, double lr, double grad_scale, int64_t step)
{
    struct kd_params *ps = opt->params;

    for (int64_t i = 0; i < opt->n_ranges; i++) {
        const struct kd_optim_range *r = &opt->ranges[i];
        struct kd_adamw a = {.param = ps->values + r->offset,
                             .copy =
                                 opt->shared ? NULL : kd_params_rounded(ps, r->offset),
                             .m = state_at(opt, opt->m, r->at),
                             .v = state_at(opt, opt->v, r->at),
                             .moments = opt->o.moments,
                             .grad = ps->grads + r->offset,
                             .n = r->count,
                             .step = step,
                             .first = r->offset,
                             .seed = opt->o.seed,
                             .lr = lr,
                             .beta1 = 0.9,
                             .beta2 = 0.999,
                             .eps = opt->o.eps,
                             .weight_decay = r->decays ? opt->o.weight_decay : 0,
                             .grad_scale = grad_scale,
                             .hf_order = opt->o.compat};

        KD_TRY(ps->be->ops->adamw(ps->be, &a));
    }
    return KD_OK;
}

/* Constants of the references: eps 1e-30, clip 1.0, decay rate -0.8. */
static int adafactor_step(struct kd_optim *opt, double lr, double grad_scale,
                          int64_t step)
{
    struct kd_params *ps = opt->params;
    float *state = opt->v;

    for (int i = 0; i < opt->n_factors; i++) {
        const struct kd_optim_factors *f = &opt->factors[i];
        const struct kd_param *p = &ps->items[f->param];
        bool matrix = is_matrix(p);
        struct kd_adafactor a = {.param = ps->values + p->offset,
                                 .copy = kd_params_rounded(ps, p->offset),
                                 .grad = ps->grads + p->offset,
                                 .row = state + f->row,
                                 .col = matrix ? state + f->col : NULL,
                                 .rows = matrix ? p->shape[0] : p->count,
                                 .cols = matrix ? p->shape[1] : 1,
                                 .step = step,
                                 .factored = matrix,
                                 .lr = lr,
                                 .eps = 1e-30,
                                 .clip_threshold = 1.0,
                                 .decay_rate = -0.8,
                                 .weight_decay =
                                     decays(p, opt->o.compat) ? opt->o.weight_decay : 0,
                                 .grad_scale = grad_scale};

        KD_TRY(ps->be->ops->adafactor(ps->be, &a));
    }
    return KD_OK;
}

int kd_optim_step(struct kd_optim *opt, double lr, double grad_scale, int64_t step)
{
    return opt->o.adafactor ? adafactor_step(opt, lr, grad_scale, step)
                            : adamw_step(opt, lr, grad_scale, step);
}
