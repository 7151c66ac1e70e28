/* SPDX-License-Identifier: Apache-2.0 */
/* Pairs from files: a source and a target file with a pair a line, one file with a JSON
 * object a line, or one with tab-separated columns.
 *
 * A pair is a line in all layouts, so ranks can be dealt pairs by counting newlines: a
 * first pass counts those of equal byte ranges, one per rank; the counts tell every
 * rank in which range its first line begins, how far into it, and whether two files
 * have as many lines.  Reading then streams. */
#include "pairs.h"

#include "kdhpc/base/json.h"
#include "kdhpc/base/log.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/comm/watchdog.h"
#include "kdhpc/text/lines.h"

#include <stdlib.h>
#include <string.h>

#define FIELD(f) .name = #f, .offset = offsetof(struct kd_pairs_options, f)

const struct kd_opt_row kd_pairs_rows[] = {
    {FIELD(data_dir), .type = KD_OPT_STR,
     .help = "directory of {train,val,test}.{source,target}, .jsonl or .tsv",
     .flags = KD_OPT_REQUIRED},
    {FIELD(data_format), .type = KD_OPT_CHOICE, .def = "auto",
     .choices = "auto|files|jsonl|tsv",
     .help = "files: SPLIT.source and SPLIT.target; auto: what is there"},
    {FIELD(source_key), .type = KD_OPT_STR, .def = "source",
     .help = "key of the source in a JSON line; a.b: b within a"},
    {FIELD(target_key), .type = KD_OPT_STR, .def = "target",
     .help = "key of the target in a JSON line"},
    {FIELD(source_column), .type = KD_OPT_INT, .def = "1", .min = 1, .max = 1000,
     .help = "column of the source in a .tsv file"},
    {FIELD(target_column), .type = KD_OPT_INT, .def = "2", .min = 1, .max = 1000,
     .help = "column of the target in a .tsv file"},
    {FIELD(tsv_header), .type = KD_OPT_BOOL, .def = "false",
     .help = "the first line of a .tsv file names its columns"},
    {.name = NULL},
};

/* ---- which files ---- */

static const char *const ENDINGS[] = {"source", "target", "jsonl", "tsv"};
enum { SOURCE_FILE, TARGET_FILE, JSONL_FILE, TSV_FILE, N_ENDINGS };

static int file_of(const struct kd_pairs_options *o, const char *split, int ending,
                   char **out)
{
    char name[32];

    KD_TRY(kd_format(name, sizeof name, "%s.%s", split, ENDINGS[ending]));
    return kd_path_join(o->data_dir, name, out);
}

static int half_a_pair(const struct kd_pairs_options *o, const char *split, int there)
{
    return KD_FAIL(KD_EINPUT, "%s/%s.%s is there, but %s/%s.%s is missing", o->data_dir,
                   split, ENDINGS[there], o->data_dir, split, ENDINGS[!there]);
}

int kd_pairs_find(const struct kd_pairs_options *o, const char *split,
                  enum kd_pairs_format *out)
{
    bool has[N_ENDINGS];
    int n = 0;

    *out = KD_PAIRS_AUTO;
    for (int i = 0; i < N_ENDINGS; i++) {
        char *path = NULL;

        KD_TRY(file_of(o, split, i, &path));
        has[i] = kd_path_exists(path);
        free(path);
    }
    for (int f = KD_PAIRS_FILES; f <= KD_PAIRS_TSV; f++) {
        bool here = f == KD_PAIRS_FILES ? has[SOURCE_FILE] || has[TARGET_FILE]
                                        : has[f + JSONL_FILE - KD_PAIRS_JSONL];

        if (!here || (o->data_format != KD_PAIRS_AUTO && o->data_format != f))
            continue;
        *out = (enum kd_pairs_format)f;
        n++;
    }
    if (n > 1)
        return KD_FAIL(KD_EINPUT,
                       "%s has split %s in more than one layout: choose one with "
                       "--data_format",
                       o->data_dir, split);
    if (*out == KD_PAIRS_FILES && has[SOURCE_FILE] != has[TARGET_FILE])
        return half_a_pair(o, split, has[SOURCE_FILE] ? SOURCE_FILE : TARGET_FILE);
    return KD_OK;
}

/* ---- counting ---- */

/* A text file: its size, and the newlines in the byte range of every rank. */
struct text_file {
    char *path;
    int64_t bytes, n_lines;
    int64_t *newlines; /* [n_ranks] */
    struct kd_lines *lines;
};

