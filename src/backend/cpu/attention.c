/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over ragged sequences, forward and backward, and over a cache.
 *
 * A task is one sequence and one head (of the queries forward, of the keys backward, so
 * that dk and dv have one owner).  Its keys and values are packed once, then blocks of
 * Q_BLOCK query rows go through: a small product, a softmax in place, a second product,
 * all in the thread's scratch.  A causal block only sees the keys up to its last row.
 * Backward makes the probabilities again from q, k and the saved log-sum-exp.  A few
 * query rows (decoding) use dot products with the keys where they lie. */
#include "cpu_impl.h"
#include "transpose.h"
#include "vecmath.h"

enum { Q_BLOCK = 48, PAD = KN_COLS, FEW_ROWS = 8 };

struct window {
    float *data;
    int64_t ld;
};

static struct window head_of(struct kd_mat m, int64_t row, int64_t head, int64_t width)
{
    return (struct window){(float *)m.data + row * m.ld + head * width, m.ld};
}

struct job {
    struct kd_backend *be;
    const struct kd_attention *a;
    struct kd_mat dout, dq, dk, dv;
    float *dbias;    /* or NULL */
    int64_t key_pad; /* longest row of keys, padded */
};

/* One sequence and head: its rows, and where its parts lie in scratch. */
struct head {
    int64_t seq, h, kv_head, q0, n_q, k0, n_k;
    int64_t ld;              /* of scores, and of the transposed k and v: n_k padded */
    float *scores, *dscores; /* [Q_BLOCK, ld] */
    float *kt, *vt;          /* [hd, ld] */
    float *k, *v;            /* [n_k, hd] */
    float *q, *dout;         /* [Q_BLOCK, hd] */
    float *bias;             /* [distances] of head h; NULL: none */
    float *dbias;            /* [distances] of this sequence and head; NULL: none */
};

static int64_t padded(int64_t n)
{
    return cpu_ceil_div(n, PAD) * PAD;
}

static int64_t distances(const struct kd_attention *a)
{
    return a->bias.table.data ? a->bias.table.shape[0] : 0;
}

/* Floats of scratch that head_layout uses. */
static int64_t head_floats(const struct kd_attention *a, int64_t key_pad)
{
    return 2 * Q_BLOCK * key_pad + 4 * a->head_dim * key_pad +
           2 * Q_BLOCK * a->head_dim + distances(a);
}

static struct head head_layout(const struct job *j, int64_t seq, int64_t h,
                               int64_t kv_head, int thread)
{
    const struct kd_attention *a = j->a;
    int64_t hd = a->head_dim;
    struct head s = {.seq = seq, .h = h, .kv_head = kv_head};
    float *p = cpu_thread_scratch(j->be, thread);

    s.q0 = a->q_seqs.offsets[seq];
    s.n_q = a->q_seqs.offsets[seq + 1] - s.q0;
    s.k0 = a->kv_seqs.offsets[seq];
    s.n_k = a->kv_seqs.offsets[seq + 1] - s.k0;
    s.ld = padded(s.n_k);
    s.scores = p;
    s.dscores = p += Q_BLOCK * j->key_pad;
    s.kt = p += Q_BLOCK * j->key_pad;
    s.vt = p += hd * j->key_pad;
    s.k = p += hd * j->key_pad;
    s.v = p += hd * j->key_pad;
    s.q = p += hd * j->key_pad;
    s.dout = p += Q_BLOCK * hd;
    s.bias = a->bias.table.data ? p + Q_BLOCK * hd : NULL;
    return s;
}

/* Head s->h's column of the table of distances, of which a sequence sees [*FIRST,
 * *END). */
static void seen_distances(const struct kd_attention *a, const struct head *s,
                           int64_t *first, int64_t *end)
{
    *first = a->bias.zero - s->n_q + 1;
    *end = a->causal ? a->bias.zero + 1 : a->bias.zero + s->n_k;
}

static void pack_bias(const struct kd_attention *a, const struct head *s)
{
    const float *table = a->bias.table.data;
    int64_t first, end;

    if (!s->bias || s->n_q == 0)
        return;
    seen_distances(a, s, &first, &end);
    for (int64_t i = first; i < end; i++)
        s->bias[i] = table[i * a->n_heads + s->h];
}

