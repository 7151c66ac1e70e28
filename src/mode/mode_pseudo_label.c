/* SPDX-License-Identifier: Apache-2.0 */
/* Pseudo-labels: the teacher's outputs for the sources of a corpus, as a corpus.
 *
 * Work goes in rounds of --round_size sources in corpus order.  A round is generated,
 * written as labels.round-NNNNN.h5 and renamed when it is whole, so a killed job goes
 * on with --resume after the last whole round; the end merges the rounds into labels.h5
 * and removes them.  Every file carries, under "parents", the digests of what it was
 * made from and the request, and only files that agree on all of them are taken up
 * again.
 *
 * Rows are in corpus order, the outputs of one source together; each rank writes a
 * contiguous share, so the content does not depend on the number of ranks. */
#include "labels.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/mode/generation_options.h"
#include "kdhpc/store/h5.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct label_config {
    const char *teacher, *split, *tokenizer;
    struct kd_str_list corpus;
    int64_t n_obs, eval_batch_size, round_size;
    bool write_text, resume;
    struct kd_generation_options generation;
};

#define AT(FIELD) offsetof(struct label_config, FIELD)

static const struct kd_opt_row rows[] = {
    {.name = "teacher",
     .type = KD_OPT_STR,
     .offset = AT(teacher),
     .help = "model directory that writes the labels",
     .flags = KD_OPT_REQUIRED},
    {.name = "corpus",
     .type = KD_OPT_STR_LIST,
     .offset = AT(corpus),
     .help = "corpus files, taken one after the other",
     .flags = KD_OPT_REQUIRED},
    {.name = "split",
     .type = KD_OPT_STR,
     .offset = AT(split),
     .def = "train",
     .help = "split to label"},
    {.name = "tokenizer",
     .type = KD_OPT_STR,
     .offset = AT(tokenizer),
     .help = "tokenizer directory; default: the teacher's"},
    {.name = "n_obs",
     .type = KD_OPT_INT,
     .offset = AT(n_obs),
     .def = "-1",
     .min = -1,
     .max = KD_NO_MAX,
     .help = "label the first so many examples; -1: all"},
    {.name = "eval_batch_size",
     .type = KD_OPT_INT,
     .offset = AT(eval_batch_size),
     .def = "32",
     .min = 1,
     .max = 65536,
     .help = "sources of a generation batch"},
    {.name = "round_size",
     .type = KD_OPT_INT,
     .offset = AT(round_size),
     .def = "2048",
     .min = 1,
     .max = KD_NO_MAX,
     .help = "sources between two commits"},
    {.name = "write_text",
     .type = KD_OPT_BOOL,
     .offset = AT(write_text),
     .def = "false",
     .help = "write SPLIT.source and SPLIT.target too"},
    {.name = "resume",
     .type = KD_OPT_BOOL,
     .offset = AT(resume),
     .def = "false",
     .help = "go on after the last whole round of a killed job"},
};

/* A labelling job. */
struct job {
    struct kd_run *run;
    const struct label_config *c;
    struct kd_corpus *corpus;
    struct kd_model *teacher;
    struct kd_tokenizer *tokenizer;
    struct kd_generation g;
    int64_t n, n_rounds, vocab_size;
    char *parents;
    struct kd_str options;
};

/* Write ROWS of every rank as PATH.  Collective. */
static int write_rows(struct job *j, const char *path, const struct kd_label_rows *r)
{
    struct kd_store_meta meta = {
        .schema = "kdhpc.labels",
        .options = j->options.data,
        .parents = j->parents,
        .tokenizer_digest = kd_corpus_tokenizer_digest(j->corpus),
        .vocab_size = j->vocab_size,
    };
    struct kd_corpus_rows view = kd_label_rows_view(r);
    struct kd_corpus_writer *w = NULL;
    int rc;

    if (!meta.tokenizer_digest || !meta.tokenizer_digest[0])
        meta.tokenizer_digest = kd_tokenizer_digest(j->tokenizer);
    KD_TRY(kd_corpus_create(j->run->comm, path, &meta, &w));
    rc = kd_corpus_write_split(w, j->c->split, &view);
    if (rc) {
        kd_corpus_abandon(w);
        return rc;
    }
    return kd_corpus_commit(w);
}

