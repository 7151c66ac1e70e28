/* SPDX-License-Identifier: Apache-2.0 */
/* The search against transformers' generate() on a table model: the same tokens and
 * scores for every setting in golden/decode/cases.json; results that do not depend on
 * the batch; sampling against the warped distribution.
 *
 * On the reference backend; built with DECODE_ON_CPU on the CPU backend; and with
 * DECODE_ON_DEVICE, fewer settings and what must be as on the CPU, on what stands
 * behind kd_backend_cuda. */
#include "decode_impl.h"
#include "kdhpc/base/json.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/base/rng.h"
#include "plain_generation.h"
#include "ref_backend.h"
#include "table_lm.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void ok(int rc)
{
    if (rc)
        fail_msg("%s:%d: %s", kd_error_get()->file, kd_error_get()->line,
                 kd_error_get()->text);
}

#if defined DECODE_ON_DEVICE
enum { CASE_STEP = 7 };

static struct kd_backend *open_backend(void)
{
    struct kd_backend *be = NULL;

    ok(kd_backend_cuda(0, &be));
    return be;
}

static void close_backend(struct kd_backend *be)
{
    kd_backend_free(be);
}
#elif defined DECODE_ON_CPU
enum { CASE_STEP = 1 };

static struct kd_backend *open_backend(void)
{
    struct kd_backend *be = NULL;

    ok(kd_backend_cpu(2, &be));
    return be;
}

static void close_backend(struct kd_backend *be)
{
    kd_backend_free(be);
}
#else
enum { CASE_STEP = 1 };

static struct kd_backend *open_backend(void)
{
    struct kd_backend *be = NULL;

    ok(ref_backend_new(&be));
    return be;
}

static void close_backend(struct kd_backend *be)
{
    assert_int_equal(ref_backend_free(be), 0);
}
#endif

static struct kd_json *golden(void)
{
    struct kd_json *j = NULL;

    ok(kd_json_parse_file(KD_SOURCE_DIR "/tests/golden/decode/cases.json", &j));
    return j;
}

static const struct kd_source_ids no_ids;

/* Run the search over SOURCES[n] of the table model. */
static void search(struct kd_backend *be, const struct kd_generation *g, int64_t vocab,
                   double eos_bias, const int64_t *sources, int64_t n,
                   struct kd_generated *out)
{
    int64_t per = g->num_beams > 1 ? g->num_beams : g->num_return_sequences;
    struct table_lm *lm = NULL;
    struct kd_stepper stepper = {.vocab_size = vocab, .step = table_lm_step};

    ok(table_lm_new(be, sources, n * per, vocab, eos_bias, &lm));
    stepper.arg = lm;
    ok(kd_generate_steps(be, &stepper, g, n, &no_ids, sources, out));
    table_lm_free(lm);
}

static void check_case(struct kd_backend *be, const struct kd_json *c, int64_t number)
{
    struct kd_json *config = kd_json_object();
    const struct kd_json *sources = kd_json_get(c, "sources"),
                         *ids = kd_json_get(c, "ids"),
                         *scores = kd_json_get(c, "scores");
    int64_t n = kd_json_len(sources), id[16];
    struct kd_generation g;
    struct kd_generated out;

    assert_true(n <= 16);
    for (int64_t i = 0; i < n; i++)
        id[i] = kd_json_as_int(kd_json_at(sources, i), -1);
    ok(kd_generation_from_config(config, kd_json_get(c, "settings"), 0, &g));
    search(be, &g, kd_json_int(c, "vocab", 0), kd_json_num(c, "eos_bias", 0), id, n,
           &out);
    assert_int_equal(out.n, kd_json_len(ids));
    for (int64_t r = 0; r < out.n; r++) {
        const struct kd_json *want = kd_json_at(ids, r);
        int64_t len = out.offsets[r + 1] - out.offsets[r];
        double score = kd_json_as_num(kd_json_at(scores, r), NAN);

        if (len != kd_json_len(want))
            fail_msg("case %d row %d: %d ids, not %d", (int)number, (int)r, (int)len,
                     (int)kd_json_len(want));
        for (int64_t t = 0; t < len; t++)
            if (out.ids[out.offsets[r] + t] != kd_json_as_int(kd_json_at(want, t), -1))
                fail_msg("case %d row %d: id %d differs", (int)number, (int)r, (int)t);
        if (!(fabs(out.scores[r] - score) <= 2e-6 * (1 + fabs(score))))
            fail_msg("case %d row %d: score %.9g, not %.9g", (int)number, (int)r,
                     out.scores[r], score);
    }
    kd_generated_free(&out);
    kd_generation_free(&g);
    kd_json_free(config);
}

