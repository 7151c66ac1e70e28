// SPDX-License-Identifier: Apache-2.0
/* The emulator that runs kernels where there is no device: barriers, exchanges between
 * lanes, the three orders, shared memory, and that what is wrong shows. */
#include "act.h"

#include <csetjmp>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include <sys/wait.h>
#include <unistd.h>

extern "C" {
#include <cmocka.h>
}

namespace
{

constexpr int DEVICES = 3, THREADS = 96;

struct device {
    cudaStream_t stream = nullptr;
    int *out = nullptr;
    explicit device(int index)
    {
        assert_int_equal(cudaSetDevice(index), cudaSuccess);
        assert_int_equal(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
                         cudaSuccess);
        assert_int_equal(
            cudaMalloc(reinterpret_cast<void **>(&out), 4096 * sizeof *out),
            cudaSuccess);
    }
    ~device()
    {
        assert_int_equal(cudaFree(out), cudaSuccess);
        assert_int_equal(cudaStreamDestroy(stream), cudaSuccess);
    }
};

/* OUT[i] = what thread n - 1 - i wrote; without the barrier some threads read early. */
__global__ void reverse(int *out, bool barrier)
{
    __shared__ int line[THREADS];
    const int i = (int)threadIdx.x;

    line[i] = -1;
    __syncthreads();
    line[i] = i;
    if (barrier)
        __syncthreads();
    out[i] = line[THREADS - 1 - i];
}

/* OUT[1 + i] = OUT[0] + i */
__global__ void count_from(int *out)
{
    out[1 + threadIdx.x] = out[0] + (int)threadIdx.x;
}

int wrong(const int *out)
{
    int n = 0;

    for (int i = 0; i < THREADS; i++)
        n += out[i] != THREADS - 1 - i;
    return n;
}

void barriers(void **)
{
    for (int d = 0; d < DEVICES; d++) {
        device dev(d);

        KD_LAUNCH(reverse, 2, THREADS, 0, dev.stream, dev.out, true);
        assert_int_equal(wrong(dev.out), 0);
        KD_LAUNCH(reverse, 1, THREADS, 0, dev.stream, dev.out, false);
        assert_true(wrong(dev.out) > 0);
        assert_int_equal(cudaGetLastError(), cudaSuccess);
    }
}

/* Thread 0 writes, all read: only an order in which it is not the first shows that the
 * barrier is missing. */
__global__ void broadcast(int *out, bool barrier)
{
    __shared__ int word;

    if (threadIdx.x == 0)
        word = 7 + (int)blockIdx.x;
    if (barrier)
        __syncthreads();
    out[blockIdx.x * blockDim.x + threadIdx.x] = word;
}

void orders_show_races(void **)
{
    int different[2] = {0, 0};

    for (int barrier = 0; barrier < 2; barrier++) {
        int first[3 * THREADS];

        for (int d = 0; d < DEVICES; d++) {
            device dev(d);

            KD_LAUNCH(broadcast, 3, THREADS, 0, dev.stream, dev.out, barrier != 0);
            if (d == 0)
                memcpy(first, dev.out, sizeof first);
            different[barrier] += memcmp(first, dev.out, sizeof first) != 0;
        }
    }
    assert_int_equal(different[0], 2);
    assert_int_equal(different[1], 0);
}

__global__ void lanes(int *out, float *sums, int *failures)
{
    __shared__ float scratch[32];
    const int t = (int)threadIdx.x, lane = t % WARP, warp = t / WARP;
    const unsigned all = 0xffffffffu;
    int bad = 0;

    bad += __shfl_sync(all, t, 5) != warp * WARP + 5;
    bad += __shfl_xor_sync(all, t, 3) != (t ^ 3);
    bad += __shfl_down_sync(all, t, 4u) != (lane + 4 < WARP ? t + 4 : t);
    bad += __shfl_up_sync(all, t, 4u) != (lane >= 4 ? t - 4 : t);
    bad += __shfl_sync(all, t, 1, 8) != t / 8 * 8 + 1;
    bad += __ballot_sync(all, lane % 3 == 0) != 0x49249249u;
    bad += !__any_sync(all, lane == 9) || __all_sync(all, lane != 9);
    if (lane < 16) /* half a warp goes its own way */
        bad += __shfl_xor_sync(0xffffu, (double)t, 1) != (double)(t ^ 1);
    bad += __syncthreads_or(t == 40) == 0;
    bad += __syncthreads_count(t % 2) != THREADS / 2;
    bad += warp_max((float)(t * 7 % 32)) != 31.0f;
    bad += warp_sum((double)lane) != 496.0;
    for (int i = 0; i < 3; i++) /* the same scratch again and again */
        bad += block_sum((float)(t + i), scratch) !=
               (float)(THREADS * (THREADS - 1) / 2 + i * THREADS);
    bad += block_max((float)-t, scratch) != 0.0f;
    if (t == 0)
        sums[blockIdx.x] = block_max((float)t, scratch);
    else
        (void)block_max((float)t, scratch);
    out[t] = bad;
    atomicAdd(failures, bad);
}

void exchanges(void **)
{
    for (int d = 0; d < DEVICES; d++) {
        device dev(d);
        int *failures = dev.out + 1000;
        float *sums = reinterpret_cast<float *>(dev.out + 2000);

        *failures = 0;
        KD_LAUNCH(lanes, 2, THREADS, 0, dev.stream, dev.out, sums, failures);
        assert_int_equal(*failures, 0);
        assert_true(sums[0] == THREADS - 1 && sums[1] == THREADS - 1);
    }
}

__global__ void visit(int *out, int *count)
{
    const unsigned b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);

