/* SPDX-License-Identifier: Apache-2.0 */
/* cuBLASLt as a table of functions, loaded when a backend is made.
 *
 * The library is 540 MB and has no small static form, so the program neither contains
 * nor needs it: it starts wherever the C library does, and on a machine without a GPU
 * nothing is ever loaded. */
#ifndef KDHPC_CUDA_LT_H
#define KDHPC_CUDA_LT_H

#include <cublasLt.h>
#include <stddef.h>

struct cuda_lt {
    __typeof__(cublasLtGetVersion) *version;
    __typeof__(cublasLtCreate) *create;
    __typeof__(cublasLtDestroy) *destroy;
    __typeof__(cublasLtMatmul) *matmul;
    __typeof__(cublasLtMatmulAlgoGetHeuristic) *heuristic;
    __typeof__(cublasLtMatmulDescCreate) *desc_create;
    __typeof__(cublasLtMatmulDescDestroy) *desc_destroy;
    __typeof__(cublasLtMatmulDescSetAttribute) *desc_set;
    __typeof__(cublasLtMatrixLayoutCreate) *layout_create;
    __typeof__(cublasLtMatrixLayoutDestroy) *layout_destroy;
    __typeof__(cublasLtMatmulPreferenceCreate) *preference_create;
    __typeof__(cublasLtMatmulPreferenceDestroy) *preference_destroy;
    __typeof__(cublasLtMatmulPreferenceSetAttribute) *preference_set;
};

/** The table, or NULL and why in *MISSING.  Loads once.  Local. */
const struct cuda_lt *cuda_lt_load(const char **missing);

#endif
