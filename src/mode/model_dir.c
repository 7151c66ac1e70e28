/* SPDX-License-Identifier: Apache-2.0 */
/* Putting a model directory in its place.
 *
 * A directory is written whole beside its place (DIR.part) and then put there by one
 * rename, or, where DIR exists, by one exchange of the two names, so that a reader or a
 * killed run finds the old model or the new one, never a mixture.  What the old
 * directory held that is not part of a model (a log, a corpus) moves over.  Rank 0's
 * work; callers: model_save.c and the mode convert. */
#include "model_dir.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"
#include "kdhpc/text/tokenizer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TOKENIZER_FILES = 32 };

struct place {
    char *dir, *part, *old;
    bool new_tokenizer;
};

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
static int clear_member(const struct place *s, const struct old_members *old,
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
static int clear_part(const struct place *s, bool keep_rest)
{
    struct old_members old = {.keep_rest = keep_rest};
    struct dirent *e;
    DIR *d = opendir(s->part);
    int rc = KD_OK;

    if (!d)
        return errno == ENOENT ? KD_OK
                               : KD_FAIL(KD_EOUTPUT, "cannot read %s: %s", s->part,
                                         strerror(errno));
    if (s->new_tokenizer)
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
static int swap_by_renames(const struct place *s)
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
static int put_in_place(const struct place *s)
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

/* Paths without a trailing slash, resolved where DIR exists. */
static int set_paths(struct place *s, const char *dir)
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

/* DIR.part goes away in the end: it is the old directory, whose other files move over,
 * or what could not be written.  The failure that is reported is the first one. */
int kd_model_dir_write(const char *dir, bool new_tokenizer,
                       int (*write)(void *arg, const char *part), void *arg)
{
    struct place s = {.new_tokenizer = new_tokenizer};
    int rc, cleared;

    KD_GO(set_paths(&s, dir));
    KD_GO(clear_part(&s, false)); /* of a run that was killed */
    rc = kd_make_dirs(s.part);
    if (!rc)
        rc = write(arg, s.part);
    if (!rc)
        rc = put_in_place(&s);
    cleared = clear_part(&s, rc == KD_OK);
    rc = rc ? rc : cleared;
out:
    free(s.dir);
    free(s.part);
    free(s.old);
    return rc;
}
