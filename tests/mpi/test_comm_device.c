/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors of a CUDA backend on 1 to 4 ranks: sums and parts, gathers and broadcasts of
 * any type, and the order of streams: what the compute stream does after a finish sees
 * the result without a wait of the host.
 *
 * Emulated devices are one a rank and take the nccl plane, whose stand-in adds in rank
 * order.  Built with ON_GPU it asks the same of the GPUs that are there: with one for
 * each rank over NCCL, also for one rank, with fewer through host memory. */
#include "device_ranks.h"

#ifdef ON_GPU
static const bool real = true;
#else
static const bool real = false;
#endif

/* NCCL may add three ranks or more in another order. */
static bool in_order(void)
{
    return !real || kd_comm_size(comm) < 3;
}

static const int64_t sizes[] = {1, 63, 64, 257, 16384, 65537, MOST};
enum { N_SIZES = sizeof sizes / sizeof *sizes };

static void sums_are_in_rank_order(void **state)
{
    (void)state;
    assert_string_equal(kd_comm_plane(comm),
                        kd_comm_size(comm) > kd_cuda_devices() ? "mpi" : "nccl");
    for (int k = 0; k < N_SIZES; k++)
        expect_all_sums(sizes[k], in_order());
}

static void parts_of_sums(void **state)
{
    (void)state;
    for (int k = 0; k < N_SIZES; k++) {
        struct kd_tensor t = upload_grads(sizes[k]);
        struct kd_part part =
            kd_comm_part(sizes[k], kd_comm_size(comm), kd_comm_rank(comm));

        ok(kd_reduce_scatter_tensor(comm, be, t));
        expect_sums(download(device, sizes[k]), part, in_order());
        ok(kd_allgather_tensor(comm, be, t));
        expect_sums(download(device, sizes[k]), (struct kd_part){0, sizes[k]},
                    in_order());
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
    expect_sums(download(copy, BUCKETS * N), (struct kd_part){0, BUCKETS * N},
                in_order());
    be->ops->free(be, copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_in_rank_order),
        cmocka_unit_test(parts_of_sums),
        cmocka_unit_test(gathers_and_broadcasts_of_any_type),
        cmocka_unit_test(the_compute_stream_waits_for_transfers),
    };
    int failed;

    setenv("KD_HOST_DEVICES", "4", 1);
    comm = mpi_test_start();
    if (kd_cuda_devices() == 0) {
        kd_comm_stop(comm);
        return 77; /* skipped: no device */
    }
    if (kd_comm_size(comm) == 1)
        setenv("KD_PLANE", "nccl", 1);
    connect_ranks();
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    unuse();
    kd_comm_stop(comm);
    return failed;
}