static void equals_transformers(void **state)
{
    struct kd_backend *be = open_backend();
    struct kd_json *j = golden();
    const struct kd_json *cases = kd_json_get(j, "cases");

    (void)state;
    assert_true(kd_json_len(cases) > 100);
    for (int64_t i = 0; i < kd_json_len(cases); i += CASE_STEP)
        check_case(be, kd_json_at(cases, i), i);
    kd_json_free(j);
    close_backend(be);
}

enum { CHAIN_VOCAB = 13 };

static void penalise(const int32_t *ids, int64_t len, float penalty, float *x)
{
    for (int32_t v = 0; v < CHAIN_VOCAB; v++)
        for (int64_t i = 0; i < len; i++)
            if (ids[i] == v) {
                x[v] = x[v] < 0 ? x[v] * penalty : x[v] / penalty;
                break;
            }
}

/* Ban what follows the last N - 1 of LEN ids in TEXT. */
static void ban(const int32_t *text, int64_t text_len, const int32_t *ids, int64_t len,
                int64_t n, float *x)
{
    for (int64_t i = 0; n > 0 && n <= len + 1 && i + n <= text_len; i++)
        if (memcmp(text + i, ids + len - (n - 1), (size_t)(n - 1) * sizeof *ids) == 0)
            x[text[i + n - 1]] = -INFINITY;
}

/* transformers' chain, one processor after the other, on one row. */
static void chain(const struct kd_generation *g, const struct kd_source_ids *src,
                  int32_t source, const int32_t *ids, int64_t len, float *x)
{
    const int32_t *text = src->ids + src->offsets[source];
    int64_t n = src->offsets[source + 1] - src->offsets[source];

    penalise(text, n, (float)(1 / g->encoder_repetition_penalty), x);
    penalise(ids, len, (float)g->repetition_penalty, x);
    ban(ids, len, ids, len, g->no_repeat_ngram_size, x);
    ban(text, n, ids, len, g->encoder_no_repeat_ngram_size, x);
    for (int64_t i = 0, at = 0; i < g->bad_words.n; at = g->bad_words.ends[i++])
        if (len >= g->bad_words.ends[i] - at)
            ban(g->bad_words.ids + at, g->bad_words.ends[i] - at, ids, len,
                g->bad_words.ends[i] - at, x);
    for (int i = 0; len < g->min_length && i < g->n_eos; i++)
        x[g->eos_ids[i]] = -INFINITY;
    for (int i = 0; len > g->decay_start + 1 && i < g->n_eos; i++)
        if (g->decay_factor != 1 && x[g->eos_ids[i]] > -INFINITY)
            x[g->eos_ids[i]] = fmaf(
                fabsf(x[g->eos_ids[i]]),
                (float)(pow(g->decay_factor, (double)(len - g->decay_start - 1)) - 1),
                x[g->eos_ids[i]]);
    for (int i = 0; i < g->n_suppress; i++)
        x[g->suppress[i]] = -INFINITY;
    for (int i = 0; len == 1 && i < g->n_begin_suppress; i++)
        x[g->begin_suppress[i]] = -INFINITY;
}

/* Edits of one step: no entry twice, and the scores of the chain. */
static void check_edits(struct kd_backend *be, const struct kd_generation *g,
                        struct kd_process *p, const int32_t *ids, int64_t len)
{
    enum { ROWS = 3, V = CHAIN_VOCAB, STRIDE = 40 };
    static const int32_t sources[ROWS] = {0, 1, 1};
    const struct kd_process_rows rows = {ROWS, len, STRIDE, ids, sources};
    struct kd_score_edit list[4 * ROWS * STRIDE];
    const struct kd_score_edit *at = list;
    float x[ROWS * V], want[ROWS * V];

