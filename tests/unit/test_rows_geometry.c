/* SPDX-License-Identifier: Apache-2.0 */
/* How the CUDA row kernels cut shapes into blocks: every row, column and value has one
 * owner, and limits of registers and blocks hold. */
#include "rows_geometry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const int64_t sizes[] = {1,    2,    7,    8,    9,    31,    33,    255,
                                256,  257,  511,  768,  1023, 1024,  1025,  2048,
                                4095, 4096, 4097, 8192, 8193, 50265, 260000};

enum { N_SIZES = sizeof sizes / sizeof *sizes };

/* The chunks of a group's threads cover a row once, the held ones in registers. */
static void groups(void **state)
{
    (void)state;
    for (int i = 0; i < N_SIZES; i++) {
        for (int block = 256; block <= ROW_THREADS; block *= 2) {
            struct row_group g = row_group_of(sizes[i], block);
            int64_t chunks = rows_ceil(sizes[i], CHUNK);

            assert_in_range(g.threads, 32, ROW_THREADS);
            assert_int_equal(g.threads % 32, 0);
            assert_in_range(g.held, 0, ROW_HELD);
            assert_true(g.rows >= 1 && g.rows * g.threads <= ROW_THREADS);
            assert_true(g.threads <= block ? g.rows == block / g.threads : g.rows == 1);
            if (g.held > 0) {
                assert_true((int64_t)g.held * g.threads >= chunks);
                /* no warp without a column */
                assert_true((int64_t)g.held * (g.threads - 32) < chunks);
            } else {
                assert_int_equal(g.threads, ROW_THREADS);
                assert_true(chunks > (int64_t)ROW_HELD * ROW_THREADS);
            }
        }
    }
}

static void tiles(void **state)
{
    (void)state;
    for (int i = 0; i < N_SIZES * N_SIZES; i++) {
        int64_t rows = sizes[i / N_SIZES], cols = sizes[i % N_SIZES];

        for (int n_sm = 1; n_sm <= 148; n_sm += 49) {
            struct tiling t = tiling_of(rows, cols, n_sm, 4);

            assert_true(t.col_tiles * TILE_COLS >= cols &&
                        (t.col_tiles - 1) * TILE_COLS < cols);
            assert_true(t.row_tiles * t.rows >= rows &&
                        (t.row_tiles - 1) * t.rows < rows);
            /* neither a flood of partial sums nor tiles of a few rows */
            assert_true(t.row_tiles == 1 ||
                        t.col_tiles * (t.row_tiles - 1) < 4 * (int64_t)n_sm);
            assert_true(t.row_tiles == 1 || t.rows >= 4 * TILE_WARPS);
        }
    }
}

static void splits(void **state)
{
    (void)state;
    assert_int_equal(softmax_splits(2000, 50265, 132), 1);
    assert_int_equal(softmax_splits(4, 50265, 132), 24);
    assert_int_equal(softmax_splits(1, 260000, 132), SOFTMAX_SPLITS);
    assert_int_equal(softmax_splits(1, 100, 132), 1);
    assert_int_equal(softmax_splits(0, 100, 132), 1);
    assert_int_equal(topk_tiles(1), 1);
    assert_int_equal(topk_tiles(TOPK_TILE - CHUNK + 1), 1);
    assert_int_equal(topk_tiles(TOPK_TILE - CHUNK + 2), 2);
    assert_int_equal(row_partials(5, 4, 132), 2);
    assert_int_equal(row_partials(100000, 4, 132), 264);
    assert_int_equal(flat_partials(1, 256, 132), 1);
    assert_int_equal(flat_partials(400000000, 256, 132), 528);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(groups),
        cmocka_unit_test(tiles),
        cmocka_unit_test(splits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
