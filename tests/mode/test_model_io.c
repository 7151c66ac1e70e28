/* SPDX-License-Identifier: Apache-2.0 */
/* Model directories: what is written loads again, replacing keeps what is not the
 * model's, any alias of a tensor will do, and every mismatch is one clear error on all
 * ranks. */
#include "golden.h"

#include "kdhpc/mode/model_io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FIXTURE KD_SOURCE_DIR "/tests/golden/bart"

struct world {
    struct kd_comm *comm;
    struct kd_common common;
    struct kd_run run;
    char base[400];
};

static struct world *w_of(void **state)
{
    return *state;
}

static void ok(int rc)
{
    if (rc)
        fail_msg("%s", kd_error_get()->text);
}

static bool root(const struct world *w)
{
    return kd_comm_rank(w->comm) == 0;
}

/* BASE/NAME[/MEMBER] in OUT. */
static const char *at(const struct world *w, const char *name, const char *member,
                      char out[512])
{
    ok(kd_format(out, 512, "%s/%s%s%s", w->base, name, member ? "/" : "",
                 member ? member : ""));
    return out;
}

static bool exists(const struct world *w, const char *name, const char *member)
{
    char path[512];

    return kd_path_exists(at(w, name, member, path));
}

static float bf16(float x)
{
    return kd_bf16_to_f32(kd_f32_to_bf16(x));
}

static void same_params(struct kd_model *a, struct kd_model *b, bool rounded)
{
    const struct kd_params *pa = kd_model_params(a), *pb = kd_model_params(b);

    assert_int_equal(pa->n, pb->n);
    for (int i = 0; i < pa->n; i++)
        for (int64_t k = 0; k < pa->items[i].count; k++) {
            float x = pa->values[pa->items[i].offset + k];

            assert_true(pb->values[pb->items[i].offset + k] == (rounded ? bf16(x) : x));
        }
}

static void test_round_trip(void **state)
{
    struct world *w = w_of(state);
    struct kd_model *m, *again;
    struct kd_json *config, *generation;
    char dir[512], path[512], d1[17], d2[17], d3[17];
    enum kd_dtype dtype;

    at(w, "saved", NULL, dir);
    ok(kd_model_load(&w->run, FIXTURE, &m));
    ok(kd_model_save(&w->run, m, dir, KD_F32, NULL, NULL));
    ok(kd_model_load(&w->run, dir, &again));
    same_params(m, again, false);
    kd_model_free(again);
    ok(kd_model_dir_digest(dir, d1));
    ok(kd_model_dir_digest(dir, d2));
    assert_string_equal(d1, d2);
    assert_int_equal(strlen(d1), 16);
    ok(kd_json_parse_file(at(w, "saved", "config.json", path), &config));
    assert_string_equal(
        kd_json_as_str(kd_json_at(kd_json_get(config, "architectures"), 0), ""),
        "BartForConditionalGeneration");
    kd_json_free(config);
    ok(kd_generation_json(dir, &generation));
    assert_int_equal(kd_json_int(generation, "decoder_start_token_id", -1), 2);
    assert_false(kd_json_has(generation, "forced_eos_token_id")); /* null there */
    ok(kd_barrier(w->comm));

    /* replaced: another dtype, a file of someone else's stays, stale weights go */
    if (root(w)) {
        ok(kd_write_file(at(w, "saved", "log.txt", path), "mine", 4));
        ok(kd_write_file(at(w, "saved", "pytorch_model.bin", path), "old", 3));
    }
    ok(kd_model_save(&w->run, m, dir, KD_BF16, NULL, generation));
    assert_true(exists(w, "saved", "log.txt"));
    assert_false(exists(w, "saved", "pytorch_model.bin"));
    assert_false(exists(w, "saved.part", NULL));
    ok(kd_model_dir_dtype(dir, &dtype));
    assert_int_equal(dtype, KD_BF16);
    ok(kd_model_load(&w->run, dir, &again));
    same_params(m, again, true);
    ok(kd_model_dir_digest(dir, d3));
    assert_string_not_equal(d1, d3);
    ok(kd_json_parse_file(at(w, "saved", "config.json", path), &config));
    assert_string_equal(kd_json_str(config, "dtype", ""), "bfloat16");
    kd_json_free(config);
    kd_json_free(generation);
    kd_model_free(again);
    kd_model_free(m);
}

