/* SPDX-License-Identifier: Apache-2.0 */
/* Outputs of a model for lines of text, from a file or from standard input, which rank
 * 0 reads for all.  One line out for every line in (num_return_sequences lines if more
 * are asked for), in order; an empty line is a source like any other. */
#include "generator.h"

#include "kdhpc/base/mem.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct generate_config {
    const char *model, *tokenizer, *input, *output, *prefix, *src_lang;
    int64_t max_source_length, eval_batch_size;
    struct kd_generation_options generation;
};

#define AT(FIELD) offsetof(struct generate_config, FIELD)

static const struct kd_opt_row rows[] = {
    {.name = "model",
     .type = KD_OPT_STR,
     .offset = AT(model),
     .help = "model directory",
     .flags = KD_OPT_REQUIRED},
    {.name = "tokenizer",
     .type = KD_OPT_STR,
     .offset = AT(tokenizer),
     .help = "tokenizer directory; default: the model's"},
    {.name = "input",
     .type = KD_OPT_STR,
     .offset = AT(input),
     .help = "text file with a source a line, or - for standard input",
     .flags = KD_OPT_REQUIRED},
    {.name = "output",
     .type = KD_OPT_STR,
     .offset = AT(output),
     .help = "file to write, or - for standard output; default: "
             "OUTPUT_DIR/generations.txt"},
    {.name = "prefix",
     .type = KD_OPT_STR,
     .offset = AT(prefix),
     .help = "text put before every source; default: the task's, else none"},
    {.name = "src_lang",
     .type = KD_OPT_STR,
     .offset = AT(src_lang),
     .help = "language code of the sources, e.g. en_XX (mBART tokenizers)"},
    {.name = "max_source_length",
     .type = KD_OPT_INT,
     .offset = AT(max_source_length),
     .min = 1,
     .max = KD_NO_MAX,
     .help = "sources are cut to so many ids; default: the model's positions"},
    {.name = "eval_batch_size",
     .type = KD_OPT_INT,
     .offset = AT(eval_batch_size),
     .def = "32",
     .min = 1,
     .max = 65536,
     .help = "sources of a generation batch"},
};

struct job {
    struct kd_run *run;
    const struct generate_config *c;
    const char *prefix;
    struct kd_generator generator;
    struct kd_str text; /* the whole input */
    int64_t n;
    int64_t *line;    /* [n + 1] offsets of lines in text, newline included */
    int64_t *offsets; /* [n + 1] offsets of sources in ids */
    int64_t *number;  /* [n] line numbers, which key the sampler */
    int32_t *ids;
    char *path; /* of the output; NULL: standard output */
};

static int read_stdin(struct kd_str *out)
{
    char buf[65536];
    size_t n;

    while ((n = fread(buf, 1, sizeof buf, stdin)) > 0)
        KD_TRY(kd_str_append(out, buf, (int64_t)n));
    if (ferror(stdin))
        return KD_FAIL(KD_EINPUT, "cannot read standard input: %s", strerror(errno));
    return KD_OK;
}

/* Rank 0: the input, checked to be UTF-8. */
static int read_input(void *arg)
{
    struct job *j = arg;
    bool from_stdin = strcmp(j->c->input, "-") == 0;
    int64_t bad, number = 1;

    if (from_stdin)
        KD_TRY(read_stdin(&j->text));
    else
        KD_TRY(kd_read_file(j->c->input, &j->text));
    bad = kd_utf8_invalid_at(j->text.data ? j->text.data : "", j->text.len);
    if (bad < 0)
        return KD_OK;
    for (int64_t i = 0; i < bad; i++)
        number += j->text.data[i] == '\n';
    return KD_FAIL(KD_EINPUT, "%s:%lld: invalid UTF-8",
                   from_stdin ? "standard input" : j->c->input, (long long)number);
}

/* Give every rank the text.  Collective. */
static int share_input(struct job *j)
{
    struct kd_comm *comm = j->run->comm;
    int64_t len = 0, cap = 0;
    char *data = NULL;

    KD_TRY(kd_root_do(comm, read_input, j));
    len = j->text.len;
    KD_TRY(kd_bcast(comm, &len, sizeof len, 0));
    if (kd_comm_rank(comm) != 0) {
        KD_TRY(kd_agree(comm, kd_grow(&data, &cap, len + 1, 1)));
        j->text = (struct kd_str){data, len, cap};
        data[len] = '\0';
    } else {
        KD_TRY(kd_agree(comm, KD_OK));
    }
    return len > 0 ? kd_bcast(comm, j->text.data, len, 0) : KD_OK;
}

