/* SPDX-License-Identifier: Apache-2.0 */
/* The texts that the rows give: help, and the deck of the resolved values.
 *
 * A dumped deck must read back to the same values to the last bit, so numbers take the
 * shortest form that does, and strings are quoted unless they are plainly safe.  Unset
 * options are dumped as null, which reads back as unset. */
#include "opt_impl.h"

#include "kdhpc/base/version.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- pieces ---- */

static const char *article(enum kd_opt_type type)
{
    return type == KD_OPT_INT || type == KD_OPT_INT_LIST ? "an integer" : "a number";
}

static bool has_bounds(const struct kd_opt_row *row)
{
    bool numeric = row->type == KD_OPT_INT || row->type == KD_OPT_FLOAT ||
                   row->type == KD_OPT_INT_LIST;

    return numeric && !(row->min == 0 && row->max == 0) &&
           (isfinite(row->min) || isfinite(row->max));
}

static int append_bounds(const struct kd_opt_row *row, struct kd_str *out)
{
    bool low = isfinite(row->min), high = isfinite(row->max);

    if (!has_bounds(row))
        return KD_OK;
    if (low && high)
        return kd_str_printf(out, " from %g to %g", row->min, row->max);
    return kd_str_printf(out, low ? " >= %g" : " <= %g", low ? row->min : row->max);
}

int kd_opt_allowed(const struct kd_opt_row *row, struct kd_str *out)
{
    switch (row->type) {
    case KD_OPT_BOOL:
        return kd_str_printf(out, "true or false");
    case KD_OPT_INT:
    case KD_OPT_FLOAT:
        KD_TRY(kd_str_printf(out, "%s", article(row->type)));
        return append_bounds(row, out);
    case KD_OPT_STR:
        return kd_str_printf(out, "one text");
    case KD_OPT_CHOICE:
        return kd_str_printf(out, "one of %s", row->choices);
    case KD_OPT_INT_LIST:
        KD_TRY(kd_str_printf(out, "a list such as 0,2,5; each %s", article(row->type)));
        return append_bounds(row, out);
    case KD_OPT_STR_LIST:
        return kd_str_printf(out, "a list such as a,b of non-empty texts");
    }
    return KD_OK;
}

/* ---- help ---- */

enum { HELP_COLUMN = 40 };

static const char *placeholder(const struct kd_opt_row *row)
{
    switch (row->type) {
    case KD_OPT_BOOL:
        return "[true|false]";
    case KD_OPT_INT:
        return "INTEGER";
    case KD_OPT_FLOAT:
        return "NUMBER";
    case KD_OPT_STR:
        return "TEXT";
    case KD_OPT_CHOICE:
        return row->choices;
    case KD_OPT_INT_LIST:
        return "I,J,...";
    case KD_OPT_STR_LIST:
        return "A,B,...";
    }
    return "";
}

/* "(default 5e-5; >= 0)" */
static int help_facts(const struct kd_opt_row *row, struct kd_str *out)
{
    if (row->flags & KD_OPT_REQUIRED)
        KD_TRY(kd_str_printf(out, " (required"));
    else if (row->def)
        KD_TRY(kd_str_printf(out, " (default %s", *row->def ? row->def : "empty"));
    else
        KD_TRY(kd_str_printf(out, " (unset"));
    if (has_bounds(row))
        KD_TRY(kd_str_printf(out, ";"));
    KD_TRY(append_bounds(row, out));
    return kd_str_printf(out, ")\n");
}

static int help_row(const struct kd_opt_row *row, struct kd_str *out)
{
    int64_t start = out->len;

    KD_TRY(kd_str_printf(out, "  --%s %s", row->name, placeholder(row)));
    if (out->len - start > HELP_COLUMN - 2)
        KD_TRY(kd_str_printf(out, "\n%*s", HELP_COLUMN, ""));
    else
        KD_TRY(kd_str_printf(out, "%*s", HELP_COLUMN - (int)(out->len - start), ""));
    KD_TRY(kd_str_printf(out, "%s", row->help ? row->help : ""));
    return help_facts(row, out);
}

