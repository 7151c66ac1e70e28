/* SPDX-License-Identifier: Apache-2.0 */
/* Parameters: a table of names over flat slabs (values, gradients).
 *
 * Where the compute type is bfloat16 there is a third slab of the same layout, the
 * rounded values, from which matrices and tables are read; the float32 values stay the
 * masters, which files and the optimiser see.  Whoever writes values keeps it in step:
 * kd_params_upload, kd_params_refresh, and the optimiser as it goes.
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
    KD_PARAM_BUFFER,  /* a constant of the checkpoint, zeros if it lacks it */
    KD_PARAM_SINUSOID /* a constant that a formula gives; files need not hold it */
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
    int64_t n_slab;      /* float32 values in the slab, padding included */
    float *values;       /* [n_slab], backend memory */
    float *grads;        /* [n_slab] or NULL: no training */
    enum kd_dtype dtype; /* compute type: KD_F32 or KD_BF16 */
    uint16_t *rounded;   /* [n_slab] values in bfloat16; NULL in float32 */
};

/** Whether P is never trained, and no parameter in the sense of counts.  Local. */
static inline bool kd_param_is_constant(const struct kd_param *p)
{
    return p->kind == KD_PARAM_BUFFER || p->kind == KD_PARAM_SINUSOID;
}

/** Index of NAME, or -1.  Local. */
int kd_params_find(const struct kd_params *p, const char *name);

/** Number of values without padding and buffers.  Local. */
int64_t kd_params_count(const struct kd_params *p);

/** Allocate (zeroed) gradients / free them.  Local. */
int kd_params_alloc_grads(struct kd_params *p) KD_MUST_CHECK;

/** Allocate the slabs for the compute type DTYPE; n_slab is set.  Padding and constants
 * are zero, the values of parameters are whatever the memory held.  Local.
 * KD_EINTERNAL: not a compute type; KD_ENOMEM. */
int kd_params_alloc(struct kd_params *p, enum kd_dtype dtype) KD_MUST_CHECK;

/** Free all slabs and the table.  Local. */
void kd_params_free(struct kd_params *p);

/** Make the rounded values anew, after the values were written as a whole.  Local. */
int kd_params_refresh(struct kd_params *p) KD_MUST_CHECK;

/** Slab values from FIRST on as parameters read them: rounded for matrices and tables
 * where there are rounded values, else float32.  Local; *DTYPE says which. */
void *kd_params_read_from(const struct kd_params *p, const struct kd_param *item,
                          int64_t first, enum kd_dtype *dtype);

/** The rounded values from slab value FIRST on, or NULL.  Local. */
static inline uint16_t *kd_params_rounded(const struct kd_params *p, int64_t first)
{
    return p->rounded ? p->rounded + first : NULL;
}

/** Values of one parameter as a host float32 array, copied out / in.  Local. */
int kd_params_download(const struct kd_params *p, int index, float *out) KD_MUST_CHECK;
int kd_params_upload(struct kd_params *p, int index, const float *in) KD_MUST_CHECK;

#endif
