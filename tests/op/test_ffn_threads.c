/* SPDX-License-Identifier: Apache-2.0 */
/* The feed-forward op at its own chunk size: more rows than a chunk and not a multiple
 * of it give the numbers of the product taken at once, and the same bits for 1, 2 and
 * 3 threads. */
#include "graph.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define OK(e) assert_int_equal((e), KD_OK)

enum { N = 2300, D = 16, FFN = 48, RUNS = 4, PARTS = 6 };

/* Output, and the gradients of x, W1, b1, W2, b2. */
static const size_t part_count[PARTS] = {N * D, N *D, FFN *D, FFN, D *FFN, D};

struct result {
    float *part[PARTS];
};

static struct kd_var leaf(struct kd_backend *be, int64_t rows, int64_t cols, int stream,
                          double size)
{
    int64_t n = rows * (cols ? cols : 1);
    struct kd_var v = {.needs_grad = true, .is_param = true};

    v.v = cols ? kd_tensor2(NULL, KD_F32, rows, cols) : kd_tensor1(NULL, KD_F32, rows);
    v.g = v.v;
    OK(be->ops->alloc(be, kd_tensor_bytes(&v.v), &v.v.data));
    OK(be->ops->alloc(be, kd_tensor_bytes(&v.v), &v.g.data));
    memset(v.g.data, 0, kd_tensor_bytes(&v.v));
    for (int64_t i = 0; i < n; i++)
        ((float *)v.v.data)[i] = (float)(size * graph_noise((uint64_t)stream, i));
    return v;
}

static void keep(struct result *r, int i, const void *data)
{
    r->part[i] = test_malloc(part_count[i] * sizeof(float));
    memcpy(r->part[i], data, part_count[i] * sizeof(float));
}

static void run(int n_threads, int64_t chunk_rows, struct result *r)
{
    static uint64_t keys[N];
    struct kd_backend *be;
    struct kd_arena *arena;
    struct kd_tape *tape;
    struct kd_var leaves[5], *y, *target;
    struct kd_tensor zero;
    double sum;

    OK(kd_backend_cpu(n_threads, &be));
    OK(kd_arena_new(be, &arena));
    OK(kd_tape_new(be, &tape));
    for (int i = 0; i < N; i++)
        keys[i] = (uint64_t)i * 77;
    leaves[0] = leaf(be, N, D, 1, 1.0);
    leaves[1] = leaf(be, FFN, D, 2, 0.5);
    leaves[2] = leaf(be, FFN, 0, 3, 0.5);
    leaves[3] = leaf(be, D, FFN, 4, 0.5);
    leaves[4] = leaf(be, D, 0, 5, 0.5);
    struct kd_ctx ctx = {
        .be = be, .arena = arena, .tape = tape, .train = true, .seed = 9, .step = 2};
    struct kd_feed_forward f = {.w1 = &leaves[1],
                                .b1 = &leaves[2],
                                .w2 = &leaves[3],
                                .b2 = &leaves[4],
                                .act = KD_ACT_GELU,
                                .p_drop = 0.2f,
                                .site = 3,
                                .row_keys = keys,
                                .chunk_rows = chunk_rows};

    OK(kd_arena_tensor(arena, KD_F32, N, D, &zero));
    memset(zero.data, 0, kd_tensor_bytes(&zero));
    OK(kd_var_new(&ctx, zero, false, &target));
    OK(kd_op_feed_forward(&ctx, &f, &leaves[0], &y));
    keep(r, 0, y->v.data);
    OK(kd_op_hidden_mse(&ctx, y, target, NULL, false, 0.5f, &sum));
    OK(kd_tape_backward(tape, NULL, NULL));
    for (int i = 0; i < 5; i++) {
        keep(r, 1 + i, leaves[i].g.data);
        be->ops->free(be, leaves[i].v.data);
        be->ops->free(be, leaves[i].g.data);
    }
    kd_tape_free(tape);
    kd_arena_free(arena);
    kd_backend_free(be);
}

static void test_threads_and_chunks(void **state)
{
    struct result r[RUNS];

    (void)state;
    for (int k = 0; k < 3; k++)
        run(k + 1, 0, &r[k]);
    run(2, N, &r[3]); /* at once */
    for (int i = 0; i < PARTS; i++) {
        double largest = 0.0, worst = 0.0;

        for (int k = 1; k < 3; k++)
            assert_memory_equal(r[0].part[i], r[k].part[i],
                                part_count[i] * sizeof(float));
        for (size_t e = 0; e < part_count[i]; e++) {
            largest = fmax(largest, fabs((double)r[3].part[i][e]));
            worst =
                fmax(worst, fabs((double)r[3].part[i][e] - (double)r[0].part[i][e]));
        }
        assert_true(largest > 0.1);
        if (!(worst <= 5e-6 * largest))
            fail_msg("part %d: %g apart, largest %g", i, worst, largest);
        for (int k = 0; k < RUNS; k++)
            test_free(r[k].part[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_threads_and_chunks)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
