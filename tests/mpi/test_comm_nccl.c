/* SPDX-License-Identifier: Apache-2.0 */
/* The choice of the plane, and failures between GPUs, on 1 to 4 ranks with an emulated
 * device each: a failure on one rank leads all ranks out together, after which a new
 * plane works.
 *
 * With an argument it is a run that cannot go on, for comm_nccl_failures.sh: "refused"
 * (a call fails on the last rank), "error" (an asynchronous error there), "device" (its
 * device fails), "absent" (it lives but does not come). */
#include "kdhpc/comm/watchdog.h"

#include "device_ranks.h"

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
    connect_ranks();
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
    connect_ranks();
    expect_all_sums(MOST, true);
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
    connect_ranks();
    expect_all_sums(MOST, true);
}

/* A vote fails while all is well with the transfers: they end, and the plane lives. */
static void another_failure_leaves_the_plane_alone(void **state)
{
    struct kd_transfer *x;
    int rc = KD_OK;

    (void)state;
    ok(kd_allreduce_start(comm, be, upload_grads(MOST), &x));
    ok(kd_transfer_finish(comm, x));
    if (kd_comm_rank(comm) == 0)
        rc = KD_FAIL(KD_EINPUT, "something else");
    assert_int_equal(kd_agree(comm, rc), KD_EINPUT);
    kd_error_clear();
    expect_all_sums(MOST, true);
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
            expect_all_sums(300, true);
        }
        unuse();
    }
    setenv("KD_PLANE", "nccl", 1);
    connect_ranks();
    expect_all_sums(MOST, true);
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

    inject(strcmp(what, "error") == 0    ? "async"
           : strcmp(what, "device") == 0 ? "device"
                                         : "call",
           last, strcmp(what, "absent") == 0 ? -1 : 2);
    connect_ranks();
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
        connect_ranks();
        failed = cmocka_run_group_tests(tests, NULL, NULL);
        unuse();
    }
    kd_comm_stop(comm);
    return failed;
}
