/* SPDX-License-Identifier: Apache-2.0 */
/* Losses of rows: cross-entropy, label smoothing and KL over a vocabulary with their
 * gradient, and squared distances of hidden states.
 *
 * A vocabulary row is read for its maximum, then once for all exponentials and sums,
 * then once for the gradient; the exponentials of the cross-entropy wait in the
 * thread's scratch, those of the KL part in the rows themselves.  Sums of float32 terms
 * run over RUN values and are added in float64, so the losses are good to about 1e-8.
 */
#include "cpu_impl.h"
#include "vecmath.h"

enum { RUN = 128 };

struct vocab {
    struct kd_backend *be;
    const struct kd_vocab_loss *l;
    int64_t rows, cols;
};

/* Sums over a row of the cross-entropy part: of e = exp(z - top), kept in E if not
 * NULL, and of z - top. */
struct ce_sums {
    double exps, shifted;
};

static struct ce_sums ce_pass(const float *z, float top, float *e, int64_t n)
{
    double exps = 0.0, shifted = 0.0;

    if (e) {
#pragma omp simd reduction(+ : exps, shifted)
        for (int64_t j = 0; j < n; j++) {
            float d = z[j] - top;

            e[j] = vm_exp(d);
            exps += (double)e[j];
            shifted += (double)d;
        }
    } else {
#pragma omp simd reduction(+ : exps, shifted)
        for (int64_t j = 0; j < n; j++) {
            float d = z[j] - top;

            exps += (double)vm_exp(d);
            shifted += (double)d;
        }
    }
    return (struct ce_sums){exps, shifted};
}

/* Sums over a row of the KL part: exponentials of both, and e_t (d_t - d_s) with d = (z
 * - top) / T. */
struct kl_sums {
    double exps_s, exps_t, cross;
};

/* Leaves e_t in ZT, and e_s in ES (which may be ZS) if it is not NULL. */
static struct kl_sums kl_pass(const float *zs, float top_s, float *es, float *zt,
                              float top_t, float inv_t, int64_t n)
{
    double exps_s = 0.0, exps_t = 0.0, cross = 0.0;
    float keep[RUN];

    for (int64_t i = 0; i < n; i += RUN) {
        int64_t width = cpu_min(RUN, n - i);

#pragma omp simd reduction(+ : exps_s, exps_t, cross)
        for (int64_t j = 0; j < width; j++) {
            float ds = (zs[i + j] - top_s) * inv_t, dt = (zt[i + j] - top_t) * inv_t;
            float e = vm_exp(ds), et = vm_exp(dt);
            float term = et * (dt - ds);

            keep[j] = e;
            zt[i + j] = et;
            exps_s += (double)e;
            exps_t += (double)et;
            cross += (double)(et > 0.0f ? term : 0.0f); /* 0 log 0 = 0 */
        }
        if (es)
            memcpy(es + i, keep, (size_t)width * sizeof *es);
    }
    return (struct kl_sums){exps_s, exps_t, cross};
}

/* Whether LABEL is the first column of Z that holds the maximum TOP. */
static bool is_argmax(const float *z, int64_t label, float top)
{
    int earlier = 0;

    if (z[label] != top)
        return false;
#pragma omp simd reduction(| : earlier)
    for (int64_t j = 0; j < label; j++)
        earlier |= z[j] == top;
    return !earlier;
}

/* dz = a e + b e_s - c e_t - d, e in TMP, e_s in Z, e_t in ZT; absent parts NULL.  DZ
 * may be Z. */
static void gradient_pass(float *dz, const float *z, const float *tmp, const float *zt,
                          float a, float b, float c, float d, int64_t n)
{
    if (tmp && zt) {
#pragma omp simd
        for (int64_t j = 0; j < n; j++)
            dz[j] = a * tmp[j] + (b * z[j] - c * zt[j]) - d;
    } else if (tmp) {
#pragma omp simd
        for (int64_t j = 0; j < n; j++)
            dz[j] = a * tmp[j] - d;
    } else {
#pragma omp simd
        for (int64_t j = 0; j < n; j++)
            dz[j] = b * z[j] - c * zt[j];
    }
}

static void vocab_row(const struct vocab *p, int64_t r, float *tmp)
{
    const struct kd_vocab_loss *l = p->l;
    int64_t n = p->cols, ld = kd_vocab_loss_ld(l), label = l->labels[r];
    float *z = (float *)l->zs.data + r * ld;
    float *dz = l->grad ? (float *)l->dz.data + r * ld : NULL;
    float *zt = l->zt.data && (!l->kl_mask || l->kl_mask[r] != 0.0f)
                    ? (float *)l->zt.data + r * ld
                    : NULL;
    double *out = (double *)l->rows_out.data + 4 * r;
    float a = 0.0f, b = 0.0f, c = 0.0f, d = 0.0f, top;

    out[0] = out[1] = out[2] = out[3] = 0.0;
    if (label < 0 && !zt) {
        if (l->grad)
            memset(dz, 0, (size_t)n * sizeof *dz);
        return;
    }
    top = vm_max(z, n);
    if (label >= 0) {
        struct ce_sums s = ce_pass(z, top, l->grad ? tmp : NULL, n);
        double log_sum = log(s.exps);

        out[0] = log_sum - ((double)z[label] - top);
        out[1] = (double)n * log_sum - s.shifted;
        out[3] = is_argmax(z, label, top) ? 1.0 : 0.0;
        a = (float)((l->w_ce + (double)l->w_smooth * (double)n) / s.exps);
        d = l->w_smooth;
    }
    if (zt) {
        float inv_t = 1.0f / l->temperature;
        struct kl_sums s =
            kl_pass(z, top, l->grad ? z : NULL, zt, vm_max(zt, n), inv_t, n);

        out[2] = s.cross / s.exps_t - log(s.exps_t) + log(s.exps_s);
        b = (float)(l->w_kl * (double)inv_t / s.exps_s);
        c = (float)(l->w_kl * (double)inv_t / s.exps_t);
    }
    if (!l->grad)
        return;
    gradient_pass(dz, z, label >= 0 ? tmp : NULL, zt, a, b, c, d, n);
    if (label >= 0)
        dz[label] -= l->w_ce;
}

