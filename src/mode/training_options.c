/* SPDX-License-Identifier: Apache-2.0 */
/* The option rows of training, with the names of transformers and of the DistilBART
 * scripts.  Batch sizes are global: the same options on more ranks take the same steps.
 */
#include "training.h"

#define ROW(field, type_, def_, min_, max_, help_)                                     \
    {                                                                                  \
        .name = #field, .type = type_,                                                 \
        .offset = offsetof(struct kd_training_options, field), .def = def_,            \
        .min = min_, .max = max_, .help = help_                                        \
    }
#define INT(field, def, min, help) ROW(field, KD_OPT_INT, def, min, KD_NO_MAX, help)
#define FLT(field, def, min, max, help) ROW(field, KD_OPT_FLOAT, def, min, max, help)
#define FLAG(field, def, help) ROW(field, KD_OPT_BOOL, def, 0, 0, help)
#define STR(field, help) ROW(field, KD_OPT_STR, NULL, 0, 0, help)
#define CHOICE(field, def_, choices_, help_)                                           \
    {                                                                                  \
        .name = #field, .type = KD_OPT_CHOICE,                                         \
        .offset = offsetof(struct kd_training_options, field), .def = def_,            \
        .choices = choices_, .help = help_                                             \
    }

const struct kd_opt_row kd_training_rows[] = {
    {.name = "corpus",
     .type = KD_OPT_STR_LIST,
     .offset = offsetof(struct kd_training_options, corpus),
     .help = "corpus.h5 or labels.h5 files, concatenated in order",
     .flags = KD_OPT_REQUIRED},
    STR(tokenizer, "directory of the tokenizer (default: the model's)"),
    INT(num_train_epochs, "3", 1, "passes over the training split"),
    INT(max_steps, "-1", -1, "updates; > 0 replaces num_train_epochs"),
    INT(train_batch_size, "32", 1, "examples in a global batch"),
    INT(max_tokens_per_batch, "-1", -1,
        "real tokens (source + target) in a global batch; > 0 replaces "
        "train_batch_size"),
    INT(eval_batch_size, "32", 1, "examples in a validation batch"),
    INT(gradient_accumulation_steps, "1", 1, "batches in an update"),
    FLT(learning_rate, "5e-5", 0, KD_NO_MAX, "peak learning rate"),
    CHOICE(lr_scheduler, "linear",
           "linear|cosine|cosine_w_restarts|polynomial|constant",
           "schedule after the warm-up"),
    FLT(warmup_steps, "0", 0, KD_NO_MAX, "updates of linear warm-up"),
    FLT(weight_decay, "0", 0, KD_NO_MAX, "decay of weights (not of biases and norms)"),
    FLT(adam_epsilon, "1e-8", 0, KD_NO_MAX, "epsilon of AdamW"),
    FLAG(adafactor, "false", "Adafactor instead of AdamW"),
    ROW(zero, KD_OPT_INT, "0", 0, 1,
        "1: each rank updates a part of the parameters and holds AdamW's moments of it "
        "only"),
    CHOICE(
        moments, "float32", "float32|bfloat16",
        "dtype of AdamW's moments; bfloat16: half the memory, rounded stochastically"),
    FLT(max_grad_norm, "1.0", 0, KD_NO_MAX, "clip the global gradient norm (0: off)"),
    FLT(label_smoothing, "0", 0, 1, "epsilon of label smoothing"),
    FLT(dropout, NULL, 0, 0.99,
        "dropout of embeddings and sublayers (0, or a model of one rate: every "
        "dropout)"),
    FLT(attention_dropout, NULL, 0, 0.99, "dropout of attention probabilities"),
    FLAG(freeze_encoder, "false",
         "freeze all that the encoder uses, shared embedding too"),
    FLAG(freeze_embeds, "false", "freeze token and position embeddings"),
    FLAG(recompute, "false",
         "keep only the inputs of layers and make the rest again in the backward pass"),
    FLAG(sortish_sampler, "false", "batches of similar lengths"),
    FLAG(shuffle, "true", "new order each epoch; false: corpus order"),
    FLT(val_check_interval, "1.0", 0, KD_NO_MAX,
        "validate every so much of an epoch; above 1: every so many updates"),
    INT(n_train, "-1", -1, "first examples of the training split (-1: all)"),
    INT(n_val, "500", -1, "first examples of the validation split (-1: all)"),
    FLAG(do_predict, "false", "evaluate the best model on the test split at the end"),
    INT(n_test, "-1", -1, "first examples of the test split for do_predict (-1: all)"),
    STR(task, "validation generates as the model's task_specific_params say for it"),
    INT(eval_beams, NULL, 1, "beams of validation (default: the model's)"),
    INT(eval_max_gen_length, NULL, 2,
        "max_length of validation (default: the model's)"),
    CHOICE(val_metric, "rouge2", "rouge2|bleu|loss",
           "what chooses the best model; loss: validation does not generate"),
    INT(early_stopping_patience, "-1", -1,
        "stop after so many validations without progress (-1: never)"),
    ROW(save_top_k, KD_OPT_INT, "1", 1, 1, "best models kept in model/"),
    INT(save_steps, "500", -1,
        "updates between checkpoints (-1: none but on a signal)"),
    INT(save_total_limit, "1", 1, "checkpoints kept"),
    INT(logging_steps, "50", 1, "updates between lines of metrics.jsonl"),
    INT(max_skipped_steps, "10", 0, "non-finite updates in a row before giving up"),
    STR(resume, "run directory whose newest valid checkpoint to continue from"),
    CHOICE(save_dtype, "float32", "float32|bfloat16", "dtype of the saved model"),
    CHOICE(compat, "none", "none|seq2seq",
           "arithmetic of a reference, quirks included"),
    {.name = NULL},
};

const char *const kd_training_outputs[] = {
    "run.yaml", "metrics.jsonl", "log.txt", "checkpoint-*.h5", "model", NULL};
