/* SPDX-License-Identifier: Apache-2.0 */
/* Reading of checkpoint weights: one table of tensors over safetensors files and
 * PyTorch's zip files, whole or in shards, all of them mapped. */
#ifndef KDHPC_STORE_WEIGHTS_H
#define KDHPC_STORE_WEIGHTS_H

#include "kdhpc/tensor/tensor.h"

/** A tensor of a checkpoint: a view into a mapped file, whose values need be neither
 * aligned nor in order. */
struct kd_weight {
    char *name;
    const char *dtype; /* as safetensors spells it: "F32", "BF16", "I64", "BOOL" ... */
    int item_bytes;
    int ndim; /* 0 .. any; beyond KD_MAX_DIMS the values cannot be read */
    int64_t shape[KD_MAX_DIMS], stride[KD_MAX_DIMS]; /* strides in values */
    int64_t count;
    const unsigned char *data;
    const char *path; /* of its file; borrowed */
};

struct kd_weights; /* the tensors of one directory or file */

/** Open what transformers would take from DIR: model.safetensors, the shards of its
 * index, pytorch_model.bin, the shards of its index.  Local.  KD_EINPUT names file and
 * fault. */
int kd_weights_open(const char *dir, struct kd_weights **out) KD_MUST_CHECK;

/** Open one file of either kind.  Local. */
int kd_weights_open_file(const char *path, struct kd_weights **out) KD_MUST_CHECK;

/** Read a file of either kind that lies in memory (borrowed until the close); WHAT
 * stands for its path.  Local. */
int kd_weights_open_bytes(const void *bytes, int64_t n, const char *what,
                          struct kd_weights **out) KD_MUST_CHECK;
void kd_weights_close(struct kd_weights *w);

/** Names in DIR of the index (if there is one) and of the files with weights, in the
 * index's order: *NAMES, NULL-terminated, for kd_weights_files_free.  Local. */
int kd_weights_files(const char *dir, char ***names) KD_MUST_CHECK;
void kd_weights_files_free(char **names);

/** The tensors, ordered by name.  Local. */
int kd_weights_count(const struct kd_weights *w);
const struct kd_weight *kd_weights_at(const struct kd_weights *w, int i);

/** The tensor of this name, or NULL.  Local. */
const struct kd_weight *kd_weights_find(const struct kd_weights *w, const char *name);

/** The floating-point type of the most values (KD_F32 if there are none).  Local. */
enum kd_dtype kd_weights_dtype(const struct kd_weights *w);

/** Whether T holds floating-point numbers; *DTYPE (may be NULL) says which.  Local. */
bool kd_weight_is_float(const struct kd_weight *t, enum kd_dtype *dtype);

/** KD_EINPUT unless T is floating-point, with at most KD_MAX_DIMS dimensions.  Local.
 */
int kd_weight_check(const struct kd_weight *t) KD_MUST_CHECK;

/** Values [FIRST, FIRST + N) of T, row-major, as they are / as float32 (T has passed
 * kd_weight_check).  Local, thread-safe. */
void kd_weight_copy(const struct kd_weight *t, int64_t first, int64_t n, void *out);
void kd_weight_to_f32(const struct kd_weight *t, int64_t first, int64_t n, float *out);

#endif
