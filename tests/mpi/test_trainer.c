/* SPDX-License-Identifier: Apache-2.0 */
/* The update: gradients of all ranks and micro-batches are one sum, the clipped step is
 * the optimiser's, the rate is the schedule's, and an update that is skipped or fails
 * changes nothing on any rank.  Gradients are prescribed, so every value is known.  All
 * of it holds with the optimiser whole on every rank and sharded over the ranks. */
#include "kdhpc/train/trainer.h"

#include "kdhpc/base/signal.h"

#include "mpi_test.h"

#include <math.h>
#include <signal.h>

enum { ROWS = 6, COLS = 60, N_WEIGHT = ROWS * COLS, N_BIAS = 30, N_FROZEN = 5 };
enum { N = N_WEIGHT + N_BIAS + N_FROZEN };

static struct kd_comm *comm;
static struct kd_param items[] = {
    {.name = "weight", .ndim = 2, .shape = {ROWS, COLS}, .count = N_WEIGHT},
    {.name = "bias",
     .kind = KD_PARAM_BIAS,
     .ndim = 1,
     .shape = {N_BIAS},
     .offset = N_WEIGHT,
     .count = N_BIAS},
    {.name = "frozen",
     .ndim = 1,
     .shape = {N_FROZEN},
     .offset = N_WEIGHT + N_BIAS,
     .count = N_FROZEN,
     .frozen = true}};
static struct kd_params params = {.n = 3, .items = items, .n_slab = N};
static bool zero; /* of the trainers of this round */

/* What the micro-batches of an update do. */
struct script {
    double grad;  /* of every trainable value, over all ranks and micro-batches */
    double term;  /* first term, likewise */
    int n_micro;  /* how many there are */
    int fails_on; /* this rank fails in the first one; -1: none */
    bool ready;   /* report gradients in the last one, as backward does */
};

static int micro(void *arg, int64_t m, kd_param_ready_fn ready, void *ready_arg,
                 double terms[KD_MAX_TERMS])
{
    const struct script *s = arg;
    double share = 1.0 / (kd_comm_size(comm) * s->n_micro);

    assert_int_equal(ready != NULL, m == s->n_micro - 1);
    for (int i = 0; i < N_WEIGHT + N_BIAS; i++)
        params.grads[i] += (float)(s->grad * share);
    terms[0] += s->term * share;
    terms[1] += m;
    if (m == 0 && s->fails_on == kd_comm_rank(comm))
        return KD_FAIL(KD_EINPUT, "rank %d was told to fail", s->fails_on);
    for (int i = 1; ready && s->ready && i >= 0; i--) {
        struct kd_var v = {
            .g = kd_tensor1(params.grads + items[i].offset, KD_F32, items[i].count)};

        KD_TRY(ready(ready_arg, &v));
    }
    return KD_OK;
}

static void set_values(void)
{
    for (int i = 0; i < N; i++)
        params.values[i] = i < N_WEIGHT + N_BIAS ? 1.0f : 7.0f;
}

static struct kd_trainer *new_trainer(struct kd_trainer_options o)
{
    struct kd_trainer *t;

    set_values();
    assert_ok(kd_trainer_new(comm, &params, &o, &t));
    return t;
}

static struct kd_trainer_options constant(void)
{
    return (struct kd_trainer_options){.learning_rate = 0.1,
                                       .total_steps = 10,
                                       .schedule = KD_LR_CONSTANT,
                                       .max_skipped_steps = 2,
                                       .zero = zero,
                                       .optim = {.eps = 1e-8, .weight_decay = 0.01}};
}

static struct kd_update update(struct kd_trainer *t, int64_t step, struct script s)
{
    struct kd_update u;

    s.n_micro = s.n_micro ? s.n_micro : 1;
    s.fails_on = -1;
    s.ready = true;
    assert_ok(kd_trainer_update(t, step, s.n_micro, micro, &s, &u));
    return u;
}

