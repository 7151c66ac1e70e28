/* SPDX-License-Identifier: Apache-2.0 */
/* The sharded optimiser does what the whole one does: the same bits without clipping,
 * the same to the rounding of the norm with it, from a part of the state; and state
 * goes from either to the other.  Trainers differ in nothing else; each has slabs of
 * its own.
 */
#include "kdhpc/train/trainer.h"

#include "mpi_test.h"

#include <math.h>

enum { PARAMS = 14, STEPS = 4 };

static struct kd_comm *comm;
static struct kd_backend *be;
static struct kd_param items[PARAMS];
static int64_t n_slab;

/* Weights and biases in turn, of many sizes, with padding; some are frozen. */
static void lay_out(void)
{
    int64_t at = 0;

    for (int i = 0; i < PARAMS; i++) {
        items[i] = (struct kd_param){.kind = i % 2 ? KD_PARAM_BIAS : KD_PARAM_WEIGHT,
                                     .ndim = 1,
                                     .offset = at,
                                     .count = 17 + 150 * i,
                                     .frozen = i == 3 || i == 8 || i == 13};
        items[i].shape[0] = items[i].count;
        at += items[i].count + (i % 3 ? 0 : 5);
    }
    n_slab = at;
}

/* One run: parameters and their trainer. */
struct side {
    struct kd_params params;
    struct kd_trainer *trainer;
    int64_t step;
};

static void side_open(struct side *s, struct kd_trainer_options o, enum kd_dtype dtype)
{
    *s = (struct side){
        .params = {.be = be, .n = PARAMS, .items = items, .n_slab = n_slab}};
    o.learning_rate = 1e-2;
    o.total_steps = 100;
    o.schedule = KD_LR_CONSTANT;
    o.optim.eps = 1e-8;
    o.optim.weight_decay = 0.1;
    o.optim.seed = 5;
    assert_ok(kd_params_alloc(&s->params, dtype));
    assert_ok(kd_params_alloc_grads(&s->params));
    for (int64_t i = 0; i < n_slab; i++)
        s->params.values[i] = (float)sin((double)i);
    assert_ok(kd_params_refresh(&s->params));
    assert_ok(kd_trainer_new(comm, &s->params, &o, &s->trainer));
}

static void side_close(struct side *s)
{
    float *slabs[] = {s->params.values, s->params.grads};

    kd_trainer_free(s->trainer);
    for (int i = 0; i < 2; i++)
        be->ops->free(be, slabs[i]);
    if (s->params.rounded)
        be->ops->free(be, s->params.rounded);
}

static int micro(void *arg, int64_t m, kd_param_ready_fn ready, void *ready_arg,
                 double terms[KD_MAX_TERMS])
{
    struct side *s = arg;
    double mine = 1 + kd_comm_rank(comm) + 0.1 * (double)s->step;

    (void)m;
    terms[0] = mine;
    for (int p = PARAMS - 1; p >= 0; p--) {
        const struct kd_param *it = &items[p];
        struct kd_var v = {
            .g = kd_tensor1(s->params.grads + it->offset, KD_F32, it->count)};

        if (it->frozen)
            continue;
        for (int64_t i = it->offset; i < it->offset + it->count; i++)
            s->params.grads[i] += (float)cos(mine * (double)(i + 1));
        KD_TRY(ready(ready_arg, &v));
    }
    return KD_OK;
}

static double run(struct side *s, int64_t steps)
{
    struct kd_update u = {0};

    while (steps-- > 0)
        assert_ok(kd_trainer_update(s->trainer, ++s->step, 1, micro, s, &u));
    return u.grad_norm;
}

/* The whole of state array K on every rank. */
static float *state_of(struct side *s, int k)
{
    float *out = malloc((size_t)n_slab * sizeof *out);

    assert_non_null(out);
    assert_ok(
        kd_optim_get_state(kd_trainer_optim(s->trainer), comm, k, 0, n_slab, out));
    return out;
}

/* Values and state of both, within BOUND; 0: the same bits. */
static void assert_same(struct side *a, struct side *b, double bound)
{
    for (int k = -1; k < 2; k++) {
        float *x = k < 0 ? a->params.values : state_of(a, k),
              *y = k < 0 ? b->params.values : state_of(b, k);

        if (bound == 0)
            assert_memory_equal(x, y, (size_t)n_slab * sizeof *x);
        for (int64_t i = 0; i < n_slab; i++)
            if (!(fabs((double)x[i] - (double)y[i]) <= bound))
                fail_msg("array %d, value %lld: %g and %g", k, (long long)i,
                         (double)x[i], (double)y[i]);
        if (k >= 0) {
            free(x);
            free(y);
        }
    }
}

/* The parameters have moved, but the frozen ones and the padding. */
static void assert_trained(const struct side *s)
{
    int64_t moved = 0, trainable = 0;

    for (int64_t i = 0; i < n_slab; i++)
        moved += s->params.values[i] != (float)sin((double)i);
    for (int p = 0; p < PARAMS; p++)
        trainable += items[p].frozen ? 0 : items[p].count;
    assert_true(moved <= trainable && moved > trainable - 20);
}

