/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters of a model: which there are, where they lie, which vars see them.
 *
 * Registration walks the slots of the family in order, once to count and name, so the
 * table, the slab and the vars cannot disagree.  A parameter starts on a 64-byte
 * boundary unless it continues a packed group (k after q, v after k).  A parameter has
 * one var, however often it is used (the shared table), so that the tape can tell when
 * its gradient is complete. */
#include "model_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>

enum { ALIGN = 64 / sizeof(float) };

/* ---- registration ---- */

static bool slot_exists(const struct kd_model *m, enum kd_slot slot, int stack)
{
    const struct kd_arch *a = &m->arch;

    if (!m->family->names[slot])
        return false;
    switch (slot) {
    case KD_SLOT_EMBED:
        return a->shared_embed;
    case KD_SLOT_STACK_EMBED:
        return !a->shared_embed;
    case KD_SLOT_HEAD:
        return !a->tied_head;
    case KD_SLOT_FC1:
    case KD_SLOT_FC1_B:
        return !a->gated;
    case KD_SLOT_GATE:
    case KD_SLOT_GATED:
        return a->gated;
    case KD_SLOT_LOGITS_BIAS:
        return a->logits_bias;
    case KD_SLOT_EMB_NORM:
    case KD_SLOT_EMB_NORM_B:
        return a->emb_norm;
    case KD_SLOT_FINAL_NORM:
    case KD_SLOT_FINAL_NORM_B:
        return a->final_norm;
    default:
        return stack == KD_DEC || slot < KD_SLOT_CROSS_Q || slot > KD_SLOT_CROSS_NORM_B;
    }
}

static bool slot_continues(enum kd_slot slot)
{
    return slot == KD_SLOT_SELF_K || slot == KD_SLOT_SELF_V ||
           slot == KD_SLOT_SELF_K_B || slot == KD_SLOT_SELF_V_B ||
           slot == KD_SLOT_CROSS_V || slot == KD_SLOT_CROSS_V_B ||
           slot == KD_SLOT_GATED;
}

static void set_shape(struct kd_param *p, enum kd_param_kind kind, int ndim,
                      int64_t rows, int64_t cols)
{
    p->kind = kind;
    p->ndim = ndim;
    p->shape[0] = rows;
    p->shape[1] = cols;
    p->count = rows * cols;
    p->frozen = kd_param_is_constant(p);
}

/* A weight or bias of a layer. */
static void shape_in_layer(const struct kd_arch *a, struct kd_place place,
                           struct kd_param *p)
{
    bool enc = place.stack == KD_ENC;
    int64_t d = a->d_model, ffn = enc ? a->ffn_enc : a->ffn_dec,
            heads = enc ? a->n_heads_enc : a->n_heads_dec,
            inner = a->head_dim ? heads * a->head_dim : d;

    switch (place.slot) {
    case KD_SLOT_FC1:
    case KD_SLOT_GATE:
    case KD_SLOT_GATED:
        set_shape(p, KD_PARAM_WEIGHT, 2, ffn, d);
        return;
    case KD_SLOT_FC1_B:
        set_shape(p, KD_PARAM_BIAS, 1, ffn, 1);
        return;
    case KD_SLOT_FC2:
        set_shape(p, KD_PARAM_WEIGHT, 2, d, ffn);
        return;
    case KD_SLOT_SELF_Q:
    case KD_SLOT_SELF_K:
    case KD_SLOT_SELF_V:
    case KD_SLOT_CROSS_Q:
    case KD_SLOT_CROSS_K:
    case KD_SLOT_CROSS_V:
        set_shape(p, KD_PARAM_WEIGHT, 2, inner, d);
        return;
    case KD_SLOT_SELF_O:
    case KD_SLOT_CROSS_O:
        set_shape(p, KD_PARAM_WEIGHT, 2, d, inner);
        return;
    case KD_SLOT_SELF_Q_B:
    case KD_SLOT_SELF_K_B:
    case KD_SLOT_SELF_V_B:
    case KD_SLOT_CROSS_Q_B:
    case KD_SLOT_CROSS_K_B:
    case KD_SLOT_CROSS_V_B:
        set_shape(p, KD_PARAM_BIAS, 1, inner, 1);
        return;
    default: /* biases of width d, those of norms too */
        set_shape(p, KD_PARAM_BIAS, 1, d, 1);
        return;
    }
}

