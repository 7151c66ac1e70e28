/* SPDX-License-Identifier: Apache-2.0 */
/* The training loop.
 *
 * All that decides (plans, counts, checks, stopping) is computed alike on every rank
 * from global facts; a rank differs only in the examples of each batch that it owns.
 * State that a resume needs is in struct kd_training_progress and in the trainer
 * (training_checkpoint.c); everything else is a function of the options and the corpus.
 */
#include "training_session.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/comm/watchdog.h"
#include "kdhpc/mode/batch.h"
#include "kdhpc/mode/generation_options.h"

#include <math.h>
#include <stdlib.h>

/* The update under way, for the micro-batches. */
struct update_arg {
    struct kd_session *s;
    const struct kd_epoch_plan *plan;
    int64_t first_batch, step;
    struct kd_counts counts;
    bool failed; /* on this rank */
};

static struct kd_loader_options loader_options(const struct kd_session *s)
{
    const struct kd_training_options *o = s->o;

    return (struct kd_loader_options){.batch_size = o->train_batch_size,
                                      .max_tokens_per_batch = o->max_tokens_per_batch,
                                      .shuffle = o->shuffle,
                                      .sortish = o->sortish_sampler,
                                      .seed = (uint64_t)s->run->common->seed};
}

int kd_session_plan(const struct kd_session *s, int64_t epoch,
                    struct kd_epoch_plan *plan)
{
    struct kd_loader_options lo = loader_options(s);

    return kd_plan_epoch(&lo, s->src_len, s->tgt_len, s->n, epoch, plan);
}

static int64_t updates_of(const struct kd_session *s, const struct kd_epoch_plan *plan)
{
    int64_t accum = s->o->gradient_accumulation_steps;

    return (plan->n_batches + accum - 1) / accum;
}

static int64_t micro_batches(const struct kd_session *s,
                             const struct kd_epoch_plan *plan, int64_t update)
{
    int64_t accum = s->o->gradient_accumulation_steps;
    int64_t left = plan->n_batches - update * accum;

    return left < accum ? left : accum;
}

/* ---- one update ---- */

/* The longest target of a batch, to which the reference would have padded; 0 unless
 * compat. */
static int64_t padded_to(const struct kd_session *s, const struct kd_epoch_plan *plan,
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
    const struct kd_session *s = u->s;
    const struct kd_arch *arch = kd_model_arch(s->setup->student);

    u->counts = (struct kd_counts){0};
    for (int64_t b = u->first_batch; b < u->first_batch + n_micro; b++) {
        struct kd_batch_rules rules = kd_session_rules(s, u->plan, b);

        for (int64_t i = u->plan->starts[b]; i < u->plan->starts[b + 1]; i++) {
            int64_t e = u->plan->order[i];

            u->counts.labels += s->tgt_len[e];
            u->counts.src_rows += s->src_len[e];
            u->counts.kd_rows += (double)kd_batch_kd_rows(arch, &rules, s->corpus, e);
        }
    }
    if (u->counts.kd_rows < 1) /* targets of one id, whose only input is padding */
        u->counts.kd_rows = 1;
}

int kd_session_own(const struct kd_session *s, const struct kd_epoch_plan *plan,
                   int64_t batch, int64_t **own, int64_t *n_own)
{
    const int64_t *example = plan->order + plan->starts[batch];
    int64_t n = plan->starts[batch + 1] - plan->starts[batch];
    int64_t *cost = NULL;
    int *owner = NULL, rc = KD_OK;

    *n_own = 0;
    KD_GO(kd_calloc(n, sizeof **own, own));
    KD_GO(kd_calloc(n, sizeof *cost, &cost));
    KD_GO(kd_calloc(n, sizeof *owner, &owner));
    for (int64_t i = 0; i < n; i++)
        cost[i] = (int64_t)s->src_len[example[i]] + s->tgt_len[example[i]];
    KD_GO(kd_deal_by_cost(cost, n, kd_comm_size(s->run->comm), owner));
    for (int64_t i = 0; i < n; i++)
        if (owner[i] == kd_comm_rank(s->run->comm))
            (*own)[(*n_own)++] = example[i];
out:
    free(cost);
    free(owner);
    return rc;
}

/* Tokens that a CPU takes through the network at a time: products are as fast as with
 * more of them, and memory for activations no longer grows with the batch. */
enum { CPU_PIECE_TOKENS = 2048 };

/* Pieces of about equal tokens.  One piece where compat normalises over all of a batch.
 */
