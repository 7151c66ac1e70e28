/* SPDX-License-Identifier: Apache-2.0 */
/* Attention forward, backward and over a cache against double precision: causal and
 * not, grouped heads, dropout, empty and long sequences, and lengths and head sizes
 * beside the sides of the tiles that backends cut them into. */
#include "op_test.h"

struct setting {
    bool causal, self;
    int64_t n_heads, n_kv_heads, head_dim;
    float p_drop;
    bool biased; /* by distance */
};

struct problem {
    struct kd_attention a;
    struct kd_mat dout, dq, dk, dv;
    float *dbias0, *dbias; /* [distances, H] before and after; NULL: no bias */
};

static double at(struct kd_mat m, int64_t r, int64_t c)
{
    return ((const float *)m.data)[r * m.ld + c];
}

static struct kd_mat window(float *data, int64_t rows, int64_t cols, int64_t first,
                            int64_t ld)
{
    return (struct kd_mat){data + (rows ? first : 0), KD_F32, rows, cols, ld};
}

/* Columns of NaN behind the windows of a matrix, not to be read or written: packed rows
 * for heads of whole packs, else rows that begin anywhere. */
static int64_t pad_of(int64_t head_dim)
{
    return head_dim % 8 ? 3 : 8;
}

/* [rows, COLS + PAD] normal numbers. */
static float *padded_normal(int64_t rows, int64_t cols, int64_t pad)
{
    float *x = ot_normal(rows * (cols + pad), 1.0);

    for (int64_t i = 0; i < rows * pad; i++)
        x[i / pad * (cols + pad) + cols + i % pad] = NAN;
    return x;
}

/* The columns behind the windows of M and others before it are as they were. */
static void check_pad(struct kd_mat m, int64_t head_dim)
{
    int64_t pad = pad_of(head_dim);

    for (int64_t i = 0; i < m.rows * pad; i++)
        assert_true(isnan(at(m, i / pad, m.cols + i % pad)));
}

/* Entries [FIRST, END) of a table for N_HEADS become NaN: nobody has those distances.
 */
static void spare(float *table, int64_t first, int64_t end, int64_t n_heads)
{
    for (int64_t i = first * n_heads; i < end * n_heads; i++)
        table[i] = NAN;
}

/* A table with a few distances to spare on either side. */
static void add_table(struct problem *p)
{
    struct kd_attention *a = &p->a;
    int64_t n = a->q_seqs.max_len + a->kv_seqs.max_len + 5,
            zero = a->q_seqs.max_len + 2;
    struct kd_tensor t =
        kd_tensor2(ot_normal(n * a->n_heads, 1.0), KD_F32, n, a->n_heads);

    spare(t.data, 0, zero - a->q_seqs.max_len + 1, a->n_heads);
    spare(t.data, zero + (a->causal ? 1 : a->kv_seqs.max_len), n, a->n_heads);
    a->bias = (struct kd_distance_bias){t, zero};
    p->dbias0 = ot_normal(n * a->n_heads, 1.0);
    p->dbias = ot_copy(p->dbias0, n * a->n_heads);
}

/* What the table adds to the score of a key DISTANCE after the query. */
static double bias_of(const struct kd_distance_bias *b, int64_t distance, int64_t h)
{
    int64_t i = (b->zero + distance) * b->table.shape[1] + h;

    return b->table.data ? (double)((const float *)b->table.data)[i] : 0.0;
}

