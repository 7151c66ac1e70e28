/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and writing of the safetensors container, mapped, with every check of the
 * format. */
#ifndef KDHPC_STORE_SAFETENSORS_H
#define KDHPC_STORE_SAFETENSORS_H

#include "kdhpc/tensor/tensor.h"

struct kd_safetensors; /* one file, or several behind an index */

/** Open DIR/model.safetensors, or the shards of DIR/model.safetensors.index.json.
 * Local.  KD_EINPUT names file and fault. */
int kd_safetensors_open(const char *dir, struct kd_safetensors **out) KD_MUST_CHECK;
void kd_safetensors_close(struct kd_safetensors *s);

int kd_safetensors_count(const struct kd_safetensors *s);
const char *kd_safetensors_name(const struct kd_safetensors *s, int i);

/** A view of tensor NAME in the map (ndim may be 0); *FOUND false if absent.  F32, F16
 * and BF16 only, other dtypes are KD_EINPUT when asked for.  The data pointer may be
 * unaligned.  Local. */
int kd_safetensors_get(const struct kd_safetensors *s, const char *name,
                       struct kd_tensor *out, bool *found) KD_MUST_CHECK;

/** Convert COUNT values of T to float32.  Local. */
void kd_safetensors_to_f32(const struct kd_tensor *t, float *out);

struct kd_named_tensor {
    const char *name;
    int ndim;
    int64_t shape[KD_MAX_DIMS];
    const float *values; /* host */
};

/** Write PATH (through PATH.part) with metadata {"format": "pt"}, values cast to DTYPE
 * (KD_F32, KD_BF16 or KD_F16).  Local. */
int kd_safetensors_write(const char *path, enum kd_dtype dtype,
                         const struct kd_named_tensor *tensors, int n) KD_MUST_CHECK;

#endif
