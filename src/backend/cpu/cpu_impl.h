/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the CPU backend share: the parallel loop, scratch memory, dropout
 * masks, and the functions behind the slots.
 *
 * Work is cut into tasks whose number and borders depend on shapes only; threads take
 * tasks as they become free, and whatever tasks have in common is put together in task
 * order afterwards.  So results have the same bits for any number of threads.  Only
 * products may be cut by the number of threads: their bits do not depend on cuts.
 *
 * Activations are float32 here: a slot that meets another type says so (cpu_f32). */
#ifndef KDHPC_CPU_IMPL_H
#define KDHPC_CPU_IMPL_H

#include "kdhpc/tensor/backend.h"

/* One task of a parallel loop; THREAD numbers the scratch it may use. */
typedef void (*cpu_task_fn)(void *arg, int64_t task, int thread);

/** Run FN for tasks 0..N_TASKS-1 on the backend's threads. */
void cpu_for(struct kd_backend *be, int64_t n_tasks, cpu_task_fn fn, void *arg);

/** Make sure that every thread has THREAD_BYTES of scratch and all share SHARED_BYTES;
 * kept and grown from call to call.  KD_ENOMEM. */
int cpu_scratch(struct kd_backend *be, size_t thread_bytes,
                size_t shared_bytes) KD_MUST_CHECK;
void *cpu_thread_scratch(struct kd_backend *be, int thread);
void *cpu_shared_scratch(struct kd_backend *be);

enum {
    CPU_FLAT = 16384, /* values of one task of a pointwise loop */
    CPU_DROP = 512,   /* most columns of one dropout mask */
};

static inline int64_t cpu_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t cpu_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline int64_t cpu_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* Rows of one task of a loop over rows of COLS values. */
static inline int64_t cpu_rows_per_task(int64_t cols)
{
    return cpu_max(1, CPU_FLAT / cpu_max(1, cols));
}

static inline bool cpu_drops(const struct kd_dropout *d)
{
    return d && d->p > 0.0f;
}

/** KD_EINTERNAL unless all types of a call are float32; DTYPES is their bitwise or.  An
 * absent tensor, all zero, is float32. */
int cpu_f32(const char *slot, unsigned dtypes) KD_MUST_CHECK;

/** MASK[n] (room for a multiple of 8) = 0 where columns COL0.. of row ROW are dropped
 * at SITE, else 1 / (1 - p).  COL0 is a multiple of 8, n <= CPU_DROP. */
void cpu_drop_mask(const struct kd_dropout *d, uint32_t site, int64_t row, int64_t col0,
                   int64_t n, float *mask);

/** V[n] = act(V[n] + BIAS[n]) (BIAS may be NULL), PRE[n] (may be NULL) = the value
 * before act. */
void cpu_act_row(enum kd_act act, float *v, const float *bias, float *pre, int64_t n);

/* The slots, by file. */
int cpu_gemm(struct kd_backend *be, const struct kd_gemm *g);

int cpu_attention(struct kd_backend *be, const struct kd_attention *a);
int cpu_attention_back(struct kd_backend *be, const struct kd_attention *a,
                       struct kd_mat dout, struct kd_mat dq, struct kd_mat dk,
                       struct kd_mat dv, float *dbias);
int cpu_attention_cached(struct kd_backend *be, const struct kd_attention_cached *a);

int cpu_add(struct kd_backend *be, struct kd_tensor x, struct kd_tensor y,
            struct kd_tensor out);
int cpu_axpy(struct kd_backend *be, float alpha, struct kd_tensor x,
             struct kd_tensor y);
int cpu_scale(struct kd_backend *be, float alpha, struct kd_tensor x);
int cpu_act(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
            struct kd_tensor y);
int cpu_act_back(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                 struct kd_tensor dy, struct kd_tensor dx);
int cpu_glu(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
            struct kd_tensor y);
int cpu_glu_back(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                 struct kd_tensor dy, struct kd_tensor dpre);
int cpu_dropout(struct kd_backend *be, const struct kd_dropout *d, struct kd_tensor x,
                struct kd_tensor out, bool acc);
int cpu_cast(struct kd_backend *be, struct kd_tensor src, struct kd_tensor dst);

int cpu_norm(struct kd_backend *be, const struct kd_norm *norm, struct kd_tensor x,
             struct kd_tensor sub, const struct kd_dropout *drop, struct kd_tensor sum,
             struct kd_tensor y, float *stats);
int cpu_norm_back(struct kd_backend *be, const struct kd_norm *norm,
                  struct kd_tensor sum, const float *stats, struct kd_tensor dy,
                  struct kd_tensor dsum, const struct kd_dropout *drop,
                  struct kd_tensor dx, bool acc_dx, struct kd_tensor dsub,
                  float *dgamma, float *dbeta);

int cpu_gather_rows(struct kd_backend *be, struct kd_tensor table, const int32_t *ids,
                    float scale, struct kd_tensor pos, const int32_t *pos_ids,
                    struct kd_tensor out);
int cpu_scatter_add_rows(struct kd_backend *be, struct kd_tensor dx, const int32_t *ids,
                         int32_t skip_id, float scale, float *table,
                         int64_t table_rows);

int cpu_col_sum(struct kd_backend *be, struct kd_mat x, float *out, bool acc);
int cpu_log_softmax(struct kd_backend *be, float *x, int64_t rows, int64_t cols);
int cpu_log_sum(struct kd_backend *be, const float *x, int64_t rows, int64_t cols,
                float *sums);
int cpu_topk(struct kd_backend *be, const float *x, const float *sums, int64_t rows,
             int64_t cols, int64_t k, float *values, int32_t *columns);
int cpu_sum_sq(struct kd_backend *be, const struct kd_span *spans, int64_t n_spans,
               double *out);

int cpu_edit_scores(struct kd_backend *be, float *x, int64_t rows, int64_t cols,
                    const struct kd_score_edits *e);
int cpu_advance_slots(struct kd_backend *be, const struct kd_slot_step *s);
int cpu_sample(struct kd_backend *be, const struct kd_sample *s);

int cpu_vocab_loss(struct kd_backend *be, const struct kd_vocab_loss *l);
int cpu_mse_rows(struct kd_backend *be, struct kd_tensor s, struct kd_tensor t,
                 const float *row_mask, bool normalize, float w, double *rows_out,
                 struct kd_tensor ds, bool acc);

int cpu_adamw(struct kd_backend *be, const struct kd_adamw *a);
int cpu_adafactor(struct kd_backend *be, const struct kd_adafactor *a);

#endif
