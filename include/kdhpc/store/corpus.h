/* SPDX-License-Identifier: Apache-2.0 */
/* Corpora and pseudo-labels: examples as ragged ids and ragged text in parallel HDF5.
 *
 * Group /SPLIT holds `id` (int64), and for source, target, source_text, target_text a
 * group with `offsets` (int64, n + 1) and `values` (int32 ids, or uint8 UTF-8).
 * Datasets are contiguous, so readers map the file and share its pages; content does
 * not depend on the number of writers. */
#ifndef KDHPC_STORE_CORPUS_H
#define KDHPC_STORE_CORPUS_H

#include "kdhpc/comm/comm.h"
#include "kdhpc/store/h5.h"

/** Rows of int32 or bytes: row i is values[offsets[i] .. offsets[i + 1]). */
struct kd_ragged {
    int64_t n;
    const int64_t *offsets; /* [n + 1], offsets[0] = 0 */
    const void *values;     /* int32_t or uint8_t */
};

/** Examples of one split held by this rank, for writing. */
struct kd_corpus_rows {
    int64_t n;                                 /* local examples */
    const int64_t *id;                         /* [n] */
    struct kd_ragged source, target;           /* int32 ids */
    struct kd_ragged source_text, target_text; /* uint8 */
};

/** The same where the rows are more than memory holds; ragged by where rows begin and
 * the values. */
struct kd_corpus_stream {
    struct kd_h5_values id; /* int64 */
    struct {
        struct kd_h5_values starts, values; /* int64; int32 or uint8 */
    } source, target, source_text, target_text;
};

struct kd_corpus_writer;

/** What a file says about its making. */
struct kd_store_meta {
    const char *schema;  /* "kdhpc.corpus", "kdhpc.labels", ... */
    const char *options; /* the resolved options (a deck) */
    const char *parents; /* JSON object: name -> digest of the files it was made from */
    const char *tokenizer_digest; /* may be "" */
    int64_t vocab_size;           /* ids are below it; 0 unknown */
};

/** Create PATH.part.  Collective.  KD_EOUTPUT. */
int kd_corpus_create(struct kd_comm *comm, const char *path,
                     const struct kd_store_meta *meta,
                     struct kd_corpus_writer **out) KD_MUST_CHECK;

/** Write SPLIT, rows in rank order.  Collective.  ROWS are borrowed. */
int kd_corpus_write_split(struct kd_corpus_writer *w, const char *split,
                          const struct kd_corpus_rows *rows) KD_MUST_CHECK;

/** Write SPLIT from STREAM, rows in rank order, in bounded memory.  Collective. */
int kd_corpus_write_stream(struct kd_corpus_writer *w, const char *split,
                           const struct kd_corpus_stream *stream) KD_MUST_CHECK;

/** Close, flush, rename to the final name; frees W whatever happens.  Collective.
 * KD_EOUTPUT. */
int kd_corpus_commit(struct kd_corpus_writer *w) KD_MUST_CHECK;
void kd_corpus_abandon(
    struct kd_corpus_writer *w); /* removes PATH.part.  Collective. */

/** One split of one or several files, concatenated in order; read-only, mapped. */
struct kd_corpus;

/** Open SPLIT of PATHS[n].  Collective.  KD_EINPUT: missing, wrong schema, truncated,
 * bad offsets, split absent (lists those present), or tokenizer digests that differ
 * between files. */
int kd_corpus_open(struct kd_comm *comm, char *const *paths, int64_t n_paths,
                   const char *split, struct kd_corpus **out) KD_MUST_CHECK;
void kd_corpus_close(struct kd_corpus *c);

/** Whether every file of PATHS has SPLIT (a file that cannot be read: false).
 * Collective. */
int kd_corpus_has_split(struct kd_comm *comm, char *const *paths, int64_t n_paths,
                        const char *split, bool *out) KD_MUST_CHECK;

int64_t kd_corpus_size(const struct kd_corpus *c);
int64_t kd_corpus_vocab_size(
    const struct kd_corpus *c); /* the largest declared by the files; 0 unknown */
/** Largest ids of sources and of targets, checked at open; -1: no ids.  Local. */
int32_t kd_corpus_max_source(const struct kd_corpus *c);
int32_t kd_corpus_max_target(const struct kd_corpus *c);
const char *kd_corpus_tokenizer_digest(const struct kd_corpus *c);
const char *kd_corpus_digest(const struct kd_corpus *c,
                             int64_t file); /* content digest of file FILE */

/* Row I (0 <= I < size): borrowed views into the map.  Local. */
int64_t kd_corpus_id(const struct kd_corpus *c, int64_t i);
const int32_t *kd_corpus_source(const struct kd_corpus *c, int64_t i, int64_t *n);
const int32_t *kd_corpus_target(const struct kd_corpus *c, int64_t i, int64_t *n);
const char *kd_corpus_source_text(const struct kd_corpus *c, int64_t i, int64_t *len);
const char *kd_corpus_target_text(const struct kd_corpus *c, int64_t i, int64_t *len);

#endif
