/* SPDX-License-Identifier: Apache-2.0 */
/* Products: C is cut into blocks by its shape, each block is one single-threaded call
 * of OpenBLAS, and bias, activation and the copy of the value before it are applied to
 * the block while it is in cache.
 *
 * The cut never depends on the number of threads (one row of an sgemm has other bits in
 * a call of another height), and k is never split.  Tall products use row blocks, which
 * keep the packing of B cheap; where that gives too few blocks (gradients of weights,
 * decoding) columns are cut too. */
#include "cpu_impl.h"

#include <cblas.h>

enum {
    BLOCK_ROWS = 256,
    BLOCK_COLS = 512,
    MIN_COLS = 64,
    ENOUGH_BLOCKS = 8,      /* for a handful of threads */
    SMALL_PRODUCT = 1 << 18 /* multiplications that are not worth a second thread */
};

struct product {
    const struct kd_gemm *g;
    int64_t m, n, k;
    int64_t block_rows, block_cols, blocks_across;
};

/* Even blocks of C [m, n]. */
static void choose_blocks(struct product *p)
{
    int64_t down = cpu_ceil_div(p->m, BLOCK_ROWS),
            across = cpu_ceil_div(p->n, BLOCK_COLS);

    if (p->m * p->n * cpu_max(p->k, 1) < SMALL_PRODUCT) {
        down = across = 1;
    } else {
        while (down * across < ENOUGH_BLOCKS) {
            bool wide = p->n / across >= 2 * MIN_COLS;

            if (wide && (p->n / across >= p->m / down || p->m / down < 2 * MIN_COLS))
                across *= 2;
            else if (p->m / down >= 2 * MIN_COLS)
                down *= 2;
            else
                break;
        }
    }
    /* multiples of 16 keep the kernels' edges away from all but the last block */
    p->block_rows = cpu_ceil_div(cpu_ceil_div(p->m, down), 16) * 16;
    p->block_cols = cpu_ceil_div(cpu_ceil_div(p->n, across), 16) * 16;
    p->blocks_across = cpu_ceil_div(p->n, p->block_cols);
}

/* C [m, n] = beta C, without reading C for beta 0. */
static void scale_block(float *c, int64_t ld, int64_t m, int64_t n, float beta)
{
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++)
            c[i * ld + j] = beta == 0.0f ? 0.0f : beta * c[i * ld + j];
    }
}

static void product_task(void *arg, int64_t task, int thread)
{
    const struct product *p = arg;
    const struct kd_gemm *g = p->g;
    int64_t i = task / p->blocks_across * p->block_rows,
            j = task % p->blocks_across * p->block_cols,
            m = cpu_min(p->block_rows, p->m - i), n = cpu_min(p->block_cols, p->n - j);
    const float *a = (const float *)g->a.data + (g->trans_a ? i : i * g->a.ld);
    const float *b = (const float *)g->b.data + (g->trans_b ? j * g->b.ld : j);
    float *c = (float *)g->c.data + i * g->c.ld + j;

    (void)thread;
    if (p->k == 0 || g->alpha == 0.0f)
        scale_block(c, g->c.ld, m, n, g->beta);
    else
        cblas_sgemm(CblasRowMajor, g->trans_a ? CblasTrans : CblasNoTrans,
                    g->trans_b ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n,
                    (blasint)p->k, g->alpha, a, (blasint)g->a.ld, b, (blasint)g->b.ld,
                    g->beta, c, (blasint)g->c.ld);
    if (!g->bias && g->act == KD_ACT_NONE && !g->pre.data)
        return;
    for (int64_t r = 0; r < m; r++)
        cpu_act_row(g->act, c + r * g->c.ld, g->bias ? g->bias + j : NULL,
                    g->pre.data ? (float *)g->pre.data + (i + r) * g->pre.ld + j : NULL,
                    n);
}

int cpu_gemm(struct kd_backend *be, const struct kd_gemm *g)
{
    struct product p = {.g = g,
                        .m = g->c.rows,
                        .n = g->c.cols,
                        .k = g->trans_a ? g->a.rows : g->a.cols};

    if (g->a.dtype != KD_F32 || g->b.dtype != KD_F32 || g->c.dtype != KD_F32)
        return KD_FAIL(KD_EINTERNAL, "products on the CPU are float32 only, not %s",
                       kd_dtype_name(g->c.dtype));
    if (p.m == 0 || p.n == 0)
        return KD_OK;
    choose_blocks(&p);
    cpu_for(be, cpu_ceil_div(p.m, p.block_rows) * p.blocks_across, product_task, &p);
    return KD_OK;
}
