/* SPDX-License-Identifier: Apache-2.0 */
/* Text files to a corpus: one example per line of a source and a target file.
 *
 * Lines are dealt over the ranks in blocks of equal number, the same for both files, so
 * that pairs stay together.  A first pass counts the newlines of equal byte ranges, one
 * per rank; the counts tell every rank in which range its first line begins, how far
 * into it, and whether both files have as many lines.  The second pass streams: only
 * ids and texts of the rank's own rows stay in memory.  Rows keep the files' order, so
 * the corpus does not depend on the number of ranks. */
#include "kdhpc/mode/mode.h"

#include "kdhpc/base/json.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/comm/watchdog.h"
#include "kdhpc/store/corpus.h"
#include "kdhpc/text/lines.h"
#include "kdhpc/text/tokenizer.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct tokenize_config {
    const char *data_dir, *tokenizer, *prefix, *src_lang, *tgt_lang;
    int64_t max_source_length, max_target_length;
};

#define FIELD(f) .offset = offsetof(struct tokenize_config, f)

static const struct kd_opt_row rows[] = {
    {.name = "data_dir",
     .type = KD_OPT_STR,
     FIELD(data_dir),
     .help = "directory of {train,val,test}.{source,target}",
     .flags = KD_OPT_REQUIRED},
    {.name = "tokenizer",
     .type = KD_OPT_STR,
     FIELD(tokenizer),
     .help = "model or tokenizer directory",
     .flags = KD_OPT_REQUIRED},
    {.name = "max_source_length",
     .type = KD_OPT_INT,
     FIELD(max_source_length),
     .def = "1024",
     .min = 0,
     .max = KD_NO_MAX,
     .help = "longest source in ids, special tokens included (0: no limit)"},
    {.name = "max_target_length",
     .type = KD_OPT_INT,
     FIELD(max_target_length),
     .def = "128",
     .min = 0,
     .max = KD_NO_MAX,
     .help = "longest target in ids, special tokens included (0: no limit)"},
    {.name = "prefix",
     .type = KD_OPT_STR,
     FIELD(prefix),
     .def = "",
     .help = "text put in front of every source before encoding (not stored as text)"},
    {.name = "src_lang",
     .type = KD_OPT_STR,
     FIELD(src_lang),
     .help = "language code of the sources, e.g. en_XX (mBART tokenizers)"},
    {.name = "tgt_lang",
     .type = KD_OPT_STR,
     FIELD(tgt_lang),
     .help = "language code of the targets"},
};

static const struct kd_opt_group groups[] = {
    {"Tokenization", rows, sizeof rows / sizeof *rows, 0},
};

static const char *const SPLITS[] = {"train", "val", "test"};
enum { N_SPLITS = 3, LINES_PER_BEAT = 64 };

/* ---- which splits there are ---- */

struct splits {
    const char *data_dir;
    bool present[N_SPLITS];
};

static int file_of(const char *dir, const char *split, const char *side, char **out)
{
    char name[32];

    KD_TRY(kd_format(name, sizeof name, "%s.%s", split, side));
    return kd_path_join(dir, name, out);
}

/** Rank 0: both files of a split or none, and at least one split. */
static int find_splits(void *arg)
{
    struct splits *s = arg;
    bool any = false;

    for (int i = 0; i < N_SPLITS; i++) {
        char *source = NULL, *target = NULL;
        bool has[2] = {false, false};
        int rc = file_of(s->data_dir, SPLITS[i], "source", &source);

        if (!rc)
            rc = file_of(s->data_dir, SPLITS[i], "target", &target);
        if (!rc) {
            has[0] = kd_path_exists(source);
            has[1] = kd_path_exists(target);
            if (has[0] != has[1])
                rc = KD_FAIL(KD_EINPUT, "%s is there, but %s is missing",
                             has[0] ? source : target, has[0] ? target : source);
        }
        free(source);
        free(target);
        KD_TRY(rc);
        s->present[i] = has[0];
        any = any || has[0];
    }
    return any ? KD_OK
               : KD_FAIL(KD_EINPUT,
                         "%s: no split there (looked for train, val and test, each "
                         "as .source and .target)",
                         s->data_dir);
}

