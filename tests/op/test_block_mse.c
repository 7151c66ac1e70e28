/* SPDX-License-Identifier: Apache-2.0 */
/* The distance of blocks normalised as a whole: its value against the formula in
 * double, the gradient against central differences, and two parts against one. */
#include "graph.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define OK(e) assert_int_equal((e), KD_OK)

enum { ROWS = 5, D = 4 };
static const double W = 0.7;

/* Student and teacher [ROWS, D], the student far from mean 0 and variance 1. */
static void open_blocks(struct graph *g)
{
    graph_open(g);
    graph_leaf(g, ROWS, D, false, 2.0);
    graph_leaf(g, ROWS, D, false, 0.5);
    g->leaf[1].needs_grad = false;
    for (int64_t i = 0; i < kd_tensor_count(&g->leaf[0].v); i++)
        ((float *)g->leaf[0].v.data)[i] += 1.5f;
}

static double block_loss(struct graph *g)
{
    struct kd_block_sums all;
    double sum;

    OK(kd_op_block_sums(&g->ctx, &g->leaf[0], &g->leaf[1], &all));
    OK(kd_op_block_mse(&g->ctx, &g->leaf[0], &g->leaf[1], &all, &all, (float)W, &sum));
    return W * sum;
}

static void standardise(const float *x, double *out)
{
    double mean = 0, var = 0;

    for (int i = 0; i < ROWS * D; i++)
        mean += x[i] / (double)(ROWS * D);
    for (int i = 0; i < ROWS * D; i++)
        var += (x[i] - mean) * (x[i] - mean) / (ROWS * D);
    for (int i = 0; i < ROWS * D; i++)
        out[i] = (x[i] - mean) / sqrt(var + 1e-5);
}

static void test_value(void **state)
{
    double s[ROWS * D], t[ROWS * D], want = 0;
    struct graph g;

    (void)state;
    open_blocks(&g);
    standardise(g.leaf[0].v.data, s);
    standardise(g.leaf[1].v.data, t);
    for (int i = 0; i < ROWS * D; i++)
        want += W * (s[i] - t[i]) * (s[i] - t[i]);
    assert_float_equal(block_loss(&g), want, 1e-4);
    graph_close(&g);
}

static void test_differences(void **state)
{
    struct graph g;

    (void)state;
    open_blocks(&g);
    graph_check(&g, block_loss, 2e-2, 2e-3);
    graph_close(&g);
}

/* Rows [FIRST, FIRST + N) of leaf K as a var of its own. */
static struct kd_var part_of(struct graph *g, int k, int64_t first, int64_t n,
                             float *grad)
{
    struct kd_var v = g->leaf[k];

    v.v.data = (float *)g->leaf[k].v.data + first * D;
    v.v.shape[0] = n;
    v.needs_grad = v.is_param = v.g_live = grad != NULL;
    v.g = v.v;
    v.g.data = grad;
    return v;
}

static void test_two_parts(void **state)
{
    static const float zeros[ROWS * D];
    float *whole, *parts;
    struct kd_block_sums local[3], all = {0};
    double sum, sums = 0, part;
    struct graph g;

    (void)state;
    open_blocks(&g);
    whole = graph_upload(&g, zeros, sizeof zeros);
    parts = graph_upload(&g, zeros, sizeof zeros);
    struct kd_var s[] = {part_of(&g, 0, 0, 2, parts),
                         part_of(&g, 0, 2, ROWS - 2, parts + 2 * D),
                         part_of(&g, 0, 0, ROWS, whole)};
    struct kd_var t[] = {part_of(&g, 1, 0, 2, NULL), part_of(&g, 1, 2, ROWS - 2, NULL),
                         part_of(&g, 1, 0, ROWS, NULL)};

    for (int i = 0; i < 3; i++)
        OK(kd_op_block_sums(&g.ctx, &s[i], &t[i], &local[i]));
    for (int i = 0; i < 2; i++) {
        all.n += local[i].n;
        all.s += local[i].s;
        all.t += local[i].t;
        all.ss += local[i].ss;
        all.tt += local[i].tt;
        all.st += local[i].st;
    }
    OK(kd_op_block_mse(&g.ctx, &s[2], &t[2], &local[2], &local[2], (float)W, &sum));
    for (int i = 0; i < 2; i++) {
        OK(kd_op_block_mse(&g.ctx, &s[i], &t[i], &local[i], &all, (float)W, &part));
        sums += part;
    }
    assert_float_equal(sums, sum, 1e-4);
    for (int i = 0; i < ROWS * D; i++)
        assert_float_equal(parts[i], whole[i], 1e-5);
    graph_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_value),
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_two_parts),
    };

    if (graph_no_device())
        return 77; /* skipped */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