    for (int i = 0; i < ROWS * V; i++)
        x[i] = want[i] =
            (float)kd_rng_normal(1, KD_RNG_TEST, (uint64_t)len, (uint64_t)i);
    kd_process_list(p, g, &rows, list);
    assert_in_range(p->n, 0, kd_process_most(g, ROWS, p->src.max_len));
    for (int pass = 0; pass < p->n_passes; pass++) {
        struct kd_score_edits e = p->pass[pass];
        int named[ROWS * V] = {0};

        e.list = at;
        at += e.n;
        for (int64_t i = 0; i < e.n; i++)
            for (int r = 0; r < ROWS; r++)
                if (e.list[i].row < 0 || e.list[i].row == r)
                    assert_int_equal(named[r * V + e.list[i].token]++, 0);
        ok(be->ops->edit_scores(be, x, ROWS, V, &e));
    }
    assert_true(at == list + p->n);
    for (int r = 0; r < ROWS; r++)
        chain(g, &p->src, sources[r], ids + r * STRIDE, len, want + r * V);
    assert_memory_equal(x, want, sizeof x);
}

static void edits_are_the_chain(void **state)
{
    static const int64_t offsets[] = {0, 9, 30};
    struct kd_backend *be = open_backend();
    int32_t ids[3 * 40], text[30], bad[] = {4, 9, 4}, begin[] = {9, 11},
                                   words[] = {3, 5, 1, 2, 7, 8, 8, 4};
    int64_t ends[] = {2, 5, 7, 8};

    (void)state;
    for (int i = 0; i < 3 * 40; i++)
        ids[i] = (int32_t)(kd_rng_u64(2, KD_RNG_TEST, 0, (uint64_t)i) % 9);
    for (int i = 0; i < 30; i++)
        text[i] = (int32_t)(kd_rng_u64(2, KD_RNG_TEST, 1, (uint64_t)i) % 10);
    for (int i = 0; i < 256; i++) {
        struct kd_generation g = plain_generation(12);
        struct kd_process p = {.src = {offsets, text, 21}};

        g.max_length = 40;
        g.repetition_penalty = i & 1 ? 1.5 : 1.0;
        g.no_repeat_ngram_size = i >> 1 & 3;
        g.suppress = i & 8 ? bad : NULL;
        g.n_suppress = i & 8 ? 3 : 0;
        g.min_length = 20;
        g.encoder_repetition_penalty = i & 16 ? 1.3 : 1.0;
        g.encoder_no_repeat_ngram_size = i & 32 ? 1 + i % 3 : 0;
        g.decay_factor = i & 64 ? 1.1 : 1.0;
        g.decay_start = i % 30;
        g.bad_words = (struct kd_words){words, ends, i & 128 ? 4 : 0};
        g.begin_suppress = begin;
        g.n_begin_suppress = i & 128 ? 2 : 0;
        ok(kd_process_open(CHAIN_VOCAB, &p));
        for (int64_t len = 1; len < 39; len++)
            check_edits(be, &g, &p, ids, len);
        kd_process_close(&p);
    }
    close_backend(be);
}

/* Rows of sources 0..n-1 in one batch and one by one. */
static void check_alone(struct kd_backend *be, const struct kd_generation *g)
{
    enum { N = 7 };
    int64_t sources[N], per = g->num_return_sequences, alone_rows = 0;
    struct kd_generated all, one;

    for (int64_t i = 0; i < N; i++)
        sources[i] = 40 + i * 3;
    search(be, g, 17, 1.0, sources, N, &all);
    assert_true(all.n_row_steps > 0);
    for (int64_t i = 0; i < N; i++) {
        search(be, g, 17, 1.0, sources + i, 1, &one);
        alone_rows += one.n_row_steps;
        for (int64_t k = 0; k < per; k++) {
            int64_t r = i * per + k, len = one.offsets[k + 1] - one.offsets[k];

            assert_int_equal(len, all.offsets[r + 1] - all.offsets[r]);
            assert_memory_equal(one.ids + one.offsets[k], all.ids + all.offsets[r],
                                (size_t)len * sizeof *all.ids);
            assert_true(one.scores[k] == all.scores[r]);
        }
        kd_generated_free(&one);
    }
    /* what is finished leaves the batch: together no more work than alone */
    assert_int_equal(alone_rows, all.n_row_steps);
    kd_generated_free(&all);
}

static void batch_does_not_matter(void **state)
{
    struct kd_backend *be = open_backend();
    struct kd_generation g = plain_generation(12);

    (void)state;
    check_alone(be, &g);
    g.do_sample = true;
    g.num_return_sequences = 3;
    check_alone(be, &g);
    g.do_sample = false;
    g.num_beams = 4;
    for (int stop = KD_STOP_HEURISTIC; stop <= KD_STOP_NEVER; stop++) {
        g.early_stopping = (enum kd_early_stopping)stop;
        check_alone(be, &g);
    }
    g.num_beam_groups = 2;
    g.diversity_penalty = 0.8;
    g.num_return_sequences = 4;
    for (int stop = KD_STOP_HEURISTIC; stop <= KD_STOP_NEVER; stop++) {
        g.early_stopping = (enum kd_early_stopping)stop;
        check_alone(be, &g);
    }
    close_backend(be);
}

