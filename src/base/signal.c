/* SPDX-License-Identifier: Apache-2.0 */
/* Stopping on a signal.  The handler only sets a flag, which is all that a handler may
 * safely do; SA_RESETHAND gives a second signal its usual deadly meaning, for a user
 * who does not want to wait for the save.  Slow system calls are restarted, so file
 * output does not fail half-way.  SIGUSR1 is there for launchers: they hand it on to
 * the ranks, but take SIGTERM as an order to end them. */
#include "kdhpc/base/signal.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

void kd_stop_install(void)
{
    struct sigaction action = {.sa_handler = on_signal,
                               .sa_flags = SA_RESTART | (int)SA_RESETHAND};

    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGINT, &action, NULL);
}

bool kd_stop_requested(void)
{
    return stop != 0;
}
