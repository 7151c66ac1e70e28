/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints: what is written comes back bit for bit, the content is the same for any
 * number of writers (one constant digest), and only whole files of this run are taken
 * up again. */
#include "kdhpc/store/checkpoint.h"
#include "kdhpc/store/listing.h"

#include "mpi_test.h"

enum { N_PARAMS = 10007, N_MOMENTS = 3 };

static const char run_a[] = "{\"fingerprint\":\"run a\",\"step\":7}";

static struct kd_comm *comm;
static char dir[64];
static float params[N_PARAMS], moments[N_MOMENTS];

static const struct kd_checkpoint_array arrays[2] = {
    {.name = "params", .values = params, .n = N_PARAMS},
    {.name = "adam_m", .values = moments, .n = N_MOMENTS}};

static void fill(int64_t step)
{
    for (int64_t i = 0; i < N_PARAMS; i++)
        params[i] = (float)(i * step) / 1024.0f;
    for (int64_t i = 0; i < N_MOMENTS; i++)
        moments[i] = -(float)(i + step);
}

static char *path_of(const char *name)
{
    static char path[128];

    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void write_step(int64_t step, const char *state)
{
    fill(step);
    assert_ok(kd_checkpoint_write(comm, dir, step, state, arrays, 2));
}

static void arrays_come_back(void **unused)
{
    char *state = NULL, *path = NULL;

    (void)unused;
    write_step(7, run_a);
    assert_ok(kd_checkpoint_newest(comm, dir, "run a", &path));
    assert_string_equal(path, path_of("checkpoint-00000007.h5"));
    fill(0);
    assert_ok(kd_checkpoint_read(comm, path, arrays, 2, &state));
    assert_string_equal(state, run_a);
    for (int64_t i = 0; i < N_PARAMS; i++)
        assert_true(params[i] == (float)(i * 7) / 1024.0f);
    for (int64_t i = 0; i < N_MOMENTS; i++)
        assert_true(moments[i] == -(float)(i + 7));
    free(state);
    free(path);
}

static void content_does_not_depend_on_the_ranks(void **unused)
{
    struct kd_store_listing l;

    (void)unused;
    assert_ok(kd_store_list(path_of("checkpoint-00000007.h5"), true, &l));
    assert_string_equal(l.digest, "0d24def4d4e6cb7b");
    kd_store_listing_free(&l);
}

static void sizes_must_match(void **unused)
{
    struct kd_checkpoint_array shorter = {.name = "params",
                                          .values = params,
                                          .n = N_PARAMS - 1},
                               absent = {.name = "adam_v", .values = params, .n = 3};
    char *state = NULL;

    (void)unused;
    assert_int_equal(kd_checkpoint_read(comm, path_of("checkpoint-00000007.h5"),
                                        &shorter, 1, &state),
                     KD_EINPUT);
    assert_non_null(strstr(kd_error_get()->text, "10007 values, not 10006"));
    kd_error_clear();
    assert_int_equal(
        kd_checkpoint_read(comm, path_of("checkpoint-00000007.h5"), &absent, 1, &state),
        KD_EINPUT);
    assert_null(state);
    kd_error_clear();
}

/* An array that is nowhere: more values than pass through the host at once. */
enum { N_SPREAD = (1 << 22) + 5 };

static int64_t n_asked, n_given;

static float spread(int64_t i)
{
    return (float)(i % 65521);
}

static int get_spread(void *arg, int64_t first, int64_t n, float *out)
{
    assert_ok(kd_barrier(arg)); /* it is collective */
    for (int64_t i = 0; i < n; i++)
        out[i] = spread(first + i);
    n_asked += n;
    return KD_OK;
}

static int put_spread(void *arg, int64_t first, int64_t n, const float *in)
{
    (void)arg;
    assert_true(first == n_given);
    for (int64_t i = 0; i < n; i++)
        assert_true(in[i] == spread(first + i));
    n_given += n;
    return KD_OK;
}

static void arrays_that_no_rank_holds(void **unused)
{
    struct kd_checkpoint_array a[] = {arrays[0],
                                      {.name = "spread",
                                       .n = N_SPREAD,
                                       .get = get_spread,
                                       .put = put_spread,
                                       .arg = comm}};
    char *state = NULL;

    (void)unused;
    fill(3);
    assert_ok(kd_checkpoint_write(comm, dir, 3, run_a, a, 2));
    assert_true(n_asked - N_SPREAD / kd_comm_size(comm) <= 1);
    fill(0);
    assert_ok(
        kd_checkpoint_read(comm, path_of("checkpoint-00000003.h5"), a, 2, &state));
    assert_int_equal(n_given, N_SPREAD);
    assert_true(params[9] == 27.0f / 1024.0f);
    free(state);
    assert_ok(kd_checkpoint_prune(comm, dir, 1));
}

/* Change byte AT (from the end if negative) of a checkpoint, or cut the file there. */
static void damage(const char *name, long at, bool cut)
{
    if (kd_comm_rank(comm) == 0) {
        FILE *f = fopen(path_of(name), "r+b");
        int c;

        assert_non_null(f);
        assert_int_equal(fseek(f, at, at < 0 ? SEEK_END : SEEK_SET), 0);
        if (cut) {
            assert_int_equal(ftruncate(fileno(f), ftell(f)), 0);
        } else {
            c = fgetc(f);
            assert_int_equal(fseek(f, -1, SEEK_CUR), 0);
            fputc(c ^ 4, f);
        }
        fclose(f);
    }
    assert_ok(kd_barrier(comm));
}

static void the_newest_valid_one_is_taken(void **unused)
{
    char *path = NULL, *state = NULL;

    (void)unused;
    write_step(8, "{\"fingerprint\":\"run b\"}");
    write_step(9, run_a);
    write_step(10, run_a);
    damage("checkpoint-00000009.h5", 20000, false); /* among the 40 KB of params */
    damage("checkpoint-00000010.h5", -1000, true);
    assert_int_equal(
        kd_checkpoint_read(comm, path_of("checkpoint-00000009.h5"), arrays, 2, &state),
        KD_EINPUT);
    assert_non_null(strstr(kd_error_get()->text, "damaged"));
    kd_error_clear();
    assert_ok(kd_checkpoint_newest(comm, dir, "run a", &path));
    assert_string_equal(path, path_of("checkpoint-00000007.h5"));
    free(path);
    assert_ok(kd_checkpoint_newest(comm, dir, NULL, &path));
    assert_string_equal(path, path_of("checkpoint-00000008.h5"));
    free(path);
    assert_int_equal(kd_error_get()->code, KD_OK);
}

static void none_is_not_a_failure(void **unused)
{
    char *path = NULL;

    (void)unused;
    assert_ok(kd_checkpoint_newest(comm, dir, "run c", &path));
    assert_null(path);
    assert_ok(kd_checkpoint_newest(comm, path_of("no-such"), NULL, &path));
    assert_null(path);
}

static void pruning_keeps_the_newest(void **unused)
{
    (void)unused;
    assert_ok(kd_checkpoint_prune(comm, dir, 2));
    assert_int_equal(access(path_of("checkpoint-00000010.h5"), F_OK), 0);
    assert_int_equal(access(path_of("checkpoint-00000009.h5"), F_OK), 0);
    assert_int_not_equal(access(path_of("checkpoint-00000008.h5"), F_OK), 0);
    assert_int_not_equal(access(path_of("checkpoint-00000007.h5"), F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_come_back),
        cmocka_unit_test(content_does_not_depend_on_the_ranks),
        cmocka_unit_test(sizes_must_match),
        cmocka_unit_test(arrays_that_no_rank_holds),
        cmocka_unit_test(the_newest_valid_one_is_taken),
        cmocka_unit_test(none_is_not_a_failure),
        cmocka_unit_test(pruning_keeps_the_newest),
    };
    int failed;

    comm = mpi_test_start_in(dir, sizeof dir);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    mpi_test_stop_in(comm, dir);
    return failed;
}
