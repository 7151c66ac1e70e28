/* SPDX-License-Identifier: Apache-2.0 */
/* A training step seen from outside: the device is not waited for between forward and
 * backward, and recomputed layers change the memory that a step needs and nothing else:
 * the same losses, gradients and reports of parameters, to the bit, with dropout, for
 * post-norm (bart) and pre-norm (mbart) layers, with distances and gates (t5), with and
 * without hidden states.  A step that only plans its memory finds what the step itself
 * uses. */
#include "golden.h"

#include "kdhpc/distill/objective.h"
#include "kdhpc/tensor/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_LAYERS = 4, MAX_REPORTS = 512 };

/* One step and what is seen of it. */
struct step {
    struct golden g;
    struct kd_batch batch;
    void *keys;
    double terms[KD_N_TERMS];
    float *grads;
    struct kd_var *reports[MAX_REPORTS]; /* parameters in the order of their reports */
    int n_reports;
    size_t arena_bytes, pool_bytes;
};

/* What a step is asked to do. */
struct plan {
    const char *fixture;
    bool hidden, freeze_encoder, recompute;
};

static void ok(int rc)
{
    if (rc)
        fail_msg("%s", kd_error_get()->text);
}

static int note_report(void *arg, struct kd_var *p)
{
    struct step *s = arg;

    assert_in_range(s->n_reports, 0, MAX_REPORTS - 1);
    assert_int_equal(p->pending, 0);
    s->reports[s->n_reports++] = p;
    return KD_OK;
}

static void add_keys(struct step *s)
{
    int64_t n = s->batch.src.n_rows + s->batch.tgt.n_rows;
    size_t bytes = (size_t)n * sizeof(uint64_t);
    uint64_t *keys = malloc(bytes);

    for (int64_t i = 0; i < n; i++)
        keys[i] = (uint64_t)i * 7919 + 3;
    ok(s->g.be->ops->alloc(s->g.be, bytes, &s->keys));
    ok(s->g.be->ops->upload(s->g.be, s->keys, keys, bytes));
    ok(s->g.be->ops->sync(s->g.be));
    s->batch.src_keys = s->keys;
    s->batch.tgt_keys = s->batch.src_keys + s->batch.src.n_rows;
    free(keys);
}

static void open_step(const struct plan *p, struct step *s)
{
    memset(s, 0, sizeof *s);
    golden_open(p->fixture, &s->g);
    s->batch = s->g.batch;
    add_keys(s);
    kd_model_set_dropout(s->g.model, 0.2, 0.1);
    if (p->freeze_encoder)
        kd_model_freeze_encoder(s->g.model);
    ok(kd_params_alloc_grads(kd_model_params(s->g.model)));
}

static void close_step(struct step *s)
{
    free(s->grads);
    s->g.be->ops->free(s->g.be, s->keys);
    golden_close(&s->g);
}

static struct kd_objective *objective_of(const struct plan *p, struct step *s)
{
    const struct kd_arch *a = kd_model_arch(s->g.model),
                         *t = kd_model_arch(s->g.teacher);
    int64_t enc[MAX_LAYERS], dec[MAX_LAYERS];
    struct kd_objective_options o = {
        .weight = {0.8, 0.2, 3, 3}, .temperature = 2, .label_smoothing = 0.1};
    struct kd_objective *obj;

    for (int k = 0; k < MAX_LAYERS; k++) {
        enc[k] = k % t->n_enc;
        dec[k] = k % t->n_dec;
    }
    if (p->hidden) {
        o.enc = (struct kd_matches){a->n_enc, enc};
        o.dec = (struct kd_matches){a->n_dec, dec};
    }
    ok(kd_objective_new(&o, s->g.model, s->g.teacher, &obj));
    return obj;
}

