/* SPDX-License-Identifier: Apache-2.0 */
/* From argv to a mode with checked options, or to a text (help, version, resolved
 * deck).
 *
 * Nothing here communicates or creates anything, so it works on a login node.  The four
 * arguments that belong to the program itself (--mode, --config, and the text forms)
 * are taken out; the rest goes to the option rows of the mode, which are preceded in
 * one block of memory by those that every mode has. */
#include "command.h"
#include "device.h"
#include "environment.h"

#include "kdhpc/base/deck.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/base/version.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- options of every mode ---- */

#define AT(field) offsetof(struct kd_common, field)

static const struct kd_opt_row common_rows[] = {
    {.name = "output_dir",
     .type = KD_OPT_STR,
     .offset = AT(output_dir),
     .help = "directory for what the mode writes"},
    {.name = "overwrite",
     .type = KD_OPT_BOOL,
     .offset = AT(overwrite),
     .def = "false",
     .help = "replace outputs that exist"},
    {.name = "seed",
     .type = KD_OPT_INT,
     .offset = AT(seed),
     .def = "42",
     .min = 0,
     .max = KD_NO_MAX,
     .help = "seed of all random numbers"},
    {.name = "device",
     .type = KD_OPT_CHOICE,
     .offset = AT(device),
     .def = "auto",
     .choices = "auto|cpu|cuda",
     .help = "where to compute; auto: on GPUs where every rank has one"},
    {.name = "dtype",
     .type = KD_OPT_CHOICE,
     .offset = AT(dtype),
     .def = "auto",
     .choices = "auto|float32|bfloat16",
     .help = "number format of the computation; auto: float32 on CPUs, "
             "bfloat16 on GPUs"},
    {.name = "tf32",
     .type = KD_OPT_BOOL,
     .offset = AT(tf32),
     .def = "false",
     .help = "float32 products on GPUs may round their inputs to TF32 (10 bits)"},
    {.name = "threads",
     .type = KD_OPT_INT,
     .offset = AT(threads),
     .def = "0",
     .min = 0,
     .max = 4096,
     .help = "CPU threads of each rank; 0: the cores of this rank"},
    {.name = "log_level",
     .type = KD_OPT_CHOICE,
     .offset = AT(log_level),
     .def = "info",
     .choices = "error|warn|info|debug",
     .help = "how much to print; debug: every rank speaks"},
    {.name = "progress",
     .type = KD_OPT_CHOICE,
     .offset = AT(progress),
     .def = "auto",
     .choices = "auto|bar|lines|none",
     .help = "progress display; auto: bar on a terminal, else lines"},
    {.name = "deadline_s",
     .type = KD_OPT_FLOAT,
     .offset = AT(deadline_s),
     .def = "600",
     .min = 0,
     .max = KD_NO_MAX,
     .help = "end the run if a rank is silent for so many seconds; 0: never"},
};

static const struct kd_opt_group common_group = {
    "Every mode", common_rows, sizeof common_rows / sizeof *common_rows, 0};

/* Where the mode's config begins in the block. */
static size_t config_offset(void)
{
    size_t align = _Alignof(max_align_t);

    return (sizeof(struct kd_common) + align - 1) / align * align;
}

/* The mode's groups, moved behind the common options, then those; caller frees. */
static int all_groups(const struct kd_mode *mode, struct kd_opt_group **out)
{
    KD_TRY(kd_calloc(mode->n_groups + 1, sizeof **out, out));
    for (int g = 0; g < mode->n_groups; g++) {
        (*out)[g] = mode->groups[g];
        (*out)[g].offset += config_offset();
    }
    (*out)[mode->n_groups] = common_group;
    return KD_OK;
}

static bool known_elsewhere(const char *name)
{
    for (int i = 0; kd_modes[i]; i++) {
        if (kd_opts_has(kd_modes[i]->groups, kd_modes[i]->n_groups, name))
            return true;
    }
    return false;
}

