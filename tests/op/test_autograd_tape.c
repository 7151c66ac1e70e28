/* SPDX-License-Identifier: Apache-2.0 */
/* The tape and the arena under it: frozen parts record nothing, parameters are
 * reported once and when complete, the gradient pool stays small, steady steps allocate
 * nothing, a given-up step leaves nothing behind, taps publish what was asked for. */
#include "graph.h"

#include "ref_backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define OK(e) assert_int_equal((e), KD_OK)

enum { N = 64, D = 16, DEPTH = 24 };

/* A deep stack of y = norm(x + tanh(x W1) W2), weights shared by the layers. */
static struct kd_var *stack(struct graph *g, struct kd_var *x, int depth)
{
    const struct kd_norm_desc desc = {KD_NORM_LAYER, 1e-5f};

    for (int k = 0; k < depth; k++) {
        struct kd_var *a, *b;

        OK(kd_op_linear(&g->ctx, x, &g->leaf[1], NULL, KD_ACT_TANH, &a));
        OK(kd_op_linear(&g->ctx, a, &g->leaf[2], &g->leaf[3], KD_ACT_NONE, &b));
        OK(kd_op_residual_norm(&g->ctx, &desc, x, b, 0.0f, 0, NULL, &g->leaf[4],
                               &g->leaf[5], NULL, &x));
        kd_tap(&g->ctx, "enc", k, "out", x);
    }
    kd_tap(&g->ctx, "enc", -1, "final", x);
    return x;
}

static void open_stack(struct graph *g)
{
    graph_open(g);
    graph_leaf(g, N, D, false, 1.0);
    graph_leaf(g, 4 * D, D, true, 0.2);
    graph_leaf(g, D, 4 * D, true, 0.2);
    graph_leaf(g, D, 0, true, 1.0);
    graph_leaf(g, D, 0, true, 1.0);
    graph_leaf(g, D, 0, true, 1.0);
}

/* ---- what is recorded ---- */

struct seen {
    int n;
    struct kd_var *var[16];
    float *copy[16]; /* the gradient when it was reported */
};

static int on_ready(void *arg, struct kd_var *p)
{
    struct seen *s = arg;
    size_t bytes = kd_tensor_bytes(&p->g);

    assert_true(p->is_param && p->needs_grad && s->n < 16);
    assert_int_equal(p->pending, 0);
    s->var[s->n] = p;
    s->copy[s->n] = test_malloc(bytes);
    memcpy(s->copy[s->n++], p->g.data, bytes);
    return KD_OK;
}

static void test_frozen_records_nothing(void **state)
{
    struct seen seen = {0};
    struct kd_var *y;
    struct graph g;

    (void)state;
    open_stack(&g);
    for (int i = 0; i < g.n_leaves; i++)
        g.leaf[i].needs_grad = false;
    y = stack(&g, &g.leaf[0], 2);
    assert_false(y->needs_grad);
    graph_half_square(&g, y);
    assert_null(y->g.data);
    OK(kd_tape_backward(g.tape, on_ready, &seen));
    assert_int_equal(seen.n, 0);
    assert_int_equal(kd_tape_peak_bytes(g.tape), 0);

    /* One trained parameter: the frozen ones stay untouched. */
    g.leaf[3].needs_grad = true;
    y = stack(&g, &g.leaf[0], 2);
    assert_true(y->needs_grad);
    graph_half_square(&g, y);
    OK(kd_tape_backward(g.tape, on_ready, &seen));
    assert_int_equal(seen.n, 1);
    assert_ptr_equal(seen.var[0], &g.leaf[3]);
    assert_null(g.leaf[0].g.data);
    for (int i = 0; i < 4 * D * D; i++)
        assert_true(((float *)g.leaf[1].g.data)[i] == 0.0f);
    test_free(seen.copy[0]);
    graph_close(&g);
}

