/* SPDX-License-Identifier: Apache-2.0 */
/* One option's value: from text to the typed field.
 *
 * Every refusal is one line with the option, where the value came from, the value, and
 * what would be allowed, so that the fix needs no look at the manual.  Numbers are
 * parsed whole or not at all; a value may not be infinite or NaN. */
#include "opt_impl.h"

#include "kdhpc/base/mem.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static int refuse(const struct kd_opt_row *row, const struct opt_input *in,
                  const char *text)
{
    struct kd_str allowed = {0};
    int rc = kd_opt_allowed(row, &allowed);

    if (!rc)
        rc = KD_FAIL(KD_EUSAGE, "option --%s (%s): '%s' is not allowed; it takes %s",
                     row->name, in->origin, text, allowed.data);
    kd_str_free(&allowed);
    return rc;
}

static bool in_bounds(const struct kd_opt_row *row, double v)
{
    if (row->min == 0 && row->max == 0) /* a row that sets no bounds */
        return true;
    return v >= row->min && v <= row->max;
}

static bool to_int(const char *text, int64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoll(text, &end, 10);
    return *text && !*end && !errno && !isspace((unsigned char)*text);
}

static bool to_float(const char *text, double *out)
{
    char *end;

    *out = strtod(text, &end);
    return *text && !*end && isfinite(*out) && !isspace((unsigned char)*text);
}

static bool to_bool(const char *text, bool *out)
{
    *out = !strcasecmp(text, "true");
    return *out || !strcasecmp(text, "false");
}

int kd_opt_choice(const char *choices, const char *text, int64_t len)
{
    for (int index = 0;; index++) {
        int64_t n = (int64_t)strcspn(choices, "|");

        if (n == len && !strncasecmp(choices, text, (size_t)n))
            return index;
        if (!choices[n])
            return -1;
        choices += n + 1;
    }
}

bool kd_opt_is_flag(const struct kd_opt_row *row)
{
    return row->type == KD_OPT_BOOL ||
           (row->type == KD_OPT_CHOICE && kd_opt_choice(row->choices, "true", 4) >= 0);
}

/* ---- ownership ---- */

static int own(struct kd_opts *o, void *p)
{
    int rc = kd_grow(&o->owned, &o->cap_owned, o->n_owned + 1, sizeof *o->owned);

    if (rc)
        free(p);
    else
        o->owned[o->n_owned++] = p;
    return rc;
}

static int own_text(struct kd_opts *o, const char *text, int64_t len, char **out)
{
    KD_TRY(kd_strndup(text, len, out));
    return own(o, *out);
}

static int own_array(struct kd_opts *o, int64_t n, size_t size, void *out)
{
    void *p;

    KD_TRY(kd_calloc(n, size, &p));
    memcpy(out, &p, sizeof p);
    return own(o, p);
}

/* ---- scalars ---- */

static int parse_str(struct kd_opts *o, struct opt_value *v, const struct opt_input *in)
{
    const char *text = in->items[0];
    char *copy;

    if (kd_utf8_invalid_at(text, (int64_t)strlen(text)) >= 0)
        return KD_FAIL(KD_EUSAGE, "option --%s (%s): the text is not valid UTF-8",
                       v->row->name, in->origin);
    KD_TRY(own_text(o, text, (int64_t)strlen(text), &copy));
    *(const char **)v->field = copy;
    return KD_OK;
}

static int parse_scalar(struct kd_opts *o, struct opt_value *v,
                        const struct opt_input *in)
{
    const struct kd_opt_row *row = v->row;
    const char *text = in->items[0];
    bool ok = false;

    switch (row->type) {
    case KD_OPT_BOOL:
        ok = to_bool(text, v->field);
        break;
    case KD_OPT_INT:
        ok = to_int(text, v->field) && in_bounds(row, (double)*(int64_t *)v->field);
        break;
    case KD_OPT_FLOAT:
        ok = to_float(text, v->field) && in_bounds(row, *(double *)v->field);
        break;
    case KD_OPT_CHOICE:
        *(int *)v->field = kd_opt_choice(row->choices, text, (int64_t)strlen(text));
        ok = *(int *)v->field >= 0;
        break;
    case KD_OPT_STR:
        return parse_str(o, v, in);
    case KD_OPT_INT_LIST:
    case KD_OPT_STR_LIST:
        break; /* never here: kd_opt_parse sends lists elsewhere */
    }
    return ok ? KD_OK : refuse(row, in, text);
}

/* ---- lists ---- */

