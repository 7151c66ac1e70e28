/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a model directory as one thing that appears at once. */
#ifndef KDHPC_SRC_MODE_MODEL_DIR_H
#define KDHPC_SRC_MODE_MODEL_DIR_H

#include "kdhpc/model/model.h"

/** Make WRITE(ARG, PART) fill the empty directory PART, and give it the name DIR, whose
 * old content goes where it belongs to a model (tokenizer files only if NEW_TOKENIZER)
 * and moves over where it does not.  A failure leaves DIR as it was.  Local: rank 0's
 * work.  KD_EOUTPUT. */
int kd_model_dir_write(const char *dir, bool new_tokenizer,
                       int (*write)(void *arg, const char *part),
                       void *arg) KD_MUST_CHECK;

/** Write DIR/config.json (M's, for weights of DTYPE, without generation settings) and
 * DIR/generation_config.json (GIVEN, or made from the config if NULL).  Local. */
int kd_model_write_configs(struct kd_model *m, const char *dir, const char *dtype,
                           const struct kd_json *given) KD_MUST_CHECK;

/** Copy FROM_DIR/NAME to TO_DIR/NAME.  Local. */
int kd_copy_member(const char *from_dir, const char *to_dir,
                   const char *name) KD_MUST_CHECK;

#endif