/* q, k and v are columns of packed matrices, as the models have them. */
static struct problem make_problem(struct setting s, int64_t n, const int64_t *q_len,
                                   const int64_t *kv_len)
{
    struct problem p;
    int64_t wq = s.n_heads * s.head_dim, wk = s.n_kv_heads * s.head_dim,
            w = wq + 2 * wk, pad = pad_of(s.head_dim), ld = w + pad, ld_out = wq + pad,
            nq, nk;
    float *packed, *packed_kv, *grad, *grad_kv;

    memset(&p, 0, sizeof p);
    p.a = (struct kd_attention){.n_heads = s.n_heads,
                                .n_kv_heads = s.n_kv_heads,
                                .head_dim = s.head_dim,
                                .causal = s.causal,
                                .scale = s.head_dim > 64 ? 0.1f : 0.3f};
    p.a.q_seqs = ot_seqs(n, q_len);
    p.a.kv_seqs = ot_seqs(n, s.self ? q_len : kv_len);
    nq = p.a.q_seqs.n_rows;
    nk = p.a.kv_seqs.n_rows;
    packed = padded_normal(nq, w, pad);
    packed_kv = s.self ? packed : padded_normal(nk, w, pad);
    grad = ot_nan(nq * ld);
    grad_kv = s.self ? grad : ot_nan(nk * ld);
    p.a.q = window(packed, nq, wq, 0, ld);
    p.a.k = window(packed_kv, nk, wk, wq, ld);
    p.a.v = window(packed_kv, nk, wk, wq + wk, ld);
    p.dq = window(grad, nq, wq, 0, ld);
    p.dk = window(grad_kv, nk, wk, wq, ld);
    p.dv = window(grad_kv, nk, wk, wq + wk, ld);
    p.a.out = window(ot_nan(nq * ld_out), nq, wq, 0, ld_out);
    p.dout = window(padded_normal(nq, wq, pad), nq, wq, 0, ld_out);
    p.a.lse = kd_tensor2(ot_nan(nq * s.n_heads), KD_F32, nq, s.n_heads);
    p.a.dropout = (struct kd_dropout){
        .p = s.p_drop, .seed = 77, .step = 5, .site = 9, .row_keys = ot_keys(nq)};
    if (s.biased)
        add_table(&p);
    return p;
}

/* Probabilities P[keys] and dropout factors M[keys] of query row POS of sequence SEQ
 * under head H; returns the number of keys, and the log-sum-exp. */
static int64_t want_row(const struct kd_attention *a, int64_t seq, int64_t pos,
                        int64_t h, double *p, double *m, double *lse)
{
    int64_t q = a->q_seqs.offsets[seq] + pos, k0 = a->kv_seqs.offsets[seq],
            n = a->kv_seqs.offsets[seq + 1] - k0, hk = h * a->n_kv_heads / a->n_heads;
    double sum = 0.0;

    if (a->causal && pos + 1 < n)
        n = pos + 1;
    for (int64_t j = 0; j < n; j++) {
        double dot = 0.0;

        for (int64_t c = 0; c < a->head_dim; c++)
            dot += at(a->q, q, h * a->head_dim + c) *
                   at(a->k, k0 + j, hk * a->head_dim + c);
        p[j] = exp(dot * (double)a->scale + bias_of(&a->bias, j - pos, h));
        sum += p[j];
        m[j] = ot_drop(&a->dropout, a->dropout.site + ((uint32_t)h << 20), q, j);
    }
    for (int64_t j = 0; j < n; j++)
        p[j] /= sum;
    *lse = log(sum);
    return n;
}

/* Adds the gradients of one row and head in double; DQ, DK, DV are [rows, width]. */
static void want_back(const struct problem *b, int64_t seq, int64_t pos, int64_t h,
                      int64_t n, const double *p, const double *m, double *dq,
                      double *dk, double *dv, double *dbias)
{
    const struct kd_attention *a = &b->a;
    int64_t hd = a->head_dim, q = a->q_seqs.offsets[seq] + pos,
            k0 = a->kv_seqs.offsets[seq], hk = h * a->n_kv_heads / a->n_heads;
    double dp[512], mean = 0.0;

    for (int64_t j = 0; j < n; j++) {
        dp[j] = 0.0;
        for (int64_t c = 0; c < hd; c++) {
            double g = at(b->dout, q, h * hd + c);

            dp[j] += m[j] * g * at(a->v, k0 + j, hk * hd + c);
            dv[(k0 + j) * a->v.cols + hk * hd + c] += m[j] * p[j] * g;
        }
        mean += p[j] * dp[j];
    }
    if (ot.type ==
        MIRROR_BF16) { /* backward has dout . out with out as it was stored */
        mean = 0.0;
        for (int64_t c = 0; c < hd; c++)
            mean += at(b->dout, q, h * hd + c) * at(a->out, q, h * hd + c);
    }
    for (int64_t j = 0; j < n; j++) {
        double score = p[j] * (dp[j] - mean), ds = score * (double)a->scale;

        if (dbias)
            dbias[(a->bias.zero + j - pos) * a->n_heads + h] += score;
        for (int64_t c = 0; c < hd; c++) {
            dq[q * a->q.cols + h * hd + c] += ds * at(a->k, k0 + j, hk * hd + c);
            dk[(k0 + j) * a->k.cols + hk * hd + c] += ds * at(a->q, q, h * hd + c);
        }
    }
}

