/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors are small values: a pointer, a dtype, a shape.  Row-major and contiguous; a
 * tensor owns nothing (slabs and arenas do) and a slice is a slice of the leading
 * dimension.  A struct kd_mat is a window of columns of a matrix, for the operands of
 * products and attention, where q, k and v are columns of one packed matrix.
 *
 * Batches are ragged: rows of all sequences one after the other, and offsets. */
#ifndef KDHPC_TENSOR_TENSOR_H
#define KDHPC_TENSOR_TENSOR_H

#include "kdhpc/base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum kd_dtype { KD_F32, KD_BF16, KD_F16, KD_F64, KD_I32, KD_I64, KD_U64, KD_U8 };
enum { KD_MAX_DIMS = 4 };

size_t kd_dtype_bytes(enum kd_dtype dtype);
const char *kd_dtype_name(enum kd_dtype dtype); /* "float32", "bfloat16", ... */

struct kd_tensor {
    void *data;
    enum kd_dtype dtype;
    int ndim;
    int64_t shape[KD_MAX_DIMS];
};

static inline struct kd_tensor kd_tensor1(void *data, enum kd_dtype dtype, int64_t n)
{
    return (struct kd_tensor){data, dtype, 1, {n, 1, 1, 1}};
}

static inline struct kd_tensor kd_tensor2(void *data, enum kd_dtype dtype, int64_t rows,
                                          int64_t cols)
{
    return (struct kd_tensor){data, dtype, 2, {rows, cols, 1, 1}};
}

int64_t kd_tensor_count(const struct kd_tensor *t); /* number of values */
size_t kd_tensor_bytes(const struct kd_tensor *t);

/** Rows [first, first + n) of T.  Local; a view. */
struct kd_tensor kd_tensor_rows(struct kd_tensor t, int64_t first, int64_t n);

/** Columns of a matrix: element (r, c) is data[r * ld + c]. */
struct kd_mat {
    void *data;
    enum kd_dtype dtype;
    int64_t rows, cols, ld;
};

/** All columns of the 2-d tensor T. */
static inline struct kd_mat kd_mat_of(struct kd_tensor t)
{
    return (struct kd_mat){t.data, t.dtype, t.shape[0], t.shape[1], t.shape[1]};
}

/** Columns [first, first + n) of the 2-d tensor T.  Local. */
struct kd_mat kd_mat_cols(struct kd_tensor t, int64_t first, int64_t n);

/** Sequences in one matrix of rows: sequence i is rows [offsets[i], offsets[i + 1]). */
struct kd_seqs {
    int64_t n;              /* sequences */
    int64_t n_rows;         /* offsets[n] */
    int64_t max_len;        /* longest sequence */
    const int64_t *offsets; /* [n + 1], host memory, borrowed */
    struct kd_tensor
        offsets_dev; /* the same [n + 1] as KD_I64 in the backend's memory */
};

/** float32 <-> bfloat16 / float16, round to nearest even.  Local. */
float kd_bf16_to_f32(uint16_t x);
uint16_t kd_f32_to_bf16(float x);
float kd_f16_to_f32(uint16_t x);
uint16_t kd_f32_to_f16(float x);

#endif
