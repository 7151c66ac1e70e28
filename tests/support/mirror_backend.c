/* SPDX-License-Identifier: Apache-2.0 */
/* See mirror_backend.h.  A call collects the regions it touches, with their copies on
 * the device; `back` brings them home.
 *
 * A region that is asked for as bfloat16 has a second copy, its shadow, in which
 * element i stands for float i; only what the call has changed there is written back,
 * so that guards and neighbours keep their bits. */
#include "mirror_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

static struct call begin(struct kd_backend *be)
{
    struct call c = {.m = be->impl};

    return c;
}

static void note(struct call *c, int rc)
{
    c->rc = c->rc ? c->rc : rc;
}

static const struct mirror_region *region_of(const struct mirror_memory *memory,
                                             const void *p)
{
    const char *at = p;

    for (int64_t i = 0; i < memory->n; i++) {
        const struct mirror_region *r = &memory->regions[i];

        if (at >= r->base && at < r->base + r->bytes)
            return r;
    }
    return NULL;
}

static struct touched *touch(struct call *c, const void *p)
{
    const struct mirror_region *r = region_of(c->m->memory, p);
    struct kd_backend *in = c->m->inner;
    struct touched *t = &c->t[c->n];

    for (int i = 0; i < c->n; i++) {
        if (c->t[i].region == r)
            return &c->t[i];
    }
    if (!r || c->n == MOST_REGIONS) {
        note(c, KD_FAIL(KD_EINTERNAL, "a call names memory that no backend gave out"));
        return NULL;
    }
    *t = (struct touched){.region = r};
    c->n++;
    note(c, in->ops->alloc(in, r->bytes, &t->dev));
    if (!c->rc)
        note(c, in->ops->upload(in, t->dev, r->base, r->bytes));
    return t;
}

/* What stands for host pointer P on the device. */
static void *plain(struct call *c, const void *p)
{
    struct touched *t = p ? touch(c, p) : NULL;

    return t && !c->rc ? (char *)t->dev + ((const char *)p - t->region->base) : NULL;
}

static void make_shadow(struct call *c, struct touched *t)
{
    struct kd_backend *in = c->m->inner;
    size_t n = t->region->bytes / sizeof(float);

    note(c, kd_calloc((int64_t)n, sizeof *t->before, &t->before));
    note(c, in->ops->alloc(in, n * sizeof *t->before, &t->shadow));
    if (c->rc)
        return;
    for (size_t i = 0; i < n; i++) {
        float v;

        memcpy(&v, t->region->base + i * sizeof v, sizeof v);
        t->before[i] = kd_f32_to_bf16(v);
    }
    note(c, in->ops->upload(in, t->shadow, t->before, n * sizeof *t->before));
}

static void *shadow(struct call *c, const void *p)
{
    struct touched *t = p ? touch(c, p) : NULL;

    if (t && !t->shadow && !c->rc)
        make_shadow(c, t);
    return t && !c->rc ? (char *)t->shadow + ((const char *)p - t->region->base) / 2
                       : NULL;
}

static bool narrow(const struct call *c, enum kd_dtype dtype)
{
    return c->m->type != MIRROR_F32 && dtype == KD_F32;
}

static struct kd_tensor plain_tensor(struct call *c, struct kd_tensor t)
{
    t.data = plain(c, t.data);
    return t;
}

/* An activation: of the mirror's type. */
static struct kd_tensor tensor(struct call *c, struct kd_tensor t)
{
    if (!narrow(c, t.dtype))
        return plain_tensor(c, t);
    t.data = shadow(c, t.data);
    t.dtype = KD_BF16;
    return t;
}

static struct kd_mat plain_mat(struct call *c, struct kd_mat m)
{
    m.data = plain(c, m.data);
    return m;
}

static struct kd_mat mat(struct call *c, struct kd_mat m)
{
    if (!narrow(c, m.dtype))
        return plain_mat(c, m);
    m.data = shadow(c, m.data);
    m.dtype = KD_BF16;
    return m;
}

/* What the call left in the shadow, where it differs from what was there. */
static void shadow_back(struct call *c, struct touched *t)
{
    struct kd_backend *in = c->m->inner;
    size_t n = t->region->bytes / sizeof(float);
    uint16_t *after = NULL;

    note(c, kd_calloc((int64_t)n, sizeof *after, &after));
    if (!c->rc)
        note(c, in->ops->download(in, after, t->shadow, n * sizeof *after));
    for (size_t i = 0; !c->rc && i < n; i++) {
        float v = kd_bf16_to_f32(after[i]);

        if (after[i] != t->before[i])
            memcpy(t->region->base + i * sizeof v, &v, sizeof v);
    }
    free(after);
}

