/* SPDX-License-Identifier: Apache-2.0 */
/* Goes through everything that comm and store do, once, and reports like the program:
 * fault_sites.sh runs it with each fault site on each rank.  Its argument is the
 * directory to work in. */
#include "kdhpc/base/log.h"
#include "kdhpc/comm/comm.h"
#include "kdhpc/comm/watchdog.h"
#include "kdhpc/store/checkpoint.h"
#include "kdhpc/store/corpus.h"
#include "kdhpc/store/safetensors.h"

#include <stdio.h>
#include <stdlib.h>

static int no_wait(struct kd_backend *be)
{
    (void)be;
    return KD_OK;
}

static int comm_calls(struct kd_comm *comm)
{
    static const struct kd_backend_ops ops = {.sync = no_wait};
    struct kd_backend be = {.ops = &ops, .device = KD_CPU};
    float values[100] = {0};
    void *all = NULL;

    KD_TRY(kd_allgather_bytes(comm, "x", 1, &all, NULL));
    free(all);
    KD_TRY(kd_bcast_tensor(comm, &be, kd_tensor1(values, KD_F32, 100)));
    return kd_allreduce_tensor(comm, &be, kd_tensor1(values, KD_F32, 100));
}

static int corpus_calls(struct kd_comm *comm, const char *path)
{
    static const int64_t id[1] = {0}, offsets[2] = {0, 2};
    static const int32_t ids[2] = {1, 2};
    const struct kd_ragged tokens = {1, offsets, ids}, text = {1, offsets, "ab"};
    const struct kd_corpus_rows rows = {1, id, tokens, tokens, text, text};
    const struct kd_store_meta meta = {.schema = "kdhpc.corpus", .options = "x: 1\n"};
    char *paths[1] = {(char *)(uintptr_t)path};
    struct kd_corpus_writer *w = NULL;
    struct kd_corpus *c = NULL;
    int rc;

    KD_TRY(kd_corpus_create(comm, path, &meta, &w));
    rc = kd_corpus_write_split(w, "train", &rows);
    if (rc) {
        kd_corpus_abandon(w);
        return rc;
    }
    KD_TRY(kd_corpus_commit(w));
    KD_TRY(kd_corpus_open(comm, paths, 1, "train", &c));
    kd_corpus_close(c);
    return KD_OK;
}

static int checkpoint_calls(struct kd_comm *comm, const char *dir)
{
    float values[5] = {1, 2, 3, 4, 5};
    const struct kd_checkpoint_array a = {.name = "params", .values = values, .n = 5};
    char *path = NULL, *state = NULL;
    int rc = KD_OK;

    KD_GO(kd_checkpoint_write(comm, dir, 1, "{}", &a, 1));
    KD_GO(kd_checkpoint_newest(comm, dir, NULL, &path));
    if (!path)
        KD_GO(KD_FAIL(KD_EINTERNAL, "the checkpoint is gone"));
    KD_GO(kd_checkpoint_read(comm, path, &a, 1, &state));
    rc = kd_checkpoint_prune(comm, dir, 0);
out:
    free(path);
    free(state);
    return rc;
}

static int weight_calls(struct kd_comm *comm, const char *dir, const char *path)
{
    static const float values[2] = {1, 2};
    const struct kd_named_tensor t = {
        .name = "t", .ndim = 1, .shape = {2}, .values = values};
    struct kd_weights *s = NULL;

    KD_ALL(comm,
           kd_comm_rank(comm) == 0 ? kd_safetensors_write(path, KD_F32, &t, 1) : KD_OK);
    KD_ALL(comm, kd_weights_open(dir, &s));
    kd_weights_close(s);
    return KD_OK;
}

static int all_calls(struct kd_comm *comm, const char *dir)
{
    char corpus[256], weights[256];

    KD_ALL(comm, kd_watchdog_start(60));
    KD_TRY(comm_calls(comm));
    snprintf(corpus, sizeof corpus, "%s/c.h5", dir);
    KD_TRY(corpus_calls(comm, corpus));
    KD_TRY(checkpoint_calls(comm, dir));
    snprintf(weights, sizeof weights, "%s/model.safetensors", dir);
    return weight_calls(comm, dir, weights);
}

int main(int argc, char **argv)
{
    struct kd_comm *comm = NULL;
    int rc = argc < 2 ? KD_FAIL(KD_EUSAGE, "usage: fault_store DIR") : KD_OK;

    if (!rc)
        rc = kd_comm_start(&comm);
    if (!rc)
        rc = all_calls(comm, argv[1]);
    if (rc && kd_log_rank() == 0)
        fprintf(stderr, "kdhpc: error: %s\n", kd_error_get()->text);
    kd_watchdog_stop();
    kd_comm_stop(comm);
    return rc;
}
