/* SPDX-License-Identifier: Apache-2.0 */
/* The table model: keeps a hash for each live prefix, as a cache would keep keys.  It
 * fails on a step that no cache could serve (unsorted sources, parents that are not
 * there or belong to another source). */
#include "table_lm.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>

static uint64_t mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

int table_lm_new(struct kd_backend *be, const int64_t *sources, int64_t max_rows,
                 int64_t vocab, double eos_bias, struct table_lm **out)
{
    struct table_lm *lm = NULL;

    KD_TRY(kd_calloc(1, sizeof *lm, &lm));
    *out = lm;
    *lm = (struct table_lm){.be = be,
                            .vocab = vocab,
                            .eos_bias = eos_bias,
                            .sources = sources,
                            .max_rows = max_rows};
    KD_TRY(be->ops->alloc(be, (size_t)(max_rows * vocab) * sizeof *lm->logits,
                          &lm->logits_dev));
    KD_TRY(kd_calloc(max_rows, sizeof *lm->hash, &lm->hash));
    KD_TRY(kd_calloc(max_rows, sizeof *lm->next, &lm->next));
    return kd_calloc(max_rows * vocab, sizeof *lm->logits, &lm->logits);
}

void table_lm_free(struct table_lm *lm)
{
    free(lm->hash);
    free(lm->next);
    free(lm->logits);
    lm->be->ops->free(lm->be, lm->logits_dev);
    lm->be->ops->free(lm->be, lm->ride_dev);
    free(lm);
}

/* What rides along, in backend memory. */
static int carry(struct table_lm *lm, struct kd_ride *ride)
{
    const struct kd_backend_ops *ops = lm->be->ops;

    if (ride->bytes > lm->ride_bytes) {
        ops->free(lm->be, lm->ride_dev);
        lm->ride_bytes = 0;
        KD_TRY(ops->alloc(lm->be, ride->bytes, &lm->ride_dev));
        lm->ride_bytes = ride->bytes;
    }
    ride->dev = lm->ride_dev;
    return ride->bytes ? ops->upload(lm->be, ride->dev, ride->host, ride->bytes)
                       : KD_OK;
}

int table_lm_step(void *arg, int64_t n_rows, const int32_t *parent,
                  const int32_t *source, const int32_t *tokens, struct kd_ride *ride,
                  struct kd_tensor *logits)
{
    struct table_lm *lm = arg;
    uint64_t *swap;

    if (n_rows < 1 || n_rows > lm->max_rows || (lm->n_calls++ == 0) != (parent == NULL))
        return KD_FAIL(KD_EINTERNAL, "a step with %lld rows", (long long)n_rows);
    for (int64_t r = 0; r < n_rows; r++) {
        uint64_t h = parent ? 0 : mix((uint64_t)lm->sources[source[r]]);

        if (r > 0 && source[r] < source[r - 1])
            return KD_FAIL(KD_EINTERNAL, "sources are not in order");
        if (parent && (parent[r] < 0 || parent[r] >= lm->n_rows))
            return KD_FAIL(KD_EINTERNAL, "parent %d is not there", (int)parent[r]);
        if (parent)
            h = lm->hash[parent[r]];
        h = mix(h ^ (uint64_t)(tokens[r] + 1));
        lm->next[r] = h;
        for (int64_t v = 0; v < lm->vocab; v++) {
            int64_t bits = (int64_t)(mix(h ^ ((uint64_t)v << 32)) >> 44);

            lm->logits[r * lm->vocab + v] =
                (float)((double)(bits * 8 - (4 << 20)) / (1 << 20) +
                        (v == 2 ? lm->eos_bias : 0.0));
        }
    }
    lm->n_rows = n_rows;
    swap = lm->hash;
    lm->hash = lm->next;
    lm->next = swap;
    *logits = kd_tensor2(lm->logits_dev, KD_F32, n_rows, lm->vocab);
    KD_TRY(carry(lm, ride));
    return lm->be->ops->upload(lm->be, lm->logits_dev, lm->logits,
                               kd_tensor_bytes(logits));
}
