/* SPDX-License-Identifier: Apache-2.0 */
/* The instructions of mma.h between the emulator's lanes, with the lane layouts that
 * the PTX manual gives them.
 *
 * A copy into shared memory is delayed as long as a device may delay it: its target is
 * poisoned at once and filled when the thread waits.  Left behind at the end of a block
 * it ends the program. */
#ifndef KD_HOST_MMA_H
#define KD_HOST_MMA_H

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

struct kd_host_copy {
    void *dst;
    const void *src;
    int bytes;
    bool valid;
    uint3 block;
};

inline std::vector<kd_host_copy> &kd_host_copies()
{
    static std::vector<kd_host_copy> of_thread[1024];
    std::vector<kd_host_copy> &mine = of_thread[threadIdx.x];

    if (!mine.empty() &&
        (mine[0].block.x != blockIdx.x || mine[0].block.y != blockIdx.y)) {
        fprintf(stderr, "emulated device: a copy that nobody waited for\n");
        abort();
    }
    return mine;
}

inline void kd_host_copy_later(void *dst, const void *src, int bytes, bool valid)
{
    kd_host_aligned(dst, (size_t)bytes);
    kd_host_aligned(src, (size_t)bytes);
    kd_host_copies().push_back({dst, src, bytes, valid, blockIdx});
    memset(dst, 0xff, (size_t)bytes);
}

inline void cp_async16(void *dst, const void *src, bool valid)
{
    kd_host_copy_later(dst, src, 16, valid);
}

inline void cp_async8(void *dst, const void *src, bool valid)
{
    kd_host_copy_later(dst, src, 8, valid);
}

inline void cp_async4(void *dst, const void *src, bool valid)
{
    kd_host_copy_later(dst, src, 4, valid);
}

inline void cp_async_wait()
{
    for (const kd_host_copy &c : kd_host_copies()) {
        if (c.valid)
            memcpy(c.dst, c.src, (size_t)c.bytes);
        else
            memset(c.dst, 0, (size_t)c.bytes);
    }
    kd_host_copies().clear();
}

/* Lane 8 i + j gives row j of matrix i; register i = elements (lane / 4, 2 (lane % 4))
 * and the next in its row, or of the transposed matrix. */
inline void kd_host_ldmatrix(uint32_t (&r)[4], const bf16 *row, bool trans)
{
    static const bf16 *rows[32][32];
    const bf16 **all = rows[threadIdx.x / 32];
    const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;

    kd_host_aligned(row, 16);
    all[lane] = row;
    __syncwarp();
    for (int i = 0; i < 4; i++) {
        const bf16 *const *m = all + 8 * i;
        const uint32_t low = trans ? m[2 * t][g].bits : m[g][2 * t].bits,
                       high = trans ? m[2 * t + 1][g].bits : m[g][2 * t + 1].bits;

        r[i] = low | high << 16;
    }
    __syncwarp();
}

inline void ldmatrix(uint32_t (&r)[4], const bf16 *row)
{
    kd_host_ldmatrix(r, row, false);
}

inline void ldmatrix_trans(uint32_t (&r)[4], const bf16 *row)
{
    kd_host_ldmatrix(r, row, true);
}

inline float kd_host_half(uint32_t two, int high)
{
    return __uint_as_float(high ? two & 0xffff0000u : two << 16);
}

/* Element (row, k) of A from the registers of all lanes, and (k, col) of B. */
inline float kd_host_a(const uint32_t (*regs)[6], int row, int k)
{
    return kd_host_half(regs[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2], k % 2);
}

inline float kd_host_b(const uint32_t (*regs)[6], int k, int col)
{
    return kd_host_half(regs[col * 4 + k % 8 / 2][4 + k / 8], k % 2);
}

inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    static uint32_t regs[32][32][6];
    uint32_t(*all)[6] = regs[threadIdx.x / 32];
    const int lane = (int)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};

    memcpy(all[lane], mine, sizeof mine);
    __syncwarp();
    for (int i = 0; i < 4; i++) {
        for (int k = 0; k < 16; k++)
            c[i] += kd_host_a(all, g + i / 2 * 8, k) * kd_host_b(all, k, 2 * t + i % 2);
    }
    __syncwarp();
}

inline uint32_t two_bf16(float low, float high)
{
    return kd_host_bf16(low) | (uint32_t)kd_host_bf16(high) << 16;
}

inline void store_two(bf16 *p, float a, float b)
{
    kd_host_aligned(p, 4);
    p[0] = bf16_of(a);
    p[1] = bf16_of(b);
}

inline void store_two(float *p, float a, float b)
{
    kd_host_aligned(p, 8);
    p[0] = a;
    p[1] = b;
}

inline float exp2_fast(float x)
{
    return exp2f(x);
}

#endif
