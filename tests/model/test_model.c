/* SPDX-License-Identifier: Apache-2.0 */
/* The model around the forward pass: configurations, names, layout, initial values,
 * freezing, students. */
#include "golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define FIXTURE(name) KD_SOURCE_DIR "/tests/golden/" name

static void ok(int rc)
{
    if (rc)
        fail_msg("%s", kd_error_get()->text);
}

/* Parsing TEXT fails with KD_EINPUT, and the message holds WORD. */
static void refused(struct kd_backend *be, const char *text, const char *word)
{
    struct kd_json *config;
    struct kd_model *m = NULL;

    ok(kd_json_parse(text, (int64_t)strlen(text), "test", &config));
    assert_int_equal(kd_model_new(be, KD_F32, config, &m), KD_EINPUT);
    if (!strstr(kd_error_get()->text, word))
        fail_msg("no \"%s\" in: %s", word, kd_error_get()->text);
    kd_error_clear();
    kd_json_free(config);
}

static void test_config_errors(void **state)
{
    struct kd_backend *be;

    (void)state;
    ok(kd_backend_cpu(1, &be));
    refused(be, "{}", "model_type");
    refused(be, "{\"model_type\": \"t5x\"}", "t5x\" is not supported (bart, mbart, ");
    refused(be, "{\"model_type\": \"bart\", \"d_model\": 0}", "d_model");
    refused(be, "{\"model_type\": \"bart\", \"vocab_size\": \"9\"}", "vocab_size");
    refused(be, "{\"model_type\": \"bart\", \"d_model\": 10}", "multiple of the heads");
    refused(be, "{\"model_type\": \"bart\", \"vocab_size\": 2}", "eos_token_id");
    refused(be, "{\"model_type\": \"bart\", \"d_model\": 2147483632}",
            "at most 1048576");
    refused(be, "{\"model_type\": \"t5\", \"d_kv\": 2147483647}", "heads times");
    refused(be, "{\"model_type\": \"bart\", \"dropout\": 1.5}", "dropout");
    refused(be, "{\"model_type\": \"bart\", \"activation_function\": \"mish\"}",
            "activation_function");
    refused(be, "{\"model_type\": \"t5\", \"relative_attention_num_buckets\": 7}",
            "relative_attention_num_buckets");
    kd_backend_free(be);
}

/* Class defaults of absent keys, and null. */
static void test_config_defaults(void **state)
{
    static const char text[] = "{\"model_type\": \"mbart\", \"bos_token_id\": null, "
                               "\"eos_token_id\": [5, 6]}";
    const struct kd_family *family;
    struct kd_json *config;
    struct kd_arch a;

    (void)state;
    ok(kd_json_parse(text, sizeof text - 1, "test", &config));
    ok(kd_arch_parse(config, &a, &family));
    assert_int_equal(a.vocab_size, 50265);
    assert_int_equal(a.n_enc, 12);
    assert_int_equal(a.ffn_dec, 4096);
    assert_int_equal(a.max_positions, 1024);
    assert_int_equal(a.bos_id, -1);
    assert_int_equal(a.eos_id, 5);
    assert_int_equal(a.pad_id, 1);
    assert_int_equal(a.decoder_start_id, -1);
    assert_int_equal(a.start_rule, KD_START_LAST_LABEL);
    assert_true(a.prenorm && a.final_norm && a.emb_norm);
    assert_true(a.p_resid == 0.1f && a.p_attn == 0 && a.act == KD_ACT_GELU);
    kd_json_free(config);
}

static bool has_alias(struct kd_model *m, const char *own, const char *alias)
{
    int i = kd_params_find(kd_model_params(m), own);
    char buf[256];
    const char *name;

    assert_true(i >= 0);
    for (int k = 0; (name = kd_model_param_alias(m, i, k, buf, sizeof buf)); k++)
        if (!strcmp(name, alias))
            return true;
    return false;
}