#ifdef DECODE_ON_DEVICE
/* The same ids on the CPU and on the device, draw by draw. */
static void samples_as_the_cpu(void **state)
{
    static const struct {
        int64_t top_k;
        double top_p, temperature, min_p, typical_p, epsilon, eta;
    } settings[] = {{0, 1.0, 1.0, 0, 1, 0, 0},
                    {0, 0.8, 1.4, 0, 1, 0, 0},
                    {6, 1.0, 1.0, 0, 1, 0, 0},
                    {9, 0.7, 0.6, 0, 1, 0, 0},
                    {30, 0.95, 1.7, 0.03, 0.9, 0.01, 0.02}};
    struct kd_backend *be = open_backend(), *cpu = NULL;
    int64_t sources[] = {3, 8, 21};

    (void)state;
    ok(kd_backend_cpu(1, &cpu));
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        struct kd_generation g = plain_generation(12);
        struct kd_generated got, want;
        int64_t n;

        g.do_sample = true;
        g.num_return_sequences = 2;
        g.repetition_penalty = i % 2 ? 1.3 : 1.0;
        g.top_k = settings[i].top_k;
        g.top_p = settings[i].top_p;
        g.temperature = settings[i].temperature;
        g.min_p = settings[i].min_p;
        g.typical_p = settings[i].typical_p;
        g.epsilon_cutoff = settings[i].epsilon;
        g.eta_cutoff = settings[i].eta;
        search(cpu, &g, 37, 0.0, sources, 3, &want);
        search(be, &g, 37, 0.0, sources, 3, &got);
        n = want.offsets[want.n];
        assert_memory_equal(got.offsets, want.offsets,
                            (size_t)(want.n + 1) * sizeof *got.offsets);
        assert_memory_equal(got.ids, want.ids, (size_t)n * sizeof *got.ids);
        for (int64_t r = 0; r < want.n; r++)
            assert_true(fabs(got.scores[r] - want.scores[r]) <= 1e-12 * (double)n);
        kd_generated_free(&got);
        kd_generated_free(&want);
    }
    kd_backend_free(cpu);
    close_backend(be);
}
#endif

/* Pearson's sum over COUNT[vocab] of N draws for the probabilities P; what is rarely
 * drawn counts as one.  *DF: one less than its terms. */
static double chi_square(const struct kd_json *p, const int64_t *count, int64_t vocab,
                         int64_t n, int64_t *df)
{
    double sum = 0, rare = 0, few = 0;

    *df = -1;
    for (int64_t v = 0; v <= vocab; v++) {
        bool last = v == vocab;
        double want = last ? rare : (double)n * kd_json_as_num(kd_json_at(p, v), -1),
               got = last ? few : (double)count[v];

        assert_true(want >= 0);
        if (want >= 10) {
            sum += (got - want) * (got - want) / want;
            (*df)++;
        } else {
            rare += want;
            few += got;
        }
    }
    return sum;
}

/* What chance exceeds once in a million (Wilson and Hilferty's cube). */
static double most_chi_square(int64_t df)
{
    double v = 2.0 / (9.0 * (double)df);

    return df > 0 ? (double)df * pow(1 - v + 4.7534 * sqrt(v), 3) : 0.0;
}

/* The first token of many examples, or of several sequences of fewer: each with the
 * score of its probability, and all in proportion. */