static void shape_of(const struct kd_arch *a, struct kd_place place, struct kd_param *p)
{
    bool enc = place.stack == KD_ENC;
    int64_t d = a->d_model;

    switch (place.slot) {
    case KD_SLOT_EMBED:
        set_shape(p, KD_PARAM_EMBED, 2, a->vocab_size, d);
        return;
    case KD_SLOT_STACK_EMBED:
        set_shape(p, KD_PARAM_EMBED, 2, enc ? a->source_vocab_size : a->vocab_size, d);
        return;
    case KD_SLOT_HEAD:
        set_shape(p, KD_PARAM_WEIGHT, 2, a->vocab_size, d);
        return;
    case KD_SLOT_LOGITS_BIAS:
        set_shape(p, KD_PARAM_BUFFER, 2, 1, a->vocab_size);
        return;
    case KD_SLOT_POS:
        set_shape(p, a->positions == KD_POS_LEARNED ? KD_PARAM_POS : KD_PARAM_SINUSOID,
                  2, a->max_positions + a->pos_offset, d);
        return;
    case KD_SLOT_DISTANCES: /* a bias in all but its shape, read in float32 */
        set_shape(p, KD_PARAM_BIAS, 2, a->n_distances,
                  enc ? a->n_heads_enc : a->n_heads_dec);
        return;
    case KD_SLOT_EMB_NORM:
    case KD_SLOT_FINAL_NORM:
    case KD_SLOT_SELF_NORM:
    case KD_SLOT_CROSS_NORM:
    case KD_SLOT_FFN_NORM:
        set_shape(p, KD_PARAM_NORM, 1, d, 1);
        return;
    default:
        shape_in_layer(a, place, p);
        return;
    }
}

static int add_param(struct kd_model *m, struct kd_place place)
{
    struct kd_params *ps = &m->params;
    struct kd_param *p = &ps->items[ps->n];

    if (!slot_exists(m, place.slot, place.stack))
        return KD_OK;
    KD_TRY(kd_model_slot_name(m->family, place, p->name));
    p->part = place.slot == KD_SLOT_HEAD ? KD_PART_DECODER
              : place.stack < 0          ? KD_PART_SHARED
              : place.stack == KD_ENC    ? KD_PART_ENCODER
                                         : KD_PART_DECODER;
    shape_of(&m->arch, place, p);
    if (!slot_continues(place.slot))
        ps->n_slab = (ps->n_slab + ALIGN - 1) / ALIGN * ALIGN;
    p->offset = ps->n_slab;
    ps->n_slab += p->count;
    m->places[ps->n++] = place;
    return KD_OK;
}

int kd_model_register(struct kd_model *m)
{
    int64_t bound = KD_SLOT_COUNT * (int64_t)(3 + m->arch.n_enc + m->arch.n_dec);

    KD_TRY(kd_calloc(bound, sizeof *m->params.items, &m->params.items));
    KD_TRY(kd_calloc(bound, sizeof *m->places, &m->places));
    for (int s = KD_SLOT_EMBED; s <= KD_SLOT_LOGITS_BIAS; s++)
        KD_TRY(add_param(m, (struct kd_place){(enum kd_slot)s, -1, -1}));
    for (int stack = KD_ENC; stack <= KD_DEC; stack++) {
        int n = stack == KD_ENC ? m->arch.n_enc : m->arch.n_dec;

        for (int s = KD_SLOT_STACK_EMBED; s <= KD_SLOT_FINAL_NORM_B; s++)
            KD_TRY(add_param(m, (struct kd_place){(enum kd_slot)s, stack, -1}));
        for (int l = 0; l < n; l++)
            for (int s = KD_SLOT_SELF_Q; s < KD_SLOT_COUNT; s++)
                KD_TRY(add_param(m, (struct kd_place){(enum kd_slot)s, stack, l}));
    }
    m->params.n_slab = (m->params.n_slab + ALIGN - 1) / ALIGN * ALIGN;
    return KD_OK;
}

/* ---- vars ---- */

static int index_of(const struct kd_model *m, struct kd_place place)
{
    for (int i = 0; i < m->params.n; i++)
        if (m->places[i].slot == place.slot && m->places[i].stack == place.stack &&
            m->places[i].layer == place.layer)
            return i;
    return -1;
}

/* Make V a view of N adjacent parameters from PLACE on, without the first SKIP rows; a
 * slot that this architecture lacks leaves V empty. */
static int bind_var(struct kd_model *m, struct kd_var *v, struct kd_place place, int n,
                    int64_t skip)
{
    int first = index_of(m, place);
    const struct kd_param *p = &m->params.items[first < 0 ? 0 : first];
    int64_t offset = p->offset + skip * p->shape[1];
    enum kd_dtype dtype;
    void *data;

    if (first < 0)
        return KD_OK;
    KD_TRY(kd_grow(&m->bindings, &m->cap_bindings, m->n_bindings + 1,
                   sizeof *m->bindings));
    m->bindings[m->n_bindings++] = (struct kd_binding){v, first, n, offset};
    data = kd_params_read_from(&m->params, p, offset, &dtype);
    if (p->ndim == 1)
        v->v = kd_tensor1(data, dtype, p->shape[0] * n);
    else
        v->v = kd_tensor2(data, dtype, p->shape[0] * n - skip, p->shape[1]);
    v->g = v->v;
    v->g.dtype = KD_F32;
    v->g.data = NULL;
    v->rounded = kd_params_rounded(&m->params, offset);
    v->is_param = true;
    return KD_OK;
}

static int bind_pair(struct kd_model *m, struct kd_var *first, struct kd_var *second,
                     enum kd_slot slot, enum kd_slot slot_b, int stack, int layer,
                     int n)
{
    KD_TRY(bind_var(m, first, (struct kd_place){slot, stack, layer}, n, 0));
    return bind_var(m, second, (struct kd_place){slot_b, stack, layer}, n, 0);
}

