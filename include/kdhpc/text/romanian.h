/* SPDX-License-Identifier: Apache-2.0 */
/* Romanian texts as they are scored by custom: tokens without diacritics. */
#ifndef KDHPC_TEXT_ROMANIAN_H
#define KDHPC_TEXT_ROMANIAN_H

#include "kdhpc/base/status.h"
#include "kdhpc/base/str.h"

/** Compiled rules.  One per thread. */
struct kd_romanian;

int kd_romanian_new(struct kd_romanian **out) KD_MUST_CHECK;
void kd_romanian_free(struct kd_romanian *r);

/** TEXT[len] (valid UTF-8) rewritten into OUT (replaced), to be scored without further
 * tokenization.  Local.  KD_ENOMEM. */
int kd_romanian_apply(struct kd_romanian *r, const char *text, int64_t len,
                      struct kd_str *out) KD_MUST_CHECK;

#endif
