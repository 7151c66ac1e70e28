/* SPDX-License-Identifier: Apache-2.0 */
/* A growing array of bytes of which little stays in memory. */
#ifndef KDHPC_SRC_MODE_SPILL_H
#define KDHPC_SRC_MODE_SPILL_H

#include "kdhpc/store/h5.h"

/** Written first, then read; zero-initialise and set DIR (borrowed), where its file
 * goes if it needs one. */
struct kd_spill {
    const char *dir;
    char *buffer; /* [KD_SPILL_BYTES] what was appended last, or what was read */
    int64_t used; /* of the buffer, while appending */
    int64_t bytes;
    int fd; /* of the nameless file; 0: none yet */
};

enum { KD_SPILL_BYTES = 4 << 20 };

/** Append N bytes.  Local.  KD_EOUTPUT: no room for the file. */
int kd_spill_append(struct kd_spill *s, const void *bytes, int64_t n) KD_MUST_CHECK;

/** *OUT points at bytes [AT, AT + N), N at most KD_SPILL_BYTES, until the next call.
 * Nothing can be appended afterwards.  Local. */
int kd_spill_read(struct kd_spill *s, int64_t at, int64_t n,
                  const void **out) KD_MUST_CHECK;

/** The content as values of DTYPE to be written; V borrows S. */
struct kd_h5_values kd_spill_values(struct kd_spill *s, enum kd_dtype dtype);

void kd_spill_free(struct kd_spill *s);

#endif
