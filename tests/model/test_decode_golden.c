/* SPDX-License-Identifier: Apache-2.0 */
/* Generation with real (tiny) models: the ids and scores of transformers' generate()
 * for every setting in golden/NAME/beams.json, all sources in one batch and in small
 * ones.  Where that takes too long, one setting in GOLDEN_SHARE, others for each model.
 */
#include "golden.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"
#include "kdhpc/decode/decode.h"
#include "source_dir.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#ifndef GOLDEN_SHARE
#define GOLDEN_SHARE 1
#endif

enum { MAX_SOURCES = 16, MAX_IDS = 1024 };

static void ok(int rc)
{
    if (rc)
        fail_msg("%s:%d: %s", kd_error_get()->file, kd_error_get()->line,
                 kd_error_get()->text);
}

/* Generate for sources FIRST..FIRST+N of a case. */
static void generate(struct golden *f, const struct kd_generation *g,
                     const struct kd_json *sources, int64_t first, int64_t n,
                     struct kd_generated *out)
{
    struct kd_ctx ctx = {.be = f->be, .arena = f->arena, .dtype = golden_dtype};
    int64_t offsets[MAX_SOURCES + 1] = {0}, example[MAX_SOURCES] = {0};
    int32_t ids[MAX_IDS];
    struct kd_seqs src = {.n = n, .offsets = offsets};
    void *dev = NULL;

    assert_true(n <= MAX_SOURCES);
    for (int64_t i = 0; i < n; i++) {
        const struct kd_json *row = kd_json_at(sources, first + i);
        int64_t len = kd_json_len(row);

        assert_true(offsets[i] + len <= MAX_IDS);
        for (int64_t t = 0; t < len; t++)
            ids[offsets[i] + t] = (int32_t)kd_json_as_int(kd_json_at(row, t), -1);
        offsets[i + 1] = offsets[i] + len;
        if (len > src.max_len)
            src.max_len = len;
    }
    src.n_rows = offsets[n];
    ok(kd_arena_alloc(f->arena, sizeof offsets, &dev));
    ok(f->be->ops->upload(f->be, dev, offsets, sizeof offsets));
    src.offsets_dev = kd_tensor1(dev, KD_I64, n + 1);
    ok(kd_generate(&ctx, f->model, g, &src, ids, example, out));
    kd_arena_reset(f->arena);
}

static void check_rows(const char *name, int64_t number, const struct kd_json *c,
                       int64_t first_row, const struct kd_generated *out)
{
    const struct kd_json *scores = kd_json_get(c, "scores");

    for (int64_t r = 0; r < out->n; r++) {
        const struct kd_json *want =
            kd_json_at(kd_json_get(c, "outputs"), first_row + r);
        int64_t len = out->offsets[r + 1] - out->offsets[r];
        double score;

        if (len != kd_json_len(want))
            fail_msg("%s case %d row %d: %d ids, not %d", name, (int)number,
                     (int)(first_row + r), (int)len, (int)kd_json_len(want));
        for (int64_t t = 0; t < len; t++)
            if (out->ids[out->offsets[r] + t] !=
                kd_json_as_int(kd_json_at(want, t), -1))
                fail_msg("%s case %d row %d: id %d differs", name, (int)number,
                         (int)(first_row + r), (int)t);
        if (!scores || !kd_json_is_array(scores))
            continue;
        score = kd_json_as_num(kd_json_at(scores, first_row + r), NAN);
        if (!(fabs(out->scores[r] - score) <= 1e-5 * (1 + fabs(score))))
            fail_msg("%s case %d row %d: score %.9g, not %.9g", name, (int)number,
                     (int)(first_row + r), out->scores[r], score);
    }
}

static void check_case(const char *name, struct golden *f, const struct kd_json *c,
                       int64_t number, int64_t batch)
{
    const struct kd_json *sources = kd_json_get(c, "sources");
    struct kd_json *settings = kd_json_copy(kd_json_get(c, "options"));
    const struct kd_arch *a = kd_model_arch(f->model);
    int64_t n = kd_json_len(sources);
    struct kd_generation g;

    assert_non_null(settings);
    ok(kd_json_set_int(settings, "eos_token_id", a->eos_id));
    ok(kd_json_set_int(settings, "pad_token_id", a->pad_id));
    if (a->bos_id >= 0)
        ok(kd_json_set_int(settings, "bos_token_id", a->bos_id));
    ok(kd_json_set_int(settings, "decoder_start_token_id", a->decoder_start_id));
    ok(kd_generation_from_config(kd_model_config(f->model), settings,
                                 kd_model_arch(f->model)->max_positions, &g));
    for (int64_t i = 0; i < n; i += batch) {
        struct kd_generated out;

        generate(f, &g, sources, i, n - i < batch ? n - i : batch, &out);
        check_rows(name, number, c, i * g.num_return_sequences, &out);
        kd_generated_free(&out);
    }
    kd_generation_free(&g);
    kd_json_free(settings);
}

static void check_fixture(const char *name, int number)
{
    char path[256];
    const char *live = getenv("KD_TEST_BEAMS"); /* a folder like tests/golden */
    struct golden f;
    struct kd_json *cases = NULL;

    ok(kd_format(path, sizeof path, "%s%s/%s/beams.json",
                 live ? "" : kd_test_source_dir(), live ? live : "/tests/golden",
                 name));
    if (live && !kd_path_exists(path)) {
        skip();
        return;
    }
    golden_open(name, &f);
    ok(kd_json_parse_file(path, &cases));
    assert_true(kd_json_len(cases) > 0);
    for (int beams = 0; beams < 2; beams++) {
        for (int64_t i = number % GOLDEN_SHARE; i < kd_json_len(cases);
             i += GOLDEN_SHARE) {
            const struct kd_json *c = kd_json_at(cases, i);

            if ((kd_json_int(kd_json_get(c, "options"), "num_beams", 1) > 1) != beams)
                continue;
            check_case(name, &f, c, i, MAX_SOURCES);
            check_case(name, &f, c, i, 2);
        }
        print_message("passed: %s %s\n", beams ? "beam" : "greedy", name);
    }
    kd_json_free(cases);
    golden_close(&f);
}

#define FIXTURE(number, name)                                                          \
    static void name(void **state)                                                     \
    {                                                                                  \
        (void)state;                                                                   \
        check_fixture(#name, number);                                                  \
    }

FIXTURE(0, bart)
FIXTURE(1, bart_uneven)
FIXTURE(2, mbart)
FIXTURE(3, pegasus)
FIXTURE(4, marian)
FIXTURE(5, marian_two)
FIXTURE(6, fsmt)
FIXTURE(7, t5)
FIXTURE(8, t5_gated)
FIXTURE(9, mt5)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bart),     cmocka_unit_test(bart_uneven),
        cmocka_unit_test(mbart),    cmocka_unit_test(pegasus),
        cmocka_unit_test(marian),   cmocka_unit_test(marian_two),
        cmocka_unit_test(fsmt),     cmocka_unit_test(t5),
        cmocka_unit_test(t5_gated), cmocka_unit_test(mt5),
    };

    if (golden_no_device())
        return GOLDEN_SKIPPED;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
