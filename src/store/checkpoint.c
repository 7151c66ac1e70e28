/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints: DIR/checkpoint-%08d.h5 with one dataset per flat array and the state.
 *
 * Every rank writes an equal share of an array, so saving takes the bandwidth of all
 * and the file depends neither on their number nor on the device that holds them: what
 * is not host memory passes through it, written a share at a time and read in pieces. A
 * checkpoint appears under its name when it is whole; which one to resume from is rank
 * 0's choice, and it believes a file only after recomputing every digest.  A file that
 * was passed over is named with the reason: nothing is skipped in silence. */
#include "kdhpc/store/checkpoint.h"
#include "kdhpc/base/json.h"
#include "kdhpc/base/log.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"
#include "kdhpc/store/listing.h"

#include "h5_impl.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <xxhash.h>

static const struct kd_h5_schema SCHEMA = {
    .name = "kdhpc.checkpoint", .what = "checkpoint", .version = 1};

/* ---- writing ---- */

static int path_of(const char *dir, int64_t step, char **out)
{
    char name[64];

    KD_TRY(kd_format(name, sizeof name, "checkpoint-%08lld.h5", (long long)step));
    return kd_path_join(dir, name, out);
}

/* Whether the host can read and write A's values where they are. */
static bool on_host(const struct kd_checkpoint_array *a)
{
    return a->values && (!a->be || a->be->device == KD_CPU);
}

/* *SHARE = values [BEGIN, BEGIN + N) of A on the host; *OWNED is to be freed.
 * Collective. */
static int share_to_host(struct kd_comm *comm, const struct kd_checkpoint_array *a,
                         int64_t begin, int64_t n, const float **share, float **owned)
{
    *owned = NULL;
    if (on_host(a)) {
        *share = a->values + begin;
        return KD_OK;
    }
    KD_ALL(comm, kd_calloc(n, sizeof **owned, owned));
    *share = *owned;
    if (a->get)
        return a->get(a->arg, begin, n, *owned);
    return kd_agree(comm, n ? a->be->ops->download(a->be, *owned, a->values + begin,
                                                   (size_t)n * sizeof **owned)
                            : KD_OK);
}

static int write_array(struct kd_comm *comm, struct kd_h5 *f,
                       const struct kd_checkpoint_array *a)
{
    int64_t rank = kd_comm_rank(comm), size = kd_comm_size(comm);
    int64_t chunk = a->n / size, rest = a->n % size;
    int64_t begin = rank * chunk + (rank < rest ? rank : rest);
    int64_t n = chunk + (rank < rest ? 1 : 0);
    char name[KD_H5_NAME_MAX];
    const float *share = NULL;
    float *owned = NULL;
    int rc = KD_OK;

    KD_ALL(comm, kd_format(name, sizeof name, "arrays/%s", a->name));
    KD_GO(share_to_host(comm, a, begin, n, &share, &owned));
    rc = kd_h5_write(f, name, KD_F32, share, n, 1);
out:
    free(owned);
    return rc;
}

static int write_content(struct kd_comm *comm, struct kd_h5 *f, int64_t step,
                         const char *state, const struct kd_checkpoint_array *arrays,
                         int n_arrays)
{
    KD_TRY(kd_h5_set_attr(f, "schema", SCHEMA.name));
    KD_TRY(kd_h5_set_attr_i64(f, "schema_version", SCHEMA.version));
    KD_TRY(kd_h5_set_attr_i64(f, "step", step));
    KD_TRY(kd_h5_write_text(f, "state", state));
    for (int i = 0; i < n_arrays; i++)
        KD_TRY(write_array(comm, f, &arrays[i]));
    return KD_OK;
}

int kd_checkpoint_write(struct kd_comm *comm, const char *dir, int64_t step,
                        const char *state, const struct kd_checkpoint_array *arrays,
                        int n_arrays)
{
    struct kd_h5 *f = NULL;
    char *path = NULL;
    int rc = KD_OK;

    KD_ALL_GO(comm, path_of(dir, step, &path));
    KD_GO(kd_h5_create(comm, path, &f));
    rc = write_content(comm, f, step, state, arrays, n_arrays);
    if (rc)
        kd_h5_abandon(f);
    else
        rc = kd_h5_commit(f);
out:
    free(path);
    return rc;
}

/* ---- the checkpoints of a directory ---- */

