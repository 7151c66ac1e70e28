/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints of a training run: parameters, optimiser state, and where the loop is.
 *
 * A checkpoint only continues a run of the same corpus, model and batch options, which
 * its fingerprint names; everything else may change on the way (rates, lengths of the
 * run, number of ranks).  Called by the loop in training.c. */
#include "training_session.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/store/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int kd_session_fingerprint(struct kd_session *s)
{
    const struct kd_training_options *o = s->o;
    struct kd_params *ps = kd_model_params(s->setup->student);
    struct kd_str text = {0};
    int64_t trainable = 0;
    int rc = KD_OK;

    for (int i = 0; i < ps->n; i++)
        trainable += ps->items[i].frozen ? 0 : ps->items[i].count;
    KD_GO(kd_str_printf(&text,
                        "slab %lld trained %lld seed %lld batch %lld/%lld x %lld "
                        "sortish %d shuffle %d adafactor %d n %lld",
                        (long long)ps->n_slab, (long long)trainable,
                        (long long)s->run->common->seed, (long long)o->train_batch_size,
                        (long long)o->max_tokens_per_batch,
                        (long long)o->gradient_accumulation_steps, o->sortish_sampler,
                        o->shuffle, o->adafactor, (long long)s->n));
    for (int64_t i = 0; i < o->corpus.n; i++)
        KD_GO(kd_str_printf(&text, " corpus %s", kd_corpus_digest(s->corpus, i)));
    s->fingerprint = text.data;
    return KD_OK;
out:
    kd_str_free(&text);
    return rc;
}

/* The arrays of a checkpoint. */
struct arrays {
    struct state {
        struct kd_comm *comm;
        struct kd_optim *optim;
        int k;
    } state[2];
    struct kd_checkpoint_array v[3];
    int n;
};

static int get_state(void *arg, int64_t first, int64_t n, float *out)
{
    const struct state *s = arg;

    return kd_optim_get_state(s->optim, s->comm, s->k, first, n, out);
}

static int put_state(void *arg, int64_t first, int64_t n, const float *in)
{
    const struct state *s = arg;

    return kd_optim_put_state(s->optim, s->k, first, n, in);
}

/* Parameters, which every rank has in backend memory, and optimiser state, of which a
 * rank may have a part. */
static void list_arrays(struct kd_session *s, struct arrays *out)
{
    struct kd_params *ps = kd_model_params(s->setup->student);
    struct kd_optim *optim = kd_trainer_optim(s->trainer);

    *out = (struct arrays){.n = 1};
    out->v[0] = (struct kd_checkpoint_array){
        .name = "params", .values = ps->values, .n = ps->n_slab, .be = ps->be};
    for (int k = 0; k < 2; k++) {
        int64_t n;
        const char *name = kd_optim_state(optim, k, &n);

        if (!name)
            break;
        out->state[k] = (struct state){s->run->comm, optim, k};
        out->v[out->n++] = (struct kd_checkpoint_array){.name = name,
                                                        .n = n,
                                                        .get = get_state,
                                                        .put = put_state,
                                                        .arg = &out->state[k]};
    }
}

static int state_json(struct kd_session *s, double seconds, char **out)
{
    const struct kd_training_progress *at = &s->at;
    struct kd_json *j = kd_json_object();
    int rc = KD_OK;

    KD_GO(kd_json_set_str(j, "fingerprint", s->fingerprint));
    KD_GO(kd_json_set_int(j, "step", at->step));
    KD_GO(kd_json_set_int(j, "epoch", at->epoch));
    KD_GO(kd_json_set_int(j, "in_epoch", at->in_epoch));
    KD_GO(kd_json_set_int(j, "tokens", at->tokens));
    KD_GO(kd_json_set_int(j, "bad_checks", at->bad_checks));
    KD_GO(kd_json_set_int(j, "validated_step", at->validated_step));
    if (!isnan(at->best))
        KD_GO(kd_json_set_num(j, "best", at->best));
    KD_GO(kd_json_set_num(j, "seconds", seconds));
    KD_GO(kd_json_set_int(j, "skipped", kd_trainer_skipped(s->trainer)));
    KD_GO(kd_json_dump(j, out));
out:
    kd_json_free(j);
    return rc;
}

int kd_session_save(struct kd_session *s)
{
    double seconds = s->at.seconds + kd_now_s() - s->start_s;
    struct arrays arrays;
    char *state = NULL;
    int rc = KD_OK;

    list_arrays(s, &arrays);
    /* the text is written collectively: clocks differ, it must not */
    KD_GO(kd_allreduce_f64(s->run->comm, &seconds, 1, KD_MAX));
    KD_ALL_GO(s->run->comm, state_json(s, seconds, &state));
    KD_GO(kd_checkpoint_write(s->run->comm, s->run->common->output_dir, s->at.step,
                              state, arrays.v, arrays.n));
    KD_GO(kd_checkpoint_prune(s->run->comm, s->run->common->output_dir,
                              s->o->save_total_limit));
out:
    free(state);
    return rc;
}

