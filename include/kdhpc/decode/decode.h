/* SPDX-License-Identifier: Apache-2.0 */
/* Generation: one driver over the model's cached step, logits processors as a chain,
 * and next-token policies (greedy, sampling, beam search) behind a small vtable.
 *
 * Semantics are those of transformers 4.57's generate; LEGACY notes in beam.c. Finished
 * hypotheses and sentences leave the batch, so work shrinks as it goes. */
#ifndef KDHPC_DECODE_DECODE_H
#define KDHPC_DECODE_DECODE_H

#include "kdhpc/model/model.h"

enum kd_early_stopping { KD_STOP_HEURISTIC, KD_STOP_TRUE, KD_STOP_NEVER };

/** Ids that are never produced one after another: word i is ids[ends[i - 1]..ends[i]).
 */
struct kd_words {
    int32_t *ids;  /* owned, NULL if none */
    int64_t *ends; /* [n] owned */
    int64_t n;
};

struct kd_generation {
    int64_t num_beams, num_return_sequences;
    int64_t num_beam_groups; /* 1: plain beam search */
    double diversity_penalty;
    int64_t max_length, min_length;         /* decoder ids with the start token */
    int64_t max_new_tokens, min_new_tokens; /* -1: not given */
    double length_penalty, repetition_penalty, encoder_repetition_penalty;
    int64_t no_repeat_ngram_size, encoder_no_repeat_ngram_size;
    double decay_factor; /* of exponential_decay_length_penalty; 1: none */
    int64_t decay_start; /* in new tokens */
    bool renormalize;
    enum kd_early_stopping early_stopping;
    bool do_sample;
    double temperature, top_p;
    double min_p, typical_p, epsilon_cutoff, eta_cutoff; /* off: 0, 1, 0, 0 */
    int64_t top_k;
    int32_t start_id, pad_id, forced_bos_id, forced_eos_id; /* -1: none */
    int32_t eos_ids[8];
    int n_eos;
    int32_t
        *suppress; /* ids never produced (bad words of one id); owned, NULL if none */
    int n_suppress;
    int32_t *begin_suppress; /* ids that are not the first; owned, NULL if none */
    int n_begin_suppress;
    struct kd_words bad_words; /* of several ids */
    uint64_t seed;             /* of sampling */
    int64_t max_steps; /* leave off after so many, whatever there is; 0: never */
};

/** Fill G from generation_config.json (GENERATION, may be NULL), else from the config's
 * keys and defaults, with the rules of transformers 4.57 (spec: max_length 20 means 20
 * new tokens...).  Local.  KD_EINPUT: contradictions. */
int kd_generation_from_config(const struct kd_json *config,
                              const struct kd_json *generation, int64_t max_positions,
                              struct kd_generation *g) KD_MUST_CHECK;

/** What the class of CONFIG's model type has for generation setting KEY where CONFIG is
 * silent; NAN: nothing.  Local. */
double kd_generation_class_value(const struct kd_json *config, const char *key);

/** The first key of generation_config.json J that no version of transformers up to 4.57
 * reads when it generates; NULL: none.  Borrowed.  Local. */
const char *kd_generation_unknown_key(const struct kd_json *j);

/** Check combinations (num_return_sequences <= num_beams, ...).  Local.  KD_EUSAGE
 * names the option. */
int kd_generation_check(const struct kd_generation *g) KD_MUST_CHECK;
void kd_generation_free(struct kd_generation *g);

/** Results of a batch: sequence k of source i is row i * num_return_sequences + k. */
struct kd_generated {
    int64_t n;                    /* rows */
    int64_t *offsets;             /* [n + 1] */
    int32_t *ids;                 /* without the start token; eos kept */
    double *scores;               /* [n] beam: normalised log-probability; else sum */
    int64_t n_steps, n_row_steps; /* decoder steps, and rows times steps (work) */
};

/** Generate for the sources SRC (ragged host ids).  EXAMPLE_IDS[n] key the sampler, so
 * results do not depend on batching or ranks.  CTX: no tape.  Local.  Free the result
 * with kd_generated_free. */
int kd_generate(struct kd_ctx *ctx, struct kd_model *m, const struct kd_generation *g,
                const struct kd_seqs *src, const int32_t *src_ids,
                const int64_t *example_ids, struct kd_generated *out) KD_MUST_CHECK;
void kd_generated_free(struct kd_generated *r);

#endif
