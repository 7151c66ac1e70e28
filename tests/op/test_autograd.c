/* SPDX-License-Identifier: Apache-2.0 */
/* Every differentiable op against central differences: activations, biases, norms,
 * residual sums and their hand-over of buffers, attention in its forms, embeddings and
 * values used more than once.  Dropout is fixed by its counter and so part of the
 * function under test. */
#include "graph.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define OK(e) assert_int_equal((e), KD_OK)

static const double H = 5e-3, TOL = 2e-3;

enum { N = 5, D = 6, N_KEYS = 16 };

/* Leaves every test of a [N, D] stream uses. */
static const uint64_t *row_keys(struct graph *g)
{
    uint64_t keys[N_KEYS];

    for (int i = 0; i < N_KEYS; i++)
        keys[i] = ((uint64_t)i << 33) + 17u * (unsigned)i;
    return graph_upload(g, keys, sizeof(keys));
}

/* ---- linear ---- */

static double build_linear(struct graph *g)
{
    const enum kd_act *act = g->arg;
    struct kd_var *y;

    OK(kd_op_linear(&g->ctx, &g->leaf[0], &g->leaf[1],
                    g->n_leaves > 2 ? &g->leaf[2] : NULL, *act, &y));
    return graph_half_square(g, y);
}

static void test_linear(void **state)
{
    (void)state;
    for (enum kd_act act = KD_ACT_NONE; act <= KD_ACT_TANH; act++) {
        for (int bias = 0; bias < 2; bias++) {
            struct graph g;

            graph_open(&g);
            g.arg = &act;
            graph_leaf(&g, N, D, false, 1.0);
            graph_leaf(&g, 4, D, true, 1.0);
            if (bias)
                graph_leaf(&g, 4, 0, true, 1.0);
            graph_check(&g, build_linear, H, TOL);
            graph_close(&g);
        }
    }
}

/* The same weight and the same activation are used twice, the weight also as one of
 * the inputs of a product. */
static double build_twice(struct graph *g)
{
    struct kd_var *x = &g->leaf[0], *w = &g->leaf[1], *a, *b, *c, *y;

    OK(kd_op_linear(&g->ctx, x, w, NULL, KD_ACT_TANH, &a));
    OK(kd_op_linear(&g->ctx, a, w, NULL, KD_ACT_NONE, &b));
    OK(kd_op_residual(&g->ctx, b, x, 0.0f, 0, NULL, &c));
    OK(kd_op_residual(&g->ctx, c, a, 0.0f, 0, NULL, &y));
    return graph_half_square(g, y) + graph_half_square(g, a);
}

static double build_same(struct graph *g)
{
    struct kd_var *w = &g->leaf[0], *a, *y;

    OK(kd_op_linear(&g->ctx, w, w, NULL, KD_ACT_TANH, &a));
    OK(kd_op_residual(&g->ctx, a, a, 0.0f, 0, NULL, &y));
    return graph_half_square(g, y);
}

static void test_used_twice(void **state)
{
    struct graph g;

    (void)state;
    graph_open(&g);
    graph_leaf(&g, N, D, false, 1.0);
    graph_leaf(&g, D, D, true, 0.7);
    graph_check(&g, build_twice, H, TOL);
    graph_close(&g);
    for (int param = 0; param < 2; param++) {
        graph_open(&g);
        graph_leaf(&g, D, D, param, 0.7);
        graph_check(&g, build_same, H, TOL);
        graph_close(&g);
    }
}

/* ---- dropout and residual sums ---- */

struct residual_case {
    float p;
    bool x_later, sub_later; /* used by a later op too: their gradients are live */
    bool x_frozen, sub_frozen;
    const uint64_t *keys;
};

static double build_residual(struct graph *g)
{
    const struct residual_case *c = g->arg;
    struct kd_var *x = &g->leaf[0], *sub = &g->leaf[1], *y;
    double loss = 0.0;

    OK(kd_op_residual(&g->ctx, x, sub, c->p, 3, c->keys, &y));
    if (c->x_later)
        OK(kd_op_residual(&g->ctx, y, x, 0.0f, 0, NULL, &y));
    if (c->sub_later)
        loss = graph_half_square(g, sub);
    return loss + graph_half_square(g, y);
}