static int back(struct call *c, int rc)
{
    struct kd_backend *in = c->m->inner;

    note(c, rc);
    for (int i = 0; i < c->n; i++) {
        struct touched *t = &c->t[i];

        if (!c->rc)
            note(c, in->ops->download(in, t->region->base, t->dev, t->region->bytes));
        if (!c->rc && t->shadow)
            shadow_back(c, t);
        in->ops->free(in, t->dev);
        in->ops->free(in, t->shadow);
        free(t->before);
    }
    return c->rc;
}

/* Run SLOT of the inner backend with what has been collected, and bring it home. */
#define FORWARD(c, slot, ...)                                                          \
    back(&(c), (c).rc ? (c).rc : (c).m->inner->ops->slot((c).m->inner, __VA_ARGS__))

static int mirror_alloc(struct kd_backend *be, size_t bytes, void **out)
{
    struct mirror *m = be->impl;
    struct mirror_memory *memory = m->memory;
    void *probe;

    *out = NULL;
    KD_TRY(m->inner->ops->alloc(m->inner, bytes, &probe)); /* it would fit there */
    m->inner->ops->free(m->inner, probe);
    KD_TRY(kd_grow(&memory->regions, &memory->cap, memory->n + 1,
                   sizeof *memory->regions));
    bytes = bytes ? bytes : 1;
    if (posix_memalign(out, 64, bytes))
        return KD_FAIL(KD_ENOMEM, "no host memory for %zu bytes", bytes);
    memory->regions[memory->n++] = (struct mirror_region){*out, bytes};
    return KD_OK;
}

static void mirror_free(struct kd_backend *be, void *p)
{
    struct mirror_memory *memory = ((struct mirror *)be->impl)->memory;

    for (int64_t i = 0; p && i < memory->n; i++) {
        if (memory->regions[i].base == p) {
            memory->regions[i] = memory->regions[--memory->n];
            break;
        }
    }
    free(p);
}

static int mirror_upload(struct kd_backend *be, void *dst, const void *src,
                         size_t bytes)
{
    struct call c = begin(be);
    void *to = plain(&c, dst);

    return FORWARD(c, upload, to, src, bytes);
}

static int mirror_download(struct kd_backend *be, void *dst, const void *src,
                           size_t bytes)
{
    struct call c = begin(be);
    void *from = plain(&c, src);

    return FORWARD(c, download, dst, from, bytes);
}

static int mirror_copy(struct kd_backend *be, void *dst, const void *src, size_t bytes)
{
    struct call c = begin(be);
    void *to = plain(&c, dst), *from = plain(&c, src);

    return FORWARD(c, copy, to, from, bytes);
}

static int mirror_zero(struct kd_backend *be, void *dst, size_t bytes)
{
    struct call c = begin(be);
    void *to = plain(&c, dst);

    return FORWARD(c, zero, to, bytes);
}

static int mirror_sync(struct kd_backend *be)
{
    struct mirror *m = be->impl;

    return m->inner->ops->sync(m->inner);
}

static void *mirror_stream(struct kd_backend *be)
{
    struct mirror *m = be->impl;

    return m->inner->ops->stream(m->inner);
}

static int mirror_mem_info(struct kd_backend *be, size_t *free_bytes,
                           size_t *total_bytes)
{
    struct mirror *m = be->impl;

    return m->inner->ops->mem_info(m->inner, free_bytes, total_bytes);
}

static int mirror_gemm(struct kd_backend *be, const struct kd_gemm *g)
{
    struct call c = begin(be);
    bool wide = c.m->type == MIRROR_MIXED;
    struct kd_gemm x = *g;

    x.a = mat(&c, g->a);
    x.b = mat(&c, g->b);
    x.c = wide ? plain_mat(&c, g->c) : mat(&c, g->c);
    x.pre = wide ? plain_mat(&c, g->pre) : mat(&c, g->pre);
    x.bias = plain(&c, g->bias);
    x.bias_rounded = plain(&c, g->bias_rounded);
    return FORWARD(c, gemm, &x);
}

