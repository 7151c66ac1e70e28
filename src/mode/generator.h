/* SPDX-License-Identifier: Apache-2.0 */
/* A model directory made ready to generate, as pseudo-label, eval and generate use it.
 */
#ifndef KDHPC_SRC_MODE_GENERATOR_H
#define KDHPC_SRC_MODE_GENERATOR_H

#include "kdhpc/mode/generation_options.h"
#include "memory.h"

/** Zero-initialise; close it also after a failed open. */
struct kd_generator {
    struct kd_model *model;
    struct kd_tokenizer *tokenizer;
    struct kd_generation g;
    struct kd_memory memory;
};

/** Load MODEL_DIR and the tokenizer of TOKENIZER_DIR (NULL: the model's), resolve O,
 * and catch the signals that ask for a stop.  Collective.  KD_EINPUT, KD_EUSAGE. */
int kd_generator_open(struct kd_run *run, const char *model_dir,
                      const char *tokenizer_dir, const struct kd_generation_options *o,
                      struct kd_generator *out) KD_MUST_CHECK;
void kd_generator_close(struct kd_generator *g);

/** Check that the sources of CORPUS fit the model; warn where they were made with
 * another tokenizer.  Local, same answer on every rank.  KD_EINPUT. */
int kd_generator_fits(const struct kd_generator *g, const struct kd_corpus *corpus,
                      const char *corpus_name) KD_MUST_CHECK;

/** Estimate the memory for sources 0..N-1 in batches of BATCH_SIZE, and tell it in one
 * line.  Collective.  KD_ENOMEM says which option makes it fit. */
int kd_generator_memory(struct kd_run *run, struct kd_generator *g, kd_source_fn source,
                        const void *arg, int64_t n, int64_t batch_size) KD_MUST_CHECK;

/** Rows for sources 0..N-1 in order, on every rank; the arguments are those of
 * kd_generate_dealt.  Collective.  KD_ESTOPPED after a signal, for which the caller has
 * the words (kd_generator_stopped). */
int kd_generator_run(struct kd_run *run, const struct kd_generator *g,
                     kd_source_fn source, const void *arg, const int64_t *ids,
                     int64_t n, int64_t batch_size, const char *progress_label,
                     struct kd_generated *out) KD_MUST_CHECK;

/** RC, with the text of a stop replaced by one that says nothing was written.  Local.
 */
int kd_generator_stopped(int rc) KD_MUST_CHECK;

#endif
