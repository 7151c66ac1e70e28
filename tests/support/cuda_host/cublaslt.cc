// SPDX-License-Identifier: Apache-2.0
/* cuBLASLt on the host: column-major products in plain loops, with what the library
 * demands of its callers.
 *
 * It refuses shapes that do not fit each other, and ends the program where a pointer is
 * less aligned than the choice of the algorithm was told.  So that ways around a
 * refusal are tested too, it has no epilogue with a bias for an odd number of rows, and
 * an algorithm chosen for another number of columns does not fit an odd one. */
#include "cublasLt.h"
#include "cuda_runtime.h"

#include <cstdio>
#include <cstdlib>

extern "C" {
#include "cuda_lt.h"
}

struct kd_host_blas {
    int open;
};

struct kd_host_desc {
    bool trans_a, trans_b;
    int epilogue;
    const void *bias;
    void *aux;
    int64_t aux_ld;
};

struct kd_host_layout {
    cudaDataType_t type;
    int64_t rows, cols, ld;
};

struct kd_host_preference {
    uint32_t align[4]; /* a, b, c, d */
};

namespace
{

float get(const void *p, cudaDataType_t type, int64_t i)
{
    if (type == CUDA_R_32F)
        return static_cast<const float *>(p)[i];
    return kd_host_bits<float>((uint32_t) static_cast<const uint16_t *>(p)[i] << 16);
}

void put(void *p, cudaDataType_t type, int64_t i, float v)
{
    if (type == CUDA_R_32F)
        static_cast<float *>(p)[i] = v;
    else
        static_cast<uint16_t *>(p)[i] = kd_host_bf16(v);
}

float gelu_tanh(float x)
{
    return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
}

/* Rows, columns and depth of the product agree. */
bool fits(const kd_host_desc &s, const kd_host_layout &a, const kd_host_layout &b,
          const kd_host_layout &c, const kd_host_layout &d)
{
    const int64_t m = s.trans_a ? a.cols : a.rows, k = s.trans_a ? a.rows : a.cols,
                  n = s.trans_b ? b.rows : b.cols, kb = s.trans_b ? b.cols : b.rows;

    return k == kb && k > 0 && m == d.rows && n == d.cols && c.rows == d.rows &&
           c.cols == d.cols && a.ld >= a.rows && b.ld >= b.rows && c.ld >= c.rows &&
           d.ld >= d.rows && a.type == b.type && c.type == d.type &&
           (a.type == CUDA_R_16BF || d.type == CUDA_R_32F);
}

bool has_epilogue(const kd_host_desc &s, const kd_host_layout &d)
{
    switch (s.epilogue) {
    case CUBLASLT_EPILOGUE_DEFAULT:
    case CUBLASLT_EPILOGUE_RELU:
    case CUBLASLT_EPILOGUE_GELU:
        return true;
    case CUBLASLT_EPILOGUE_BIAS:
    case CUBLASLT_EPILOGUE_RELU_BIAS:
    case CUBLASLT_EPILOGUE_GELU_BIAS:
        return s.bias && d.rows % 2 == 0;
    case CUBLASLT_EPILOGUE_GELU_AUX:
        return s.aux && s.aux_ld % 8 == 0;
    case CUBLASLT_EPILOGUE_GELU_AUX_BIAS:
        return s.bias && d.rows % 2 == 0 && s.aux && s.aux_ld % 8 == 0;
    default:
        return false;
    }
}

void demand_alignment(const void *p, uint64_t bytes)
{
    if (reinterpret_cast<uintptr_t>(p) % bytes == 0)
        return;
    fprintf(stderr, "emulated cuBLASLt: %p is not aligned to %d bytes\n", p,
            (int)bytes);
    abort();
}

float finish(const kd_host_desc &s, cudaDataType_t type, int64_t i, int64_t j, float v)
{
    if (s.epilogue & CUBLASLT_EPILOGUE_BIAS)
        v += get(s.bias, type, i);
    if ((s.epilogue & CUBLASLT_EPILOGUE_GELU_AUX) == CUBLASLT_EPILOGUE_GELU_AUX)
        put(s.aux, type, i + j * s.aux_ld, v);
    if (s.epilogue & CUBLASLT_EPILOGUE_RELU)
        return v > 0.0f ? v : 0.0f;
    return s.epilogue & CUBLASLT_EPILOGUE_GELU ? gelu_tanh(v) : v;
}

struct product {
    kd_host_desc s;
    kd_host_layout la, lb, lc, ld;
    const void *a, *b, *c;
    void *d;
    float scale, keep;
};

void multiply(const product &p)
{
    const auto &[s, la, lb, lc, ld, a, b, c, d, scale, keep] = p;
    const int64_t k = s.trans_a ? la.rows : la.cols;

    for (int64_t j = 0; j < ld.cols; j++) {
        for (int64_t i = 0; i < ld.rows; i++) {
            float sum = 0.0f;

            for (int64_t l = 0; l < k; l++)
                sum += get(a, la.type, s.trans_a ? l + i * la.ld : i + l * la.ld) *
                       get(b, lb.type, s.trans_b ? j + l * lb.ld : l + j * lb.ld);
            sum *= scale;
            if (keep != 0.0f)
                sum += keep * get(c, lc.type, i + j * lc.ld);
            put(d, ld.type, i + j * ld.ld, finish(s, ld.type, i, j, sum));
        }
    }
}

} // namespace

