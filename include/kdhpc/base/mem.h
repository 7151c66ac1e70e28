/* SPDX-License-Identifier: Apache-2.0 */
/* Host memory: checked allocation, growing arrays, and the resident size.
 *
 * Long-lived numbers live in slabs and arenas of the backend (tensor/arena.h); this is
 * for the small host structures around them. */
#ifndef KDHPC_BASE_MEM_H
#define KDHPC_BASE_MEM_H

#include "kdhpc/base/status.h"

#include <stdint.h>

/** Allocate N * SIZE zeroed bytes into *OUT (owned by the caller, free() it).  Local.
 *  N of 0 gives a valid pointer.  KD_ENOMEM, with the size in the text. */
int kd_calloc(int64_t n, size_t size, void *out) KD_MUST_CHECK;

/** Make *ARRAY (NULL or malloc'ed) hold at least NEED elements of SIZE bytes; *CAP is
 * its capacity and grows by doubling.  New elements are not zeroed.  Local.  KD_ENOMEM.
 */
int kd_grow(void *array, int64_t *cap, int64_t need, size_t size) KD_MUST_CHECK;

/** Peak resident set of this process in bytes.  Local. */
int64_t kd_peak_rss_bytes(void);

/** Memory that this process may have on its machine: what is built in, or less by the
 * least limit of the control groups (version 2 or 1) that hold the process.  ROOT is
 * "", or the directory under which a test keeps its proc and sys.  Local. */
int64_t kd_memory_limit_bytes(const char *root);

#endif
