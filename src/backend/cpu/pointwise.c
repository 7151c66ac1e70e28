/* SPDX-License-Identifier: Apache-2.0 */
/* Pointwise loops: sums, activations and their slopes, dropout, casts.
 *
 * Flat ranges are cut into tasks of CPU_FLAT values, matrices into tasks of whole rows.
 * The dropout mask is a function of (seed, step, site, row key, column): Philox as in
 * base/rng.h, written over arrays of blocks so that its rounds are vectorised.  Forward
 * and backward both make the mask anew. */
#include "cpu_impl.h"
#include "vecmath.h"

struct flat {
    float alpha;
    const float *x, *y;
    float *out;
    int64_t n;
    enum kd_act act;
};

/* The values of a task. */
static struct flat flat_part(const struct flat *f, int64_t task)
{
    int64_t first = task * CPU_FLAT;
    struct flat part = *f;

    part.x = f->x ? f->x + first : NULL;
    part.y = f->y ? f->y + first : NULL;
    part.out = f->out + first;
    part.n = cpu_min(CPU_FLAT, f->n - first);
    return part;
}

static void add_task(void *arg, int64_t task, int thread)
{
    const struct flat f = flat_part(arg, task);

    (void)thread;
    for (int64_t i = 0; i < f.n; i++)
        f.out[i] = f.x[i] + f.y[i];
}

int cpu_add(struct kd_backend *be, struct kd_tensor x, struct kd_tensor y,
            struct kd_tensor out)
{
    struct flat f = {
        .x = x.data, .y = y.data, .out = out.data, .n = kd_tensor_count(&x)};

    KD_TRY(cpu_f32("add", x.dtype | y.dtype | out.dtype));
    cpu_for(be, cpu_ceil_div(f.n, CPU_FLAT), add_task, &f);
    return KD_OK;
}

static void axpy_task(void *arg, int64_t task, int thread)
{
    const struct flat f = flat_part(arg, task);

    (void)thread;
    for (int64_t i = 0; i < f.n; i++)
        f.out[i] += f.alpha * f.x[i];
}

int cpu_axpy(struct kd_backend *be, float alpha, struct kd_tensor x, struct kd_tensor y)
{
    struct flat f = {
        .alpha = alpha, .x = x.data, .out = y.data, .n = kd_tensor_count(&x)};

    KD_TRY(cpu_f32("axpy", x.dtype | y.dtype));
    cpu_for(be, cpu_ceil_div(f.n, CPU_FLAT), axpy_task, &f);
    return KD_OK;
}

static void scale_task(void *arg, int64_t task, int thread)
{
    const struct flat f = flat_part(arg, task);

    (void)thread;
    for (int64_t i = 0; i < f.n; i++)
        f.out[i] *= f.alpha;
}

int cpu_scale(struct kd_backend *be, float alpha, struct kd_tensor x)
{
    struct flat f = {.alpha = alpha, .out = x.data, .n = kd_tensor_count(&x)};

    KD_TRY(cpu_f32("scale", x.dtype));
    cpu_for(be, cpu_ceil_div(f.n, CPU_FLAT), scale_task, &f);
    return KD_OK;
}

/* One loop per activation: a switch inside would keep it from being vectorised. */
#define ACT_LOOP(expression)                                                           \
    for (int64_t i = 0; i < n; i++) {                                                  \
        float x = v[i];                                                                \
        v[i] = (expression);                                                           \
    }

void cpu_act_row(enum kd_act act, float *v, const float *bias, float *pre, int64_t n)
{
    if (bias) {
        for (int64_t i = 0; i < n; i++)
            v[i] += bias[i];
    }
    if (pre)
        memcpy(pre, v, (size_t)n * sizeof *v);
    switch (act) {
    case KD_ACT_NONE:
        break;
    case KD_ACT_RELU: /* NaN stays */
        ACT_LOOP(x < 0.0f ? 0.0f : x)
        break;
    case KD_ACT_GELU:
        ACT_LOOP(vm_gelu(x))
        break;
    case KD_ACT_GELU_NEW:
        ACT_LOOP(vm_gelu_new(x))
        break;
    case KD_ACT_SILU:
        ACT_LOOP(vm_silu(x))
        break;
    case KD_ACT_TANH:
        ACT_LOOP(vm_tanh(x))
        break;
    }
}

static void act_task(void *arg, int64_t task, int thread)
{
    const struct flat f = flat_part(arg, task);

    (void)thread;
    if (f.out != f.x)
        memcpy(f.out, f.x, (size_t)f.n * sizeof *f.out);
    cpu_act_row(f.act, f.out, NULL, NULL, f.n);
}

int cpu_act(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
            struct kd_tensor y)
{
    struct flat f = {
        .x = pre.data, .out = y.data, .n = kd_tensor_count(&pre), .act = act};

    KD_TRY(cpu_f32("act", pre.dtype | y.dtype));
    cpu_for(be, cpu_ceil_div(f.n, CPU_FLAT), act_task, &f);
    return KD_OK;
}