/* ---- variants of the fixture's weights ---- */

struct variant {
    const char *drop;      /* leave this tensor out */
    const char *rename[2]; /* from, to */
    const char *extra;     /* add a tensor of this name */
    const char *cut;       /* this tensor loses its last value or row */
    bool strip_prefix;     /* names without "model." */
    bool integers;         /* what is added holds integers */
};

static int write_variant(struct world *w, struct kd_model *m, const struct variant *v)
{
    static const int64_t ids[3] = {0, 1, 2};
    const struct kd_weight integers = {.dtype = "I64",
                                       .item_bytes = 8,
                                       .ndim = 1,
                                       .shape = {3},
                                       .stride = {1},
                                       .count = 3,
                                       .data = (const unsigned char *)ids};
    const struct kd_params *ps = kd_model_params(m);
    struct kd_named_tensor t[128];
    char path[512];
    int n = 0;

    for (int i = 0; i < ps->n; i++) {
        const struct kd_param *p = &ps->items[i];
        const char *name = p->name;
        int last = p->ndim - 1;

        if (v->drop && !strcmp(name, v->drop))
            continue;
        t[n] = (struct kd_named_tensor){.ndim = p->ndim,
                                        .shape = {p->shape[0], p->shape[1]},
                                        .values = ps->values + p->offset};
        if (v->cut && !strcmp(name, v->cut))
            t[n].shape[last]--;
        if (v->rename[0] && !strcmp(name, v->rename[0]))
            name = v->rename[1];
        if (v->strip_prefix && !strncmp(name, "model.", 6))
            name += 6;
        t[n++].name = name;
    }
    if (v->extra)
        t[n++] = (struct kd_named_tensor){.name = v->extra,
                                          .ndim = 1,
                                          .shape = {3},
                                          .values = v->integers ? NULL : ps->values,
                                          .from = v->integers ? &integers : NULL};
    KD_TRY(kd_make_dirs(at(w, "variant", NULL, path)));
    KD_TRY(kd_copy_file(FIXTURE "/config.json", at(w, "variant", "config.json", path)));
    return kd_safetensors_write(at(w, "variant", "model.safetensors", path), KD_F32, t,
                                n);
}

/* Load a variant: RC and, where that is a failure, the words its message must hold. */
static void load_variant(struct world *w, const struct variant *v, int rc,
                         const char *words[3])
{
    struct kd_model *m, *again = NULL;
    char dir[512];

    ok(kd_model_load(&w->run, FIXTURE, &m));
    ok(kd_agree(w->comm, root(w) ? write_variant(w, m, v) : KD_OK));
    assert_int_equal(kd_model_load(&w->run, at(w, "variant", NULL, dir), &again), rc);
    for (int i = 0; rc && i < 3 && words[i]; i++)
        if (!strstr(kd_error_get()->text, words[i]))
            fail_msg("no \"%s\" in: %s", words[i], kd_error_get()->text);
    kd_error_clear();
    if (!rc && !v->cut && !v->drop)
        same_params(m, again, false);
    kd_model_free(again);
    kd_model_free(m);
    ok(kd_barrier(w->comm)); /* the next variant overwrites this one */
}

static void test_names_accepted(void **state)
{
    static const struct variant variants[] = {
        {.strip_prefix = true},
        {.rename = {"model.shared.weight", "lm_head.weight"}},
        {.rename = {"model.shared.weight", "model.decoder.embed_tokens.weight"}},
        {.rename = {"model.shared.weight", "model.encoder.embed_tokens.weight"},
         .strip_prefix = true},
        {.extra = "model.encoder.version"},
        {.extra = "lm_head.weight"}, /* an alias beside the one that counts */
        {.rename = {"model.encoder.layernorm_embedding.weight",
                    "model.encoder.layernorm_embedding.gamma"}},
        {.rename = {"model.decoder.layers.0.final_layer_norm.bias",
                    "decoder.layers.0.final_layer_norm.beta"},
         .strip_prefix = true},
        {.extra = "classification_head.dense.weight"}, /* of another task */
        {.extra = "model.encoder.position_ids", .integers = true},
        {.drop = "final_logits_bias"},
        {.cut = "final_logits_bias"}, /* shorter than the vocabulary */
    };
    const char *none[3] = {0};

    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++)
        load_variant(w_of(state), &variants[i], KD_OK, none);
}

