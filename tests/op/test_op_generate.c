/* SPDX-License-Identifier: Apache-2.0 */
/* What only generation asks for: sums of log-softmax and the largest under them, edits
 * of scores, draws against a sort in double precision, and the table of slots. */
#include "op_test.h"

#include "kdhpc/tensor/sampling.h"

/* The largest log-probabilities without writing them: the bits of log_softmax. */
static void largest_log_probs(void **state)
{
    static const struct {
        int64_t rows, cols, k;
    } shapes[] = {{1, 1, 1}, {3, 17, 4}, {40, 1000, 8}, {2, 20011, 40}, {5, 4100, 2}};

    (void)state;
    for (int i = 0; i < 5; i++) {
        int64_t rows = shapes[i].rows, cols = shapes[i].cols, k = shapes[i].k;
        float *x = ot_normal(rows * cols, 6.0), *y = ot_copy(x, rows * cols),
              *sums = ot_nan(2 * rows), *got = ot_nan(rows * k),
              *want = ot_nan(rows * k);
        int32_t *got_at = ot_ids(rows * k, 1), *want_at = ot_ids(rows * k, 1);

        if (cols > 5)
            x[3] = -INFINITY;
        OT_EACH_BACKEND(be)
        {
            memcpy(y, x, (size_t)(rows * cols) * sizeof *y);
            assert_int_equal(be->ops->log_softmax(be, y, rows, cols), 0);
            assert_int_equal(be->ops->topk(be, y, NULL, rows, cols, k, want, want_at),
                             0);
            assert_int_equal(be->ops->log_sum(be, x, rows, cols, sums), 0);
            assert_int_equal(be->ops->topk(be, x, sums, rows, cols, k, got, got_at), 0);
            assert_memory_equal(got, want, (size_t)(rows * k) * sizeof *got);
            assert_memory_equal(got_at, want_at, (size_t)(rows * k) * sizeof *got_at);
            for (int64_t e = 0; e < rows * cols; e++)
                assert_true((x[e] - sums[e / cols * 2]) - sums[e / cols * 2 + 1] ==
                            y[e]);
            ot_same(sums);
        }
    }
}

static void edits(void **state)
{
    enum { ROWS = 7, COLS = 301, BANS = 40, N = 300 };
    float *x0 = ot_normal(ROWS * COLS, 3.0), *x = ot_nan(ROWS * COLS),
          *y = ot_nan(ROWS * COLS);
    struct kd_score_edit *list = ot_bytes(N * sizeof *list);
    struct kd_score_edits e = {list, BANS, N, 1.7f, -1, KD_EDIT_PENALTY};

    (void)state;
    x0[2 * COLS + 260] = -INFINITY; /* stays */
    for (int i = 0; i < N; i++)     /* rows of their own columns, some of all rows */
        list[i] = (struct kd_score_edit){i % 5 ? i % ROWS : -1, i};
    OT_EACH_BACKEND(be)
    {
        memcpy(x, x0, ROWS * COLS * sizeof *x);
        assert_int_equal(be->ops->edit_scores(be, x, ROWS, COLS, &e), 0);
        ot_same(x);
    }
    for (int i = 0; i < ROWS * COLS; i++) {
        int r = i / COLS, c = i % COLS;
        bool named = c < N && (c % 5 == 0 || c % ROWS == r);
        float want = !named         ? x0[i]
                     : c < BANS     ? -INFINITY
                     : x0[i] < 0.0f ? x0[i] * 1.7f
                                    : x0[i] / 1.7f;

        assert_true(x[i] == want);
    }
    e.kind = KD_EDIT_RAISE;
    e.penalty = 0.37f;
    OT_EACH_BACKEND(be)
    {
        memcpy(y, x0, ROWS * COLS * sizeof *y);
        assert_int_equal(be->ops->edit_scores(be, y, ROWS, COLS, &e), 0);
        ot_same(y);
    }
    for (int i = 0; i < ROWS * COLS; i++) {
        int r = i / COLS, c = i % COLS;
        bool named = c < N && (c % 5 == 0 || c % ROWS == r);
        float more = fmaf(fabsf(x0[i]), 0.37f, x0[i]);

        assert_true(y[i] == (!named                           ? x0[i]
                             : c < BANS || x0[i] == -INFINITY ? -INFINITY
                                                              : more));
    }
    e.n = e.n_bans = 0; /* nothing to do */
    assert_int_equal(ot.be[1]->ops->edit_scores(ot.be[1], x0, ROWS, COLS, &e), 0);
    e = (struct kd_score_edits){.forced = 300};
    OT_EACH_BACKEND(be)
    {
        memcpy(x, x0, ROWS * COLS * sizeof *x);
        assert_int_equal(be->ops->edit_scores(be, x, ROWS, COLS, &e), 0);
    }
    for (int i = 0; i < ROWS * COLS; i++)
        assert_true(x[i] == (i % COLS == 300 ? 0.0f : -INFINITY));
}

