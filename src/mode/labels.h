/* SPDX-License-Identifier: Apache-2.0 */
/* Label examples on their way to a corpus file or to text files. */
#ifndef KDHPC_MODE_LABELS_H
#define KDHPC_MODE_LABELS_H

#include "kdhpc/store/corpus.h"

enum {
    KD_LABEL_SOURCE,
    KD_LABEL_TARGET,
    KD_LABEL_SOURCE_TEXT,
    KD_LABEL_TARGET_TEXT,
    KD_N_LABEL_FIELDS
};

/** Local examples, growing.  Zero-initialise. */
struct kd_label_rows {
    int64_t n, cap[KD_N_LABEL_FIELDS + 1]; /* cap: of each offsets array, and of id */
    int64_t *id, *offsets[KD_N_LABEL_FIELDS];
    char *bytes[KD_N_LABEL_FIELDS]; /* int32 ids, or UTF-8 */
    int64_t used[KD_N_LABEL_FIELDS], cap_bytes[KD_N_LABEL_FIELDS];
};

/** Set FIELD of the row that kd_label_rows_end will close: N values of SIZE bytes,
 * copied.  Local.  KD_ENOMEM. */
int kd_label_rows_put(struct kd_label_rows *r, int field, const void *values, int64_t n,
                      size_t size) KD_MUST_CHECK;

/** Close a row, all of whose fields are set.  Local. */
int kd_label_rows_end(struct kd_label_rows *r, int64_t id) KD_MUST_CHECK;

/** The rows for writing; borrowed, valid until the next change.  Local. */
struct kd_corpus_rows kd_label_rows_view(const struct kd_label_rows *r);
void kd_label_rows_free(struct kd_label_rows *r);

/** One text of every example of LABELS. */
struct kd_label_text {
    const struct kd_corpus *labels;
    char *path;
    const char *(*get)(const struct kd_corpus *c, int64_t i, int64_t *len);
};

/** Write the texts of a struct kd_label_text, one a line, newlines as spaces, through
 * PATH.part.  Local (root-only work).  KD_EOUTPUT. */
int kd_label_text_write(void *text) KD_MUST_CHECK;

#endif
