/* SPDX-License-Identifier: Apache-2.0 */
/* Benchmarks of the engine: updates of fine-tuning and of distillation, and beam
 * search, on a random model of BART's shape and examples as long as real text.
 *
 * Updates run as training runs them: batches are formed globally, split over the ranks
 * by tokens, built in the step arena, and go through objective and trainer.  The bound
 * of each figure is the rate at which its multiplications would run at the peak of
 * products (bench_peak), so its share is what is called MFU on GPUs: products,
 * attention's two by the pairs that its mask leaves, and the head; backward is twice
 * the forward pass but for what is frozen, and the teacher has only a forward.
 *
 * Memory of a device is what is taken from it since the benchmark began, asked for
 * after every update that warms up (asking takes time) and at the end: parameters,
 * optimiser, activations, workspaces, and what lies unused between them.  On a CPU
 * nothing is said of it. */
#include "bench.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/rng.h"
#include "kdhpc/comm/watchdog.h"
#include "kdhpc/distill/objective.h"
#include "kdhpc/mode/generation_options.h"
#include "kdhpc/train/loader.h"
#include "kdhpc/train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { POSITIONS = 1024 }; /* of BART; more where outputs are longer */

/* ---- multiplications ---- */

/* Of rows through one layer of a stack, in multiply-adds by d^2: four products of
 * self-attention, two of the decoder's over the source, and the feed-forward pair. */
enum { ENCODER_ROW = 12, DECODER_ROW = 14, CROSS_ROW = 2 };

/* Passes of an update through its parts, in forward passes. */
struct passes {
    double encoder, decoder, source; /* source: keys and values of it, in the decoder */
    double head;
};

static const struct passes forward_only = {1, 1, 1, 1}, trained = {3, 3, 3, 3},
                           decoder_trained = {1, 3, 2, 2}; /* the encoder is frozen */

/* Multiply-adds over an example with S and T tokens. */
static double example_work(const struct kd_arch *a, const struct passes *p, int64_t s,
                           int64_t t)
{
    double d = (double)a->d_model, rs = (double)s, rt = (double)t;
    double enc = a->n_enc * (ENCODER_ROW * d * d * rs + 2 * d * rs * rs);
    double dec =
        a->n_dec * (DECODER_ROW * d * d * rt + d * rt * (rt + 1) + 2 * d * rt * rs);
    double source = a->n_dec * CROSS_ROW * d * d * rs;

    return p->encoder * enc + p->decoder * dec + p->source * source +
           p->head * (double)a->vocab_size * d * rt;
}

/* Of LEN decoder steps with a cache for a source of S tokens: one row at the first,
 * ROWS at the others. */
static double decode_work(const struct kd_arch *a, int64_t s, int64_t rows, int64_t len)
{
    double d = (double)a->d_model, work = example_work(a, &forward_only, s, 0);

    for (int64_t t = 1; t <= len; t++)
        work += (double)(t == 1 ? 1 : rows) *
                (a->n_dec * (DECODER_ROW * d * d + 2 * d * (double)(t + s)) +
                 (double)a->vocab_size * d);
    return work;
}

/* Add RATE = UNITS / SECONDS, bounded by UNITS over the time of WORK at the peak. */
static int add_figure(struct bench_table *t, const struct bench_config *c,
                      const struct kd_arch *a, double units, double seconds,
                      double work)
{
    double at_peak_s = 2e-9 * work / t->peak;
    char batch[32];

    bench_batch_text(c, batch, sizeof batch);
    return bench_add(t, units / seconds, "tokens/s", units / at_peak_s,
                     "d %lld, %d+%d layers, V %lld, %s", (long long)c->d_model,
                     a->n_enc, a->n_dec, (long long)a->vocab_size, batch);
}

/* ---- memory of the device ---- */

struct memory {
    size_t before, least; /* free bytes at the start, and at the worst moment seen */
};

static int look_at_memory(struct kd_run *run, struct memory *m)
{
    size_t left, total;

    KD_TRY(run->be->ops->mem_info(run->be, &left, &total));
    if (m->before == 0)
        m->before = m->least = left;
    m->least = left < m->least ? left : m->least;
    return KD_OK;
}

