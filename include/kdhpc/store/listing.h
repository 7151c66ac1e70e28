/* SPDX-License-Identifier: Apache-2.0 */
/* What is in a file that this program wrote, and whether it is still what was written.
 */
#ifndef KDHPC_STORE_LISTING_H
#define KDHPC_STORE_LISTING_H

#include "kdhpc/tensor/tensor.h"

enum { KD_STORE_NAME_MAX = 256 };

struct kd_store_item {
    char name[KD_STORE_NAME_MAX]; /* path of the dataset in the file */
    char dtype[16];               /* "int64", "float32", ..., "text" */
    int64_t rows, cols;           /* text: its bytes, 1 */
};

struct kd_store_listing {
    char *schema, *version, *digest, *parents; /* attributes; "" where absent */
    int64_t schema_version;                    /* 0 where absent */
    int64_t n;
    struct kd_store_item *items; /* [n], by name within each group */
};

/** Describe PATH; VERIFY: also compare the digests of all datasets and of the file with
 * their content.  Local.  KD_EINPUT names what is damaged.  *OUT is zeroed on failure;
 * else free it. */
int kd_store_list(const char *path, bool verify,
                  struct kd_store_listing *out) KD_MUST_CHECK;
void kd_store_listing_free(struct kd_store_listing *l);

#endif