#define SLOPE_LOOP(expression)                                                         \
    for (int64_t i = 0; i < n; i++) {                                                  \
        float x = pre[i];                                                              \
        out[i] = dy[i] * (expression);                                                 \
    }

/* out = dy act'(pre), N values. */
static void slope_row(enum kd_act act, const float *pre, const float *dy, float *out,
                      int64_t n)
{
    switch (act) {
    case KD_ACT_NONE:
        SLOPE_LOOP(1.0f + 0.0f * x)
        break;
    case KD_ACT_RELU:
        SLOPE_LOOP(x > 0.0f ? 1.0f : 0.0f)
        break;
    case KD_ACT_GELU:
        SLOPE_LOOP(vm_gelu_slope(x))
        break;
    case KD_ACT_GELU_NEW:
        SLOPE_LOOP(vm_gelu_new_slope(x))
        break;
    case KD_ACT_SILU:
        SLOPE_LOOP(vm_silu_slope(x))
        break;
    case KD_ACT_TANH:
        SLOPE_LOOP(1.0f - vm_tanh(x) * vm_tanh(x))
        break;
    }
}

static void act_back_task(void *arg, int64_t task, int thread)
{
    const struct flat f = flat_part(arg, task);

    (void)thread;
    slope_row(f.act, f.x, f.y, f.out, f.n);
}

int cpu_act_back(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                 struct kd_tensor dy, struct kd_tensor dx)
{
    struct flat f = {.x = pre.data,
                     .y = dy.data,
                     .out = dx.data,
                     .n = kd_tensor_count(&pre),
                     .act = act};

    KD_TRY(cpu_f32("act_back", pre.dtype | dy.dtype | dx.dtype));
    cpu_for(be, cpu_ceil_div(f.n, CPU_FLAT), act_back_task, &f);
    return KD_OK;
}

/* Rows of a | b: y = act(a) * b, or from DY the gradient of a | b. */
struct glu {
    enum kd_act act;
    const float *pre, *dy;
    float *out;
    int64_t cols;
};

enum { GLU_PART = 256 };

static void glu_task(void *arg, int64_t row, int thread)
{
    const struct glu *g = arg;
    const float *a = g->pre + 2 * row * g->cols, *b = a + g->cols;
    float *y = g->out + row * g->cols;

    (void)thread;
    memcpy(y, a, (size_t)g->cols * sizeof *y);
    cpu_act_row(g->act, y, NULL, NULL, g->cols);
    for (int64_t c = 0; c < g->cols; c++)
        y[c] *= b[c];
}

int cpu_glu(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
            struct kd_tensor y)
{
    struct glu g = {act, pre.data, NULL, y.data, y.shape[1]};

    KD_TRY(cpu_f32("glu", pre.dtype | y.dtype));
    cpu_for(be, y.shape[0], glu_task, &g);
    return KD_OK;
}

static void glu_back_task(void *arg, int64_t row, int thread)
{
    const struct glu *g = arg;
    float value[GLU_PART], db[GLU_PART];

    (void)thread;
    for (int64_t c = 0; c < g->cols; c += GLU_PART) {
        int64_t n = cpu_min(GLU_PART, g->cols - c), at = 2 * row * g->cols + c;
        const float *a = g->pre + at, *b = a + g->cols, *dy = g->dy + row * g->cols + c;
        float *da = g->out + at;

        memcpy(value, a, (size_t)n * sizeof *value);
        cpu_act_row(g->act, value, NULL, NULL, n);
        for (int64_t i = 0; i < n; i++)
            db[i] = dy[i] * b[i];
        slope_row(g->act, a, db, da, n);
        for (int64_t i = 0; i < n; i++)
            da[g->cols + i] = dy[i] * value[i];
    }
}

int cpu_glu_back(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                 struct kd_tensor dy, struct kd_tensor dpre)
{
    struct glu g = {act, pre.data, dy.data, dpre.data, dy.shape[1]};

    KD_TRY(cpu_f32("glu_back", pre.dtype | dy.dtype | dpre.dtype));
    cpu_for(be, dy.shape[0], glu_back_task, &g);
    return KD_OK;
}

enum { DROP_BLOCKS = CPU_DROP / 8 };

