/* SPDX-License-Identifier: Apache-2.0 */
/* Messages and progress: one voice for all ranks.
 *
 * Rank 0 prints information and warnings to stderr (results asked for with
 * `--output -` go to stdout, untouched); other ranks are quiet unless the level is
 * debug.  Everything printed can also be kept in a run's log.txt. */
#ifndef KDHPC_BASE_LOG_H
#define KDHPC_BASE_LOG_H

#include "kdhpc/base/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum kd_log_level { KD_LOG_ERROR, KD_LOG_WARN, KD_LOG_INFO, KD_LOG_DEBUG };
enum kd_progress_style {
    KD_PROGRESS_AUTO,
    KD_PROGRESS_BAR,
    KD_PROGRESS_LINES,
    KD_PROGRESS_NONE
};

/** Say who speaks: RANK of N_RANKS, and how much.  Local; before any other call here.
 */
void kd_log_setup(int rank, int n_ranks, enum kd_log_level level,
                  enum kd_progress_style style);

/** Copy what is printed from now on to FILE too (borrowed; NULL ends it).  Local. */
void kd_log_tee(FILE *file);

/** Put a space for each control character of TEXT, which is then one line.  Local. */
void kd_log_plain(char *text);

int kd_log_rank(void);

/** Print one line, prefixed `kdhpc: `.  Local; silent above the level and off rank 0.
 */
void kd_log(enum kd_log_level level, const char *fmt, ...) KD_PRINTF(2, 3);
#define kd_info(...) kd_log(KD_LOG_INFO, __VA_ARGS__)
#define kd_warn(...) kd_log(KD_LOG_WARN, __VA_ARGS__)
#define kd_debug(...) kd_log(KD_LOG_DEBUG, __VA_ARGS__)

/** Seconds of a monotonic clock.  Local. */
double kd_now_s(void);

/** One line of progress with a count, a free text and the time left. */
struct kd_progress {
    const char *label; /* borrowed */
    int64_t total;     /* units of work; 0 if unknown */
    double start_s, shown_s;
    int64_t start_done; /* units done when it started (a resumed run) */
    bool open;          /* a terminal line without its newline */
};

/** Start a progress line.  Local. */
struct kd_progress kd_progress_start(const char *label, int64_t total, int64_t done);

/** Show DONE units and the text, at most a few times a second on a terminal and every
 * few seconds elsewhere.  Local. */
void kd_progress_update(struct kd_progress *p, int64_t done, const char *fmt, ...)
    KD_PRINTF(3, 4);

/** End the line.  Local. */
void kd_progress_end(struct kd_progress *p);

#endif
