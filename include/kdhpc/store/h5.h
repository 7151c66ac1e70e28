/* SPDX-License-Identifier: Apache-2.0 */
/* Parallel HDF5 with agreed errors: the only calls into the library.
 *
 * A write is: local count, exclusive scan, vote, one collective hyperslab write, vote.
 * Files are written as PATH.part and renamed when they are whole. */
#ifndef KDHPC_STORE_H5_H
#define KDHPC_STORE_H5_H

#include "kdhpc/comm/comm.h"

struct kd_h5;

/** Library version text.  Local. */
const char *kd_h5_library(void);

/** Create PATH.part / open PATH for reading.  Collective.  KD_EOUTPUT / KD_EINPUT. */
int kd_h5_create(struct kd_comm *comm, const char *path,
                 struct kd_h5 **out) KD_MUST_CHECK;
int kd_h5_open(struct kd_comm *comm, const char *path,
               struct kd_h5 **out) KD_MUST_CHECK;

/** Close; for a created file also rename to PATH.  Frees F whatever happens.
 * Collective. */
int kd_h5_commit(struct kd_h5 *f) KD_MUST_CHECK;
/** Close without keeping a created file.  Collective. */
void kd_h5_abandon(struct kd_h5 *f);

/** Write dataset NAME (groups in the name are made) as the concatenation, in rank
 * order, of N_LOCAL rows of COLS values each (COLS 1: a 1-d dataset).  Collective.
 * VALUES borrowed. */
int kd_h5_write(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
                const void *values, int64_t n_local, int64_t cols) KD_MUST_CHECK;

/** Write a ragged pair NAME/offsets, NAME/values from local rows with local
 * OFFSETS[n_local + 1].  Collective. */
int kd_h5_write_ragged(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
                       const void *values, const int64_t *offsets,
                       int64_t n_local) KD_MUST_CHECK;

/** Rows of this rank that need not be in memory at once: READ points *OUT, until it is
 * called again, at rows [AT, AT + N), N at most PER_CALL.  Rows are read twice, in
 * order: to be written, and for the digest.  READ is Local. */
struct kd_h5_values {
    int64_t n;        /* rows */
    int64_t per_call; /* 0: any number */
    int (*read)(void *arg, int64_t at, int64_t n, const void **out);
    void *arg;
};

/** kd_h5_write of a 1-d dataset and kd_h5_write_ragged, piece by piece.  STARTS: for
 * each row of the ragged pair where it begins in VALUES (int64, from 0).  Collective.
 */
int kd_h5_write_values(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
                       const struct kd_h5_values *values) KD_MUST_CHECK;
int kd_h5_write_ragged_values(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
                              const struct kd_h5_values *starts,
                              const struct kd_h5_values *values) KD_MUST_CHECK;

/** Text as an attribute of the file (short) or a dataset (any length).  Collective;
 * same TEXT on every rank. */
int kd_h5_set_attr(struct kd_h5 *f, const char *name, const char *text) KD_MUST_CHECK;
int kd_h5_set_attr_i64(struct kd_h5 *f, const char *name, int64_t value) KD_MUST_CHECK;
int kd_h5_write_text(struct kd_h5 *f, const char *name, const char *text) KD_MUST_CHECK;

/** Texts and attributes on every rank; *OUT is malloc'ed (caller frees).  Collective.
 */
int kd_h5_read_text(struct kd_h5 *f, const char *name, char **out) KD_MUST_CHECK;
int kd_h5_get_attr(struct kd_h5 *f, const char *name,
                   char **out) KD_MUST_CHECK; /* KD_EINPUT if absent */
int kd_h5_get_attr_i64(struct kd_h5 *f, const char *name, int64_t *out) KD_MUST_CHECK;
bool kd_h5_has(struct kd_h5 *f, const char *name); /* Local on an open file */

#endif