struct steps {
    int64_t n, cap;
    int64_t *v; /* newest first */
};

static int newest_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? 1 : x > y ? -1 : 0;
}

/* The step in a checkpoint's name, or -1. */
static int64_t step_of(const char *name)
{
    static const char head[] = "checkpoint-";
    char *end = NULL;
    long long step;

    if (strncmp(name, head, sizeof head - 1) != 0 ||
        !strchr("0123456789", name[sizeof head - 1]))
        return -1;
    errno = 0;
    step = strtoll(name + sizeof head - 1, &end, 10);
    return errno || step < 0 || strcmp(end, ".h5") != 0 ? -1 : (int64_t)step;
}

static int list_steps(const char *dir, struct steps *out)
{
    DIR *d = opendir(dir);
    int rc = KD_OK;

    if (!d)
        return errno == ENOENT ? KD_OK
                               : KD_FAIL(KD_EINPUT, "cannot read directory %s: %s", dir,
                                         strerror(errno));
    for (const struct dirent *e = readdir(d); e && !rc; e = readdir(d)) {
        int64_t step = step_of(e->d_name);

        if (step < 0)
            continue;
        rc = kd_grow(&out->v, &out->cap, out->n + 1, sizeof *out->v);
        if (!rc)
            out->v[out->n++] = step;
    }
    closedir(d);
    if (!rc && out->n > 1)
        qsort(out->v, (size_t)out->n, sizeof *out->v, newest_first);
    return rc;
}

/* ---- reading ---- */

static int check_fingerprint(struct kd_h5 *f, const char *fingerprint)
{
    struct kd_json *j = NULL;
    char *state = NULL;
    int rc = KD_OK;

    KD_GO(kd_h5_read_text_local(f, "state", &state));
    KD_GO(kd_json_parse(state, (int64_t)strlen(state), f->path, &j));
    if (fingerprint && strcmp(kd_json_str(j, "fingerprint", ""), fingerprint) != 0)
        rc = KD_FAIL(KD_EINPUT, "%s belongs to a run with other options or inputs",
                     f->path);
out:
    kd_json_free(j);
    free(state);
    return rc;
}

static int validate(const char *path, const char *fingerprint)
{
    struct kd_store_listing listing;
    struct kd_h5 *f = NULL;
    int rc = KD_OK;

    KD_TRY(kd_h5_open_local(path, &f));
    KD_GO(kd_h5_check_schema(f, &SCHEMA));
    KD_GO(check_fingerprint(f, fingerprint));
    KD_GO(kd_store_list(path, true, &listing));
    kd_store_listing_free(&listing);
out:
    kd_h5_close_local(f);
    return rc;
}

struct search {
    const char *dir, *fingerprint;
    char *found; /* NULL: none */
};

static int root_search(void *arg)
{
    struct search *s = arg;
    struct steps steps = {0};
    int rc = list_steps(s->dir, &steps);

    if (!rc)
        rc = KD_FAULT("checkpoint.search");
    for (int64_t i = 0; i < steps.n && !rc && !s->found; i++) {
        char *path = NULL;

        rc = path_of(s->dir, steps.v[i], &path);
        if (!rc && validate(path, s->fingerprint) == KD_OK) {
            s->found = path;
            continue;
        }
        if (!rc) {
            kd_warn("passing over a checkpoint: %s", kd_error_get()->text);
            kd_error_clear();
        }
        free(path);
    }
    free(steps.v);
    return rc;
}

int kd_checkpoint_newest(struct kd_comm *comm, const char *dir, const char *fingerprint,
                         char **path)
{
    struct search s = {.dir = dir, .fingerprint = fingerprint};
    int64_t bytes;
    int rc = KD_OK;

    *path = NULL;
    KD_GO(kd_root_do(comm, root_search, &s));
    bytes = s.found ? (int64_t)strlen(s.found) + 1 : 0;
    KD_GO(kd_bcast(comm, &bytes, sizeof bytes, 0));
    if (bytes) {
        KD_ALL_GO(comm, s.found ? KD_OK : kd_calloc(bytes, 1, &s.found));
        KD_GO(kd_bcast(comm, s.found, bytes, 0));
    }
    *path = s.found;
    return KD_OK;
out:
    free(s.found);
    return rc;
}

enum { PIECE_VALUES = 1 << 22 }; /* of an array on its way through the host */