static void test_names(void **state)
{
    static const char *const embed[] = {"model.shared.weight",
                                        "shared.weight",
                                        "model.encoder.embed_tokens.weight",
                                        "encoder.embed_tokens.weight",
                                        "model.decoder.embed_tokens.weight",
                                        "decoder.embed_tokens.weight",
                                        "lm_head.weight"};
    struct kd_backend *be;
    struct kd_model *m;

    (void)state;
    ok(kd_backend_cpu(1, &be));
    m = golden_model(be, FIXTURE("bart"));
    for (size_t i = 0; i < sizeof embed / sizeof *embed; i++)
        assert_true(has_alias(m, "model.shared.weight", embed[i]));
    assert_true(
        has_alias(m, "model.decoder.layers.1.fc2.bias", "decoder.layers.1.fc2.bias"));
    assert_false(has_alias(m, "final_logits_bias", "logits_bias"));
    assert_true(kd_model_ignores(m, "model.encoder.version"));
    assert_false(kd_model_ignores(m, "model.encoder.layers.0.fc1.weight"));
    assert_string_equal(kd_model_architecture(m), "BartForConditionalGeneration");
    kd_model_free(m);
    kd_backend_free(be);
}

/* q, k, v weights and biases of a layer are each one block of the slab. */
static void test_packing(void **state)
{
    struct kd_backend *be;
    struct kd_model *m;
    const struct kd_params *ps;
    int q, b, kv;

    (void)state;
    ok(kd_backend_cpu(1, &be));
    m = golden_model(be, FIXTURE("bart_uneven"));
    ps = kd_model_params(m);
    q = kd_params_find(ps, "model.encoder.layers.2.self_attn.q_proj.weight");
    b = kd_params_find(ps, "model.encoder.layers.2.self_attn.q_proj.bias");
    kv = kd_params_find(ps, "model.decoder.layers.0.encoder_attn.k_proj.weight");
    assert_string_equal(ps->items[q + 2].name,
                        "model.encoder.layers.2.self_attn.v_proj.weight");
    for (int k = 1; k < 3; k++) {
        assert_int_equal(ps->items[q + k].offset, ps->items[q].offset + k * 20 * 20);
        assert_int_equal(ps->items[b + k].offset, ps->items[b].offset + k * 20);
    }
    assert_int_equal(ps->items[kv + 1].offset, ps->items[kv].offset + 20 * 20);
    for (int i = 0; i < ps->n; i++)
        if (i != q + 1 && i != q + 2 && strstr(ps->items[i].name, "q_proj"))
            assert_int_equal(ps->items[i].offset % 16, 0);
    kd_model_free(m);
    kd_backend_free(be);
}

static const struct kd_backend_ops *clean;

/* New memory is full of NaN. */
static int alloc_dirty(struct kd_backend *be, size_t bytes, void **out)
{
    int rc = clean->alloc(be, bytes, out);

    if (!rc)
        memset(*out, 0xff, bytes);
    return rc;
}

/* Values that a checkpoint need not have are defined, whatever the memory held:
 * constants and padding. */
static void check_defined(struct kd_backend *be, const char *config_path)
{
    struct kd_json *config;
    struct kd_model *m;
    const struct kd_params *ps;
    int64_t at = 0, n = 0;

    ok(kd_json_parse_file(config_path, &config));
    ok(kd_model_new(be, KD_F32, config, &m));
    ps = kd_model_params(m);
    for (int i = 0; i <= ps->n; i++) {
        const struct kd_param *p = &ps->items[i];

        if (i < ps->n && kd_param_is_constant(p))
            continue;
        for (; at < (i < ps->n ? p->offset : ps->n_slab); at++, n++)
            assert_false(isnan(ps->values[at]));
        at += i < ps->n ? p->count : 0;
    }
    assert_true(n > 0);
    kd_model_free(m);
    kd_json_free(config);
}

