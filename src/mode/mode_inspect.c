/* SPDX-License-Identifier: Apache-2.0 */
/* Says what a file or directory of this program is, whether it is valid, and what is in
 * it.
 *
 * Everything found goes into one JSON report, which is printed as it is (--json) or as
 * indented lines.  A part that is damaged does not end the inspection: it is marked,
 * the rest of a run directory is still looked at, and the exit code says 3.
 *
 * Rank 0 looks, keeps the report and prints; it tells the others only what there is to
 * open together (splits, a checkpoint) and which parts come next, so that ranks whose
 * views of a shared file system differ still take the same way. */
#include "inspect_model.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/mode/mode.h"
#include "kdhpc/store/corpus.h"
#include "kdhpc/store/h5.h"
#include "kdhpc/store/listing.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct inspect_config {
    const char *path;
    bool verify, json;
};

static const struct kd_opt_row rows[] = {
    {.name = "path",
     .type = KD_OPT_STR,
     .offset = offsetof(struct inspect_config, path),
     .help = "file, model directory or run directory to look at",
     .flags = KD_OPT_REQUIRED},
    {.name = "verify",
     .type = KD_OPT_BOOL,
     .offset = offsetof(struct inspect_config, verify),
     .def = "false",
     .help = "recompute the digests of .h5 files"},
    {.name = "json",
     .type = KD_OPT_BOOL,
     .offset = offsetof(struct inspect_config, json),
     .def = "false",
     .help = "print the report as JSON"},
};

static const struct kd_opt_group groups[] = {
    {"Inspection", rows, sizeof rows / sizeof *rows, 0},
};

/* What is to be done with a path after rank 0's look at it. */
enum next { NOTHING, OPEN_SPLITS, OPEN_CHECKPOINT, LOOK_AT_PARTS };

/* A path under inspection. */
struct visit {
    struct kd_comm *comm;
    const char *path;
    bool verify;
    int depth;
    struct kd_json *report; /* on rank 0, else NULL */
    enum next next;
    struct kd_str names; /* of splits or parts, each with its NUL */
};

static int inspect_path(struct visit *v, bool *valid);

static int add_name(struct visit *v, const char *name)
{
    return kd_str_append(&v->names, name, (int64_t)strlen(name) + 1);
}

static bool ends_with(const char *text, const char *tail)
{
    size_t n = strlen(text), m = strlen(tail);

    return n >= m && strcmp(text + n - m, tail) == 0;
}

/* ---- files of the store ---- */

static int add_dataset(struct kd_json *list, const struct kd_store_item *item)
{
    struct kd_json *j = kd_json_object();
    int rc = KD_OK;

    KD_GO(kd_json_set_str(j, "name", item->name));
    KD_GO(kd_json_set_str(j, "dtype", item->dtype));
    KD_GO(kd_json_set_int(j, "rows", item->rows));
    if (item->cols != 1)
        KD_GO(kd_json_set_int(j, "cols", item->cols));
    return kd_json_append(list, j);
out:
    kd_json_free(j);
    return rc;
}

static int add_listing(const struct kd_store_listing *l, struct kd_json *r)
{
    struct kd_json *list = kd_json_array();
    int rc = KD_OK;

    KD_GO(kd_json_set_str(r, "kind", l->schema));
    KD_GO(kd_json_set_int(r, "schema_version", l->schema_version));
    KD_GO(kd_json_set_str(r, "kdhpc_version", l->version));
    KD_GO(kd_json_set_str(r, "digest", l->digest));
    if (l->parents[0])
        KD_GO(kd_json_set_str(r, "parents", l->parents));
    for (int64_t i = 0; i < l->n; i++)
        KD_GO(add_dataset(list, &l->items[i]));
    return kd_json_set_json(r, "datasets", list);
out:
    kd_json_free(list);
    return rc;
}

