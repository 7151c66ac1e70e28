/* SPDX-License-Identifier: Apache-2.0 */
/* Running the objective: teacher first and without a tape, then the student.
 *
 * What the student needs of the teacher (its last hidden state and the matched layers)
 * is copied to tensors allocated before the teacher runs, and the rest of the teacher's
 * activations is given back to the arena, so a teacher costs a few matrices.  The
 * teacher's logits never exist as a whole: its head runs beside the student's, a chunk
 * of rows at a time (autograd/op.h, kd_op_head_loss). */
#include "kdhpc/distill/objective.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const kd_term_names[KD_N_TERMS] = {"ce", "mlm", "hid_enc", "hid_dec"};

enum stack { ENC, DEC, N_STACKS };
static const char *const stack_names[N_STACKS] = {"enc", "dec"};

/* Hidden states of one stack: who learns from whom. */
struct relation {
    int n;
    struct kd_tap *student; /* [n] */
    struct kd_tap *teacher; /* [n] */
    struct kd_var *kept;    /* [n] the teacher's, as constants */
    double *sums;           /* [n] distances of the batch under way */
    struct kd_block_sums *local,
        *all; /* [n] compat's statistics: this rank's, and of all ranks */
};

struct kd_objective {
    struct kd_objective_options o;
    struct kd_model *student, *teacher;
    struct relation rel[N_STACKS];
    bool encoder_frozen;
};

/* The hidden-state terms: a new relation is a row. */
static const struct {
    enum kd_term term;
    enum stack stack;
} hidden_terms[] = {{KD_TERM_HID_ENC, ENC}, {KD_TERM_HID_DEC, DEC}};

static int name_tap(struct kd_tap *tap, enum stack stack, int64_t layer,
                    const char *what)
{
    return kd_format(tap->name, sizeof tap->name, "%s.%d.%s", stack_names[stack],
                     (int)layer, what);
}

/* Layer k's output is what layer k computes; the reference's lists began with the
 * embedding, so its entry k is layer k's input. */
static int relation_init(struct relation *r, enum stack stack,
                         const struct kd_matches *matches, bool compat)
{
    const char *what = compat ? "in" : "out";

    r->n = matches->n;
    KD_TRY(kd_calloc(r->n, sizeof *r->student, &r->student));
    KD_TRY(kd_calloc(r->n, sizeof *r->teacher, &r->teacher));
    KD_TRY(kd_calloc(r->n, sizeof *r->kept, &r->kept));
    KD_TRY(kd_calloc(r->n, sizeof *r->sums, &r->sums));
    KD_TRY(kd_calloc(r->n, sizeof *r->local, &r->local));
    KD_TRY(kd_calloc(r->n, sizeof *r->all, &r->all));
    for (int k = 0; k < r->n; k++) {
        KD_TRY(name_tap(&r->student[k], stack, k, what));
        KD_TRY(name_tap(&r->teacher[k], stack, matches->layers[k], what));
    }
    return KD_OK;
}

/* One batch serves both: the same ids, the same decoder inputs. */
static int check_inputs(const struct kd_arch *s, const struct kd_arch *t)
{
    if (s->source_vocab_size != t->source_vocab_size)
        return KD_FAIL(KD_EINPUT,
                       "the student has %lld source vocabulary entries, the teacher "
                       "%lld: both must read one vocabulary",
                       (long long)s->source_vocab_size,
                       (long long)t->source_vocab_size);
    if (s->start_rule != t->start_rule)
        return KD_FAIL(KD_EINPUT,
                       "decoders of %s begin with %s, those of %s do not: a student "
                       "cannot learn from such a teacher",
                       s->start_rule == KD_START_TOKEN ? t->model_type : s->model_type,
                       "the last label",
                       s->start_rule == KD_START_TOKEN ? s->model_type : t->model_type);
    if (s->start_rule == KD_START_TOKEN && s->decoder_start_id != t->decoder_start_id)
        return KD_FAIL(KD_EINPUT,
                       "the student's decoder_start_token_id is %d, the teacher's %d: "
                       "both must begin with the same token",
                       (int)s->decoder_start_id, (int)t->decoder_start_id);
    return KD_OK;
}

static int check_pair(const struct kd_objective *obj)
{
    const struct kd_arch *s = kd_model_arch(obj->student);
    const struct kd_arch *t = kd_model_arch(obj->teacher);

    if (s->vocab_size != t->vocab_size)
        return KD_FAIL(KD_EINPUT,
                       "the student has %lld vocabulary entries, the teacher %lld: "
                       "logits can only be compared over one vocabulary",
                       (long long)s->vocab_size, (long long)t->vocab_size);
    KD_TRY(check_inputs(s, t));
    if (obj->rel[ENC].n + obj->rel[DEC].n > 0 && s->d_model != t->d_model)
        return KD_FAIL(
            KD_EINPUT,
            "hidden states differ in width (student %lld, teacher %lld): set "
            "--alpha_hid 0",
            (long long)s->d_model, (long long)t->d_model);
    return KD_OK;
}