size_t cublasLtGetVersion(void)
{
    return 130000;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = new kd_host_blas{1};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                              const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta,
                              const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t *algo, void *, size_t,
                              cudaStream_t stream)
{
    const product p = {*desc,
                       *a_layout,
                       *b_layout,
                       *c_layout,
                       *d_layout,
                       a,
                       b,
                       c,
                       d,
                       *static_cast<const float *>(alpha),
                       *static_cast<const float *>(beta)};
    const void *pointers[] = {a, b, c, d};

    if (!fits(p.s, p.la, p.lb, p.lc, p.ld))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (p.ld.cols % 2 && algo->data[4] != (uint64_t)p.ld.cols)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < 4; i++)
        demand_alignment(pointers[i], algo->data[i]);
    kd_host_stream_do(stream, [p] { multiply(p); });
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                               cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                               cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                               cublasLtMatmulPreference_t preference, int wanted,
                               cublasLtMatmulHeuristicResult_t results[], int *found)
{
    *found = 0;
    if (wanted < 1 || !fits(*desc, *a, *b, *c, *d) || !has_epilogue(*desc, *d))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    results[0] = {};
    for (int i = 0; i < 4; i++)
        results[0].algo.data[i] = preference->align[i];
    results[0].algo.data[4] = (uint64_t)d->cols;
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t,
                                        cudaDataType_t)
{
    *desc = new kd_host_desc{};
    (*desc)->epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    const bool word = bytes == 8;

    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        desc->trans_a = *static_cast<const cublasOperation_t *>(value) == CUBLAS_OP_T;
        break;
    case CUBLASLT_MATMUL_DESC_TRANSB:
        desc->trans_b = *static_cast<const cublasOperation_t *>(value) == CUBLAS_OP_T;
        break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        desc->epilogue = *static_cast<const cublasLtEpilogue_t *>(value);
        break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        desc->bias = *static_cast<const void *const *>(value);
        return word ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER:
        desc->aux = *static_cast<void *const *>(value);
        return word ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
    case CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD:
        desc->aux_ld = *static_cast<const int64_t *>(value);
        return word ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
    }
    return bytes == 4 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout,
                                          cudaDataType_t type, uint64_t rows,
                                          uint64_t cols, int64_t ld)
{
    *layout = new kd_host_layout{type, (int64_t)rows, (int64_t)cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = new kd_host_preference{{256, 256, 256, 256}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                     cublasLtMatmulPreferenceAttributes_t attribute,
                                     const void *value, size_t bytes)
{
    const int i = (int)attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES;

    if (bytes != (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES ? 8u : 4u))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (i >= 0)
        preference->align[i] = *static_cast<const uint32_t *>(value);
    return CUBLAS_STATUS_SUCCESS;
}

const struct cuda_lt *cuda_lt_load(const char **missing)
{
    static const struct cuda_lt table = {
        cublasLtGetVersion,
        cublasLtCreate,
        cublasLtDestroy,
        cublasLtMatmul,
        cublasLtMatmulAlgoGetHeuristic,
        cublasLtMatmulDescCreate,
        cublasLtMatmulDescDestroy,
        cublasLtMatmulDescSetAttribute,
        cublasLtMatrixLayoutCreate,
        cublasLtMatrixLayoutDestroy,
        cublasLtMatmulPreferenceCreate,
        cublasLtMatmulPreferenceDestroy,
        cublasLtMatmulPreferenceSetAttribute,
    };

    *missing = "";
    return &table;
}