static void check_warp(struct kd_backend *be, const struct kd_json *w, int number)
{
    enum { N = 20000, MOST = 64, SOURCE_IDS = 5 };
    const struct kd_json *p = kd_json_get(w, "probabilities"),
                         *source = kd_json_get(w, "source_ids");
    struct kd_json *config = kd_json_object();
    struct kd_generation g;
    struct table_lm *lm = NULL;
    struct kd_stepper stepper = {.vocab_size = kd_json_int(w, "vocab", 0),
                                 .step = table_lm_step};
    int64_t *sources = NULL, *example = NULL, *offsets = NULL, count[MOST] = {0}, df;
    int32_t *ids = NULL;
    struct kd_generated out;
    double sum;

    assert_true(stepper.vocab_size <= MOST && kd_json_len(source) == SOURCE_IDS);
    ok(kd_generation_from_config(config, w, 0, &g));
    g.max_length = 2;
    g.num_return_sequences = number % 2 ? 4 : 1;
    g.seed = 5;
    ok(kd_calloc(N, sizeof *sources, &sources));
    ok(kd_calloc(N, sizeof *example, &example));
    ok(kd_calloc(N + 1, sizeof *offsets, &offsets));
    ok(kd_calloc((int64_t)N * SOURCE_IDS, sizeof *ids, &ids));
    for (int64_t i = 0; i < N; i++) {
        sources[i] = kd_json_int(w, "source", -1);
        example[i] = i;
        offsets[i + 1] = (i + 1) * SOURCE_IDS;
        for (int64_t k = 0; k < SOURCE_IDS; k++)
            ids[i * SOURCE_IDS + k] =
                (int32_t)kd_json_as_int(kd_json_at(source, k), -1);
    }
    ok(table_lm_new(be, sources, N, stepper.vocab_size, 0.0, &lm));
    stepper.arg = lm;
    ok(kd_generate_steps(be, &stepper, &g, N / g.num_return_sequences,
                         &(struct kd_source_ids){offsets, ids, SOURCE_IDS}, example,
                         &out));
    for (int64_t i = 0; i < N; i++) {
        double want = log(kd_json_as_num(kd_json_at(p, out.ids[i]), 0));

        count[out.ids[i]]++;
        if (!(fabs(out.scores[i] - want) < 2e-6))
            fail_msg("warp %d: token %d has score %.8f, not %.8f", number,
                     (int)out.ids[i], out.scores[i], want);
    }
    sum = chi_square(p, count, stepper.vocab_size, N, &df);
    if (!(sum <= most_chi_square(df)))
        fail_msg("warp %d: chi-square %.1f for %d", number, sum, (int)df);
    kd_generated_free(&out);
    kd_generation_free(&g);
    kd_json_free(config);
    table_lm_free(lm);
    free(sources);
    free(example);
    free(offsets);
    free(ids);
}

static void samples_the_warped_distribution(void **state)
{
    struct kd_backend *be = open_backend();
    struct kd_json *j = golden();
    const struct kd_json *warps = kd_json_get(j, "warps");

    (void)state;
    assert_true(kd_json_len(warps) > 60);
    for (int64_t i = 0; i < kd_json_len(warps); i++)
        check_warp(be, kd_json_at(warps, i), (int)i);
    kd_json_free(j);
    close_backend(be);
}

/* Settings of a model directory given as text; POSITIONS of the model. */
static int from_text(const char *config, const char *generation, int64_t positions,
                     struct kd_generation *g)
{
    struct kd_json *c = NULL, *j = NULL;
    int rc;

    ok(kd_json_parse(config, (int64_t)strlen(config), "config", &c));
    if (generation)
        ok(kd_json_parse(generation, (int64_t)strlen(generation), "generation", &j));
    rc = kd_generation_from_config(c, j, positions, g);
    kd_json_free(c);
    kd_json_free(j);
    return rc;
}

static void defaults_follow_the_files(void **state)
{
    struct kd_generation g;

    (void)state;
    /* config.json alone: its keys over its class's ids; 20 means 20 new ids */
    ok(from_text("{\"model_type\": \"bart\", \"num_beams\": 4}", NULL, 1024, &g));
    assert_int_equal(g.num_beams, 4);
    assert_int_equal(g.max_length, 21);
    assert_int_equal(g.start_id, 2);
    assert_int_equal(g.forced_eos_id, 2);
    assert_int_equal(g.eos_ids[0], 2);
    assert_int_equal(g.forced_bos_id, -1);
    ok(from_text("{\"model_type\": \"bart\"}", NULL, 16, &g));
    assert_int_equal(g.max_length, 16);
    ok(from_text("{\"model_type\": \"bart\", \"forced_eos_token_id\": null, "
                 "\"force_bos_token_to_be_generated\": true}",
                 NULL, 0, &g));
    assert_int_equal(g.forced_eos_id, -1);
    assert_int_equal(g.forced_bos_id, 0);
    ok(from_text("{\"model_type\": \"fsmt\"}", NULL, 0, &g));
    assert_int_equal(g.num_beams, 5);
    assert_int_equal(g.max_length, 200);
    ok(from_text("{\"model_type\": \"fsmt\"}", NULL, 40, &g));
    assert_int_equal(g.max_length, 40);
    ok(from_text("{\"model_type\": \"fsmt\"}", "{\"top_k\": null}", 0, &g));
    assert_int_equal(g.num_beams, 1);
    assert_int_equal(g.max_length, 21);
    assert_int_equal(g.top_k, 0);
    /* generation_config.json counts alone, but for a start token it lacks */
    ok(from_text("{\"model_type\": \"bart\", \"num_beams\": 4, \"max_length\": 50}",
                 "{\"eos_token_id\": [2, 7], \"max_new_tokens\": 9, "
                 "\"min_new_tokens\": 3, \"early_stopping\": \"never\"}",
                 1024, &g));
    assert_int_equal(g.num_beams, 1);
    assert_int_equal(g.max_length, 10);
    assert_int_equal(g.min_length, 4);
    assert_int_equal(g.n_eos, 2);
    assert_int_equal(g.eos_ids[1], 7);
    assert_int_equal(g.pad_id, 2);
    assert_int_equal(g.start_id, 2);
    assert_int_equal(g.forced_eos_id, -1);
    assert_int_equal(g.early_stopping, KD_STOP_NEVER);
    assert_int_equal(g.top_k, 50);
}

