/* SPDX-License-Identifier: Apache-2.0 */
/* Inside generation: the search that the driver runs, the step it calls, and the
 * next-token policies.
 *
 * A search holds live sequences: every one has the same number of ids, so a step of the
 * model is one call.  Live sequence q fills output slot slot[q] = source * per_source +
 * k and, for beams, the sequences of one source lie together.  In the first step all
 * sequences of a source are the same single start token, so the model sees one row a
 * source and the sequences share it; from then on row q of the scores is sequence q. */
#ifndef KDHPC_DECODE_IMPL_H
#define KDHPC_DECODE_IMPL_H

#include "kdhpc/decode/decode.h"

/* One step of a language model; see kd_decoder_step. */
struct kd_stepper {
    void *arg;
    int64_t vocab_size;
    int (*step)(void *arg, int64_t n_rows, const int32_t *parent, const int32_t *source,
                const int32_t *tokens, struct kd_tensor *logits);
};

/* Sequences at one step. */
struct kd_live {
    int64_t n;
    int32_t *slot;   /* [n] output slot */
    int32_t *parent; /* [n] row of the step before */
    int32_t *source; /* [n] slot / per_source, as the model wants it */
    int32_t *token;  /* [n] the last id */
    int32_t *ids;    /* [n, max_length] all ids, the start token first */
};

struct kd_policy;

struct kd_search {
    struct kd_backend *be;
    const struct kd_generation *g;
    const struct kd_policy *policy;
    void *state; /* of the policy */
    int64_t vocab, n_sources, per_source;
    const int64_t *example_ids; /* [n_sources] */
    int64_t cur_len;            /* ids in every live sequence */
    bool first;                 /* rows are sources, not sequences */
    struct kd_live now, next;
    float *host;       /* scores of a device's rows while the host works on them */
    int64_t k;         /* what top_* hold for each row */
    float *top_dev;    /* [rows, k] in backend memory */
    int32_t *cols_dev; /* [rows, k] */
    float *top;        /* [rows, k] host */
    int32_t *cols;     /* [rows, k] host */
    float *scratch;    /* [max_length] of the processors */
};

/* How the next tokens are chosen. */
struct kd_policy {
    bool log_probs; /* processors see log-probabilities; else raw logits */
    int64_t (*top_k)(const struct kd_search *s); /* of each row, that open allots */
    int (*open)(struct kd_search *s);
    /* Read the processed SCORES of this step, push what lives on, keep what is done. */
    int (*advance)(struct kd_search *s, struct kd_tensor scores);
    /* Sequence K of SOURCE, without the start token; borrowed. */
    void (*result)(const struct kd_search *s, int64_t source, int64_t k,
                   const int32_t **ids, int64_t *n, double *score);
    void (*close)(struct kd_search *s);
};

extern const struct kd_policy kd_policy_beam, kd_policy_greedy, kd_policy_sample;

/* The row of this step's scores that belongs to live sequence Q. */
static inline int64_t kd_search_row(const struct kd_search *s, int64_t q)
{
    return s->first ? q / s->per_source : q;
}

/* Continue live sequence Q with TOKEN in output slot SLOT. */
void kd_search_push(struct kd_search *s, int64_t q, int64_t slot, int32_t token);

/* The s->k largest of each row of SCORES into s->top and s->cols. */
int kd_search_top(struct kd_search *s, struct kd_tensor scores) KD_MUST_CHECK;

/* SCORES where the host can read and write them. */
int kd_search_host(struct kd_search *s, struct kd_tensor scores,
                   float **out) KD_MUST_CHECK;

bool kd_is_eos(const struct kd_generation *g, int32_t id);

/* Whether any processor changes scores of sequences with CUR_LEN ids. */
bool kd_process_active(const struct kd_generation *g, int64_t cur_len);

/* Run the chain on one row of V scores for the sequence IDS[cur_len]; SCRATCH holds
 * cur_len floats. */
void kd_process_row(const struct kd_generation *g, const int32_t *ids, int64_t cur_len,
                    float *scores, int64_t vocab, float *scratch);

/* The whole of kd_generate above the model. */
int kd_generate_steps(struct kd_backend *be, const struct kd_stepper *stepper,
                      const struct kd_generation *g, int64_t n_sources,
                      const int64_t *example_ids,
                      struct kd_generated *out) KD_MUST_CHECK;

#endif
