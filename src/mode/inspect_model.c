/* SPDX-License-Identifier: Apache-2.0 */
/* A look at a model directory: what it is, what is in it, what can be done with it.
 *
 * Nothing is loaded: the table of its parameters is compared with the headers of its
 * weights.  A directory of another family or another task is no less valid, but cannot
 * be used here for more than conversion; the report says why.  Damage, and weights that
 * are not those of the config, are errors.  Caller: mode_inspect.c, on rank 0. */
#include "inspect_model.h"
#include "model_weights.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

/* ---- weights ---- */

/* "float32" or "bfloat16, float32", from the types that occur. */
static int type_names(const struct kd_weights *w, struct kd_str *out)
{
    static const enum kd_dtype types[] = {KD_F32, KD_BF16, KD_F16, KD_F64};

    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        bool found = false;
        enum kd_dtype own;

        for (int k = 0; k < kd_weights_count(w) && !found; k++)
            found = kd_weight_is_float(kd_weights_at(w, k), &own) && own == types[i];
        if (found)
            KD_TRY(kd_str_printf(out, "%s%s", out->len ? ", " : "",
                                 kd_dtype_name(types[i])));
    }
    return KD_OK;
}

static int report_weights(const struct kd_weights *w, struct kd_json *r)
{
    struct kd_str types = {0};
    int64_t values = 0;
    int rc;

    for (int i = 0; i < kd_weights_count(w); i++)
        values += kd_weights_at(w, i)->count;
    KD_GO(kd_json_set_int(r, "tensors", kd_weights_count(w)));
    KD_GO(kd_json_set_int(r, "values", values));
    KD_GO(type_names(w, &types));
    if (types.len)
        rc = kd_json_set_str(r, "dtype", types.data);
out:
    kd_str_free(&types);
    return rc;
}

int kd_inspect_weights(const char *path, struct kd_json *report)
{
    size_t n = strlen(path);
    bool torch = n > 4 && !strcmp(path + n - 4, ".bin");
    struct kd_weights *w = NULL;
    int rc;

    KD_GO(kd_json_set_str(report, "kind", torch ? "PyTorch weights" : "safetensors"));
    KD_GO(kd_weights_open_file(path, &w));
    rc = report_weights(w, report);
out:
    kd_weights_close(w);
    return rc;
}

static int report_files(const char *dir, struct kd_json *r)
{
    struct kd_json *list = kd_json_array();
    char **files = NULL;
    int rc = list ? KD_OK : KD_FAIL(KD_ENOMEM, "no memory for a list of files");

    KD_GO(rc);
    KD_GO(kd_weights_files(dir, &files));
    for (char **file = files; *file; file++)
        KD_GO(kd_json_append_str(list, *file));
    rc = kd_json_set_json(r, "files", list);
    list = NULL;
out:
    kd_json_free(list);
    kd_weights_files_free(files);
    return rc;
}

/* ---- the network ---- */

static int report_arch(const struct kd_arch *a, struct kd_json *r)
{
    const struct {
        const char *key;
        int64_t value;
    } facts[] = {{"d_model", a->d_model},
                 {"encoder_layers", a->n_enc},
                 {"decoder_layers", a->n_dec},
                 {"encoder_heads", a->n_heads_enc},
                 {"decoder_heads", a->n_heads_dec},
                 {"encoder_ffn", a->ffn_enc},
                 {"decoder_ffn", a->ffn_dec},
                 {"vocab_size", a->vocab_size},
                 {"source_vocab_size", a->source_vocab_size}};

    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        KD_TRY(kd_json_set_int(r, facts[i].key, facts[i].value));
    if (a->positions == KD_POS_RELATIVE)
        return kd_json_set_str(r, "positions", "unlimited");
    return kd_json_set_int(r, "positions", a->max_positions);
}

static int report_counts(struct kd_model *m, struct kd_json *r)
{
    const struct kd_params *ps = kd_model_params(m);
    struct kd_json *counts = kd_json_object();
    int64_t tables = 0, constants = 0;
    int rc;

    for (int i = 0; i < ps->n; i++) {
        const struct kd_param *p = &ps->items[i];

        tables += p->kind == KD_PARAM_EMBED || p->kind == KD_PARAM_POS ? p->count : 0;
        constants += kd_param_is_constant(p) ? p->count : 0;
    }
    KD_GO(kd_json_set_int(counts, "trainable", kd_params_count(ps)));
    KD_GO(kd_json_set_int(counts, "of_it_tables", tables));
    KD_GO(kd_json_set_int(counts, "constants", constants));
    return kd_json_set_json(r, "parameters", counts);
out:
    kd_json_free(counts);
    return rc;
}