static void refuses(const char *generation, const char *word)
{
    struct kd_generation g;
    int rc = from_text("{\"model_type\": \"bart\"}", generation, 0, &g);

    if (!rc)
        rc = kd_generation_check(&g);
    assert_true(rc == KD_EINPUT || rc == KD_EUSAGE);
    assert_non_null(strstr(kd_error_get()->text, word));
    kd_error_clear();
    kd_generation_free(&g);
}

static void contradictions_are_named(void **state)
{
    (void)state;
    refuses("{\"num_beams\": 2, \"num_return_sequences\": 3}", "num_return_sequences");
    refuses("{\"num_return_sequences\": 2}", "do_sample");
    refuses("{\"num_beams\": 2, \"do_sample\": true}", "do_sample");
    refuses("{\"max_length\": 1}", "max_length");
    refuses("{\"temperature\": 0}", "temperature");
    refuses("{\"top_p\": 1.5}", "top_p");
    refuses("{\"num_beam_groups\": 2, \"num_beams\": 4}", "diversity_penalty");
    refuses("{\"num_beam_groups\": 3, \"num_beams\": 4}", "num_beam_groups");
    refuses("{\"num_beam_groups\": 2, \"num_beams\": 4, \"diversity_penalty\": 1.0, "
            "\"renormalize_logits\": true}",
            "renormalize_logits");
    refuses("{\"diversity_penalty\": 0.5, \"num_beams\": 4}", "num_beam_groups");
    refuses("{\"typical_p\": 0}", "typical_p");
    refuses("{\"min_p\": 1.5}", "min_p");
    refuses("{\"encoder_repetition_penalty\": 0}", "encoder_repetition_penalty");
    refuses("{\"bad_words_ids\": [[3, 4], []]}", "bad_words_ids");
    refuses("{\"bad_words_ids\": [[3, -4]]}", "bad_words_ids");
    refuses("{\"suppress_tokens\": [3, 9], \"forced_bos_token_id\": 9}",
            "suppress_tokens");
    refuses("{\"suppress_tokens\": [3, 9], \"forced_eos_token_id\": 9}",
            "suppress_tokens");
    refuses("{\"exponential_decay_length_penalty\": [3]}", "exponential_decay");
    refuses("{\"penalty_alpha\": 0.6}", "penalty_alpha");
    refuses("{\"sequence_bias\": [[[3], 1.0]]}", "sequence_bias");
    refuses("{\"forced_eos_token_id\": [2, 3]}", "forced_eos_token_id");
}

int main(void)
{
    const struct CMUnitTest all[] = {
        cmocka_unit_test(equals_transformers),
        cmocka_unit_test(edits_are_the_chain),
        cmocka_unit_test(batch_does_not_matter),
        cmocka_unit_test(samples_the_warped_distribution),
        cmocka_unit_test(defaults_follow_the_files),
        cmocka_unit_test(contradictions_are_named),
    };
#ifdef DECODE_ON_DEVICE
    const struct CMUnitTest device[] = {
        all[0],
        cmocka_unit_test(samples_as_the_cpu),
    };

    if (kd_cuda_devices() == 0) {
        printf("skipped: no device (%s)\n", kd_backend_cuda_library());
        return 77;
    }
    return cmocka_run_group_tests(device, NULL, NULL);
#else
    return cmocka_run_group_tests(all, NULL, NULL);
#endif
}
