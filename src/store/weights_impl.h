/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the table of weights: a container format is a function that checks the
 * bytes of one file and adds its tensors. */
#ifndef KDHPC_SRC_STORE_WEIGHTS_IMPL_H
#define KDHPC_SRC_STORE_WEIGHTS_IMPL_H

#include "kdhpc/store/weights.h"

/** A file that is open: its bytes, mapped or borrowed. */
struct kd_weights_file {
    char *path;
    const unsigned char *bytes;
    int64_t n_bytes;
    bool mapped;
};

struct kd_weights {
    int n_files, n;
    int64_t cap_files, cap;
    struct kd_weights_file *files;
    struct kd_weight *items; /* sorted by name once everything is open */
};

/** Set T's dtype and item_bytes by safetensors' name of it; false if it is not known.
 */
bool kd_weight_set_dtype(struct kd_weight *t, const char *dtype);

/** Add *T with a copy of NAME[len].  Local. */
int kd_weights_add(struct kd_weights *w, const struct kd_weight *t, const char *name,
                   int64_t len) KD_MUST_CHECK;

/** Check F and add its tensors.  Local.  KD_EINPUT. */
int kd_safetensors_parse(struct kd_weights *w,
                         const struct kd_weights_file *f) KD_MUST_CHECK;
int kd_torchbin_parse(struct kd_weights *w,
                      const struct kd_weights_file *f) KD_MUST_CHECK;

/** Little-endian number of N <= 8 bytes. */
static inline uint64_t kd_little(const unsigned char *b, int n)
{
    uint64_t x = 0;

    while (n-- > 0)
        x = x << 8 | b[n];
    return x;
}

#endif
