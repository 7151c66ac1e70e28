/* SPDX-License-Identifier: Apache-2.0 */
/* First values of parameters: random ones for a new model, and the tables of sinusoidal
 * positions, which checkpoints leave out as often as not. */
#include "model_impl.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Table X [rows, d]: sines, then cosines, column by column, which have one frequency.
 * FSMT's has a row of zeros for padding, the last before the first position. */
static void sinusoids(const struct kd_arch *a, const struct kd_param *p, float *x)
{
    int64_t d = p->shape[1], half = d / 2, sines = d - half;
    bool t2t = a->positions == KD_POS_SINUSOID_T2T;

    for (int64_t k = 0; k < sines; k++) {
        double rate = t2t ? expf((float)k * -(float)(log(10000.0) / (double)(half - 1)))
                          : pow(10000.0, 2.0 * (double)k / (double)d);

        for (int64_t r = 0; r < p->shape[0]; r++) {
            double angle = t2t ? (double)((float)r * (float)rate) : (double)r / rate;

            x[r * d + k] = (float)sin(angle);
            if (k < half)
                x[r * d + sines + k] = (float)cos(angle);
        }
    }
    if (t2t && a->pos_offset > 0)
        memset(x + (a->pos_offset - 1) * d, 0, (size_t)d * sizeof *x);
}

void kd_model_positions(const struct kd_model *m, int index, float *out)
{
    sinusoids(&m->arch, &m->params.items[index], out);
}

int kd_model_fill_positions(struct kd_model *m)
{
    int rc = KD_OK;

    for (int i = 0; i < m->params.n && !rc; i++) {
        const struct kd_param *p = &m->params.items[i];
        float *x = NULL;

        if (p->kind != KD_PARAM_SINUSOID)
            continue;
        KD_TRY(kd_calloc(p->count, sizeof *x, &x));
        sinusoids(&m->arch, p, x);
        rc = kd_params_upload(&m->params, i, x);
        rc = rc ? rc : m->be->ops->sync(m->be);
        free(x);
    }
    return rc;
}

static void init_values(const struct kd_model *m, int index, uint64_t seed, float *x)
{
    const struct kd_param *p = &m->params.items[index];
    enum kd_slot slot = m->places[index].slot;
    double std =
        m->family->init_std ? m->family->init_std(&m->arch, slot) : m->arch.init_std;
    int n_threads = m->be->n_threads > 0 ? m->be->n_threads : 1;

    if (p->kind == KD_PARAM_NORM) {
        for (int64_t i = 0; i < p->count; i++)
            x[i] = 1;
        return;
    }
    if (p->kind == KD_PARAM_SINUSOID) {
        sinusoids(&m->arch, p, x);
        return;
    }
    if ((p->kind == KD_PARAM_BIAS && p->ndim == 1) || p->kind == KD_PARAM_BUFFER) {
        memset(x, 0, (size_t)p->count * sizeof *x);
        return;
    }
#pragma omp parallel for schedule(static) num_threads(n_threads)
    for (int64_t i = 0; i < p->count; i++)
        x[i] = (float)(std *
                       kd_rng_normal(seed, KD_RNG_INIT, (uint64_t)index, (uint64_t)i));
    if (p->kind == KD_PARAM_EMBED && m->arch.padding_row >= 0)
        memset(x + m->arch.padding_row * p->shape[1], 0,
               (size_t)p->shape[1] * sizeof *x);
}

int kd_model_init(struct kd_model *m, uint64_t seed)
{
    float *x = NULL;
    int64_t largest = 0;
    int rc = KD_OK;

    for (int i = 0; i < m->params.n; i++)
        if (m->params.items[i].count > largest)
            largest = m->params.items[i].count;
    KD_TRY(kd_calloc(largest, sizeof *x, &x));
    for (int i = 0; i < m->params.n; i++) {
        init_values(m, i, seed, x);
        KD_GO(kd_params_upload(&m->params, i, x));
    }
    rc = m->be->ops->sync(m->be);
out:
    free(x);
    return rc;
}
