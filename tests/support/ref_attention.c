/* SPDX-License-Identifier: Apache-2.0 */
/* Reference backend: attention, its gradient, and attention over a cache.
 *
 * One query row and head at a time; probabilities are made from scratch in float64, so
 * the backward does not even read the log-sum-exp of the forward. */
#include "ref_backend.h"

#include <math.h>
#include <stdlib.h>

/* A query row of one head and the keys it may see. */
struct query {
    const struct kd_attention *a;
    int64_t row, pos, head, kv_head, first_key, n_keys;
    double *p, *m; /* [n_keys] probabilities, dropout factors */
};

static const float *vec(const struct kd_mat *m, int64_t row, int64_t head, int64_t hd)
{
    return (const float *)m->data + row * m->ld + head * hd;
}

static float *out_vec(const struct kd_mat *m, int64_t row, int64_t head, int64_t hd)
{
    return (float *)m->data + row * m->ld + head * hd;
}

static double dot(const float *x, const float *y, int64_t n)
{
    double sum = 0.0;

    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * y[i];
    return sum;
}

/* Index of the bias of a key DISTANCE after the query. */
static int64_t bias_index(const struct kd_distance_bias *b, int64_t distance,
                          int64_t n_heads, int64_t head)
{
    return (b->zero + distance) * n_heads + head;
}

static double bias_at(const struct kd_distance_bias *b, int64_t distance,
                      int64_t n_heads, int64_t head)
{
    const float *table = b->table.data;

    return table ? (double)table[bias_index(b, distance, n_heads, head)] : 0.0;
}

/* Softmax of Q's scaled scores into q->p; returns the log-sum-exp. */
static double probabilities(struct query *q)
{
    const struct kd_attention *a = q->a;
    struct kd_dropout drop = a->dropout;
    double max = -INFINITY, sum = 0.0;

    drop.site += (uint32_t)q->head << 20;
    for (int64_t j = 0; j < q->n_keys; j++) {
        q->p[j] = (double)a->scale *
                      dot(vec(&a->q, q->row, q->head, a->head_dim),
                          vec(&a->k, q->first_key + j, q->kv_head, a->head_dim),
                          a->head_dim) +
                  bias_at(&a->bias, j - q->pos, a->n_heads, q->head);
        q->m[j] = ref_dropout_factor(&drop, q->row, j);
        max = fmax(max, q->p[j]);
    }
    for (int64_t j = 0; j < q->n_keys; j++)
        sum += exp(q->p[j] - max);
    for (int64_t j = 0; j < q->n_keys; j++)
        q->p[j] = exp(q->p[j] - max) / sum;
    return max + log(sum);
}

static void forward(struct query *q, void *arg)
{
    const struct kd_attention *a = q->a;
    float *out = out_vec(&a->out, q->row, q->head, a->head_dim);
    double lse = probabilities(q);

    (void)arg;
    for (int64_t c = 0; c < a->head_dim; c++) {
        double sum = 0.0;

        for (int64_t j = 0; j < q->n_keys; j++)
            sum += q->p[j] * q->m[j] *
                   vec(&a->v, q->first_key + j, q->kv_head, a->head_dim)[c];
        out[c] = (float)sum;
    }
    if (a->lse.data)
        ((float *)a->lse.data)[q->row * a->n_heads + q->head] = (float)lse;
}

struct gradients {
    struct kd_mat dout, dq, dk, dv;
    float *dbias; /* or NULL */
};

static void backward(struct query *q, void *arg)
{
    const struct gradients *g = arg;
    const struct kd_attention *a = q->a;
    int64_t hd = a->head_dim;
    const float *dout = vec(&g->dout, q->row, q->head, hd);
    const float *query = vec(&a->q, q->row, q->head, hd);
    float *dq = out_vec(&g->dq, q->row, q->head, hd);
    double mean = 0.0;

    probabilities(q);
    for (int64_t j = 0; j < q->n_keys; j++)
        mean += q->p[j] * q->m[j] *
                dot(dout, vec(&a->v, q->first_key + j, q->kv_head, hd), hd);
    for (int64_t j = 0; j < q->n_keys; j++) {
        int64_t key = q->first_key + j;
        double dp = q->m[j] * dot(dout, vec(&a->v, key, q->kv_head, hd), hd);
        double score = q->p[j] * (dp - mean), ds = score * (double)a->scale;

        if (g->dbias)
            g->dbias[bias_index(&a->bias, j - q->pos, a->n_heads, q->head)] +=
                (float)score;
        for (int64_t c = 0; c < hd; c++) {
            dq[c] += (float)(ds * vec(&a->k, key, q->kv_head, hd)[c]);
            out_vec(&g->dk, key, q->kv_head, hd)[c] += (float)(ds * query[c]);
            out_vec(&g->dv, key, q->kv_head, hd)[c] +=
                (float)(q->p[j] * q->m[j] * dout[c]);
        }
    }
}