    out[b] = (*count)++;
}

void every_block_once_in_its_order(void **)
{
    const int n = 2 * 3 * 5;

    for (int d = 0; d < DEVICES; d++) {
        device dev(d);
        int *count = dev.out + 1000, seen[n] = {0}, moved = 0;

        *count = 0;
        KD_LAUNCH(visit, dim3(2, 3, 5), 1, 0, dev.stream, dev.out, count);
        for (int b = 0; b < n; b++) {
            assert_in_range(dev.out[b], 0, n - 1);
            assert_int_equal(seen[dev.out[b]]++, 0);
            moved += dev.out[b] != (d == 1 ? n - 1 - b : b);
        }
        assert_int_equal(moved > 0, d == 2);
    }
}

__global__ void poisoned(int *out)
{
    KD_DYNAMIC_SHARED(float, line);

    if (line[threadIdx.x] == line[threadIdx.x])
        atomicAdd(out, 1);
    line[threadIdx.x] = 1.0f;
}

void shared_memory(void **)
{
    device dev(0);
    const void *kernel = reinterpret_cast<const void *>(poisoned);

    *dev.out = 0;
    KD_LAUNCH(poisoned, 3, 64, 64 * sizeof(float), dev.stream, dev.out);
    assert_int_equal(*dev.out, 0);
    KD_LAUNCH(poisoned, 1, 64, 60000, dev.stream, dev.out);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    assert_int_equal(cudaFuncSetAttribute(
                         kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 60000),
                     cudaSuccess);
    KD_LAUNCH(poisoned, 1, 64, 60000, dev.stream, dev.out);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    KD_LAUNCH(poisoned, 0, 64, 0, dev.stream, dev.out);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
    KD_LAUNCH(poisoned, 1, 2048, 0, dev.stream, dev.out);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidConfiguration);
}

void memory(void **)
{
    float host[4], *p = nullptr;
    void *q = nullptr;
    size_t free_bytes, total, after;

    assert_int_equal(cudaMemGetInfo(&free_bytes, &total), cudaSuccess);
    assert_int_equal(cudaMalloc(reinterpret_cast<void **>(&p), sizeof host),
                     cudaSuccess);
    assert_int_equal(
        cudaMemcpyAsync(host, p, sizeof host, cudaMemcpyDeviceToHost, nullptr),
        cudaSuccess);
    assert_true(host[0] != host[0] && host[3] != host[3]);
    assert_int_equal(cudaMalloc(&q, total), cudaErrorMemoryAllocation);
    assert_null(q);
    assert_int_equal(cudaFree(p), cudaSuccess);
    assert_int_equal(cudaFree(host), cudaErrorInvalidValue);
    assert_int_equal(cudaMemGetInfo(&after, &total), cudaSuccess);
    assert_int_equal(after, free_bytes);
    assert_int_equal(cudaGetLastError(), cudaErrorInvalidValue);
}