static int bind_layer(struct kd_model *m, int stack, int l)
{
    struct kd_layer *y = &m->stacks[stack].layers[l];
    const struct {
        struct kd_var *first, *second;
        enum kd_slot slot, slot_b;
        int n;
    } pairs[] = {
        {&y->qkv.w, &y->qkv.b, KD_SLOT_SELF_Q, KD_SLOT_SELF_Q_B, 3},
        {&y->self_o.w, &y->self_o.b, KD_SLOT_SELF_O, KD_SLOT_SELF_O_B, 1},
        {&y->cross_q.w, &y->cross_q.b, KD_SLOT_CROSS_Q, KD_SLOT_CROSS_Q_B, 1},
        {&y->cross_kv.w, &y->cross_kv.b, KD_SLOT_CROSS_K, KD_SLOT_CROSS_K_B, 2},
        {&y->cross_o.w, &y->cross_o.b, KD_SLOT_CROSS_O, KD_SLOT_CROSS_O_B, 1},
        {&y->fc1.w, &y->fc1.b, KD_SLOT_FC1, KD_SLOT_FC1_B, 1},
        {&y->gate.w, &y->gate.b, KD_SLOT_GATE, KD_SLOT_FC1_B, 2},
        {&y->fc2.w, &y->fc2.b, KD_SLOT_FC2, KD_SLOT_FC2_B, 1},
        {&y->self_norm.gamma, &y->self_norm.beta, KD_SLOT_SELF_NORM,
         KD_SLOT_SELF_NORM_B, 1},
        {&y->cross_norm.gamma, &y->cross_norm.beta, KD_SLOT_CROSS_NORM,
         KD_SLOT_CROSS_NORM_B, 1},
        {&y->ffn_norm.gamma, &y->ffn_norm.beta, KD_SLOT_FFN_NORM, KD_SLOT_FFN_NORM_B,
         1},
    };

    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        KD_TRY(bind_pair(m, pairs[i].first, pairs[i].second, pairs[i].slot,
                         pairs[i].slot_b, stack, l, pairs[i].n));
    return KD_OK;
}

static int bind_stack(struct kd_model *m, int which)
{
    const struct kd_arch *a = &m->arch;
    struct kd_stack *s = &m->stacks[which];

    s->which = which;
    s->n = which == KD_ENC ? a->n_enc : a->n_dec;
    s->n_heads = which == KD_ENC ? a->n_heads_enc : a->n_heads_dec;
    s->ffn = which == KD_ENC ? a->ffn_enc : a->ffn_dec;
    s->head_dim = a->head_dim ? a->head_dim : a->d_model / s->n_heads;
    KD_TRY(kd_calloc(s->n, sizeof *s->layers, &s->layers));
    KD_TRY(bind_var(m, &m->tables[which],
                    (struct kd_place){KD_SLOT_STACK_EMBED, which, -1}, 1, 0));
    s->embed = &m->tables[a->shared_embed ? KD_DEC : which];
    KD_TRY(bind_var(m, &s->distances, (struct kd_place){KD_SLOT_DISTANCES, which, -1},
                    1, 0));
    KD_TRY(bind_var(m, &s->pos, (struct kd_place){KD_SLOT_POS, which, -1}, 1,
                    a->pos_offset));
    KD_TRY(bind_pair(m, &s->emb_norm.gamma, &s->emb_norm.beta, KD_SLOT_EMB_NORM,
                     KD_SLOT_EMB_NORM_B, which, -1, 1));
    KD_TRY(bind_pair(m, &s->final_norm.gamma, &s->final_norm.beta, KD_SLOT_FINAL_NORM,
                     KD_SLOT_FINAL_NORM_B, which, -1, 1));
    for (int l = 0; l < s->n; l++)
        KD_TRY(bind_layer(m, which, l));
    return KD_OK;
}

int kd_model_bind_all(struct kd_model *m)
{
    struct kd_place head = {KD_SLOT_HEAD, -1, -1}, shared = {KD_SLOT_EMBED, -1, -1};

    KD_TRY(bind_var(m, &m->own_head, head, 1, 0));
    KD_TRY(bind_var(m, &m->tables[KD_DEC], shared, 1, 0));
    KD_TRY(bind_stack(m, KD_ENC));
    KD_TRY(bind_stack(m, KD_DEC));
    m->logits_bias = index_of(m, (struct kd_place){KD_SLOT_LOGITS_BIAS, -1, -1});
    return KD_OK;
}

void kd_model_bind(struct kd_model *m)
{
    const struct kd_params *p = &m->params;

    for (int64_t i = 0; i < m->n_bindings; i++) {
        struct kd_binding *b = &m->bindings[i];
        bool frozen = true;

        for (int k = 0; k < b->n; k++)
            frozen = frozen && p->items[b->first + k].frozen;
        b->var->needs_grad = p->grads && !frozen;
        b->var->g.data = b->var->needs_grad ? p->grads + b->offset : NULL;
    }
}