static void check_mat(struct kd_mat got, const double *want, const char *what)
{
    /* in bfloat16 a gradient comes from rounded probabilities and their gradients */
    double bound = ot.type == MIRROR_BF16 ? 0x1p-7 : 1e-5;

    for (int64_t r = 0; r < got.rows; r++) {
        for (int64_t c = 0; c < got.cols; c++)
            ot_near(at(got, r, c), want[r * got.cols + c], bound, 2.0, what,
                    r * got.cols + c);
    }
}

static double *zeros(int64_t n)
{
    double *x = calloc((size_t)n + 1, sizeof *x);

    assert_non_null(x);
    return x;
}

static void compare(const struct problem *b)
{
    const struct kd_attention *a = &b->a;
    double *dq = zeros(a->q.rows * a->q.cols), *dk = zeros(a->k.rows * a->k.cols),
           *dv = zeros(a->v.rows * a->v.cols), *dbias = NULL, p[512], m[512], lse;
    int64_t n_bias = kd_tensor_count(&a->bias.table);

    if (b->dbias) {
        dbias = zeros(n_bias);
        for (int64_t i = 0; i < n_bias; i++)
            dbias[i] = (double)b->dbias0[i];
    }

    for (int64_t s = 0; s < a->q_seqs.n; s++) {
        int64_t q0 = a->q_seqs.offsets[s], len = a->q_seqs.offsets[s + 1] - q0;

        for (int64_t e = 0; e < len * a->n_heads; e++) {
            int64_t pos = e / a->n_heads, h = e % a->n_heads,
                    hk = h * a->n_kv_heads / a->n_heads;
            int64_t n = want_row(a, s, pos, h, p, m, &lse);

            if (n > 0)
                ot_near(((float *)a->lse.data)[(q0 + pos) * a->n_heads + h], lse, 1e-6,
                        1.0, "lse", e);
            for (int64_t c = 0; c < a->head_dim; c++) {
                double sum = 0.0;

                for (int64_t j = 0; j < n; j++)
                    sum += p[j] * m[j] *
                           at(a->v, a->kv_seqs.offsets[s] + j, hk * a->head_dim + c);
                ot_near(at(a->out, q0 + pos, h * a->head_dim + c), sum, 3e-6, 1.0,
                        "out", e);
            }
            want_back(b, s, pos, h, n, p, m, dq, dk, dv, dbias);
        }
    }
    check_mat(b->dq, dq, "dq");
    check_mat(b->dk, dk, "dk");
    check_mat(b->dv, dv, "dv");
    for (int64_t i = 0; b->dbias && i < n_bias; i++)
        ot_near(b->dbias[i], dbias[i], ot.type == MIRROR_BF16 ? 0x1p-7 : 1e-5, 4.0,
                "dbias", i);
    free(dbias);
    free(dq);
    free(dk);
    free(dv);
}

static void check_attention(struct setting s, int64_t n, const int64_t *q_len,
                            const int64_t *kv_len)
{
    struct problem b = make_problem(s, n, q_len, kv_len);
    float *grad_q = b.dq.data,
          *grad_kv = (float *)b.dk.data - (b.dk.rows ? b.dq.cols : 0);

    OT_EACH_BACKEND(be)
    {
        assert_int_equal(be->ops->attention(be, &b.a), 0);
        if (b.dbias)
            memcpy(b.dbias, b.dbias0,
                   (size_t)kd_tensor_count(&b.a.bias.table) * sizeof *b.dbias);
        assert_int_equal(
            be->ops->attention_back(be, &b.a, b.dout, b.dq, b.dk, b.dv, b.dbias), 0);
        ot_same(b.a.out.data);
        ot_same(b.a.lse.data);
        ot_same(grad_q);
        ot_same(grad_kv);
        if (b.dbias)
            ot_same(b.dbias);
    }
    check_pad(b.a.out, s.head_dim);
    check_pad(b.dv, s.head_dim);
    compare(&b);
}

