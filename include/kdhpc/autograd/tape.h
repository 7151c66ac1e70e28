/* SPDX-License-Identifier: Apache-2.0 */
/* A small eager tape.
 *
 * An op computes at once and, if a tape is set and an input needs a gradient, records a
 * node whose back function adds to the gradients of its inputs.  Frozen parts thus cost
 * nothing.  Gradients of activations come from a pool inside the tape and return to it
 * as soon as the node that made the value has run, so backward needs a few buffers
 * only, not a copy of the forward pass.  The values of the nodes that have run are
 * given to that pool too: after backward the results of recorded ops are gone.
 * Gradients of parameters are views of the gradient slab, zeroed by its owner.
 *
 * Values of a pass have one compute type, the context's; the gradient of an activation
 * has the type of its value, the gradient of a parameter is float32 whatever type the
 * parameter is read in. */
#ifndef KDHPC_AUTOGRAD_TAPE_H
#define KDHPC_AUTOGRAD_TAPE_H

#include "kdhpc/tensor/arena.h"

struct kd_tape;

/** A value and, where wanted, its gradient. */
struct kd_var {
    struct kd_tensor v;
    struct kd_tensor g; /* data NULL until the first contribution (activations); float32
                           slab view (parameters) */
    const uint16_t *rounded; /* a parameter's values in bfloat16 where its model
                                computes in that; or NULL */
    bool needs_grad;
    bool is_param;   /* g is a slab view; contributions always add */
    bool g_live;     /* g holds a contribution: the next one adds */
    int32_t pending; /* recorded nodes that will still contribute; 0 after backward */
};

/** Called when the gradient of parameter P is complete. */
typedef int (*kd_param_ready_fn)(void *arg, struct kd_var *p);

/* A tap publishes an inner value by name, e.g. "enc.3.out", "dec.0.in", to whoever
 * asked. */
struct kd_tap {
    char name[24];
    struct kd_var *var; /* set by the model; in the arena */
};

struct kd_taps {
    int n;
    struct kd_tap *items;
    struct kd_var *keep; /* [n], or NULL: where kd_taps_keep copies what was published,
                            so that its own memory may go */
};

/** Sums of losses whose rows are still in backend memory, in the order of their ops;
 * kd_later_wait brings them.  Zero-initialise. */
struct kd_later {
    struct kd_row_sums *first, *last; /* in the arena */
};

/** What every op needs to know. */
struct kd_ctx {
    struct kd_backend *be;
    struct kd_arena *arena;
    struct kd_tape *tape;   /* NULL: no gradient */
    bool train;             /* dropout on */
    uint64_t seed;          /* of dropout */
    uint32_t step;          /* of dropout */
    struct kd_taps *taps;   /* NULL: none asked for */
    enum kd_dtype dtype;    /* of activations: KD_F32 (the default), KD_BF16 */
    bool recompute;         /* with a tape: layers are made again in backward */
    struct kd_later *later; /* where losses leave their sums; NULL: they wait */
};

/** A new var over V in CTX's arena, without a gradient yet.  Local. */
int kd_var_new(struct kd_ctx *ctx, struct kd_tensor v, bool needs_grad,
               struct kd_var **out) KD_MUST_CHECK;

/** A tape over BE, which is borrowed; *OUT is freed by kd_tape_free.  Local.
 * KD_ENOMEM. */
int kd_tape_new(struct kd_backend *be, struct kd_tape **out) KD_MUST_CHECK;
void kd_tape_free(struct kd_tape *t);

/** Forget all nodes (their memory was the arena's) and return pooled gradients.  Local.
 */
void kd_tape_reset(struct kd_tape *t);

/** Run the recorded nodes backwards.  Gradients of the losses were seeded by their ops
 * (a loss op knows its weight), so there is no root.  READY may be NULL.  Local. */
int kd_tape_backward(struct kd_tape *t, kd_param_ready_fn ready,
                     void *arg) KD_MUST_CHECK;

size_t kd_tape_peak_bytes(const struct kd_tape *t); /* of the gradient pool */

/** Publish VAR as "STACK.LAYER.WHAT" ("STACK.WHAT" if LAYER < 0) if a tap asks for it.
 * Local. */
void kd_tap(struct kd_ctx *ctx, const char *stack, int layer, const char *what,
            struct kd_var *var);

/** Copy what was published since the last call to its place in TAPS->keep, if there is
 * one; the tap then holds the copy.  TAPS may be NULL.  Local. */
int kd_taps_keep(struct kd_backend *be, struct kd_taps *taps) KD_MUST_CHECK;

/** The published var, or NULL.  Local. */
struct kd_var *kd_taps_find(const struct kd_taps *taps, const char *name);

#endif
