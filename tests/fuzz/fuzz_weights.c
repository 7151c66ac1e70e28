/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a file of weights, of either kind: refused or read, never a crash.  What
 * is read is read to its last value. */
#include "kdhpc/store/weights.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_all(const struct kd_weight *t)
{
    enum { VALUES = 1024, MOST = 1 << 14 };
    unsigned char raw[VALUES * 8];
    float values[VALUES];

    for (int64_t at = 0; at < t->count && at < MOST; at += VALUES) {
        int64_t n = t->count - at < VALUES ? t->count - at : VALUES;

        kd_weight_copy(t, at, n, raw);
        kd_weight_to_f32(t, at, n, values);
        kd_weight_copy(t, t->count - n, n, raw);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kd_weights *w = NULL;

    if (kd_weights_open_bytes(data, (int64_t)size, "input", &w)) {
        kd_error_clear();
        return 0;
    }
    for (int i = 0; i < kd_weights_count(w); i++)
        if (kd_weights_at(w, i)->ndim <= KD_MAX_DIMS)
            read_all(kd_weights_at(w, i));
    kd_weights_close(w);
    return 0;
}
