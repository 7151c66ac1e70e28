/* SPDX-License-Identifier: Apache-2.0 */
/* The nccl plane of a build without CUDA: it says that it is missing, and so nothing
 * else of it is ever called with a GPU. */
#include "nccl_plane.h"

const char *kd_comm_nccl_library(void)
{
    return "not built";
}

const char *kd_nccl_missing(void)
{
    return "this program was built without CUDA";
}

static int missing(void)
{
    return KD_FAIL(KD_EINTERNAL, "there is no GPU: %s", kd_nccl_missing());
}

int kd_gpu_address(char address[KD_GPU_ADDRESS])
{
    address[0] = '\0';
    return missing();
}

int kd_pinned_alloc(size_t bytes, void **out)
{
    (void)bytes;
    *out = NULL;
    return missing();
}

void kd_pinned_free(void *p)
{
    (void)p;
}

int kd_nccl_open(struct kd_comm *comm, struct kd_backend *be)
{
    (void)comm;
    (void)be;
    return missing();
}

void kd_nccl_close(struct kd_comm *comm)
{
    (void)comm;
}

static int start(struct kd_comm *comm, const struct kd_transfer *what,
                 struct kd_transfer **out)
{
    (void)comm;
    (void)what;
    *out = NULL;
    return missing();
}

static int finish(struct kd_comm *comm, struct kd_transfer *x)
{
    (void)comm;
    (void)x;
    return missing();
}

static int wait_for(struct kd_comm *comm, struct kd_backend *be)
{
    (void)comm;
    (void)be;
    return missing();
}

const struct kd_plane kd_plane_nccl = {
    .name = "nccl", .start = start, .finish = finish, .wait = wait_for};