int64_t kd_session_piece(const struct kd_session *s, const int64_t *own, int64_t n)
{
    int64_t total = 0, sum = 0, pieces, taken = 0;

    for (int64_t i = 0; i < n; i++)
        total += (int64_t)s->src_len[own[i]] + s->tgt_len[own[i]];
    if (s->run->be->device != KD_CPU || s->o->compat != KD_COMPAT_NONE)
        return n;
    pieces = (total + CPU_PIECE_TOKENS - 1) / CPU_PIECE_TOKENS;
    while (taken < n && (taken == 0 || sum * pieces < total)) {
        sum += (int64_t)s->src_len[own[taken]] + s->tgt_len[own[taken]];
        taken++;
    }
    return taken;
}

struct kd_batch_rules kd_session_rules(const struct kd_session *s,
                                       const struct kd_epoch_plan *plan, int64_t batch)
{
    return (struct kd_batch_rules){s->o->compat == KD_COMPAT_SEQ2SEQ,
                                   padded_to(s, plan, batch)};
}

int kd_session_run_piece(struct kd_session *s, const struct kd_batch_rules *rules,
                         const struct kd_counts *counts, int64_t step,
                         const int64_t *own, int64_t n, kd_param_ready_fn ready,
                         void *ready_arg, double terms[KD_MAX_TERMS])
{
    struct kd_ctx ctx = {.be = s->run->be,
                         .arena = s->arena,
                         .tape = s->tape,
                         .train = true,
                         .seed = (uint64_t)s->run->common->seed,
                         .step = (uint32_t)step,
                         .dtype = s->run->dtype,
                         .recompute = s->o->recompute};
    struct kd_batch b = {0};
    int rc = KD_OK, ran;

    kd_tape_reset(s->tape);
    kd_arena_reset(s->arena);
    if (n > 0)
        rc = kd_batch_build(&s->buffer, s->run->be, s->arena,
                            kd_model_arch(s->setup->student), rules, s->corpus, own, n,
                            &b);
    ran = kd_objective_run(s->objective, &ctx, !rc && n > 0 ? &b : NULL, counts, ready,
                           ready_arg, terms);
    return rc ? rc : ran;
}

/* This rank's share of a batch, piece by piece.  The objective may exchange statistics,
 * so every rank runs it for every batch: with nothing, if it has no share or has failed
 * before. */
static int run_micro(void *arg, int64_t micro, kd_param_ready_fn ready, void *ready_arg,
                     double terms[KD_MAX_TERMS])
{
    struct update_arg *u = arg;
    int64_t batch = u->first_batch + micro, n = 0, from = 0;
    struct kd_batch_rules rules = kd_session_rules(u->s, u->plan, batch);
    int64_t *own = NULL;
    int rc = KD_OK, ran = KD_OK;

    if (!u->failed)
        rc = kd_session_own(u->s, u->plan, batch, &own, &n);
    if (rc)
        n = 0;
    do {
        int64_t m = n > 0 ? kd_session_piece(u->s, own + from, n - from) : 0;

        ran = kd_session_run_piece(u->s, &rules, &u->counts, u->step,
                                   n > 0 ? own + from : NULL, m,
                                   from + m == n ? ready : NULL, ready_arg, terms);
        from += m;
    } while (!ran && from < n);
    free(own);
    rc = rc ? rc : ran;
    u->failed = u->failed || rc;
    return rc;
}

/* ---- logging ---- */

static int log_update(struct kd_session *s, const struct kd_update *up, double epoch)
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

/* ---- validation and the best model ---- */

/* As transformers counts: the PATIENCE-th validation in a row without progress, but not
 * before the first, ends the training. */
static bool patience_over(const struct kd_session *s)
{
    int64_t patience = s->o->early_stopping_patience;

    return patience >= 0 && s->at.bad_checks >= (patience ? patience : 1);
}

/* Validate, log, keep the best model.  *STOP: patience is over. */
static int validate(struct kd_session *s, bool *stop)
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
        KD_TRY(kd_session_save_model(s, s->setup->student));
    }
    *stop = patience_over(s);
    if (*stop)
        kd_info("no progress in %lld validations: stopping early",
                (long long)s->at.bad_checks);
    return KD_OK;
}

/* Whether update U (from 1) of an epoch of N updates is followed by a validation. */
static bool check_due(const struct kd_session *s, int64_t u, int64_t n)
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

