/* SPDX-License-Identifier: Apache-2.0 */
/* A request to stop: SIGTERM, SIGUSR1 and SIGINT set a flag that the training loop
 * reads at its next step, and generation before its next batch; what is to be kept is
 * saved, and the run ends with KD_ESTOPPED. */
#ifndef KDHPC_BASE_SIGNAL_H
#define KDHPC_BASE_SIGNAL_H

#include <stdbool.h>

/** Catch these signals from now on; a second signal ends the process at once.
 * Local. */
void kd_stop_install(void);

/** Whether a signal asked this rank to stop.  Local: ranks must agree before acting. */
bool kd_stop_requested(void);

#endif
