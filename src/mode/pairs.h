/* SPDX-License-Identifier: Apache-2.0 */
/* Pairs of source and target texts from files, in the layouts that tokenize reads. */
#ifndef KDHPC_SRC_MODE_PAIRS_H
#define KDHPC_SRC_MODE_PAIRS_H

#include "kdhpc/base/opt.h"
#include "kdhpc/comm/comm.h"

enum kd_pairs_format { KD_PAIRS_AUTO, KD_PAIRS_FILES, KD_PAIRS_JSONL, KD_PAIRS_TSV };

struct kd_pairs_options {
    const char *data_dir, *source_key, *target_key;
    int data_format; /* enum kd_pairs_format */
    int64_t source_column, target_column;
    bool tsv_header;
};

extern const struct kd_opt_row kd_pairs_rows[];

/** Layout of SPLIT in the data directory; KD_PAIRS_AUTO: the split is not there.
 * Local.  KD_EINPUT: half a pair of files, or two layouts. */
int kd_pairs_find(const struct kd_pairs_options *o, const char *split,
                  enum kd_pairs_format *out) KD_MUST_CHECK;

/** One side of a pair, borrowed until the next pair. */
struct kd_pairs_text {
    const char *data;
    int64_t len;
};

struct kd_pairs;

/** Open SPLIT in layout FORMAT and count its pairs, each rank a share of the bytes.
 * Collective.  KD_EINPUT. */
int kd_pairs_open(struct kd_comm *comm, const struct kd_pairs_options *o,
                  const char *split, enum kd_pairs_format format,
                  struct kd_pairs **out) KD_MUST_CHECK;
void kd_pairs_close(struct kd_pairs *p);

int64_t kd_pairs_count(const struct kd_pairs *p);

/** Make pair FIRST the next one.  Local. */
int kd_pairs_seek(struct kd_pairs *p, int64_t first) KD_MUST_CHECK;

/** The next pair, source first.  Local.  KD_EINPUT names file and line: not UTF-8, an
 * empty text, not the layout. */
int kd_pairs_next(struct kd_pairs *p, struct kd_pairs_text text[2]) KD_MUST_CHECK;

/** Carriage returns stripped off line ends so far; a byte order mark is warned of. */
int64_t kd_pairs_returns(const struct kd_pairs *p);

#endif
