/* SPDX-License-Identifier: Apache-2.0 */
/* Knowledge distillation: a student learns from a teacher's logits and hidden states
 * and from the labels.  This file decides the set-up: who the student is, which layers
 * are matched, and whether one encoder serves both. */
#include "training.h"

#include "kdhpc/base/mem.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct kd_config {
    const char *teacher, *model;
    int64_t student_encoder_layers, student_decoder_layers;
    double alpha_ce, alpha_mlm, alpha_hid, temperature;
    bool supervise_forward, normalize_hidden;
    struct kd_int_list hidden_matches, encoder_hidden_matches;
    struct kd_training_options training;
};

#define ROW(field, type_, def_, min_, max_, help_)                                     \
    {                                                                                  \
        .name = #field, .type = type_, .offset = offsetof(struct kd_config, field),    \
        .def = def_, .min = min_, .max = max_, .help = help_                           \
    }

static const struct kd_opt_row rows[] = {
    {.name = "teacher",
     .type = KD_OPT_STR,
     .offset = offsetof(struct kd_config, teacher),
     .help = "teacher's model directory",
     .flags = KD_OPT_REQUIRED},
    ROW(model, KD_OPT_STR, NULL, 0, 0,
        "student's model directory (default: made from the teacher)"),
    ROW(student_encoder_layers, KD_OPT_INT, NULL, 1, KD_NO_MAX,
        "encoder layers of a student made from the teacher (default: all)"),
    ROW(student_decoder_layers, KD_OPT_INT, NULL, 1, KD_NO_MAX,
        "decoder layers of a student made from the teacher (default: all)"),
    ROW(alpha_ce, KD_OPT_FLOAT, "0.8", 0, KD_NO_MAX, "weight of the teacher's logits"),
    ROW(alpha_mlm, KD_OPT_FLOAT, "0.2", 0, KD_NO_MAX, "weight of the labels"),
    ROW(alpha_hid, KD_OPT_FLOAT, "0", 0, KD_NO_MAX, "weight of the hidden states"),
    ROW(temperature, KD_OPT_FLOAT, "2.0", 1e-3, KD_NO_MAX,
        "temperature of both softmaxes in the logit term"),
    ROW(supervise_forward, KD_OPT_BOOL, "false", 0, 0,
        "match hidden states by the supervise table, not the copied layers"),
    ROW(normalize_hidden, KD_OPT_BOOL, "false", 0, 0,
        "standardise each position's vector before comparing hidden states"),
    ROW(hidden_matches, KD_OPT_INT_LIST, NULL, 0, KD_NO_MAX,
        "teacher layer for each student decoder layer"),
    ROW(encoder_hidden_matches, KD_OPT_INT_LIST, NULL, 0, KD_NO_MAX,
        "teacher layer for each student encoder layer"),
};

static const struct kd_opt_group groups[] = {
    {"Distillation", rows, sizeof rows / sizeof *rows, 0},
    {"Training", kd_training_rows, 0, offsetof(struct kd_config, training)},
};

/* ---- the student ---- */

/* Copy lists of a student with N layers of the teacher's NT. */
static int copy_list(int64_t wanted, int nt, bool first_n, const char *stack,
                     int64_t **list, int *n)
{
    bool in_table;

    *n = wanted == KD_UNSET_INT ? nt : (int)wanted;
    if (*n > nt)
        return KD_FAIL(
            KD_EUSAGE,
            "--student_%s_layers %d: the teacher has %d; a deeper student needs "
            "--model",
            stack, *n, nt);
    KD_TRY(kd_calloc(*n, sizeof **list, list));
    KD_TRY(kd_layers_to_copy(*n, nt, first_n, *list, &in_table));
    if (!in_table)
        kd_info("student %s: %d of %d layers is outside the table", stack, *n, nt);
    return KD_OK;
}

static int student_from_teacher(const struct kd_config *c, struct kd_model *teacher,
                                struct kd_model **out)
{
    const struct kd_arch *t = kd_model_arch(teacher);
    bool first_n = c->training.compat == KD_COMPAT_SEQ2SEQ;
    int64_t *enc = NULL, *dec = NULL;
    int n_enc, n_dec, rc = KD_OK;

