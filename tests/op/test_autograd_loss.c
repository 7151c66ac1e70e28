/* SPDX-License-Identifier: Apache-2.0 */
/* The losses: values and gradients against constants made with a reference library in
 * float64 (cross-entropy, smoothing and KL at T = 2, rows without label, masked rows,
 * biases and scales), chunking, evaluation without a tape, gradients by differences,
 * and a head whose weight is also the embedding. */
#include "graph.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define OK(e) assert_int_equal((e), KD_OK)

enum { N = 5, D = 4, V = 7, D_T = 3 };

static const int32_t LABELS[N] = {2, -1, 0, 6, 3};
static const float MASK[N] = {1, 1, 0, 1, 1};

/* h = sin(0.7 i + 0.3), W = 0.8 cos(1.3 i), scale 0.9, bias 0.1 sin(i); teacher
 * h = sin(1.1 i), W = cos(0.9 i + 0.5), scale 1.5; loss = 0.7 ce + 0.05 smooth +
 * 1.3 kl. */
static const double CE = 6.640563185, SMOOTH = 65.926904671, KL = 1.489174255;
static const double DH[N * D] = {0.07519140,  -0.06845949, -0.11181708, 0.00863763,
                                 0.15157193,  0.07318383,  -0.11241875, -0.13332760,
                                 -0.90445987, -0.20349850, 0.79558865,  0.62913656,
                                 0.20354755,  0.09753999,  -0.15136387, -0.17851929,
                                 -0.03235233, -0.13415850, -0.03942216, 0.11306774};
static const double DW[V * D] = {
    0.51685215,  -0.16836241, -0.77439351, -1.01621524, 0.11528023,  0.15779042,
    0.12608933,  0.03508644,  -0.17832475, -0.25955767, -0.21871658, -0.07500966,
    -0.07641380, 0.43150215,  0.73647593,  0.69507356,  -0.20879892, -0.13553819,
    0.00146827,  0.13778417,  -0.00868982, 0.04682214,  0.08031292,  0.07603128,
    -0.15990508, -0.07265644, 0.04876365,  0.14724945};

struct heads {
    struct kd_head student, teacher;
    struct kd_var *h_teacher;
    struct kd_head_loss_desc desc;
};

static void fill(struct kd_var *v, double (*fn)(double), double size, double step,
                 double shift)
{
    for (int64_t i = 0; i < kd_tensor_count(&v->v); i++)
        ((float *)v->v.data)[i] = (float)(size * fn(step * (double)i + shift));
}

/* Leaves: h, W, teacher's h and W (frozen). */
static void open_heads(struct graph *g, struct heads *s)
{
    float bias[V];

    graph_open(g);
    for (int i = 0; i < V; i++)
        bias[i] = (float)(0.1 * sin(i));
    fill(graph_leaf(g, N, D, false, 1.0), sin, 1.0, 0.7, 0.3);
    fill(graph_leaf(g, V, D, true, 1.0), cos, 0.8, 1.3, 0.0);
    fill(graph_leaf(g, N, D_T, false, 1.0), sin, 1.0, 1.1, 0.0);
    fill(graph_leaf(g, V, D_T, true, 1.0), cos, 1.0, 0.9, 0.5);
    g->leaf[2].needs_grad = g->leaf[3].needs_grad = false;
    *s = (struct heads){
        .student = {&g->leaf[1], graph_upload(g, bias, sizeof(bias)), 0.9f},
        .teacher = {&g->leaf[3], NULL, 1.5f},
        .h_teacher = &g->leaf[2],
        .desc = {.w_ce = 0.7f,
                 .w_smooth = 0.05f,
                 .w_kl = 1.3f,
                 .temperature = 2.0f,
                 .labels = graph_upload(g, LABELS, sizeof(LABELS)),
                 .kl_mask = graph_upload(g, MASK, sizeof(MASK))},
    };
    g->arg = s;
}

static void assert_near(const float *x, const double *want, int n, double tol)
{
    for (int i = 0; i < n; i++) {
        if (!(fabs(x[i] - want[i]) <= tol))
            fail_msg("element %d: %.8f, expected %.8f", i, (double)x[i], want[i]);
    }
}

static double build_heads(struct graph *g)
{
    const struct heads *s = g->arg;
    struct kd_head_loss_sums sums;

    OK(kd_op_head_loss(&g->ctx, &s->student, &g->leaf[0], &s->teacher, s->h_teacher,
                       &s->desc, &sums, NULL));
    return s->desc.w_ce * sums.ce + s->desc.w_smooth * sums.smooth +
           s->desc.w_kl * sums.kl;
}

