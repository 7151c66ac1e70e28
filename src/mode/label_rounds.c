/* SPDX-License-Identifier: Apache-2.0 */
/* The files of a labelling job: rounds, and the labels.h5 that they become.
 *
 * A round is written as labels.round-NNNNN.h5 and renamed when it is whole, so what
 * lies there under a final name is whole.  Every file carries, under "parents", the
 * digests of what it was made from and the request, and only files that agree on all of
 * them are taken up again.  Each rank writes a contiguous share of the rows, so the
 * content does not depend on the number of ranks.  The mode pseudo-label calls this. */
#include "label_rounds.h"

#include "kdhpc/base/json.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/store/h5.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int kd_label_write(const struct kd_label_files *f, const char *path,
                   const struct kd_label_rows *r)
{
    const struct kd_store_meta meta = {
        .schema = "kdhpc.labels",
        .options = f->options.data,
        .parents = f->parents,
        .tokenizer_digest = f->tokenizer_digest,
        .vocab_size = f->vocab_size,
    };
    struct kd_corpus_rows view = kd_label_rows_view(r);
    struct kd_corpus_writer *w = NULL;
    int rc;

    KD_TRY(kd_corpus_create(f->run->comm, path, &meta, &w));
    rc = kd_corpus_write_split(w, f->split, &view);
    if (rc) {
        kd_corpus_abandon(w);
        return rc;
    }
    return kd_corpus_commit(w);
}

void kd_label_share(const struct kd_run *run, int64_t n, int64_t *first, int64_t *last)
{
    int64_t size = kd_comm_size(run->comm), rank = kd_comm_rank(run->comm);

    *first = n * rank / size;
    *last = n * (rank + 1) / size;
}

int kd_label_put_source(struct kd_label_rows *r, const struct kd_corpus *corpus,
                        int64_t i)
{
    int64_t n = 0;
    const void *p = kd_corpus_source(corpus, i, &n);

    KD_TRY(kd_label_rows_put(r, KD_LABEL_SOURCE, p, n, sizeof(int32_t)));
    p = kd_corpus_source_text(corpus, i, &n);
    return kd_label_rows_put(r, KD_LABEL_SOURCE_TEXT, p, n, 1);
}

int kd_label_round_path(const struct kd_label_files *f, int64_t round, char **out)
{
    char name[64];

    KD_TRY(kd_format(name, sizeof name, "labels.round-%05lld.h5", (long long)round));
    return kd_path_join(f->run->common->output_dir, name, out);
}

int64_t kd_label_round_sources(const struct kd_label_files *f, int64_t round)
{
    int64_t left = f->n - round * f->round_size;

    return left < f->round_size ? left : f->round_size;
}

/* Name the first entry of "parents" in which FILE differs from this job. */
static int compare_parents(const struct kd_label_files *f, const char *path,
                           const char *theirs)
{
    struct kd_json *a = NULL, *b = NULL;
    int rc = KD_OK;

    if (strcmp(theirs, f->parents) == 0)
        return KD_OK;
    KD_GO(kd_json_parse(theirs, (int64_t)strlen(theirs), path, &a));
    KD_GO(kd_json_parse(f->parents, (int64_t)strlen(f->parents), "parents", &b));
    for (void *it = kd_json_first(b); it; it = kd_json_next(b, it)) {
        const char *key = kd_json_key(it), *now = kd_json_as_str(kd_json_value(it), ""),
                   *then = kd_json_str(a, key, "(none)");

        if (strcmp(now, then) != 0)
            KD_GO(KD_FAIL(KD_EINPUT,
                          "%s cannot be resumed: its %s was '%s' and is now '%s'", path,
                          key, then, now));
    }
    rc = KD_FAIL(KD_EINPUT, "%s cannot be resumed: it was made from other files", path);
out:
    kd_json_free(a);
    kd_json_free(b);
    return rc;
}

int kd_label_check(const struct kd_label_files *f, char *path, int64_t n_rows)
{
    struct kd_comm *comm = f->run->comm;
    struct kd_h5 *file = NULL;
    struct kd_corpus *rows_of = NULL;
    char *theirs = NULL;
    int rc = KD_OK;

    KD_TRY(kd_h5_open(comm, path, &file));
    KD_GO(kd_h5_get_attr(file, "parents", &theirs));
    KD_ALL_GO(comm, compare_parents(f, path, theirs));
    KD_GO(kd_corpus_open(comm, &path, 1, f->split, &rows_of));
    if (kd_corpus_size(rows_of) != n_rows)
        KD_GO(KD_FAIL(KD_EINPUT, "%s cannot be resumed: it has %lld rows, not %lld",
                      path, (long long)kd_corpus_size(rows_of), (long long)n_rows));
out:
    kd_corpus_close(rows_of);
    kd_h5_abandon(file);
    free(theirs);
    return rc;
}