/* Step of the checkpoint that NAME is, or -1. */
static int64_t step_of(const char *name)
{
    long long step = -1;
    int end = 0;

    if (sscanf(name, "checkpoint-%lld.h5%n", &step, &end) != 1 || end == 0 || name[end])
        return -1;
    return step;
}

/* Rank 0. */
static int drop_newer(void *arg)
{
    const struct kd_session *s = arg;
    const char *dir = s->run->common->output_dir;
    DIR *d = opendir(dir);
    int rc = KD_OK;

    for (struct dirent *e; d && !rc && (e = readdir(d));) {
        char *path = NULL;

        if (step_of(e->d_name) <= s->at.step)
            continue;
        rc = kd_path_join(dir, e->d_name, &path);
        if (!rc && unlink(path))
            rc = KD_FAIL(KD_EOUTPUT, "cannot remove %s: %s", path, strerror(errno));
        if (!rc)
            kd_info("%s is removed: this run starts at step %lld", path,
                    (long long)s->at.step);
        free(path);
    }
    if (d)
        closedir(d);
    return rc;
}

int kd_session_drop_newer(struct kd_session *s)
{
    return kd_root_do(s->run->comm, drop_newer, s);
}

static int restore(struct kd_session *s, const char *state)
{
    struct kd_json *j = NULL;

    KD_TRY(kd_json_parse(state, (int64_t)strlen(state), "the checkpoint's state", &j));
    s->at = (struct kd_training_progress){.step = kd_json_int(j, "step", 0),
                                          .epoch = kd_json_int(j, "epoch", 0),
                                          .in_epoch = kd_json_int(j, "in_epoch", 0),
                                          .tokens = kd_json_int(j, "tokens", 0),
                                          .bad_checks = kd_json_int(j, "bad_checks", 0),
                                          .best = kd_json_num(j, "best", NAN),
                                          .validated_step =
                                              kd_json_int(j, "validated_step", -1),
                                          .seconds = kd_json_num(j, "seconds", 0)};
    kd_trainer_set_skipped(s->trainer, kd_json_int(j, "skipped", 0));
    kd_json_free(j);
    return KD_OK;
}

int kd_session_save_model(struct kd_session *s, struct kd_model *m)
{
    const char *tokenizer = s->o->tokenizer ? s->o->tokenizer : s->setup->model_dir;

    return kd_model_save(s->run, m, s->model_path, s->o->save_dtype ? KD_BF16 : KD_F32,
                         tokenizer, s->generation);
}

/* A run that goes on in another directory takes the best model so far along; without
 * one, the next validation finds the best anew. */
static int carry_best_model(struct kd_session *s)
{
    struct kd_model *best = NULL;
    char *from = NULL;
    int64_t there[2]; /* the model of this run, of the run resumed from: as rank 0 sees
                         them */
    int rc = KD_OK;

    KD_ALL_GO(s->run->comm, kd_path_join(s->o->resume, "model", &from));
    there[0] = kd_path_exists(s->model_path);
    there[1] = kd_path_exists(from);
    KD_GO(kd_bcast(s->run->comm, there, sizeof there, 0));
    if (isnan(s->at.best) || there[0])
        goto out;
    if (!there[1]) {
        kd_warn("%s is missing: the best model is looked for again", from);
        s->at.best = NAN;
        s->at.validated_step = -1;
        goto out;
    }
    KD_GO(kd_model_load(s->run, from, &best));
    KD_GO(kd_session_save_model(s, best));
out:
    kd_model_free(best);
    free(from);
    return rc;
}

int kd_session_resume(struct kd_session *s)
{
    char *path = NULL, *state = NULL;
    struct arrays arrays;
    int rc = KD_OK;

    list_arrays(s, &arrays);
    KD_GO(kd_checkpoint_newest(s->run->comm, s->o->resume, s->fingerprint, &path));
    if (!path)
        KD_GO(
            KD_FAIL(KD_EINPUT,
                    "--resume %s: no valid checkpoint of this run there (same corpus, "
                    "model and batch options are needed)",
                    s->o->resume));
    KD_GO(kd_checkpoint_read(s->run->comm, path, arrays.v, arrays.n, &state));
    KD_ALL_GO(s->run->comm, kd_params_refresh(kd_model_params(s->setup->student)));
    KD_ALL_GO(s->run->comm, restore(s, state));
    KD_GO(carry_best_model(s));
    kd_info("resuming from %s at step %lld", path, (long long)s->at.step);
out:
    free(path);
    free(state);
    return rc;
}