static void test_head_reference(void **state)
{
    (void)state;
    for (int64_t chunk = 0; chunk <= 6; chunk++) {
        struct kd_head_loss_sums sums;
        double rows[N][4], ce = 0.0;
        struct heads s;
        struct graph g;

        open_heads(&g, &s);
        s.desc.chunk_rows = chunk;
        OK(kd_op_head_loss(&g.ctx, &s.student, &g.leaf[0], &s.teacher, s.h_teacher,
                           &s.desc, &sums, rows[0]));
        assert_int_equal(g.leaf[1].pending, 1);
        OK(kd_tape_backward(g.tape, NULL, NULL));
        assert_int_equal(g.leaf[1].pending, 0);
        assert_float_equal(sums.ce, CE, 2e-6);
        assert_float_equal(sums.smooth, SMOOTH, 2e-5);
        assert_float_equal(sums.kl, KL, 2e-6);
        assert_true(sums.n_correct == 2.0);
        assert_near(g.leaf[0].g.data, DH, N * D, 1e-6);
        assert_near(g.leaf[1].g.data, DW, V * D, 1e-6);
        for (int r = 0; r < N; r++)
            ce += rows[r][0];
        assert_true(ce == sums.ce);
        assert_true(rows[1][0] == 0.0 && rows[1][3] == 0.0 && rows[1][2] > 0.0);
        assert_true(rows[2][2] == 0.0 && rows[2][0] > 0.0);
        graph_close(&g);
    }
}

/* Evaluation: the same sums without a tape, and nothing pending. */
static void test_head_without_tape(void **state)
{
    struct kd_head_loss_sums sums;
    struct heads s;
    struct graph g;

    (void)state;
    open_heads(&g, &s);
    g.ctx.tape = NULL;
    OK(kd_op_head_loss(&g.ctx, &s.student, &g.leaf[0], NULL, NULL, &s.desc, &sums,
                       NULL));
    assert_float_equal(sums.ce, CE, 2e-6);
    assert_true(sums.kl == 0.0);
    assert_null(g.leaf[0].g.data);
    assert_int_equal(g.leaf[1].pending, 0);
    for (int i = 0; i < V * D; i++)
        assert_true(((float *)g.leaf[1].g.data)[i] == 0.0f);
    graph_close(&g);
}

/* Losses whose sums come after the backward pass: two of one tape, in the memory that
 * the ops would have given back, and the digits of those that wait. */
static void test_sums_later(void **state)
{
    struct kd_head_loss_sums now, sums;
    struct kd_later later = {0};
    double distance_now, distance;
    struct heads s;
    struct graph g;
    struct kd_var *target;
    void *above;

    (void)state;
    open_heads(&g, &s);
    target = graph_leaf(&g, N, D, false, 1.0);
    OK(kd_op_hidden_mse(&g.ctx, &g.leaf[0], target, NULL, false, 0.3f, &distance_now));
    OK(kd_op_head_loss(&g.ctx, &s.student, &g.leaf[0], &s.teacher, s.h_teacher, &s.desc,
                       &now, NULL));
    OK(kd_tape_backward(g.tape, NULL, NULL));
    graph_reset(&g);
    g.ctx.later = &later;
    OK(kd_op_hidden_mse(&g.ctx, &g.leaf[0], target, NULL, false, 0.3f, &distance));
    OK(kd_op_head_loss(&g.ctx, &s.student, &g.leaf[0], &s.teacher, s.h_teacher, &s.desc,
                       &sums, NULL));
    assert_true(distance == 0 && sums.ce == 0 && sums.smooth == 0 && sums.kl == 0);
    OK(kd_arena_alloc(g.arena, 4096, &above));
    OK(g.be->ops->zero(g.be, above, 4096));
    OK(kd_tape_backward(g.tape, NULL, NULL));
    OK(kd_later_wait(&g.ctx));
    assert_true(distance_now > 0 && distance == distance_now);
    assert_memory_equal(&sums, &now, sizeof now);
    assert_null(later.first);
    graph_close(&g);
}

static void test_head_differences(void **state)
{
    static const float weights[][3] = {
        {1, 0, 0}, {0, 0.2f, 0}, {0, 0, 1}, {0.5f, 0.1f, 2}};
    static const float temperatures[] = {1.0f, 2.0f, 0.5f};

    (void)state;
    for (int w = 0; w < 4; w++) {
        for (int t = 0; t < 3; t++) {
            struct heads s;
            struct graph g;

            open_heads(&g, &s);
            s.desc.w_ce = weights[w][0];
            s.desc.w_smooth = weights[w][1];
            s.desc.w_kl = weights[w][2];
            s.desc.temperature = temperatures[t];
            s.desc.chunk_rows = 2;
            graph_check(&g, build_heads, 5e-3, 2e-3);
            graph_close(&g);
        }
    }
}

/* A tied weight: lookup, linear layer and head all contribute. */
static double build_tied(struct graph *g)
{
    const struct heads *s = g->arg;
    struct kd_head head = {&g->leaf[0], NULL, 1.0f};
    struct kd_head_loss_sums sums;
    struct kd_var *h, *y;
    double seeded;

    OK(kd_op_embed(&g->ctx, &g->leaf[0], s->desc.labels, N, 1.0f, NULL, NULL, -1, &h));
    OK(kd_op_linear(&g->ctx, h, &g->leaf[1], NULL, KD_ACT_TANH, &y));
    seeded = graph_half_square(g, y); /* y has a gradient before and after the head's */
    OK(kd_op_head_loss(&g->ctx, &head, y, NULL, NULL, &s->desc, &sums, NULL));
    return seeded + sums.ce + graph_half_square(g, y);
}

