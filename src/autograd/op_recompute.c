/* SPDX-License-Identifier: Apache-2.0 */
/* A part of the forward pass whose inside is not kept but made again.
 *
 * Forward runs the part on the tape as always, copies its results to memory of their
 * own, and then forgets the nodes and gives the part's memory back.  Backward runs it
 * once more, puts the gradients of the results where they belong, and goes back through
 * the new nodes.  The same calls with the same dropout counters give the same bits, and
 * the nodes run in the order that they had without us, so gradients have the same bits
 * as well.
 *
 * Parameters inside count as pending only while their part is being made again: they
 * are reported then, once, provided that no other part reads them.  Nodes of the second
 * run lend nothing to the pool, because their memory goes when the part is left, and
 * gradients of the inputs do not. */
#include "node.h"

#include <string.h>

struct segment {
    struct kd_segment s;
    struct kd_ctx ctx;
    struct kd_var *in[KD_SEGMENT_INS], *out[KD_SEGMENT_OUTS];
};

/* One run over the inputs as they were: in[1] is a copy, since the run may overwrite
 * it. */
static int run_inside(const struct segment *s, struct kd_ctx *ctx,
                      struct kd_var *in[KD_SEGMENT_INS],
                      struct kd_var *out[KD_SEGMENT_OUTS])
{
    const struct kd_var *given = s->in[1];

    memcpy(in, s->in, sizeof s->in);
    memset(out, 0, sizeof s->out);
    if (given) {
        KD_TRY(kd_op_result(ctx, given->v.shape[0], given->v.shape[1],
                            given->needs_grad, &in[1]));
        KD_TRY(ctx->be->ops->copy(ctx->be, in[1]->v.data, given->v.data,
                                  kd_tensor_bytes(&given->v)));
    }
    return s->s.run(s->s.arg, ctx, in, out);
}

/* ---- backward ---- */

/* The gradient of KEPT is that of INNER, the same value made again. */
static void hand_in(struct kd_var *kept, struct kd_var *inner)
{
    if (!kept || !inner || !kept->g_live)
        return;
    inner->g = kept->g;
    inner->g_live = true;
    kept->g.data = NULL;
    kept->g_live = false;
}

/* The gradient of COPY, if there is one, belongs to GIVEN. */
static int hand_out(struct kd_tape *t, struct kd_var *copy, struct kd_var *given)
{
    if (!given || !copy->g_live)
        return KD_OK;
    KD_TRY(kd_grad_pass(t, copy, given));
    if (copy->g_live)
        kd_pool_give(t, copy->g.data);
    return KD_OK;
}

static int segment_back(struct kd_tape *t, const struct kd_node *node)
{
    const struct segment *s = node->saved;
    struct kd_arena_mark mark = kd_arena_mark(s->ctx.arena);
    struct kd_var *in[KD_SEGMENT_INS], *out[KD_SEGMENT_OUTS];
    struct kd_ctx ctx = s->ctx;
    int64_t first = kd_tape_length(t);
    int rc = KD_OK;

    KD_GO(run_inside(s, &ctx, in, out));
    for (int k = 0; k < s->s.n_out; k++)
        hand_in(s->out[k], out[k]);
    KD_GO(kd_tape_back_inside(t, first));
    KD_GO(hand_out(t, in[1], s->in[1]));
out:
    kd_arena_release(s->ctx.arena, mark);
    return rc;
}

/* ---- forward ---- */

/* Copy the results to S->out, whose memory is there; absent ones become NULL. */
static int keep_results(struct segment *s, struct kd_var *const inner[])
{
    struct kd_backend *be = s->ctx.be;
    const struct kd_tensor *x = &s->in[0]->v;

    for (int k = 0; k < s->s.n_out; k++) {
        if (!inner[k]) {
            s->out[k] = NULL;
            continue;
        }
        KD_TRY(kd_op_check(&s->ctx, "recomputed part", "a result", inner[k],
                           x->shape[0], x->shape[1]));
        KD_TRY(
            be->ops->copy(be, s->out[k]->v.data, inner[k]->v.data, kd_tensor_bytes(x)));
        s->out[k]->needs_grad = inner[k]->needs_grad;
    }
    return KD_OK;
}

static int record(struct segment *s)
{
    struct kd_node node = {.back = segment_back, .saved = s, .always = true};

    memcpy(node.in, s->in, sizeof s->in);
    memcpy(node.out, s->out, sizeof s->out);
    if (s->out[1])
        node.spare = s->out[1]->v;
    return kd_tape_record(s->ctx.tape, &node);
}

/* What outlives the run: closure, argument, room for the results. */
static int prepare(struct kd_ctx *ctx, const struct kd_segment *desc,
                   struct kd_var *const in[KD_SEGMENT_INS], struct segment **out)
{
    struct segment *s;
    void *arg;

    KD_TRY(kd_arena_host(ctx->arena, sizeof *s, &s));
    KD_TRY(kd_arena_host(ctx->arena, desc->arg_bytes, &arg));
    memcpy(arg, desc->arg, desc->arg_bytes);
    s->s = *desc;
    s->s.arg = arg;
    s->ctx = *ctx;
    s->ctx.taps = NULL;
    memcpy(s->in, in, sizeof s->in);
    for (int k = 0; k < desc->n_out; k++)
        KD_TRY(
            kd_op_result(ctx, in[0]->v.shape[0], in[0]->v.shape[1], false, &s->out[k]));
    *out = s;
    return KD_OK;
}

int kd_op_recompute(struct kd_ctx *ctx, const struct kd_segment *desc,
                    struct kd_var *const in[KD_SEGMENT_INS],
                    struct kd_var *out[KD_SEGMENT_OUTS])
{
    int64_t first = kd_tape_length(ctx->tape);
    struct kd_var *used[KD_SEGMENT_INS], *inner[KD_SEGMENT_OUTS];
    struct kd_arena_mark mark;
    struct segment *s;
    bool recorded;
    int rc = KD_OK;

    KD_TRY(prepare(ctx, desc, in, &s));
    mark = kd_arena_mark(ctx->arena);
    KD_GO(run_inside(s, &s->ctx, used, inner));
    KD_GO(keep_results(s, inner));
out:
    recorded = kd_tape_length(ctx->tape) > first;
    kd_tape_forget(ctx->tape, first);
    kd_arena_release(ctx->arena, mark);
    KD_TRY(rc);
    memcpy(out, s->out, sizeof s->out);
    return recorded ? record(s) : KD_OK;
}
