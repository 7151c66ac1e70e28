/* SPDX-License-Identifier: Apache-2.0 */
/* The distillation objective against the reference library (make_objective.py): every
 * term, the weighted loss and gradients, in the default arithmetic and in that of
 * --compat, on batches that kd_batch_build makes from a corpus.  Then what no reference
 * has: a batch split in parts, a rank without a part, one encoder for both models. */
#include "golden.h"

#include "kdhpc/distill/objective.h"
#include "kdhpc/mode/batch.h"
#include "source_dir.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { MAX_LAYERS = 3, MAX_ROWS = 8 };

static const char *const parameters[] = {
    "model.shared.weight",
    "model.encoder.layernorm_embedding.weight",
    "model.encoder.layers.0.fc1.bias",
    "model.encoder.layers.1.self_attn.v_proj.weight",
    "model.decoder.layers.0.encoder_attn.q_proj.weight",
    "model.decoder.layers.1.final_layer_norm.bias"};

struct world {
    struct kd_comm *comm;
    struct golden g;       /* student, teacher, backend */
    struct golden fixture; /* facts and expectations of the objective only */
    struct kd_tape *tape;
    struct kd_batch_buffer buffer;
    char path[256]; /* corpus file with one split a batch of the fixture */
    int64_t enc[MAX_LAYERS], dec[MAX_LAYERS];
};

static void ok(int rc)
{
    if (rc)
        fail_msg("%s", kd_error_get()->text);
}

static void near(const char *what, const char *of, double got, double want, double rel)
{
    if (!(fabs(got - want) <= rel * fabs(want)))
        fail_msg("%s %s: %.12g, expected %.12g", what, of, got, want);
}

/* ---- the fixture ---- */

/* The JSON lists of ids at KEY as ragged rows; frees nothing: the test is short. */
static struct kd_ragged ragged_of(const struct kd_json *batch, const char *key)
{
    const struct kd_json *rows = kd_json_get(batch, key);
    int64_t n = kd_json_len(rows), at = 0, *offsets;
    int32_t *values;

    offsets = calloc((size_t)n + 1, sizeof *offsets);
    for (int64_t i = 0; i < n; i++)
        offsets[i + 1] = offsets[i] + kd_json_len(kd_json_at(rows, i));
    values = calloc((size_t)offsets[n], sizeof *values);
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < kd_json_len(kd_json_at(rows, i)); k++)
            values[at++] =
                (int32_t)kd_json_as_int(kd_json_at(kd_json_at(rows, i), k), -1);
    return (struct kd_ragged){n, offsets, values};
}

static void write_split(struct world *w, struct kd_corpus_writer *writer,
                        const char *name)
{
    static const int64_t ids[MAX_ROWS] = {0, 1, 2, 3, 4, 5, 6, 7};
    static const int64_t no_text[MAX_ROWS + 1];
    const struct kd_json *batch =
        kd_json_get(kd_json_get(w->fixture.facts, "batches"), name);
    struct kd_corpus_rows rows = {.id = ids,
                                  .source = ragged_of(batch, "source"),
                                  .target = ragged_of(batch, "labels")};

    rows.n = rows.source.n;
    rows.source_text = rows.target_text = (struct kd_ragged){rows.n, no_text, ""};
    ok(kd_corpus_write_split(writer, name, &rows));
    free((void *)rows.source.offsets);
    free((void *)rows.source.values);
    free((void *)rows.target.offsets);
    free((void *)rows.target.values);
}

static void write_corpus(struct world *w)
{
    const struct kd_store_meta meta = {.schema = "kdhpc.corpus",
                                       .options = "mode: tokenize\n",
                                       .parents = "{}",
                                       .tokenizer_digest = ""};
    struct kd_corpus_writer *writer;

    ok(kd_format(w->path, sizeof w->path, "%s/test_objective.%ld.h5", KD_BINARY_DIR,
                 (long)getpid()));
    ok(kd_corpus_create(w->comm, w->path, &meta, &writer));
    write_split(w, writer, "ragged");
    write_split(w, writer, "equal");
    ok(kd_corpus_commit(writer));
}

static int64_t longest_target(const struct kd_corpus *c)
{
    int64_t longest = 0, len;

    for (int64_t i = 0; i < kd_corpus_size(c); i++) {
        kd_corpus_target(c, i, &len);
        longest = len > longest ? len : longest;
    }
    return longest;
}

/* What the whole batch is divided by. */
static struct kd_counts counts_of(const struct kd_corpus *c, bool compat)
{
    struct kd_counts n = {0};
    int64_t longest = compat ? longest_target(c) : 0, len;

