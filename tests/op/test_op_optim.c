/* SPDX-License-Identifier: Apache-2.0 */
/* Optimiser steps against their formulas in double precision, and against published
 * one-step values.  Moments in bfloat16 are rounded as the counter says, on every
 * backend, and do not stall. */
#include "op_test.h"

#include "kdhpc/tensor/rounding.h"

/* The bfloat16 copy follows the parameters, where one is kept. */
static void check_copy(const uint16_t *copy, const float *param, int64_t n)
{
    for (int64_t i = 0; copy && i < n; i++)
        assert_int_equal(copy[i], kd_f32_to_bf16(param[i]));
}

static void check_adamw(int64_t n, bool hf_order)
{
    float *p0 = ot_normal(n, 1.0), *p = ot_copy(p0, n), *m = ot_nan(n), *v = ot_nan(n),
          *g1 = ot_normal(n, 1.0), *g2 = ot_normal(n, 1.0);
    struct kd_adamw a = {.param = p,
                         .m = m,
                         .v = v,
                         .copy = hf_order ? ot_bytes((size_t)n * 2) : NULL,
                         .n = n,
                         .lr = 1e-2,
                         .beta1 = 0.9,
                         .beta2 = 0.999,
                         .eps = 1e-4,
                         .weight_decay = 0.1,
                         .grad_scale = 0.7,
                         .hf_order = hf_order};

    OT_EACH_BACKEND(be)
    {
        memcpy(p, p0, (size_t)n * sizeof *p);
        memset(m, 0, (size_t)n * sizeof *m);
        memset(v, 0, (size_t)n * sizeof *v);
        for (a.step = 1; a.step <= 2; a.step++) {
            a.grad = a.step == 1 ? g1 : g2;
            assert_int_equal(be->ops->adamw(be, &a), 0);
        }
        ot_same(p);
        ot_same(m);
        ot_same(v);
        check_copy(a.copy, p, n);
    }
    for (int64_t i = 0; i < n; i++) {
        double x = p0[i], mi = 0.0, vi = 0.0;

        for (int step = 1; step <= 2; step++) {
            double g = 0.7 * (double)(step == 1 ? g1[i] : g2[i]),
                   c1 = 1 - pow(0.9, step), c2 = 1 - pow(0.999, step);

            mi = 0.9 * mi + 0.1 * g;
            vi = 0.999 * vi + 0.001 * g * g;
            if (hf_order) {
                x -= 1e-2 * sqrt(c2) / c1 * mi / (sqrt(vi) + 1e-4);
                x -= 1e-2 * 0.1 * x;
            } else {
                x *= 1 - 1e-2 * 0.1;
                x -= 1e-2 / c1 * mi / (sqrt(vi) / sqrt(c2) + 1e-4);
            }
        }
        ot_near(p[i], x, 3e-7, 1.0, "adamw", i);
        ot_near(m[i], mi, 3e-7, 1.0, "m", i);
        ot_near(v[i], vi, 1e-6, 1e-3, "v", i);
    }
}

static void adamw(void **state)
{
    const int64_t sizes[] = {1, 33, 50001};

    (void)state;
    for (int i = 0; i < 6; i++)
        check_adamw(sizes[i / 2], i & 1);
}

/* N bfloat16 values of the size of SCALE, positive where SCALE is; LEAD values of NaN
 * stand before them. */
static uint16_t *moments(int64_t lead, int64_t n, double scale)
{
    uint16_t *x = ot_bytes((size_t)(lead + n) * sizeof *x);

    ot.draws++;
    for (int64_t i = 0; i < lead + n; i++) {
        double z = kd_rng_normal(1, KD_RNG_TEST, ot.draws, (uint64_t)i);

        x[i] =
            i < lead ? 0x7fff : kd_f32_to_bf16((float)(scale * z * (z < 0 ? -1 : 1)));
    }
    return x;
}

