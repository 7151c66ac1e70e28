/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the CUDA backend share, in C and in CUDA C++: the backend's state,
 * error checks, scratch memory, and the functions behind the slots.
 *
 * The table is in cuda.c; each slot is an `extern "C"` launcher beside its kernels in a
 * .cu file, so that the C compiler checks the table's types.  A launcher puts work on
 * the one stream and returns; only download and sync wait.  Launchers get valid
 * shapes, empty ones included, and return early for those: a grid of 0 is an error. */
#ifndef KDHPC_CUDA_IMPL_H
#define KDHPC_CUDA_IMPL_H

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "kdhpc/tensor/backend.h"

enum {
    CUDA_STAGE_BYTES = 1 << 20, /* one chunk of pinned memory */
    CUDA_STAGES = 8,
    CUDA_RESULT_BYTES = 1 << 18, /* pinned memory for small results */
};

struct cuda_blas;   /* products, see gemm.c */
struct cuda_graphs; /* recorded work, see graph.c */

/* Host memory that uploads pass through, so that they need not wait for the stream:
 * chunks in a ring, each with an event behind its last copy. */
struct cuda_staging {
    char *data; /* pinned, [CUDA_STAGES, CUDA_STAGE_BYTES] */
    cudaEvent_t done[CUDA_STAGES];
    int chunk;   /* the one being filled */
    size_t used; /* of it */
};

struct cuda {
    struct kd_backend base;
    int device;
    int n_sm;            /* multiprocessors */
    size_t shared_bytes; /* most dynamic shared memory of a block that asks for it */
    bool tf32;           /* float32 products may round their inputs to TF32 */
    cudaStream_t stream;
    void *scratch;
    size_t scratch_bytes;
    void *
        result; /* pinned, CUDA_RESULT_BYTES: what a slot copies back before it waits */
    struct cuda_staging staging;
    struct cuda_blas *blas;
    struct cuda_graphs *graphs;
};

static inline struct cuda *cuda_of(struct kd_backend *be)
{
    return (struct cuda *)be->impl;
}

static inline cudaStream_t cuda_stream(struct kd_backend *be)
{
    return cuda_of(be)->stream;
}

static inline bool cuda_drops(const struct kd_dropout *d)
{
    return d && d->p > 0.0f;
}

/** KD_OK, or one clear line that says what failed while doing WHAT ("uploading", "the
 * kernel of gather_rows").  KD_ENOMEM where memory ran out, else KD_EINTERNAL. */
int cuda_check(cudaError_t error, const char *what) KD_MUST_CHECK;

/** The launch just made by KD_LAUNCH was accepted; call it once behind the launches of
 * a slot, WHAT is the slot's name. */
int cuda_check_launch(const char *what) KD_MUST_CHECK;

/** *OUT = BYTES of device memory, 256-byte aligned, with unknown contents, until the
 * next call: one per slot.  Kept and grown from call to call; growing waits for the
 * stream, so it happens in the first steps only.  KD_ENOMEM. */
int cuda_scratch(struct kd_backend *be, size_t bytes, void **out) KD_MUST_CHECK;

/** Let KERNEL have BYTES of dynamic shared memory where that is more than 48 KiB; call
 * before its launch.  Cheap. */
int cuda_allow_shared(const void *kernel, size_t bytes) KD_MUST_CHECK;

/** What gemm.c keeps, opened and closed with the backend. */
int cuda_blas_open(struct cuda *cuda) KD_MUST_CHECK;
void cuda_blas_close(struct cuda *cuda);

/** Recorded work, opened and closed with the backend; forget drops what is recorded,
 * when nothing of it runs. */
int cuda_graphs_open(struct cuda *cuda) KD_MUST_CHECK;
void cuda_graphs_close(struct cuda *cuda);
void cuda_graphs_forget(struct cuda *cuda);

/** y = act(x + bias): what follows a product that has no epilogue for it.  X and Y are
 * [m, n] windows, of any of the two types each, and may be the same; BIAS [n] or NULL.
 * Local. */
int cuda_bias_act(struct kd_backend *be, enum kd_act act, const float *bias,
                  struct kd_mat x, struct kd_mat y) KD_MUST_CHECK;

/** C = beta C, without reading C for beta 0. */
int cuda_scale_mat(struct kd_backend *be, float beta, struct kd_mat c) KD_MUST_CHECK;