    for (int64_t i = 0; i < kd_corpus_size(c); i++) {
        kd_corpus_source(c, i, &len);
        n.src_rows += (double)len;
        kd_corpus_target(c, i, &len);
        n.labels += (double)len;
        n.kd_rows += (double)(len + (len < longest));
    }
    return n;
}

/* ---- running the objective ---- */

struct job {
    struct world *w;
    struct kd_objective *obj;
    struct kd_model *student;
    const char *split;
    bool compat, train;
};

/* Examples [FIRST, FIRST + N) of the batch: terms added, gradients added if LEARN. */
static void run_part(const struct job *j, int64_t first, int64_t n, bool learn,
                     double *terms)
{
    struct world *w = j->w;
    int64_t index[MAX_ROWS];
    char *paths[] = {w->path};
    struct kd_corpus *corpus;
    struct kd_batch b;
    struct kd_counts counts;
    struct kd_ctx ctx = {.be = w->g.be,
                         .arena = w->g.arena,
                         .tape = learn ? w->tape : NULL,
                         .train = j->train,
                         .seed = 5,
                         .step = 1,
                         .dtype = golden_dtype};

    kd_tape_reset(w->tape);
    kd_arena_reset(w->g.arena);
    ok(kd_corpus_open(w->comm, paths, 1, j->split, &corpus));
    const struct kd_batch_rules rules = {j->compat,
                                         j->compat ? longest_target(corpus) : 0};

    counts = counts_of(corpus, j->compat);
    for (int64_t i = 0; i < n; i++)
        index[i] = first + i;
    if (n > 0)
        ok(kd_batch_build(&w->buffer, w->g.be, w->g.arena, kd_model_arch(j->student),
                          &rules, corpus, index, n, &b));
    ok(kd_objective_run(j->obj, &ctx, n > 0 ? &b : NULL, &counts, NULL, NULL, terms));
    kd_corpus_close(corpus);
}

static void zero_grads(struct world *w, struct kd_model *m)
{
    struct kd_params *ps = kd_model_params(m);

    ok(w->g.be->ops->zero(w->g.be, ps->grads, (size_t)ps->n_slab * sizeof(float)));
}

static int64_t rows_in(struct world *w, const char *split)
{
    return kd_json_len(kd_json_get(
        kd_json_get(kd_json_get(w->fixture.facts, "batches"), split), "source"));
}

static struct kd_objective_options options_of(struct world *w,
                                              const struct kd_json *facts)
{
    const struct kd_json *weights = kd_json_get(facts, "weights");
    double hid = kd_json_as_num(kd_json_at(weights, 2), NAN);

    return (struct kd_objective_options){
        .weight = {kd_json_as_num(kd_json_at(weights, 0), NAN),
                   kd_json_as_num(kd_json_at(weights, 1), NAN), hid, hid},
        .temperature = 2,
        .label_smoothing = kd_json_num(facts, "smoothing", 0),
        .normalize_hidden = kd_json_bool(facts, "normalize", false),
        .compat = kd_json_bool(facts, "compat", false),
        .enc = {2, w->enc},
        .dec = {2, w->dec}};
}

static void check_gradients(struct world *w, const char *case_name)
{
    const struct kd_params *ps = kd_model_params(w->g.model);
    float *got = golden_floats(w->g.be, ps->grads, ps->n_slab);

    for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++) {
        const struct kd_param *p = &ps->items[kd_params_find(ps, parameters[i])];
        double scale = 0, worst = 0;
        char name[KD_PARAM_NAME_MAX + 32];
        float *want;
        int64_t n;

        ok(kd_format(name, sizeof name, "%s.%s", case_name, p->name));
        want = golden_tensor(&w->fixture, name, &n);
        assert_int_equal(n, p->count);
        for (int64_t k = 0; k < n; k++) {
            scale = fmax(scale, fabs((double)want[k]));
            worst = fmax(worst, fabs((double)got[p->offset + k] - want[k]));
        }
        if (!(worst <= golden_bound(3e-5, 0.2) * fmax(scale, 0.05)))
            fail_msg("gradient %s: off by %g where the largest is %g", name, worst,
                     scale);
        free(want);
    }
    free(got);
}

