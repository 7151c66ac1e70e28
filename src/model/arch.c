/* SPDX-License-Identifier: Apache-2.0 */
/* From config.json to the descriptor.
 *
 * `model_type` picks a family, the family's parser fills the descriptor, and what any
 * family must satisfy is checked here.  Keys that are absent have the defaults of the
 * reference's configuration classes, because files on the hub leave them out.  Called
 * by kd_model_new and by the modes that write configurations. */
#include "family.h"

#include "kdhpc/base/str.h"

#include <string.h>

static const struct kd_family *const families[] = {
    &kd_family_bart, &kd_family_mbart, &kd_family_pegasus, &kd_family_marian,
    &kd_family_fsmt, &kd_family_t5,    &kd_family_mt5};

enum { N_FAMILIES = sizeof families / sizeof *families };

static const struct kd_family *family_find(const char *model_type)
{
    for (int i = 0; i < N_FAMILIES; i++)
        if (!strcmp(families[i]->model_type, model_type))
            return families[i];
    return NULL;
}

/* "bart, mbart, ..." */
static int family_list(struct kd_str *out)
{
    for (int i = 0; i < N_FAMILIES; i++)
        KD_TRY(kd_str_printf(out, "%s%s", i ? ", " : "", families[i]->model_type));
    return KD_OK;
}

static int unsupported(const char *model_type)
{
    struct kd_str known = {0};
    int rc;

    KD_GO(family_list(&known));
    rc = KD_FAIL(KD_EINPUT, "config.json: model_type \"%.40s\" is not supported (%s)",
                 model_type, known.data);
out:
    kd_str_free(&known);
    return rc;
}

int kd_arch_count(const struct kd_json *config, const char *key, int64_t def,
                  int64_t *out)
{
    const struct kd_json *j = kd_json_get(config, key);

    *out = def;
    if (kd_json_has(config, key)) {
        if (!kd_json_is_number(j))
            return KD_FAIL(KD_EINPUT, "config.json: %s is not a number", key);
        *out = kd_json_as_int(j, -1);
    }
    if (*out < 1 || *out > INT32_MAX)
        return KD_FAIL(KD_EINPUT, "config.json: %s is %lld, must be at least 1", key,
                       (long long)*out);
    return KD_OK;
}

int kd_arch_real(const struct kd_json *config, const char *key, double def, double min,
                 double max, double *out)
{
    const struct kd_json *j = kd_json_get(config, key);

    *out = def;
    if (kd_json_has(config, key)) {
        if (!kd_json_is_number(j))
            return KD_FAIL(KD_EINPUT, "config.json: %s is not a number", key);
        *out = kd_json_as_num(j, def);
    }
    if (!(*out >= min && *out <= max))
        return KD_FAIL(KD_EINPUT, "config.json: %s is %g, must be in %g .. %g", key,
                       *out, min, max);
    return KD_OK;
}

int kd_arch_prob(const struct kd_json *config, const char *key, double def, float *out)
{
    double p;

    KD_TRY(kd_arch_real(config, key, def, 0, 0.999, &p));
    *out = (float)p;
    return KD_OK;
}

int kd_arch_id(const struct kd_json *config, const char *key, int32_t def, int32_t *out)
{
    const struct kd_json *j = kd_json_get(config, key);
    int64_t id;

    *out = def;
    if (!j)
        return KD_OK;
    *out = -1;
    if (!kd_json_has(config, key)) /* null */
        return KD_OK;
    if (kd_json_is_array(j))
        j = kd_json_at(j, 0);
    if (!j || !kd_json_is_number(j))
        return KD_FAIL(KD_EINPUT, "config.json: %s is not a token id", key);
    id = kd_json_as_int(j, -1);
    if (id < 0 || id > INT32_MAX)
        return KD_FAIL(KD_EINPUT, "config.json: %s is %lld, not a token id", key,
                       (long long)id);
    *out = (int32_t)id;
    return KD_OK;
}

