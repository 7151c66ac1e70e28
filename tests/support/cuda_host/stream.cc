// SPDX-License-Identifier: Apache-2.0
/* Streams and events of the emulator.
 *
 * Kernels and copies are done before their call returns.  What cannot be, because it
 * waits for other ranks, is an item in its stream's queue, and so is what comes behind
 * it: waiting for events, kernels, copies.  A queue advances whenever somebody looks at
 * its stream or at an event on it.  So a program that forgets to order its streams
 * computes with what has not come yet, and one that waits blindly hangs. */
#include "cuda_runtime.h"

#include <deque>
#include <functional>
#include <memory>
#include <sched.h>
#include <set>
#include <utility>
#include <vector>

namespace
{

struct queue;

struct mark { /* a place in a queue: what was pushed before it */
    std::shared_ptr<queue> of;
    uint64_t at;
};

using item = std::function<bool()>; /* advances it; whether it is done */

struct queue {
    std::deque<item> items;
    uint64_t pushed = 0, done = 0;
    bool advancing = false; /* two may wait for each other, by turns */
};

bool advance(queue &q);

bool passed(const mark &m)
{
    if (m.of && m.of->done < m.at)
        (void)advance(*m.of);
    return !m.of || m.of->done >= m.at;
}

/* Do what can be done; whether nothing is left. */
bool advance(queue &q)
{
    if (q.advancing)
        return false;
    q.advancing = true;
    while (!q.items.empty()) {
        if (!q.items.front()())
            break;
        q.items.pop_front();
        q.done++;
    }
    q.advancing = false;
    return q.items.empty();
}

int device_in_use()
{
    int device = 0;

    (void)cudaGetDevice(&device);
    return device;
}

void push(queue &q, item i)
{
    q.items.push_back(std::move(i));
    q.pushed++;
}

bool lost; /* the device failed: every look at it says so from then on */

cudaError_t as_state(bool done)
{
    if (lost)
        return kd_host_error(cudaErrorIllegalAddress);
    return done ? cudaSuccess : cudaErrorNotReady;
}

} // namespace

struct kd_host_graph {
    std::vector<std::function<void()>> work;
    bool valid;
};

struct kd_host_stream {
    int device;
    std::shared_ptr<queue> work = std::make_shared<queue>();
    kd_host_graph *capture = nullptr;
};

struct kd_host_event {
    mark behind;
};

namespace
{
std::set<cudaStream_t> streams;
kd_host_graph *capturing; /* of any stream, or null */
} // namespace

int kd_host_stream_device(cudaStream_t s)
{
    return s ? s->device : device_in_use();
}

void kd_host_stream_settle(cudaStream_t s)
{
    while (s && !advance(*s->work))
        sched_yield();
}

void kd_host_device_settle()
{
    for (cudaStream_t s : streams)
        kd_host_stream_settle(s);
}

bool kd_host_captured(cudaStream_t s)
{
    return s && s->capture;
}

bool kd_host_refused_by_capture()
{
    if (!capturing)
        return false;
    capturing->valid = false;
    (void)kd_host_error(cudaErrorStreamCaptureUnsupported);
    return true;
}

void kd_host_stream_do(cudaStream_t s, std::function<void()> work)
{
    if (s && s->capture)
        s->capture->work.push_back(std::move(work));
    else if (!s || advance(*s->work))
        work();
    else
        push(*s->work, [work = std::move(work)] {
            work();
            return true;
        });
}

void kd_host_lose_device(void)
{
    lost = true;
}

void kd_host_stream_push(cudaStream_t s, int (*advance)(void *arg), void *arg)
{
    push(*s->work, [=] { return advance(arg) != 0; });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = new kd_host_stream{device_in_use()};
    streams.insert(*s);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int)
{
    return cudaStreamCreateWithFlags(s, flags);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    streams.erase(s);
    delete s;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    if (kd_host_captured(s) && kd_host_refused_by_capture())
        return cudaErrorStreamCaptureUnsupported;
    kd_host_stream_settle(s);
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode)
{
    if (!s || capturing)
        return kd_host_error(cudaErrorInvalidValue);
    capturing = s->capture = new kd_host_graph{{}, true};
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph)
{
    *graph = nullptr;
    if (!s || !s->capture)
        return kd_host_error(cudaErrorInvalidValue);
    *graph = s->capture;
    capturing = s->capture = nullptr;
    if ((*graph)->valid)
        return cudaSuccess;
    delete std::exchange(*graph, nullptr);
    return kd_host_error(cudaErrorStreamCaptureInvalidated);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long)
{
    *exec = new kd_host_graph(*graph);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s)
{
    for (const auto &work : exec->work)
        kd_host_stream_do(s, work);
    return as_state(true);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    delete exec;
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t s)
{
    return as_state(advance(*s->work));
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    if (!e)
        return kd_host_error(cudaErrorInvalidValue);
    if (!passed(e->behind))
        push(*s->work, [m = e->behind] { return passed(m); });
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = new kd_host_event{};
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    if (!e)
        return kd_host_error(cudaErrorInvalidValue);
    if (kd_host_captured(s) && kd_host_refused_by_capture())
        return cudaErrorStreamCaptureUnsupported;
    e->behind = s ? mark{s->work, s->work->pushed} : mark{};
    return as_state(true);
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    while (!passed(e->behind))
        sched_yield();
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t e)
{
    return as_state(passed(e->behind));
}
