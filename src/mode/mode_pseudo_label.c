/* SPDX-License-Identifier: Apache-2.0 */
/* Pseudo-labels: the teacher's outputs for the sources of a corpus, as a corpus.
 *
 * Work goes in rounds of --round_size sources in corpus order.  A round is generated
 * and committed (label_rounds.c), so a job that was killed, or stopped by a signal,
 * goes on with --resume after the last whole round; the end merges the rounds into
 * labels.h5 and removes them.  Rows are in corpus order, the outputs of one source
 * together. */
#include "generator.h"
#include "label_rounds.h"

#include "kdhpc/base/mem.h"

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
    struct kd_generator teacher;
    struct kd_label_files files;
    char *labels;   /* path of labels.h5 */
    char *texts[2]; /* paths of SPLIT.source, SPLIT.target */
};

/* A generated row as labels are stored: eos is added where the limit cut it off, and
 * the start token where the model reads it from the last label. */
static int put_target(const struct job *j, struct kd_label_rows *r, const int32_t *ids,
                      int64_t n, struct kd_token_ids *buf, struct kd_str *text)
{
    const struct kd_generator *t = &j->teacher;
    int32_t eos =
        t->g.n_eos > 0 ? t->g.eos_ids[0] : kd_tokenizer_special(t->tokenizer)->eos;
    bool ended = eos < 0;

    for (int k = 0; k < t->g.n_eos && n > 0; k++)
        ended = ended || ids[n - 1] == t->g.eos_ids[k];
    KD_TRY(kd_grow(&buf->v, &buf->cap, n + 2, sizeof *buf->v));
    if (n > 0)
        memcpy(buf->v, ids, (size_t)n * sizeof *ids);
    buf->n = n;
    if (!ended)
        buf->v[buf->n++] = eos;
    if (kd_model_arch(t->model)->start_rule == KD_START_LAST_LABEL &&
        buf->v[buf->n - 1] != t->g.start_id)
        buf->v[buf->n++] = t->g.start_id;
    KD_TRY(kd_label_rows_put(r, KD_LABEL_TARGET, buf->v, buf->n, sizeof(int32_t)));
    KD_TRY(kd_tokenizer_decode(t->tokenizer, ids, n, text));
    for (int64_t k = 0; k < text->len; k++)
        if (text->data[k] == '\n' || text->data[k] == '\r')
            text->data[k] = ' ';
    return kd_label_rows_put(r, KD_LABEL_TARGET_TEXT, text->data, text->len, 1);
}

/* This rank's share of a round whose sources start at FIRST. */
static int build_rows(const struct job *j, int64_t first,
                      const struct kd_generated *all, struct kd_label_rows *r)
{
    int64_t per = j->files.per_source, lo, hi;
    struct kd_token_ids buf = {0};
    struct kd_str text = {0};
    int rc = KD_OK;

    KD_TRY(KD_FAULT("labels.round"));
    kd_label_share(j->run, all->n, &lo, &hi);
    for (int64_t k = lo; k < hi; k++) {
        int64_t i = first + k / per;

        KD_GO(kd_label_put_source(r, j->corpus, i));
        KD_GO(put_target(j, r, all->ids + all->offsets[k],
                         all->offsets[k + 1] - all->offsets[k], &buf, &text));
        KD_GO(kd_label_rows_end(r, kd_corpus_id(j->corpus, i)));
    }
out:
    kd_token_ids_free(&buf);
    kd_str_free(&text);
    return rc;
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
    KD_TRY(kd_label_round_path(&j->files, round, path));
    KD_TRY(kd_format(label, label_bytes, "pseudo-label %lld/%lld",
                     (long long)(round + 1), (long long)j->files.n_rounds));
    KD_TRY(kd_calloc(n, sizeof **ids, ids));
    for (int64_t i = 0; i < n; i++)
        (*ids)[i] = kd_corpus_id(w->corpus, w->first + i);
    return KD_OK;
}

/* As if the rounds from FIRST on were one: their longest sources side by side.
 * Collective. */
static int check_memory(struct job *j, int64_t first)
{
    struct window w = {j->corpus, first * j->files.round_size};
    int64_t n = j->files.n - w.first, batch_size = j->c->eval_batch_size;

    if (batch_size > j->files.round_size)
        batch_size = j->files.round_size;
    return n > 0
               ? kd_generator_memory(j->run, &j->teacher, source_of, &w, n, batch_size)
               : KD_OK;
}

/* Generate and commit one round.  Collective. */
static int do_round(struct job *j, int64_t round)
{
    struct window w = {j->corpus, round * j->files.round_size};
    int64_t n = kd_label_round_sources(&j->files, round), *ids = NULL;
    struct kd_generated all = {0};
    struct kd_label_rows r = {0};
    char *path = NULL, label[64];
    int rc = KD_OK;

    KD_ALL_GO(j->run->comm,
              prepare_round(j, round, &w, n, &ids, &path, label, sizeof label));
    KD_GO(kd_generator_run(j->run, &j->teacher, source_of, &w, ids, n,
                           j->c->eval_batch_size, label, &all));
    KD_ALL_GO(j->run->comm, build_rows(j, w.first, &all, &r));
    KD_GO(kd_label_write(&j->files, path, &r));
out:
    kd_label_rows_free(&r);
    kd_generated_free(&all);
    free(ids);
    free(path);
    return rc;
}

