/* SPDX-License-Identifier: Apache-2.0 */
/* Options: one row binds a name to a field, with its type, default, bounds and help.
 *
 * The rows parse the command line and decks, print the help, and dump the resolved
 * set; nothing else lists options.  A mode has groups of rows, each placed at an offset
 * of the mode's config struct, so that groups such as generation serve several modes.
 */
#ifndef KDHPC_BASE_OPT_H
#define KDHPC_BASE_OPT_H

#include "kdhpc/base/status.h"
#include "kdhpc/base/str.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

enum kd_opt_type {
    KD_OPT_BOOL,   /* bool */
    KD_OPT_INT,    /* int64_t; unset: KD_UNSET_INT */
    KD_OPT_FLOAT,  /* double; unset: NAN */
    KD_OPT_STR,    /* const char *; unset: NULL */
    KD_OPT_CHOICE, /* int, index into choices "a|b|c"; unset: -1.  "false|true" works as
                      a flag */
    KD_OPT_INT_LIST, /* struct kd_int_list; unset: n = -1 */
    KD_OPT_STR_LIST, /* struct kd_str_list; unset: n = -1 */
};

#define KD_UNSET_INT INT64_MIN
#define KD_NO_MIN (-INFINITY)
#define KD_NO_MAX INFINITY

struct kd_int_list {
    int64_t n;
    int64_t *v;
};

struct kd_str_list {
    int64_t n;
    char **v;
};

enum kd_opt_flag { KD_OPT_REQUIRED = 1 };

struct kd_opt_row {
    const char *name; /* lower case, underscores */
    enum kd_opt_type type;
    size_t offset;       /* of the field in the group's struct */
    const char *def;     /* as it would be typed; NULL: unset */
    double min, max;     /* INT and FLOAT (and list elements); inclusive; 0, 0: any */
    const char *choices; /* CHOICE: "a|b|c" */
    const char *help;    /* one line */
    unsigned flags;      /* enum kd_opt_flag */
};

struct kd_opt_group {
    const char *title; /* heading in the help */
    const struct kd_opt_row *rows;
    int n_rows;    /* 0: up to the first row whose name is NULL */
    size_t offset; /* of the group's struct in the mode's config */
};

/** The resolved options of one mode: where each value came from, and the text for
 * dumps. */
struct kd_opts;

/** Resolve GROUPS into CONFIG (zeroed by the caller): defaults, then the deck with its
 *  includes, then ARGV (options only, without `--mode` and `--config`). KNOWN_ELSEWHERE
 *  tells whether a deck key belongs to some other mode (then it is passed over); it may
 * be NULL.  Strings and lists in CONFIG are owned by *OUT.  Local. KD_EUSAGE names
 * option, origin and what is allowed; KD_EINPUT: the deck cannot be read. */
int kd_opts_resolve(const struct kd_opt_group *groups, int n_groups, void *config,
                    const char *mode, const char *deck, int argc, char **argv,
                    bool (*known_elsewhere)(const char *name),
                    struct kd_opts **out) KD_MUST_CHECK;

/** Whether the user gave NAME (command line or deck).  Local. */
bool kd_opts_given(const struct kd_opts *o, const char *name);

/** Append the resolved options as a deck that can be run again, `mode` and VERSION as a
 * comment.  Local. */
int kd_opts_dump(const struct kd_opts *o, struct kd_str *out) KD_MUST_CHECK;

/** Whether one of GROUPS has an option of this name.  Local. */
bool kd_opts_has(const struct kd_opt_group *groups, int n_groups, const char *name);

/** Whether A and B are one name: hyphens and underscores are the same.  Local. */
bool kd_opts_same_name(const char *a, const char *b);

/** Append the help of GROUPS.  Local. */
int kd_opts_help(const struct kd_opt_group *groups, int n_groups,
                 struct kd_str *out) KD_MUST_CHECK;

void kd_opts_free(struct kd_opts *o);

#endif
