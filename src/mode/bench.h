/* SPDX-License-Identifier: Apache-2.0 */
/* What the benchmarks of `--mode bench` share: a table of figures that each adds rows
 * to, the shapes asked for, and the clock around a repeated call.
 *
 * A benchmark is one struct bench; mode_bench.c holds the array of them.  Figures are
 * of the whole run: rates are sums over the ranks, and rows are the same on each. */
#ifndef KDHPC_SRC_MODE_BENCH_H
#define KDHPC_SRC_MODE_BENCH_H

#include "kdhpc/base/json.h"
#include "kdhpc/mode/mode.h"

struct bench_config {
    struct kd_str_list what;
    int64_t tokens, d_model, n_heads, vocab_size;
    int64_t encoder_layers, decoder_layers, student_decoder_layers;
    int64_t batch_size, max_tokens_per_batch; /* train, kd, generate */
    int64_t steps, warm_steps;                /* train, kd */
    bool sortish_sampler, freeze_encoder;     /* train, kd */
    int64_t num_beams, gen_length, n_sources; /* generate */
    int64_t peak_size;                        /* of a GPU */
    int64_t megabytes;                        /* store, allreduce */
    const char *model, *tokenizer;            /* directories; NULL: left out */
    double seconds;                           /* of one measurement */
    bool json;
};

struct bench_row {
    const char *what; /* name of the benchmark, set by its runner */
    char name[64];
    const char *unit; /* static text */
    double value;
    double bound; /* of value, in its unit; NAN: none known */
};

struct bench_table {
    struct bench_row *rows; /* [n], owned */
    int64_t n, cap;
    double peak; /* GFLOP/s of products over all ranks; see bench_peak */
};

struct bench {
    const char *name, *summary;
    /** Measure and add rows.  Collective. */
    int (*run)(struct kd_run *run, const struct bench_config *config,
               struct bench_table *table);
};

extern const struct bench bench_gemm, bench_attention;           /* bench_ops.c */
extern const struct bench bench_train, bench_kd, bench_generate; /* bench_engine.c */
extern const struct bench bench_store, bench_load, bench_allreduce, bench_metrics,
    bench_tokenizer; /* bench_data.c */

/** Batches of the examples that updates work on; see bench_examples.c.  Batch b is
 * examples order[starts[b] .. starts[b + 1]).  Zero-initialise. */
struct bench_plan {
    int64_t n_batches, stride;
    int64_t *order, *starts; /* owned */
};

/** Tokens of the source or target of EXAMPLE, and one of its ids.  Local. */
int64_t bench_length(int64_t example, bool target);
int32_t bench_id(uint64_t seed, int64_t example, bool target, int64_t position,
                 int64_t vocab);

/** Plan batches as C asks.  Local.  KD_ENOMEM; free it in any case. */
int bench_plan_new(const struct bench_config *c, struct bench_plan *out) KD_MUST_CHECK;
void bench_plan_free(struct bench_plan *p);

/** The N examples of update STEP, from 1.  Local. */
const int64_t *bench_plan_batch(const struct bench_plan *p, int64_t step, int64_t *n);

/** How large batches are, in words, for the name of a figure.  Local. */
void bench_batch_text(const struct bench_config *c, char *out, size_t cap);

/** The middle one of N > 0 times, which are put in order.  Local. */
double bench_median(double *times, int64_t n);

/** Append a row; VALUE and BOUND are those of the whole run.  Local.  KD_ENOMEM. */
int bench_add(struct bench_table *t, double value, const char *unit, double bound,
              const char *name_fmt, ...) KD_PRINTF(5, 6) KD_MUST_CHECK;

/** Repeat CALL(ARG) for SECONDS (at least twice after a warm-up) on every rank at once
 * and give the sum over the ranks of WORK / time: on CPUs of each rank's fastest fifth
 * of calls, on GPUs the median of runs of calls that last milliseconds each, so that
 * neither launching nor waiting counts.  CALL is local.  Collective. */
int bench_rate(struct kd_run *run, double seconds, int (*call)(void *arg), void *arg,
               double work, double *rate) KD_MUST_CHECK;

/** Rate of products that fit the cache: on CPUs of one core, times all cores; on a GPU
 * of one large product.  Kept in the table after the first call.  Collective. */
int bench_peak(struct kd_run *run, const struct bench_config *config,
               struct bench_table *t, double *gflops) KD_MUST_CHECK;

#endif
