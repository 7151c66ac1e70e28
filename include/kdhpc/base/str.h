/* SPDX-License-Identifier: Apache-2.0 */
/* Bounded strings, growing strings, UTF-8, small files, and the nearest name. */
#ifndef KDHPC_BASE_STR_H
#define KDHPC_BASE_STR_H

#include "kdhpc/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/** A growing byte string; zero-initialise, free with kd_str_free.  DATA is
 * NUL-terminated whenever it is not NULL; LEN excludes the NUL. */
struct kd_str {
    char *data;
    int64_t len, cap;
};

int kd_str_append(struct kd_str *s, const char *bytes, int64_t len) KD_MUST_CHECK;
int kd_str_printf(struct kd_str *s, const char *fmt, ...) KD_PRINTF(2, 3) KD_MUST_CHECK;
void kd_str_clear(struct kd_str *s); /* keeps the memory */
void kd_str_free(struct kd_str *s);

/** Copy of a C string, or of LEN bytes with a NUL added; caller frees.  Local.
 * KD_ENOMEM. */
int kd_strdup(const char *text, char **out) KD_MUST_CHECK;
int kd_strndup(const char *text, int64_t len, char **out) KD_MUST_CHECK;

/** snprintf that fails (KD_EINTERNAL) instead of truncating.  Local. */
int kd_format(char *out, size_t cap, const char *fmt, ...)
    KD_PRINTF(3, 4) KD_MUST_CHECK;

/** Path DIR/NAME in a malloc'ed string.  Local.  KD_ENOMEM. */
int kd_path_join(const char *dir, const char *name, char **out) KD_MUST_CHECK;
bool kd_path_exists(const char *path);
bool kd_path_is_dir(const char *path);

/** Create DIR and its parents.  Local (root-only work).  KD_EOUTPUT. */
int kd_make_dirs(const char *dir) KD_MUST_CHECK;

/** Read a whole file into OUT (cleared first).  Local.  KD_EINPUT names the path. */
int kd_read_file(const char *path, struct kd_str *out) KD_MUST_CHECK;

/** Write PATH.part, flush, fsync, rename to PATH.  Local.  KD_EOUTPUT names the path.
 */
int kd_write_file(const char *path, const char *bytes, int64_t len) KD_MUST_CHECK;

/** Copy a file, through PATH.part.  Local. */
int kd_copy_file(const char *from, const char *to) KD_MUST_CHECK;

/** Offset of the first byte that is not valid UTF-8 (shortest form, no surrogates), or
 * -1.  Local. */
int64_t kd_utf8_invalid_at(const char *bytes, int64_t len);

/** Decode the code point at BYTES (valid UTF-8, LEN > 0) and its length in bytes.
 * Local. */
uint32_t kd_utf8_next(const char *bytes, int64_t len, int *n_bytes);

/** Write CP as UTF-8 into OUT[4]; returns the number of bytes.  Local. */
int kd_utf8_put(uint32_t cp, char *out);

/** Index of the name nearest to WORD (edit distance, at most a third of its length +
 * 1), or -1.  Local. */
int kd_nearest(const char *word, const char *const *names, int n);

#endif
