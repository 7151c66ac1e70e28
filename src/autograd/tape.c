/* SPDX-License-Identifier: Apache-2.0 */
/* The tape: a growing list of nodes and a pool of gradient buffers.
 *
 * Nodes run last to first.  A node none of whose outputs received a gradient is passed
 * over, but still counts down `pending` of its inputs, so that a parameter is reported
 * exactly once: when the last recorded node that reads it has had its turn.
 *
 * The pool hands out the smallest free buffer that fits.  When only smaller ones are
 * free, the largest of them is replaced by one that fits, if it has at least half the
 * size: streams do not turn into inner gradients, which are several times as wide, and
 * leave the next step without a stream.  So there are as many buffers of a size as were
 * ever in use at once, and after the largest batch was seen nothing is allocated any
 * more.  Buffers that a failed or unused pass left in vars come back at kd_tape_reset.
 *
 * During backward the pool also borrows arena memory that the nodes behind it have left
 * (node.h).  Such buffers are never replaced, and are forgotten when backward ends: the
 * arena's owner may then reset it. */
#include "node.h"

#include "kdhpc/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MIN_BUFFER_BYTES = 4096 };

struct buffer {
    void *data;
    size_t cap;
    bool used;
    bool lent; /* by the arena */
};

struct kd_tape {
    struct kd_backend *be;
    struct kd_node *nodes;
    int64_t n, cap;
    struct buffer *pool;
    int64_t n_pool, cap_pool;
    size_t bytes, peak_bytes; /* of the pool */
    /* the backward pass under way */
    kd_param_ready_fn ready;
    void *ready_arg;
    int inside; /* depth of kd_tape_back_inside */
};

int kd_tape_new(struct kd_backend *be, struct kd_tape **out)
{
    KD_TRY(kd_calloc(1, sizeof(**out), out));
    (*out)->be = be;
    return KD_OK;
}

void kd_tape_free(struct kd_tape *t)
{
    if (!t)
        return;
    for (int64_t i = 0; i < t->n_pool; i++) {
        if (t->pool[i].data && !t->pool[i].lent)
            t->be->ops->free(t->be, t->pool[i].data);
    }
    free(t->pool);
    free(t->nodes);
    free(t);
}

size_t kd_tape_peak_bytes(const struct kd_tape *t)
{
    return t->peak_bytes;
}

struct kd_backend *kd_tape_backend(const struct kd_tape *t)
{
    return t->be;
}

/* ---- pool ---- */

/* Round up to one of eight sizes per power of two, so that ragged batches of nearly the
 * same size find the same buffers. */
static size_t size_class(size_t bytes)
{
    size_t step = MIN_BUFFER_BYTES / 8;

    if (bytes <= MIN_BUFFER_BYTES)
        return MIN_BUFFER_BYTES;
    while (step * 16 < bytes)
        step *= 2;
    return (bytes + step - 1) / step * step;
}

/* The smallest free buffer of at least BYTES, or else the largest free one of our own
 * that has at least half of that, or NULL. */
static struct buffer *pool_find(struct kd_tape *t, size_t bytes)
{
    struct buffer *best = NULL;

    for (int64_t i = 0; i < t->n_pool; i++) {
        struct buffer *b = &t->pool[i];

        if (b->used || (b->cap < bytes && (b->lent || b->cap < bytes / 2)))
            continue;
        if (!best || (best->cap < bytes ? b->cap > best->cap
                                        : b->cap >= bytes && b->cap < best->cap))
            best = b;
    }
    return best;
}

static int pool_take(struct kd_tape *t, size_t bytes, void **out)
{
    struct buffer *b = pool_find(t, bytes);

    if (!b) {
        KD_TRY(kd_grow(&t->pool, &t->cap_pool, t->n_pool + 1, sizeof(*t->pool)));
        b = &t->pool[t->n_pool++];
        *b = (struct buffer){NULL, 0, false, false};
    }
    if (!b->data || b->cap < bytes) {
        if (b->data)
            t->be->ops->free(t->be, b->data);
        t->bytes -= b->cap;
        *b = (struct buffer){NULL, 0, false, false};
        KD_TRY(t->be->ops->alloc(t->be, size_class(bytes), &b->data));
        b->cap = size_class(bytes);
        t->bytes += b->cap;
        if (t->bytes > t->peak_bytes)
            t->peak_bytes = t->bytes;
    }
    b->used = true;
    *out = b->data;
    return KD_OK;
}

static void pool_put(struct kd_tape *t, const void *data)
{
    for (int64_t i = 0; i < t->n_pool; i++) {
        if (t->pool[i].data == data)
            t->pool[i].used = false;
    }
}

/* Let the pool use the memory of ARENA_TENSOR, which nobody reads any more. */
static int pool_lend(struct kd_tape *t, const struct kd_tensor *arena_tensor)
{
    size_t bytes = kd_tensor_bytes(arena_tensor);

    if (!arena_tensor->data || bytes == 0)
        return KD_OK;
    KD_TRY(kd_grow(&t->pool, &t->cap_pool, t->n_pool + 1, sizeof(*t->pool)));
    t->pool[t->n_pool++] = (struct buffer){arena_tensor->data, bytes, false, true};
    return KD_OK;
}

