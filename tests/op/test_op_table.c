/* SPDX-License-Identifier: Apache-2.0 */
/* The table of a backend has no holes, memory slots move bytes, and tensor helpers say
 * what their headers promise. */
#include "op_test.h"

static void table_is_full(void **state)
{
    struct kd_backend *be = ot_inner(0);
    bool cuda = be->device == KD_CUDA;
    void (*const *slot)(void) =
        (void *)(uintptr_t)((const char *)be->ops + sizeof(const char *));

    (void)state;
    assert_string_equal(be->ops->name, cuda ? "cuda" : "cpu");
    assert_true(kd_backend_n_slots > 25);
    for (int i = 0; i < kd_backend_n_slots; i++) {
        assert_non_null(kd_backend_slots[i]);
        if (!slot[i])
            fail_msg("slot %s is empty", kd_backend_slots[i]);
    }
    assert_non_null(strstr(ot_library(), cuda ? "CUDA" : "OpenBLAS"));
    assert_true(cuda == (be->ops->stream(be) != NULL));
}

static void memory(void **state)
{
    enum { N = 3 << 20 };
    struct kd_backend *be = ot.be[1];
    unsigned char *a = ot_bytes(N), *b = ot_bytes(N), *host = malloc(N);
    size_t free_bytes = 0, total = 0;

    (void)state;
    assert_non_null(host);
    for (int i = 0; i < N; i++)
        host[i] = (unsigned char)(i * 7 + i / 251);
    assert_int_equal(be->ops->upload(be, a, host, N), 0);
    assert_int_equal(be->ops->copy(be, b, a, N), 0);
    memset(host, 0, N);
    assert_int_equal(be->ops->download(be, host, b, N), 0);
    assert_int_equal(be->ops->sync(be), 0);
    for (int i = 0; i < N; i++)
        assert_int_equal(host[i], (unsigned char)(i * 7 + i / 251));
    assert_int_equal(be->ops->zero(be, b, N - 1), 0);
    for (int i = 0; i < N - 1; i++)
        assert_int_equal(b[i], 0);
    assert_int_equal(b[N - 1], a[N - 1]);
    assert_int_equal(be->ops->mem_info(be, &free_bytes, &total), 0);
    assert_true(free_bytes > 0 && free_bytes <= total);
    free(host);
}

/* Double X[n] as a piece of recorded work; whether the backend repeated it. */
static bool twice(struct kd_backend *be, float *x, int64_t n, bool ok)
{
    const struct kd_graph_key key = {.word = {(uintptr_t)x, 7}};
    bool done;

    assert_int_equal(be->ops->graph_begin(be, &key, &done), 0);
    if (done)
        return true;
    assert_int_equal(be->ops->scale(be, 2.0f, kd_tensor1(x, KD_F32, n)), 0);
    assert_int_equal(be->ops->graph_end(be, ok), 0);
    return false;
}

/* The first time as it comes, the second time recorded, then repeated; anew when
 * scratch memory has moved, after a failure, and when told to forget. */
