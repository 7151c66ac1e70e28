/* SPDX-License-Identifier: Apache-2.0 */
/* The memory that a training run will need, found by rehearsing it.
 *
 * A rehearsal is a session on the planning backend (tensor/plan.h): models of the same
 * shapes, gradients, optimiser state, and then the code of the loop over the batches
 * that may need most, and what validation runs beside it.  What a step needs is the
 * largest of a few sums, each about linear in its source rows and its target rows; so
 * its largest value is at a corner of the hull of all (source rows, target rows), and
 * the batches that are rehearsed are the largest ones in several directions between
 * "sources only" and "targets only".  Later epochs shuffle the same examples, and a few
 * epochs stand for all.
 *
 * The step arena is then made of one block of the planned size.  If the run does not
 * fit, rehearsals with other options find out which would make it. */
#include "training_session.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"
#include "kdhpc/tensor/plan.h"
#include "kdhpc/train/optim.h"

#include <stdlib.h>
#include <string.h>

enum { N_DIRECTIONS = 9, MAX_EPOCHS = 3, MAX_VALIDATIONS = 2 };

/* Weights of source rows and target rows. */
static const int directions[N_DIRECTIONS][2] = {{1, 0}, {8, 1}, {4, 1}, {2, 1}, {1, 1},
                                                {1, 2}, {1, 4}, {1, 8}, {0, 1}};

/* What one rank takes through the network at a time. */
struct piece {
    struct kd_batch_rules rules;
    int64_t *own; /* [n] */
    int64_t n, src_rows, tgt_rows;
};

struct rehearsal {
    struct kd_run run;
    struct kd_training_options o;
    struct kd_training_setup setup;
    struct kd_session s;
    struct kd_optim *optim;
    struct piece largest[N_DIRECTIONS];
};

/* What a rehearsal found. */
struct found {
    size_t loaded; /* models */
    size_t fixed;  /* ... and gradients and optimiser state */
    size_t step;   /* all that training needs */
    size_t all;    /* ... and validation beside it */
    size_t arena;  /* of a step */
};

/* ---- which pieces ---- */

static int take_piece(struct piece *largest, const struct piece *p)
{
    for (int d = 0; d < N_DIRECTIONS; d++) {
        struct piece *to = &largest[d];
        const int *w = directions[d];

        if (to->n > 0 && w[0] * p->src_rows + w[1] * p->tgt_rows <=
                             w[0] * to->src_rows + w[1] * to->tgt_rows)
            continue;
        free(to->own);
        *to = *p;
        KD_TRY(kd_calloc(p->n, sizeof *to->own, &to->own));
        memcpy(to->own, p->own, (size_t)p->n * sizeof *to->own);
    }
    return KD_OK;
}

/* The pieces of this rank's share of BATCH. */
static int take_batch(struct rehearsal *r, const struct kd_epoch_plan *plan,
                      int64_t batch)
{
    const struct kd_session *s = &r->s;
    int64_t *own = NULL, n = 0, m;
    int rc = KD_OK;

    KD_GO(kd_session_own(s, plan, batch, &own, &n));
    for (int64_t from = 0; from < n; from += m) {
        struct piece p = {.rules = kd_session_rules(s, plan, batch), .own = own + from};

        p.n = m = kd_session_piece(s, own + from, n - from);
        for (int64_t i = from; i < from + m; i++) {
            p.src_rows += s->src_len[own[i]];
            p.tgt_rows +=
                s->tgt_len[own[i]] + (s->tgt_len[own[i]] < p.rules.extra_below);
        }
        KD_GO(take_piece(r->largest, &p));
    }
out:
    free(own);
    return rc;
}

/* Epochs that differ, and that the run comes to. */
static int64_t epochs_of(const struct kd_training_options *o)
{
    int64_t n = o->max_steps > 0 ? 1 : o->num_train_epochs;

    return !o->shuffle ? 1 : n < MAX_EPOCHS ? n : MAX_EPOCHS;
}

static int find_pieces(struct rehearsal *r, int64_t n_epochs)
{
    struct kd_epoch_plan plan = {0};
    int rc = KD_OK;

    for (int64_t e = 0; e < n_epochs; e++) {
        KD_GO(kd_session_plan(&r->s, e, &plan));
        for (int64_t b = 0; b < plan.n_batches; b++)
            KD_GO(take_batch(r, &plan, b));
        kd_plan_free(&plan);
    }
out:
    kd_plan_free(&plan);
    return rc;
}

/* ---- the rehearsal ---- */