int kd_opts_help(const struct kd_opt_group *groups, int n_groups, struct kd_str *out)
{
    for (int g = 0; g < n_groups; g++) {
        int n_rows = kd_opt_group_rows(&groups[g]);

        KD_TRY(kd_str_printf(out, "\n%s:\n", groups[g].title));
        for (int i = 0; i < n_rows; i++)
            KD_TRY(help_row(&groups[g].rows[i], out));
    }
    return KD_OK;
}

/* ---- dump ---- */

static bool plain_is_safe(const char *text)
{
    if (!isalnum((unsigned char)*text) && *text != '/')
        return false;
    for (const char *at = text; *at; at++) {
        if (!isalnum((unsigned char)*at) && !strchr("_./+-", *at))
            return false;
    }
    return strcmp(text, "null") != 0;
}

static int dump_text(const char *text, struct kd_str *out)
{
    if (plain_is_safe(text))
        return kd_str_printf(out, "%s", text);
    KD_TRY(kd_str_append(out, "\"", 1));
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            KD_TRY(kd_str_printf(out, "\\%c", *text));
        else if (iscntrl((unsigned char)*text))
            KD_TRY(kd_str_printf(out, "\\x%02x", (unsigned)*text));
        else
            KD_TRY(kd_str_append(out, text, 1));
    }
    return kd_str_append(out, "\"", 1);
}

static int dump_double(double v, struct kd_str *out)
{
    char text[40];

    for (int digits = 6; digits <= 17; digits++) {
        KD_TRY(kd_format(text, sizeof text, "%.*g", digits, v));
        if (strtod(text, NULL) == v)
            break;
    }
    return kd_str_printf(out, "%s", text);
}

static int dump_choice(const char *choices, int index, struct kd_str *out)
{
    for (; index > 0; index--)
        choices += strcspn(choices, "|") + 1;
    return kd_str_append(out, choices, (int64_t)strcspn(choices, "|"));
}

static int dump_list(const struct opt_value *v, struct kd_str *out)
{
    const struct kd_int_list *ints = v->field;
    const struct kd_str_list *texts = v->field;
    bool is_int = v->row->type == KD_OPT_INT_LIST;
    int64_t n = is_int ? ints->n : texts->n;

    KD_TRY(kd_str_append(out, "[", 1));
    for (int64_t i = 0; i < n; i++) {
        if (i)
            KD_TRY(kd_str_append(out, ", ", 2));
        if (is_int)
            KD_TRY(kd_str_printf(out, "%lld", (long long)ints->v[i]));
        else
            KD_TRY(dump_text(texts->v[i], out));
    }
    return kd_str_append(out, "]", 1);
}

static int dump_value(const struct opt_value *v, struct kd_str *out)
{
    if (kd_opt_is_unset(v))
        return kd_str_printf(out, "null");
    switch (v->row->type) {
    case KD_OPT_BOOL:
        return kd_str_printf(out, *(bool *)v->field ? "true" : "false");
    case KD_OPT_INT:
        return kd_str_printf(out, "%lld", (long long)*(int64_t *)v->field);
    case KD_OPT_FLOAT:
        return dump_double(*(double *)v->field, out);
    case KD_OPT_STR:
        return dump_text(*(const char **)v->field, out);
    case KD_OPT_CHOICE:
        return dump_choice(v->row->choices, *(int *)v->field, out);
    case KD_OPT_INT_LIST:
    case KD_OPT_STR_LIST:
        return dump_list(v, out);
    }
    return KD_OK;
}

int kd_opts_dump(const struct kd_opts *o, struct kd_str *out)
{
    const char *title = NULL;

    KD_TRY(kd_str_printf(out, "# kdhpc %s\nmode: %s\n", KDHPC_VERSION, o->mode));
    for (int i = 0; i < o->n_values; i++) {
        const struct opt_value *v = &o->values[i];

        if (v->title != title)
            KD_TRY(kd_str_printf(out, "\n# %s\n", v->title));
        title = v->title;
        KD_TRY(kd_str_printf(out, "%s: ", v->row->name));
        KD_TRY(dump_value(v, out));
        KD_TRY(kd_str_append(out, "\n", 1));
    }
    return KD_OK;
}
