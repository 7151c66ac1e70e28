/* SPDX-License-Identifier: Apache-2.0 */
/* Support for tests of backend ops: guarded buffers, and the same call on backends that
 * must give the same bits.
 *
 * Those are the CPU with 1, 2 and 3 threads, or, with OT_CUDA, three CUDA backends
 * behind mirrors, so that one source tests both: the emulator's devices with
 * OT_CUDA_HOST (they run threads in different orders), else three times the first GPU.
 * The environment's OT_TYPE asks CUDA for another type of activations: "bfloat16", or
 * "mixed" for products of bfloat16 with float32 results.  Inputs are then drawn from
 * the bfloat16 numbers, so that only roundings inside and at the end are new, and
 * ot_near allows for those.
 *
 * A buffer has 64 bytes of a known pattern on either side, checked when the test ends.
 * OT_TESTS and OT_SKIP are patterns ("*" and "?") of the names of tests to run and to
 * leave out, for tools that make a test a hundred times slower.
 *
 * OT_EACH_BACKEND runs a block for each backend; ot_same then demands the bits of the
 * first run. */
#ifndef KDHPC_OP_TEST_H
#define KDHPC_OP_TEST_H

#include "kdhpc/base/rng.h"
#include "mirror_backend.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { OT_BACKENDS = 3, OT_MAX_BUFFERS = 1024, OT_GUARD = 64 };

struct ot_buffer {
    unsigned char *base;
    size_t bytes;
    void *first_bits; /* contents after the run on the first backend */
};

struct ot {
    struct kd_backend *be[OT_BACKENDS];
    enum mirror_type type;
    struct mirror_memory memory; /* of the mirrors */
    struct ot_buffer buffers[OT_MAX_BUFFERS];
    int n_buffers;
    uint64_t draws;
};

static struct ot ot;

#define OT_EACH_BACKEND(be_)                                                           \
    for (int ot_i = 0; ot_i < OT_BACKENDS; ot_i++)                                     \
        for (struct kd_backend *be_ = ot.be[ot_i]; be_; be_ = NULL)

#ifdef OT_CUDA
static inline int ot_make(int i)
{
    const char *type = getenv("OT_TYPE");
    struct kd_backend *device = NULL;
    int index = 0;

    if (kd_cuda_devices() == 0) {
        fprintf(stderr, "skipped: no device (%s)\n", kd_backend_cuda_library());
        exit(77);
    }
#ifdef OT_CUDA_HOST
    index = i;
#endif
    ot.type = !type || !strcmp(type, "float32") ? MIRROR_F32
              : !strcmp(type, "mixed")          ? MIRROR_MIXED
                                                : MIRROR_BF16;
    if (kd_backend_cuda(index, &device))
        return -1;
    return mirror_backend(device, ot.type, &ot.memory, &ot.be[i]);
}

/* The backend itself, and the name of its library. */
static inline struct kd_backend *ot_inner(int i)
{
    return mirror_inner(ot.be[i]);
}

static inline const char *ot_library(void)
{
    return kd_backend_cuda_library();
}
#else
static inline int ot_make(int i)
{
    return kd_backend_cpu(i + 1, &ot.be[i]);
}

static inline struct kd_backend *ot_inner(int i)
{
    return ot.be[i];
}

static inline const char *ot_library(void)
{
    return kd_backend_cpu_library();
}
#endif

static inline int ot_setup(void **state)
{
    (void)state;
    memset(&ot, 0, sizeof ot);
    for (int i = 0; i < OT_BACKENDS; i++) {
        if (ot_make(i)) {
            fprintf(stderr, "no backend: %s\n", kd_error_get()->text);
            return -1;
        }
    }
    return 0;
}

/* Before main; NULL is no filter. */
__attribute__((constructor)) static inline void ot_filter(void)
{
    cmocka_set_test_filter(getenv("OT_TESTS"));
    cmocka_set_skip_filter(getenv("OT_SKIP"));
}

/* Checks every guard and frees everything. */
static inline int ot_teardown(void **state)
{
    int broken = 0;

    (void)state;
    for (int i = 0; i < ot.n_buffers; i++) {
        struct ot_buffer *b = &ot.buffers[i];

        for (int k = 0; k < OT_GUARD; k++)
            broken += b->base[k] != 0xA5 || b->base[OT_GUARD + b->bytes + k] != 0xA5;
        free(b->first_bits);
        ot.be[0]->ops->free(ot.be[0], b->base);
    }
    for (int i = 0; i < OT_BACKENDS; i++)
        kd_backend_free(ot.be[i]);
    mirror_memory_free(&ot.memory);
    if (broken)
        fprintf(stderr, "%d bytes beside a buffer were written\n", broken);
    return broken ? -1 : 0;
}

