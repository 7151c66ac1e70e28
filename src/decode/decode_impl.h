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
                const int32_t *tokens, struct kd_ride *ride, struct kd_tensor *logits);
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

/* Ids of the sources; NULL where nothing asks for them. */
struct kd_source_ids {
    const int64_t *offsets; /* [sources + 1] */
    const int32_t *ids;
    int64_t max_len;
};

/* Rows of scores at one step, each for a sequence of len ids. */
struct kd_process_rows {
    int64_t n, len, stride;
    const int32_t *ids;    /* [n, len], rows stride apart */
    const int32_t *source; /* [n] */
};

enum { KD_MAX_PASSES = 3 };

/* What the processors change at one step: passes in order, whose entries lie one after
 * the other in one list. */
struct kd_process {
    struct kd_score_edits pass[KD_MAX_PASSES]; /* list: set by who applies them */
    int n_passes;
    bool penalised;             /* more than bans and a forced token */
    int32_t forced;             /* -1: none */
    struct kd_score_edit *list; /* borrowed, host */
    int64_t n;                  /* entries of all passes */
    struct kd_source_ids src;
    int64_t *seen; /* [vocab] the last stamp that named an id */
    int64_t stamp, all, last_stamp;
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
    struct kd_process process;
    char *up;            /* what rides up with a step: the policy's part, then edits */
    struct kd_ride ride; /* the same on its way */
    size_t up_bytes;     /* of the policy's part, this step */
    char *down_dev;      /* what comes down after a step, in backend memory */
    char *down;          /* and on the host */
    float *sums;         /* [rows, 2] in backend memory: of log_sum */
};

/* How the next tokens are chosen. */
struct kd_policy {
    /* Most bytes of a sequence on the way up, less edits, and of a row or sequence on
     * the way down. */
    size_t up_bytes;
    size_t (*down_bytes)(const struct kd_search *s);
    int (*open)(struct kd_search *s);
    /* Put what rides up with this step into s->up, s->up_bytes of it; NULL: nothing. */
    void (*prepare)(struct kd_search *s);
    /* Edit the logits SCORES of this step and choose; push what lives on, keep what is
     * done. */
    int (*advance)(struct kd_search *s, struct kd_tensor scores);
    /* Sequence K of SOURCE, without the start token; borrowed. */
    void (*result)(const struct kd_search *s, int64_t source, int64_t k,
                   const int32_t **ids, int64_t *n, double *score);
    void (*close)(struct kd_search *s);
};

extern const struct kd_policy kd_policy_beam, kd_policy_groups, kd_policy_greedy,
    kd_policy_sample;

/* The row of this step's scores that belongs to live sequence Q. */
static inline int64_t kd_search_row(const struct kd_search *s, int64_t q)
{
    return s->first ? q / s->per_source : q;
}

/* Continue live sequence Q with TOKEN in output slot SLOT. */
void kd_search_push(struct kd_search *s, int64_t q, int64_t slot, int32_t token);

/* Apply what the processors ask for to SCORES. */
int kd_search_edit(struct kd_search *s, struct kd_tensor scores) KD_MUST_CHECK;

/* The first BYTES of s->down_dev into s->down; the one place where a step waits. */
int kd_search_down(struct kd_search *s, size_t bytes) KD_MUST_CHECK;

bool kd_is_eos(const struct kd_generation *g, int32_t id);

/* Entries that the list of one step of ROWS rows may have, for sources of up to MAX_SRC
 * ids. */
int64_t kd_process_most(const struct kd_generation *g, int64_t rows, int64_t max_src);

int kd_process_open(int64_t vocab, struct kd_process *p) KD_MUST_CHECK;
void kd_process_close(struct kd_process *p);

/* Fill the passes of P, and with them LIST, for ROWS. */
void kd_process_list(struct kd_process *p, const struct kd_generation *g,
                     const struct kd_process_rows *rows, struct kd_score_edit *list);

/* The lists of ids in generation settings J, whose eos ids G has. */
int kd_generation_lists(const struct kd_json *j, struct kd_generation *g) KD_MUST_CHECK;

/* The whole of kd_generate above the model; SRC may be zeroes if no setting asks for
 * source ids. */
int kd_generate_steps(struct kd_backend *be, const struct kd_stepper *stepper,
                      const struct kd_generation *g, int64_t n_sources,
                      const struct kd_source_ids *src, const int64_t *example_ids,
                      struct kd_generated *out) KD_MUST_CHECK;

#endif