static void test_without_values(void **state)
{
    struct kd_backend *be;
    struct kd_backend_ops ops;

    (void)state;
    ok(kd_backend_cpu(1, &be));
    clean = be->ops;
    ops = *clean;
    ops.alloc = alloc_dirty;
    be->ops = &ops;
    check_defined(be, FIXTURE("bart_uneven/config.json"));
    check_defined(be, FIXTURE("marian/config.json"));
    be->ops = clean;
    kd_backend_free(be);
}

static double std_of(const float *x, int64_t n)
{
    double sum = 0, sq = 0;

    for (int64_t i = 0; i < n; i++) {
        sum += x[i];
        sq += (double)x[i] * x[i];
    }
    return sqrt(sq / (double)n - (sum / (double)n) * (sum / (double)n));
}

static void test_init(void **state)
{
    struct kd_backend *be[2];
    struct kd_model *m[2];
    const struct kd_params *ps;
    int e;

    (void)state;
    for (int k = 0; k < 2; k++) {
        ok(kd_backend_cpu(1 + k, &be[k])); /* the same for any number of threads */
        m[k] = golden_model(be[k], FIXTURE("mbart"));
        ok(kd_model_init(m[k], 7));
    }
    ps = kd_model_params(m[0]);
    assert_memory_equal(ps->values, kd_model_params(m[1])->values,
                        (size_t)ps->n_slab * sizeof(float));
    e = kd_params_find(ps, "model.shared.weight");
    for (int i = 0; i < ps->n; i++) {
        const struct kd_param *p = &ps->items[i];
        const float *x = ps->values + p->offset;

        if (p->kind == KD_PARAM_NORM || p->kind == KD_PARAM_BIAS)
            for (int64_t k = 0; k < p->count; k++)
                assert_true(x[k] == (p->kind == KD_PARAM_NORM ? 1 : 0));
        else if (p->kind != KD_PARAM_BUFFER)
            assert_true(fabs(std_of(x, p->count) - 0.3) < 0.06); /* init_std */
    }
    for (int64_t c = 0; c < ps->items[e].shape[1]; c++) /* row of pad id 1 */
        assert_true(ps->values[ps->items[e].offset + ps->items[e].shape[1] + c] == 0);
    ok(kd_model_init(m[1], 8));
    assert_memory_not_equal(ps->values + ps->items[e].offset,
                            kd_model_params(m[1])->values + ps->items[e].offset, 64);
    for (int k = 0; k < 2; k++) {
        kd_model_free(m[k]);
        kd_backend_free(be[k]);
    }
}

static void test_freeze_and_dropout(void **state)
{
    struct kd_backend *be;
    struct kd_model *m;
    const struct kd_params *ps;

    (void)state;
    ok(kd_backend_cpu(1, &be));
    m = golden_model(be, FIXTURE("mbart"));
    ps = kd_model_params(m);
    assert_true(ps->items[kd_params_find(ps, "final_logits_bias")].frozen);
    kd_model_freeze_embeds(m);
    for (int i = 0; i < ps->n; i++)
        assert_int_equal(ps->items[i].frozen,
                         strstr(ps->items[i].name, "shared") ||
                             strstr(ps->items[i].name, "embed_positions") ||
                             strstr(ps->items[i].name, "logits_bias"));
    assert_false(kd_model_encoder_frozen(m));
    kd_model_freeze_all(m);
    assert_true(kd_model_encoder_frozen(m));
    kd_model_set_dropout(m, NAN, NAN);
    assert_true(kd_model_arch(m)->p_resid == 0.1f && kd_model_arch(m)->p_attn == 0.1f);
    kd_model_set_dropout(m, 0, NAN);
    assert_true(kd_model_arch(m)->p_emb == 0 && kd_model_arch(m)->p_resid == 0 &&
                kd_model_arch(m)->p_attn == 0);
    kd_model_free(m);
    kd_backend_free(be);
}

/* ---- students ---- */

