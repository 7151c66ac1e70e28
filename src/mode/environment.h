/* SPDX-License-Identifier: Apache-2.0 */
/* What this program was built from and runs on. */
#ifndef KDHPC_SRC_MODE_ENVIRONMENT_H
#define KDHPC_SRC_MODE_ENVIRONMENT_H

#include "kdhpc/mode/mode.h"

/** Append the versions of the program and of its parts, one a line.  Local; works
 * before any rank is started.  KD_ENOMEM. */
int kd_environment_versions(struct kd_str *out) KD_MUST_CHECK;

/** Append the parts' versions, ranks and threads of RUN as comment lines of a deck,
 * which names the program's version itself.  Local. */
int kd_environment_comments(const struct kd_run *run, struct kd_str *out) KD_MUST_CHECK;

#endif
