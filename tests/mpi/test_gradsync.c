/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient buckets: every trainable value is summed exactly once, frozen ones not at
 * all, whatever the bucket size, the order of the reports, and ranks that report
 * nothing. */
#include "kdhpc/train/gradsync.h"

#include "mpi_test.h"

enum { PAD = 3, PARAMS = 9 };

static struct kd_comm *comm;
static struct kd_param items[PARAMS];
static float grads[4096];

static int no_wait(struct kd_backend *be)
{
    (void)be;
    return KD_OK;
}

static const struct kd_backend_ops ops = {.sync = no_wait};
static struct kd_backend backend = {.ops = &ops, .device = KD_CPU};
static struct kd_params params = {.be = &backend, .items = items, .grads = grads};

/* Parameters of growing size, with padding between; numbers 2 and 5 are frozen. */
static void lay_out(void)
{
    int64_t at = 0;

    params.n = PARAMS;
    for (int i = 0; i < PARAMS; i++) {
        items[i] = (struct kd_param){
            .offset = at, .count = 10 + 37 * i, .frozen = i == 2 || i == 5};
        at += items[i].count + PAD;
    }
    params.n_slab = at;
}

static float value(int rank, int64_t i)
{
    return (float)((rank + 1) * (i % 251));
}

static void fill(void)
{
    memset(grads, 0, sizeof grads);
    for (int p = 0; p < PARAMS; p++)
        for (int64_t i = items[p].offset; i < items[p].offset + items[p].count; i++)
            grads[i] = value(kd_comm_rank(comm), i);
}

static void check(void)
{
    int size = kd_comm_size(comm), mine = kd_comm_rank(comm) + 1;

    for (int p = 0; p < PARAMS; p++) {
        int times = items[p].frozen ? mine : size * (size + 1) / 2;

        for (int64_t i = items[p].offset; i < items[p].offset + items[p].count; i++)
            assert_true(grads[i] == (float)(times * (i % 251)));
    }
}

enum order { BACKWARD, FORWARD, SPLIT, ONLY_ROOT };

static void report(struct kd_gradsync *s, enum order order)
{
    if (order == ONLY_ROOT && kd_comm_rank(comm) != 0)
        return;
    for (int k = 0; k < PARAMS; k++) {
        const struct kd_param *p = &items[order == FORWARD ? k : PARAMS - 1 - k];
        int64_t half = order == SPLIT ? p->count / 2 : 0;

        if (p->frozen)
            continue;
        if (half)
            assert_ok(kd_gradsync_ready(s, p->offset, half));
        assert_ok(kd_gradsync_ready(s, p->offset + half, p->count - half));
    }
}

static void every_value_is_summed_once(void **state)
{
    static const int64_t bucket_bytes[] = {4, 400, 1600, 1 << 20};

    (void)state;
    lay_out();
    for (size_t k = 0; k < sizeof bucket_bytes / sizeof *bucket_bytes; k++) {
        struct kd_gradsync *s = NULL;

        assert_ok(kd_gradsync_new(comm, &params, bucket_bytes[k], &s));
        for (int order = BACKWARD; order <= ONLY_ROOT; order++) {
            fill();
            report(s, order);
            assert_ok(kd_gradsync_finish(s));
            check();
        }
        kd_gradsync_free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_is_summed_once),
    };
    int failed;

    comm = mpi_test_start();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    kd_comm_stop(comm);
    return failed;
}
