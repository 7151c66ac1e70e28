/* SPDX-License-Identifier: Apache-2.0 */
/* A thread that ends silence: if this rank's main thread gives no heartbeat for the
 * deadline, it writes one line (rank, last collective, its sequence number) and ends
 * the process with 70, on which the launcher ends the others.  Waiting inside a
 * collective is not silence until a longer bound (ten deadlines) has passed. */
#ifndef KDHPC_COMM_WATCHDOG_H
#define KDHPC_COMM_WATCHDOG_H

#include "kdhpc/base/status.h"

/** Start the thread.  DEADLINE_S <= 0: none.  Local. */
int kd_watchdog_start(double deadline_s) KD_MUST_CHECK;

/** Say that this rank lives.  Cheap; call it in loops over steps and batches.  Local.
 */
void kd_heartbeat(void);

void kd_watchdog_stop(void);

#endif
