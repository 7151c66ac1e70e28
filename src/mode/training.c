/* SPDX-License-Identifier: Apache-2.0 */
/* The training loop.
 *
 * All that decides (plans, counts, checks, stopping) is computed alike on every rank
 * from global facts; a rank differs only in the examples of each batch that it owns.
 * State that a resume needs is in struct progress and in the trainer; everything else
 * is a function of the options and the corpus. */
#include "training.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/signal.h"
#include "kdhpc/comm/watchdog.h"
#include "kdhpc/mode/batch.h"
#include "kdhpc/mode/generation_options.h"
#include "kdhpc/store/checkpoint.h"
#include "run_dir.h"
#include "validation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a checkpoint's state holds. */
struct progress {
    int64_t step;            /* updates done */
    int64_t epoch, in_epoch; /* where the next update starts */
    int64_t tokens;          /* real tokens seen */
    int64_t bad_checks;      /* validations in a row without progress */
    double best;             /* of the validation metric; NAN before the first */
    int64_t validated_step;
    double seconds; /* of the runs before this one */
};

struct session {
    struct kd_run *run;
    const struct kd_training_options *o;
    const struct kd_training_setup *setup;
    struct kd_corpus *corpus;
    int32_t *src_len, *tgt_len; /* [n] */
    int64_t n;                  /* training examples */
    struct kd_objective *objective;
    struct kd_trainer *trainer;
    struct kd_tape *tape;
    struct kd_arena *arena;
    struct kd_batch_buffer buffer;
    struct kd_validation *validation; /* NULL: no validation split */
    struct kd_run_dir *dir;
    char *fingerprint, *model_path;
    struct kd_json *generation; /* generation_config.json to write with the model */
    struct progress at;
    int64_t total_steps;
    double start_s;
    /* speed since the last line of the log */
    double busy_s;
    int64_t busy_tokens;
};

/* The update under way, for the micro-batches. */
struct update_arg {
    struct session *s;
    const struct kd_epoch_plan *plan;
    int64_t first_batch, step;
    struct kd_counts counts;
};

static struct kd_loader_options loader_options(const struct session *s)
{
    const struct kd_training_options *o = s->o;

    return (struct kd_loader_options){.batch_size = o->train_batch_size,
                                      .max_tokens_per_batch = o->max_tokens_per_batch,
                                      .shuffle = o->shuffle,
                                      .sortish = o->sortish_sampler,
                                      .seed = (uint64_t)s->run->common->seed};
}

static int plan_epoch(const struct session *s, int64_t epoch,
                      struct kd_epoch_plan *plan)
{
    struct kd_loader_options lo = loader_options(s);

    return kd_plan_epoch(&lo, s->src_len, s->tgt_len, s->n, epoch, plan);
}

static int64_t updates_of(const struct session *s, const struct kd_epoch_plan *plan)
{
    int64_t accum = s->o->gradient_accumulation_steps;

    return (plan->n_batches + accum - 1) / accum;
}

static int64_t micro_batches(const struct session *s, const struct kd_epoch_plan *plan,
                             int64_t update)
{
    int64_t accum = s->o->gradient_accumulation_steps;
    int64_t left = plan->n_batches - update * accum;

    return left < accum ? left : accum;
}

/* ---- one update ---- */

/* The longest target of a batch, to which the reference would have padded; 0 unless
 * compat. */
static int64_t padded_to(const struct session *s, const struct kd_epoch_plan *plan,
                         int64_t batch)
{
    int64_t longest = 0;

    if (s->o->compat != KD_COMPAT_SEQ2SEQ || !s->setup->teacher)
        return 0;
    for (int64_t i = plan->starts[batch]; i < plan->starts[batch + 1]; i++)
        if (s->tgt_len[plan->order[i]] > longest)
            longest = s->tgt_len[plan->order[i]];
    return longest;
}