int kd_objective_new(const struct kd_objective_options *o, struct kd_model *student,
                     struct kd_model *teacher, struct kd_objective **out)
{
    struct kd_objective *obj = NULL;
    int rc = KD_OK;

    KD_GO(kd_calloc(1, sizeof *obj, &obj));
    obj->o = *o;
    obj->o.enc.layers = obj->o.dec.layers = NULL; /* the taps hold what they said */
    obj->student = student;
    obj->teacher = teacher;
    obj->encoder_frozen = kd_model_encoder_frozen(student);
    if (teacher) {
        KD_GO(relation_init(&obj->rel[ENC], ENC, &o->enc, o->compat));
        KD_GO(relation_init(&obj->rel[DEC], DEC, &o->dec, o->compat));
        KD_GO(check_pair(obj));
    }
    *out = obj;
    return KD_OK;
out:
    kd_objective_free(obj);
    return rc;
}

void kd_objective_free(struct kd_objective *obj)
{
    if (!obj)
        return;
    for (int s = 0; s < N_STACKS; s++) {
        free(obj->rel[s].student);
        free(obj->rel[s].teacher);
        free(obj->rel[s].kept);
        free(obj->rel[s].sums);
        free(obj->rel[s].local);
        free(obj->rel[s].all);
    }
    free(obj);
}

/* A constant [rows, d] in the arena, to be filled by keep. */
static int reserve(struct kd_ctx *ctx, int64_t rows, int64_t d, struct kd_var *out)
{
    *out = (struct kd_var){0};
    return kd_arena_tensor(ctx->arena, ctx->dtype, rows, d, &out->v);
}

static int keep(struct kd_ctx *ctx, const struct kd_var *from, struct kd_var *to)
{
    return ctx->be->ops->copy(ctx->be, to->v.data, from->v.data,
                              kd_tensor_bytes(&from->v));
}

static int check_published(const struct kd_tap *taps, int n, const char *who)
{
    for (int k = 0; k < n; k++)
        if (!taps[k].var)
            return KD_FAIL(KD_EINTERNAL, "the %s did not publish %s", who,
                           taps[k].name);
    return KD_OK;
}

/* Run one stack of a model with TAPS listening. */
static struct kd_ctx listening(const struct kd_ctx *ctx, struct kd_taps *taps)
{
    struct kd_ctx c = *ctx;

    for (int i = 0; i < taps->n; i++)
        taps->items[i].var = NULL;
    c.taps = taps;
    return c;
}

/* The teacher's last hidden state into H_T and its matched layers into the relations;
 * ENC_IN: what its decoder attends to, or NULL to run its own encoder. */
static int run_teacher(struct kd_objective *obj, const struct kd_ctx *ctx,
                       const struct kd_batch *b, struct kd_var *enc_in,
                       struct kd_var *h_t)
{
    struct relation *enc = &obj->rel[ENC], *dec = &obj->rel[DEC];
    int64_t d = kd_model_arch(obj->teacher)->d_model;
    struct kd_taps enc_taps = {enc->n, enc->teacher, enc->kept},
                   dec_taps = {dec->n, dec->teacher, dec->kept};
    struct kd_ctx plain = *ctx, c;
    struct kd_var *own = NULL, *h = NULL;
    struct kd_arena_mark mark;

    plain.tape = NULL;
    plain.train = false;
    KD_TRY(reserve(&plain, b->tgt.n_rows, d, h_t));
    for (int k = 0; k < enc->n; k++)
        KD_TRY(reserve(&plain, b->src.n_rows, d, &enc->kept[k]));
    for (int k = 0; k < dec->n; k++)
        KD_TRY(reserve(&plain, b->tgt.n_rows, d, &dec->kept[k]));
    mark = kd_arena_mark(ctx->arena);
    if (!enc_in || enc->n > 0) {
        c = listening(&plain, &enc_taps);
        KD_TRY(kd_model_encode(&c, obj->teacher, b, &own));
        KD_TRY(check_published(enc->teacher, enc->n, "teacher"));
    }
    c = listening(&plain, &dec_taps);
    KD_TRY(kd_model_decode(&c, obj->teacher, b, enc_in ? enc_in : own, &h));
    KD_TRY(check_published(dec->teacher, dec->n, "teacher"));
    KD_TRY(keep(&plain, h, h_t));
    kd_arena_release(ctx->arena, mark);
    return KD_OK;
}

