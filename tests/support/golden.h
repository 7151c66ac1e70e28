/* SPDX-License-Identifier: Apache-2.0 */
/* A golden fixture in memory: a tiny model (and its teacher), ragged inputs, and what
 * the reference library computed.  See tests/golden/make_bart.py. */
#ifndef KDHPC_TESTS_GOLDEN_H
#define KDHPC_TESTS_GOLDEN_H

#include "kdhpc/base/json.h"
#include "kdhpc/base/str.h"
#include "kdhpc/model/model.h"
#include "kdhpc/store/safetensors.h"

struct golden {
    struct kd_backend *be;
    struct kd_arena *arena;
    struct kd_model *model, *teacher;
    struct kd_json *facts;         /* golden.json */
    struct kd_safetensors *expect; /* logits, gradients */
    struct kd_batch batch;
    int64_t *src_offsets, *tgt_offsets;
    int32_t *src_ids, *src_pos, *dec_ids, *labels, *tgt_pos;
};

/** Read fixture NAME; fails the test if it cannot. */
void golden_open(const char *name, struct golden *g);
void golden_close(struct golden *g);

/** A tensor of the expectations as float32, count into N (may be NULL); free() it. */
float *golden_tensor(const struct golden *g, const char *name, int64_t *n);

/** golden.json: number at KEY, or at OBJECT.KEY. */
double golden_number(const struct golden *g, const char *object, const char *key);

/** Load weights of DIR into a model made from its config. */
struct kd_model *golden_model(struct kd_backend *be, const char *dir);

#endif