static void count_update(struct update_arg *u, int64_t n_micro)
{
    const struct session *s = u->s;

    u->counts = (struct kd_counts){0};
    for (int64_t b = u->first_batch; b < u->first_batch + n_micro; b++) {
        int64_t longest = padded_to(s, u->plan, b);

        for (int64_t i = u->plan->starts[b]; i < u->plan->starts[b + 1]; i++) {
            int64_t e = u->plan->order[i];

            u->counts.labels += s->tgt_len[e];
            u->counts.src_rows += s->src_len[e];
            u->counts.kd_rows += s->tgt_len[e] + (s->tgt_len[e] < longest);
        }
    }
}

/* Examples of BATCH that this rank owns, in batch order, into OWN (room for the batch).
 */
static int own_examples(const struct session *s, const struct kd_epoch_plan *plan,
                        int64_t batch, int64_t *own, int64_t *n_own)
{
    const int64_t *example = plan->order + plan->starts[batch];
    int64_t n = plan->starts[batch + 1] - plan->starts[batch];
    int64_t *cost = NULL;
    int *owner = NULL, rc = KD_OK;

    *n_own = 0;
    KD_GO(kd_calloc(n, sizeof *cost, &cost));
    KD_GO(kd_calloc(n, sizeof *owner, &owner));
    for (int64_t i = 0; i < n; i++)
        cost[i] = (int64_t)s->src_len[example[i]] + s->tgt_len[example[i]];
    KD_GO(kd_deal_by_cost(cost, n, kd_comm_size(s->run->comm), owner));
    for (int64_t i = 0; i < n; i++)
        if (owner[i] == kd_comm_rank(s->run->comm))
            own[(*n_own)++] = example[i];
out:
    free(cost);
    free(owner);
    return rc;
}

static int run_batch(struct update_arg *u, int64_t batch, kd_param_ready_fn ready,
                     void *ready_arg, double *terms)
{
    struct session *s = u->s;
    bool compat = s->o->compat == KD_COMPAT_SEQ2SEQ;
    struct kd_batch_rules rules = {compat, padded_to(s, u->plan, batch)};
    struct kd_ctx ctx = {.be = s->run->be,
                         .arena = s->arena,
                         .tape = s->tape,
                         .train = true,
                         .seed = (uint64_t)s->run->common->seed,
                         .step = (uint32_t)u->step};
    int64_t *own = NULL, n_own;
    struct kd_batch b;
    int rc = KD_OK;

    kd_tape_reset(s->tape);
    kd_arena_reset(s->arena);
    KD_GO(kd_calloc(u->plan->starts[batch + 1] - u->plan->starts[batch], sizeof *own,
                    &own));
    KD_GO(own_examples(s, u->plan, batch, own, &n_own));
    if (n_own > 0)
        KD_GO(kd_batch_build(&s->buffer, s->run->be, s->arena,
                             kd_model_arch(s->setup->student), &rules, s->corpus, own,
                             n_own, &b));
    KD_GO(kd_objective_run(s->objective, &ctx, n_own > 0 ? &b : NULL, &u->counts, ready,
                           ready_arg, terms));
out:
    free(own);
    return rc;
}

static int run_micro(void *arg, int64_t micro, kd_param_ready_fn ready, void *ready_arg,
                     double terms[KD_MAX_TERMS])
{
    struct update_arg *u = arg;

    return run_batch(u, u->first_batch + micro, ready, ready_arg, terms);
}

/* ---- logging ---- */

