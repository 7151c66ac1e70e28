/* SPDX-License-Identifier: Apache-2.0 */
/* T5's relative positions: a learned bias by bucket of distance, one table a stack.
 *
 * Buckets are exact near the query and grow with the logarithm of the distance; an
 * encoder has half of them for each direction, a decoder looks back only.  For the
 * lengths of a batch the rows of the buckets are laid out by distance, once for all
 * layers of the stack, and attention adds them to its scores.  That is an embedding of
 * distances, in float32 whatever the compute type, so its gradient comes for free.
 * Source: transformers' T5Attention._relative_position_bucket. */
#include "model_impl.h"

#include <math.h>
#include <stdlib.h>

/* The bucket of a key DISTANCE after the query. */
static int32_t bucket_of(const struct kd_arch *a, bool both_ways, int64_t distance)
{
    int n = both_ways ? a->n_distances / 2 : a->n_distances, exact = n / 2,
        base = both_ways && distance > 0 ? n : 0, far;
    int64_t r = both_ways ? llabs(distance) : distance < 0 ? -distance : 0;
    float steps;

    if (r < exact)
        return base + (int32_t)r;
    steps = logf((float)r / (float)exact) /
            (float)log((double)a->max_distance / (double)exact) * (float)(n - exact);
    far = exact + (int)steps;
    return base + (far < n ? far : n - 1);
}

int kd_distance_table(struct kd_ctx *ctx, struct kd_model *m, struct kd_stack *s,
                      int64_t max_len, struct kd_var **table, int64_t *zero)
{
    bool both_ways = s->which == KD_ENC;
    int64_t reach = max_len > 0 ? max_len - 1 : 0, n = (both_ways ? 2 : 1) * reach + 1;
    struct kd_ctx exact = *ctx;
    int32_t *host;
    void *ids;

    KD_TRY(kd_arena_host(ctx->arena, (size_t)n * sizeof *host, &host));
    KD_TRY(kd_arena_alloc(ctx->arena, (size_t)n * sizeof *host, &ids));
    for (int64_t i = 0; i < n; i++)
        host[i] = bucket_of(&m->arch, both_ways, i - reach);
    KD_TRY(m->be->ops->upload(m->be, ids, host, (size_t)n * sizeof *host));
    exact.dtype = KD_F32;
    *zero = reach;
    return kd_op_embed(&exact, &s->distances, ids, n, 1.0f, NULL, NULL, -1, table);
}
