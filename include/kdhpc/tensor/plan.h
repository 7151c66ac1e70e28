/* SPDX-License-Identifier: Apache-2.0 */
/* The planning backend: memory is counted, nothing is computed.
 *
 * What a training step or a generation batch allocates does not depend on values, so
 * the code of a run, run on this backend, tells what the run will need before any of it
 * is allocated.  Results come out as zeros; whoever reads backend memory other than by
 * `download` dies of it. */
#ifndef KDHPC_TENSOR_PLAN_H
#define KDHPC_TENSOR_PLAN_H

#include "kdhpc/tensor/backend.h"

/** A backend that stands for one on DEVICE, so that what depends on the device is
 * planned as it will be.  Local; *OUT is freed by kd_backend_free.  KD_ENOMEM. */
int kd_backend_plan(enum kd_device device, struct kd_backend **out) KD_MUST_CHECK;

/** Bytes in use now / at most since BE was made or kd_plan_restart was called.  Memory
 * that a real backend keeps for its own slots is not among them.  Local. */
size_t kd_plan_bytes(const struct kd_backend *be);
size_t kd_plan_peak_bytes(const struct kd_backend *be);

/** Count the peak anew from what is in use.  Local. */
void kd_plan_restart(struct kd_backend *be);

#endif