/* Weights against exp, and what must be exact. */
static void weights_are_integers(void **state)
{
    const int bits = kd_sample_bits(50265);

    (void)state;
    assert_int_equal(bits, 46);
    assert_int_equal(kd_sample_bits(1), 62);
    assert_int_equal(kd_sample_bits(65536), 46);
    assert_int_equal(kd_sample_bits(65537), 45);
    assert_true(kd_sample_weight(3.0f, 3.0f, 0.7f, bits) == (uint64_t)1 << bits);
    assert_true(kd_sample_weight(-1e30f, 3.0f, 1.0f, bits) == 0);
    for (int i = 1; i < 4000; i++) {
        float x = -(float)i / 160.0f;
        double got = (double)kd_sample_weight(x, 0.0f, 0.9f, bits) / 0x1p46,
               want = exp((double)x / 0.9f);

        assert_true(fabs(got - want) <= 3e-7 * want * (1 - (double)x / 8) + 0x1p-46);
    }
    assert_true(kd_sample_key(-INFINITY) == 0 && kd_sample_key(NAN) == 0);
    assert_true(kd_sample_key(0.0f) == kd_sample_key(-0.0f));
    assert_true(kd_sample_key(-1e-30f) < kd_sample_key(0.0f));
    assert_true(kd_sample_key(-3e38f) > 0 && kd_sample_key(-2.0f) < kd_sample_key(-1));
    assert_true(kd_sample_score(kd_sample_key(-2.5f)) == -2.5f);
}

struct option {
    float score;
    int32_t token;
    double weight;
};

static int ascending(const void *a, const void *b)
{
    const struct option *x = a, *y = b;

    if (x->score != y->score)
        return x->score < y->score ? -1 : 1;
    return (x->token > y->token) - (x->token < y->token);
}

static double sum_of(const struct option *o, int64_t n, double *entropy)
{
    double sum = 0.0;

    for (int64_t i = 0; i < n; i++)
        sum += o[i].weight;
    *entropy = 0.0;
    for (int64_t i = 0; i < n; i++)
        if (o[i].weight > 0.0)
            *entropy -= o[i].weight / sum * log(o[i].weight / sum);
    return sum;
}

static void drop_below(struct option *o, int64_t *n, double least)
{
    int64_t drop = 0;

    while (drop < *n - 1 && o[drop].weight < least && o[drop].score < o[*n - 1].score)
        drop++;
    memmove(o, o + drop, (size_t)(*n - drop) * sizeof *o);
    *n -= drop;
}

/* The narrowest band of surprises around the entropy with the mass. */
static void keep_typical(struct option *o, int64_t *n, double mass)
{
    double entropy, total = sum_of(o, *n, &entropy), width = INFINITY;
    int64_t kept = 0;

    for (int64_t i = 0; i < *n; i++) {
        double d = fabs(-log(o[i].weight / total) - entropy), within = 0.0;

        for (int64_t k = 0; k < *n; k++)
            if (fabs(-log(o[k].weight / total) - entropy) <= d)
                within += o[k].weight;
        if (within >= mass * total && d < width)
            width = d;
    }
    for (int64_t i = 0; i < *n; i++)
        if (fabs(-log(o[i].weight / total) - entropy) <= width)
            o[kept++] = o[i];
    *n = kept;
}

static double limited_further(const struct kd_sample *s, struct option *o, int64_t *n)
{
    double entropy, total;

    if (s->min_p > 0.0)
        drop_below(o, n, s->min_p * o[*n - 1].weight);
    if (s->typical_p > 0.0 && s->typical_p < 1.0)
        keep_typical(o, n, s->typical_p);
    total = sum_of(o, *n, &entropy);
    if (s->epsilon > 0.0)
        drop_below(o, n, s->epsilon * total);
    total = sum_of(o, *n, &entropy);
    if (s->eta > 0.0)
        drop_below(o, n, fmin(s->eta, sqrt(s->eta) * exp(-entropy)) * total);
    return sum_of(o, *n, &entropy);
}

