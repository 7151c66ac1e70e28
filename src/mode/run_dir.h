/* SPDX-License-Identifier: Apache-2.0 */
/* The directory a training run leaves: run.yaml, log.txt, metrics.jsonl. */
#ifndef KDHPC_MODE_RUN_DIR_H
#define KDHPC_MODE_RUN_DIR_H

#include "kdhpc/base/json.h"
#include "kdhpc/mode/mode.h"

struct kd_run_dir;

/** Write run.yaml (the resolved options, then DIGESTS and the environment as comment
 * lines) and open the logs of RUN's output directory. RESUMED_STEP >= 0 keeps the
 * metrics up to that step and appends; else they start anew.  Collective; only rank 0
 * touches files. KD_EOUTPUT. */
int kd_run_dir_open(struct kd_run *run, const char *digests, int64_t resumed_step,
                    struct kd_run_dir **out) KD_MUST_CHECK;

/** Append LINE (a JSON object; freed here) to metrics.jsonl.  Collective. */
int kd_run_dir_metrics(struct kd_run_dir *rd, struct kd_json *line) KD_MUST_CHECK;

/** Close the logs.  Local. */
void kd_run_dir_close(struct kd_run_dir *rd);

#endif
