/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU backend: its table, memory, threads and scratch.
 *
 * All parallelism is the loop below over tasks; OpenBLAS, where it is called, runs with
 * one thread.  The team always has the backend's full number of threads, because OpenMP
 * runtimes rebuild their pool when the number changes. */
#include "cpu_impl.h"

#include "kdhpc/base/mem.h"

#include <cblas.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct buffer {
    void *data;
    size_t bytes;
};

struct cpu {
    struct kd_backend base;
    struct buffer shared;
    struct buffer thread[]; /* [n_threads] */
};

/* Work memory is touched over and over, all over, and gains up to a seventh of the
 * speed from huge pages.  What is larger is values, read in order, which gain nothing
 * that could be measured; their first touch, which loading waits for, can be slower by
 * seconds where a virtual machine must ask its host for every huge page. */
enum { HUGE_PAGE = 2 << 20, HUGE_PAGES_END = 1 << 30 };

static int cpu_alloc(struct kd_backend *be, size_t bytes, void **out)
{
    size_t most = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    bool huge = bytes >= 2 * (size_t)HUGE_PAGE && bytes < (size_t)HUGE_PAGES_END;
    size_t align = huge ? HUGE_PAGE : 64;
    size_t padded = (cpu_max((int64_t)bytes, 1) + 63) / 64 * 64;

    (void)be;
    *out = NULL;
    /* more than the machine has would be granted, and then end in a kill */
    if (bytes > most || posix_memalign(out, align, padded))
        return KD_FAIL(KD_ENOMEM,
                       "cannot allocate %.1f MiB of memory: use smaller batches "
                       "(max_tokens_per_batch, train_batch_size, eval_batch_size)",
                       (double)bytes / 1048576.0);
    if (huge)
        (void)madvise(*out, padded, MADV_HUGEPAGE); /* advice: failure is harmless */
    return KD_OK;
}

static void cpu_free(struct kd_backend *be, void *p)
{
    (void)be;
    free(p);
}

struct copy {
    char *dst;
    const char *src;
    size_t bytes;
};

enum { COPY_BYTES = 1 << 20 };

static void copy_task(void *arg, int64_t task, int thread)
{
    const struct copy *c = arg;
    size_t first = (size_t)task * COPY_BYTES, n = c->bytes - first;

    (void)thread;
    n = n < COPY_BYTES ? n : COPY_BYTES;
    if (c->src)
        memcpy(c->dst + first, c->src + first, n);
    else
        memset(c->dst + first, 0, n);
}

static int cpu_copy(struct kd_backend *be, void *dst, const void *src, size_t bytes)
{
    struct copy c = {dst, src, bytes};

    if (src)
        cpu_for(be, cpu_ceil_div((int64_t)bytes, COPY_BYTES), copy_task, &c);
    return KD_OK;
}

static int cpu_zero(struct kd_backend *be, void *dst, size_t bytes)
{
    struct copy c = {dst, NULL, bytes};

    cpu_for(be, cpu_ceil_div((int64_t)bytes, COPY_BYTES), copy_task, &c);
    return KD_OK;
}

static int cpu_sync(struct kd_backend *be)
{
    (void)be;
    return KD_OK;
}

/* The host is its own device: there is no stream to order against. */
static void *cpu_stream(struct kd_backend *be)
{
    (void)be;
    return NULL;
}

static int cpu_mem_info(struct kd_backend *be, size_t *free_bytes, size_t *total_bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    FILE *f = fopen("/proc/meminfo", "r");
    char line[128];
    unsigned long long kib;

    (void)be;
    *total_bytes = (size_t)sysconf(_SC_PHYS_PAGES) * page;
    *free_bytes = (size_t)sysconf(_SC_AVPHYS_PAGES) * page;
    if (!f)
        return KD_OK;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
            *free_bytes = (size_t)kib * 1024;
    }
    fclose(f);
    return KD_OK;
}

/* Calls cost little here: nothing is recorded. */
static int cpu_graph_begin(struct kd_backend *be, const struct kd_graph_key *key,
                           bool *done)
{
    (void)be;
    (void)key;
    *done = false;
    return KD_OK;
}

static int cpu_graph_end(struct kd_backend *be, bool ok)
{
    (void)be;
    (void)ok;
    return KD_OK;
}

static void cpu_graph_drop(struct kd_backend *be)
{
    (void)be;
}

_Static_assert(KD_F32 == 0, "the or of float32 types and of absent tensors is float32");

int cpu_f32(const char *slot, unsigned dtypes)
{
    if (dtypes == KD_F32)
        return KD_OK;
    return KD_FAIL(KD_EINTERNAL, "%s on the CPU is float32 only: use --dtype float32",
                   slot);
}

void cpu_for(struct kd_backend *be, int64_t n_tasks, cpu_task_fn fn, void *arg)
{
    if (n_tasks <= 1 || be->n_threads == 1) {
        for (int64_t i = 0; i < n_tasks; i++)
            fn(arg, i, 0);
        return;
    }
#pragma omp parallel for num_threads(be->n_threads) schedule(dynamic, 1)
    for (int64_t i = 0; i < n_tasks; i++)
        fn(arg, i, omp_get_thread_num());
}

