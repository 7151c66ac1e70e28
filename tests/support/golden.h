/* SPDX-License-Identifier: Apache-2.0 */
/* A golden fixture in memory: a tiny model (and its teacher), ragged inputs, and what
 * the reference library computed.  See tests/golden/make_models.py.
 *
 * The same tests run on the CPU backend and, built with GOLDEN_ON_DEVICE, on whatever
 * stands behind kd_backend_cuda; with GOLDEN_BF16 models compute in bfloat16, and tests
 * use the wider of two bounds. */
#ifndef KDHPC_TESTS_GOLDEN_H
#define KDHPC_TESTS_GOLDEN_H

#include "kdhpc/base/json.h"
#include "kdhpc/base/str.h"
#include "kdhpc/model/model.h"
#include "kdhpc/store/safetensors.h"

enum { GOLDEN_DEVICE = 8, GOLDEN_SKIPPED = 77 };

extern const enum kd_dtype golden_dtype; /* that models compute in */

struct golden {
    struct kd_backend *be;
    struct kd_arena *arena;
    struct kd_model *model, *teacher;
    struct kd_json *facts;     /* golden.json */
    struct kd_weights *expect; /* logits, gradients */
    struct kd_batch batch;     /* rows in backend memory */
    int64_t *src_offsets, *tgt_offsets;
    int32_t *src_ids, *src_pos, *dec_ids, *labels, *tgt_pos; /* the same on the host */
    void *device[GOLDEN_DEVICE];
    int n_device;
};

/** Whether there is nothing to run on; main then returns GOLDEN_SKIPPED.  Says so. */
bool golden_no_device(void);

/** The backend under test; fails the test without one. */
struct kd_backend *golden_backend(void);

/** The bound for the compute type under test. */
double golden_bound(double float32, double bfloat16);

/** N values at P in backend memory, copied to the host; free() it. */
float *golden_floats(struct kd_backend *be, const float *p, int64_t n);

/** Read fixture NAME; fails the test if it cannot. */
void golden_open(const char *name, struct golden *g);
void golden_close(struct golden *g);

/** A tensor of the expectations as float32, count into N (may be NULL); free() it. */
float *golden_tensor(const struct golden *g, const char *name, int64_t *n);

/** golden.json: number at KEY, or at OBJECT.KEY. */
double golden_number(const struct golden *g, const char *object, const char *key);

/** Load weights of DIR into a model made from its config, of the type under test. */
struct kd_model *golden_model(struct kd_backend *be, const char *dir);

#endif