static void test_tied_head(void **state)
{
    static const int32_t labels[N] = {2, 1, 0, 6, 3};
    struct heads s = {.desc = {.w_ce = 1.0f, .temperature = 1.0f, .chunk_rows = 2}};
    struct graph g;

    (void)state;
    for (int param = 0; param < 2; param++) {
        graph_open(&g);
        g.arg = &s;
        s.desc.labels = graph_upload(&g, labels, sizeof(labels));
        graph_leaf(&g, V, D, param, 1.0);
        graph_leaf(&g, D, D, true, 1.0);
        graph_check(&g, build_tied, 5e-3, 2e-3);
        graph_close(&g);
    }
}

/* No rows at all is a valid batch. */
static void test_head_no_rows(void **state)
{
    struct kd_head_loss_sums sums;
    struct heads s;
    struct graph g;

    (void)state;
    open_heads(&g, &s);
    g.leaf[0].v.shape[0] = 0;
    OK(kd_op_head_loss(&g.ctx, &s.student, &g.leaf[0], NULL, NULL, &s.desc, &sums,
                       NULL));
    assert_true(sums.ce == 0.0 && sums.n_correct == 0.0);
    OK(kd_tape_backward(g.tape, NULL, NULL));
    graph_close(&g);
}

/* ---- hidden states ---- */

/* s = sin(0.7 i + 0.3), t = cos(0.4 i), both [3, 4], row 1 masked, weight 0.3. */
static const double HIDDEN[2] = {6.48121320, 11.52848467};
static const double DS[2][12] = {
    {-0.42268787, -0.04775401, 0.17697487, 0.18786326, 0, 0, 0, 0, 0.37465087,
     0.72497987, 0.90244814, 0.77801467},
    {-1.21656501, -2.04931564, -0.38441145, 3.65029210, 0, 0, 0, 0, -0.31094461,
     0.52414235, 0.49386208, -0.70705983}};

struct hidden_case {
    bool normalize;
    const float *mask;
};

static double build_hidden(struct graph *g)
{
    const struct hidden_case *c = g->arg;
    double sum;

    OK(kd_op_hidden_mse(&g->ctx, &g->leaf[0], &g->leaf[1], c->mask, c->normalize, 0.3f,
                        &sum));
    return 0.3 * sum;
}

static void test_hidden_mse(void **state)
{
    static const float mask[3] = {1, 0, 1};

    (void)state;
    for (int normalize = 0; normalize < 2; normalize++) {
        struct hidden_case c = {normalize, NULL};
        struct graph g;

        graph_open(&g);
        c.mask = graph_upload(&g, mask, sizeof(mask));
        g.arg = &c;
        fill(graph_leaf(&g, 3, 4, false, 1.0), sin, 1.0, 0.7, 0.3);
        fill(graph_leaf(&g, 3, 4, false, 1.0), cos, 1.0, 0.4, 0.0);
        g.leaf[1].needs_grad = false;
        assert_float_equal(build_hidden(&g), (double)0.3f * HIDDEN[normalize], 1e-5);
        assert_near(g.leaf[0].g.data, DS[normalize], 12, 2e-6);
        graph_check(&g, build_hidden, 2e-3, 2e-3);
        graph_close(&g);
    }
}

/* A tapped hidden state is seeded before later ops add to its gradient. */
static double build_tapped(struct graph *g)
{
    struct kd_var *a, *b, *y;

    OK(kd_op_linear(&g->ctx, &g->leaf[0], &g->leaf[1], NULL, KD_ACT_TANH, &a));
    OK(kd_op_linear(&g->ctx, a, &g->leaf[1], NULL, KD_ACT_TANH, &b));
    OK(kd_op_residual(&g->ctx, a, b, 0.0f, 0, NULL, &y));
    return graph_half_square(g, a) + graph_half_square(g, y) + graph_half_square(g, b);
}

static void test_tapped(void **state)
{
    struct graph g;

    (void)state;
    graph_open(&g);
    graph_leaf(&g, N, D, false, 1.0);
    graph_leaf(&g, D, D, true, 1.0);
    graph_check(&g, build_tapped, 5e-3, 2e-3);
    graph_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head_reference), cmocka_unit_test(test_head_without_tape),
        cmocka_unit_test(test_sums_later),     cmocka_unit_test(test_head_differences),
        cmocka_unit_test(test_tied_head),      cmocka_unit_test(test_head_no_rows),
        cmocka_unit_test(test_hidden_mse),     cmocka_unit_test(test_tapped),
    };

    if (graph_no_device())
        return 77; /* skipped */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