/* GOT is the float32 nearest to WANT, or one of its neighbours, rounded by the 16 bits
 * R. */
static void assert_rounded(uint16_t got, double want, uint32_t r, const char *what,
                           int64_t i)
{
    float nearest = (float)want;
    uint32_t bits;

    memcpy(&bits, &nearest, sizeof bits);
    for (uint32_t b = bits - 4; b != bits + 5; b++)
        if (got == kd_round_stochastic(b, r) >> 16)
            return;
    fail_msg("%s: value %lld is %g, not %g rounded by %x", what, (long long)i,
             (double)kd_bf16_to_f32(got), want, r & 0xffffu);
}

/* N values that start at place FIRST of their slab. */
static void check_rounded_moments(int64_t first, int64_t n)
{
    int64_t lead = first % 8;
    float *p0 = ot_normal(lead + n, 1.0), *p = ot_copy(p0, lead + n),
          *g = ot_normal(lead + n, 0.1);
    uint16_t *m0 = moments(lead, n, -0.05), *v0 = moments(lead, n, 0.01),
             *m = ot_bytes((size_t)(lead + n) * sizeof *m),
             *v = ot_bytes((size_t)(lead + n) * sizeof *v);
    struct kd_adamw a = {.param = p + lead,
                         .m = m + lead,
                         .v = v + lead,
                         .moments = KD_BF16,
                         .grad = g + lead,
                         .n = n,
                         .step = 7,
                         .first = first,
                         .seed = 0x123456789abcdefu,
                         .lr = 1e-2,
                         .beta1 = 0.9,
                         .beta2 = 0.999,
                         .eps = 1e-4,
                         .grad_scale = 1.0};

    OT_EACH_BACKEND(be)
    {
        memcpy(p, p0, (size_t)(lead + n) * sizeof *p);
        memcpy(m, m0, (size_t)(lead + n) * sizeof *m);
        memcpy(v, v0, (size_t)(lead + n) * sizeof *v);
        assert_int_equal(be->ops->adamw(be, &a), 0);
        ot_same(p);
        ot_same(m);
        ot_same(v);
    }
    assert_memory_equal(p, p0, (size_t)lead * sizeof *p);
    assert_memory_equal(m, m0, (size_t)lead * sizeof *m);
    assert_memory_equal(v, v0, (size_t)lead * sizeof *v);
    for (int64_t i = lead; i < lead + n; i++) {
        uint64_t index = (uint64_t)(first + i - lead);
        double mi = 0.9 * (double)kd_bf16_to_f32(m0[i]) + 0.1 * (double)g[i],
               vi = 0.999 * (double)kd_bf16_to_f32(v0[i]) +
                    0.001 * (double)g[i] * (double)g[i];
        double x = p0[i] - 1e-2 / (1 - pow(0.9, 7)) * mi /
                               (sqrt(vi / (1 - pow(0.999, 7))) + 1e-4);
        uint32_t r[4];

        kd_rounding_random(a.seed, 7, index / 4, r);
        /* m is small against its terms where they cancel */
        if (fabs(mi) > 1e-2 * fabs((double)g[i]))
            assert_rounded(m[i], mi, r[index % 4], "m", i);
        assert_rounded(v[i], vi, r[index % 4] >> 16, "v", i);
        ot_near(p[i], x, 3e-7, 1.0, "adamw", i);
    }
}

static void adamw_rounded(void **state)
{
    (void)state;
    check_rounded_moments(0, 1);
    check_rounded_moments(24, 40);
    check_rounded_moments(5, 3);
    check_rounded_moments((INT64_C(1) << 35) + 3, 20003);
}

/* From second moment START under the gradient GRAD for STEPS steps: rounded to nearest
 * it would stay where it is. */
