/* SPDX-License-Identifier: Apache-2.0 */
/* Steps of generation on a device: recorded ones give the bits of those that are not,
 * and a step moves one small piece each way, to the byte. */
#include "count_backend.h"
#include "golden.h"
#include "plain_generation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SOURCES = 2, SRC_ROWS = 9, MAX_LENGTH = 16 };

static void ok(int rc)
{
    if (rc)
        fail_msg("%s:%d: %s", kd_error_get()->file, kd_error_get()->line,
                 kd_error_get()->text);
}

/* The golden model, or where it has too few positions, one of its shape. */
static struct kd_model *model(struct kd_backend *be, int64_t max_length)
{
    struct kd_json *config;
    struct kd_model *m;

    if (max_length <= MAX_LENGTH)
        return golden_model(be, KD_SOURCE_DIR "/tests/golden/bart");
    ok(kd_json_parse_file(KD_SOURCE_DIR "/tests/golden/bart/config.json", &config));
    ok(kd_json_set_int(config, "max_position_embeddings", max_length));
    ok(kd_model_new(be, golden_dtype, config, &m));
    ok(kd_model_init(m, 77));
    kd_json_free(config);
    return m;
}

/* Generate twice over (the second batch finds what the first has left), the second
 * time into OUT and COUNTS. */
static void generate(const struct kd_generation *g, bool graphs,
                     struct kd_generated *out, struct counts *counts)
{
    static const int64_t offsets[] = {0, 5, SRC_ROWS}, examples[] = {4, 9};
    static const int32_t ids[] = {0, 7, 9, 11, 2, 0, 20, 21, 2};
    struct kd_backend *be = NULL;
    struct kd_arena *arena = NULL;
    struct kd_model *m;
    struct kd_seqs src = {
        .n = SOURCES, .n_rows = SRC_ROWS, .max_len = 5, .offsets = offsets};
    struct kd_ctx ctx;
    void *dev;

    assert_int_equal(setenv("KD_GRAPHS", graphs ? "1" : "0", 1), 0);
    ok(count_backend(golden_backend(), &be));
    m = model(be, g->max_length);
    ok(kd_arena_new(be, &arena));
    ctx = (struct kd_ctx){.be = be, .arena = arena, .dtype = golden_dtype};
    for (int i = 0; i < 2; i++) {
        kd_arena_reset(arena);
        ok(kd_arena_alloc(arena, sizeof offsets, &dev));
        ok(be->ops->upload(be, dev, offsets, sizeof offsets));
        src.offsets_dev = kd_tensor1(dev, KD_I64, SOURCES + 1);
        *count_of(be) = (struct counts){0};
        ok(kd_generate(&ctx, m, g, &src, ids, examples, out));
        *counts = *count_of(be);
        if (i == 0)
            kd_generated_free(out);
    }
    kd_arena_free(arena);
    kd_model_free(m);
    kd_backend_free(be);
}

/* Bytes of what goes up before the first step. */
static size_t before_steps(int64_t sequences)
{
    return (size_t)(sequences + 1) * sizeof(int64_t) + 2 * SRC_ROWS * sizeof(int32_t);
}

static void check(const struct kd_generation *g, size_t down_of_row, int64_t most_edits)
{
    struct kd_generated got, want;
    struct counts recorded, plain_calls;
    int64_t steps, sequences = SOURCES + 1, /* one is for rows that fill up */
        per = g->num_beams > 1 ? g->num_beams : g->num_return_sequences,
                   rows = SOURCES * per < 8 ? SOURCES * per : 8;
    size_t step_bytes = (size_t)(sequences + 1) * 8 + 8 +
                        (size_t)(3 * rows + rows % 2) * sizeof(int32_t),
           up;

    assert_true(SOURCES * per <= 8);
    generate(g, true, &got, &recorded);
    generate(g, false, &want, &plain_calls);
    steps = want.n_steps;
    assert_int_equal(got.n, want.n);
    assert_int_equal(got.n_steps, steps);
    assert_memory_equal(got.offsets, want.offsets,
                        (size_t)(want.n + 1) * sizeof *got.offsets);
    assert_memory_equal(got.ids, want.ids,
                        (size_t)want.offsets[want.n] * sizeof *got.ids);
    assert_memory_equal(got.scores, want.scores, (size_t)want.n * sizeof *got.scores);

    assert_int_equal(plain_calls.repeated, 0);
    assert_int_equal(recorded.runs, steps);
    assert_true(steps >= 9 && recorded.repeated >= steps - 4);

    assert_int_equal(recorded.uploads, 3 + steps);
    assert_int_equal(recorded.downloads, steps);
    assert_int_equal(recorded.syncs, 1); /* of the encoder's ids */
    assert_int_equal(recorded.down_bytes, (size_t)want.n_row_steps * down_of_row);
    up = recorded.up_bytes - before_steps(sequences) - (size_t)steps * step_bytes;
    assert_in_range(up, 0, (size_t)(most_edits * steps) * 8);
    if (most_edits == 0)
        assert_int_equal(up, 0);
    kd_generated_free(&got);
    kd_generated_free(&want);
}

static void beams(void **state)
{
    struct kd_generation g = plain_generation(MAX_LENGTH);

    (void)state;
    g.num_beams = 4;
    g.num_return_sequences = 2;
    g.early_stopping = KD_STOP_NEVER;
    check(&g, 8 * sizeof(float) + 8 * sizeof(int32_t), 0);
    g.no_repeat_ngram_size = 2;
    g.min_length = 8;
    g.forced_eos_id = 2;
    check(&g, 8 * sizeof(float) + 8 * sizeof(int32_t), 1 + 8 * MAX_LENGTH);
}

static void greedy(void **state)
{
    struct kd_generation g = plain_generation(MAX_LENGTH);

    (void)state;
    g.repetition_penalty = 1.3;
    g.min_length = 12;
    check(&g, 3 * sizeof(float) + sizeof(int32_t), 1 + SOURCES * MAX_LENGTH);
}

/* So long that warps share a row. */
static void long_outputs(void **state)
{
    struct kd_generation g = plain_generation(MAX_LENGTH);

    (void)state;
    g.max_length = 70;
    g.min_length = 69;
    check(&g, 3 * sizeof(float) + sizeof(int32_t), 1);
}

static void sampling(void **state)
{
    struct kd_generation g = plain_generation(MAX_LENGTH);

    (void)state;
    g.do_sample = true;
    g.top_k = 20;
    g.top_p = 0.9;
    g.min_length = 10;
    check(&g, sizeof(double) + sizeof(int32_t), 1 + SOURCES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beams),
        cmocka_unit_test(greedy),
        cmocka_unit_test(sampling),
        cmocka_unit_test(long_outputs),
    };

    if (golden_no_device())
        return GOLDEN_SKIPPED;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
