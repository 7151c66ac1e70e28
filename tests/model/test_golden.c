/* SPDX-License-Identifier: Apache-2.0 */
/* The transformer against the reference library: logits, losses, gradients of every
 * parameter, and cached decoding, for each fixture. */
#include "golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const fixtures[] = {
    "bart",       "mbart", "bart_uneven", "pegasus",  "marian",
    "marian_two", "t5",    "fsmt",        "t5_gated", "mt5"};
enum { N_FIXTURES = sizeof fixtures / sizeof *fixtures, N_ROUGH = 3 };

/* The last N_ROUGH have sums in bfloat16 but hardly values: in torch's own the logits
 * of the gated ones are off by 0.4 and 0.7, and few rows pass the ReLUs of fsmt. */
static int n_precise(void)
{
    return golden_dtype == KD_F32 ? N_FIXTURES : N_FIXTURES - N_ROUGH;
}

static void ok(int rc)
{
    if (rc)
        fail_msg("%s", kd_error_get()->text);
}

/* Largest |a - b| must be within TOL. */
static void close_to(const char *what, const float *a, const float *b, int64_t n,
                     double tol)
{
    double worst = 0;
    int64_t at = 0;

    for (int64_t i = 0; i < n; i++) {
        double diff = fabs((double)a[i] - (double)b[i]);

        if (!(diff <= worst)) {
            worst = diff;
            at = i;
        }
    }
    if (!(worst <= tol))
        fail_msg("%s: value %lld is %.9g, the reference has %.9g", what, (long long)at,
                 (double)a[at], (double)b[at]);
}

static void near(const char *what, double got, double want, double rel)
{
    if (!(fabs(got - want) <= rel * fabs(want)))
        fail_msg("%s: %.12g, the reference has %.12g", what, got, want);
}

static struct kd_ctx context(struct golden *g, struct kd_tape *tape,
                             struct kd_taps *taps)
{
    return (struct kd_ctx){.be = g->be,
                           .arena = g->arena,
                           .tape = tape,
                           .taps = taps,
                           .dtype = golden_dtype};
}

static void forward(struct kd_ctx *ctx, struct kd_model *m, const struct kd_batch *b,
                    struct kd_var **hidden)
{
    struct kd_var *enc;

    ok(kd_model_encode(ctx, m, b, &enc));
    ok(kd_model_decode(ctx, m, b, enc, hidden));
}

static void test_logits(void **state)
{
    (void)state;
    for (int f = 0; f < n_precise(); f++) {
        struct golden g;
        struct kd_ctx ctx;
        struct kd_var *h;
        struct kd_head head;
        struct kd_tensor z;
        struct kd_gemm gemm = {.trans_b = true};
        float *got, *want;
        int64_t n;

        golden_open(fixtures[f], &g);
        ctx = context(&g, NULL, NULL);
        forward(&ctx, g.model, &g.batch, &h);
        head = kd_model_head(g.model);
        ok(kd_arena_tensor(g.arena, KD_F32, h->v.shape[0], head.w->v.shape[0], &z));
        gemm.alpha = head.scale;
        gemm.a = kd_mat_of(h->v);
        gemm.b = kd_mat_of(head.w->v);
        gemm.c = kd_mat_of(z);
        gemm.bias = head.bias;
        ok(g.be->ops->gemm(g.be, &gemm));
        want = golden_tensor(&g, "logits", &n);
        assert_int_equal(n, kd_tensor_count(&z));
        got = golden_floats(g.be, z.data, n);
        /* torch's own bfloat16 is off by up to 0.075 here */
        close_to(fixtures[f], got, want, n, golden_bound(1e-4, 0.15));
        free(got);
        free(want);
        golden_close(&g);
        print_message("passed: logits %s\n", fixtures[f]);
    }
}