static int log_update(struct session *s, const struct kd_update *up, double epoch)
{
    struct kd_json *line = kd_json_object();
    double loss = kd_objective_loss(s->objective, up->terms);
    int rc = line ? KD_OK : KD_FAIL(KD_ENOMEM, "no memory for a log line");

    KD_ALL_GO(s->run->comm, rc);
    rc = kd_json_set_int(line, "step", s->at.step);
    rc = rc ? rc : kd_json_set_num(line, "epoch", epoch);
    rc = rc ? rc : kd_json_set_num(line, "loss", loss);
    for (int i = 0; i < KD_N_TERMS; i++)
        rc = rc ? rc : kd_json_set_num(line, kd_term_names[i], up->terms[i]);
    rc = rc ? rc : kd_json_set_num(line, "lr", up->lr);
    rc = rc ? rc : kd_json_set_num(line, "grad_norm", up->grad_norm);
    rc = rc ? rc : kd_json_set_int(line, "tokens", s->at.tokens);
    rc = rc ? rc
            : kd_json_set_num(line, "tokens_per_s",
                              s->busy_s > 0 ? (double)s->busy_tokens / s->busy_s : 0);
    rc = rc ? rc
            : kd_json_set_num(line, "seconds", s->at.seconds + kd_now_s() - s->start_s);
    rc = rc ? rc : kd_json_set_int(line, "mem_bytes", kd_peak_rss_bytes());
    KD_ALL_GO(s->run->comm, rc);
    s->busy_s = 0;
    s->busy_tokens = 0;
    return kd_run_dir_metrics(s->dir, line);
out:
    kd_json_free(line);
    return rc;
}

/* ---- checkpoints ---- */

/* What must agree for a checkpoint to continue this run bit for bit. */
static int make_fingerprint(struct session *s)
{
    const struct kd_training_options *o = s->o;
    struct kd_params *ps = kd_model_params(s->setup->student);
    struct kd_str text = {0};
    int64_t trainable = 0;
    int rc = KD_OK;

    for (int i = 0; i < ps->n; i++)
        trainable += ps->items[i].frozen ? 0 : ps->items[i].count;
    KD_GO(kd_str_printf(&text,
                        "slab %lld trained %lld seed %lld batch %lld/%lld x %lld "
                        "sortish %d shuffle %d adafactor %d n %lld",
                        (long long)ps->n_slab, (long long)trainable,
                        (long long)s->run->common->seed, (long long)o->train_batch_size,
                        (long long)o->max_tokens_per_batch,
                        (long long)o->gradient_accumulation_steps, o->sortish_sampler,
                        o->shuffle, o->adafactor, (long long)s->n));
    for (int64_t i = 0; i < o->corpus.n; i++)
        KD_GO(kd_str_printf(&text, " corpus %s", kd_corpus_digest(s->corpus, i)));
    s->fingerprint = text.data;
    return KD_OK;
out:
    kd_str_free(&text);
    return rc;
}

/* The arrays of a checkpoint: parameters and optimiser state, in host memory. */
static int checkpoint_arrays(struct session *s, struct kd_checkpoint_array out[4])
{
    struct kd_params *ps = kd_model_params(s->setup->student);
    struct kd_optim *optim = kd_trainer_optim(s->trainer);
    int n = 1;

    out[0] = (struct kd_checkpoint_array){"params", ps->values, ps->n_slab};
    for (int k = 0; k < 2; k++) {
        struct kd_checkpoint_array *a = &out[n];

        a->values = kd_optim_state(optim, k, &a->name, &a->n);
        n += a->values != NULL;
    }
    return n;
}

static int state_json(struct session *s, char **out)
{
    const struct progress *at = &s->at;
    struct kd_json *j = kd_json_object();
    int rc = KD_OK;

    KD_GO(kd_json_set_str(j, "fingerprint", s->fingerprint));
    KD_GO(kd_json_set_int(j, "step", at->step));
    KD_GO(kd_json_set_int(j, "epoch", at->epoch));
    KD_GO(kd_json_set_int(j, "in_epoch", at->in_epoch));
    KD_GO(kd_json_set_int(j, "tokens", at->tokens));
    KD_GO(kd_json_set_int(j, "bad_checks", at->bad_checks));
    KD_GO(kd_json_set_int(j, "validated_step", at->validated_step));
    if (!isnan(at->best))
        KD_GO(kd_json_set_num(j, "best", at->best));
    KD_GO(kd_json_set_num(j, "seconds", at->seconds + kd_now_s() - s->start_s));
    KD_GO(kd_json_set_int(j, "skipped", kd_trainer_skipped(s->trainer)));
    KD_GO(kd_json_dump(j, out));
out:
    kd_json_free(j);
    return rc;
}

