/* SPDX-License-Identifier: Apache-2.0 */
/* The error record and the fault sites.
 *
 * One record a process, written by the first failure: a claim flag makes that hold also
 * when OpenMP threads fail at the same time.  A fault site is a named place that fails
 * on demand, `KD_FAULT=site:rank` (rank `*`: all), or with `KD_FAULT=hang:site:rank`
 * goes silent, so that tests can prove that one rank's trouble ends the others alike;
 * nothing of it is left in builds without KDHPC_FAULTS. */
#include "kdhpc/base/status.h"

#include "kdhpc/base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct kd_error record;
static atomic_bool claimed;

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

int kd_fail_at(const char *file, int line, int code, const char *fmt, ...)
{
    va_list ap;

    if (atomic_exchange(&claimed, true))
        return code;
    record.code = code;
    record.line = line;
    snprintf(record.file, sizeof record.file, "%s", base_name(file));
    va_start(ap, fmt);
    vsnprintf(record.text, sizeof record.text, fmt, ap);
    va_end(ap);
    kd_log_plain(record.text);
    return code;
}

const struct kd_error *kd_error_get(void)
{
    return &record;
}

void kd_error_set(const struct kd_error *error)
{
    if (error != &record)
        record = *error;
    atomic_store(&claimed, record.code != KD_OK);
}

void kd_error_clear(void)
{
    memset(&record, 0, sizeof record);
    atomic_store(&claimed, false);
}

#ifdef KDHPC_FAULTS
/* Whether WANT, "site:rank", means SITE on this rank. */
static bool fault_wanted(const char *want, const char *site)
{
    size_t n = strlen(site);

    if (strncmp(want, site, n) != 0 || want[n] != ':')
        return false;
    return !strcmp(want + n, ":*") || strtol(want + n + 1, NULL, 10) == kd_log_rank();
}

int kd_fault_at(const char *file, int line, const char *site)
{
    const char *want = getenv("KD_FAULT");
    bool hang = want && strncmp(want, "hang:", strlen("hang:")) == 0;

    if (!want || !fault_wanted(hang ? want + strlen("hang:") : want, site))
        return KD_OK;
    while (hang)
        pause(); /* until the watchdog ends the process */
    return kd_fail_at(file, line, KD_EINTERNAL, "fault at %s, as KD_FAULT asks", site);
}
#else
int kd_fault_at(const char *file, int line, const char *site)
{
    (void)file;
    (void)line;
    (void)site;
    return KD_OK;
}
#endif
