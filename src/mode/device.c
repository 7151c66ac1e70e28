/* SPDX-License-Identifier: Apache-2.0 */
/* The choice of a backend.
 *
 * --device auto takes GPUs where every rank has one to use and the mode runs a model;
 * modes that only handle files stay on the CPU.  The number of ranks a node should be
 * that of its GPUs: rank r of a node takes GPU r modulo their number, and more ranks
 * than GPUs are told once that they share.  All ranks compute in one type, so what one
 * machine lacks decides for all.  Called by program.c before the mode. */
#include "device.h"

#include "kdhpc/base/log.h"

enum { AUTO, CPU, CUDA };              /* --device */
enum { AUTO_TYPE, FLOAT32, BFLOAT16 }; /* --dtype */

static bool takes_gpu(const struct kd_common *common, const struct kd_mode *mode,
                      int64_t n_devices)
{
    return common->device == CUDA ||
           (common->device == AUTO && mode->computes && n_devices > 0);
}

static int check(const struct kd_common *common, const struct kd_mode *mode,
                 int64_t n_devices)
{
    if (common->device == CUDA && n_devices == 0)
        return KD_FAIL(KD_EUSAGE,
                       "option --device: there is no CUDA device to use here (%s); "
                       "allowed here: auto, cpu",
                       kd_backend_cuda_library());
    if (common->dtype == BFLOAT16 && !takes_gpu(common, mode, n_devices))
        return KD_FAIL(KD_EUSAGE, "option --dtype: computing on CPUs is in float32; "
                                  "allowed here: auto, float32");
    return KD_OK;
}

int kd_device_check(const struct kd_common *common, const struct kd_mode *mode)
{
    bool asks = common->device == CUDA ||
                (common->device == AUTO && mode->computes && common->dtype == BFLOAT16);

    return check(common, mode, asks ? kd_cuda_devices() : 0);
}

static int open_backend(const struct kd_run *run, bool gpu, int threads,
                        struct kd_backend **out)
{
    int rank = kd_comm_node_rank(run->comm);

    KD_TRY(KD_FAULT("program.backend"));
    if (!gpu)
        return kd_backend_cpu(threads, out);
    KD_TRY(kd_backend_cuda(rank % kd_cuda_devices(), out));
    kd_backend_cuda_tf32(*out, run->common->tf32);
    (*out)->n_threads = threads;
    return KD_OK;
}

/* Ranks of the fullest node above its number of GPUs. */
static int warn_of_sharing(struct kd_comm *comm, int64_t n_devices)
{
    int64_t v[2] = {kd_comm_node_size(comm) > n_devices, kd_comm_node_size(comm)};

    KD_TRY(kd_allreduce_i64(comm, v, 2, KD_MAX));
    if (v[0])
        kd_warn("ranks of a node share its GPUs (up to %lld ranks a node, from %lld "
                "GPU%s): as many ranks as GPUs are faster",
                (long long)v[1], (long long)n_devices, n_devices == 1 ? "" : "s");
    return KD_OK;
}

int kd_device_open(struct kd_run *run, const struct kd_mode *mode, int threads)
{
    const struct kd_common *common = run->common;
    int64_t n_devices =
        common->device == CPU || (common->device == AUTO && !mode->computes)
            ? 0
            : kd_cuda_devices();
    bool gpu;

    KD_TRY(kd_allreduce_i64(run->comm, &n_devices, 1, KD_MIN));
    KD_ALL(run->comm, check(common, mode, n_devices));
    gpu = takes_gpu(common, mode, n_devices);
    run->dtype = gpu && common->dtype != FLOAT32 ? KD_BF16 : KD_F32;
    KD_ALL(run->comm, open_backend(run, gpu, threads, &run->be));
    if (gpu)
        KD_TRY(warn_of_sharing(run->comm, n_devices));
    return kd_comm_use_backend(run->comm, run->be);
}

int kd_device_text(const struct kd_run *run, struct kd_str *out)
{
    const char *library = run->be->device == KD_CPU ? kd_backend_cpu_library()
                                                    : kd_backend_cuda_library();

    return kd_str_printf(out, "%s, %s, %s", run->be->ops->name,
                         kd_dtype_name(run->dtype), library);
}
