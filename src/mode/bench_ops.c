/* SPDX-License-Identifier: Apache-2.0 */
/* Benchmarks of the backend's two heavy ops: products in the shapes of a training step
 * and of decoding, and attention over ragged sequences and over a cache.
 *
 * The bound of both is the rate of products that fit the cache; attention counts the
 * multiplications that its masks leave, five products backward for two forward.
 * Operands are noise of the run's compute type: devices are faster on zeros than they
 * ever are in earnest. */
#include "bench.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/tensor/arena.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NOISE = 1 << 18 };

struct product {
    struct kd_backend *be;
    struct kd_gemm g;
};

static int call_product(void *arg)
{
    struct product *p = arg;

    return p->be->ops->gemm(p->be, &p->g);
}

/* A tensor of zeros in the arena. */
static int zeros(struct kd_backend *be, struct kd_arena *arena, enum kd_dtype dtype,
                 int64_t rows, int64_t cols, struct kd_tensor *out)
{
    KD_TRY(kd_arena_tensor(arena, dtype, rows, cols, out));
    return be->ops->zero(be, out->data, kd_tensor_bytes(out));
}

/* N values in [-1, 1) that look like noise, as DTYPE, into HOST. */
static void make_noise(enum kd_dtype dtype, int64_t n, void *host)
{
    uint32_t state = 1;

    for (int64_t i = 0; i < n; i++) {
        float v;

        state = state * 1664525u + 1013904223u;
        v = (float)(int32_t)state * 0x1p-31f;
        if (dtype == KD_F32)
            ((float *)host)[i] = v;
        else
            ((uint16_t *)host)[i] = kd_f32_to_bf16(v);
    }
}

/* A tensor of noise in the arena, which repeats itself after NOISE values. */
static int noise(struct kd_backend *be, struct kd_arena *arena, enum kd_dtype dtype,
                 int64_t rows, int64_t cols, struct kd_tensor *out)
{
    int64_t count = rows * cols, n = count < NOISE ? count : NOISE;
    size_t size = kd_dtype_bytes(dtype);
    void *host = NULL;
    int rc = KD_OK;

    KD_TRY(kd_arena_tensor(arena, dtype, rows, cols, out));
    KD_TRY(kd_calloc(n, size, &host));
    make_noise(dtype, n, host);
    for (int64_t i = 0; i < count && !rc; i += n)
        rc = be->ops->upload(be, (char *)out->data + (size_t)i * size, host,
                             (size_t)(count - i < n ? count - i : n) * size);
    rc = rc ? rc : be->ops->sync(be);
    free(host);
    return rc;
}

/* Gradients of weights, which add up, are float32 in any type. */
static int make_product(struct kd_backend *be, struct kd_arena *arena,
                        enum kd_dtype dtype, int64_t m, int64_t n, int64_t k,
                        bool trans_a, bool trans_b, enum kd_act act,
                        struct product *out)
{
    struct kd_tensor a, b, c, pre, bias;

    KD_TRY(noise(be, arena, dtype, trans_a ? k : m, trans_a ? m : k, &a));
    KD_TRY(noise(be, arena, dtype, trans_b ? n : k, trans_b ? k : n, &b));
    KD_TRY(zeros(be, arena, trans_a ? KD_F32 : dtype, m, n, &c));
    *out = (struct product){be,
                            {.trans_a = trans_a,
                             .trans_b = trans_b,
                             .alpha = 1.0f,
                             .beta = trans_a ? 1.0f : 0.0f,
                             .a = kd_mat_of(a),
                             .b = kd_mat_of(b),
                             .c = kd_mat_of(c),
                             .act = act}};
    if (act == KD_ACT_NONE)
        return KD_OK;
    KD_TRY(zeros(be, arena, dtype, m, n, &pre));
    KD_TRY(zeros(be, arena, KD_F32, 1, n, &bias));
    out->g.pre = kd_mat_of(pre);
    out->g.bias = bias.data;
    return KD_OK;
}

