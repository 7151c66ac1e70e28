/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that a run needs against memory that there is.
 *
 * The need is planned (tensor/plan.h) by the callers, each for what it runs; here it is
 * compared, told, and turned into advice.  On a GPU there is what is free plus what the
 * run holds already, shared by the ranks on that GPU; on CPUs the node's memory, or the
 * limit of the control group, shared by the node's ranks.  What lives outside of the
 * backend's memory (the corpus, libraries) is not counted. */
#include "memory.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"
#include "kdhpc/tensor/backend.h"

#include <stdio.h>
#include <string.h>

/* Of a device's memory, for scratch of its slots (some MiB) and what its allocator
 * rounds up. */
static const size_t DEVICE_EXTRA_BYTES = (size_t)64 << 20;

enum { SEARCH_STEPS = 16, MAX_DIGITS = 24, NEEDS_MAX = 2 * KD_COUNT_MAX + 16 };

/* ---- how much there is ---- */

/* Ranks of this node that compute on this rank's GPU, as device.c deals them. */
static int ranks_on_device(const struct kd_comm *comm)
{
    int n = kd_cuda_devices(), mine = kd_comm_node_rank(comm), count = 0;

    for (int r = 0; r < kd_comm_node_size(comm); r++)
        count += n == 0 || r % n == mine % n;
    return count;
}

int kd_memory_have(const struct kd_run *run, size_t ours, size_t *out)
{
    size_t free_bytes, total_bytes;

    if (run->be->device == KD_CPU) {
        *out = (size_t)kd_memory_limit_bytes("") / (size_t)kd_comm_node_size(run->comm);
        return KD_OK;
    }
    KD_TRY(run->be->ops->mem_info(run->be, &free_bytes, &total_bytes));
    *out = free_bytes / (size_t)ranks_on_device(run->comm) + ours;
    return KD_OK;
}

size_t kd_memory_need(const struct kd_run *run, size_t planned)
{
    return planned + (run->be->device == KD_CPU ? 0 : DEVICE_EXTRA_BYTES);
}

/* ---- words ---- */

void kd_memory_count(int64_t n, char out[KD_COUNT_MAX])
{
    char digits[MAX_DIGITS];
    int len = snprintf(digits, sizeof digits, "%lld", (long long)n), at = 0;

    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0)
            out[at++] = ',';
        out[at++] = digits[i];
    }
    out[at] = '\0';
}

/* BYTES as "31.2 GB", "12.3 MB". */
static void amount(size_t bytes, char out[KD_COUNT_MAX])
{
    bool large = bytes >= 950000000;

    snprintf(out, KD_COUNT_MAX, "%.1f %s", (double)bytes / (large ? 1e9 : 1e6),
             large ? "GB" : "MB");
}

static void needs_of(size_t need, size_t have, char out[NEEDS_MAX])
{
    char need_text[KD_COUNT_MAX], have_text[KD_COUNT_MAX];

    amount(need, need_text);
    amount(have, have_text);
    snprintf(out, NEEDS_MAX, "needs %s of %s", need_text, have_text);
}

static int check(const struct kd_memory *m)
{
    char needs[NEEDS_MAX];

    if (kd_memory_fits(m))
        return KD_OK;
    needs_of(m->need, m->have, needs);
    return KD_FAIL(KD_ENOMEM, "%s: %s", needs,
                   *m->advice ? m->advice
                              : "smaller batches do not help; it takes more memory a "
                                "rank, or a smaller model");
}

int kd_memory_agree(struct kd_run *run, struct kd_memory *m)
{
    int64_t most[1] = {(int64_t)m->need};

    KD_TRY(kd_agree(run->comm, check(m)));
    KD_TRY(kd_allreduce_i64(run->comm, most, 1, KD_MAX));
    m->most = (size_t)most[0];
    m->agreed = true;
    return KD_OK;
}

void kd_memory_tell(const struct kd_memory *m)
{
    char needs[NEEDS_MAX];

    needs_of(m->most, m->have, needs);
    kd_info("%s", needs);
    kd_debug("needs %zu bytes of %zu", m->need, m->have);
}

int kd_memory_explain(int rc, const struct kd_memory *m)
{
    struct kd_error e = *kd_error_get();
    char needs[NEEDS_MAX];
    size_t at = strlen(e.text);

    if (rc != KD_ENOMEM || !m->agreed)
        return rc;
    needs_of(m->need, m->have, needs);
    snprintf(e.text + at, sizeof e.text - at, " (the estimate was that it %s: %s)",
             needs, m->options);
    kd_error_set(&e);
    return rc;
}

/* ---- numbers to suggest ---- */

/* N with two digits and zeros. */
static int64_t readable(int64_t n)
{
    int64_t unit = 1;

    while (n / unit >= 100)
        unit *= 10;
    return n / unit * unit;
}

int kd_memory_largest(kd_memory_try_fn try, void *arg, int64_t low, int64_t high,
                      int64_t *out)
{
    int64_t good = low, bad = high;
    bool fits = low < high;

    *out = -1;
    if (fits)
        KD_TRY(try(arg, low, &fits));
    if (!fits)
        return KD_OK;
    for (int i = 0; i < SEARCH_STEPS && bad - good > 1 + good / 100; i++) {
        int64_t mid = good + (bad - good) / 2;

        KD_TRY(try(arg, mid, &fits));
        *(fits ? &good : &bad) = mid;
    }
    *out = good;
    if (readable(good) < low)
        return KD_OK;
    KD_TRY(try(arg, readable(good), &fits));
    *out = fits ? readable(good) : good;
    return KD_OK;
}
