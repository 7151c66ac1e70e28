/* SPDX-License-Identifier: Apache-2.0 */
/* The mirror's slots of generation. */
#include "mirror_impl.h"

/* Run SLOT of the inner backend with what has been collected, and bring it home. */
#define FORWARD(c, slot, ...)                                                          \
    mirror_back(&(c),                                                                  \
                (c).rc ? (c).rc : (c).m->inner->ops->slot((c).m->inner, __VA_ARGS__))

/* Every call is between copies, so there is nothing to record. */
int mirror_graph_begin(struct kd_backend *be, const struct kd_graph_key *key,
                       bool *done)
{
    (void)be;
    (void)key;
    *done = false;
    return KD_OK;
}

int mirror_graph_end(struct kd_backend *be, bool ok)
{
    (void)be;
    (void)ok;
    return KD_OK;
}

void mirror_graph_drop(struct kd_backend *be)
{
    (void)be;
}

int mirror_attention_cached(struct kd_backend *be, const struct kd_attention_cached *a)
{
    struct call c = mirror_begin(be);
    struct kd_attention_cached x = *a;

    x.q = mirror_mat(&c, a->q);
    x.k = mirror_mat(&c, a->k);
    x.v = mirror_mat(&c, a->v);
    x.out = mirror_mat(&c, a->out);
    x.k_new = mirror_mat(&c, a->k_new);
    x.v_new = mirror_mat(&c, a->v_new);
    x.slots = mirror_plain(&c, a->slots);
    x.step = mirror_plain(&c, a->step);
    x.bias.table.data = mirror_plain(&c, a->bias.table.data);
    return FORWARD(c, attention_cached, &x);
}

int mirror_advance_slots(struct kd_backend *be, const struct kd_slot_step *s)
{
    struct call c = mirror_begin(be);
    struct kd_slot_step x = *s;

    x.slots = mirror_plain(&c, s->slots);
    x.parents = mirror_plain(&c, s->parents);
    x.step = mirror_plain(&c, s->step);
    return FORWARD(c, advance_slots, &x);
}

int mirror_log_softmax(struct kd_backend *be, float *x, int64_t rows, int64_t cols)
{
    struct call c = mirror_begin(be);

    x = mirror_plain(&c, x);
    return FORWARD(c, log_softmax, x, rows, cols);
}

int mirror_log_sum(struct kd_backend *be, const float *x, int64_t rows, int64_t cols,
                   float *sums)
{
    struct call c = mirror_begin(be);

    x = mirror_plain(&c, x);
    sums = mirror_plain(&c, sums);
    return FORWARD(c, log_sum, x, rows, cols, sums);
}

int mirror_topk(struct kd_backend *be, const float *x, const float *sums, int64_t rows,
                int64_t cols, int64_t k, float *values, int32_t *columns)
{
    struct call c = mirror_begin(be);

    x = mirror_plain(&c, x);
    sums = mirror_plain(&c, sums);
    values = mirror_plain(&c, values);
    columns = mirror_plain(&c, columns);
    return FORWARD(c, topk, x, sums, rows, cols, k, values, columns);
}

int mirror_edit_scores(struct kd_backend *be, float *x, int64_t rows, int64_t cols,
                       const struct kd_score_edits *e)
{
    struct call c = mirror_begin(be);
    struct kd_score_edits edits = *e;

    x = mirror_plain(&c, x);
    edits.list = mirror_plain(&c, e->list);
    return FORWARD(c, edit_scores, x, rows, cols, &edits);
}

int mirror_sample(struct kd_backend *be, const struct kd_sample *s)
{
    struct call c = mirror_begin(be);
    struct kd_sample x = *s;

    x.x = mirror_plain(&c, s->x);
    x.u = mirror_plain(&c, s->u);
    x.log_probs = mirror_plain(&c, s->log_probs);
    x.tokens = mirror_plain(&c, s->tokens);
    return FORWARD(c, sample, &x);
}