static void sharded_is_whole(void **unused)
{
    static const int64_t bucket_bytes[] = {0, 2000, 9000};
    struct side whole, sharded;

    (void)unused;
    for (int i = 0; i < 6; i++) {
        struct kd_trainer_options o = {.bucket_bytes = bucket_bytes[i / 2],
                                       .optim.moments = i % 2 ? KD_BF16 : KD_F32};
        double norm;

        side_open(&whole, o, KD_F32);
        o.zero = true;
        side_open(&sharded, o, KD_F32);
        norm = run(&whole, STEPS);
        assert_true(fabs(run(&sharded, STEPS) / norm - 1) < 1e-9);
        assert_same(&whole, &sharded, 0);
        assert_trained(&sharded);
        side_close(&whole);
        side_close(&sharded);
    }
}

static void clipping(void **unused)
{
    struct kd_trainer_options o = {.max_grad_norm = 0.5};
    struct side whole, sharded;

    (void)unused;
    side_open(&whole, o, KD_F32);
    o.zero = true;
    side_open(&sharded, o, KD_F32);
    run(&whole, STEPS);
    run(&sharded, STEPS);
    assert_same(&whole, &sharded, 1e-6);
    side_close(&whole);
    side_close(&sharded);
}

/* Where parameters are read in bfloat16, all ranks read the new ones. */
static void rounded_values_follow(void **unused)
{
    struct kd_trainer_options o = {.zero = true};
    struct side s;

    (void)unused;
    side_open(&s, o, KD_BF16);
    run(&s, 1);
    for (int64_t i = 0; i < n_slab; i++)
        assert_int_equal(s.params.rounded[i], kd_f32_to_bf16(s.params.values[i]));
    assert_trained(&s);
    side_close(&s);
}

/* Each rank holds its part: of ranges, hence a little padding. */
static void state_is_shared_out(void **unused)
{
    struct kd_trainer_options o = {.zero = true, .bucket_bytes = 1 << 20};
    int64_t trainable = 0, total;
    int size = kd_comm_size(comm);
    struct side s;

    (void)unused;
    for (int p = 0; p < PARAMS; p++)
        trainable += items[p].frozen ? 0 : items[p].count;
    for (int type = 0; type < 2; type++) {
        int64_t moment = type ? 2 : 4, most = 2 * moment * (n_slab / size + 600);

        o.optim.moments = type ? KD_BF16 : KD_F32;
        side_open(&s, o, KD_F32);
        total = kd_optim_bytes(kd_trainer_optim(s.trainer));
        assert_true(total <= most);
        assert_ok(kd_allreduce_i64(comm, &total, 1, KD_SUM));
        assert_true(total >= 2 * moment * trainable);
        assert_true(total <= 2 * moment * (trainable + 16 * (PARAMS + size) * size));
        side_close(&s);
    }
}

/* From a run of one kind to one of another, as a checkpoint would: every rank is given
 * everything, in pieces, and takes what it holds. */
static void hand_over(struct side *from, struct side *to)
{
    enum { PIECE = 700 };

    memcpy(to->params.values, from->params.values,
           (size_t)n_slab * sizeof *to->params.values);
    to->step = from->step;
    for (int k = 0; k < 2; k++) {
        float *x = state_of(from, k);

        for (int64_t at = 0; at < n_slab; at += PIECE) {
            int64_t n = n_slab - at < PIECE ? n_slab - at : PIECE;

            assert_ok(
                kd_optim_put_state(kd_trainer_optim(to->trainer), k, at, n, x + at));
        }
        free(x);
    }
}

static void state_goes_from_kind_to_kind(void **unused)
{
    struct side straight, first, second;

    (void)unused;
    for (int i = 0; i < 4; i++) {
        struct kd_trainer_options o = {.bucket_bytes = 3000,
                                       .optim.moments = i / 2 ? KD_BF16 : KD_F32};

        side_open(&straight, o, KD_F32);
        o.zero = i % 2;
        side_open(&first, o, KD_F32);
        o.zero = !o.zero;
        o.bucket_bytes = 5000;
        side_open(&second, o, KD_F32);
        run(&straight, STEPS);
        run(&first, STEPS / 2);
        hand_over(&first, &second);
        assert_same(&first, &second, 0);
        run(&second, STEPS - STEPS / 2);
        assert_same(&straight, &second, 0);
        side_close(&straight);
        side_close(&first);
        side_close(&second);
    }
}

/* Each rank asks for a range of its own, and the last for none. */
static void shares_of_the_state(void **unused)
{
    struct kd_trainer_options o = {.zero = true};
    int rank = kd_comm_rank(comm), size = kd_comm_size(comm);
    int64_t first = n_slab / (size + 1) * rank,
            n = rank == size - 1 && size > 1 ? 0 : n_slab / 3;
    struct side s;
    float *all, *share = malloc((size_t)n_slab * sizeof *share);

    (void)unused;
    assert_non_null(share);
    side_open(&s, o, KD_F32);
    run(&s, 1);
    all = state_of(&s, 0);
    n = n < n_slab - first ? n : n_slab - first;
    assert_ok(
        kd_optim_get_state(kd_trainer_optim(s.trainer), comm, 0, first, n, share));
    assert_memory_equal(all + first, share, (size_t)n * sizeof *share);
    free(all);
    free(share);
    side_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sharded_is_whole),
        cmocka_unit_test(clipping),
        cmocka_unit_test(rounded_values_follow),
        cmocka_unit_test(state_is_shared_out),
        cmocka_unit_test(state_goes_from_kind_to_kind),
        cmocka_unit_test(shares_of_the_state),
    };
    int failed;

    comm = mpi_test_start();
    if (kd_backend_cpu(1, &be))
        return 1;
    lay_out();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    kd_backend_free(be);
    kd_comm_stop(comm);
    return failed;
}
