/* SPDX-License-Identifier: Apache-2.0 */
/* Benchmarks of what feeds the engine and judges it: the store, model directories, sums
 * over the ranks, metrics and tokenizers.
 *
 * The store is bounded by plain write() with fsync() and by read() of the same bytes,
 * loading and a sum by copying memory that is in place; these times are those of the
 * slowest rank, and the best of a few.  Metrics and tokenizers work on generated text,
 * and their rates are those of one core, since ranks and threads share nothing there.
 */
#include "bench.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/rng.h"
#include "kdhpc/metric/metric.h"
#include "kdhpc/mode/model_io.h"
#include "kdhpc/store/corpus.h"
#include "kdhpc/tensor/arena.h"
#include "kdhpc/text/tokenizer.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { REPEATS = 3 };

/* Seconds of CALL(ARG), which is collective: of the slowest rank, best of REPEATS. */
static int slowest(struct kd_run *run, int (*call)(void *arg), void *arg,
                   double *seconds)
{
    *seconds = INFINITY;
    for (int i = 0; i < REPEATS; i++) {
        double t;

        KD_TRY(kd_barrier(run->comm));
        t = kd_now_s();
        KD_TRY(call(arg));
        t = kd_now_s() - t;
        KD_TRY(kd_allreduce_f64(run->comm, &t, 1, KD_MAX));
        *seconds = fmin(*seconds, fmax(t, 1e-9));
    }
    return KD_OK;
}

/* ---- store ---- */

/* An example: 95 and 12 ids, 475 and 60 bytes of text, about 1,000 bytes in all. */
enum { N_FIELDS = 4, EXAMPLE_BYTES = 963 };
static const int64_t field_len[N_FIELDS] = {95, 12, 475, 60};

struct store {
    struct kd_run *run;
    char dir[4096]; /* made for this benchmark, the same on every rank */
    char *path, *plain;
    struct kd_corpus_rows rows; /* of this rank */
    int64_t *id, *offsets[N_FIELDS];
    char *values; /* [rows.n * EXAMPLE_BYTES], the values of every field in turn */
};

static int make_dir(void *arg)
{
    struct store *s = arg;
    const char *base = s->run->common->output_dir;

    base = base ? base : getenv("TMPDIR");
    KD_TRY(kd_format(s->dir, sizeof s->dir, "%s/kdhpc-bench-XXXXXX",
                     base ? base : "/tmp"));
    if (!mkdtemp(s->dir))
        return KD_FAIL(KD_EOUTPUT, "cannot make the directory %s: %s", s->dir,
                       strerror(errno));
    return KD_OK;
}

static int make_rows(struct store *s, int64_t n)
{
    struct kd_ragged *r[N_FIELDS] = {&s->rows.source, &s->rows.target,
                                     &s->rows.source_text, &s->rows.target_text};
    int64_t at = 0;

    KD_TRY(kd_calloc(n, sizeof *s->id, &s->id));
    KD_TRY(kd_calloc(n, EXAMPLE_BYTES, &s->values));
    for (int k = 0; k < N_FIELDS; k++) {
        KD_TRY(kd_calloc(n + 1, sizeof **s->offsets, &s->offsets[k]));
        for (int64_t i = 0; i <= n; i++)
            s->offsets[k][i] = i * field_len[k];
        *r[k] = (struct kd_ragged){n, s->offsets[k], s->values + at};
        at += n * field_len[k] * (k < 2 ? (int64_t)sizeof(int32_t) : 1);
    }
    for (int64_t i = 0; i < n * (field_len[0] + field_len[1]); i++)
        memcpy(s->values + i * 4, &(int32_t){(int32_t)(i % 4093)}, sizeof(int32_t));
    memset(s->values + n * 4 * (field_len[0] + field_len[1]), 'a',
           (size_t)(n * (field_len[2] + field_len[3])));
    s->rows.n = n;
    s->rows.id = s->id;
    return KD_OK;
}

static int name_files(struct store *s)
{
    char name[32];

    KD_TRY(kd_path_join(s->dir, "corpus.h5", &s->path));
    KD_TRY(kd_format(name, sizeof name, "plain%d", kd_comm_rank(s->run->comm)));
    return kd_path_join(s->dir, name, &s->plain);
}

static int write_corpus(void *arg)
{
    struct store *s = arg;
    struct kd_store_meta meta = {.schema = "kdhpc.corpus"};
    struct kd_corpus_writer *w = NULL;
    int rc;

    KD_TRY(kd_corpus_create(s->run->comm, s->path, &meta, &w));
    rc = kd_corpus_write_split(w, "train", &s->rows);
    if (!rc)
        return kd_corpus_commit(w);
    kd_corpus_abandon(w);
    return rc;
}