static int save_checkpoint(struct session *s)
{
    struct kd_checkpoint_array arrays[4];
    int n = checkpoint_arrays(s, arrays), rc = KD_OK;
    char *state = NULL;

    KD_ALL_GO(s->run->comm, state_json(s, &state));
    KD_GO(kd_checkpoint_write(s->run->comm, s->run->common->output_dir, s->at.step,
                              state, arrays, n));
    KD_GO(kd_checkpoint_prune(s->run->comm, s->run->common->output_dir,
                              s->o->save_total_limit));
out:
    free(state);
    return rc;
}

static int restore(struct session *s, const char *state)
{
    struct kd_json *j = NULL;

    KD_TRY(kd_json_parse(state, (int64_t)strlen(state), "the checkpoint's state", &j));
    s->at = (struct progress){.step = kd_json_int(j, "step", 0),
                              .epoch = kd_json_int(j, "epoch", 0),
                              .in_epoch = kd_json_int(j, "in_epoch", 0),
                              .tokens = kd_json_int(j, "tokens", 0),
                              .bad_checks = kd_json_int(j, "bad_checks", 0),
                              .best = kd_json_num(j, "best", NAN),
                              .validated_step = kd_json_int(j, "validated_step", -1),
                              .seconds = kd_json_num(j, "seconds", 0)};
    kd_trainer_set_skipped(s->trainer, kd_json_int(j, "skipped", 0));
    kd_json_free(j);
    return KD_OK;
}

static int resume(struct session *s)
{
    struct kd_checkpoint_array arrays[4];
    char *path = NULL, *state = NULL;
    int n = checkpoint_arrays(s, arrays), rc = KD_OK;

    KD_GO(kd_checkpoint_newest(s->run->comm, s->o->resume, s->fingerprint, &path));
    if (!path)
        KD_GO(
            KD_FAIL(KD_EINPUT,
                    "--resume %s: no valid checkpoint of this run there (same corpus, "
                    "model and batch options are needed)",
                    s->o->resume));
    KD_GO(kd_checkpoint_read(s->run->comm, path, arrays, n, &state));
    KD_ALL_GO(s->run->comm, restore(s, state));
    kd_info("resuming from %s at step %lld", path, (long long)s->at.step);
out:
    free(path);
    free(state);
    return rc;
}

/* ---- validation and the best model ---- */

static int save_model(struct session *s)
{
    const char *tokenizer = s->o->tokenizer ? s->o->tokenizer : s->setup->model_dir;

    return kd_model_save(s->run, s->setup->student, s->model_path,
                         s->o->save_dtype ? KD_BF16 : KD_F32, tokenizer, s->generation);
}

/* Validate, log, keep the best model.  *STOP: patience is over. */
static int validate(struct session *s, bool *stop)
{
    bool lower = s->o->val_metric == KD_VAL_LOSS, better;
    struct kd_json *line = NULL;
    double metric;

    KD_TRY(kd_validation_run(s->validation, s->run, s->setup->student, "val",
                             s->at.step, &line, &metric));
    KD_TRY(kd_run_dir_metrics(s->dir, line));
    better = isnan(s->at.best) || (lower ? metric < s->at.best : metric > s->at.best);
    s->at.validated_step = s->at.step;
    s->at.bad_checks = better ? 0 : s->at.bad_checks + 1;
    if (better) {
        s->at.best = metric;
        KD_TRY(save_model(s));
    }
    *stop = s->o->early_stopping_patience >= 0 &&
            s->at.bad_checks > s->o->early_stopping_patience;
    if (*stop)
        kd_info("no progress in %lld validations: stopping early",
                (long long)s->at.bad_checks);
    return KD_OK;
}