/* Scores P[n] of query POS plus the bias of their distances. */
static void add_bias(const struct kd_attention *a, const struct head *s, int64_t pos,
                     float *p, int64_t n)
{
    const float *bias;

    if (!s->bias)
        return;
    bias = s->bias + a->bias.zero - pos;
    for (int64_t c = 0; c < n; c++)
        p[c] += bias[c];
}

static void pack_rows(float *dst, struct window src, int64_t rows, int64_t width)
{
    for (int64_t r = 0; r < rows; r++)
        memcpy(dst + r * width, src.data + r * src.ld, (size_t)width * sizeof(float));
}

/* P[n] times the dropout mask of query row ROW under head HEAD. */
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

static void prefetch_floats(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i += 16)
        __builtin_prefetch(x + i);
}

/* Scores of ROWS (constant) rows Q with all keys K: as many keys at a time as make a
 * vector of scores, whose sums are taken together.  Keys lie far apart: the next ones,
 * and the values V of these, are on their way meanwhile. */
KN_INLINE void few_rows_scores(int rows, struct window q, struct window k,
                               struct window v, int64_t n_k, int64_t hd, float scale,
                               float *out, int64_t ld)
{
    int keys = KN_WIDTH / rows;
    int64_t t = 0;

    for (; t + keys <= n_k && hd % KN_WIDTH == 0; t += keys) {
        const float *x = k.data + t * k.ld;
        kn_vec acc[KN_WIDTH];
        float sums[KN_WIDTH];

        for (int i = 0; i < keys; i++) {
            prefetch_floats(x + (keys + i) * k.ld, hd);
            prefetch_floats(v.data + (t + i) * v.ld, hd);
        }
        for (int i = 0; i < KN_WIDTH; i++)
            acc[i] = (kn_vec){0};
        for (int64_t c = 0; c < hd; c += KN_WIDTH) {
            for (int i = 0; i < KN_WIDTH; i++)
                acc[i] = kn_fma(kn_load(q.data + i / keys * q.ld + c),
                                kn_load(x + i % keys * k.ld + c), acc[i]);
        }
        kn_store(sums, scale * kn_sums(acc));
        for (int r = 0; r < rows; r++)
            memcpy(out + r * ld + t, sums + r * keys, (size_t)keys * sizeof *out);
    }
    for (; t < n_k; t++)
        kn_dots(rows, q.data, q.ld, k.data + t * k.ld, hd, scale, out + t, ld);
}

/* Scores of all rows, FEW_ROWS at most, from the keys where they lie. */
static void few_scores(const struct kd_attention *a, const struct head *s)
{
    int64_t hd = a->head_dim, r = 0;
    struct window q = head_of(a->q, s->q0, s->h, hd),
                  k = head_of(a->k, s->k0, s->kv_head, hd),
                  v = head_of(a->v, s->k0, s->kv_head, hd);
    float *out = s->scores;

    for (; r + 4 <= s->n_q; r += 4, q.data += 4 * q.ld, out += 4 * s->ld)
        few_rows_scores(4, q, k, v, s->n_k, hd, a->scale, out, s->ld);
    for (; r < s->n_q; r++, q.data += q.ld, out += s->ld)
        few_rows_scores(1, q, k, v, s->n_k, hd, a->scale, out, s->ld);
}

/* Softmax and dropout of the scores of rows [FIRST, FIRST + N) over N_KEYS columns, and
 * their sums into SUMS. */
static void softmax_rows(const struct kd_attention *a, const struct head *s,
                         int64_t first, int64_t n, int64_t n_keys, float *sums)
{
    for (int64_t i = 0; i < n; i++) {
        float *row = s->scores + i * s->ld, top = -INFINITY;
        int64_t pos = first + i, seen = keys_of(a, pos, s->n_k);

        add_bias(a, s, pos, row, seen);
        sums[i] = seen > 0 ? exp_row(row, seen, &top) : 0.0f;
        for (int64_t c = seen; c < n_keys; c++)
            row[c] = 0.0f;
        if (a->lse.data)
            ((float *)a->lse.data)[(s->q0 + pos) * a->n_heads + s->h] =
                top + logf(sums[i]);
        if (cpu_drops(&a->dropout))
            drop_probabilities(&a->dropout, s->q0 + pos, s->h, row, seen);
    }
}