/* Forget lent buffers that are not in use. */
static void pool_forget_lent(struct kd_tape *t)
{
    int64_t kept = 0;

    for (int64_t i = 0; i < t->n_pool; i++) {
        if (t->pool[i].used || !t->pool[i].lent)
            t->pool[kept++] = t->pool[i];
    }
    t->n_pool = kept;
}

int kd_pool_take(struct kd_tape *t, size_t bytes, void **out)
{
    return pool_take(t, bytes, out);
}

void kd_pool_give(struct kd_tape *t, const void *scratch)
{
    pool_put(t, scratch);
}

/* ---- gradients ---- */

static int grad_alloc(struct kd_tape *t, struct kd_var *v)
{
    struct kd_tensor g = v->v;

    if (v->is_param || v->g_live)
        return KD_OK;
    KD_TRY(pool_take(t, kd_tensor_bytes(&g), &g.data));
    v->g = g;
    return KD_OK;
}

int kd_grad_open(struct kd_tape *t, struct kd_var *v, struct kd_tensor *g, bool *acc)
{
    KD_TRY(grad_alloc(t, v));
    *acc = v->is_param || v->g_live;
    *g = v->g;
    v->g_live = true;
    return KD_OK;
}

int kd_grad_add(struct kd_tape *t, struct kd_var *v, struct kd_tensor *g)
{
    bool acc;

    g->data = NULL;
    if (!kd_wants(v))
        return KD_OK;
    KD_TRY(kd_grad_open(t, v, g, &acc));
    return acc ? KD_OK : t->be->ops->zero(t->be, g->data, kd_tensor_bytes(g));
}

int kd_grad_set_begin(struct kd_tape *t, struct kd_var *v, struct kd_tensor *dst)
{
    if (!v->is_param && !v->g_live) {
        KD_TRY(grad_alloc(t, v));
        *dst = v->g;
        return KD_OK;
    }
    *dst = v->v;
    return pool_take(t, kd_tensor_bytes(dst), &dst->data);
}

int kd_grad_set_end(struct kd_tape *t, struct kd_var *v, struct kd_tensor dst)
{
    v->g_live = true;
    if (dst.data == v->g.data)
        return KD_OK;
    KD_TRY(t->be->ops->axpy(t->be, 1.0f, dst, v->g));
    pool_put(t, dst.data);
    return KD_OK;
}

int kd_grad_pass(struct kd_tape *t, struct kd_var *out, struct kd_var *v)
{
    if (v->is_param || v->g_live)
        return t->be->ops->axpy(t->be, 1.0f, out->g, v->g);
    v->g = out->g;
    v->g_live = true;
    out->g.data = NULL;
    out->g_live = false;
    return KD_OK;
}

/* ---- nodes ---- */

int kd_tape_record(struct kd_tape *t, const struct kd_node *node)
{
    struct kd_node *mine;

    KD_TRY(kd_grow(&t->nodes, &t->cap, t->n + 1, sizeof(*t->nodes)));
    mine = &t->nodes[t->n++];
    *mine = *node;
    mine->params = 0;
    for (int i = 0; i < KD_NODE_INS; i++) {
        if (!kd_wants(node->in[i])) {
            mine->in[i] = NULL;
            continue;
        }
        mine->in[i]->pending++;
        if (mine->in[i]->is_param)
            mine->params |= 1u << i;
    }
    return KD_OK;
}

static bool node_live(const struct kd_node *node)
{
    for (int i = 0; i < KD_NODE_OUTS; i++) {
        if (node->out[i] && node->out[i]->g_live)
            return true;
    }
    return false;
}

static void release_outputs(struct kd_tape *t, const struct kd_node *node)
{
    for (int i = 0; i < KD_NODE_OUTS; i++) {
        struct kd_var *v = node->out[i];

        if (!v || !v->g_live)
            continue;
        pool_put(t, v->g.data);
        v->g.data = NULL;
        v->g_live = false;
    }
}

/* NODE has had its turn: what only it needed goes to the pool, unless it goes anyway.
 */
static int node_leave(struct kd_tape *t, const struct kd_node *node)
{
    release_outputs(t, node);
    if (t->inside)
        return KD_OK;
    KD_TRY(pool_lend(t, &node->spare));
    return node->out[0] ? pool_lend(t, &node->out[0]->v) : KD_OK;
}

/* Run the nodes from FIRST on.  A node may record others while it runs, and move the
 * list. */
static int run_nodes(struct kd_tape *t, int64_t first)
{
    while (t->n > first) {
        const struct kd_node node = t->nodes[t->n - 1];

        if (node.back && (node.always || node_live(&node)))
            KD_TRY(node.back(t, &node));
        KD_TRY(node_leave(t, &node));
        for (int i = 0; i < KD_NODE_INS; i++) {
            struct kd_var *v = node.in[i];

            if (v && --v->pending == 0 && v->is_param && t->ready)
                KD_TRY(t->ready(t->ready_arg, v));
        }
        t->n--; /* last: a failure above leaves the node to kd_tape_reset */
    }
    return KD_OK;
}

