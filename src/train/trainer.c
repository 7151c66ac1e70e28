/* SPDX-License-Identifier: Apache-2.0 */
/* The update.  Every rank holds the same gradients after the reduction, bit for bit, so
 * the norm, the decision to skip and the optimiser's work need no further messages. */
#include "kdhpc/train/trainer.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/signal.h"
#include "kdhpc/comm/watchdog.h"

#include <math.h>
#include <stdlib.h>

enum {
    BUCKET_BYTES = 8 << 20
}; /* large enough for bandwidth, small enough to overlap */
static const double clip_eps = 1e-6; /* torch.nn.utils.clip_grad_norm_ */

struct kd_trainer {
    struct kd_comm *comm;
    struct kd_params *params;
    struct kd_trainer_options o;
    struct kd_optim *optim;
    struct kd_gradsync *sync;
    int64_t skipped, skipped_in_a_row;
};

int kd_trainer_new(struct kd_comm *comm, struct kd_params *params,
                   const struct kd_trainer_options *o, struct kd_trainer **out)
{
    struct kd_trainer *t = NULL;
    int rc = KD_OK;

    KD_ALL_GO(comm, kd_calloc(1, sizeof *t, &t));
    t->comm = comm;
    t->params = params;
    t->o = *o;
    KD_ALL_GO(comm, kd_optim_new(params, &o->optim, &t->optim));
    KD_GO(kd_gradsync_new(comm, params, BUCKET_BYTES, &t->sync));
    *out = t;
    return KD_OK;
out:
    kd_trainer_free(t);
    return rc;
}

void kd_trainer_free(struct kd_trainer *t)
{
    if (!t)
        return;
    kd_optim_free(t->optim);
    kd_gradsync_free(t->sync);
    free(t);
}

/* Backward says that a parameter's gradient is complete; SYNC knows ranges of the slab.
 */
static int param_ready(void *arg, struct kd_var *p)
{
    struct kd_trainer *t = arg;

    return kd_gradsync_ready(t->sync, (float *)p->g.data - t->params->grads,
                             kd_tensor_count(&p->g));
}

/* A failed micro-batch does not end the loop: the next one may exchange something that
 * the other ranks wait for. */
static int local_gradients(struct kd_trainer *t, int64_t n_micro, kd_micro_fn micro,
                           void *arg, double *terms)
{
    struct kd_backend *be = t->params->be;
    int rc;

    rc = be->ops->zero(be, t->params->grads, (size_t)t->params->n_slab * sizeof(float));
    for (int64_t i = 0; i < n_micro; i++) {
        bool last = i == n_micro - 1;
        int one;

        kd_heartbeat();
        one = micro(arg, i, last ? param_ready : NULL, t, terms);
        rc = rc ? rc : one;
    }
    return rc ? rc : KD_FAULT("train.micro");
}

/* Local: every rank computes the same from the same gradients. */
static int apply(struct kd_trainer *t, int64_t step, bool finite, struct kd_update *u)
{
    struct kd_params *ps = t->params;
    double sum_sq = 0, scale = 1;

    KD_TRY(ps->be->ops->sum_sq(ps->be, ps->grads, ps->n_slab, &sum_sq));
    u->grad_norm = sqrt(sum_sq);
    u->lr =
        t->o.learning_rate * kd_schedule_at(t->o.schedule, step - 1, t->o.warmup_steps,
                                            t->o.total_steps, t->o.learning_rate);
    u->skipped = !finite || !isfinite(u->grad_norm);
    if (u->skipped) {
        t->skipped++;
        if (++t->skipped_in_a_row > t->o.max_skipped_steps)
            return KD_FAIL(KD_ENUMERIC,
                           "loss or gradient is not finite at step %lld, after %lld "
                           "skipped updates in a row (--max_skipped_steps); lower "
                           "--learning_rate or set --max_grad_norm",
                           (long long)step, (long long)t->skipped_in_a_row - 1);
        return KD_OK;
    }
    t->skipped_in_a_row = 0;
    if (t->o.max_grad_norm > 0)
        scale = fmin(1.0, t->o.max_grad_norm / (u->grad_norm + clip_eps));
    return kd_optim_step(t->optim, u->lr, scale, step - t->skipped);
}

int kd_trainer_update(struct kd_trainer *t, int64_t step, int64_t n_micro,
                      kd_micro_fn micro, void *arg, struct kd_update *out)
{
    double sums[KD_MAX_TERMS + 2] = {0}; /* terms, failed, stop */
    bool finite = true;
    int rc;

    *out = (struct kd_update){0};
    rc = local_gradients(t, n_micro, micro, arg, sums);
    sums[KD_MAX_TERMS] = rc != KD_OK;
    sums[KD_MAX_TERMS + 1] = kd_stop_requested();
    KD_TRY(kd_gradsync_finish(t->sync));
    KD_TRY(kd_allreduce_f64(t->comm, sums, KD_MAX_TERMS + 2, KD_SUM));
    if (sums[KD_MAX_TERMS] > 0)
        return kd_agree(t->comm, rc);
    for (int i = 0; i < KD_MAX_TERMS; i++) {
        out->terms[i] = sums[i];
        finite = finite && isfinite(sums[i]);
    }
    out->stop = sums[KD_MAX_TERMS + 1] > 0;
    return kd_agree(t->comm, apply(t, step, finite, out));
}

struct kd_optim *kd_trainer_optim(struct kd_trainer *t)
{
    return t->optim;
}

int64_t kd_trainer_skipped(const struct kd_trainer *t)
{
    return t->skipped;
}

void kd_trainer_set_skipped(struct kd_trainer *t, int64_t n)
{
    t->skipped = n;
}