/** OUT[n] = X[n] as bfloat16. */
int cuda_round(struct kd_backend *be, const float *x, uint16_t *out,
               int64_t n) KD_MUST_CHECK;

/* The slots, by file: graph.c, gemm.c. */
int cuda_graph_begin(struct kd_backend *be, const struct kd_graph_key *key, bool *done);
int cuda_graph_end(struct kd_backend *be, bool ok);
void cuda_graph_drop(struct kd_backend *be);
int cuda_gemm(struct kd_backend *be, const struct kd_gemm *g);

/* attention.cu, attention_back.cu, attention_cached.cu */
int cuda_attention(struct kd_backend *be, const struct kd_attention *a);
int cuda_attention_back(struct kd_backend *be, const struct kd_attention *a,
                        struct kd_mat dout, struct kd_mat dq, struct kd_mat dk,
                        struct kd_mat dv, float *dbias);
int cuda_attention_cached(struct kd_backend *be, const struct kd_attention_cached *a);

/* pointwise.cu */
int cuda_add(struct kd_backend *be, struct kd_tensor x, struct kd_tensor y,
             struct kd_tensor out);
int cuda_axpy(struct kd_backend *be, float alpha, struct kd_tensor x,
              struct kd_tensor y);
int cuda_scale(struct kd_backend *be, float alpha, struct kd_tensor x);
int cuda_act(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
             struct kd_tensor y);
int cuda_act_back(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                  struct kd_tensor dy, struct kd_tensor dx);
int cuda_glu(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
             struct kd_tensor y);
int cuda_glu_back(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                  struct kd_tensor dy, struct kd_tensor dpre);
int cuda_dropout(struct kd_backend *be, const struct kd_dropout *d, struct kd_tensor x,
                 struct kd_tensor out, bool acc);
int cuda_cast(struct kd_backend *be, struct kd_tensor src, struct kd_tensor dst);

/* norm.cu */
int cuda_norm(struct kd_backend *be, const struct kd_norm *norm, struct kd_tensor x,
              struct kd_tensor sub, const struct kd_dropout *drop, struct kd_tensor sum,
              struct kd_tensor y, float *stats);
int cuda_norm_back(struct kd_backend *be, const struct kd_norm *norm,
                   struct kd_tensor sum, const float *stats, struct kd_tensor dy,
                   struct kd_tensor dsum, const struct kd_dropout *drop,
                   struct kd_tensor dx, bool acc_dx, struct kd_tensor dsub,
                   float *dgamma, float *dbeta);

/* embed.cu */
int cuda_gather_rows(struct kd_backend *be, struct kd_tensor table, const int32_t *ids,
                     float scale, struct kd_tensor pos, const int32_t *pos_ids,
                     struct kd_tensor out);
int cuda_scatter_add_rows(struct kd_backend *be, struct kd_tensor dx,
                          const int32_t *ids, int32_t skip_id, float scale,
                          float *table, int64_t table_rows);

/* reduce.cu, topk.cu */
int cuda_col_sum(struct kd_backend *be, struct kd_mat x, float *out, bool acc);
int cuda_log_softmax(struct kd_backend *be, float *x, int64_t rows, int64_t cols);
int cuda_log_sum(struct kd_backend *be, const float *x, int64_t rows, int64_t cols,
                 float *sums);
int cuda_topk(struct kd_backend *be, const float *x, const float *sums, int64_t rows,
              int64_t cols, int64_t k, float *values, int32_t *columns);
int cuda_sum_sq(struct kd_backend *be, const struct kd_span *spans, int64_t n_spans,
                double *out);

/* generate.cu */
int cuda_edit_scores(struct kd_backend *be, float *x, int64_t rows, int64_t cols,
                     const struct kd_score_edits *e);
int cuda_advance_slots(struct kd_backend *be, const struct kd_slot_step *s);
int cuda_sample(struct kd_backend *be, const struct kd_sample *s);

/* loss.cu */
int cuda_vocab_loss(struct kd_backend *be, const struct kd_vocab_loss *l);
int cuda_mse_rows(struct kd_backend *be, struct kd_tensor s, struct kd_tensor t,
                  const float *row_mask, bool normalize, float w, double *rows_out,
                  struct kd_tensor ds, bool acc);

/* optim.cu */
int cuda_adamw(struct kd_backend *be, const struct kd_adamw *a);
int cuda_adafactor(struct kd_backend *be, const struct kd_adafactor *a);

#ifdef __cplusplus
}
#endif

#endif
