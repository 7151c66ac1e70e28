/* SPDX-License-Identifier: Apache-2.0 */
/* Writes files that are whole but not what a mode needs, for odd_files.sh:
 *   odd_file version FILE SCHEMA VERSION    attributes that say so, and nothing else
 *   odd_file incomplete FILE DIR STEP       checkpoint FILE as that of STEP in DIR,
 * less its last array */
#include "kdhpc/base/log.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/store/checkpoint.h"
#include "kdhpc/store/h5.h"
#include "kdhpc/store/listing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int write_version(struct kd_comm *comm, char **argv)
{
    struct kd_h5 *f = NULL;

    KD_TRY(kd_h5_create(comm, argv[0], &f));
    KD_TRY(kd_h5_set_attr(f, "schema", argv[1]));
    KD_TRY(kd_h5_set_attr_i64(f, "schema_version", strtoll(argv[2], NULL, 10)));
    return kd_h5_commit(f);
}

/* Arrays of a checkpoint: what is listed as arrays/NAME. */
static int make_arrays(const struct kd_store_listing *l,
                       struct kd_checkpoint_array *arrays, int *n)
{
    for (int64_t i = 0; i < l->n; i++) {
        const struct kd_store_item *item = &l->items[i];

        if (strncmp(item->name, "arrays/", 7) != 0)
            continue;
        arrays[*n] =
            (struct kd_checkpoint_array){.name = item->name + 7, .n = item->rows};
        KD_TRY(kd_calloc(item->rows, sizeof(float), &arrays[*n].values));
        ++*n;
    }
    return KD_OK;
}

static int write_incomplete(struct kd_comm *comm, char **argv)
{
    struct kd_store_listing l;
    struct kd_checkpoint_array *arrays = NULL;
    char *state = NULL;
    int n = 0, rc = KD_OK;

    KD_TRY(kd_store_list(argv[0], true, &l));
    KD_GO(kd_calloc(l.n, sizeof *arrays, &arrays));
    KD_GO(make_arrays(&l, arrays, &n));
    KD_GO(kd_checkpoint_read(comm, argv[0], arrays, n, &state));
    rc = kd_checkpoint_write(comm, argv[1], strtoll(argv[2], NULL, 10), state, arrays,
                             n - 1);
out:
    for (int i = 0; i < n; i++)
        free(arrays[i].values);
    free(arrays);
    free(state);
    kd_store_listing_free(&l);
    return rc;
}

int main(int argc, char **argv)
{
    struct kd_comm *comm = NULL;
    int rc = kd_comm_start(&comm);

    if (!rc && argc == 5)
        rc = strcmp(argv[1], "version") == 0 ? write_version(comm, argv + 2)
                                             : write_incomplete(comm, argv + 2);
    if (rc)
        fprintf(stderr, "odd_file: %s\n", kd_error_get()->text);
    kd_comm_stop(comm);
    return rc || argc != 5;
}