struct kd_pairs {
    struct kd_pairs_options o;
    enum kd_pairs_format format;
    struct text_file file[2]; /* the second one only of KD_PAIRS_FILES */
    int n_files, n_ranks;
    int64_t n, at;        /* pairs; the next one */
    struct kd_json *json; /* of the current line */
};

static int64_t part(int64_t n, int64_t i, int64_t of)
{
    return n / of * i + n % of * i / of;
}

/* Count the newlines of this rank's byte range, a few megabytes to a heartbeat. */
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

/* Fill in the counts of F.  Collective. */
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

static int64_t n_headers(const struct kd_pairs *p)
{
    return p->format == KD_PAIRS_TSV && p->o.tsv_header;
}

static int check_counts(const struct kd_pairs *p)
{
    const struct text_file *f = p->file;

    if (p->n_files == 2 && f[0].n_lines != f[1].n_lines)
        return KD_FAIL(KD_EINPUT, "%s has %lld lines, but %s has %lld", f[0].path,
                       (long long)f[0].n_lines, f[1].path, (long long)f[1].n_lines);
    return p->n > 0 ? KD_OK : KD_FAIL(KD_EINPUT, "%s: the file is empty", f[0].path);
}

static int set_paths(struct kd_pairs *p, const char *split)
{
    if (p->format != KD_PAIRS_FILES)
        return file_of(&p->o, split, p->format == KD_PAIRS_TSV ? TSV_FILE : JSONL_FILE,
                       &p->file[0].path);
    KD_TRY(file_of(&p->o, split, SOURCE_FILE, &p->file[0].path));
    return file_of(&p->o, split, TARGET_FILE, &p->file[1].path);
}

int kd_pairs_open(struct kd_comm *comm, const struct kd_pairs_options *o,
                  const char *split, enum kd_pairs_format format, struct kd_pairs **out)
{
    struct kd_pairs *p = NULL;
    int rc = KD_OK;

    *out = NULL;
    KD_ALL(comm, kd_calloc(1, sizeof *p, &p));
    p->o = *o;
    p->format = format;
    p->n_files = format == KD_PAIRS_FILES ? 2 : 1;
    p->n_ranks = kd_comm_size(comm);
    KD_ALL_GO(comm, set_paths(p, split));
    for (int i = 0; i < p->n_files; i++)
        KD_GO(count_file(comm, &p->file[i]));
    p->n = p->file[0].n_lines - n_headers(p);
    KD_ALL_GO(comm, check_counts(p));
    *out = p;
    return KD_OK;
out:
    kd_pairs_close(p);
    return rc;
}

void kd_pairs_close(struct kd_pairs *p)
{
    if (!p)
        return;
    for (int i = 0; i < 2; i++) {
        kd_lines_close(p->file[i].lines);
        free(p->file[i].path);
        free(p->file[i].newlines);
    }
    kd_json_free(p->json);
    free(p);
}

int64_t kd_pairs_count(const struct kd_pairs *p)
{
    return p->n;
}

/* ---- reading ---- */

/* Open F at line FIRST (from 0). */
static int open_at_line(struct text_file *f, int64_t first, int n_ranks)
{
    int64_t skip = first;
    int range = 0;

    while (range + 1 < n_ranks && skip > f->newlines[range])
        skip -= f->newlines[range++];
    KD_TRY(kd_lines_open(f->path, part(f->bytes, range, n_ranks), skip, &f->lines));
    if (kd_lines_had_bom(f->lines))
        kd_warn("%s: the byte order mark at its start is not part of the text",
                f->path);
    return KD_OK;
}

int kd_pairs_seek(struct kd_pairs *p, int64_t first)
{
    p->at = first;
    for (int i = 0; i < p->n_files; i++)
        KD_TRY(open_at_line(&p->file[i], first + n_headers(p), p->n_ranks));
    return KD_OK;
}

/* Where the next pair is, for messages: from 1. */
static long long line_number(const struct kd_pairs *p)
{
    return (long long)(p->at + n_headers(p) + 1);
}

static int next_line(struct kd_pairs *p, int i, struct kd_pairs_text *out)
{
    const struct text_file *f = &p->file[i];

    KD_TRY(kd_lines_next(f->lines, &out->data, &out->len));
    if (!out->data)
        return KD_FAIL(KD_EINPUT, "%s:%lld: the file became shorter while it was read",
                       f->path, line_number(p));
    return kd_line_check(f->path, line_number(p), out->data, out->len);
}

