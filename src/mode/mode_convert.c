/* SPDX-License-Identifier: Apache-2.0 */
/* Any readable model directory as safetensors.
 *
 * A directory of a family that this program knows is written as it writes its own: one
 * member of each group of tied tensors under today's name, nothing that is useless or
 * computed, generation settings in their own file.  Any other (another family, the head
 * of another task, weights that do not match their config) keeps its tensors and their
 * names.  Tokenizer and other files come along; weights in other frameworks' formats do
 * not.  Values go from the mapped files to the output a buffer at a time, so memory
 * does not grow with the model.  Rank 0 does it all. */
#include "model_dir.h"
#include "model_weights.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/mode/model_io.h"
#include "kdhpc/store/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct convert_config {
    const char *model, *max_shard_size;
    int save_dtype; /* -1: unset */
};

static const struct kd_opt_row rows[] = {
    {.name = "model",
     .type = KD_OPT_STR,
     .offset = offsetof(struct convert_config, model),
     .help = "model directory: safetensors or pytorch_model.bin, whole or in shards",
     .flags = KD_OPT_REQUIRED},
    {.name = "save_dtype",
     .type = KD_OPT_CHOICE,
     .offset = offsetof(struct convert_config, save_dtype),
     .choices = "float32|float16|bfloat16",
     .help = "number format of the weights (unset: as they are)"},
    {.name = "max_shard_size",
     .type = KD_OPT_STR,
     .offset = offsetof(struct convert_config, max_shard_size),
     .def = "5GB",
     .help = "weights larger than this are cut into files of this size, with an index: "
             "a number and B, KB, MB, GB, KiB, MiB or GiB"},
};

static const struct kd_opt_group groups[] = {
    {"Conversion", rows, sizeof rows / sizeof *rows, 0},
};

/* ---- options ---- */

static int parse_size(const char *text, int64_t *out)
{
    static const struct {
        const char *unit;
        double bytes;
    } units[] = {{"", 1},     {"B", 1},        {"KB", 1e3},     {"MB", 1e6},
                 {"GB", 1e9}, {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}};
    char *end = NULL;
    double x = strtod(text, &end);

    while (end != text && *end == ' ')
        end++;
    for (size_t i = 0; end != text && i < sizeof units / sizeof *units; i++) {
        double bytes = x * units[i].bytes;

        if (strcmp(end, units[i].unit) || !(bytes >= 1) || bytes > 1e18)
            continue;
        *out = (int64_t)bytes;
        return KD_OK;
    }
    return KD_FAIL(KD_EUSAGE,
                   "option --max_shard_size: \"%s\" is not a size; allowed: a positive "
                   "number and B, KB, MB, GB, KiB, MiB or GiB",
                   text);
}

static int check(const struct kd_common *common, void *config)
{
    const struct convert_config *c = config;
    int64_t bytes;

    (void)common;
    return parse_size(c->max_shard_size, &bytes);
}

static int dtype_of(const struct convert_config *c)
{
    static const int dtypes[] = {KD_F32, KD_F16, KD_BF16};

    return c->save_dtype < 0 ? KD_AS_IT_IS : dtypes[c->save_dtype];
}

/* ---- what to write ---- */

struct conversion {
    const struct convert_config *c;
    const char *output_dir;
    struct kd_json *config, *generation;
    struct kd_weights *w;
    struct kd_model *m; /* NULL: tensors as they are */
    struct kd_named_tensor *tensors;
    int n;
    float **tables; /* values that the checkpoint lacks */
    int64_t n_tables, cap_tables;
};

/* Parameter INDEX of M, which T fills: a table of sinusoids is written whether it was
 * there or not, because some of transformers' classes miss it. */
