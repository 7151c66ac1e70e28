/* SPDX-License-Identifier: Apache-2.0 */
/* Products: C is cut into blocks, one task each; a task goes through its k in steps of
 * at most DEPTH, and through its columns in strips of two vectors.
 *
 * The rows of B under a strip are packed (transposed, if B is) into a buffer that fits
 * the first-level cache; then the tiles of kernel.h go down the rows of A, read where
 * they lie, which stay in the second level.  Only a transposed A is packed, once per
 * step.  So packing is cheap for the few rows of decoding too, where a BLAS that packs
 * A, B and its own way through C for large products loses a tenth to a half.
 *
 * An element of C is, for every step, one chain of multiply-adds in the order of k,
 * times alpha, added to what was there; the steps depend on k alone.  So a row of C has
 * the same bits alone and among others, wherever C is cut, and cuts may follow the
 * number of threads.
 *
 * A program built for any processor of a kind, without wide vectors, leaves all but
 * small products to OpenBLAS, which finds out at run time what the processor has.  A
 * row of its product has other bits in a call of another height, so there cuts follow
 * shapes. */
#include "cpu_impl.h"
#include "transpose.h"

#include <cblas.h>

enum {
    DEPTH = 256,
    BLOCK_ROWS = 256,
    BLOCK_COLS = 512,
    BLOCKS_PER_THREAD = 4,
    BLOCK_WORK = 1 << 19, /* multiplications that are worth a task */
    BLAS_BLOCKS = 8,      /* for a handful of threads */
    BLAS_WORK = 1 << 18,  /* multiplications that are worth a call of OpenBLAS */
    PACK_ROWS = 6         /* rows whose products take as long as packing B */
};

struct product {
    struct kd_backend *be;
    const struct kd_gemm *g;
    int64_t m, n, k, depth;
    bool blas;
    int64_t block_rows, block_cols, blocks_across;
};

/* The part of a product that a task is at: N columns of C from column J on, M rows from
 * row I on, and DEPTH of k from L on.  A is where the rows lie, maybe packed. */
struct part {
    int64_t i, j, l, m, n, depth;
    struct kn_mat a;
    /* scratch [depth, KN_COLS], [m, KN_COLS], [m, depth] */
    float *strip, *edge, *turned;
};

/* Blocks of C [m, n] for the caches, smaller if there are too few for the threads. */
static void choose_blocks(struct product *p)
{
    int64_t down = cpu_ceil_div(p->m, BLOCK_ROWS),
            across = cpu_ceil_div(p->n, BLOCK_COLS),
            most = (p->m + PACK_ROWS) * p->n * p->k / BLOCK_WORK,
            enough = p->blas                 ? BLAS_BLOCKS
                     : p->be->n_threads == 1 ? 1
                                             : BLOCKS_PER_THREAD * p->be->n_threads;

    while (down * across < cpu_min(enough, most)) {
        int64_t rows = p->m / down, cols = p->n / across;
        bool tall = rows >= 2 * KN_COLS, wide = cols >= 2 * KN_COLS;

        /* cutting columns packs a transposed A again, cutting rows B */
        if (wide && !(p->g->trans_a && tall && rows > cols))
            across *= 2;
        else if (tall)
            down *= 2;
        else
            break;
    }
    p->block_rows = cpu_ceil_div(cpu_ceil_div(p->m, down), KN_ROWS) * KN_ROWS;
    p->block_cols = cpu_ceil_div(cpu_ceil_div(p->n, across), KN_COLS) * KN_COLS;
    p->blocks_across = cpu_ceil_div(p->n, p->block_cols);
    p->depth = cpu_ceil_div(p->k, cpu_max(1, cpu_ceil_div(p->k, DEPTH)));
    p->depth = cpu_ceil_div(p->depth, KN_WIDTH) * KN_WIDTH;
}

static size_t scratch_bytes(const struct product *p)
{
    int64_t turned = p->g->trans_a ? p->block_rows * p->depth : 0;

    return (size_t)(p->depth * KN_COLS + p->block_rows * KN_COLS + turned) *
           sizeof(float);
}

/* C [m, n] = beta C, without reading C for beta 0. */
static void scale_block(float *c, int64_t ld, int64_t m, int64_t n, float beta)
{
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++)
            c[i * ld + j] = beta == 0.0f ? 0.0f : beta * c[i * ld + j];
    }
}

static void copy_block(float *dst, int64_t ld, const float *src, int64_t ld_src,
                       int64_t m, int64_t n)
{
    for (int64_t i = 0; i < m; i++)
        memcpy(dst + i * ld, src + i * ld_src, (size_t)n * sizeof *dst);
}

/* T's strip of B, from column J on, N wide: rows of KN_COLS, zeros beyond N. */
static void pack_strip(const struct product *p, const struct part *t, int64_t j,
                       int64_t n)
{
    const float *b = p->g->b.data;
    int64_t ld = p->g->b.ld;

    if (p->g->trans_b) {
        kn_pack_transposed(t->strip, KN_COLS, b + j * ld + t->l, ld, n, t->depth);
        return;
    }
    b += t->l * ld + j;
    for (int64_t l = 0; l < t->depth; l++, b += ld) {
        float *row = t->strip + l * KN_COLS;

        if (n == KN_COLS)
            memcpy(row, b, KN_COLS * sizeof *row);
        else
            for (int64_t c = 0; c < KN_COLS; c++)
                row[c] = c < n ? b[c] : 0.0f;
    }
}