/* ---- dealing lines ---- */

/** A text file: its size, and the newlines in the byte range of every rank. */
struct text_file {
    char *path;
    int64_t bytes, n_lines;
    int64_t *newlines; /* [n_ranks] */
};

static int64_t part(int64_t n, int64_t i, int64_t of)
{
    return n / of * i + n % of * i / of;
}

/** Count the newlines of this rank's byte range, a few megabytes to a heartbeat. */
static int count_range(const struct text_file *f, int64_t from, int64_t to, int64_t *n)
{
    const int64_t step = (int64_t)64 << 20;

    *n = 0;
    for (; from < to; from += step) {
        int64_t stop = from + step < to ? from + step : to, some = 0;

        KD_TRY(kd_lines_count(f->path, from, stop, &some));
        *n += some;
        kd_heartbeat();
    }
    return KD_OK;
}

/** Fill in the counts of F.  Collective. */
static int count_file(struct kd_comm *comm, struct text_file *f)
{
    int rank = kd_comm_rank(comm), size = kd_comm_size(comm);
    int64_t local = 0;
    bool newline_last = false;
    void *all = NULL;

    KD_ALL(comm, kd_lines_size(f->path, &f->bytes, &newline_last));
    KD_TRY(kd_bcast(comm, &f->bytes, sizeof f->bytes, 0));
    KD_TRY(kd_bcast(comm, &newline_last, sizeof newline_last, 0));
    KD_ALL(comm, count_range(f, part(f->bytes, rank, size),
                             part(f->bytes, rank + 1, size), &local));
    KD_TRY(kd_allgather_bytes(comm, &local, sizeof local, &all, NULL));
    f->newlines = all;
    f->n_lines = f->bytes > 0 && !newline_last;
    for (int i = 0; i < size; i++)
        f->n_lines += f->newlines[i];
    return KD_OK;
}

/** Open F at line FIRST (from 0). */
static int open_at_line(const struct text_file *f, int64_t first, int n_ranks,
                        struct kd_lines **out)
{
    int64_t skip = first;
    int range = 0;

    while (range + 1 < n_ranks && skip > f->newlines[range])
        skip -= f->newlines[range++];
    return kd_lines_open(f->path, part(f->bytes, range, n_ranks), skip, out);
}

/* ---- rows ---- */

/** One side of the rank's rows, growing. */
struct side {
    int64_t *id_offsets, *text_offsets; /* [n + 1] */
    struct kd_token_ids ids;
    struct kd_str text;
    int64_t cap_id_offsets, cap_text_offsets;
    int64_t truncated, unknown;
};

struct pair {
    struct side side[2]; /* by enum kd_text_side */
    int64_t *id;
    int64_t n, cap;
};

static void pair_free(struct pair *p)
{
    for (int s = 0; s < 2; s++) {
        free(p->side[s].id_offsets);
        free(p->side[s].text_offsets);
        kd_token_ids_free(&p->side[s].ids);
        kd_str_free(&p->side[s].text);
    }
    free(p->id);
}

/** Room for one row more; the offsets of row 0 are set with the first. */
static int side_reserve(struct side *s, int64_t n)
{
    KD_TRY(kd_grow(&s->id_offsets, &s->cap_id_offsets, n + 2, sizeof *s->id_offsets));
    KD_TRY(kd_grow(&s->text_offsets, &s->cap_text_offsets, n + 2,
                   sizeof *s->text_offsets));
    if (n == 0)
        s->id_offsets[0] = s->text_offsets[0] = 0;
    return KD_OK;
}