static int add_param(struct conversion *cv, struct kd_model *m, int index,
                     const struct kd_weight *t)
{
    const struct kd_param *p = &kd_model_params(m)->items[index];
    struct kd_named_tensor *out = &cv->tensors[cv->n];
    bool sinusoids = p->kind == KD_PARAM_SINUSOID;

    if (!t && !sinusoids)
        return KD_OK;
    *out = (struct kd_named_tensor){.name = kd_model_saved_name(m, index),
                                    .ndim = p->ndim,
                                    .shape = {p->shape[0], p->shape[1]},
                                    .from = t,
                                    .own_type = sinusoids};
    cv->n++;
    if (t)
        return KD_OK;
    KD_TRY(kd_grow(&cv->tables, &cv->cap_tables, cv->n_tables + 1, sizeof *cv->tables));
    KD_TRY(kd_calloc(p->count, sizeof(float), &cv->tables[cv->n_tables]));
    kd_model_positions(m, index, cv->tables[cv->n_tables]);
    out->values = cv->tables[cv->n_tables++];
    return KD_OK;
}

/* Make CV->m and the tensors as a family has them; where that cannot be, *WHY says why
 * and CV->m stays NULL. */
static int list_by_family(struct conversion *cv, struct kd_str *why)
{
    const struct kd_weight **of = NULL;
    struct kd_model *m = NULL;
    int rc;

    KD_GO(kd_model_outline(cv->config, &m));
    KD_GO(kd_calloc(kd_model_params(m)->n, sizeof *of, &of));
    KD_GO(kd_calloc(kd_model_params(m)->n, sizeof *cv->tensors, &cv->tensors));
    rc = kd_model_match(m, cv->w, cv->c->model, of, why, NULL);
    for (int i = 0; !rc && !why->len && i < kd_model_params(m)->n; i++)
        rc = add_param(cv, m, i, of[i]);
    if (!rc && !why->len) {
        cv->m = m;
        m = NULL;
    }
out:
    if (rc == KD_EINPUT) {
        rc = kd_str_printf(why, " (%s)", kd_error_get()->text);
        kd_error_clear();
    }
    free(of);
    kd_model_free(m);
    return rc;
}

static int list_as_they_are(struct conversion *cv)
{
    int n = kd_weights_count(cv->w);

    free(cv->tensors);
    cv->tensors = NULL;
    KD_TRY(kd_calloc(n, sizeof *cv->tensors, &cv->tensors));
    for (cv->n = 0; cv->n < n; cv->n++) {
        const struct kd_weight *t = kd_weights_at(cv->w, cv->n);

        if (t->ndim > KD_MAX_DIMS)
            return KD_FAIL(KD_EINPUT,
                           "%s: %s has %d dimensions, at most %d are handled", t->path,
                           t->name, t->ndim, KD_MAX_DIMS);
        cv->tensors[cv->n] =
            (struct kd_named_tensor){.name = t->name, .ndim = t->ndim, .from = t};
        memcpy(cv->tensors[cv->n].shape, t->shape, sizeof t->shape);
    }
    return KD_OK;
}

static int list_tensors(struct conversion *cv)
{
    const char *type = kd_json_str(cv->config, "model_type", "(none)");
    struct kd_str why = {0};
    int rc = KD_OK;

    if (!kd_model_type_known(cv->config)) {
        kd_info("%s: model_type %s is not one that this program computes with; tensors "
                "keep their names",
                cv->c->model, type);
    } else {
        KD_GO(list_by_family(cv, &why));
        if (why.len)
            kd_warn("%s is not a %s model for generation%s; tensors keep their names",
                    cv->c->model, type, why.data);
    }
    if (!cv->m)
        rc = list_as_they_are(cv);
out:
    kd_str_free(&why);
    return rc;
}

/* ---- files ---- */

/* Name of the type of the weights that are written. */
static const char *type_name(const struct conversion *cv)
{
    int dtype = dtype_of(cv->c);

    return kd_dtype_name(dtype == KD_AS_IT_IS ? kd_weights_dtype(cv->w)
                                              : (enum kd_dtype)dtype);
}