/* Options of one row that are left, ascending; the sum of their weights. */
static double options(const struct kd_sample *s, const float *row, struct option *o,
                      int64_t *n)
{
    double total = 0.0, sum = 0.0, limit;
    int64_t drop = 0;

    *n = 0;
    for (int64_t c = 0; c < s->cols; c++)
        if (row[c] > -INFINITY)
            o[(*n)++] = (struct option){row[c], (int32_t)c, 0.0};
    qsort(o, (size_t)*n, sizeof *o, ascending);
    while (s->top_k > 0 && *n - s->top_k > drop &&
           o[drop].score < o[*n - s->top_k].score)
        drop++;
    for (int64_t i = drop; i < *n; i++) {
        o[i].weight = exp(((double)o[i].score - (double)o[*n - 1].score) /
                          (double)(float)s->temperature);
        total += o[i].weight;
    }
    limit = (1.0 - s->top_p) * total;
    while (s->top_p < 1.0 && drop < *n - 1 && sum + o[drop].weight <= limit)
        sum += o[drop++].weight;
    memmove(o, o + drop, (size_t)(*n - drop) * sizeof *o);
    *n -= drop;
    return limited_further(s, o, n);
}

/* Draw I was possible, has its log-probability, and lies where u says. */
static void check_draw(const struct kd_sample *s, int64_t i, struct option *o)
{
    int64_t n, token = s->tokens[i];
    double total = options(s, s->x + i / s->per_row * s->cols, o, &n), before = 0.0,
           weight = -1.0;

    for (int64_t k = 0; k < n; k++) {
        if (o[k].token < token)
            before += o[k].weight;
        if (o[k].token == token)
            weight = o[k].weight;
    }
    if (weight < 0.0)
        fail_msg("draw %d: token %d is not among the %d left", (int)i, (int)token,
                 (int)n);
    assert_true(s->u[i] * total >= before - 1e-6 * total);
    assert_true(s->u[i] * total <= before + weight + 1e-6 * total);
    ot_near(s->log_probs[i], log(weight / total), 1e-6, 1.0, "log_prob", i);
}

static void check_sample_of(float *x, int64_t rows, int64_t cols, int64_t per_row,
                            const struct kd_sample *settings)
{
    int64_t n = rows * per_row;
    double *u = ot_bytes((size_t)n * sizeof *u),
           *log_probs = ot_bytes((size_t)n * sizeof *log_probs);
    int32_t *tokens = ot_ids(n, 1);
    struct option *o = calloc((size_t)cols, sizeof *o);
    struct kd_sample s = {.x = x,
                          .n = n,
                          .per_row = per_row,
                          .cols = cols,
                          .u = u,
                          .temperature = settings->temperature,
                          .top_p = settings->top_p,
                          .top_k = settings->top_k,
                          .log_probs = log_probs,
                          .tokens = tokens,
                          .min_p = settings->min_p,
                          .typical_p = settings->typical_p,
                          .epsilon = settings->epsilon,
                          .eta = settings->eta};

    assert_non_null(o);
    for (int64_t i = 0; i < n; i++)
        u[i] = kd_rng_uniform(3, KD_RNG_TEST, (uint64_t)cols, (uint64_t)i);
    u[0] = 0.0;
    u[n - 1] = 1.0 - 0x1p-53;
    OT_EACH_BACKEND(be)
    {
        assert_int_equal(be->ops->sample(be, &s), 0);
        ot_same(tokens);
        ot_same(log_probs);
    }
    for (int64_t i = 0; i < n; i++)
        check_draw(&s, i, o);
    free(o);
}

static void check_sample(float *x, int64_t rows, int64_t cols, int64_t per_row,
                         double temperature, int64_t top_k, double top_p)
{
    const struct kd_sample settings = {
        .temperature = temperature, .top_k = top_k, .top_p = top_p};

    check_sample_of(x, rows, cols, per_row, &settings);
}

static void draws(void **state)
{
    float *x = ot_normal(9 * 3001, 3.0), *wide = ot_normal(2 * 50265, 2.5),
          *ties = ot_normal(5 * 400, 1.0);

    (void)state;
    for (int i = 0; i < 900; i++)
        x[i * 30] = i % 2 ? -INFINITY : NAN;
    for (int i = 0; i < 5 * 400; i++)
        ties[i] = roundf(ties[i]);
    check_sample(x, 5, 3001, 1, 1.0, 0, 1.0);
    check_sample(x, 5, 3001, 2, 0.7, 50, 0.95);
    check_sample(x, 6, 3001, 1, 1.3, 0, 0.9);
    check_sample(x, 4, 3001, 1, 1.0, 2000, 0.2);
    check_sample(x, 9, 1000, 1, 1.0, 1, 1.0);
    check_sample(wide, 2, 50265, 1, 1.0, 0, 0.95);
    check_sample(wide, 1, 50265, 2, 1.0, 0, 1.0);
    check_sample(ties, 3, 400, 7, 1.0, 7, 1.0);
    check_sample(ties, 5, 400, 8, 1.0, 0, 0.37); /* cut among equals */
    check_sample(ties, 40, 10, 1, 2.0, 4, 0.61);
    check_sample(ties, 9, 1, 1, 1.0, 0, 0.5);
}

