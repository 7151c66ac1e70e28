/* SPDX-License-Identifier: Apache-2.0 */
/* From a checkpoint's tensors to a model's parameters: names, shapes, values.
 *
 * A checkpoint may hold any one name of a tied tensor, with or without the base model's
 * prefix, and norms may have TensorFlow's words (gamma, beta).  It may lack what is
 * computed or zero, and hold what means nothing here: integer buffers, tables of
 * sinusoids, the head of another task.  Beyond that it must match config.json: what is
 * missing, what is not expected and what has another shape goes into one error.
 *
 * Values are converted once, from the mapped file straight into the slab, by all
 * threads; on a device, through one buffer.  Callers: model_io.c, the modes convert and
 * inspect. */
#include "model_weights.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { NAMES_SHOWN = 4, NAME_BYTES = 256, TASK_VALUES = 1 << 18 };

/* Heads of other tasks on the same base: read by none of ours. */
static const char *const other_heads[] = {"classification_head.dense.weight",
                                          "classification_head.dense.bias",
                                          "classification_head.out_proj.weight",
                                          "classification_head.out_proj.bias",
                                          "qa_outputs.weight",
                                          "qa_outputs.bias",
                                          "classifier.weight",
                                          "classifier.bias"};

enum { N_OTHER_HEADS = sizeof other_heads / sizeof *other_heads };

/* ---- lists of names ---- */

/* A count and its first names, for one line; all of them, if somebody asks. */
struct name_list {
    int64_t n;
    struct kd_str text;
    struct kd_json *all;
};

static int list_name(struct name_list *l, const char *name)
{
    if (l->all)
        KD_TRY(kd_json_append_str(l->all, name));
    if (l->n++ >= NAMES_SHOWN)
        return KD_OK;
    return kd_str_printf(&l->text, "%s%.112s", l->n > 1 ? ", " : "", name);
}

/* Append " (a, b, ...)" or nothing. */
static int list_text(const struct name_list *l, struct kd_str *out)
{
    if (!l->n)
        return KD_OK;
    return kd_str_printf(out, " (%s%s)", l->text.data,
                         l->n > NAMES_SHOWN ? ", ..." : "");
}

/* Let L's names go to the object REPORT, unless it is NULL, as KEY. */
static int list_into(struct name_list *l, struct kd_json *report, const char *key)
{
    if (report)
        KD_TRY(kd_json_set_json(report, key, kd_json_array()));
    l->all = report ? kd_json_get(report, key) : NULL;
    return KD_OK;
}

/* ---- names ---- */

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), k = strlen(end);

    return n >= k && !strcmp(name + n - k, end);
}

/* The tensor called NAME, or what TensorFlow's words make of it. */
static const struct kd_weight *find_name(const struct kd_weights *w, const char *name)
{
    static const char *const words[][2] = {{".weight", ".gamma"}, {".bias", ".beta"}};
    const struct kd_weight *found = kd_weights_find(w, name);
    char buf[NAME_BYTES];

    for (int i = 0; i < 2 && !found; i++) {
        size_t stem = strlen(name) - strlen(words[i][0]);

        if (!ends_with(name, words[i][0]) || stem + strlen(words[i][1]) >= sizeof buf)
            continue;
        memcpy(buf, name, stem);
        memcpy(buf + stem, words[i][1], strlen(words[i][1]) + 1);
        found = kd_weights_find(w, buf);
    }
    return found;
}

/* The tensor that fills parameter INDEX, or NULL; USED marks every name of it. */
static const struct kd_weight *find_tensor(struct kd_model *m, int index,
                                           const struct kd_weights *w, bool *used)
{
    const struct kd_weight *first = NULL, *found;
    char buf[NAME_BYTES];
    const char *name;

    for (int k = 0; (name = kd_model_param_alias(m, index, k, buf, sizeof buf)); k++) {
        found = find_name(w, name);
        if (!found)
            continue;
        used[found - kd_weights_at(w, 0)] = true;
        first = first ? first : found;
    }
    return first;
}