static void run_step(const struct plan *p, struct step *s)
{
    const struct kd_counts counts = {17, 23, 17};
    struct kd_params *ps = kd_model_params(s->g.model);
    struct kd_objective *obj = objective_of(p, s);
    struct kd_arena *arena;
    struct kd_tape *tape;

    ok(kd_arena_new(s->g.be, &arena));
    ok(kd_tape_new(s->g.be, &tape));
    struct kd_ctx ctx = {.be = s->g.be,
                         .arena = arena,
                         .tape = tape,
                         .train = true,
                         .seed = 11,
                         .step = 3,
                         .dtype = golden_dtype,
                         .recompute = p->recompute};

    ok(kd_objective_run(obj, &ctx, &s->batch, &counts, note_report, s, s->terms));
    s->grads = golden_floats(s->g.be, ps->grads, ps->n_slab);
    s->arena_bytes = kd_arena_peak_bytes(arena);
    s->pool_bytes = kd_tape_peak_bytes(tape);
    kd_tape_free(tape);
    kd_arena_free(arena);
    kd_objective_free(obj);
}

/* ---- recomputed layers ---- */

/* Where a var lies in its model, so that those of two models compare. */
static int64_t place_of(const struct step *s, const struct kd_var *v)
{
    const float *grads = kd_model_params(s->g.model)->grads;

    return (const float *)v->g.data - grads;
}

static void check_reports(const struct step *kept, const struct step *again)
{
    assert_int_equal(again->n_reports, kept->n_reports);
    assert_true(kept->n_reports > 20);
    for (int i = 0; i < kept->n_reports; i++) {
        assert_int_equal(place_of(again, again->reports[i]),
                         place_of(kept, kept->reports[i]));
        for (int k = 0; k < i; k++)
            assert_ptr_not_equal(again->reports[i], again->reports[k]);
    }
}

static void check_recompute(const char *fixture, bool hidden, bool freeze_encoder)
{
    struct plan p = {fixture, hidden, freeze_encoder, false};
    struct step *kept = malloc(sizeof *kept), *again = malloc(sizeof *again);
    int64_t n;

    open_step(&p, kept);
    run_step(&p, kept);
    p.recompute = true;
    open_step(&p, again);
    run_step(&p, again);
    n = kd_model_params(kept->g.model)->n_slab;
    assert_memory_equal(again->terms, kept->terms, sizeof kept->terms);
    assert_memory_equal(again->grads, kept->grads, (size_t)n * sizeof(float));
    assert_true(kept->terms[KD_TERM_CE] > 0 && kept->terms[KD_TERM_MLM] > 0);
    assert_true(!hidden || kept->terms[KD_TERM_HID_DEC] > 0);
    check_reports(kept, again);
    if (again->arena_bytes + again->pool_bytes >=
        (kept->arena_bytes + kept->pool_bytes) * 9 / 10)
        fail_msg("%s: %zu + %zu bytes recomputed, %zu + %zu kept", fixture,
                 again->arena_bytes, again->pool_bytes, kept->arena_bytes,
                 kept->pool_bytes);
    close_step(kept);
    close_step(again);
    free(kept);
    free(again);
}

static void test_recompute_post_norm(void **state)
{
    (void)state;
    check_recompute("bart", false, false);
    check_recompute("bart", true, false);
    check_recompute("bart", true, true);
}

static void test_recompute_pre_norm(void **state)
{
    (void)state;
    check_recompute("mbart", false, false);
    check_recompute("mbart", true, false);
}

/* The table of distances is an input of every layer, and is there once. */
static void test_recompute_distances(void **state)
{
    (void)state;
    check_recompute("t5", false, false);
    check_recompute("t5", true, true);
    check_recompute("t5_gated", true, false);
}

/* ---- planned memory ---- */