static void test_residual(void **state)
{
    (void)state;
    for (int bits = 0; bits < 32; bits++) {
        struct residual_case c = {
            bits & 1 ? 0.3f : 0.0f, bits & 2, bits & 4, bits & 8, bits & 16, NULL};
        struct graph g;

        graph_open(&g);
        c.keys = row_keys(&g);
        g.arg = &c;
        graph_leaf(&g, N, D, false, 1.0)->needs_grad = !c.x_frozen;
        graph_leaf(&g, N, D, false, 1.0)->needs_grad = !c.sub_frozen;
        graph_check(&g, build_residual, H, TOL);
        graph_close(&g);
    }
}

static double build_dropout(struct graph *g)
{
    struct kd_var *x = &g->leaf[0], *a, *b, *y;

    OK(kd_op_dropout(&g->ctx, x, 0.4f, 7, g->arg, &a));
    OK(kd_op_dropout(&g->ctx, x, 0.2f, 8, g->arg, &b));
    OK(kd_op_residual(&g->ctx, a, b, 0.0f, 0, NULL, &y));
    return graph_half_square(g, y);
}

static void test_dropout(void **state)
{
    struct kd_var *y, *x;
    struct graph g;
    int zeros = 0;

    (void)state;
    graph_open(&g);
    g.arg = row_keys(&g);
    x = graph_leaf(&g, N, D, false, 1.0);
    graph_check(&g, build_dropout, H, TOL);

    OK(kd_op_dropout(&g.ctx, x, 0.4f, 7, g.arg, &y));
    for (int i = 0; i < N * D; i++)
        zeros += ((float *)y->v.data)[i] == 0.0f;
    assert_in_range(zeros, 1, N * D - 1);
    OK(kd_op_dropout(&g.ctx, x, 0.0f, 7, g.arg, &y));
    assert_ptr_equal(y, x);
    g.ctx.train = false;
    OK(kd_op_dropout(&g.ctx, x, 0.4f, 7, g.arg, &y));
    assert_ptr_equal(y, x);
    graph_close(&g);
}

/* ---- norms ---- */

struct norm_case {
    struct kd_norm_desc desc;
    bool use_sum, use_y, sub_twice;
    float p;
    const uint64_t *keys;
    const int32_t *every_row; /* [N] ids 0, 1, ... */
};

static double build_norm(struct graph *g)
{
    const struct norm_case *c = g->arg;
    struct kd_var *y;

    OK(kd_op_norm(&g->ctx, &c->desc, &g->leaf[0], &g->leaf[1],
                  c->desc.kind == KD_NORM_LAYER ? &g->leaf[2] : NULL, &y));
    return graph_half_square(g, y);
}

static void test_norm(void **state)
{
    (void)state;
    for (int kind = KD_NORM_LAYER; kind <= KD_NORM_RMS; kind++) {
        for (int param = 0; param < 2; param++) {
            struct norm_case c = {.desc = {kind, 1e-5f}};
            struct graph g;

            graph_open(&g);
            g.arg = &c;
            graph_leaf(&g, N, D, false, 1.0);
            graph_leaf(&g, D, 0, param, 1.0);
            if (kind == KD_NORM_LAYER)
                graph_leaf(&g, D, 0, param, 1.0);
            graph_check(&g, build_norm, H, TOL);
            graph_close(&g);
        }
    }
}

/* The op takes over the memory of sub, so the leaf goes in as a copy. */
static double build_residual_norm(struct graph *g)
{
    const struct norm_case *c = g->arg;
    struct kd_var *x = &g->leaf[0], *sub, *sum, *y, *z;
    double loss = 0.0;

    OK(kd_op_embed(&g->ctx, &g->leaf[1], c->every_row, N, 1.0f, NULL, NULL, -1, &sub));
    OK(kd_op_residual_norm(&g->ctx, &c->desc, x, sub, c->p, 4, c->keys, &g->leaf[2],
                           &g->leaf[3], c->use_sum ? &sum : NULL, &y));
    if (c->sub_twice)
        loss += graph_half_square(g, &g->leaf[1]);
    if (c->use_sum && c->use_y) {
        OK(kd_op_residual(&g->ctx, sum, y, 0.0f, 0, NULL, &z));
        return loss + graph_half_square(g, z);
    }
    return loss + graph_half_square(g, c->use_sum ? sum : y);
}

