/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient buckets: every trainable value is summed exactly once, frozen ones not at
 * all, whatever the bucket size, the order of the reports, and ranks that report
 * nothing.  Sharded, every value has one owner, who gets the same sum, and a gather
 * brings what the owners made of it to all.  On a device, where a start can fail, a
 * failure on one rank ends the update on all of them, wherever each of them is, and the
 * next update is whole again. */
#include "kdhpc/train/gradsync.h"

#include "mpi_test.h"

enum { PAD = 3, PARAMS = 9 };

static struct kd_comm *comm;
static struct kd_param items[PARAMS];
enum { N_SLAB = 4096 };
static float grads[N_SLAB];

static int no_wait(struct kd_backend *be)
{
    (void)be;
    return KD_OK;
}

static int n_downloads; /* until one fails; 0: none does */

static int download(struct kd_backend *be, void *host, const void *device, size_t bytes)
{
    (void)be;
    if (n_downloads > 0 && --n_downloads == 0)
        return KD_FAIL(KD_ENOMEM, "no download");
    memcpy(host, device, bytes);
    return KD_OK;
}

static int upload(struct kd_backend *be, void *device, const void *host, size_t bytes)
{
    (void)be;
    memcpy(device, host, bytes);
    return KD_OK;
}

static const struct kd_backend_ops ops = {
    .sync = no_wait, .download = download, .upload = upload};
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
    assert_true(at <= N_SLAB);
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

/* Whether slab value I is of a parameter that is trained. */
static bool trainable(int64_t i)
{
    for (int p = 0; p < PARAMS; p++)
        if (i >= items[p].offset && i < items[p].offset + items[p].count)
            return !items[p].frozen;
    return false;
}

/* The sums of the owned ranges; and that every trainable value has one owner. */
static void check_owned(const struct kd_gradsync *s)
{
    int size = kd_comm_size(comm);
    int64_t n, end = 0, owners[N_SLAB] = {0};
    const struct kd_part *owned = kd_gradsync_owned(s, &n);

    for (int64_t k = 0; k < n; k++) {
        assert_true(owned[k].count > 0 && owned[k].first >= end);
        end = owned[k].first + owned[k].count;
        for (int64_t i = owned[k].first; i < end; i++) {
            owners[i] = 1;
            if (trainable(i))
                assert_true(grads[i] == (float)(size * (size + 1) / 2 * (i % 251)));
        }
    }
    assert_ok(kd_allreduce_i64(comm, owners, params.n_slab, KD_SUM));
    for (int64_t i = 0; i < params.n_slab; i++)
        if (trainable(i))
            assert_int_equal(owners[i], 1);
}

/* Each owner writes its places; then they are everywhere, and nothing else is. */
static void check_gather(struct kd_gradsync *s)
{
    static float slab[N_SLAB];
    int64_t n;
    const struct kd_part *owned = kd_gradsync_owned(s, &n);

    for (int64_t i = 0; i < N_SLAB; i++)
        slab[i] = -1.0f;
    for (int64_t k = 0; k < n; k++)
        for (int64_t i = owned[k].first; i < owned[k].first + owned[k].count; i++)
            slab[i] = (float)i;
    assert_ok(kd_gradsync_gather(s, slab));
    for (int64_t i = 0; i < params.n_slab; i++) {
        if (trainable(i))
            assert_true(slab[i] == (float)i);
        else
            assert_true(slab[i] == (float)i || slab[i] == -1.0f);
    }
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

/* Report every parameter; false: a report failed, which ends the reports. */
static bool report(struct kd_gradsync *s, enum order order)
{
    if (order == ONLY_ROOT && kd_comm_rank(comm) != 0)
        return true;
    for (int k = 0; k < PARAMS; k++) {
        const struct kd_param *p = &items[order == FORWARD ? k : PARAMS - 1 - k];
        int64_t half = order == SPLIT ? p->count / 2 : 0;

        if (p->frozen)
            continue;
        if (half && kd_gradsync_ready(s, p->offset, half))
            return false;
        if (kd_gradsync_ready(s, p->offset + half, p->count - half))
            return false;
    }
    return true;
}

static const int64_t bucket_bytes[] = {4, 400, 1600, 6000, 1 << 20};

enum { N_BUCKET_SIZES = sizeof bucket_bytes / sizeof *bucket_bytes };

static void every_value_is_summed_once(void **state)
{
    (void)state;
    lay_out();
    for (int k = 0; k < N_BUCKET_SIZES; k++) {
        struct kd_gradsync *s = NULL;
        int64_t n;

        assert_ok(kd_gradsync_new(comm, &params, bucket_bytes[k], false, &s));
        assert_null(kd_gradsync_owned(s, &n));
        for (int order = BACKWARD; order <= ONLY_ROOT; order++) {
            fill();
            assert_true(report(s, order));
            assert_ok(kd_gradsync_finish(s));
            check();
        }
        kd_gradsync_free(s);
    }
}

static void every_value_has_one_owner(void **state)
{
    (void)state;
    lay_out();
    for (int k = 0; k < N_BUCKET_SIZES; k++) {
        struct kd_gradsync *s = NULL;
        int64_t n;

        assert_ok(kd_gradsync_new(comm, &params, bucket_bytes[k], true, &s));
        assert_true((kd_gradsync_owned(s, &n) != NULL) == (kd_comm_size(comm) > 1));
        for (int order = BACKWARD; order <= ONLY_ROOT; order++) {
            fill();
            assert_true(report(s, order));
            assert_ok(kd_gradsync_finish(s));
            if (kd_comm_size(comm) == 1)
                continue;
            check_owned(s);
            check_gather(s);
        }
        kd_gradsync_free(s);
    }
}

/* Rank FAILING cannot download bucket NTH (from 1). */
static void one_failure(struct kd_gradsync *s, enum order order, int failing, int nth)
{
    int64_t n;

    fill();
    n_downloads = kd_comm_rank(comm) == failing ? nth : 0;
    (void)report(s, order);
    assert_int_equal(kd_gradsync_finish(s), KD_ENOMEM);
    assert_int_equal(kd_comm_failed_rank(comm), failing);
    kd_error_clear();
    n_downloads = 0;
    fill();
    assert_true(report(s, order));
    assert_ok(kd_gradsync_finish(s));
    if (kd_gradsync_owned(s, &n))
        check_owned(s);
    else
        check();
}

static void a_failed_start_ends_all_ranks(void **state)
{
    int size = kd_comm_size(comm);
    struct kd_gradsync *s = NULL;

    (void)state;
    if (size == 1)
        return; /* nothing is summed */
    lay_out();
    backend.device = KD_CUDA;
    for (int sharded = 0; sharded < 2; sharded++) {
        assert_ok(kd_gradsync_new(comm, &params, 1000, sharded, &s));
        for (int order = BACKWARD; order <= ONLY_ROOT; order++)
            for (int failing = 0; failing < size; failing++)
                for (int nth = 1; nth <= 5; nth++)
                    one_failure(s, order, failing, nth);
        kd_gradsync_free(s);
    }
    backend.device = KD_CPU;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_value_is_summed_once),
        cmocka_unit_test(every_value_has_one_owner),
        cmocka_unit_test(a_failed_start_ends_all_ranks),
    };
    int failed;

    comm = mpi_test_start();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    kd_comm_stop(comm);
    return failed;
}
