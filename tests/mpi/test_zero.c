/* SPDX-License-Identifier: Apache-2.0 */
/* The sharded optimiser does what the whole one does: the same bits without clipping,
 * the same to the rounding of the norm with it, from a part of the state; and state
 * goes from either to the other.  Trainers differ in nothing else; each has slabs of
 * its own.  On the CPU, and on devices with NCCL between them. */
#include "kdhpc/train/trainer.h"

#ifdef ON_DEVICE
#include "device_ranks.h"
#else
#include "mpi_test.h"

static struct kd_comm *comm;
static struct kd_backend *be;
#endif

#include <math.h>

enum { PARAMS = 14, STEPS = 4 };

/* NCCL itself may add in another order when it scatters the sums. */
#ifdef ON_GPU
static const double same = 1e-5;
#else
static const double same = 0;
#endif

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

/* N float32 values of backend memory P, to be freed; and back. */
static float *to_host(const float *p, int64_t n)
{
    float *out = malloc((size_t)n * sizeof *out);

    assert_non_null(out);
    assert_ok(be->ops->download(be, out, p, (size_t)n * sizeof *out));
    return out;
}

static void to_backend(float *p, float *values, int64_t n)
{
    assert_ok(be->ops->upload(be, p, values, (size_t)n * sizeof *values));
    assert_ok(be->ops->sync(be));
    free(values);
}

/* One run: parameters and their trainer. */
struct side {
    struct kd_params params;
    struct kd_trainer *trainer;
    int64_t step;
};

static void side_open(struct side *s, struct kd_trainer_options o, enum kd_dtype dtype)
{
    float *start;

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
    start = to_host(s->params.values, n_slab);
    for (int64_t i = 0; i < n_slab; i++)
        start[i] = (float)sin((double)i);
    to_backend(s->params.values, start, n_slab);
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

/* Gradients are prescribed; they are reported from the end, as backward does. */
static int micro(void *arg, int64_t m, kd_param_ready_fn ready, void *ready_arg,
                 double terms[KD_MAX_TERMS])
{
    struct side *s = arg;
    double mine = 1 + kd_comm_rank(comm) + 0.1 * (double)s->step;
    float *grads = to_host(s->params.grads, n_slab);

    (void)m;
    terms[0] = mine;
    for (int p = 0; p < PARAMS; p++) {
        int64_t first = items[p].offset, end = first + items[p].count;

        for (int64_t i = first; i < end && !items[p].frozen; i++)
            grads[i] += (float)cos(mine * (double)(i + 1));
    }
    to_backend(s->params.grads, grads, n_slab);
    for (int p = PARAMS - 1; p >= 0; p--) {
        struct kd_var v = {
            .g = kd_tensor1(s->params.grads + items[p].offset, KD_F32, items[p].count)};

        if (!items[p].frozen)
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

/* Values (K < 0) or state. */
static float *array_of(struct side *s, int k)
{
    return k < 0 ? to_host(s->params.values, n_slab) : state_of(s, k);
}

/* Values and state of both, within BOUND; 0: the same bits. */
static void assert_same(struct side *a, struct side *b, double bound)
{
    for (int k = -1; k < 2; k++) {
        float *x = array_of(a, k), *y = array_of(b, k);

        if (bound == 0)
            assert_memory_equal(x, y, (size_t)n_slab * sizeof *x);
        for (int64_t i = 0; i < n_slab; i++)
            if (!(fabs((double)x[i] - (double)y[i]) <= bound))
                fail_msg("array %d, value %lld: %g and %g", k, (long long)i,
                         (double)x[i], (double)y[i]);
        free(x);
        free(y);
    }
}

/* The parameters have moved, but the frozen ones and the padding. */
static void assert_trained(struct side *s)
{
    int64_t moved = 0, trainable = 0;
    float *values = array_of(s, -1);

    for (int64_t i = 0; i < n_slab; i++)
        moved += values[i] != (float)sin((double)i);
    for (int p = 0; p < PARAMS; p++)
        trainable += items[p].frozen ? 0 : items[p].count;
    assert_true(moved <= trainable && moved > trainable - 20);
    free(values);
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
        assert_true(fabs(run(&sharded, STEPS) / norm - 1) < 1e-9 + same);
        assert_same(&whole, &sharded, i % 2 ? 1000 * same : same);
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
    assert_same(&whole, &sharded, 1e-6 + same);
    side_close(&whole);
    side_close(&sharded);
}

/* Where parameters are read in bfloat16, all ranks read the new ones. */
static void rounded_values_follow(void **unused)
{
    struct kd_trainer_options o = {.zero = true};
    uint16_t *rounded = malloc((size_t)n_slab * sizeof *rounded);
    struct side s;
    float *values;

    (void)unused;
    assert_non_null(rounded);
    side_open(&s, o, KD_BF16);
    run(&s, 1);
    values = array_of(&s, -1);
    assert_ok(be->ops->download(be, rounded, s.params.rounded,
                                (size_t)n_slab * sizeof *rounded));
    for (int64_t i = 0; i < n_slab; i++)
        assert_int_equal(rounded[i], kd_f32_to_bf16(values[i]));
    assert_trained(&s);
    free(values);
    free(rounded);
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

    to_backend(to->params.values, array_of(from, -1), n_slab);
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
        assert_same(&straight, &second, i / 2 ? 1000 * same : same);
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

/* false: no device to use. */
static bool open_backend(void)
{
#ifdef ON_DEVICE
    if (kd_cuda_devices() == 0)
        return false;
    if (kd_comm_size(comm) == 1)
        setenv("KD_PLANE", "nccl", 1);
    connect_ranks();
#else
    assert_ok(kd_backend_cpu(1, &be));
#endif
    return true;
}

static void close_backend(void)
{
#ifdef ON_DEVICE
    unuse();
#else
    kd_backend_free(be);
#endif
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

    setenv("KD_HOST_DEVICES", "4", 1); /* of the emulator */
    comm = mpi_test_start();
    if (!open_backend()) {
        kd_comm_stop(comm);
        return 77; /* skipped */
    }
    lay_out();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    close_backend();
    kd_comm_stop(comm);
    return failed;
}
