// SPDX-License-Identifier: Apache-2.0
/* The emulator: a launch runs block after block, and the threads of a block as fibers.
 *
 * A fiber is a stack of its own; it runs until it waits or ends and then hands over to
 * the scheduler, which starts the next one that can run, in the order of the stream's
 * device.  A block barrier opens when every thread that has not ended waits at it, an
 * exchange between lanes when all lanes that its mask names wait with that mask; the
 * lane that comes last hands out the results.  When nobody can run and somebody waits,
 * the kernel is wrong, and the program says where and ends.
 *
 * On x86-64 fibers change in a few instructions, elsewhere through swapcontext (a
 * system call each).  AddressSanitizer is told of every change of stacks. */
#include "cuda_runtime.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <new>

#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define HOST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HOST_ASAN 1
#endif
#endif
#ifdef HOST_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__x86_64__) && !defined(KD_HOST_UCONTEXT)
#define HOST_SWITCH 1
#else
#include <ucontext.h>
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace
{

constexpr size_t STACK_BYTES = 256 << 10, GUARD_BYTES = 64 << 10;
constexpr unsigned MAX_THREADS = 1024, LANES = 32;
constexpr size_t PLAIN_SHARED = 48 << 10, MOST_SHARED = KD_HOST_SHARED_BYTES;

enum state { READY, AT_BARRIER, IN_WARP, ENDED };

struct context {
#ifdef HOST_SWITCH
    void *sp;
#else
    ucontext_t uc;
#endif
    char *stack;
    size_t bytes;
    void *fake_stack; /* AddressSanitizer's */
};

struct fiber {
    context ctx;
    state st;
    uint3 idx;
    unsigned mask; /* of the exchange it waits in */
    int source, predicate;
    uint64_t value;
};

struct launch {
    const std::function<void()> *body;
    unsigned n_threads, running, n_ended, n_waiting; /* at the block barrier */
    int votes;                                       /* predicates of the barrier */
    int result; /* of the last barrier that opened: nobody can be two barriers on */
    void *shared;
};

fiber fibers[MAX_THREADS];
context scheduler;
launch now;
std::map<const void *, size_t> allowed_shared;

[[noreturn]] __attribute__((format(printf, 1, 2))) void die(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fprintf(stderr, "emulated device, block %u %u %u, thread %u: ", blockIdx.x,
            blockIdx.y, blockIdx.z, threadIdx.x);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    abort();
}

#ifdef HOST_SWITCH
/* Save what a call preserves on this stack, store its pointer, and go on with the other
 * stack, which was left the same way. */
extern "C" void kd_host_switch(void **save, void *to);
asm(R"(
.text
.type kd_host_switch, @function
kd_host_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size kd_host_switch, .-kd_host_switch
)");
#endif

/* LAST: the fiber that we leave has ended. */
void change(context &from, context &to, bool last)
{
#ifdef HOST_ASAN
    __sanitizer_start_switch_fiber(last ? nullptr : &from.fake_stack, to.stack,
                                   to.bytes);
#else
    (void)last;
#endif
#ifdef HOST_SWITCH
    kd_host_switch(&from.sp, to.sp);
#else
    swapcontext(&from.uc, &to.uc);
#endif
#ifdef HOST_ASAN
    __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

/* What can open when this thread waits or ends. */
void open_barrier()
{
    if (now.n_waiting == 0 || now.n_waiting + now.n_ended < now.n_threads)
        return;
    for (unsigned t = 0; t < now.n_threads; t++)
        if (fibers[t].st == AT_BARRIER)
            fibers[t].st = READY;
    now.result = now.votes;
    now.votes = 0;
    now.n_waiting = 0;
}

void fiber_main()
{
#ifdef HOST_ASAN
    const void *bottom;
    size_t bytes;

    /* the scheduler's stack is learnt from the first change away from it */
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &bytes);
    scheduler.stack = static_cast<char *>(const_cast<void *>(bottom));
    scheduler.bytes = bytes;
#endif
    (*now.body)();
    fibers[now.running].st = ENDED;
    now.n_ended++;
    open_barrier();
    change(fibers[now.running].ctx, scheduler, true);
    abort();
}

void wait_as(state st)
{
    fiber &f = fibers[now.running];

    f.st = st;
    change(f.ctx, scheduler, false);
}

void start(fiber &f)
{
    context &c = f.ctx;

    if (!c.stack) {
        void *p = mmap(nullptr, STACK_BYTES + GUARD_BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

        if (p == MAP_FAILED || mprotect(p, GUARD_BYTES, PROT_NONE))
            die("no memory for a fiber's stack");
        c.stack = static_cast<char *>(p) + GUARD_BYTES;
        c.bytes = STACK_BYTES;
    }
    f.st = READY;
    c.fake_stack = nullptr;
#ifdef HOST_ASAN
    __asan_unpoison_memory_region(c.stack, c.bytes); /* frames that never returned */
#endif
#ifdef HOST_SWITCH
    void **top = reinterpret_cast<void **>(c.stack + c.bytes) - 1;

    top[0] = nullptr; /* the stack as a call of fiber_main leaves it */
    top[-1] = reinterpret_cast<void *>(fiber_main);
    for (int i = 2; i <= 7; i++)
        top[-i] = nullptr;
    c.sp = top - 7;
#else
    getcontext(&c.uc);
    c.uc.uc_stack.ss_sp = c.stack;
    c.uc.uc_stack.ss_size = c.bytes;
    c.uc.uc_link = nullptr;
    makecontext(&c.uc, fiber_main, 0);
#endif
}

/* The I-th of N in the order of a device: a step that shares no factor with N visits
 * each once. */
constexpr int ORDERS = 3;

struct order {
    uint64_t n, step, first;

    order(uint64_t n_, int device) : n(n_), step(1), first(0)
    {
        if (device == 1) {
            step = n - 1;
            first = n - 1;
        } else if (device == 2) {
            first = n / 3;
            for (step = n * 5 / 8 + 1; gcd(step, n) != 1;)
                step++;
        }
    }
    static uint64_t gcd(uint64_t a, uint64_t b)
    {
        return b ? gcd(b, a % b) : a;
    }
    uint64_t at(uint64_t i) const
    {
        return (first + i % n * (step % n)) % n;
    }
};

void run_block(const order &threads)
{
    bool progress = true;

    now.n_ended = now.n_waiting = 0;
    now.votes = 0;
    for (unsigned t = 0; t < now.n_threads; t++)
        start(fibers[t]);
    while (now.n_ended < now.n_threads) {
        if (!progress)
            die("threads wait for others that have ended or wait elsewhere: a barrier "
                "or shuffle that not all its threads reach");
        progress = false;
        for (unsigned i = 0; i < now.n_threads; i++) {
            unsigned t = (unsigned)threads.at(i);

            if (fibers[t].st != READY)
                continue;
            progress = true;
            now.running = t;
            threadIdx = fibers[t].idx;
            change(scheduler, fibers[t].ctx, false);
        }
    }
}

} // namespace

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute a,
                                 int value)
{
    if (a != cudaFuncAttributeMaxDynamicSharedMemorySize)
        return cudaSuccess;
    if ((size_t)value > MOST_SHARED)
        return kd_host_error(cudaErrorInvalidValue);
    allowed_shared[kernel] =
        (size_t)value > PLAIN_SHARED ? (size_t)value : PLAIN_SHARED;
    return cudaSuccess;
}