/* Bring values [FIRST, FIRST + N) of A from HOST to where they belong. */
static int place_piece(const struct kd_checkpoint_array *a, int64_t first, int64_t n,
                       const float *host)
{
    if (on_host(a))
        return KD_OK;
    if (a->put)
        return a->put(a->arg, first, n, host);
    KD_TRY(
        a->be->ops->upload(a->be, a->values + first, host, (size_t)n * sizeof *host));
    return a->be->ops->sync(a->be); /* HOST is used again */
}

/* BUFFER [PIECE_VALUES] is for what the host cannot hold in its place. */
static int read_pieces(struct kd_h5 *f, const char *name,
                       const struct kd_checkpoint_array *a, float *buffer,
                       XXH64_state_t *hash)
{
    for (int64_t first = 0; first < a->n || first == 0; first += PIECE_VALUES) {
        int64_t left = a->n - first, n = left < PIECE_VALUES ? left : PIECE_VALUES;
        float *to = buffer ? buffer : a->values + first;

        KD_TRY(kd_h5_read_part(f, name, KD_F32, a->n, first, n, to));
        if (n && XXH64_update(hash, to, (size_t)n * sizeof *to) == XXH_ERROR)
            return KD_FAIL(KD_EINTERNAL, "%s: cannot hash", name);
        KD_TRY(place_piece(a, first, n, to));
    }
    return kd_h5_check_digest(f, name, XXH64_digest(hash));
}

static int read_array(struct kd_h5 *f, const struct kd_checkpoint_array *a)
{
    int64_t room = a->n < PIECE_VALUES ? a->n : PIECE_VALUES;
    XXH64_state_t *hash = XXH64_createState();
    char name[KD_H5_NAME_MAX];
    float *buffer = NULL;
    int rc = KD_OK;

    if (!hash || XXH64_reset(hash, 0) == XXH_ERROR)
        KD_GO(KD_FAIL(KD_ENOMEM, "no memory for a digest"));
    KD_GO(KD_FAULT("checkpoint.read"));
    KD_GO(kd_format(name, sizeof name, "arrays/%s", a->name));
    if (!on_host(a))
        KD_GO(kd_calloc(room, sizeof *buffer, &buffer));
    rc = read_pieces(f, name, a, buffer, hash);
out:
    free(buffer);
    XXH64_freeState(hash);
    return rc;
}

static int read_local(const char *path, const struct kd_checkpoint_array *arrays,
                      int n_arrays, char **state)
{
    struct kd_h5 *f = NULL;
    int rc = KD_OK;

    KD_TRY(kd_h5_open_local(path, &f));
    KD_GO(kd_h5_check_schema(f, &SCHEMA));
    for (int i = 0; i < n_arrays; i++)
        KD_GO(read_array(f, &arrays[i]));
    KD_GO(kd_h5_read_text_local(f, "state", state));
    KD_GO(kd_h5_check_digest(f, "state", XXH64(*state, strlen(*state), 0)));
out:
    kd_h5_close_local(f);
    return rc;
}

int kd_checkpoint_read(struct kd_comm *comm, const char *path,
                       const struct kd_checkpoint_array *arrays, int n_arrays,
                       char **state)
{
    *state = NULL;
    return kd_h5_agree_text(comm, read_local(path, arrays, n_arrays, state), state);
}

/* ---- pruning ---- */

struct pruning {
    const char *dir;
    int64_t keep;
};

static int root_prune(void *arg)
{
    const struct pruning *p = arg;
    struct steps steps = {0};
    int rc = list_steps(p->dir, &steps);

    if (!rc)
        rc = KD_FAULT("checkpoint.prune");
    for (int64_t i = p->keep; i < steps.n && !rc; i++) {
        char *path = NULL;

        rc = path_of(p->dir, steps.v[i], &path);
        if (!rc && unlink(path) && errno != ENOENT)
            rc = KD_FAIL(KD_EOUTPUT, "cannot remove %s: %s", path, strerror(errno));
        free(path);
    }
    free(steps.v);
    return rc;
}

int kd_checkpoint_prune(struct kd_comm *comm, const char *dir, int64_t keep)
{
    struct pruning p = {.dir = dir, .keep = keep < 0 ? 0 : keep};

    return kd_root_do(comm, root_prune, &p);
}
