/* SPDX-License-Identifier: Apache-2.0 */
/* The control and data planes on 1 to 4 ranks: votes, scans, gathers beyond one piece,
 * and sums whose bits must be those of an addition in rank order. */
#include "mpi_test.h"

#include <stdint.h>

static struct kd_comm *comm;

static void agree_is_ok_when_all_are(void **state)
{
    (void)state;
    assert_int_equal(kd_agree(comm, KD_OK), KD_OK);
}

static void agree_gives_every_rank_the_failed_ones_record(void **state)
{
    char want[64];

    (void)state;
    for (int bad = 0; bad < kd_comm_size(comm); bad++) {
        int rc = KD_OK;

        if (kd_comm_rank(comm) == bad)
            rc = KD_FAIL(KD_EINPUT, "rank %d found it", bad);
        assert_int_equal(kd_agree(comm, rc), KD_EINPUT);
        assert_int_equal(kd_comm_failed_rank(comm), bad);
        snprintf(want, sizeof want, "rank %d found it", bad);
        assert_string_equal(kd_error_get()->text, want);
        assert_int_equal(kd_error_get()->code, KD_EINPUT);
        assert_int_equal(kd_agree(comm, KD_EINPUT), KD_EINPUT); /* on the way out */
        assert_int_equal(kd_comm_failed_rank(comm), bad);
        assert_string_equal(kd_error_get()->text, want);
        kd_error_clear();
    }
}

static void agree_takes_the_lowest_of_several(void **state)
{
    int rank = kd_comm_rank(comm), last = kd_comm_size(comm) - 1;
    int lowest = last > 0 ? 1 : 0;

    (void)state;
    assert_int_equal(
        kd_agree(comm, rank >= lowest ? KD_FAIL(40 + rank, "r%d", rank) : KD_OK),
        40 + lowest);
    assert_int_equal(kd_comm_failed_rank(comm), lowest);
    kd_error_clear();
}

static int fail_on_root(void *arg)
{
    (*(int *)arg)++;
    return KD_FAIL(KD_EOUTPUT, "root work");
}

static void root_work_fails_alike(void **state)
{
    int calls = 0;

    (void)state;
    assert_int_equal(kd_root_do(comm, fail_on_root, &calls), KD_EOUTPUT);
    assert_int_equal(calls, kd_comm_rank(comm) == 0);
    assert_string_equal(kd_error_get()->text, "root work");
    kd_error_clear();
}

static void exscan_counts_the_lower_ranks(void **state)
{
    int64_t r = kd_comm_rank(comm), p = kd_comm_size(comm), first, total;

    (void)state;
    assert_ok(kd_exscan_i64(comm, r + 1, &first, &total));
    assert_int_equal(first, r * (r + 1) / 2);
    assert_int_equal(total, p * (p + 1) / 2);
}

/* Values whose sum depends on the order of addition. */
static double spread(int rank, int64_t i)
{
    static const double kinds[4] = {1.0, 1e16, -1e16, 3.14159};

    return kinds[(rank + i) % 4] * (1.0 + (double)(i % 7) / 7.0);
}

static void f64_sums_are_in_rank_order(void **state)
{
    enum { N = 3001 };
    static double v[N];

    (void)state;
    for (int64_t i = 0; i < N; i++)
        v[i] = spread(kd_comm_rank(comm), i);
    assert_ok(kd_allreduce_f64(comm, v, N, KD_SUM));
    for (int64_t i = 0; i < N; i++) {
        double want = spread(0, i);

        for (int r = 1; r < kd_comm_size(comm); r++)
            want += spread(r, i);
        assert_memory_equal(&v[i], &want, sizeof want);
    }
}