static int add_split(const struct kd_corpus *c, const char *split, struct kd_json *list)
{
    struct kd_json *j = kd_json_object();
    int64_t tokens[2] = {0, 0}, longest[2] = {0, 0}, n;
    int rc = KD_OK;

    for (int64_t i = 0; i < kd_corpus_size(c); i++) {
        for (int k = 0; k < 2; k++) {
            (void)(k ? kd_corpus_target(c, i, &n) : kd_corpus_source(c, i, &n));
            tokens[k] += n;
            longest[k] = n > longest[k] ? n : longest[k];
        }
    }
    KD_GO(kd_json_set_str(j, "split", split));
    KD_GO(kd_json_set_int(j, "examples", kd_corpus_size(c)));
    KD_GO(kd_json_set_int(j, "source_tokens", tokens[0]));
    KD_GO(kd_json_set_int(j, "target_tokens", tokens[1]));
    KD_GO(kd_json_set_int(j, "longest_source", longest[0]));
    KD_GO(kd_json_set_int(j, "longest_target", longest[1]));
    return kd_json_append(list, j);
out:
    kd_json_free(j);
    return rc;
}

/* Rank 0: list a file of the store, and find what all ranks open. */
static int look_h5(struct visit *v)
{
    struct kd_store_listing l = {0};
    int rc = KD_OK;

    KD_TRY(kd_store_list(v->path, v->verify, &l));
    KD_GO(add_listing(&l, v->report));
    if (v->verify)
        KD_GO(kd_json_set_bool(v->report, "digests_match", true));
    if (strcmp(l.schema, "kdhpc.checkpoint") == 0)
        v->next = OPEN_CHECKPOINT;
    if (strcmp(l.schema, "kdhpc.corpus") != 0 && strcmp(l.schema, "kdhpc.labels") != 0)
        goto out;
    v->next = OPEN_SPLITS;
    for (int64_t i = 0; i < l.n; i++) {
        char *slash = strchr(l.items[i].name, '/');

        if (!slash || strcmp(slash, "/id") != 0)
            continue;
        *slash = '\0';
        KD_GO(add_name(v, l.items[i].name));
    }
out:
    kd_store_listing_free(&l);
    return rc;
}

/* A split that is open, for rank 0's report. */
struct open_split {
    struct visit *v;
    const struct kd_corpus *corpus;
    const char *name;
    struct kd_json *list;
};

static int report_split(void *arg)
{
    struct open_split *s = arg;

    if (!kd_json_has(s->v->report, "vocab_size"))
        KD_TRY(kd_json_set_int(s->v->report, "vocab_size",
                               kd_corpus_vocab_size(s->corpus)));
    return add_split(s->corpus, s->name, s->list);
}

/* Open every split, which validates it.  Collective. */
static int open_splits(struct visit *v)
{
    struct kd_json *list = kd_json_array();
    const char *end = v->names.data + v->names.len;
    char *paths[1] = {(char *)(uintptr_t)v->path};
    int rc = KD_OK;

    for (const char *name = v->names.data; name < end && !rc;
         name += strlen(name) + 1) {
        struct kd_corpus *c = NULL;

        rc = kd_corpus_open(v->comm, paths, 1, name, &c);
        if (!rc)
            rc = kd_root_do(v->comm, report_split,
                            &(struct open_split){v, c, name, list});
        kd_corpus_close(c);
    }
    if (!rc && v->report)
        rc = kd_json_set_json(v->report, "splits", list);
    else
        kd_json_free(list);
    return kd_agree(v->comm, rc);
}

/* Collective. */
static int open_checkpoint(struct visit *v)
{
    struct kd_h5 *f = NULL;
    struct kd_json *state = NULL;
    char *text = NULL;
    int64_t step = 0;
    int rc = KD_OK;

    KD_GO(kd_h5_open(v->comm, v->path, &f));
    KD_GO(kd_h5_get_attr_i64(f, "step", &step));
    KD_GO(kd_h5_read_text(f, "state", &text));
    KD_ALL_GO(v->comm, kd_json_parse(text, (int64_t)strlen(text), v->path, &state));
    if (v->report)
        rc = kd_json_set_int(v->report, "step", step);
    if (v->report && !rc) {
        rc = kd_json_set_json(v->report, "state", state);
        state = NULL;
    }
    rc = kd_agree(v->comm, rc);
out:
    kd_json_free(state);
    free(text);
    kd_h5_abandon(f);
    return rc;
}