static void test_residual_norm(void **state)
{
    int32_t every_row[N];

    (void)state;
    for (int32_t i = 0; i < N; i++)
        every_row[i] = i;
    for (int bits = 0; bits < 16; bits++) {
        struct norm_case c = {.desc = {KD_NORM_LAYER, 1e-5f},
                              .use_sum = bits & 1,
                              .use_y = bits & 2,
                              .sub_twice = bits & 4,
                              .p = bits & 8 ? 0.3f : 0.0f};
        struct graph g;

        if (!c.use_sum && !c.use_y)
            continue;
        graph_open(&g);
        c.keys = row_keys(&g);
        c.every_row = graph_upload(&g, every_row, sizeof every_row);
        g.arg = &c;
        graph_leaf(&g, N, D, false, 1.0);
        graph_leaf(&g, N, D, false, 1.0);
        /* without y the norm has no gradient to compare */
        graph_leaf(&g, D, 0, true, 1.0)->needs_grad = c.use_y;
        graph_leaf(&g, D, 0, true, 1.0)->needs_grad = c.use_y;
        graph_check(&g, build_residual_norm, H, TOL);
        graph_close(&g);
    }
}

/* ---- attention ---- */

static double build_self(struct graph *g)
{
    struct kd_var *y;

    OK(kd_op_self_attention(&g->ctx, g->arg, &g->leaf[0], &y));
    return graph_half_square(g, y);
}

static void test_self_attention(void **state)
{
    static const int64_t lengths[] = {3, 1, 4};
    int64_t offsets[4];

    (void)state;
    for (int bits = 0; bits < 8; bits++) {
        struct kd_attention_desc desc = {.n_heads = 4,
                                         .n_kv_heads = bits & 1 ? 2 : 4,
                                         .head_dim = 2,
                                         .scale = 0.7f,
                                         .causal = bits & 2,
                                         .p_drop = bits & 4 ? 0.25f : 0.0f,
                                         .site = 9};
        struct graph g;

        graph_open(&g);
        desc.q_seqs = desc.kv_seqs = graph_seqs(&g, 3, lengths, offsets);
        desc.row_keys = row_keys(&g);
        g.arg = &desc;
        graph_leaf(&g, 8, (4 + 2 * desc.n_kv_heads) * 2, false, 1.5);
        graph_check(&g, build_self, H, TOL);
        graph_close(&g);
    }
}

static double build_cross(struct graph *g)
{
    struct kd_var *a, *y;

    OK(kd_op_cross_attention(&g->ctx, g->arg, &g->leaf[0], &g->leaf[1], &a));
    OK(kd_op_cross_attention(&g->ctx, g->arg, a, &g->leaf[1], &y)); /* kv twice */
    return graph_half_square(g, y);
}

static void test_cross_attention(void **state)
{
    static const int64_t q_len[] = {2, 3, 1}, kv_len[] = {4, 1, 2};
    int64_t q_off[4], kv_off[4];

    (void)state;
    for (int bits = 0; bits < 4; bits++) {
        struct kd_attention_desc desc = {.n_heads = 2,
                                         .n_kv_heads = bits & 1 ? 1 : 2,
                                         .head_dim = 3,
                                         .scale = 0.6f,
                                         .p_drop = bits & 2 ? 0.25f : 0.0f,
                                         .site = 11};
        struct graph g;

        graph_open(&g);
        desc.q_seqs = graph_seqs(&g, 3, q_len, q_off);
        desc.kv_seqs = graph_seqs(&g, 3, kv_len, kv_off);
        desc.row_keys = row_keys(&g);
        g.arg = &desc;
        graph_leaf(&g, 6, 6, false, 1.5);
        graph_leaf(&g, 7, 6 * desc.n_kv_heads, false, 1.5);
        graph_check(&g, build_cross, H, TOL);
        graph_close(&g);
    }
}

/* ---- embedding ---- */

struct embed_case {
    const int32_t *ids, *pos_ids;
    bool pos;
};

static double build_embed(struct graph *g)
{
    const struct embed_case *c = g->arg;
    struct kd_var *y;

    OK(kd_op_embed(&g->ctx, &g->leaf[0], c->ids, N, 1.7f, c->pos ? &g->leaf[1] : NULL,
                   c->pos_ids, -1, &y));
    return graph_half_square(g, y);
}