/* One block of query rows, the keys packed unless they are read in place (FEW). */
static void attention_block(const struct kd_attention *a, const struct head *s,
                            int64_t first, bool few)
{
    int64_t hd = a->head_dim, n = cpu_min(Q_BLOCK, s->n_q - first),
            n_keys = keys_of(a, first + n - 1, s->n_k);
    struct window q = head_of(a->q, s->q0 + first, s->h, hd),
                  v = head_of(a->v, s->k0, s->kv_head, hd),
                  out = head_of(a->out, s->q0 + first, s->h, hd);
    float sums[Q_BLOCK];

    if (few)
        few_scores(a, s);
    else
        kn_product(n, padded(n_keys), hd, (struct kn_mat){q.data, q.ld, 1}, s->kt,
                   s->ld, (struct kn_out){s->scores, s->ld, a->scale, false});
    softmax_rows(a, s, first, n, n_keys, sums);
    kn_product(n, hd, n_keys, (struct kn_mat){s->scores, s->ld, 1}, few ? v.data : s->v,
               few ? v.ld : hd, (struct kn_out){out.data, out.ld, 1.0f, false});
    for (int64_t i = 0; i < n; i++) {
        float *row = out.data + i * out.ld, scale = n_keys > 0 ? 1.0f / sums[i] : 0.0f;

        for (int64_t c = 0; c < hd; c++)
            row[c] *= scale;
    }
}

static void attention_task(void *arg, int64_t task, int thread)
{
    const struct job *j = arg;
    const struct kd_attention *a = j->a;
    int64_t h = task % a->n_heads;
    struct head s =
        head_layout(j, task / a->n_heads, h, h * a->n_kv_heads / a->n_heads, thread);
    bool few = s.n_q <= FEW_ROWS;

    pack_bias(a, &s);
    if (!few) {
        struct window k = head_of(a->k, s.k0, s.kv_head, a->head_dim);

        kn_pack_transposed(s.kt, s.ld, k.data, k.ld, s.n_k, a->head_dim);
        pack_rows(s.v, head_of(a->v, s.k0, s.kv_head, a->head_dim), s.n_k, a->head_dim);
    }
    for (int64_t first = 0; first < s.n_q; first += Q_BLOCK)
        attention_block(a, &s, first, few);
}

int cpu_attention(struct kd_backend *be, const struct kd_attention *a)
{
    struct job j = {.be = be, .a = a, .key_pad = padded(a->kv_seqs.max_len)};

    KD_TRY(cpu_f32("attention", a->q.dtype | a->k.dtype | a->v.dtype | a->out.dtype));
    KD_TRY(cpu_scratch(be, (size_t)head_floats(a, j.key_pad) * sizeof(float), 0));
    cpu_for(be, a->q_seqs.n * a->n_heads, attention_task, &j);
    return KD_OK;
}

/* One row of a block, N keys seen: P = probabilities after dropout (for dv), DP =
 * gradient of the scores before the scale. */
static void back_row(const struct kd_attention *a, const struct head *s, int64_t pos,
                     float dot, float *p, float *dp, int64_t n)
{
    int64_t row = s->q0 + pos;
    float lse = ((const float *)a->lse.data)[row * a->n_heads + s->h], mask[CPU_DROP];

    if (!cpu_drops(&a->dropout)) {
        for (int64_t c = 0; c < n; c++) {
            p[c] = vm_exp(p[c] - lse);
            dp[c] = p[c] * (dp[c] - dot);
        }
        return;
    }
    for (int64_t c0 = 0; c0 < n; c0 += CPU_DROP) {
        int64_t width = cpu_min(CPU_DROP, n - c0);

        cpu_drop_mask(&a->dropout, a->dropout.site + ((uint32_t)s->h << 20), row, c0,
                      width, mask);
        for (int64_t c = 0; c < width; c++) {
            float e = vm_exp(p[c0 + c] - lse);

            p[c0 + c] = e * mask[c];
            dp[c0 + c] = e * (mask[c] * dp[c0 + c] - dot);
        }
    }
}

