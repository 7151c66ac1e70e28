/* SPDX-License-Identifier: Apache-2.0 */
/* Embedding: rows of a table, scaled, plus rows of a position table.
 *
 * The backward pass scatters into the gradients of the tables in ascending row order
 * for each id, so its bits do not depend on threads; it adds in float32.  The table may
 * also be a float32 activation: with scale 1 this is the differentiable choice of rows.
 */
#include "node.h"

struct embed {
    struct kd_var *table, *pos;
    const int32_t *ids, *pos_ids; /* backend memory, borrowed */
    float scale;
    int32_t pad_id;
};

static int scatter(struct kd_tape *t, const struct kd_tensor *dy, const int32_t *ids,
                   int32_t skip_id, float scale, struct kd_var *table)
{
    struct kd_backend *be = kd_tape_backend(t);
    struct kd_tensor g;

    KD_TRY(kd_grad_add(t, table, &g));
    if (!g.data)
        return KD_OK;
    if (g.dtype != KD_F32)
        return KD_FAIL(KD_EINTERNAL, "embedding: no gradient of an activation in %s",
                       kd_dtype_name(g.dtype));
    return be->ops->scatter_add_rows(be, *dy, ids, skip_id, scale, g.data,
                                     table->v.shape[0]);
}

static int embed_back(struct kd_tape *t, const struct kd_node *node)
{
    const struct embed *e = node->saved;
    const struct kd_tensor *dy = &node->out[0]->g;

    KD_TRY(scatter(t, dy, e->ids, e->pad_id, e->scale, e->table));
    return scatter(t, dy, e->pos_ids, -1, 1.0f, e->pos);
}

int kd_op_embed(struct kd_ctx *ctx, struct kd_var *table, const int32_t *ids, int64_t n,
                float scale, struct kd_var *pos, const int32_t *pos_ids, int32_t pad_id,
                struct kd_var **out)
{
    int64_t d = table->v.shape[1];
    bool rec = ctx->tape && (kd_wants(table) || kd_wants(pos));
    struct embed *e;

    KD_TRY(kd_op_check(ctx, "embedding", "table", table, -1, -1));
    if (pos)
        KD_TRY(kd_op_check(ctx, "embedding", "position table", pos, -1, d));
    KD_TRY(kd_op_result(ctx, n, d, rec, out));
    KD_TRY(ctx->be->ops->gather_rows(ctx->be, table->v, ids, scale,
                                     pos ? pos->v : (struct kd_tensor){0}, pos_ids,
                                     (*out)->v));
    if (!rec)
        return KD_OK;
    KD_TRY(kd_arena_host(ctx->arena, sizeof(*e), &e));
    *e = (struct embed){table, pos, ids, pos_ids, scale, pad_id};
    return kd_tape_record(ctx->tape, &(struct kd_node){.back = embed_back,
                                                       .in = {table, pos},
                                                       .out = {*out},
                                                       .saved = e});
}