/* Every rank reads every row, as training may. */
static int read_corpus(void *arg)
{
    struct store *s = arg;
    struct kd_corpus *c = NULL;
    uint64_t sum = 0;

    KD_TRY(kd_corpus_open(s->run->comm, &s->path, 1, "train", &c));
    for (int64_t i = 0; i < kd_corpus_size(c); i++) {
        int64_t n;
        const int32_t *ids = kd_corpus_source(c, i, &n);
        const char *text;

        for (int64_t k = 0; k < n; k++)
            sum += (uint64_t)ids[k];
        ids = kd_corpus_target(c, i, &n);
        for (int64_t k = 0; k < n; k++)
            sum += (uint64_t)ids[k];
        text = kd_corpus_source_text(c, i, &n);
        for (int64_t k = 0; k < n; k++)
            sum += (uint64_t)text[k];
    }
    kd_corpus_close(c);
    kd_debug("sum of the ids and bytes read: %llu", (unsigned long long)sum);
    return KD_OK;
}

static int plain_io(const char *path, int flags, char *buf, int64_t bytes)
{
    bool reads = flags == O_RDONLY;
    int fd = open(path, flags | O_CLOEXEC, 0600);
    int64_t done = 0;
    ssize_t n = 1;

    while (fd >= 0 && done < bytes && n > 0) {
        n = reads ? read(fd, buf + done, (size_t)(bytes - done))
                  : write(fd, buf + done, (size_t)(bytes - done));
        done += n;
    }
    if (!reads && n > 0 && fd >= 0 && fsync(fd))
        n = -1;
    if (fd >= 0)
        close(fd);
    if (fd < 0 || n <= 0)
        return KD_FAIL(KD_EOUTPUT, "cannot %s %s: %s", reads ? "read" : "write", path,
                       strerror(errno));
    return KD_OK;
}

static int write_plain(void *arg)
{
    struct store *s = arg;

    return kd_agree(s->run->comm, plain_io(s->plain, O_WRONLY | O_CREAT | O_TRUNC,
                                           s->values, s->rows.n * EXAMPLE_BYTES));
}

/* The same bytes as of one rank, once for each rank. */
static int read_plain(void *arg)
{
    struct store *s = arg;
    int rc = KD_OK;

    for (int i = 0; i < kd_comm_size(s->run->comm) && !rc; i++)
        rc = plain_io(s->plain, O_RDONLY, s->values, s->rows.n * EXAMPLE_BYTES);
    return kd_agree(s->run->comm, rc);
}

static int measure_store(struct store *s, struct bench_table *t)
{
    double mb = 1e-6 * (double)(s->rows.n * EXAMPLE_BYTES) * kd_comm_size(s->run->comm);
    double seconds = 1, plain = 1;

    KD_TRY(slowest(s->run, write_plain, s, &plain));
    KD_TRY(slowest(s->run, write_corpus, s, &seconds));
    KD_ALL(s->run->comm,
           bench_add(t, mb / seconds, "MB/s", mb / plain, "write %.0f MB", mb));
    KD_TRY(slowest(s->run, read_plain, s, &plain));
    KD_TRY(slowest(s->run, read_corpus, s, &seconds));
    KD_ALL(s->run->comm,
           bench_add(t, mb / seconds, "MB/s", mb / plain, "read %.0f MB", mb));
    return KD_OK;
}

/* Rank 0: remove what all have left, when all have ended. */
static void close_store(struct store *s)
{
    if (s->plain)
        unlink(s->plain);
    if (kd_barrier(s->run->comm) == KD_OK && kd_comm_rank(s->run->comm) == 0) {
        if (s->path)
            unlink(s->path);
        rmdir(s->dir);
    }
    for (int k = 0; k < N_FIELDS; k++)
        free(s->offsets[k]);
    free(s->id);
    free(s->values);
    free(s->path);
    free(s->plain);
}

static int run_store(struct kd_run *run, const struct bench_config *c,
                     struct bench_table *t)
{
    struct store s = {.run = run};
    int rc = KD_OK;

    KD_TRY(kd_root_do(run->comm, make_dir, &s));
    KD_GO(kd_bcast(run->comm, s.dir, sizeof s.dir, 0));
    KD_ALL_GO(run->comm, name_files(&s));
    KD_ALL_GO(run->comm, make_rows(&s, c->megabytes * 1000 / kd_comm_size(run->comm)));
    KD_GO(measure_store(&s, t));
out:
    close_store(&s);
    return rc;
}

const struct bench bench_store = {
    .name = "store",
    .summary = "writing and reading of a corpus",
    .run = run_store,
};

/* ---- model directories ---- */

struct load {
    struct kd_run *run;
    const char *dir;
    struct kd_model *model;
};