/* All values of the decayed weight, of the bias, and of the frozen parameter. */
static void assert_values(double weight, double bias)
{
    for (int i = 0; i < N; i++) {
        double want = i < N_WEIGHT ? weight : i < N_WEIGHT + N_BIAS ? bias : 7.0;

        if (!(fabs(params.values[i] - want) <= 1e-6))
            fail_msg("value %d is %.9g, not %.9g", i, (double)params.values[i], want);
    }
}

static bool close_to(double got, double want)
{
    return fabs(got - want) <= 6e-7 * want;
}

static void get_state(struct kd_trainer *t, int k, float out[N])
{
    static const char *const names[] = {"second_moment", "first_moment"};
    struct kd_optim *optim = kd_trainer_optim(t);
    int64_t n;

    assert_string_equal(kd_optim_state(optim, k, &n), names[k]);
    assert_int_equal(n, N);
    assert_ok(kd_optim_get_state(optim, comm, k, 0, N, out));
}

/* What AdamW subtracts at rate 0.1 in its second step, for gradients 0.5, then -0.25
 * (in the first it is 0.1: m / sqrt(v) is one). */
static double second_step(void)
{
    double m = 0.9 * 0.05 - 0.1 * 0.25, v = 0.999 * 0.00025 + 0.001 * 0.0625;

    return 0.1 * (m / (1 - 0.81)) / (sqrt(v / (1 - 0.998001)) + 1e-8);
}

static void steps_of_adamw(void **state)
{
    struct kd_trainer_options o = constant();
    struct kd_trainer *t = new_trainer(o);
    struct kd_update u;

    (void)state;
    u = update(t, 1, (struct script){.grad = 0.5, .term = 3, .n_micro = 3});
    assert_true(close_to(u.grad_norm, 0.5 * sqrt(N_WEIGHT + N_BIAS)));
    assert_true(fabs(u.terms[0] - 3) < 1e-12 && !u.skipped && !u.stop);
    assert_true(u.terms[1] == 3.0 * kd_comm_size(comm));
    assert_values(1 * 0.999 - 0.1, 1 - 0.1);
    update(t, 2, (struct script){.grad = -0.25});
    assert_values(0.899 * 0.999 - second_step(), 0.9 - second_step());
    kd_trainer_free(t);
    /* the order of transformers 4.1: decay after the step, at the new value */
    o.optim.compat = true;
    t = new_trainer(o);
    update(t, 1, (struct script){.grad = 0.5});
    assert_true(fabs(params.values[0] - 0.899100063) < 1e-6);
    update(t, 2, (struct script){.grad = -0.25});
    assert_true(fabs(params.values[0] - 0.871593908) < 1e-6);
    kd_trainer_free(t);
}

static void clipping(void **state)
{
    struct kd_trainer_options o = constant();
    double norm = 5 * sqrt(N_WEIGHT + N_BIAS);
    const double limits[] = {0, 2, 100}, scales[] = {1, 2 / (norm + 1e-6), 1};

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct kd_trainer *t;
        struct kd_update u;
        float m[N];

        o.max_grad_norm = limits[i];
        t = new_trainer(o);
        u = update(t, 1, (struct script){.grad = 5});
        get_state(t, 1, m);
        assert_true(close_to(u.grad_norm, norm)); /* before clipping */
        for (int j = 0; j < N_WEIGHT + N_BIAS; j++)
            assert_true(fabs(m[j] - 0.1 * 5 * scales[i]) < 1e-6);
        assert_true(m[N - 1] == 0); /* frozen */
        kd_trainer_free(t);
    }
}

static void rates(void **state)
{
    (void)state;
    for (int kind = KD_LR_LINEAR; kind <= KD_LR_CONSTANT; kind++) {
        struct kd_trainer_options o = constant();
        struct kd_trainer *t;

        o.schedule = (enum kd_schedule)kind;
        o.warmup_steps = 3;
        t = new_trainer(o);
        for (int step = 1; step <= 10; step++) {
            struct kd_update u = update(t, step, (struct script){.grad = 1});

            assert_true(u.lr == 0.1 * kd_schedule_at(o.schedule, step - 1, 3, 10, 0.1));
            if (step == 1)
                assert_values(1, 1); /* the first rate of a warm-up is zero */
        }
        kd_trainer_free(t);
    }
}

