/* SPDX-License-Identifier: Apache-2.0 */
/* Row ops against double precision: norms with residual and dropout and their
 * gradients, lookups, column sums, log-softmax, the largest k, sums of squares. */
#include "op_test.h"

struct dims {
    int64_t rows, cols;
};

/* Up to rows that no backend keeps in registers. */
static const struct dims shapes[] = {{1, 1},    {3, 17},   {67, 100}, {2100, 40},
                                     {9, 1030}, {3, 4097}, {2, 8200}};

enum {
    N_SHAPES = sizeof shapes / sizeof *shapes,
    MAX_COLS = 8200,
    SUM_VALUES = 100003
};

static struct kd_tensor mat(float *x, int64_t rows, int64_t cols)
{
    return kd_tensor2(x, KD_F32, rows, cols);
}

struct norm_case {
    struct kd_norm norm;
    struct kd_dropout drop;
    struct dims d;
    float *x, *sub, *sum, *y, *stats, *dy, *dsum, *dx0, *dx, *dsub, *dgamma, *dbeta,
        *params0;
    bool acc;
};

static struct norm_case norm_case(struct dims d, enum kd_norm_kind kind, bool residual,
                                  float p, bool acc)
{
    int64_t n = d.rows * d.cols;
    float *gamma = ot_normal(d.cols, 1.0), *beta = ot_normal(d.cols, 1.0);
    struct norm_case c = {
        .norm = {kind, 1e-5f, gamma, kind == KD_NORM_LAYER ? beta : NULL},
        .drop = {.p = p, .seed = 99, .step = 1, .site = 4, .row_keys = ot_keys(d.rows)},
        .d = d,
        .acc = acc,
        .x = ot_normal(n, 2.0),
        .sub = residual ? ot_normal(n, 1.0) : NULL,
        .sum = ot_nan(n),
        .y = ot_nan(n),
        .stats = ot_nan(2 * d.rows),
        .dy = ot_normal(n, 1.0),
        .dsum = residual ? ot_normal(n, 1.0) : NULL,
        .dx0 = ot_normal(n, 1.0),
        .dx = ot_nan(n),
        .dsub = residual ? ot_nan(n) : NULL,
        .params0 = ot_normal(d.cols, 1.0),
        .dgamma = ot_nan(d.cols),
        .dbeta = kind == KD_NORM_LAYER ? ot_nan(d.cols) : NULL,
    };

    return c;
}

static void run_norm(struct norm_case *c)
{
    int64_t rows = c->d.rows, cols = c->d.cols;

    OT_EACH_BACKEND(be)
    {
        assert_int_equal(be->ops->norm(be, &c->norm, mat(c->x, rows, cols),
                                       mat(c->sub, rows, cols), &c->drop,
                                       mat(c->sum, rows, cols), mat(c->y, rows, cols),
                                       c->stats),
                         0);
        memcpy(c->dgamma, c->params0, (size_t)cols * sizeof(float));
        if (c->dbeta)
            memcpy(c->dbeta, c->params0, (size_t)cols * sizeof(float));
        if (c->acc)
            memcpy(c->dx, c->dx0, (size_t)(rows * cols) * sizeof(float));
        assert_int_equal(
            be->ops->norm_back(be, &c->norm, mat(c->sum, rows, cols), c->stats,
                               mat(c->dy, rows, cols), mat(c->dsum, rows, cols),
                               &c->drop, mat(c->dx, rows, cols), c->acc,
                               mat(c->dsub, rows, cols), c->dgamma, c->dbeta),
            0);
        ot_same(c->sum);
        ot_same(c->y);
        ot_same(c->stats);
        ot_same(c->dx);
        ot_same(c->dgamma);
        if (c->dbeta)
            ot_same(c->dbeta);
        if (c->dsub)
            ot_same(c->dsub);
    }
}