static void check_no_stall(float start, float grad)
{
    enum { N = 512, STEPS = 1500 };
    float *p = ot_nan(N), *g = ot_nan(N);
    uint16_t *m = moments(0, N, 1), *v = moments(0, N, 1);
    double want = grad * grad + pow(0.999, STEPS) * (start - grad * grad), mean;
    struct kd_adamw a = {.param = p,
                         .m = m,
                         .v = v,
                         .moments = KD_BF16,
                         .grad = g,
                         .n = N,
                         .seed = 42,
                         .beta1 = 0.9,
                         .beta2 = 0.999,
                         .eps = 1e-8,
                         .grad_scale = 1.0};

    OT_EACH_BACKEND(be)
    {
        mean = 0.0;
        for (int i = 0; i < N; i++) {
            p[i] = 0.0f;
            g[i] = grad;
            m[i] = kd_f32_to_bf16(grad);
            v[i] = kd_f32_to_bf16(start);
        }
        for (a.step = 1; a.step <= STEPS; a.step++)
            assert_int_equal(be->ops->adamw(be, &a), 0);
        for (int i = 0; i < N; i++)
            mean += (double)kd_bf16_to_f32(v[i]) / N;
        ot_near(mean, want, 0.01, 0.0, "mean second moment", 0);
        ot_same(v);
    }
}

static void rounded_moments_do_not_stall(void **state)
{
    (void)state;
    check_no_stall(4.0f, 1.0f);
    check_no_stall(1.0f, 1.5f);
}

static void adamw_golden(void **state)
{
    float *p = ot_nan(3), *g = p + 1;
    float *m = ot_nan(1), *v = ot_nan(1);
    struct kd_adamw a = {.param = p,
                         .m = m,
                         .v = v,
                         .grad = g,
                         .n = 1,
                         .lr = 0.1,
                         .beta1 = 0.9,
                         .beta2 = 0.999,
                         .eps = 1e-8,
                         .weight_decay = 0.01,
                         .grad_scale = 1.0};
    const float grads[] = {0.5f, -0.25f};
    const double want[] = {0.899100063, 0.871593908};

    (void)state;
    a.hf_order = true;
    *p = 1.0f;
    *m = *v = 0.0f;
    for (a.step = 1; a.step <= 2; a.step++) {
        *g = grads[a.step - 1];
        assert_int_equal(ot.be[0]->ops->adamw(ot.be[0], &a), 0);
        ot_near(*p, want[a.step - 1], 2e-7, 0.0, "hf order", a.step);
    }
}

/* Three steps in double; PARAM, ROW and COL are updated. */
static void want_adafactor(const struct kd_adafactor *a, const float *grad,
                           int64_t step, double *param, double *row, double *col)
{
    int64_t rows = a->rows, cols = a->cols, n = rows * cols;
    double keep = 1.0 - pow((double)step, a->decay_rate), mean = 0.0, square = 0.0;
    double *u = calloc((size_t)n, sizeof *u);

    assert_non_null(u);
    for (int64_t i = 0; a->factored && i < rows; i++)
        row[i] *= keep;
    for (int64_t i = 0; a->factored && i < cols; i++)
        col[i] *= keep;
    for (int64_t e = 0; e < n; e++) {
        double g = (double)grad[e] * a->grad_scale, s = g * g + a->eps;

        if (a->factored) {
            row[e / cols] += (1.0 - keep) * s / (double)cols;
            col[e % cols] += (1.0 - keep) * s / (double)rows;
        } else {
            row[e] = keep * row[e] + (1.0 - keep) * s;
        }
    }
    for (int64_t i = 0; a->factored && i < rows; i++)
        mean += row[i] / (double)rows;
    for (int64_t e = 0; e < n; e++) {
        double v = a->factored ? row[e / cols] / mean * col[e % cols] : row[e];

        u[e] = (double)grad[e] * a->grad_scale / sqrt(v);
        square += u[e] * u[e];
    }
    for (int64_t e = 0; e < n; e++)
        param[e] =
            param[e] * (1.0 - a->lr * a->weight_decay) -
            a->lr * u[e] / fmax(1.0, sqrt(square / (double)n) / a->clip_threshold);
    free(u);
}

