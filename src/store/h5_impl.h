/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of store/ share of the HDF5 layer: the open file, failures with the
 * library's own reason, and local (one rank) access for reading and checking. */
#ifndef KDHPC_SRC_STORE_H5_IMPL_H
#define KDHPC_SRC_STORE_H5_IMPL_H

#include "kdhpc/store/h5.h"

#include <hdf5.h>

enum { KD_DIGEST_CHARS = 16, KD_H5_NAME_MAX = 256 };

/* Content digest of one dataset. */
struct kd_h5_digest {
    char name[KD_H5_NAME_MAX]; /* path in the file, without a leading slash */
    uint64_t digest;           /* xxh64 of the values, little-endian */
};

struct kd_h5 {
    struct kd_comm *comm; /* NULL: opened by this rank alone */
    hid_t file;
    char *path, *part; /* part NULL: reading */
    struct kd_h5_digest *digests;
    int64_t n_digests, cap_digests;
};

/** Where the values of a dataset are. */
struct kd_h5_place {
    int64_t rows, cols, n;
    int64_t offset; /* in the file, if the values can be mapped; else -1 */
};

/** Fail with PATH, WHAT and HDF5's innermost reason.  Local.  Use KD_H5_FAIL. */
int kd_h5_fail_at(const char *file, int line, int code, const char *path,
                  const char *what);
#define KD_H5_FAIL(code, path, what)                                                   \
    kd_h5_fail_at(__FILE__, __LINE__, (code), (path), (what))

/** Stop HDF5's own printing and its clean-up at exit (which would meet a finished MPI).
 * Local; call before anything else of the library. */
void kd_h5_quiet(void);

/** In-memory type of DTYPE; 16-bit floats are stored as their bits.  Local. */
hid_t kd_h5_type(enum kd_dtype dtype);

/** Open PATH for reading by this rank alone.  Local.  KD_EINPUT. */
int kd_h5_open_local(const char *path, struct kd_h5 **out) KD_MUST_CHECK;

/** The collective reads of kd_h5 by this rank alone.  Local.  KD_EINPUT. */
int kd_h5_read_local(struct kd_h5 *f, const char *name, enum kd_dtype dtype, void **out,
                     int64_t *n) KD_MUST_CHECK;
/** Read dataset NAME of exactly N values into VALUES.  Local.  KD_EINPUT. */
int kd_h5_read_into(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
                    void *values, int64_t n) KD_MUST_CHECK;
/** Read values [FIRST, FIRST + N) of the 1-d dataset NAME of exactly TOTAL.  Local.
 * KD_EINPUT. */
int kd_h5_read_part(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
                    int64_t total, int64_t first, int64_t n,
                    void *values) KD_MUST_CHECK;
int kd_h5_read_text_local(struct kd_h5 *f, const char *name, char **out) KD_MUST_CHECK;
int kd_h5_attr_local(struct kd_h5 *f, const char *name, char **out) KD_MUST_CHECK;
int kd_h5_attr_of(hid_t object, const char *path, const char *name,
                  char **out) KD_MUST_CHECK;
int kd_h5_attr_i64_local(struct kd_h5 *f, const char *name, int64_t *out) KD_MUST_CHECK;

/** Whether the file itself has attribute NAME.  Local. */
bool kd_h5_has_attr(struct kd_h5 *f, const char *name);

/** Put TEXT as attribute NAME on OBJECT of the file PATH: the same call with the same
 * text on every rank, whose status is a local fact.  KD_EOUTPUT. */
int kd_h5_put_text(hid_t object, const char *path, const char *name,
                   const char *text) KD_MUST_CHECK;

/** Vote on RC; on failure free and clear *TEXT, which some ranks may have.  Collective.
 */
int kd_h5_agree_text(struct kd_comm *comm, int rc, char **text) KD_MUST_CHECK;

/** Reads the value of ARG's object in the type MEM into OUT. */
typedef herr_t kd_h5_reader(void *arg, hid_t mem, void *out);

/** Read the one string of an object with TYPE and SPACE through READ into malloc'ed
 * *OUT.  Local.  KD_EINPUT without a message where there is not one string. */
int kd_h5_read_string(hid_t type, hid_t space, kd_h5_reader *read, void *arg,
                      char **out) KD_MUST_CHECK;

/** What the attributes of a file must say. */
struct kd_h5_schema {
    const char *name, *or_name; /* allowed schemas; OR_NAME may be NULL */
    const char *what;           /* "corpus", for a message */
    int64_t version;
};

/** That F is what WANT says.  Local.  KD_EINPUT. */
int kd_h5_check_schema(struct kd_h5 *f, const struct kd_h5_schema *want) KD_MUST_CHECK;

/** Find dataset NAME of class and size DTYPE and check it against the file's size.
 * Local.  KD_EINPUT. */
int kd_h5_find(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
               struct kd_h5_place *out) KD_MUST_CHECK;

/** Hash of the ranks' VALUES of UNIT bytes one after the other.  Collective. */
int kd_h5_digest_in_rank_order(struct kd_comm *comm, const struct kd_h5_values *values,
                               size_t unit, uint64_t *out) KD_MUST_CHECK;

/** As many of V's rows as one call may ask for, and as UNIT bytes each allow in one
 * library call.  Local. */
int64_t kd_h5_rows_per_call(const struct kd_h5_values *v, size_t unit);

/** Remember the digest of a dataset.  Local. */
int kd_h5_note_digest(struct kd_h5 *f, const char *name, uint64_t digest) KD_MUST_CHECK;

/** One digest for all datasets noted but `options`: it names content, not how or by how
 * many ranks it was made.  Local. */
uint64_t kd_h5_file_digest(struct kd_h5 *f);

/** Compare DIGEST, of the values just read, with the one kept on dataset NAME.  Local.
 * KD_EINPUT. */
int kd_h5_check_digest(struct kd_h5 *f, const char *name,
                       uint64_t digest) KD_MUST_CHECK;

/** DIGEST as 16 hexadecimal digits. */
void kd_h5_digest_text(uint64_t digest, char out[KD_DIGEST_CHARS + 1]);

/** Close and free a file opened by this rank alone; NULL is fine.  Local. */
void kd_h5_close_local(struct kd_h5 *f);

#endif
