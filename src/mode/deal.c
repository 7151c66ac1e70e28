/* SPDX-License-Identifier: Apache-2.0 */
/* Generation over the ranks.  Batches are formed globally, longest source first, and
 * dealt whole: costliest batch first, each to the rank with the least work so far.  A
 * batch is computed the same wherever it runs and results are keyed by index, so the
 * output is the same for any number of ranks, and nothing is exchanged until the end.
 * The largest batch is rehearsed on the planning backend first, so that the arena is
 * one block that holds them all. */
#include "kdhpc/base/mem.h"
#include "kdhpc/comm/watchdog.h"
#include "kdhpc/mode/generation_options.h"
#include "kdhpc/tensor/plan.h"
#include "kdhpc/train/loader.h"

#include <stdlib.h>
#include <string.h>

/* Everything that one rank's share of the work needs. */
struct deal {
    struct kd_run *run;
    struct kd_model *model;
    const struct kd_generation *g;
    kd_source_fn source;
    const void *arg;
    const int64_t *ids;
    bool (*stop)(void); /* NULL: runs to its end */
    struct kd_epoch_plan plan;
    int *owner; /* [plan.n_batches] */
    struct kd_arena *arena;
    int64_t n_mine; /* sources of this rank */
    /* the batch under way */
    int64_t *offsets, *batch_ids;
    int32_t *tokens;
    int64_t cap_offsets, cap_batch_ids, cap_tokens;
    /* capacities of the growing result */
    int64_t cap_index, cap_row_offsets, cap_scores, cap_row_ids;
};

static int plan_batches(struct deal *d, int64_t n, int64_t batch_size)
{
    int32_t *len = NULL;
    int64_t *cost = NULL;
    int rc = KD_OK;

    KD_GO(kd_calloc(n, sizeof *len, &len));
    for (int64_t i = 0; i < n; i++) {
        int64_t l = 0;

        (void)d->source(d->arg, i, &l);
        len[i] = (int32_t)l;
    }
    KD_GO(kd_plan_longest_first(len, n, batch_size, &d->plan));
    KD_GO(kd_calloc(d->plan.n_batches, sizeof *cost, &cost));
    KD_GO(kd_calloc(d->plan.n_batches, sizeof *d->owner, &d->owner));
    for (int64_t b = 0; b < d->plan.n_batches; b++)
        for (int64_t i = d->plan.starts[b]; i < d->plan.starts[b + 1]; i++)
            cost[b] += len[d->plan.order[i]];
    KD_GO(
        kd_deal_by_cost(cost, d->plan.n_batches, kd_comm_size(d->run->comm), d->owner));
    for (int64_t b = 0; b < d->plan.n_batches; b++)
        if (d->owner[b] == kd_comm_rank(d->run->comm))
            d->n_mine += d->plan.starts[b + 1] - d->plan.starts[b];
out:
    free(len);
    free(cost);
    return rc;
}

/* The sources ORDER[n] as one ragged batch; its device offsets live in the arena. */
static int gather_sources(struct deal *d, const int64_t *order, int64_t n,
                          struct kd_seqs *src)
{
    size_t bytes = (size_t)(n + 1) * sizeof *d->offsets;
    void *dev = NULL;

    KD_TRY(kd_grow(&d->offsets, &d->cap_offsets, n + 1, sizeof *d->offsets));
    KD_TRY(kd_grow(&d->batch_ids, &d->cap_batch_ids, n, sizeof *d->batch_ids));
    *src = (struct kd_seqs){.n = n, .offsets = d->offsets};
    d->offsets[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t len = 0, at = d->offsets[i];
        const int32_t *ids = d->source(d->arg, order[i], &len);

        KD_TRY(kd_grow(&d->tokens, &d->cap_tokens, at + len, sizeof *d->tokens));
        if (len > 0)
            memcpy(d->tokens + at, ids, (size_t)len * sizeof *ids);
        d->offsets[i + 1] = at + len;
        d->batch_ids[i] = d->ids[order[i]];
        if (len > src->max_len)
            src->max_len = len;
    }
    src->n_rows = d->offsets[n];
    KD_TRY(kd_arena_alloc(d->arena, bytes, &dev));
    src->offsets_dev = kd_tensor1(dev, KD_I64, n + 1);
    return d->run->be->ops->upload(d->run->be, dev, d->offsets, bytes);
}

