/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters: a table of names over flat slabs (values, gradients).
 *
 * Registration order is memory order, so q, k and v of a layer are one [3 d, d] matrix
 * and a gradient bucket is a range.  Names are the checkpoint's (Hugging Face's). */
#ifndef KDHPC_MODEL_PARAM_H
#define KDHPC_MODEL_PARAM_H

#include "kdhpc/autograd/tape.h"

enum kd_param_kind {
    KD_PARAM_WEIGHT,
    KD_PARAM_BIAS,
    KD_PARAM_NORM,
    KD_PARAM_EMBED,
    KD_PARAM_POS,
    KD_PARAM_BUFFER
};
enum kd_param_part {
    KD_PART_SHARED = 1,
    KD_PART_ENCODER = 2,
    KD_PART_DECODER = 4
}; /* who owns it */

enum { KD_PARAM_NAME_MAX = 112 };

struct kd_param {
    char name[KD_PARAM_NAME_MAX];
    enum kd_param_kind kind;
    enum kd_param_part part;
    int ndim;
    int64_t shape[2];
    int64_t offset, count; /* values, in the slab (64-byte aligned starts of groups;
                              packed within a group) */
    bool frozen;           /* no gradient, not trained (buffers always) */
};

struct kd_params {
    struct kd_backend *be;
    int n;
    struct kd_param *items;
    int64_t n_slab; /* float32 values in the slab, padding included */
    float *values;  /* [n_slab], backend memory */
    float *grads;   /* [n_slab] or NULL: no training */
};

/** Index of NAME, or -1.  Local. */
int kd_params_find(const struct kd_params *p, const char *name);

/** Number of values without padding and buffers.  Local. */
int64_t kd_params_count(const struct kd_params *p);

/** Allocate (zeroed) gradients / free them.  Local. */
int kd_params_alloc_grads(struct kd_params *p) KD_MUST_CHECK;

/** Values of one parameter as a host float32 array, copied out / in.  Local. */
int kd_params_download(const struct kd_params *p, int index, float *out) KD_MUST_CHECK;
int kd_params_upload(struct kd_params *p, int index, const float *in) KD_MUST_CHECK;

#endif
