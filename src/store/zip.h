/* SPDX-License-Identifier: Apache-2.0 */
/* Members of a zip archive that lies in memory, as views: for archives whose members
 * are stored uncompressed, as PyTorch writes them. */
#ifndef KDHPC_SRC_STORE_ZIP_H
#define KDHPC_SRC_STORE_ZIP_H

#include "kdhpc/base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct kd_zip_member {
    const char *name; /* in the archive, without a NUL */
    int64_t name_len;
    const unsigned char *data; /* NULL: compressed or encrypted */
    int64_t n_bytes;
};

struct kd_zip {
    struct kd_zip_member *members; /* ordered by name */
    int64_t n, cap;
};

/** Whether BYTES[n] begin as a zip archive does.  Local. */
bool kd_zip_begins(const unsigned char *bytes, int64_t n);

/** Read the directory of the archive BYTES[n]; PATH is for messages.  Free with
 * kd_zip_free, also after a failure.  Local.  KD_EINPUT. */
int kd_zip_read(const unsigned char *bytes, int64_t n, const char *path,
                struct kd_zip *out) KD_MUST_CHECK;
void kd_zip_free(struct kd_zip *z);

/** The member of this name, or NULL.  Local. */
const struct kd_zip_member *kd_zip_find(const struct kd_zip *z, const char *name,
                                        int64_t len);

#endif
