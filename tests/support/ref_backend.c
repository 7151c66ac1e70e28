/* SPDX-License-Identifier: Apache-2.0 */
/* Reference backend: memory, products, pointwise ops, norms and rows, in float32.
 *
 * Written for reading, element by element; no slot calls another.  Memory comes filled
 * with NaN, so an op that reads what it never wrote is seen in its results. */
#include "ref_backend.h"

#include "kdhpc/base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64 };

struct impl {
    struct ref_stats stats;
};

/* ---- memory ---- */

static int ref_alloc(struct kd_backend *be, size_t bytes, void **out)
{
    struct impl *impl = be->impl;
    size_t padded = (bytes + ALIGN) / ALIGN * ALIGN;

    *out = aligned_alloc(ALIGN, padded);
    if (!*out)
        return KD_FAIL(KD_ENOMEM, "reference backend: no %zu bytes", bytes);
    memset(*out, 0xff, padded);
    impl->stats.n_alloc++;
    impl->stats.n_live++;
    return KD_OK;
}

static void ref_free(struct kd_backend *be, void *p)
{
    struct impl *impl = be->impl;

    if (p)
        impl->stats.n_live--;
    free(p);
}

static int ref_copy(struct kd_backend *be, void *dst, const void *src, size_t bytes)
{
    (void)be;
    memcpy(dst, src, bytes);
    return KD_OK;
}

static int ref_zero(struct kd_backend *be, void *dst, size_t bytes)
{
    (void)be;
    memset(dst, 0, bytes);
    return KD_OK;
}

static int ref_sync(struct kd_backend *be)
{
    (void)be;
    return KD_OK;
}

static void *ref_stream(struct kd_backend *be)
{
    (void)be;
    return NULL;
}

static int ref_mem_info(struct kd_backend *be, size_t *free_bytes, size_t *total_bytes)
{
    (void)be;
    *free_bytes = *total_bytes = (size_t)1 << 30;
    return KD_OK;
}

static void ref_destroy(struct kd_backend *be)
{
    free(be->impl);
    free(be);
}

/* ---- product ---- */

