/* SPDX-License-Identifier: Apache-2.0 */
/* What the three files of the options share: the resolved set, parsing of one value,
 * and texts. */
#ifndef KDHPC_SRC_BASE_OPT_IMPL_H
#define KDHPC_SRC_BASE_OPT_IMPL_H

#include "kdhpc/base/opt.h"

/* One option of the mode and where its value lies. */
struct opt_value {
    const struct kd_opt_row *row;
    const char *title; /* of its group */
    void *field;
    bool given;
};

struct kd_opts {
    char *mode;
    struct opt_value *values;
    int n_values;
    void **owned; /* strings and arrays that fields point to */
    int64_t n_owned, cap_owned;
};

/* A value as the user wrote it. */
struct opt_input {
    char *const *items; /* [n] */
    int64_t n;
    bool is_list;       /* of a deck: the items are apart already */
    const char *origin; /* "deck.yaml:12", "command line", "default" */
};

/** Check INPUT against the row and store it; what is allocated goes to O. KD_EUSAGE.
 * Local. */
int kd_opt_parse(struct kd_opts *o, struct opt_value *v,
                 const struct opt_input *input) KD_MUST_CHECK;

/** Set the field to its unset value.  Local. */
void kd_opt_unset(struct opt_value *v);
bool kd_opt_is_unset(const struct opt_value *v);

/** Number of rows of a group, by its count or up to the row without a name. */
int kd_opt_group_rows(const struct kd_opt_group *g);

/** Whether `--name` alone means true. */
bool kd_opt_is_flag(const struct kd_opt_row *row);

/** Index of TEXT[LEN] in "a|b|c" in upper or lower case, or -1. */
int kd_opt_choice(const char *choices, const char *text, int64_t len);

/** Append what the row allows, e.g. "an integer >= 1". */
int kd_opt_allowed(const struct kd_opt_row *row, struct kd_str *out) KD_MUST_CHECK;

#endif
