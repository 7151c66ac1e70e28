/* SPDX-License-Identifier: Apache-2.0 */
/* A backend in front of a device's: its memory is the host's, so that tests read and
 * write what they pass, and every call runs on the device.
 *
 * Each buffer that a call names is copied to a new buffer of the device and back after
 * the call.  So a pointer that the device's backend takes for the wrong side, or a
 * buffer that it keeps, shows.  With MIRROR_BF16 the float32 tensors that are
 * activations go to the device as bfloat16 and come back from it: the same test, with
 * a wider bound, asks for the other type; MIRROR_MIXED leaves the results of products
 * in float32. */
#ifndef KDHPC_MIRROR_BACKEND_H
#define KDHPC_MIRROR_BACKEND_H

#include "kdhpc/tensor/backend.h"

enum mirror_type { MIRROR_F32, MIRROR_BF16, MIRROR_MIXED };

struct mirror_region {
    char *base;
    size_t bytes;
};

/* The buffers of one or more mirrors: what one has allocated, all know. */
struct mirror_memory {
    struct mirror_region *regions;
    int64_t n, cap;
};

/** A mirror of INNER, which it owns from now on; MEMORY is borrowed and freed by
 * mirror_memory_free when its mirrors are gone.  Local. */
int mirror_backend(struct kd_backend *inner, enum mirror_type type,
                   struct mirror_memory *memory, struct kd_backend **out) KD_MUST_CHECK;

/** The backend behind a mirror. */
struct kd_backend *mirror_inner(struct kd_backend *be);

void mirror_memory_free(struct mirror_memory *memory);

#endif
