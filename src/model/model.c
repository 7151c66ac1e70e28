/* SPDX-License-Identifier: Apache-2.0 */
/* Making a model: registration of parameters, binding of vars, initial values,
 * freezing.
 *
 * Registration walks the slots of the family in order, once to count and name, so the
 * table, the slab and the vars cannot disagree.  A parameter starts on a 64-byte
 * boundary unless it continues a packed group (k after q, v after k). */
#include "model_impl.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/rng.h"
#include "kdhpc/base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64 / sizeof(float) };

/* ---- names ---- */

int kd_model_slot_name(const struct kd_family *f, struct kd_place place,
                       char out[KD_PARAM_NAME_MAX])
{
    const char *t = f->names[place.slot];
    struct kd_str s = {0};
    int rc = KD_OK;

    for (; t && *t; t++) {
        if (*t == '@')
            KD_GO(
                kd_str_printf(&s, "%s", place.stack == KD_ENC ? "encoder" : "decoder"));
        else if (*t == '#')
            KD_GO(kd_str_printf(&s, "%d", place.layer));
        else
            KD_GO(kd_str_append(&s, t, 1));
    }
    rc = kd_format(out, KD_PARAM_NAME_MAX, "%s", s.data ? s.data : "");
out:
    kd_str_free(&s);
    return rc;
}

/* Name K among N names and the same without the prefix, or NULL. */
static const char *with_and_without_prefix(const char *const *names, int n,
                                           const char *prefix, int k)
{
    size_t len = strlen(prefix);

    if (k < n)
        return names[k];
    k -= n;
    for (int i = 0; i < n; i++)
        if (!strncmp(names[i], prefix, len) && k-- == 0)
            return names[i] + len;
    return NULL;
}

const char *kd_model_param_alias(const struct kd_model *m, int index, int k, char *buf,
                                 size_t buf_bytes)
{
    const struct kd_family *f = m->family;
    const char *own = m->params.items[index].name, *name;
    int n = 1;

    if (m->places[index].slot == KD_SLOT_EMBED) {
        for (n = 0; f->embed_aliases[n];)
            n++;
        name = with_and_without_prefix(f->embed_aliases, n, f->prefix, k);
    } else {
        name = with_and_without_prefix(&own, 1, f->prefix, k);
    }
    if (!name || strlen(name) >= buf_bytes)
        return NULL;
    memcpy(buf, name, strlen(name) + 1);
    return buf;
}

bool kd_model_ignores(const struct kd_model *m, const char *name)
{
    size_t len = strlen(name);

    for (const char *const *e = m->family->ignored; *e; e++)
        if (len >= strlen(*e) && !strcmp(name + len - strlen(*e), *e))
            return true;
    return false;
}

/* ---- registration ---- */

