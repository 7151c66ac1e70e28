/* SPDX-License-Identifier: Apache-2.0 */
/* A model: the names of its tensors, its life, freezing.  register.c lays out the
 * parameters and binds the vars of the blocks to them, init.c gives them values. */
#include "model_impl.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- names ---- */

int kd_model_slot_name(const struct kd_family *f, struct kd_place place,
                       char out[KD_PARAM_NAME_MAX])
{
    const char *t = f->names[place.slot];
    struct kd_str s = {0};
    int rc = KD_OK;

    for (; t && *t; t++) {
        if (*t == '@')
            KD_GO(
                kd_str_printf(&s, "%s", place.stack == KD_ENC ? "encoder" : "decoder"));
        else if (*t == '#')
            KD_GO(kd_str_printf(&s, "%d", place.layer));
        else if (*t == '^')
            KD_GO(kd_str_printf(&s, "%d", place.stack == KD_ENC ? 1 : 2));
        else
            KD_GO(kd_str_append(&s, t, 1));
    }
    rc = kd_format(out, KD_PARAM_NAME_MAX, "%s", s.data ? s.data : "");
out:
    kd_str_free(&s);
    return rc;
}

/* Name K of a list, or NULL; *N is its length. */
static const char *list_at(const char *const *list, int k, int *n)
{
    for (*n = 0; list[*n];)
        ++*n;
    return k < *n ? list[k] : NULL;
}

/* Name K of parameter INDEX with the prefix that it has in the tables, or NULL: its
 * own, those of the shared table, those of the head that is tied to it. */
static const char *full_alias(const struct kd_model *m, int index, int k)
{
    const struct kd_family *f = m->family;
    struct kd_place p = m->places[index];
    bool shared = p.slot == KD_SLOT_EMBED,
         targets = shared || (p.slot == KD_SLOT_STACK_EMBED && p.stack == KD_DEC);
    const char *name;
    int n;

    if (k == 0)
        return m->params.items[index].name;
    k--;
    if (shared) {
        name = list_at(f->embed_aliases, k, &n);
        if (name)
            return name;
        k -= n;
    }
    return targets && m->arch.tied_head ? list_at(f->head_aliases, k, &n) : NULL;
}

const char *kd_model_param_alias(const struct kd_model *m, int index, int k, char *buf,
                                 size_t buf_bytes)
{
    size_t skip = 0, prefix = strlen(m->family->prefix);
    const char *name = NULL;
    int n = 0;

    while (full_alias(m, index, n))
        n++;
    if (k < n) {
        name = full_alias(m, index, k);
    } else {
        for (int i = 0; prefix && i < n && !name; i++) {
            const char *full = full_alias(m, index, i);

            if (!strncmp(full, m->family->prefix, prefix) && k-- == n)
                name = full;
        }
        skip = prefix;
    }
    if (!name || strlen(name) - skip >= buf_bytes)
        return NULL;
    memcpy(buf, name + skip, strlen(name + skip) + 1);
    return buf;
}

bool kd_model_ignores(const struct kd_model *m, const char *name)
{
    size_t len = strlen(name);

    for (const char *const *e = m->family->ignored; *e; e++)
        if (len >= strlen(*e) && !strcmp(name + len - strlen(*e), *e))
            return true;
    return false;
}

/* ---- life ---- */

int kd_model_new(struct kd_backend *be, enum kd_dtype dtype,
                 const struct kd_json *config, struct kd_model **out)
{
    struct kd_model *m = NULL;
    int rc = KD_OK;

    KD_TRY(kd_calloc(1, sizeof *m, &m));
    m->be = m->params.be = be;
    m->config = kd_json_copy(config);
    if (!m->config)
        KD_GO(KD_FAIL(KD_ENOMEM, "no memory for a copy of config.json"));
    KD_GO(kd_arch_parse(m->config, &m->arch, &m->family));
    KD_GO(kd_model_register(m));
    KD_GO(kd_params_alloc(&m->params, dtype));
    KD_GO(kd_model_fill_positions(m));
    KD_GO(kd_model_bind_all(m));
    *out = m;
    return KD_OK;
out:
    kd_model_free(m);
    return rc;
}

void kd_model_free(struct kd_model *m)
{
    if (!m)
        return;
    kd_params_free(&m->params);
    free(m->places);
    free(m->bindings);
    free(m->stacks[KD_ENC].layers);
    free(m->stacks[KD_DEC].layers);
    kd_json_free(m->config);
    free(m);
}

int kd_model_like(struct kd_model *m, struct kd_backend *be, struct kd_model **out)
{
    KD_TRY(kd_model_new(be, m->params.dtype, m->config, out));
    (*out)->arch = m->arch;
    for (int i = 0; i < m->params.n; i++)
        (*out)->params.items[i].frozen = m->params.items[i].frozen;
    return KD_OK;
}

const struct kd_arch *kd_model_arch(const struct kd_model *m)
{
    return &m->arch;
}

struct kd_params *kd_model_params(struct kd_model *m)
{
    return &m->params;
}

struct kd_json *kd_model_config(struct kd_model *m)
{
    return m->config;
}

const char *kd_model_architecture(const struct kd_model *m)
{
    return m->family->architecture;
}

/* ---- training switches ---- */

void kd_model_set_dropout(struct kd_model *m, double dropout, double attention_dropout)
{
    struct kd_arch *a = &m->arch;

    if (!isnan(dropout)) {
        a->p_emb = a->p_resid = (float)dropout;
        if (dropout == 0 || a->one_dropout) /* zero turns every dropout off */
            a->p_attn = a->p_act = a->p_final = (float)dropout;
    }
    if (!isnan(attention_dropout))
        a->p_attn = (float)attention_dropout;
}

void kd_model_freeze_encoder(struct kd_model *m)
{
    for (int i = 0; i < m->params.n; i++)
        if (m->params.items[i].part != KD_PART_DECODER)
            m->params.items[i].frozen = true;
}

void kd_model_freeze_embeds(struct kd_model *m)
{
    for (int i = 0; i < m->params.n; i++)
        if (m->params.items[i].kind == KD_PARAM_EMBED ||
            m->params.items[i].kind == KD_PARAM_POS)
            m->params.items[i].frozen = true;
}

void kd_model_freeze_all(struct kd_model *m)
{
    for (int i = 0; i < m->params.n; i++)
        m->params.items[i].frozen = true;
}

bool kd_model_encoder_frozen(const struct kd_model *m)
{
    for (int i = 0; i < m->params.n; i++)
        if (m->params.items[i].part != KD_PART_DECODER && !m->params.items[i].frozen)
            return false;
    return true;
}