static void extremes_and_integers(void **state)
{
    int r = kd_comm_rank(comm), p = kd_comm_size(comm);
    double hi[2] = {r, -r}, lo[2] = {r, -r};
    int64_t n[2] = {INT64_C(1) << 40, r}, m[2] = {r, -r};

    (void)state;
    assert_ok(kd_allreduce_f64(comm, hi, 2, KD_MAX));
    assert_ok(kd_allreduce_f64(comm, lo, 2, KD_MIN));
    assert_ok(kd_allreduce_i64(comm, n, 2, KD_SUM));
    assert_ok(kd_allreduce_i64(comm, m, 2, KD_MIN));
    assert_true(hi[0] == p - 1 && hi[1] == 0);
    assert_true(lo[0] == 0 && lo[1] == -(p - 1));
    assert_int_equal(n[0], p * (INT64_C(1) << 40));
    assert_int_equal(n[1], p * (p - 1) / 2);
    assert_int_equal(m[0], 0);
    assert_int_equal(m[1], -(p - 1));
}

static unsigned char byte_of(int rank, int64_t i)
{
    return (unsigned char)(i * 31 + (i >> 16) + rank * 7);
}

static void bcast_is_longer_than_a_piece(void **state)
{
    int64_t n = (INT64_C(1) << 26) + 12345;
    unsigned char *b = malloc((size_t)n);
    int root = kd_comm_size(comm) - 1;

    (void)state;
    assert_non_null(b);
    for (int64_t i = 0; i < n; i++)
        b[i] = kd_comm_rank(comm) == root ? byte_of(9, i) : 0;
    assert_ok(kd_bcast(comm, b, n, root));
    for (int64_t i = 0; i < n; i += 4097)
        assert_int_equal(b[i], byte_of(9, i));
    assert_int_equal(b[n - 1], byte_of(9, n - 1));
    free(b);
}

/* Gather SCALE * (rank + 1) bytes, none from rank 1. */
static void gather_and_check(int64_t scale)
{
    int rank = kd_comm_rank(comm), size = kd_comm_size(comm);
    int64_t n = rank == 1 ? 0 : scale * (rank + 1), at = 0;
    unsigned char *mine = malloc((size_t)n + 1), *all;
    int64_t sizes[8];
    void *out = NULL;

    assert_non_null(mine);
    for (int64_t i = 0; i < n; i++)
        mine[i] = byte_of(rank, i);
    assert_ok(kd_allgather_bytes(comm, mine, n, &out, sizes));
    all = out;
    for (int r = 0; r < size; r++) {
        assert_int_equal(sizes[r], r == 1 ? 0 : scale * (r + 1));
        for (int64_t i = 0; i<sizes[r]; i += scale> 1000 ? 997 : 1)
            assert_int_equal(all[at + i], byte_of(r, i));
        at += sizes[r];
    }
    free(out);
    free(mine);
}

static void allgather_keeps_rank_order(void **state)
{
    (void)state;
    gather_and_check(11);
    gather_and_check(0);
}

static void allgather_is_longer_than_a_piece(void **state)
{
    (void)state;
    gather_and_check(70000000 / kd_comm_size(comm));
}

/* ---- tensors ---- */

static int no_wait(struct kd_backend *be)
{
    (void)be;
    return KD_OK;
}

static int copy_bytes(struct kd_backend *be, void *dst, const void *src, size_t n)
{
    (void)be;
    memcpy(dst, src, n);
    return KD_OK;
}

static const struct kd_backend_ops ops = {
    .sync = no_wait, .upload = copy_bytes, .download = copy_bytes};

static float grad(int rank, int64_t i)
{
    return (float)(1 + rank * 3) / (float)(1 + i % 1013) * (i % 3 ? 1.0f : -1e4f);
}

static void check_sum(const float *x, int64_t n, bool in_rank_order)
{
    for (int64_t i = 0; i < n; i++) {
        float want = grad(0, i);

        for (int r = 1; r < kd_comm_size(comm); r++)
            want += grad(r, i);
        if (in_rank_order)
            assert_memory_equal(&x[i], &want, sizeof want);
        else
            assert_true(x[i] - want <= 1e-5f * (want < 0 ? -want : want) &&
                        want - x[i] <= 1e-5f * (want < 0 ? -want : want));
    }
}

