/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over ragged sequences, forward and backward, and over a cache.
 *
 * A task is a block of query rows of one sequence and one head (forward), or one
 * sequence and one head of keys (backward, so that dk and dv have one owner).  Scores
 * of a block [rows, keys] live in the thread's scratch: a small product, a softmax in
 * place, a second product.  A causal block only sees the keys up to its last row.
 * Backward makes the probabilities again from q, k and the saved log-sum-exp. */
#include "cpu_impl.h"
#include "vecmath.h"

#include <cblas.h>

enum { Q_BLOCK = 64, PAD = 16 };

struct window {
    float *data;
    int64_t ld;
};

static struct window head_of(struct kd_mat m, int64_t row, int64_t head, int64_t width)
{
    return (struct window){(float *)m.data + row * m.ld + head * width, m.ld};
}

/* C [m, n] = alpha op(A) op(B) + beta C */
static void product(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k,
                    float alpha, struct window a, struct window b, float beta,
                    struct window c)
{
    cblas_sgemm(CblasRowMajor, trans_a ? CblasTrans : CblasNoTrans,
                trans_b ? CblasTrans : CblasNoTrans, (blasint)m, (blasint)n, (blasint)k,
                alpha, a.data, (blasint)a.ld, b.data, (blasint)b.ld, beta, c.data,
                (blasint)c.ld);
}

/* A block of query rows of one sequence. */
struct block {
    int64_t seq, first; /* first row, counted from the sequence's start */
};

struct job {
    struct kd_backend *be;
    const struct kd_attention *a;
    struct kd_mat dout, dq, dk, dv;
    const struct block *blocks; /* forward only */
    int64_t scores;             /* floats of one [Q_BLOCK, keys] matrix */
};

/* MASK[n] (in chunks) times P[n]: the dropout of query row ROW under head HEAD. */
static void drop_probabilities(const struct kd_dropout *d, int64_t row, int64_t head,
                               float *p, int64_t n)
{
    uint32_t site = d->site + ((uint32_t)head << 20);
    float mask[CPU_DROP];

    for (int64_t c0 = 0; c0 < n; c0 += CPU_DROP) {
        int64_t width = cpu_min(CPU_DROP, n - c0);

        cpu_drop_mask(d, site, row, c0, width, mask);
        for (int64_t c = 0; c < width; c++)
            p[c0 + c] *= mask[c];
    }
}

/* P[n] = exp(p - max) in place; the sum, and the maximum in *TOP. */
static float exp_row(float *p, int64_t n, float *top)
{
    float m = vm_max(p, n), sum = 0.0f;

#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < n; c++) {
        p[c] = vm_exp(p[c] - m);
        sum += p[c];
    }
    *top = m;
    return sum;
}

/* Keys that row POS of the sequence sees. */
static int64_t keys_of(const struct kd_attention *a, int64_t pos, int64_t n_keys)
{
    return a->causal ? cpu_min(pos + 1, n_keys) : n_keys;
}

static void attention_task(void *arg, int64_t task, int thread)
{
    const struct job *j = arg;
    const struct kd_attention *a = j->a;
    struct block b = j->blocks[task / a->n_heads];
    int64_t h = task % a->n_heads, hk = h * a->n_kv_heads / a->n_heads,
            hd = a->head_dim;
    int64_t q0 = a->q_seqs.offsets[b.seq], k0 = a->kv_seqs.offsets[b.seq];
    int64_t n_q = cpu_min(Q_BLOCK, a->q_seqs.offsets[b.seq + 1] - q0 - b.first);
    int64_t all_keys = a->kv_seqs.offsets[b.seq + 1] - k0,
            n_keys = keys_of(a, b.first + n_q - 1, all_keys);
    struct window p = {cpu_thread_scratch(j->be, thread),
                       cpu_ceil_div(n_keys, PAD) * PAD};
    struct window out = head_of(a->out, q0 + b.first, h, hd);
    float sums[Q_BLOCK];

    if (n_keys > 0)
        product(false, true, n_q, n_keys, hd, a->scale,
                head_of(a->q, q0 + b.first, h, hd), head_of(a->k, k0, hk, hd), 0.0f, p);
    for (int64_t i = 0; i < n_q; i++) {
        float *row = p.data + i * p.ld, top = -INFINITY;
        int64_t pos = b.first + i, n = keys_of(a, pos, all_keys);

        sums[i] = n > 0 ? exp_row(row, n, &top) : 0.0f;
        for (int64_t c = n; c < n_keys; c++)
            row[c] = 0.0f;
        if (a->lse.data)
            ((float *)a->lse.data)[(q0 + pos) * a->n_heads + h] = top + logf(sums[i]);
        if (cpu_drops(&a->dropout))
            drop_probabilities(&a->dropout, q0 + pos, h, row, n);
    }
    if (n_keys > 0)
        product(false, false, n_q, hd, n_keys, 1.0f, p, head_of(a->v, k0, hk, hd), 0.0f,
                out);
    for (int64_t i = 0; i < n_q; i++) {
        float *row = out.data + i * out.ld, scale = n_keys > 0 ? 1.0f / sums[i] : 0.0f;

        for (int64_t c = 0; c < hd; c++)
            row[c] = n_keys > 0 ? row[c] * scale : 0.0f;
    }
}