/* Append the rows of one batch, whose sources are ORDER[n], to the rank's set. */
static int append_rows(struct deal *d, const int64_t *order, int64_t n,
                       const struct kd_generated *r, struct kd_generated_set *set)
{
    struct kd_generated *to = &set->rows;
    int64_t have = to->offsets ? to->offsets[to->n] : 0, more = r->offsets[r->n];

    KD_TRY(kd_grow(&set->index, &d->cap_index, set->n + n, sizeof *set->index));
    KD_TRY(kd_grow(&to->offsets, &d->cap_row_offsets, to->n + r->n + 1,
                   sizeof *to->offsets));
    KD_TRY(kd_grow(&to->scores, &d->cap_scores, to->n + r->n, sizeof *to->scores));
    KD_TRY(kd_grow(&to->ids, &d->cap_row_ids, have + more, sizeof *to->ids));
    to->offsets[0] = 0;
    memcpy(set->index + set->n, order, (size_t)n * sizeof *order);
    memcpy(to->scores + to->n, r->scores, (size_t)r->n * sizeof *r->scores);
    memcpy(to->ids + have, r->ids, (size_t)more * sizeof *r->ids);
    for (int64_t i = 0; i < r->n; i++)
        to->offsets[to->n + i + 1] = have + r->offsets[i + 1];
    set->n += n;
    to->n += r->n;
    to->n_steps += r->n_steps;
    to->n_row_steps += r->n_row_steps;
    return KD_OK;
}

/* Generate for batch B. */
static int compute_batch(struct deal *d, int64_t b, struct kd_generated *rows)
{
    struct kd_ctx ctx = {.be = d->run->be, .arena = d->arena, .dtype = d->run->dtype};
    const int64_t *order = d->plan.order + d->plan.starts[b];
    struct kd_seqs src;

    KD_TRY(gather_sources(d, order, d->plan.starts[b + 1] - d->plan.starts[b], &src));
    return kd_generate(&ctx, d->model, d->g, &src, d->tokens, d->batch_ids, rows);
}

static int run_batch(struct deal *d, int64_t b, struct kd_generated_set *set)
{
    const int64_t *order = d->plan.order + d->plan.starts[b];
    int64_t n = d->plan.starts[b + 1] - d->plan.starts[b];
    struct kd_generated rows = {0};
    int rc = KD_OK;

    KD_TRY(KD_FAULT("generate.batch"));
    KD_GO(compute_batch(d, b, &rows));
    KD_GO(append_rows(d, order, n, &rows, set));
out:
    kd_generated_free(&rows);
    kd_arena_reset(d->arena);
    return rc;
}

/* The batches of this rank, one after the other. */
static int run_mine(struct deal *d, const char *label, int64_t n,
                    struct kd_generated_set *set)
{
    int rank = kd_comm_rank(d->run->comm);
    bool show = label && rank == 0;
    struct kd_progress p = kd_progress_start(label, n, 0);
    double start_s = kd_now_s();
    int rc = KD_OK;

    for (int64_t b = 0; b < d->plan.n_batches && !rc; b++) {
        if (d->owner[b] != rank)
            continue;
        if (d->stop && d->stop())
            rc = KD_FAIL(KD_ESTOPPED, "stopped on a signal");
        else
            rc = run_batch(d, b, set);
        kd_heartbeat();
        if (show && !rc) {
            /* this rank's share stands for all */
            int64_t done = (int64_t)((double)n * (double)set->n / (double)d->n_mine);
            double rows = (double)(done * d->g->num_return_sequences);

            kd_progress_update(&p, done, "%.1f outputs/s",
                               rows / (kd_now_s() - start_s + 1e-9));
        }
    }
    if (show)
        kd_progress_end(&p);
    return rc;
}

static void deal_free(struct deal *d)
{
    kd_plan_free(&d->plan);
    kd_arena_free(d->arena);
    free(d->owner);
    free(d->offsets);
    free(d->batch_ids);
    free(d->tokens);
}

/* ---- memory ---- */

enum { REHEARSED_STEPS = 3 };

/* G without what depends on values: no end before REHEARSED_STEPS, and no edits of
 * scores, which take next to nothing. */
static struct kd_generation without_values(const struct kd_generation *g)
{
    struct kd_generation plain = *g;

    plain.max_steps = REHEARSED_STEPS;
    plain.min_length = 0;
    plain.min_new_tokens = -1;
    plain.num_beam_groups = 1;
    plain.diversity_penalty = 0;
    plain.repetition_penalty = plain.encoder_repetition_penalty = 1;
    plain.no_repeat_ngram_size = plain.encoder_no_repeat_ngram_size = 0;
    plain.decay_factor = 1;
    plain.renormalize = false;
    plain.bad_words.n = 0;
    plain.forced_bos_id = plain.forced_eos_id = -1;
    plain.n_suppress = plain.n_begin_suppress = 0;
    for (int i = 0; i < plain.n_eos; i++)
        plain.eos_ids[i] = -1;
    return plain;
}

