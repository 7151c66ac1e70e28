/* SPDX-License-Identifier: Apache-2.0 */
/* Training checkpoints: flat float32 arrays by name plus a small JSON state, in one
 * parallel HDF5 file.  The ranks write equal shares of each array, so any number writes
 * and any number reads; an array that no rank holds as a whole is asked for by shares
 * and given back in pieces. */
#ifndef KDHPC_STORE_CHECKPOINT_H
#define KDHPC_STORE_CHECKPOINT_H

#include "kdhpc/comm/comm.h"

struct kd_checkpoint_array {
    const char *name; /* e.g. "params", "adam_m" */
    float *values;    /* the same on every rank, in memory of BE; or NULL, and then: */
    int64_t n;
    struct kd_backend *be; /* borrowed; NULL: host memory */

    /* Copy values [FIRST, FIRST + N), another range on each rank, to OUT.  Collective.
     */
    int (*get)(void *arg, int64_t first, int64_t n, float *out);
    /* Take from values [FIRST, FIRST + N) what this rank wants.  Local. */
    int (*put)(void *arg, int64_t first, int64_t n, const float *in);
    void *arg;
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