/* Sums of the sizes around a chunk, and the same bits on all ranks. */
static void sum_sizes(struct kd_backend *be)
{
    static const int64_t sizes[] = {1, 15, 17, 65535, 65536, 65537, 200003};
    bool in_order = !getenv("KD_NODE_STAGE");

    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        int64_t n = sizes[k], bytes = n * 4;
        float *x = malloc((size_t)bytes), *first = malloc((size_t)bytes);

        assert_true(x && first);
        for (int64_t i = 0; i < n; i++)
            x[i] = grad(kd_comm_rank(comm), i);
        assert_ok(kd_allreduce_tensor(comm, be, kd_tensor1(x, KD_F32, n)));
        check_sum(x, n, in_order);
        memcpy(first, x, (size_t)bytes);
        assert_ok(kd_bcast(comm, first, bytes, 0));
        assert_memory_equal(first, x, (size_t)bytes);
        free(x);
        free(first);
    }
}

static void host_tensors_sum(void **state)
{
    struct kd_backend be = {.ops = &ops, .device = KD_CPU};

    (void)state;
    sum_sizes(&be);
}

static void device_tensors_are_staged(void **state)
{
    struct kd_backend be = {.ops = &ops, .device = KD_CUDA};
    float t[5] = {0};

    (void)state;
    sum_sizes(&be);
    for (int i = 0; i < 5; i++)
        t[i] = (float)(kd_comm_rank(comm) * 100 + i);
    assert_ok(kd_bcast_tensor(comm, &be, kd_tensor1(t, KD_F32, 5)));
    for (int i = 0; i < 5; i++)
        assert_true(t[i] == (float)i);
}

static void several_sums_are_under_way(void **state)
{
    enum { BUCKETS = 5, N = 70001 };
    struct kd_backend be = {.ops = &ops, .device = KD_CPU};
    struct kd_transfer *sums[BUCKETS];
    float *x = malloc(sizeof *x * BUCKETS * N);

    (void)state;
    assert_non_null(x);
    for (int b = 0; b < BUCKETS; b++) {
        for (int64_t i = 0; i < N; i++)
            x[b * N + i] = grad(kd_comm_rank(comm), i);
        assert_ok(
            kd_allreduce_start(comm, &be, kd_tensor1(x + b * N, KD_F32, N), &sums[b]));
    }
    for (int b = 0; b < BUCKETS; b++)
        assert_ok(kd_transfer_finish(comm, sums[b]));
    for (int b = 0; b < BUCKETS; b++)
        check_sum(x + b * N, N, !getenv("KD_NODE_STAGE"));
    free(x);
}

static void parts_cover_in_order(void **state)
{
    static const int64_t counts[] = {
        0, 1, 63, 64, 65, 200, 4096, 100003, INT64_C(1) << 40};

    (void)state;
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++)
        for (int size = 1; size <= 9; size++) {
            int64_t at = 0, each = kd_comm_part(counts[k], size, 0).count;

            for (int r = 0; r < size; r++) {
                struct kd_part part = kd_comm_part(counts[k], size, r);

                assert_int_equal(part.first, at);
                assert_int_equal(part.first % 64, 0);
                assert_true(r == size - 1 ? part.count - each < INT64_C(64) * size
                                          : part.count == each);
                at += part.count;
            }
            assert_int_equal(at, counts[k]);
        }
}

/* The part of a reduce-scatter has the bits of the all-reduce, then all ranks get it.
 */
