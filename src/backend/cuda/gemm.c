/* SPDX-License-Identifier: Apache-2.0 */
/* Products through cuBLASLt, which thinks in columns: our row-major C [m, n] is its
 * C' [n, m] = op(B)' op(A)', so operands change places and transposes stay.
 *
 * Float32 is float32 (no TF32 unless asked for); bfloat16 is summed in float32, split
 * sums too.  Bias rides in the epilogue, rounded to bfloat16 for such an output,
 * because that is the library's rule.  Of the activations, relu without `pre` and, for
 * bfloat16, the tanh form of gelu with or without it are fused (the library's gelu is
 * that form, and approximate); others take one pass over C, as exact as the rest.
 *
 * Tensor cores are fed in pieces of 16 bytes along the contiguous dimension of an
 * operand, and kernels for other sizes load less at a time.  The one dimension that may
 * not be whole pieces is the vocabulary: such a product is cut into its whole pieces
 * and the few columns that are left.
 *
 * The choice of an algorithm costs tens of microseconds of host time, so choices are
 * kept.  The number of rows of a ragged batch is new in almost every step: it is
 * rounded up to one of eight sizes per octave before the library is asked, so the
 * choice, and with it the bits, are a function of the shape and never of what came
 * before. */
#include "cuda_impl.h"

#include "cuda_lt.h"
#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

enum {
    WORKSPACE_BYTES = 32 << 20,
    PLAN_SETS = 512, /* of the table; a hash names the set */
    PLAN_WAYS = 4,   /* places of a set; when all are taken, a later plan takes one */
    EXACT = 256,     /* up to here a number of rows is asked for as it is */
    CHOICES = 4,
    PIECE = 8,     /* values of bfloat16 in 16 bytes */
    ALIGNED = 64,  /* bytes; of whatever an arena or slab gives out */
    CUT_FROM = 512 /* smaller dimensions are not worth a second product */
};

/* One call of the library, in our row-major terms. */
struct product {
    int64_t m, n, k;
    struct kd_mat a, b, c, d; /* d: where the result goes */
    bool trans_a, trans_b;
    float alpha, beta;
    cublasLtEpilogue_t epilogue;
    const void *bias; /* of d's type */
    struct kd_mat aux;
    bool tf32;
};

/* What a choice depends on; all words, so that it can be compared as memory. */
struct plan_key {
    int64_t m, n, k, lda, ldb, ldc, ldd, ld_aux;
    int64_t type, out_type, trans, epilogue, tf32;
    int64_t align_a, align_b, align_c, align_d, align_bias, align_aux;
};

enum plan_state { PLAN_NONE, PLAN_FOUND, PLAN_IMPOSSIBLE };

struct plan {
    struct plan_key key;
    enum plan_state state;
    cublasLtMatmulAlgo_t algo;
};

struct cuda_blas {
    const struct cuda_lt *lt;
    cublasLtHandle_t handle;
    void *workspace;
    struct plan plans[PLAN_SETS][PLAN_WAYS];
    unsigned turn; /* which place of a full set is next */
};

/* What the library is told of one product; made and dropped for each call. */
struct call {
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c, d;
};

static int lt_check(cublasStatus_t status, const char *what)
{
    if (status == CUBLAS_STATUS_SUCCESS)
        return KD_OK;
    return KD_FAIL(KD_EINTERNAL, "cuBLASLt failed while %s: status %d", what,
                   (int)status);
}

int cuda_blas_open(struct cuda *cuda)
{
    struct cuda_blas *blas = NULL;
    const char *missing = "";

    KD_TRY(kd_calloc(1, sizeof *blas, &blas));
    cuda->blas = blas;
    blas->lt = cuda_lt_load(&missing);
    if (!blas->lt)
        return KD_FAIL(KD_EINPUT, "the GPU needs cuBLASLt: %s", missing);
    KD_TRY(lt_check(blas->lt->create(&blas->handle), "starting"));
    return cuda->base.ops->alloc(&cuda->base, WORKSPACE_BYTES, &blas->workspace);
}

