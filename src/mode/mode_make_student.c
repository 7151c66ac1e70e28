/* SPDX-License-Identifier: Apache-2.0 */
/* A student that copies layers of a teacher: shrink and fine-tune starts here.
 *
 * The layers come from the tables for the depths, or from explicit lists, which may
 * also repeat layers or make the student deeper.  Everything else is copied whole, and
 * the student keeps the teacher's dtype, tokenizer and generation settings. */
#include "kdhpc/mode/model_io.h"

#include "kdhpc/base/mem.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct student_config {
    const char *teacher;
    int64_t encoder_layers, decoder_layers;
    struct kd_int_list encoder_list, decoder_list;
};

static const struct kd_opt_row rows[] = {
    {.name = "teacher",
     .type = KD_OPT_STR,
     .offset = offsetof(struct student_config, teacher),
     .help = "model directory of the teacher",
     .flags = KD_OPT_REQUIRED},
    {.name = "encoder_layers",
     .type = KD_OPT_INT,
     .offset = offsetof(struct student_config, encoder_layers),
     .min = 1,
     .max = 999,
     .help = "layers of the student's encoder (unset: as many as the teacher's)"},
    {.name = "decoder_layers",
     .type = KD_OPT_INT,
     .offset = offsetof(struct student_config, decoder_layers),
     .min = 1,
     .max = 999,
     .help = "layers of the student's decoder (unset: as many as the teacher's)"},
    {.name = "encoder_layers_to_copy",
     .type = KD_OPT_INT_LIST,
     .offset = offsetof(struct student_config, encoder_list),
     .min = 0,
     .max = 998,
     .help = "teacher encoder layers to copy, from 0 (unset: chosen by depth)"},
    {.name = "decoder_layers_to_copy",
     .type = KD_OPT_INT_LIST,
     .offset = offsetof(struct student_config, decoder_list),
     .min = 0,
     .max = 998,
     .help = "teacher decoder layers to copy, from 0 (unset: chosen by depth)"},
};

static const struct kd_opt_group groups[] = {
    {"Student", rows, sizeof rows / sizeof *rows, 0},
};

static int check_stack(const char *stack, int64_t layers,
                       const struct kd_int_list *list)
{
    if (list->n == 0)
        return KD_FAIL(KD_EUSAGE,
                       "%s_layers_to_copy is empty: a student needs at least "
                       "one layer in each stack",
                       stack);
    if (list->n > 0 && layers != KD_UNSET_INT && layers != list->n)
        return KD_FAIL(KD_EUSAGE, "%s_layers is %lld, but %s_layers_to_copy names %lld",
                       stack, (long long)layers, stack, (long long)list->n);
    return KD_OK;
}

static int check(const struct kd_common *common, void *config)
{
    const struct student_config *c = config;

    (void)common;
    KD_TRY(check_stack("encoder", c->encoder_layers, &c->encoder_list));
    return check_stack("decoder", c->decoder_layers, &c->decoder_list);
}

/* Layers of one stack into *OUT (malloc'ed) by list or by depth. */
static int choose(const char *stack, int64_t layers, const struct kd_int_list *list,
                  int n_teacher, int64_t **out, int *n)
{
    bool in_table = true;
    int rc = KD_OK;

    *n = list->n > 0 ? (int)list->n : layers != KD_UNSET_INT ? (int)layers : n_teacher;
    if (list->n < 0 && *n > n_teacher)
        return KD_FAIL(KD_EUSAGE,
                       "%s_layers is %d, but the teacher has %d: give fewer, or name "
                       "each with %s_layers_to_copy",
                       stack, *n, n_teacher, stack);
    KD_TRY(kd_calloc(*n, sizeof **out, out));
    if (list->n > 0)
        memcpy(*out, list->v, (size_t)*n * sizeof **out);
    else
        rc = kd_layers_to_copy(*n, n_teacher, false, *out, &in_table);
    if (!rc && !in_table)
        kd_info("%s: no table for %d of %d layers, they are spread evenly", stack, *n,
                n_teacher);
    return rc;
}

static int append_list(struct kd_str *s, const int64_t *layers, int n)
{
    for (int i = 0; i < n; i++)
        KD_TRY(kd_str_printf(s, "%s%lld", i ? "," : "", (long long)layers[i]));
    return KD_OK;
}

static int announce(const char *dir, struct kd_model *student, const int64_t *enc,
                    int n_enc, const int64_t *dec, int n_dec)
{
    struct kd_str s = {0};
    int rc;

    KD_GO(kd_str_printf(&s, "encoder layers "));
    KD_GO(append_list(&s, enc, n_enc));
    KD_GO(kd_str_printf(&s, ", decoder layers "));
    KD_GO(append_list(&s, dec, n_dec));
    kd_info("%s: a student of %lld parameters with the teacher's %s", dir,
            (long long)kd_params_count(kd_model_params(student)), s.data);
out:
    kd_str_free(&s);
    return rc;
}

static int make_local(const struct student_config *c, const char *dir,
                      struct kd_model *teacher, struct kd_model **out)
{
    const struct kd_arch *a = kd_model_arch(teacher);
    int64_t *enc = NULL, *dec = NULL;
    int n_enc, n_dec, rc;

    KD_GO(
        choose("encoder", c->encoder_layers, &c->encoder_list, a->n_enc, &enc, &n_enc));
    KD_GO(
        choose("decoder", c->decoder_layers, &c->decoder_list, a->n_dec, &dec, &n_dec));
    KD_GO(kd_student_new(teacher, enc, n_enc, dec, n_dec, out));
    rc = announce(dir, *out, enc, n_enc, dec, n_dec);
out:
    free(enc);
    free(dec);
    return rc;
}

static int run_make_student(struct kd_run *run, void *config)
{
    const struct student_config *c = config;
    const char *dir = run->common->output_dir;
    struct kd_model *teacher = NULL, *student = NULL;
    struct kd_json *generation = NULL;
    enum kd_dtype dtype;
    int rc;

    KD_GO(kd_model_load(run, c->teacher, &teacher));
    KD_ALL_GO(run->comm, kd_model_dir_dtype(c->teacher, &dtype));
    KD_ALL_GO(run->comm, kd_generation_json(c->teacher, &generation));
    KD_ALL_GO(run->comm, make_local(c, dir, teacher, &student));
    rc = kd_model_save(run, student, dir, dtype, c->teacher, generation);
out:
    kd_json_free(generation);
    kd_model_free(student);
    kd_model_free(teacher);
    return rc;
}

static const char *const outputs[] = {"config.json", "generation_config.json",
                                      "model.safetensors", NULL};

const struct kd_mode kd_mode_make_student = {
    .name = "make-student",
    .summary = "make a student by copying layers of a teacher",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .config_bytes = sizeof(struct student_config),
    .outputs = outputs,
    .needs_output_dir = true,
    .check = check,
    .run = run_make_student,
};