static void layers_are(int n_student, int n_teacher, bool supervise, bool first_n,
                       const char *want, bool want_table)
{
    int64_t out[32];
    char text[128] = "";
    bool in_table = false;

    ok(supervise ? kd_layers_to_supervise(n_student, n_teacher, out, &in_table)
                 : kd_layers_to_copy(n_student, n_teacher, first_n, out, &in_table));
    for (int k = 0; k < n_student; k++) {
        size_t at = strlen(text);

        ok(kd_format(text + at, sizeof text - at, "%s%lld", k ? "," : "",
                     (long long)out[k]));
    }
    assert_string_equal(text, want);
    assert_int_equal(in_table, want_table);
}

static void test_layer_choice(void **state)
{
    int64_t out[32];
    bool in_table;

    (void)state;
    layers_are(3, 12, false, false, "0,6,11", true);
    layers_are(6, 12, false, false, "0,2,4,7,9,11", true);
    layers_are(8, 16, false, false, "0,2,4,6,8,10,12,15", true);
    layers_are(4, 6, false, false, "0,1,3,5", true);
    layers_are(4, 4, false, false, "0,1,2,3", true);
    layers_are(5, 12, false, false, "0,3,6,8,11", false); /* 2.75, 5.5, 8.25 */
    layers_are(5, 12, false, true, "0,1,2,3,4", false);
    layers_are(1, 4, false, false, "0", false);
    layers_are(2, 4, false, false, "0,3", false);
    layers_are(6, 12, true, false, "1,3,5,8,10,11", true);
    layers_are(4, 16, true, false, "4,9,12,15", true);
    layers_are(1, 5, true, false, "4", true);
    layers_are(4, 12, true, false, "2,5,8,11", false);
    layers_are(3, 3, true, false, "0,1,2", true);
    assert_int_equal(kd_layers_to_copy(4, 3, false, out, &in_table), KD_EUSAGE);
    kd_error_clear();
    assert_int_equal(kd_layers_to_supervise(0, 3, out, &in_table), KD_EUSAGE);
    kd_error_clear();
}

static void same_values(struct kd_model *a, const char *name_a, struct kd_model *b,
                        const char *name_b)
{
    const struct kd_params *pa = kd_model_params(a), *pb = kd_model_params(b);
    int i = kd_params_find(pa, name_a), k = kd_params_find(pb, name_b);

    assert_true(i >= 0 && k >= 0);
    assert_int_equal(pa->items[i].count, pb->items[k].count);
    assert_memory_equal(pa->values + pa->items[i].offset,
                        pb->values + pb->items[k].offset,
                        (size_t)pa->items[i].count * sizeof(float));
}

static void test_student(void **state)
{
    static const int64_t enc_layers[] = {0, 2}, dec_layers[] = {2, 0, 0, 1};
    struct kd_backend *be;
    struct kd_model *t, *s;
    int64_t *enc, *dec;
    int n_enc, n_dec;

    (void)state;
    ok(kd_backend_cpu(1, &be));
    t = golden_model(be, FIXTURE("bart/teacher"));
    ok(kd_student_copied(t, &enc, &n_enc, &dec, &n_dec));
    assert_int_equal(n_enc, -1);
    ok(kd_student_new(t, enc_layers, 2, dec_layers, 4, &s));
    assert_int_equal(kd_model_arch(s)->n_enc, 2);
    assert_int_equal(kd_model_arch(s)->n_dec, 4);
    same_values(s, "model.shared.weight", t, "model.shared.weight");
    same_values(s, "final_logits_bias", t, "final_logits_bias");
    same_values(s, "model.decoder.embed_positions.weight", t,
                "model.decoder.embed_positions.weight");
    same_values(s, "model.encoder.layers.1.fc1.weight", t,
                "model.encoder.layers.2.fc1.weight");
    same_values(s, "model.decoder.layers.0.encoder_attn.v_proj.bias", t,
                "model.decoder.layers.2.encoder_attn.v_proj.bias");
    same_values(s, "model.decoder.layers.3.final_layer_norm.bias", t,
                "model.decoder.layers.1.final_layer_norm.bias");
    assert_int_equal(kd_json_int(kd_model_config(s), "decoder_layers", 0), 4);
    assert_string_equal(kd_json_str(kd_json_get(kd_model_config(s), "init_metadata"),
                                    "teacher_type", ""),
                        "bart");
    ok(kd_student_copied(s, &enc, &n_enc, &dec, &n_dec));
    assert_int_equal(n_enc, 2);
    assert_int_equal(n_dec, 4);
    assert_memory_equal(enc, enc_layers, sizeof enc_layers);
    assert_memory_equal(dec, dec_layers, sizeof dec_layers);
    free(enc);
    free(dec);
    kd_model_free(s);
    static const int64_t beyond[] = {3};

    assert_int_equal(kd_student_new(t, beyond, 1, dec_layers, 4, &s), KD_EUSAGE);
    kd_error_clear();
    kd_model_free(t);
    kd_backend_free(be);
}