void cuda_blas_close(struct cuda *cuda)
{
    struct cuda_blas *blas = cuda->blas;

    if (!blas)
        return;
    (void)cudaFree(blas->workspace);
    if (blas->handle)
        (void)blas->lt->destroy(blas->handle);
    free(blas);
}

static cudaDataType_t lt_type(enum kd_dtype dtype)
{
    return dtype == KD_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* The largest power of two that divides an address, at most that of a step's tensors:
 * where exactly they begin must not make new plans, and no access is wider. */
static int64_t alignment(const void *p)
{
    uintptr_t bits = (uintptr_t)p | ALIGNED;

    return (int64_t)(bits & (~bits + 1));
}

/* Rounded up to one of eight sizes per octave. */
static int64_t bucket(int64_t rows)
{
    int64_t step = EXACT / 8;

    if (rows <= EXACT)
        return rows;
    while (rows > 16 * step)
        step *= 2;
    return (rows + step - 1) / step * step;
}

/* The product whose number of ragged rows is rounded: those are k where A is
 * transposed, as in gradients of weights, else m. */
static struct product rounded(const struct product *p)
{
    struct product q = *p;

    if (p->trans_a &&
        p->trans_b) /* k runs along the rows of B, which are as they are */
        return q;
    if (p->trans_a) {
        q.k = bucket(p->k);
        q.a.rows = q.b.rows = q.k;
    } else {
        q.m = bucket(p->m);
        q.a.rows = q.c.rows = q.d.rows = q.m;
    }
    return q;
}

static struct plan_key key_of(const struct product *p)
{
    return (struct plan_key){
        .m = p->m,
        .n = p->n,
        .k = p->k,
        .lda = p->a.ld,
        .ldb = p->b.ld,
        .ldc = p->c.ld,
        .ldd = p->d.ld,
        .ld_aux = p->aux.data ? p->aux.ld : 0,
        .type = p->a.dtype,
        .out_type = p->d.dtype,
        .trans = 2 * p->trans_a + p->trans_b,
        .epilogue = p->epilogue,
        .tf32 = p->tf32,
        .align_a = alignment(p->a.data),
        .align_b = alignment(p->b.data),
        .align_c = alignment(p->c.data),
        .align_d = alignment(p->d.data),
        .align_bias = alignment(p->bias),
        .align_aux = alignment(p->aux.data),
    };
}

static size_t set_of(const struct plan_key *key)
{
    uint64_t hash = 0, words[sizeof *key / sizeof(uint64_t)];

    memcpy(words, key, sizeof words);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        hash = (hash ^ words[i]) * 0x9E3779B97F4A7C15ull + (hash >> 29);
    return (size_t)(hash >> 32) % PLAN_SETS;
}

static void call_drop(const struct cuda_lt *lt, struct call *c)
{
    if (c->desc)
        (void)lt->desc_destroy(c->desc);
    if (c->a)
        (void)lt->layout_destroy(c->a);
    if (c->b)
        (void)lt->layout_destroy(c->b);
    if (c->c)
        (void)lt->layout_destroy(c->c);
    if (c->d)
        (void)lt->layout_destroy(c->d);
}

/* A row-major matrix is a column-major one with rows and columns exchanged. */
static int make_layout(const struct cuda_lt *lt, const struct kd_mat *m,
                       cublasLtMatrixLayout_t *out)
{
    return lt_check(lt->layout_create(out, lt_type(m->dtype), (uint64_t)m->cols,
                                      (uint64_t)m->rows, m->ld),
                    "describing a matrix");
}

/* KD_TRY on one attribute of the product. */
#define SET(attribute, value)                                                          \
    KD_TRY(lt_check(lt->desc_set(c->desc, attribute, &(value), sizeof(value)),         \
                    "describing a product"))

static int describe(const struct cuda_lt *lt, const struct product *p, struct call *c)
{
    const cublasOperation_t first = p->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                            second = p->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;

    KD_TRY(lt_check(
        lt->desc_create(&c->desc,
                        p->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
                        CUDA_R_32F),
        "describing a product"));
    SET(CUBLASLT_MATMUL_DESC_TRANSA, first);
    SET(CUBLASLT_MATMUL_DESC_TRANSB, second);
    SET(CUBLASLT_MATMUL_DESC_EPILOGUE, p->epilogue);
    if (p->bias)
        SET(CUBLASLT_MATMUL_DESC_BIAS_POINTER, p->bias);
    if (p->aux.data) {
        SET(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, p->aux.data);
        SET(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, p->aux.ld);
    }
    KD_TRY(make_layout(lt, &p->b, &c->a));
    KD_TRY(make_layout(lt, &p->a, &c->b));
    KD_TRY(make_layout(lt, &p->c, &c->c));
    return make_layout(lt, &p->d, &c->d);
}

#undef SET
#define SET(attribute, value)                                                          \
    KD_TRY(                                                                            \
        lt_check(lt->preference_set(preference, attribute, &(value), sizeof(value)),   \
                 "choosing an algorithm"))

static int prefer(const struct cuda_lt *lt, const struct plan_key *key,
                  cublasLtMatmulPreference_t preference)
{
    const uint64_t workspace = WORKSPACE_BYTES;
    const uint32_t sums = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE,
                   a = (uint32_t)key->align_b, b = (uint32_t)key->align_a,
                   c = (uint32_t)key->align_c, d = (uint32_t)key->align_d;

    SET(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace);
    SET(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, sums);
    SET(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, a);
    SET(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, b);
    SET(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, c);
    SET(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, d);
    return KD_OK;
}

#undef SET

/* Ask the library; PLAN_IMPOSSIBLE is an answer, not a failure. */
static int choose(struct cuda_blas *blas, const struct product *p, struct plan *plan)
{
    const struct cuda_lt *lt = blas->lt;
    cublasLtMatmulHeuristicResult_t results[CHOICES];
    cublasLtMatmulPreference_t preference = NULL;
    struct call call = {0};
    int n = 0, rc = KD_OK;

    plan->state = PLAN_NONE;
    KD_GO(lt_check(lt->preference_create(&preference), "choosing an algorithm"));
    KD_GO(prefer(lt, &plan->key, preference));
    KD_GO(describe(lt, p, &call));
    plan->state = PLAN_IMPOSSIBLE;
    if (lt->heuristic(blas->handle, call.desc, call.a, call.b, call.c, call.d,
                      preference, CHOICES, results, &n) != CUBLAS_STATUS_SUCCESS)
        n = 0;
    for (int i = 0; i < n && plan->state != PLAN_FOUND; i++) {
        if (results[i].state == CUBLAS_STATUS_SUCCESS) {
            plan->algo = results[i].algo;
            plan->state = PLAN_FOUND;
        }
    }
out:
    call_drop(lt, &call);
    if (preference)
        (void)lt->preference_destroy(preference);
    return rc;
}

static int find_plan(struct cuda_blas *blas, const struct product *p,
                     const struct plan **out)
{
    const struct plan_key key = key_of(p);
    struct plan *set = blas->plans[set_of(&key)], *plan = NULL;

    for (int i = 0; i < PLAN_WAYS && set[i].state != PLAN_NONE; i++) {
        if (memcmp(&set[i].key, &key, sizeof key) == 0) {
            *out = &set[i];
            return KD_OK;
        }
    }
    for (int i = PLAN_WAYS - 1; i >= 0; i--) {
        if (set[i].state == PLAN_NONE)
            plan = &set[i];
    }
    if (!plan)
        plan = &set[blas->turn++ % PLAN_WAYS];
    plan->key = key;
    *out = plan;
    return choose(blas, p, plan);
}

/* *DONE = false where the library has no algorithm for it. */
static int multiply(struct kd_backend *be, const struct product *p, bool *done)
{
    struct cuda_blas *blas = cuda_of(be)->blas;
    const struct product shapes[] = {rounded(p), *p};
    struct call call = {0};
    int rc = KD_OK;

    *done = false;
    KD_GO(describe(blas->lt, p, &call));
    for (int i = 0; i < 2 && !*done;
         i++) { /* few choices for rounded rows do not fit */
        const struct plan *plan;
        cublasStatus_t status;

        KD_GO(find_plan(blas, &shapes[i], &plan));
        if (plan->state != PLAN_FOUND)
            continue;
        status = blas->lt->matmul(blas->handle, call.desc, &p->alpha, p->b.data, call.a,
                                  p->a.data, call.b, &p->beta, p->c.data, call.c,
                                  p->d.data, call.d, &plan->algo, blas->workspace,
                                  WORKSPACE_BYTES, cuda_stream(be));
        if (status == CUBLAS_STATUS_SUCCESS)
            *done = true;
        else if (status != CUBLAS_STATUS_NOT_SUPPORTED &&
                 status != CUBLAS_STATUS_INVALID_VALUE)
            KD_GO(lt_check(status, "multiplying"));
    }
out:
    call_drop(blas->lt, &call);
    return rc;
}

static cublasLtEpilogue_t with_bias(cublasLtEpilogue_t e, bool bias)
{
    if (!bias)
        return e;
    return e == CUBLASLT_EPILOGUE_DEFAULT
               ? CUBLASLT_EPILOGUE_BIAS
               : (cublasLtEpilogue_t)(e | CUBLASLT_EPILOGUE_BIAS);
}

/* The whole of G in one call, where the library's activations are ours. */
static bool fuse(const struct kd_gemm *g, struct product *p)
{
    if (g->act == KD_ACT_RELU && !g->pre.data) { /* the library's form with `pre` keeps
                                                    signs only */
        p->epilogue = CUBLASLT_EPILOGUE_RELU;
        return true;
    }
    if (g->act != KD_ACT_GELU_NEW || g->c.dtype != KD_BF16)
        return false;
    p->epilogue = CUBLASLT_EPILOGUE_GELU;
    if (!g->pre.data)
        return true;
    if (g->pre.dtype != KD_BF16 || g->pre.ld % 8 || alignment(g->pre.data) < 16)
        return false;
    p->epilogue = CUBLASLT_EPILOGUE_GELU_AUX;
    p->aux = g->pre;
    return true;
}

/* *BIAS = the bias of G in the type of the output. */
static int bias_for(struct kd_backend *be, const struct kd_gemm *g, enum kd_dtype dtype,
                    const void **bias)
{
    void *copy;

    *bias = g->bias;
    if (!g->bias || dtype == KD_F32)
        return KD_OK;
    *bias = g->bias_rounded;
    if (*bias)
        return KD_OK;
    KD_TRY(cuda_scratch(be, (size_t)g->c.cols * sizeof(uint16_t), &copy));
    *bias = copy;
    return cuda_round(be, g->bias, copy, g->c.cols);
}

static int run_product(struct kd_backend *be, const struct kd_gemm *g,
                       struct product *p)
{
    /* where the value before the activation is wanted, it is made there */
    const struct kd_mat d = g->pre.data ? g->pre : g->c;
    struct product fused;
    bool done = false;

    KD_TRY(bias_for(be, g, d.dtype, &p->bias));
    fused = *p;
    if (fuse(g, &fused)) {
        fused.epilogue = with_bias(fused.epilogue, p->bias);
        KD_TRY(multiply(be, &fused, &done));
        if (done)
            return KD_OK;
    }
    p->d = d;
    if (p->beta == 0.0f)
        p->c = d; /* not read, but its layout is checked */
    p->epilogue = with_bias(CUBLASLT_EPILOGUE_DEFAULT, p->bias);
    KD_TRY(multiply(be, p, &done));
    if (!done && p->bias) {
        p->bias = NULL;
        p->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
        KD_TRY(multiply(be, p, &done));
        if (done)
            KD_TRY(cuda_bias_act(be, KD_ACT_NONE, g->bias, d, d));
    }
    if (!done)
        return KD_FAIL(KD_EINTERNAL,
                       "cuBLASLt has no algorithm for a product [%lld, %lld, %lld] of "
                       "%s to %s",
                       (long long)p->m, (long long)p->n, (long long)p->k,
                       kd_dtype_name(p->a.dtype), kd_dtype_name(d.dtype));
    if (g->act == KD_ACT_NONE && !g->pre.data)
        return KD_OK;
    return cuda_bias_act(be, g->act, NULL, d, g->c);
}

/* Nothing to sum: C = act(beta C + bias). */
static int no_product(struct kd_backend *be, const struct kd_gemm *g)
{
    if (g->beta != 1.0f)
        KD_TRY(cuda_scale_mat(be, g->beta, g->c));
    if (g->pre.data)
        KD_TRY(cuda_bias_act(be, KD_ACT_NONE, g->bias, g->c, g->pre));
    if (!g->bias && g->act == KD_ACT_NONE)
        return KD_OK;
    return cuda_bias_act(be, g->act, g->bias, g->c, g->c);
}

/* Columns or rows [FIRST, FIRST + N) of a window. */
static struct kd_mat part(struct kd_mat m, bool columns, int64_t first, int64_t n)
{
    if (!m.data)
        return m;
    m.data = (char *)m.data +
             (columns ? first : first * m.ld) * (int64_t)kd_dtype_bytes(m.dtype);
    *(columns ? &m.cols : &m.rows) = n;
    return m;
}

static struct kd_gemm part_of_m(const struct kd_gemm *g, int64_t first, int64_t m)
{
    struct kd_gemm p = *g;

    p.a = part(g->a, g->trans_a, first, m);
    p.c = part(g->c, false, first, m);
    p.pre = part(g->pre, false, first, m);
    return p;
}

static struct kd_gemm part_of_n(const struct kd_gemm *g, int64_t first, int64_t n)
{
    struct kd_gemm p = *g;

    p.b = part(g->b, !g->trans_b, first, n);
    p.c = part(g->c, true, first, n);
    p.pre = part(g->pre, true, first, n);
    p.bias = g->bias ? g->bias + first : NULL;
    p.bias_rounded = g->bias_rounded ? g->bias_rounded + first : NULL;
    return p;
}

static struct kd_gemm part_of_k(const struct kd_gemm *g, int64_t first, int64_t k)
{
    struct kd_gemm p = *g;

    p.a = part(g->a, !g->trans_a, first, k);
    p.b = part(g->b, g->trans_b, first, k);
    return p;
}

/* The whole pieces of a dimension of SIZE that is contiguous in M; all of it where
 * nothing is won because rows do not begin aligned, or the dimension is short. */
static int64_t pieces(const struct kd_mat *m, int64_t size)
{
    return m->ld % PIECE == 0 && size >= CUT_FROM ? size - size % PIECE : size;
}

/* *FIRST and *SECOND = G in two products, one after the other; false: it is whole. */
static bool cut(const struct kd_gemm *g, int64_t m, int64_t n, int64_t k,
                struct kd_gemm *first, struct kd_gemm *second)
{
    int64_t most;

    if (g->a.dtype != KD_BF16)
        return false;
    if (g->trans_a && (most = pieces(&g->a, m)) < m) {
        *first = part_of_m(g, 0, most);
        *second = part_of_m(g, most, m - most);
        return true;
    }
    if ((most = pieces(&g->c, n)) < n) {
        *first = part_of_n(g, 0, most);
        *second = part_of_n(g, most, n - most);
        return true;
    }
    if (!g->trans_a && (most = pieces(&g->a, k)) < k) { /* C takes up the few first */
        *first = part_of_k(g, most, k - most);
        first->bias = NULL;
        first->act = KD_ACT_NONE;
        first->pre.data = NULL;
        *second = part_of_k(g, 0, most);
        second->beta = 1.0f;
        return true;
    }
    return false;
}

int cuda_gemm(struct kd_backend *be, const struct kd_gemm *g)
{
    struct product p = {
        .m = g->c.rows,
        .n = g->c.cols,
        .k = g->trans_a ? g->a.rows : g->a.cols,
        .a = g->a,
        .b = g->b,
        .c = g->c,
        .d = g->c,
        .trans_a = g->trans_a,
        .trans_b = g->trans_b,
        .alpha = g->alpha,
        .beta = g->beta,
        .tf32 = cuda_of(be)->tf32 && g->a.dtype == KD_F32,
    };
    struct kd_gemm first, second;

    if (p.m == 0 || p.n == 0)
        return KD_OK;
    if (p.k == 0 || p.alpha == 0.0f)
        return no_product(be, g);
    if (cut(g, p.m, p.n, p.k, &first, &second)) {
        KD_TRY(cuda_gemm(be, &first));
        return cuda_gemm(be, &second);
    }
    return run_product(be, g, &p);
}