/* The rate of one product on BE, summed over the ranks; the arena is reset. */
static int product_rate(struct kd_run *run, struct kd_backend *be,
                        struct kd_arena *arena, double seconds, const int64_t mnk[3],
                        bool trans_a, bool trans_b, enum kd_act act, double *rate)
{
    struct product p;

    kd_arena_reset(arena);
    KD_ALL(run->comm, make_product(be, arena, run->dtype, mnk[0], mnk[1], mnk[2],
                                   trans_a, trans_b, act, &p));
    return bench_rate(run, seconds, call_product, &p,
                      2e-9 * (double)mnk[0] * (double)mnk[1] * (double)mnk[2], rate);
}

int bench_peak(struct kd_run *run, const struct bench_config *config,
               struct bench_table *t, double *gflops)
{
    bool cpu = run->be->device == KD_CPU;
    struct kd_backend *one = NULL;
    struct kd_arena *arena = NULL;
    const int64_t side = cpu ? 512 : config->peak_size, mnk[3] = {side, side, side};
    int rc = KD_OK;

    if (t->peak == 0.0) {
        if (cpu)
            KD_ALL_GO(run->comm, kd_backend_cpu(1, &one));
        KD_ALL_GO(run->comm, kd_arena_new(cpu ? one : run->be, &arena));
        KD_GO(product_rate(run, cpu ? one : run->be, arena, config->seconds, mnk, false,
                           false, KD_ACT_NONE, &t->peak));
        t->peak *= cpu ? run->be->n_threads : 1;
    }
    *gflops = t->peak;
out:
    kd_arena_free(arena);
    kd_backend_free(one);
    return rc;
}

struct shape {
    const char *name;
    int64_t mnk[3];
    bool trans_a, trans_b;
    enum kd_act act;
};

static int run_gemm(struct kd_run *run, const struct bench_config *c,
                    struct bench_table *t)
{
    const int64_t n = c->tokens, d = c->d_model, v = c->vocab_size, rows = 512,
                  live = 128; /* rows: of a chunk of the head; live: hypotheses */
    const struct shape shapes[] = {
        {"qkv forward", {n, 3 * d, d}, false, true, KD_ACT_NONE},
        {"output forward", {n, d, d}, false, true, KD_ACT_NONE},
        {"fc1 forward with gelu", {n, 4 * d, d}, false, true, KD_ACT_GELU},
        {"fc2 forward", {n, d, 4 * d}, false, true, KD_ACT_NONE},
        {"fc1 input gradient", {n, d, 4 * d}, false, false, KD_ACT_NONE},
        {"fc1 weight gradient", {4 * d, d, n}, true, false, KD_ACT_NONE},
        {"head chunk", {rows, v, d}, false, true, KD_ACT_NONE},
        {"head weight gradient", {v, d, rows}, true, false, KD_ACT_NONE},
        {"decoding fc1", {live, 4 * d, d}, false, true, KD_ACT_NONE},
        {"decoding head", {live, v, d}, false, true, KD_ACT_NONE},
    };
    struct kd_arena *arena = NULL;
    double peak = NAN, rate = 0.0;
    int rc = KD_OK;

    KD_GO(bench_peak(run, c, t, &peak));
    KD_ALL_GO(run->comm, bench_add(t, peak, "GFLOP/s", NAN, "peak"));
    KD_ALL_GO(run->comm, kd_arena_new(run->be, &arena));
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const struct shape *s = &shapes[i];

        KD_GO(product_rate(run, run->be, arena, c->seconds, s->mnk, s->trans_a,
                           s->trans_b, s->act, &rate));
        KD_ALL_GO(run->comm, bench_add(t, rate, "GFLOP/s", peak, "%s %lldx%lldx%lld",
                                       s->name, (long long)s->mnk[0],
                                       (long long)s->mnk[1], (long long)s->mnk[2]));
    }
out:
    kd_arena_free(arena);
    return rc;
}

const struct bench bench_gemm = {
    .name = "gemm",
    .summary = "products in the shapes of a training step and of decoding",
    .run = run_gemm,
};