static int side_append(struct side *s, int64_t row, const struct kd_token_ids *ids,
                       int32_t unk, const char *text, int64_t len)
{
    KD_TRY(side_reserve(s, row));
    KD_TRY(kd_grow(&s->ids.v, &s->ids.cap, s->ids.n + ids->n, sizeof *s->ids.v));
    if (ids->n > 0)
        memcpy(s->ids.v + s->ids.n, ids->v, (size_t)ids->n * sizeof *ids->v);
    s->ids.n += ids->n;
    for (int64_t i = 0; i < ids->n; i++)
        s->unknown += ids->v[i] == unk;
    KD_TRY(kd_str_append(&s->text, text, len));
    s->id_offsets[row + 1] = s->ids.n;
    s->text_offsets[row + 1] = s->text.len;
    return KD_OK;
}

/** What the encoding of a split needs. */
struct encoder {
    const struct tokenize_config *config;
    const struct kd_tokenizer *tokenizer;
    struct text_file file[2];
    struct kd_lines *lines[2];
    struct kd_token_ids ids;
    struct kd_str prefixed;
};

static bool is_blank(const char *text, int64_t len)
{
    for (int64_t i = 0; i < len; i++)
        if (text[i] != ' ' && text[i] != '\t')
            return false;
    return true;
}

static int check_line(const char *path, int64_t number, const char *line, int64_t len)
{
    int64_t bad = 0;

    if (!line)
        return KD_FAIL(KD_EINPUT, "%s:%lld: the file became shorter while it was read",
                       path, (long long)number);
    bad = kd_utf8_invalid_at(line, len);
    if (bad >= 0)
        return KD_FAIL(KD_EINPUT, "%s:%lld: not valid UTF-8 at byte %lld of the line",
                       path, (long long)number, (long long)bad + 1);
    if (is_blank(line, len))
        return KD_FAIL(KD_EINPUT,
                       "%s:%lld: an empty line (every example needs a source and a "
                       "target)",
                       path, (long long)number);
    return KD_OK;
}

/** Read, encode and append the line of one side of row P->n. */
static int encode_line(struct encoder *e, enum kd_text_side which, int64_t number,
                       struct pair *p)
{
    const struct tokenize_config *c = e->config;
    int64_t max = which == KD_SOURCE ? c->max_source_length : c->max_target_length;
    struct side *s = &p->side[which];
    const char *line = NULL, *text = NULL;
    int64_t len = 0, text_len = 0;
    bool truncated = false;

    KD_TRY(kd_lines_next(e->lines[which], &line, &len));
    KD_TRY(check_line(e->file[which].path, number, line, len));
    text = line;
    text_len = len;
    if (which == KD_SOURCE && *c->prefix) {
        kd_str_clear(&e->prefixed);
        KD_TRY(kd_str_append(&e->prefixed, c->prefix, (int64_t)strlen(c->prefix)));
        KD_TRY(kd_str_append(&e->prefixed, line, len));
        text = e->prefixed.data;
        text_len = e->prefixed.len;
    }
    KD_TRY(kd_tokenizer_encode(e->tokenizer, which, text, text_len, max, &e->ids,
                               &truncated));
    s->truncated += truncated;
    return side_append(s, p->n, &e->ids, kd_tokenizer_special(e->tokenizer)->unk, line,
                       len);
}

/** Encode lines [first, last) of both files. */
static int encode_rows(struct encoder *e, const char *split, int64_t first,
                       int64_t last, int n_ranks, struct pair *p)
{
    char label[32];
    struct kd_progress progress;

    KD_TRY(kd_format(label, sizeof label, "tokenize %s", split));
    progress = kd_progress_start(label, last - first, 0);
    for (int s = 0; s < 2; s++) {
        KD_TRY(side_reserve(&p->side[s], 0));
        KD_TRY(open_at_line(&e->file[s], first, n_ranks, &e->lines[s]));
    }
    for (int64_t i = first; i < last; i++) {
        KD_TRY(kd_grow(&p->id, &p->cap, p->n + 1, sizeof *p->id));
        KD_TRY(encode_line(e, KD_SOURCE, i + 1, p));
        KD_TRY(encode_line(e, KD_TARGET, i + 1, p));
        p->id[p->n++] = i;
        if (p->n % LINES_PER_BEAT == 0) {
            kd_heartbeat();
            kd_progress_update(&progress, p->n, "lines of rank 0");
        }
    }
    kd_progress_end(&progress);
    return KD_OK;
}

