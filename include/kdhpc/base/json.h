/* SPDX-License-Identifier: Apache-2.0 */
/* A small face over jansson: the few calls this program needs, with errors that name
 * the file and the key.  A struct kd_json * is owned by its root; borrowed children
 * live as long as it.  All Local. */
#ifndef KDHPC_BASE_JSON_H
#define KDHPC_BASE_JSON_H

#include "kdhpc/base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct kd_json; /* any JSON value */

int kd_json_parse_file(const char *path, struct kd_json **out) KD_MUST_CHECK;
int kd_json_parse(const char *text, int64_t len, const char *what,
                  struct kd_json **out) KD_MUST_CHECK;
int kd_json_write_file(const struct kd_json *j,
                       const char *path) KD_MUST_CHECK; /* indent 2, atomic */
int kd_json_dump(const struct kd_json *j,
                 char **out) KD_MUST_CHECK; /* compact, 17 digits; caller frees */
struct kd_json *kd_json_copy(const struct kd_json *j); /* deep; NULL: no memory */
void kd_json_free(struct kd_json *j);

/* Reading: a missing key, or JSON null, gives the default.  has: present and not null.
 */
bool kd_json_has(const struct kd_json *j, const char *key);
struct kd_json *kd_json_get(const struct kd_json *j,
                            const char *key); /* borrowed, NULL if absent */
const char *kd_json_str(const struct kd_json *j, const char *key, const char *def);
int64_t kd_json_int(const struct kd_json *j, const char *key, int64_t def);
double kd_json_num(const struct kd_json *j, const char *key, double def);
bool kd_json_bool(const struct kd_json *j, const char *key, bool def);

bool kd_json_is_object(const struct kd_json *j);
bool kd_json_is_array(const struct kd_json *j);
bool kd_json_is_string(const struct kd_json *j);
bool kd_json_is_number(const struct kd_json *j);
int64_t kd_json_len(const struct kd_json *j); /* array length or number of keys */
struct kd_json *kd_json_at(const struct kd_json *array, int64_t i);
const char *kd_json_as_str(const struct kd_json *j, const char *def);
/** As kd_json_as_str, for texts, which may hold NUL: with the number of bytes. */
const char *kd_json_as_text(const struct kd_json *j, int64_t *len);
int64_t kd_json_as_int(const struct kd_json *j, int64_t def);
double kd_json_as_num(const struct kd_json *j, double def);

/* Walking an object: for (it = first; it; it = next) */
void *kd_json_first(const struct kd_json *object);
void *kd_json_next(const struct kd_json *object, void *it);
const char *kd_json_key(void *it);
struct kd_json *kd_json_value(void *it);

/* Building.  set_json and append take ownership of VALUE. */
struct kd_json *kd_json_object(void);
struct kd_json *kd_json_array(void);
int kd_json_set_str(struct kd_json *object, const char *key,
                    const char *value) KD_MUST_CHECK;
int kd_json_set_int(struct kd_json *object, const char *key,
                    int64_t value) KD_MUST_CHECK;
int kd_json_set_num(struct kd_json *object, const char *key,
                    double value) KD_MUST_CHECK;
int kd_json_set_bool(struct kd_json *object, const char *key, bool value) KD_MUST_CHECK;
int kd_json_set_json(struct kd_json *object, const char *key,
                     struct kd_json *value) KD_MUST_CHECK;
int kd_json_append_int(struct kd_json *array, int64_t value) KD_MUST_CHECK;
int kd_json_append_num(struct kd_json *array, double value) KD_MUST_CHECK;
int kd_json_append_str(struct kd_json *array, const char *value) KD_MUST_CHECK;
int kd_json_append(struct kd_json *array, struct kd_json *value) KD_MUST_CHECK;
void kd_json_del(struct kd_json *object, const char *key);

#endif
