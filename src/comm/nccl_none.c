/* SPDX-License-Identifier: Apache-2.0 */
/* The nccl plane of a build without CUDA or without NCCL's header: it says that it is
 * missing, so it is never chosen, and staging memory is plain memory. */
#include "kdhpc/base/mem.h"

#include "nccl_plane.h"

#include <stdlib.h>

const char *kd_comm_nccl_library(void)
{
    return "not built";
}

const char *kd_nccl_missing(void)
{
    return "this program was built without NCCL";
}

static int missing(void)
{
    return KD_FAIL(KD_EINTERNAL, "%s", kd_nccl_missing());
}

int kd_gpu_address(char address[KD_GPU_ADDRESS])
{
    address[0] = '\0';
    return missing();
}

int kd_pinned_alloc(size_t bytes, void **out)
{
    return kd_calloc((int64_t)bytes, 1, out);
}

void kd_pinned_free(void *p)
{
    free(p);
}

void kd_nccl_settle(struct kd_comm *comm)
{
    (void)comm;
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
