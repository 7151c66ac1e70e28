/* SPDX-License-Identifier: Apache-2.0 */
/* --device and --dtype: which backend a run computes on, and in which type. */
#ifndef KDHPC_SRC_MODE_DEVICE_H
#define KDHPC_SRC_MODE_DEVICE_H

#include "kdhpc/base/str.h"
#include "kdhpc/mode/mode.h"

/** Check --device and --dtype against this machine, before anything is created.  Local.
 * KD_EUSAGE. */
int kd_device_check(const struct kd_common *common,
                    const struct kd_mode *mode) KD_MUST_CHECK;

/** Choose device and type for all ranks alike, and make this rank's backend, with
 * THREADS host threads: RUN's be (freed by kd_backend_free) and dtype.  Ranks of a node
 * take its GPUs in turn.  Collective.  RUN has its comm and options. */
int kd_device_open(struct kd_run *run, const struct kd_mode *mode,
                   int threads) KD_MUST_CHECK;

/** One line on what RUN computes on, for logs and run.yaml.  Local. */
int kd_device_text(const struct kd_run *run, struct kd_str *out) KD_MUST_CHECK;

#endif
