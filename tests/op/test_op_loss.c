/* SPDX-License-Identifier: Apache-2.0 */
/* Vocabulary losses and squared distances against double precision, values and
 * gradients: with and without teacher, masks, labels, temperature. */
#include "op_test.h"

struct setting {
    int64_t rows, cols;
    bool teacher, mask, grad;
    float w_ce, w_smooth, w_kl, temperature;
    double spread; /* of the logits */
    int64_t pad;   /* values behind each row */
};

static double log_sum_exp(const float *z, int64_t n, double t)
{
    double top = -INFINITY, sum = 0.0;

    for (int64_t i = 0; i < n; i++)
        top = fmax(top, (double)z[i] / t);
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)z[i] / t - top);
    return top + log(sum);
}

/* Losses of one row into OUT, its gradient into G. */
static void want_row(const struct kd_vocab_loss *l, const float *z, const float *zt,
                     int32_t label, int64_t n, double out[4], double *g)
{
    double t = l->temperature, lse = log_sum_exp(z, n, 1.0);

    memset(out, 0, 4 * sizeof *out);
    memset(g, 0, (size_t)n * sizeof *g);
    if (label >= 0) {
        out[0] = lse - (double)z[label];
        out[3] = 1.0;
        for (int64_t v = 0; v < n; v++) {
            double p = exp((double)z[v] - lse);

            out[1] += lse - (double)z[v];
            if (z[v] > z[label] || (z[v] == z[label] && v < label))
                out[3] = 0.0;
            g[v] += (double)l->w_ce * (p - (v == label)) +
                    (double)l->w_smooth * ((double)n * p - 1.0);
        }
    }
    if (zt) {
        double ls = log_sum_exp(z, n, t), lt = log_sum_exp(zt, n, t);

        for (int64_t v = 0; v < n; v++) {
            double a = (double)z[v] / t - ls, b = (double)zt[v] / t - lt;

            out[2] += exp(b) * (b - a);
            g[v] += (double)l->w_kl / t * (exp(a) - exp(b));
        }
    }
}

/* APART: the gradient has a place of its own, else it takes that of the logits. */
static void check_vocab(struct setting s, bool apart)
{
    int64_t ld = s.cols + s.pad, n = s.rows * ld;
    float *zs0 = ot_normal(n, s.spread), *zt0 = ot_normal(n, s.spread), *zs = ot_nan(n),
          *zt = ot_nan(n), *mask = ot_nan(s.rows), *dz = apart ? ot_nan(n) : zs;
    int32_t *labels = ot_ids(s.rows, s.cols);
    double *out = ot_bytes((size_t)(4 * s.rows) * sizeof *out), want[4],
           *g = malloc((size_t)s.cols * sizeof *g);
    struct kd_vocab_loss l = {
        .zs = kd_tensor2(zs, KD_F32, s.rows, s.cols),
        .dz = kd_tensor2(dz, KD_F32, s.rows, s.cols),
        .zt = kd_tensor2(s.teacher ? zt : NULL, KD_F32, s.rows, s.cols),
        .labels = labels,
        .kl_mask = s.mask ? mask : NULL,
        .w_ce = s.w_ce,
        .w_smooth = s.w_smooth,
        .w_kl = s.w_kl,
        .temperature = s.temperature,
        .grad = s.grad,
        .rows_out = kd_tensor2(out, KD_F64, s.rows, 4),
        .ld = s.pad ? ld : 0};

    assert_non_null(g);
    for (int64_t r = 0; r < s.rows; r++) {
        mask[r] = r % 3 == 1 ? 0.0f : 1.0f;
        if (r % 4 == 1)
            labels[r] = -100;
        if (r % 4 == 2) { /* the label is the largest, first on ties */
            zs0[r * ld + labels[r]] = 50.0f;
            zs0[r * ld + s.cols - 1] = 50.0f;
        }
    }
    OT_EACH_BACKEND(be)
    {
        memcpy(zs, zs0, (size_t)n * sizeof *zs);
        memcpy(zt, zt0, (size_t)n * sizeof *zt);
        assert_int_equal(be->ops->vocab_loss(be, &l), 0);
        if (s.grad)
            ot_same(dz);
        ot_same(out);
    }
    for (int64_t r = 0; r < s.rows; r++) {
        bool kl = s.teacher && (!s.mask || mask[r] != 0.0f);

        want_row(&l, zs0 + r * ld, kl ? zt0 + r * ld : NULL, labels[r], s.cols, want,
                 g);
        ot_near(out[4 * r], want[0], 1e-7, 1.0, "ce", r);
        ot_near(out[4 * r + 1], want[1], 1e-7, 1.0, "smooth", r);
        ot_near(out[4 * r + 2], want[2], 1e-7, 2.0, "kl", r);
        assert_true(out[4 * r + 3] == want[3]);
        for (int64_t v = 0; v < s.cols; v++) {
            if (!s.grad)
                assert_true(zs[r * ld + v] == zs0[r * ld + v]);
            else
                ot_near(dz[r * ld + v], g[v], 1e-6, 1.0, "dz", v);
        }
        for (int64_t v = s.cols; v < ld; v++) /* nobody's */
            assert_true(apart ? isnan(dz[r * ld + v])
                              : zs[r * ld + v] == zs0[r * ld + v]);
    }
    free(g);
}

