/* SPDX-License-Identifier: Apache-2.0 */
/* The driver of generation: step the model over the live sequences, let the policy edit
 * the scores and choose, and go on with what still lives.
 *
 * Scores stay in the backend's memory.  A step moves what the step of the model takes
 * (kvcache.c), with edits of 8 bytes and, for sampling, 8 bytes a sequence riding
 * along, and one small download: 8 K bytes a row for beams, K candidates of each; 16 a
 * row for greedy search; 12 a sequence for sampling.
 *
 * A sequence or sentence that is done is simply not pushed, so the next step is
 * smaller.  The model is reached through struct kd_stepper; kd_generate puts the cached
 * decoder behind it, tests put tables behind it. */
#include "decode_impl.h"
#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

static int live_new(struct kd_live *l, int64_t cap, int64_t max_length)
{
    KD_TRY(kd_calloc(cap, sizeof *l->slot, &l->slot));
    KD_TRY(kd_calloc(cap, sizeof *l->parent, &l->parent));
    KD_TRY(kd_calloc(cap, sizeof *l->source, &l->source));
    KD_TRY(kd_calloc(cap, sizeof *l->token, &l->token));
    return kd_calloc(cap * max_length, sizeof *l->ids, &l->ids);
}

static void live_free(struct kd_live *l)
{
    free(l->slot);
    free(l->parent);
    free(l->source);
    free(l->token);
    free(l->ids);
}

void kd_search_push(struct kd_search *s, int64_t q, int64_t slot, int32_t token)
{
    struct kd_live *next = &s->next;
    int64_t ld = s->g->max_length, to = next->n++;
    int32_t *ids = next->ids + to * ld;

    next->slot[to] = (int32_t)slot;
    next->source[to] = (int32_t)(slot / s->per_source);
    next->parent[to] = (int32_t)kd_search_row(s, q);
    next->token[to] = token;
    memcpy(ids, s->now.ids + q * ld, (size_t)s->cur_len * sizeof *ids);
    ids[s->cur_len] = token;
}

int kd_search_edit(struct kd_search *s, struct kd_tensor scores)
{
    const char *list = (const char *)s->ride.dev + s->up_bytes;

    for (int i = 0; i < s->process.n_passes; i++) {
        struct kd_score_edits *e = &s->process.pass[i];

        e->list = (const void *)list;
        list += (size_t)e->n * sizeof *e->list;
        KD_TRY(
            s->be->ops->edit_scores(s->be, scores.data, scores.shape[0], s->vocab, e));
    }
    return KD_OK;
}

int kd_search_down(struct kd_search *s, size_t bytes)
{
    return s->be->ops->download(s->be, s->down, s->down_dev, bytes);
}

/* Most bytes that ride up with a step of CAP sequences. */
static size_t most_up(const struct kd_generation *g, const struct kd_policy *policy,
                      int64_t cap, int64_t max_src)
{
    return (size_t)cap * policy->up_bytes +
           (size_t)kd_process_most(g, cap, max_src) * sizeof(struct kd_score_edit);
}

/* What goes up with this step: what the policy wants there, and the edits. */
static void prepare(struct kd_search *s)
{
    const struct kd_process_rows rows = {.n = s->first ? s->n_sources : s->now.n,
                                         .len = s->cur_len,
                                         .stride = (s->first ? s->per_source : 1) *
                                                   s->g->max_length,
                                         .ids = s->now.ids,
                                         .source = s->now.source};

    s->up_bytes = 0;
    if (s->policy->prepare)
        s->policy->prepare(s);
    kd_process_list(&s->process, s->g, &rows, (void *)(s->up + s->up_bytes));
    s->ride.host = s->up;
    s->ride.bytes = s->up_bytes + (size_t)s->process.n * sizeof(struct kd_score_edit);
}

