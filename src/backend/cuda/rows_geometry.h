/* SPDX-License-Identifier: Apache-2.0 */
/* How the row kernels are cut into blocks: plain C, for launchers and the test of it.
 *
 * Everything follows from the shape and the number of multiprocessors (N_SM), so the
 * order of sums does too.  Kernels handle columns in chunks of CHUNK; a chunk is one
 * or two 16-byte accesses. */
#ifndef KDHPC_CUDA_ROWS_GEOMETRY_H
#define KDHPC_CUDA_ROWS_GEOMETRY_H

#include <stdint.h>

enum {
    CHUNK = 8,         /* columns that a thread handles at a time */
    ROW_THREADS = 512, /* most threads of one row */
    ROW_HELD = 1,      /* most chunks of a row that a thread keeps in registers: the
                          widest hidden states have 4096 columns */
    TILE_COLS = 256,   /* columns of one warp's chunks */
    TILE_WARPS = 8,    /* warps that share a tile's rows */
    TOPK_TILE = 4096,  /* columns of one block of the search for the largest */
    TOPK_PASS = 32,    /* most that one pass of it finds */
    SOFTMAX_SPLITS = 32
};

static inline int64_t rows_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t rows_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline int64_t rows_ceil(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* A row belongs to a group of threads, a block to whole groups: thread t of a group has
 * the chunks t, t + threads, ... of the row. */
struct row_group {
    int threads; /* of a group; a multiple of 32 */
    int held;    /* chunks of a thread, kept in registers; 0: more than ROW_HELD, so
                    they are read again for each pass over the row */
    int rows;    /* groups of a block */
};

/* For rows of COLS columns and blocks of about BLOCK threads (more where one row takes
 * more). */
static inline struct row_group row_group_of(int64_t cols, int block)
{
    const int64_t warp_cols = 32 * CHUNK, most = ROW_THREADS / 32;
    struct row_group g = {ROW_THREADS, 0, 1};
    int64_t warps = rows_max(1, rows_ceil(cols, warp_cols));

    for (int held = 1; held <= ROW_HELD && g.held == 0; held++) {
        if (rows_ceil(warps, held) > most)
            continue;
        g.threads = (int)(32 * rows_ceil(warps, held));
        g.held = held;
    }
    g.rows = (int)rows_max(1, block / g.threads);
    return g;
}

/* Blocks of a kernel whose blocks take PER_BLOCK rows in turn and leave one partial sum
 * each: two for each multiprocessor at most. */
static inline int64_t row_partials(int64_t rows, int per_block, int n_sm)
{
    return rows_min(rows_ceil(rows, per_block), 2 * (int64_t)n_sm);
}

/* A matrix in tiles of TILE_COLS columns and ROWS rows: about PER_SM blocks for each
 * multiprocessor, none with fewer than 8 rows to a warp. */
struct tiling {
    int64_t col_tiles, row_tiles, rows;
};

static inline struct tiling tiling_of(int64_t rows, int64_t cols, int n_sm, int per_sm)
{
    struct tiling t = {rows_ceil(cols, TILE_COLS), 1, rows};
    int64_t wanted = rows_ceil((int64_t)per_sm * n_sm, rows_max(1, t.col_tiles)),
            most = rows_ceil(rows, 8 * TILE_WARPS);

    t.rows = rows_ceil(rows, rows_max(1, rows_min(wanted, most)));
    t.row_tiles = rows_ceil(rows, rows_max(1, t.rows));
    return t;
}

/* Blocks that share one row of a softmax, at least 2048 columns each: few rows alone
 * would leave multiprocessors idle. */
static inline int softmax_splits(int64_t rows, int64_t cols, int n_sm)
{
    int64_t wanted = 2 * (int64_t)n_sm / rows_max(1, rows), most = cols / 2048;

    return (int)rows_max(1, rows_min(SOFTMAX_SPLITS, rows_min(wanted, most)));
}

/* Tiles of one row; the first may begin up to CHUNK - 1 columns before it. */
static inline int64_t topk_tiles(int64_t cols)
{
    return rows_ceil(cols + CHUNK - 1, TOPK_TILE);
}

/* Blocks of THREADS threads, a chunk each per turn, over N values: a partial sum each.
 */
static inline int64_t flat_partials(int64_t n, int threads, int n_sm)
{
    int64_t most = rows_ceil(n + CHUNK - 1, 4 * (int64_t)CHUNK * threads);

    return rows_max(1, rows_min(most, 4 * (int64_t)n_sm));
}

#endif
