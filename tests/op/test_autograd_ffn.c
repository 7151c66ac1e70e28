/* SPDX-License-Identifier: Apache-2.0 */
/* The feed-forward op: gradients against central differences for every activation, with
 * and without dropout, biases and frozen parts, over whole and partial chunks; the same
 * numbers as the three ops that it replaces; what it keeps with and without a tape. */
#include "graph.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define OK(e) assert_int_equal((e), KD_OK)

static const double H = 5e-3, TOL = 2e-3;

enum { N = 11, D = 6, FFN = 10, D_OUT = 4 };
enum { X, W1, W2, B1, B2, N_LEAVES };

struct ffn_case {
    enum kd_act act;
    float p;
    int64_t chunk_rows;
    bool x_later; /* used by a later op too */
    const uint64_t *keys;
};

static void open_case(struct graph *g, struct ffn_case *c, bool bias)
{
    uint64_t keys[N];

    graph_open(g);
    for (int i = 0; i < N; i++)
        keys[i] = ((uint64_t)i << 33) + 29u * (unsigned)i;
    c->keys = graph_upload(g, keys, sizeof(keys));
    g->arg = c;
    graph_leaf(g, N, D, false, 1.0);
    graph_leaf(g, FFN, D, true, 1.0);
    graph_leaf(g, D_OUT, FFN, true, 1.0);
    if (!bias)
        return;
    graph_leaf(g, FFN, 0, true, 1.0);
    graph_leaf(g, D_OUT, 0, true, 1.0);
}

static struct kd_feed_forward desc_of(struct graph *g, const struct ffn_case *c)
{
    bool bias = g->n_leaves == N_LEAVES;

    return (struct kd_feed_forward){.w1 = &g->leaf[W1],
                                    .b1 = bias ? &g->leaf[B1] : NULL,
                                    .w2 = &g->leaf[W2],
                                    .b2 = bias ? &g->leaf[B2] : NULL,
                                    .act = c->act,
                                    .p_drop = c->p,
                                    .site = 5,
                                    .row_keys = c->keys,
                                    .chunk_rows = c->chunk_rows};
}

static double build_ffn(struct graph *g)
{
    const struct ffn_case *c = g->arg;
    struct kd_feed_forward f = desc_of(g, c);
    struct kd_var *y;
    double loss = 0.0;

    OK(kd_op_feed_forward(&g->ctx, &f, &g->leaf[X], &y));
    if (c->x_later)
        loss = graph_half_square(g, &g->leaf[X]);
    return loss + graph_half_square(g, y);
}

/* One chunk, an even cut that leaves a shorter last chunk, one row at a time. */
static void test_gradients(void **state)
{
    static const int64_t chunks[] = {0, 4, 1};

    (void)state;
    for (enum kd_act act = KD_ACT_NONE; act <= KD_ACT_TANH; act++) {
        for (int bits = 0; bits < 12; bits++) {
            struct ffn_case c = {.act = act,
                                 .p = bits & 1 ? 0.3f : 0.0f,
                                 .x_later = bits & 2,
                                 .chunk_rows = chunks[bits / 4]};
            struct graph g;

            open_case(&g, &c, bits & 1);
            graph_check(&g, build_ffn, H, TOL);
            graph_close(&g);
        }
    }
}

static void test_frozen_parts(void **state)
{
    (void)state;
    for (int wanted = 1; wanted < 1 << N_LEAVES; wanted++) {
        struct ffn_case c = {.act = KD_ACT_GELU, .p = 0.2f, .chunk_rows = 4};
        struct graph g;

        open_case(&g, &c, true);
        for (int i = 0; i < N_LEAVES; i++)
            g.leaf[i].needs_grad = wanted >> i & 1;
        graph_check(&g, build_ffn, H, TOL);
        for (int i = 0; i < N_LEAVES; i++) {
            const float *grad = g.leaf[i].g.data;

            for (int64_t k = 0; !g.leaf[i].needs_grad && i != X && k < FFN; k++)
                assert_true(k >= kd_tensor_count(&g.leaf[i].v) || grad[k] == 0.0f);
        }
        graph_close(&g);
    }
}

/* One matrix is input and both weights. */
static double build_same(struct graph *g)
{
    struct kd_feed_forward f = {
        .w1 = &g->leaf[0], .w2 = &g->leaf[0], .act = KD_ACT_TANH, .chunk_rows = 4};
    struct kd_var *y;

    OK(kd_op_feed_forward(&g->ctx, &f, &g->leaf[0], &y));
    return graph_half_square(g, y);
}

