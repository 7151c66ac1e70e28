/* SPDX-License-Identifier: Apache-2.0 */
/* Writing of the safetensors container, whole or in shards with an index.  Reading is
 * in store/weights.h. */
#ifndef KDHPC_STORE_SAFETENSORS_H
#define KDHPC_STORE_SAFETENSORS_H

#include "kdhpc/store/weights.h"

/** A tensor to write; everything borrowed. */
struct kd_named_tensor {
    const char *name;
    int ndim;
    int64_t shape[KD_MAX_DIMS];
    const float *values; /* host */
    /* in place of values: a checkpoint's, with zeros after its last; if they are not
     * floating-point they keep their type */
    const struct kd_weight *from;
    bool own_type; /* written in the type it has, whatever the others are cast to */
};

/** What KD_AS_IT_IS gives each tensor that has `from` is the type it has there. */
enum { KD_AS_IT_IS = -1 };

/** Write PATH (through PATH.part) with metadata {"format": "pt"}, values cast to DTYPE
 * (KD_F32, KD_BF16, KD_F16 or KD_AS_IT_IS).  Local. */
int kd_safetensors_write(const char *path, int dtype,
                         const struct kd_named_tensor *tensors, int n) KD_MUST_CHECK;

/** Write DIR/model.safetensors, or, where the data is larger than MAX_BYTES, shards of
 * at most that size (a larger tensor has one of its own) and their index.  Local. */
int kd_safetensors_write_dir(const char *dir, int dtype, int64_t max_bytes,
                             const struct kd_named_tensor *tensors,
                             int n) KD_MUST_CHECK;

#endif