static bool is_other_head(const char *name)
{
    for (int i = 0; i < N_OTHER_HEADS; i++)
        if (!strcmp(name, other_heads[i]))
            return true;
    return false;
}

static int list_unused(struct kd_model *m, const struct kd_weights *w, const bool *used,
                       struct name_list *unexpected, struct name_list *heads)
{
    for (int i = 0; i < kd_weights_count(w); i++) {
        const struct kd_weight *t = kd_weights_at(w, i);

        if (used[i] || !kd_weight_is_float(t, NULL) || kd_model_ignores(m, t->name))
            continue;
        KD_TRY(list_name(is_other_head(t->name) ? heads : unexpected, t->name));
    }
    return KD_OK;
}

/* ---- shapes ---- */

/* A buffer may be shorter than the vocabulary (a table that grew), and a vector may be
 * stored with a leading 1. */
static bool shape_fits(const struct kd_param *p, const struct kd_weight *t)
{
    if (p->kind == KD_PARAM_BUFFER)
        return t->count <= p->count && t->ndim >= 1 &&
               t->shape[t->ndim - 1] == t->count;
    if (t->ndim != p->ndim || t->shape[0] != p->shape[0])
        return false;
    return p->ndim == 1 || t->shape[1] == p->shape[1];
}

static int shape_text(int ndim, const int64_t *shape, struct kd_str *out)
{
    for (int i = 0; i < ndim && i < KD_MAX_DIMS; i++)
        KD_TRY(kd_str_printf(out, "%s%lld", i ? ", " : "", (long long)shape[i]));
    return kd_str_printf(out, "%s", ndim > KD_MAX_DIMS ? ", ..." : "");
}

static int shape_error(const char *dir, const struct kd_param *p,
                       const struct kd_weight *t)
{
    struct kd_str got = {0}, want = {0};
    int rc;

    KD_GO(shape_text(t->ndim, t->shape, &got));
    KD_GO(shape_text(p->ndim, p->shape, &want));
    rc = KD_FAIL(KD_EINPUT, "%s: tensor %s has shape [%s], config.json needs [%s]", dir,
                 p->name, got.data, want.data);
out:
    kd_str_free(&got);
    kd_str_free(&want);
    return rc;
}

/* Whether T can fill P; *OUT is T, or NULL where a formula is as good. */
static int check_tensor(const char *dir, const struct kd_param *p,
                        const struct kd_weight *t, const struct kd_weight **out)
{
    bool fits = t->ndim <= KD_MAX_DIMS && shape_fits(p, t);

    *out = NULL;
    if (p->kind == KD_PARAM_SINUSOID && (!fits || !kd_weight_is_float(t, NULL)))
        return KD_OK;
    KD_TRY(kd_weight_check(t));
    *out = t;
    return fits ? KD_OK : shape_error(dir, p, t);
}

/* ---- the match ---- */

static int report(const char *dir, const struct name_list *missing,
                  const struct name_list *unexpected)
{
    struct kd_str a = {0}, b = {0};
    int rc;

    if (!missing->n && !unexpected->n)
        return KD_OK;
    KD_GO(list_text(missing, &a));
    KD_GO(list_text(unexpected, &b));
    rc = KD_FAIL(KD_EINPUT,
                 "%s: the weights do not match config.json: %lld missing%s, %lld not "
                 "expected%s%s",
                 dir, (long long)missing->n, a.data ? a.data : "",
                 (long long)unexpected->n, b.data ? b.data : "",
                 missing->n > NAMES_SHOWN || unexpected->n > NAMES_SHOWN
                     ? "; --mode inspect lists them all"
                     : "");
out:
    kd_str_free(&a);
    kd_str_free(&b);
    return rc;
}

int kd_model_match(struct kd_model *m, const struct kd_weights *w, const char *dir,
                   const struct kd_weight **of, struct kd_str *heads,
                   struct kd_json *names)
{
    const struct kd_params *ps = kd_model_params(m);
    struct name_list missing = {0}, unexpected = {0}, passed = {0};
    bool *used = NULL;
    int rc;

