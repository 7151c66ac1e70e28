/* SPDX-License-Identifier: Apache-2.0 */
/* How many CPU threads this rank should use. */
#ifndef KDHPC_SRC_MODE_THREADS_H
#define KDHPC_SRC_MODE_THREADS_H

#include "kdhpc/comm/comm.h"

/** ASKED threads, or for 0 this rank's share of the cores it may run on; warns where
 * the launcher's binding makes that a poor choice.  Collective. */
int kd_threads_choose(struct kd_comm *comm, int64_t asked, int *out) KD_MUST_CHECK;

#endif
