/* SPDX-License-Identifier: Apache-2.0 */
/* Which tensor of a checkpoint fills which parameter. */
#ifndef KDHPC_SRC_MODE_MODEL_WEIGHTS_H
#define KDHPC_SRC_MODE_MODEL_WEIGHTS_H

#include "kdhpc/base/str.h"
#include "kdhpc/model/model.h"
#include "kdhpc/store/weights.h"

/** Find the tensors of W, from DIR, for the parameters of M: OF[i] fills parameter i;
 * NULL where the file need not hold it (a buffer: zeros; positions that a formula
 * gives).  HEADS gets the names of tensors that belong to another task's head, if there
 * are any.  The object NAMES (or NULL) gets all names that are "missing", "unexpected"
 * and "passed_over".  Local.  KD_EINPUT has the first of what is missing and what is
 * not expected, or says whose shape differs. */
int kd_model_match(struct kd_model *m, const struct kd_weights *w, const char *dir,
                   const struct kd_weight **of, struct kd_str *heads,
                   struct kd_json *names) KD_MUST_CHECK;

/** Put the values into M, which is new: OF as above.  Local. */
int kd_model_fill(struct kd_model *m, const struct kd_weight *const *of) KD_MUST_CHECK;

/** Parsed DIR/config.json.  Local.  KD_EINPUT: no directory, no config. */
int kd_model_dir_config(const char *dir, struct kd_json **out) KD_MUST_CHECK;

#endif