static void test_embed(void **state)
{
    static const int32_t ids[N] = {2, 0, 2, 3, 2}, pos_ids[N] = {0, 1, 2, 0, 1};

    (void)state;
    for (int bits = 0; bits < 4; bits++) {
        struct embed_case c = {.pos = bits & 1};
        struct graph g;

        graph_open(&g);
        c.ids = graph_upload(&g, ids, sizeof(ids));
        c.pos_ids = graph_upload(&g, pos_ids, sizeof(pos_ids));
        g.arg = &c;
        graph_leaf(&g, 4, D, bits & 2, 1.0);
        if (c.pos)
            graph_leaf(&g, 3, D, bits & 2, 1.0);
        graph_check(&g, build_embed, H, TOL);
        graph_close(&g);
    }
}

/* The pad row gets no gradient from lookups; the other rows get theirs. */
static void test_embed_pad(void **state)
{
    static const int32_t ids[N] = {2, 0, 2, 3, 2};
    struct kd_var *table, *y;
    const float *grad;
    struct graph g;

    (void)state;
    graph_open(&g);
    table = graph_leaf(&g, 4, D, true, 1.0);
    OK(kd_op_embed(&g.ctx, table, graph_upload(&g, ids, sizeof(ids)), N, 1.0f, NULL,
                   NULL, 2, &y));
    graph_half_square(&g, y);
    OK(kd_tape_backward(g.tape, NULL, NULL));
    grad = table->g.data;
    for (int c = 0; c < D; c++) {
        float *v = table->v.data;

        assert_true(grad[2 * D + c] == 0.0f && grad[1 * D + c] == 0.0f);
        assert_float_equal(grad[c], v[c] - graph_noise(99, 1 * D + c), 1e-6);
        assert_float_equal(grad[3 * D + c], v[3 * D + c] - graph_noise(99, 3 * D + c),
                           1e-6);
    }
    graph_close(&g);
}

/* A rank may hold no rows of a batch: every op accepts that and gradients stay zero. */
static void test_no_rows(void **state)
{
    static const struct kd_norm_desc norm = {KD_NORM_LAYER, 1e-5f};
    struct kd_attention_desc desc = {.n_heads = 2, .n_kv_heads = 2, .head_dim = 2};
    struct kd_var *x, *y, *w, *b;
    int64_t offsets[1];
    struct graph g;

    (void)state;
    graph_open(&g);
    w = graph_leaf(&g, 12, 4, true, 1.0);
    b = graph_leaf(&g, 4, 0, true, 1.0);
    desc.q_seqs = desc.kv_seqs = graph_seqs(&g, 0, NULL, offsets);
    desc.row_keys = row_keys(&g);
    OK(kd_op_embed(&g.ctx, w, NULL, 0, 1.0f, NULL, NULL, -1, &x));
    OK(kd_op_norm(&g.ctx, &norm, x, b, b, &x));
    OK(kd_op_linear(&g.ctx, x, w, NULL, KD_ACT_GELU, &y));
    OK(kd_op_self_attention(&g.ctx, &desc, y, &y));
    OK(kd_op_residual_norm(&g.ctx, &norm, x, y, 0.1f, 0, desc.row_keys, b, b, NULL,
                           &y));
    OK(kd_op_residual(&g.ctx, x, y, 0.1f, 0, desc.row_keys, &y));
    OK(kd_op_dropout(&g.ctx, y, 0.1f, 0, desc.row_keys, &y));
    assert_true(graph_half_square(&g, y) == 0.0);
    OK(kd_tape_backward(g.tape, NULL, NULL));
    assert_int_equal(w->pending, 0);
    for (int i = 0; i < 48; i++)
        assert_true(((float *)w->g.data)[i] == 0.0f);
    graph_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),         cmocka_unit_test(test_used_twice),
        cmocka_unit_test(test_residual),       cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_norm),           cmocka_unit_test(test_residual_norm),
        cmocka_unit_test(test_self_attention), cmocka_unit_test(test_cross_attention),
        cmocka_unit_test(test_embed),          cmocka_unit_test(test_embed_pad),
        cmocka_unit_test(test_no_rows),
    };

    if (graph_no_device())
        return 77; /* skipped */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