static void back_rows(const struct job *j, const struct head *s, int64_t first,
                      int64_t n, int64_t n_keys)
{
    const struct kd_attention *a = j->a;
    int64_t hd = a->head_dim;

    for (int64_t i = 0; i < n; i++) {
        int64_t pos = first + i, seen = keys_of(a, pos, s->n_k);
        float *p = s->scores + i * s->ld, *dp = s->dscores + i * s->ld, dot;

        /* sum_keys p dp = out . dout, whatever was dropped */
        kn_dots(1, head_of(a->out, s->q0 + pos, s->h, hd).data, hd, s->dout + i * hd,
                hd, 1.0f, &dot, 1);
        add_bias(a, s, pos, p, seen);
        back_row(a, s, pos, dot, p, dp, seen);
        for (int64_t c = 0; s->dbias && c < seen; c++)
            s->dbias[a->bias.zero - pos + c] += dp[c];
        for (int64_t c = seen; c < n_keys; c++)
            p[c] = dp[c] = 0.0f;
    }
}

/* Query rows [FIRST, ...): ADD says whether dk and dv hold earlier contributions. */
static void back_block(const struct job *j, const struct head *s, int64_t first,
                       bool add)
{
    const struct kd_attention *a = j->a;
    int64_t hd = a->head_dim, n = cpu_min(Q_BLOCK, s->n_q - first),
            n_keys = keys_of(a, first + n - 1, s->n_k);
    struct window dq = head_of(j->dq, s->q0 + first, s->h, hd),
                  dk = head_of(j->dk, s->k0, s->kv_head, hd),
                  dv = head_of(j->dv, s->k0, s->kv_head, hd);

    pack_rows(s->q, head_of(a->q, s->q0 + first, s->h, hd), n, hd);
    pack_rows(s->dout, head_of(j->dout, s->q0 + first, s->h, hd), n, hd);
    kn_product(n, padded(n_keys), hd, (struct kn_mat){s->q, hd, 1}, s->kt, s->ld,
               (struct kn_out){s->scores, s->ld, a->scale, false});
    kn_product(n, padded(n_keys), hd, (struct kn_mat){s->dout, hd, 1}, s->vt, s->ld,
               (struct kn_out){s->dscores, s->ld, 1.0f, false});
    back_rows(j, s, first, n, n_keys);
    kn_product(n_keys, hd, n, (struct kn_mat){s->scores, 1, s->ld}, s->dout, hd,
               (struct kn_out){dv.data, dv.ld, 1.0f, add});
    kn_product(n_keys, hd, n, (struct kn_mat){s->dscores, 1, s->ld}, s->q, hd,
               (struct kn_out){dk.data, dk.ld, a->scale, add});
    kn_product(n, hd, n_keys, (struct kn_mat){s->dscores, s->ld, 1}, s->k, hd,
               (struct kn_out){dq.data, dq.ld, a->scale, false});
}

static void zero_rows(struct window w, int64_t first, int64_t end, int64_t width)
{
    for (int64_t r = first; r < end; r++)
        memset(w.data + r * w.ld, 0, (size_t)width * sizeof(float));
}

/* The gradient of the bias, of one sequence and head, begins at zero. */
static void begin_dbias(const struct job *j, struct head *s)
{
    const struct kd_attention *a = j->a;
    int64_t first, end;

    s->dbias = NULL;
    if (!j->dbias || s->n_q == 0)
        return;
    s->dbias = (float *)cpu_shared_scratch(j->be) +
               (s->seq * a->n_heads + s->h) * distances(a);
    seen_distances(a, s, &first, &end);
    memset(s->dbias + first, 0, (size_t)(end - first) * sizeof *s->dbias);
}