/* ---- a split ---- */

static double share(int64_t part_of, int64_t whole)
{
    return whole > 0 ? 100.0 * (double)part_of / (double)whole : 0.0;
}

/** Print what the split holds, and what was stripped from its files.  Collective. */
static int report(struct kd_comm *comm, const char *split, const struct encoder *e,
                  const struct pair *p)
{
    enum { TRUNCATED = 1, TOKENS = 3, UNKNOWN = 5, RETURNS = 7, N_SUMS = 8 };
    int64_t v[N_SUMS] = {p->n};

    for (int s = 0; s < 2; s++) {
        v[TRUNCATED + s] = p->side[s].truncated;
        v[TOKENS + s] = p->side[s].ids.n;
        v[UNKNOWN + s] = p->side[s].unknown;
        v[RETURNS] += kd_lines_returns(e->lines[s]);
        if (kd_lines_had_bom(e->lines[s]))
            kd_warn("%s: the byte order mark at its start is not part of the text",
                    e->file[s].path);
    }
    KD_TRY(kd_allreduce_i64(comm, v, N_SUMS, KD_SUM));
    if (v[RETURNS] > 0)
        kd_warn("%s: stripped a carriage return off %lld line ends", split,
                (long long)v[RETURNS]);
    kd_info("%s: %lld examples, %lld tokens (%lld source, %lld target), truncated "
            "%.2f%% of sources and %.2f%% of targets, unknown %.4f%% of tokens",
            split, (long long)v[0], (long long)(v[TOKENS] + v[TOKENS + 1]),
            (long long)v[TOKENS], (long long)v[TOKENS + 1], share(v[TRUNCATED], v[0]),
            share(v[TRUNCATED + 1], v[0]),
            share(v[UNKNOWN] + v[UNKNOWN + 1], v[TOKENS] + v[TOKENS + 1]));
    return KD_OK;
}

static struct kd_corpus_rows rows_of(const struct pair *p)
{
    const struct side *s = &p->side[KD_SOURCE], *t = &p->side[KD_TARGET];

    return (struct kd_corpus_rows){
        .n = p->n,
        .id = p->id,
        .source = {p->n, s->id_offsets, s->ids.v},
        .target = {p->n, t->id_offsets, t->ids.v},
        .source_text = {p->n, s->text_offsets, s->text.data},
        .target_text = {p->n, t->text_offsets, t->text.data},
    };
}

static int check_counts(const struct encoder *e)
{
    if (e->file[0].n_lines != e->file[1].n_lines)
        return KD_FAIL(KD_EINPUT, "%s has %lld lines, but %s has %lld", e->file[0].path,
                       (long long)e->file[0].n_lines, e->file[1].path,
                       (long long)e->file[1].n_lines);
    return e->file[0].n_lines > 0
               ? KD_OK
               : KD_FAIL(KD_EINPUT, "%s: the file is empty", e->file[0].path);
}

/** Tokenize SPLIT into W.  Collective. */
static int tokenize_split(struct kd_run *run, const struct tokenize_config *c,
                          const struct kd_tokenizer *t, const char *split,
                          struct kd_corpus_writer *w)
{
    int rank = kd_comm_rank(run->comm), size = kd_comm_size(run->comm);
    struct encoder e = {.config = c, .tokenizer = t};
    struct pair p = {0};
    struct kd_corpus_rows out;
    int64_t n = 0;
    int rc = KD_OK;

