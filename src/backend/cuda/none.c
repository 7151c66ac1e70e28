/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA backend of a build without CUDA: there are no devices, and asking for one is
 * an error that says what to do. */
#include "kdhpc/tensor/backend.h"

int kd_cuda_devices(void)
{
    return 0;
}

int kd_backend_cuda(int index, struct kd_backend **out)
{
    *out = NULL;
    return KD_FAIL(KD_EINPUT,
                   "GPU %d cannot be used: this program was built without CUDA (build "
                   "with -DKDHPC_CUDA=ON, or use device = cpu)",
                   index);
}

void kd_backend_cuda_tf32(struct kd_backend *be, bool on)
{
    (void)be;
    (void)on;
}

const char *kd_backend_cuda_library(void)
{
    return "no CUDA";
}