static void test_same_matrix(void **state)
{
    (void)state;
    for (int param = 0; param < 2; param++) {
        struct graph g;

        graph_open(&g);
        graph_leaf(&g, D, D, param, 0.7);
        graph_check(&g, build_same, H, TOL);
        graph_close(&g);
    }
}

/* ---- the same numbers as the ops that it replaces ---- */

static double build_composed(struct graph *g)
{
    const struct ffn_case *c = g->arg;
    struct kd_var *h, *y;

    OK(kd_op_linear(&g->ctx, &g->leaf[X], &g->leaf[W1], &g->leaf[B1], c->act, &h));
    OK(kd_op_dropout(&g->ctx, h, c->p, 5, c->keys, &h));
    OK(kd_op_linear(&g->ctx, h, &g->leaf[W2], &g->leaf[B2], KD_ACT_NONE, &y));
    return graph_half_square(g, y);
}

/* Loss of BUILD; gradients of all leaves into GRADS. */
static double run(struct graph *g, graph_build_fn build, float *grads[N_LEAVES])
{
    double loss;

    graph_reset(g);
    loss = build(g);
    OK(kd_tape_backward(g->tape, NULL, NULL));
    for (int i = 0; i < N_LEAVES; i++) {
        size_t bytes = kd_tensor_bytes(&g->leaf[i].g);

        grads[i] = test_malloc(bytes);
        memcpy(grads[i], g->leaf[i].g.data, bytes);
    }
    return loss;
}

static void test_as_composed(void **state)
{
    static const int64_t chunks[] = {0, 4};

    (void)state;
    for (enum kd_act act = KD_ACT_RELU; act <= KD_ACT_TANH; act++) {
        for (int k = 0; k < 4; k++) {
            struct ffn_case c = {
                .act = act, .p = k & 1 ? 0.4f : 0.0f, .chunk_rows = chunks[k / 2]};
            float *got[N_LEAVES], *want[N_LEAVES];
            double loss, composed;
            struct graph g;

            open_case(&g, &c, true);
            loss = run(&g, build_ffn, got);
            composed = run(&g, build_composed, want);
            if (c.chunk_rows == 0)
                assert_true(loss == composed);
            assert_true(fabs(loss - composed) <= 1e-6 * composed);
            for (int i = 0; i < N_LEAVES; i++) {
                for (int64_t e = 0; e < kd_tensor_count(&g.leaf[i].v); e++)
                    assert_true(fabsf(got[i][e] - want[i][e]) <=
                                2e-5f * (1.0f + fabsf(want[i][e])));
                test_free(got[i]);
                test_free(want[i]);
            }
            graph_close(&g);
        }
    }
}

/* ---- memory ---- */

/* Bytes of the arena's first block that the op leaves in use. */
static size_t left_in_use(struct graph *g)
{
    const struct ffn_case *c = g->arg;
    struct kd_feed_forward f = desc_of(g, c);
    struct kd_arena_mark before, after;
    struct kd_var *y;
    void *first;

    graph_reset(g);
    OK(kd_arena_alloc(g->arena, 64, &first));
    before = kd_arena_mark(g->arena);
    OK(kd_op_feed_forward(&g->ctx, &f, &g->leaf[X], &y));
    after = kd_arena_mark(g->arena);
    assert_int_equal(before.block, after.block);
    return after.used - before.used;
}