static int64_t count_parts(const char *text)
{
    int64_t n = 1;

    if (!text[strspn(text, " \t")])
        return 0;
    for (; *text; text++)
        n += *text == ',';
    return n;
}

/* Split "a, b" or "[a, b]" at commas into owned parts without surrounding blanks. */
static int split(struct kd_opts *o, const char *text, struct kd_str_list *out)
{
    size_t len = strlen(text);
    char *copy;

    if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
        text++;
        len -= 2;
    }
    KD_TRY(own_text(o, text, (int64_t)len, &copy));
    out->n = count_parts(copy);
    KD_TRY(own_array(o, out->n, sizeof *out->v, &out->v));
    for (int64_t i = 0; i < out->n; i++) {
        char *end;

        len = strcspn(copy, ",");
        out->v[i] = copy + strspn(copy, " \t");
        end = copy + len;
        copy = end + 1;
        while (end > out->v[i] && isblank((unsigned char)end[-1]))
            end--;
        *end = '\0';
    }
    return KD_OK;
}

static int copy_items(struct kd_opts *o, const struct opt_input *in,
                      struct kd_str_list *out)
{
    out->n = in->n;
    KD_TRY(own_array(o, in->n, sizeof *out->v, &out->v));
    for (int64_t i = 0; i < in->n; i++)
        KD_TRY(own_text(o, in->items[i], (int64_t)strlen(in->items[i]), &out->v[i]));
    return KD_OK;
}

static int parse_list(struct kd_opts *o, struct opt_value *v,
                      const struct opt_input *in)
{
    struct kd_str_list parts;
    struct kd_int_list ints;

    KD_TRY(in->is_list ? copy_items(o, in, &parts) : split(o, in->items[0], &parts));
    for (int64_t i = 0; i < parts.n; i++) {
        if (!*parts.v[i] ||
            kd_utf8_invalid_at(parts.v[i], (int64_t)strlen(parts.v[i])) >= 0)
            return refuse(v->row, in, parts.v[i]);
    }
    if (v->row->type == KD_OPT_STR_LIST) {
        *(struct kd_str_list *)v->field = parts;
        return KD_OK;
    }
    ints.n = parts.n;
    KD_TRY(own_array(o, ints.n, sizeof *ints.v, &ints.v));
    for (int64_t i = 0; i < ints.n; i++) {
        if (!to_int(parts.v[i], &ints.v[i]) || !in_bounds(v->row, (double)ints.v[i]))
            return refuse(v->row, in, parts.v[i]);
    }
    *(struct kd_int_list *)v->field = ints;
    return KD_OK;
}

int kd_opt_parse(struct kd_opts *o, struct opt_value *v, const struct opt_input *in)
{
    if (v->row->type == KD_OPT_INT_LIST || v->row->type == KD_OPT_STR_LIST)
        return parse_list(o, v, in);
    if (in->is_list)
        return refuse(v->row, in, "a list");
    return parse_scalar(o, v, in);
}

/* ---- unset ---- */

void kd_opt_unset(struct opt_value *v)
{
    switch (v->row->type) {
    case KD_OPT_BOOL:
        *(bool *)v->field = false;
        break;
    case KD_OPT_INT:
        *(int64_t *)v->field = KD_UNSET_INT;
        break;
    case KD_OPT_FLOAT:
        *(double *)v->field = NAN;
        break;
    case KD_OPT_STR:
        *(const char **)v->field = NULL;
        break;
    case KD_OPT_CHOICE:
        *(int *)v->field = -1;
        break;
    case KD_OPT_INT_LIST:
        *(struct kd_int_list *)v->field = (struct kd_int_list){.n = -1};
        break;
    case KD_OPT_STR_LIST:
        *(struct kd_str_list *)v->field = (struct kd_str_list){.n = -1};
        break;
    }
}

bool kd_opt_is_unset(const struct opt_value *v)
{
    switch (v->row->type) {
    case KD_OPT_BOOL:
        return false;
    case KD_OPT_INT:
        return *(int64_t *)v->field == KD_UNSET_INT;
    case KD_OPT_FLOAT:
        return isnan(*(double *)v->field);
    case KD_OPT_STR:
        return !*(const char **)v->field;
    case KD_OPT_CHOICE:
        return *(int *)v->field < 0;
    case KD_OPT_INT_LIST:
        return ((struct kd_int_list *)v->field)->n < 0;
    case KD_OPT_STR_LIST:
        return ((struct kd_str_list *)v->field)->n < 0;
    }
    return true;
}