    KD_GO(copy_list(c->student_encoder_layers, t->n_enc, first_n, "encoder", &enc,
                    &n_enc));
    KD_GO(copy_list(c->student_decoder_layers, t->n_dec, first_n, "decoder", &dec,
                    &n_dec));
    KD_GO(kd_student_new(teacher, enc, n_enc, dec, n_dec, out));
out:
    free(enc);
    free(dec);
    return rc;
}

/* ---- which layers are matched ---- */

struct lists {
    int64_t *enc, *dec; /* copied layers of the student, or n = -1 */
    int n_enc, n_dec;
};

/* Layers that supervise one stack: the option, the supervise table, or the copied
 * layers. */
static int match_list(const struct kd_config *c, const struct kd_int_list *given,
                      const char *option, int ns, int nt, const int64_t *copied,
                      int n_copied, int64_t **out)
{
    bool in_table = true;

    KD_TRY(kd_calloc(ns, sizeof **out, out));
    if (given->n >= 0) {
        if (given->n != ns)
            return KD_FAIL(KD_EUSAGE, "--%s has %lld entries, the student %d layers",
                           option, (long long)given->n, ns);
        memcpy(*out, given->v, (size_t)ns * sizeof **out);
    } else if (c->supervise_forward) {
        KD_TRY(kd_layers_to_supervise(ns, nt, *out, &in_table));
        if (!in_table)
            kd_info("%d student layers of %d are outside the supervise table", ns, nt);
    } else if (n_copied == ns) {
        memcpy(*out, copied, (size_t)ns * sizeof **out);
    } else {
        return KD_FAIL(
            KD_EUSAGE,
            "the student's config has no init_metadata that says which layers it "
            "copied: give --%s or --supervise_forward",
            option);
    }
    for (int k = 0; k < ns; k++)
        if ((*out)[k] < 0 || (*out)[k] >= nt)
            return KD_FAIL(KD_EUSAGE,
                           "--%s: layer %lld, but the teacher has layers 0 to %d",
                           option, (long long)(*out)[k], nt - 1);
    return KD_OK;
}

static int choose_matches(const struct kd_config *c, struct kd_model *student,
                          struct kd_model *teacher, int64_t **enc, int64_t **dec,
                          struct kd_objective_options *o)
{
    const struct kd_arch *s = kd_model_arch(student), *t = kd_model_arch(teacher);
    struct lists copied = {0};
    int rc = KD_OK;

    if (c->alpha_hid == 0)
        return KD_OK;
    if (s->d_model != t->d_model)
        return KD_FAIL(KD_EINPUT,
                       "hidden states differ in width (student %lld, teacher %lld) and "
                       "cannot be compared: set --alpha_hid 0",
                       (long long)s->d_model, (long long)t->d_model);
    KD_GO(kd_student_copied(student, &copied.enc, &copied.n_enc, &copied.dec,
                            &copied.n_dec));
    KD_GO(match_list(c, &c->hidden_matches, "hidden_matches", s->n_dec, t->n_dec,
                     copied.dec, copied.n_dec, dec));
    o->dec = (struct kd_matches){s->n_dec, *dec};
    if (s->n_enc != t->n_enc) {
        KD_GO(match_list(c, &c->encoder_hidden_matches, "encoder_hidden_matches",
                         s->n_enc, t->n_enc, copied.enc, copied.n_enc, enc));
        o->enc = (struct kd_matches){s->n_enc, *enc};
    }
out:
    free(copied.enc);
    free(copied.dec);
    return rc;
}

/* ---- one encoder for both ---- */

/* Whether the student is no copy of this teacher's layers, like a small model of the
 * same kind and vocabulary. */
static bool other_base(const struct kd_config *c, struct kd_model *student,
                       struct kd_model *teacher)
{
    if (!c->model || strcmp(c->model, c->teacher) == 0)
        return false;
    return kd_model_arch(student)->d_model != kd_model_arch(teacher)->d_model ||
           !kd_json_has(kd_model_config(student), "init_metadata");
}