static void check_plan(const struct plan *p)
{
    struct step *real = malloc(sizeof *real), *planned = malloc(sizeof *planned);
    struct kd_backend *be = NULL;
    size_t slabs;

    open_step(p, real);
    *planned = *real;
    ok(kd_backend_plan(real->g.be->device, &be));
    planned->g.be = be;
    ok(kd_model_like(real->g.model, be, &planned->g.model));
    ok(kd_model_like(real->g.teacher, be, &planned->g.teacher));
    slabs = kd_plan_bytes(be);
    assert_true(slabs > 0 && kd_plan_peak_bytes(be) == slabs);
    ok(kd_params_alloc_grads(kd_model_params(planned->g.model)));
    assert_true(kd_plan_bytes(be) > slabs);
    slabs = kd_plan_bytes(be);
    run_step(p, planned);
    run_step(p, real);
    assert_int_equal(planned->arena_bytes, real->arena_bytes);
    assert_int_equal(planned->pool_bytes, real->pool_bytes);
    assert_int_equal(kd_plan_bytes(be), slabs);
    assert_true(kd_plan_peak_bytes(be) >= slabs + real->arena_bytes + real->pool_bytes);
    kd_plan_restart(be);
    kd_model_free(planned->g.teacher);
    kd_model_free(planned->g.model);
    assert_int_equal(kd_plan_bytes(be), 0);
    assert_int_equal(kd_plan_peak_bytes(be), slabs);
    kd_backend_free(be);
    free(planned->grads);
    close_step(real);
    free(planned);
    free(real);
}

static void test_plan_is_what_is_used(void **state)
{
    (void)state;
    for (int recompute = 0; recompute < 2; recompute++) {
        check_plan(&(struct plan){"bart", true, false, recompute});
        check_plan(&(struct plan){"bart", false, true, recompute});
        check_plan(&(struct plan){"mbart", true, false, recompute});
        check_plan(&(struct plan){"t5", true, false, recompute});
        check_plan(&(struct plan){"t5_gated", false, true, recompute});
    }
}

/* Every slot is there, so a plan can go wherever a run goes. */
static void test_plan_has_all_slots(void **state)
{
    struct kd_backend *be;
    void (*const *slots)(void);

    (void)state;
    ok(kd_backend_plan(KD_CPU, &be));
    slots = (void (*const *)(void))(const void *)(&be->ops->name + 1);
    for (int i = 0; i < kd_backend_n_slots; i++)
        if (!slots[i])
            fail_msg("the planning backend has no %s", kd_backend_slots[i]);
    kd_backend_free(be);
}

/* ---- waiting ---- */

/* Slots called, in order: the last backward of attention, the first download. */
static const struct kd_backend_ops *inner_ops;
static int n_calls, last_back, first_wait;

static int watch_back(struct kd_backend *be, const struct kd_attention *a,
                      struct kd_mat dout, struct kd_mat dq, struct kd_mat dk,
                      struct kd_mat dv, float *dbias)
{
    last_back = ++n_calls;
    return inner_ops->attention_back(be, a, dout, dq, dk, dv, dbias);
}

static int watch_download(struct kd_backend *be, void *dst, const void *src,
                          size_t bytes)
{
    ++n_calls;
    first_wait = first_wait ? first_wait : n_calls;
    return inner_ops->download(be, dst, src, bytes);
}

static int watch_sync(struct kd_backend *be)
{
    ++n_calls;
    first_wait = first_wait ? first_wait : n_calls;
    return inner_ops->sync(be);
}

static void test_waits_at_the_end(void **state)
{
    const struct plan p = {"bart", true, false, false};
    struct step *s = malloc(sizeof *s);
    struct kd_backend_ops watched;

    (void)state;
    open_step(&p, s);
    inner_ops = s->g.be->ops;
    watched = *inner_ops;
    watched.attention_back = watch_back;
    watched.download = watch_download;
    watched.sync = watch_sync;
    s->g.be->ops = &watched;
    n_calls = last_back = first_wait = 0;
    run_step(&p, s);
    s->g.be->ops = inner_ops;
    assert_true(last_back > 0 && first_wait > last_back);
    close_step(s);
    free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recompute_post_norm),
        cmocka_unit_test(test_recompute_pre_norm),
        cmocka_unit_test(test_recompute_distances),
        cmocka_unit_test(test_plan_is_what_is_used),
        cmocka_unit_test(test_plan_has_all_slots),
        cmocka_unit_test(test_waits_at_the_end),
    };

    if (golden_no_device())
        return GOLDEN_SKIPPED;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
