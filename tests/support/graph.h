/* SPDX-License-Identifier: Apache-2.0 */
/* A bench for differentiable ops: leaves with values, a graph over them as a function,
 * and the comparison of its gradients with central differences. */
#ifndef KDHPC_TESTS_GRAPH_H
#define KDHPC_TESTS_GRAPH_H

#include "kdhpc/autograd/op.h"

enum { GRAPH_MAX_LEAVES = 12, GRAPH_MAX_DEVICE = 16 };

struct graph {
    struct kd_backend *be;
    struct kd_arena *arena;
    struct kd_tape *tape;
    struct kd_ctx ctx; /* tape set, training */
    int n_leaves;
    struct kd_var leaf[GRAPH_MAX_LEAVES];
    int n_device;
    void *device[GRAPH_MAX_DEVICE]; /* arrays from graph_upload */
    const void *arg;                /* for the build function */
};

/** Build the graph over G's leaves and return the loss; cmocka assertions on failure.
 */
typedef double (*graph_build_fn)(struct graph *g);

/** Whether there is nothing to run on; main then returns 77.  Says so. */
bool graph_no_device(void);

/** A bench on the reference backend (or the CPU's, or a device's, see graph.c). */
void graph_open(struct graph *g);

/** Free everything; asserts that no reference memory is left. */
void graph_close(struct graph *g);

/** Add leaf [rows, cols] (cols 0: a vector) with fixed pseudo-random values of about
 * SIZE.  Parameters get a zeroed gradient of their own. */
struct kd_var *graph_leaf(struct graph *g, int64_t rows, int64_t cols, bool is_param,
                          double size);

/** BYTES of host memory in backend memory, freed by graph_close. */
void *graph_upload(struct graph *g, const void *src, size_t bytes);

/** Ragged sequences of the given lengths; OFFSETS[n + 1] is filled. */
struct kd_seqs graph_seqs(struct graph *g, int64_t n, const int64_t *lengths,
                          int64_t *offsets);

/** Loss 0.5 sum (y - fixed values)^2, whose gradient is not constant in y. */
double graph_half_square(struct graph *g, struct kd_var *y);

/** Reset tape, arena and the gradients of parameters. */
void graph_reset(struct graph *g);

/** Run BUILD with the tape and compare every leaf's gradient with central differences
 * of step H; TOL is relative to the largest gradient of the leaf. */
void graph_check(struct graph *g, graph_build_fn build, double h, double tol);

/** Element I of a fixed pseudo-random sequence, roughly in [-1, 1]. */
double graph_noise(uint64_t stream, int64_t i);

#endif
