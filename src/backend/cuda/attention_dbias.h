/* SPDX-License-Identifier: Apache-2.0 */
/* The gradient of what distances add to scores: sums of the scores' gradients along
 * diagonals, over all queries, keys and sequences.
 *
 * A warp adds its tile along the diagonals in float32, 16 MT terms at most, by way of
 * its own memory.  These sums meet in a table of 64-bit integers, in fixed point:
 * integer addition knows no order, so atomics leave the same bits for the same call.
 *
 * A score's gradient is p (m dout . v - dout . out), below 2 keep hd max|dout| max|v|,
 * and a query has one key at a distance, so times the queries' number that bounds every
 * entry and what it is on the way.  With 2^b the next power of two, integers count
 * 2^(b-62): each addition is off by 2^(b-63) at most, and an entry sees one or two for
 * 16 queries.  Two powers of two are lost to the maxima, so by calculation 2^17 queries
 * of heads of 128 cost 2^-21 max|dout| max|v| where all the errors agree, and 2^-28
 * where they do not.
 *
 * Sums beyond that or not finite, from values that are not, make all of it NaN. */
#ifndef KDHPC_CUDA_ATTENTION_DBIAS_H
#define KDHPC_CUDA_ATTENTION_DBIAS_H

#include "attention_bias.h"

enum { ENTRY_BITS = 62, MOST_EXPONENT = 126 };

/* What is beside the table of integers. */
struct dbias_state {
    unsigned largest[2]; /* bits of the largest |dout| and |v| */
    unsigned failed;
};

struct dbias_sums {
    unsigned long long *of; /* [H, n], two's complement; NULL: not wanted */
    struct dbias_state *state;
    int bits; /* what the maxima's exponents lack to bound an entry */
};

/* Integers count 2^-result. */
__device__ inline int dbias_exponent(const struct dbias_sums &d)
{
    int exponent = ENTRY_BITS - d.bits;

#pragma unroll
    for (int i = 0; i < 2; i++) /* below 2^(biased exponent - 126) */
        exponent -= (int)(d.state->largest[i] >> 23) - 126;
    exponent = exponent < MOST_EXPONENT ? exponent : MOST_EXPONENT;
    return exponent > -MOST_EXPONENT ? exponent : -MOST_EXPONENT;
}

__device__ inline float power_of_two(int exponent)
{
    return __int_as_float((exponent + 127) << 23);
}

/* SUM, of scores at DISTANCE under HEAD, joins the table.  Distances beside it have no
 * scores. */
__device__ inline void dbias_add(const struct dbias_sums &sums,
                                 const struct distances &d, int head, int distance,
                                 float sum, float scale)
{
    const float scaled = sum * scale;
    const int at = d.zero + distance;

    if (at < 0 || at >= d.n || sum == 0.0f)
        return;
    if (fabsf(scaled) < 0x1p62f)
        atomicAdd(sums.of + (int64_t)head * d.n + at,
                  (unsigned long long)llrintf(scaled));
    else
        sums.state->failed = 1;
}

/* What add_diagonals has of its own for each warp, eight rows. */
template <int MT, int NT> constexpr int DIAGONAL_COLS = 8 * (NT + 2 * MT - 1);
template <int MT, int NT> constexpr int DIAGONAL_FLOATS = 8 * DIAGONAL_COLS<MT, NT>;

/* Adds DS along its diagonals; element [0, 0] is at DISTANCE.  Row tiles of eight lie
 * one above the other in OWN, each moved to where its diagonals belong, so that lanes
 * meet in the same bank only for the same row. */
template <int MT, int NT>
__device__ __forceinline__ void
add_diagonals(const struct dbias_sums &sums, const struct distances &d, float scale,
              int head, int distance, float *own, const float (&ds)[MT][NT][4])
{
    constexpr int COLS = DIAGONAL_COLS<MT, NT>;
    float *mine = own + lane_id() / 4 * COLS + lane_id() % 4 * 2;

#pragma unroll
    for (int c = 1 - 2 * MT; c < NT; c++) { /* column tile less row tile */
        float x = 0.0f, y = 0.0f;

#pragma unroll
        for (int i = 0; i < 2 * MT; i++) {
            if (c + i >= 0 && c + i < NT) {
                x += ds[i / 2][c + i][i % 2 * 2];
                y += ds[i / 2][c + i][i % 2 * 2 + 1];
            }
        }
        store_two(mine + 8 * (c + 2 * MT - 1), x, y);
    }
    __syncwarp();
#pragma unroll 1
    for (int i = lane_id(); i < COLS + 7; i += WARP) {
        float sum = 0.0f;

#pragma unroll
        for (int g = 0; g < 8; g++) {
            const int col = i + g - 7;

            sum += col >= 0 && col < COLS ? own[g * COLS + col] : 0.0f;
        }
        dbias_add(sums, d, head, distance + i - (16 * MT - 1), sum, scale);
    }
    __syncwarp();
}