/* ---- texts and weights: by rank 0 ---- */

static int look_lines(const char *path, bool json, struct kd_json *r)
{
    struct kd_str text = {0};
    struct kd_json *j = NULL;
    int64_t lines = 0, at = 0;
    int rc = KD_OK;

    KD_GO(kd_json_set_str(r, "kind", json ? "JSON lines" : "text"));
    KD_GO(kd_read_file(path, &text));
    if (kd_utf8_invalid_at(text.data, text.len) >= 0)
        KD_GO(KD_FAIL(KD_EINPUT, "%s is not UTF-8 at byte %" PRId64, path,
                      kd_utf8_invalid_at(text.data, text.len)));
    while (at < text.len) {
        const char *end = memchr(text.data + at, '\n', (size_t)(text.len - at));
        int64_t len = end ? end - text.data - at : text.len - at;

        lines++;
        if (json) {
            kd_json_free(j);
            j = NULL;
            KD_GO(kd_json_parse(text.data + at, len, path, &j));
        }
        at += len + 1;
    }
    KD_GO(kd_json_set_int(r, "lines", lines));
    if (j) {
        KD_GO(kd_json_set_json(r, "last", j));
        j = NULL;
    }
out:
    kd_json_free(j);
    kd_str_free(&text);
    return rc;
}

static int look_json(const char *path, struct kd_json *r)
{
    struct kd_json *j = NULL;

    KD_TRY(kd_json_set_str(r, "kind", "JSON"));
    KD_TRY(kd_json_parse_file(path, &j));
    return kd_json_set_json(r, "content", j);
}

static int look_file(const char *path, struct kd_json *r)
{
    if (ends_with(path, ".safetensors") || ends_with(path, ".bin"))
        return kd_inspect_weights(path, r);
    if (ends_with(path, ".jsonl"))
        return look_lines(path, true, r);
    if (ends_with(path, ".json"))
        return look_json(path, r);
    if (ends_with(path, ".yaml") || ends_with(path, ".txt"))
        return look_lines(path, false, r);
    return KD_FAIL(KD_EINPUT, "%s is not a kind of file that this program writes",
                   path);
}

/* ---- directories ---- */

/* Entries of a run directory that are worth a look of their own. */
static int is_part(const struct dirent *e)
{
    return ends_with(e->d_name, ".h5") || ends_with(e->d_name, ".jsonl") ||
           strcmp(e->d_name, "metrics.json") == 0 ||
           strcmp(e->d_name, "generations.txt") == 0 ||
           strcmp(e->d_name, "run.yaml") == 0 || strcmp(e->d_name, "model") == 0;
}

static bool dir_has(const char *dir, const char *name)
{
    char *path = NULL;
    bool has = kd_path_join(dir, name, &path) == KD_OK && kd_path_exists(path);

    free(path);
    return has;
}

/* Rank 0: what a directory is, and its parts. */
static int look_dir(struct visit *v)
{
    bool model = dir_has(v->path, "config.json"), known = model;
    struct dirent **names = NULL;
    int n = v->depth < 2 ? scandir(v->path, &names, is_part, alphasort) : 0;
    int rc = KD_OK;

    if (model) {
        KD_GO(kd_inspect_model(v->path, v->report));
    } else if (dir_has(v->path, "tokenizer_config.json")) {
        known = true;
        KD_GO(kd_json_set_str(v->report, "kind", "tokenizer"));
    }
    if (n <= 0 && !known)
        KD_GO(KD_FAIL(KD_EINPUT, "%s holds nothing that this program wrote", v->path));
    if (!known)
        KD_GO(kd_json_set_str(v->report, "kind", "run"));
    for (int i = 0; i < n; i++)
        KD_GO(add_name(v, names[i]->d_name));
    v->next = n > 0 ? LOOK_AT_PARTS : NOTHING;
out:
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
    return rc;
}