static const int64_t lengths[] = {1, 7, 64, 0, 65, 150},
                     kv_lengths[] = {5, 1, 33, 4, 0, 70};

static void self_attention(void **state)
{
    (void)state;
    check_attention((struct setting){false, true, 2, 2, 32, 0.0f, false}, 6, lengths,
                    NULL);
    check_attention((struct setting){true, true, 2, 2, 64, 0.0f, false}, 6, lengths,
                    NULL);
}

static void cross_attention(void **state)
{
    (void)state;
    check_attention((struct setting){false, false, 3, 3, 16, 0.0f, false}, 6, lengths,
                    kv_lengths);
}

static void grouped_heads(void **state)
{
    (void)state;
    check_attention((struct setting){true, true, 4, 2, 24, 0.0f, false}, 6, lengths,
                    NULL);
}

static void with_dropout(void **state)
{
    (void)state;
    check_attention((struct setting){true, true, 2, 2, 32, 0.25f, false}, 6, lengths,
                    NULL);
    check_attention((struct setting){false, false, 2, 1, 32, 0.1f, false}, 6, lengths,
                    kv_lengths);
}

/* Lengths on both sides of tiles of 16, 64 and 128 rows. */
static const int64_t edges[] = {0, 1, 15, 16, 17, 63, 64, 65, 130, 257},
                     kv_edges[] = {5, 0, 130, 16, 1, 64, 257, 31, 33, 65};

static void edges_of_tiles(void **state)
{
    (void)state;
    check_attention((struct setting){true, true, 2, 1, 32, 0.1f, false}, 10, edges,
                    NULL);
    check_attention((struct setting){false, false, 1, 1, 16, 0.1f, false}, 10, edges,
                    kv_edges);
}

static void causal_with_other_keys(void **state)
{
    (void)state;
    check_attention((struct setting){true, false, 2, 2, 24, 0.0f, false}, 10, edges,
                    kv_edges);
}

static void head_sizes(void **state)
{
    static const int64_t sizes[] = {8, 40, 80, 96, 128, 1, 20, 33},
                         some[] = {33, 65, 2}, kv_some[] = {70, 18, 31};

    (void)state;
    for (int i = 0; i < 8; i++)
        check_attention((struct setting){i % 2 != 0, false, 2, 1 + i % 2, sizes[i],
                                         i == 3 ? 0.2f : 0.0f, false},
                        3, some, kv_some);
}

/* Tiles of 128 rows, which a backend may keep for long sequences. */
static void long_sequences(void **state)
{
    static const int64_t some[] = {130, 0, 193}, kv_some[] = {129, 40, 130};

    (void)state;
    check_attention((struct setting){true, true, 4, 4, 64, 0.0f, false}, 3, some, NULL);
    check_attention((struct setting){true, false, 8, 4, 64, 0.0f, false}, 3, some,
                    kv_some);
    check_attention((struct setting){false, false, 4, 4, 64, 0.1f, false}, 3, some,
                    kv_some);
    check_attention((struct setting){true, true, 4, 4, 128, 0.1f, false}, 3, some,
                    NULL);
}

/* Sequences of one token and of none, on either side. */
static void shortest_sequences(void **state)
{
    static const int64_t some[] = {1, 1, 0, 1, 0}, kv_some[] = {1, 0, 1, 2, 0},
                         none[] = {0, 0, 0, 0, 0};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct setting s = {i == 1, true, 2, 2, i == 1 ? 64 : 20, 0.0f, false};

        check_attention(s, 5, some, NULL);
        check_attention(s, 5, none, NULL);
        s.self = false;
        check_attention(s, 5, some, kv_some);
        check_attention(s, 5, some, none);
        check_attention(s, 5, none, some);
    }
}

/* Decoding: the rows of a sequence's beams over its many keys. */
static void few_rows(void **state)
{
    static const int64_t rows[] = {4, 0, 16, 1, 4}, keys[] = {257, 31, 130, 17, 0};

    (void)state;
    check_attention((struct setting){false, false, 2, 2, 64, 0.0f, false}, 5, rows,
                    keys);
    check_attention((struct setting){false, false, 4, 2, 128, 0.0f, false}, 5, rows,
                    keys);
    check_attention((struct setting){true, false, 2, 1, 32, 0.3f, false}, 5, rows,
                    keys);
}