/* A case of the fixture on the whole batch. */
static void check_case(struct world *w, const struct kd_json *facts)
{
    struct kd_objective_options o = options_of(w, facts);
    const char *name = kd_json_str(facts, "name", "");
    struct job j = {.w = w,
                    .student = w->g.model,
                    .split = kd_json_str(facts, "batch", ""),
                    .compat = o.compat};
    double terms[KD_N_TERMS] = {0};

    ok(kd_objective_new(&o, w->g.model, w->g.teacher, &j.obj));
    zero_grads(w, w->g.model);
    run_part(&j, 0, rows_in(w, j.split), true, terms);
    for (int k = 0; k < KD_N_TERMS; k++)
        near(name, kd_term_names[k], terms[k],
             kd_json_num(kd_json_get(facts, "terms"), kd_term_names[k], NAN),
             golden_bound(1e-5, 2e-2));
    near(name, "loss", kd_objective_loss(j.obj, terms), kd_json_num(facts, "loss", NAN),
         golden_bound(1e-5, 2e-2));
    check_gradients(w, name);
    kd_objective_free(j.obj);
}

static const struct kd_json *find_case(struct world *w, const char *name)
{
    const struct kd_json *cases = kd_json_get(w->fixture.facts, "cases");

    for (int64_t i = 0; i < kd_json_len(cases); i++)
        if (!strcmp(kd_json_str(kd_json_at(cases, i), "name", ""), name))
            return kd_json_at(cases, i);
    fail_msg("no case %s", name);
    return NULL;
}

static void test_reference(void **state)
{
    struct world *w = *state;
    const struct kd_json *cases = kd_json_get(w->fixture.facts, "cases");

    assert_int_equal(kd_json_len(cases), 7);
    for (int64_t i = 0; i < kd_json_len(cases); i++)
        check_case(w, kd_json_at(cases, i));
}

/* ---- parts ---- */

/* Stands for the reduction over ranks that run one after the other: the first round
 * adds up what each has, the second gives all of it to each. */
struct exchange {
    double total[2][64]; /* of each stack: every run exchanges both */
    bool collecting;
    int n_calls;
};

static int exchange_sums(void *arg, double *v, int64_t n)
{
    struct exchange *x = arg;
    double *total = x->total[x->n_calls++ % 2];

    assert_in_range(n, 1, 64);
    for (int64_t i = 0; i < n; i++) {
        if (x->collecting)
            total[i] += v[i];
        else
            v[i] = total[i];
    }
    return KD_OK;
}

static void check_parts(struct world *w, const char *name)
{
    const struct kd_json *facts = find_case(w, name);
    struct kd_objective_options o = options_of(w, facts);
    struct exchange x = {.collecting = true};
    struct job j = {.w = w,
                    .student = w->g.model,
                    .split = kd_json_str(facts, "batch", ""),
                    .compat = o.compat};
    int64_t n = rows_in(w, j.split);
    double terms[KD_N_TERMS] = {0}, ignored[KD_N_TERMS] = {0};

    o.reduce = exchange_sums;
    o.reduce_arg = &x;
    ok(kd_objective_new(&o, w->g.model, w->g.teacher, &j.obj));
    run_part(&j, 0, 1, false, ignored);
    run_part(&j, 1, n - 1, false, ignored);
    run_part(&j, 0, 0, false, ignored);
    x.collecting = false;
    zero_grads(w, w->g.model);
    run_part(&j, 0, 1, true, terms);
    run_part(&j, 1, n - 1, true, terms);
    memcpy(ignored, terms, sizeof terms);
    run_part(&j, 0, 0, true, terms); /* a rank without a part of the batch */
    assert_memory_equal(ignored, terms, sizeof terms);
    /* one call a stack and run, where the whole block is normalised; else none */
    assert_int_equal(x.n_calls, o.compat && o.normalize_hidden ? 2 * 6 : 0);
    for (int k = 0; k < KD_N_TERMS; k++)
        near(name, kd_term_names[k], terms[k],
             kd_json_num(kd_json_get(facts, "terms"), kd_term_names[k], NAN),
             golden_bound(1e-5, 2e-2));
    check_gradients(w, name);
    kd_objective_free(j.obj);
}

static void test_parts(void **state)
{
    check_parts(*state, "normalized");
    check_parts(*state, "compat");
    check_parts(*state, "compat_block");
}

/* ---- one encoder for both ---- */

/* A student with the teacher's own encoder, frozen, under dropout: run once or twice,
 * the encoder must give the same, since neither run of it has dropout. */