/* Run the batch of this rank that needs most memory: batches have the same number of
 * sources but for the last, and the first has the longest. */
static int rehearse_batch(struct deal *d, size_t arena_bytes)
{
    int rank = kd_comm_rank(d->run->comm);
    struct kd_generated rows = {0};
    int rc = KD_OK;

    KD_TRY(kd_arena_new(d->run->be, &d->arena));
    kd_arena_reserve(d->arena, arena_bytes);
    for (int64_t b = 0; b < d->plan.n_batches; b++) {
        if (d->owner[b] != rank)
            continue;
        rc = compute_batch(d, b, &rows);
        break;
    }
    kd_generated_free(&rows);
    return rc;
}

/* *OUT = bytes of arena that batches of D need, whose plan is made. */
static int plan_arena(const struct deal *d, size_t *out)
{
    const struct kd_generation plain = without_values(d->g);
    struct kd_run run = *d->run;
    struct deal trial = {.run = &run,
                         .g = &plain,
                         .source = d->source,
                         .arg = d->arg,
                         .ids = d->ids,
                         .plan = d->plan,
                         .owner = d->owner};
    int rc = KD_OK;

    KD_GO(kd_backend_plan(d->run->be->device, &run.be));
    KD_GO(kd_model_like(d->model, run.be, &trial.model));
    KD_GO(rehearse_batch(&trial, 0));
    *out = kd_arena_peak_bytes(trial.arena);
out:
    trial.plan = (struct kd_epoch_plan){0}; /* D's */
    trial.owner = NULL;
    deal_free(&trial);
    kd_model_free(trial.model);
    kd_backend_free(run.be);
    return rc;
}

int kd_generate_rehearse(struct kd_run *run, struct kd_model *m,
                         const struct kd_generation *g, kd_source_fn source,
                         const void *arg, int64_t n, int64_t batch_size)
{
    const struct kd_generation plain = without_values(g);
    struct deal d = {.run = run, .model = m, .g = &plain, .source = source, .arg = arg};
    int64_t *ids = NULL;
    size_t arena_bytes;
    int rc = KD_OK;

    KD_GO(kd_calloc(n, sizeof *ids, &ids));
    d.ids = ids;
    KD_GO(plan_batches(&d, n, batch_size));
    KD_GO(plan_arena(&d, &arena_bytes));
    rc = rehearse_batch(&d, arena_bytes);
out:
    free(ids);
    deal_free(&d);
    return rc;
}

/* ---- dealing ---- */

static int deal_local(struct deal *d, int64_t n, int64_t batch_size, const char *label,
                      struct kd_generated_set *set)
{
    size_t arena_bytes;

    KD_TRY(plan_batches(d, n, batch_size));
    KD_TRY(plan_arena(d, &arena_bytes));
    KD_TRY(kd_arena_new(d->run->be, &d->arena));
    kd_arena_reserve(d->arena, arena_bytes);
    return run_mine(d, label, n, set);
}

int kd_generate_dealt(struct kd_run *run, struct kd_model *m,
                      const struct kd_generation *g, kd_source_fn source,
                      const void *arg, const int64_t *ids, int64_t n,
                      int64_t batch_size, const char *progress_label,
                      bool (*stop)(void), struct kd_generated_set *out)
{
    struct deal d = {.run = run,
                     .model = m,
                     .g = g,
                     .source = source,
                     .arg = arg,
                     .ids = ids,
                     .stop = stop};
    int rc;

    memset(out, 0, sizeof *out);
    rc = kd_agree(run->comm, deal_local(&d, n, batch_size, progress_label, out));
    deal_free(&d);
    if (rc)
        kd_generated_set_free(out);
    return rc;
}

void kd_generated_set_free(struct kd_generated_set *s)
{
    free(s->index);
    kd_generated_free(&s->rows);
    memset(s, 0, sizeof *s);
}

/* The sets of all ranks, one after the other. */
struct gathered {
    int64_t n_sources, n_rows;
    int64_t *index, *len; /* [n_sources], [n_rows] */
    int32_t *ids;
    double *scores; /* [n_rows] */
};

static int row_lengths(const struct kd_generated_set *local, int64_t **len)
{
    KD_TRY(kd_calloc(local->rows.n, sizeof **len, len));
    for (int64_t r = 0; r < local->rows.n; r++)
        (*len)[r] = local->rows.offsets[r + 1] - local->rows.offsets[r];
    return KD_OK;
}