/* N columns of C from column J on, += for ADD.  Where they end inside a vector they go
 * through a buffer. */
static void strip_product(const struct product *p, const struct part *t, int64_t j,
                          int64_t n, bool add)
{
    float *c = (float *)p->g->c.data + t->i * p->g->c.ld + j;
    bool edge = n % KN_WIDTH;
    struct kn_out out = {edge ? t->edge : c, edge ? KN_COLS : p->g->c.ld, p->g->alpha,
                         add};

    if (edge && add)
        copy_block(t->edge, KN_COLS, c, p->g->c.ld, t->m, n);
    if (n > KN_WIDTH)
        kn_strip(2, t->m, t->depth, t->a, t->strip, KN_COLS, out);
    else
        kn_strip(1, t->m, t->depth, t->a, t->strip, KN_COLS, out);
    if (edge)
        copy_block(c, p->g->c.ld, t->edge, KN_COLS, t->m, n);
}

/* One step of k for a block. */
static void block_step(const struct product *p, struct part *t, bool add)
{
    const float *a = p->g->a.data;
    int64_t ld = p->g->a.ld;

    if (p->g->trans_a) {
        /* rows of whole vectors, zeros after the last of k */
        int64_t row = cpu_ceil_div(t->depth, KN_WIDTH) * KN_WIDTH;

        kn_pack_transposed(t->turned, row, a + t->l * ld + t->i, ld, t->depth, t->m);
        t->a = (struct kn_mat){t->turned, row, 1};
    } else {
        t->a = (struct kn_mat){a + t->i * ld + t->l, ld, 1};
    }
    for (int64_t j = 0; j < t->n; j += KN_COLS) {
        int64_t n = cpu_min(KN_COLS, t->n - j);

        pack_strip(p, t, t->j + j, n);
        strip_product(p, t, t->j + j, n, add);
    }
}

/* All of a block, for rows and columns from T on. */
static void block_by_blas(const struct product *p, const struct part *t, float *c)
{
    const struct kd_gemm *g = p->g;
    const float *a = (const float *)g->a.data + (g->trans_a ? t->i : t->i * g->a.ld);
    const float *b = (const float *)g->b.data + (g->trans_b ? t->j * g->b.ld : t->j);

    cblas_sgemm(CblasRowMajor, g->trans_a ? CblasTrans : CblasNoTrans,
                g->trans_b ? CblasTrans : CblasNoTrans, (blasint)t->m, (blasint)t->n,
                (blasint)p->k, g->alpha, a, (blasint)g->a.ld, b, (blasint)g->b.ld,
                g->beta, c, (blasint)g->c.ld);
}

/* All of a block, step by step. */
static void block_by_steps(const struct product *p, struct part *t, float *c)
{
    const struct kd_gemm *g = p->g;
    int64_t steps_end = g->alpha == 0.0f ? 0 : p->k;

    if (steps_end == 0 || (g->beta != 0.0f && g->beta != 1.0f))
        scale_block(c, g->c.ld, t->m, t->n, g->beta);
    for (t->l = 0; t->l < steps_end; t->l += p->depth) {
        t->depth = cpu_min(p->depth, p->k - t->l);
        block_step(p, t, t->l > 0 || g->beta != 0.0f);
    }
}

static void product_task(void *arg, int64_t task, int thread)
{
    const struct product *p = arg;
    const struct kd_gemm *g = p->g;
    struct part t = {.i = task / p->blocks_across * p->block_rows,
                     .j = task % p->blocks_across * p->block_cols,
                     .strip = cpu_thread_scratch(p->be, thread)};
    float *c = (float *)g->c.data + t.i * g->c.ld + t.j;

    t.m = cpu_min(p->block_rows, p->m - t.i);
    t.n = cpu_min(p->block_cols, p->n - t.j);
    t.edge = t.strip + p->depth * KN_COLS;
    t.turned = t.edge + p->block_rows * KN_COLS;
    if (p->blas)
        block_by_blas(p, &t, c);
    else
        block_by_steps(p, &t, c);
    if (!g->bias && g->act == KD_ACT_NONE && !g->pre.data)
        return;
    for (int64_t r = 0; r < t.m; r++)
        cpu_act_row(g->act, c + r * g->c.ld, g->bias ? g->bias + t.j : NULL,
                    g->pre.data ? (float *)g->pre.data + (t.i + r) * g->pre.ld + t.j
                                : NULL,
                    t.n);
}

int cpu_gemm(struct kd_backend *be, const struct kd_gemm *g)
{
    struct product p = {.be = be,
                        .g = g,
                        .m = g->c.rows,
                        .n = g->c.cols,
                        .k = g->trans_a ? g->a.rows : g->a.cols};

    if (g->a.dtype != KD_F32 || g->b.dtype != KD_F32 || g->c.dtype != KD_F32)
        return KD_FAIL(KD_EINTERNAL, "products on the CPU are float32 only, not %s",
                       kd_dtype_name(g->c.dtype));
    if (p.m == 0 || p.n == 0)
        return KD_OK;
    p.blas = KN_BYTES < 32 && p.m * p.n * p.k >= BLAS_WORK;
    choose_blocks(&p);
    KD_TRY(cpu_scratch(be, scratch_bytes(&p), 0));
    cpu_for(be, cpu_ceil_div(p.m, p.block_rows) * p.blocks_across, product_task, &p);
    return KD_OK;
}
