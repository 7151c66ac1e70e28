/* SPDX-License-Identifier: Apache-2.0 */
/* Writing of datasets by all ranks together.
 *
 * Rows are counted, placed by an exclusive scan and written in one collective call; a
 * rank without rows selects none and still calls, since one rank that stays away would
 * hang the others.  Rows come through a function, which may hold them in memory or
 * fetch them piece by piece; then every rank takes part in as many rounds as the one
 * with most pieces.  Datasets are contiguous, unfiltered and aligned, so that readers
 * can map them, and their room on the disk is reserved before any rank writes. */
#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"
#include "kdhpc/comm/comm_mpi.h"

#include "h5_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    RESERVE_BYTES = 1 << 16, /* for the metadata that closing writes */
    ROUND_BYTES = 1 << 30    /* a rank's share of one library call: below int counts */
};

/* Handles of one write; all invalid at first. */
struct slab {
    hid_t lcpl, dcpl, dxpl, file_space, type, set;
    hsize_t first, total, cols;
    int n_dims;
};

static const struct slab SLAB_NONE = {H5I_INVALID_HID,
                                      H5I_INVALID_HID,
                                      H5I_INVALID_HID,
                                      H5I_INVALID_HID,
                                      H5I_INVALID_HID,
                                      H5I_INVALID_HID,
                                      0,
                                      0,
                                      0,
                                      0};

static void slab_close(struct slab *s)
{
    if (s->set >= 0)
        H5Dclose(s->set);
    if (s->type >= 0)
        H5Tclose(s->type);
    if (s->file_space >= 0)
        H5Sclose(s->file_space);
    if (s->dxpl >= 0)
        H5Pclose(s->dxpl);
    if (s->dcpl >= 0)
        H5Pclose(s->dcpl);
    if (s->lcpl >= 0)
        H5Pclose(s->lcpl);
}

/* Property lists and the file's space; no rank talks to another here. */
static int slab_prepare(struct slab *s, struct kd_h5 *f, hid_t type)
{
    hsize_t dims[2] = {s->total, s->cols};
    bool ok;

    KD_TRY(KD_FAULT("h5.prepare"));
    s->type = H5Tcopy(type);
    s->file_space =
        s->n_dims ? H5Screate_simple(s->n_dims, dims, NULL) : H5Screate(H5S_SCALAR);
    s->lcpl = H5Pcreate(H5P_LINK_CREATE);
    s->dcpl = H5Pcreate(H5P_DATASET_CREATE);
    s->dxpl = H5Pcreate(H5P_DATASET_XFER);
    ok = s->type >= 0 && s->file_space >= 0 && s->lcpl >= 0 && s->dcpl >= 0 &&
         s->dxpl >= 0;
    ok = ok && H5Pset_create_intermediate_group(s->lcpl, 1) >= 0 &&
         H5Pset_layout(s->dcpl, H5D_CONTIGUOUS) >= 0 &&
         H5Pset_fill_time(s->dcpl, H5D_FILL_TIME_NEVER) >= 0 &&
         H5Pset_dxpl_mpio(s->dxpl, H5FD_MPIO_COLLECTIVE) >= 0;
    if (!ok)
        return KD_H5_FAIL(KD_EINTERNAL, f->part, "cannot prepare a dataset");
    return KD_OK;
}

static int slab_create_call(struct slab *s, struct kd_h5 *f, const char *name)
{
    s->set = H5Dcreate2(f->file, name, s->type, s->file_space, s->lcpl, s->dcpl,
                        H5P_DEFAULT);
    if (s->set < 0)
        return KD_H5_FAIL(KD_EOUTPUT, f->part, name);
    return KD_FAULT("h5.dataset");
}

/* What rank 0 reserves on the disk. */
struct reservation {
    const char *part;
    int64_t bytes; /* from the beginning of the file */
};

/* A disk without room must be found here: inside a collective write or close some ranks
 * would fail and others wait for them.  File systems that cannot reserve may still do
 * that. */