/* ---- the tokenizer ---- */

/* Class that tokenizer_config.json names, into OUT; empty if it does not. */
static int tokenizer_class(const char *dir, struct kd_str *out)
{
    struct kd_json *config = NULL;
    char *path = NULL;
    int rc;

    KD_TRY(kd_path_join(dir, "tokenizer_config.json", &path));
    rc = kd_path_exists(path) ? kd_json_parse_file(path, &config) : KD_OK;
    if (!rc && config)
        rc = kd_str_printf(out, "%s", kd_json_str(config, "tokenizer_class", ""));
    kd_json_free(config);
    free(path);
    return rc;
}

static int report_tokenizer(const char *dir, struct kd_json *r, bool *found)
{
    struct kd_tokenizer *t = NULL;
    struct kd_json *j = kd_json_object();
    struct kd_str name = {0};
    int rc = kd_tokenizer_load(dir, &t);

    *found = rc == KD_OK;
    if (rc == KD_EINPUT) {
        rc = kd_json_set_str(j, "problem", kd_error_get()->text);
        kd_error_clear();
        KD_GO(rc);
    } else {
        KD_GO(rc);
        KD_GO(tokenizer_class(dir, &name));
        if (name.len)
            KD_GO(kd_json_set_str(j, "class", name.data));
        KD_GO(kd_json_set_int(j, "ids", kd_tokenizer_size(t)));
    }
    rc = kd_json_set_json(r, "tokenizer", j);
    j = NULL;
out:
    kd_str_free(&name);
    kd_json_free(j);
    if (t)
        kd_tokenizer_free(t);
    return rc;
}

/* ---- what it is good for ---- */

static int report_uses(struct kd_json *r, bool usable, const char *why, bool tokenizer)
{
    KD_TRY(kd_json_set_bool(r, "usable", usable));
    if (!usable) {
        KD_TRY(kd_json_set_str(r, "reason", why));
        return kd_json_set_str(r, "modes", "convert");
    }
    return kd_json_set_str(r, "modes",
                           tokenizer
                               ? "make-student, sft, kd, pseudo-label, eval, score, "
                                 "generate, convert"
                               : "make-student, score, convert; with the tokenizer of "
                                 "another directory: sft, kd, pseudo-label, eval, "
                                 "generate");
}

/* A model of a family of ours: its parameters against its weights. */
static int report_model(const char *dir, const struct kd_json *config,
                        const struct kd_weights *w, struct kd_json *r)
{
    static const char *const names[] = {"missing", "unexpected", "passed_over"};
    const struct kd_weight **of = NULL;
    struct kd_model *m = NULL;
    struct kd_str heads = {0};
    int rc;

    KD_GO(kd_model_outline(config, &m));
    KD_GO(report_arch(kd_model_arch(m), r));
    KD_GO(report_counts(m, r));
    KD_GO(kd_calloc(kd_model_params(m)->n, sizeof *of, &of));
    rc = kd_model_match(m, w, dir, of, &heads, r);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (kd_json_len(kd_json_get(r, names[i])) == 0)
            kd_json_del(r, names[i]);
out:
    kd_str_free(&heads);
    free(of);
    kd_model_free(m);
    return rc;
}

static int report_dir(const char *dir, const struct kd_json *config,
                      const struct kd_weights *w, struct kd_json *r)
{
    const char *type = kd_json_str(config, "model_type", "(none)");
    bool known = kd_model_type_known(config), tokenizer;
    struct kd_str why = {0};
    int rc;

    KD_GO(report_weights(w, r));
    KD_GO(report_tokenizer(dir, r, &tokenizer));
    if (known)
        KD_GO(report_model(dir, config, w, r));
    else
        KD_GO(kd_str_printf(&why, "model_type %s is not one of this program's families",
                            type));
    rc = report_uses(r, known, why.data, tokenizer);
out:
    kd_str_free(&why);
    return rc;
}

int kd_inspect_model(const char *dir, struct kd_json *report)
{
    struct kd_json *config = NULL;
    struct kd_weights *w = NULL;
    int rc;

    KD_GO(kd_json_set_str(report, "kind", "model"));
    KD_GO(kd_model_dir_config(dir, &config));
    KD_GO(kd_json_set_str(report, "model_type",
                          kd_json_str(config, "model_type", "(none)")));
    KD_GO(report_files(dir, report));
    KD_GO(kd_weights_open(dir, &w));
    rc = report_dir(dir, config, w, report);
out:
    kd_weights_close(w);
    kd_json_free(config);
    return rc;
}
