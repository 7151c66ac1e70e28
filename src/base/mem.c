/* SPDX-License-Identifier: Apache-2.0 */
/* Checked allocation for the small host structures.  Sizes are checked for overflow
 * before they reach malloc; a failure says how much was asked for, because that is what
 * the reader of the message can act on. */
#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static int no_memory(int64_t n, size_t size)
{
    return KD_FAIL(KD_ENOMEM, "out of host memory: %lld elements of %zu bytes",
                   (long long)n, size);
}

int kd_calloc(int64_t n, size_t size, void *out)
{
    void *p = NULL;

    size = size ? size : 1;
    if (n >= 0 && (uint64_t)n <= PTRDIFF_MAX / size)
        p = calloc(n ? (size_t)n : 1, size);
    memcpy(out, &p, sizeof p);
    return p ? KD_OK : no_memory(n, size);
}

int kd_grow(void *array, int64_t *cap, int64_t need, size_t size)
{
    int64_t new_cap = *cap > 8 ? *cap : 8;
    void *old, *p;

    if (need <= *cap)
        return KD_OK;
    while (new_cap < need && new_cap <= INT64_MAX / 2)
        new_cap *= 2;
    if (new_cap < need || size == 0 || (uint64_t)new_cap > PTRDIFF_MAX / size)
        return no_memory(need, size);
    memcpy(&old, array, sizeof old);
    p = realloc(old, (size_t)new_cap * size);
    if (!p)
        return no_memory(new_cap, size);
    memcpy(array, &p, sizeof p);
    *cap = new_cap;
    return KD_OK;
}

int64_t kd_peak_rss_bytes(void)
{
    struct rusage usage;

    if (getrusage(RUSAGE_SELF, &usage))
        return 0;
    return (int64_t)usage.ru_maxrss * 1024; /* Linux counts kibibytes */
}