/* Whether update U (from 1) of an epoch of N updates is followed by a validation. */
static bool check_due(const struct session *s, int64_t u, int64_t n)
{
    double interval = s->o->val_check_interval;
    int64_t every =
        interval <= 1.0 ? (int64_t)((double)n * interval) : (int64_t)interval;

    if (!s->validation || interval == 0)
        return false;
    every = every < 1 ? 1 : every;
    return interval <= 1.0 ? u % every == 0 : s->at.step % every == 0;
}

/* ---- the loop ---- */

static void advance(struct session *s, const struct kd_epoch_plan *plan,
                    const struct update_arg *u, double seconds)
{
    int64_t tokens = (int64_t)(u->counts.labels + u->counts.src_rows);

    s->at.step = u->step;
    s->at.tokens += tokens;
    s->busy_tokens += tokens;
    s->busy_s += seconds;
    if (++s->at.in_epoch == updates_of(s, plan)) {
        s->at.epoch++;
        s->at.in_epoch = 0;
    }
}

/* What follows an update: log, checkpoint, validation.  *STOP: end the training. */
static int after_update(struct session *s, const struct kd_update *up,
                        const struct kd_epoch_plan *plan, int64_t update, bool *stop)
{
    const struct kd_training_options *o = s->o;
    int64_t n = updates_of(s, plan);
    double epoch = (double)s->at.epoch + (double)s->at.in_epoch / (double)n;

    if (up->skipped)
        kd_warn("step %lld: loss or gradient not finite, update skipped",
                (long long)s->at.step);
    if (s->at.step == 1 || s->at.step % o->logging_steps == 0 ||
        s->at.step == s->total_steps)
        KD_TRY(log_update(s, up, epoch));
    if (check_due(s, update + 1, n))
        KD_TRY(validate(s, stop));
    if ((o->save_steps > 0 && s->at.step % o->save_steps == 0) || up->stop)
        KD_TRY(save_checkpoint(s));
    if (up->stop)
        return KD_FAIL(KD_ESTOPPED,
                       "stopped on a signal; step %lld is saved: --resume %s goes on",
                       (long long)s->at.step, s->run->common->output_dir);
    return KD_OK;
}

static int train_epoch(struct session *s, struct kd_progress *bar, bool *stop)
{
    struct kd_epoch_plan plan = {0};
    int64_t first = s->at.in_epoch, n;
    int rc = KD_OK;

    KD_ALL_GO(s->run->comm, plan_epoch(s, s->at.epoch, &plan));
    n = updates_of(s, &plan);
    for (int64_t u = first; u < n && s->at.step < s->total_steps && !*stop; u++) {
        struct update_arg arg = {.s = s,
                                 .plan = &plan,
                                 .first_batch = u * s->o->gradient_accumulation_steps,
                                 .step = s->at.step + 1};
        int64_t n_micro = micro_batches(s, &plan, u);
        double start = kd_now_s();
        struct kd_update up;

        count_update(&arg, n_micro);
        KD_GO(kd_trainer_update(s->trainer, arg.step, n_micro, run_micro, &arg, &up));
        advance(s, &plan, &arg, kd_now_s() - start);
        kd_progress_update(bar, s->at.step, "loss %.4f  %.0f tokens/s",
                           kd_objective_loss(s->objective, up.terms),
                           s->busy_s > 0 ? (double)s->busy_tokens / s->busy_s : 0);
        KD_GO(after_update(s, &up, &plan, u, stop));
    }
out:
    kd_plan_free(&plan);
    return rc;
}