static int mirror_col_sum(struct kd_backend *be, struct kd_mat x, float *out, bool acc)
{
    struct call c = begin(be);

    x = mat(&c, x);
    out = plain(&c, out);
    return FORWARD(c, col_sum, x, out, acc);
}

static struct kd_dropout dropout_of(struct call *c, const struct kd_dropout *d)
{
    struct kd_dropout x = *d;

    if (d->p != 0.0f)
        x.row_keys = plain(c, d->row_keys);
    return x;
}

static struct kd_attention attention_of(struct call *c, const struct kd_attention *a)
{
    struct kd_attention x = *a;

    x.q = mat(c, a->q);
    x.k = mat(c, a->k);
    x.v = mat(c, a->v);
    x.out = mat(c, a->out);
    x.lse = plain_tensor(c, a->lse);
    x.q_seqs.offsets_dev = plain_tensor(c, a->q_seqs.offsets_dev);
    x.kv_seqs.offsets_dev = plain_tensor(c, a->kv_seqs.offsets_dev);
    x.dropout = dropout_of(c, &a->dropout);
    x.bias.table = plain_tensor(c, a->bias.table);
    return x;
}

static int mirror_attention(struct kd_backend *be, const struct kd_attention *a)
{
    struct call c = begin(be);
    struct kd_attention x = attention_of(&c, a);

    return FORWARD(c, attention, &x);
}

static int mirror_attention_back(struct kd_backend *be, const struct kd_attention *a,
                                 struct kd_mat dout, struct kd_mat dq, struct kd_mat dk,
                                 struct kd_mat dv, float *dbias)
{
    struct call c = begin(be);
    struct kd_attention x = attention_of(&c, a);

    dout = mat(&c, dout);
    dq = mat(&c, dq);
    dk = mat(&c, dk);
    dv = mat(&c, dv);
    dbias = plain(&c, dbias);
    return FORWARD(c, attention_back, &x, dout, dq, dk, dv, dbias);
}

static int mirror_add(struct kd_backend *be, struct kd_tensor x, struct kd_tensor y,
                      struct kd_tensor out)
{
    struct call c = begin(be);

    x = tensor(&c, x);
    y = tensor(&c, y);
    out = tensor(&c, out);
    return FORWARD(c, add, x, y, out);
}

static int mirror_axpy(struct kd_backend *be, float alpha, struct kd_tensor x,
                       struct kd_tensor y)
{
    struct call c = begin(be);

    x = tensor(&c, x);
    y = tensor(&c, y);
    return FORWARD(c, axpy, alpha, x, y);
}

static int mirror_scale(struct kd_backend *be, float alpha, struct kd_tensor x)
{
    struct call c = begin(be);

    x = tensor(&c, x);
    return FORWARD(c, scale, alpha, x);
}

static int mirror_act(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                      struct kd_tensor y)
{
    struct call c = begin(be);

    pre = tensor(&c, pre);
    y = tensor(&c, y);
    return FORWARD(c, act, act, pre, y);
}

static int mirror_act_back(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                           struct kd_tensor dy, struct kd_tensor dx)
{
    struct call c = begin(be);

    pre = tensor(&c, pre);
    dy = tensor(&c, dy);
    dx = tensor(&c, dx);
    return FORWARD(c, act_back, act, pre, dy, dx);
}

static int mirror_glu(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                      struct kd_tensor y)
{
    struct call c = begin(be);

    pre = tensor(&c, pre);
    y = tensor(&c, y);
    return FORWARD(c, glu, act, pre, y);
}

static int mirror_glu_back(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                           struct kd_tensor dy, struct kd_tensor dpre)
{
    struct call c = begin(be);

    pre = tensor(&c, pre);
    dy = tensor(&c, dy);
    dpre = tensor(&c, dpre);
    return FORWARD(c, glu_back, act, pre, dy, dpre);
}

static int mirror_dropout(struct kd_backend *be, const struct kd_dropout *d,
                          struct kd_tensor x, struct kd_tensor out, bool acc)
{
    struct call c = begin(be);
    struct kd_dropout drop = dropout_of(&c, d);

    x = tensor(&c, x);
    out = tensor(&c, out);
    return FORWARD(c, dropout, &drop, x, out, acc);
}

static int mirror_cast(struct kd_backend *be, struct kd_tensor src,
                       struct kd_tensor dst)
{
    struct call c = begin(be);

    src = plain_tensor(&c, src);
    dst = plain_tensor(&c, dst);
    return FORWARD(c, cast, src, dst);
}

