/* SPDX-License-Identifier: Apache-2.0 */
/* Optimisers over the parameter slab.
 *
 * AdamW walks ranges: neighbouring parameters that share "decays or not" are one range,
 * so a step is a few long vector loops.  Its moments are slabs of the same layout as
 * the values.  Adafactor keeps row and column means per matrix, packed in one array. */
#include "kdhpc/train/optim.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>

struct range {
    int64_t offset, count;
    bool decays;
};

struct factors {
    int64_t row, col; /* offsets in the state */
    int param;
};

struct kd_optim {
    struct kd_params *params;
    struct kd_optim_options o;
    int n_ranges, n_factors;
    struct range *ranges;
    struct factors *factors;
    int64_t n_state; /* values of each of m, v (AdamW), or of v (Adafactor) */
    float *m, *v;    /* backend memory; m is NULL for Adafactor */
};

/* No decay on biases and norms; transformers 4.1 decayed the norms, whose names it
 * missed. */
static bool decays(const struct kd_param *p, bool compat)
{
    return p->kind != KD_PARAM_BIAS && (compat || p->kind != KD_PARAM_NORM);
}

static int find_ranges(struct kd_optim *opt)
{
    const struct kd_params *ps = opt->params;
    struct range *last = NULL;

    KD_TRY(kd_calloc(ps->n, sizeof *opt->ranges, &opt->ranges));
    for (int i = 0; i < ps->n; i++) {
        const struct kd_param *p = &ps->items[i];
        bool d = decays(p, opt->o.compat);

        if (p->frozen)
            continue;
        if (last && last->decays == d && last->offset + last->count == p->offset) {
            last->count += p->count;
        } else {
            last = &opt->ranges[opt->n_ranges++];
            *last = (struct range){p->offset, p->count, d};
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
            (struct factors){opt->n_state, opt->n_state + p->shape[0], i};
        opt->n_state += is_matrix(p) ? p->shape[0] + p->shape[1] : p->count;
    }
    return KD_OK;
}

static int alloc_zeroed(struct kd_backend *be, int64_t n, float **out)
{
    KD_TRY(be->ops->alloc(be, (size_t)n * sizeof(float), (void **)out));
    return be->ops->zero(be, *out, (size_t)n * sizeof(float));
}

int kd_optim_new(struct kd_params *params, const struct kd_optim_options *o,
                 struct kd_optim **out)
{
    struct kd_optim *opt = NULL;
    int rc = KD_OK;

    KD_GO(kd_calloc(1, sizeof *opt, &opt));
    opt->params = params;
    opt->o = *o;
    if (o->adafactor) {
        KD_GO(find_factors(opt));
    } else {
        KD_GO(find_ranges(opt));
        opt->n_state = params->n_slab;
        KD_GO(alloc_zeroed(params->be, opt->n_state, &opt->m));
    }
    KD_GO(alloc_zeroed(params->be, opt->n_state, &opt->v));
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

static int adamw_step(struct kd_optim *opt, double lr, double grad_scale, int64_t step)
{
    struct kd_params *ps = opt->params;

    for (int i = 0; i < opt->n_ranges; i++) {
        const struct range *r = &opt->ranges[i];
        struct kd_adamw a = {.param = ps->values + r->offset,
                             .copy = kd_params_rounded(ps, r->offset),
                             .m = opt->m + r->offset,
                             .v = opt->v + r->offset,
                             .grad = ps->grads + r->offset,
                             .n = r->count,
                             .step = step,
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

    for (int i = 0; i < opt->n_factors; i++) {
        const struct factors *f = &opt->factors[i];
        const struct kd_param *p = &ps->items[f->param];
        bool matrix = is_matrix(p);
        struct kd_adafactor a = {.param = ps->values + p->offset,
                                 .copy = kd_params_rounded(ps, p->offset),
                                 .grad = ps->grads + p->offset,
                                 .row = opt->v + f->row,
                                 .col = matrix ? opt->v + f->col : NULL,
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

float *kd_optim_state(struct kd_optim *opt, int k, const char **name, int64_t *n)
{
    float *state[] = {opt->v, opt->m};
    static const char *const names[] = {"second_moment", "first_moment"};

    if (k < 0 || k > 1 || !state[k])
        return NULL;
    *name = names[k];
    *n = opt->n_state;
    return state[k];
}