    KD_TRY(kd_calloc(kd_weights_count(w), sizeof *used, &used));
    KD_GO(list_into(&missing, names, "missing"));
    KD_GO(list_into(&unexpected, names, "unexpected"));
    KD_GO(list_into(&passed, names, "passed_over"));
    for (int i = 0; i < ps->n; i++) {
        const struct kd_param *p = &ps->items[i];
        const struct kd_weight *t = find_tensor(m, i, w, used);

        of[i] = NULL;
        if (t)
            KD_GO(check_tensor(dir, p, t, &of[i]));
        else if (!kd_param_is_constant(p))
            KD_GO(list_name(&missing, p->name));
    }
    KD_GO(list_unused(m, w, used, &unexpected, &passed));
    KD_GO(report(dir, &missing, &unexpected));
    rc = list_text(&passed, heads);
out:
    kd_str_free(&missing.text);
    kd_str_free(&unexpected.text);
    kd_str_free(&passed.text);
    free(used);
    return rc;
}

/* ---- values ---- */

/* A range of one tensor. */
struct task {
    const struct kd_weight *from;
    int64_t first, n;
    float *out;
};

struct task_list {
    struct task *v;
    int64_t n, cap;
};

static int add_tasks(struct task_list *list, const struct kd_weight *t, float *out)
{
    for (int64_t first = 0; first < t->count; first += TASK_VALUES) {
        int64_t n = t->count - first < TASK_VALUES ? t->count - first : TASK_VALUES;

        KD_TRY(kd_grow(&list->v, &list->cap, list->n + 1, sizeof *list->v));
        list->v[list->n++] = (struct task){t, first, n, out + first};
    }
    return KD_OK;
}

static void run_tasks(const struct task_list *list, int n_threads)
{
#pragma omp parallel for num_threads(n_threads) schedule(dynamic, 1)
    for (int64_t i = 0; i < list->n; i++) {
        const struct task *t = &list->v[i];

        kd_weight_to_f32(t->from, t->first, t->n, t->out);
    }
}

/* The slab is the host's memory: all tensors at once. */
static int fill_host(struct kd_params *ps, const struct kd_weight *const *of)
{
    struct task_list list = {0};
    int rc = KD_OK;

    for (int i = 0; i < ps->n; i++)
        if (of[i])
            KD_GO(add_tasks(&list, of[i], ps->values + ps->items[i].offset));
    run_tasks(&list, ps->be->n_threads);
    rc = kd_params_refresh(ps);
out:
    free(list.v);
    return rc;
}

static int fill_param(struct kd_params *ps, int index, const struct kd_weight *t,
                      float *buffer, struct task_list *list)
{
    list->n = 0;
    memset(buffer, 0, (size_t)ps->items[index].count * sizeof *buffer);
    KD_TRY(add_tasks(list, t, buffer));
    run_tasks(list, ps->be->n_threads);
    KD_TRY(kd_params_upload(ps, index, buffer));
    return ps->be->ops->sync(ps->be); /* the buffer is used again */
}

static int fill_device(struct kd_params *ps, const struct kd_weight *const *of)
{
    struct task_list list = {0};
    float *buffer = NULL;
    int64_t largest = 0;
    int rc;

    for (int i = 0; i < ps->n; i++)
        largest = ps->items[i].count > largest ? ps->items[i].count : largest;
    KD_GO(kd_calloc(largest, sizeof *buffer, &buffer));
    for (int i = 0; i < ps->n; i++)
        if (of[i])
            KD_GO(fill_param(ps, i, of[i], buffer, &list));
out:
    free(buffer);
    free(list.v);
    return rc;
}

int kd_model_fill(struct kd_model *m, const struct kd_weight *const *of)
{
    struct kd_params *ps = kd_model_params(m);

    return ps->be->device == KD_CPU ? fill_host(ps, of) : fill_device(ps, of);
}