/* The row of the rank that took most; none on CPUs.  Collective. */
static int add_memory(struct kd_run *run, struct bench_table *t, const struct memory *m)
{
    double gb = 1e-9 * (double)(m->before - m->least);

    if (run->be->device == KD_CPU)
        return KD_OK;
    KD_TRY(kd_allreduce_f64(run->comm, &gb, 1, KD_MAX));
    KD_ALL(run->comm, bench_add(t, gb, "GB", NAN, "device memory"));
    return KD_OK;
}

/* ---- models ---- */

static int make_model(struct kd_run *run, const struct bench_config *c,
                      struct kd_model **out)
{
    struct kd_json *config = NULL;
    struct kd_str text = {0};
    int64_t positions = c->gen_length + 2 > POSITIONS ? c->gen_length + 2 : POSITIONS;
    int rc = KD_OK;

    KD_GO(kd_str_printf(
        &text,
        "{\"model_type\": \"bart\", \"d_model\": %lld, \"encoder_layers\": %lld, "
        "\"decoder_layers\": %lld, \"encoder_attention_heads\": %lld, "
        "\"decoder_attention_heads\": %lld, \"encoder_ffn_dim\": %lld, "
        "\"decoder_ffn_dim\": %lld, \"vocab_size\": %lld, "
        "\"max_position_embeddings\": %lld, \"dropout\": 0.1}",
        (long long)c->d_model, (long long)c->encoder_layers,
        (long long)c->decoder_layers, (long long)c->n_heads, (long long)c->n_heads,
        (long long)(4 * c->d_model), (long long)(4 * c->d_model),
        (long long)c->vocab_size, (long long)positions));
    KD_GO(kd_json_parse(text.data, text.len, "the benchmark's model", &config));
    KD_GO(kd_model_new(run->be, run->dtype, config, out));
    rc = kd_model_init(*out, (uint64_t)run->common->seed);
out:
    kd_json_free(config);
    kd_str_free(&text);
    return rc;
}

/* A student of TEACHER with all encoder layers and fewer decoder layers. */
static int make_student(const struct bench_config *c, struct kd_model *teacher,
                        struct kd_model **out)
{
    const struct kd_arch *a = kd_model_arch(teacher);
    int n_dec = (int)c->student_decoder_layers, rc = KD_OK;
    int64_t *enc = NULL, *dec = NULL;
    bool in_table;

    KD_GO(kd_calloc(a->n_enc, sizeof *enc, &enc));
    KD_GO(kd_calloc(n_dec, sizeof *dec, &dec));
    KD_GO(kd_layers_to_copy(a->n_enc, a->n_enc, false, enc, &in_table));
    KD_GO(kd_layers_to_copy(n_dec, a->n_dec, false, dec, &in_table));
    KD_GO(kd_student_new(teacher, enc, a->n_enc, dec, n_dec, out));
    kd_model_freeze_all(teacher);
out:
    free(enc);
    free(dec);
    return rc;
}

/* ---- updates ---- */

struct updates {
    struct kd_run *run;
    const struct bench_config *c;
    struct kd_model *student, *teacher; /* teacher NULL: fine-tuning */
    struct kd_objective *objective;
    struct kd_trainer *trainer;
    struct kd_tape *tape;
    struct kd_arena *arena;
    struct bench_plan plan;
    struct memory memory;
    int64_t step; /* under way, from 1 */
    uint64_t seed;
    double *times; /* [steps] seconds of each, and what they worked on in all */
    double tokens, work;
};

/* One side of a share: [rows] arrays in backend memory. */
struct side {
    struct kd_seqs seqs;
    const int32_t *ids, *pos, *dec_ids;
    const uint64_t *keys;
};

static int upload(struct updates *u, const void *host, size_t bytes, void *out)
{
    void *dev;

    KD_TRY(kd_arena_alloc(u->arena, bytes, &dev));
    KD_TRY(u->run->be->ops->upload(u->run->be, dev, host, bytes));
    memcpy(out, &dev, sizeof dev);
    return KD_OK;
}

/* Examples OWN[n]; decoder inputs are the start token and the labels before the last.
 */