static void test_losses(void **state)
{
    (void)state;
    for (int f = 0; f < N_FIXTURES; f++) {
        struct golden g;
        struct kd_ctx ctx;
        struct kd_var *h, *ht;
        struct kd_head_loss_sums sums;
        double n, v, eps, T;

        golden_open(fixtures[f], &g);
        ctx = context(&g, NULL, NULL);
        n = (double)g.batch.tgt.n_rows;
        v = (double)kd_model_arch(g.model)->vocab_size;
        eps = golden_number(&g, NULL, "label_smoothing");
        T = golden_number(&g, NULL, "temperature");
        forward(&ctx, g.model, &g.batch, &h);
        forward(&ctx, g.teacher, &g.batch, &ht);
        const struct kd_head hs = kd_model_head(g.model), tt = kd_model_head(g.teacher);
        const struct kd_head_loss_desc desc = {
            .w_ce = 1, .w_kl = 1, .temperature = (float)T, .labels = g.batch.labels};

        ok(kd_op_head_loss(&ctx, &hs, h, &tt, ht, &desc, &sums, NULL));
        near("loss", sums.ce / n, golden_number(&g, NULL, "loss"),
             golden_bound(1e-6, 2e-2));
        near("smooth", (1 - eps) * sums.ce / n + eps / v * sums.smooth / n,
             golden_number(&g, NULL, "smooth_loss"), golden_bound(1e-6, 2e-2));
        near("kl", T * T * sums.kl / n, golden_number(&g, NULL, "kl_loss"),
             golden_bound(2e-6, 2e-2));
        golden_close(&g);
        print_message("passed: loss %s\n", fixtures[f]);
    }
}