static int64_t score_floats(const struct kd_attention *a)
{
    return Q_BLOCK * (cpu_ceil_div(a->kv_seqs.max_len, PAD) * PAD + PAD);
}

int cpu_attention(struct kd_backend *be, const struct kd_attention *a)
{
    struct job j = {.be = be, .a = a, .scores = score_floats(a)};
    int64_t most = a->q_seqs.n_rows / Q_BLOCK + a->q_seqs.n, n = 0;
    struct block *blocks;

    KD_TRY(cpu_scratch(be, (size_t)j.scores * sizeof(float),
                       (size_t)most * sizeof(struct block)));
    blocks = cpu_shared_scratch(be);
    for (int64_t s = 0; s < a->q_seqs.n; s++) {
        int64_t len = a->q_seqs.offsets[s + 1] - a->q_seqs.offsets[s];

        for (int64_t first = 0; first < len; first += Q_BLOCK)
            blocks[n++] = (struct block){s, first};
    }
    j.blocks = blocks;
    cpu_for(be, n * a->n_heads, attention_task, &j);
    return KD_OK;
}

/* One query block of the backward pass under one head. */
struct back_block {
    int64_t seq, head, kv_head, first, n_q, n_keys, all_keys;
    struct window p, dp; /* [n_q, n_keys] each: probabilities, and their gradients */
    bool only;           /* the first contribution to dk and dv */
};

/* p = probabilities (after dropout, for dv), dp = gradient of the unscaled scores. */
static void back_scores(const struct job *j, const struct back_block *b)
{
    const struct kd_attention *a = j->a;
    int64_t hd = a->head_dim, q0 = a->q_seqs.offsets[b->seq];

    for (int64_t i = 0; i < b->n_q; i++) {
        int64_t pos = b->first + i, n = keys_of(a, pos, b->all_keys);
        const float *out = head_of(a->out, q0 + pos, b->head, hd).data,
                    *dout = head_of(j->dout, q0 + pos, b->head, hd).data;
        float *p = b->p.data + i * b->p.ld, *dp = b->dp.data + i * b->dp.ld;
        float lse = ((const float *)a->lse.data)[(q0 + pos) * a->n_heads + b->head];
        float dot = 0.0f, mask[CPU_DROP];

#pragma omp simd reduction(+ : dot)
        for (int64_t c = 0; c < hd; c++)
            dot += out[c] * dout[c];
        if (!cpu_drops(&a->dropout)) {
            for (int64_t c = 0; c < n; c++) {
                p[c] = vm_exp(p[c] - lse);
                dp[c] = p[c] * (dp[c] - dot) * a->scale;
            }
        }
        for (int64_t c0 = 0; cpu_drops(&a->dropout) && c0 < n; c0 += CPU_DROP) {
            int64_t width = cpu_min(CPU_DROP, n - c0);

            cpu_drop_mask(&a->dropout, a->dropout.site + ((uint32_t)b->head << 20),
                          q0 + pos, c0, width, mask);
            for (int64_t c = 0; c < width; c++) {
                float e = vm_exp(p[c0 + c] - lse);

                p[c0 + c] = e * mask[c];
                dp[c0 + c] = e * (mask[c] * dp[c0 + c] - dot) * a->scale;
            }
        }
        for (int64_t c = n; c < b->n_keys; c++)
            p[c] = dp[c] = 0.0f;
    }
}

static void back_block(const struct job *j, const struct back_block *b)
{
    const struct kd_attention *a = j->a;
    int64_t hd = a->head_dim, q0 = a->q_seqs.offsets[b->seq] + b->first,
            k0 = a->kv_seqs.offsets[b->seq], n_q = b->n_q, n_keys = b->n_keys;
    struct window q = head_of(a->q, q0, b->head, hd),
                  k = head_of(a->k, k0, b->kv_head, hd),
                  v = head_of(a->v, k0, b->kv_head, hd),
                  dout = head_of(j->dout, q0, b->head, hd),
                  dq = head_of(j->dq, q0, b->head, hd),
                  dk = head_of(j->dk, k0, b->kv_head, hd),
                  dv = head_of(j->dv, k0, b->kv_head, hd);
    float keep = b->only ? 0.0f : 1.0f;

    product(false, true, n_q, n_keys, hd, a->scale, q, k, 0.0f, b->p);
    product(false, true, n_q, n_keys, hd, 1.0f, dout, v, 0.0f, b->dp);
    back_scores(j, b);
    product(true, false, n_keys, hd, n_q, 1.0f, b->p, dout, keep, dv);
    product(true, false, n_keys, hd, n_q, 1.0f, b->dp, q, keep, dk);
    product(false, false, n_q, hd, n_keys, 1.0f, b->dp, k, 0.0f, dq);
}

static void zero_rows(struct window w, int64_t first, int64_t end, int64_t width)
{
    for (int64_t r = first; r < end; r++)
        memset(w.data + r * w.ld, 0, (size_t)width * sizeof(float));
}