static int make_side(struct updates *u, const int64_t *own, int64_t n, bool target,
                     struct side *out)
{
    const struct kd_arch *a = kd_model_arch(u->student);
    struct kd_seqs s = {.n = n};
    int64_t *offsets;
    int32_t *ids, *dev_ids;
    uint64_t *keys;
    void *dev;

    KD_TRY(kd_arena_host(u->arena, (size_t)(n + 1) * sizeof *offsets, &offsets));
    for (int64_t i = 0; i < n; i++) {
        int64_t len = bench_length(own[i], target);

        offsets[i + 1] = offsets[i] + len;
        s.max_len = len > s.max_len ? len : s.max_len;
    }
    s.n_rows = offsets[n];
    s.offsets = offsets;
    KD_TRY(kd_arena_host(u->arena, (size_t)(3 * s.n_rows) * sizeof *ids, &ids));
    KD_TRY(kd_arena_host(u->arena, (size_t)s.n_rows * sizeof *keys, &keys));
    for (int64_t i = 0; i < n; i++) {
        for (int64_t r = offsets[i]; r < offsets[i + 1]; r++) {
            int64_t t = r - offsets[i];

            ids[r] = bench_id(u->seed, own[i], target, t, a->vocab_size);
            ids[s.n_rows + r] = (int32_t)t;
            ids[2 * s.n_rows + r] = t == 0 ? a->decoder_start_id : ids[r - 1];
            keys[r] = (uint64_t)own[i] << 24 | (uint64_t)target << 23 | (uint64_t)t;
        }
    }
    KD_TRY(upload(u, offsets, (size_t)(n + 1) * sizeof *offsets, &dev));
    s.offsets_dev = kd_tensor1(dev, KD_I64, n + 1);
    KD_TRY(upload(u, ids, (size_t)(3 * s.n_rows) * sizeof *ids, &dev_ids));
    KD_TRY(upload(u, keys, (size_t)s.n_rows * sizeof *keys, &out->keys));
    out->seqs = s;
    out->ids = dev_ids;
    out->pos = dev_ids + s.n_rows;
    out->dec_ids = dev_ids + 2 * s.n_rows;
    return KD_OK;
}

/* This rank's part of BATCH[n] into OWN, which has room for it. */
static int deal(const struct updates *u, const int64_t *batch, int64_t n, int64_t *own,
                int64_t *n_own)
{
    int64_t *cost = NULL;
    int *owner = NULL, rc = KD_OK;

    *n_own = 0;
    KD_GO(kd_calloc(n, sizeof *cost, &cost));
    KD_GO(kd_calloc(n, sizeof *owner, &owner));
    for (int64_t i = 0; i < n; i++)
        cost[i] = bench_length(batch[i], false) + bench_length(batch[i], true);
    KD_GO(kd_deal_by_cost(cost, n, kd_comm_size(u->run->comm), owner));
    for (int64_t i = 0; i < n; i++)
        if (owner[i] == kd_comm_rank(u->run->comm))
            own[(*n_own)++] = batch[i];
out:
    free(cost);
    free(owner);
    return rc;
}

static int make_batch(struct updates *u, struct kd_batch *b)
{
    struct side src = {0}, tgt = {0};
    int64_t n_batch, n, *own;
    const int64_t *batch = bench_plan_batch(&u->plan, u->step, &n_batch);

    *b = (struct kd_batch){0};
    KD_TRY(kd_arena_host(u->arena, (size_t)n_batch * sizeof *own, &own));
    KD_TRY(deal(u, batch, n_batch, own, &n));
    if (n == 0)
        return KD_OK;
    KD_TRY(make_side(u, own, n, false, &src));
    KD_TRY(make_side(u, own, n, true, &tgt));
    *b = (struct kd_batch){.src = src.seqs,
                           .tgt = tgt.seqs,
                           .src_ids = src.ids,
                           .src_pos = src.pos,
                           .src_keys = src.keys,
                           .dec_ids = tgt.dec_ids,
                           .labels = tgt.ids,
                           .tgt_pos = tgt.pos,
                           .tgt_keys = tgt.keys};
    return KD_OK;
}