static int root_reserve(void *arg)
{
    const struct reservation *r = arg;
    int fd = open(r->part, O_RDWR | O_CLOEXEC), err = 0;

    if (fd < 0 || fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)r->bytes))
        err = errno;
    if (fd >= 0)
        close(fd);
    if (err == ENOSPC || err == EDQUOT || err == EFBIG)
        return KD_FAIL(KD_EOUTPUT, "cannot write %s (%lld bytes so far): %s", r->part,
                       (long long)r->bytes, strerror(err));
    return KD_OK;
}

/* Room for the dataset, whose place in the file is known, and for metadata. */
static int slab_reserve(const struct slab *s, struct kd_h5 *f)
{
    haddr_t at = H5Dget_offset(s->set);
    struct reservation r = {f->part, RESERVE_BYTES};

    if (at != HADDR_UNDEF)
        r.bytes += (int64_t)(at + H5Dget_storage_size(s->set));
    return kd_root_do(f->comm, root_reserve, &r);
}

/* Select this rank's rows [AT, AT + N) of its share, or none. */
static int slab_select(struct slab *s, hsize_t at, hsize_t n, hid_t *mem)
{
    hsize_t start[2] = {s->first + at, 0}, count[2] = {n, s->cols};
    hsize_t n_values = n * s->cols;

    KD_TRY(KD_FAULT("h5.select"));
    *mem = H5Screate_simple(1, &n_values, NULL);
    if (*mem < 0)
        return KD_H5_FAIL(KD_EINTERNAL, "write", "cannot make a selection");
    if (n_values == 0) {
        if (H5Sselect_none(s->file_space) < 0 || H5Sselect_none(*mem) < 0)
            return KD_H5_FAIL(KD_EINTERNAL, "write", "cannot select nothing");
    } else if (s->n_dims == 0) {
        if (H5Sselect_all(s->file_space) < 0)
            return KD_H5_FAIL(KD_EINTERNAL, "write", "cannot select a scalar");
    } else if (H5Sselect_hyperslab(s->file_space, H5S_SELECT_SET, start, NULL, count,
                                   NULL) < 0) {
        return KD_H5_FAIL(KD_EINTERNAL, "write", "cannot select rows");
    }
    return KD_OK;
}

static int slab_write_call(struct slab *s, struct kd_h5 *f, const char *name, hid_t mem,
                           const void *values)
{
    static const char nothing[8];

    if (H5Dwrite(s->set, s->type, mem, s->file_space, s->dxpl,
                 values ? values : nothing) < 0)
        return KD_H5_FAIL(KD_EOUTPUT, f->part, name);
    return KD_FAULT("h5.write");
}

/* This rank's part of a round: rows and where they go. */
static int slab_fetch(struct slab *s, const struct kd_h5_values *v, int64_t at,
                      int64_t n, hid_t *mem, const void **rows)
{
    *rows = NULL;
    if (n > 0)
        KD_TRY(v->read(v->arg, at, n, rows));
    return slab_select(s, (hsize_t)at, (hsize_t)n, mem);
}

/* One round of the collective write. */
static int slab_write_round(struct slab *s, struct kd_h5 *f, const char *name,
                            const struct kd_h5_values *v, int64_t at, int64_t n)
{
    hid_t mem = H5I_INVALID_HID;
    const void *rows;
    int rc = KD_OK;

    KD_ALL_GO(f->comm, slab_fetch(s, v, at, n, &mem, &rows));
    kd_comm_enter(f->comm, "h5_write", 0);
    rc = slab_write_call(s, f, name, mem, rows);
    kd_comm_leave(f->comm);
    rc = kd_agree(f->comm, rc);
out:
    if (mem >= 0)
        H5Sclose(mem);
    return rc;
}

int64_t kd_h5_rows_per_call(const struct kd_h5_values *v, size_t unit)
{
    int64_t n = (int64_t)unit < ROUND_BYTES ? ROUND_BYTES / (int64_t)unit : 1;

    return v->per_call > 0 && v->per_call < n ? v->per_call : n;
}

