// SPDX-License-Identifier: Apache-2.0
/* Each instruction of mma.h, and each product that attention makes of them, against its
 * definition: on a GPU, and on the emulator, which has its own bodies of them.  A
 * lane's share of a matrix is written here from the PTX manual's formulas once more, so
 * that a wrong layout is named where it is, before it is a wrong gradient. */
#include "attention_tile.h"

#include <csetjmp>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <vector>

extern "C" {
#include <cmocka.h>
}

namespace
{

/* Host values with a copy on the device. */
template <typename T> class array
{
    T *dev = nullptr;
    std::vector<T> host;

  public:
    explicit array(const std::vector<T> &values) : host(values)
    {
        assert_int_equal(
            cudaMalloc(reinterpret_cast<void **>(&dev), host.size() * sizeof(T)),
            cudaSuccess);
        assert_int_equal(cudaMemcpyAsync(dev, host.data(), host.size() * sizeof(T),
                                         cudaMemcpyHostToDevice, nullptr),
                         cudaSuccess);
        assert_int_equal(cudaStreamSynchronize(nullptr), cudaSuccess);
    }
    array(const array &) = delete;
    array &operator=(const array &) = delete;
    ~array()
    {
        (void)cudaFree(dev);
    }
    T *on_device() const
    {
        return dev;
    }
    const std::vector<T> &back()
    {
        assert_int_equal(cudaGetLastError(), cudaSuccess);
        assert_int_equal(cudaMemcpyAsync(host.data(), dev, host.size() * sizeof(T),
                                         cudaMemcpyDeviceToHost, nullptr),
                         cudaSuccess);
        assert_int_equal(cudaStreamSynchronize(nullptr), cudaSuccess);
        return host;
    }
};

/* Small integers without a pattern: products of them are exact in either type. */
int number(int i)
{
    return (int)((unsigned)(i + 1) * 2654435761u >> 28) - 8;
}

template <typename T> T value(float v);

template <> float value<float>(float v)
{
    return v;
}

template <> bf16 value<bf16>(float v)
{
    return bf16{kd_f32_to_bf16(v)};
}

template <typename T> std::vector<T> numbers(int n, int from)
{
    std::vector<T> x;

    for (int i = 0; i < n; i++)
        x.push_back(value<T>((float)number(from + i)));
    return x;
}

enum { MATRIX_LD = 24 }; /* rows of 48 bytes */

/* OUT [2, 32, 4]: the registers of ldmatrix and of ldmatrix_trans, of the matrices
 * whose element (row, col) has the bits 64 matrix + 8 row + col. */
__global__ void load_matrices(uint32_t *out)
{
    alignas(16) __shared__ bf16 rows[32 * MATRIX_LD];
    const int lane = lane_id();
    uint32_t r[4];

    for (int c = 0; c < 8; c++)
        rows[lane * MATRIX_LD + c].bits = (uint16_t)(8 * lane + c);
    __syncwarp();
    ldmatrix(r, rows + lane * MATRIX_LD);
    for (int i = 0; i < 4; i++)
        out[4 * lane + i] = r[i];
    ldmatrix_trans(r, rows + lane * MATRIX_LD);
    for (int i = 0; i < 4; i++)
        out[128 + 4 * lane + i] = r[i];
}

void matrices_from_shared_memory(void **)
{
    array<uint32_t> out(std::vector<uint32_t>(256, 0xffffffffu));

    KD_LAUNCH(load_matrices, 1, 32, 0, nullptr, out.on_device());
    const auto &got = out.back();

    for (int i = 0; i < 256; i++) {
        const int lane = i / 4 % 32, g = lane / 4, two = lane % 4 * 2,
                  first = 64 * (i % 4);
        const bool trans = i >= 128;
        const uint32_t low = (uint32_t)(first + (trans ? 8 * two + g : 8 * g + two)),
                       high = low + (trans ? 8 : 1);

        assert_int_equal(got[(size_t)i], low | high << 16);
    }
}

/* D [16, 8] = A [16, 16] B [16, 8] + C, the fragments put together element by element:
 * a_i is A(g + 8 (i / 2 % 2), 2 t + i % 2 + 8 (i / 4)), b_i is B(2 t + i % 2 + 8 (i /
 * 2), g), c_i is C(g + 8 (i / 2), 2 t + i % 2). */
__global__ void multiply(const bf16 *a, const bf16 *b, const float *c, float *d)
{
    const int g = lane_id() / 4, t = lane_id() % 4;
    uint32_t ra[4], rb[2];
    float rc[4];

    for (int i = 0; i < 8; i += 2) {
        const bf16 *two = a + (g + 8 * (i / 2 % 2)) * 16 + 2 * t + 8 * (i / 4);

        ra[i / 2] = two[0].bits | (uint32_t)two[1].bits << 16;
    }
    for (int i = 0; i < 4; i += 2) {
        const bf16 *two = b + (2 * t + 8 * (i / 2)) * 8 + g;

        rb[i / 2] = two[0].bits | (uint32_t)two[8].bits << 16;
    }
    for (int i = 0; i < 4; i++)
        rc[i] = c[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2];
    mma(rc, ra, rb[0], rb[1]);
    for (int i = 0; i < 4; i++)
        d[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = rc[i];
}

void product_of_fragments(void **)
{
    array<bf16> a(numbers<bf16>(256, 0)), b(numbers<bf16>(128, 1000));
    array<float> c(numbers<float>(128, 2000)), d(std::vector<float>(128, NAN));

    KD_LAUNCH(multiply, 1, 32, 0, nullptr, a.on_device(), b.on_device(), c.on_device(),
              d.on_device());
    const auto &got = d.back();

    for (int i = 0; i < 128; i++) {
        int want = number(2000 + i);

        for (int k = 0; k < 16; k++)
            want += number(i / 8 * 16 + k) * number(1000 + 8 * k + i % 8);
        assert_true(got[(size_t)i] == (float)want);
    }
}

enum { COPIES = 64 };

/* Every third copy is not valid; 16 bytes each, then 8. */
__global__ void copy(const uint64_t *src, uint64_t *out)
{
    alignas(16) __shared__ uint64_t to[3 * COPIES];
    const int t = (int)threadIdx.x;

    for (int i = 0; i < 3; i++)
        to[3 * t + i] = ~(uint64_t)0;
    __syncthreads();
    cp_async16(to + 2 * t, src + 2 * t, t % 3 != 0);
    cp_async8(to + 2 * COPIES + t, src + 2 * COPIES + t, t % 3 != 0);
    cp_async_wait();
    __syncthreads();
    for (int i = 0; i < 3; i++)
        out[i * COPIES + t] = to[i * COPIES + t];
}

void copies_beside_the_arithmetic(void **)
{
    std::vector<uint64_t> values;

    for (int i = 0; i < 3 * COPIES; i++)
        values.push_back(0x0123456700000001u + (uint64_t)i * 0x100000003u);
    array<uint64_t> src(values), out(std::vector<uint64_t>(3 * COPIES, 7));

    KD_LAUNCH(copy, 1, COPIES, 0, nullptr, src.on_device(), out.on_device());
    const auto &got = out.back();

    for (int i = 0; i < 3 * COPIES; i++) {
        const int thread = i < 2 * COPIES ? i / 2 : i - 2 * COPIES;

        assert_true(got[(size_t)i] == (thread % 3 ? values[(size_t)i] : 0));
    }
}

enum { POWERS = 300 };

/* FLOATS and PAIRS [POWERS] of store_two; POWERS of exp2_fast, the last of -inf. */
__global__ void convert(const float *x, float *floats, bf16 *pairs, float *powers)
{
    for (int i = (int)threadIdx.x; i < POWERS; i += (int)blockDim.x) {
        powers[i] = exp2_fast(i < POWERS - 1 ? x[i] : -INFINITY);
        if (i % 2 == 0) {
            store_two(floats + i, x[i], x[i + 1]);
            store_two(pairs + i, x[i], x[i + 1]);
        }
    }
}

void conversions(void **)
{
    std::vector<float> values;

    for (int i = 0; i < POWERS; i++)
        values.push_back(-125.0f + 0.7312345f * (float)i);
    array<float> x(values), floats(std::vector<float>(POWERS, NAN)),
        powers(std::vector<float>(POWERS, NAN));
    array<bf16> pairs(std::vector<bf16>(POWERS, bf16{0x7fff}));

    KD_LAUNCH(convert, 1, 32, 0, nullptr, x.on_device(), floats.on_device(),
              pairs.on_device(), powers.on_device());
    const auto &single = floats.back(), &power = powers.back();
    const auto &pair = pairs.back();

    for (size_t i = 0; i < POWERS; i++) {
        const double want = i < POWERS - 1 ? exp2((double)values[i]) : 0.0;

        assert_true(single[i] == values[i]);
        assert_int_equal(pair[i].bits, kd_f32_to_bf16(values[i]));
        assert_true(fabs((double)power[i] - want) <= 0x1p-21 * want);
    }
}

/* One warp's products: S [16 MT, 8 NT] = A B^T, and OUT [16 MT, HD] = S B, B [8 NT, HD]
 * with N rows, which are HD_USED long in memory. */
template <typename T, int MT, int NT, int HD, bool KEEP>
__global__ void products(const T *a, const T *b, int n, int hd_used, bool packed,
                         float *s, T *out)
{
    constexpr int LD = TILE_LD<T, HD>;
    KD_DYNAMIC_SHARED(T, shared);
    T *tile = shared + 16 * MT * LD;
    const int g = lane_id() / 4, t = lane_id() % 4;
    float acc[MT][NT][4], sums[MT][HD / 8][4], factor[MT][2];

    tile_load<T, HD, 16 * MT>(shared, {a, hd_used}, 16 * MT, hd_used, packed);
    tile_load<T, HD, 8 * NT>(tile, {b, hd_used}, n, hd_used, packed);
    cp_async_wait();
    __syncthreads();
    if (warp_id() > 0)
        return;
    product_nt(acc, left<T, MT, HD, KEEP>(shared), tile);
    memset(sums, 0, sizeof sums);
    product_nn(sums, acc, tile);
    for (int i = 0; i < 2 * MT; i++) {
        factor[i / 2][i % 2] = 0.5f;
        for (int j = 0; j < 2 * NT; j++)
            s[(g + 8 * i) * 8 * NT + j / 2 * 8 + 2 * t + j % 2] =
                acc[i / 2][j / 2][i % 2 * 2 + j % 2];
    }
    warp_store(shared, sums, factor, {out, hd_used}, 16 * MT, hd_used, packed);
}

template <typename T, int MT, int NT, int HD, bool KEEP>
void check_products(int n, int hd, bool packed)
{
    constexpr int ROWS = 16 * MT, COLS = 8 * NT;
    array<T> a(numbers<T>(ROWS * hd, 0)), b(numbers<T>(COLS * hd, 5000)),
        out(std::vector<T>((size_t)(ROWS * hd), value<T>(NAN)));
    array<float> s(std::vector<float>(ROWS * COLS, NAN));

    KD_LAUNCH((products<T, MT, NT, HD, KEEP>), 1, ATTENTION_THREADS,
              (ROWS + COLS) * (ROW_BYTES<T, HD>), nullptr, a.on_device(), b.on_device(),
              n, hd, packed, s.on_device(), out.on_device());
    const auto &scores = s.back();
    const auto &rows = out.back();

    for (int r = 0; r < ROWS; r++) {
        std::vector<float> row(COLS, 0.0f);

        for (int c = 0; c < n; c++) {
            for (int k = 0; k < hd; k++)
                row[(size_t)c] +=
                    (float)(number(r * hd + k) * number(5000 + c * hd + k));
        }
        for (int c = 0; c < COLS; c++)
            assert_true(scores[(size_t)(r * COLS + c)] == row[(size_t)c]);
        for (int c = 0; c < hd; c++) {
            float sum = 0.0f;

            for (int k = 0; k < n; k++) /* the left operand is rounded on its way */
                sum += (sizeof(T) == 2 ? kd_bf16_to_f32(kd_f32_to_bf16(row[(size_t)k]))
                                       : row[(size_t)k]) *
                       (float)number(5000 + k * hd + c);
            const T want = value<T>(0.5f * sum), got = rows[(size_t)(r * hd + c)];

            assert_memory_equal(&got, &want, sizeof got);
        }
    }
}

void products_of_a_warp(void **)
{
    check_products<bf16, 2, 8, 64, true>(64, 64, true);
    check_products<bf16, 2, 4, 64, false>(29, 56, true);
    check_products<bf16, 1, 2, 16, true>(16, 13, false);
    check_products<bf16, 1, 4, 128, false>(32, 128, true);
    check_products<float, 1, 4, 64, false>(30, 60, true);
    check_products<float, 1, 2, 32, false>(16, 31, false);
}

} // namespace

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matrices_from_shared_memory),
        cmocka_unit_test(product_of_fragments),
        cmocka_unit_test(copies_beside_the_arithmetic),
        cmocka_unit_test(conversions),
        cmocka_unit_test(products_of_a_warp),
    };
    int n = 0;

    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) {
        fprintf(stderr, "skipped: no device\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, nullptr, nullptr);
}