static int buffer_grow(struct kd_backend *be, struct buffer *b, size_t bytes)
{
    if (bytes <= b->bytes)
        return KD_OK;
    free(b->data);
    *b = (struct buffer){NULL, 0};
    bytes += bytes / 4;
    KD_TRY(cpu_alloc(be, bytes, &b->data));
    b->bytes = bytes;
    return KD_OK;
}

int cpu_scratch(struct kd_backend *be, size_t thread_bytes, size_t shared_bytes)
{
    struct cpu *cpu = be->impl;

    for (int t = 0; t < be->n_threads; t++)
        KD_TRY(buffer_grow(be, &cpu->thread[t], thread_bytes));
    return buffer_grow(be, &cpu->shared, shared_bytes);
}

void *cpu_thread_scratch(struct kd_backend *be, int thread)
{
    return ((struct cpu *)be->impl)->thread[thread].data;
}

void *cpu_shared_scratch(struct kd_backend *be)
{
    return ((struct cpu *)be->impl)->shared.data;
}

static void cpu_destroy(struct kd_backend *be)
{
    struct cpu *cpu = be->impl;

    for (int t = 0; t < be->n_threads; t++)
        free(cpu->thread[t].data);
    free(cpu->shared.data);
    free(cpu);
}

static const struct kd_backend_ops cpu_ops = {
    .name = "cpu",
    .destroy = cpu_destroy,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .upload = cpu_copy,
    .download = cpu_copy,
    .copy = cpu_copy,
    .zero = cpu_zero,
    .sync = cpu_sync,
    .stream = cpu_stream,
    .mem_info = cpu_mem_info,
    .graph_begin = cpu_graph_begin,
    .graph_end = cpu_graph_end,
    .graph_drop = cpu_graph_drop,
    .gemm = cpu_gemm,
    .col_sum = cpu_col_sum,
    .attention = cpu_attention,
    .attention_back = cpu_attention_back,
    .attention_cached = cpu_attention_cached,
    .advance_slots = cpu_advance_slots,
    .add = cpu_add,
    .axpy = cpu_axpy,
    .scale = cpu_scale,
    .act = cpu_act,
    .act_back = cpu_act_back,
    .glu = cpu_glu,
    .glu_back = cpu_glu_back,
    .dropout = cpu_dropout,
    .cast = cpu_cast,
    .norm = cpu_norm,
    .norm_back = cpu_norm_back,
    .gather_rows = cpu_gather_rows,
    .scatter_add_rows = cpu_scatter_add_rows,
    .log_softmax = cpu_log_softmax,
    .log_sum = cpu_log_sum,
    .topk = cpu_topk,
    .edit_scores = cpu_edit_scores,
    .sample = cpu_sample,
    .vocab_loss = cpu_vocab_loss,
    .mse_rows = cpu_mse_rows,
    .adamw = cpu_adamw,
    .adafactor = cpu_adafactor,
    .sum_sq = cpu_sum_sq,
};

/* The instruction sets that this file's siblings were compiled for. */
static int check_processor(void)
{
#if defined(__x86_64__) && defined(__AVX512F__)
    if (!__builtin_cpu_supports("avx512f"))
        return KD_FAIL(KD_EINTERNAL, "this program was built for processors with "
                                     "AVX-512, which this one has not: build it here, "
                                     "or with -DKDHPC_ARCH=x86-64-v3");
#endif
#if defined(__x86_64__) && defined(__AVX2__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return KD_FAIL(KD_EINTERNAL, "this program was built for processors with AVX2 "
                                     "and FMA, which this one has not: build it here, "
                                     "or with -DKDHPC_ARCH=x86-64-v2");
#endif
    return KD_OK;
}

int kd_backend_cpu(int n_threads, struct kd_backend **out)
{
    struct cpu *cpu = NULL;

    *out = NULL;
    KD_TRY(check_processor());
    n_threads = n_threads < 1 ? 1 : n_threads;
    KD_TRY(kd_calloc(1, sizeof *cpu + (size_t)n_threads * sizeof(struct buffer), &cpu));
    openblas_set_num_threads(1);
    cpu->base = (struct kd_backend){&cpu_ops, KD_CPU, n_threads, cpu};
    *out = &cpu->base;
    return KD_OK;
}

#if defined(__AVX512F__)
#define CPU_ISA "AVX-512"
#elif defined(__AVX2__)
#define CPU_ISA "AVX2"
#elif defined(__ARM_NEON)
#define CPU_ISA "NEON"
#else
#define CPU_ISA "baseline"
#endif

const char *kd_backend_cpu_library(void)
{
    static char text[160];
    const char *config = openblas_get_config(); /* "OpenBLAS 0.3.21 NO_LAPACKE ..." */
    char name[32] = "OpenBLAS", version[32] = "";

    if (sscanf(config, "%31s %31s", name, version) < 2 || !strchr(version, '.'))
        version[0] = '\0';
    snprintf(text, sizeof text, "%s kernels; %s%s%s%s", CPU_ISA, name,
             *version ? " " : "", version,
             strstr(config, "USE_OPENMP") ? " (OpenMP)" : "");
    return text;
}
