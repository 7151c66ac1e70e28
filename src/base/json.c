/* SPDX-License-Identifier: Apache-2.0 */
/* JSON over jansson.
 *
 * A struct kd_json is a json_t under another name, so that only this file knows the
 * library.  Two gaps of jansson matter for the files of the field and are closed here:
 * integers beyond 64 bits (tokenizer_config.json says model_max_length 1e30, written
 * out) are read as reals, and non-finite numbers, which JSON does not have, are written
 * as null. */
#include "kdhpc/base/json.h"

#include "kdhpc/base/str.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static json_t *in(const struct kd_json *j)
{
    return (json_t *)j;
}

static struct kd_json *wrap(json_t *j)
{
    return (struct kd_json *)j;
}

/* ---- text in and out ---- */

enum { PARSE_FLAGS = JSON_DECODE_ANY | JSON_ALLOW_NUL };

/* Skip a string that begins at TEXT[AT] (a quote); returns the offset behind it. */
static int64_t skip_string(const char *text, int64_t len, int64_t at)
{
    for (at++; at < len && text[at] != '"'; at++) {
        if (text[at] == '\\')
            at++;
    }
    return at < len ? at + 1 : len;
}

/* Copy TEXT with ".0" behind integers of more than 18 digits. */
static int widen_integers(const char *text, int64_t len, struct kd_str *out)
{
    int64_t at = 0;

    while (at < len) {
        int64_t from = at;

        if (text[at] == '"') {
            at = skip_string(text, len, at);
            KD_TRY(kd_str_append(out, text + from, at - from));
            continue;
        }
        while (at < len && isdigit((unsigned char)text[at]))
            at++;
        if (at == from) {
            KD_TRY(kd_str_append(out, text + at++, 1));
            continue;
        }
        KD_TRY(kd_str_append(out, text + from, at - from));
        if (at - from > 18 && (at == len || !strchr(".eE", text[at])) &&
            (from == 0 || !strchr(".+", text[from - 1])))
            KD_TRY(kd_str_append(out, ".0", 2));
    }
    return KD_OK;
}

static int parse_widened(const char *text, int64_t len, json_error_t *error,
                         json_t **out)
{
    struct kd_str wide = {0};
    int rc = widen_integers(text, len, &wide);

    if (!rc)
        *out = json_loadb(wide.data, (size_t)wide.len, PARSE_FLAGS, error);
    kd_str_free(&wide);
    return rc;
}

int kd_json_parse(const char *text, int64_t len, const char *what, struct kd_json **out)
{
    json_error_t error;
    json_t *j = json_loadb(text, (size_t)len, PARSE_FLAGS, &error);

    *out = NULL;
    if (!j && json_error_code(&error) == json_error_numeric_overflow)
        KD_TRY(parse_widened(text, len, &error, &j));
    if (!j)
        return KD_FAIL(KD_EINPUT, "%s: not valid JSON at line %d, column %d: %s", what,
                       error.line, error.column, error.text);
    *out = wrap(j);
    return KD_OK;
}

int kd_json_parse_file(const char *path, struct kd_json **out)
{
    struct kd_str text = {0};
    int rc;

    *out = NULL;
    rc = kd_read_file(path, &text);
    if (!rc)
        rc = kd_json_parse(text.data, text.len, path, out);
    kd_str_free(&text);
    return rc;
}