/* The student's encoder: frozen parts run without dropout, and what they computed on
 * the way is given back. */
static int encode_student(struct kd_objective *obj, struct kd_ctx *ctx,
                          const struct kd_batch *b, struct kd_taps *taps,
                          struct kd_var *frozen_out, struct kd_var **out)
{
    struct kd_ctx c = listening(ctx, taps);
    struct kd_arena_mark mark;

    if (!obj->encoder_frozen || taps->n > 0) {
        c.train = ctx->train && !obj->encoder_frozen;
        return kd_model_encode(&c, obj->student, b, out);
    }
    c.train = false;
    c.tape = NULL;
    KD_TRY(
        reserve(ctx, b->src.n_rows, kd_model_arch(obj->student)->d_model, frozen_out));
    mark = kd_arena_mark(ctx->arena);
    KD_TRY(kd_model_encode(&c, obj->student, b, out));
    KD_TRY(keep(ctx, *out, frozen_out));
    kd_arena_release(ctx->arena, mark);
    *out = frozen_out;
    return KD_OK;
}

/* The weight of a label; the reference does not divide the smoothed loss. */
static double per_label(const struct kd_objective *obj, const struct kd_counts *n)
{
    return obj->o.compat && obj->o.label_smoothing > 0 ? 1.0 : 1.0 / n->labels;
}

/* Labels and the teacher's logits in one pass over the vocabulary. */
static int head_losses(struct kd_objective *obj, struct kd_ctx *ctx,
                       const struct kd_batch *b, const struct kd_counts *n,
                       struct kd_var *h, struct kd_var *h_t,
                       struct kd_head_loss_sums *sums)
{
    const struct kd_objective_options *o = &obj->o;
    struct kd_head head = kd_model_head(obj->student), teacher_head = {0};
    double eps = o->label_smoothing, t2 = o->temperature * o->temperature;
    double v = (double)kd_model_arch(obj->student)->vocab_size;
    struct kd_head_loss_desc desc = {
        .w_ce = (float)(o->weight[KD_TERM_MLM] * (1 - eps) * per_label(obj, n)),
        .w_smooth = (float)(o->weight[KD_TERM_MLM] * eps / v * per_label(obj, n)),
        .w_kl = (float)(o->weight[KD_TERM_CE] * t2 / n->kd_rows),
        .temperature = (float)o->temperature,
        .labels = b->labels,
        .kl_mask = b->kd_mask};

    if (h_t)
        teacher_head = kd_model_head(obj->teacher);
    return kd_op_head_loss(ctx, &head, h, h_t ? &teacher_head : NULL, h_t, &desc, sums,
                           NULL);
}

static void add_head_terms(const struct kd_objective *obj, const struct kd_counts *n,
                           const struct kd_head_loss_sums *sums, double *terms)
{
    double eps = obj->o.label_smoothing, t2 = obj->o.temperature * obj->o.temperature;
    double v = (double)kd_model_arch(obj->student)->vocab_size;

    terms[KD_TERM_CE] += obj->teacher ? t2 / n->kd_rows * sums->kl : 0;
    terms[KD_TERM_MLM] +=
        per_label(obj, n) * ((1 - eps) * sums->ce + eps / v * sums->smooth);
}

/* ---- hidden states ---- */

/* What a squared distance weighs in a mean over N_ROWS. */
static double hidden_scale(const struct kd_objective *obj, double n_rows)
{
    return 1.0 / (n_rows * (double)kd_model_arch(obj->student)->d_model);
}

static int hidden_losses(struct kd_objective *obj, struct kd_ctx *ctx, int row,
                         const float *mask, double n_rows)
{
    struct relation *r = &obj->rel[hidden_terms[row].stack];
    enum kd_term term = hidden_terms[row].term;
    float w = (float)(obj->o.weight[term] * hidden_scale(obj, n_rows));

    KD_TRY(check_published(r->student, r->n, "student"));
    for (int k = 0; k < r->n; k++) {
        if (obj->o.compat && obj->o.normalize_hidden)
            KD_TRY(kd_op_block_mse(ctx, r->student[k].var, &r->kept[k], &r->local[k],
                                   &r->all[k], w, &r->sums[k]));
        else
            KD_TRY(kd_op_hidden_mse(ctx, r->student[k].var, &r->kept[k], mask,
                                    obj->o.normalize_hidden, w, &r->sums[k]));
    }
    return KD_OK;
}