static void test_short_bias(void **state)
{
    static const struct variant v = {.cut = "final_logits_bias"};
    struct world *w = w_of(state);
    struct kd_model *m, *again;
    const struct kd_params *pa, *pb;
    char dir[512];
    int i;

    ok(kd_model_load(&w->run, FIXTURE, &m));
    ok(kd_agree(w->comm, root(w) ? write_variant(w, m, &v) : KD_OK));
    ok(kd_model_load(&w->run, at(w, "variant", NULL, dir), &again));
    pa = kd_model_params(m);
    pb = kd_model_params(again);
    i = kd_params_find(pa, "final_logits_bias");
    assert_memory_equal(pa->values + pa->items[i].offset,
                        pb->values + pb->items[i].offset,
                        (size_t)(pa->items[i].count - 1) * sizeof(float));
    assert_true(pb->values[pb->items[i].offset + pb->items[i].count - 1] == 0);
    kd_model_free(m);
    kd_model_free(again);
    ok(kd_barrier(w->comm));
}

static void test_mismatches(void **state)
{
    struct world *w = w_of(state);
    const char *missing[3] = {"1 missing", "model.decoder.layers.1.fc2.bias"};
    const char *extra[3] = {"0 missing", "1 not expected (classification_head.x)"};
    const char *both[3] = {"1 missing (model.encoder.layers.0.fc1.weight)",
                           "1 not expected (model.encoder.layers.9.fc1.weight)"};
    const char *shape[3] = {"model.encoder.layers.0.fc1.weight", "[32, 15]",
                            "[32, 16]"};
    const struct variant v_missing = {.drop = missing[1]};
    const struct variant v_extra = {.extra = "classification_head.x"};
    const struct variant v_both = {.rename = {"model.encoder.layers.0.fc1.weight",
                                              "model.encoder.layers.9.fc1.weight"}};
    const struct variant v_shape = {.cut = shape[0]};

    load_variant(w, &v_missing, KD_EINPUT, missing);
    load_variant(w, &v_extra, KD_EINPUT, extra);
    load_variant(w, &v_both, KD_EINPUT, both);
    load_variant(w, &v_shape, KD_EINPUT, shape);
}

static void load_fails(struct world *w, const char *dir, const char *word)
{
    struct kd_model *m = NULL;

    assert_int_equal(kd_model_load(&w->run, dir, &m), KD_EINPUT);
    if (!strstr(kd_error_get()->text, word))
        fail_msg("no \"%s\" in: %s", word, kd_error_get()->text);
    kd_error_clear();
}

static void test_absent(void **state)
{
    struct world *w = w_of(state);
    char path[512], dir[512];

    load_fails(w, at(w, "nowhere", NULL, dir), "does not exist");
    load_fails(w, FIXTURE "/config.json", "not a model directory");
    load_fails(w, KD_SOURCE_DIR "/tests/golden", "no config.json");
    at(w, "no_weights", NULL, dir);
    if (root(w)) {
        ok(kd_make_dirs(dir));
        ok(kd_copy_file(FIXTURE "/config.json",
                        at(w, "no_weights", "config.json", path)));
    }
    ok(kd_barrier(w->comm));
    load_fails(w, dir, "model.safetensors");
}

static int start(void **state)
{
    static struct world w;

    KD_TRY(kd_comm_start(&w.comm));
    KD_TRY(kd_backend_cpu(1, &w.run.be));
    w.run.comm = w.comm;
    w.run.common = &w.common;
    kd_log_setup(kd_comm_rank(w.comm), kd_comm_size(w.comm), KD_LOG_ERROR,
                 KD_PROGRESS_NONE);
    KD_TRY(kd_format(w.base, sizeof w.base, "%s/model_io_np%d", KD_BINARY_DIR,
                     kd_comm_size(w.comm)));
    *state = &w;
    return kd_agree(w.comm, root(&w) ? kd_make_dirs(w.base) : KD_OK);
}

static int stop(void **state)
{
    struct world *w = *state;

    kd_backend_free(w->run.be);
    kd_comm_stop(w->comm);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_names_accepted),
        cmocka_unit_test(test_short_bias), cmocka_unit_test(test_mismatches),
        cmocka_unit_test(test_absent),
    };

    setenv("CMOCKA_TEST_ABORT", "1", 1); /* a rank that went on alone would hang */
    return cmocka_run_group_tests(tests, start, stop);
}
