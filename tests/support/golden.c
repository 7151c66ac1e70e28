/* SPDX-License-Identifier: Apache-2.0 */
/* Reading of golden fixtures for tests of the model and what stands on it.  Tensors are
 * matched by their exact names here; the rules for aliases have tests of their own. */
#include "golden.h"

#include "source_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void ok(int rc)
{
    if (rc)
        fail_msg("%s", kd_error_get()->text);
}

#ifdef GOLDEN_BF16
const enum kd_dtype golden_dtype = KD_BF16;
#else
const enum kd_dtype golden_dtype = KD_F32;
#endif

#ifdef GOLDEN_ON_DEVICE
bool golden_no_device(void)
{
    if (kd_cuda_devices() > 0)
        return false;
    printf("skipped: no device (%s)\n", kd_backend_cuda_library());
    return true;
}

struct kd_backend *golden_backend(void)
{
    struct kd_backend *be;

    ok(kd_backend_cuda(0, &be));
    return be;
}
#else
bool golden_no_device(void)
{
    return false;
}

struct kd_backend *golden_backend(void)
{
    struct kd_backend *be;

    ok(kd_backend_cpu(2, &be));
    return be;
}
#endif

double golden_bound(double float32, double bfloat16)
{
    return golden_dtype == KD_F32 ? float32 : bfloat16;
}

float *golden_floats(struct kd_backend *be, const float *p, int64_t n)
{
    float *out = malloc((size_t)n * sizeof *out);

    assert_non_null(out);
    ok(be->ops->download(be, out, p, (size_t)n * sizeof *out));
    return out;
}

static void path_of(char *out, size_t cap, const char *dir, const char *name)
{
    ok(kd_format(out, cap, "%s/%s", dir, name));
}

struct kd_model *golden_model(struct kd_backend *be, const char *dir)
{
    struct kd_json *config;
    struct kd_weights *file;
    struct kd_model *m;
    char path[512];

    path_of(path, sizeof path, dir, "config.json");
    ok(kd_json_parse_file(path, &config));
    ok(kd_model_new(be, golden_dtype, config, &m));
    kd_json_free(config);
    ok(kd_weights_open(dir, &file));
    for (int i = 0; i < kd_model_params(m)->n; i++) {
        const struct kd_param *p = &kd_model_params(m)->items[i];
        float *values = malloc((size_t)p->count * sizeof *values);
        const struct kd_weight *t = kd_weights_find(file, p->name);

        if (t) {
            assert_int_equal(t->count, p->count);
            kd_weight_to_f32(t, 0, t->count, values);
            ok(kd_params_upload(kd_model_params(m), i, values));
        } else {
            assert_true(kd_param_is_constant(p));
        }
        free(values);
    }
    kd_weights_close(file);
    return m;
}

/* A copy of BYTES at SRC in backend memory, freed with G. */
static void *on_device(struct golden *g, const void *src, size_t bytes)
{
    void *p;

    assert_true(g->n_device < GOLDEN_DEVICE);
    ok(g->be->ops->alloc(g->be, bytes, &p));
    ok(g->be->ops->upload(g->be, p, src, bytes));
    g->device[g->n_device++] = p;
    return p;
}

/* Rows of the JSON list of lists as ragged ids and positions. */
static struct kd_seqs rows_of(struct golden *g, const struct kd_json *rows,
                              int64_t **offsets, int32_t **ids, int32_t **pos)
{
    struct kd_seqs s = {.n = kd_json_len(rows)};
    int64_t at = 0;

    *offsets = calloc((size_t)s.n + 1, sizeof **offsets);
    for (int64_t i = 0; i < s.n; i++) {
        int64_t n = kd_json_len(kd_json_at(rows, i));

        (*offsets)[i + 1] = (*offsets)[i] + n;
        s.max_len = n > s.max_len ? n : s.max_len;
    }
    s.n_rows = (*offsets)[s.n];
    s.offsets = *offsets;
    s.offsets_dev = kd_tensor1(
        on_device(g, *offsets, (size_t)(s.n + 1) * sizeof **offsets), KD_I64, s.n + 1);
    *ids = calloc((size_t)s.n_rows, sizeof **ids);
    *pos = calloc((size_t)s.n_rows, sizeof **pos);
    for (int64_t i = 0; i < s.n; i++)
        for (int64_t k = 0; k < kd_json_len(kd_json_at(rows, i)); k++, at++) {
            (*ids)[at] =
                (int32_t)kd_json_as_int(kd_json_at(kd_json_at(rows, i), k), -1);
            (*pos)[at] = (int32_t)k;
        }
    return s;
}

void golden_open(const char *name, struct golden *g)
{
    char dir[400], path[512];
    int64_t *offsets;
    int32_t *pos;
    size_t src, tgt; /* bytes of rows */

    memset(g, 0, sizeof *g);
    ok(kd_format(dir, sizeof dir, "%s/tests/golden/%s", kd_test_source_dir(), name));
    g->be = golden_backend();
    ok(kd_arena_new(g->be, &g->arena));
    g->model = golden_model(g->be, dir);
    path_of(path, sizeof path, dir, "teacher");
    g->teacher = golden_model(g->be, path);
    path_of(path, sizeof path, dir, "expect");
    ok(kd_weights_open(path, &g->expect));
    path_of(path, sizeof path, dir, "golden.json");
    ok(kd_json_parse_file(path, &g->facts));
    g->batch.src = rows_of(g, kd_json_get(g->facts, "source"), &g->src_offsets,
                           &g->src_ids, &g->src_pos);
    rows_of(g, kd_json_get(g->facts, "labels"), &offsets, &g->labels, &pos);
    free(offsets);
    free(pos);
    g->batch.tgt = rows_of(g, kd_json_get(g->facts, "decoder"), &g->tgt_offsets,
                           &g->dec_ids, &g->tgt_pos);
    src = (size_t)g->batch.src.n_rows * sizeof(int32_t);
    tgt = (size_t)g->batch.tgt.n_rows * sizeof(int32_t);
    g->batch.src_ids = on_device(g, g->src_ids, src);
    g->batch.src_pos = on_device(g, g->src_pos, src);
    g->batch.dec_ids = on_device(g, g->dec_ids, tgt);
    g->batch.labels = on_device(g, g->labels, tgt);
    g->batch.tgt_pos = on_device(g, g->tgt_pos, tgt);
}

void golden_close(struct golden *g)
{
    for (int i = 0; i < g->n_device; i++)
        g->be->ops->free(g->be, g->device[i]);
    free(g->src_offsets);
    free(g->tgt_offsets);
    free(g->src_ids);
    free(g->src_pos);
    free(g->dec_ids);
    free(g->labels);
    free(g->tgt_pos);
    kd_weights_close(g->expect);
    kd_json_free(g->facts);
    kd_model_free(g->model);
    kd_model_free(g->teacher);
    kd_arena_free(g->arena);
    kd_backend_free(g->be);
}

float *golden_tensor(const struct golden *g, const char *name, int64_t *n)
{
    const struct kd_weight *t = kd_weights_find(g->expect, name);
    float *out;

    if (!t)
        fail_msg("no tensor %s in the fixture", name);
    out = malloc((size_t)t->count * sizeof *out);
    kd_weight_to_f32(t, 0, t->count, out);
    if (n)
        *n = t->count;
    return out;
}

double golden_number(const struct golden *g, const char *object, const char *key)
{
    const struct kd_json *j = object ? kd_json_get(g->facts, object) : g->facts;

    assert_true(kd_json_has(j, key));
    return kd_json_num(j, key, 0);
}
