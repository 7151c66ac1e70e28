/* SPDX-License-Identifier: Apache-2.0 */
/* Pointwise ops against double precision: sums, activations, slopes of activations by
 * central differences of the functions, gates, dropout by its definition, casts. */
#include "op_test.h"

static const int64_t sizes[] = {0, 1, 17, 40003};

static struct kd_tensor vec(float *x, int64_t n)
{
    return kd_tensor1(x, KD_F32, n);
}

static void sums(void **state)
{
    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        int64_t n = sizes[s];
        float *x = ot_normal(n, 1.0), *y = ot_normal(n, 1.0), *y0 = ot_copy(y, n),
              *out = ot_nan(n);
        struct kd_tensor tx = vec(x, n), ty = vec(y, n);

        OT_EACH_BACKEND(be)
        {
            memcpy(y, y0, (size_t)n * sizeof *y);
            assert_int_equal(be->ops->add(be, tx, ty, vec(out, n)), 0);
            assert_int_equal(be->ops->axpy(be, -0.3f, tx, ty), 0);
            assert_int_equal(be->ops->scale(be, 1.7f, ty), 0);
            ot_same(out);
            ot_same(y);
        }
        for (int64_t i = 0; i < n; i++) {
            ot_near(out[i], (double)x[i] + (double)y0[i], 1e-7, 1.0, "add", i);
            ot_near(y[i], 1.7 * ((double)y0[i] - 0.3 * (double)x[i]), 3e-7, 1.0,
                    "axpy, scale", i);
        }
    }
}

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
        return 0.5 * x *
               (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case KD_ACT_SILU:
        return x / (1 + exp(-x));
    case KD_ACT_TANH:
        return tanh(x);
    }
    return NAN;
}

#ifdef OT_CUDA
enum { FUSED_SAME_BITS = false }; /* a library's own formula may be fused */
#else
enum { FUSED_SAME_BITS = true };
#endif

/* Values, in place too, and on CPUs the same bits as the product's epilogue. */
static void values(void **state)
{
    const int64_t n = 20011;
    float *x = ot_normal(n, 2.5), *one = ot_nan(1);
    struct kd_gemm g = {.alpha = 1.0f,
                        .a = {x, KD_F32, n, 1, 1},
                        .b = {one, KD_F32, 1, 1, 1},
                        .c = {NULL, KD_F32, n, 1, 1}};

    (void)state;
    *one = 1.0f;
    for (int act = KD_ACT_NONE; act <= KD_ACT_TANH; act++) {
        float *y = ot_nan(n), *in_place = ot_nan(n), *product = ot_nan(n);

        g.act = act;
        g.c.data = product;
        OT_EACH_BACKEND(be)
        {
            memcpy(in_place, x, (size_t)n * sizeof *x);
            assert_int_equal(be->ops->act(be, act, vec(x, n), vec(y, n)), 0);
            assert_int_equal(be->ops->act(be, act, vec(in_place, n), vec(in_place, n)),
                             0);
            ot_same(y);
            assert_memory_equal(y, in_place, (size_t)n * sizeof *y);
            if (FUSED_SAME_BITS) {
                assert_int_equal(be->ops->gemm(be, &g), 0);
                assert_memory_equal(y, product, (size_t)n * sizeof *y);
            }
        }
        for (int64_t i = 0; i < n; i++)
            ot_near(y[i], act_of(act, x[i]), 1e-6, 1.0, "act", i);
    }
}

static void slopes(void **state)
{
    const int64_t n = 20011;
    float *pre = ot_normal(n, 2.5), *dy = ot_normal(n, 1.0);
    struct kd_tensor tp = vec(pre, n), ty = vec(dy, n);

    (void)state;
    for (int act = KD_ACT_NONE; act <= KD_ACT_TANH; act++) {
        float *dx = ot_nan(n), *in_place = ot_nan(n);
        struct kd_tensor tx = vec(dx, n), same = vec(in_place, n);

        OT_EACH_BACKEND(be)
        {
            memcpy(in_place, dy, (size_t)n * sizeof *dy);
            assert_int_equal(be->ops->act_back(be, act, tp, ty, tx), 0);
            assert_int_equal(be->ops->act_back(be, act, tp, same, same), 0);
            ot_same(dx);
            assert_memory_equal(dx, in_place, (size_t)n * sizeof *dx);
        }
        for (int64_t i = 0; i < n; i++) {
            double x = pre[i], h = 1e-5;
            double slope = (act_of(act, x + h) - act_of(act, x - h)) / (2 * h);

            if (act == KD_ACT_RELU && fabs(x) < 2 * h)
                continue;
            ot_near(dx[i], slope * (double)dy[i], 1e-6, 1.0, "slope", i);
        }
    }
}