/* As many rounds on every rank as the largest share needs. */
static int slab_write(struct slab *s, struct kd_h5 *f, const char *name,
                      const struct kd_h5_values *v)
{
    int64_t step = kd_h5_rows_per_call(v, (size_t)s->cols * H5Tget_size(s->type));
    int64_t rounds = (v->n + step - 1) / step;

    KD_TRY(kd_allreduce_i64(f->comm, &rounds, 1, KD_MAX));
    for (int64_t i = 0; i < rounds; i++) {
        int64_t at = i * step, left = v->n - at;
        int64_t n = left <= 0 ? 0 : left < step ? left : step;

        KD_TRY(slab_write_round(s, f, name, v, n ? at : 0, n));
    }
    return KD_OK;
}

/* What a digest is taken of. */
struct digested {
    const struct kd_h5_values *values;
    size_t unit;
};

/* Create NAME, write this rank's rows, and leave the digest of the whole on it. */
static int write_slab(struct kd_h5 *f, const char *name, struct slab *s, hid_t type,
                      const struct kd_h5_values *values, struct digested digested)
{
    char text[KD_DIGEST_CHARS + 1];
    uint64_t digest = 0;
    int rc = KD_OK;

    KD_ALL_GO(f->comm, slab_prepare(s, f, type));
    KD_ALL_GO(f->comm, slab_create_call(s, f, name));
    KD_GO(slab_reserve(s, f));
    KD_GO(slab_write(s, f, name, values));
    KD_GO(kd_h5_digest_in_rank_order(f->comm, digested.values, digested.unit, &digest));
    kd_h5_digest_text(digest, text);
    KD_ALL_GO(f->comm, kd_h5_put_text(s->set, f->part, "digest", text));
    KD_ALL_GO(f->comm, kd_h5_note_digest(f, name, digest));
out:
    slab_close(s);
    return rc;
}

static int write_rows(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
                      const struct kd_h5_values *values, int64_t cols)
{
    struct slab s = SLAB_NONE;
    int64_t first, total;

    KD_TRY(kd_exscan_i64(f->comm, values->n, &first, &total));
    s.first = (hsize_t)first;
    s.total = (hsize_t)total;
    s.cols = (hsize_t)cols;
    s.n_dims = cols == 1 ? 1 : 2;
    return write_slab(f, name, &s, kd_h5_type(dtype), values,
                      (struct digested){values, (size_t)cols * kd_dtype_bytes(dtype)});
}

int kd_h5_write_values(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
                       const struct kd_h5_values *values)
{
    return write_rows(f, name, dtype, values, 1);
}

/* Rows in memory. */
struct in_memory {
    const char *rows;
    size_t unit;
};

static int read_memory(void *arg, int64_t at, int64_t n, const void **out)
{
    const struct in_memory *m = arg;

    (void)n;
    *out = m->rows + (size_t)at * m->unit;
    return KD_OK;
}

int kd_h5_write(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
                const void *values, int64_t n_local, int64_t cols)
{
    struct in_memory m = {values, (size_t)cols * kd_dtype_bytes(dtype)};
    struct kd_h5_values v = {n_local, 0, read_memory, &m};

    return write_rows(f, name, dtype, &v, cols);
}

/* ---- ragged pairs ---- */

enum { OFFSETS_PER_CALL = 1 << 16 };

/* The global offsets of this rank's rows: where they begin plus those before them, and
 * on the last rank the end of all. */
struct global_offsets {
    const struct kd_h5_values *starts;
    int64_t first, total;
    int64_t *buffer; /* [OFFSETS_PER_CALL] */
};

static int read_global(void *arg, int64_t at, int64_t n, const void **out)
{
    const struct global_offsets *g = arg;
    int64_t left = g->starts->n - at, k = left < n ? left : n;
    const void *starts = NULL;

    if (k > 0)
        KD_TRY(g->starts->read(g->starts->arg, at, k, &starts));
    for (int64_t i = 0; i < k; i++)
        g->buffer[i] = g->first + ((const int64_t *)starts)[i];
    if (k < n)
        g->buffer[k] = g->total;
    *out = g->buffer;
    return KD_OK;
}