static void many_sequences(void **state)
{
    enum { N = 1100 };
    int64_t len[N], kv_len[N];

    (void)state;
    for (int i = 0; i < N; i++) {
        len[i] = i == 700 ? 65 : i * 7 % 3;
        kv_len[i] = i == 40 ? 66 : i * 5 % 4;
    }
    check_attention((struct setting){false, false, 1, 1, 16, 0.0f, false}, N, len,
                    kv_len);
}

static void distance_bias(void **state)
{
    static const int64_t some[] = {33, 65, 2}, kv_some[] = {70, 18, 31};

    (void)state;
    check_attention((struct setting){false, true, 3, 3, 32, 0.0f, true}, 6, lengths,
                    NULL);
    check_attention((struct setting){true, true, 2, 1, 64, 0.2f, true}, 10, edges,
                    NULL);
    check_attention((struct setting){false, false, 2, 2, 24, 0.1f, true}, 6, lengths,
                    kv_lengths);
    check_attention((struct setting){true, true, 2, 2, 40, 0.0f, true}, 6, lengths,
                    NULL);
    check_attention((struct setting){true, false, 2, 1, 128, 0.0f, true}, 3, some,
                    kv_some);
    check_attention((struct setting){false, false, 2, 2, 33, 0.0f, true}, 3, some,
                    kv_some);
}

/* In tiles of 128 rows, and where no sequence fills one of 16. */
static void distance_bias_of_tiles(void **state)
{
    static const int64_t wide[] = {130, 0, 193}, few[] = {3, 16, 0, 1};

    (void)state;
    check_attention((struct setting){false, true, 4, 4, 64, 0.1f, true}, 3, wide, NULL);
    check_attention((struct setting){true, true, 2, 2, 64, 0.0f, true}, 4, few, NULL);
}

/* The gradient of the table, whatever the size of what comes back: a power of two
 * goes through to the bit, and what is not a number shows. */
static void distance_bias_sizes(void **state)
{
    static const int64_t len[] = {70, 9};
    struct problem b =
        make_problem((struct setting){false, true, 2, 2, 32, 0.0f, true}, 2, len, NULL);
    int64_t n = kd_tensor_count(&b.a.bias.table), n_dout = b.dout.rows * b.dout.ld;
    float *dout = b.dout.data, *dout0 = ot_copy(dout, n_dout), *first = ot_nan(n);

    (void)state;
    for (int k = -60; k <= 60; k += 60) {
        for (int64_t i = 0; i < n_dout; i++)
            dout[i] = ldexpf(dout0[i], k);
        OT_EACH_BACKEND(be)
        {
            memset(b.dbias, 0, (size_t)n * sizeof *b.dbias);
            assert_int_equal(be->ops->attention(be, &b.a), 0);
            assert_int_equal(
                be->ops->attention_back(be, &b.a, b.dout, b.dq, b.dk, b.dv, b.dbias),
                0);
        }
        for (int64_t i = 0; i < n; i++) {
            first[i] = k == -60 ? b.dbias[i] : first[i];
            assert_true(b.dbias[i] == ldexpf(first[i], k + 60));
        }
    }
    dout[0] = NAN; /* of the first query and head */
    OT_EACH_BACKEND(be)
    {
        assert_int_equal(
            be->ops->attention_back(be, &b.a, b.dout, b.dq, b.dk, b.dv, b.dbias), 0);
    }
    for (int64_t i = 0; i < 70; i++)
        assert_true(isnan(b.dbias[(b.a.bias.zero + i) * 2]));
}

struct cache_setting {
    int rows, len, slots, n_heads, n_kv_heads, hd;
    bool biased;
};

/* Element C of row R and head H. */
static double want_cached(const struct kd_attention_cached *a, int64_t r, int64_t h,
                          int64_t c)
{
    int64_t hd = a->head_dim, hk = h * a->n_kv_heads / a->n_heads;
    double sum = 0.0, out = 0.0;

    for (int64_t t = 0; t <= *a->step; t++) {
        int64_t slot = a->slots[r * a->slots_ld + t];
        double dot = 0.0, e;

        for (int64_t i = 0; i < hd; i++)
            dot += at(a->q, r, h * hd + i) * at(a->k, slot, hk * hd + i);
        e = exp(dot * (double)a->scale + bias_of(&a->bias, t - (*a->step), h));
        sum += e;
        out += e * at(a->v, slot, hk * hd + c);
    }
    return out / sum;
}