/* Head TASK: the sequences' parts in their order. */
static void dbias_task(void *arg, int64_t task, int thread)
{
    const struct job *j = arg;
    const struct kd_attention *a = j->a;

    for (int64_t seq = 0; seq < a->q_seqs.n; seq++) {
        struct head s = head_layout(j, seq, task, 0, thread);
        const float *part = (float *)cpu_shared_scratch(j->be) +
                            (seq * a->n_heads + task) * distances(a);
        int64_t first, end;

        seen_distances(a, &s, &first, &end);
        for (int64_t i = first; s.n_q > 0 && i < end; i++)
            j->dbias[i * a->n_heads + task] += part[i];
    }
}

/* One sequence, one head of keys and the heads of queries that share it.  Query blocks
 * run from the last to the first, since the last one sees the most keys and can
 * overwrite dk and dv. */
static void attention_back_task(void *arg, int64_t task, int thread)
{
    const struct job *j = arg;
    const struct kd_attention *a = j->a;
    int64_t kv_head = task % a->n_kv_heads, group = a->n_heads / a->n_kv_heads,
            first_head = kv_head * group, hd = a->head_dim;
    struct head s = head_layout(j, task / a->n_kv_heads, first_head, kv_head, thread);
    int64_t seen = s.n_q > 0 ? keys_of(a, s.n_q - 1, s.n_k) : 0;
    struct window k = head_of(a->k, s.k0, kv_head, hd),
                  v = head_of(a->v, s.k0, kv_head, hd);

    zero_rows(head_of(j->dk, s.k0, kv_head, hd), seen, s.n_k, hd);
    zero_rows(head_of(j->dv, s.k0, kv_head, hd), seen, s.n_k, hd);
    kn_pack_transposed(s.kt, s.ld, k.data, k.ld, seen, hd);
    kn_pack_transposed(s.vt, s.ld, v.data, v.ld, seen, hd);
    pack_rows(s.k, k, seen, hd);
    for (s.h = first_head; s.h < first_head + group; s.h++) {
        pack_bias(a, &s);
        begin_dbias(j, &s);
        for (int64_t first = (s.n_q - 1) / Q_BLOCK * Q_BLOCK; first >= 0;
             first -= Q_BLOCK)
            back_block(j, &s, first, s.h > first_head || first + Q_BLOCK < s.n_q);
    }
}

int cpu_attention_back(struct kd_backend *be, const struct kd_attention *a,
                       struct kd_mat dout, struct kd_mat dq, struct kd_mat dk,
                       struct kd_mat dv, float *dbias)
{
    int64_t parts = dbias ? a->q_seqs.n * a->n_heads * distances(a) : 0;
    struct job j = {.be = be,
                    .a = a,
                    .dout = dout,
                    .dq = dq,
                    .dk = dk,
                    .dv = dv,
                    .dbias = dbias,
                    .key_pad = padded(a->kv_seqs.max_len)};

    KD_TRY(cpu_f32("attention_back", dout.dtype | dq.dtype | dk.dtype | dv.dtype));
    KD_TRY(cpu_scratch(be, (size_t)head_floats(a, j.key_pad) * sizeof(float),
                       (size_t)parts * sizeof(float)));
    cpu_for(be, a->q_seqs.n * a->n_kv_heads, attention_back_task, &j);
    if (dbias)
        cpu_for(be, a->n_heads, dbias_task, &j);
    return KD_OK;
}

struct cached {
    struct kd_backend *be;
    const struct kd_attention_cached *a;
};

enum { CACHED_ROWS = 4, CACHED_VECS = 4 };

static void prefetch_row(struct kd_mat m, int64_t row)
{
    prefetch_floats((const float *)m.data + row * m.ld, m.cols);
}

/* OUT[VECS vectors] = sum_t P[t] V_t */
KN_INLINE void cached_values(int vecs, const struct kd_attention_cached *a, int64_t n,
                             const int32_t *slots, const float *v, const float *p,
                             float *out)
{
    kn_vec acc[CACHED_VECS];

    for (int i = 0; i < vecs; i++)
        acc[i] = (kn_vec){0};
    for (int64_t t = 0; t < n; t++) {
        const float *x = v + slots[t] * a->v.ld;

        for (int i = 0; i < vecs; i++)
            acc[i] += p[t] * kn_load(x + i * KN_WIDTH);
    }
    for (int i = 0; i < vecs; i++)
        kn_store(out + i * KN_WIDTH, acc[i]);
}

