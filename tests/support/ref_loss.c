/* SPDX-License-Identifier: Apache-2.0 */
/* Reference backend: the vocabulary losses, the distance of hidden states, and the
 * row ops around them. */
#include "ref_backend.h"

#include <math.h>

/* log sum_c exp(x[c] / t). */
static double log_sum_exp(const float *x, int64_t n, double t)
{
    double max = -INFINITY, sum = 0.0;

    for (int64_t c = 0; c < n; c++)
        max = fmax(max, x[c] / t);
    for (int64_t c = 0; c < n; c++)
        sum += exp(x[c] / t - max);
    return max + log(sum);
}

static int64_t first_largest(const float *x, int64_t n)
{
    int64_t best = 0;

    for (int64_t c = 1; c < n; c++) {
        if (x[c] > x[best])
            best = c;
    }
    return best;
}

static void vocab_row(const struct kd_vocab_loss *l, int64_t r)
{
    int64_t n = l->zs.shape[1], ld = kd_vocab_loss_ld(l);
    const float *zs = (const float *)l->zs.data + r * ld;
    float *dz = l->grad ? (float *)l->dz.data + r * ld : NULL;
    const float *zt = l->zt.data ? (const float *)l->zt.data + r * ld : NULL;
    double *out = (double *)l->rows_out.data + 4 * r, t = l->temperature;
    double lse = log_sum_exp(zs, n, 1.0), lse_s = 0.0, lse_t = 0.0;
    bool kl = zt && (!l->kl_mask || l->kl_mask[r] != 0.0f);
    int32_t label = l->labels[r];

    for (int i = 0; i < 4; i++)
        out[i] = 0.0;
    if (label >= 0) {
        out[0] = lse - zs[label];
        for (int64_t c = 0; c < n; c++)
            out[1] += lse - zs[c];
        out[3] = first_largest(zs, n) == label;
    }
    if (kl) {
        lse_s = log_sum_exp(zs, n, t);
        lse_t = log_sum_exp(zt, n, t);
        for (int64_t c = 0; c < n; c++)
            out[2] += exp(zt[c] / t - lse_t) * (zt[c] / t - lse_t - zs[c] / t + lse_s);
    }
    for (int64_t c = 0; l->grad && c < n; c++) {
        double z = zs[c], d = 0.0;

        if (label >= 0)
            d += (double)l->w_ce * (exp(z - lse) - (c == label)) +
                 (double)l->w_smooth * ((double)n * exp(z - lse) - 1.0);
        if (kl)
            d += (double)l->w_kl * (exp(z / t - lse_s) - exp(zt[c] / t - lse_t)) / t;
        dz[c] = (float)d;
    }
}

int ref_vocab_loss(struct kd_backend *be, const struct kd_vocab_loss *l)
{
    (void)be;
    for (int64_t r = 0; r < l->zs.shape[0]; r++)
        vocab_row(l, r);
    return KD_OK;
}

/* Mean and 1 / sigma that standardise x; 0 and 1 if not NORMALIZE. */
static void standard(const float *x, int64_t n, bool normalize, double *mean,
                     double *rstd)
{
    double sum = 0.0, sq = 0.0;

    *mean = 0.0;
    *rstd = 1.0;
    if (!normalize)
        return;
    for (int64_t c = 0; c < n; c++)
        sum += x[c];
    *mean = sum / (double)n;
    for (int64_t c = 0; c < n; c++)
        sq += (x[c] - *mean) * (x[c] - *mean);
    *rstd = 1.0 / sqrt(sq / (double)n + 1e-5);
}

int ref_mse_rows(struct kd_backend *be, struct kd_tensor ts, struct kd_tensor tt,
                 const float *row_mask, bool normalize, float w, double *rows_out,
                 struct kd_tensor tds, bool acc)
{
    int64_t rows = ts.shape[0], cols = ts.shape[1];
    const float *s = ts.data, *t = tt.data;
    float *ds = tds.data;

    (void)be;
    for (int64_t r = 0; r < rows; r++, s += cols, t += cols) {
        double ms, rs, mt, rt, a = 0.0, b = 0.0, on = row_mask ? row_mask[r] : 1.0;

        standard(s, cols, normalize, &ms, &rs);
        standard(t, cols, normalize, &mt, &rt);
        rows_out[r] = 0.0;
        for (int64_t c = 0; c < cols; c++) {
            double hat = (s[c] - ms) * rs, diff = hat - (t[c] - mt) * rt;

            rows_out[r] += on * diff * diff;
            a += diff / (double)cols;
            b += diff * hat / (double)cols;
        }
        for (int64_t c = 0; ds && c < cols; c++) {
            double hat = (s[c] - ms) * rs, d = hat - (t[c] - mt) * rt;
            float *g = &ds[r * cols + c];

            if (normalize)
                d = rs * (d - a - hat * b);
            *g = (float)(2.0 * (double)w * on * d + (acc ? *g : 0.0f));
        }
    }
    return KD_OK;
}

int ref_log_softmax(struct kd_backend *be, float *x, int64_t rows, int64_t cols)
{
    (void)be;
    for (int64_t r = 0; r < rows; r++, x += cols) {
        double lse = log_sum_exp(x, cols, 1.0);

        for (int64_t c = 0; c < cols; c++)
            x[c] = (float)(x[c] - lse);
    }
    return KD_OK;
}