static int write_configs(const struct conversion *cv, const char *part)
{
    struct kd_json *config = NULL;
    char *path = NULL;
    int rc;

    if (cv->m)
        return kd_model_write_configs(cv->m, part, type_name(cv), cv->generation);
    if (cv->generation)
        KD_TRY(kd_copy_member(cv->c->model, part, "generation_config.json"));
    if (dtype_of(cv->c) == KD_AS_IT_IS)
        return kd_copy_member(cv->c->model, part, "config.json");
    config = kd_json_copy(cv->config);
    if (!config)
        return KD_FAIL(KD_ENOMEM, "no memory for config.json");
    KD_GO(kd_json_set_str(
        config, kd_json_has(config, "dtype") ? "dtype" : "torch_dtype", type_name(cv)));
    KD_GO(kd_path_join(part, "config.json", &path));
    rc = kd_json_write_file(config, path);
out:
    free(path);
    kd_json_free(config);
    return rc;
}

/* Whether a file of the model directory comes along: not what was written anew, and no
 * weights of any framework. */
static bool comes_along(const char *dir, const char *name)
{
    static const char *const left[] = {"config.json",   "generation_config.json",
                                       "*.safetensors", "*.index.json",
                                       "*.bin",         "*.h5",
                                       "*.msgpack",     "*.ot",
                                       "*.pt",          "*.pth",
                                       "*.ckpt*",       "*.onnx",
                                       "*.part",        ".*"};
    char *path = NULL;
    bool is_dir;

    for (size_t i = 0; i < sizeof left / sizeof *left; i++)
        if (fnmatch(left[i], name, 0) == 0)
            return false;
    is_dir = kd_path_join(dir, name, &path) || kd_path_is_dir(path);
    free(path);
    return !is_dir;
}

static int copy_rest(const char *from, const char *to)
{
    DIR *d = opendir(from);
    struct dirent *e;
    int rc = KD_OK;

    if (!d)
        return KD_FAIL(KD_EINPUT, "cannot read %s: %s", from, strerror(errno));
    while (!rc && (e = readdir(d)))
        if (comes_along(from, e->d_name))
            rc = kd_copy_member(from, to, e->d_name);
    closedir(d);
    return rc;
}

static int write_part(void *arg, const char *part)
{
    const struct conversion *cv = arg;
    int64_t max_bytes;

    KD_TRY(parse_size(cv->c->max_shard_size, &max_bytes));
    KD_TRY(write_configs(cv, part));
    KD_TRY(copy_rest(cv->c->model, part));
    KD_TRY(KD_FAULT("model.convert"));
    return kd_safetensors_write_dir(part, dtype_of(cv->c), max_bytes, cv->tensors,
                                    cv->n);
}

static int convert_root(void *arg)
{
    struct conversion *cv = arg;
    int rc;

    KD_GO(kd_model_dir_config(cv->c->model, &cv->config));
    KD_GO(kd_generation_json(cv->c->model, &cv->generation));
    KD_GO(kd_weights_open(cv->c->model, &cv->w));
    KD_GO(list_tensors(cv));
    KD_GO(kd_model_dir_write(cv->output_dir, true, write_part, cv));
    kd_info("%s: %d tensors in %s", cv->output_dir, cv->n, type_name(cv));
out:
    for (int64_t i = 0; i < cv->n_tables; i++)
        free(cv->tables[i]);
    free(cv->tables);
    free(cv->tensors);
    kd_model_free(cv->m);
    kd_weights_close(cv->w);
    kd_json_free(cv->generation);
    kd_json_free(cv->config);
    return rc;
}

static int run_convert(struct kd_run *run, void *config)
{
    struct conversion cv = {.c = config, .output_dir = run->common->output_dir};

    return kd_root_do(run->comm, convert_root, &cv);
}

static const char *const outputs[] = {"config.json",
                                      "generation_config.json",
                                      "model.safetensors",
                                      "model-*-of-*.safetensors",
                                      "model.safetensors.index.json",
                                      NULL};

const struct kd_mode kd_mode_convert = {
    .name = "convert",
    .summary = "write any readable model directory as safetensors, in another number "
               "format or in shards",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .config_bytes = sizeof(struct convert_config),
    .outputs = outputs,
    .needs_output_dir = true,
    .check = check,
    .run = run_convert,
};
