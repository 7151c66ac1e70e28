/* SPDX-License-Identifier: Apache-2.0 */
/* The watchdog: a thread that counts how long the main thread has been silent.
 *
 * The main thread only bumps a counter; the watchdog looks a few times per deadline
 * whether it moved.  Inside a collective the bound is ten deadlines, because there this
 * rank may be waiting for one that works; the silent one's own watchdog fires first and
 * so the job ends with one line.  The thread calls nothing of MPI and blocks every
 * signal, so that handlers run in the main thread.
 *
 * State is one file-scope object: a process has one main thread to watch, and
 * kd_heartbeat is called from loops that know no communicator. */
#include "kdhpc/comm/watchdog.h"
#include "kdhpc/base/log.h"

#include "comm_impl.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_FACTOR = 10, LOOKS_PER_DEADLINE = 8 };

static struct {
    atomic_ullong beats;
    _Atomic(const char *) collective; /* the last one entered */
    atomic_llong sequence;
    atomic_bool waiting;

    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    double deadline_s;
    bool running, stopping;
} dog = {.lock = PTHREAD_MUTEX_INITIALIZER};

void kd_heartbeat(void)
{
    atomic_fetch_add_explicit(&dog.beats, 1, memory_order_relaxed);
}

void kd_watchdog_enter(const char *name, int64_t sequence)
{
    atomic_store_explicit(&dog.collective, name, memory_order_relaxed);
    atomic_store_explicit(&dog.sequence, sequence, memory_order_relaxed);
    atomic_store_explicit(&dog.waiting, true, memory_order_relaxed);
    kd_heartbeat();
}

void kd_watchdog_leave(void)
{
    atomic_store_explicit(&dog.waiting, false, memory_order_relaxed);
    kd_heartbeat();
}

double kd_watchdog_wait_s(void)
{
    return dog.running ? 0.9 * WAIT_FACTOR * dog.deadline_s : 0.0;
}

static _Noreturn void bite(double silent_s)
{
    const char *name = atomic_load(&dog.collective);
    char line[256];
    int n = snprintf(line, sizeof line,
                     "kdhpc: error: rank %d gave no sign of life for %.1f s (%s "
                     "collective: %s, number %lld); raise --deadline_s if its work may "
                     "take that long\n",
                     kd_log_rank(), silent_s,
                     atomic_load(&dog.waiting) ? "waiting in" : "last",
                     name ? name : "none", (long long)atomic_load(&dog.sequence));

    if (n > 0 && write(STDERR_FILENO, line, strnlen(line, sizeof line)) < 0)
        _exit(KD_EINTERNAL);
    _exit(KD_EINTERNAL);
}

/* Sleep until the next look; false: asked to stop. */
static bool sleep_until_look(double period_s)
{
    struct timespec at;
    bool go_on;

    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += (time_t)period_s;
    at.tv_nsec += (long)((period_s - (double)(time_t)period_s) * 1e9);
    if (at.tv_nsec >= 1000000000L) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000L;
    }
    pthread_mutex_lock(&dog.lock);
    while (!dog.stopping &&
           pthread_cond_timedwait(&dog.wake, &dog.lock, &at) != ETIMEDOUT)
        continue;
    go_on = !dog.stopping;
    pthread_mutex_unlock(&dog.lock);
    return go_on;
}

static void *watch(void *arg)
{
    double period_s = dog.deadline_s / LOOKS_PER_DEADLINE;
    unsigned long long seen = atomic_load(&dog.beats);
    double moved_s = kd_now_s();

    (void)arg;
    while (sleep_until_look(period_s)) {
        unsigned long long beats = atomic_load(&dog.beats);
        double now = kd_now_s();
        double bound = dog.deadline_s * (atomic_load(&dog.waiting) ? WAIT_FACTOR : 1);

        if (beats != seen) {
            seen = beats;
            moved_s = now;
        } else if (now - moved_s > bound) {
            bite(now - moved_s);
        }
    }
    return NULL;
}

int kd_watchdog_start(double deadline_s)
{
    pthread_condattr_t attr;
    sigset_t all, old;
    int err;

    if (!(deadline_s > 0) || dog.running)
        return KD_OK;
    KD_TRY(KD_FAULT("watchdog.start"));
    dog.deadline_s = deadline_s;
    dog.stopping = false;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&dog.wake, &attr);
    pthread_condattr_destroy(&attr);

    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    err = pthread_create(&dog.thread, NULL, watch, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (err)
        return KD_FAIL(KD_EINTERNAL, "cannot start the watchdog thread: %s",
                       strerror(err));
    dog.running = true;
    return KD_OK;
}

void kd_watchdog_stop(void)
{
    if (!dog.running)
        return;
    pthread_mutex_lock(&dog.lock);
    dog.stopping = true;
    pthread_cond_signal(&dog.wake);
    pthread_mutex_unlock(&dog.lock);
    pthread_join(dog.thread, NULL);
    pthread_cond_destroy(&dog.wake);
    dog.running = false;
}