static int search_open(struct kd_search *s)
{
    const struct kd_generation *g = s->g;
    int64_t cap = s->n_sources * s->per_source;
    size_t down = (size_t)cap * s->policy->down_bytes(s);
    void *p;

    KD_TRY(live_new(&s->now, cap, g->max_length));
    KD_TRY(live_new(&s->next, cap, g->max_length));
    KD_TRY(kd_process_open(s->vocab, &s->process));
    KD_TRY(kd_calloc((int64_t)most_up(g, s->policy, cap, s->process.src.max_len), 1,
                     &s->up));
    KD_TRY(kd_calloc((int64_t)down, 1, &s->down));
    KD_TRY(s->be->ops->alloc(s->be, down, &p));
    s->down_dev = p;
    KD_TRY(s->be->ops->alloc(s->be, (size_t)(2 * cap) * sizeof *s->sums, &p));
    s->sums = p;
    s->now.n = cap;
    for (int64_t q = 0; q < cap; q++) {
        s->now.slot[q] = (int32_t)q;
        s->now.source[q] = (int32_t)(q / s->per_source);
        s->now.ids[q * g->max_length] = g->start_id;
    }
    for (int64_t i = 0; i < s->n_sources; i++) {
        s->now.source[i] = (int32_t)i;
        s->now.token[i] = g->start_id;
    }
    s->cur_len = 1;
    s->first = true;
    return s->policy->open(s);
}

static void search_close(struct kd_search *s)
{
    s->policy->close(s);
    live_free(&s->now);
    live_free(&s->next);
    kd_process_close(&s->process);
    if (s->down_dev)
        s->be->ops->free(s->be, s->down_dev);
    if (s->sums)
        s->be->ops->free(s->be, s->sums);
    free(s->up);
    free(s->down);
}

static int search_step(struct kd_search *s, const struct kd_stepper *stepper,
                       struct kd_generated *out)
{
    int64_t rows = s->first ? s->n_sources : s->now.n;
    struct kd_tensor scores = {0};
    struct kd_live swap;

    prepare(s);
    KD_TRY(stepper->step(stepper->arg, rows, s->first ? NULL : s->now.parent,
                         s->now.source, s->now.token, &s->ride, &scores));
    out->n_steps++;
    out->n_row_steps += rows;
    s->next.n = 0;
    KD_TRY(s->policy->advance(s, scores));
    swap = s->now;
    s->now = s->next;
    s->next = swap;
    s->cur_len++;
    s->first = false;
    return KD_OK;
}

static int search_collect(const struct kd_search *s, struct kd_generated *out)
{
    int64_t per = s->g->num_return_sequences, total = 0;
    const int32_t *ids = NULL;
    int64_t n = 0;

    out->n = s->n_sources * per;
    KD_TRY(kd_calloc(out->n + 1, sizeof *out->offsets, &out->offsets));
    KD_TRY(kd_calloc(out->n, sizeof *out->scores, &out->scores));
    for (int64_t r = 0; r < out->n; r++) {
        s->policy->result(s, r / per, r % per, &ids, &n, &out->scores[r]);
        total += n;
        out->offsets[r + 1] = total;
    }
    KD_TRY(kd_calloc(total, sizeof *out->ids, &out->ids));
    for (int64_t r = 0; r < out->n; r++) {
        double score;

        s->policy->result(s, r / per, r % per, &ids, &n, &score);
        if (n > 0)
            memcpy(out->ids + out->offsets[r], ids, (size_t)n * sizeof *ids);
    }
    return KD_OK;
}

static int check_id(const char *what, int32_t id, int64_t vocab)
{
    if (id >= vocab)
        return KD_FAIL(KD_EINPUT,
                       "the generation config's %s %d is not below the model's "
                       "vocabulary of %lld",
                       what, (int)id, (long long)vocab);
    return KD_OK;
}

static int check_ids(const struct kd_generation *g, int64_t vocab)
{
    KD_TRY(check_id("decoder_start_token_id", g->start_id, vocab));
    KD_TRY(check_id("forced_bos_token_id", g->forced_bos_id, vocab));
    KD_TRY(check_id("forced_eos_token_id", g->forced_eos_id, vocab));
    for (int i = 0; i < g->n_eos; i++)
        KD_TRY(check_id("eos_token_id", g->eos_ids[i], vocab));
    for (int i = 0; i < g->n_suppress; i++)
        KD_TRY(check_id("suppressed token", g->suppress[i], vocab));
    for (int i = 0; i < g->n_begin_suppress; i++)
        KD_TRY(check_id("begin_suppress_tokens", g->begin_suppress[i], vocab));
    for (int64_t i = 0; g->bad_words.n > 0 && i < g->bad_words.ends[g->bad_words.n - 1];
         i++)
        KD_TRY(check_id("bad_words_ids", g->bad_words.ids[i], vocab));
    if (vocab < g->n_eos + 1 || vocab < 2)
        return KD_FAIL(KD_EINPUT, "a vocabulary of %lld is too small to search in",
                       (long long)vocab);
    return KD_OK;
}

