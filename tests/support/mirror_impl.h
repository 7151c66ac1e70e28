/* SPDX-License-Identifier: Apache-2.0 */
/* Inside the mirror: a call on its way, and the slots of mirror_generate.c. */
#ifndef KDHPC_MIRROR_IMPL_H
#define KDHPC_MIRROR_IMPL_H

#include "mirror_backend.h"

enum { MOST_REGIONS = 24 };

struct mirror {
    struct kd_backend base;
    struct kd_backend *inner;
    enum mirror_type type;
    struct mirror_memory *memory;
};

struct touched {
    const struct mirror_region *region;
    void *dev;
    void *shadow;     /* on the device, or NULL */
    uint16_t *before; /* what the shadow was, [bytes / 4] */
};

struct call {
    struct mirror *m;
    struct touched t[MOST_REGIONS];
    int n, rc;
};

/** A call begins; host pointers and matrices as the device has them; run it and bring
 * home what it touched. */
struct call mirror_begin(struct kd_backend *be);
void *mirror_plain(struct call *c, const void *p);
struct kd_mat mirror_mat(struct call *c, struct kd_mat m);
int mirror_back(struct call *c, int rc) KD_MUST_CHECK;

int mirror_graph_begin(struct kd_backend *be, const struct kd_graph_key *key,
                       bool *done);
int mirror_graph_end(struct kd_backend *be, bool ok);
void mirror_graph_drop(struct kd_backend *be);
int mirror_attention_cached(struct kd_backend *be, const struct kd_attention_cached *a);
int mirror_advance_slots(struct kd_backend *be, const struct kd_slot_step *s);
int mirror_log_softmax(struct kd_backend *be, float *x, int64_t rows, int64_t cols);
int mirror_log_sum(struct kd_backend *be, const float *x, int64_t rows, int64_t cols,
                   float *sums);
int mirror_topk(struct kd_backend *be, const float *x, const float *sums, int64_t rows,
                int64_t cols, int64_t k, float *values, int32_t *columns);
int mirror_edit_scores(struct kd_backend *be, float *x, int64_t rows, int64_t cols,
                       const struct kd_score_edits *e);
int mirror_sample(struct kd_backend *be, const struct kd_sample *s);

#endif