/* The new keys and values of row R go to its slot of this step. */
static void cached_append(const struct kd_attention_cached *a, int64_t r)
{
    int64_t slot = a->slots[r * a->slots_ld + *a->step];
    size_t bytes = (size_t)(a->n_kv_heads * a->head_dim) * sizeof(float);

    memcpy((float *)a->k.data + slot * a->k.ld,
           (const float *)a->k_new.data + r * a->k_new.ld, bytes);
    memcpy((float *)a->v.data + slot * a->v.ld,
           (const float *)a->v_new.data + r * a->v_new.ld, bytes);
}

/* Row R, all heads; HD may be a constant.  For the scores time is the outer loop: a key
 * is one row of all heads, somewhere in the cache, best read at one go; rows of values
 * are on their way meanwhile.  P is scratch [H, len]. */
KN_INLINE void cached_row(const struct kd_attention_cached *a, int64_t r, float *p,
                          int64_t hd)
{
    int64_t n = *a->step + 1, group = a->n_heads / a->n_kv_heads;
    const int32_t *slots = a->slots + r * a->slots_ld;
    const float *q = head_of(a->q, r, 0, hd).data, *bias = a->bias.table.data;

    if (bias) /* key t lies n - 1 - t before the query */
        bias += (a->bias.zero - (n - 1)) * a->n_heads;
    for (int64_t t = 0; t < n; t++) {
        const float *k = head_of(a->k, slots[t], 0, hd).data;

        prefetch_row(a->k, slots[cpu_min(t + 2, n - 1)]);
        prefetch_row(a->v, slots[t]);
        for (int64_t h = 0; h < a->n_heads; h += group, k += hd) {
            for (int64_t i = h; i < h + group; i++)
                kn_dots(1, q + i * hd, 0, k, hd, a->scale, p + i * n + t, 1);
        }
    }
    for (int64_t h = 0; h < a->n_heads; h++) {
        const float *v = head_of(a->v, 0, h / group, hd).data;
        float *out = head_of(a->out, r, h, hd).data, *w = p + h * n, top, scale;
        int64_t c = 0;

        if (bias) {
            for (int64_t t = 0; t < n; t++)
                w[t] += bias[t * a->n_heads + h];
        }
        scale = 1.0f / exp_row(w, n, &top);
        for (int64_t t = 0; t < n; t++)
            w[t] *= scale;
        for (; c + CACHED_VECS * KN_WIDTH <= hd; c += CACHED_VECS * KN_WIDTH)
            cached_values(CACHED_VECS, a, n, slots, v + c, w, out + c);
        for (; c + KN_WIDTH <= hd; c += KN_WIDTH)
            cached_values(1, a, n, slots, v + c, w, out + c);
        for (; c < hd; c++) {
            out[c] = 0.0f;
            for (int64_t t = 0; t < n; t++)
                out[c] += w[t] * v[slots[t] * a->v.ld + c];
        }
    }
}

static void cached_task(void *arg, int64_t task, int thread)
{
    const struct cached *j = arg;
    int64_t end = cpu_min(j->a->q.rows, (task + 1) * CACHED_ROWS);

    for (int64_t r = task * CACHED_ROWS; r < end; r++) {
        float *p = cpu_thread_scratch(j->be, thread);

        cached_append(j->a, r);
        if (j->a->head_dim == 64)
            cached_row(j->a, r, p, 64);
        else
            cached_row(j->a, r, p, j->a->head_dim);
    }
}

int cpu_attention_cached(struct kd_backend *be, const struct kd_attention_cached *a)
{
    struct cached j = {be, a};

    KD_TRY(cpu_f32("attention_cached", a->q.dtype | a->k.dtype | a->v.dtype |
                                           a->k_new.dtype | a->v_new.dtype |
                                           a->out.dtype));
    KD_TRY(cpu_scratch(be, (size_t)(a->n_heads * (*a->step + 1)) * sizeof(float), 0));
    cpu_for(be, cpu_ceil_div(a->q.rows, CACHED_ROWS), cached_task, &j);
    return KD_OK;
}
