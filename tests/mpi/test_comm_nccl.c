/* SPDX-License-Identifier: Apache-2.0 */
/* The plane between GPUs on 1 to 4 ranks, each with a device of its own: sums and parts
 * have the bits of an addition in rank order, gathers and broadcasts carry any type,
 * later work of the compute stream sees them without a wait of the host, and a failure
 * on one rank leads all ranks out together, after which a new plane works.
 *
 * With an argument it is a run that cannot go on, for comm_nccl_failures.sh:
 * "refused" (a call fails on one rank), "error" (an asynchronous error there), "absent"
 * (the last rank lives but does not come). */
#include "kdhpc/comm/watchdog.h"

#include "mpi_test.h"

enum { MOST = 100003 };

static struct kd_comm *comm;
static struct kd_backend *be;
static char *device;        /* [MOST * 8 + 64] */
static char host[MOST * 8]; /* what is uploaded, and what came back */

static void ok(int rc)
{
    if (rc)
        fprintf(stderr, "rank %d: %s\n", kd_comm_rank(comm), kd_error_get()->text);
    assert_int_equal(rc, KD_OK);
}

static void use(int index)
{
    void *p = NULL;

    ok(kd_backend_cuda(index, &be));
    ok(be->ops->alloc(be, sizeof host, &p));
    device = p;
}

static void unuse(void)
{
    kd_comm_drop_backend(comm);
    be->ops->free(be, device);
    kd_backend_free(be);
    be = NULL;
}

static void connect(void)
{
    use(kd_comm_rank(comm));
    ok(kd_comm_use_backend(comm, be));
}

static float grad(int rank, int64_t i)
{
    return (float)(1 + rank * 3) / (float)(1 + i % 1013) * (i % 3 ? 1.0f : -1e4f);
}

static float sum_of_grads(int64_t i)
{
    float sum = grad(0, i);

    for (int r = 1; r < kd_comm_size(comm); r++)
        sum += grad(r, i);
    return sum;
}

static struct kd_tensor upload_grads(int64_t n)
{
    float *x = (float *)(void *)host;

    for (int64_t i = 0; i < n; i++)
        x[i] = grad(kd_comm_rank(comm), i);
    ok(be->ops->upload(be, device, host, (size_t)n * sizeof *x));
    return kd_tensor1(device, KD_F32, n);
}

static const float *download(const void *from, int64_t n)
{
    ok(be->ops->download(be, host, from, (size_t)n * sizeof(float)));
    return (const float *)(const void *)host;
}

static void expect_sums(const float *x, struct kd_part part)
{
    for (int64_t i = part.first; i < part.first + part.count; i++) {
        float want = sum_of_grads(i);

        assert_memory_equal(&x[i], &want, sizeof want);
    }
}

static const int64_t sizes[] = {1, 63, 64, 257, 16384, 65537, MOST};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

static void sums_are_in_rank_order(void **state)
{
    (void)state;
    assert_string_equal(kd_comm_plane(comm), "nccl");
    for (int k = 0; k < N_SIZES; k++) {
        struct kd_tensor t = upload_grads(sizes[k]);

        ok(kd_allreduce_tensor(comm, be, t));
        expect_sums(download(device, sizes[k]), (struct kd_part){0, sizes[k]});
    }
}

static void parts_of_sums(void **state)
{
    (void)state;
    for (int k = 0; k < N_SIZES; k++) {
        struct kd_tensor t = upload_grads(sizes[k]);
        struct kd_part part =
            kd_comm_part(sizes[k], kd_comm_size(comm), kd_comm_rank(comm));

        ok(kd_reduce_scatter_tensor(comm, be, t));
        expect_sums(download(device, sizes[k]), part);
        ok(kd_allgather_tensor(comm, be, t));
        expect_sums(download(device, sizes[k]), (struct kd_part){0, sizes[k]});
    }
}

static char byte_of(int rank, int64_t i)
{
    return (char)(i * 31 + (i >> 8) + rank * 7);
}