static int loop(struct session *s)
{
    struct kd_progress bar = kd_progress_start("train", s->total_steps, s->at.step);
    bool stop = false, ignored;
    int rc = KD_OK;

    while (rc == KD_OK && s->at.step < s->total_steps && !stop)
        rc = train_epoch(s, &bar, &stop);
    kd_progress_end(&bar);
    KD_TRY(rc);
    if (!s->validation)
        KD_TRY(save_model(s));
    else if (s->at.validated_step != s->at.step)
        KD_TRY(validate(s, &ignored));
    return KD_OK;
}

/* ---- set-up ---- */

static int count_steps(struct session *s)
{
    struct kd_epoch_plan plan = {0};

    if (s->o->max_steps > 0) {
        s->total_steps = s->o->max_steps;
        return KD_OK;
    }
    for (int64_t e = 0; e < s->o->num_train_epochs; e++) {
        KD_TRY(plan_epoch(s, e, &plan));
        s->total_steps += updates_of(s, &plan);
        kd_plan_free(&plan);
    }
    return KD_OK;
}

static int read_lengths(struct session *s)
{
    KD_TRY(kd_calloc(s->n, sizeof *s->src_len, &s->src_len));
    KD_TRY(kd_calloc(s->n, sizeof *s->tgt_len, &s->tgt_len));
    for (int64_t i = 0; i < s->n; i++) {
        int64_t len;

        kd_corpus_source(s->corpus, i, &len);
        s->src_len[i] = (int32_t)len;
        kd_corpus_target(s->corpus, i, &len);
        s->tgt_len[i] = (int32_t)len;
    }
    return KD_OK;
}

static int open_corpus(struct session *s)
{
    const struct kd_str_list *c = &s->o->corpus;
    struct kd_comm *comm = s->run->comm;

    KD_TRY(kd_corpus_open(comm, c->v, c->n, "train", &s->corpus));
    KD_ALL(comm, kd_model_fits_corpus(s->setup->student, s->corpus, c->v[0]));
    s->n = kd_corpus_size(s->corpus);
    if (s->o->n_train >= 0 && s->o->n_train < s->n)
        s->n = s->o->n_train;
    if (s->n == 0)
        return KD_FAIL(KD_EINPUT, "%s: the training split has no examples", c->v[0]);
    KD_ALL(comm, read_lengths(s));
    KD_ALL(comm, count_steps(s));
    return kd_validation_open(s->run, s->o, s->setup, "val", s->o->n_val,
                              &s->validation);
}

static int reduce(void *comm, double *v, int64_t n)
{
    return kd_allreduce_f64(comm, v, n, KD_SUM);
}

static int open_engine(struct session *s)
{
    const struct kd_training_options *o = s->o;
    struct kd_backend *be = s->run->be;
    struct kd_params *ps = kd_model_params(s->setup->student);
    struct kd_trainer_options to = {.learning_rate = o->learning_rate,
                                    .warmup_steps = o->warmup_steps,
                                    .total_steps = (double)s->total_steps,
                                    .max_grad_norm = o->max_grad_norm,
                                    .schedule = (enum kd_schedule)o->lr_scheduler,
                                    .max_skipped_steps = o->max_skipped_steps,
                                    .optim = {o->adafactor,
                                              o->compat == KD_COMPAT_SEQ2SEQ,
                                              o->weight_decay, o->adam_epsilon}};
    struct kd_objective_options objective = s->setup->objective;
    int rc;

    objective.reduce = reduce;
    objective.reduce_arg = s->run->comm;
    rc = kd_params_alloc_grads(ps);
    rc = rc ? rc
            : kd_objective_new(&objective, s->setup->student, s->setup->teacher,
                               &s->objective);
    rc = rc ? rc : kd_tape_new(be, &s->tape);
    rc = rc ? rc : kd_arena_new(be, &s->arena);
    KD_ALL(s->run->comm, rc);
    return kd_trainer_new(s->run->comm, ps, &to, &s->trainer);
}