static void test_ready_once_and_complete(void **state)
{
    struct seen seen = {0};
    struct graph g;

    (void)state;
    open_stack(&g);
    graph_half_square(&g, stack(&g, &g.leaf[0], 3));
    assert_int_equal(g.leaf[1].pending, 3);
    OK(kd_tape_backward(g.tape, on_ready, &seen));
    assert_int_equal(seen.n, 5);
    for (int i = 0; i < seen.n; i++) {
        for (int j = 0; j < i; j++)
            assert_ptr_not_equal(seen.var[i], seen.var[j]);
        assert_memory_equal(seen.copy[i], seen.var[i]->g.data,
                            kd_tensor_bytes(&seen.var[i]->g));
        test_free(seen.copy[i]);
    }
    graph_close(&g);
}

/* A tied weight is complete only after the lookup, though the head comes first. */
static void test_ready_tied(void **state)
{
    static const int32_t ids[4] = {1, 0, 2, 1};
    struct kd_head_loss_desc desc = {.w_ce = 1.0f, .temperature = 1.0f};
    struct kd_head_loss_sums sums;
    struct seen seen = {0};
    struct kd_head head;
    struct kd_var *h, *y;
    struct graph g;

    (void)state;
    graph_open(&g);
    head = (struct kd_head){graph_leaf(&g, 3, D, true, 1.0), NULL, 1.0f};
    graph_leaf(&g, D, D, true, 1.0);
    desc.labels = graph_upload(&g, ids, sizeof(ids));
    OK(kd_op_embed(&g.ctx, head.w, desc.labels, 4, 1.0f, NULL, NULL, -1, &h));
    OK(kd_op_linear(&g.ctx, h, &g.leaf[1], NULL, KD_ACT_NONE, &y));
    OK(kd_op_head_loss(&g.ctx, &head, y, NULL, NULL, &desc, &sums, NULL));
    assert_int_equal(head.w->pending, 2);
    OK(kd_tape_backward(g.tape, on_ready, &seen));
    assert_int_equal(seen.n, 2);
    assert_ptr_equal(seen.var[0], &g.leaf[1]);
    assert_ptr_equal(seen.var[1], head.w);
    assert_memory_equal(seen.copy[1], head.w->g.data, kd_tensor_bytes(&head.w->g));
    test_free(seen.copy[0]);
    test_free(seen.copy[1]);
    graph_close(&g);
}

static int refuse(void *arg, struct kd_var *p)
{
    (void)arg;
    (void)p;
    return KD_EINTERNAL;
}

/* A step that was given up, before or within backward, does not disturb the next. */
static void test_given_up_step(void **state)
{
    struct graph g;
    float *want;
    size_t bytes;

    (void)state;
    open_stack(&g);
    bytes = kd_tensor_bytes(&g.leaf[1].g);
    graph_half_square(&g, stack(&g, &g.leaf[0], 2));
    OK(kd_tape_backward(g.tape, NULL, NULL));
    want = test_malloc(bytes);
    memcpy(want, g.leaf[1].g.data, bytes);
    for (int backward = 0; backward < 2; backward++) {
        graph_reset(&g);
        graph_half_square(&g, stack(&g, &g.leaf[0], 2));
        if (backward)
            assert_int_equal(kd_tape_backward(g.tape, refuse, NULL), KD_EINTERNAL);
        kd_arena_reset(g.arena);
        kd_tape_reset(g.tape);
        for (int i = 1; i < g.n_leaves; i++)
            assert_int_equal(g.leaf[i].pending, 0);
        graph_reset(&g);
        graph_half_square(&g, stack(&g, &g.leaf[0], 2));
        OK(kd_tape_backward(g.tape, NULL, NULL));
        assert_memory_equal(want, g.leaf[1].g.data, bytes);
    }
    test_free(want);
    graph_close(&g);
}

/* ---- memory ---- */

/* The pool holds a few buffers however deep the stack is; here at most three streams
 * [N, D] and one inner gradient [N, 4 D] live at once. */
static void test_pool_is_small(void **state)
{
    size_t bytes[2], stream = sizeof(float) * N * D;

    (void)state;
    for (int deep = 0; deep < 2; deep++) {
        struct graph g;

        open_stack(&g);
        graph_half_square(&g, stack(&g, &g.leaf[0], deep ? DEPTH : 2));
        OK(kd_tape_backward(g.tape, NULL, NULL));
        bytes[deep] = kd_tape_peak_bytes(g.tape);
        graph_close(&g);
    }
    assert_in_range(bytes[0], stream, 10 * stream);
    assert_int_equal(bytes[0], bytes[1]);
}

