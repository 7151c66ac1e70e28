/* SPDX-License-Identifier: Apache-2.0 */
/* Status codes, the error record, and the four ways to pass a failure on.
 *
 * A status is an int: 0, or the exit code of the process.  The first failure on a
 * rank writes the error record (code, place, text); later failures on the way out do
 * not overwrite it, so the record holds the cause and not its consequences.
 * Local functions may fail on one rank; Collective functions return the same status
 * on every rank (comm/comm.h has the macros that vote). */
#ifndef KDHPC_BASE_STATUS_H
#define KDHPC_BASE_STATUS_H

#include <stdbool.h>
#include <stddef.h>

enum kd_status {
    KD_OK = 0,
    KD_EUSAGE = 2,     /* command line or deck */
    KD_EINPUT = 3,     /* missing, damaged or contradictory input */
    KD_EOUTPUT = 4,    /* output could not be written */
    KD_ENOMEM = 5,     /* host or device memory */
    KD_ENUMERIC = 6,   /* non-finite loss beyond the allowed skips */
    KD_EINTERNAL = 70, /* a bug, a vendor library's failure, or a stuck rank */
    KD_ESTOPPED = 75,  /* stopped on a signal after saving */
};

enum { KD_ERROR_TEXT_MAX = 1024, KD_ERROR_FILE_MAX = 64 };

/** What went wrong first on this rank. */
struct kd_error {
    int code; /* enum kd_status */
    int line;
    bool agreed; /* a vote gave it to every rank: which failed is known */
    char file[KD_ERROR_FILE_MAX];
    char text[KD_ERROR_TEXT_MAX];
};

#define KD_MUST_CHECK __attribute__((warn_unused_result))
#define KD_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/** Record a failure (the first one wins) and return CODE.  Local.  Use KD_FAIL. */
int kd_fail_at(const char *file, int line, int code, const char *fmt, ...)
    KD_PRINTF(4, 5);

/** The record of this rank; code 0 when nothing failed.  Local. */
const struct kd_error *kd_error_get(void);

/** Replace the record, as after an agreement in which another rank's failure won.
 * Local. */
void kd_error_set(const struct kd_error *error);

/** Forget the record, after a failure that was handled.  Local. */
void kd_error_clear(void);

/** KD_OK, or a failure where the environment says KD_FAULT=SITE:RANK for this rank.
 *  Always KD_OK in builds without KDHPC_FAULTS.  Local. */
int kd_fault_at(const char *file, int line, const char *site) KD_MUST_CHECK;

/* The value of KD_FAIL is CODE, so that `return KD_FAIL(...)` reads as it acts. */
#define KD_FAIL(code, ...) kd_fail_at(__FILE__, __LINE__, (code), __VA_ARGS__)
#define KD_FAULT(site) kd_fault_at(__FILE__, __LINE__, (site))

/* Return the status if it is a failure. */
#define KD_TRY(e)                                                                      \
    do {                                                                               \
        int kd_rc_ = (e);                                                              \
        if (kd_rc_)                                                                    \
            return kd_rc_;                                                             \
    } while (0)

/* Set `rc` and go to the function's one `out:` if it is a failure. */
#define KD_GO(e)                                                                       \
    do {                                                                               \
        rc = (e);                                                                      \
        if (rc)                                                                        \
            goto out;                                                                  \
    } while (0)

#endif
