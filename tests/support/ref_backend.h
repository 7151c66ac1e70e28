/* SPDX-License-Identifier: Apache-2.0 */
/* A slow backend that is meant to be obviously correct: plain loops, sums in float64,
 * results rounded once to float32.  It is the oracle of the op tests. */
#ifndef KDHPC_TESTS_REF_BACKEND_H
#define KDHPC_TESTS_REF_BACKEND_H

#include "kdhpc/tensor/backend.h"

/** What a reference backend did with memory. */
struct ref_stats {
    int64_t n_alloc; /* calls so far */
    int64_t n_live;  /* not freed yet */
};

/** A reference backend; memory it hands out is filled with NaN.  *OUT is freed by
 * ref_backend_free, which returns the number of allocations that were not freed. */
int ref_backend_new(struct kd_backend **out) KD_MUST_CHECK;
int64_t ref_backend_free(struct kd_backend *be);

/** Of a backend made by ref_backend_new. */
struct ref_stats ref_backend_stats(const struct kd_backend *be);

/** Multiplier of element (ROW, C) under D: 0 or 1 / (1 - p). */
double ref_dropout_factor(const struct kd_dropout *d, int64_t row, int64_t c);

/** act(x) and its derivative. */
double ref_act(enum kd_act act, double x);
double ref_act_slope(enum kd_act act, double x);

/* The larger slots, in files of their own. */
int ref_attention(struct kd_backend *be, const struct kd_attention *a);
int ref_attention_back(struct kd_backend *be, const struct kd_attention *a,
                       struct kd_mat dout, struct kd_mat dq, struct kd_mat dk,
                       struct kd_mat dv, float *dbias);
int ref_attention_cached(struct kd_backend *be, const struct kd_attention_cached *a);
int ref_vocab_loss(struct kd_backend *be, const struct kd_vocab_loss *l);
int ref_mse_rows(struct kd_backend *be, struct kd_tensor s, struct kd_tensor t,
                 const float *row_mask, bool normalize, float w, double *rows_out,
                 struct kd_tensor ds, bool acc);
int ref_log_softmax(struct kd_backend *be, float *x, int64_t rows, int64_t cols);
int ref_log_sum(struct kd_backend *be, const float *x, int64_t rows, int64_t cols,
                float *sums);
int ref_topk(struct kd_backend *be, const float *x, const float *sums, int64_t rows,
             int64_t cols, int64_t k, float *values, int32_t *columns);
int ref_edit_scores(struct kd_backend *be, float *x, int64_t rows, int64_t cols,
                    const struct kd_score_edits *e);
int ref_advance_slots(struct kd_backend *be, const struct kd_slot_step *s);
int ref_sample(struct kd_backend *be, const struct kd_sample *s);

#endif