/* All rounds from FIRST on.  A signal ends the round under way, whose work is lost; the
 * rounds before it stay. */
static int do_rounds(struct job *j, int64_t first)
{
    for (int64_t round = first; round < j->files.n_rounds; round++) {
        int rc = do_round(j, round);

        if (rc == KD_ESTOPPED) {
            kd_error_clear();
            rc = KD_FAIL(KD_ESTOPPED,
                         "stopped on a signal; %lld of %lld rounds are saved: --resume "
                         "goes on",
                         (long long)round, (long long)j->files.n_rounds);
        }
        KD_TRY(rc);
    }
    return KD_OK;
}

static int write_text(struct job *j, const struct kd_corpus *labels)
{
    struct kd_label_text source = {labels, j->texts[0], kd_corpus_source_text},
                         target = {labels, j->texts[1], kd_corpus_target_text};

    KD_TRY(kd_root_do(j->run->comm, kd_label_text_write, &source));
    return kd_root_do(j->run->comm, kd_label_text_write, &target);
}

/* Text files on request, a word about empty outputs, and no rounds any more. */
static int finish(struct job *j)
{
    struct kd_corpus *done = NULL;
    int64_t n_empty = 0, len = 0;
    int rc = KD_OK;

    KD_GO(kd_corpus_open(j->run->comm, &j->labels, 1, j->c->split, &done));
    for (int64_t i = 0; i < kd_corpus_size(done); i++) {
        (void)kd_corpus_target_text(done, i, &len);
        n_empty += len == 0;
    }
    if (n_empty > 0)
        kd_warn("%lld of %lld labels are empty text", (long long)n_empty,
                (long long)kd_corpus_size(done));
    if (j->c->write_text)
        KD_GO(write_text(j, done));
    KD_GO(kd_label_rounds_remove(&j->files));
    kd_info("%s: %lld labels of %lld sources", j->labels,
            (long long)kd_corpus_size(done), (long long)j->files.n);
out:
    kd_corpus_close(done);
    return rc;
}

