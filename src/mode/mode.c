/* SPDX-License-Identifier: Apache-2.0 */
/* The one list of modes, in the order in which a project uses them.  A new mode is its
 * file and one line here. */
#include "kdhpc/mode/mode.h"

#include <stddef.h>

extern const struct kd_mode kd_mode_train_tokenizer, kd_mode_tokenize,
    kd_mode_init_model, kd_mode_make_student, kd_mode_sft, kd_mode_pseudo_label,
    kd_mode_kd, kd_mode_eval, kd_mode_score, kd_mode_generate, kd_mode_convert,
    kd_mode_inspect, kd_mode_bench;

const struct kd_mode *const kd_modes[] = {
    &kd_mode_train_tokenizer,
    &kd_mode_tokenize,
    &kd_mode_init_model,
    &kd_mode_make_student,
    &kd_mode_sft,
    &kd_mode_pseudo_label,
    &kd_mode_kd,
    &kd_mode_eval,
    &kd_mode_score,
    &kd_mode_generate,
    &kd_mode_convert,
    &kd_mode_inspect,
    &kd_mode_bench,
    NULL,
};

const struct kd_mode *kd_mode_find(const char *name)
{
    for (int i = 0; kd_modes[i]; i++) {
        if (kd_opts_same_name(kd_modes[i]->name, name))
            return kd_modes[i];
    }
    return NULL;
}