int kd_arch_act_name(const char *key, const char *name, enum kd_act *out)
{
    static const struct {
        const char *name;
        enum kd_act act;
    } acts[] = {
        {"gelu", KD_ACT_GELU},         {"gelu_python", KD_ACT_GELU},
        {"gelu_new", KD_ACT_GELU_NEW}, {"gelu_pytorch_tanh", KD_ACT_GELU_NEW},
        {"relu", KD_ACT_RELU},         {"silu", KD_ACT_SILU},
        {"swish", KD_ACT_SILU},        {"tanh", KD_ACT_TANH},
    };

    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
        if (!strcmp(name, acts[i].name)) {
            *out = acts[i].act;
            return KD_OK;
        }
    return KD_FAIL(KD_EINPUT,
                   "config.json: %s \"%.40s\" is not supported (gelu, gelu_new, "
                   "relu, silu, tanh)",
                   key, name);
}

int kd_arch_act(const struct kd_json *config, const char *key, const char *def,
                enum kd_act *out)
{
    return kd_arch_act_name(key, kd_json_str(config, key, def), out);
}

static int check_id(const struct kd_arch *a, const char *key, int32_t id)
{
    if (id >= a->vocab_size)
        return KD_FAIL(KD_EINPUT, "config.json: %s is %d, but vocab_size is %lld", key,
                       (int)id, (long long)a->vocab_size);
    return KD_OK;
}

/* So that no size of a model, even of all its layers, leaves 64 bits. */
static int check_width(const char *what, int64_t width)
{
    enum { MAX_WIDTH = 1 << 20 };

    if (width > MAX_WIDTH)
        return KD_FAIL(KD_EINPUT, "config.json: %s is %lld, at most %d is handled",
                       what, (long long)width, MAX_WIDTH);
    return KD_OK;
}

static int check(const struct kd_arch *a)
{
    KD_TRY(check_width("d_model", a->d_model));
    KD_TRY(check_width("the encoder's ffn_dim", a->ffn_enc));
    KD_TRY(check_width("the decoder's ffn_dim", a->ffn_dec));
    KD_TRY(check_width("heads times their width", a->n_heads_enc * a->head_dim));
    if (!a->head_dim && (a->d_model % a->n_heads_enc || a->d_model % a->n_heads_dec))
        return KD_FAIL(KD_EINPUT,
                       "config.json: d_model %lld is not a multiple of the heads "
                       "(%lld, %lld)",
                       (long long)a->d_model, (long long)a->n_heads_enc,
                       (long long)a->n_heads_dec);
    KD_TRY(check_id(a, "bos_token_id", a->bos_id));
    KD_TRY(check_id(a, "eos_token_id", a->eos_id));
    KD_TRY(check_id(a, "pad_token_id", a->pad_id));
    KD_TRY(check_id(a, "decoder_start_token_id", a->decoder_start_id));
    return KD_OK;
}

static int family_of(const struct kd_json *config, const struct kd_family **out)
{
    const char *type;

    if (!kd_json_is_object(config))
        return KD_FAIL(KD_EINPUT, "config.json is not a JSON object");
    type = kd_json_str(config, "model_type", NULL);
    if (!type)
        return KD_FAIL(KD_EINPUT, "config.json has no model_type");
    *out = family_find(type);
    return *out ? KD_OK : unsupported(type);
}

int kd_arch_keys_of(const struct kd_json *config, struct kd_arch_keys *out)
{
    const struct kd_family *f;

    KD_TRY(family_of(config, &f));
    *out = f->keys;
    return KD_OK;
}

int kd_arch_parse(const struct kd_json *config, struct kd_arch *arch,
                  const struct kd_family **family)
{
    const struct kd_family *f;

    KD_TRY(family_of(config, &f));
    *arch = (struct kd_arch){.shared_embed = true,
                             .tied_head = true,
                             .head_scale = 1,
                             .emb_scale = 1,
                             .scaled_scores = true,
                             .prenorm = f->prenorm,
                             .emb_norm = f->emb_norm,
                             .final_norm = f->final_norm,
                             .start_rule = f->start_rule,
                             .old_start_last = f->old_start_last,
                             .positions = f->positions};
    KD_TRY(kd_format(arch->model_type, sizeof arch->model_type, "%s", f->model_type));
    KD_TRY(f->parse(config, f, arch));
    KD_TRY(check(arch));
    *family = f;
    return KD_OK;
}