int kd_h5_write_ragged_values(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
                              const struct kd_h5_values *starts,
                              const struct kd_h5_values *values)
{
    bool last = kd_comm_rank(f->comm) == kd_comm_size(f->comm) - 1;
    struct global_offsets g = {.starts = starts};
    struct kd_h5_values offsets = {starts->n + last, OFFSETS_PER_CALL, read_global, &g};
    char path[KD_H5_NAME_MAX];
    int rc = KD_OK;

    if (starts->per_call > 0 && starts->per_call < offsets.per_call)
        offsets.per_call = starts->per_call;
    KD_ALL_GO(f->comm, kd_calloc(OFFSETS_PER_CALL, sizeof *g.buffer, &g.buffer));
    KD_GO(kd_exscan_i64(f->comm, values->n, &g.first, &g.total));
    KD_ALL_GO(f->comm, kd_format(path, sizeof path, "%s/offsets", name));
    KD_GO(kd_h5_write_values(f, path, KD_I64, &offsets));
    KD_ALL_GO(f->comm, kd_format(path, sizeof path, "%s/values", name));
    KD_GO(kd_h5_write_values(f, path, dtype, values));
out:
    free(g.buffer);
    return rc;
}

static int check_offsets(const char *name, const int64_t *offsets, int64_t n)
{
    KD_TRY(KD_FAULT("h5.ragged"));
    for (int64_t i = 0; i < n; i++) {
        if (offsets[i + 1] < offsets[i])
            return KD_FAIL(KD_EINTERNAL,
                           "%s: row %lld to be written ends before it "
                           "begins",
                           name, (long long)i);
    }
    return KD_OK;
}

/* Where rows in memory begin, from 0. */
struct starts_in_memory {
    const int64_t *offsets;
    int64_t *buffer; /* [OFFSETS_PER_CALL] */
};

static int read_starts(void *arg, int64_t at, int64_t n, const void **out)
{
    const struct starts_in_memory *s = arg;

    for (int64_t i = 0; i < n; i++)
        s->buffer[i] = s->offsets[at + i] - s->offsets[0];
    *out = s->buffer;
    return KD_OK;
}

int kd_h5_write_ragged(struct kd_h5 *f, const char *name, enum kd_dtype dtype,
                       const void *values, const int64_t *offsets, int64_t n_local)
{
    struct starts_in_memory begin = {.offsets = offsets};
    struct in_memory m = {values, kd_dtype_bytes(dtype)};
    struct kd_h5_values starts = {n_local, OFFSETS_PER_CALL, read_starts, &begin};
    struct kd_h5_values v = {0, 0, read_memory, &m};
    int rc = KD_OK;

    KD_ALL_GO(f->comm, check_offsets(name, offsets, n_local));
    KD_ALL_GO(f->comm,
              kd_calloc(OFFSETS_PER_CALL, sizeof *begin.buffer, &begin.buffer));
    if (n_local) {
        v.n = offsets[n_local] - offsets[0];
        m.rows += (size_t)offsets[0] * m.unit;
    }
    rc = kd_h5_write_ragged_values(f, name, dtype, &starts, &v);
out:
    free(begin.buffer);
    return rc;
}

/* A scalar string that rank 0 writes; HDF5 strings cannot be empty, hence the NUL. */
int kd_h5_write_text(struct kd_h5 *f, const char *name, const char *text)
{
    struct slab s = SLAB_NONE;
    hid_t type = H5Tcopy(H5T_C_S1);
    bool root = kd_comm_rank(f->comm) == 0;
    int64_t bytes = (int64_t)strlen(text);
    struct in_memory m = {text, 1};
    struct kd_h5_values row = {root, 0, read_memory, &m};
    struct kd_h5_values characters = {root ? bytes : 0, 0, read_memory, &m};
    int rc = KD_OK;

    if (type < 0 || H5Tset_size(type, (size_t)bytes + 1) < 0 ||
        H5Tset_cset(type, H5T_CSET_UTF8) < 0)
        rc = KD_H5_FAIL(KD_EINTERNAL, f->part, name);
    KD_ALL_GO(f->comm, rc);
    s.total = s.cols = 1;
    rc = write_slab(f, name, &s, type, &row, (struct digested){&characters, 1});
out:
    if (type >= 0)
        H5Tclose(type);
    return rc;
}