static inline void *ot_bytes(size_t bytes)
{
    struct ot_buffer *b = &ot.buffers[ot.n_buffers];
    void *base;

    assert_true(ot.n_buffers < OT_MAX_BUFFERS);
    assert_int_equal(ot.be[0]->ops->alloc(ot.be[0], bytes + 2 * OT_GUARD, &base), 0);
    assert_int_equal((uintptr_t)base % 64, 0);
    *b = (struct ot_buffer){base, bytes, NULL};
    memset(b->base, 0xA5, bytes + 2 * OT_GUARD);
    ot.n_buffers++;
    return b->base + OT_GUARD;
}

/* X as the backends' activations can hold it. */
static inline float ot_value(double x)
{
    return ot.type == MIRROR_F32 ? (float)x : kd_bf16_to_f32(kd_f32_to_bf16((float)x));
}

/* N such floats, normal with deviation SCALE. */
static inline float *ot_normal(int64_t n, double scale)
{
    float *x = ot_bytes((size_t)n * sizeof *x);

    ot.draws++;
    for (int64_t i = 0; i < n; i++)
        x[i] = ot_value(scale * kd_rng_normal(1, KD_RNG_TEST, ot.draws, (uint64_t)i));
    return x;
}

/* N floats of NaN: whoever reads them before writing shows. */
static inline float *ot_nan(int64_t n)
{
    float *x = ot_bytes((size_t)n * sizeof *x);

    for (int64_t i = 0; i < n; i++)
        x[i] = NAN;
    return x;
}

static inline float *ot_copy(const float *src, int64_t n)
{
    float *x = ot_bytes((size_t)n * sizeof *x);

    memcpy(x, src, (size_t)n * sizeof *x);
    return x;
}

/* N ids in [0, below). */
static inline int32_t *ot_ids(int64_t n, int64_t below)
{
    int32_t *x = ot_bytes((size_t)n * sizeof *x);

    ot.draws++;
    for (int64_t i = 0; i < n; i++)
        x[i] = (int32_t)(kd_rng_u64(1, KD_RNG_TEST, ot.draws, (uint64_t)i) %
                         (uint64_t)below);
    return x;
}

static inline uint64_t *ot_keys(int64_t n)
{
    uint64_t *x = ot_bytes((size_t)n * sizeof *x);

    ot.draws++;
    for (int64_t i = 0; i < n; i++)
        x[i] = kd_rng_u64(1, KD_RNG_TEST, ot.draws, (uint64_t)i);
    return x;
}

/* The contents of the guarded buffer at P are the same bits as in the first call. */
static inline void ot_same(const void *p)
{
    for (int i = 0; i < ot.n_buffers; i++) {
        struct ot_buffer *b = &ot.buffers[i];

        if (b->base + OT_GUARD != p)
            continue;
        if (b->first_bits) {
            assert_memory_equal(p, b->first_bits, b->bytes);
        } else {
            b->first_bits = malloc(b->bytes + 1);
            assert_non_null(b->first_bits);
            memcpy(b->first_bits, p, b->bytes);
        }
        return;
    }
    fail_msg("not a guarded buffer");
}

/* |got - want| <= bound * (floor + |want|); 1/128 more where results are bfloat16 with
 * its 8 bits: rounded at the end and once more on the way. */
static inline void ot_near(double got, double want, double bound, double floor_,
                           const char *what, int64_t i)
{
    bound += ot.type == MIRROR_BF16 ? 0x1p-7 : 0.0;
    if (!(fabs(got - want) <= bound * (floor_ + fabs(want))))
        fail_msg("%s[%lld]: got %.9g, want %.9g", what, (long long)i, got, want);
}

/* Whether element (row, col) is dropped, from the definition. */
static inline double ot_drop(const struct kd_dropout *d, uint32_t site, int64_t row,
                             int64_t col)
{
    uint32_t key[2] = {(uint32_t)d->seed ^ (uint32_t)(d->seed >> 32), d->step};
    uint32_t ctr[4] = {(uint32_t)(col / 8), (uint32_t)d->row_keys[row],
                       (uint32_t)(d->row_keys[row] >> 32), site};
    uint32_t word[4], lane;

    if (d->p == 0.0f)
        return 1.0;
    kd_philox(key, ctr, word);
    lane = word[col % 8 / 2] >> (16 * (col % 2)) & 0xffff;
    return lane < (uint32_t)lround((double)d->p * 65536.0) ? 0.0
                                                           : 1.0 / (1.0 - (double)d->p);
}

/* Ragged sequences of the given lengths; offsets are a guarded buffer. */
static inline struct kd_seqs ot_seqs(int64_t n, const int64_t *lengths)
{
    int64_t *offsets = ot_bytes((size_t)(n + 1) * sizeof *offsets);
    struct kd_seqs s = {.n = n, .offsets = offsets};

    offsets[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        offsets[i + 1] = offsets[i] + lengths[i];
        s.max_len = lengths[i] > s.max_len ? lengths[i] : s.max_len;
    }
    s.n_rows = offsets[n];
    s.offsets_dev = kd_tensor1(offsets, KD_I64, n + 1);
    return s;
}

#endif
