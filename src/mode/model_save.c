/* SPDX-License-Identifier: Apache-2.0 */
/* Writing of model directories in the Hugging Face layout.
 *
 * The weights hold one member of each group of tied tensors, as the reference library
 * writes them, and go out straight from the host's memory.  Tables of sinusoids go out
 * too, in float32: some of its classes miss them otherwise.  model_dir.c puts the
 * directory in its place.  Only rank 0 writes. */
#include "kdhpc/mode/model_io.h"

#include "model_dir.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"
#include "kdhpc/store/safetensors.h"

#include <stdlib.h>

enum { MAX_TOKENIZER_FILES = 32 };

struct save {
    struct kd_model *m;
    const char *dir, *part;
    enum kd_dtype dtype;
    const char *tokenizer_dir;
    const struct kd_json *generation;
};

/* ---- configuration ---- */

static int write_json(const char *dir, const char *name, const struct kd_json *j)
{
    char *path = NULL;
    int rc;

    KD_TRY(kd_path_join(dir, name, &path));
    rc = kd_json_write_file(j, path);
    free(path);
    return rc;
}

static int set_facts(struct kd_model *m, const char *dtype, struct kd_json *config)
{
    struct kd_json *names = kd_json_array();
    int rc = KD_OK;

    if (!names)
        return KD_FAIL(KD_ENOMEM, "no memory for config.json");
    KD_GO(kd_json_append_str(names, kd_model_architecture(m)));
    KD_TRY(kd_json_set_json(config, "architectures", names));
    return kd_json_set_str(
        config, kd_json_has(config, "dtype") ? "dtype" : "torch_dtype", dtype);
out:
    kd_json_free(names);
    return rc;
}

int kd_model_write_configs(struct kd_model *m, const char *dir, const char *dtype,
                           const struct kd_json *given)
{
    struct kd_json *config = kd_json_copy(kd_model_config(m)), *generation = NULL;
    int rc;

    if (!config)
        return KD_FAIL(KD_ENOMEM, "no memory for config.json");
    KD_GO(set_facts(m, dtype, config));
    KD_GO(kd_generation_move(config, kd_model_arch(m), given, &generation));
    KD_GO(write_json(dir, "config.json", config));
    rc = write_json(dir, "generation_config.json", generation);
out:
    kd_json_free(generation);
    kd_json_free(config);
    return rc;
}

/* ---- weights ---- */

/* The slab's values in the host's memory: *COPY is a download, or NULL where they are
 * there. */
static int host_values(const struct kd_params *ps, float **copy, const float **out)
{
    *copy = NULL;
    *out = ps->values;
    if (ps->be->device == KD_CPU)
        return KD_OK;
    KD_TRY(kd_calloc(ps->n_slab, sizeof **copy, copy));
    *out = *copy;
    return ps->be->ops->download(ps->be, *copy, ps->values,
                                 (size_t)ps->n_slab * sizeof **copy);
}

static int write_weights(const struct save *s)
{
    const struct kd_params *ps = kd_model_params(s->m);
    struct kd_named_tensor *tensors = NULL;
    const float *values;
    float *copy = NULL;
    char *path = NULL;
    int rc, n = 0;

    KD_GO(kd_calloc(ps->n, sizeof *tensors, &tensors));
    KD_GO(host_values(ps, &copy, &values));
    for (int i = 0; i < ps->n; i++) {
        const struct kd_param *p = &ps->items[i];

        tensors[n++] =
            (struct kd_named_tensor){.name = kd_model_saved_name(s->m, i),
                                     .ndim = p->ndim,
                                     .shape = {p->shape[0], p->shape[1]},
                                     .values = values + p->offset,
                                     .own_type = p->kind == KD_PARAM_SINUSOID};
    }
    KD_GO(kd_path_join(s->part, "model.safetensors", &path));
    rc = kd_safetensors_write(path, (int)s->dtype, tensors, n);
out:
    free(path);
    free(copy);
    free(tensors);
    return rc;
}

/* ---- the tokenizer ---- */

int kd_copy_member(const char *from_dir, const char *to_dir, const char *name)
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
        KD_TRY(kd_copy_member(s->tokenizer_dir, s->part, names[i]));
    return KD_OK;
}

/* ---- the whole ---- */

static int write_part(void *arg, const char *part)
{
    struct save *s = arg;

    s->part = part;
    KD_TRY(kd_model_write_configs(s->m, part, kd_dtype_name(s->dtype), s->generation));
    KD_TRY(write_tokenizer(s));
    KD_TRY(KD_FAULT("model.save"));
    return write_weights(s);
}

static int save_root(void *arg)
{
    struct save *s = arg;

    return kd_model_dir_write(s->dir, s->tokenizer_dir != NULL, write_part, s);
}

int kd_model_save(struct kd_run *run, struct kd_model *m, const char *dir,
                  enum kd_dtype dtype, const char *tokenizer_dir,
                  const struct kd_json *generation)
{
    struct save s = {.m = m,
                     .dir = dir,
                     .dtype = dtype,
                     .tokenizer_dir = tokenizer_dir,
                     .generation = generation};

    return kd_root_do(run->comm, save_root, &s);
}