static void check_adafactor(int64_t rows, int64_t cols, bool factored, double clip)
{
    enum { STEPS = 3 };
    int64_t n = rows * cols, n_row = factored ? rows : n;
    float *p0 = ot_normal(n, 1.0), *p = ot_nan(n), *row = ot_nan(n_row),
          *col = ot_nan(cols), *g[STEPS];
    double *wp = calloc((size_t)n, sizeof *wp), *wr = calloc((size_t)n, sizeof *wr),
           *wc = calloc((size_t)cols, sizeof *wc);
    struct kd_adafactor a = {.param = p,
                             .copy = clip < 1.0 ? ot_bytes((size_t)n * 2) : NULL,
                             .row = row,
                             .col = factored ? col : NULL,
                             .rows = rows,
                             .cols = cols,
                             .factored = factored,
                             .lr = 0.05,
                             .eps = 1e-30,
                             .clip_threshold = clip,
                             .decay_rate = -0.8,
                             .weight_decay = 0.02,
                             .grad_scale = 0.5};

    assert_true(wp && wr && wc);
    for (int s = 0; s < STEPS; s++)
        g[s] = ot_normal(n, 1.0 + s);
    OT_EACH_BACKEND(be)
    {
        memcpy(p, p0, (size_t)n * sizeof *p);
        memset(row, 0, (size_t)n_row * sizeof *row);
        memset(col, 0, (size_t)cols * sizeof *col);
        for (a.step = 1; a.step <= STEPS; a.step++) {
            a.grad = g[a.step - 1];
            assert_int_equal(be->ops->adafactor(be, &a), 0);
        }
        ot_same(p);
        ot_same(row);
        ot_same(col);
        check_copy(a.copy, p, n);
    }
    for (int64_t e = 0; e < n; e++)
        wp[e] = (double)p0[e];
    for (int s = 0; s < STEPS; s++)
        want_adafactor(&a, g[s], s + 1, wp, wr, wc);
    for (int64_t e = 0; e < n; e++)
        ot_near(p[e], wp[e], 2e-6, 1.0, "adafactor", e);
    free(wp);
    free(wr);
    free(wc);
}

static void adafactor(void **state)
{
    (void)state;
    check_adafactor(1, 1, true, 1.0);
    check_adafactor(2, 1, false, 1.0);
    check_adafactor(777, 1, false, 0.5);
    check_adafactor(33, 65, true, 1.0);
    check_adafactor(500, 130, true, 0.3);
    check_adafactor(3, 9001, true, 1.0);
}

static void adafactor_golden(void **state)
{
    const float grad[] = {1, 2, 3, 4};
    const double want[] = {-.077459667, -.109544512, -.103923048, -.097979590};
    float *p = ot_nan(4), *g = ot_copy(grad, 4), *row = ot_nan(2), *col = ot_nan(2);
    struct kd_adafactor a = {.param = p,
                             .grad = g,
                             .row = row,
                             .col = col,
                             .rows = 2,
                             .cols = 2,
                             .step = 1,
                             .factored = true,
                             .lr = 0.1,
                             .eps = 1e-30,
                             .clip_threshold = 1.0,
                             .decay_rate = -0.8,
                             .grad_scale = 1.0};

    (void)state;
    memset(p, 0, 16);
    memset(row, 0, 8);
    memset(col, 0, 8);
    assert_int_equal(ot.be[0]->ops->adafactor(ot.be[0], &a), 0);
    for (int i = 0; i < 4; i++)
        ot_near(p[i], want[i], 3e-7, 0.0, "golden", i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(adamw, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(adamw_rounded, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(rounded_moments_do_not_stall, ot_setup,
                                        ot_teardown),
        cmocka_unit_test_setup_teardown(adamw_golden, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(adafactor, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(adafactor_golden, ot_setup, ot_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