/* ---- bfloat16 ---- */

static void check_rounded(struct kd_model *m)
{
    const struct kd_params *ps = kd_model_params(m);
    int64_t differ = 0;

    assert_non_null(ps->rounded);
    for (int64_t i = 0; i < ps->n_slab; i++) {
        assert_int_equal(ps->rounded[i], kd_f32_to_bf16(ps->values[i]));
        differ += kd_bf16_to_f32(ps->rounded[i]) != ps->values[i];
    }
    assert_true(differ > 100);
}

/* The rounded values follow whatever writes the masters; the CPU says that it cannot
 * compute with them. */
static void test_rounded(void **state)
{
    static const int64_t layers[] = {1, 0};
    static const int32_t zero[1];
    static const int64_t offsets[] = {0, 1};
    struct kd_batch b = {.src = {.n = 1, .n_rows = 1, .max_len = 1, .offsets = offsets},
                         .src_ids = zero,
                         .src_pos = zero};
    struct kd_ctx ctx = {.dtype = KD_BF16};
    struct kd_model *like, *m, *s;
    struct kd_var *out;

    (void)state;
    ok(kd_backend_cpu(1, &ctx.be));
    ok(kd_arena_new(ctx.be, &ctx.arena));
    like = golden_model(ctx.be, FIXTURE("bart"));
    assert_null(kd_model_params(like)->rounded);
    ok(kd_model_new(ctx.be, KD_BF16, kd_model_config(like), &m));
    ok(kd_model_init(m, 3));
    check_rounded(m);
    ok(kd_student_new(m, layers, 2, layers, 1, &s));
    check_rounded(s);
    memset(kd_model_params(s)->rounded, 0, 64);
    ok(kd_params_refresh(kd_model_params(s)));
    check_rounded(s);
    assert_int_equal(kd_model_encode(&ctx, m, &b, &out), KD_EINTERNAL);
    assert_non_null(strstr(kd_error_get()->text, "--dtype float32"));
    kd_error_clear();
    ctx.dtype = KD_F32; /* not the model's */
    assert_int_equal(kd_model_encode(&ctx, m, &b, &out), KD_EINTERNAL);
    assert_non_null(strstr(kd_error_get()->text, "expected float32"));
    kd_error_clear();
    assert_int_equal(kd_model_new(ctx.be, KD_F16, kd_model_config(like), &s),
                     KD_EINTERNAL);
    kd_error_clear();
    kd_model_free(s);
    kd_model_free(m);
    kd_model_free(like);
    kd_arena_free(ctx.arena);
    kd_backend_free(ctx.be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_errors), cmocka_unit_test(test_config_defaults),
        cmocka_unit_test(test_names),         cmocka_unit_test(test_packing),
        cmocka_unit_test(test_init),          cmocka_unit_test(test_freeze_and_dropout),
        cmocka_unit_test(test_layer_choice),  cmocka_unit_test(test_student),
        cmocka_unit_test(test_rounded),       cmocka_unit_test(test_without_values),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
