/* SPDX-License-Identifier: Apache-2.0 */
/* Writing of model directories in the Hugging Face layout.
 *
 * A directory is written whole beside its place (DIR.part) and then put there by one
 * rename, or, where DIR exists, by one exchange of the two names, so that a reader or a
 * killed run finds the old model or the new one, never a mixture.  What the old
 * directory held that is not part of a model (a log, a corpus) moves over.  Only rank 0
 * writes.  The weights hold one member of each group of tied tensors, as the reference
 * library writes them. */
#include "kdhpc/mode/model_io.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"
#include "kdhpc/store/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TOKENIZER_FILES = 32 };

struct save {
    struct kd_model *m;
    char *dir, *part, *old; /* owned */
    enum kd_dtype dtype;
    const char *tokenizer_dir;
    const struct kd_json *generation;
};

/* ---- the files of a model ---- */

static int write_json(const struct save *s, const char *name, const struct kd_json *j)
{
    char *path = NULL;
    int rc;

    KD_TRY(kd_path_join(s->part, name, &path));
    rc = kd_json_write_file(j, path);
    free(path);
    return rc;
}

static int set_facts(const struct save *s, struct kd_json *config)
{
    struct kd_json *names = kd_json_array();
    int rc = KD_OK;

    if (!names)
        return KD_FAIL(KD_ENOMEM, "no memory for config.json");
    KD_GO(kd_json_append_str(names, kd_model_architecture(s->m)));
    KD_TRY(kd_json_set_json(config, "architectures", names));
    return kd_json_set_str(config,
                           kd_json_has(config, "dtype") ? "dtype" : "torch_dtype",
                           kd_dtype_name(s->dtype));
out:
    kd_json_free(names);
    return rc;
}

static int write_configs(const struct save *s)
{
    struct kd_json *config = kd_json_copy(kd_model_config(s->m)), *generation = NULL;
    int rc;

    if (!config)
        return KD_FAIL(KD_ENOMEM, "no memory for config.json");
    KD_GO(set_facts(s, config));
    KD_GO(kd_generation_move(config, kd_model_arch(s->m), s->generation, &generation));
    KD_GO(write_json(s, "config.json", config));
    rc = write_json(s, "generation_config.json", generation);
out:
    kd_json_free(generation);
    kd_json_free(config);
    return rc;
}

static int write_weights(const struct save *s)
{
    const struct kd_params *ps = kd_model_params(s->m);
    struct kd_named_tensor *tensors = NULL;
    float *values = NULL;
    char *path = NULL;
    int rc, n = 0;

    KD_GO(kd_calloc(ps->n, sizeof *tensors, &tensors));
    KD_GO(kd_calloc(ps->n_slab, sizeof *values, &values));
    KD_GO(ps->be->ops->download(ps->be, values, ps->values,
                                (size_t)ps->n_slab * sizeof *values));
    for (int i = 0; i < ps->n; i++) {
        const struct kd_param *p = &ps->items[i];

        if (p->kind != KD_PARAM_SINUSOID)
            tensors[n++] = (struct kd_named_tensor){.name = p->name,
                                                    .ndim = p->ndim,
                                                    .shape = {p->shape[0], p->shape[1]},
                                                    .values = values + p->offset};
    }
    KD_GO(kd_path_join(s->part, "model.safetensors", &path));
    rc = kd_safetensors_write(path, s->dtype, tensors, n);
out:
    free(path);
    free(values);
    free(tensors);
    return rc;
}

static int copy_member(const char *from_dir, const char *to_dir, const char *name)
{
    char *from = NULL, *to = NULL;
    int rc;

    KD_GO(kd_path_join(from_dir, name, &from));
    KD_GO(kd_path_join(to_dir, name, &to));
    rc = kd_copy_file(from, to);
out:
    free(from);
    free(to);
    return rc;
}

static int write_tokenizer(const struct save *s)
{
    const char *names[MAX_TOKENIZER_FILES];

    if (!s->tokenizer_dir)
        return KD_OK;
    KD_TRY(kd_tokenizer_files(s->tokenizer_dir, names, MAX_TOKENIZER_FILES));
    for (int i = 0; names[i]; i++)
        KD_TRY(copy_member(s->tokenizer_dir, s->part, names[i]));
    return KD_OK;
}

/* ---- replacing a directory ---- */

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), k = strlen(end);

    return n >= k && !strcmp(name + n - k, end);
}

/* Members of the old directory that go with the old model. */
struct old_members {
    bool keep_rest; /* move everything else to DIR; else all goes */
    /* NULL-terminated; none where the new directory brings no tokenizer */
    const char *tokenizer[MAX_TOKENIZER_FILES];
};

static bool is_model_file(const struct old_members *old, const char *name)
{
    for (int i = 0; old->tokenizer[i]; i++)
        if (!strcmp(old->tokenizer[i], name))
            return true;
    return !strcmp(name, "config.json") || !strcmp(name, "generation_config.json") ||
           ends_with(name, ".safetensors") ||
           ends_with(name, ".safetensors.index.json") ||
           !strncmp(name, "pytorch_model", strlen("pytorch_model")) ||
           ends_with(name, ".part");
}

