/* SPDX-License-Identifier: Apache-2.0 */
/* What a student is trained on: a weighted sum of terms, each a mean over the whole
 * global batch.
 *
 *   ce       T^2 / n sum KL(softmax(z_t / T) || softmax(z_s / T))      logits of the
 * teacher mlm      1 / n sum CE(z_s, label), smoothed                        labels
 *   hid_enc  sum_k 1 / (m H) sum |s_k - t_k|^2                         hidden states of
 * the hid_dec                                                             matched
 * layers
 *
 * A new relation between hidden states is one row of the table in objective.c. Ordinary
 * fine-tuning is the mlm term alone, without a teacher. */
#ifndef KDHPC_DISTILL_OBJECTIVE_H
#define KDHPC_DISTILL_OBJECTIVE_H

#include "kdhpc/model/model.h"

enum kd_term { KD_TERM_CE, KD_TERM_MLM, KD_TERM_HID_ENC, KD_TERM_HID_DEC, KD_N_TERMS };

/** Names of the terms as the logs have them. */
extern const char *const kd_term_names[KD_N_TERMS];

/** Student layer k of a stack learns from teacher layer layers[k]. */
struct kd_matches {
    int n; /* 0: the term is off */
    const int64_t *layers;
};

struct kd_objective_options {
    double weight[KD_N_TERMS];
    double temperature, label_smoothing;
    bool normalize_hidden;
    bool share_encoder; /* the student's encoder is a frozen copy of the teacher's: run
                           it once */
    bool compat; /* layer inputs, smoothing as a sum, teacher over the student's encoder
                  */
    bool other_base; /* the student is no copy of the teacher, which therefore always
                        attends to its own encoder */
    struct kd_matches enc, dec;
    /* Adds N numbers over the ranks, for what compat normalises over the whole batch;
     * NULL: one rank.  Called once per run by every rank, whatever happened on it. */
    int (*reduce)(void *arg, double *v, int64_t n);
    void *reduce_arg;
};

struct kd_objective;

/** STUDENT and TEACHER (NULL: only mlm) are borrowed, O's lists are copied.  Local.
 * KD_EINPUT: models that cannot be compared (vocabularies, what decoders begin with;
 * width, for hidden states). */
int kd_objective_new(const struct kd_objective_options *o, struct kd_model *student,
                     struct kd_model *teacher, struct kd_objective **out) KD_MUST_CHECK;
void kd_objective_free(struct kd_objective *obj);

/** Global counts of the update that the sums are divided by. */
struct kd_counts {
    double labels;  /* rows with a label */
    double kd_rows; /* rows that distillation sees (= labels unless compat) */
    double src_rows;
};

/** Forward and, if CTX has a tape, backward for the local share B of a batch (NULL:
 * none of it is this rank's): gradients into the slab, and this share's part of every
 * (unweighted) term added to TERMS[KD_N_TERMS].  READY as in kd_tape_backward.  Local.
 */
int kd_objective_run(struct kd_objective *obj, struct kd_ctx *ctx,
                     const struct kd_batch *b, const struct kd_counts *n,
                     kd_param_ready_fn ready, void *ready_arg,
                     double *terms) KD_MUST_CHECK;

/** The weighted sum of TERMS.  Local. */
double kd_objective_loss(const struct kd_objective *obj, const double *terms);

#endif
