/* SPDX-License-Identifier: Apache-2.0 */
/* Loading cuBLASLt at run time, by the name of the major version that its header has,
 * or else by that of version 12: what is used here has not changed since.
 *
 * Looked for where the dynamic linker looks (LD_LIBRARY_PATH, the cache), then where
 * the build found it, then at the toolkit's usual place. */
#include "cuda_lt.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define TEXT(x) #x
#define TEXT_OF(x) TEXT(x)
#define LIBRARY "libcublasLt.so." TEXT_OF(CUBLAS_VER_MAJOR)
#define OLDER_LIBRARY "libcublasLt.so.12"
#define USUAL_DIR "/usr/local/cuda/lib64/"

static const struct {
    const char *name;
    size_t at;
} symbols[] = {
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

static void *open_library(void)
{
    static const char *const places[] = {LIBRARY, KD_CUDA_LIBRARY_DIR "/" LIBRARY,
                                         USUAL_DIR LIBRARY, OLDER_LIBRARY,
                                         USUAL_DIR OLDER_LIBRARY};
    void *library = NULL;

    for (size_t i = 0; !library && i < sizeof places / sizeof *places; i++)
        library = dlopen(places[i], RTLD_NOW | RTLD_LOCAL);
    return library;
}

const struct cuda_lt *cuda_lt_load(const char **missing)
{
    static struct cuda_lt table;
    static char why[256];
    void *library;

    *missing = why;
    if (table.version)
        return &table;
    library = open_library();
    if (!library) {
        snprintf(why, sizeof why,
                 "neither %s nor %s can be loaded: put its folder into LD_LIBRARY_PATH",
                 LIBRARY, OLDER_LIBRARY);
        return NULL;
    }
    for (int i = 0; i < N_SYMBOLS; i++) {
        void *symbol = dlsym(library, symbols[i].name);

        if (!symbol) {
            snprintf(why, sizeof why, "the cuBLASLt that was found has no %s",
                     symbols[i].name);
            table.version = NULL;
            dlclose(library);
            return NULL;
        }
        memcpy((char *)&table + symbols[i].at, &symbol, sizeof symbol);
    }
    return &table;
}
