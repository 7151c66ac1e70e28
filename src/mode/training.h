/* SPDX-License-Identifier: Apache-2.0 */
/* Training, as sft and kd share it: options, the loop, validation, checkpoints. */
#ifndef KDHPC_MODE_TRAINING_H
#define KDHPC_MODE_TRAINING_H

#include "kdhpc/distill/objective.h"
#include "kdhpc/mode/model_io.h"
#include "kdhpc/train/loader.h"
#include "kdhpc/train/trainer.h"

enum kd_compat { KD_COMPAT_NONE, KD_COMPAT_SEQ2SEQ };
enum kd_val_metric { KD_VAL_ROUGE2, KD_VAL_BLEU, KD_VAL_LOSS };

struct kd_training_options {
    int64_t num_train_epochs, max_steps, train_batch_size, max_tokens_per_batch,
        eval_batch_size, gradient_accumulation_steps;
    double learning_rate;
    int lr_scheduler; /* enum kd_schedule */
    double warmup_steps, weight_decay, adam_epsilon, max_grad_norm, label_smoothing;
    bool adafactor;
    int64_t zero;                      /* 1: AdamW sharded over the ranks */
    int moments;                       /* 0 float32, 1 bfloat16 */
    double dropout, attention_dropout; /* NAN: the model's */
    bool freeze_encoder, freeze_embeds, sortish_sampler, shuffle, do_predict, recompute;
    double val_check_interval;
    int64_t n_train, n_val, n_test, eval_beams, eval_max_gen_length;
    int val_metric; /* enum kd_val_metric */
    int64_t early_stopping_patience, save_top_k, save_steps, save_total_limit,
        logging_steps, max_skipped_steps;
    const char *resume, *tokenizer, *task;
    int save_dtype; /* 0 float32, 1 bfloat16 */
    int compat;     /* enum kd_compat */
    struct kd_str_list corpus;
};

extern const struct kd_opt_row kd_training_rows[]; /* ends with a row without a name */

/** What to train. */
struct kd_training_setup {
    struct kd_model *student; /* borrowed */
    struct kd_model *teacher; /* borrowed, NULL for sft */
    const char *model_dir;    /* tokenizer and generation config come from here */
    const char *teacher_dir;  /* NULL for sft */
    struct kd_objective_options objective; /* lists borrowed */
};

/** Freeze and set dropouts as the options say, before the objective is chosen.  Local.
 */
void kd_training_prepare(const struct kd_training_options *o, struct kd_model *student);

/** Train; leaves OUTPUT_DIR as the interface describes.  Collective.  KD_ESTOPPED after
 * a signal, with a checkpoint. */
int kd_train(struct kd_run *run, const struct kd_training_options *o,
             const struct kd_training_setup *setup) KD_MUST_CHECK;

/** Files a training run writes, for the refusal to overwrite. */
extern const char *const kd_training_outputs[];

#endif
