/* SPDX-License-Identifier: Apache-2.0 */
/* Measures the parts of the program against what the machine could do: a table of
 * figure, bound and share.
 *
 * Each benchmark adds its rows; rank 0 prints them, as lines or as JSON.  Bounds are
 * measured too (the rate of products that fit the cache), so a share says how much of
 * the machine is used and not which machine it is. */
#include "bench.h"

#include "kdhpc/base/mem.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct bench *const benches[] = {
    &bench_gemm,  &bench_attention, &bench_train,     &bench_kd,      &bench_generate,
    &bench_store, &bench_load,      &bench_allreduce, &bench_metrics, &bench_tokenizer,
};

enum { N_BENCHES = sizeof benches / sizeof *benches };

#define FIELD(name_) .name = #name_, .offset = offsetof(struct bench_config, name_)

static const struct kd_opt_row rows[] = {
    {FIELD(what), .type = KD_OPT_STR_LIST, .def = "gemm,attention",
     .help = "what to measure: gemm, attention, train, kd, generate, store, load, "
             "allreduce, metrics, tokenizer"},
    {FIELD(tokens), .type = KD_OPT_INT, .def = "3500", .min = 1, .max = 1 << 20,
     .help = "rows of a batch"},
    {FIELD(d_model), .type = KD_OPT_INT, .def = "256", .min = 8, .max = 1 << 14,
     .help = "width of the model"},
    {FIELD(n_heads), .type = KD_OPT_INT, .min = 1, .max = 256,
     .help = "attention heads, which divide the width; default: d_model / 64"},
    {FIELD(vocab_size), .type = KD_OPT_INT, .def = "8000", .min = 8, .max = 1 << 20,
     .help = "columns of the head"},
    {FIELD(encoder_layers), .type = KD_OPT_INT, .def = "6", .min = 1, .max = 999,
     .help = "encoder layers of the model"},
    {FIELD(decoder_layers), .type = KD_OPT_INT, .def = "6", .min = 1, .max = 999,
     .help = "decoder layers of the model, which is the teacher in kd"},
    {FIELD(student_decoder_layers), .type = KD_OPT_INT, .def = "3", .min = 1,
     .max = 999,
     .help = "decoder layers of the student in kd, not above decoder_layers"},
    {FIELD(batch_size), .type = KD_OPT_INT, .def = "32", .min = 1, .max = 65536,
     .help = "examples of an update, sources of a generation batch"},
    {FIELD(max_tokens_per_batch), .type = KD_OPT_INT, .def = "-1", .min = -1,
     .max = 1 << 24,
     .help = "tokens of an update (source and target) and of a generation batch "
             "(source and output); > 0 replaces batch_size"},
    {FIELD(sortish_sampler), .type = KD_OPT_BOOL, .def = "false",
     .help = "updates on examples of similar lengths"},
    {FIELD(freeze_encoder), .type = KD_OPT_BOOL, .def = "false",
     .help = "freeze all that the encoder uses in train and kd; in kd it runs once for "
             "teacher and student"},
    {FIELD(steps), .type = KD_OPT_INT, .def = "10", .min = 1, .max = 1 << 20,
     .help = "updates timed in train and kd"},
    {FIELD(warm_steps), .type = KD_OPT_INT, .def = "1", .min = 1, .max = 1 << 20,
     .help = "updates before them"},
    {FIELD(num_beams), .type = KD_OPT_INT, .def = "4", .min = 1, .max = 1024,
     .help = "beams in generate"},
    {FIELD(gen_length), .type = KD_OPT_INT, .def = "24", .min = 1, .max = 4096,
     .help = "tokens of every output in generate"},
    {FIELD(n_sources), .type = KD_OPT_INT, .def = "256", .min = 1, .max = 1 << 24,
     .help = "sources in generate"},
    {FIELD(peak_size), .type = KD_OPT_INT, .def = "8192", .min = 8, .max = 1 << 15,
     .help = "rows and columns of the product whose rate is the bound on a GPU"},
    {FIELD(megabytes), .type = KD_OPT_INT, .def = "52", .min = 1, .max = 1 << 20,
     .help = "size of the corpus in store and of the tensor in allreduce"},
    {FIELD(model), .type = KD_OPT_STR, .help = "model directory, for load"},
    {FIELD(tokenizer), .type = KD_OPT_STR,
     .help = "tokenizer directory, for tokenizer"},
    {FIELD(seconds), .type = KD_OPT_FLOAT, .def = "0.2", .min = 0.001, .max = 60,
     .help = "time for one figure"},
    {FIELD(json), .type = KD_OPT_BOOL, .def = "false", .help = "print JSON"},
};

