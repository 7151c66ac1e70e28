/* SPDX-License-Identifier: Apache-2.0 */
/* The table of a checkpoint's tensors, over one file or several behind an index.
 *
 * Files are mapped, never read whole; a container format (safetensors.c, torchbin.c)
 * checks the bytes of a file and adds views into it, and whoever asks for values gets
 * them converted from there (weights_convert.c).  The formats are told apart by the
 * first bytes.  Local, and free of MPI and HDF5; every rank may open the same files and
 * share their pages.  Layout of directories and indices: Hugging Face's hub. */
#include "weights_impl.h"

#include "kdhpc/base/json.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the table ---- */

int kd_weights_add(struct kd_weights *w, const struct kd_weight *t, const char *name,
                   int64_t len)
{
    struct kd_weight *item;

    KD_TRY(kd_grow(&w->items, &w->cap, w->n + 1, sizeof *w->items));
    item = &w->items[w->n];
    *item = *t;
    KD_TRY(kd_strndup(name, len, &item->name));
    w->n++;
    return KD_OK;
}

static int by_name(const void *a, const void *b)
{
    const struct kd_weight *x = a, *y = b;

    return strcmp(x->name, y->name);
}

static int sort_items(struct kd_weights *w)
{
    if (w->n > 1)
        qsort(w->items, (size_t)w->n, sizeof *w->items, by_name);
    for (int i = 1; i < w->n; i++) {
        if (strcmp(w->items[i].name, w->items[i - 1].name) == 0)
            return KD_FAIL(KD_EINPUT, "%s: tensor %s is there twice", w->items[i].path,
                           w->items[i].name);
    }
    return KD_OK;
}

int kd_weights_count(const struct kd_weights *w)
{
    return w->n;
}

const struct kd_weight *kd_weights_at(const struct kd_weights *w, int i)
{
    return &w->items[i];
}

const struct kd_weight *kd_weights_find(const struct kd_weights *w, const char *name)
{
    struct kd_weight key = {.name = (char *)(uintptr_t)name};

    if (!w->n)
        return NULL;
    return bsearch(&key, w->items, (size_t)w->n, sizeof key, by_name);
}

/* ---- files ---- */

static int file_map(struct kd_weights_file *f)
{
    struct stat st;
    int fd = open(f->path, O_RDONLY | O_CLOEXEC), err = 0;
    void *map = NULL;

    if (fd < 0 || fstat(fd, &st))
        err = errno;
    else if (!S_ISREG(st.st_mode))
        err = S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
    if (!err && st.st_size > 0) {
        map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) {
            err = errno;
            map = NULL;
        }
    }
    if (fd >= 0)
        close(fd);
    if (err)
        return KD_FAIL(KD_EINPUT, "cannot open %s: %s", f->path, strerror(err));
    f->bytes = map;
    f->n_bytes = map ? (int64_t)st.st_size : 0;
    f->mapped = map != NULL;
    return KD_OK;
}

static bool begins(const struct kd_weights_file *f, const char *text, int64_t n)
{
    return f->n_bytes >= n && memcmp(f->bytes, text, (size_t)n) == 0;
}

static bool ends_with(const char *text, const char *tail)
{
    size_t n = strlen(text), k = strlen(tail);

    return n >= k && strcmp(text + n - k, tail) == 0;
}

/* By name, and by the first bytes of files with other names: a zip file begins with a
 * record of its own, and PyTorch's old format with a pickle. */
static int file_parse(struct kd_weights *w, const struct kd_weights_file *f)
{
    static const char lfs[] = "version https://git-lfs";

    if (begins(f, lfs, sizeof lfs - 1))
        return KD_FAIL(KD_EINPUT,
                       "%s is a Git LFS pointer, not the weights: get them with git "
                       "lfs pull",
                       f->path);
    if (!ends_with(f->path, ".safetensors") &&
        (begins(f, "PK\3\4", 4) || begins(f, "\x80\x02\x8a\x0a", 4) ||
         ends_with(f->path, ".bin")))
        return kd_torchbin_parse(w, f);
    return kd_safetensors_parse(w, f);
}