static int64_t run_shared(struct world *w, bool share, double *terms, float **grads)
{
    static const int64_t all[] = {0, 1, 2}, some[] = {0, 2};
    struct kd_objective_options o = options_of(w, find_case(w, "plain"));
    struct job j = {.w = w, .split = "ragged", .train = true};
    struct kd_params *ps;
    int64_t n;

    ok(kd_student_new(w->g.teacher, all, 3, some, 2, &j.student));
    kd_model_freeze_encoder(j.student);
    ps = kd_model_params(j.student);
    ok(kd_params_alloc_grads(ps));
    o.share_encoder = share;
    o.enc.n = 0;
    ok(kd_objective_new(&o, j.student, w->g.teacher, &j.obj));
    run_part(&j, 0, rows_in(w, j.split), true, terms);
    n = ps->n_slab;
    *grads = golden_floats(w->g.be, ps->grads, n);
    for (int i = 0; i < ps->n; i++)
        for (int64_t k = 0; ps->items[i].frozen && k < ps->items[i].count; k++)
            assert_true((*grads)[ps->items[i].offset + k] == 0);
    kd_objective_free(j.obj);
    kd_model_free(j.student);
    return n;
}

static void test_shared_encoder(void **state)
{
    double once[KD_N_TERMS] = {0}, twice[KD_N_TERMS] = {0};
    float *grads_once, *grads_twice;
    struct world *w = *state;
    double largest = 0;
    int64_t n;

    n = run_shared(w, true, once, &grads_once);
    run_shared(w, false, twice, &grads_twice);
    for (int k = 0; k < KD_N_TERMS; k++)
        near("shared encoder", kd_term_names[k], once[k], twice[k], 1e-7);
    assert_true(once[KD_TERM_CE] > 1e-3 && once[KD_TERM_HID_DEC] > 1e-3);
    assert_true(once[KD_TERM_HID_ENC] == 0);
    for (int64_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs((double)grads_once[i]));
        assert_true(fabs((double)grads_once[i] - grads_twice[i]) <= 1e-6);
    }
    assert_true(largest > 1e-3);
    free(grads_once);
    free(grads_twice);
}

/* ---- refusals ---- */

static void refuses(struct world *w, const char *key, int64_t value, const char *word)
{
    struct kd_objective_options o = options_of(w, find_case(w, "plain"));
    struct kd_json *config = kd_json_copy(kd_model_config(w->g.model));
    struct kd_objective *obj = NULL;
    struct kd_model *other;

    ok(kd_json_set_int(config, key, value));
    ok(kd_model_new(w->g.be, golden_dtype, config, &other));
    assert_int_equal(kd_objective_new(&o, other, w->g.teacher, &obj), KD_EINPUT);
    assert_null(obj);
    if (!strstr(kd_error_get()->text, word))
        fail_msg("no '%s' in: %s", word, kd_error_get()->text);
    kd_error_clear();
    kd_model_free(other);
    kd_json_free(config);
}

static void test_refusals(void **state)
{
    refuses(*state, "vocab_size", 54, "54 vocabulary entries, the teacher 53");
    refuses(*state, "d_model", 32, "student 32, teacher 16");
}

/* ---- set-up ---- */

static void read_list(const struct kd_json *list, int64_t *out)
{
    assert_int_equal(kd_json_len(list), 2);
    for (int i = 0; i < 2; i++)
        out[i] = kd_json_as_int(kd_json_at(list, i), -1);
}

static int start(void **state)
{
    static struct world w;
    char path[512];

    ok(kd_comm_start(&w.comm));
    golden_open("bart", &w.g);
    ok(kd_params_alloc_grads(kd_model_params(w.g.model)));
    ok(kd_tape_new(w.g.be, &w.tape));
    ok(kd_format(path, sizeof path, "%s/tests/golden/objective/objective.json",
                 kd_test_source_dir()));
    ok(kd_json_parse_file(path, &w.fixture.facts));
    ok(kd_format(path, sizeof path, "%s/tests/golden/objective/expect",
                 kd_test_source_dir()));
    ok(kd_weights_open(path, &w.fixture.expect));
    read_list(kd_json_get(w.fixture.facts, "encoder_matches"), w.enc);
    read_list(kd_json_get(w.fixture.facts, "decoder_matches"), w.dec);
    write_corpus(&w);
    *state = &w;
    return 0;
}

static int stop(void **state)
{
    struct world *w = *state;

    remove(w->path);
    kd_batch_buffer_free(&w->buffer);
    kd_tape_free(w->tape);
    kd_weights_close(w->fixture.expect);
    kd_json_free(w->fixture.facts);
    golden_close(&w->g);
    kd_comm_stop(w->comm);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_shared_encoder),
        cmocka_unit_test(test_refusals),
    };

    if (golden_no_device())
        return GOLDEN_SKIPPED;
    return cmocka_run_group_tests(tests, start, stop);
}
