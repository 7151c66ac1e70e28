/* SPDX-License-Identifier: Apache-2.0 */
/* Names that the writer and the reader of corpora share. */
#ifndef KDHPC_SRC_STORE_CORPUS_IMPL_H
#define KDHPC_SRC_STORE_CORPUS_IMPL_H

#include "kdhpc/store/corpus.h"

#include "h5_impl.h"

enum { KD_CORPUS_VERSION = 1, KD_CORPUS_RAGGED = 4 };
enum { KD_CORPUS_SOURCE, KD_CORPUS_TARGET }; /* of the fields */

/** The ragged pairs of a split, in the order in which they are written. */
struct kd_corpus_field {
    const char *name;
    enum kd_dtype dtype;
};

extern const struct kd_corpus_field kd_corpus_fields[KD_CORPUS_RAGGED];

#endif