/* The share [first, last) of N rows that this rank writes. */
static void my_share(const struct job *j, int64_t n, int64_t *first, int64_t *last)
{
    int64_t size = kd_comm_size(j->run->comm), rank = kd_comm_rank(j->run->comm);

    *first = n * rank / size;
    *last = n * (rank + 1) / size;
}

/* Copy the source side of example I of CORPUS. */
static int put_source(struct kd_label_rows *r, const struct kd_corpus *corpus,
                      int64_t i)
{
    int64_t n = 0;
    const void *p = kd_corpus_source(corpus, i, &n);

    KD_TRY(kd_label_rows_put(r, KD_LABEL_SOURCE, p, n, sizeof(int32_t)));
    p = kd_corpus_source_text(corpus, i, &n);
    return kd_label_rows_put(r, KD_LABEL_SOURCE_TEXT, p, n, 1);
}

/* A generated row as labels are stored: eos is added where the limit cut it off, and
 * the start token where the model reads it from the last label. */
static int put_target(const struct job *j, struct kd_label_rows *r, const int32_t *ids,
                      int64_t n, struct kd_token_ids *buf, struct kd_str *text)
{
    int32_t eos = j->g.n_eos > 0 ? j->g.eos_ids[0] : kd_tokenizer_eos(j->tokenizer);
    bool ended = eos < 0;

    for (int k = 0; k < j->g.n_eos && n > 0; k++)
        ended = ended || ids[n - 1] == j->g.eos_ids[k];
    KD_TRY(kd_grow(&buf->v, &buf->cap, n + 2, sizeof *buf->v));
    if (n > 0)
        memcpy(buf->v, ids, (size_t)n * sizeof *ids);
    buf->n = n;
    if (!ended)
        buf->v[buf->n++] = eos;
    if (kd_model_arch(j->teacher)->start_rule == KD_START_LAST_LABEL &&
        buf->v[buf->n - 1] != j->g.start_id)
        buf->v[buf->n++] = j->g.start_id;
    KD_TRY(kd_label_rows_put(r, KD_LABEL_TARGET, buf->v, buf->n, sizeof(int32_t)));
    KD_TRY(kd_tokenizer_decode(j->tokenizer, ids, n, text));
    for (int64_t k = 0; k < text->len; k++)
        if (text->data[k] == '\n' || text->data[k] == '\r')
            text->data[k] = ' ';
    return kd_label_rows_put(r, KD_LABEL_TARGET_TEXT, text->data, text->len, 1);
}

/* This rank's share of a round whose sources start at FIRST. */
static int build_rows(const struct job *j, int64_t first,
                      const struct kd_generated *all, struct kd_label_rows *r)
{
    int64_t per = j->g.num_return_sequences, lo, hi;
    struct kd_token_ids buf = {0};
    struct kd_str text = {0};
    int rc = KD_OK;

    KD_TRY(KD_FAULT("labels.round"));
    my_share(j, all->n, &lo, &hi);
    for (int64_t k = lo; k < hi; k++) {
        int64_t i = first + k / per;

        KD_GO(put_source(r, j->corpus, i));
        KD_GO(put_target(j, r, all->ids + all->offsets[k],
                         all->offsets[k + 1] - all->offsets[k], &buf, &text));
        KD_GO(kd_label_rows_end(r, kd_corpus_id(j->corpus, i)));
    }
out:
    kd_token_ids_free(&buf);
    kd_str_free(&text);
    return rc;
}

static int round_path(const struct job *j, int64_t round, char **out)
{
    char name[64];

    KD_TRY(kd_format(name, sizeof name, "labels.round-%05lld.h5", (long long)round));
    return kd_path_join(j->run->common->output_dir, name, out);
}

/* Sources of a round. */
struct window {
    const struct kd_corpus *corpus;
    int64_t first;
};

static const int32_t *source_of(const void *arg, int64_t i, int64_t *n)
{
    const struct window *w = arg;

    return kd_corpus_source(w->corpus, w->first + i, n);
}