static void gathers_and_broadcasts_of_any_type(void **state)
{
    static const enum kd_dtype types[] = {KD_U8, KD_BF16, KD_F32, KD_I64};
    int rank = kd_comm_rank(comm), size = kd_comm_size(comm);

    (void)state;
    for (int k = 0; k < N_SIZES * 4; k++) {
        struct kd_tensor t = kd_tensor1(device, types[k % 4], sizes[k / 4]);
        int64_t bytes = (int64_t)kd_tensor_bytes(&t);
        int64_t value = (int64_t)kd_dtype_bytes(t.dtype);

        for (int64_t i = 0; i < bytes; i++)
            host[i] = byte_of(rank, i);
        ok(be->ops->upload(be, device, host, (size_t)bytes));
        ok(kd_allgather_tensor(comm, be, t));
        ok(be->ops->download(be, host, device, (size_t)bytes));
        for (int r = 0; r < size; r++) {
            struct kd_part part = kd_comm_part(sizes[k / 4], size, r);

            for (int64_t i = part.first * value; i < (part.first + part.count) * value;
                 i++)
                assert_int_equal(host[i], byte_of(r, i));
        }
        memset(host, rank, (size_t)bytes);
        ok(be->ops->upload(be, device, host, (size_t)bytes));
        ok(kd_bcast_tensor(comm, be, t));
        ok(be->ops->download(be, host, device, (size_t)bytes));
        for (int64_t i = 0; i < bytes; i++)
            assert_int_equal(host[i], 0);
    }
}

/* Several under way, finished later; then a copy on the compute stream, no wait. */
static void the_compute_stream_waits_for_transfers(void **state)
{
    enum { BUCKETS = 4, N = 20011 };
    struct kd_transfer *x[BUCKETS];
    float *mine = (float *)(void *)device;
    void *copy = NULL;

    (void)state;
    ok(be->ops->alloc(be, BUCKETS * N * sizeof *mine, &copy));
    (void)upload_grads(BUCKETS * N);
    for (int b = 0; b < BUCKETS; b++)
        ok(kd_allreduce_start(comm, be, kd_tensor1(mine + b * N, KD_F32, N), &x[b]));
    for (int b = 0; b < BUCKETS; b++)
        ok(kd_transfer_finish(comm, x[b]));
    ok(be->ops->copy(be, copy, device, BUCKETS * N * sizeof *mine));
    ok(kd_agree(comm, kd_transfer_status(comm)));
    ok(kd_comm_wait(comm, be));
    expect_sums(download(copy, BUCKETS * N), (struct kd_part){0, BUCKETS * N});
    be->ops->free(be, copy);
}

static void inject(const char *kind, int rank, int n)
{
    char text[40];

    snprintf(text, sizeof text, "%s:%d:%d", kind, rank, n);
    setenv("KD_NCCL_HOST", text, 1);
}

/* Transfer number NTH of five is refused on rank BAD. */
static void one_refusal(int bad, int nth)
{
    struct kd_transfer *x[5];
    struct kd_tensor t;

    inject("call", bad, nth);
    connect();
    t = upload_grads(5000);
    for (int b = 0; b < 5; b++)
        ok(kd_allreduce_start(comm, be, kd_tensor_rows(t, b * 1000, 1000), &x[b]));
    for (int b = 0; b < 5; b++)
        ok(kd_transfer_finish(comm, x[b]));
    assert_int_equal(kd_transfer_status(comm),
                     kd_comm_rank(comm) == bad ? KD_EINTERNAL : KD_OK);
    assert_int_equal(kd_agree(comm, kd_transfer_status(comm)), KD_EINTERNAL);
    assert_int_equal(kd_comm_failed_rank(comm), bad);
    assert_non_null(strstr(kd_error_get()->text, "starting a transfer"));
    kd_error_clear();
    assert_int_equal(kd_allreduce_tensor(comm, be, t), KD_EINTERNAL); /* aborted */
    kd_error_clear();
    unuse();
}

static void a_refused_call_leads_all_ranks_out(void **state)
{
    (void)state;
    unuse();
    for (int bad = 0; bad < kd_comm_size(comm); bad++)
        one_refusal(bad, bad % 2 ? 4 : 1);
    unsetenv("KD_NCCL_HOST");
    connect();
    sums_are_in_rank_order(state);
}

static void a_failed_connection_fails_on_all_ranks(void **state)
{
    static const char *const kinds[] = {"init", "connect"};

    (void)state;
    unuse();
    for (int bad = 0; bad < kd_comm_size(comm); bad++) {
        inject(kinds[bad % 2], bad, 0);
        use(kd_comm_rank(comm));
        assert_int_equal(kd_comm_use_backend(comm, be), KD_EINTERNAL);
        assert_int_equal(kd_comm_failed_rank(comm), bad);
        kd_error_clear();
        unuse();
    }
    unsetenv("KD_NCCL_HOST");
    connect();
    sums_are_in_rank_order(state);
}

