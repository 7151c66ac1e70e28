/* SPDX-License-Identifier: Apache-2.0 */
/* A language model that is a table: logits are a hash of (source, prefix, token), exact
 * in float32, the same as in golden/decode/make_cases.py. */
#ifndef KDHPC_TESTS_TABLE_LM_H
#define KDHPC_TESTS_TABLE_LM_H

#include "kdhpc/model/model.h"

struct table_lm {
    struct kd_backend *be;
    int64_t vocab;
    double eos_bias; /* added to token 2 */
    const int64_t *sources;
    uint64_t *hash, *next; /* of each row's prefix */
    float *logits;         /* host */
    void *logits_dev, *ride_dev;
    size_t ride_bytes;
    int64_t n_rows, max_rows, n_calls;
};

int table_lm_new(struct kd_backend *be, const int64_t *sources, int64_t max_rows,
                 int64_t vocab, double eos_bias, struct table_lm **out) KD_MUST_CHECK;
void table_lm_free(struct table_lm *lm);

/** As kd_decoder_step, with the table as ARG. */
int table_lm_step(void *arg, int64_t n_rows, const int32_t *parent,
                  const int32_t *source, const int32_t *tokens, struct kd_ride *ride,
                  struct kd_tensor *logits) KD_MUST_CHECK;

#endif