/* Ids by index of a window of N sources, and the names of the round.  Local. */
static int prepare_round(const struct job *j, int64_t round, const struct window *w,
                         int64_t n, int64_t **ids, char **path, char *label,
                         size_t label_bytes)
{
    KD_TRY(round_path(j, round, path));
    KD_TRY(kd_format(label, label_bytes, "pseudo-label %lld/%lld",
                     (long long)(round + 1), (long long)j->n_rounds));
    KD_TRY(kd_calloc(n, sizeof **ids, ids));
    for (int64_t i = 0; i < n; i++)
        (*ids)[i] = kd_corpus_id(w->corpus, w->first + i);
    return KD_OK;
}

static int64_t round_sources(const struct job *j, int64_t round)
{
    int64_t left = j->n - round * j->c->round_size;

    return left < j->c->round_size ? left : j->c->round_size;
}

/* Generate and commit one round.  Collective. */
static int do_round(struct job *j, int64_t round)
{
    struct window w = {j->corpus, round * j->c->round_size};
    int64_t n = round_sources(j, round), *ids = NULL;
    struct kd_generated_set set = {0};
    struct kd_generated all = {0};
    struct kd_label_rows r = {0};
    char *path = NULL, label[64];
    int rc = KD_OK;

    KD_ALL_GO(j->run->comm,
              prepare_round(j, round, &w, n, &ids, &path, label, sizeof label));
    KD_GO(kd_generate_dealt(j->run, j->teacher, &j->g, source_of, &w, ids, n,
                            j->c->eval_batch_size, label, &set));
    KD_GO(kd_generated_gather(j->run, &set, n, j->g.num_return_sequences, &all));
    KD_ALL_GO(j->run->comm, build_rows(j, w.first, &all, &r));
    KD_GO(write_rows(j, path, &r));
out:
    kd_label_rows_free(&r);
    kd_generated_free(&all);
    kd_generated_set_free(&set);
    free(ids);
    free(path);
    return rc;
}