/* kd_philox of N_BLOCKS counters at once: word I of block B in C[I][B]. */
static void philox_blocks(uint32_t k0, uint32_t k1, uint32_t c[4][DROP_BLOCKS],
                          int n_blocks)
{
    for (int round = 0; round < 10; round++) {
        for (int b = 0; b < n_blocks; b++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * c[0][b],
                     p1 = (uint64_t)0xCD9E8D57u * c[2][b];

            c[0][b] = (uint32_t)(p1 >> 32) ^ c[1][b] ^ k0;
            c[2][b] = (uint32_t)(p0 >> 32) ^ c[3][b] ^ k1;
            c[1][b] = (uint32_t)p1;
            c[3][b] = (uint32_t)p0;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

void cpu_drop_mask(const struct kd_dropout *d, uint32_t site, int64_t row, int64_t col0,
                   int64_t n, float *mask)
{
    uint32_t c[4][DROP_BLOCKS], words[4 * DROP_BLOCKS];
    uint32_t lo = (uint32_t)d->row_keys[row], hi = (uint32_t)(d->row_keys[row] >> 32),
             block0 = (uint32_t)(col0 / 8);
    uint32_t limit = (uint32_t)lrint((double)d->p * 65536.0);
    float keep = 1.0f / (1.0f - d->p);
    int n_blocks = (int)cpu_ceil_div(n, 8);

    for (int b = 0; b < n_blocks; b++) {
        c[0][b] = block0 + (uint32_t)b;
        c[1][b] = lo;
        c[2][b] = hi;
        c[3][b] = site;
    }
    philox_blocks((uint32_t)d->seed ^ (uint32_t)(d->seed >> 32), d->step, c, n_blocks);
    for (int b = 0; b < n_blocks; b++) {
        for (int i = 0; i < 4; i++)
            words[4 * b + i] = c[i][b];
    }
    for (int w = 0; w < 4 * n_blocks; w++) { /* lane 2 w is the low half of word w */
        mask[2 * w] = (words[w] & 0xffff) < limit ? 0.0f : keep;
        mask[2 * w + 1] = (words[w] >> 16) < limit ? 0.0f : keep;
    }
}

struct drop {
    const struct kd_dropout *d;
    const float *x;
    float *out;
    int64_t rows, cols;
    bool acc;
};

static void drop_row(const struct drop *p, int64_t r)
{
    float mask[CPU_DROP];

    for (int64_t c = 0; c < p->cols; c += CPU_DROP) {
        int64_t n = cpu_min(CPU_DROP, p->cols - c);
        const float *x = p->x + r * p->cols + c;
        float *out = p->out + r * p->cols + c;

        if (cpu_drops(p->d))
            cpu_drop_mask(p->d, p->d->site, r, c, n, mask);
        else
            for (int64_t i = 0; i < n; i++)
                mask[i] = 1.0f;
        if (p->acc)
            for (int64_t i = 0; i < n; i++)
                out[i] += mask[i] * x[i];
        else
            for (int64_t i = 0; i < n; i++)
                out[i] = mask[i] * x[i];
    }
}

static void drop_task(void *arg, int64_t task, int thread)
{
    const struct drop *p = arg;
    int64_t per = cpu_rows_per_task(p->cols), end = cpu_min(p->rows, (task + 1) * per);

    (void)thread;
    for (int64_t r = task * per; r < end; r++)
        drop_row(p, r);
}

int cpu_dropout(struct kd_backend *be, const struct kd_dropout *d, struct kd_tensor x,
                struct kd_tensor out, bool acc)
{
    struct drop p = {d, x.data, out.data, x.shape[0], x.shape[1], acc};

    KD_TRY(cpu_f32("dropout", x.dtype | out.dtype));
    cpu_for(be, cpu_ceil_div(p.rows, cpu_rows_per_task(p.cols)), drop_task, &p);
    return KD_OK;
}

struct cast {
    struct kd_tensor src, dst;
    int64_t n;
};

static double load_as_double(const struct kd_tensor *t, int64_t i)
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
        return 0.0;
    }
}

static void store_from_double(const struct kd_tensor *t, int64_t i, double v)
{
    switch (t->dtype) {
    case KD_F32:
        ((float *)t->data)[i] = (float)v;
        break;
    case KD_BF16:
        ((uint16_t *)t->data)[i] = kd_f32_to_bf16((float)v);
        break;
    case KD_F16:
        ((uint16_t *)t->data)[i] = kd_f32_to_f16((float)v);
        break;
    case KD_F64:
        ((double *)t->data)[i] = v;
        break;
    default:
        break;
    }
}

static void cast_task(void *arg, int64_t task, int thread)
{
    const struct cast *c = arg;
    int64_t end = cpu_min(c->n, (task + 1) * CPU_FLAT);

    (void)thread;
    for (int64_t i = task * CPU_FLAT; i < end; i++)
        store_from_double(&c->dst, i, load_as_double(&c->src, i));
}

static bool is_float(enum kd_dtype dtype)
{
    return dtype == KD_F32 || dtype == KD_BF16 || dtype == KD_F16 || dtype == KD_F64;
}

int cpu_cast(struct kd_backend *be, struct kd_tensor src, struct kd_tensor dst)
{
    struct cast c = {src, dst, kd_tensor_count(&src)};

    if (src.dtype == dst.dtype)
        return be->ops->copy(be, dst.data, src.data, kd_tensor_bytes(&src));
    if (!is_float(src.dtype) || !is_float(dst.dtype))
        return KD_FAIL(KD_EINTERNAL, "no cast from %s to %s", kd_dtype_name(src.dtype),
                       kd_dtype_name(dst.dtype));
    cpu_for(be, cpu_ceil_div(c.n, CPU_FLAT), cast_task, &c);
    return KD_OK;
}
