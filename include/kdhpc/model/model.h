/* SPDX-License-Identifier: Apache-2.0 */
/* The one transformer: training, teacher and decoding through the same blocks.
 *
 * A model is a descriptor, a config.json (kept whole, so that what we do not know about
 * is written back), and parameters.  It owns its memory; a forward pass allocates only
 * in the context's arena. */
#ifndef KDHPC_MODEL_MODEL_H
#define KDHPC_MODEL_MODEL_H

#include "kdhpc/autograd/op.h"
#include "kdhpc/model/arch.h"
#include "kdhpc/model/param.h"

struct kd_model;

/** Build a model for CONFIG (copied), whose parameters have no values yet, that
 * computes in DTYPE (KD_F32, or KD_BF16 with float32 masters): contexts of its passes
 * say the same. Local. KD_EINPUT, KD_ENOMEM. */
int kd_model_new(struct kd_backend *be, enum kd_dtype dtype,
                 const struct kd_json *config, struct kd_model **out) KD_MUST_CHECK;
void kd_model_free(struct kd_model *m);

/** A model of M's shape, dropouts and frozen parameters on BE, without values or
 * gradients: for plans of memory.  Local.  KD_ENOMEM. */
int kd_model_like(struct kd_model *m, struct kd_backend *be,
                  struct kd_model **out) KD_MUST_CHECK;

/** Build only the descriptor and the table of parameters for CONFIG (copied): names,
 * kinds, shapes; no values, no backend, no passes.  Local. KD_EINPUT, KD_ENOMEM. */
int kd_model_outline(const struct kd_json *config, struct kd_model **out) KD_MUST_CHECK;

/** Name under which parameter INDEX is written to a checkpoint.  Local. */
const char *kd_model_saved_name(const struct kd_model *m, int index);

/** Values of parameter INDEX of M (an outline will do), which is a table of sinusoids,
 * into OUT.  Local. */
void kd_model_positions(const struct kd_model *m, int index, float *out);

/** Whether CONFIG's model_type is one of the families, whatever else it says.  Local;
 * clears the error record. */
bool kd_model_type_known(const struct kd_json *config);

const struct kd_arch *kd_model_arch(const struct kd_model *m);
struct kd_params *kd_model_params(struct kd_model *m);
struct kd_json *
kd_model_config(struct kd_model *m); /* borrowed; may be edited for writing */
/** Class name for the config's `architectures`.  Local. */
const char *kd_model_architecture(const struct kd_model *m);

/** Names under which a checkpoint may hold parameter INDEX (aliases of tied tensors,
 * with and without the "model." prefix): the K-th, or NULL at the end.  Local. */
const char *kd_model_param_alias(const struct kd_model *m, int index, int k, char *buf,
                                 size_t buf_bytes);

/** Whether a checkpoint tensor of this name may be passed over in silence (known
 * useless).  Local. */
bool kd_model_ignores(const struct kd_model *m, const char *name);

/** N(0, init_std) weights, zero biases, unit norms, zero pad row, from SEED; the same
 * for any ranks.  Local. */
int kd_model_init(struct kd_model *m, uint64_t seed) KD_MUST_CHECK;

/** Set dropouts (NAN: keep).  Local. */
void kd_model_set_dropout(struct kd_model *m, double dropout, double attention_dropout);

/** Freeze every parameter the encoder uses (the shared embedding too) / every embedding
 * and position table.  Local. */
void kd_model_freeze_encoder(struct kd_model *m);
void kd_model_freeze_embeds(struct kd_model *m);
void kd_model_freeze_all(struct kd_model *m);

/** After freezing, whether the whole encoder is frozen (so that its output may be
 * shared).  Local. */
bool kd_model_encoder_frozen(const struct kd_model *m);