static void recorded_work(void **state)
{
    enum { N = 1000, ROWS = 600, K = 40 };
    static const char *const events = "..rr g.rr d..r";
    struct kd_backend *be = ot_inner(0);
    bool cuda = be->device == KD_CUDA;
    float want = 1.0f, got[N], *x;
    char *large;
    void *p;

    (void)state;
    assert_int_equal(be->ops->alloc(be, sizeof got, &p), 0);
    x = p;
    assert_int_equal(be->ops->alloc(be, ROWS * (N + 2 * K) * sizeof *x, &p), 0);
    large = p;
    assert_int_equal(be->ops->zero(be, large, ROWS * (N + 2 * K) * sizeof *x), 0);
    for (int i = 0; i < N; i++)
        got[i] = want;
    assert_int_equal(be->ops->upload(be, x, got, sizeof got), 0);
    for (const char *e = events; *e; e++) {
        float *values = (float *)(void *)large + ROWS * N;

        if (*e == 'g')
            assert_int_equal(be->ops->topk(be, (void *)large, NULL, ROWS, N, K, values,
                                           (void *)(values + ROWS * K)),
                             0);
        if (*e == 'd')
            be->ops->graph_drop(be);
        if (*e != '.' && *e != 'r')
            continue;
        assert_int_equal(twice(be, x, N, true), cuda && *e == 'r');
        want *= 2.0f;
        assert_int_equal(be->ops->download(be, got, x, sizeof got), 0);
        for (int i = 0; i < N; i++)
            assert_true(got[i] == want);
    }
    be->ops->graph_drop(be);
    (void)twice(be, x, N, true);
    (void)twice(be, x, N, false); /* recorded and thrown away */
    assert_false(twice(be, x, N, true));
    assert_int_equal(twice(be, x, N, true), cuda);
    assert_int_equal(be->ops->download(be, got, x, sizeof got), 0);
    assert_true(got[N - 1] == want * (cuda ? 8.0f : 16.0f));
    be->ops->free(be, x);
    be->ops->free(be, large);
}

static void out_of_memory_is_an_error(void **state)
{
    void *p = &p;

    (void)state;
    assert_int_equal(ot.be[0]->ops->alloc(ot.be[0], (size_t)1 << 62, &p), KD_ENOMEM);
    assert_null(p);
    assert_non_null(strstr(kd_error_get()->text, "MiB"));
    kd_error_clear();
}

static void half_formats(void **state)
{
    (void)state;
    for (uint32_t u = 0; u < 65536; u++) { /* every value survives a round trip */
        float f = kd_f16_to_f32((uint16_t)u), b = kd_bf16_to_f32((uint16_t)u);

        if (f == f)
            assert_int_equal(kd_f32_to_f16(f), u);
        else
            assert_true(isnan(kd_f16_to_f32(kd_f32_to_f16(f))));
        if (b == b)
            assert_int_equal(kd_f32_to_bf16(b), u);
        else
            assert_true(isnan(kd_bf16_to_f32(kd_f32_to_bf16(b))));
    }
    assert_true(kd_f16_to_f32(0x3c00) == 1.0f && kd_f16_to_f32(0x0001) == 0x1p-24f);
    assert_int_equal(kd_f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(kd_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(kd_f32_to_f16(1.0f + 0x1p-11f), 0x3c00); /* ties to even */
    assert_int_equal(kd_f32_to_f16(1.0f + 0x3p-11f), 0x3c02);
    assert_int_equal(kd_f32_to_f16(0x1p-25f), 0x0000);
    assert_int_equal(kd_f32_to_f16(0x1.8p-25f), 0x0001);
    assert_int_equal(kd_f32_to_bf16(1.0f + 0x1p-8f), 0x3f80);
    assert_int_equal(kd_f32_to_bf16(1.0f + 0x3p-8f), 0x3f82);
}

static void views(void **state)
{
    float data[24];
    struct kd_tensor t = kd_tensor2(data, KD_F32, 6, 4), r = kd_tensor_rows(t, 2, 3);
    struct kd_mat m = kd_mat_cols(t, 1, 2);

    (void)state;
    assert_int_equal(kd_tensor_count(&t), 24);
    assert_int_equal(kd_tensor_bytes(&t), 96);
    assert_ptr_equal(r.data, data + 8);
    assert_int_equal(r.shape[0], 3);
    assert_ptr_equal(m.data, data + 1);
    assert_true(m.rows == 6 && m.cols == 2 && m.ld == 4);
    assert_string_equal(kd_dtype_name(KD_BF16), "bfloat16");
    assert_int_equal(kd_dtype_bytes(KD_U64), 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(table_is_full, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(memory, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(recorded_work, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(out_of_memory_is_an_error, ot_setup,
                                        ot_teardown),
        cmocka_unit_test(half_formats),
        cmocka_unit_test(views),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