/* *LARGEST = the most of itself and the |x| of X [rows, cols], as bits: what is not a
 * number is more than all. */
template <typename T>
__global__ void __launch_bounds__(ATTENTION_THREADS)
    largest_kernel(window<const T> x, int64_t rows, int cols, bool packed,
                   unsigned *largest)
{
    const int64_t each = ceil_div(cols, 8), n = rows * each,
                  stride = (int64_t)gridDim.x * ATTENTION_THREADS;
    unsigned most = 0;

    for (int64_t i = (int64_t)blockIdx.x * ATTENTION_THREADS + (int)threadIdx.x; i < n;
         i += stride) {
        const int c = (int)(i % each) * 8;
        float v[8];

        load_eight(x.data + i / each * x.ld + c, v, packed, cols - c);
        for (int e = 0; e < 8; e++) {
            const unsigned bits = __float_as_uint(fabsf(v[e]));

            most = bits > most ? bits : most;
        }
    }
    for (int lane = WARP / 2; lane > 0; lane /= 2) {
        const unsigned other = __shfl_xor_sync(0xffffffffu, most, lane);

        most = other > most ? other : most;
    }
    if (lane_id() == 0)
        atomicMax(largest, most);
}

/* DBIAS [n, H] += the sums. */
static __global__ void __launch_bounds__(ATTENTION_THREADS)
    dbias_kernel(const struct dbias_sums sums, const struct distances d, float *dbias)
{
    const int64_t i = (int64_t)blockIdx.x * ATTENTION_THREADS + (int)threadIdx.x,
                  head = i % d.n_heads, at = i / d.n_heads;

    if (at >= d.n)
        return;
    const bool failed = sums.state->failed || sums.state->largest[0] >= 0x7f800000u ||
                        sums.state->largest[1] >= 0x7f800000u;
    const double unit = power_of_two(-dbias_exponent(sums));

    dbias[i] +=
        failed ? NAN : (float)((double)(long long)sums.of[head * d.n + at] * unit);
}

inline size_t dbias_bytes(const struct kd_attention *a)
{
    return (size_t)(kd_tensor_count(&a->bias.table)) * sizeof(unsigned long long) +
           sizeof(struct dbias_state);
}

template <typename T>
int dbias_largest(struct kd_backend *be, struct kd_mat m, unsigned *largest)
{
    const int64_t most = 8 * (int64_t)cuda_of(be)->n_sm,
                  blocks = ceil_div(m.rows * ceil_div(m.cols, 8), ATTENTION_THREADS);

    if (blocks == 0)
        return KD_OK;
    KD_LAUNCH((largest_kernel<T>), (unsigned)(blocks < most ? blocks : most),
              ATTENTION_THREADS, 0, cuda_stream(be), window_of<const T>(m), m.rows,
              (int)m.cols, m.cols % 8 == 0 && pack_fits<T>(m.data, m.ld), largest);
    return cuda_check_launch("attention_back (largest)");
}

/* SUMS at SCRATCH of dbias_bytes, empty, in the unit that suits DOUT and the values. */
template <typename T>
int dbias_begin(struct kd_backend *be, const struct kd_attention *a, struct kd_mat dout,
                void *scratch, struct dbias_sums *sums)
{
    const float keep = cuda_drops(&a->dropout) ? 1.0f / (1.0f - a->dropout.p) : 1.0f;

    KD_TRY(cuda_check(cudaMemsetAsync(scratch, 0, dbias_bytes(a), cuda_stream(be)),
                      "zeroing sums by distance"));
    sums->of = static_cast<unsigned long long *>(scratch);
    sums->state = reinterpret_cast<struct dbias_state *>(
        sums->of + kd_tensor_count(&a->bias.table));
    frexpf(2.0f * keep * (float)a->head_dim * (float)a->q.rows, &sums->bits);
    KD_TRY(dbias_largest<T>(be, dout, &sums->state->largest[0]));
    return dbias_largest<T>(be, a->v, &sums->state->largest[1]);
}

inline int dbias_finish(struct kd_backend *be, const struct dbias_sums &sums,
                        const struct distances &d, float *dbias)
{
    KD_LAUNCH(dbias_kernel,
              (unsigned)ceil_div((int64_t)d.n * d.n_heads, ATTENTION_THREADS),
              ATTENTION_THREADS, 0, cuda_stream(be), sums, d, dbias);
    return cuda_check_launch("attention_back (distances)");
}

#endif