static void vocabulary(void **state)
{
    const struct setting settings[] = {
        {5, 1, false, false, true, 1.0f, 0.0f, 0.0f, 1.0f, 1.0, 0},
        {9, 7, false, false, true, 0.5f, 0.1f, 0.0f, 1.0f, 2.0, 0},
        {13, 301, true, true, true, 0.7f, 0.0f, 0.3f, 2.0f, 3.0, 0},
        {13, 301, true, false, true, 0.7f, 0.01f, 0.3f, 1.0f, 3.0, 0},
        {13, 301, true, true, false, 0.7f, 0.01f, 0.3f, 1.0f, 3.0, 0},
        {6, 20003, true, false, true, 1.0f, 1e-4f, 1.0f, 2.0f, 4.0, 0},
        {13, 301, true, true, true, 0.7f, 0.01f, 0.3f, 2.0f, 3.0, 19},
        {5, 77, false, false, true, 0.5f, 0.1f, 0.0f, 1.0f, 2.0, 2},
        {6, 20003, false, false, false, 1.0f, 0.0f, 0.0f, 2.0f, 4.0, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        check_vocab(settings[i], false);
        check_vocab(settings[i], true);
    }
}

/* Worked by hand in the description of the reference implementation. */
static void golden(void **state)
{
    const float z[] = {2, .5f, -1, 0, .1f, .2f, .3f, .4f, 1, 1, 1, 1};
    const float s[] = {2, .5f, -1, 0, 1, 0}, t[] = {1, 1, 0, 0, 2, -1};
    float *zs = ot_copy(z, 12), *ss = ot_copy(s, 6), *st = ot_copy(t, 6);
    double *out = ot_bytes(12 * sizeof *out);
    int32_t *labels = ot_ids(3, 4);
    struct kd_vocab_loss l = {.zs = kd_tensor2(zs, KD_F32, 3, 4),
                              .labels = labels,
                              .temperature = 2.0f,
                              .rows_out = kd_tensor2(out, KD_F64, 3, 4)};

    (void)state;
    labels[0] = 0;
    labels[1] = 3;
    labels[2] = -1;
    assert_int_equal(ot.be[0]->ops->vocab_loss(ot.be[0], &l), 0);
    ot_near(out[0] + out[4], 1.584885112, 6e-8, 1.0, "nll", 0);
    ot_near(out[1] + out[5], 13.439540447, 6e-8, 1.0, "smooth", 0);
    labels[0] = labels[1] = -1;
    l.zs = kd_tensor2(ss, KD_F32, 2, 3);
    l.zt = kd_tensor2(st, KD_F32, 2, 3);
    assert_int_equal(ot.be[0]->ops->vocab_loss(ot.be[0], &l), 0);
    ot_near(out[2] + out[6], 0.164542645, 1e-7, 0.5, "kl", 0);
}

static void not_finite_shows(void **state)
{
    float *zs = ot_normal(3 * 50, 1.0);
    int32_t *labels = ot_ids(3, 50);
    double *out = ot_bytes(12 * sizeof *out);
    struct kd_vocab_loss l = {.zs = kd_tensor2(zs, KD_F32, 3, 50),
                              .dz = kd_tensor2(zs, KD_F32, 3, 50),
                              .labels = labels,
                              .w_ce = 1.0f,
                              .temperature = 1.0f,
                              .grad = true,
                              .rows_out = kd_tensor2(out, KD_F64, 3, 4)};

    (void)state;
    zs[10] = NAN;
    zs[50 + 10] = INFINITY;
    assert_int_equal(ot.be[0]->ops->vocab_loss(ot.be[0], &l), 0);
    assert_false(isfinite(out[0]));
    assert_false(isfinite(out[4]));
    assert_true(isfinite(out[8]));
}

static void standardise(double *x, const float *src, int64_t n, bool normalize,
                        double *scale)
{
    double mean = 0.0, var = 0.0;

    for (int64_t i = 0; i < n; i++)
        mean += (double)src[i] / (double)n;
    for (int64_t i = 0; i < n; i++)
        var += ((double)src[i] - mean) * ((double)src[i] - mean) / (double)n;
    *scale = normalize ? 1.0 / sqrt(var + 1e-5) : 1.0;
    for (int64_t i = 0; i < n; i++)
        x[i] = normalize ? ((double)src[i] - mean) * *scale : (double)src[i];
}

static void check_mse(int64_t rows, int64_t cols, bool normalize, bool mask, bool acc)
{
    int64_t n = rows * cols;
    float *s = ot_normal(n, 2.0), *t = ot_normal(n, 1.0), *ds0 = ot_normal(n, 1.0),
          *ds = ot_nan(n), *m = ot_nan(rows);
    double *out = ot_bytes((size_t)rows * sizeof *out), a[8200], b[8200];

    struct kd_tensor ts = kd_tensor2(s, KD_F32, rows, cols),
                     tt = kd_tensor2(t, KD_F32, rows, cols),
                     td = kd_tensor2(ds, KD_F32, rows, cols);

    for (int64_t r = 0; r < rows; r++)
        m[r] = r % 3 == 1 ? 0.0f : 1.0f;
    OT_EACH_BACKEND(be)
    {
        if (acc)
            memcpy(ds, ds0, (size_t)n * sizeof *ds);
        assert_int_equal(be->ops->mse_rows(be, ts, tt, mask ? m : NULL, normalize, 0.3f,
                                           out, td, acc),
                         0);
        ot_same(ds);
        ot_same(out);
    }
    for (int64_t r = 0; r < rows; r++) {
        double scale, other, want = 0.0, me = 0.0, men = 0.0,
                             on = mask && m[r] == 0.0f ? 0.0 : 1.0;

        standardise(a, s + r * cols, cols, normalize, &scale);
        standardise(b, t + r * cols, cols, normalize, &other);
        for (int64_t c = 0; c < cols; c++) {
            want += on * (a[c] - b[c]) * (a[c] - b[c]);
            me += normalize ? (a[c] - b[c]) / (double)cols : 0.0;
            men += normalize ? (a[c] - b[c]) * a[c] / (double)cols : 0.0;
        }
        ot_near(out[r], want, 1e-6, 1.0, "mse", r);
        for (int64_t c = 0; c < cols; c++) {
            double g = on * 0.6 * scale * (a[c] - b[c] - me - a[c] * men);

            ot_near(ds[r * cols + c], g + (acc ? (double)ds0[r * cols + c] : 0.0), 5e-6,
                    1.0, "ds", c);
        }
    }
}

static void hidden(void **state)
{
    (void)state;
    check_mse(1, 3, false, false, false);
    check_mse(7, 65, true, true, true);
    check_mse(300, 128, true, true, false);
    check_mse(130, 256, false, true, true);
    check_mse(20, 1025, true, false, false);
    check_mse(3, 4097, true, true, true);
    check_mse(2, 8200, true, false, false);
}

/* Two layers, two counted positions, width 2, from the same description. */
static void hidden_golden(void **state)
{
    const float s[] = {1, 2, 3, 4, 0, 1, 1, 0}, t[] = {1, 1, 3, 5, 1, 1, 1, 1};
    float *ps = ot_copy(s, 8), *pt = ot_copy(t, 8);
    double *out = ot_bytes(4 * sizeof *out);

    (void)state;
    assert_int_equal(ot.be[0]->ops->mse_rows(ot.be[0], kd_tensor2(ps, KD_F32, 4, 2),
                                             kd_tensor2(pt, KD_F32, 4, 2), NULL, false,
                                             0, out, (struct kd_tensor){0}, false),
                     0);
    /* mean over 2 positions and 2 columns, summed over 2 layers */
    ot_near((out[0] + out[1] + out[2] + out[3]) / 4.0, 1.0, 1e-6, 0.0, "hid", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(vocabulary, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(golden, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(not_finite_shows, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(hidden, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(hidden_golden, ot_setup, ot_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