static void scatter_and_gather(struct kd_backend *be, int64_t n)
{
    struct kd_part part = kd_comm_part(n, kd_comm_size(comm), kd_comm_rank(comm));
    size_t bytes = (size_t)n * sizeof(float);
    float *x = malloc(bytes), *whole = malloc(bytes);

    assert_true(x && whole);
    for (int64_t i = 0; i < n; i++)
        x[i] = whole[i] = grad(kd_comm_rank(comm), i);
    assert_ok(kd_allreduce_tensor(comm, be, kd_tensor1(whole, KD_F32, n)));
    assert_ok(kd_reduce_scatter_tensor(comm, be, kd_tensor1(x, KD_F32, n)));
    assert_memory_equal(x + part.first, whole + part.first,
                        (size_t)part.count * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        if (i < part.first || i >= part.first + part.count)
            x[i] = -1;
    assert_ok(kd_allgather_tensor(comm, be, kd_tensor1(x, KD_F32, n)));
    assert_memory_equal(x, whole, bytes);
    free(x);
    free(whole);
}

/* Values of any size, more than a chunk of the shared memory. */
static void gather_type(struct kd_backend *be, enum kd_dtype type, int64_t n)
{
    struct kd_tensor t = kd_tensor1(NULL, type, n);
    int64_t value = (int64_t)kd_dtype_bytes(type);
    unsigned char *b = malloc((size_t)(n * value));

    assert_non_null(b);
    t.data = b;
    for (int64_t i = 0; i < n * value; i++)
        b[i] = byte_of(kd_comm_rank(comm), i);
    assert_ok(kd_allgather_tensor(comm, be, t));
    for (int r = 0; r < kd_comm_size(comm); r++) {
        struct kd_part part = kd_comm_part(n, kd_comm_size(comm), r);

        for (int64_t i = part.first * value; i < (part.first + part.count) * value; i++)
            assert_int_equal(b[i], byte_of(r, i));
    }
    free(b);
}

static void parts_are_summed_and_gathered(void **state)
{
    static const enum kd_device devices[] = {KD_CPU, KD_CUDA};

    (void)state;
    for (int d = 0; d < 2; d++) {
        struct kd_backend be = {.ops = &ops, .device = devices[d]};

        scatter_and_gather(&be, 1);
        scatter_and_gather(&be, 127);
        scatter_and_gather(&be, 65536);
        scatter_and_gather(&be, 400009);
        gather_type(&be, KD_U8, 300007);
        gather_type(&be, KD_BF16, 65);
        gather_type(&be, KD_I64, 200001);
    }
}

/* Gathers and sums share the memory between the ranks, in turn. */
static void kinds_alternate(void **state)
{
    enum { N = 150001 };
    struct kd_backend be = {.ops = &ops, .device = KD_CPU};
    struct kd_transfer *sum, *gather;
    float *x = malloc(N * sizeof *x);
    int32_t *y = malloc(N * sizeof *y);

    (void)state;
    assert_true(x && y);
    for (int round = 0; round < 5; round++) {
        for (int64_t i = 0; i < N; i++) {
            x[i] = grad(kd_comm_rank(comm), i);
            y[i] = kd_comm_rank(comm) * 1000 + round;
        }
        assert_ok(kd_allgather_start(comm, &be, kd_tensor1(y, KD_I32, N), &gather));
        assert_ok(kd_allreduce_start(comm, &be, kd_tensor1(x, KD_F32, N), &sum));
        assert_ok(kd_transfer_finish(comm, gather));
        assert_ok(kd_transfer_finish(comm, sum));
        check_sum(x, N, !getenv("KD_NODE_STAGE"));
        for (int r = 0; r < kd_comm_size(comm); r++) {
            struct kd_part part = kd_comm_part(N, kd_comm_size(comm), r);

            for (int64_t i = part.first; i < part.first + part.count; i++)
                assert_int_equal(y[i], r * 1000 + round);
        }
    }
    free(x);
    free(y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agree_is_ok_when_all_are),
        cmocka_unit_test(agree_gives_every_rank_the_failed_ones_record),
        cmocka_unit_test(agree_takes_the_lowest_of_several),
        cmocka_unit_test(root_work_fails_alike),
        cmocka_unit_test(exscan_counts_the_lower_ranks),
        cmocka_unit_test(f64_sums_are_in_rank_order),
        cmocka_unit_test(extremes_and_integers),
        cmocka_unit_test(bcast_is_longer_than_a_piece),
        cmocka_unit_test(allgather_keeps_rank_order),
        cmocka_unit_test(allgather_is_longer_than_a_piece),
        cmocka_unit_test(host_tensors_sum),
        cmocka_unit_test(device_tensors_are_staged),
        cmocka_unit_test(several_sums_are_under_way),
        cmocka_unit_test(parts_cover_in_order),
        cmocka_unit_test(parts_are_summed_and_gathered),
        cmocka_unit_test(kinds_alternate),
    };
    int failed;

    comm = mpi_test_start();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    kd_comm_stop(comm);
    return failed;
}