/* Tokens of the step's whole batch. */
static struct kd_counts count(const struct updates *u)
{
    int64_t n;
    const int64_t *batch = bench_plan_batch(&u->plan, u->step, &n);
    struct kd_counts all = {0};

    for (int64_t i = 0; i < n; i++) {
        all.src_rows += (double)bench_length(batch[i], false);
        all.labels += (double)bench_length(batch[i], true);
    }
    all.kd_rows = all.labels;
    return all;
}

/* Multiply-adds of the step. */
static double work_of(const struct updates *u)
{
    const struct passes *student = u->c->freeze_encoder ? &decoder_trained : &trained;
    struct passes teacher = forward_only;
    int64_t n;
    const int64_t *batch = bench_plan_batch(&u->plan, u->step, &n);
    double work = 0;

    teacher.encoder = u->c->freeze_encoder ? 0 : 1; /* the student's serves both */
    for (int64_t i = 0; i < n; i++) {
        int64_t s = bench_length(batch[i], false), t = bench_length(batch[i], true);

        work += example_work(kd_model_arch(u->student), student, s, t);
        if (u->teacher)
            work += example_work(kd_model_arch(u->teacher), &teacher, s, t);
    }
    return work;
}

static int run_micro(void *arg, int64_t micro, kd_param_ready_fn ready, void *ready_arg,
                     double terms[KD_MAX_TERMS])
{
    struct updates *u = arg;
    struct kd_ctx ctx = {.be = u->run->be,
                         .arena = u->arena,
                         .tape = u->tape,
                         .train = true,
                         .seed = u->seed,
                         .step = (uint32_t)u->step,
                         .dtype = u->run->dtype};
    struct kd_counts n;
    struct kd_batch b;
    int rc, ran;

    (void)micro;
    kd_tape_reset(u->tape);
    kd_arena_reset(u->arena);
    n = count(u);
    rc = make_batch(u, &b);
    ran = kd_objective_run(u->objective, &ctx, !rc && b.src.n > 0 ? &b : NULL, &n,
                           ready, ready_arg, terms);
    return rc ? rc : ran;
}

static int open_updates(struct updates *u, bool distil)
{
    struct kd_objective_options o = {
        .weight = {[KD_TERM_CE] = distil ? 0.8 : 0, [KD_TERM_MLM] = distil ? 0.2 : 1},
        .temperature = 2.0,
        .share_encoder = distil && u->c->freeze_encoder};

    KD_TRY(bench_plan_new(u->c, &u->plan));
    KD_TRY(kd_calloc(u->c->steps, sizeof *u->times, &u->times));
    KD_TRY(look_at_memory(u->run, &u->memory));
    KD_TRY(make_model(u->run, u->c, distil ? &u->teacher : &u->student));
    if (distil)
        KD_TRY(make_student(u->c, u->teacher, &u->student));
    if (u->c->freeze_encoder)
        kd_model_freeze_encoder(u->student);
    KD_TRY(kd_params_alloc_grads(kd_model_params(u->student)));
    KD_TRY(kd_objective_new(&o, u->student, u->teacher, &u->objective));
    KD_TRY(kd_tape_new(u->run->be, &u->tape));
    return kd_arena_new(u->run->be, &u->arena);
}

static void close_updates(struct updates *u)
{
    kd_trainer_free(u->trainer);
    kd_objective_free(u->objective);
    kd_tape_free(u->tape);
    kd_arena_free(u->arena);
    kd_model_free(u->student);
    kd_model_free(u->teacher);
    bench_plan_free(&u->plan);
    free(u->times);
}

/* STEPS updates after those that warm up; an update is over when the next begins. */
static int time_updates(struct updates *u, double *seconds)
{
    struct kd_backend *be = u->run->be;
    int64_t warm = u->c->warm_steps;
    struct kd_update up;
    double start = 0, last = 0;

    for (u->step = 1; u->step <= u->c->steps + warm; u->step++) {
        if (u->step == warm + 1) {
            KD_ALL(u->run->comm, be->ops->sync(be));
            KD_TRY(kd_barrier(u->run->comm));
            start = last = kd_now_s();
        }
        KD_TRY(kd_trainer_update(u->trainer, u->step, 1, run_micro, u, &up));
        kd_heartbeat();
        if (u->step > warm) {
            struct kd_counts n = count(u);
            double now = kd_now_s();

            u->tokens += n.src_rows + n.labels;
            u->work += work_of(u);
            u->times[u->step - warm - 1] = now - last;
            last = now;
        } else {
            KD_ALL(u->run->comm, look_at_memory(u->run, &u->memory));
        }
    }
    KD_ALL(u->run->comm, be->ops->sync(be));
    *seconds = kd_now_s() - start;
    KD_ALL(u->run->comm, look_at_memory(u->run, &u->memory));
    return kd_allreduce_f64(u->run->comm, seconds, 1, KD_MAX);
}

