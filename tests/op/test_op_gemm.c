/* SPDX-License-Identifier: Apache-2.0 */
/* Products against double precision: transposes, windows, alpha, beta, bias,
 * activations, empty shapes; and the bits of a row, which do not depend on the rows
 * around it. */
#include "op_test.h"

struct shape {
    int64_t m, n, k;
};

static double act_of(enum kd_act act, double x)
{
    switch (act) {
    case KD_ACT_NONE:
        return x;
    case KD_ACT_RELU:
        return x > 0 ? x : 0;
    case KD_ACT_GELU:
        return 0.5 * x * erfc(-x / sqrt(2.0));
    case KD_ACT_GELU_NEW:
        /* 1 + tanh(u) = 2 / (1 + exp(-2 u)), without its cancellation */
        return x / (1 + exp(-1.59576912160573071176 * (x + 0.044715 * x * x * x)));
    case KD_ACT_SILU:
        return x / (1 + exp(-x));
    case KD_ACT_TANH:
        return tanh(x);
    }
    return NAN;
}

static double element(struct kd_mat m, bool trans, int64_t r, int64_t c)
{
    return ((const float *)m.data)[trans ? c * m.ld + r : r * m.ld + c];
}

static struct kd_mat matrix(int64_t rows, int64_t cols, int64_t extra)
{
    return (struct kd_mat){ot_normal(rows * (cols + extra), 1.0), KD_F32, rows, cols,
                           cols + extra};
}

/* The product G, whose C was C0 before, at (i, j). */
static double want_pre(const struct kd_gemm *g, const float *c0, int64_t i, int64_t j)
{
    int64_t k = g->trans_a ? g->a.rows : g->a.cols;
    double sum = 0.0;

    for (int64_t l = 0; l < k; l++)
        sum += element(g->a, g->trans_a, i, l) * element(g->b, g->trans_b, l, j);
    sum *= (double)g->alpha;
    if (g->beta != 0.0f)
        sum += (double)g->beta * (double)c0[i * g->c.ld + j];
    return sum + (g->bias ? (double)g->bias[j] : 0.0);
}

static const uint16_t *rounded(const float *x, int64_t n)
{
    uint16_t *out = ot_bytes((size_t)n * sizeof *out);

    for (int64_t i = 0; i < n; i++)
        out[i] = kd_f32_to_bf16(x[i]);
    return out;
}

static void check_product(struct shape s, bool trans_a, bool trans_b, float alpha,
                          float beta, bool bias, enum kd_act act, bool pre)
{
    struct kd_gemm g = {.trans_a = trans_a,
                        .trans_b = trans_b,
                        .alpha = alpha,
                        .beta = beta,
                        .act = act};
    float *c0;
    /* large products are checked on a sample of C */
    int64_t stride = 1 + s.m * s.n * s.k / 4000000;

    g.a = trans_a ? matrix(s.k, s.m, 3) : matrix(s.m, s.k, 5);
    g.b = trans_b ? matrix(s.n, s.k, 2) : matrix(s.k, s.n, 0);
    g.c = matrix(s.m, s.n, 1);
    c0 = ot_copy(g.c.data, s.m * g.c.ld);
    if (beta == 0.0f)
        for (int64_t i = 0; i < s.m * g.c.ld; i++)
            c0[i] = NAN; /* must not be read */
    g.bias = bias ? ot_normal(s.n, 1.0) : NULL;
    if (bias && s.n % 4 < 3) /* else it is rounded where that is needed */
        g.bias_rounded = rounded(g.bias, s.n);
    if (pre)
        g.pre = matrix(s.m, s.n, 4);
    OT_EACH_BACKEND(be)
    {
        memcpy(g.c.data, c0, (size_t)(s.m * g.c.ld) * sizeof *c0);
        assert_int_equal(be->ops->gemm(be, &g), 0);
        ot_same(g.c.data);
        if (pre)
            ot_same(g.pre.data);
    }
    for (int64_t e = 0; e < s.m * s.n; e += stride) {
        int64_t i = e / s.n, j = e % s.n;
        double want = want_pre(&g, c0, i, j), scale = 1.0 + sqrt((double)s.k);

        if (pre)
            ot_near(element(g.pre, false, i, j), want, 1e-6, scale, "pre", e);
        ot_near(element(g.c, false, i, j), act_of(act, want), 2e-6, scale, "c", e);
    }
    for (int64_t i = 0; i < s.m; i++) /* the column beside the window */
        assert_memory_equal((float *)g.c.data + i * g.c.ld + s.n, c0 + i * g.c.ld + s.n,
                            sizeof *c0);
}