static const struct kd_opt_group groups[] = {
    {"Benchmark", rows, sizeof rows / sizeof *rows, 0},
};

static const struct bench *find(const char *name)
{
    for (int i = 0; i < N_BENCHES; i++) {
        if (strcmp(benches[i]->name, name) == 0)
            return benches[i];
    }
    return NULL;
}

static int check(const struct kd_common *common, void *config)
{
    struct bench_config *c = config;

    (void)common;
    if (c->n_heads == KD_UNSET_INT)
        c->n_heads = c->d_model < 64 ? 1 : c->d_model / 64;
    for (int64_t i = 0; i < c->what.n; i++) {
        if (!find(c->what.v[i]))
            return KD_FAIL(KD_EUSAGE, "--what %s: allowed are the names in %s",
                           c->what.v[i], rows[0].help);
    }
    if (c->d_model % c->n_heads)
        return KD_FAIL(KD_EUSAGE, "--n_heads %lld does not divide --d_model %lld",
                       (long long)c->n_heads, (long long)c->d_model);
    if (c->student_decoder_layers > c->decoder_layers)
        return KD_FAIL(
            KD_EUSAGE, "--student_decoder_layers %lld is above --decoder_layers %lld",
            (long long)c->student_decoder_layers, (long long)c->decoder_layers);
    return KD_OK;
}

