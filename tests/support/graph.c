/* SPDX-License-Identifier: Apache-2.0 */
/* The bench for differentiable ops.
 *
 * Values live in host memory, so a test may read and change them in place.
 * The differences are taken over the losses that the ops report in float64; the
 * tolerance covers the float32 rounding of the values between them. */
#include "graph.h"

#ifdef GRAPH_ON_DEVICE
#include "mirror_backend.h"
#endif
#include "ref_backend.h"

#include "kdhpc/base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

double graph_noise(uint64_t stream, int64_t i)
{
    uint32_t key[2] = {(uint32_t)stream, 77}, ctr[4] = {(uint32_t)i, 0, 0, 0}, out[4];

    kd_philox(key, ctr, out);
    return (double)out[0] / 2147483648.0 - 1.0;
}

/* Built a second time with GRAPH_ON_CPU, the bench puts the same questions to the CPU
 * backend; with GRAPH_ON_DEVICE to the one of a device, whose memory it sees in a
 * mirror.
 */
#if defined GRAPH_ON_DEVICE
static struct mirror_memory memory;

bool graph_no_device(void)
{
    if (kd_cuda_devices() > 0)
        return false;
    printf("skipped: no device (%s)\n", kd_backend_cuda_library());
    return true;
}

static int backend_new(struct kd_backend **be)
{
    struct kd_backend *inner;

    KD_TRY(kd_backend_cuda(0, &inner));
    return mirror_backend(inner, MIRROR_F32, &memory, be);
}

static void backend_free(struct kd_backend *be)
{
    kd_backend_free(be);
    mirror_memory_free(&memory);
}
#elif defined GRAPH_ON_CPU
bool graph_no_device(void)
{
    return false;
}

static int backend_new(struct kd_backend **be)
{
    return kd_backend_cpu(2, be);
}

static void backend_free(struct kd_backend *be)
{
    kd_backend_free(be);
}
#else
bool graph_no_device(void)
{
    return false;
}

static int backend_new(struct kd_backend **be)
{
    return ref_backend_new(be);
}

static void backend_free(struct kd_backend *be)
{
    assert_int_equal(ref_backend_free(be), 0);
}
#endif

void graph_open(struct graph *g)
{
    memset(g, 0, sizeof(*g));
    assert_int_equal(backend_new(&g->be), KD_OK);
    assert_int_equal(kd_arena_new(g->be, &g->arena), KD_OK);
    assert_int_equal(kd_tape_new(g->be, &g->tape), KD_OK);
    g->ctx = (struct kd_ctx){.be = g->be,
                             .arena = g->arena,
                             .tape = g->tape,
                             .train = true,
                             .seed = 1234,
                             .step = 5};
}

void graph_close(struct graph *g)
{
    for (int i = 0; i < g->n_leaves; i++) {
        g->be->ops->free(g->be, g->leaf[i].v.data);
        if (g->leaf[i].is_param)
            g->be->ops->free(g->be, g->leaf[i].g.data);
    }
    for (int i = 0; i < g->n_device; i++)
        g->be->ops->free(g->be, g->device[i]);
    kd_tape_free(g->tape);
    kd_arena_free(g->arena);
    backend_free(g->be);
}

struct kd_var *graph_leaf(struct graph *g, int64_t rows, int64_t cols, bool is_param,
                          double size)
{
    struct kd_var *v = &g->leaf[g->n_leaves];
    int64_t n = rows * (cols ? cols : 1);
    size_t bytes = sizeof(float) * (size_t)n;

    assert_true(g->n_leaves < GRAPH_MAX_LEAVES);
    *v = (struct kd_var){.needs_grad = true, .is_param = is_param};
    v->v = cols ? kd_tensor2(NULL, KD_F32, rows, cols) : kd_tensor1(NULL, KD_F32, rows);
    assert_int_equal(g->be->ops->alloc(g->be, bytes, &v->v.data), KD_OK);
    for (int64_t i = 0; i < n; i++)
        ((float *)v->v.data)[i] =
            (float)(size * graph_noise((uint64_t)g->n_leaves + 1, i));
    if (is_param) {
        v->g = v->v;
        assert_int_equal(g->be->ops->alloc(g->be, bytes, &v->g.data), KD_OK);
        memset(v->g.data, 0, bytes);
    }
    g->n_leaves++;
    return v;
}