/* Add a file with a copy of PATH; its tensors are added, not yet sorted. */
static int file_add(struct kd_weights *w, const char *path, const void *bytes,
                    int64_t n)
{
    struct kd_weights_file *f;

    KD_TRY(kd_grow(&w->files, &w->cap_files, w->n_files + 1, sizeof *f));
    f = &w->files[w->n_files];
    *f = (struct kd_weights_file){.bytes = bytes, .n_bytes = n};
    KD_TRY(kd_strdup(path, &f->path));
    w->n_files++;
    if (!bytes)
        KD_TRY(file_map(f));
    return file_parse(w, f);
}

void kd_weights_close(struct kd_weights *w)
{
    if (!w)
        return;
    for (int i = 0; i < w->n; i++)
        free(w->items[i].name);
    for (int i = 0; i < w->n_files; i++) {
        if (w->files[i].mapped)
            munmap((void *)(uintptr_t)w->files[i].bytes, (size_t)w->files[i].n_bytes);
        free(w->files[i].path);
    }
    free(w->items);
    free(w->files);
    free(w);
}

static int open_one(const char *path, const void *bytes, int64_t n,
                    struct kd_weights **out)
{
    struct kd_weights *w = NULL;
    int rc;

    *out = NULL;
    KD_TRY(kd_calloc(1, sizeof *w, &w));
    KD_GO(file_add(w, path, bytes, n));
    KD_GO(sort_items(w));
    *out = w;
    return KD_OK;
out:
    kd_weights_close(w);
    return rc;
}

int kd_weights_open_file(const char *path, struct kd_weights **out)
{
    return open_one(path, NULL, 0, out);
}

int kd_weights_open_bytes(const void *bytes, int64_t n, const char *what,
                          struct kd_weights **out)
{
    return open_one(what, bytes, n, out);
}

/* ---- directories ---- */

/* In the order in which transformers looks. */
static const struct layout {
    const char *name;
    bool is_index;
} layouts[] = {{"model.safetensors", false},
               {"model.safetensors.index.json", true},
               {"pytorch_model.bin", false},
               {"pytorch_model.bin.index.json", true}};

enum { N_LAYOUTS = sizeof layouts / sizeof *layouts };

static int find_layout(const char *dir, const struct layout **out)
{
    *out = NULL;
    for (int i = 0; i < N_LAYOUTS && !*out; i++) {
        char *path = NULL;

        KD_TRY(kd_path_join(dir, layouts[i].name, &path));
        if (kd_path_exists(path))
            *out = &layouts[i];
        free(path);
    }
    if (!*out)
        return KD_FAIL(KD_EINPUT,
                       "%s has no weights: neither model.safetensors nor "
                       "pytorch_model.bin, nor an index of one",
                       dir);
    return KD_OK;
}

/* The parsed index DIR/NAME, which has a weight_map. */
static int read_index(const char *dir, const char *name, struct kd_json **out)
{
    char *path = NULL;
    int rc;

    KD_TRY(kd_path_join(dir, name, &path));
    KD_GO(kd_json_parse_file(path, out));
    if (!kd_json_is_object(kd_json_get(*out, "weight_map"))) {
        kd_json_free(*out);
        *out = NULL;
        rc = KD_FAIL(KD_EINPUT, "%s has no weight_map", path);
    }
out:
    free(path);
    return rc;
}

