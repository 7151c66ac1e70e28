/* SPDX-License-Identifier: Apache-2.0 */
/* Pickles as data: values that the caller looks at, and nothing that runs. */
#ifndef KDHPC_SRC_STORE_PICKLE_H
#define KDHPC_SRC_STORE_PICKLE_H

#include "kdhpc/base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum kd_pickle_kind {
    KD_PICKLE_OTHER, /* None, a float, bytes: nothing here needs their values */
    KD_PICKLE_INT,   /* and bool: n */
    KD_PICKLE_STR,   /* text[n] */
    KD_PICKLE_TUPLE, /* n items */
    KD_PICKLE_LIST,
    KD_PICKLE_DICT,       /* n pairs */
    KD_PICKLE_GLOBAL,     /* n: index in the allow list */
    KD_PICKLE_CALL,       /* two items: what would be called, the tuple of arguments */
    KD_PICKLE_PERSISTENT, /* one item: the id that stands for something outside */
};

struct kd_pickle_value {
    enum kd_pickle_kind kind;
    int32_t first, last; /* items, in order; -1: none */
    int64_t n;
    const char *text; /* in the pickle */
};

struct kd_pickle_item {
    int32_t key, value; /* values; the key of an item of a DICT */
    int32_t next;       /* item, or -1 */
};

struct kd_pickle {
    struct kd_pickle_value *values;
    struct kd_pickle_item *items;
    int64_t n_values, cap_values, n_items, cap_items;
    int32_t root; /* value */
};

/** Unpickle BYTES[n].  GLOBALS ("module name", NULL-terminated) are all that it may
 * mention; the first is "collections OrderedDict".  WHAT is for messages.  Free with
 * kd_pickle_free, also after a failure.  Local.  KD_EINPUT, KD_ENOMEM. */
int kd_pickle_read(const unsigned char *bytes, int64_t n, const char *const *globals,
                   const char *what, struct kd_pickle *out) KD_MUST_CHECK;
void kd_pickle_free(struct kd_pickle *p);

/** Value at K of a value with items, or NULL.  Local. */
const struct kd_pickle_value *kd_pickle_at(const struct kd_pickle *p,
                                           const struct kd_pickle_value *v, int64_t k);

/** Value of a string key of DICT, the last of that name, or NULL.  Local. */
const struct kd_pickle_value *kd_pickle_get(const struct kd_pickle *p,
                                            const struct kd_pickle_value *dict,
                                            const char *key);

/** Whether V is the string TEXT.  Local. */
bool kd_pickle_is(const struct kd_pickle_value *v, const char *text);

#endif