void *graph_upload(struct graph *g, const void *src, size_t bytes)
{
    void *p;

    assert_true(g->n_device < GRAPH_MAX_DEVICE);
    assert_int_equal(g->be->ops->alloc(g->be, bytes, &p), KD_OK);
    assert_int_equal(g->be->ops->upload(g->be, p, src, bytes), KD_OK);
    g->device[g->n_device++] = p;
    return p;
}

struct kd_seqs graph_seqs(struct graph *g, int64_t n, const int64_t *lengths,
                          int64_t *offsets)
{
    struct kd_seqs s = {.n = n, .offsets = offsets};

    offsets[0] = 0;
    for (int64_t i = 0; i < n; i++) {
        offsets[i + 1] = offsets[i] + lengths[i];
        if (lengths[i] > s.max_len)
            s.max_len = lengths[i];
    }
    s.n_rows = offsets[n];
    s.offsets_dev = kd_tensor1(
        graph_upload(g, offsets, sizeof(*offsets) * (size_t)(n + 1)), KD_I64, n + 1);
    return s;
}

double graph_half_square(struct graph *g, struct kd_var *y)
{
    struct kd_tensor t;
    struct kd_var *target;
    double sum;

    assert_int_equal(
        kd_arena_tensor(g->arena, KD_F32, y->v.shape[0], y->v.shape[1], &t), KD_OK);
    for (int64_t i = 0; i < kd_tensor_count(&t); i++)
        ((float *)t.data)[i] = (float)graph_noise(99, i);
    assert_int_equal(kd_var_new(&g->ctx, t, false, &target), KD_OK);
    assert_int_equal(kd_op_hidden_mse(&g->ctx, y, target, NULL, false, 0.5f, &sum),
                     KD_OK);
    return 0.5 * sum;
}

void graph_reset(struct graph *g)
{
    kd_tape_reset(g->tape);
    kd_arena_reset(g->arena);
    for (int i = 0; i < g->n_leaves; i++) {
        struct kd_var *v = &g->leaf[i];

        v->g_live = false;
        if (v->is_param)
            memset(v->g.data, 0, kd_tensor_bytes(&v->g));
        else
            v->g.data = NULL;
    }
}

static double loss_at(struct graph *g, graph_build_fn build, float *x, float value)
{
    float old = *x;
    double loss;

    *x = value;
    kd_arena_reset(g->arena);
    loss = build(g);
    *x = old;
    return loss;
}

static void check_leaf(struct graph *g, graph_build_fn build, const struct kd_var *v,
                       const float *grad, double h, double tol)
{
    float *x = v->v.data;
    double largest = 0.0, worst = 0.0;
    int64_t at = 0;

    for (int64_t i = 0; i < kd_tensor_count(&v->v); i++) {
        float up = (float)(x[i] + h), down = (float)(x[i] - h);
        double d = (loss_at(g, build, &x[i], up) - loss_at(g, build, &x[i], down)) /
                   ((double)up - (double)down);

        largest = fmax(largest, fabs(d));
        if (!(fabs(d - grad[i]) <= worst)) {
            worst = fabs(d - grad[i]);
            at = i;
        }
    }
    if (!(largest > 1e-3) || !(worst <= tol * largest))
        fail_msg("leaf %d: largest gradient %g, worst error %g at element %lld",
                 (int)(v - g->leaf), largest, worst, (long long)at);
}

void graph_check(struct graph *g, graph_build_fn build, double h, double tol)
{
    float *grad[GRAPH_MAX_LEAVES];

    graph_reset(g);
    build(g);
    assert_int_equal(kd_tape_backward(g->tape, NULL, NULL), KD_OK);
    for (int i = 0; i < g->n_leaves; i++) {
        size_t bytes = kd_tensor_bytes(&g->leaf[i].v);

        assert_int_equal(g->leaf[i].pending, 0);
        grad[i] = NULL;
        if (!g->leaf[i].needs_grad)
            continue;
        assert_non_null(g->leaf[i].g.data);
        grad[i] = test_malloc(bytes);
        memcpy(grad[i], g->leaf[i].g.data, bytes);
    }
    graph_reset(g);
    g->ctx.tape = NULL;
    for (int i = 0; i < g->n_leaves; i++) {
        if (grad[i])
            check_leaf(g, build, &g->leaf[i], grad[i], h, tol);
        test_free(grad[i]);
    }
    g->ctx.tape = g->tape;
}