/* |a - b| must be within TOL of |b|, or of what N values of FLOOR have. */
static void norm_close_to(const char *what, const float *a, const float *b, int64_t n,
                          double tol, double floor_)
{
    double diff = 0, size = 0;

    for (int64_t i = 0; i < n; i++) {
        diff += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    size = sqrt(fmax(size, (double)n * floor_ * floor_));
    if (!(sqrt(diff) <= tol * size))
        fail_msg("%s: off by %g of its size %g", what, sqrt(diff) / size, size);
}

/* Gradients in the slab against the tensors PREFIX + name; all of them if ALL. */
static void compare_gradients(struct golden *g, const char *prefix, bool all)
{
    const struct kd_params *ps = kd_model_params(g->model);
    float *got = golden_floats(g->be, ps->grads, ps->n_slab);
    /* A ReLU near zero is on in one type and off in the other: with some ten rows that
     * shows in whole tensors (in torch's own bfloat16 0.13 against 0.06 elsewhere). */
    double bf16 = kd_model_arch(g->model)->act == KD_ACT_RELU ? 0.5 : 0.2;

    for (int i = 0; i < ps->n; i++) {
        const struct kd_param *p = &ps->items[i];
        char name[KD_PARAM_NAME_MAX + 16];
        double scale = 0;
        float *want;
        int64_t n;

        if (kd_param_is_constant(p) ||
            (!all && p->ndim == 2 && p->kind != KD_PARAM_EMBED))
            continue;
        ok(kd_format(name, sizeof name, "%s%s", prefix, p->name));
        want = golden_tensor(g, name, &n);
        assert_int_equal(n, p->count);
        for (int64_t k = 0; k < n; k++)
            scale = fmax(scale, fabs((double)want[k]));
        if (golden_dtype == KD_F32)
            close_to(name, got + p->offset, want, n, 2e-5 * fmax(scale, 0.05));
        else
            norm_close_to(name, got + p->offset, want, n, bf16, 0.01);
        free(want);
    }
    free(got);
}

static int count_ready(void *arg, struct kd_var *p)
{
    int64_t *n = arg;

    assert_true(p->is_param && p->needs_grad);
    *n += kd_tensor_count(&p->g);
    return KD_OK;
}

static void test_gradients(void **state)
{
    (void)state;
    for (int f = 0; f < n_precise(); f++) {
        struct golden g;
        struct kd_tape *tape;
        struct kd_ctx ctx;
        struct kd_var *h;
        struct kd_head_loss_sums sums;
        int64_t n_ready = 0, n_params;
        const struct kd_arch *a;

        golden_open(fixtures[f], &g);
        a = kd_model_arch(g.model);
        ok(kd_tape_new(g.be, &tape));
        ok(kd_params_alloc_grads(kd_model_params(g.model)));
        n_params = kd_params_count(kd_model_params(g.model));
        near("parameters", (double)n_params, golden_number(&g, NULL, "n_parameters"),
             0);
        ctx = context(&g, tape, NULL);
        forward(&ctx, g.model, &g.batch, &h);
        const struct kd_head head = kd_model_head(g.model);
        const struct kd_head_loss_desc desc = {.w_ce = 1.0f / (float)g.batch.tgt.n_rows,
                                               .temperature = 1,
                                               .labels = g.batch.labels};

        ok(kd_op_head_loss(&ctx, &head, h, NULL, NULL, &desc, &sums, NULL));
        ok(kd_tape_backward(tape, count_ready, &n_ready));
        compare_gradients(&g, "grad.", true);
        /* every parameter is reported once; rows before the positions' offset are not
         */
        if (a->positions == KD_POS_LEARNED)
            n_params -= 2 * a->pos_offset * a->d_model;
        assert_int_equal(n_ready, n_params);
        kd_tape_free(tape);
        golden_close(&g);
        print_message("passed: gradient %s\n", fixtures[f]);
    }
}

/* ---- distillation: every term at once ---- */

enum { MAX_TAPS = 8 };

static void ask(struct kd_taps *taps, const char *stack, const struct kd_json *matches,
                bool teacher)
{
    for (int64_t k = 0; k < kd_json_len(matches); k++) {
        long long layer =
            teacher ? (long long)kd_json_as_int(kd_json_at(matches, k), -1) : k;

        ok(kd_format(taps->items[taps->n++].name, sizeof taps->items->name,
                     "%s.%lld.out", stack, layer));
    }
}

static double hidden_terms(struct kd_ctx *ctx, const struct golden *g,
                           const struct kd_taps *s, const struct kd_taps *t, int first,
                           int n, int64_t rows, bool normalize, float weight)
{
    double total = 0, size = (double)(rows * kd_model_arch(g->model)->d_model);

    for (int k = first; k < first + n; k++) {
        double sum;

        assert_non_null(s->items[k].var);
        ok(kd_op_hidden_mse(ctx, s->items[k].var, kd_taps_find(t, t->items[k].name),
                            NULL, normalize, weight / (float)size, &sum));
        total += sum / size;
    }
    return total;
}

static void blend(struct golden *g, struct kd_tape *tape)
{
    struct kd_tap s_items[MAX_TAPS] = {0}, t_items[MAX_TAPS] = {0};
    struct kd_taps s = {.items = s_items}, t = {.items = t_items};
    const struct kd_json *enc = kd_json_get(g->facts, "encoder_matches");
    const struct kd_json *dec = kd_json_get(g->facts, "decoder_matches");
    int n_enc = (int)kd_json_len(enc), n_dec = (int)kd_json_len(dec);
    int64_t n_src = g->batch.src.n_rows, n = g->batch.tgt.n_rows;
    struct kd_ctx cs = context(g, tape, &s), ct = context(g, NULL, &t);
    struct kd_var *h, *ht;
    struct kd_head_loss_sums sums;
    double v = (double)kd_model_arch(g->model)->vocab_size, total;

    ask(&s, "enc", enc, false);
    ask(&s, "dec", dec, false);
    ask(&t, "enc", enc, true);
    ask(&t, "dec", dec, true);
    forward(&cs, g->model, &g->batch, &h);
    forward(&ct, g->teacher, &g->batch, &ht);
    near("enc_plain", hidden_terms(&ct, g, &s, &t, 0, n_enc, n_src, false, 0),
         golden_number(g, "hidden", "enc_plain"), golden_bound(1e-5, 2e-2));
    near("dec_plain", hidden_terms(&ct, g, &s, &t, n_enc, n_dec, n, false, 0),
         golden_number(g, "hidden", "dec_plain"), golden_bound(1e-5, 2e-2));
    total = 3 * hidden_terms(&cs, g, &s, &t, 0, n_enc, n_src, true, 3);
    near("enc_norm", total / 3, golden_number(g, "hidden", "enc_norm"),
         golden_bound(1e-5, 2e-2));
    total += 3 * hidden_terms(&cs, g, &s, &t, n_enc, n_dec, n, true, 3);
    const struct kd_head hs = kd_model_head(g->model), tt = kd_model_head(g->teacher);
    const struct kd_head_loss_desc desc = {.w_ce = 0.2f * 0.9f / (float)n,
                                           .w_smooth =
                                               0.2f * 0.1f / (float)(v * (double)n),
                                           .w_kl = 0.8f * 4 / (float)n,
                                           .temperature = 2,
                                           .labels = g->batch.labels};

    ok(kd_op_head_loss(&cs, &hs, h, &tt, ht, &desc, &sums, NULL));
    total +=
        (0.8 * 4 * sums.kl + 0.2 * (0.9 * sums.ce + 0.1 / v * sums.smooth)) / (double)n;
    near("blend", total, golden_number(g, "blend", "loss"), golden_bound(1e-5, 2e-2));
    ok(kd_tape_backward(tape, NULL, NULL));
}

static void test_distillation(void **state)
{
    (void)state;
    for (int f = 0; f < n_precise(); f++) {
        struct golden g;
        struct kd_tape *tape;

        golden_open(fixtures[f], &g);
        ok(kd_tape_new(g.be, &tape));
        ok(kd_params_alloc_grads(kd_model_params(g.model)));
        blend(&g, tape);
        compare_gradients(&g, "blend.", false);
        kd_tape_free(tape);
        golden_close(&g);
    }
}

static void test_frozen_encoder(void **state)
{
    struct golden g;
    struct kd_params *ps;
    struct kd_tape *tape;
    struct kd_ctx ctx;
    struct kd_var *h;
    struct kd_head_loss_sums sums;
    int64_t n_ready = 0;
    void *there;

    (void)state;
    golden_open("bart", &g);
    ok(g.be->ops->alloc(g.be, sizeof(double), &there));
    ok(kd_tape_new(g.be, &tape));
    ps = kd_model_params(g.model);
    ok(kd_params_alloc_grads(ps));
    assert_false(kd_model_encoder_frozen(g.model));
    kd_model_freeze_encoder(g.model);
    assert_true(kd_model_encoder_frozen(g.model));
    ctx = context(&g, tape, NULL);
    forward(&ctx, g.model, &g.batch, &h);
    const struct kd_head head = kd_model_head(g.model);
    const struct kd_head_loss_desc desc = {
        .w_ce = 1, .temperature = 1, .labels = g.batch.labels};

    ok(kd_op_head_loss(&ctx, &head, h, NULL, NULL, &desc, &sums, NULL));
    ok(kd_tape_backward(tape, count_ready, &n_ready));
    for (int i = 0; i < ps->n; i++) {
        struct kd_span span = {ps->grads + ps->items[i].offset, ps->items[i].count};
        double sum;

        ok(g.be->ops->sum_sq(g.be, &span, 1, there));
        ok(g.be->ops->download(g.be, &sum, there, sizeof sum));
        if (ps->items[i].part != KD_PART_DECODER)
            assert_true(sum == 0);
        else if (!strstr(ps->items[i].name, "k_proj.bias"))
            assert_true(sum > 0);
    }
    g.be->ops->free(g.be, there);
    kd_tape_free(tape);
    golden_close(&g);
}

/* ---- cache ---- */

/* Two hypotheses a source that change places at every step: one follows the fixture's
 * decoder ids, the other some other ids; sources leave as their targets end. */
static void decode_cached(struct golden *g, const float *want)
{
    const struct kd_seqs *src = &g->batch.src, *tgt = &g->batch.tgt;
    int64_t v = kd_model_arch(g->model)->vocab_size, n_live = 0;
    struct kd_ctx ctx = context(g, NULL, NULL);
    struct kd_decoder *d;
    struct kd_tensor z;
    int32_t parent[64], source[64], tokens[64], row_of[64] = {0};
    float *got;

    ok(kd_decoder_new(&ctx, g->model, src, g->src_ids, 2 * src->n, tgt->max_len, 0,
                      &d));
    for (int64_t t = 0; t < tgt->max_len; t++) {
        n_live = 0;
        for (int64_t s = 0; s < src->n; s++) {
            int64_t at = g->tgt_offsets[s] + t;

            if (at >= g->tgt_offsets[s + 1])
                continue;
            for (int64_t k = 0; k < 2; k++) {
                bool follows = k == t % 2;

                source[n_live] = (int32_t)s;
                parent[n_live] = row_of[s] + (int32_t)(1 - k);
                tokens[n_live++] =
                    follows ? g->dec_ids[at] : (int32_t)((g->dec_ids[at] + 5 + t) % v);
            }
            row_of[s] = (int32_t)n_live - 2;
        }
        ok(kd_decoder_step(d, n_live, t ? parent : NULL, source, tokens, NULL, &z));
        assert_int_equal(z.shape[0], n_live);
        got = golden_floats(g->be, z.data, kd_tensor_count(&z));
        for (int64_t s = 0; s < src->n; s++) {
            int64_t at = g->tgt_offsets[s] + t;

            if (at < g->tgt_offsets[s + 1])
                close_to("cached logits", got + (row_of[s] + t % 2) * v, want + at * v,
                         v, golden_bound(1e-4, 0.1));
        }
        free(got);
    }
    kd_decoder_free(d);
}

static void test_cache(void **state)
{
    (void)state;
    for (int f = 0; f < n_precise(); f++) {
        struct golden g;
        float *want;

        golden_open(fixtures[f], &g);
        want = golden_tensor(&g, "logits", NULL);
        decode_cached(&g, want);
        free(want);
        golden_close(&g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logits),         cmocka_unit_test(test_losses),
        cmocka_unit_test(test_gradients),      cmocka_unit_test(test_distillation),
        cmocka_unit_test(test_frozen_encoder), cmocka_unit_test(test_cache),
    };

    if (golden_no_device())
        return GOLDEN_SKIPPED;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