static int find_lines(struct job *j)
{
    int64_t cap = 0;

    KD_TRY(kd_grow(&j->line, &cap, 1, sizeof *j->line));
    j->line[0] = 0;
    while (j->line[j->n] < j->text.len) {
        int64_t at = j->line[j->n], left = j->text.len - at;
        const char *end = memchr(j->text.data + at, '\n', (size_t)left);

        KD_TRY(kd_grow(&j->line, &cap, j->n + 2, sizeof *j->line));
        j->line[++j->n] = end ? end + 1 - j->text.data : j->text.len;
    }
    return KD_OK;
}

/* Line I without its end, after the prefix. */
static int line_text(const struct job *j, int64_t i, struct kd_str *out)
{
    const char *p = j->text.data + j->line[i];
    int64_t len = j->line[i + 1] - j->line[i];

    if (len > 0 && p[len - 1] == '\n')
        len--;
    if (len > 0 && p[len - 1] == '\r')
        len--;
    kd_str_clear(out);
    KD_TRY(kd_str_append(out, j->prefix, (int64_t)strlen(j->prefix)));
    return kd_str_append(out, p, len);
}

/* Ids of line I lie in the model's table. */
static int check_ids(const struct job *j, int64_t i, const struct kd_token_ids *ids)
{
    int64_t bound = kd_model_arch(j->generator.model)->source_vocab_size;

    for (int64_t k = 0; k < ids->n; k++)
        if (ids->v[k] >= bound)
            return KD_FAIL(KD_EINPUT,
                           "line %lld has token id %d, but the model's vocabulary has "
                           "%lld: is the tokenizer another model's?",
                           (long long)i + 1, (int)ids->v[k], (long long)bound);
    return KD_OK;
}

static int encode_lines(struct job *j)
{
    int64_t positions = kd_model_arch(j->generator.model)->max_positions, cap = 0,
            n_cut = 0, max_length = positions;
    struct kd_token_ids ids = {0};
    struct kd_str text = {0};
    int rc = KD_OK;

    if (j->c->max_source_length != KD_UNSET_INT)
        max_length = j->c->max_source_length;
    if (positions > 0 && max_length > positions)
        return KD_FAIL(KD_EUSAGE,
                       "max_source_length %lld is beyond the model's %lld positions",
                       (long long)max_length, (long long)positions);
    KD_TRY(kd_calloc(j->n + 1, sizeof *j->offsets, &j->offsets));
    KD_TRY(kd_calloc(j->n, sizeof *j->number, &j->number));
    for (int64_t i = 0; i < j->n; i++) {
        int64_t at = j->offsets[i];
        bool cut = false;

        KD_GO(line_text(j, i, &text));
        KD_GO(kd_tokenizer_encode(j->generator.tokenizer, KD_SOURCE,
                                  text.data ? text.data : "", text.len, max_length,
                                  &ids, &cut));
        KD_GO(check_ids(j, i, &ids));
        KD_GO(kd_grow(&j->ids, &cap, at + ids.n, sizeof *j->ids));
        if (ids.n > 0)
            memcpy(j->ids + at, ids.v, (size_t)ids.n * sizeof *ids.v);
        j->offsets[i + 1] = at + ids.n;
        j->number[i] = i;
        n_cut += cut;
    }
    if (n_cut > 0)
        kd_warn("%lld of %lld sources were cut to %lld ids", (long long)n_cut,
                (long long)j->n, (long long)max_length);
out:
    kd_token_ids_free(&ids);
    kd_str_free(&text);
    return rc;
}

static const int32_t *source_of(const void *arg, int64_t i, int64_t *n)
{
    const struct job *j = arg;

    *n = j->offsets[i + 1] - j->offsets[i];
    return j->ids + j->offsets[i];
}

/* Where the output goes.  An existing file is left alone unless --overwrite. */
static int find_output(struct job *j)
{
    const char *output = j->c->output;

    if (!output)
        return kd_path_join(j->run->common->output_dir, "generations.txt", &j->path);
    return strcmp(output, "-") == 0 ? KD_OK : kd_strdup(output, &j->path);
}

/* The directory of PATH must be there, and take a file. */
static int check_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *dir = NULL;
    int rc = KD_OK;

    if (slash)
        KD_TRY(kd_strndup(path, slash > path ? slash - path : 1, &dir));
    if (access(dir ? dir : ".", W_OK | X_OK))
        rc = KD_FAIL(KD_EOUTPUT, "cannot write %s: %s", path, strerror(errno));
    free(dir);
    return rc;
}