static void advance(struct kd_session *s, const struct kd_epoch_plan *plan,
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
static int after_update(struct kd_session *s, const struct kd_update *up,
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
        KD_TRY(kd_session_save(s));
    if (up->stop)
        return KD_FAIL(KD_ESTOPPED,
                       "stopped on a signal; step %lld is saved: --resume %s goes on",
                       (long long)s->at.step, s->run->common->output_dir);
    return KD_OK;
}

static int train_epoch(struct kd_session *s, struct kd_progress *bar, bool *stop)
{
    struct kd_epoch_plan plan = {0};
    int64_t first = s->at.in_epoch, n;
    int rc = KD_OK;

    KD_ALL_GO(s->run->comm, kd_session_plan(s, s->at.epoch, &plan));
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

static int loop(struct kd_session *s)
{
    struct kd_progress bar = kd_progress_start("train", s->total_steps, s->at.step);
    bool stop = patience_over(s), ignored; /* a resumed run may have ended so */
    int rc = KD_OK;

    while (rc == KD_OK && s->at.step < s->total_steps && !stop)
        rc = train_epoch(s, &bar, &stop);
    kd_progress_end(&bar);
    KD_TRY(rc);
    if (!s->validation)
        KD_TRY(kd_session_save_model(s, s->setup->student));
    else if (s->at.validated_step != s->at.step)
        KD_TRY(validate(s, &ignored));
    return KD_OK;
}

/* ---- set-up ---- */

static int count_steps(struct kd_session *s)
{
    struct kd_epoch_plan plan = {0};

    if (s->o->max_steps > 0) {
        s->total_steps = s->o->max_steps;
        return KD_OK;
    }
    for (int64_t e = 0; e < s->o->num_train_epochs; e++) {
        KD_TRY(kd_session_plan(s, e, &plan));
        s->total_steps += updates_of(s, &plan);
        kd_plan_free(&plan);
    }
    return KD_OK;
}

static int read_lengths(struct kd_session *s)
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

/* A corpus of other ids trains without an error, and in vain.  A model may come without
 * a tokenizer. */
static int check_tokenizer(const struct kd_session *s, const char *corpus_name)
{
    const char *dir = s->o->tokenizer ? s->o->tokenizer : s->setup->model_dir;
    const char *files[2];
    struct kd_tokenizer *t;

    KD_TRY(kd_tokenizer_files(dir, files, 2));
    if (!files[0])
        return KD_OK;
    KD_TRY(kd_tokenizer_load(dir, &t));
    kd_corpus_warn_of_tokenizer(s->corpus, corpus_name, t);
    kd_tokenizer_free(t);
    return KD_OK;
}

static int open_corpus(struct kd_session *s)
{
    const struct kd_str_list *c = &s->o->corpus;
    struct kd_comm *comm = s->run->comm;

    KD_TRY(kd_corpus_open(comm, c->v, c->n, "train", &s->corpus));
    KD_ALL(comm, kd_model_fits_corpus(s->setup->student, s->corpus, c->v[0]));
    if (s->setup->teacher)
        KD_ALL(comm, kd_model_fits_corpus(s->setup->teacher, s->corpus, c->v[0]));
    KD_ALL(comm, check_tokenizer(s, c->v[0]));
    s->n = kd_corpus_size(s->corpus);
    if (s->o->n_train >= 0 && s->o->n_train < s->n)
        s->n = s->o->n_train;
    if (s->n == 0)
        return KD_FAIL(KD_EINPUT, "%s: the training split has no examples", c->v[0]);
    KD_ALL(comm, read_lengths(s));
    KD_ALL(comm, count_steps(s));
    KD_TRY(
        kd_validation_open(s->run, s->o, s->setup, "val", s->o->n_val, &s->validation));
    if (!s->o->do_predict)
        return KD_OK;
    if (s->o->n_test == 0)
        return KD_FAIL(KD_EUSAGE, "--do_predict with --n_test 0 has nothing to do");
    KD_TRY(kd_validation_open(s->run, s->o, s->setup, "test", s->o->n_test, &s->test));
    return s->test
               ? KD_OK
               : KD_FAIL(KD_EINPUT, "--do_predict needs a test split, and %s has none",
                         c->v[0]);
}

static int reduce(void *comm, double *v, int64_t n)
{
    return kd_allreduce_f64(comm, v, n, KD_SUM);
}

struct kd_optim_options kd_session_optim(const struct kd_session *s)
{
    const struct kd_training_options *o = s->o;

    return (struct kd_optim_options){.adafactor = o->adafactor,
                                     .compat = o->compat == KD_COMPAT_SEQ2SEQ,
                                     .weight_decay = o->weight_decay,
                                     .eps = o->adam_epsilon,
                                     .moments = o->moments ? KD_BF16 : KD_F32,
                                     .seed = (uint64_t)s->run->common->seed};
}

/* Where decoder inputs begin with the last label, a language, and no file says what
 * outputs begin with: with the label that all targets end in, if there is one. */
static int settle_start(struct kd_session *s)
{
    static const char key[] = "decoder_start_token_id";
    struct kd_json *config = kd_model_config(s->setup->student);
    int64_t len, start = -1;

    if (kd_model_arch(s->setup->student)->start_rule != KD_START_LAST_LABEL ||
        kd_json_has(config, key) || (s->generation && kd_json_has(s->generation, key)))
        return KD_OK;
    for (int64_t i = 0; i < s->n; i++) {
        const int32_t *ids = kd_corpus_target(s->corpus, i, &len);

        if (len == 0 || (start >= 0 && ids[len - 1] != start))
            return KD_OK;
        start = ids[len - 1];
    }
    kd_info("outputs will begin with id %lld, which all targets end in",
            (long long)start);
    kd_validation_set_start(s->validation, (int32_t)start);
    kd_validation_set_start(s->test, (int32_t)start);
    if (s->generation)
        KD_TRY(kd_json_set_int(s->generation, key, start));
    return kd_json_set_int(config, key, start);
}

static int open_engine(struct kd_session *s)
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
                                    .zero = o->zero == 1,
                                    .optim = kd_session_optim(s)};
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
    kd_arena_reserve(s->arena, s->arena_bytes);
    return kd_trainer_new(s->run->comm, ps, &to, &s->trainer);
}