double ref_act(enum kd_act act, double x)
{
    switch (act) {
    case KD_ACT_RELU:
        return x > 0.0 ? x : 0.0;
    case KD_ACT_GELU:
        return 0.5 * x * erfc(-x / sqrt(2.0));
    case KD_ACT_GELU_NEW:
        return 0.5 * x * (1.0 + tanh(sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
    case KD_ACT_SILU:
        return x / (1.0 + exp(-x));
    case KD_ACT_TANH:
        return tanh(x);
    default:
        return x;
    }
}

double ref_act_slope(enum kd_act act, double x)
{
    double u, s;

    switch (act) {
    case KD_ACT_RELU:
        return x > 0.0 ? 1.0 : 0.0;
    case KD_ACT_GELU:
        return 0.5 * erfc(-x / sqrt(2.0)) + x * exp(-0.5 * x * x) / sqrt(2.0 * M_PI);
    case KD_ACT_GELU_NEW:
        u = tanh(sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x));
        return 0.5 * (1.0 + u) + 0.5 * x * (1.0 - u * u) * sqrt(2.0 / M_PI) *
                                     (1.0 + 3.0 * 0.044715 * x * x);
    case KD_ACT_SILU:
        s = 1.0 / (1.0 + exp(-x));
        return s * (1.0 + x * (1.0 - s));
    case KD_ACT_TANH:
        u = tanh(x);
        return 1.0 - u * u;
    default:
        return 1.0;
    }
}

/* Element (r, c) of M, or of its transpose. */
static double at(const struct kd_mat *m, bool trans, int64_t r, int64_t c)
{
    const float *p = m->data;

    return trans ? p[c * m->ld + r] : p[r * m->ld + c];
}

static int ref_gemm(struct kd_backend *be, const struct kd_gemm *g)
{
    int64_t k = g->trans_a ? g->a.rows : g->a.cols;
    float *c = g->c.data, *pre = g->pre.data;

    (void)be;
    for (int64_t i = 0; i < g->c.rows; i++) {
        for (int64_t j = 0; j < g->c.cols; j++) {
            double sum = 0.0;

            for (int64_t l = 0; l < k; l++)
                sum += at(&g->a, g->trans_a, i, l) * at(&g->b, g->trans_b, l, j);
            sum *= g->alpha;
            if (g->beta != 0.0f)
                sum += (double)g->beta * c[i * g->c.ld + j];
            if (g->bias)
                sum += g->bias[j];
            if (pre)
                pre[i * g->pre.ld + j] = (float)sum;
            c[i * g->c.ld + j] = (float)ref_act(g->act, sum);
        }
    }
    return KD_OK;
}

static int ref_col_sum(struct kd_backend *be, struct kd_mat x, float *out, bool acc)
{
    (void)be;
    for (int64_t c = 0; c < x.cols; c++) {
        double sum = acc ? out[c] : 0.0;

        for (int64_t r = 0; r < x.rows; r++)
            sum += at(&x, false, r, c);
        out[c] = (float)sum;
    }
    return KD_OK;
}

/* ---- pointwise ---- */

static int ref_add(struct kd_backend *be, struct kd_tensor x, struct kd_tensor y,
                   struct kd_tensor out)
{
    const float *a = x.data, *b = y.data;

    (void)be;
    for (int64_t i = 0; i < kd_tensor_count(&x); i++)
        ((float *)out.data)[i] = a[i] + b[i];
    return KD_OK;
}

static int ref_axpy(struct kd_backend *be, float alpha, struct kd_tensor x,
                    struct kd_tensor y)
{
    const float *a = x.data;
    float *b = y.data;

    (void)be;
    for (int64_t i = 0; i < kd_tensor_count(&x); i++)
        b[i] = (float)((double)alpha * a[i] + b[i]);
    return KD_OK;
}

static int ref_scale(struct kd_backend *be, float alpha, struct kd_tensor x)
{
    (void)be;
    for (int64_t i = 0; i < kd_tensor_count(&x); i++)
        ((float *)x.data)[i] *= alpha;
    return KD_OK;
}

static int ref_apply_act(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                         struct kd_tensor y)
{
    (void)be;
    for (int64_t i = 0; i < kd_tensor_count(&pre); i++)
        ((float *)y.data)[i] = (float)ref_act(act, ((const float *)pre.data)[i]);
    return KD_OK;
}

static int ref_act_back(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                        struct kd_tensor dy, struct kd_tensor dx)
{
    const float *p = pre.data, *g = dy.data;

    (void)be;
    for (int64_t i = 0; i < kd_tensor_count(&pre); i++)
        ((float *)dx.data)[i] = (float)(g[i] * ref_act_slope(act, p[i]));
    return KD_OK;
}

static int ref_glu(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                   struct kd_tensor y)
{
    int64_t cols = y.shape[1];

    (void)be;
    for (int64_t i = 0; i < kd_tensor_count(&y); i++) {
        const float *a = (const float *)pre.data + i / cols * 2 * cols + i % cols;

        ((float *)y.data)[i] = (float)(ref_act(act, a[0]) * a[cols]);
    }
    return KD_OK;
}

static int ref_glu_back(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                        struct kd_tensor dy, struct kd_tensor dpre)
{
    int64_t cols = dy.shape[1];

    (void)be;
    for (int64_t i = 0; i < kd_tensor_count(&dy); i++) {
        int64_t at = i / cols * 2 * cols + i % cols;
        const float *p = (const float *)pre.data + at;
        double a = p[0], b = p[cols], g = ((const float *)dy.data)[i];

        ((float *)dpre.data)[at] = (float)(g * b * ref_act_slope(act, a));
        ((float *)dpre.data)[at + cols] = (float)(g * ref_act(act, a));
    }
    return KD_OK;
}

double ref_dropout_factor(const struct kd_dropout *d, int64_t row, int64_t c)
{
    uint32_t key[2], ctr[4], word[4];
    uint64_t row_key;

    if (d->p == 0.0f)
        return 1.0;
    row_key = d->row_keys[row];
    key[0] = (uint32_t)d->seed ^ (uint32_t)(d->seed >> 32);
    key[1] = d->step;
    ctr[0] = (uint32_t)(c / 8);
    ctr[1] = (uint32_t)row_key;
    ctr[2] = (uint32_t)(row_key >> 32);
    ctr[3] = d->site;
    kd_philox(key, ctr, word);
    uint32_t lane = word[c % 8 / 2] >> (c % 2 ? 16 : 0) & 0xffff;

    return lane < lround((double)d->p * 65536.0) ? 0.0 : 1.0 / (1.0 - (double)d->p);
}

static int ref_dropout(struct kd_backend *be, const struct kd_dropout *d,
                       struct kd_tensor tx, struct kd_tensor tout, bool acc)
{
    const float *x = tx.data;
    float *out = tout.data;
    int64_t cols = tx.shape[1];

    (void)be;
    for (int64_t r = 0; r < tx.shape[0]; r++) {
        for (int64_t c = 0; c < cols; c++) {
            int64_t i = r * cols + c;

            out[i] =
                (float)(x[i] * ref_dropout_factor(d, r, c) + (acc ? out[i] : 0.0f));
        }
    }
    return KD_OK;
}

/* Value I of T as float64, and back. */
static double load(const struct kd_tensor *t, int64_t i)
{
    switch (t->dtype) {
    case KD_F32:
        return ((const float *)t->data)[i];
    case KD_BF16:
        return kd_bf16_to_f32(((const uint16_t *)t->data)[i]);
    case KD_F16:
        return kd_f16_to_f32(((const uint16_t *)t->data)[i]);
    case KD_F64:
        return ((const double *)t->data)[i];
    default:
        return NAN;
    }
}

static int ref_cast(struct kd_backend *be, struct kd_tensor src, struct kd_tensor dst)
{
    (void)be;
    for (int64_t i = 0; i < kd_tensor_count(&src); i++) {
        double x = load(&src, i);

        if (dst.dtype == KD_F32)
            ((float *)dst.data)[i] = (float)x;
        else if (dst.dtype == KD_BF16)
            ((uint16_t *)dst.data)[i] = kd_f32_to_bf16((float)x);
        else if (dst.dtype == KD_F16)
            ((uint16_t *)dst.data)[i] = kd_f32_to_f16((float)x);
        else if (dst.dtype == KD_F64)
            ((double *)dst.data)[i] = x;
        else
            return KD_FAIL(KD_EINTERNAL, "reference cast to %s is not there",
                           kd_dtype_name(dst.dtype));
    }
    return KD_OK;
}

static int ref_graph_begin(struct kd_backend *be, const struct kd_graph_key *key,
                           bool *done)
{
    (void)be;
    (void)key;
    *done = false;
    return KD_OK;
}

static int ref_graph_end(struct kd_backend *be, bool ok)
{
    (void)be;
    (void)ok;
    return KD_OK;
}

static void ref_graph_drop(struct kd_backend *be)
{
    (void)be;
}

/* ---- norm ---- */

static int ref_norm(struct kd_backend *be, const struct kd_norm *norm,
                    struct kd_tensor tx, struct kd_tensor tsub,
                    const struct kd_dropout *drop, struct kd_tensor tsum,
                    struct kd_tensor ty, float *stats)
{
    int64_t rows = ty.shape[0], cols = ty.shape[1];
    const float *x = tx.data, *sub = tsub.data;
    float *sum = tsum.data, *y = ty.data;
    double *s = malloc(sizeof(double) * (size_t)cols);

    (void)be;
    if (!s)
        return KD_FAIL(KD_ENOMEM, "reference norm: no memory");
    for (int64_t r = 0; r < rows; r++) {
        double mean = 0.0, sq = 0.0, rstd;

        for (int64_t c = 0; c < cols; c++) {
            int64_t i = r * cols + c;

            s[c] = x ? x[i] : 0.0;
            if (sub)
                s[c] += sub[i] * (drop ? ref_dropout_factor(drop, r, c) : 1.0);
            if (sum)
                sum[i] = (float)s[c];
            mean += s[c];
        }
        mean = norm->kind == KD_NORM_LAYER ? mean / (double)cols : 0.0;
        for (int64_t c = 0; c < cols; c++)
            sq += (s[c] - mean) * (s[c] - mean);
        rstd = 1.0 / sqrt(sq / (double)cols + (double)norm->eps);
        for (int64_t c = 0; c < cols; c++)
            y[r * cols + c] = (float)((s[c] - mean) * rstd * norm->gamma[c] +
                                      (norm->beta ? norm->beta[c] : 0.0f));
        if (stats) {
            stats[2 * r] = (float)mean;
            stats[2 * r + 1] = (float)rstd;
        }
    }
    free(s);
    return KD_OK;
}

static int ref_norm_back(struct kd_backend *be, const struct kd_norm *norm,
                         struct kd_tensor tsum, const float *stats,
                         struct kd_tensor tdy, struct kd_tensor tdsum,
                         const struct kd_dropout *drop, struct kd_tensor tdx,
                         bool acc_dx, struct kd_tensor tdsub, float *dgamma,
                         float *dbeta)
{
    int64_t rows = tdy.shape[0], cols = tdy.shape[1];
    const float *sum = tsum.data, *dy = tdy.data, *dsum = tdsum.data;
    float *dx = tdx.data, *dsub = tdsub.data;

    (void)be;
    for (int64_t r = 0; r < rows; r++) {
        double mean = stats[2 * r], rstd = stats[2 * r + 1], a = 0.0, b = 0.0;

        for (int64_t c = 0; c < cols; c++) {
            double hat = (sum[r * cols + c] - mean) * rstd, d = dy[r * cols + c];

            a += d * norm->gamma[c] / (double)cols;
            b += d * norm->gamma[c] * hat / (double)cols;
            if (dgamma)
                dgamma[c] = (float)(dgamma[c] + d * hat);
            if (dbeta)
                dbeta[c] = (float)(dbeta[c] + d);
        }
        if (norm->kind == KD_NORM_RMS)
            a = 0.0;
        for (int64_t c = 0; c < cols; c++) {
            int64_t i = r * cols + c;
            double hat = (sum[i] - mean) * rstd;
            double ds = rstd * (dy[i] * (double)norm->gamma[c] - a - hat * b);

            ds += dsum ? dsum[i] : 0.0;
            if (dx)
                dx[i] = (float)(ds + (acc_dx ? dx[i] : 0.0f));
            if (dsub)
                dsub[i] = (float)(ds * (drop ? ref_dropout_factor(drop, r, c) : 1.0));
        }
    }
    return KD_OK;
}

/* ---- rows ---- */

static int ref_gather_rows(struct kd_backend *be, struct kd_tensor ttable,
                           const int32_t *ids, float scale, struct kd_tensor tpos,
                           const int32_t *pos_ids, struct kd_tensor tout)
{
    const float *table = ttable.data, *pos = tpos.data;
    int64_t cols = tout.shape[1];
    float *out = tout.data;

    (void)be;
    for (int64_t r = 0; r < tout.shape[0]; r++) {
        for (int64_t c = 0; c < cols; c++) {
            double v = (double)scale * table[ids[r] * cols + c];

            out[r * cols + c] = (float)(v + (pos ? pos[pos_ids[r] * cols + c] : 0.0f));
        }
    }
    return KD_OK;
}

static int ref_scatter_add_rows(struct kd_backend *be, struct kd_tensor tdx,
                                const int32_t *ids, int32_t skip_id, float scale,
                                float *table, int64_t table_rows)
{
    int64_t cols = tdx.shape[1];
    const float *dx = tdx.data;

    (void)be;
    for (int64_t r = 0; r < tdx.shape[0]; r++) {
        if (ids[r] < 0 || ids[r] >= table_rows)
            return KD_FAIL(KD_EINTERNAL, "reference scatter: id %d of %lld", ids[r],
                           (long long)table_rows);
        for (int64_t c = 0; c < cols && ids[r] != skip_id; c++)
            table[ids[r] * cols + c] += scale * dx[r * cols + c];
    }
    return KD_OK;
}

static int ref_sum_sq(struct kd_backend *be, const struct kd_span *spans,
                      int64_t n_spans, double *out)
{
    (void)be;
    *out = 0.0;
    for (const struct kd_span *s = spans; s < spans + n_spans; s++)
        for (int64_t i = 0; i < s->n; i++)
            *out += (double)s->x[i] * s->x[i];
    return KD_OK;
}

/* adamw and adafactor are not here: nothing in the graph calls an optimiser. */
static const struct kd_backend_ops ops = {
    .name = "reference",
    .alloc = ref_alloc,
    .free = ref_free,
    .upload = ref_copy,
    .download = ref_copy,
    .copy = ref_copy,
    .zero = ref_zero,
    .sync = ref_sync,
    .stream = ref_stream,
    .mem_info = ref_mem_info,
    .graph_begin = ref_graph_begin,
    .graph_end = ref_graph_end,
    .graph_drop = ref_graph_drop,
    .destroy = ref_destroy,
    .gemm = ref_gemm,
    .col_sum = ref_col_sum,
    .attention = ref_attention,
    .attention_back = ref_attention_back,
    .attention_cached = ref_attention_cached,
    .advance_slots = ref_advance_slots,
    .add = ref_add,
    .axpy = ref_axpy,
    .scale = ref_scale,
    .act = ref_apply_act,
    .act_back = ref_act_back,
    .glu = ref_glu,
    .glu_back = ref_glu_back,
    .dropout = ref_dropout,
    .cast = ref_cast,
    .norm = ref_norm,
    .norm_back = ref_norm_back,
    .gather_rows = ref_gather_rows,
    .scatter_add_rows = ref_scatter_add_rows,
    .log_softmax = ref_log_softmax,
    .log_sum = ref_log_sum,
    .topk = ref_topk,
    .edit_scores = ref_edit_scores,
    .sample = ref_sample,
    .vocab_loss = ref_vocab_loss,
    .mse_rows = ref_mse_rows,
    .sum_sq = ref_sum_sq,
};

int ref_backend_new(struct kd_backend **out)
{
    struct kd_backend *be = calloc(1, sizeof(*be));
    struct impl *impl = calloc(1, sizeof(*impl));

    if (!be || !impl) {
        free(be);
        free(impl);
        return KD_FAIL(KD_ENOMEM, "reference backend: no memory");
    }
    be->ops = &ops;
    be->device = KD_CPU;
    be->n_threads = 1;
    be->impl = impl;
    *out = be;
    return KD_OK;
}

int64_t ref_backend_free(struct kd_backend *be)
{
    struct impl *impl = be->impl;
    int64_t live = impl->stats.n_live;

    ref_destroy(be);
    return live;
}

struct ref_stats ref_backend_stats(const struct kd_backend *be)
{
    return ((const struct impl *)be->impl)->stats;
}