struct attention {
    struct kd_backend *be;
    struct kd_attention a;
    struct kd_mat dout, dq, dk, dv;
    struct kd_attention_cached cached;
    int64_t offsets[1 << 14];
    double pairs; /* of a query and a key that it sees */
};

static int call_attention(void *arg)
{
    struct attention *p = arg;

    return p->be->ops->attention(p->be, &p->a);
}

static int call_attention_back(void *arg)
{
    struct attention *p = arg;

    return p->be->ops->attention_back(p->be, &p->a, p->dout, p->dq, p->dk, p->dv, NULL);
}

static int call_cached(void *arg)
{
    struct attention *p = arg;

    return p->be->ops->attention_cached(p->be, &p->cached);
}

/* Sequences as long as the first sources, until there are about C->tokens rows. */
static int make_sequences(const struct bench_config *c, struct kd_arena *arena,
                          struct attention *p)
{
    struct kd_seqs s = {.offsets = p->offsets};
    int64_t most = (int64_t)(sizeof p->offsets / sizeof *p->offsets) - 1;

    p->offsets[0] = 0;
    p->pairs = 0.0;
    for (s.n = 0; s.n < most && p->offsets[s.n] < c->tokens; s.n++) {
        int64_t len = bench_length(s.n, false);

        p->offsets[s.n + 1] = p->offsets[s.n] + len;
        p->pairs += (double)(p->a.causal ? len * (len + 1) / 2 : len * len);
        s.max_len = len > s.max_len ? len : s.max_len;
    }
    s.n_rows = p->offsets[s.n];
    s.offsets_dev = (struct kd_tensor){.dtype = KD_I64, .ndim = 1, .shape = {s.n + 1}};
    KD_TRY(kd_arena_alloc(arena, kd_tensor_bytes(&s.offsets_dev), &s.offsets_dev.data));
    KD_TRY(p->be->ops->upload(p->be, s.offsets_dev.data, p->offsets,
                              kd_tensor_bytes(&s.offsets_dev)));
    p->a.q_seqs = p->a.kv_seqs = s;
    return KD_OK;
}

static int make_attention(struct kd_run *run, const struct bench_config *c,
                          struct kd_arena *arena, bool causal, struct attention *p)
{
    int64_t d = c->d_model, n;
    struct kd_tensor qkv, grad, out, dout;

    p->be = run->be;
    p->a = (struct kd_attention){.n_heads = c->n_heads,
                                 .n_kv_heads = c->n_heads,
                                 .head_dim = d / c->n_heads,
                                 .causal = causal};
    p->a.scale = 1.0f / sqrtf((float)p->a.head_dim);
    KD_TRY(make_sequences(c, arena, p));
    n = p->a.q_seqs.n_rows;
    KD_TRY(noise(run->be, arena, run->dtype, n, 3 * d, &qkv));
    KD_TRY(zeros(run->be, arena, run->dtype, n, 3 * d, &grad));
    KD_TRY(zeros(run->be, arena, run->dtype, n, d, &out));
    KD_TRY(noise(run->be, arena, run->dtype, n, d, &dout));
    KD_TRY(zeros(run->be, arena, KD_F32, n, c->n_heads, &p->a.lse));
    p->a.q = kd_mat_cols(qkv, 0, d);
    p->a.k = kd_mat_cols(qkv, d, d);
    p->a.v = kd_mat_cols(qkv, 2 * d, d);
    p->a.out = kd_mat_of(out);
    p->dq = kd_mat_cols(grad, 0, d);
    p->dk = kd_mat_cols(grad, d, d);
    p->dv = kd_mat_cols(grad, 2 * d, d);
    p->dout = kd_mat_of(dout);
    return KD_OK;
}

enum { LIVE = 128, STEP = 40 };

