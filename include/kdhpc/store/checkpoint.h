/* SPDX-License-Identifier: Apache-2.0 */
/* Training checkpoints: flat float32 arrays by name plus a small JSON state, in one
 * parallel HDF5 file.  Every rank holds the same arrays; the ranks write equal shares
 * of each, so any number writes and any number reads. */
#ifndef KDHPC_STORE_CHECKPOINT_H
#define KDHPC_STORE_CHECKPOINT_H

#include "kdhpc/comm/comm.h"

struct kd_checkpoint_array {
    const char *name; /* e.g. "params", "adam_m" */
    float *values;    /* the same on every rank, in memory of BE */
    int64_t n;
    struct kd_backend *be; /* borrowed; NULL: host memory */
};

/** Write DIR/checkpoint-%08d.h5 for STEP, with STATE (a JSON text) and a digest per
 * array.  Collective.  KD_EOUTPUT. */
int kd_checkpoint_write(struct kd_comm *comm, const char *dir, int64_t step,
                        const char *state, const struct kd_checkpoint_array *arrays,
                        int n_arrays) KD_MUST_CHECK;

/** Path (malloc'ed) of the newest valid checkpoint under DIR, warning why newer ones
 * were passed over; *PATH NULL if there is none.  FINGERPRINT (may be NULL) must equal
 * the state's "fingerprint".  Collective. */
int kd_checkpoint_newest(struct kd_comm *comm, const char *dir, const char *fingerprint,
                         char **path) KD_MUST_CHECK;

/** Read the arrays (sizes must match: KD_EINPUT) and the state (malloc'ed). Collective.
 */
int kd_checkpoint_read(struct kd_comm *comm, const char *path,
                       const struct kd_checkpoint_array *arrays, int n_arrays,
                       char **state) KD_MUST_CHECK;

/** Remove all but the newest KEEP checkpoints of DIR.  Collective. */
int kd_checkpoint_prune(struct kd_comm *comm, const char *dir,
                        int64_t keep) KD_MUST_CHECK;

#endif
