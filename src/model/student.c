/* SPDX-License-Identifier: Apache-2.0 */
/* Students: which teacher layers to copy or to be supervised by, and the copying.
 *
 * The tables are those of the distillation scripts that made DistilBART: keep the first
 * and the last layer and spread the rest.  Depths outside the tables follow the same
 * idea by a formula.  Everything that is not a layer (embeddings, positions, norms,
 * final_logits_bias) is copied whole.  Called by make-student and kd. */
#include "model_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { TABLE_MAX = 12 };

struct layer_row {
    int teacher, student;
    signed char layers[TABLE_MAX];
};

static const struct layer_row copy_rows[] = {
    {12, 1, {0}},
    {12, 2, {0, 6}},
    {12, 3, {0, 6, 11}},
    {12, 4, {0, 4, 8, 11}},
    {12, 6, {0, 2, 4, 7, 9, 11}},
    {12, 9, {0, 1, 2, 4, 5, 7, 9, 10, 11}},
    {16, 1, {0}},
    {16, 2, {0, 15}},
    {16, 3, {0, 8, 15}},
    {16, 4, {0, 5, 10, 15}},
    {16, 6, {0, 3, 6, 9, 12, 15}},
    {16, 8, {0, 2, 4, 6, 8, 10, 12, 15}},
    {16, 9, {0, 1, 3, 5, 7, 9, 11, 13, 15}},
    {16, 12, {0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 15}},
    {6, 1, {0}},
    {6, 2, {0, 5}},
    {6, 3, {0, 2, 5}},
    {6, 4, {0, 1, 3, 5}},
};

static const struct layer_row supervise_rows[] = {
    {6, 1, {5}},
    {6, 2, {3, 5}},
    {6, 3, {1, 4, 5}},
    {6, 4, {1, 2, 4, 5}},
    {12, 1, {11}},
    {12, 2, {5, 11}},
    {12, 3, {3, 7, 11}},
    {12, 6, {1, 3, 5, 8, 10, 11}},
    {16, 1, {15}},
    {16, 4, {4, 9, 12, 15}},
    {16, 8, {1, 3, 5, 7, 9, 11, 13, 15}},
};

/* The row for a pair of depths into OUT; equal depths are the identity. */
static bool look_up(const struct layer_row *rows, size_t n_rows, int n_student,
                    int n_teacher, int64_t *out)
{
    if (n_student == n_teacher) {
        for (int k = 0; k < n_student; k++)
            out[k] = k;
        return true;
    }
    for (size_t i = 0; i < n_rows; i++)
        if (rows[i].teacher == n_teacher && rows[i].student == n_student) {
            for (int k = 0; k < n_student; k++)
                out[k] = rows[i].layers[k];
            return true;
        }
    return false;
}

static int check_depths(int n_student, int n_teacher)
{
    if (n_student < 1)
        return KD_FAIL(KD_EUSAGE, "a student needs at least one layer in each stack");
    if (n_student > n_teacher)
        return KD_FAIL(KD_EUSAGE,
                       "a student of %d layers cannot be chosen from a teacher of %d: "
                       "give fewer layers, or list the layers explicitly",
                       n_student, n_teacher);
    return KD_OK;
}

/* a / b, rounded half up; both positive. */
static int64_t round_div(int64_t a, int64_t b)
{
    return (2 * a + b) / (2 * b);
}

int kd_layers_to_copy(int n_student, int n_teacher, bool first_n, int64_t *out,
                      bool *in_table)
{
    KD_TRY(check_depths(n_student, n_teacher));
    *in_table = look_up(copy_rows, sizeof copy_rows / sizeof *copy_rows, n_student,
                        n_teacher, out);
    for (int k = 0; !*in_table && k < n_student; k++)
        out[k] = first_n ? k
                 : n_student == 1
                     ? 0
                     : round_div((int64_t)k * (n_teacher - 1), n_student - 1);
    return KD_OK;
}

int kd_layers_to_supervise(int n_student, int n_teacher, int64_t *out, bool *in_table)
{
    KD_TRY(check_depths(n_student, n_teacher));
    *in_table = look_up(supervise_rows, sizeof supervise_rows / sizeof *supervise_rows,
                        n_student, n_teacher, out);
    if (!*in_table && n_student == 1) {
        out[0] = n_teacher - 1;
        *in_table = true; /* any teacher's rule for one layer */
    }
    for (int k = 0; !*in_table && k < n_student; k++)
        out[k] = round_div((int64_t)(k + 1) * n_teacher, n_student) - 1;
    return KD_OK;
}

/* ---- copying ---- */

static int json_list(const int64_t *layers, int n, struct kd_json **out)
{
    struct kd_json *list = kd_json_array();

    if (!list)
        return KD_FAIL(KD_ENOMEM, "no memory for a list of layers");
    for (int i = 0; i < n; i++) {
        int rc = kd_json_append_int(list, layers[i]);

        if (rc) {
            kd_json_free(list);
            return rc;
        }
    }
    *out = list;
    return KD_OK;
}