/* Hypotheses LIVE at step STEP whose keys lie one step after the other. */
static int make_cached(struct kd_run *run, const struct bench_config *c,
                       struct kd_arena *arena, struct attention *p)
{
    int64_t d = c->d_model;
    int32_t host[LIVE * STEP + 1], *slots, *step;
    struct kd_tensor qkv, out, k, v;
    void *dev;

    for (int32_t i = 0; i < LIVE * STEP; i++)
        host[i] = i % STEP * LIVE + i / STEP;
    host[LIVE * STEP] = STEP - 1;
    KD_TRY(noise(run->be, arena, run->dtype, LIVE, 3 * d, &qkv));
    KD_TRY(zeros(run->be, arena, run->dtype, LIVE, d, &out));
    KD_TRY(noise(run->be, arena, run->dtype, LIVE * STEP, d, &k));
    KD_TRY(noise(run->be, arena, run->dtype, LIVE * STEP, d, &v));
    KD_TRY(kd_arena_alloc(arena, sizeof host, &dev));
    KD_TRY(run->be->ops->upload(run->be, dev, host, sizeof host));
    slots = dev;
    step = slots + LIVE * STEP;
    p->be = run->be;
    p->cached = (struct kd_attention_cached){.q = kd_mat_cols(qkv, 0, d),
                                             .k_new = kd_mat_cols(qkv, d, d),
                                             .v_new = kd_mat_cols(qkv, 2 * d, d),
                                             .out = kd_mat_of(out),
                                             .k = kd_mat_of(k),
                                             .v = kd_mat_of(v),
                                             .slots = slots,
                                             .slots_ld = STEP,
                                             .step = step,
                                             .max_len = STEP,
                                             .n_heads = c->n_heads,
                                             .n_kv_heads = c->n_heads,
                                             .head_dim = d / c->n_heads,
                                             .scale = 0.1f};
    return KD_OK;
}

static int measure_attention(struct kd_run *run, const struct bench_config *c,
                             struct kd_arena *arena, struct bench_table *t, bool causal)
{
    struct attention p;
    double gflop, rate = 0.0;
    const char *mask = causal ? "causal" : "full";

    kd_arena_reset(arena);
    memset(&p, 0, sizeof p);
    KD_ALL(run->comm, make_attention(run, c, arena, causal, &p));
    gflop = 4e-9 * p.pairs * (double)c->d_model;
    KD_TRY(bench_rate(run, c->seconds, call_attention, &p, gflop, &rate));
    KD_ALL(run->comm, bench_add(t, rate, "GFLOP/s", t->peak, "%s forward", mask));
    KD_TRY(bench_rate(run, c->seconds, call_attention_back, &p, 2.5 * gflop, &rate));
    KD_ALL(run->comm, bench_add(t, rate, "GFLOP/s", t->peak, "%s backward", mask));
    return KD_OK;
}

static int run_attention(struct kd_run *run, const struct bench_config *c,
                         struct bench_table *t)
{
    struct kd_arena *arena = NULL;
    struct attention p;
    double peak = NAN, rate = 0.0;
    int rc = KD_OK;

    memset(&p, 0, sizeof p);
    KD_GO(bench_peak(run, c, t, &peak));
    KD_ALL_GO(run->comm, kd_arena_new(run->be, &arena));
    KD_GO(measure_attention(run, c, arena, t, false));
    KD_GO(measure_attention(run, c, arena, t, true));
    kd_arena_reset(arena);
    KD_ALL_GO(run->comm, make_cached(run, c, arena, &p));
    /* every key and value is read once and used once: bytes are the measure */
    KD_GO(bench_rate(run, c->seconds, call_cached, &p,
                     2e-9 * LIVE * STEP * (double)c->d_model *
                         (double)kd_dtype_bytes(run->dtype),
                     &rate));
    KD_ALL_GO(run->comm, bench_add(t, rate, "GB/s", NAN, "cached %dx%d", LIVE, STEP));
out:
    kd_arena_free(arena);
    return rc;
}

const struct bench bench_attention = {
    .name = "attention",
    .summary = "attention over ragged sequences, and over a cache",
    .run = run_attention,
};