static void test_residual_hands_over(void **state)
{
    size_t stream = sizeof(float) * N * D;
    struct kd_var *x;
    struct graph g;

    (void)state;
    graph_open(&g);
    x = graph_leaf(&g, N, D, false, 1.0);
    graph_leaf(&g, N, D, false, 1.0)->needs_grad = false;
    for (int k = 0; k < 8; k++)
        OK(kd_op_residual(&g.ctx, x, &g.leaf[1], 0.0f, 0, NULL, &x));
    graph_half_square(&g, x);
    OK(kd_tape_backward(g.tape, NULL, NULL));
    assert_int_equal(kd_tape_peak_bytes(g.tape),
                     stream); /* one buffer went all along */
    assert_non_null(g.leaf[0].g.data);
    graph_close(&g);
}

static void test_steady_step_allocates_nothing(void **state)
{
    int64_t n_alloc = 0;
    struct graph g;

    (void)state;
    open_stack(&g);
    for (int step = 0; step < 4; step++) {
        g.leaf[0].v.shape[0] = step == 0 ? N : N - 7 * step; /* ragged, largest first */
        graph_half_square(&g, stack(&g, &g.leaf[0], DEPTH));
        OK(kd_tape_backward(g.tape, NULL, NULL));
        graph_reset(&g);
        if (step == 1)
            n_alloc = ref_backend_stats(g.be).n_alloc;
    }
    assert_int_equal(ref_backend_stats(g.be).n_alloc, n_alloc);
    g.leaf[0].v.shape[0] = N;
    graph_close(&g);
}

/* ---- taps and checks ---- */

static void test_taps(void **state)
{
    struct kd_tap items[] = {{"enc.1.out", NULL}, {"enc.final", NULL}, {"x.y", NULL}};
    struct kd_taps taps = {.n = 3, .items = items};
    struct kd_var *y;
    struct graph g;

    (void)state;
    open_stack(&g);
    g.ctx.taps = &taps;
    y = stack(&g, &g.leaf[0], 3);
    assert_ptr_equal(kd_taps_find(&taps, "enc.final"), y);
    assert_non_null(kd_taps_find(&taps, "enc.1.out"));
    assert_ptr_not_equal(kd_taps_find(&taps, "enc.1.out"), y);
    assert_null(kd_taps_find(&taps, "x.y"));
    assert_null(kd_taps_find(&taps, "enc.2.out"));
    assert_null(kd_taps_find(NULL, "enc.1.out"));
    graph_close(&g);
}

/* Kept values outlive the memory that they were published in. */
static void test_taps_keep(void **state)
{
    struct kd_tap items[] = {{"enc.0.out", NULL}, {"x.y", NULL}};
    struct kd_var keep[2] = {0};
    struct kd_taps taps = {2, items, keep};
    struct kd_tensor want;
    struct kd_var *published;
    struct graph g;

    (void)state;
    open_stack(&g);
    OK(kd_arena_tensor(g.arena, KD_F32, N, D, &keep[0].v));
    OK(kd_arena_tensor(g.arena, KD_F32, N, D, &want));
    g.ctx.taps = &taps;
    g.ctx.tape = NULL;
    stack(&g, &g.leaf[0], 2);
    published = kd_taps_find(&taps, "enc.0.out");
    assert_ptr_not_equal(published, &keep[0]);
    memcpy(want.data, published->v.data, kd_tensor_bytes(&want));
    OK(kd_taps_keep(g.be, &taps));
    memset(published->v.data, 0, kd_tensor_bytes(&want));
    OK(kd_taps_keep(g.be, &taps)); /* copies once */
    assert_ptr_equal(kd_taps_find(&taps, "enc.0.out"), &keep[0]);
    assert_memory_equal(keep[0].v.data, want.data, kd_tensor_bytes(&want));
    assert_null(kd_taps_find(&taps, "x.y"));
    OK(kd_taps_keep(g.be, NULL));
    graph_close(&g);
}