static int call_load(void *arg)
{
    struct load *l = arg;
    double start;

    kd_model_free(l->model);
    l->model = NULL;
    start = kd_now_s();
    KD_TRY(kd_model_load(l->run, l->dir, &l->model));
    kd_debug("loaded in %.3f s", kd_now_s() - start);
    return KD_OK;
}

/* One half of the parameters onto the other. */
static int call_halves(void *arg)
{
    struct load *l = arg;
    struct kd_params *ps = kd_model_params(l->model);
    int64_t half = ps->n_slab / 2;
    int rc = ps->be->ops->copy(ps->be, ps->values + half, ps->values,
                               (size_t)half * sizeof *ps->values);

    rc = rc ? rc : ps->be->ops->sync(ps->be);
    return kd_agree(l->run->comm, rc);
}

static int run_load(struct kd_run *run, const struct bench_config *c,
                    struct bench_table *t)
{
    struct load l = {.run = run, .dir = c->model};
    double mb, seconds = 1, halves = 1;
    int rc;

    if (!c->model) {
        kd_info("load is left out: --model names none");
        return KD_OK;
    }
    KD_GO(slowest(run, call_load, &l, &seconds));
    KD_GO(slowest(run, call_halves, &l, &halves));
    mb = 1e-6 * (double)kd_model_params(l.model)->n_slab * sizeof(float);
    KD_ALL_GO(run->comm, bench_add(t, mb / seconds, "MB/s", mb / (2 * halves),
                                   "load %.0f MB of parameters", mb));
out:
    kd_model_free(l.model);
    return rc;
}

const struct bench bench_load = {
    .name = "load",
    .summary = "reading of a model directory",
    .run = run_load,
};

/* ---- sums over the ranks ---- */

struct sum {
    struct kd_run *run;
    struct kd_tensor t, copy;
};

static int call_sum(void *arg)
{
    struct sum *s = arg;

    return kd_allreduce_tensor(s->run->comm, s->run->be, s->t);
}

static int call_copy(void *arg)
{
    struct sum *s = arg;
    struct kd_backend *be = s->run->be;
    int rc = be->ops->copy(be, s->copy.data, s->t.data, kd_tensor_bytes(&s->t));

    rc = rc ? rc : be->ops->sync(be);
    return kd_agree(s->run->comm, rc);
}

static int make_sum(struct sum *s, struct kd_arena *arena, int64_t n)
{
    struct kd_backend *be = s->run->be;

    KD_TRY(kd_arena_tensor(arena, KD_F32, 1, n, &s->t));
    KD_TRY(kd_arena_tensor(arena, KD_F32, 1, n, &s->copy));
    KD_TRY(be->ops->zero(be, s->copy.data, kd_tensor_bytes(&s->copy)));
    return be->ops->zero(be, s->t.data, kd_tensor_bytes(&s->t));
}

static int run_allreduce(struct kd_run *run, const struct bench_config *c,
                         struct bench_table *t)
{
    struct sum s = {.run = run};
    struct kd_arena *arena = NULL;
    double gb = 1e-3 * (double)c->megabytes, seconds = 1, copy = 1;
    int rc = KD_OK;

    if (kd_comm_size(run->comm) == 1) {
        kd_info("allreduce is left out: one rank has nothing to sum");
        return KD_OK;
    }
    KD_ALL_GO(run->comm, kd_arena_new(run->be, &arena));
    KD_ALL_GO(run->comm, make_sum(&s, arena, c->megabytes * 250000));
    KD_GO(slowest(run, call_copy, &s, &copy));
    KD_GO(slowest(run, call_sum, &s, &seconds));
    KD_ALL_GO(run->comm, bench_add(t, gb / seconds, "GB/s", gb / copy, "sum of %lld MB",
                                   (long long)c->megabytes));
out:
    kd_arena_free(arena);
    return rc;
}

const struct bench bench_allreduce = {
    .name = "allreduce",
    .summary = "sum of a tensor over the ranks",
    .run = run_allreduce,
};

/* ---- text ---- */

enum { TEXTS = 4096, TARGET_WORDS = 7, PREDICTION_WORDS = 12, SOURCE_WORDS = 80 };

/* Text I of N_WORDS words: common words are likelier, and half of those that LIKE has
 * at the same place are its. */