/* Rank 0, before anything is computed. */
static int check_output(void *arg)
{
    struct job *j = arg;

    if (!j->path)
        return KD_OK;
    if (kd_path_is_dir(j->path))
        return KD_FAIL(KD_EOUTPUT, "%s is a directory", j->path);
    if (!j->run->common->overwrite && kd_path_exists(j->path))
        return KD_FAIL(KD_EOUTPUT, "%s exists; use --overwrite to replace it", j->path);
    return check_parent(j->path);
}

struct output_work {
    const struct job *j;
    const struct kd_generated *rows;
};

/* Rank 0: decode and write. */
static int write_output(void *arg)
{
    struct output_work *w = arg;
    struct kd_str text = {0};
    char **lines = NULL;
    int rc = KD_OK;

    KD_GO(kd_decode_lines(w->j->generator.tokenizer, w->rows, &lines));
    for (int64_t i = 0; i < w->rows->n; i++) {
        KD_GO(kd_str_append(&text, lines[i], (int64_t)strlen(lines[i])));
        KD_GO(kd_str_append(&text, "\n", 1));
    }
    if (w->j->path)
        KD_GO(kd_write_file(w->j->path, text.data ? text.data : "", text.len));
    else if (fwrite(text.data ? text.data : "", 1, (size_t)text.len, stdout) !=
                 (size_t)text.len ||
             fflush(stdout) != 0)
        KD_GO(KD_FAIL(KD_EOUTPUT, "cannot write standard output: %s", strerror(errno)));
out:
    for (int64_t i = 0; lines && i < w->rows->n; i++)
        free(lines[i]);
    free(lines);
    kd_str_free(&text);
    return rc;
}

static int encode_input(struct job *j)
{
    KD_TRY(kd_task_prefix(kd_model_config(j->generator.model), j->c->generation.task,
                          j->c->prefix, &j->prefix));
    KD_TRY(kd_tokenizer_set_langs(j->generator.tokenizer, j->c->src_lang, NULL));
    KD_TRY(find_lines(j));
    return encode_lines(j);
}

static void job_free(struct job *j)
{
    kd_generator_close(&j->generator);
    kd_str_free(&j->text);
    free(j->line);
    free(j->offsets);
    free(j->number);
    free(j->ids);
    free(j->path);
}

static int run_generate(struct kd_run *run, void *config)
{
    struct job j = {.run = run, .c = config};
    struct kd_generated all = {0};
    double start_s;
    int rc = KD_OK;

    KD_ALL_GO(run->comm, find_output(&j));
    KD_GO(kd_root_do(run->comm, check_output, &j));
    KD_GO(share_input(&j));
    KD_GO(kd_generator_open(run, j.c->model, j.c->tokenizer, &j.c->generation,
                            &j.generator));
    KD_ALL_GO(run->comm, encode_input(&j));
    KD_GO(kd_generator_memory(run, &j.generator, source_of, &j, j.n,
                              j.c->eval_batch_size));
    start_s = kd_now_s();
    KD_GO(kd_generator_stopped(kd_generator_run(run, &j.generator, source_of, &j,
                                                j.number, j.n, j.c->eval_batch_size,
                                                "generate", &all)));
    kd_info("%lld outputs, %.1f outputs/s", (long long)all.n,
            (double)all.n / (kd_now_s() - start_s + 1e-9));
    KD_GO(kd_root_do(run->comm, write_output,
                     &(struct output_work){.j = &j, .rows = &all}));
out:
    kd_generated_free(&all);
    job_free(&j);
    return rc;
}

static int check(const struct kd_common *common, void *config)
{
    const struct generate_config *c = config;

    if (!c->output && !common->output_dir)
        return KD_FAIL(KD_EUSAGE, "generate needs --output or --output_dir");
    return KD_OK;
}

static const struct kd_opt_group groups[] = {
    {"Text", rows, sizeof rows / sizeof *rows, 0},
    {"Generation (defaults from the model's generation config)", kd_generation_rows, 0,
     AT(generation)},
};

const struct kd_mode kd_mode_generate = {
    .name = "generate",
    .summary = "outputs of a model for lines of text",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .config_bytes = sizeof(struct generate_config),
    .stops = true,
    .check = check,
    .computes = true,
    .run = run_generate,
};