static int measure_updates(struct kd_run *run, const struct bench_config *c,
                           struct bench_table *t, bool distil)
{
    struct updates u = {.run = run, .c = c, .seed = (uint64_t)run->common->seed};
    struct kd_trainer_options o = {.learning_rate = 5e-5,
                                   .total_steps = (double)(c->steps + c->warm_steps),
                                   .max_grad_norm = 1.0,
                                   .optim = {.eps = 1e-8}};
    double peak, seconds = 0, median;
    int rc = KD_OK;

    KD_GO(bench_peak(run, c, t, &peak));
    KD_ALL_GO(run->comm, open_updates(&u, distil));
    KD_GO(kd_trainer_new(run->comm, kd_model_params(u.student), &o, &u.trainer));
    KD_GO(time_updates(&u, &seconds));
    median = 1e3 * bench_median(u.times, c->steps);
    KD_GO(kd_allreduce_f64(run->comm, &median, 1, KD_MAX));
    KD_ALL_GO(run->comm,
              add_figure(t, c, kd_model_arch(u.student), u.tokens, seconds, u.work));
    KD_ALL_GO(run->comm, bench_add(t, median, "ms", NAN, "median update"));
    KD_GO(add_memory(run, t, &u.memory));
out:
    close_updates(&u);
    return rc;
}

static int run_train(struct kd_run *run, const struct bench_config *c,
                     struct bench_table *t)
{
    return measure_updates(run, c, t, false);
}

static int run_kd(struct kd_run *run, const struct bench_config *c,
                  struct bench_table *t)
{
    return measure_updates(run, c, t, true);
}

const struct bench bench_train = {
    .name = "train",
    .summary = "updates of fine-tuning, source and target tokens",
    .run = run_train,
};

const struct bench bench_kd = {
    .name = "kd",
    .summary = "updates of a student under a teacher, source and target tokens",
    .run = run_kd,
};

/* ---- generation ---- */

struct sources {
    int64_t n;
    int64_t *ids;     /* [n] example numbers */
    int64_t *offsets; /* [n + 1] */
    int32_t *tokens;
};

static int longer_first(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b,
            d = bench_length(y, false) - bench_length(x, false);

    if (d == 0)
        d = x - y;
    return (d > 0) - (d < 0);
}

/* Longest first, so that batches by tokens are ranges. */
static int make_sources(struct sources *s, uint64_t seed, int64_t vocab)
{
    KD_TRY(kd_calloc(s->n, sizeof *s->ids, &s->ids));
    KD_TRY(kd_calloc(s->n + 1, sizeof *s->offsets, &s->offsets));
    for (int64_t i = 0; i < s->n; i++)
        s->ids[i] = i;
    qsort(s->ids, (size_t)s->n, sizeof *s->ids, longer_first);
    for (int64_t i = 0; i < s->n; i++)
        s->offsets[i + 1] = s->offsets[i] + bench_length(s->ids[i], false);
    KD_TRY(kd_calloc(s->offsets[s->n], sizeof *s->tokens, &s->tokens));
    for (int64_t i = 0; i < s->n; i++)
        for (int64_t r = s->offsets[i]; r < s->offsets[i + 1]; r++)
            s->tokens[r] = bench_id(seed, s->ids[i], false, r - s->offsets[i], vocab);
    return KD_OK;
}

/* Sources from FIRST on, for one batch. */
struct window {
    const struct sources *all;
    int64_t first;
};