/* A gate of ROWS x COLS and its gradient, in place too. */
static void check_glu(enum kd_act act, int64_t rows, int64_t cols)
{
    int64_t n = rows * cols;
    float *pre = ot_normal(2 * n, 1.5), *dy = ot_normal(n, 1.0), *y = ot_nan(n),
          *dpre = ot_nan(2 * n), *in_place = ot_nan(2 * n);
    struct kd_tensor tp = kd_tensor2(pre, KD_F32, rows, 2 * cols),
                     ty = kd_tensor2(y, KD_F32, rows, cols),
                     tdy = kd_tensor2(dy, KD_F32, rows, cols),
                     td = kd_tensor2(dpre, KD_F32, rows, 2 * cols),
                     same = kd_tensor2(in_place, KD_F32, rows, 2 * cols);

    OT_EACH_BACKEND(be)
    {
        memcpy(in_place, pre, (size_t)(2 * n) * sizeof *pre);
        assert_int_equal(be->ops->glu(be, act, tp, ty), 0);
        assert_int_equal(be->ops->glu_back(be, act, tp, tdy, td), 0);
        assert_int_equal(be->ops->glu_back(be, act, same, tdy, same), 0);
        ot_same(y);
        ot_same(dpre);
        assert_memory_equal(dpre, in_place, (size_t)(2 * n) * sizeof *dpre);
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t at = 2 * (i / cols) * cols + i % cols;
        double a = pre[at], b = pre[at + cols], g = dy[i], h = 1e-5;
        double slope = (act_of(act, a + h) - act_of(act, a - h)) / (2 * h);

        ot_near(y[i], act_of(act, a) * b, 1e-6, 1.0, "glu", i);
        ot_near(dpre[at + cols], g * act_of(act, a), 1e-6, 1.0, "glu_back, b", i);
        if (act != KD_ACT_RELU || fabs(a) > 2 * h)
            ot_near(dpre[at], g * b * slope, 2e-6, 1.0, "glu_back, a", i);
    }
}

static void gates(void **state)
{
    (void)state;
    for (int act = KD_ACT_NONE; act <= KD_ACT_TANH; act++) {
        check_glu(act, 9, 64);
        check_glu(act, 37, 53);
    }
    check_glu(KD_ACT_GELU_NEW, 70, 513);
    check_glu(KD_ACT_GELU_NEW, 3, 1);
    check_glu(KD_ACT_SILU, 5, 12);
    check_glu(KD_ACT_SILU, 0, 8);
}

static void check_dropout(float p, int64_t rows, int64_t cols, bool acc)
{
    int64_t n = rows * cols;
    float *x = ot_normal(n, 1.0), *out0 = ot_normal(n, 1.0), *out = ot_nan(n);
    struct kd_dropout d = {.p = p,
                           .seed = 0x123456789abcull,
                           .step = 3,
                           .site = 11,
                           .row_keys = ot_keys(rows)};

    struct kd_tensor tx = kd_tensor2(x, KD_F32, rows, cols),
                     to = kd_tensor2(out, KD_F32, rows, cols);

    OT_EACH_BACKEND(be)
    {
        if (acc)
            memcpy(out, out0, (size_t)n * sizeof *out);
        assert_int_equal(be->ops->dropout(be, &d, tx, to, acc), 0);
        ot_same(out);
    }
    for (int64_t i = 0; i < n; i++) {
        double want = ot_drop(&d, d.site, i / cols, i % cols) * (double)x[i];

        ot_near(out[i], want + (acc ? (double)out0[i] : 0.0), 3e-7, 1.0, "dropout", i);
    }
}