/* One row in double; adds to the gradients of gamma and beta. */
static void check_norm_row(const struct norm_case *c, int64_t r, double *dgamma,
                           double *dbeta)
{
    int64_t cols = c->d.cols, o = r * cols;
    bool layer = c->norm.kind == KD_NORM_LAYER;
    double s[MAX_COLS], n[MAX_COLS], mean = 0.0, var = 0.0, mg = 0.0, mgn = 0.0, scale;

    for (int64_t i = 0; i < cols; i++) {
        double m = ot_drop(&c->drop, c->drop.site, r, i);

        s[i] = (double)c->x[o + i] + (c->sub ? m * (double)c->sub[o + i] : 0.0);
        ot_near(c->sum[o + i], s[i], 3e-7, 1.0, "sum", i);
        s[i] = (double)c->sum[o + i]; /* y = norm(sum), as it was stored */
        mean += layer ? s[i] / (double)cols : 0.0;
    }
    for (int64_t i = 0; i < cols; i++)
        var += (s[i] - mean) * (s[i] - mean) / (double)cols;
    scale = 1.0 / sqrt(var + 1e-5);
    ot_near(c->stats[2 * r], mean, 1e-6, 1.0, "mean", r);
    ot_near(c->stats[2 * r + 1], scale, 2e-6, 0.1, "scale", r);
    for (int64_t i = 0; i < cols; i++) {
        double g = (double)c->dy[o + i] * (double)c->norm.gamma[i];

        n[i] = (s[i] - mean) * scale;
        ot_near(c->y[o + i],
                n[i] * (double)c->norm.gamma[i] +
                    (layer ? (double)c->norm.beta[i] : 0.0),
                3e-6, 1.0, "y", i);
        dgamma[i] += (double)c->dy[o + i] * n[i];
        dbeta[i] += (double)c->dy[o + i];
        mg += layer ? g / (double)cols : 0.0;
        mgn += g * n[i] / (double)cols;
    }
    for (int64_t i = 0; i < cols; i++) {
        double g = (double)c->dy[o + i] * (double)c->norm.gamma[i];
        double ds = (g - mg - n[i] * mgn) * scale;
        double bound = cols > 1 ? 5e-6 : 1e-3; /* one column: 1 / sigma is 316 */

        ds += c->dsum ? (double)c->dsum[o + i] : 0.0;
        if (c->dsub)
            ot_near(c->dsub[o + i], ds * ot_drop(&c->drop, c->drop.site, r, i), bound,
                    1.0, "dsub", i);
        ot_near(c->dx[o + i], ds + (c->acc ? (double)c->dx0[o + i] : 0.0), bound, 1.0,
                "dx", i);
    }
}

static void norms(void **state)
{
    (void)state;
    for (int i = 0; i < 4 * N_SHAPES; i++) {
        struct norm_case c =
            norm_case(shapes[i / 4], i & 1 ? KD_NORM_RMS : KD_NORM_LAYER, i & 2,
                      i & 2 ? 0.2f : 0.0f, i % 3 == 0);
        double dgamma[MAX_COLS] = {0}, dbeta[MAX_COLS] = {0};

        run_norm(&c);
        for (int64_t r = 0; r < c.d.rows; r++)
            check_norm_row(&c, r, dgamma, dbeta);
        for (int64_t k = 0; k < c.d.cols; k++) {
            double p0 = c.params0[k], floor_ = sqrt((double)c.d.rows);

            ot_near(c.dgamma[k], p0 + dgamma[k], 1e-5, floor_, "dgamma", k);
            if (c.dbeta)
                ot_near(c.dbeta[k], p0 + dbeta[k], 1e-5, floor_, "dbeta", k);
        }
        assert_int_equal(ot_teardown(NULL), 0);
        assert_int_equal(ot_setup(NULL), 0);
    }
}

/* Only the norm of a sub-layer, without what a backward pass would need. */
static void norm_without_extras(void **state)
{
    enum { ROWS = 5, COLS = 33 };
    float *x = ot_normal(ROWS * COLS, 1.0), *y = ot_nan(ROWS * COLS),
          *z = ot_nan(ROWS * COLS), *gamma = ot_normal(COLS, 1.0);
    struct kd_norm norm = {KD_NORM_RMS, 1e-6f, gamma, NULL};
    struct kd_backend *be = ot.be[1];
    struct kd_tensor tx = mat(x, ROWS, COLS), none = {0};

    (void)state;
    assert_int_equal(
        be->ops->norm(be, &norm, tx, none, NULL, none, mat(y, ROWS, COLS), NULL), 0);
    assert_int_equal(
        be->ops->norm(be, &norm, none, tx, NULL, none, mat(z, ROWS, COLS), NULL), 0);
    assert_memory_equal(y, z, ROWS * COLS * sizeof *y);
    for (int r = 0; r < ROWS; r++) {
        double square = 0.0;

        for (int c = 0; c < COLS; c++)
            square += (double)x[r * COLS + c] * (double)x[r * COLS + c] / COLS;
        for (int c = 0; c < COLS; c++)
            ot_near(y[r * COLS + c],
                    (double)x[r * COLS + c] / sqrt(square + 1e-6) * (double)gamma[c],
                    1e-6, 1.0, "rms", c);
    }
}