/* One sequence, one head of keys.  Query blocks run from the last to the first, since
 * the last one sees the most keys and can overwrite dk and dv. */
static void attention_back_task(void *arg, int64_t task, int thread)
{
    const struct job *j = arg;
    const struct kd_attention *a = j->a;
    int64_t seq = task / a->n_kv_heads, kv_head = task % a->n_kv_heads,
            group = a->n_heads / a->n_kv_heads, hd = a->head_dim;
    int64_t len = a->q_seqs.offsets[seq + 1] - a->q_seqs.offsets[seq],
            k0 = a->kv_seqs.offsets[seq], all_keys = a->kv_seqs.offsets[seq + 1] - k0,
            seen = len > 0 ? keys_of(a, len - 1, all_keys) : 0;
    float *scratch = cpu_thread_scratch(j->be, thread);

    zero_rows(head_of(j->dk, k0, kv_head, hd), seen, all_keys, hd);
    zero_rows(head_of(j->dv, k0, kv_head, hd), seen, all_keys, hd);
    if (seen == 0) {
        for (int64_t h = kv_head * group; h < (kv_head + 1) * group; h++)
            zero_rows(head_of(j->dq, a->q_seqs.offsets[seq], h, hd), 0, len, hd);
        return;
    }
    for (int64_t h = kv_head * group; h < (kv_head + 1) * group; h++) {
        for (int64_t first = (len - 1) / Q_BLOCK * Q_BLOCK; first >= 0;
             first -= Q_BLOCK) {
            int64_t n_q = cpu_min(Q_BLOCK, len - first),
                    n_keys = keys_of(a, first + n_q - 1, all_keys),
                    ld = cpu_ceil_div(n_keys, PAD) * PAD;
            struct back_block b = {
                .seq = seq,
                .head = h,
                .kv_head = kv_head,
                .first = first,
                .n_q = n_q,
                .n_keys = n_keys,
                .all_keys = all_keys,
                .p = {scratch, ld},
                .dp = {scratch + j->scores, ld},
                .only = h == kv_head * group && first + n_q == len,
            };

            back_block(j, &b);
        }
    }
}

int cpu_attention_back(struct kd_backend *be, const struct kd_attention *a,
                       struct kd_mat dout, struct kd_mat dq, struct kd_mat dk,
                       struct kd_mat dv)
{
    struct job j = {.be = be,
                    .a = a,
                    .dout = dout,
                    .dq = dq,
                    .dk = dk,
                    .dv = dv,
                    .scores = score_floats(a)};

    KD_TRY(cpu_scratch(be, 2 * (size_t)j.scores * sizeof(float), 0));
    cpu_for(be, a->q_seqs.n * a->n_kv_heads, attention_back_task, &j);
    return KD_OK;
}

struct cached {
    struct kd_backend *be;
    const struct kd_attention_cached *a;
};

enum { CACHED_ROWS = 4 };

/* OUT[hd] = sum_t P[t] V_t / sum P, P = exp(scores - max); HEAD of row R. */
static void cached_head(const struct kd_attention_cached *a, int64_t r, int64_t head,
                        float *p)
{
    int64_t hd = a->head_dim, kv_head = head * a->n_kv_heads / a->n_heads;
    const int32_t *slots = a->slots + r * a->slots_ld;
    const float *restrict q = head_of(a->q, r, head, hd).data;
    float *restrict out = head_of(a->out, r, head, hd).data;
    float top, scale;

    for (int64_t t = 0; t < a->len; t++) {
        const float *restrict k = head_of(a->k, slots[t], kv_head, hd).data;
        float dot = 0.0f;

#pragma omp simd reduction(+ : dot)
        for (int64_t c = 0; c < hd; c++)
            dot += q[c] * k[c];
        p[t] = dot * a->scale;
    }
    scale = 1.0f / exp_row(p, a->len, &top);
    memset(out, 0, (size_t)hd * sizeof *out);
    for (int64_t t = 0; t < a->len; t++) {
        const float *restrict v = head_of(a->v, slots[t], kv_head, hd).data;
        float weight = p[t] * scale;

        for (int64_t c = 0; c < hd; c++)
            out[c] += weight * v[c];
    }
}

static void cached_task(void *arg, int64_t task, int thread)
{
    const struct cached *j = arg;
    int64_t end = cpu_min(j->a->q.rows, (task + 1) * CACHED_ROWS);

    for (int64_t r = task * CACHED_ROWS; r < end; r++) {
        for (int64_t h = 0; h < j->a->n_heads; h++)
            cached_head(j->a, r, h, cpu_thread_scratch(j->be, thread));
    }
}

int cpu_attention_cached(struct kd_backend *be, const struct kd_attention_cached *a)
{
    struct cached j = {be, a};

    KD_TRY(cpu_scratch(be, (size_t)a->len * sizeof(float), 0));
    cpu_for(be, cpu_ceil_div(a->q.rows, CACHED_ROWS), cached_task, &j);
    return KD_OK;
}
