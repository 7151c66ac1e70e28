/* SPDX-License-Identifier: Apache-2.0 */
/* The command line as the program understands it, before any rank is started. */
#ifndef KDHPC_SRC_MODE_COMMAND_H
#define KDHPC_SRC_MODE_COMMAND_H

#include "kdhpc/mode/mode.h"

struct command {
    const struct kd_mode *mode; /* NULL: --help or --version alone */
    bool help, version, print_config;
    char *mode_name;  /* as given on the command line or in the deck, owned */
    const char *deck; /* --config, borrowed from argv */
    char **options;   /* [n_options] the other arguments, in order */
    int n_options;

    void *block; /* struct kd_common, then the mode's config */
    struct kd_common *common;
    void *config;
    struct kd_opts *opts;
};

/** Read ARGV, find the mode, resolve and check its options.  C is zeroed by the caller
 * and freed by kd_command_free even after a failure; what was understood before a
 * failure stays in it.  Local.  KD_EUSAGE, KD_EINPUT. */
int kd_command_read(struct command *c, int argc, char **argv) KD_MUST_CHECK;

/** Whether C asks for a text only, and no rank is to be started.  Local. */
bool kd_command_is_text(const struct command *c);

/** Print that text to standard output.  Local.  KD_EOUTPUT. */
int kd_command_print(const struct command *c) KD_MUST_CHECK;

void kd_command_free(struct command *c);

#endif