    KD_ALL_GO(run->comm, file_of(c->data_dir, split, "source", &e.file[0].path));
    KD_ALL_GO(run->comm, file_of(c->data_dir, split, "target", &e.file[1].path));
    KD_GO(count_file(run->comm, &e.file[0]));
    KD_GO(count_file(run->comm, &e.file[1]));
    KD_ALL_GO(run->comm, check_counts(&e));
    n = e.file[0].n_lines;
    KD_ALL_GO(run->comm, encode_rows(&e, split, part(n, rank, size),
                                     part(n, rank + 1, size), size, &p));
    out = rows_of(&p);
    KD_GO(kd_corpus_write_split(w, split, &out));
    rc = report(run->comm, split, &e, &p);
out:
    for (int s = 0; s < 2; s++) {
        kd_lines_close(e.lines[s]);
        free(e.file[s].path);
        free(e.file[s].newlines);
    }
    kd_token_ids_free(&e.ids);
    kd_str_free(&e.prefixed);
    pair_free(&p);
    return rc;
}

/* ---- the mode ---- */

/** The texts that the file keeps about its making. */
struct provenance {
    struct kd_str options;
    char *parents, *path;
};

static int describe(struct kd_run *run, const struct kd_tokenizer *t,
                    struct provenance *p)
{
    struct kd_json *parents = kd_json_object();
    int rc = KD_OK;

    if (!parents)
        return KD_FAIL(KD_ENOMEM, "no memory for the list of parents");
    KD_GO(kd_json_set_str(parents, "tokenizer", kd_tokenizer_digest(t)));
    KD_GO(kd_json_dump(parents, &p->parents));
    KD_GO(kd_opts_dump(run->opts, &p->options));
    rc = kd_path_join(run->common->output_dir, "corpus.h5", &p->path);
out:
    kd_json_free(parents);
    return rc;
}

static int load_tokenizer(const struct tokenize_config *c, struct kd_tokenizer **out)
{
    KD_TRY(kd_tokenizer_load(c->tokenizer, out));
    return kd_tokenizer_set_langs(*out, c->src_lang, c->tgt_lang);
}

/** Tokenize every split into a new file.  Collective. */
static int write_corpus(struct kd_run *run, const struct tokenize_config *c,
                        const struct kd_tokenizer *t, const struct splits *splits,
                        const struct provenance *p)
{
    const struct kd_store_meta meta = {
        .schema = "kdhpc.corpus",
        .options = p->options.data,
        .parents = p->parents,
        .tokenizer_digest = kd_tokenizer_digest(t),
        .vocab_size = kd_tokenizer_size(t),
    };
    struct kd_corpus_writer *w = NULL;

    KD_TRY(kd_corpus_create(run->comm, p->path, &meta, &w));
    for (int i = 0; i < N_SPLITS; i++) {
        int rc = splits->present[i] ? tokenize_split(run, c, t, SPLITS[i], w) : KD_OK;

        if (rc) {
            kd_corpus_abandon(w);
            return rc;
        }
    }
    return kd_corpus_commit(w);
}

static int run_tokenize(struct kd_run *run, void *config)
{
    const struct tokenize_config *c = config;
    struct splits splits = {.data_dir = c->data_dir};
    struct kd_tokenizer *t = NULL;
    struct provenance p = {0};
    int rc = KD_OK;

    KD_GO(kd_root_do(run->comm, find_splits, &splits));
    KD_GO(kd_bcast(run->comm, splits.present, sizeof splits.present, 0));
    KD_ALL_GO(run->comm, load_tokenizer(c, &t));
    KD_ALL_GO(run->comm, describe(run, t, &p));
    KD_GO(write_corpus(run, c, t, &splits, &p));
    kd_info("%s written", p.path);
out:
    kd_tokenizer_free(t);
    kd_str_free(&p.options);
    free(p.parents);
    free(p.path);
    return rc;
}

static const char *const outputs[] = {"corpus.h5", NULL};

const struct kd_mode kd_mode_tokenize = {
    .name = "tokenize",
    .summary = "turn text files into a corpus of ids",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .config_bytes = sizeof(struct tokenize_config),
    .outputs = outputs,
    .needs_output_dir = true,
    .run = run_tokenize,
};