static int open_models(const struct kd_session *s, struct rehearsal *r)
{
    struct kd_backend *be = r->run.be;
    struct kd_objective_options objective = s->setup->objective;

    r->setup.student = r->setup.teacher = NULL;
    KD_TRY(kd_model_like(s->setup->student, be, &r->setup.student));
    if (s->setup->teacher)
        KD_TRY(kd_model_like(s->setup->teacher, be, &r->setup.teacher));
    objective.reduce = NULL; /* of one rank */
    return kd_objective_new(&objective, r->setup.student, r->setup.teacher,
                            &r->s.objective);
}

/* The state of what this rank would own. */
static int open_optim(const struct kd_session *s, const struct kd_training_options *o,
                      struct rehearsal *r)
{
    struct kd_optim_options optim = kd_session_optim(s);
    struct kd_params *ps = kd_model_params(r->setup.student);
    struct kd_gradsync *sync = NULL;
    const struct kd_part *owned;
    int64_t n;
    int rc = KD_OK;

    KD_GO(kd_gradsync_plan(s->run->comm, ps, KD_BUCKET_BYTES, o->zero == 1, &sync));
    owned = kd_gradsync_owned(sync, &n);
    rc = kd_optim_new(ps, &optim, owned, n, &r->optim);
out:
    kd_gradsync_free(sync);
    return rc;
}

static int open_rehearsal(const struct kd_session *s,
                          const struct kd_training_options *o, struct rehearsal *r,
                          struct found *found)
{
    struct kd_params *ps;

    *r = (struct rehearsal){.run = *s->run, .o = *o, .setup = *s->setup, .s = *s};
    r->s.run = &r->run;
    r->s.o = &r->o;
    r->s.setup = &r->setup;
    KD_TRY(kd_backend_plan(s->run->be->device, &r->run.be));
    KD_TRY(open_models(s, r));
    found->loaded = kd_plan_bytes(r->run.be);
    ps = kd_model_params(r->setup.student);
    KD_TRY(kd_params_alloc_grads(ps));
    KD_TRY(open_optim(s, o, r));
    found->fixed = kd_plan_bytes(r->run.be);
    return KD_OK;
}

static void close_engine(struct rehearsal *r)
{
    kd_tape_free(r->s.tape);
    kd_arena_free(r->s.arena);
    r->s.tape = NULL;
    r->s.arena = NULL;
}

static void close_rehearsal(struct rehearsal *r)
{
    close_engine(r);
    for (int d = 0; d < N_DIRECTIONS; d++)
        free(r->largest[d].own);
    kd_batch_buffer_free(&r->s.buffer);
    kd_objective_free(r->s.objective);
    kd_optim_free(r->optim);
    kd_model_free(r->setup.student);
    kd_model_free(r->setup.teacher);
    kd_backend_free(r->run.be);
}

/* Steps over the largest pieces with a new arena of ARENA_BYTES and a new tape. */
static int run_pieces(struct rehearsal *r, size_t arena_bytes)
{
    const struct kd_counts counts = {1, 1, 1};
    double terms[KD_MAX_TERMS] = {0};

    close_engine(r);
    kd_plan_restart(r->run.be);
    KD_TRY(kd_tape_new(r->run.be, &r->s.tape));
    KD_TRY(kd_arena_new(r->run.be, &r->s.arena));
    kd_arena_reserve(r->s.arena, arena_bytes);
    for (int d = 0; d < N_DIRECTIONS; d++) {
        const struct piece *p = &r->largest[d];

        if (p->n > 0 &&
            (d == 0 || p->src_rows != p[-1].src_rows || p->tgt_rows != p[-1].tgt_rows))
            KD_TRY(kd_session_run_piece(&r->s, &p->rules, &counts, 1, p->own, p->n,
                                        NULL, NULL, terms));
    }
    return KD_OK;
}

/* Validations beside what training holds; --do_predict loads the best model again. */
static int run_validations(struct rehearsal *r)
{
    struct kd_validation *const v[MAX_VALIDATIONS] = {r->s.validation, r->s.test};
    int64_t batch_size = r->o.eval_batch_size;

    for (int i = 0; i < MAX_VALIDATIONS; i++) {
        struct kd_model *best = NULL, *m = r->setup.student;
        int rc = KD_OK;

        if (!v[i])
            continue;
        if (v[i] == r->s.test)
            KD_TRY(kd_model_like(r->setup.student, r->run.be, &best));
        rc = kd_validation_rehearse(v[i], &r->run, best ? best : m, batch_size);
        kd_model_free(best);
        KD_TRY(rc);
    }
    return KD_OK;
}