void *kd_host_dynamic_shared()
{
    if (!now.shared)
        die("dynamic shared memory in a launch without any");
    return now.shared;
}

void kd_host_aligned(const void *p, size_t bytes)
{
    if (reinterpret_cast<uintptr_t>(p) % bytes)
        die("an access of %zu bytes at %p", bytes, p);
}

uint16_t kd_host_bf16(float v)
{
    uint32_t u = kd_host_bits<uint32_t>(v);

    return v != v ? 0x7fff : (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

int kd_host_lane()
{
    return (int)(now.running % LANES);
}

int __syncthreads_count(int predicate)
{
    now.votes += predicate != 0;
    now.n_waiting++;
    fibers[now.running].st = AT_BARRIER;
    open_barrier();
    wait_as(fibers[now.running].st);
    return now.result;
}

int __syncthreads_or(int predicate)
{
    return __syncthreads_count(predicate) != 0;
}

void __syncthreads()
{
    (void)__syncthreads_count(0);
}

/* Waits for the other lanes of MASK; the last to come hands out values and votes. */
static void meet(unsigned mask)
{
    fiber &f = fibers[now.running];
    fiber *lanes = fibers + now.running / LANES * LANES;
    unsigned n = now.n_threads - now.running / LANES * LANES, there = 0, votes = 0;
    uint64_t values[LANES] = {};

    n = n < LANES ? n : LANES;
    if (!(mask >> kd_host_lane() & 1))
        die("a mask %08x without its own lane %d", mask, kd_host_lane());
    f.st = IN_WARP;
    f.mask = mask;
    for (unsigned l = 0; l < n; l++) {
        if (lanes[l].st != IN_WARP || lanes[l].mask != mask)
            continue;
        there |= 1u << l;
        votes |= (unsigned)(lanes[l].predicate != 0) << l;
        values[l] = lanes[l].value;
    }
    if (there == mask) {
        for (unsigned l = 0; l < n; l++) {
            if (!(mask >> l & 1))
                continue;
            lanes[l].st = READY;
            lanes[l].predicate = (int)votes;
            if (!(mask >> (lanes[l].source & 31) & 1))
                die("lane %u reads lane %d, which mask %08x does not name", l,
                    lanes[l].source, mask);
            lanes[l].value = values[lanes[l].source & 31];
        }
    }
    wait_as(f.st);
}

uint64_t kd_host_exchange(unsigned mask, uint64_t value, int source)
{
    fiber &f = fibers[now.running];

    f.value = value;
    f.source = source;
    f.predicate = 0;
    meet(mask);
    return f.value;
}

unsigned __ballot_sync(unsigned mask, int predicate)
{
    fiber &f = fibers[now.running];

    f.source = kd_host_lane();
    f.predicate = predicate;
    meet(mask);
    return (unsigned)f.predicate;
}

void __syncwarp(unsigned mask)
{
    (void)__ballot_sync(mask, 0);
}

static void run_grid(dim3 grid, dim3 block, size_t shared_bytes, int device,
                     const std::function<void()> &body)
{
    uint64_t n_threads = (uint64_t)block.x * block.y * block.z,
             n_blocks = (uint64_t)grid.x * grid.y * grid.z;
    const order blocks(n_blocks, device), threads(n_threads, device);

    now.body = &body;
    now.n_threads = (unsigned)n_threads;
    blockDim = block;
    gridDim = grid;
    for (unsigned t = 0; t < n_threads; t++)
        fibers[t].idx = {t % block.x, t / block.x % block.y, t / block.x / block.y};
    now.shared =
        shared_bytes ? ::operator new (shared_bytes, std::align_val_t{128}) : nullptr;
    for (uint64_t i = 0; i < n_blocks; i++) {
        uint64_t b = blocks.at(i);

        blockIdx = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y),
                    (unsigned)(b / grid.x / grid.y)};
        if (now.shared)
            memset(now.shared, 0xff, shared_bytes);
        run_block(threads);
    }
    ::operator delete (now.shared, std::align_val_t{128});
    now.shared = nullptr;
}

void kd_host_run(const void *kernel, dim3 grid, dim3 block, size_t shared_bytes,
                 cudaStream_t stream, std::function<void()> body)
{
    uint64_t n_threads = (uint64_t)block.x * block.y * block.z,
             n_blocks = (uint64_t)grid.x * grid.y * grid.z;
    auto allowed = allowed_shared.find(kernel);
    size_t most = allowed == allowed_shared.end() ? PLAIN_SHARED : allowed->second;
    int device = kd_host_stream_device(stream) % ORDERS;

    if (n_threads == 0 || n_threads > MAX_THREADS || n_blocks == 0 ||
        grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 ||
        shared_bytes > most) {
        kd_host_error(cudaErrorInvalidConfiguration);
        return;
    }
    kd_host_stream_do(stream,
                      [=] { run_grid(grid, block, shared_bytes, device, body); });
}