static void check_cached(struct cache_setting s)
{
    int64_t wq = s.n_heads * s.hd, wk = s.n_kv_heads * s.hd, ld = s.len + 9,
            old = s.slots - s.rows;
    float *k0 = ot_normal(s.slots * wk, 1.0), *v0 = ot_normal(s.slots * wk, 1.0),
          *k = ot_nan(s.slots * wk), *v = ot_nan(s.slots * wk);
    int32_t *slots = ot_ids(s.rows * ld, old), *step = ot_ids(1, 1);
    struct kd_attention_cached a = {
        .q = window(ot_normal(s.rows * wq, 1.0), s.rows, wq, 0, wq),
        .out = window(ot_nan(s.rows * wq), s.rows, wq, 0, wq),
        .k_new = window(ot_normal(s.rows * wk, 1.0), s.rows, wk, 0, wk),
        .v_new = window(ot_normal(s.rows * wk, 1.0), s.rows, wk, 0, wk),
        .k = window(k, s.slots, wk, 0, wk),
        .v = window(v, s.slots, wk, 0, wk),
        .slots = slots,
        .slots_ld = ld,
        .step = step,
        .max_len = s.len + 3,
        .n_heads = s.n_heads,
        .n_kv_heads = s.n_kv_heads,
        .head_dim = s.hd,
        .scale = 0.2f,
    };

    *step = s.len - 1;
    for (int r = 0; r < s.rows; r++)
        slots[r * ld + s.len - 1] = (int32_t)(old + (r + 1) % s.rows);
    if (s.biased) {
        a.bias = (struct kd_distance_bias){
            kd_tensor2(ot_normal((s.len + 3) * s.n_heads, 1.0), KD_F32, s.len + 3,
                       s.n_heads),
            s.len + 1};
        spare(a.bias.table.data, 0, 2, s.n_heads);
        spare(a.bias.table.data, s.len + 2, s.len + 3, s.n_heads);
    }

    OT_EACH_BACKEND(be)
    {
        memcpy(k, k0, (size_t)(s.slots * wk) * sizeof *k);
        memcpy(v, v0, (size_t)(s.slots * wk) * sizeof *v);
        assert_int_equal(be->ops->attention_cached(be, &a), 0);
        ot_same(a.out.data);
        ot_same(k);
        ot_same(v);
    }
    assert_memory_equal(k, k0, (size_t)(old * wk) * sizeof *k);
    assert_memory_equal(v, v0, (size_t)(old * wk) * sizeof *v);
    for (int64_t r = 0; r < s.rows; r++) {
        int64_t slot = old + (r + 1) % s.rows;

        for (int64_t c = 0; c < wk; c++) {
            assert_true(at(a.k, slot, c) == at(a.k_new, r, c));
            assert_true(at(a.v, slot, c) == at(a.v_new, r, c));
        }
        for (int64_t c = 0; c < wq; c++)
            ot_near(at(a.out, r, c), want_cached(&a, r, c / s.hd, c % s.hd), 2e-6, 1.0,
                    "cached", c);
    }
}

static void over_a_cache(void **state)
{
    (void)state;
    check_cached((struct cache_setting){9, 21, 60, 4, 2, 40, false});
    check_cached((struct cache_setting){3, 1, 5, 2, 2, 64, false});
    check_cached((struct cache_setting){2, 200, 300, 2, 1, 128, false});
    check_cached((struct cache_setting){5, 65, 90, 3, 3, 8, false});
    check_cached((struct cache_setting){1030, 66, 1100, 4, 4, 16, false});
    check_cached((struct cache_setting){5, 65, 90, 3, 3, 64, true});
    check_cached((struct cache_setting){9, 130, 200, 4, 2, 40, true});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(self_attention, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(cross_attention, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(grouped_heads, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(with_dropout, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(edges_of_tiles, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(causal_with_other_keys, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(head_sizes, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(long_sequences, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(shortest_sequences, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(few_rows, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(distance_bias, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(distance_bias_of_tiles, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(distance_bias_sizes, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(many_sequences, ot_setup, ot_teardown),
        cmocka_unit_test_setup_teardown(over_a_cache, ot_setup, ot_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