static bool is_blank(struct kd_pairs_text t)
{
    for (int64_t i = 0; i < t.len; i++)
        if (t.data[i] != ' ' && t.data[i] != '\t' && t.data[i] != '\n')
            return false;
    return true;
}

/* The value of KEY in J, or of its parts between dots. */
static const struct kd_json *find_key(const struct kd_json *j, const char *key)
{
    const char *dot;
    char first[128];
    size_t n;

    if (kd_json_has(j, key))
        return kd_json_get(j, key);
    dot = strchr(key, '.');
    n = dot ? (size_t)(dot - key) : 0;
    if (n == 0 || n >= sizeof first)
        return NULL;
    memcpy(first, key, n);
    first[n] = '\0';
    j = kd_json_get(j, first);
    return kd_json_is_object(j) ? find_key(j, dot + 1) : NULL;
}

static int json_text(const struct kd_pairs *p, const char *key,
                     struct kd_pairs_text *out)
{
    const struct kd_json *value = find_key(p->json, key);

    if (!kd_json_is_string(value))
        return KD_FAIL(KD_EINPUT,
                       "%s:%lld: %s \"%s\" (--source_key and --target_key "
                       "name what to read)",
                       p->file[0].path, line_number(p),
                       value ? "no text at" : "there is no", key);
    out->data = kd_json_as_text(value, &out->len);
    return KD_OK;
}

static int split_json(struct kd_pairs *p, struct kd_pairs_text line,
                      struct kd_pairs_text text[2])
{
    struct kd_str what = {0};
    int rc = KD_OK;

    kd_json_free(p->json);
    p->json = NULL;
    KD_GO(kd_str_printf(&what, "%s:%lld", p->file[0].path, line_number(p)));
    KD_GO(kd_json_parse(line.data, line.len, what.data, &p->json));
    if (!kd_json_is_object(p->json)) {
        rc = KD_FAIL(KD_EINPUT, "%s: not a JSON object", what.data);
        goto out;
    }
    KD_GO(json_text(p, p->o.source_key, &text[0]));
    KD_GO(json_text(p, p->o.target_key, &text[1]));
out:
    kd_str_free(&what);
    return rc;
}

/* Column NUMBER (from 1) of LINE. */
static int column(const struct kd_pairs *p, struct kd_pairs_text line, int64_t number,
                  struct kd_pairs_text *out)
{
    const char *end = line.data + line.len, *at = line.data;

    for (int64_t k = 1;; k++) {
        const char *tab = memchr(at, '\t', (size_t)(end - at));

        if (k == number) {
            *out = (struct kd_pairs_text){at, (tab ? tab : end) - at};
            return KD_OK;
        }
        if (!tab)
            return KD_FAIL(KD_EINPUT,
                           "%s:%lld: %lld tab-separated columns, but column %lld is "
                           "to be read",
                           p->file[0].path, line_number(p), (long long)k,
                           (long long)number);
        at = tab + 1;
    }
}

int kd_pairs_next(struct kd_pairs *p, struct kd_pairs_text text[2])
{
    struct kd_pairs_text line;

    KD_TRY(next_line(p, 0, &line));
    text[0] = line;
    if (p->format == KD_PAIRS_FILES) {
        KD_TRY(next_line(p, 1, &text[1]));
    } else if (!is_blank(line) && p->format == KD_PAIRS_JSONL) {
        KD_TRY(split_json(p, line, text));
    } else if (!is_blank(line)) {
        KD_TRY(column(p, line, p->o.source_column, &text[0]));
        KD_TRY(column(p, line, p->o.target_column, &text[1]));
    }
    for (int s = 0; s < 2; s++)
        if (is_blank(text[s]))
            return KD_FAIL(KD_EINPUT,
                           "%s:%lld: an empty %s (every example needs a source and a "
                           "target)",
                           p->file[s && p->n_files == 2].path, line_number(p),
                           is_blank(line) || p->n_files == 2 ? "line"
                           : s                               ? "target"
                                                             : "source");
    p->at++;
    return KD_OK;
}

int64_t kd_pairs_returns(const struct kd_pairs *p)
{
    int64_t n = 0;

    for (int i = 0; i < p->n_files; i++)
        if (p->file[i].lines)
            n += kd_lines_returns(p->file[i].lines);
    return n;
}