/* What is wrong with the first part that is not valid, or NULL. */
static const char *first_error(const struct kd_json *list)
{
    for (int64_t i = 0; i < kd_json_len(list); i++) {
        const struct kd_json *part = kd_json_at(list, i);

        if (!kd_json_bool(part, "valid", false))
            return kd_json_str(part, "error", "not valid");
    }
    return NULL;
}

/* Rank 0: take the list of the parts' reports into V's. */
static int report_parts(struct visit *v, struct kd_json *list)
{
    KD_TRY(kd_json_set_json(v->report, "parts", list));
    list = kd_json_get(v->report, "parts");
    return first_error(list) ? KD_FAIL(KD_EINPUT, "%s", first_error(list)) : KD_OK;
}

/* Inspect every part.  Collective. */
static int look_at_parts(struct visit *v)
{
    struct kd_json *list = v->report ? kd_json_array() : NULL;
    const char *end = v->names.data + v->names.len;
    int rc = KD_OK;

    for (const char *name = v->names.data; name < end; name += strlen(name) + 1) {
        struct visit part = {
            .comm = v->comm, .verify = v->verify, .depth = v->depth + 1};
        char *path = NULL;
        bool valid;

        rc = kd_agree(v->comm, kd_path_join(v->path, name, &path));
        part.path = path;
        if (!rc)
            rc = inspect_path(&part, &valid);
        if (!rc && list)
            rc = kd_json_append(list, part.report);
        else
            kd_json_free(part.report);
        free(path);
        KD_ALL_GO(v->comm, rc);
    }
    if (list) {
        rc = report_parts(v, list);
        list = NULL;
    }
    rc = kd_agree(v->comm, rc);
out:
    kd_json_free(list);
    return rc;
}

/* ---- a path ---- */

/* Rank 0's look at a path. */
static int look(void *arg)
{
    struct visit *v = arg;

    v->report = kd_json_object();
    KD_TRY(kd_json_set_str(v->report, "path", v->path));
    if (!kd_path_exists(v->path))
        return KD_FAIL(KD_EINPUT, "%s does not exist", v->path);
    if (kd_path_is_dir(v->path))
        return look_dir(v);
    return ends_with(v->path, ".h5") ? look_h5(v) : look_file(v->path, v->report);
}

/* Tell every rank what comes next.  Collective. */
static int share_next(struct visit *v)
{
    int64_t facts[2] = {v->next, v->names.len}, cap = 0;

    KD_TRY(kd_bcast(v->comm, facts, sizeof facts, 0));
    if (kd_comm_rank(v->comm) != 0) {
        v->next = (enum next)facts[0];
        KD_TRY(kd_agree(v->comm, kd_grow(&v->names.data, &cap, facts[1] + 1, 1)));
        v->names.len = facts[1];
    } else {
        KD_TRY(kd_agree(v->comm, KD_OK));
    }
    return facts[1] > 0 ? kd_bcast(v->comm, v->names.data, facts[1], 0) : KD_OK;
}

static int go_on(struct visit *v)
{
    KD_TRY(share_next(v));
    switch (v->next) {
    case OPEN_SPLITS:
        return open_splits(v);
    case OPEN_CHECKPOINT:
        return open_checkpoint(v);
    case LOOK_AT_PARTS:
        return look_at_parts(v);
    case NOTHING:
        break;
    }
    return KD_OK;
}

static int report_validity(struct visit *v, bool valid)
{
    if (!v->report)
        return KD_OK;
    KD_TRY(kd_json_set_bool(v->report, "valid", valid));
    return valid ? KD_OK : kd_json_set_str(v->report, "error", kd_error_get()->text);
}

/* Report on V's path; a failure to validate goes into the report.  Collective. */
static int inspect_path(struct visit *v, bool *valid)
{
    int rc = kd_root_do(v->comm, look, v);

    if (!rc)
        rc = go_on(v);
    kd_str_free(&v->names);
    *valid = rc == KD_OK;
    if (rc && rc != KD_EINPUT)
        return rc;
    KD_ALL(v->comm, report_validity(v, *valid));
    kd_error_clear();
    return KD_OK;
}