static const int32_t *source_of(const void *arg, int64_t i, int64_t *n)
{
    const struct window *w = arg;
    const int64_t *at = w->all->offsets + w->first + i;

    *n = at[1] - at[0];
    return w->all->tokens + at[0];
}

static int open_generation(struct kd_run *run, const struct bench_config *c,
                           struct kd_model **m, struct kd_generation *g,
                           struct sources *s)
{
    KD_TRY(make_model(run, c, m));
    KD_TRY(make_sources(s, (uint64_t)run->common->seed, c->vocab_size));
    KD_TRY(kd_generation_from_config(kd_model_config(*m), NULL,
                                     kd_model_arch(*m)->max_positions, g));
    g->num_beams = c->num_beams;
    g->min_new_tokens = g->max_new_tokens = c->gen_length;
    g->min_length = g->max_length = c->gen_length + 1;
    return KD_OK;
}

/* How many sources from FIRST on come at once: all, to be cut by batch_size, or as many
 * as max_tokens_per_batch allows. */
static int64_t next_sources(const struct bench_config *c, const struct sources *s,
                            int64_t first, int64_t end)
{
    int64_t to = first + 1, tokens;

    if (c->max_tokens_per_batch <= 0)
        return end - first;
    for (; to < end; to++) {
        tokens = s->offsets[to + 1] - s->offsets[first];
        if (tokens + (to + 1 - first) * c->gen_length > c->max_tokens_per_batch)
            break;
    }
    return to - first;
}

/* Outputs for the first END sources, timed by the slowest rank.  A batch by tokens is
 * shared by the ranks. */
static int time_generation(struct kd_run *run, const struct bench_config *c,
                           struct kd_model *m, const struct kd_generation *g,
                           const struct sources *s, int64_t end, struct memory *memory,
                           double *seconds)
{
    int64_t n, ranks = kd_comm_size(run->comm);
    double start;

    KD_TRY(kd_barrier(run->comm));
    start = kd_now_s();
    for (int64_t first = 0; first < end; first += n) {
        struct window w = {s, first};
        struct kd_generated_set set = {0};
        int64_t size;

        n = next_sources(c, s, first, end);
        size = c->max_tokens_per_batch > 0 ? (n + ranks - 1) / ranks : c->batch_size;
        KD_TRY(kd_generate_dealt(run, m, g, source_of, &w, s->ids + first, n, size,
                                 NULL, NULL, &set));
        kd_generated_set_free(&set);
        KD_ALL(run->comm, look_at_memory(run, memory));
    }
    *seconds = kd_now_s() - start;
    return kd_allreduce_f64(run->comm, seconds, 1, KD_MAX);
}

static int run_generate(struct kd_run *run, const struct bench_config *c,
                        struct bench_table *t)
{
    struct sources s = {.n = c->n_sources};
    struct kd_generation g = {0};
    struct kd_model *m = NULL;
    struct memory memory = {0};
    double peak, seconds = 0, work = 0;
    int64_t warm;
    int rc = KD_OK;

    KD_GO(bench_peak(run, c, t, &peak));
    KD_ALL_GO(run->comm, look_at_memory(run, &memory));
    KD_ALL_GO(run->comm, open_generation(run, c, &m, &g, &s));
    for (int64_t i = 0; i < s.n; i++)
        work += decode_work(kd_model_arch(m), s.offsets[i + 1] - s.offsets[i],
                            g.num_beams, c->gen_length);
    warm = next_sources(c, &s, 0, s.n);
    warm = warm < c->batch_size || c->max_tokens_per_batch > 0 ? warm : c->batch_size;
    KD_GO(time_generation(run, c, m, &g, &s, warm, &memory, &seconds));
    KD_GO(time_generation(run, c, m, &g, &s, s.n, &memory, &seconds));
    KD_ALL_GO(run->comm, add_figure(t, c, kd_model_arch(m),
                                    (double)(s.n * c->gen_length), seconds, work));
    KD_GO(add_memory(run, t, &memory));
out:
    kd_generation_free(&g);
    kd_model_free(m);
    free(s.ids);
    free(s.offsets);
    free(s.tokens);
    return rc;
}

const struct bench bench_generate = {
    .name = "generate",
    .summary = "beam search, tokens of the outputs that are kept",
    .run = run_generate,
};
