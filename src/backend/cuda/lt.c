/* SPDX-License-Identifier: Apache-2.0 */
/* Loading cuBLASLt at run time, by the name of the major version that its header has,
 * or else by that of version 12: what is used here has not changed since.
 *
 * Looked for where the dynamic linker looks (LD_LIBRARY_PATH, the cache), then where
 * the build found it, then at the toolkit's usual place. */
#include "cuda_lt.h"

#include "kdhpc/base/library.h"

#include <stdio.h>

#define TEXT(x) #x
#define TEXT_OF(x) TEXT(x)
#define LIBRARY "libcublasLt.so." TEXT_OF(CUBLAS_VER_MAJOR)
#define OLDER_LIBRARY "libcublasLt.so.12"
#define USUAL_DIR "/usr/local/cuda/lib64/"

static const struct kd_symbol symbols[] = {
    {"cublasLtGetVersion", offsetof(struct cuda_lt, version)},
    {"cublasLtCreate", offsetof(struct cuda_lt, create)},
    {"cublasLtDestroy", offsetof(struct cuda_lt, destroy)},
    {"cublasLtMatmul", offsetof(struct cuda_lt, matmul)},
    {"cublasLtMatmulAlgoGetHeuristic", offsetof(struct cuda_lt, heuristic)},
    {"cublasLtMatmulDescCreate", offsetof(struct cuda_lt, desc_create)},
    {"cublasLtMatmulDescDestroy", offsetof(struct cuda_lt, desc_destroy)},
    {"cublasLtMatmulDescSetAttribute", offsetof(struct cuda_lt, desc_set)},
    {"cublasLtMatrixLayoutCreate", offsetof(struct cuda_lt, layout_create)},
    {"cublasLtMatrixLayoutDestroy", offsetof(struct cuda_lt, layout_destroy)},
    {"cublasLtMatmulPreferenceCreate", offsetof(struct cuda_lt, preference_create)},
    {"cublasLtMatmulPreferenceDestroy", offsetof(struct cuda_lt, preference_destroy)},
    {"cublasLtMatmulPreferenceSetAttribute", offsetof(struct cuda_lt, preference_set)},
};

enum { N_SYMBOLS = sizeof symbols / sizeof *symbols };

_Static_assert(sizeof(struct cuda_lt) == N_SYMBOLS * sizeof(void *),
               "every function has its symbol");

const struct cuda_lt *cuda_lt_load(const char **missing)
{
    static const char *const places[] = {LIBRARY, KD_CUDA_LIBRARY_DIR "/" LIBRARY,
                                         USUAL_DIR LIBRARY, OLDER_LIBRARY,
                                         USUAL_DIR OLDER_LIBRARY};
    static struct cuda_lt table;
    static char why[256];
    const char *symbol;

    *missing = why;
    if (table.version)
        return &table;
    if (kd_library_load(places, sizeof places / sizeof *places, symbols, N_SYMBOLS,
                        &table, &symbol))
        return &table;
    table.version = NULL;
    if (symbol)
        snprintf(why, sizeof why, "the cuBLASLt that was found has no %s", symbol);
    else
        snprintf(why, sizeof why,
                 "neither %s nor %s can be loaded: put its folder into LD_LIBRARY_PATH",
                 LIBRARY, OLDER_LIBRARY);
    return NULL;
}