static int set_list(struct kd_json *object, const char *key, const int64_t *layers,
                    int n)
{
    struct kd_json *list = NULL;

    KD_TRY(json_list(layers, n, &list));
    return kd_json_set_json(object, key, list);
}

static int set_init_metadata(struct kd_json *config, const char *teacher_type,
                             const int64_t *enc, int n_enc, const int64_t *dec,
                             int n_dec)
{
    struct kd_json *meta = kd_json_object();
    int rc;

    if (!meta)
        return KD_FAIL(KD_ENOMEM, "no memory for init_metadata");
    KD_GO(kd_json_set_str(meta, "teacher_type", teacher_type));
    KD_GO(set_list(meta, "copied_encoder_layers", enc, n_enc));
    KD_GO(set_list(meta, "copied_decoder_layers", dec, n_dec));
    return kd_json_set_json(config, "init_metadata", meta);
out:
    kd_json_free(meta);
    return rc;
}

static int edit_config(struct kd_json *config, const struct kd_model *teacher,
                       const int64_t *enc, int n_enc, const int64_t *dec, int n_dec)
{
    KD_TRY(kd_json_set_int(config, teacher->family->enc_layers_key, n_enc));
    KD_TRY(kd_json_set_int(config, teacher->family->dec_layers_key, n_dec));
    if (kd_json_has(config, "num_hidden_layers")) /* mirrors the encoder */
        KD_TRY(kd_json_set_int(config, "num_hidden_layers", n_enc));
    return set_init_metadata(config, teacher->arch.model_type, enc, n_enc, dec, n_dec);
}

static int check_list(const char *stack, const int64_t *layers, int n, int n_teacher)
{
    if (n < 1)
        return KD_FAIL(KD_EUSAGE, "a student needs at least one %s layer", stack);
    for (int i = 0; i < n; i++)
        if (layers[i] < 0 || layers[i] >= n_teacher)
            return KD_FAIL(KD_EUSAGE, "%s layer %lld to copy: the teacher has 0 .. %d",
                           stack, (long long)layers[i], n_teacher - 1);
    return KD_OK;
}

static int copy_param(struct kd_model *student, int index, struct kd_model *teacher,
                      const int64_t *layers)
{
    struct kd_place place = student->places[index];
    const struct kd_param *to = &student->params.items[index], *from;
    char name[KD_PARAM_NAME_MAX];
    int i;

    if (place.layer >= 0)
        place.layer = (int)layers[place.layer];
    KD_TRY(kd_model_slot_name(teacher->family, place, name));
    i = kd_params_find(&teacher->params, name);
    if (i < 0)
        return KD_FAIL(KD_EINTERNAL, "the teacher has no parameter %s", name);
    from = &teacher->params.items[i];
    return student->be->ops->copy(student->be, student->params.values + to->offset,
                                  teacher->params.values + from->offset,
                                  (size_t)to->count * sizeof(float));
}

int kd_student_new(struct kd_model *teacher, const int64_t *enc_layers, int n_enc,
                   const int64_t *dec_layers, int n_dec, struct kd_model **out)
{
    struct kd_json *config = NULL;
    struct kd_model *m = NULL;
    int rc = KD_OK;

    KD_TRY(check_list("encoder", enc_layers, n_enc, teacher->arch.n_enc));
    KD_TRY(check_list("decoder", dec_layers, n_dec, teacher->arch.n_dec));
    config = kd_json_copy(teacher->config);
    if (!config)
        return KD_FAIL(KD_ENOMEM, "no memory for a student's config.json");
    KD_GO(edit_config(config, teacher, enc_layers, n_enc, dec_layers, n_dec));
    KD_GO(kd_model_new(teacher->be, teacher->params.dtype, config, &m));
    for (int i = 0; i < m->params.n; i++)
        KD_GO(copy_param(m, i, teacher,
                         m->places[i].stack == KD_ENC ? enc_layers : dec_layers));
    KD_GO(kd_params_refresh(&m->params));
    KD_GO(teacher->be->ops->sync(teacher->be));
    *out = m;
    m = NULL;
out:
    kd_model_free(m);
    kd_json_free(config);
    return rc;
}

/* ---- init_metadata ---- */

static int read_list(const struct kd_json *meta, const char *key, int64_t **out, int *n)
{
    const struct kd_json *list = meta ? kd_json_get(meta, key) : NULL;

    *out = NULL;
    *n = -1;
    if (!list || !kd_json_is_array(list))
        return KD_OK;
    KD_TRY(kd_calloc(kd_json_len(list), sizeof **out, out));
    *n = (int)kd_json_len(list);
    for (int i = 0; i < *n; i++)
        (*out)[i] = kd_json_as_int(kd_json_at(list, i), -1);
    return KD_OK;
}

int kd_student_copied(struct kd_model *m, int64_t **enc, int *n_enc, int64_t **dec,
                      int *n_dec)
{
    const struct kd_json *meta = kd_json_get(m->config, "init_metadata");
    int rc;

    KD_TRY(read_list(meta, "copied_encoder_layers", enc, n_enc));
    rc = read_list(meta, "copied_decoder_layers", dec, n_dec);
    if (rc) {
        free(*enc);
        *enc = NULL;
    }
    return rc;
}
