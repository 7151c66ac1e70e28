/* SPDX-License-Identifier: Apache-2.0 */
/* The update.
 *
 * What decides (clipping, skipping, the rate) is computed from reduced scalars, so it
 * is the same on every rank, whether each holds all summed gradients or, with ZeRO, a
 * part.  Scalars are reduced twice: first the losses and the vote, while the device is
 * still at work, since nobody may wait for sums that another rank failed to start; then
 * the norm, which is known when the device is done.  That is the one wait of an update
 * on a device; with ZeRO on plane nccl the gathered values are the second. */
#include "kdhpc/train/trainer.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/signal.h"
#include "kdhpc/comm/watchdog.h"

#include <math.h>
#include <stdlib.h>

static const double clip_eps = 1e-6; /* torch.nn.utils.clip_grad_norm_ */

struct kd_trainer {
    struct kd_comm *comm;
    struct kd_params *params;
    struct kd_trainer_options o;
    struct kd_optim *optim;
    struct kd_gradsync *sync;
    bool sharded;
    struct kd_span *spans; /* [n_spans] gradients that this rank owns, if sharded */
    int64_t n_spans;
    double *sum_sq; /* [1], backend memory */
    int64_t skipped, skipped_in_a_row;
};

static int new_local(struct kd_trainer *t)
{
    struct kd_params *ps = t->params;
    int64_t n;
    const struct kd_part *owned = kd_gradsync_owned(t->sync, &n);
    void *mem = NULL;

    t->sharded = owned != NULL;
    KD_TRY(kd_calloc(n, sizeof *t->spans, &t->spans));
    for (int64_t i = 0; i < n; i++)
        t->spans[t->n_spans++] =
            (struct kd_span){ps->grads + owned[i].first, owned[i].count};
    KD_TRY(ps->be->ops->alloc(ps->be, sizeof *t->sum_sq, &mem));
    t->sum_sq = mem;
    return kd_optim_new(ps, &t->o.optim, owned, n, &t->optim);
}

int kd_trainer_new(struct kd_comm *comm, struct kd_params *params,
                   const struct kd_trainer_options *o, struct kd_trainer **out)
{
    struct kd_trainer *t = NULL;
    int rc = KD_OK;

    KD_ALL_GO(comm, kd_calloc(1, sizeof *t, &t));
    t->comm = comm;
    t->params = params;
    t->o = *o;
    KD_GO(kd_gradsync_new(comm, params,
                          o->bucket_bytes ? o->bucket_bytes : KD_BUCKET_BYTES, o->zero,
                          &t->sync));
    KD_ALL_GO(comm, new_local(t));
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
    if (t->sum_sq)
        t->params->be->ops->free(t->params->be, t->sum_sq);
    free(t->spans);
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

/* Start the sum of the squares of the gradients that this rank is to count: all, and
 * then they are the same on every rank, or its own. */
static int start_norm(struct kd_trainer *t)
{
    struct kd_params *ps = t->params;
    struct kd_span all = {ps->grads, ps->n_slab};

    return ps->be->ops->sum_sq(ps->be, t->sharded ? t->spans : &all,
                               t->sharded ? t->n_spans : 1, t->sum_sq);
}

/* The norm of the summed gradient, the same bits on every rank.  Here an update waits
 * for the device.  Collective. */
static int finish_norm(struct kd_trainer *t, double *norm)
{
    struct kd_backend *be = t->params->be;
    double v[2] = {0}; /* sum of squares, failed */
    int rc = kd_comm_wait(t->comm, be);

    rc = rc ? rc : be->ops->download(be, v, t->sum_sq, sizeof *v);
    if (!t->sharded && kd_comm_rank(t->comm) > 0)
        v[0] = 0;
    v[1] = rc != KD_OK;
    KD_TRY(kd_allreduce_f64(t->comm, v, 2, KD_SUM));
    if (v[1] > 0)
        return kd_agree(t->comm, rc);
    *norm = sqrt(v[0]);
    return KD_OK;
}

/* Whether to go on, at what rate: the same on every rank. */
static int decide(struct kd_trainer *t, int64_t step, bool finite, struct kd_update *u)
{
    u->lr =
        t->o.learning_rate * kd_schedule_at(t->o.schedule, step - 1, t->o.warmup_steps,
                                            t->o.total_steps, t->o.learning_rate);
    u->skipped = !finite || !isfinite(u->grad_norm);
    if (!u->skipped) {
        t->skipped_in_a_row = 0;
        return KD_OK;
    }
    t->skipped++;
    if (++t->skipped_in_a_row <= t->o.max_skipped_steps)
        return KD_OK;
    return KD_FAIL(KD_ENUMERIC,
                   "loss or gradient is not finite at step %lld, after %lld skipped "
                   "updates in a row (--max_skipped_steps); lower --learning_rate or "
                   "set --max_grad_norm",
                   (long long)step, (long long)t->skipped_in_a_row - 1);
}

/* The optimiser's step, and with ZeRO the values of the others.  These are gathered in
 * float32: so the masters are whole on every rank after every update, for whoever reads
 * them (norms and biases, validation, files), and the rounded values are made from them
 * here.  Collective. */
static int apply(struct kd_trainer *t, int64_t step, const struct kd_update *u)
{
    double scale = 1;
    int rc;

    if (t->o.max_grad_norm > 0)
        scale = fmin(1.0, t->o.max_grad_norm / (u->grad_norm + clip_eps));
    rc = kd_optim_step(t->optim, u->lr, scale, step - t->skipped);
    if (!t->sharded)
        return kd_agree(t->comm, rc);
    KD_TRY(kd_gradsync_gather(t->sync, t->params->values));
    rc = rc ? rc : kd_params_refresh(t->params);
    rc = rc ? rc : kd_transfer_status(t->comm);
    KD_ALL(t->comm, rc);
    return kd_agree(t->comm, kd_comm_wait(t->comm, t->params->be));
}

int kd_trainer_update(struct kd_trainer *t, int64_t step, int64_t n_micro,
                      kd_micro_fn micro, void *arg, struct kd_update *out)
{
    double sums[KD_MAX_TERMS + 2] = {0}; /* terms, failed, stop */
    bool finite = true;
    int rc;

    *out = (struct kd_update){0};
    rc = local_gradients(t, n_micro, micro, arg, sums);
    KD_TRY(kd_gradsync_finish(t->sync));
    rc = rc ? rc : start_norm(t);
    rc = rc ? rc : kd_transfer_status(t->comm);
    sums[KD_MAX_TERMS] = rc != KD_OK;
    sums[KD_MAX_TERMS + 1] = kd_stop_requested();
    KD_TRY(kd_allreduce_f64(t->comm, sums, KD_MAX_TERMS + 2, KD_SUM));
    if (sums[KD_MAX_TERMS] > 0)
        return kd_agree(t->comm, rc);
    for (int i = 0; i < KD_MAX_TERMS; i++) {
        out->terms[i] = sums[i];
        finite = finite && isfinite(sums[i]);
    }
    out->stop = sums[KD_MAX_TERMS + 1] > 0;
    KD_TRY(finish_norm(t, &out->grad_norm));
    KD_TRY(decide(t, step, finite, out));
    return out->skipped ? KD_OK : apply(t, step, out);
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
