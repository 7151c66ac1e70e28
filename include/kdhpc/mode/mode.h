/* SPDX-License-Identifier: Apache-2.0 */
/* Modes: what `--mode` selects.  A mode is one file that ends with one const struct
 * kd_mode: option groups and a run function; mode.c holds the one array of them. */
#ifndef KDHPC_MODE_MODE_H
#define KDHPC_MODE_MODE_H

#include "kdhpc/base/log.h"
#include "kdhpc/base/opt.h"
#include "kdhpc/comm/comm.h"

/** Options every mode has. */
struct kd_common {
    const char *output_dir;
    bool overwrite;
    int64_t seed;
    int device; /* 0 auto, 1 cpu, 2 cuda */
    int dtype;  /* 0 auto, 1 float32, 2 bfloat16 */
    bool tf32;
    int64_t threads;
    int log_level; /* enum kd_log_level */
    int progress;  /* enum kd_progress_style */
    double deadline_s;
};

/** A running mode's surroundings. */
struct kd_run {
    struct kd_comm *comm;
    struct kd_backend *be; /* of this rank */
    enum kd_dtype dtype;   /* that models compute in: KD_F32, KD_BF16 */
    const struct kd_common *common;
    const struct kd_opts *opts;
};

struct kd_mode {
    const char *name, *summary;
    const struct kd_opt_group *groups;
    int n_groups;
    size_t config_bytes;
    /** Names, or patterns of names (fnmatch), that this mode would write under
     * output_dir, NULL-terminated; refused if present without --overwrite, unless the
     * mode resumes. */
    const char *const *outputs;
    bool needs_output_dir;
    bool computes; /* runs a model, so it takes a GPU where there is one */
    bool stops;    /* asks kd_stop_requested, and ends with KD_ESTOPPED */
    /** Local checks of combinations before anything is created; may be NULL. KD_EUSAGE.
     */
    int (*check)(const struct kd_common *common, void *config);
    /** Whether this config continues an earlier run (then existing outputs are fine);
     * may be NULL. */
    bool (*resumes)(const void *config);
    /** Collective. */
    int (*run)(struct kd_run *run, void *config);
};

extern const struct kd_mode *const kd_modes[]; /* NULL-terminated */

/** The mode of this name, or NULL.  Local. */
const struct kd_mode *kd_mode_find(const char *name);

/** Parse, check, start the ranks, run, report once, stop: the whole program behind
 * main.  Returns the exit code.  Collective. */
int kd_program(int argc, char **argv);

#endif
