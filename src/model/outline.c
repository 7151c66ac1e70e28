/* SPDX-License-Identifier: Apache-2.0 */
/* A model as files see it: the descriptor, names and shapes of its parameters without
 * values, which is all that looking at a checkpoint or rewriting it needs, and costs no
 * memory to speak of; and the names under which parameters are written.  Callers: the
 * modes that handle files. */
#include "model_impl.h"

#include "kdhpc/base/mem.h"

/* Where a family has no slot for a head of its own (FSMT), its class takes the
 * decoder's table from the head's name. */
const char *kd_model_saved_name(const struct kd_model *m, int index)
{
    struct kd_place p = m->places[index];
    const char *head = m->family->head_aliases[0];

    if (p.slot == KD_SLOT_STACK_EMBED && p.stack == KD_DEC && m->arch.tied_head &&
        !m->family->names[KD_SLOT_HEAD] && head)
        return head;
    return m->params.items[index].name;
}

/* Any config of a family has these defaults; ids must lie in the vocabulary. */
bool kd_model_type_known(const struct kd_json *config)
{
    const char *type = kd_json_str(config, "model_type", "");
    struct kd_json *plain = kd_json_object();
    const struct kd_family *family = NULL;
    struct kd_arch arch;
    bool known = plain && !kd_json_set_str(plain, "model_type", type) &&
                 !kd_json_set_int(plain, "vocab_size", 1 << 20) &&
                 !kd_arch_parse(plain, &arch, &family);

    kd_json_free(plain);
    kd_error_clear();
    return known;
}

int kd_model_outline(const struct kd_json *config, struct kd_model **out)
{
    struct kd_model *m = NULL;
    int rc;

    KD_TRY(kd_calloc(1, sizeof *m, &m));
    m->config = kd_json_copy(config);
    if (!m->config)
        KD_GO(KD_FAIL(KD_ENOMEM, "no memory for a copy of config.json"));
    KD_GO(kd_arch_parse(m->config, &m->arch, &m->family));
    KD_GO(kd_model_register(m));
    *out = m;
    return KD_OK;
out:
    kd_model_free(m);
    return rc;
}