static struct kd_norm norm_of(struct call *c, const struct kd_norm *norm)
{
    struct kd_norm x = *norm;

    x.gamma = plain(c, norm->gamma);
    x.beta = plain(c, norm->beta);
    return x;
}

static int mirror_norm(struct kd_backend *be, const struct kd_norm *norm,
                       struct kd_tensor x, struct kd_tensor sub,
                       const struct kd_dropout *drop, struct kd_tensor sum,
                       struct kd_tensor y, float *stats)
{
    struct call c = begin(be);
    struct kd_norm n = norm_of(&c, norm);
    struct kd_dropout d = {0};

    if (drop)
        d = dropout_of(&c, drop);
    x = tensor(&c, x);
    sub = tensor(&c, sub);
    sum = tensor(&c, sum);
    y = tensor(&c, y);
    stats = plain(&c, stats);
    return FORWARD(c, norm, &n, x, sub, drop ? &d : NULL, sum, y, stats);
}

static int mirror_norm_back(struct kd_backend *be, const struct kd_norm *norm,
                            struct kd_tensor sum, const float *stats,
                            struct kd_tensor dy, struct kd_tensor dsum,
                            const struct kd_dropout *drop, struct kd_tensor dx,
                            bool acc_dx, struct kd_tensor dsub, float *dgamma,
                            float *dbeta)
{
    struct call c = begin(be);
    struct kd_norm n = norm_of(&c, norm);
    struct kd_dropout d = {0};

    if (drop)
        d = dropout_of(&c, drop);
    sum = tensor(&c, sum);
    stats = plain(&c, stats);
    dy = tensor(&c, dy);
    dsum = tensor(&c, dsum);
    dx = tensor(&c, dx);
    dsub = tensor(&c, dsub);
    dgamma = plain(&c, dgamma);
    dbeta = plain(&c, dbeta);
    return FORWARD(c, norm_back, &n, sum, stats, dy, dsum, drop ? &d : NULL, dx, acc_dx,
                   dsub, dgamma, dbeta);
}

static int mirror_gather_rows(struct kd_backend *be, struct kd_tensor table,
                              const int32_t *ids, float scale, struct kd_tensor pos,
                              const int32_t *pos_ids, struct kd_tensor out)
{
    struct call c = begin(be);

    table = tensor(&c, table);
    ids = plain(&c, ids);
    pos = tensor(&c, pos);
    pos_ids = plain(&c, pos_ids);
    out = tensor(&c, out);
    return FORWARD(c, gather_rows, table, ids, scale, pos, pos_ids, out);
}

static int mirror_scatter_add_rows(struct kd_backend *be, struct kd_tensor dx,
                                   const int32_t *ids, int32_t skip_id, float scale,
                                   float *table, int64_t table_rows)
{
    struct call c = begin(be);

    dx = tensor(&c, dx);
    ids = plain(&c, ids);
    table = plain(&c, table);
    return FORWARD(c, scatter_add_rows, dx, ids, skip_id, scale, table, table_rows);
}

static int mirror_vocab_loss(struct kd_backend *be, const struct kd_vocab_loss *l)
{
    struct call c = begin(be);
    struct kd_vocab_loss x = *l;

    x.zs = plain_tensor(&c, l->zs);
    x.zt = plain_tensor(&c, l->zt);
    /* in the place of the logits it is float32 */
    x.dz = l->dz.data == l->zs.data ? plain_tensor(&c, l->dz) : tensor(&c, l->dz);
    x.labels = plain(&c, l->labels);
    x.kl_mask = plain(&c, l->kl_mask);
    x.rows_out = plain_tensor(&c, l->rows_out);
    return FORWARD(c, vocab_loss, &x);
}

static int mirror_mse_rows(struct kd_backend *be, struct kd_tensor s,
                           struct kd_tensor t, const float *row_mask, bool normalize,
                           float w, double *rows_out, struct kd_tensor ds, bool acc)
{
    struct call c = begin(be);

    s = tensor(&c, s);
    t = tensor(&c, t);
    row_mask = plain(&c, row_mask);
    rows_out = plain(&c, rows_out);
    ds = tensor(&c, ds);
    return FORWARD(c, mse_rows, s, t, row_mask, normalize, w, rows_out, ds, acc);
}

