/* SPDX-License-Identifier: Apache-2.0 */
/* What the ops share with the tape: nodes, gradient buffers, shape checks.
 *
 * Life of a gradient: the first node (in backward order) that contributes to a var
 * takes a buffer from the tape's pool and overwrites it, later ones add; when the node
 * that made the var has run, the buffer goes back.  Parameters own their gradient (a
 * slab view that was zeroed before the step), so every contribution adds.  Gradients of
 * activations have the type of their value, those of parameters are float32.
 *
 * When a node has run, nobody needs the value of out[0], nor its `spare`, any more:
 * everything that reads them was recorded later.  The pool goes on with that memory, so
 * backward needs little beyond what forward left behind. */
#ifndef KDHPC_SRC_AUTOGRAD_NODE_H
#define KDHPC_SRC_AUTOGRAD_NODE_H

#include "kdhpc/autograd/op.h"

enum { KD_NODE_INS = 5, KD_NODE_OUTS = 3 };

/** One recorded op.  Unused places of in and out are NULL. */
struct kd_node {
    /* Add to the gradients of `in` from those of `out`; NULL: the contributions were
     * made in the forward pass. */
    int (*back)(struct kd_tape *t, const struct kd_node *node);
    struct kd_var *in[KD_NODE_INS];
    struct kd_var *out[KD_NODE_OUTS]; /* out[0]'s value is memory of its own */
    void *saved;                      /* closure, in the host part of the arena */
    struct kd_tensor spare; /* arena memory that only `back` reads, or data NULL */
    unsigned params;        /* bit i: in[i] is a parameter; set by kd_tape_record */
    bool always; /* `back` runs even if no output has a gradient: it reports parameters
                  */
};

/** Whether V exists and wants a gradient.  Local. */
static inline bool kd_wants(const struct kd_var *v)
{
    return v && v->needs_grad;
}

/** Append NODE (copied); counts it as pending for each input that wants a gradient.
 * Local.  KD_ENOMEM. */
int kd_tape_record(struct kd_tape *t, const struct kd_node *node) KD_MUST_CHECK;

struct kd_backend *kd_tape_backend(const struct kd_tape *t);

/** Nodes on the tape.  Local. */
int64_t kd_tape_length(const struct kd_tape *t);

/** Take back the nodes from FIRST on, which nobody will run.  Local. */
void kd_tape_forget(struct kd_tape *t, int64_t first);

/** Within kd_tape_backward: run the nodes from FIRST on, which were recorded meanwhile
 * over memory that goes after the call.  Local. */
int kd_tape_back_inside(struct kd_tape *t, int64_t first) KD_MUST_CHECK;

/** Gradient of V for slots that overwrite or add as told: *ACC says which.  Local. */
int kd_grad_open(struct kd_tape *t, struct kd_var *v, struct kd_tensor *g,
                 bool *acc) KD_MUST_CHECK;

/** Gradient of V for slots that can only add: zeroed if this is the first contribution.
 * G's data is NULL if V wants none.  Local. */
int kd_grad_add(struct kd_tape *t, struct kd_var *v, struct kd_tensor *g) KD_MUST_CHECK;

/** Gradient of V for slots that can only overwrite: DST is V's own buffer, or a second
 * one that kd_grad_set_end adds and gives back; it has the type of V's value.  Local.
 */
int kd_grad_set_begin(struct kd_tape *t, struct kd_var *v,
                      struct kd_tensor *dst) KD_MUST_CHECK;
int kd_grad_set_end(struct kd_tape *t, struct kd_var *v,
                    struct kd_tensor dst) KD_MUST_CHECK;

/** BYTES of backend memory from the pool, until given back or kd_tape_reset.  Local.
 * KD_ENOMEM. */
int kd_pool_take(struct kd_tape *t, size_t bytes, void **out) KD_MUST_CHECK;
void kd_pool_give(struct kd_tape *t, const void *scratch);

/** Add OUT's gradient to V's, where OUT's is not needed any more: V takes over the
 * buffer if it has none yet.  Local. */
int kd_grad_pass(struct kd_tape *t, struct kd_var *out, struct kd_var *v) KD_MUST_CHECK;

/** Backward of sum = x + dropout(sub) from SUM's gradient, which may be handed over.
 * Local. */
int kd_back_residual(struct kd_tape *t, struct kd_var *sum,
                     const struct kd_dropout *drop, struct kd_var *x,
                     struct kd_var *sub) KD_MUST_CHECK;

/** A new var [rows, cols] of CTX's compute type for an op's result.  Local. */
int kd_op_result(struct kd_ctx *ctx, int64_t rows, int64_t cols, bool needs_grad,
                 struct kd_var **out) KD_MUST_CHECK;

/** KD_EINTERNAL unless V is a matrix [ROWS, COLS] (-1: any) of CTX's compute type.
 * Local. */
int kd_op_check(const struct kd_ctx *ctx, const char *op, const char *name,
                const struct kd_var *v, int64_t rows, int64_t cols) KD_MUST_CHECK;

/** KD_EINTERNAL unless V is NULL or float32 with COUNT values.  Local. */
int kd_op_check_vector(const char *op, const char *name, const struct kd_var *v,
                       int64_t count) KD_MUST_CHECK;

/** The dropout of probability P at SITE under CTX: p is 0 if not training. */
static inline struct kd_dropout kd_op_drop(const struct kd_ctx *ctx, float p,
                                           uint32_t site, const uint64_t *row_keys)
{
    return (struct kd_dropout){ctx->train ? p : 0.0f, ctx->seed, ctx->step, site,
                               row_keys};
}

#endif