static void lookups(void **state)
{
    enum { TABLE = 50, POS = 20 };

    (void)state;
    for (int i = 0; i < N_SHAPES; i++) {
        int64_t rows = shapes[i].rows, cols = shapes[i].cols, skip = 7;
        float *table = ot_normal(TABLE * cols, 1.0), *pos = ot_normal(POS * cols, 1.0),
              *out = ot_nan(rows * cols), *plain = ot_nan(rows * cols),
              *dx = ot_normal(rows * cols, 1.0), *grad = ot_nan(TABLE * cols);
        int32_t *ids = ot_ids(rows, TABLE), *pos_ids = ot_ids(rows, POS);
        double *want = calloc((size_t)(TABLE * cols), sizeof *want);

        assert_non_null(want);
        OT_EACH_BACKEND(be)
        {
            memcpy(grad, table, (size_t)(TABLE * cols) * sizeof *grad);
            assert_int_equal(be->ops->gather_rows(be, mat(table, TABLE, cols), ids,
                                                  1.5f, mat(pos, POS, cols), pos_ids,
                                                  mat(out, rows, cols)),
                             0);
            assert_int_equal(be->ops->gather_rows(be, mat(table, TABLE, cols), ids,
                                                  1.0f, (struct kd_tensor){0}, NULL,
                                                  mat(plain, rows, cols)),
                             0);
            assert_int_equal(be->ops->scatter_add_rows(be, mat(dx, rows, cols), ids,
                                                       (int32_t)skip, 0.5f, grad,
                                                       TABLE),
                             0);
            ot_same(out);
            ot_same(grad);
        }
        for (int64_t e = 0; e < rows * cols; e++) {
            int64_t r = e / cols, c = e % cols;

            ot_near(out[e],
                    1.5 * (double)table[ids[r] * cols + c] +
                        (double)pos[pos_ids[r] * cols + c],
                    3e-7, 1.0, "gather", e);
            assert_true(plain[e] == table[ids[r] * cols + c]);
            if (ids[r] != skip)
                want[ids[r] * cols + c] += 0.5 * (double)dx[e];
        }
        for (int64_t e = 0; e < TABLE * cols; e++)
            ot_near(grad[e], (double)table[e] + want[e], 1e-5, 1.0, "scatter", e);
        free(want);
    }
}

static void column_sums(void **state)
{
    (void)state;
    for (int i = 0; i < N_SHAPES; i++) {
        int64_t rows = shapes[i].rows, cols = shapes[i].cols, ld = cols + 3;
        float *x = ot_normal(rows * ld, 1.0), *out0 = ot_normal(cols, 1.0),
              *out = ot_nan(cols), *sum = ot_nan(cols);
        struct kd_mat m = {x, KD_F32, rows, cols, ld};

        OT_EACH_BACKEND(be)
        {
            memcpy(sum, out0, (size_t)cols * sizeof *sum);
            assert_int_equal(be->ops->col_sum(be, m, out, false), 0);
            assert_int_equal(be->ops->col_sum(be, m, sum, true), 0);
            ot_same(out);
            ot_same(sum);
        }
        for (int64_t c = 0; c < cols; c++) {
            double want = 0.0;

            for (int64_t r = 0; r < rows; r++)
                want += (double)x[r * ld + c];
            ot_near(out[c], want, 2e-6, sqrt((double)rows), "col_sum", c);
            ot_near(sum[c], want + (double)out0[c], 2e-6, sqrt((double)rows), "acc", c);
        }
    }
}

static void log_softmax(void **state)
{
    const struct dims more[] = {{1, 1}, {3, 17}, {40, 1000}, {2, 20011}};

    (void)state;
    for (int i = 0; i < 4; i++) {
        int64_t rows = more[i].rows, cols = more[i].cols;
        float *x0 = ot_normal(rows * cols, 8.0), *x = ot_nan(rows * cols);

        if (cols > 5)
            x0[3] = -INFINITY; /* a forbidden token */
        OT_EACH_BACKEND(be)
        {
            memcpy(x, x0, (size_t)(rows * cols) * sizeof *x);
            assert_int_equal(be->ops->log_softmax(be, x, rows, cols), 0);
            ot_same(x);
        }
        for (int64_t r = 0; r < rows; r++) {
            double sum = 0.0;

            for (int64_t c = 0; c < cols; c++)
                sum += exp((double)x0[r * cols + c]);
            for (int64_t c = 0; c < cols; c++) {
                if (isinf(x0[r * cols + c]))
                    assert_true(x[r * cols + c] == -INFINITY);
                else
                    ot_near(x[r * cols + c], (double)x0[r * cols + c] - log(sum), 2e-7,
                            1.0, "log_softmax", c);
            }
        }
    }
}