__global__ void lonely_shuffle(int *out)
{
    if (threadIdx.x < 16)
        out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1, 1);
}

__global__ void misaligned(float *out)
{
    pack_store(out + 1, pack<float>{});
}

__global__ void unallowed_source(int *out)
{
    if (threadIdx.x < 16)
        out[threadIdx.x] = __shfl_xor_sync(0xffffu, 1, 16);
}

/* Whether FN ends a process with a signal, quietly. */
template <typename F> bool dies(F fn)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(0);
        fn();
        _exit(0);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) || WEXITSTATUS(status) != 0;
}

void what_is_wrong_ends_the_program(void **)
{
    device dev(0);
    int host[4] = {0};

    assert_true(
        dies([&] { KD_LAUNCH(lonely_shuffle, 1, 32, 0, dev.stream, dev.out); }));
    assert_true(dies([&] {
        KD_LAUNCH(misaligned, 1, 1, 0, dev.stream, reinterpret_cast<float *>(dev.out));
    }));
    assert_true(
        dies([&] { KD_LAUNCH(unallowed_source, 1, 32, 0, dev.stream, dev.out); }));
    assert_true(dies([&] { KD_LAUNCH(poisoned, 1, 32, 0, dev.stream, dev.out); }));
    assert_true(dies([&] { cudaMemsetAsync(host, 0, sizeof host, dev.stream); }));
    assert_true(dies([&] {
        cudaMemcpyAsync(dev.out, host, 4 * 4097, cudaMemcpyHostToDevice, dev.stream);
    }));
    assert_false(dies([&] {
        cudaMemcpyAsync(dev.out, host, sizeof host, cudaMemcpyHostToDevice, dev.stream);
    }));
}

void near(double got, double want, double size)
{
    assert_true(fabs(got - want) <= 4e-5 * size);
}

/* The short forms for bfloat16 keep their relative error far on the left too. */
void short_forms(void **)
{
    for (int i = -768; i <= 832; i++) {
        const double x = i / 64.0, cdf = 0.5 * erfc(-x * sqrt(0.5)),
                     slope = cdf + x * exp(-0.5 * x * x) * sqrt(0.5 / M_PI),
                     s = 1.0 / (1.0 + exp(-x)),
                     u = 1.5957691216 * (1 + 0.044715 * x * x);
        const float f = (float)x;

        near(act_as<bf16>(KD_ACT_GELU, f), x * cdf, fabs(x * cdf));
        near(act_slope_as<bf16>(KD_ACT_GELU, f), slope, cdf + fabs(slope));
        near(act_as<bf16>(KD_ACT_SILU, f), x * s, fabs(x * s));
        near(act_slope_as<bf16>(KD_ACT_SILU, f), s + x * s * (1 - s), s);
        if (x > -8.0)
            near(act_as<bf16>(KD_ACT_GELU_NEW, f), x / (1 + exp(-x * u)),
                 fabs(x) / (1 + exp(-x * u)));
    }
    assert_true(act_as<bf16>(KD_ACT_GELU, INFINITY) == INFINITY);
    for (int act = KD_ACT_NONE; act <= KD_ACT_TANH; act++) {
        assert_true(isnan(act_as<bf16>((enum kd_act)act, NAN)));
        assert_true(act == KD_ACT_RELU ||
                    isnan(act_slope_as<bf16>((enum kd_act)act, NAN)));
    }
}

