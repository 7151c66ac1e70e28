/* SPDX-License-Identifier: Apache-2.0 */
/* Loading NCCL at run time, by the name of the major version that its header has.
 *
 * Looked for where the dynamic linker looks (LD_LIBRARY_PATH, the cache), then where
 * the build found its header's library, then at the toolkit's usual place. */
#include "nccl_api.h"

#include "kdhpc/base/library.h"

#include <stdio.h>

#define TEXT(x) #x
#define TEXT_OF(x) TEXT(x)
#define LIBRARY "libnccl.so." TEXT_OF(NCCL_MAJOR)

static const struct kd_symbol symbols[] = {
    {"ncclGetVersion", offsetof(struct kd_nccl_api, version)},
    {"ncclGetUniqueId", offsetof(struct kd_nccl_api, unique_id)},
    {"ncclGetErrorString", offsetof(struct kd_nccl_api, error_text)},
    {"ncclGetLastError", offsetof(struct kd_nccl_api, last_error)},
    {"ncclCommInitRankConfig", offsetof(struct kd_nccl_api, init)},
    {"ncclCommFinalize", offsetof(struct kd_nccl_api, finalize)},
    {"ncclCommDestroy", offsetof(struct kd_nccl_api, destroy)},
    {"ncclCommAbort", offsetof(struct kd_nccl_api, abort)},
    {"ncclCommGetAsyncError", offsetof(struct kd_nccl_api, async_error)},
    {"ncclGroupStart", offsetof(struct kd_nccl_api, group_start)},
    {"ncclGroupEnd", offsetof(struct kd_nccl_api, group_end)},
    {"ncclAllReduce", offsetof(struct kd_nccl_api, all_reduce)},
    {"ncclReduceScatter", offsetof(struct kd_nccl_api, reduce_scatter)},
    {"ncclReduce", offsetof(struct kd_nccl_api, reduce)},
    {"ncclAllGather", offsetof(struct kd_nccl_api, all_gather)},
    {"ncclBroadcast", offsetof(struct kd_nccl_api, broadcast)},
};

enum { N_SYMBOLS = sizeof symbols / sizeof *symbols };

_Static_assert(sizeof(struct kd_nccl_api) == N_SYMBOLS * sizeof(void *),
               "every function has its symbol");

const struct kd_nccl_api *kd_nccl_load(const char **missing)
{
    static const char *const places[] = {LIBRARY, KD_NCCL_LIBRARY_DIR "/" LIBRARY,
                                         "/usr/local/cuda/lib64/" LIBRARY};
    static struct kd_nccl_api table;
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
        snprintf(why, sizeof why, "%s has no %s", LIBRARY, symbol);
    else
        snprintf(why, sizeof why,
                 "%s cannot be loaded: put its folder into LD_LIBRARY_PATH", LIBRARY);
    return NULL;
}