/* ---- rounds that lie there ---- */

struct round_count {
    const struct kd_label_files *f;
    int64_t n;
};

/* Rank 0: whole rounds, from the first on. */
static int count_rounds(void *arg)
{
    struct round_count *c = arg;

    for (c->n = 0; c->n < c->f->n_rounds; c->n++) {
        char *path = NULL;
        bool exists;

        KD_TRY(kd_label_round_path(c->f, c->n, &path));
        exists = kd_path_exists(path);
        free(path);
        if (!exists)
            break;
    }
    return KD_OK;
}

int kd_label_rounds_resume(const struct kd_label_files *f, int64_t *first)
{
    struct kd_comm *comm = f->run->comm;
    struct round_count there = {.f = f};

    KD_TRY(kd_root_do(comm, count_rounds, &there));
    KD_TRY(kd_bcast(comm, &there.n, sizeof there.n, 0));
    for (int64_t round = 0; round < there.n; round++) {
        int64_t n_rows = kd_label_round_sources(f, round) * f->per_source;
        char *path = NULL;
        int rc = kd_agree(comm, kd_label_round_path(f, round, &path));

        if (!rc)
            rc = kd_label_check(f, path, n_rows);
        free(path);
        KD_TRY(rc);
    }
    *first = there.n;
    return KD_OK;
}

/* Rank 0. */
static int remove_rounds(void *arg)
{
    const struct kd_label_files *f = *(const struct kd_label_files *const *)arg;

    for (int64_t round = 0;; round++) {
        char *path = NULL;
        int failed;

        KD_TRY(kd_label_round_path(f, round, &path));
        failed = unlink(path) != 0 ? errno : 0;
        free(path);
        if (failed == ENOENT)
            return KD_OK;
        if (failed)
            return KD_FAIL(KD_EOUTPUT, "cannot remove round %lld in %s: %s",
                           (long long)round, f->run->common->output_dir,
                           strerror(failed));
    }
}

int kd_label_rounds_remove(const struct kd_label_files *f)
{
    return kd_root_do(f->run->comm, remove_rounds, &f);
}

/* ---- merging ---- */

static int list_rounds(const struct kd_label_files *f, char **paths)
{
    for (int64_t round = 0; round < f->n_rounds; round++)
        KD_TRY(kd_label_round_path(f, round, &paths[round]));
    return KD_OK;
}

static int copy_rows(const struct kd_label_files *f, const struct kd_corpus *from,
                     struct kd_label_rows *r)
{
    int64_t lo, hi, n = 0;

    kd_label_share(f->run, kd_corpus_size(from), &lo, &hi);
    for (int64_t i = lo; i < hi; i++) {
        const void *p;

        KD_TRY(kd_label_put_source(r, from, i));
        p = kd_corpus_target(from, i, &n);
        KD_TRY(kd_label_rows_put(r, KD_LABEL_TARGET, p, n, sizeof(int32_t)));
        p = kd_corpus_target_text(from, i, &n);
        KD_TRY(kd_label_rows_put(r, KD_LABEL_TARGET_TEXT, p, n, 1));
        KD_TRY(kd_label_rows_end(r, kd_corpus_id(from, i)));
    }
    return KD_OK;
}

int kd_label_rounds_merge(const struct kd_label_files *f, const char *path)
{
    struct kd_comm *comm = f->run->comm;
    struct kd_corpus *from = NULL;
    struct kd_label_rows r = {0};
    char **paths = NULL;
    int rc = KD_OK;

    KD_ALL_GO(comm, kd_calloc(f->n_rounds, sizeof *paths, &paths));
    KD_ALL_GO(comm, list_rounds(f, paths));
    KD_GO(kd_corpus_open(comm, paths, f->n_rounds, f->split, &from));
    KD_ALL_GO(comm, copy_rows(f, from, &r));
    KD_GO(kd_label_write(f, path, &r));
out:
    kd_label_rows_free(&r);
    kd_corpus_close(from);
    for (int64_t i = 0; paths && i < f->n_rounds; i++)
        free(paths[i]);
    free(paths);
    return rc;
}
