/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of text files: counting them in a byte range, and reading them from any place
 * in bounded memory.
 *
 * A line ends at a newline or at the end of the file; a file that ends with a newline
 * has no further line.  A byte order mark at the start of the file and a carriage
 * return at the end of a line are not part of a line. */
#ifndef KDHPC_TEXT_LINES_H
#define KDHPC_TEXT_LINES_H

#include "kdhpc/base/status.h"

#include <stdbool.h>
#include <stdint.h>

/** Bytes of PATH (none where there is but a byte order mark) and whether its last one
 * is a newline.  Local.  KD_EINPUT. */
int kd_lines_size(const char *path, int64_t *bytes, bool *newline_last) KD_MUST_CHECK;

/** Newlines in bytes [from, to) of PATH.  Local.  KD_EINPUT. */
int kd_lines_count(const char *path, int64_t from, int64_t to,
                   int64_t *newlines) KD_MUST_CHECK;

struct kd_lines;

/** Open PATH at the line after SKIP newlines from byte FROM on.  Local.  KD_EINPUT. */
int kd_lines_open(const char *path, int64_t from, int64_t skip,
                  struct kd_lines **out) KD_MUST_CHECK;

/** The next line, borrowed until the next call; *LINE NULL at the end of the file.
 * Local. KD_EINPUT, KD_ENOMEM. */
int kd_lines_next(struct kd_lines *l, const char **line, int64_t *len) KD_MUST_CHECK;

/** Whether LINE[len], number NUMBER (from 1) of PATH, is UTF-8.  Local.  KD_EINPUT. */
int kd_line_check(const char *path, int64_t number, const char *line,
                  int64_t len) KD_MUST_CHECK;

bool kd_lines_had_bom(const struct kd_lines *l);    /* one was passed over */
int64_t kd_lines_returns(const struct kd_lines *l); /* carriage returns stripped */
void kd_lines_close(struct kd_lines *l);

#endif