static void vocab_task(void *arg, int64_t task, int thread)
{
    const struct vocab *p = arg;
    int64_t per = cpu_rows_per_task(p->cols), end = cpu_min(p->rows, (task + 1) * per);

    for (int64_t r = task * per; r < end; r++)
        vocab_row(p, r, cpu_thread_scratch(p->be, thread));
}

int cpu_vocab_loss(struct kd_backend *be, const struct kd_vocab_loss *l)
{
    struct vocab p = {be, l, l->zs.shape[0], l->zs.shape[1]};

    KD_TRY(cpu_f32("vocab_loss",
                   l->zs.dtype | l->zt.dtype | (l->grad ? l->dz.dtype : KD_F32)));
    KD_TRY(cpu_scratch(be, (size_t)p.cols * sizeof(float), 0));
    cpu_for(be, cpu_ceil_div(p.rows, cpu_rows_per_task(p.cols)), vocab_task, &p);
    return KD_OK;
}

struct mse {
    const float *s, *t, *mask;
    bool normalize, acc;
    float w;
    double *rows_out;
    float *ds;
    int64_t rows, cols;
};

struct moments {
    float mean, scale;
};

/* The row's standardisation, or the identity. */
static struct moments moments_of(const struct mse *p, const float *x)
{
    struct moments m = {0.0f, 1.0f};
    float sum = 0.0f, square = 0.0f;

    if (!p->normalize)
        return m;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < p->cols; c++)
        sum += x[c];
    m.mean = sum / (float)p->cols;
#pragma omp simd reduction(+ : square)
    for (int64_t c = 0; c < p->cols; c++)
        square += (x[c] - m.mean) * (x[c] - m.mean);
    m.scale = 1.0f / sqrtf(square / (float)p->cols + 1e-5f);
    return m;
}

/* ds (+)= 2 w (e - mean(e) - n mean(e n)) scale with e = n - n_t (the means only when
 * standardised). */
static void mse_gradient(const struct mse *p, int64_t r, struct moments ms,
                         struct moments mt, float sum_e, float sum_en)
{
    const float *s = p->s + r * p->cols, *t = p->t + r * p->cols;
    float *ds = p->ds + r * p->cols;
    float w = 2.0f * p->w * ms.scale,
          mean_e = p->normalize ? sum_e / (float)p->cols : 0.0f,
          mean_en = p->normalize ? sum_en / (float)p->cols : 0.0f;

    for (int64_t c = 0; c < p->cols; c++) {
        float n = (s[c] - ms.mean) * ms.scale, e = n - (t[c] - mt.mean) * mt.scale;
        float g = w * (e - mean_e - n * mean_en);

        ds[c] = p->acc ? ds[c] + g : g;
    }
}

static void mse_row(const struct mse *p, int64_t r)
{
    const float *s = p->s + r * p->cols, *t = p->t + r * p->cols;
    struct moments ms, mt;
    double square = 0.0;
    float sum_e = 0.0f, sum_en = 0.0f;

    p->rows_out[r] = 0.0;
    if (p->mask && p->mask[r] == 0.0f) {
        if (p->ds && !p->acc)
            memset(p->ds + r * p->cols, 0, (size_t)p->cols * sizeof *p->ds);
        return;
    }
    ms = moments_of(p, s);
    mt = moments_of(p, t);
#pragma omp simd reduction(+ : square, sum_e, sum_en)
    for (int64_t c = 0; c < p->cols; c++) {
        float n = (s[c] - ms.mean) * ms.scale, e = n - (t[c] - mt.mean) * mt.scale;

        square += (double)e * (double)e;
        sum_e += e;
        sum_en += e * n;
    }
    p->rows_out[r] = square;
    if (p->ds)
        mse_gradient(p, r, ms, mt, sum_e, sum_en);
}

static void mse_task(void *arg, int64_t task, int thread)
{
    const struct mse *p = arg;
    int64_t per = cpu_rows_per_task(p->cols), end = cpu_min(p->rows, (task + 1) * per);

    (void)thread;
    for (int64_t r = task * per; r < end; r++)
        mse_row(p, r);
}

int cpu_mse_rows(struct kd_backend *be, struct kd_tensor s, struct kd_tensor t,
                 const float *row_mask, bool normalize, float w, double *rows_out,
                 struct kd_tensor ds, bool acc)
{
    int64_t rows = s.shape[0], cols = s.shape[1];
    struct mse p = {s.data, t.data,   row_mask, normalize, acc,
                    w,      rows_out, ds.data,  rows,      cols};

    KD_TRY(cpu_f32("mse_rows", s.dtype | t.dtype | ds.dtype));
    cpu_for(be, cpu_ceil_div(rows, cpu_rows_per_task(cols)), mse_task, &p);
    return KD_OK;
}