static int dump(const struct kd_json *j, size_t layout, char **out)
{
    *out = json_dumps(in(j), layout | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    return *out ? KD_OK : KD_FAIL(KD_ENOMEM, "cannot write JSON as text");
}

int kd_json_dump(const struct kd_json *j, char **out)
{
    return dump(j, JSON_COMPACT, out);
}

int kd_json_write_file(const struct kd_json *j, const char *path)
{
    struct kd_str text = {0};
    char *body = NULL;
    int rc = KD_OK;

    KD_GO(dump(j, JSON_INDENT(2), &body));
    KD_GO(kd_str_printf(&text, "%s\n", body));
    KD_GO(kd_write_file(path, text.data, text.len));
out:
    free(body);
    kd_str_free(&text);
    return rc;
}

struct kd_json *kd_json_copy(const struct kd_json *j)
{
    return wrap(json_deep_copy(in(j)));
}

void kd_json_free(struct kd_json *j)
{
    json_decref(in(j));
}

/* ---- reading ---- */

struct kd_json *kd_json_get(const struct kd_json *j, const char *key)
{
    return wrap(json_object_get(in(j), key));
}

bool kd_json_has(const struct kd_json *j, const char *key)
{
    const json_t *v = json_object_get(in(j), key);

    return v && !json_is_null(v);
}

const char *kd_json_str(const struct kd_json *j, const char *key, const char *def)
{
    return kd_json_as_str(kd_json_get(j, key), def);
}

int64_t kd_json_int(const struct kd_json *j, const char *key, int64_t def)
{
    return kd_json_as_int(kd_json_get(j, key), def);
}

double kd_json_num(const struct kd_json *j, const char *key, double def)
{
    return kd_json_as_num(kd_json_get(j, key), def);
}

bool kd_json_bool(const struct kd_json *j, const char *key, bool def)
{
    const json_t *v = json_object_get(in(j), key);

    return json_is_boolean(v) ? json_is_true(v) : def;
}

bool kd_json_is_object(const struct kd_json *j)
{
    return json_is_object(in(j));
}

bool kd_json_is_array(const struct kd_json *j)
{
    return json_is_array(in(j));
}

bool kd_json_is_string(const struct kd_json *j)
{
    return json_is_string(in(j));
}

bool kd_json_is_number(const struct kd_json *j)
{
    return json_is_number(in(j));
}

int64_t kd_json_len(const struct kd_json *j)
{
    if (json_is_array(in(j)))
        return (int64_t)json_array_size(in(j));
    return (int64_t)json_object_size(in(j));
}

struct kd_json *kd_json_at(const struct kd_json *array, int64_t i)
{
    return i < 0 ? NULL : wrap(json_array_get(in(array), (size_t)i));
}

const char *kd_json_as_str(const struct kd_json *j, const char *def)
{
    const char *s = json_string_value(in(j));

    return s ? s : def;
}

const char *kd_json_as_text(const struct kd_json *j, int64_t *len)
{
    *len = (int64_t)json_string_length(in(j));
    return json_string_value(in(j));
}

int64_t kd_json_as_int(const struct kd_json *j, int64_t def)
{
    if (json_is_integer(in(j)))
        return (int64_t)json_integer_value(in(j));
    if (json_is_real(in(j))) {
        double v = json_real_value(in(j));

        if (v == floor(v) && fabs(v) < 0x1p63)
            return (int64_t)v;
    }
    return def;
}

double kd_json_as_num(const struct kd_json *j, double def)
{
    return json_is_number(in(j)) ? json_number_value(in(j)) : def;
}

void *kd_json_first(const struct kd_json *object)
{
    return json_object_iter(in(object));
}

void *kd_json_next(const struct kd_json *object, void *it)
{
    return json_object_iter_next(in(object), it);
}

const char *kd_json_key(void *it)
{
    return json_object_iter_key(it);
}

struct kd_json *kd_json_value(void *it)
{
    return wrap(json_object_iter_value(it));
}

/* ---- building ---- */

struct kd_json *kd_json_object(void)
{
    return wrap(json_object());
}

struct kd_json *kd_json_array(void)
{
    return wrap(json_array());
}

/* The _new functions of jansson take the reference to VALUE even when they fail. */
static int set(struct kd_json *object, const char *key, json_t *value)
{
    if (json_object_set_new(in(object), key, value))
        return KD_FAIL(KD_ENOMEM,
                       "cannot set JSON key '%s': no memory, or a text that "
                       "is not UTF-8",
                       key);
    return KD_OK;
}

static int append(struct kd_json *array, json_t *value)
{
    if (json_array_append_new(in(array), value))
        return KD_FAIL(KD_ENOMEM, "cannot append to a JSON array: no memory, or a text "
                                  "that is not UTF-8");
    return KD_OK;
}

int kd_json_set_str(struct kd_json *object, const char *key, const char *value)
{
    return set(object, key, json_string(value));
}

int kd_json_set_int(struct kd_json *object, const char *key, int64_t value)
{
    return set(object, key, json_integer(value));
}

int kd_json_set_num(struct kd_json *object, const char *key, double value)
{
    return set(object, key, isfinite(value) ? json_real(value) : json_null());
}

int kd_json_set_bool(struct kd_json *object, const char *key, bool value)
{
    return set(object, key, json_boolean(value));
}

int kd_json_set_json(struct kd_json *object, const char *key, struct kd_json *value)
{
    return set(object, key, in(value));
}

int kd_json_append_int(struct kd_json *array, int64_t value)
{
    return append(array, json_integer(value));
}

int kd_json_append_num(struct kd_json *array, double value)
{
    return append(array, json_real(value));
}

int kd_json_append_str(struct kd_json *array, const char *value)
{
    return append(array, json_string(value));
}

int kd_json_append(struct kd_json *array, struct kd_json *value)
{
    return append(array, in(value));
}

void kd_json_del(struct kd_json *object, const char *key)
{
    json_object_del(in(object), key);
}