/* ---- printing ---- */

static bool is_flat(const struct kd_json *object)
{
    for (void *it = kd_json_first(object); it; it = kd_json_next(object, it)) {
        const struct kd_json *v = kd_json_value(it);

        if (kd_json_is_object(v) || kd_json_is_array(v))
            return false;
    }
    return true;
}

/* An object without parts, as KEY and name=value pairs on one line. */
static int print_flat(const char *key, const struct kd_json *object, int indent)
{
    printf("%*s%-16s", indent, "", key);
    for (void *it = kd_json_first(object); it; it = kd_json_next(object, it)) {
        const struct kd_json *v = kd_json_value(it);
        char *text = NULL;

        if (kd_json_is_string(v)) {
            printf(" %s=%s", kd_json_key(it), kd_json_as_str(v, ""));
            continue;
        }
        KD_TRY(kd_json_dump(v, &text));
        printf(" %s=%s", kd_json_key(it), text);
        free(text);
    }
    putchar('\n');
    return KD_OK;
}

static int print_value(const char *key, const struct kd_json *v, int indent)
{
    char *text = NULL;

    if (kd_json_is_object(v)) {
        if (is_flat(v) && !kd_json_has(v, "path"))
            return print_flat(key, v, indent);
        printf("%*s%s\n", indent, "", key);
        for (void *it = kd_json_first(v); it; it = kd_json_next(v, it))
            KD_TRY(print_value(kd_json_key(it), kd_json_value(it), indent + 2));
        return KD_OK;
    }
    if (kd_json_is_array(v) && kd_json_len(v) && kd_json_is_object(kd_json_at(v, 0))) {
        for (int64_t i = 0; i < kd_json_len(v); i++)
            KD_TRY(print_value(key, kd_json_at(v, i), indent));
        return KD_OK;
    }
    if (kd_json_is_string(v)) {
        printf("%*s%-16s %s\n", indent, "", key, kd_json_as_str(v, ""));
        return KD_OK;
    }
    KD_TRY(kd_json_dump(v, &text));
    printf("%*s%-16s %s\n", indent, "", key, text);
    free(text);
    return KD_OK;
}

static int print_report(const struct kd_json *r, bool json)
{
    char *text = NULL;

    if (json) {
        KD_TRY(kd_json_dump(r, &text));
        puts(text);
        free(text);
    } else {
        printf("%s: %s, %s\n", kd_json_str(r, "path", ""),
               kd_json_str(r, "kind", "unknown"),
               kd_json_bool(r, "valid", false) ? "valid" : "NOT VALID");
        for (void *it = kd_json_first(r); it; it = kd_json_next(r, it))
            KD_TRY(print_value(kd_json_key(it), kd_json_value(it), 2));
    }
    if (fflush(stdout))
        return KD_FAIL(KD_EOUTPUT, "cannot write the report to standard output");
    return KD_OK;
}

/* Rank 0. */
static int fail_with_error(void *report)
{
    return KD_FAIL(KD_EINPUT, "%s", kd_json_str(report, "error", "not valid"));
}

static int run(struct kd_run *r, void *config)
{
    const struct inspect_config *c = config;
    struct visit v = {.comm = r->comm, .path = c->path, .verify = c->verify};
    bool valid = false;
    int rc = KD_OK;

    KD_GO(inspect_path(&v, &valid));
    KD_ALL_GO(r->comm, v.report ? print_report(v.report, c->json) : KD_OK);
    if (!valid)
        rc = kd_root_do(r->comm, fail_with_error, v.report);
out:
    kd_json_free(v.report);
    return rc;
}

const struct kd_mode kd_mode_inspect = {
    .name = "inspect",
    .summary = "say what a file or directory of this program is, and whether it is "
               "valid",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .config_bytes = sizeof(struct inspect_config),
    .run = run,
};