static void test_wrong_shape(void **state)
{
    struct kd_var *y;
    struct graph g;

    (void)state;
    open_stack(&g);
    assert_int_equal(
        kd_op_linear(&g.ctx, &g.leaf[0], &g.leaf[2], NULL, KD_ACT_NONE, &y),
        KD_EINTERNAL);
    assert_non_null(strstr(kd_error_get()->text, "linear: x is float32"));
    kd_error_clear();
    assert_int_equal(kd_op_residual(&g.ctx, &g.leaf[0], &g.leaf[2], 0.0f, 0, NULL, &y),
                     KD_EINTERNAL);
    kd_error_clear();
    graph_close(&g);
}

/* ---- arena ---- */

static void test_arena_marks(void **state)
{
    struct kd_arena_mark mark;
    char *a, *b, *c, *host, *again;
    struct graph g;

    (void)state;
    graph_open(&g);
    OK(kd_arena_alloc(g.arena, 100, (void **)&a));
    mark = kd_arena_mark(g.arena);
    OK(kd_arena_alloc(g.arena, 1, (void **)&b));
    OK(kd_arena_host(g.arena, 40, &host));
    assert_int_equal((uintptr_t)a % 64, 0);
    assert_int_equal((uintptr_t)b % 64, 0);
    assert_int_equal((uintptr_t)host % 64, 0);
    assert_true(b >= a + 100);
    for (int i = 0; i < 40; i++)
        assert_int_equal(host[i], 0);
    memset(host, 1, 40);
    OK(kd_arena_alloc(g.arena, 5 << 20, (void **)&c)); /* a second block */
    memset(c, 2, 5 << 20);
    kd_arena_release(g.arena, mark);
    OK(kd_arena_alloc(g.arena, 1, (void **)&again));
    assert_ptr_equal(again, b);
    OK(kd_arena_host(g.arena, 40, &again));
    assert_ptr_equal(again, host);
    assert_int_equal(again[39], 0);
    OK(kd_arena_alloc(g.arena, 5 << 20, (void **)&again));
    assert_ptr_equal(again, c); /* the block was kept */
    graph_close(&g);
}

static void test_arena_reset(void **state)
{
    char *p, *q, *first;
    int64_t n_alloc;
    struct graph g;

    (void)state;
    graph_open(&g);
    OK(kd_arena_alloc(g.arena, 0, (void **)&p));
    assert_int_equal(kd_arena_peak_bytes(g.arena), 64);
    for (int i = 0; i < 40; i++) {
        OK(kd_arena_alloc(g.arena, 300000, (void **)&p));
        memset(p, i, 300000);
    }
    assert_in_range(kd_arena_peak_bytes(g.arena), 40 * 300000, 41 * 300000);
    assert_true(ref_backend_stats(g.be).n_alloc > 2);
    kd_arena_reset(g.arena);
    assert_int_equal(ref_backend_stats(g.be).n_live, 0);
    n_alloc = ref_backend_stats(g.be).n_alloc;
    for (int round = 0; round < 3; round++) {
        OK(kd_arena_alloc(g.arena, 300000, (void **)&first));
        p = first;
        for (int i = 1; i < 40; i++) {
            OK(kd_arena_alloc(g.arena, 300000, (void **)&q));
            assert_true(q > p); /* one piece */
            p = q;
        }
        kd_arena_reset(g.arena);
    }
    assert_int_equal(ref_backend_stats(g.be).n_alloc, n_alloc + 1);
    graph_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frozen_records_nothing),
        cmocka_unit_test(test_ready_once_and_complete),
        cmocka_unit_test(test_ready_tied),
        cmocka_unit_test(test_given_up_step),
        cmocka_unit_test(test_pool_is_small),
        cmocka_unit_test(test_residual_hands_over),
        cmocka_unit_test(test_steady_step_allocates_nothing),
        cmocka_unit_test(test_taps),
        cmocka_unit_test(test_taps_keep),
        cmocka_unit_test(test_wrong_shape),
        cmocka_unit_test(test_arena_marks),
        cmocka_unit_test(test_arena_reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