/* Name the first entry of "parents" in which FILE differs from this job. */
static int compare_parents(const struct job *j, const char *path, const char *theirs)
{
    struct kd_json *a = NULL, *b = NULL;
    int rc = KD_OK;

    if (strcmp(theirs, j->parents) == 0)
        return KD_OK;
    KD_GO(kd_json_parse(theirs, (int64_t)strlen(theirs), path, &a));
    KD_GO(kd_json_parse(j->parents, (int64_t)strlen(j->parents), "parents", &b));
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

/* Check that PATH is of this job and has N_ROWS rows.  Collective. */
static int check_file(struct job *j, char *path, int64_t n_rows)
{
    struct kd_comm *comm = j->run->comm;
    struct kd_h5 *f = NULL;
    struct kd_corpus *rows_of = NULL;
    char *theirs = NULL;
    int rc = KD_OK;

    KD_TRY(kd_h5_open(comm, path, &f));
    KD_GO(kd_h5_get_attr(f, "parents", &theirs));
    KD_ALL_GO(comm, compare_parents(j, path, theirs));
    KD_GO(kd_corpus_open(comm, &path, 1, j->c->split, &rows_of));
    if (kd_corpus_size(rows_of) != n_rows)
        KD_GO(KD_FAIL(KD_EINPUT, "%s cannot be resumed: it has %lld rows, not %lld",
                      path, (long long)kd_corpus_size(rows_of), (long long)n_rows));
out:
    kd_corpus_close(rows_of);
    kd_h5_abandon(f);
    free(theirs);
    return rc;
}

struct file_work {
    const struct job *j;
    const char *path;
    int64_t n;
};

/* Rank 0: whole rounds that lie there, from the first on. */
static int count_rounds(void *arg)
{
    struct file_work *w = arg;

    for (w->n = 0; w->n < w->j->n_rounds; w->n++) {
        char *path = NULL;
        bool exists;

        KD_TRY(round_path(w->j, w->n, &path));
        exists = kd_path_exists(path);
        free(path);
        if (!exists)
            break;
    }
    return KD_OK;
}

/* Rank 0: remove the rounds that lie there, whichever job wrote them. */
static int remove_rounds(void *arg)
{
    struct file_work *w = arg;

    for (int64_t round = 0;; round++) {
        char *path = NULL;
        int failed;

        KD_TRY(round_path(w->j, round, &path));
        failed = unlink(path) != 0 ? errno : 0;
        free(path);
        if (failed == ENOENT)
            return KD_OK;
        if (failed)
            return KD_FAIL(KD_EOUTPUT, "cannot remove round %lld in %s: %s",
                           (long long)round, w->j->run->common->output_dir,
                           strerror(failed));
    }
}

/* *FIRST = the first round to do.  Collective. */
static int find_start(struct job *j, int64_t *first)
{
    struct file_work w = {.j = j};

    *first = 0;
    if (!j->c->resume)
        return kd_root_do(j->run->comm, remove_rounds, &w);
    KD_TRY(kd_root_do(j->run->comm, count_rounds, &w));
    KD_TRY(kd_bcast(j->run->comm, &w.n, sizeof w.n, 0));
    for (int64_t round = 0; round < w.n; round++) {
        char *path = NULL;
        int rc = kd_agree(j->run->comm, round_path(j, round, &path));

        if (!rc)
            rc = check_file(j, path,
                            round_sources(j, round) * j->g.num_return_sequences);
        free(path);
        KD_TRY(rc);
    }
    kd_info("resuming after %lld of %lld rounds", (long long)w.n,
            (long long)j->n_rounds);
    *first = w.n;
    return KD_OK;
}

static int list_rounds(const struct job *j, char **paths)
{
    for (int64_t round = 0; round < j->n_rounds; round++)
        KD_TRY(round_path(j, round, &paths[round]));
    return KD_OK;
}

static int copy_rows(const struct job *j, const struct kd_corpus *from,
                     struct kd_label_rows *r)
{
    int64_t lo, hi, n = 0;

    my_share(j, kd_corpus_size(from), &lo, &hi);
    for (int64_t i = lo; i < hi; i++) {
        const void *p;

        KD_TRY(put_source(r, from, i));
        p = kd_corpus_target(from, i, &n);
        KD_TRY(kd_label_rows_put(r, KD_LABEL_TARGET, p, n, sizeof(int32_t)));
        p = kd_corpus_target_text(from, i, &n);
        KD_TRY(kd_label_rows_put(r, KD_LABEL_TARGET_TEXT, p, n, 1));
        KD_TRY(kd_label_rows_end(r, kd_corpus_id(from, i)));
    }
    return KD_OK;
}

/* Merge the rounds into labels.h5.  Collective. */
static int merge_rounds(struct job *j, const char *labels)
{
    struct kd_comm *comm = j->run->comm;
    struct kd_corpus *from = NULL;
    struct kd_label_rows r = {0};
    char **paths = NULL;
    int rc = KD_OK;

    KD_ALL_GO(comm, kd_calloc(j->n_rounds, sizeof *paths, &paths));
    KD_ALL_GO(comm, list_rounds(j, paths));
    KD_GO(kd_corpus_open(comm, paths, j->n_rounds, j->c->split, &from));
    KD_ALL_GO(comm, copy_rows(j, from, &r));
    KD_GO(write_rows(j, labels, &r));
out:
    kd_label_rows_free(&r);
    kd_corpus_close(from);
    for (int64_t i = 0; paths && i < j->n_rounds; i++)
        free(paths[i]);
    free(paths);
    return rc;
}

/* SPLIT.SUFFIX under the output directory. */
static int text_path(const struct job *j, const char *suffix, char **out)
{
    struct kd_str name = {0};
    int rc = kd_str_printf(&name, "%s.%s", j->c->split, suffix);

    if (!rc)
        rc = kd_path_join(j->run->common->output_dir, name.data, out);
    kd_str_free(&name);
    return rc;
}

static int write_text(struct job *j, const struct kd_corpus *labels)
{
    struct kd_label_text source = {.labels = labels, .get = kd_corpus_source_text},
                         target = {.labels = labels, .get = kd_corpus_target_text};
    int rc = KD_OK;

    KD_ALL_GO(j->run->comm, text_path(j, "source", &source.path));
    KD_ALL_GO(j->run->comm, text_path(j, "target", &target.path));
    KD_GO(kd_root_do(j->run->comm, kd_label_text_write, &source));
    KD_GO(kd_root_do(j->run->comm, kd_label_text_write, &target));
out:
    free(source.path);
    free(target.path);
    return rc;
}

/* Text files on request, a word about empty outputs, and no rounds any more. */
static int finish(struct job *j, char *labels)
{
    struct file_work w = {.j = j};
    struct kd_corpus *done = NULL;
    int64_t n_empty = 0, len = 0;
    int rc = KD_OK;

    KD_GO(kd_corpus_open(j->run->comm, &labels, 1, j->c->split, &done));
    for (int64_t i = 0; i < kd_corpus_size(done); i++) {
        (void)kd_corpus_target_text(done, i, &len);
        n_empty += len == 0;
    }
    if (n_empty > 0)
        kd_warn("%lld of %lld labels are empty text", (long long)n_empty,
                (long long)kd_corpus_size(done));
    if (j->c->write_text)
        KD_GO(write_text(j, done));
    KD_GO(kd_root_do(j->run->comm, remove_rounds, &w));
    kd_info("%s: %lld labels of %lld sources", labels, (long long)kd_corpus_size(done),
            (long long)j->n);
out:
    kd_corpus_close(done);
    return rc;
}

/* What the labels are a function of, besides the files. */
static int request_text(const struct job *j, struct kd_str *out)
{
    static const char *const stops[] = {"false", "true", "never"};
    const struct kd_generation *g = &j->g;

    KD_TRY(kd_str_printf(out, "split=%s sources=%lld round_size=%lld batch=%lld",
                         j->c->split, (long long)j->n, (long long)j->c->round_size,
                         (long long)j->c->eval_batch_size));
    KD_TRY(kd_str_printf(out, " num_beams=%lld num_return_sequences=%lld",
                         (long long)g->num_beams, (long long)g->num_return_sequences));
    KD_TRY(kd_str_printf(out, " max_length=%lld min_length=%lld length_penalty=%.17g",
                         (long long)g->max_length, (long long)g->min_length,
                         g->length_penalty));
    KD_TRY(kd_str_printf(out, " no_repeat_ngram_size=%lld early_stopping=%s",
                         (long long)g->no_repeat_ngram_size, stops[g->early_stopping]));
    KD_TRY(kd_str_printf(out, " repetition_penalty=%.17g", g->repetition_penalty));
    if (g->do_sample)
        KD_TRY(kd_str_printf(out,
                             " do_sample temperature=%.17g top_k=%lld top_p=%.17g "
                             "seed=%llu",
                             g->temperature, (long long)g->top_k, g->top_p,
                             (unsigned long long)g->seed));
    return KD_OK;
}

static int make_parents(struct job *j, const char *teacher_digest)
{
    struct kd_json *o = kd_json_object();
    struct kd_str request = {0};
    int rc = KD_OK;

    if (!o)
        return KD_FAIL(KD_ENOMEM, "no memory for the digests of the parents");
    KD_GO(kd_json_set_str(o, "teacher", teacher_digest));
    KD_GO(kd_json_set_str(o, "tokenizer", kd_tokenizer_digest(j->tokenizer)));
    for (int64_t i = 0; i < j->c->corpus.n; i++) {
        char key[32];

        KD_GO(kd_format(key, sizeof key, "corpus.%lld", (long long)i));
        KD_GO(kd_json_set_str(o, key, kd_corpus_digest(j->corpus, i)));
    }
    KD_GO(request_text(j, &request));
    KD_GO(kd_json_set_str(o, "request", request.data));
    KD_GO(kd_json_dump(o, &j->parents));
out:
    kd_json_free(o);
    kd_str_free(&request);
    return rc;
}

struct digest_work {
    const char *dir;
    char digest[17];
};

static int digest_dir(void *arg)
{
    struct digest_work *w = arg;

    return kd_model_dir_digest(w->dir, w->digest);
}

static int job_local(struct job *j, const char *teacher_digest)
{
    const struct label_config *c = j->c;
    const char *dir = c->tokenizer ? c->tokenizer : c->teacher, *theirs;

    KD_TRY(kd_tokenizer_load(dir, &j->tokenizer));
    KD_TRY(kd_generation_resolve(&c->generation, c->teacher, j->teacher,
                                 (uint64_t)j->run->common->seed, &j->g));
    KD_TRY(kd_model_fits_corpus(j->teacher, j->corpus, c->corpus.v[0]));
    theirs = kd_corpus_tokenizer_digest(j->corpus);
    if (theirs && theirs[0] && strcmp(theirs, kd_tokenizer_digest(j->tokenizer)) != 0)
        kd_warn("the corpus was made with another tokenizer than %s", dir);
    KD_TRY(kd_opts_dump(j->run->opts, &j->options));
    j->vocab_size = kd_model_arch(j->teacher)->vocab_size;
    if (kd_corpus_vocab_size(j->corpus) > j->vocab_size)
        j->vocab_size = kd_corpus_vocab_size(j->corpus);
    j->n = kd_corpus_size(j->corpus);
    if (c->n_obs >= 0 && c->n_obs < j->n)
        j->n = c->n_obs;
    if (j->n == 0)
        return KD_FAIL(KD_EINPUT, "there is nothing to label in split %s", c->split);
    j->n_rounds = (j->n + c->round_size - 1) / c->round_size;
    return make_parents(j, teacher_digest);
}

static int job_open(struct job *j)
{
    const struct label_config *c = j->c;
    struct digest_work digest = {.dir = c->teacher};

    KD_TRY(
        kd_corpus_open(j->run->comm, c->corpus.v, c->corpus.n, c->split, &j->corpus));
    KD_TRY(kd_model_load(j->run, c->teacher, &j->teacher));
    KD_TRY(kd_root_do(j->run->comm, digest_dir, &digest));
    KD_TRY(kd_bcast(j->run->comm, digest.digest, sizeof digest.digest, 0));
    KD_ALL(j->run->comm, job_local(j, digest.digest));
    return KD_OK;
}

static void job_close(struct job *j)
{
    kd_generation_free(&j->g);
    kd_tokenizer_free(j->tokenizer);
    kd_model_free(j->teacher);
    kd_corpus_close(j->corpus);
    kd_str_free(&j->options);
    free(j->parents);
}

/* Whether labels.h5 is there already (a resumed job that had ended).  Collective. */
static int labels_exist(struct job *j, const char *labels, bool *out)
{
    int64_t exists =
        j->c->resume && kd_comm_rank(j->run->comm) == 0 && kd_path_exists(labels);

    KD_TRY(kd_bcast(j->run->comm, &exists, sizeof exists, 0));
    *out = exists != 0;
    return KD_OK;
}

static int run_labels(struct kd_run *run, void *config)
{
    struct job j = {.run = run, .c = config};
    char *labels = NULL;
    int64_t first = 0;
    bool exists;
    int rc = KD_OK;

    KD_GO(job_open(&j));
    KD_ALL_GO(run->comm, kd_path_join(run->common->output_dir, "labels.h5", &labels));
    KD_GO(labels_exist(&j, labels, &exists));
    if (exists) {
        KD_GO(check_file(&j, labels, j.n * j.g.num_return_sequences));
    } else {
        KD_GO(find_start(&j, &first));
        for (int64_t round = first; round < j.n_rounds; round++)
            KD_GO(do_round(&j, round));
        KD_GO(merge_rounds(&j, labels));
    }
    KD_GO(finish(&j, labels));
out:
    free(labels);
    job_close(&j);
    return rc;
}

static bool resumes(const void *config)
{
    return ((const struct label_config *)config)->resume;
}

static const struct kd_opt_group groups[] = {
    {"Labelling", rows, sizeof rows / sizeof *rows, 0},
    {"Generation (defaults from the teacher's generation config)", kd_generation_rows,
     0, AT(generation)},
};

static const char *const outputs[] = {"labels.h5", "labels.round-00000.h5", NULL};

const struct kd_mode kd_mode_pseudo_label = {
    .name = "pseudo-label",
    .summary = "let a teacher write the targets of a corpus",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .config_bytes = sizeof(struct label_config),
    .outputs = outputs,
    .needs_output_dir = true,
    .resumes = resumes,
    .computes = true,
    .run = run_labels,
};