static int open_dir(struct session *s)
{
    struct kd_str digests = {0};
    char model[17];
    int rc = KD_OK;

    KD_ALL_GO(s->run->comm, kd_model_dir_digest(s->setup->model_dir, model));
    KD_ALL_GO(s->run->comm, kd_str_printf(&digests, "# digest model %s %s\n", model,
                                          s->setup->model_dir));
    for (int64_t i = 0; i < s->o->corpus.n; i++)
        KD_ALL_GO(s->run->comm,
                  kd_str_printf(&digests, "# digest corpus %s %s\n",
                                kd_corpus_digest(s->corpus, i), s->o->corpus.v[i]));
    KD_GO(
        kd_run_dir_open(s->run, digests.data, s->o->resume ? s->at.step : -1, &s->dir));
out:
    kd_str_free(&digests);
    return rc;
}

static int open_session(struct session *s)
{
    struct kd_comm *comm = s->run->comm;

    KD_TRY(open_corpus(s));
    KD_TRY(open_engine(s));
    KD_ALL(comm, make_fingerprint(s));
    KD_ALL(comm, kd_path_join(s->run->common->output_dir, "model", &s->model_path));
    KD_ALL(comm, kd_generation_json(s->setup->model_dir, &s->generation));
    if (s->o->resume)
        KD_TRY(resume(s));
    KD_TRY(open_dir(s));
    kd_info("%lld parameters, %lld examples, %lld updates, %d ranks",
            (long long)kd_params_count(kd_model_params(s->setup->student)),
            (long long)s->n, (long long)s->total_steps, kd_comm_size(comm));
    return KD_OK;
}

static void close_session(struct session *s)
{
    kd_run_dir_close(s->dir);
    kd_validation_close(s->validation);
    kd_objective_free(s->objective);
    kd_trainer_free(s->trainer);
    kd_tape_free(s->tape);
    kd_arena_free(s->arena);
    kd_batch_buffer_free(&s->buffer);
    kd_corpus_close(s->corpus);
    kd_json_free(s->generation);
    free(s->src_len);
    free(s->tgt_len);
    free(s->fingerprint);
    free(s->model_path);
}

/* The best model on the test split. */
static int predict(struct session *s)
{
    struct kd_validation *test = NULL;
    struct kd_model *best = NULL;
    struct kd_json *line = NULL;
    double metric;
    int rc = KD_OK;

    KD_GO(kd_validation_open(s->run, s->o, s->setup, "test", s->o->n_test, &test));
    if (!test)
        KD_GO(KD_FAIL(KD_EINPUT, "--do_predict: the corpus has no test split"));
    KD_GO(kd_model_load(s->run, s->model_path, &best));
    KD_GO(kd_validation_run(test, s->run, best, "test", s->at.step, &line, &metric));
    KD_GO(kd_run_dir_metrics(s->dir, line));
out:
    kd_validation_close(test);
    kd_model_free(best);
    return rc;
}

void kd_training_prepare(const struct kd_training_options *o, struct kd_model *student)
{
    bool all_off = o->dropout == 0 && isnan(o->attention_dropout);

    kd_model_set_dropout(student, o->dropout, all_off ? 0 : o->attention_dropout);
    if (o->freeze_embeds)
        kd_model_freeze_embeds(student);
    if (o->freeze_encoder)
        kd_model_freeze_encoder(student);
}

int kd_train(struct kd_run *run, const struct kd_training_options *o,
             const struct kd_training_setup *setup)
{
    struct session s = {.run = run,
                        .o = o,
                        .setup = setup,
                        .start_s = kd_now_s(),
                        .at = {.best = NAN, .validated_step = -1}};
    int rc = KD_OK;

    kd_stop_install();
    KD_GO(open_session(&s));
    KD_GO(loop(&s));
    if (o->do_predict)
        KD_GO(predict(&s));
out:
    close_session(&s);
    return rc;
}