static void dropout(void **state)
{
    (void)state;
    check_dropout(0.1f, 1, 1, false);
    check_dropout(0.5f, 7, 13, true);
    check_dropout(0.3f, 37, 1101, false);
    check_dropout(0.0f, 5, 9, false);
    check_dropout(0.2f, 70, 256, true);
}

/* Every mask has about its share of zeros: a wrong limit would show. */
static void dropout_rate(void **state)
{
    const int64_t rows = 100, cols = 1000;
    float *x = ot_nan(rows * cols), *out = ot_nan(rows * cols);
    struct kd_dropout d = {.p = 0.1f, .seed = 5, .row_keys = ot_keys(rows)};
    int dropped = 0;

    (void)state;
    for (int64_t i = 0; i < rows * cols; i++)
        x[i] = 1.0f;
    assert_int_equal(ot.be[0]->ops->dropout(ot.be[0], &d,
                                            kd_tensor2(x, KD_F32, rows, cols),
                                            kd_tensor2(out, KD_F32, rows, cols), false),
                     0);
    for (int64_t i = 0; i < rows * cols; i++)
        dropped += out[i] == 0.0f;
    assert_in_range(dropped, 9500, 10500);
}

static void casts(void **state)
{
    const int64_t n = 16500;
    float *x = ot_normal(n, 3.0), *back = ot_nan(n);
    uint16_t *half = ot_bytes((size_t)n * 2);
    double *wide = ot_bytes((size_t)n * 8);
    struct kd_tensor tx = kd_tensor1(x, KD_F32, n), tb = kd_tensor1(back, KD_F32, n);

    (void)state;
    for (int f16 = 0; f16 < 2; f16++) {
        enum kd_dtype dtype = f16 ? KD_F16 : KD_BF16;
        struct kd_tensor th = kd_tensor1(half, dtype, n);

        OT_EACH_BACKEND(be)
        {
            assert_int_equal(be->ops->cast(be, tx, th), 0);
            assert_int_equal(be->ops->cast(be, th, tb), 0);
            assert_int_equal(be->ops->cast(be, tx, kd_tensor1(wide, KD_F64, n)), 0);
        }
        for (int64_t i = 0; i < n; i++) {
            assert_int_equal(half[i], f16 ? kd_f32_to_f16(x[i]) : kd_f32_to_bf16(x[i]));
            assert_true(back[i] ==
                        (f16 ? kd_f16_to_f32(half[i]) : kd_bf16_to_f32(half[i])));
            assert_true(wide[i] == (double)x[i]);
        }
    }
    assert_int_equal(ot.be[0]->ops->cast(ot.be[0], tx, tb), 0);
    assert_memory_equal(x, back, (size_t)n * 4);
    assert_int_equal(ot.be[0]->ops->cast(ot.be[0], tx, kd_tensor1(half, KD_I32, n)),
                     KD_EINTERNAL);
    kd_error_clear();
}

/* Gradients of parameters are float32 whatever the activations are. */
static void axpy_of_two_types(void **state)
{
    const int64_t n = 1003;
    float *x = ot_normal(n, 1.0), *y0 = ot_normal(n, 1.0), *y = ot_nan(n);
    uint16_t *half = ot_bytes((size_t)n * sizeof *half);

    (void)state;
    if (ot.be[0]->device == KD_CPU)
        return; /* float32 only */
    for (int64_t i = 0; i < n; i++)
        half[i] = kd_f32_to_bf16(x[i]);
    OT_EACH_BACKEND(be)
    {
        memcpy(y, y0, (size_t)n * sizeof *y);
        assert_int_equal(
            be->ops->axpy(be, 0.5f, kd_tensor1(half, KD_BF16, n), vec(y, n)), 0);
        ot_same(y);
    }
    for (int64_t i = 0; i < n; i++)
        ot_near(y[i], (double)y0[i] + 0.5 * (double)kd_bf16_to_f32(half[i]), 1e-7, 1.0,
                "axpy", i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(sums, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(values, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(slopes, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(gates, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(dropout, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(dropout_rate, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(casts, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(axpy_of_two_types, ot_setup, ot_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