/* A comment line of run.yaml: what the model of DIR was. */
static int add_model_digest(struct kd_str *digests, const char *what, const char *dir)
{
    char hex[17];

    KD_TRY(kd_model_dir_digest(dir, hex));
    return kd_str_printf(digests, "# digest %s %s %s\n", what, hex, dir);
}

static int digest_inputs(struct kd_session *s, struct kd_str *digests)
{
    const struct kd_training_setup *setup = s->setup;

    KD_TRY(add_model_digest(digests, "model", setup->model_dir));
    if (setup->teacher_dir && setup->teacher_dir != setup->model_dir)
        KD_TRY(add_model_digest(digests, "teacher", setup->teacher_dir));
    for (int64_t i = 0; i < s->o->corpus.n; i++)
        KD_TRY(kd_str_printf(digests, "# digest corpus %s %s\n",
                             kd_corpus_digest(s->corpus, i), s->o->corpus.v[i]));
    return KD_OK;
}

static int open_dir(struct kd_session *s)
{
    struct kd_str digests = {0};
    int rc = KD_OK;

    KD_ALL_GO(s->run->comm, digest_inputs(s, &digests));
    KD_GO(
        kd_run_dir_open(s->run, digests.data, s->o->resume ? s->at.step : -1, &s->dir));
out:
    kd_str_free(&digests);
    return rc;
}

/* The settings that go with the model are those that validation uses. */
static int open_generation(struct kd_session *s)
{
    struct kd_json *config = kd_model_config(s->setup->student);

    KD_TRY(kd_generation_json(s->setup->model_dir, &s->generation));
    return kd_task_apply(config, s->o->task, s->generation ? s->generation : config);
}

static int open_session(struct kd_session *s)
{
    struct kd_comm *comm = s->run->comm;

    KD_TRY(open_corpus(s));
    KD_ALL(comm, open_generation(s));
    KD_ALL(comm, settle_start(s));
    KD_TRY(kd_session_memory(s));
    KD_TRY(open_engine(s));
    KD_ALL(comm, kd_session_fingerprint(s));
    KD_ALL(comm, kd_path_join(s->run->common->output_dir, "model", &s->model_path));
    if (s->o->resume)
        KD_TRY(kd_session_resume(s));
    KD_TRY(open_dir(s));
    KD_TRY(kd_session_drop_newer(s));
    kd_info("%lld parameters, %lld examples, %lld updates; %.1f MB of optimiser state "
            "a rank",
            (long long)kd_params_count(kd_model_params(s->setup->student)),
            (long long)s->n, (long long)s->total_steps,
            (double)kd_optim_bytes(kd_trainer_optim(s->trainer)) / 1e6);
    kd_memory_tell(&s->memory);
    return KD_OK;
}

static void close_session(struct kd_session *s)
{
    kd_run_dir_close(s->dir);
    kd_validation_close(s->validation);
    kd_validation_close(s->test);
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
static int predict(struct kd_session *s)
{
    struct kd_model *best = NULL;
    struct kd_json *line = NULL;
    double metric;
    int rc = KD_OK;

    KD_GO(kd_model_load(s->run, s->model_path, &best));
    KD_GO(kd_validation_run(s->test, s->run, best, "test", s->at.step, &line, &metric));
    KD_GO(kd_run_dir_metrics(s->dir, line));
out:
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
    struct kd_session s = {.run = run,
                           .o = o,
                           .setup = setup,
                           .start_s = kd_now_s(),
                           .at = {.best = NAN, .validated_step = -1}};
    int rc = KD_OK;

    KD_GO(open_session(&s));
    KD_GO(loop(&s));
    kd_debug("steps used %zu bytes of arena and %zu bytes of other gradients",
             kd_arena_peak_bytes(s.arena), kd_tape_peak_bytes(s.tape));
    if (s.test)
        KD_GO(predict(&s));
out:
    rc = kd_memory_explain(rc, &s.memory);
    close_session(&s);
    return rc;
}
