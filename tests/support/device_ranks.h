/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks with a CUDA backend each, emulated or real, and a buffer on it: tensors of
 * gradients whose sums show the order of addition.  For one test program at a time. */
#ifndef KDHPC_TESTS_DEVICE_RANKS_H
#define KDHPC_TESTS_DEVICE_RANKS_H

#include "mpi_test.h"

#include <math.h>

enum { MOST = 100003 }; /* values of up to 8 bytes that the buffer holds */

static struct kd_comm *comm;
static struct kd_backend *be;
static char *device;        /* on the device */
static char host[MOST * 8]; /* what is uploaded, and what came back */

static inline void ok(int rc)
{
    if (rc)
        fprintf(stderr, "rank %d: %s\n", kd_comm_rank(comm), kd_error_get()->text);
    assert_int_equal(rc, KD_OK);
}

static inline void use(int index)
{
    void *p = NULL;

    ok(kd_backend_cuda(index % kd_cuda_devices(), &be));
    ok(be->ops->alloc(be, sizeof host, &p));
    device = p;
}

static inline void unuse(void)
{
    kd_comm_drop_backend(comm);
    be->ops->free(be, device);
    kd_backend_free(be);
    be = NULL;
}

/** A device for each rank, as long as there are enough. */
static inline void connect_ranks(void)
{
    use(kd_comm_node_rank(comm));
    ok(kd_comm_use_backend(comm, be));
}

static inline float grad(int rank, int64_t i)
{
    return (float)(1 + rank * 3) / (float)(1 + i % 1013) * (i % 3 ? 1.0f : -1e4f);
}

static inline float sum_of_grads(int64_t i)
{
    float sum = grad(0, i);

    for (int r = 1; r < kd_comm_size(comm); r++)
        sum += grad(r, i);
    return sum;
}

static inline struct kd_tensor upload_grads(int64_t n)
{
    float *x = (float *)(void *)host;

    for (int64_t i = 0; i < n; i++)
        x[i] = grad(kd_comm_rank(comm), i);
    ok(be->ops->upload(be, device, host, (size_t)n * sizeof *x));
    return kd_tensor1(device, KD_F32, n);
}

static inline const float *download(const void *from, int64_t n)
{
    ok(be->ops->download(be, host, from, (size_t)n * sizeof(float)));
    return (const float *)(const void *)host;
}

/** The values of PART are sums, to the bit if IN_ORDER. */
static inline void expect_sums(const float *x, struct kd_part part, bool in_order)
{
    for (int64_t i = part.first; i < part.first + part.count; i++) {
        float want = sum_of_grads(i);

        if (in_order)
            assert_memory_equal(&x[i], &want, sizeof want);
        assert_true(fabsf(x[i] - want) <= 1e-5f * fabsf(want));
    }
}

static inline void expect_all_sums(int64_t n, bool in_order)
{
    ok(kd_allreduce_tensor(comm, be, upload_grads(n)));
    expect_sums(download(device, n), (struct kd_part){0, n}, in_order);
}

#endif