/** A ragged batch in the backend's memory; all arrays borrowed. */
struct kd_batch {
    struct kd_seqs src, tgt;          /* same number of sequences */
    const int32_t *src_ids;           /* [src.n_rows] */
    const int32_t *dec_ids;           /* [tgt.n_rows] decoder inputs */
    const int32_t *labels;            /* [tgt.n_rows], -1: no label */
    const int32_t *src_pos, *tgt_pos; /* position in the sequence, of each row */
    const uint64_t *src_keys,
        *tgt_keys; /* dropout row keys: hash of (example, side, position) */
    const float
        *kd_mask; /* [tgt.n_rows] 1 or 0: rows that distillation sees; NULL: all */
};

/** Hidden states of the encoder [src.n_rows, d].  Taps: "enc.K.in", "enc.K.out". Local.
 */
int kd_model_encode(struct kd_ctx *ctx, struct kd_model *m, const struct kd_batch *b,
                    struct kd_var **out) KD_MUST_CHECK;

/** Hidden states of the decoder [tgt.n_rows, d] over the encoder's output.  Taps:
 * "dec.K.in", "dec.K.out".  Local. */
int kd_model_decode(struct kd_ctx *ctx, struct kd_model *m, const struct kd_batch *b,
                    struct kd_var *enc, struct kd_var **out) KD_MUST_CHECK;

/** The head.  Local. */
struct kd_head kd_model_head(struct kd_model *m);

/* ---- decoding with a cache ---- */

/** Keys and values of one generation batch. */
struct kd_decoder;

/** What a caller has go up with a step: BYTES of host memory, a multiple of 8, which
 * the step copies; they lie at DEV in backend memory, 8-byte aligned, until the next.
 */
struct kd_ride {
    const void *host;
    size_t bytes;
    void *dev;
};

/** Encode the sources and make a cache for up to MAX_ROWS hypotheses of up to MAX_LEN
 * tokens, whose steps have at most RIDE_BYTES riding along.  CTX needs no tape; the
 * cache lies in its arena until kd_decoder_free, which gives back all that was
 * allocated there since.  Local.  KD_ENOMEM. */
int kd_decoder_new(struct kd_ctx *ctx, struct kd_model *m, const struct kd_seqs *src,
                   const int32_t *src_ids_host, int64_t max_rows, int64_t max_len,
                   size_t ride_bytes, struct kd_decoder **out) KD_MUST_CHECK;
void kd_decoder_free(struct kd_decoder *d);

/** One step for N_ROWS live hypotheses at the same position.  Row r continues row
 * PARENT[r] of the step before (NULL at the first step), belongs to source SOURCE[r]
 * (non-decreasing), and feeds TOKENS[r]; all host arrays.  RIDE may be NULL.  *LOGITS:
 * [n_rows, V] float32 in backend memory, valid until the next step.  Local. */
int kd_decoder_step(struct kd_decoder *d, int64_t n_rows, const int32_t *parent,
                    const int32_t *source, const int32_t *tokens, struct kd_ride *ride,
                    struct kd_tensor *logits) KD_MUST_CHECK;

/* ---- students ---- */

/** Teacher layers to copy into a student of N_STUDENT layers: the references' table, or
 * round(k (nt-1)/(ns-1)) outside it (FIRST_N: the reference's first-n rule instead;
 * *IN_TABLE says which).  OUT[n_student].  Local. */
int kd_layers_to_copy(int n_student, int n_teacher, bool first_n, int64_t *out,
                      bool *in_table) KD_MUST_CHECK;

/** Teacher layers that supervise: equal depths 0..n-1, one layer the last, the table,
 * or round((k+1) nt/ns) - 1.  Local. */
int kd_layers_to_supervise(int n_student, int n_teacher, int64_t *out,
                           bool *in_table) KD_MUST_CHECK;

/** A student of TEACHER with the named layers copied; its config carries init_metadata.
 * Local. */
int kd_student_new(struct kd_model *teacher, const int64_t *enc_layers, int n_enc,
                   const int64_t *dec_layers, int n_dec,
                   struct kd_model **out) KD_MUST_CHECK;

/** Copied layer lists from init_metadata into ENC/DEC (malloc'ed, caller frees); n = -1
 * if absent.  Local. */
int kd_student_copied(struct kd_model *m, int64_t **enc, int *n_enc, int64_t **dec,
                      int *n_dec) KD_MUST_CHECK;

#endif