static void draws_of_what_is_left_further(void **state)
{
    static const struct kd_sample settings[] = {
        {.temperature = 1.0, .top_p = 1.0, .min_p = 0.1},
        {.temperature = 0.8, .top_p = 1.0, .typical_p = 0.7},
        {.temperature = 1.2, .top_p = 1.0, .typical_p = 0.2},
        {.temperature = 1.0, .top_p = 1.0, .epsilon = 0.003},
        {.temperature = 1.3, .top_p = 1.0, .eta = 0.01},
        {.temperature = 1.0, .top_p = 1.0, .epsilon = 0.9},
        {.temperature = 1.1,
         .top_p = 0.93,
         .top_k = 200,
         .min_p = 0.01,
         .typical_p = 0.8,
         .epsilon = 1e-3,
         .eta = 2e-3},
    };
    float *x = ot_normal(7 * 3001, 3.0), *ties = ot_normal(5 * 400, 1.0);

    (void)state;
    for (int i = 0; i < 700; i++)
        x[i * 30] = i % 2 ? -INFINITY : NAN;
    for (int i = 0; i < 5 * 400; i++)
        ties[i] = roundf(ties[i]);
    for (int i = 0; i < 7; i++) {
        struct kd_sample cut = settings[i];

        check_sample_of(x, 7, 3001, 3, &cut);
        cut.top_p = 0.37; /* among equals */
        check_sample_of(ties, 5, 400, 8, &cut);
    }
}

static void nothing_to_draw(void **state)
{
    enum { COLS = 40 };
    float *x = ot_nan(2 * COLS);
    double *u = ot_bytes(2 * sizeof *u), *log_probs = ot_bytes(2 * sizeof *log_probs);
    int32_t *tokens = ot_ids(2, 1);
    struct kd_sample s = {x, 2,         1,      COLS, u,   1.0,  0.9,
                          5, log_probs, tokens, 0.05, 0.9, 0.01, 0.02};

    (void)state;
    u[0] = u[1] = 0.5;
    for (int c = 0; c < COLS; c++)
        x[COLS + c] = c == 17 ? INFINITY : -INFINITY;
    OT_EACH_BACKEND(be)
    {
        assert_int_equal(be->ops->sample(be, &s), 0);
        assert_true(tokens[0] == 0 && log_probs[0] == -INFINITY);
        assert_true(tokens[1] == 17 && log_probs[1] == 0.0);
    }
}

static void check_slots(int64_t before, int64_t n, int32_t step, int64_t ld)
{
    int32_t *old = ot_ids(before * ld, 1000), *slots = ot_ids(before * ld, 1),
            *parents = ot_ids(n, before), *at = ot_ids(1, 1);
    struct kd_slot_step s = {
        slots, ld, n, 500, parents, at, step + 1 < ld ? step + 2 : ld};

    *at = step;
    OT_EACH_BACKEND(be)
    {
        memcpy(slots, old, (size_t)(before * ld) * sizeof *slots);
        assert_int_equal(be->ops->advance_slots(be, &s), 0);
        ot_same(slots);
    }
    for (int64_t i = 0; i < before * ld; i++) {
        int64_t r = i / ld, t = i % ld;
        int64_t want = r >= n || t > step ? old[i]
                       : t == step        ? step * 500 + r
                                          : old[parents[r] * ld + t];

        assert_int_equal(slots[i], want);
    }
}

static void slots_follow_parents(void **state)
{
    (void)state;
    check_slots(6, 6, 0, 9);
    check_slots(40, 33, 8, 9);
    check_slots(300, 300, 5, 70);
    check_slots(3, 1, 63, 64);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(largest_log_probs, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(edits, ot_setup, ot_teardown),
        cmocka_unit_test(weights_are_integers),
        cmocka_unit_test_setup_teardown(draws, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(draws_of_what_is_left_further, ot_setup,
                                        ot_teardown),
        cmocka_unit_test_setup_teardown(nothing_to_draw, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(slots_follow_parents, ot_setup, ot_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