/* ---- arguments of the program itself ---- */

/* Whether ARG is `--NAME` or `--NAME=...`; *VALUE is what is behind '=' or NULL. */
static bool is_argument(const char *arg, const char *name, const char **value)
{
    char given[32];
    size_t n = strcspn(arg, "=");

    if (strncmp(arg, "--", 2) != 0 || n < 3 || n - 2 >= sizeof given)
        return false;
    memcpy(given, arg + 2, n - 2);
    given[n - 2] = '\0';
    *value = arg[n] ? arg + n + 1 : NULL;
    return kd_opts_same_name(given, name);
}

/* Take ARGV[*I] (and its value) if it is `--NAME VALUE`; *OUT is the value. */
static int take_valued(int argc, char **argv, int *i, const char *name, bool *taken,
                       const char **out)
{
    const char *value;

    *taken = is_argument(argv[*i], name, &value);
    if (!*taken)
        return KD_OK;
    if (!value && *i + 1 < argc && strncmp(argv[*i + 1], "--", 2) != 0)
        value = argv[++*i];
    if (!value || !*value)
        return KD_FAIL(KD_EUSAGE, "option --%s (command line) needs a value", name);
    *out = value;
    return KD_OK;
}

static bool take_flag(struct command *c, const char *arg)
{
    const char *value = NULL;

    if (!strcmp(arg, "-h") || is_argument(arg, "help", &value))
        c->help = !value;
    else if (is_argument(arg, "version", &value))
        c->version = !value;
    else if (is_argument(arg, "print_config", &value))
        c->print_config = !value;
    else
        return false;
    return !value;
}

static int sort_arguments(struct command *c, int argc, char **argv)
{
    const char *mode = NULL;
    bool taken;

    KD_TRY(kd_calloc(argc, sizeof *c->options, &c->options));
    for (int i = 1; i < argc; i++) {
        if (take_flag(c, argv[i]))
            continue;
        KD_TRY(take_valued(argc, argv, &i, "mode", &taken, &mode));
        if (!taken)
            KD_TRY(take_valued(argc, argv, &i, "config", &taken, &c->deck));
        if (!taken)
            c->options[c->n_options++] = argv[i];
    }
    return mode ? kd_strdup(mode, &c->mode_name) : KD_OK;
}

/* ---- the mode ---- */

static int mode_of_deck(struct command *c)
{
    struct kd_deck deck = {0};
    const struct kd_deck_entry *e;
    int rc = KD_OK;

    KD_GO(kd_deck_read(c->deck, &deck));
    e = kd_deck_find(&deck, "mode");
    if (e && !e->is_list && !e->is_null)
        KD_GO(kd_strdup(e->items[0], &c->mode_name));
out:
    kd_deck_free(&deck);
    return rc;
}

static int unknown_mode(const char *name)
{
    const char *names[32];
    struct kd_str all = {0};
    int n = 0, nearest, rc = KD_OK;

    for (; kd_modes[n] && n < 32; n++) {
        names[n] = kd_modes[n]->name;
        KD_GO(kd_str_printf(&all, "%s%s", n ? ", " : "", names[n]));
    }
    nearest = kd_nearest(name ? name : "", names, n);
    if (!name)
        rc = KD_FAIL(KD_EUSAGE, "option --mode is required; modes are %s", all.data);
    else if (nearest >= 0)
        rc = KD_FAIL(KD_EUSAGE, "--mode %s is unknown; did you mean %s? (modes are %s)",
                     name, names[nearest], all.data);
    else
        rc = KD_FAIL(KD_EUSAGE, "--mode %s is unknown; modes are %s", name, all.data);
out:
    kd_str_free(&all);
    return rc;
}

static int find_mode(struct command *c)
{
    if (!c->mode_name && c->deck)
        KD_TRY(mode_of_deck(c));
    if (!c->mode_name && (c->help || c->version))
        return KD_OK;
    c->mode = c->mode_name ? kd_mode_find(c->mode_name) : NULL;
    return c->mode ? KD_OK : unknown_mode(c->mode_name);
}

