/* SPDX-License-Identifier: Apache-2.0 */
/* Model directories in the Hugging Face layout: where store, model and text meet. */
#ifndef KDHPC_MODE_MODEL_IO_H
#define KDHPC_MODE_MODEL_IO_H

#include "kdhpc/decode/decode.h"
#include "kdhpc/mode/mode.h"
#include "kdhpc/store/corpus.h"
#include "kdhpc/text/tokenizer.h"

/** Read DIR/config.json and the weights into a model on RUN's backend.  Collective.
 * KD_EINPUT names what is missing: the directory, a key, a tensor (all missing and
 * unexpected ones are listed), a shape. */
int kd_model_load(struct kd_run *run, const char *dir,
                  struct kd_model **out) KD_MUST_CHECK;

/** Write M to DIR (config.json, generation_config.json, model.safetensors in DTYPE,
 * tokenizer files copied from TOKENIZER_DIR if not NULL), through DIR.part and a
 * rename; replaces an existing DIR.  Collective, rank 0 writes. GENERATION (borrowed,
 * may be NULL: made from the config) is the generation_config.json to write; the
 * config.json has no generation settings.  A failure leaves DIR as it was and no
 * DIR.part. */
int kd_model_save(struct kd_run *run, struct kd_model *m, const char *dir,
                  enum kd_dtype dtype, const char *tokenizer_dir,
                  const struct kd_json *generation) KD_MUST_CHECK;

/** Parsed DIR/generation_config.json, or *OUT NULL if there is none.  Local. */
int kd_generation_json(const char *dir, struct kd_json **out) KD_MUST_CHECK;

/** Take the generation settings out of CONFIG, of a model of ARCH, and make *OUT the
 * generation_config.json that goes with it: GIVEN if not NULL, else what CONFIG said.
 * Local. */
int kd_generation_move(struct kd_json *config, const struct kd_arch *arch,
                       const struct kd_json *given, struct kd_json **out) KD_MUST_CHECK;

/** dtype of the weights in DIR (of most of them), as they can be written.  Local. */
int kd_model_dir_dtype(const char *dir, enum kd_dtype *out) KD_MUST_CHECK;

/** Check that CORPUS fits M: ids below its vocabulary, lengths within its positions.
 * Local, same answer on every rank. KD_EINPUT. */
int kd_model_fits_corpus(const struct kd_model *m, const struct kd_corpus *corpus,
                         const char *corpus_name) KD_MUST_CHECK;

/** Hex digest of the weights file(s) and config of DIR, 16 digits + NUL into OUT[17].
 * Local. */
int kd_model_dir_digest(const char *dir, char out[17]) KD_MUST_CHECK;

/** Warn if CORPUS says that it was made with another tokenizer than T.  Local. */
void kd_corpus_warn_of_tokenizer(const struct kd_corpus *corpus,
                                 const char *corpus_name, const struct kd_tokenizer *t);

#endif