static void check_topk(float *x, int64_t rows, int64_t cols, int64_t k)
{
    float *values = ot_nan(rows * k);
    int32_t *columns = ot_ids(rows * k, 1);

    OT_EACH_BACKEND(be)
    {
        assert_int_equal(be->ops->topk(be, x, NULL, rows, cols, k, values, columns), 0);
        ot_same(values);
        ot_same(columns);
    }
    for (int64_t r = 0; r < rows; r++) {
        const float *row = x + r * cols;

        for (int64_t j = 0; j < k; j++) { /* exactly j values come before it */
            int32_t c = columns[r * k + j];
            int64_t before = 0;

            assert_in_range(c, 0, cols - 1);
            assert_true(values[r * k + j] == row[c]);
            for (int64_t i = 0; i < cols; i++)
                before += row[i] > row[c] || (row[i] == row[c] && i < c);
            assert_int_equal(before, j);
        }
    }
}

static void largest(void **state)
{
    float *x = ot_normal(33 * 3001, 1.0), *ties = ot_normal(5 * 400, 1.0);

    (void)state;
    for (int i = 0; i < 5 * 400; i++)
        ties[i] = roundf(ties[i]); /* many equal values */
    ties[0] = -INFINITY;
    check_topk(x, 33, 3001, 8);
    check_topk(x, 2, 40001, 70); /* several passes over several tiles */
    check_topk(x, 4, 20000, 9);
    check_topk(x, 3, 50, 50);
    check_topk(x, 1, 1, 1);
    check_topk(ties, 5, 400, 10);
    for (int i = 0; i < 5 * 400; i++)
        ties[i] = i % 3 ? -0.0f : 0.0f; /* equal */
    check_topk(ties, 5, 400, 10);
    for (int i = 0; i < 5 * 400; i++)
        ties[i] = (float)(i / 16 % 50); /* the largest side by side */
    check_topk(ties, 5, 400, 40);
}

/* NaN counts as minus infinity. */
static void largest_of_nan(void **state)
{
    enum { COLS = 90, K = 40 };
    float *x = ot_normal(COLS, 1.0), *values = ot_nan(K);
    int32_t *columns = ot_ids(K, 1);

    (void)state;
    for (int i = 0; i < COLS; i++)
        x[i] = i % 3 ? NAN : x[i];
    OT_EACH_BACKEND(be)
    {
        assert_int_equal(be->ops->topk(be, x, NULL, 1, COLS, K, values, columns), 0);
        ot_same(values);
        ot_same(columns);
    }
    for (int j = 0; j < COLS / 3; j++)
        assert_int_equal(columns[j] % 3, 0);
    for (int j = COLS / 3; j < K; j++) { /* the first ten that are not divisible */
        int n = j - COLS / 3;

        assert_true(values[j] == -INFINITY);
        assert_int_equal(columns[j], n / 2 * 3 + n % 2 + 1);
    }
}

/* One span, and the same values as more of them than one launch takes. */
static void check_sum_of_spans(struct kd_backend *be, const float *x, double want)
{
    enum { N = 70 };
    struct kd_span spans[N];
    double *got = ot_bytes(sizeof *got);
    int64_t at = 0;

    for (int i = 0; i < N; i++) {
        int64_t n = i % 7 ? 31 * i : 0;

        spans[i] = (struct kd_span){x + at, i < N - 1 ? n : SUM_VALUES - at};
        at += n;
    }
    assert_int_equal(be->ops->sum_sq(be, spans, N, got), 0);
    ot_near(*got, want, 1e-12, 0.0, "sum_sq of spans", 0);
}

static void sum_of_squares(void **state)
{
    const int64_t n = SUM_VALUES;
    float *x = ot_normal(n, 1e-3);
    const struct kd_span span = {x, n}, nothing = {x, 0};
    double *got = ot_bytes(sizeof *got), want = 0.0;

    (void)state;
    for (int64_t i = 0; i < n; i++)
        want += (double)x[i] * (double)x[i];
    OT_EACH_BACKEND(be)
    {
        assert_int_equal(be->ops->sum_sq(be, &span, 1, got), 0);
        ot_same(got);
        check_sum_of_spans(be, x, want);
    }
    ot_near(*got, want, 1e-12, 0.0, "sum_sq", 0);
    assert_int_equal(ot.be[0]->ops->sum_sq(ot.be[0], &nothing, 1, got), 0);
    assert_true(*got == 0.0);
    *got = -1.0;
    assert_int_equal(ot.be[0]->ops->sum_sq(ot.be[0], NULL, 0, got), 0);
    assert_true(*got == 0.0);
    x[70000] = NAN;
    assert_int_equal(ot.be[1]->ops->sum_sq(ot.be[1], &span, 1, got), 0);
    assert_true(isnan(*got));
    x[70000] = -INFINITY;
    assert_int_equal(ot.be[1]->ops->sum_sq(ot.be[1], &span, 1, got), 0);
    assert_true(isinf(*got));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(norms, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(norm_without_extras, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(lookups, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(column_sums, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(log_softmax, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(largest, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(largest_of_nan, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(sum_of_squares, ot_setup, ot_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