/* What source ids ban or penalise are ids of the decoder. */
static int check_source(const struct kd_generation *g, const struct kd_source_ids *src,
                        int64_t n_sources, int64_t vocab)
{
    if (g->encoder_repetition_penalty == 1.0 && g->encoder_no_repeat_ngram_size == 0)
        return KD_OK;
    for (int64_t i = 0; i < src->offsets[n_sources]; i++)
        if (src->ids[i] >= vocab)
            return KD_FAIL(KD_EINPUT,
                           "encoder_repetition_penalty and "
                           "encoder_no_repeat_ngram_size need one vocabulary: source "
                           "id %d is not below the decoder's %lld",
                           (int)src->ids[i], (long long)vocab);
    return KD_OK;
}

static const struct kd_policy *policy_of(const struct kd_generation *g)
{
    if (g->num_beam_groups > 1)
        return &kd_policy_groups;
    if (g->num_beams > 1)
        return &kd_policy_beam;
    return g->do_sample ? &kd_policy_sample : &kd_policy_greedy;
}

int kd_generate_steps(struct kd_backend *be, const struct kd_stepper *stepper,
                      const struct kd_generation *g, int64_t n_sources,
                      const struct kd_source_ids *src, const int64_t *example_ids,
                      struct kd_generated *out)
{
    struct kd_search s = {
        .be = be, .g = g, .vocab = stepper->vocab_size, .process.src = *src};
    int rc = KD_OK;

    memset(out, 0, sizeof *out);
    KD_TRY(kd_generation_check(g));
    KD_TRY(check_ids(g, s.vocab));
    KD_TRY(check_source(g, src, n_sources, s.vocab));
    s.n_sources = n_sources;
    s.example_ids = example_ids;
    s.per_source = g->num_beams > 1 ? g->num_beams : g->num_return_sequences;
    s.policy = policy_of(g);
    KD_GO(search_open(&s));
    while (s.now.n > 0 && (g->max_steps == 0 || out->n_steps < g->max_steps))
        KD_GO(search_step(&s, stepper, out));
    KD_GO(search_collect(&s, out));
out:
    search_close(&s);
    if (rc)
        kd_generated_free(out);
    return rc;
}

static int model_step(void *arg, int64_t n_rows, const int32_t *parent,
                      const int32_t *source, const int32_t *tokens,
                      struct kd_ride *ride, struct kd_tensor *logits)
{
    return kd_decoder_step(arg, n_rows, parent, source, tokens, ride, logits);
}

int kd_generate(struct kd_ctx *ctx, struct kd_model *m, const struct kd_generation *g,
                const struct kd_seqs *src, const int32_t *src_ids,
                const int64_t *example_ids, struct kd_generated *out)
{
    int64_t per = g->num_beams > 1 ? g->num_beams : g->num_return_sequences,
            rows = src->n * per;
    struct kd_stepper stepper = {.vocab_size = kd_model_arch(m)->vocab_size,
                                 .step = model_step};
    const struct kd_source_ids source = {src->offsets, src_ids, src->max_len};
    struct kd_decoder *d = NULL;
    int rc = KD_OK;

    memset(out, 0, sizeof *out);
    if (src->n == 0)
        return kd_calloc(1, sizeof *out->offsets, &out->offsets);
    KD_TRY(kd_generation_check(g));
    KD_TRY(kd_decoder_new(ctx, m, src, src_ids, rows, g->max_length,
                          most_up(g, policy_of(g), rows, src->max_len), &d));
    stepper.arg = d;
    KD_GO(kd_generate_steps(ctx->be, &stepper, g, src->n, &source, example_ids, out));
out:
    kd_decoder_free(d);
    return rc;
}

void kd_generated_free(struct kd_generated *r)
{
    free(r->offsets);
    free(r->ids);
    free(r->scores);
    memset(r, 0, sizeof *r);
}