/* Move or remove one member of DIR.part. */
static int clear_member(const struct save *s, const struct old_members *old,
                        const char *name)
{
    char *from = NULL, *to = NULL;
    int rc;

    KD_GO(kd_path_join(s->part, name, &from));
    KD_GO(kd_path_join(s->dir, name, &to));
    if (!old->keep_rest || is_model_file(old, name) || kd_path_exists(to))
        rc = unlink(from);
    else
        rc = rename(from, to);
    if (rc)
        rc = KD_FAIL(KD_EOUTPUT, "cannot clear %s: %s", from, strerror(errno));
out:
    free(from);
    free(to);
    return rc;
}

/* Empty and remove DIR.part, where there is one. */
static int clear_part(const struct save *s, bool keep_rest)
{
    struct old_members old = {.keep_rest = keep_rest};
    struct dirent *e;
    DIR *d = opendir(s->part);
    int rc = KD_OK;

    if (!d)
        return errno == ENOENT ? KD_OK
                               : KD_FAIL(KD_EOUTPUT, "cannot read %s: %s", s->part,
                                         strerror(errno));
    if (s->tokenizer_dir)
        rc = kd_tokenizer_files(s->part, old.tokenizer, MAX_TOKENIZER_FILES);
    while (!rc && (e = readdir(d)))
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
            rc = clear_member(s, &old, e->d_name);
    closedir(d);
    if (!rc && rmdir(s->part))
        rc = KD_FAIL(KD_EOUTPUT, "cannot remove %s: %s", s->part, strerror(errno));
    return rc;
}

/* Where names cannot be exchanged: renames through DIR.old. */
static int swap_by_renames(const struct save *s)
{
    int failed = 0;

    if (rename(s->dir, s->old)) {
        failed = errno;
    } else if (rename(s->part, s->dir)) {
        failed = errno;
        (void)rename(s->old, s->dir);
    } else if (rename(s->old, s->part)) {
        failed = errno;
    }
    return failed ? KD_FAIL(KD_EOUTPUT, "cannot put %s in its place: %s", s->part,
                            strerror(failed))
                  : KD_OK;
}

/* Give DIR.part the name DIR; what had it is DIR.part then. */
static int put_in_place(const struct save *s)
{
    if (!kd_path_exists(s->dir)) {
        if (rename(s->part, s->dir))
            return KD_FAIL(KD_EOUTPUT, "cannot rename %s to %s: %s", s->part, s->dir,
                           strerror(errno));
        return KD_OK;
    }
    if (!kd_path_is_dir(s->dir))
        return KD_FAIL(KD_EOUTPUT, "%s exists and is not a directory", s->dir);
    if (renameat2(AT_FDCWD, s->part, AT_FDCWD, s->dir, RENAME_EXCHANGE))
        return swap_by_renames(s);
    return KD_OK;
}

/* ---- the whole ---- */

static int write_part(const struct save *s)
{
    KD_TRY(kd_make_dirs(s->part));
    KD_TRY(write_configs(s));
    KD_TRY(write_tokenizer(s));
    KD_TRY(KD_FAULT("model.save"));
    return write_weights(s);
}

/* DIR.part goes away in the end: it is the old directory, whose other files move over,
 * or what could not be written.  The failure that is reported is the first one. */
static int save_root(void *arg)
{
    const struct save *s = arg;
    int rc, cleared;

    KD_TRY(clear_part(s, false)); /* of a run that was killed */
    rc = write_part(s);
    if (!rc)
        rc = put_in_place(s);
    cleared = clear_part(s, rc == KD_OK);
    return rc ? rc : cleared;
}

/* Paths without a trailing slash, resolved where DIR exists. */
static int set_paths(struct save *s, const char *dir)
{
    char real[PATH_MAX];
    size_t n = strlen(dir);

    while (n > 1 && dir[n - 1] == '/')
        n--;
    if (realpath(dir, real))
        KD_TRY(kd_strdup(real, &s->dir));
    else
        KD_TRY(kd_strndup(dir, (int64_t)n, &s->dir));
    n = strlen(s->dir) + sizeof ".part";
    KD_TRY(kd_calloc((int64_t)n, 1, &s->part));
    KD_TRY(kd_calloc((int64_t)n, 1, &s->old));
    KD_TRY(kd_format(s->part, n, "%s.part", s->dir));
    return kd_format(s->old, n, "%s.old", s->dir);
}

int kd_model_save(struct kd_run *run, struct kd_model *m, const char *dir,
                  enum kd_dtype dtype, const char *tokenizer_dir,
                  const struct kd_json *generation)
{
    struct save s = {.m = m,
                     .dtype = dtype,
                     .tokenizer_dir = tokenizer_dir,
                     .generation = generation};
    int rc;

    KD_ALL_GO(run->comm, set_paths(&s, dir));
    rc = kd_root_do(run->comm, save_root, &s);
out:
    free(s.dir);
    free(s.part);
    free(s.old);
    return rc;
}
