/* SPDX-License-Identifier: Apache-2.0 */
/* The driver of generation: step the model over the live sequences, turn logits into
 * processed scores, let the policy choose, and go on with what still lives.
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

int kd_search_top(struct kd_search *s, struct kd_tensor scores)
{
    const struct kd_backend_ops *ops = s->be->ops;
    int64_t rows = scores.shape[0];
    size_t n = (size_t)(rows * s->k);

    KD_TRY(
        ops->topk(s->be, scores.data, rows, s->vocab, s->k, s->top_dev, s->cols_dev));
    KD_TRY(ops->download(s->be, s->top, s->top_dev, n * sizeof *s->top));
    return ops->download(s->be, s->cols, s->cols_dev, n * sizeof *s->cols);
}

int kd_search_host(struct kd_search *s, struct kd_tensor scores, float **out)
{
    if (s->be->device == KD_CPU) {
        *out = scores.data;
        return KD_OK;
    }
    if (!s->host)
        KD_TRY(kd_calloc(s->n_sources * s->per_source * s->vocab, sizeof *s->host,
                         &s->host));
    *out = s->host;
    return s->be->ops->download(s->be, s->host, scores.data, kd_tensor_bytes(&scores));
}

/* Processors on every row, where any applies at this length. */
static int process(struct kd_search *s, struct kd_tensor scores)
{
    int64_t ld = s->g->max_length;
    float *host = NULL;

    if (!kd_process_active(s->g, s->cur_len))
        return KD_OK;
    KD_TRY(kd_search_host(s, scores, &host));
    for (int64_t r = 0; r < scores.shape[0]; r++) {
        int64_t q = s->first ? r * s->per_source : r;

        kd_process_row(s->g, s->now.ids + q * ld, s->cur_len, host + r * s->vocab,
                       s->vocab, s->scratch);
    }
    if (host == scores.data)
        return KD_OK;
    return s->be->ops->upload(s->be, scores.data, host, kd_tensor_bytes(&scores));
}

static int search_open(struct kd_search *s)
{
    const struct kd_generation *g = s->g;
    int64_t cap = s->n_sources * s->per_source;
    size_t n;

    KD_TRY(live_new(&s->now, cap, g->max_length));
    KD_TRY(live_new(&s->next, cap, g->max_length));
    KD_TRY(kd_calloc(g->max_length, sizeof *s->scratch, &s->scratch));
    s->k = s->policy->top_k(s);
    n = (size_t)(cap * s->k);
    KD_TRY(s->be->ops->alloc(s->be, n * sizeof *s->top, (void **)&s->top_dev));
    KD_TRY(s->be->ops->alloc(s->be, n * sizeof *s->cols, (void **)&s->cols_dev));
    KD_TRY(kd_calloc((int64_t)n, sizeof *s->top, &s->top));
    KD_TRY(kd_calloc((int64_t)n, sizeof *s->cols, &s->cols));
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
    if (s->top_dev)
        s->be->ops->free(s->be, s->top_dev);
    if (s->cols_dev)
        s->be->ops->free(s->be, s->cols_dev);
    free(s->top);
    free(s->cols);
    free(s->host);
    free(s->scratch);
}

static int search_step(struct kd_search *s, const struct kd_stepper *stepper,
                       struct kd_generated *out)
{
    int64_t rows = s->first ? s->n_sources : s->now.n;
    struct kd_tensor scores = {0};
    struct kd_live swap;

    KD_TRY(stepper->step(stepper->arg, rows, s->first ? NULL : s->now.parent,
                         s->now.source, s->now.token, &scores));
    out->n_steps++;
    out->n_row_steps += rows;
    if (s->policy->log_probs)
        KD_TRY(s->be->ops->log_softmax(s->be, scores.data, rows, s->vocab));
    KD_TRY(process(s, scores));
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
    if (vocab < g->n_eos + 1 || vocab < 2)
        return KD_FAIL(KD_EINPUT, "a vocabulary of %lld is too small to search in",
                       (long long)vocab);
    return KD_OK;
}

int kd_generate_steps(struct kd_backend *be, const struct kd_stepper *stepper,
                      const struct kd_generation *g, int64_t n_sources,
                      const int64_t *example_ids, struct kd_generated *out)
{
    struct kd_search s = {.be = be, .g = g, .vocab = stepper->vocab_size};
    int rc = KD_OK;

    memset(out, 0, sizeof *out);
    KD_TRY(kd_generation_check(g));
    KD_TRY(check_ids(g, s.vocab));
    s.n_sources = n_sources;
    s.example_ids = example_ids;
    s.per_source = g->num_beams > 1 ? g->num_beams : g->num_return_sequences;
    s.policy = g->num_beams > 1 ? &kd_policy_beam
               : g->do_sample   ? &kd_policy_sample
                                : &kd_policy_greedy;
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
                      struct kd_tensor *logits)
{
    return kd_decoder_step(arg, n_rows, parent, source, tokens, logits);
}

int kd_generate(struct kd_ctx *ctx, struct kd_model *m, const struct kd_generation *g,
                const struct kd_seqs *src, const int32_t *src_ids,
                const int64_t *example_ids, struct kd_generated *out)
{
    int64_t per = g->num_beams > 1 ? g->num_beams : g->num_return_sequences;
    struct kd_stepper stepper = {.vocab_size = kd_model_arch(m)->vocab_size,
                                 .step = model_step};
    struct kd_decoder *d = NULL;
    int rc = KD_OK;

    memset(out, 0, sizeof *out);
    if (src->n == 0)
        return kd_calloc(1, sizeof *out->offsets, &out->offsets);
    KD_TRY(kd_generation_check(g));
    KD_TRY(kd_decoder_new(ctx, m, src, src_ids, src->n * per, g->max_length, &d));
    stepper.arg = d;
    KD_GO(kd_generate_steps(ctx->be, &stepper, g, src->n, example_ids, out));
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