static bool slot_exists(const struct kd_arch *a, enum kd_slot slot, int stack)
{
    switch (slot) {
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
           slot == KD_SLOT_CROSS_V || slot == KD_SLOT_CROSS_V_B;
}

static void set_shape(struct kd_param *p, enum kd_param_kind kind, int ndim,
                      int64_t rows, int64_t cols)
{
    p->kind = kind;
    p->ndim = ndim;
    p->shape[0] = rows;
    p->shape[1] = cols;
    p->count = rows * cols;
    p->frozen = kind == KD_PARAM_BUFFER;
}

static void shape_of(const struct kd_arch *a, struct kd_place place, struct kd_param *p)
{
    int64_t d = a->d_model, ffn = place.stack == KD_ENC ? a->ffn_enc : a->ffn_dec;

    switch (place.slot) {
    case KD_SLOT_EMBED:
        set_shape(p, KD_PARAM_EMBED, 2, a->vocab_size, d);
        return;
    case KD_SLOT_LOGITS_BIAS:
        set_shape(p, KD_PARAM_BUFFER, 2, 1, a->vocab_size);
        return;
    case KD_SLOT_POS:
        set_shape(p, KD_PARAM_POS, 2, a->max_positions + a->pos_offset, d);
        return;
    case KD_SLOT_EMB_NORM:
    case KD_SLOT_FINAL_NORM:
    case KD_SLOT_SELF_NORM:
    case KD_SLOT_CROSS_NORM:
    case KD_SLOT_FFN_NORM:
        set_shape(p, KD_PARAM_NORM, 1, d, 1);
        return;
    case KD_SLOT_FC1:
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
    case KD_SLOT_SELF_O:
    case KD_SLOT_CROSS_Q:
    case KD_SLOT_CROSS_K:
    case KD_SLOT_CROSS_V:
    case KD_SLOT_CROSS_O:
        set_shape(p, KD_PARAM_WEIGHT, 2, d, d);
        return;
    default: /* biases of width d, those of norms too */
        set_shape(p, KD_PARAM_BIAS, 1, d, 1);
        return;
    }
}

static int add_param(struct kd_model *m, struct kd_place place)
{
    struct kd_params *ps = &m->params;
    struct kd_param *p = &ps->items[ps->n];

    if (!slot_exists(&m->arch, place.slot, place.stack))
        return KD_OK;
    KD_TRY(kd_model_slot_name(m->family, place, p->name));
    p->part = place.stack < 0         ? KD_PART_SHARED
              : place.stack == KD_ENC ? KD_PART_ENCODER
                                      : KD_PART_DECODER;
    shape_of(&m->arch, place, p);
    if (!slot_continues(place.slot))
        ps->n_slab = (ps->n_slab + ALIGN - 1) / ALIGN * ALIGN;
    p->offset = ps->n_slab;
    ps->n_slab += p->count;
    m->places[ps->n++] = place;
    return KD_OK;
}

static int register_params(struct kd_model *m)
{
    int64_t bound = KD_SLOT_COUNT * (int64_t)(3 + m->arch.n_enc + m->arch.n_dec);

    KD_TRY(kd_calloc(bound, sizeof *m->params.items, &m->params.items));
    KD_TRY(kd_calloc(bound, sizeof *m->places, &m->places));
    for (int s = KD_SLOT_EMBED; s <= KD_SLOT_LOGITS_BIAS; s++)
        KD_TRY(add_param(m, (struct kd_place){(enum kd_slot)s, -1, -1}));
    for (int stack = KD_ENC; stack <= KD_DEC; stack++) {
        int n = stack == KD_ENC ? m->arch.n_enc : m->arch.n_dec;

        for (int s = KD_SLOT_POS; s <= KD_SLOT_FINAL_NORM_B; s++)
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
    KD_TRY(kd_calloc(s->n, sizeof *s->layers, &s->layers));
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

static int bind_all(struct kd_model *m)
{
    struct kd_place embed = {KD_SLOT_EMBED, -1, -1};

    KD_TRY(bind_var(m, &m->embed, embed, 1, 0));
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

/* ---- life ---- */

int kd_model_new(struct kd_backend *be, enum kd_dtype dtype,
                 const struct kd_json *config, struct kd_model **out)
{
    struct kd_model *m = NULL;
    int rc = KD_OK;

    KD_TRY(kd_calloc(1, sizeof *m, &m));
    m->be = m->params.be = be;
    m->config = kd_json_copy(config);
    if (!m->config)
        KD_GO(KD_FAIL(KD_ENOMEM, "no memory for a copy of config.json"));
    KD_GO(kd_arch_parse(m->config, &m->arch, &m->family));
    KD_GO(register_params(m));
    KD_GO(kd_params_alloc(&m->params, dtype));
    KD_GO(bind_all(m));
    *out = m;
    return KD_OK;
out:
    kd_model_free(m);
    return rc;
}

void kd_model_free(struct kd_model *m)
{
    if (!m)
        return;
    kd_params_free(&m->params);
    free(m->places);
    free(m->bindings);
    free(m->stacks[KD_ENC].layers);
    free(m->stacks[KD_DEC].layers);
    kd_json_free(m->config);
    free(m);
}

int kd_model_like(struct kd_model *m, struct kd_backend *be, struct kd_model **out)
{
    KD_TRY(kd_model_new(be, m->params.dtype, m->config, out));
    (*out)->arch = m->arch;
    for (int i = 0; i < m->params.n; i++)
        (*out)->params.items[i].frozen = m->params.items[i].frozen;
    return KD_OK;
}

const struct kd_arch *kd_model_arch(const struct kd_model *m)
{
    return &m->arch;
}

struct kd_params *kd_model_params(struct kd_model *m)
{
    return &m->params;
}

struct kd_json *kd_model_config(struct kd_model *m)
{
    return m->config;
}

const char *kd_model_architecture(const struct kd_model *m)
{
    return m->family->architecture;
}

/* ---- initial values ---- */

static void init_values(const struct kd_model *m, int index, uint64_t seed, float *x)
{
    const struct kd_param *p = &m->params.items[index];
    double std = m->arch.init_std;
    int n_threads = m->be->n_threads > 0 ? m->be->n_threads : 1;

    if (p->kind == KD_PARAM_NORM) {
        for (int64_t i = 0; i < p->count; i++)
            x[i] = 1;
        return;
    }
    if (p->kind == KD_PARAM_BIAS || p->kind == KD_PARAM_BUFFER) {
        memset(x, 0, (size_t)p->count * sizeof *x);
        return;
    }
#pragma omp parallel for schedule(static) num_threads(n_threads)
    for (int64_t i = 0; i < p->count; i++)
        x[i] = (float)(std *
                       kd_rng_normal(seed, KD_RNG_INIT, (uint64_t)index, (uint64_t)i));
    if (p->kind == KD_PARAM_EMBED && m->arch.pad_id >= 0)
        memset(x + m->arch.pad_id * p->shape[1], 0, (size_t)p->shape[1] * sizeof *x);
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

/* ---- training switches ---- */

void kd_model_set_dropout(struct kd_model *m, double dropout, double attention_dropout)
{
    struct kd_arch *a = &m->arch;

    if (!isnan(dropout)) {
        a->p_emb = a->p_resid = (float)dropout;
        if (dropout == 0) /* zero turns every dropout off */
            a->p_attn = a->p_act = 0;
    }
    if (!isnan(attention_dropout))
        a->p_attn = (float)attention_dropout;
}

void kd_model_freeze_encoder(struct kd_model *m)
{
    for (int i = 0; i < m->params.n; i++)
        if (m->params.items[i].part != KD_PART_DECODER)
            m->params.items[i].frozen = true;
}

void kd_model_freeze_embeds(struct kd_model *m)
{
    for (int i = 0; i < m->params.n; i++)
        if (m->params.items[i].kind == KD_PARAM_EMBED ||
            m->params.items[i].kind == KD_PARAM_POS)
            m->params.items[i].frozen = true;
}

void kd_model_freeze_all(struct kd_model *m)
{
    for (int i = 0; i < m->params.n; i++)
        m->params.items[i].frozen = true;
}

bool kd_model_encoder_frozen(const struct kd_model *m)
{
    for (int i = 0; i < m->params.n; i++)
        if (m->params.items[i].part != KD_PART_DECODER && !m->params.items[i].frozen)
            return false;
    return true;
}