/* A vote fails while all is well with the transfers: they end, and the plane lives. */
static void another_failure_leaves_the_plane_alone(void **state)
{
    struct kd_transfer *x;
    int rc = KD_OK;

    ok(kd_allreduce_start(comm, be, upload_grads(MOST), &x));
    ok(kd_transfer_finish(comm, x));
    if (kd_comm_rank(comm) == 0)
        rc = KD_FAIL(KD_EINPUT, "something else");
    assert_int_equal(kd_agree(comm, rc), KD_EINPUT);
    kd_error_clear();
    sums_are_in_rank_order(state);
}

static void the_plane_is_chosen_by_all_ranks(void **state)
{
    static const struct {
        const char *wish;
        bool share;
        int rc;
        const char *plane; /* with several ranks */
    } cases[] = {{"", false, KD_OK, "nccl"},
                 {"mpi", false, KD_OK, "mpi"},
                 {"", true, KD_OK, "mpi"},
                 {"nccl", true, KD_EINPUT, NULL},
                 {"both", false, KD_EUSAGE, NULL}};
    bool alone = kd_comm_size(comm) == 1;

    (void)state;
    unuse();
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        bool shares = cases[k].share && !alone;

        setenv("KD_PLANE", cases[k].wish, 1);
        use(cases[k].share ? 0 : kd_comm_rank(comm));
        assert_int_equal(kd_comm_use_backend(comm, be),
                         cases[k].share && !shares ? KD_OK : cases[k].rc);
        kd_error_clear();
        if (cases[k].plane && !alone) {
            assert_string_equal(kd_comm_plane(comm), cases[k].plane);
            ok(kd_allreduce_tensor(comm, be, upload_grads(300)));
            expect_sums(download(device, 300), (struct kd_part){0, 300});
        }
        unuse();
    }
    setenv("KD_PLANE", "nccl", 1);
    connect();
    sums_are_in_rank_order(state);
}

/* Without a vote, which would wait for the absent rank, too. */
static void go_on_without_the_last(struct kd_tensor t)
{
    struct kd_transfer *x;

    while (kd_comm_rank(comm) == kd_comm_size(comm) - 1) {
        kd_heartbeat();
        usleep(10000);
    }
    ok(kd_allreduce_start(comm, be, t, &x));
    ok(kd_transfer_finish(comm, x));
    ok(kd_comm_wait(comm, be));
}

/* The run that cannot go on; every rank reports as the program does. */
static int broken_run(const char *what)
{
    int last = kd_comm_size(comm) - 1, rc = KD_OK;
    struct kd_tensor t;

    inject(strcmp(what, "error") == 0 ? "async" : "call", last,
           strcmp(what, "absent") == 0 ? -1 : 2);
    connect();
    t = upload_grads(MOST);
    ok(kd_watchdog_start(0.3));
    for (int i = 0; i < 3 && !rc; i++)
        rc = kd_allreduce_tensor(comm, be, t);
    if (!rc)
        go_on_without_the_last(t);
    if (rc && kd_comm_rank(comm) == 0)
        fprintf(stderr, "kdhpc: error: rank %d: %s\n", kd_comm_failed_rank(comm),
                kd_error_get()->text);
    unuse();
    kd_watchdog_stop();
    return rc;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_in_rank_order),
        cmocka_unit_test(parts_of_sums),
        cmocka_unit_test(gathers_and_broadcasts_of_any_type),
        cmocka_unit_test(the_compute_stream_waits_for_transfers),
        cmocka_unit_test(another_failure_leaves_the_plane_alone),
        cmocka_unit_test(a_refused_call_leads_all_ranks_out),
        cmocka_unit_test(a_failed_connection_fails_on_all_ranks),
        cmocka_unit_test(the_plane_is_chosen_by_all_ranks),
    };
    int failed;

    setenv("KD_HOST_DEVICES", "4", 1);
    setenv("KD_PLANE", "nccl", 1); /* also with one rank */
    comm = mpi_test_start();
    if (argc > 1) {
        failed = broken_run(argv[1]);
    } else {
        connect();
        failed = cmocka_run_group_tests(tests, NULL, NULL);
        unuse();
    }
    kd_comm_stop(comm);
    return failed;
}