static int mirror_adamw(struct kd_backend *be, const struct kd_adamw *a)
{
    struct call c = begin(be);
    struct kd_adamw x = *a;

    x.param = plain(&c, a->param);
    x.m = plain(&c, a->m);
    x.v = plain(&c, a->v);
    x.copy = plain(&c, a->copy);
    x.grad = plain(&c, a->grad);
    return FORWARD(c, adamw, &x);
}

static int mirror_adafactor(struct kd_backend *be, const struct kd_adafactor *a)
{
    struct call c = begin(be);
    struct kd_adafactor x = *a;

    x.param = plain(&c, a->param);
    x.copy = plain(&c, a->copy);
    x.grad = plain(&c, a->grad);
    x.row = plain(&c, a->row);
    x.col = plain(&c, a->col);
    return FORWARD(c, adafactor, &x);
}

static int mirror_sum_sq(struct kd_backend *be, const struct kd_span *spans,
                         int64_t n_spans, double *out)
{
    struct call c = begin(be);
    struct kd_span *there = NULL;
    int rc;

    KD_TRY(kd_calloc(n_spans, sizeof *there, &there));
    for (int64_t i = 0; i < n_spans; i++)
        there[i] = (struct kd_span){plain(&c, spans[i].x), spans[i].n};
    out = plain(&c, out);
    rc = FORWARD(c, sum_sq, there, n_spans, out);
    free(there);
    return rc;
}

struct call mirror_begin(struct kd_backend *be)
{
    return begin(be);
}

void *mirror_plain(struct call *c, const void *p)
{
    return plain(c, p);
}

struct kd_mat mirror_mat(struct call *c, struct kd_mat m)
{
    return mat(c, m);
}

int mirror_back(struct call *c, int rc)
{
    return back(c, rc);
}

static void mirror_destroy(struct kd_backend *be)
{
    struct mirror *m = be->impl;

    kd_backend_free(m->inner);
    free(m);
}

static const struct kd_backend_ops mirror_ops = {
    .name = "mirror",
    .destroy = mirror_destroy,
    .alloc = mirror_alloc,
    .free = mirror_free,
    .upload = mirror_upload,
    .download = mirror_download,
    .copy = mirror_copy,
    .zero = mirror_zero,
    .sync = mirror_sync,
    .stream = mirror_stream,
    .mem_info = mirror_mem_info,
    .graph_begin = mirror_graph_begin,
    .graph_end = mirror_graph_end,
    .graph_drop = mirror_graph_drop,
    .gemm = mirror_gemm,
    .col_sum = mirror_col_sum,
    .attention = mirror_attention,
    .attention_back = mirror_attention_back,
    .attention_cached = mirror_attention_cached,
    .advance_slots = mirror_advance_slots,
    .add = mirror_add,
    .axpy = mirror_axpy,
    .scale = mirror_scale,
    .act = mirror_act,
    .act_back = mirror_act_back,
    .glu = mirror_glu,
    .glu_back = mirror_glu_back,
    .dropout = mirror_dropout,
    .cast = mirror_cast,
    .norm = mirror_norm,
    .norm_back = mirror_norm_back,
    .gather_rows = mirror_gather_rows,
    .scatter_add_rows = mirror_scatter_add_rows,
    .log_softmax = mirror_log_softmax,
    .log_sum = mirror_log_sum,
    .topk = mirror_topk,
    .edit_scores = mirror_edit_scores,
    .sample = mirror_sample,
    .vocab_loss = mirror_vocab_loss,
    .mse_rows = mirror_mse_rows,
    .adamw = mirror_adamw,
    .adafactor = mirror_adafactor,
    .sum_sq = mirror_sum_sq,
};

int mirror_backend(struct kd_backend *inner, enum mirror_type type,
                   struct mirror_memory *memory, struct kd_backend **out)
{
    struct mirror *m = NULL;

    *out = NULL;
    KD_TRY(kd_calloc(1, sizeof *m, &m));
    *m = (struct mirror){{&mirror_ops, inner->device, 1, m}, inner, type, memory};
    *out = &m->base;
    return KD_OK;
}

struct kd_backend *mirror_inner(struct kd_backend *be)
{
    return ((struct mirror *)be->impl)->inner;
}

void mirror_memory_free(struct mirror_memory *memory)
{
    for (int64_t i = 0; i < memory->n; i++)
        free(memory->regions[i].base);
    free(memory->regions);
    *memory = (struct mirror_memory){NULL, 0, 0};
}