static int gather_parts(struct kd_comm *comm, const struct kd_generated_set *local,
                        struct gathered *all)
{
    int64_t rows = local->rows.n, ids = rows > 0 ? local->rows.offsets[rows] : 0;
    int64_t *len = NULL;
    int rc = KD_OK;

    KD_ALL_GO(comm, row_lengths(local, &len));
    KD_GO(kd_allgather_bytes(comm, local->index, local->n * (int64_t)sizeof(int64_t),
                             (void **)&all->index, NULL));
    KD_GO(kd_allgather_bytes(comm, len, rows * (int64_t)sizeof(int64_t),
                             (void **)&all->len, NULL));
    KD_GO(kd_allgather_bytes(comm, local->rows.ids, ids * (int64_t)sizeof(int32_t),
                             (void **)&all->ids, NULL));
    KD_GO(kd_allgather_bytes(comm, local->rows.scores, rows * (int64_t)sizeof(double),
                             (void **)&all->scores, NULL));
out:
    free(len);
    return rc;
}

/* Rows of ALL in index order into OUT. */
static int order_rows(const struct gathered *all, int64_t n_sources, int64_t per,
                      struct kd_generated *out)
{
    int64_t *from = NULL, *at = NULL, total = 0;
    int rc = KD_OK;

    out->n = n_sources * per;
    KD_GO(kd_calloc(out->n + 1, sizeof *out->offsets, &out->offsets));
    KD_GO(kd_calloc(out->n, sizeof *out->scores, &out->scores));
    KD_GO(kd_calloc(out->n, sizeof *from, &from));
    KD_GO(kd_calloc(out->n, sizeof *at, &at));
    for (int64_t s = 0; s < n_sources; s++)
        for (int64_t k = 0; k < per; k++) {
            int64_t r = s * per + k;

            from[all->index[s] * per + k] = r;
            at[r] = total;
            total += all->len[r];
        }
    KD_GO(kd_calloc(total, sizeof *out->ids, &out->ids));
    for (int64_t r = 0; r < out->n; r++) {
        int64_t f = from[r], len = all->len[f];

        memcpy(out->ids + out->offsets[r], all->ids + at[f],
               (size_t)len * sizeof(int32_t));
        out->offsets[r + 1] = out->offsets[r] + len;
        out->scores[r] = all->scores[f];
    }
out:
    free(from);
    free(at);
    return rc;
}

int kd_generated_gather(struct kd_run *run, const struct kd_generated_set *local,
                        int64_t n_sources, int64_t num_return_sequences,
                        struct kd_generated *out)
{
    int64_t work[3] = {local->n, local->rows.n_steps, local->rows.n_row_steps};
    struct gathered all = {0};
    int rc = KD_OK;

    memset(out, 0, sizeof *out);
    KD_GO(kd_allreduce_i64(run->comm, work, 3, KD_SUM));
    if (work[0] != n_sources)
        KD_GO(KD_FAIL(KD_EINTERNAL, "generated %lld of %lld sources",
                      (long long)work[0], (long long)n_sources));
    KD_GO(gather_parts(run->comm, local, &all));
    KD_ALL_GO(run->comm, order_rows(&all, n_sources, num_return_sequences, out));
    out->n_steps = work[1];
    out->n_row_steps = work[2];
out:
    free(all.index);
    free(all.len);
    free(all.ids);
    free(all.scores);
    if (rc)
        kd_generated_free(out);
    return rc;
}

int kd_decode_lines(const struct kd_tokenizer *t, const struct kd_generated *rows,
                    char ***out)
{
    struct kd_str text = {0};
    char **lines = NULL;
    int rc = KD_OK;

    KD_GO(kd_calloc(rows->n, sizeof *lines, &lines));
    for (int64_t r = 0; r < rows->n; r++) {
        KD_GO(kd_tokenizer_decode(t, rows->ids + rows->offsets[r],
                                  rows->offsets[r + 1] - rows->offsets[r], &text));
        KD_GO(kd_strndup(text.data ? text.data : "", text.len, &lines[r]));
        for (char *c = lines[r]; *c; c++)
            if (*c == '\n' || *c == '\r')
                *c = ' ';
    }
    *out = lines;
    lines = NULL;
out:
    for (int64_t r = 0; lines && r < rows->n; r++)
        free(lines[r]);
    free(lines);
    kd_str_free(&text);
    return rc;
}