int kd_tape_backward(struct kd_tape *t, kd_param_ready_fn ready, void *arg)
{
    int rc;

    t->ready = ready;
    t->ready_arg = arg;
    t->inside = 0;
    rc = run_nodes(t, 0);
    pool_forget_lent(t);
    return rc;
}

int kd_tape_back_inside(struct kd_tape *t, int64_t first)
{
    int rc;

    t->inside++;
    rc = run_nodes(t, first);
    t->inside--;
    return rc;
}

int64_t kd_tape_length(const struct kd_tape *t)
{
    return t->n;
}

void kd_tape_forget(struct kd_tape *t, int64_t first)
{
    for (int64_t k = first; k < t->n; k++) {
        for (int i = 0; i < KD_NODE_INS; i++) {
            if (t->nodes[k].in[i])
                t->nodes[k].in[i]->pending--;
        }
    }
    t->n = first;
}

void kd_tape_reset(struct kd_tape *t)
{
    /* Parameters outlive the step; other vars may be gone with the arena. */
    for (int64_t k = 0; k < t->n; k++) {
        for (int i = 0; i < KD_NODE_INS; i++) {
            if (t->nodes[k].params & 1u << i)
                t->nodes[k].in[i]->pending = 0;
        }
    }
    t->n = 0;
    for (int64_t i = 0; i < t->n_pool; i++)
        t->pool[i].used = false;
    pool_forget_lent(t);
}

/* ---- vars ---- */

int kd_var_new(struct kd_ctx *ctx, struct kd_tensor v, bool needs_grad,
               struct kd_var **out)
{
    KD_TRY(kd_arena_host(ctx->arena, sizeof(**out), out));
    (*out)->v = v;
    (*out)->needs_grad = needs_grad;
    return KD_OK;
}

int kd_op_result(struct kd_ctx *ctx, int64_t rows, int64_t cols, bool needs_grad,
                 struct kd_var **out)
{
    struct kd_tensor v;

    KD_TRY(kd_arena_tensor(ctx->arena, ctx->dtype, rows, cols, &v));
    return kd_var_new(ctx, v, needs_grad, out);
}

int kd_op_check(const struct kd_ctx *ctx, const char *op, const char *name,
                const struct kd_var *v, int64_t rows, int64_t cols)
{
    const struct kd_tensor *t = &v->v;

    if (t->dtype == ctx->dtype && t->ndim == 2 && (rows < 0 || t->shape[0] == rows) &&
        (cols < 0 || t->shape[1] == cols))
        return KD_OK;
    return KD_FAIL(KD_EINTERNAL,
                   "%s: %s is %s with %d dimensions [%lld, %lld], expected %s "
                   "[%lld, %lld] (-1: any)",
                   op, name, kd_dtype_name(t->dtype), t->ndim, (long long)t->shape[0],
                   (long long)t->shape[1], kd_dtype_name(ctx->dtype), (long long)rows,
                   (long long)cols);
}

int kd_op_check_vector(const char *op, const char *name, const struct kd_var *v,
                       int64_t count)
{
    if (!v || (v->v.dtype == KD_F32 && kd_tensor_count(&v->v) == count))
        return KD_OK;
    return KD_FAIL(KD_EINTERNAL,
                   "%s: %s has %lld values of %s, expected %lld of float32", op, name,
                   (long long)kd_tensor_count(&v->v), kd_dtype_name(v->v.dtype),
                   (long long)count);
}

/* ---- taps ---- */

struct kd_var *kd_taps_find(const struct kd_taps *taps, const char *name)
{
    for (int i = 0; taps && i < taps->n; i++) {
        if (strcmp(taps->items[i].name, name) == 0)
            return taps->items[i].var;
    }
    return NULL;
}

int kd_taps_keep(struct kd_backend *be, struct kd_taps *taps)
{
    for (int i = 0; taps && taps->keep && i < taps->n; i++) {
        struct kd_var **var = &taps->items[i].var, *keep = &taps->keep[i];

        if (!*var || *var == keep)
            continue;
        KD_TRY(be->ops->copy(be, keep->v.data, (*var)->v.data,
                             kd_tensor_bytes(&(*var)->v)));
        *var = keep;
    }
    return KD_OK;
}

void kd_tap(struct kd_ctx *ctx, const char *stack, int layer, const char *what,
            struct kd_var *var)
{
    char name[sizeof(ctx->taps->items->name)];

    if (!ctx->taps)
        return;
    if (layer < 0)
        snprintf(name, sizeof(name), "%s.%s", stack, what);
    else
        snprintf(name, sizeof(name), "%s.%d.%s", stack, layer, what);
    for (int i = 0; i < ctx->taps->n; i++) {
        if (strcmp(ctx->taps->items[i].name, name) == 0)
            ctx->taps->items[i].var = var;
    }
}
