/* SPDX-License-Identifier: Apache-2.0 */
/* Resolving options: defaults, then the deck, then the command line.
 *
 * The order of precedence is the order of application; nothing is remembered but
 * whether the user gave an option.  An option that only other modes have may stand in a
 * deck, which then serves a chain of modes, but not on a command line, where it is a
 * mistake. */
#include "opt_impl.h"

#include "kdhpc/base/deck.h"
#include "kdhpc/base/mem.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static const char command_line[] = "command line";

/* What all steps of one resolution need. */
struct resolution {
    struct kd_opts *o;
    bool (*known_elsewhere)(const char *name);
};

/* ---- the set ---- */

int kd_opt_group_rows(const struct kd_opt_group *g)
{
    int n = g->n_rows;

    if (!n && g->rows) {
        while (g->rows[n].name)
            n++;
    }
    return n;
}

static int add_group(struct kd_opts *o, const struct kd_opt_group *g, char *config)
{
    int n_rows = kd_opt_group_rows(g);

    for (int i = 0; i < n_rows; i++) {
        char *def = (char *)g->rows[i].def; /* read only: parsing copies */
        struct opt_input input = {.items = &def, .n = 1, .origin = "default"};
        struct opt_value *v = &o->values[o->n_values++];

        v->row = &g->rows[i];
        v->title = g->title;
        v->field = config + g->offset + v->row->offset;
        kd_opt_unset(v);
        if (def)
            KD_TRY(kd_opt_parse(o, v, &input));
    }
    return KD_OK;
}

static int add_groups(struct kd_opts *o, const struct kd_opt_group *groups,
                      int n_groups, void *config)
{
    int64_t n = 0;

    for (int g = 0; g < n_groups; g++)
        n += kd_opt_group_rows(&groups[g]);
    KD_TRY(kd_calloc(n, sizeof *o->values, &o->values));
    for (int g = 0; g < n_groups; g++)
        KD_TRY(add_group(o, &groups[g], config));
    return KD_OK;
}

static struct opt_value *find(const struct kd_opts *o, const char *name)
{
    for (int i = 0; i < o->n_values; i++) {
        if (!strcmp(o->values[i].row->name, name))
            return &o->values[i];
    }
    return NULL;
}

static int unknown(const struct kd_opts *o, const char *name, const char *origin)
{
    const char **names = NULL;
    int nearest;

    KD_TRY(kd_calloc(o->n_values, sizeof *names, &names));
    for (int i = 0; i < o->n_values; i++)
        names[i] = o->values[i].row->name;
    nearest = kd_nearest(name, names, o->n_values);
    free(names);
    if (nearest >= 0)
        return KD_FAIL(KD_EUSAGE,
                       "option --%s (%s) is unknown in mode %s; did you mean --%s?",
                       name, origin, o->mode, o->values[nearest].row->name);
    return KD_FAIL(KD_EUSAGE,
                   "option --%s (%s) is unknown in mode %s; 'kdhpc --mode %s --help' "
                   "lists what is allowed",
                   name, origin, o->mode, o->mode);
}

static int assign(struct kd_opts *o, struct opt_value *v, const struct opt_input *input)
{
    KD_TRY(kd_opt_parse(o, v, input));
    v->given = true;
    return KD_OK;
}

/* ---- the deck ---- */

static int apply_entry(const struct resolution *r, const struct kd_deck_entry *e)
{
    struct opt_input input = {e->items, e->n, e->is_list, e->origin};
    struct opt_value *v = find(r->o, e->key);

    if (!strcmp(e->key, "mode"))
        return KD_OK; /* kd_opts_resolve has compared the one that holds */
    if (!v && r->known_elsewhere && r->known_elsewhere(e->key))
        return KD_OK;
    if (!v)
        return unknown(r->o, e->key, e->origin);
    if (!e->is_null)
        return assign(r->o, v, &input);
    kd_opt_unset(v);
    v->given = false;
    return KD_OK;
}

bool kd_opts_same_name(const char *a, const char *b)
{
    while (*a && (*a == *b || (strchr("-_", *a) && *b && strchr("-_", *b)))) {
        a++;
        b++;
    }
    return !*a && !*b;
}

static int check_mode(const struct kd_opts *o, const struct kd_deck *deck)
{
    const struct kd_deck_entry *e = kd_deck_find(deck, "mode");

    if (!e || e->is_null || (!e->is_list && kd_opts_same_name(e->items[0], o->mode)))
        return KD_OK;
    return KD_FAIL(KD_EUSAGE, "option mode (%s): the deck is for mode %s, not for %s",
                   e->origin, e->n ? e->items[0] : "[]", o->mode);
}

static int apply_deck(const struct resolution *r, const char *path)
{
    struct kd_deck deck = {0};
    int rc = KD_OK;

    KD_GO(kd_deck_read(path, &deck));
    KD_GO(check_mode(r->o, &deck));
    for (int64_t i = 0; i < deck.n; i++)
        KD_GO(apply_entry(r, &deck.entries[i]));
out:
    kd_deck_free(&deck);
    return rc;
}

