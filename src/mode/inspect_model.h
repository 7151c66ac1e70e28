/* SPDX-License-Identifier: Apache-2.0 */
/* What `inspect` says of models and their weights. */
#ifndef KDHPC_SRC_MODE_INSPECT_MODEL_H
#define KDHPC_SRC_MODE_INSPECT_MODEL_H

#include "kdhpc/base/json.h"

/** Report on the model directory DIR into the object REPORT.  Local.  KD_EINPUT: it is
 * damaged, or its weights do not match its config. */
int kd_inspect_model(const char *dir, struct kd_json *report) KD_MUST_CHECK;

/** Report on one file of weights.  Local.  KD_EINPUT. */
int kd_inspect_weights(const char *path, struct kd_json *report) KD_MUST_CHECK;

#endif