void types_and_masks(void **)
{
    const float values[] = {0.0f, -1.0f, 3.14159f, 1.00390625f, 1e38f, 1e-41f};
    const uint64_t key = 0x123456789abcdef0ull;
    struct kd_dropout d = {};
    float factor[8];

    for (float v : values)
        assert_int_equal(bf16_of(v).bits, kd_f32_to_bf16(v));
    d.p = 0.3f;
    d.seed = 0xfeedbeefcafeull;
    d.step = 5;
    d.site = 9;
    assert_false(drop_of(nullptr).on);
    for (uint32_t c = 0; c < 40; c++) {
        drop_eight(drop_of(&d), d.site, key, c, factor);
        for (int i = 0; i < 8; i++)
            assert_true(factor[i] == drop_keep(drop_of(&d), d.site, key, 8 * c + i));
    }
}

/* Captured work runs at each launch of its graph, with what memory holds then. */
void graphs_repeat(void **)
{
    for (int index = 0; index < DEVICES; index++) {
        device d(index);
        cudaGraph_t graph = nullptr;
        cudaGraphExec_t exec = nullptr;

        assert_int_equal(cudaMemsetAsync(d.out, 0, 64 * sizeof *d.out, d.stream),
                         cudaSuccess);
        assert_int_equal(
            cudaStreamBeginCapture(d.stream, cudaStreamCaptureModeThreadLocal),
            cudaSuccess);
        KD_LAUNCH(count_from, 1, 32, 0, d.stream, d.out);
        assert_int_equal(cudaMemcpyAsync(d.out + 40, d.out + 8, sizeof *d.out,
                                         cudaMemcpyDeviceToDevice, d.stream),
                         cudaSuccess);
        assert_int_equal(cudaStreamEndCapture(d.stream, &graph), cudaSuccess);
        assert_int_equal(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
        assert_int_equal(cudaGraphDestroy(graph), cudaSuccess);
        assert_int_equal(d.out[8], 0); /* nothing has run */
        for (int first = 100; first < 300; first += 100) {
            assert_int_equal(cudaMemcpyAsync(d.out, &first, sizeof first,
                                             cudaMemcpyHostToDevice, d.stream),
                             cudaSuccess);
            assert_int_equal(cudaGraphLaunch(exec, d.stream), cudaSuccess);
            assert_int_equal(d.out[8], first + 7);
            assert_int_equal(d.out[40], first + 7);
        }
        assert_int_equal(cudaGraphExecDestroy(exec), cudaSuccess);
    }
}

/* What a graph cannot hold is refused, and the capture is lost. */
void graphs_refuse(void **)
{
    for (int what = 0; what < 4; what++) {
        device d(0);
        cudaGraph_t graph = nullptr;
        void *p = nullptr;
        int host = 0;
        cudaError_t error = cudaSuccess;

        assert_int_equal(
            cudaStreamBeginCapture(d.stream, cudaStreamCaptureModeThreadLocal),
            cudaSuccess);
        if (what == 0)
            error = cudaMalloc(&p, 8);
        else if (what == 1)
            error = cudaStreamSynchronize(d.stream);
        else if (what == 2)
            error = cudaMemcpyAsync(&host, d.out, sizeof host, cudaMemcpyDeviceToHost,
                                    d.stream);
        else
            error = cudaMemcpyAsync(d.out, &host, sizeof host, cudaMemcpyHostToDevice,
                                    d.stream);
        assert_int_equal(error, cudaErrorStreamCaptureUnsupported);
        assert_int_equal(cudaStreamEndCapture(d.stream, &graph),
                         cudaErrorStreamCaptureInvalidated);
        assert_null(graph);
        (void)cudaGetLastError();
    }
}

} // namespace

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(graphs_repeat),
        cmocka_unit_test(graphs_refuse),
        cmocka_unit_test(barriers),
        cmocka_unit_test(short_forms),
        cmocka_unit_test(orders_show_races),
        cmocka_unit_test(exchanges),
        cmocka_unit_test(every_block_once_in_its_order),
        cmocka_unit_test(shared_memory),
        cmocka_unit_test(memory),
        cmocka_unit_test(what_is_wrong_ends_the_program),
        cmocka_unit_test(types_and_masks),
    };

    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
