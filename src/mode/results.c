/* SPDX-License-Identifier: Apache-2.0 */
/* What eval and score leave behind.  Text files are written by rank 0, whole or not at
 * all; examples.h5 is written by all ranks, each a contiguous share of the rows, so its
 * content does not depend on their number. */
#include "results.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/mode/model_io.h"
#include "kdhpc/text/lines.h"

#include <stdlib.h>
#include <string.h>

int kd_eval_corpus_open(struct kd_run *run, const struct kd_str_list *files,
                        const char *split, int64_t n_obs, struct kd_eval_corpus *out)
{
    *out = (struct kd_eval_corpus){0};
    KD_TRY(kd_corpus_open(run->comm, files->v, files->n, split, &out->corpus));
    out->n = kd_corpus_size(out->corpus);
    if (n_obs >= 0 && n_obs < out->n)
        out->n = n_obs;
    if (out->n > 0)
        return KD_OK;
    kd_corpus_close(out->corpus);
    out->corpus = NULL;
    return KD_FAIL(KD_EINPUT, "no example to evaluate in split %s of %s", split,
                   files->v[0]);
}

static int read_lines(struct kd_lines *l, const char *path, int64_t n, char **out,
                      int64_t *seen)
{
    const char *line;
    int64_t len;

    for (*seen = 0;; ++*seen) {
        KD_TRY(kd_lines_next(l, &line, &len));
        if (!line)
            return KD_OK;
        KD_TRY(kd_line_check(path, *seen + 1, line, len));
        if (*seen < n)
            KD_TRY(kd_strndup(line, len, &out[*seen]));
    }
}

int kd_eval_read_lines(const char *path, const struct kd_eval_corpus *c, char ***out)
{
    int64_t all = kd_corpus_size(c->corpus), seen = 0;
    struct kd_lines *l = NULL;
    int rc = KD_OK;

    KD_TRY(kd_calloc(c->n, sizeof **out, out));
    KD_GO(kd_lines_open(path, 0, 0, &l));
    KD_GO(read_lines(l, path, c->n, *out, &seen));
    if (seen != all && seen != c->n)
        rc = KD_FAIL(KD_EINPUT, "%s has %lld lines, but the split has %lld examples",
                     path, (long long)seen, (long long)all);
out:
    kd_lines_close(l);
    return rc;
}

struct kd_share kd_share_of(const struct kd_run *run, int64_t n)
{
    int64_t rank = kd_comm_rank(run->comm), size = kd_comm_size(run->comm);
    int64_t first = n * rank / size;

    return (struct kd_share){first, n * (rank + 1) / size - first};
}

int kd_eval_parents(const struct kd_eval_corpus *c, const struct kd_str_list *files,
                    const char *model_dir, char **out)
{
    struct kd_json *j = kd_json_object();
    char digest[17];
    int rc = KD_OK;

    *out = NULL;
    if (!j)
        return KD_FAIL(KD_ENOMEM, "no memory for the digests");
    for (int64_t i = 0; i < files->n; i++)
        KD_GO(kd_json_set_str(j, files->v[i], kd_corpus_digest(c->corpus, i)));
    if (model_dir) {
        KD_GO(kd_model_dir_digest(model_dir, digest));
        KD_GO(kd_json_set_str(j, model_dir, digest));
    }
    KD_GO(kd_json_dump(j, out));
out:
    kd_json_free(j);
    return rc;
}

static int ids_of(const struct kd_eval_corpus *c, struct kd_share share, int64_t **out)
{
    KD_TRY(kd_calloc(share.n, sizeof **out, out));
    for (int64_t i = 0; i < share.n; i++)
        (*out)[i] = kd_corpus_id(c->corpus, share.first + i);
    return KD_OK;
}

int kd_examples_create(struct kd_run *run, const struct kd_eval_corpus *c,
                       const char *parents, struct kd_h5 **out)
{
    struct kd_share share = kd_share_of(run, c->n);
    struct kd_str options = {0};
    struct kd_h5 *f = NULL;
    char *path = NULL;
    int64_t *ids = NULL;
    int rc = KD_OK;

    *out = NULL;
    KD_ALL_GO(run->comm, kd_path_join(run->common->output_dir, "examples.h5", &path));
    KD_ALL_GO(run->comm, kd_opts_dump(run->opts, &options));
    KD_ALL_GO(run->comm, ids_of(c, share, &ids));
    KD_GO(kd_h5_create(run->comm, path, &f));
    KD_GO(kd_h5_set_attr(f, "schema", "kdhpc.examples"));
    KD_GO(kd_h5_set_attr_i64(f, "schema_version", 1));
    KD_GO(kd_h5_set_attr(f, "parents", parents));
    KD_GO(kd_h5_write_text(f, "options", options.data));
    KD_GO(kd_h5_write(f, "id", KD_I64, ids, share.n, 1));
    *out = f;
    f = NULL;
out:
    if (f)
        kd_h5_abandon(f);
    free(path);
    free(ids);
    kd_str_free(&options);
    return rc;
}

/* ---- text files, by rank 0 ---- */

struct text_file {
    const char *dir, *name;
    const struct kd_json *json;
    char *const *lines;
    int64_t n;
};

static int write_lines(const struct text_file *t, const char *path)
{
    struct kd_str text = {0};
    int rc = KD_OK;

    for (int64_t i = 0; i < t->n; i++) {
        KD_GO(kd_str_append(&text, t->lines[i], (int64_t)strlen(t->lines[i])));
        KD_GO(kd_str_append(&text, "\n", 1));
    }
    KD_GO(kd_write_file(path, text.data, text.len));
out:
    kd_str_free(&text);
    return rc;
}

static int root_write(void *arg)
{
    const struct text_file *t = arg;
    char *path = NULL;
    int rc = KD_OK;

    KD_GO(kd_make_dirs(t->dir));
    KD_GO(kd_path_join(t->dir, t->name, &path));
    if (t->json)
        KD_GO(kd_json_write_file(t->json, path));
    else
        KD_GO(write_lines(t, path));
out:
    free(path);
    return rc;
}

int kd_metrics_write(struct kd_run *run, const struct kd_json *j)
{
    struct text_file t = {run->common->output_dir, "metrics.json", j, NULL, 0};

    return kd_root_do(run->comm, root_write, &t);
}

int kd_generations_write(struct kd_run *run, char *const *lines, int64_t n)
{
    struct text_file t = {run->common->output_dir, "generations.txt", NULL, lines, n};

    return kd_root_do(run->comm, root_write, &t);
}