static size_t in_arena(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static void test_what_is_kept(void **state)
{
    size_t out = in_arena(sizeof(float) * N * D_OUT),
           pre = in_arena(sizeof(float) * N * FFN);
    struct ffn_case c = {.act = KD_ACT_GELU, .p = 0.3f, .chunk_rows = 4};
    struct kd_tape *tape;
    struct graph g;

    (void)state;
    open_case(&g, &c, true);
    assert_int_equal(left_in_use(&g), out + pre);
    tape = g.ctx.tape;
    g.ctx.tape = NULL;
    assert_int_equal(left_in_use(&g), out);
    g.ctx.tape = tape;
    for (int i = 0; i < N_LEAVES; i++)
        g.leaf[i].needs_grad = i == B2; /* needs nothing of the inside */
    assert_int_equal(left_in_use(&g), out);
    for (int i = 0; i < N_LEAVES; i++)
        g.leaf[i].needs_grad = false;
    assert_int_equal(left_in_use(&g), out);
    OK(kd_tape_backward(g.tape, NULL, NULL));
    graph_close(&g);
}

/* Backward goes on with what the op has left: the wide gradient of what lies before it
 * finds its place where the value before the activation was. */
static void test_backward_borrows(void **state)
{
    enum { ROWS = 64, WIDTH = 16, WIDE = 64 };
    const size_t stream = sizeof(float) * ROWS * WIDTH;
    struct kd_var *wide, *x, *y;
    struct graph g;

    (void)state;
    graph_open(&g);
    graph_leaf(&g, ROWS, WIDTH, false, 1.0);
    graph_leaf(&g, WIDE, WIDTH, true, 0.5);
    graph_leaf(&g, WIDTH, WIDE, true, 0.5);
    struct kd_feed_forward f = {.w1 = &g.leaf[W1],
                                .w2 = &g.leaf[W2],
                                .act = KD_ACT_GELU,
                                .chunk_rows = ROWS / 4};

    OK(kd_op_linear(&g.ctx, &g.leaf[X], &g.leaf[W1], NULL, KD_ACT_NONE, &wide));
    OK(kd_op_linear(&g.ctx, wide, &g.leaf[W2], NULL, KD_ACT_NONE, &x));
    OK(kd_op_feed_forward(&g.ctx, &f, x, &y));
    graph_half_square(&g, y);
    OK(kd_tape_backward(g.tape, NULL, NULL));
    assert_int_equal(kd_tape_peak_bytes(g.tape), 3 * stream); /* dy, dx, a chunk */
    graph_close(&g);
}

/* Without a tape: the same values, also where training is off. */
static void test_no_tape(void **state)
{
    struct ffn_case c = {.act = KD_ACT_SILU, .p = 0.3f, .chunk_rows = 4};
    double with, without, plain, undropped;
    struct graph g;

    (void)state;
    open_case(&g, &c, true);
    with = build_ffn(&g);
    graph_reset(&g);
    g.ctx.tape = NULL;
    without = build_ffn(&g);
    assert_true(with == without);
    g.ctx.train = false;
    plain = build_ffn(&g);
    assert_true(plain != with);
    c.p = 0.0f;
    undropped = build_ffn(&g);
    assert_true(plain == undropped);
    g.ctx.tape = g.tape;
    graph_close(&g);
}

static void test_no_rows(void **state)
{
    struct ffn_case c = {.act = KD_ACT_GELU, .p = 0.1f};
    struct kd_feed_forward f;
    struct kd_var *y;
    struct graph g;

    (void)state;
    open_case(&g, &c, true);
    g.leaf[X].v.shape[0] = 0;
    f = desc_of(&g, &c);
    OK(kd_op_feed_forward(&g.ctx, &f, &g.leaf[X], &y));
    assert_int_equal(y->v.shape[0], 0);
    assert_int_equal(y->v.shape[1], D_OUT);
    graph_half_square(&g, y);
    OK(kd_tape_backward(g.tape, NULL, NULL));
    for (int i = 0; i < FFN * D; i++)
        assert_true(((float *)g.leaf[W1].g.data)[i] == 0.0f);
    g.leaf[X].v.shape[0] = N;
    graph_close(&g);
}

static void test_wrong_shape(void **state)
{
    struct ffn_case c = {.act = KD_ACT_GELU};
    struct kd_feed_forward f;
    struct kd_var *y;
    struct graph g;

    (void)state;
    open_case(&g, &c, true);
    f = desc_of(&g, &c);
    f.w2 = f.w1;
    assert_int_equal(kd_op_feed_forward(&g.ctx, &f, &g.leaf[X], &y), KD_EINTERNAL);
    assert_non_null(strstr(kd_error_get()->text, "feed-forward: second weight"));
    kd_error_clear();
    f = desc_of(&g, &c);
    f.b1 = f.b2;
    assert_int_equal(kd_op_feed_forward(&g.ctx, &f, &g.leaf[X], &y), KD_EINTERNAL);
    assert_non_null(strstr(kd_error_get()->text, "feed-forward: first bias"));
    kd_error_clear();
    graph_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),        cmocka_unit_test(test_frozen_parts),
        cmocka_unit_test(test_same_matrix),      cmocka_unit_test(test_as_composed),
        cmocka_unit_test(test_what_is_kept),     cmocka_unit_test(test_no_tape),
        cmocka_unit_test(test_no_rows),          cmocka_unit_test(test_wrong_shape),
        cmocka_unit_test(test_backward_borrows),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