int bench_add(struct bench_table *t, double value, const char *unit, double bound,
              const char *name_fmt, ...)
{
    struct bench_row row = {.unit = unit, .value = value, .bound = bound};
    va_list args;

    va_start(args, name_fmt);
    vsnprintf(row.name, sizeof row.name, name_fmt, args);
    va_end(args);
    KD_TRY(kd_grow(&t->rows, &t->cap, t->n + 1, sizeof *t->rows));
    t->rows[t->n++] = row;
    return KD_OK;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double bench_median(double *times, int64_t n)
{
    qsort(times, (size_t)n, sizeof *times, compare);
    return n % 2 ? times[n / 2] : 0.5 * (times[n / 2 - 1] + times[n / 2]);
}

/* The mean of the fastest fifth: what a CPU does while nothing else runs on it. */
static double fastest_fifth(double *times, int64_t n)
{
    int64_t best = (n + 4) / 5;
    double sum = 0.0;

    qsort(times, (size_t)n, sizeof *times, compare);
    for (int64_t i = 0; i < best; i++)
        sum += times[i];
    return sum / (double)best;
}

/* Seconds of N calls, waited for. */
static int time_calls(struct kd_run *run, int (*call)(void *arg), void *arg, int64_t n,
                      double *seconds)
{
    double start = kd_now_s();

    for (int64_t i = 0; i < n; i++)
        KD_TRY(call(arg));
    KD_TRY(run->be->ops->sync(run->be));
    *seconds = kd_now_s() - start;
    return KD_OK;
}

/* Time of one call in seconds; local. */
static int time_call(struct kd_run *run, double seconds, int (*call)(void *arg),
                     void *arg, double *out)
{
    enum { MOST = 2000, MOST_CALLS = 256 };
    const double least_s = 3e-3; /* of a run of calls on a GPU */
    bool cpu = run->be->device == KD_CPU;
    double *times = NULL, start, t = 0.0;
    int64_t n = 0, calls = 1;
    int rc = KD_OK;

    KD_TRY(kd_calloc(MOST, sizeof *times, &times));
    KD_GO(time_calls(run, call, arg, 1, &t));
    if (!cpu) {
        KD_GO(time_calls(run, call, arg, 1, &t));
        calls = (int64_t)fmin(1.0 + least_s / fmax(t, 1e-9), MOST_CALLS);
    }
    start = kd_now_s();
    while (n < 2 || (n < MOST && kd_now_s() - start < seconds))
        KD_GO(time_calls(run, call, arg, calls, &times[n++]));
    *out = (cpu ? fastest_fifth(times, n) : bench_median(times, n)) / (double)calls;
out:
    free(times);
    return rc;
}

int bench_rate(struct kd_run *run, double seconds, int (*call)(void *arg), void *arg,
               double work, double *rate)
{
    double t = 1.0;

    KD_TRY(kd_barrier(run->comm));
    KD_ALL(run->comm, time_call(run, seconds, call, arg, &t));
    *rate = work / fmax(t, 1e-9);
    return kd_allreduce_f64(run->comm, rate, 1, KD_SUM);
}

static int print_json(const struct bench_table *t)
{
    struct kd_json *list = kd_json_array(), *item = NULL;
    char *text = NULL;
    int rc = KD_OK;

    for (int64_t i = 0; i < t->n; i++) {
        const struct bench_row *r = &t->rows[i];

        item = kd_json_object();
        KD_GO(kd_json_set_str(item, "what", r->what));
        KD_GO(kd_json_set_str(item, "name", r->name));
        KD_GO(kd_json_set_num(item, "value", r->value));
        KD_GO(kd_json_set_str(item, "unit", r->unit));
        if (isfinite(r->bound)) {
            KD_GO(kd_json_set_num(item, "bound", r->bound));
            KD_GO(kd_json_set_num(item, "share", r->value / r->bound));
        }
        rc = kd_json_append(list, item);
        item = NULL; /* the list's, whatever happened */
        if (rc)
            goto out;
    }
    KD_GO(kd_json_dump(list, &text));
    puts(text);
out:
    free(text);
    kd_json_free(item);
    kd_json_free(list);
    return rc;
}

static void print_lines(const struct bench_table *t)
{
    printf("%-10s %-40s %12s %12s %-9s %6s\n", "what", "figure", "value", "bound",
           "unit", "share");
    for (int64_t i = 0; i < t->n; i++) {
        const struct bench_row *r = &t->rows[i];

        printf("%-10s %-40s %12.4g ", r->what, r->name, r->value);
        if (isfinite(r->bound))
            printf("%12.4g %-9s %5.1f%%\n", r->bound, r->unit,
                   100.0 * r->value / r->bound);
        else
            printf("%12s %-9s %6s\n", "-", r->unit, "-");
    }
}

static int print_table(const struct bench_table *t, bool json)
{
    if (json)
        KD_TRY(print_json(t));
    else
        print_lines(t);
    if (fflush(stdout))
        return KD_FAIL(KD_EOUTPUT, "cannot write the table to standard output");
    return KD_OK;
}

static int run(struct kd_run *r, void *config)
{
    const struct bench_config *c = config;
    struct bench_table table = {0};
    int rc = KD_OK;

    for (int64_t i = 0; i < c->what.n; i++) {
        const struct bench *b = find(c->what.v[i]);
        int64_t first = table.n;

        kd_info("measuring %s: %s", b->name, b->summary);
        KD_GO(b->run(r, c, &table));
        for (int64_t k = first; k < table.n; k++)
            table.rows[k].what = b->name;
    }
    KD_ALL_GO(r->comm,
              kd_comm_rank(r->comm) == 0 ? print_table(&table, c->json) : KD_OK);
out:
    free(table.rows);
    return rc;
}

const struct kd_mode kd_mode_bench = {
    .name = "bench",
    .summary = "measure parts of the program against what the machine could do",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .config_bytes = sizeof(struct bench_config),
    .check = check,
    .computes = true,
    .run = run,
};
