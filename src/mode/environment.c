/* SPDX-License-Identifier: Apache-2.0 */
/* Versions of the parts that decide what a run computes and how fast: for --version,
 * and as comments in run.yaml, so that a result can be traced to what made it.  BLAS
 * comes with the kernels that it chose on this machine and the instructions that this
 * program's own kernels use; both may differ between the nodes of a cluster, and what
 * is written is what rank 0 runs on. */
#include "environment.h"

#include "kdhpc/base/version.h"
#include "kdhpc/store/h5.h"

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

static int parts(const char *prefix, struct kd_str *out)
{
    const struct {
        const char *part, *version;
    } all[] = {
        {"MPI:     ", kd_comm_library()},         {"HDF5:    ", kd_h5_library()},
        {"BLAS:    ", kd_backend_cpu_library()},  {"compiler:", COMPILER},
        {"CUDA:    ", kd_backend_cuda_library()}, {"NCCL:    ", kd_comm_nccl_library()},
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        KD_TRY(kd_str_printf(out, "%s%s %s\n", prefix, all[i].part, all[i].version));
    return KD_OK;
}

int kd_environment_versions(struct kd_str *out)
{
    KD_TRY(kd_str_printf(out, "kdhpc " KDHPC_VERSION "\n"));
    return parts("", out);
}

int kd_environment_comments(const struct kd_run *run, struct kd_str *out)
{
    KD_TRY(parts("# ", out));
    return kd_str_printf(out,
                         "# ranks:    %d, %d of them on the first node\n# threads:"
                         "  %d a rank\n# device:   %s, %s\n",
                         kd_comm_size(run->comm), kd_comm_node_size(run->comm),
                         run->be->n_threads, run->be->ops->name,
                         kd_dtype_name(run->dtype));
}
