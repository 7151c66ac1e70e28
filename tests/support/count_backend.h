/* SPDX-License-Identifier: Apache-2.0 */
/* A backend in front of another that counts what moves between it and the host, and
 * what is recorded and repeated.  All else is the other's, called directly. */
#ifndef KDHPC_TESTS_COUNT_BACKEND_H
#define KDHPC_TESTS_COUNT_BACKEND_H

#include "kdhpc/tensor/backend.h"

struct counts {
    int64_t uploads, downloads, syncs;
    size_t up_bytes, down_bytes;
    int64_t runs, repeated; /* of graph_begin; those that were done by it */
};

/** A counting backend that owns INNER from now on.  Local. */
int count_backend(struct kd_backend *inner, struct kd_backend **out) KD_MUST_CHECK;

/** Counts so far; may be reset. */
struct counts *count_of(struct kd_backend *be);

#endif