static bool listed(char *const *names, int64_t n, const char *name)
{
    for (int64_t i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static int add_name(char ***names, int64_t *n, int64_t *cap, const char *name)
{
    KD_TRY(kd_grow(names, cap, *n + 2, sizeof **names));
    (*names)[*n] = (*names)[*n + 1] = NULL;
    KD_TRY(kd_strdup(name, &(*names)[*n]));
    ++*n;
    return KD_OK;
}

/* Each distinct file of an index; names that lead out of the directory are refused. */
static int add_shards(const char *index_name, const struct kd_json *map, char ***names,
                      int64_t *n, int64_t *cap)
{
    for (void *it = kd_json_first(map); it; it = kd_json_next(map, it)) {
        const char *file = kd_json_as_str(kd_json_value(it), "");

        if (!file[0] || strchr(file, '/'))
            return KD_FAIL(KD_EINPUT, "%s: %s is not in a file of this directory",
                           index_name, kd_json_key(it));
        if (!listed(*names, *n, file))
            KD_TRY(add_name(names, n, cap, file));
    }
    return KD_OK;
}

static int list_files(const struct layout *layout, const struct kd_json *index,
                      char ***names)
{
    int64_t n = 0, cap = 0;
    int rc;

    *names = NULL;
    KD_GO(add_name(names, &n, &cap, layout->name));
    if (index)
        rc =
            add_shards(layout->name, kd_json_get(index, "weight_map"), names, &n, &cap);
out:
    if (rc) {
        kd_weights_files_free(*names);
        *names = NULL;
    }
    return rc;
}

int kd_weights_files(const char *dir, char ***names)
{
    const struct layout *layout;
    struct kd_json *index = NULL;
    int rc;

    *names = NULL;
    KD_TRY(find_layout(dir, &layout));
    if (layout->is_index)
        KD_TRY(read_index(dir, layout->name, &index));
    rc = list_files(layout, index, names);
    kd_json_free(index);
    return rc;
}

void kd_weights_files_free(char **names)
{
    for (char **name = names; name && *name; name++)
        free(*name);
    free(names);
}

static int add_member(struct kd_weights *w, const char *dir, const char *name)
{
    char *path = NULL;
    int rc;

    KD_TRY(kd_path_join(dir, name, &path));
    rc = file_add(w, path, NULL, 0);
    free(path);
    return rc;
}

/* That every tensor of the index is in the file that it names. */
static int check_index(const struct kd_weights *w, const char *index_name,
                       const struct kd_json *map)
{
    for (void *it = kd_json_first(map); it; it = kd_json_next(map, it)) {
        const struct kd_weight *t = kd_weights_find(w, kd_json_key(it));
        const char *file = kd_json_as_str(kd_json_value(it), "");
        const char *slash = t ? strrchr(t->path, '/') : NULL;

        if (!t || strcmp(slash ? slash + 1 : t->path, file) != 0)
            return KD_FAIL(KD_EINPUT, "%s: tensor %s is not in %s", index_name,
                           kd_json_key(it), file);
    }
    return KD_OK;
}

static int open_dir(struct kd_weights *w, const char *dir)
{
    const struct layout *layout;
    struct kd_json *index = NULL;
    char **names = NULL;
    int rc;

    KD_GO(KD_FAULT("weights.open"));
    KD_GO(find_layout(dir, &layout));
    if (layout->is_index)
        KD_GO(read_index(dir, layout->name, &index));
    KD_GO(list_files(layout, index, &names));
    for (char **name = names + (index != NULL); *name; name++)
        KD_GO(add_member(w, dir, *name));
    KD_GO(sort_items(w));
    if (!w->n)
        KD_GO(KD_FAIL(KD_EINPUT, "%s: its weights hold no tensors", dir));
    if (index)
        rc = check_index(w, layout->name, kd_json_get(index, "weight_map"));
out:
    kd_weights_files_free(names);
    kd_json_free(index);
    return rc;
}

int kd_weights_open(const char *dir, struct kd_weights **out)
{
    struct kd_weights *w = NULL;
    int rc;

    *out = NULL;
    KD_TRY(kd_calloc(1, sizeof *w, &w));
    rc = open_dir(w, dir);
    if (rc)
        kd_weights_close(w);
    else
        *out = w;
    return rc;
}