/* Call FN for every query row and head. */
static int each_query(const struct kd_attention *a, void (*fn)(struct query *, void *),
                      void *arg)
{
    const int64_t *oq = a->q_seqs.offsets, *ok = a->kv_seqs.offsets;
    size_t bytes = sizeof(double) * (size_t)(a->kv_seqs.n_rows + 1);
    double *p = malloc(bytes), *m = malloc(bytes);

    for (int64_t s = 0; p && m && s < a->q_seqs.n; s++) {
        for (int64_t i = oq[s]; i < oq[s + 1]; i++) {
            for (int64_t h = 0; h < a->n_heads; h++) {
                int64_t pos = i - oq[s], len = ok[s + 1] - ok[s];
                struct query q = {a,
                                  i,
                                  pos,
                                  h,
                                  h * a->n_kv_heads / a->n_heads,
                                  ok[s],
                                  a->causal && pos + 1 < len ? pos + 1 : len,
                                  p,
                                  m};

                fn(&q, arg);
            }
        }
    }
    free(p);
    free(m);
    return p && m ? KD_OK : KD_FAIL(KD_ENOMEM, "reference attention: no memory");
}

int ref_attention(struct kd_backend *be, const struct kd_attention *a)
{
    (void)be;
    return each_query(a, forward, NULL);
}

static void clear(struct kd_mat m)
{
    for (int64_t r = 0; r < m.rows; r++) {
        for (int64_t c = 0; c < m.cols; c++)
            ((float *)m.data)[r * m.ld + c] = 0.0f;
    }
}

int ref_attention_back(struct kd_backend *be, const struct kd_attention *a,
                       struct kd_mat dout, struct kd_mat dq, struct kd_mat dk,
                       struct kd_mat dv, float *dbias)
{
    struct gradients g = {dout, dq, dk, dv, dbias};

    (void)be;
    clear(dq);
    clear(dk);
    clear(dv);
    return each_query(a, backward, &g);
}

static void cached_head(const struct kd_attention_cached *a, int64_t r, int64_t h,
                        double *p)
{
    int64_t len = *a->step + 1, hd = a->head_dim, kv = h * a->n_kv_heads / a->n_heads;
    const int32_t *slots = a->slots + r * a->slots_ld;
    double max = -INFINITY, sum = 0.0;

    for (int64_t t = 0; t < len; t++) {
        p[t] = (double)a->scale *
                   dot(vec(&a->q, r, h, hd), vec(&a->k, slots[t], kv, hd), hd) +
               bias_at(&a->bias, t - (len - 1), a->n_heads, h);
        max = fmax(max, p[t]);
    }
    for (int64_t t = 0; t < len; t++)
        sum += exp(p[t] - max);
    for (int64_t c = 0; c < hd; c++) {
        double x = 0.0;

        for (int64_t t = 0; t < len; t++)
            x += exp(p[t] - max) / sum * vec(&a->v, slots[t], kv, hd)[c];
        out_vec(&a->out, r, h, hd)[c] = (float)x;
    }
}

int ref_attention_cached(struct kd_backend *be, const struct kd_attention_cached *a)
{
    int64_t wk = a->n_kv_heads * a->head_dim;
    double *p = malloc(sizeof(double) * (size_t)(*a->step + 1));

    (void)be;
    if (!p)
        return KD_FAIL(KD_ENOMEM, "reference attention: no memory");
    for (int64_t r = 0; r < a->q.rows; r++) {
        int64_t slot = a->slots[r * a->slots_ld + *a->step];

        for (int64_t c = 0; c < wk; c++) {
            out_vec(&a->k, slot, 0, 0)[c] = vec(&a->k_new, r, 0, 0)[c];
            out_vec(&a->v, slot, 0, 0)[c] = vec(&a->v_new, r, 0, 0)[c];
        }
        for (int64_t h = 0; h < a->n_heads; h++)
            cached_head(a, r, h, p);
    }
    free(p);
    return KD_OK;
}