/* ---- options ---- */

static int resolve(struct command *c)
{
    struct kd_opt_group *groups = NULL;
    int rc = KD_OK;

    KD_GO(all_groups(c->mode, &groups));
    KD_GO(kd_calloc(1, config_offset() + c->mode->config_bytes, &c->block));
    c->common = c->block;
    c->config = (char *)c->block + config_offset();
    KD_GO(kd_opts_resolve(groups, c->mode->n_groups + 1, c->block, c->mode->name,
                          c->deck, c->n_options, c->options, known_elsewhere,
                          &c->opts));
out:
    free(groups);
    return rc;
}

static int check(struct command *c)
{
    if (c->mode->needs_output_dir && !(c->common->output_dir && *c->common->output_dir))
        return KD_FAIL(KD_EUSAGE, "option --output_dir is required in mode %s: %s",
                       c->mode->name, common_rows[0].help);
    if (c->mode->check)
        KD_TRY(c->mode->check(c->common, c->config));
    /* what a run needs beyond what a deck must have */
    return c->print_config ? KD_OK : kd_device_check(c->common, c->mode);
}

int kd_command_read(struct command *c, int argc, char **argv)
{
    KD_TRY(sort_arguments(c, argc, argv));
    if (c->version)
        return KD_OK;
    KD_TRY(find_mode(c));
    if (c->help)
        return KD_OK;
    KD_TRY(resolve(c));
    return check(c);
}

void kd_command_free(struct command *c)
{
    kd_opts_free(c->opts);
    free(c->block);
    free(c->options);
    free(c->mode_name);
    *c = (struct command){0};
}

/* ---- texts ---- */

bool kd_command_is_text(const struct command *c)
{
    return c->help || c->version || c->print_config;
}

static int overview(struct kd_str *out)
{
    KD_TRY(kd_str_printf(
        out, "kdhpc " KDHPC_VERSION ": knowledge distillation of language models\n\n"
             "  mpirun -np N kdhpc --mode MODE [--config DECK.yaml] [--option value "
             "...]\n"
             "  kdhpc --mode MODE --help           the options of a mode\n"
             "  kdhpc --mode MODE --print-config   the resolved options as a deck\n"
             "  kdhpc --version                    versions of all parts\n\nModes:\n"));
    for (int i = 0; kd_modes[i]; i++)
        KD_TRY(kd_str_printf(out, "  %-16s %s\n", kd_modes[i]->name,
                             kd_modes[i]->summary));
    return KD_OK;
}

static int mode_help(const struct kd_mode *mode, struct kd_str *out)
{
    struct kd_opt_group *groups = NULL;
    int rc = KD_OK;

    KD_GO(kd_str_printf(out,
                        "kdhpc --mode %s: %s\n\n"
                        "  --config DECK.yaml gives options as 'name: value' lines; "
                        "the command line wins.\n"
                        "  --print-config prints the resolved options and stops.\n",
                        mode->name, mode->summary));
    KD_GO(all_groups(mode, &groups));
    KD_GO(kd_opts_help(groups, mode->n_groups + 1, out));
out:
    free(groups);
    return rc;
}

int kd_command_print(const struct command *c)
{
    struct kd_str text = {0};
    int rc = KD_OK;

    if (c->version)
        KD_GO(kd_environment_versions(&text));
    else if (c->help && c->mode)
        KD_GO(mode_help(c->mode, &text));
    else if (c->help)
        KD_GO(overview(&text));
    else
        KD_GO(kd_opts_dump(c->opts, &text));
    if (fputs(text.data, stdout) == EOF || fflush(stdout))
        rc =
            KD_FAIL(KD_EOUTPUT, "cannot write to standard output: %s", strerror(errno));
out:
    kd_str_free(&text);
    return rc;
}
