/* SPDX-License-Identifier: Apache-2.0 */
/* Supervised fine-tuning: the objective's mlm term alone, on gold or pseudo-labels. */
#include "training.h"

#include <stddef.h>

struct sft_config {
    const char *model;
    struct kd_training_options training;
};

static const struct kd_opt_row rows[] = {
    {.name = "model",
     .type = KD_OPT_STR,
     .offset = offsetof(struct sft_config, model),
     .help = "model directory to start from",
     .flags = KD_OPT_REQUIRED},
};

static const struct kd_opt_group groups[] = {
    {"Model", rows, sizeof rows / sizeof *rows, 0},
    {"Training", kd_training_rows, 0, offsetof(struct sft_config, training)},
};

static int run_sft(struct kd_run *run, void *config)
{
    struct sft_config *c = config;
    struct kd_model *m = NULL;
    int rc = KD_OK;

    KD_GO(kd_model_load(run, c->model, &m));
    kd_training_prepare(&c->training, m);
    struct kd_training_setup setup = {
        .student = m,
        .model_dir = c->model,
        .objective = {.weight = {[KD_TERM_MLM] = 1},
                      .temperature = 1,
                      .label_smoothing = c->training.label_smoothing,
                      .compat = c->training.compat == KD_COMPAT_SEQ2SEQ}};

    KD_GO(kd_train(run, &c->training, &setup));
out:
    kd_model_free(m);
    return rc;
}

static int check(const struct kd_common *common, void *config)
{
    (void)common;
    return kd_training_check(&((struct sft_config *)config)->training);
}

static bool resumes(const void *config)
{
    return ((const struct sft_config *)config)->training.resume != NULL;
}

const struct kd_mode kd_mode_sft = {
    .name = "sft",
    .summary = "fine-tune a model on a corpus or on pseudo-labels",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .config_bytes = sizeof(struct sft_config),
    .outputs = kd_training_outputs,
    .needs_output_dir = true,
    .stops = true,
    .check = check,
    .resumes = resumes,
    .computes = true,
    .run = run_sft,
};