static void add_hidden_term(const struct kd_objective *obj, int row, double n_rows,
                            double *terms)
{
    const struct relation *r = &obj->rel[hidden_terms[row].stack];

    for (int k = 0; k < r->n; k++)
        terms[hidden_terms[row].term] += hidden_scale(obj, n_rows) * r->sums[k];
}

static int local_sums(struct kd_ctx *ctx, struct relation *r)
{
    KD_TRY(check_published(r->student, r->n, "student"));
    for (int k = 0; k < r->n; k++)
        KD_TRY(kd_op_block_sums(ctx, r->student[k].var, &r->kept[k], &r->local[k]));
    return KD_OK;
}

/* Block statistics over all ranks.  Every rank comes here once, with FORWARD as the
 * status so far; a rank that failed, or has no part of the batch, adds nothing. */
static int reduce_sums(struct kd_objective *obj, struct kd_ctx *ctx, bool empty,
                       int forward)
{
    int rc = forward;

    if (!obj->o.compat || !obj->o.normalize_hidden)
        return rc;
    for (int s = 0; s < N_STACKS; s++) {
        struct relation *r = &obj->rel[s];

        memset(r->local, 0, (size_t)r->n * sizeof *r->local);
        if (!empty && !rc)
            rc = local_sums(ctx, r);
        memcpy(r->all, r->local, (size_t)r->n * sizeof *r->all);
        if (obj->o.reduce)
            KD_TRY(obj->o.reduce(obj->o.reduce_arg, (double *)r->all,
                                 r->n * (int64_t)(sizeof *r->all / sizeof(double))));
    }
    return rc;
}

/* ---- the run ---- */

/* What the forward passes leave for the terms. */
struct forward {
    struct kd_var frozen_out, h_t; /* constants in the arena */
    struct kd_var *h;
};

static int run_forward(struct kd_objective *obj, struct kd_ctx *ctx,
                       const struct kd_batch *b, struct forward *f)
{
    struct relation *enc = &obj->rel[ENC], *dec = &obj->rel[DEC];
    struct kd_taps enc_taps = {enc->n, enc->student, NULL},
                   dec_taps = {dec->n, dec->student, NULL};
    bool teacher_over_student =
        obj->o.share_encoder || (obj->o.compat && !obj->o.other_base);
    struct kd_var *enc_out = NULL;
    struct kd_ctx c;

    KD_TRY(encode_student(obj, ctx, b, &enc_taps, &f->frozen_out, &enc_out));
    if (obj->teacher)
        KD_TRY(
            run_teacher(obj, ctx, b, teacher_over_student ? enc_out : NULL, &f->h_t));
    c = listening(ctx, &dec_taps);
    return kd_model_decode(&c, obj->student, b, enc_out, &f->h);
}

/* Losses, backward, and then their sums: the device never waits for the host between
 * the two passes. */
static int run_losses(struct kd_objective *obj, struct kd_ctx *ctx,
                      const struct kd_batch *b, const struct kd_counts *n,
                      struct forward *f, kd_param_ready_fn ready, void *ready_arg,
                      double *terms)
{
    struct kd_head_loss_sums head;
    struct kd_later later = {0};
    struct kd_ctx c = *ctx;

    c.later = &later;
    KD_TRY(head_losses(obj, &c, b, n, f->h, obj->teacher ? &f->h_t : NULL, &head));
    KD_TRY(hidden_losses(obj, &c, 0, NULL, n->src_rows));
    KD_TRY(hidden_losses(obj, &c, 1, b->kd_mask, n->kd_rows));
    if (c.tape)
        KD_TRY(kd_tape_backward(c.tape, ready, ready_arg));
    KD_TRY(kd_later_wait(&c));
    add_head_terms(obj, n, &head, terms);
    add_hidden_term(obj, 0, n->src_rows, terms);
    add_hidden_term(obj, 1, n->kd_rows, terms);
    return KD_OK;
}

int kd_objective_run(struct kd_objective *obj, struct kd_ctx *ctx,
                     const struct kd_batch *b, const struct kd_counts *n,
                     kd_param_ready_fn ready, void *ready_arg, double *terms)
{
    struct forward f;
    int rc = b ? run_forward(obj, ctx, b, &f) : KD_OK;

    KD_TRY(reduce_sums(obj, ctx, !b, rc));
    return b ? run_losses(obj, ctx, b, n, &f, ready, ready_arg, terms) : KD_OK;
}

double kd_objective_loss(const struct kd_objective *obj, const double *terms)
{
    double loss = 0;

    for (int i = 0; i < KD_N_TERMS; i++)
        loss += obj->o.weight[i] * terms[i];
    return loss;
}