static int rehearse(const struct kd_session *s, const struct kd_training_options *o,
                    int64_t n_epochs, struct found *found)
{
    struct rehearsal r;
    int rc = KD_OK;

    KD_GO(open_rehearsal(s, o, &r, found));
    KD_GO(find_pieces(&r, n_epochs));
    KD_GO(run_pieces(&r, 0));
    found->arena = kd_arena_peak_bytes(r.s.arena);
    KD_GO(run_pieces(&r, found->arena));
    found->step = kd_plan_peak_bytes(r.run.be);
    KD_GO(run_validations(&r));
    found->all = kd_plan_peak_bytes(r.run.be);
out:
    close_rehearsal(&r);
    return rc;
}

/* ---- advice ---- */

/* An option that takes another value in each rehearsal. */
struct trial {
    const struct kd_session *s;
    struct kd_training_options o;
    int64_t *value; /* in o */
    bool validation;
};

static int try_value(void *arg, int64_t value, bool *fits)
{
    struct trial *t = arg;
    struct found found;

    *t->value = value;
    KD_TRY(rehearse(t->s, &t->o, 1, &found));
    *fits = kd_memory_need(t->s->run, t->validation ? found.all : found.step) <=
            t->s->memory.have;
    return KD_OK;
}

/* The least max_tokens_per_batch with which the corpus can be planned. */
static int64_t longest_example(const struct kd_session *s)
{
    int64_t longest = 1;

    for (int64_t i = 0; i < s->n; i++) {
        int64_t len = (int64_t)s->src_len[i] + s->tgt_len[i];

        longest = len > longest ? len : longest;
    }
    return longest;
}

static const char *batch_option(const struct kd_training_options *o)
{
    return o->max_tokens_per_batch > 0 ? "max_tokens_per_batch" : "train_batch_size";
}

/* *OUT = batch size with which training fits, with layers recomputed or not, or -1. */
static int smaller_batch(const struct kd_session *s, bool recompute, int64_t *out)
{
    struct trial t = {.s = s, .o = *s->o};
    bool tokens = s->o->max_tokens_per_batch > 0;

    t.o.recompute = recompute;
    t.value = tokens ? &t.o.max_tokens_per_batch : &t.o.train_batch_size;
    return kd_memory_largest(try_value, &t, tokens ? longest_example(s) : 1, *t.value,
                             out);
}

/* Training itself does not fit. */
static int advise_training(struct kd_session *s)
{
    struct kd_memory *m = &s->memory;
    struct trial t = {.s = s, .o = *s->o};
    const char *option = batch_option(s->o);
    bool recompute = false;
    int64_t batch, value = 0;
    char count[KD_COUNT_MAX];

    KD_TRY(smaller_batch(s, s->o->recompute, &batch));
    t.value = &value;
    t.o.recompute = true;
    if (!s->o->recompute)
        KD_TRY(try_value(&t, 0, &recompute));
    if (batch < 0 && !recompute && !s->o->recompute) {
        KD_TRY(smaller_batch(s, true, &batch));
        kd_memory_count(batch, count);
        return batch < 0
                   ? KD_OK
                   : kd_format(m->advice, sizeof m->advice,
                               "lower --%s to %s and set --recompute", option, count);
    }
    kd_memory_count(batch, count);
    if (batch > 0)
        return kd_format(m->advice, sizeof m->advice, "lower --%s to %s%s", option,
                         count, recompute ? " or set --recompute" : "");
    return recompute ? kd_format(m->advice, sizeof m->advice, "set --recompute")
                     : KD_OK;
}

/* Training fits, validation beside it does not. */
static int advise_validation(struct kd_session *s)
{
    struct trial t = {.s = s, .o = *s->o, .validation = true};
    char count[KD_COUNT_MAX];
    int64_t batch;

    t.value = &t.o.eval_batch_size;
    KD_TRY(kd_memory_largest(try_value, &t, 1, s->o->eval_batch_size, &batch));
    if (batch < 0)
        return advise_training(s);
    kd_memory_count(batch, count);
    return kd_format(s->memory.advice, sizeof s->memory.advice,
                     "lower --eval_batch_size to %s", count);
}

static int estimate(struct kd_session *s)
{
    struct kd_memory *m = &s->memory;
    struct found found = {0};

    KD_TRY(rehearse(s, s->o, epochs_of(s->o), &found));
    s->arena_bytes = found.arena;
    m->need = kd_memory_need(s->run, found.all);
    KD_TRY(kd_memory_have(s->run, found.loaded, &m->have));
    KD_TRY(kd_format(m->options, sizeof m->options, "lower --%s%s", batch_option(s->o),
                     s->o->recompute ? "" : " or set --recompute"));
    if (kd_memory_fits(m))
        return KD_OK;
    return kd_memory_need(s->run, found.step) > m->have ? advise_training(s)
                                                        : advise_validation(s);
}

int kd_session_memory(struct kd_session *s)
{
    KD_ALL(s->run->comm, estimate(s));
    return kd_memory_agree(s->run, &s->memory);
}