static void skipped_updates_change_nothing(void **state)
{
    const struct script bad[] = {{.grad = NAN}, {.grad = 1, .term = INFINITY}};
    struct kd_trainer *t = new_trainer(constant());
    float values[N], moments[2][N], after[N];
    struct script s = {.grad = NAN, .n_micro = 1, .fails_on = -1};
    struct kd_update u;

    (void)state;
    update(t, 1, (struct script){.grad = 0.5});
    memcpy(values, params.values, sizeof values);
    for (int k = 0; k < 2; k++)
        get_state(t, k, moments[k]);
    for (int step = 2; step <= 3; step++) {
        u = update(t, step, bad[step - 2]);
        assert_true(u.skipped);
        assert_int_equal(kd_trainer_skipped(t), step - 1);
        assert_memory_equal(values, params.values, sizeof values);
        for (int k = 0; k < 2; k++) {
            get_state(t, k, after);
            assert_memory_equal(moments[k], after, sizeof after);
        }
    }
    /* a good one counts as the optimiser's second and forgives the bad ones */
    u = update(t, 4, (struct script){.grad = -0.25});
    assert_false(u.skipped);
    assert_values(0.899 * 0.999 - second_step(), 0.9 - second_step());
    update(t, 5, bad[0]);
    update(t, 6, bad[1]);
    memcpy(values, params.values, sizeof values);
    assert_int_equal(kd_trainer_update(t, 7, 1, micro, &s, &u), KD_ENUMERIC);
    assert_non_null(strstr(kd_error_get()->text, "step 7"));
    kd_error_clear();
    assert_memory_equal(values, params.values, sizeof values);
    kd_trainer_free(t);
}

static void a_failing_rank_fails_all(void **state)
{
    struct kd_trainer *t = new_trainer(constant());
    struct kd_update u;

    (void)state;
    for (int rank = 0; rank < kd_comm_size(comm); rank++) {
        struct script s = {.grad = 1, .n_micro = 2, .fails_on = rank, .ready = true};

        assert_int_equal(kd_trainer_update(t, 1, 2, micro, &s, &u), KD_EINPUT);
        assert_int_equal(kd_comm_failed_rank(comm), rank);
        kd_error_clear();
        assert_values(1, 1);
    }
    update(t, 1, (struct script){.grad = 0.5}); /* and the ranks are still in step */
    assert_values(0.899, 0.9);
    kd_trainer_free(t);
}

static void a_signal_reaches_all(void **state)
{
    struct kd_trainer *t = new_trainer(constant());
    struct kd_update u;

    (void)state;
    kd_stop_install();
    if (kd_comm_rank(comm) == kd_comm_size(comm) - 1)
        raise(SIGTERM);
    u = update(t, 1, (struct script){.grad = 0.5});
    assert_true(u.stop);
    assert_values(0.899, 0.9); /* the update was made: it is the one to save */
    kd_trainer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_of_adamw),
        cmocka_unit_test(clipping),
        cmocka_unit_test(rates),
        cmocka_unit_test(skipped_updates_change_nothing),
        cmocka_unit_test(a_failing_rank_fails_all),
    };
    const struct CMUnitTest last[] = {
        /* the request stays */
        cmocka_unit_test(a_signal_reaches_all),
    };
    void *values;
    int failed = 0;

    comm = mpi_test_start();
    if (kd_backend_cpu(1, &params.be) ||
        params.be->ops->alloc(params.be, N * sizeof(float), &values) ||
        kd_params_alloc_grads(&params))
        return 1;
    params.values = values;
    for (int sharded = 0; sharded < 2; sharded++) {
        zero = sharded;
        failed += cmocka_run_group_tests(tests, NULL, NULL);
    }
    failed += cmocka_run_group_tests(last, NULL, NULL);
    params.be->ops->free(params.be, params.values);
    params.be->ops->free(params.be, params.grads);
    kd_backend_free(params.be);
    kd_comm_stop(comm);
    return failed;
}