/* ---- the command line ---- */

static bool looks_like_option(const char *arg)
{
    return arg[0] == '-' && arg[1] == '-' && isalpha((unsigned char)arg[2]);
}

/* The value of `--name` whose next argument is NEXT (NULL: none): *USED says whether
 * NEXT is it. */
static int argument_value(const struct opt_value *v, const char *next,
                          const char **value, bool *used)
{
    const struct kd_opt_row *row = v->row;

    *used = next && !looks_like_option(next);
    if (kd_opt_is_flag(row)) {
        const char *allowed = row->type == KD_OPT_BOOL ? "true|false" : row->choices;

        *used = *used && kd_opt_choice(allowed, next, (int64_t)strlen(next)) >= 0;
        *value = *used ? next : "true";
        return KD_OK;
    }
    *value = next;
    if (*used)
        return KD_OK;
    return KD_FAIL(KD_EUSAGE, "option --%s (command line) needs a value%s", row->name,
                   next ? "; one that begins with -- is written --option=value" : "");
}

/* Apply ARG and perhaps NEXT; NAME is ARG's canonical name, VALUE what is behind '='.
 */
static int apply_named(const struct resolution *r, const char *name, const char *value,
                       const char *next, bool *used)
{
    struct opt_value *v = find(r->o, name);
    struct opt_input input = {.n = 1, .origin = command_line};
    char *item;

    *used = false;
    if (!v && r->known_elsewhere && r->known_elsewhere(name))
        return KD_FAIL(KD_EUSAGE,
                       "option --%s (command line) belongs to another mode, not to %s; "
                       "'kdhpc --mode %s --help' lists what is allowed",
                       name, r->o->mode, r->o->mode);
    if (!v)
        return unknown(r->o, name, command_line);
    if (!value)
        KD_TRY(argument_value(v, next, &value, used));
    item = (char *)value; /* read only: parsing copies */
    input.items = &item;
    return assign(r->o, v, &input);
}

static int apply_argument(const struct resolution *r, const char *arg, const char *next,
                          bool *used)
{
    const char *equals = strchr(arg, '=');
    char *name = NULL;
    int rc;

    if (!looks_like_option(arg))
        return KD_FAIL(KD_EUSAGE,
                       "argument '%s' (command line) is not an option; options are "
                       "written --name value",
                       arg);
    KD_TRY(kd_strndup(arg + 2, equals ? equals - arg - 2 : (int64_t)strlen(arg + 2),
                      &name));
    for (char *at = name; *at; at++) {
        if (*at == '-')
            *at = '_';
    }
    rc = apply_named(r, name, equals ? equals + 1 : NULL, next, used);
    free(name);
    return rc;
}

static int apply_arguments(const struct resolution *r, int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        bool used = false;

        KD_TRY(apply_argument(r, argv[i], i + 1 < argc ? argv[i + 1] : NULL, &used));
        i += used;
    }
    return KD_OK;
}

bool kd_opts_has(const struct kd_opt_group *groups, int n_groups, const char *name)
{
    for (int g = 0; g < n_groups; g++) {
        int n_rows = kd_opt_group_rows(&groups[g]);

        for (int i = 0; i < n_rows; i++) {
            if (!strcmp(groups[g].rows[i].name, name))
                return true;
        }
    }
    return false;
}

/* ---- whole ---- */

static int check_required(const struct kd_opts *o)
{
    for (int i = 0; i < o->n_values; i++) {
        const struct opt_value *v = &o->values[i];

        if ((v->row->flags & KD_OPT_REQUIRED) && kd_opt_is_unset(v))
            return KD_FAIL(KD_EUSAGE, "option --%s is required in mode %s: %s",
                           v->row->name, o->mode, v->row->help ? v->row->help : "");
    }
    return KD_OK;
}

int kd_opts_resolve(const struct kd_opt_group *groups, int n_groups, void *config,
                    const char *mode, const char *deck, int argc, char **argv,
                    bool (*known_elsewhere)(const char *name), struct kd_opts **out)
{
    struct resolution r = {.known_elsewhere = known_elsewhere};
    int rc = KD_OK;

    *out = NULL;
    KD_GO(kd_calloc(1, sizeof *r.o, &r.o));
    KD_GO(kd_strdup(mode, &r.o->mode));
    KD_GO(add_groups(r.o, groups, n_groups, config));
    if (deck)
        KD_GO(apply_deck(&r, deck));
    KD_GO(apply_arguments(&r, argc, argv));
    KD_GO(check_required(r.o));
    *out = r.o;
    return KD_OK;
out:
    kd_opts_free(r.o);
    return rc;
}

bool kd_opts_given(const struct kd_opts *o, const char *name)
{
    const struct opt_value *v = find(o, name);

    return v && v->given;
}

void kd_opts_free(struct kd_opts *o)
{
    if (!o)
        return;
    for (int64_t i = 0; i < o->n_owned; i++)
        free(o->owned[i]);
    free(o->owned);
    free(o->values);
    free(o->mode);
    free(o);
}
