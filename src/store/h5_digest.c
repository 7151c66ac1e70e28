/* SPDX-License-Identifier: Apache-2.0 */
/* Digests: of a dataset, and of a file.
 *
 * The digest of a dataset is the xxh64 of its values in rank order: the hash state is
 * handed from rank to rank, which makes it the same for any number of writers without
 * reading anything back.  It is kept as an attribute of the dataset.  That of a file
 * hashes names and digests of its datasets, so it takes no second look at the values.
 */
#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"
#include "kdhpc/comm/watchdog.h"

#include "h5_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY
#include <xxhash.h>

void kd_h5_digest_text(uint64_t digest, char out[KD_DIGEST_CHARS + 1])
{
    snprintf(out, KD_DIGEST_CHARS + 1, "%016llx", (unsigned long long)digest);
}

int kd_h5_note_digest(struct kd_h5 *f, const char *name, uint64_t digest)
{
    struct kd_h5_digest *d;

    KD_TRY(kd_grow(&f->digests, &f->cap_digests, f->n_digests + 1, sizeof *d));
    d = &f->digests[f->n_digests];
    KD_TRY(kd_format(d->name, sizeof d->name, "%s", name));
    d->digest = digest;
    f->n_digests++;
    return KD_OK;
}

static int by_name(const void *a, const void *b)
{
    const struct kd_h5_digest *x = a, *y = b;

    return strcmp(x->name, y->name);
}

uint64_t kd_h5_file_digest(struct kd_h5 *f)
{
    XXH64_state_t state;

    XXH64_reset(&state, 0);
    if (f->n_digests > 1)
        qsort(f->digests, (size_t)f->n_digests, sizeof *f->digests, by_name);
    for (int64_t i = 0; i < f->n_digests; i++) {
        const struct kd_h5_digest *d = &f->digests[i];
        char text[KD_DIGEST_CHARS + 1];

        if (strcmp(d->name, "options") == 0)
            continue;
        kd_h5_digest_text(d->digest, text);
        XXH64_update(&state, d->name, strlen(d->name) + 1);
        XXH64_update(&state, text, KD_DIGEST_CHARS);
    }
    return XXH64_digest(&state);
}

static int hash_values(XXH64_state_t *state, const struct kd_h5_values *values,
                       size_t unit)
{
    int64_t step = kd_h5_rows_per_call(values, unit);

    for (int64_t at = 0; at < values->n; at += step) {
        int64_t n = values->n - at < step ? values->n - at : step;
        const void *bytes;

        KD_TRY(values->read(values->arg, at, n, &bytes));
        XXH64_update(state, bytes, (size_t)n * unit);
        kd_heartbeat();
    }
    return KD_OK;
}

int kd_h5_digest_in_rank_order(struct kd_comm *comm, const struct kd_h5_values *values,
                               size_t unit, uint64_t *out)
{
    XXH64_state_t state;
    int rc = KD_OK;

    XXH64_reset(&state, 0);
    for (int r = 0; r < kd_comm_size(comm); r++) {
        if (r == kd_comm_rank(comm))
            rc = hash_values(&state, values, unit);
        KD_TRY(kd_bcast(comm, &state, sizeof state, r));
    }
    KD_ALL(comm, rc);
    *out = XXH64_digest(&state);
    return KD_OK;
}

int kd_h5_check_digest(struct kd_h5 *f, const char *name, uint64_t digest)
{
    char text[KD_DIGEST_CHARS + 1];
    char *kept = NULL;
    hid_t set = H5Dopen2(f->file, name, H5P_DEFAULT);
    int rc;

    if (set < 0)
        return KD_H5_FAIL(KD_EINPUT, f->path, name);
    kd_h5_digest_text(digest, text);
    rc = kd_h5_attr_of(set, f->path, "digest", &kept);
    if (!rc && strcmp(kept, text) != 0)
        rc = KD_FAIL(KD_EINPUT,
                     "%s: the content of %s has digest %s, not %s: it is "
                     "damaged",
                     f->path, name, text, kept);
    free(kept);
    H5Dclose(set);
    return rc;
}
