/* SPDX-License-Identifier: Apache-2.0 */
#include "kdhpc/mode/mode.h"

static int run(struct kd_run *r, void *config)
{
    (void)r;
    (void)config;
    return KD_FAIL(KD_EUSAGE, "mode generate is being written");
}

const struct kd_mode kd_mode_generate = {.name = "generate", .summary = "", .run = run};