/* Whether the student's encoder is frozen and equal, bit for bit, to the teacher's. */
static int encoder_shared(struct kd_model *student, struct kd_model *teacher, bool *out)
{
    struct kd_params *s = kd_model_params(student), *t = kd_model_params(teacher);
    const struct kd_arch *sa = kd_model_arch(student), *ta = kd_model_arch(teacher);
    float *a = NULL, *b = NULL;
    int rc = KD_OK;

    *out = kd_model_encoder_frozen(student) && sa->n_enc == ta->n_enc &&
           sa->n_heads_enc == ta->n_heads_enc;
    for (int i = 0; i < s->n && *out; i++) {
        const struct kd_param *p = &s->items[i];
        int j = kd_params_find(t, p->name);

        if (!(p->part & (KD_PART_ENCODER | KD_PART_SHARED)))
            continue;
        *out = j >= 0 && t->items[j].count == p->count;
        if (!*out)
            break;
        KD_GO(kd_calloc(p->count, sizeof *a, &a));
        KD_GO(kd_calloc(p->count, sizeof *b, &b));
        KD_GO(kd_params_download(s, i, a));
        KD_GO(kd_params_download(t, j, b));
        *out = memcmp(a, b, (size_t)p->count * sizeof *a) == 0;
        free(a);
        free(b);
        a = b = NULL;
    }
out:
    free(a);
    free(b);
    return rc;
}

static int set_up(const struct kd_config *c, struct kd_training_setup *setup,
                  int64_t **enc, int64_t **dec)
{
    struct kd_objective_options *o = &setup->objective;

    kd_model_freeze_all(setup->teacher);
    *o = (struct kd_objective_options){
        .weight = {[KD_TERM_CE] = c->alpha_ce,
                   [KD_TERM_MLM] = c->alpha_mlm,
                   [KD_TERM_HID_ENC] = c->alpha_hid,
                   [KD_TERM_HID_DEC] = c->alpha_hid},
        .temperature = c->temperature,
        .label_smoothing = c->training.label_smoothing,
        .normalize_hidden = c->normalize_hidden,
        .compat = c->training.compat == KD_COMPAT_SEQ2SEQ,
        .other_base = other_base(c, setup->student, setup->teacher)};
    KD_TRY(choose_matches(c, setup->student, setup->teacher, enc, dec, o));
    KD_TRY(encoder_shared(setup->student, setup->teacher, &o->share_encoder));
    if (o->share_encoder)
        kd_info("the frozen encoder runs once for teacher and student");
    return KD_OK;
}

static int run_kd(struct kd_run *run, void *config)
{
    struct kd_config *c = config;
    struct kd_training_setup setup = {.teacher_dir = c->teacher,
                                      .model_dir = c->model ? c->model : c->teacher};
    int64_t *enc = NULL, *dec = NULL;
    int rc = KD_OK;

    KD_GO(kd_model_load(run, c->teacher, &setup.teacher));
    if (c->model)
        KD_GO(kd_model_load(run, c->model, &setup.student));
    else
        KD_ALL_GO(run->comm, student_from_teacher(c, setup.teacher, &setup.student));
    kd_training_prepare(&c->training, setup.student);
    KD_ALL_GO(run->comm, set_up(c, &setup, &enc, &dec));
    KD_GO(kd_train(run, &c->training, &setup));
out:
    kd_model_free(setup.student);
    kd_model_free(setup.teacher);
    free(enc);
    free(dec);
    return rc;
}

static int check(const struct kd_common *common, void *config)
{
    struct kd_config *c = config;

    (void)common;
    if (c->model && (c->student_encoder_layers != KD_UNSET_INT ||
                     c->student_decoder_layers != KD_UNSET_INT))
        return KD_FAIL(
            KD_EUSAGE,
            "--model is a finished student: --student_encoder_layers and "
            "--student_decoder_layers make one from the teacher; give one or the "
            "other");
    return kd_training_check(&c->training);
}

static bool resumes(const void *config)
{
    return ((const struct kd_config *)config)->training.resume != NULL;
}

const struct kd_mode kd_mode_kd = {
    .name = "kd",
    .summary = "distil a teacher into a student: logits, labels, hidden states",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .config_bytes = sizeof(struct kd_config),
    .outputs = kd_training_outputs,
    .needs_output_dir = true,
    .stops = true,
    .check = check,
    .resumes = resumes,
    .computes = true,
    .run = run_kd,
};
