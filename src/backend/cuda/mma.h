/* SPDX-License-Identifier: Apache-2.0 */
/* The instructions that attention is built of: copies into shared memory that run
 * beside the arithmetic, loads of matrix fragments, products of fragments.
 *
 * Fragments are those of mma.m16n8k16 for bfloat16 (PTX ISA, "Matrix Fragments").
 * With g = lane / 4 and t = lane % 4 a lane holds, two values to a register,
 *   A [16, 16]  (g, 2t) (g + 8, 2t) (g, 2t + 8) (g + 8, 2t + 8)
 *   B [16, 8]   (2t, g) (2t + 8, g), pairs along k
 *   C [16, 8]   (g, 2t) (g, 2t + 1) (g + 8, 2t) (g + 8, 2t + 1), one float each.
 * Where there is no device, mma_host.h does the same between the emulator's lanes, and
 * delays copies until they are waited for. */
#ifndef KDHPC_CUDA_MMA_H
#define KDHPC_CUDA_MMA_H

#include "launch.h"

#ifdef KD_CUDA_HOST
#include "mma_host.h"
#else

__device__ __forceinline__ uint32_t shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* 16 (8, 4) bytes from global SRC to shared DST, zeros unless VALID; aligned.  They are
 * there behind cp_async_wait, for this thread. */
__device__ __forceinline__ void cp_async16(void *dst, const void *src, bool valid)
{
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(dst)),
        "l"(src), "r"(valid ? 16 : 0)
        : "memory");
}

__device__ __forceinline__ void cp_async8(void *dst, const void *src, bool valid)
{
    asm volatile(
        "cp.async.ca.shared.global [%0], [%1], 8, %2;\n" ::"r"(shared_address(dst)),
        "l"(src), "r"(valid ? 8 : 0)
        : "memory");
}

__device__ __forceinline__ void cp_async4(void *dst, const void *src, bool valid)
{
    asm volatile(
        "cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(shared_address(dst)),
        "l"(src), "r"(valid ? 4 : 0)
        : "memory");
}

/* All of this thread's copies so far are done. */
__device__ __forceinline__ void cp_async_wait()
{
    asm volatile("cp.async.wait_all;\n" ::: "memory");
}

/* Four 8 x 8 matrices of bfloat16: lane 8 i + j gives the address of row j of matrix i;
 * r[i] = its elements (g, 2t) and (g, 2t + 1); with TRANS (2t, g) and (2t + 1, g). */
__device__ __forceinline__ void ldmatrix(uint32_t (&r)[4], const bf16 *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_trans(uint32_t (&r)[4], const bf16 *row)
{
    asm volatile(
        "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
        : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
        : "r"(shared_address(row))
        : "memory");
}

/* C += A B, sums in float32. */
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* Two values in one register, the first in the low half. */
__device__ __forceinline__ uint32_t two_bf16(float low, float high)
{
    const __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
    uint32_t bits;

    memcpy(&bits, &two, sizeof bits);
    return bits;
}

/* p[0], p[1] = a, b; two values are aligned. */
__device__ __forceinline__ void store_two(bf16 *p, float a, float b)
{
    *reinterpret_cast<uint32_t *>(p) = two_bf16(a, b);
}

__device__ __forceinline__ void store_two(float *p, float a, float b)
{
    *reinterpret_cast<float2 *>(p) = make_float2(a, b);
}

/* 2^x to 2 units in the last place; 0 for -inf. */
__device__ __forceinline__ float exp2_fast(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
    return y;
}

#endif
#endif