static void small_and_odd(void **state)
{
    const struct shape shapes[] = {{1, 1, 1},  {3, 5, 7},    {1, 300, 64},
                                   {17, 1, 9}, {33, 65, 31}, {5, 7, 0}};

    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (int t = 0; t < 4; t++) {
            check_product(shapes[i], t & 1, t & 2, 1.0f, 0.0f, false, KD_ACT_NONE,
                          false);
            check_product(shapes[i], t & 1, t & 2, 0.5f, 1.0f, true, KD_ACT_GELU,
                          t & 1);
        }
    }
}

static void large(void **state)
{
    (void)state;
    check_product((struct shape){1100, 192, 96}, false, true, 1.0f, 0.0f, true,
                  KD_ACT_GELU, true);
    check_product((struct shape){1003, 96, 200}, false, false, 1.0f, 1.0f, false,
                  KD_ACT_NONE, false);
    check_product((struct shape){250, 160, 1201}, true, false, 1.0f, 1.0f, false,
                  KD_ACT_NONE, false);
    check_product((struct shape){6, 3001, 64}, false, true, 2.0f, 0.0f, true,
                  KD_ACT_SILU, false);
    check_product((struct shape){300, 700, 600}, true, true, 0.5f, 2.0f, true,
                  KD_ACT_TANH, true);
    check_product((struct shape){40, 50, 30}, false, true, 0.0f, 0.5f, true,
                  KD_ACT_NONE, true);
}

/* One dimension is odd while rows begin aligned, as with a vocabulary in a wider
 * buffer: of the result's columns, its rows, the sum. */
static void odd_in_aligned_rows(void **state)
{
    (void)state;
    check_product((struct shape){9, 1007, 40}, false, true, 1.0f, 0.0f, true,
                  KD_ACT_NONE, false);
    check_product((struct shape){9, 1007, 40}, false, true, 1.0f, 0.5f, true,
                  KD_ACT_GELU, true);
    check_product((struct shape){1005, 12, 33}, true, false, 1.0f, 1.0f, false,
                  KD_ACT_NONE, false);
    check_product((struct shape){7, 24, 1003}, false, false, 0.5f, 0.0f, false,
                  KD_ACT_NONE, false);
    check_product((struct shape){7, 24, 1003}, false, false, 1.0f, 1.0f, true,
                  KD_ACT_TANH, true);
}

/* One more and one less than tiles, vectors, strips and steps of k of any width. */
static void borders(void **state)
{
    const int64_t near[] = {7, 9, 13, 15, 17, 31, 33, 47, 49, 65};
    const int64_t depths[] = {15, 17, 255, 257, 511, 513, 769};

    (void)state;
    for (int i = 0; i < 36; i++) {
        struct shape s = {near[i % 10], near[(i * 3 + i / 10) % 10], depths[i % 7]};

        check_product(s, i & 1, i & 2, 1.0f, i % 3 ? 1.0f : 0.0f, false, KD_ACT_NONE,
                      false);
    }
}

/* C's row I, or rows from I on, from a product of ROWS of the rows of G. */
static void check_rows(struct kd_backend *be, const struct kd_gemm *g, const float *c0,
                       int64_t i, int64_t rows, float *c)
{
    struct kd_gemm part = *g;
    size_t bytes = (size_t)(rows * g->c.ld) * sizeof(float);

    part.a.data = (float *)g->a.data + (g->trans_a ? i : i * g->a.ld);
    *(g->trans_a ? &part.a.cols : &part.a.rows) = rows;
    part.c.data = c;
    part.c.rows = rows;
    memcpy(c, c0 + i * g->c.ld, bytes);
    assert_int_equal(be->ops->gemm(be, &part), 0);
    assert_memory_equal(c, (float *)g->c.data + i * g->c.ld, bytes);
}