/* What the labels are a function of, besides the files. */
static int request_text(const struct job *j, struct kd_str *out)
{
    static const char *const stops[] = {"false", "true", "never"};
    const struct kd_generation *g = &j->teacher.g;

    KD_TRY(kd_str_printf(out, "split=%s sources=%lld round_size=%lld batch=%lld",
                         j->c->split, (long long)j->files.n,
                         (long long)j->c->round_size,
                         (long long)j->c->eval_batch_size));
    KD_TRY(kd_str_printf(out, " num_beams=%lld num_return_sequences=%lld",
                         (long long)g->num_beams, (long long)g->num_return_sequences));
    KD_TRY(kd_str_printf(out, " max_length=%lld min_length=%lld length_penalty=%.17g",
                         (long long)g->max_length, (long long)g->min_length,
                         g->length_penalty));
    KD_TRY(kd_str_printf(out, " no_repeat_ngram_size=%lld early_stopping=%s",
                         (long long)g->no_repeat_ngram_size, stops[g->early_stopping]));
    KD_TRY(kd_str_printf(out, " repetition_penalty=%.17g", g->repetition_penalty));
    KD_TRY(kd_str_printf(out, " start=%d forced_bos=%d forced_eos=%d suppressed=%d",
                         (int)g->start_id, (int)g->forced_bos_id, (int)g->forced_eos_id,
                         g->n_suppress));
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
    KD_GO(kd_json_set_str(o, "tokenizer", kd_tokenizer_digest(j->teacher.tokenizer)));
    for (int64_t i = 0; i < j->c->corpus.n; i++) {
        char key[32];

        KD_GO(kd_format(key, sizeof key, "corpus.%lld", (long long)i));
        KD_GO(kd_json_set_str(o, key, kd_corpus_digest(j->corpus, i)));
    }
    KD_GO(request_text(j, &request));
    KD_GO(kd_json_set_str(o, "request", request.data));
    KD_GO(kd_json_dump(o, &j->files.parents));
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

static int text_path(const struct job *j, const char *suffix, char **out)
{
    struct kd_str name = {0};
    int rc = kd_str_printf(&name, "%s.%s", j->c->split, suffix);

    if (!rc)
        rc = kd_path_join(j->run->common->output_dir, name.data, out);
    kd_str_free(&name);
    return rc;
}

static int job_local(struct job *j, const char *teacher_digest)
{
    const struct label_config *c = j->c;
    struct kd_label_files *f = &j->files;
    const char *corpus_tokenizer = kd_corpus_tokenizer_digest(j->corpus);
    const struct kd_arch *arch = kd_model_arch(j->teacher.model);

    KD_TRY(kd_generator_fits(&j->teacher, j->corpus, c->corpus.v[0]));
    KD_TRY(kd_path_join(j->run->common->output_dir, "labels.h5", &j->labels));
    KD_TRY(text_path(j, "source", &j->texts[0]));
    KD_TRY(text_path(j, "target", &j->texts[1]));
    KD_TRY(kd_opts_dump(j->run->opts, &f->options));
    f->run = j->run;
    f->split = c->split;
    f->tokenizer_digest = corpus_tokenizer && *corpus_tokenizer
                              ? corpus_tokenizer
                              : kd_tokenizer_digest(j->teacher.tokenizer);
    f->vocab_size = arch->vocab_size > arch->source_vocab_size
                        ? arch->vocab_size
                        : arch->source_vocab_size;
    if (kd_corpus_vocab_size(j->corpus) > f->vocab_size)
        f->vocab_size = kd_corpus_vocab_size(j->corpus);
    f->n = kd_corpus_size(j->corpus);
    if (c->n_obs >= 0 && c->n_obs < f->n)
        f->n = c->n_obs;
    if (f->n == 0)
        return KD_FAIL(KD_EINPUT, "there is nothing to label in split %s", c->split);
    f->per_source = j->teacher.g.num_return_sequences;
    f->round_size = c->round_size;
    f->n_rounds = (f->n + c->round_size - 1) / c->round_size;
    return make_parents(j, teacher_digest);
}

static int job_open(struct job *j)
{
    const struct label_config *c = j->c;
    struct digest_work digest = {.dir = c->teacher};

    KD_TRY(
        kd_corpus_open(j->run->comm, c->corpus.v, c->corpus.n, c->split, &j->corpus));
    KD_TRY(kd_generator_open(j->run, c->teacher, c->tokenizer, &c->generation,
                             &j->teacher));
    KD_TRY(kd_root_do(j->run->comm, digest_dir, &digest));
    KD_TRY(kd_bcast(j->run->comm, digest.digest, sizeof digest.digest, 0));
    KD_ALL(j->run->comm, job_local(j, digest.digest));
    return KD_OK;
}

static void job_close(struct job *j)
{
    kd_generator_close(&j->teacher);
    kd_corpus_close(j->corpus);
    kd_str_free(&j->files.options);
    free(j->files.parents);
    free(j->labels);
    free(j->texts[0]);
    free(j->texts[1]);
}

/* ---- what lies in the output directory ---- */

/* Rank 0: texts of someone else stay, and old labels go, so that they are not taken for
 * the result of this job when it is resumed. */
static int clear_outputs(void *arg)
{
    const struct job *j = arg;

    for (int k = 0; k < 2 && j->c->write_text && !j->run->common->overwrite; k++)
        if (kd_path_exists(j->texts[k]))
            return KD_FAIL(KD_EOUTPUT, "%s exists; use --overwrite to replace it",
                           j->texts[k]);
    if (unlink(j->labels) && errno != ENOENT)
        return KD_FAIL(KD_EOUTPUT, "cannot remove %s: %s", j->labels, strerror(errno));
    return KD_OK;
}

/* Whether a resumed job had ended.  Collective. */
static int labels_exist(struct job *j, bool *out)
{
    int64_t exists = kd_comm_rank(j->run->comm) == 0 && kd_path_exists(j->labels);

    KD_TRY(kd_bcast(j->run->comm, &exists, sizeof exists, 0));
    *out = exists != 0;
    return KD_OK;
}

/* *FIRST = the first round to do; *DONE: none, labels.h5 is there.  Collective. */
static int find_start(struct job *j, int64_t *first, bool *done)
{
    *first = 0;
    *done = false;
    if (!j->c->resume) {
        KD_TRY(kd_root_do(j->run->comm, clear_outputs, j));
        return kd_label_rounds_remove(&j->files);
    }
    KD_TRY(labels_exist(j, done));
    if (*done)
        return kd_label_check(&j->files, j->labels, j->files.n * j->files.per_source);
    KD_TRY(kd_label_rounds_resume(&j->files, first));
    kd_info("resuming after %lld of %lld rounds", (long long)*first,
            (long long)j->files.n_rounds);
    return KD_OK;
}

static int run_labels(struct kd_run *run, void *config)
{
    struct job j = {.run = run, .c = config};
    int64_t first;
    bool done;
    int rc = KD_OK;

    KD_GO(job_open(&j));
    KD_GO(find_start(&j, &first, &done));
    if (!done) {
        KD_GO(check_memory(&j, first));
        KD_GO(do_rounds(&j, first));
        KD_GO(kd_label_rounds_merge(&j.files, j.labels));
    }
    KD_GO(finish(&j));
out:
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

static const char *const outputs[] = {"labels.h5", "labels.round-*.h5", NULL};

const struct kd_mode kd_mode_pseudo_label = {
    .name = "pseudo-label",
    .summary = "let a teacher write the targets of a corpus",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .config_bytes = sizeof(struct label_config),
    .outputs = outputs,
    .needs_output_dir = true,
    .stops = true,
    .resumes = resumes,
    .computes = true,
    .run = run_labels,
};