static int make_text(int64_t i, int n_words, const int64_t *like, int n_like,
                     int64_t *words, struct kd_str *out)
{
    static const char *const parts[] = {"lib",  "con",   "data", "ver", "gra", "mon",
                                        "text", "form",  "net",  "pro", "sys", "tem",
                                        "ing",  "ation", "ers",  "ed"};

    for (int w = 0; w < n_words; w++) {
        uint64_t r =
            kd_rng_u64((uint64_t)n_words, KD_RNG_TEST, (uint64_t)i, (uint64_t)w);
        double u = kd_rng_uniform((uint64_t)n_words, KD_RNG_TEST, (uint64_t)i,
                                  (uint64_t)w + 1000);

        words[w] = w < n_like && r % 2 ? like[w] : (int64_t)(u * u * u * 4096);
        KD_TRY(kd_str_printf(out, "%s%s%s%s", w ? " " : "", parts[words[w] % 12],
                             parts[words[w] / 16 % 12],
                             words[w] < 256 ? "" : parts[words[w] / 256]));
    }
    return KD_OK;
}

static void free_texts(struct kd_str *texts)
{
    for (int i = 0; texts && i < TEXTS; i++)
        kd_str_free(&texts[i]);
    free(texts);
}

struct pairs {
    struct kd_rouge_scorer *scorer;
    struct kd_str *target, *prediction; /* [TEXTS] */
};

static int make_pairs(struct pairs *p)
{
    KD_TRY(kd_calloc(TEXTS, sizeof *p->target, &p->target));
    KD_TRY(kd_calloc(TEXTS, sizeof *p->prediction, &p->prediction));
    for (int i = 0; i < TEXTS; i++) {
        int64_t target[TARGET_WORDS], prediction[PREDICTION_WORDS];

        KD_TRY(make_text(i, TARGET_WORDS, NULL, 0, target, &p->target[i]));
        KD_TRY(make_text(i, PREDICTION_WORDS, target, TARGET_WORDS, prediction,
                         &p->prediction[i]));
    }
    return kd_rouge_scorer_new(&p->scorer);
}

static int call_rouge(void *arg)
{
    struct pairs *p = arg;
    struct kd_rouge row;

    for (int i = 0; i < TEXTS; i++)
        KD_TRY(kd_rouge_score(p->scorer, p->target[i].data, p->target[i].len,
                              p->prediction[i].data, p->prediction[i].len, &row));
    return KD_OK;
}

static int run_metrics(struct kd_run *run, const struct bench_config *c,
                       struct bench_table *t)
{
    struct pairs p = {0};
    double rate;
    int rc = KD_OK;

    KD_ALL_GO(run->comm, make_pairs(&p));
    KD_GO(bench_rate(run, c->seconds, call_rouge, &p, TEXTS, &rate));
    KD_ALL_GO(run->comm, bench_add(t, rate / kd_comm_size(run->comm), "pairs/s", NAN,
                                   "ROUGE, one core"));
out:
    free_texts(p.target);
    free_texts(p.prediction);
    kd_rouge_scorer_free(p.scorer);
    return rc;
}

const struct bench bench_metrics = {
    .name = "metrics",
    .summary = "ROUGE of pairs of short texts",
    .run = run_metrics,
};

struct encoding {
    struct kd_tokenizer *tokenizer;
    struct kd_token_ids ids;
    struct kd_str *text; /* [TEXTS] */
    double mb;
};

static int make_encoding(struct encoding *e, const char *dir)
{
    KD_TRY(kd_calloc(TEXTS, sizeof *e->text, &e->text));
    for (int i = 0; i < TEXTS; i++) {
        int64_t words[SOURCE_WORDS];

        KD_TRY(make_text(i, SOURCE_WORDS, NULL, 0, words, &e->text[i]));
        e->mb += 1e-6 * (double)e->text[i].len;
    }
    return kd_tokenizer_load(dir, &e->tokenizer);
}

static int call_encode(void *arg)
{
    struct encoding *e = arg;

    for (int i = 0; i < TEXTS; i++)
        KD_TRY(kd_tokenizer_encode(e->tokenizer, KD_SOURCE, e->text[i].data,
                                   e->text[i].len, 0, &e->ids, NULL));
    return KD_OK;
}

static int run_tokenizer(struct kd_run *run, const struct bench_config *c,
                         struct bench_table *t)
{
    struct encoding e = {0};
    double rate;
    int rc = KD_OK;

    if (!c->tokenizer) {
        kd_info("tokenizer is left out: --tokenizer names none");
        return KD_OK;
    }
    KD_ALL_GO(run->comm, make_encoding(&e, c->tokenizer));
    KD_GO(bench_rate(run, c->seconds, call_encode, &e, e.mb, &rate));
    KD_ALL_GO(run->comm, bench_add(t, rate / kd_comm_size(run->comm), "MB/s", NAN,
                                   "encode, one core"));
out:
    free_texts(e.text);
    kd_token_ids_free(&e.ids);
    kd_tokenizer_free(e.tokenizer);
    return rc;
}

const struct bench bench_tokenizer = {
    .name = "tokenizer",
    .summary = "text to ids",
    .run = run_tokenizer,
};