/* A row alone, in a few and in a batch of 130, with any number of threads. */
static void same_bits_in_any_batch(void **state)
{
    enum { M = 130 };
    const struct shape shapes[] = {
        {M, 256, 256}, {M, 1000, 64}, {M, 100, 1000}, {M, 37, 70}, {M, 1, 300}};

    (void)state;
    if (!strstr(ot_library(), "AVX"))
        skip(); /* products are OpenBLAS's there */
    for (int e = 0; e < 20; e++) {
        struct shape s = shapes[e % 5];
        bool trans_a = e & 1, trans_b = e & 2, add = e % 3 == 0;
        struct kd_gemm g = {.trans_a = trans_a,
                            .trans_b = trans_b,
                            .alpha = 0.7f,
                            .beta = add ? 1.0f : 0.0f,
                            .act = KD_ACT_GELU};
        float *c0, *c;

        g.a = trans_a ? matrix(s.k, M, 3) : matrix(M, s.k, 5);
        g.b = trans_b ? matrix(s.n, s.k, 2) : matrix(s.k, s.n, 0);
        g.c = matrix(M, s.n, 0);
        g.bias = ot_normal(s.n, 1.0);
        c0 = ot_copy(g.c.data, M * g.c.ld);
        c = ot_nan(M * g.c.ld);
        OT_EACH_BACKEND(be)
        {
            memcpy(g.c.data, c0, (size_t)(M * g.c.ld) * sizeof *c0);
            assert_int_equal(be->ops->gemm(be, &g), 0);
            ot_same(g.c.data);
            for (int64_t i = 0; i < M; i += 43)
                check_rows(be, &g, c0, i, 1, c);
            check_rows(be, &g, c0, 3, 4, c);
            check_rows(be, &g, c0, 50, 77, c);
        }
    }
}

/* What a library may fuse into the product, and shapes for which it may refuse to. */
static void epilogues(void **state)
{
    const struct shape shapes[] = {{9, 12, 40}, {9, 13, 40}, {517, 12, 24}};
    const enum kd_act acts[] = {KD_ACT_NONE, KD_ACT_RELU, KD_ACT_GELU_NEW, KD_ACT_TANH};

    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (size_t a = 0; a < sizeof acts / sizeof *acts; a++) {
            for (int t = 0; t < 8; t++)
                check_product(shapes[i], false, true, 1.0f, t & 4 ? 0.5f : 0.0f, t & 1,
                              acts[a], t & 2);
        }
    }
}

static void empty(void **state)
{
    (void)state;
    check_product((struct shape){0, 5, 3}, false, true, 1.0f, 0.0f, true, KD_ACT_RELU,
                  false);
    check_product((struct shape){4, 0, 3}, false, false, 1.0f, 0.0f, false, KD_ACT_NONE,
                  false);
    check_product((struct shape){4, 6, 0}, false, false, 1.0f, 0.5f, true, KD_ACT_RELU,
                  true);
}

/* With k = 0 and beta = 1 a product is its activation: relative errors of the
 * elementary functions over their whole range. */
static void activations(void **state)
{
    enum { N = 40001 };
    const enum kd_act acts[] = {KD_ACT_NONE,     KD_ACT_RELU, KD_ACT_GELU,
                                KD_ACT_GELU_NEW, KD_ACT_SILU, KD_ACT_TANH};
    const double bounds[] = {0, 0, 5e-7, 5e-7, 5e-7, 3e-7};
    float *x = ot_nan(N), *y = ot_nan(N);
    struct kd_gemm g = {.beta = 1.0f,
                        .a = {NULL, KD_F32, 1, 0, 1},
                        .b = {NULL, KD_F32, 0, N, N},
                        .c = {y, KD_F32, 1, N, N}};

    (void)state;
    for (int i = 0; i < N; i++)
        x[i] = ot_value((i - N / 2) * (24.0 / N) *
                        (i % 3 ? 1.0 : 1e-3)); /* +-12, and a third near 0 */
    for (size_t a = 0; a < sizeof acts / sizeof *acts; a++) {
        g.act = acts[a];
        memcpy(y, x, N * sizeof *x);
        assert_int_equal(ot.be[0]->ops->gemm(ot.be[0], &g), 0);
        for (int i = 0; i < N; i++) {
            /* far on the left the rounding of the exponent shows: x^2 / 2 or 0.07 x^3
             */
            double slack = x[i] < -1 ? 2e-7 * fabs(pow(x[i], 3.0)) : 0.0;

            ot_near(y[i], act_of(acts[a], x[i]), bounds[a] + slack, 1e-30, "act", i);
        }
        y[0] = NAN;
        y[1] = 100.0f;
        y[2] = -100.0f;
        assert_int_equal(ot.be[0]->ops->gemm(ot.be[0], &g), 0);
        assert_true(isnan(y[0]));
        ot_near(y[1], act_of(acts[a], 100.0), 1e-6, 0, "act of 100", 1);
        ot_near(y[2], act_of(acts[a], -100.0), 1e-6, 1e-10, "act of -100", 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(small_and_odd, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(large, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(odd_in_aligned_rows, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(epilogues, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(borders, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(same_bits_in_any_batch, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(empty, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(activations, ot_setup, ot_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
