/* SPDX-License-Identifier: Apache-2.0 */
/* What the modes that generate have in common: model, tokenizer and settings from one
 * place, sources dealt over the ranks, and an end between two batches when a signal
 * asks for it.  Validation during training generates too, but stops only between two
 * updates, so it deals its batches itself (validation.c). */
#include "generator.h"

#include "kdhpc/base/signal.h"
#include "kdhpc/base/str.h"
#include "kdhpc/tensor/plan.h"

/* Outputs in language LANG, if not NULL. */
static int set_language(struct kd_generator *g, const char *lang)
{
    bool in_front;
    int32_t id;

    KD_TRY(kd_tokenizer_set_langs(g->tokenizer, NULL, lang));
    if (!lang)
        return KD_OK;
    id = kd_tokenizer_target_lang(g->tokenizer, &in_front);
    *(in_front ? &g->g.forced_bos_id : &g->g.start_id) = id;
    return KD_OK;
}

static int open_local(struct kd_run *run, const char *model_dir,
                      const char *tokenizer_dir, const struct kd_generation_options *o,
                      struct kd_generator *g)
{
    KD_TRY(kd_tokenizer_load(tokenizer_dir ? tokenizer_dir : model_dir, &g->tokenizer));
    KD_TRY(kd_generation_resolve(o, model_dir, g->model, (uint64_t)run->common->seed,
                                 &g->g));
    return set_language(g, o->tgt_lang);
}

int kd_generator_open(struct kd_run *run, const char *model_dir,
                      const char *tokenizer_dir, const struct kd_generation_options *o,
                      struct kd_generator *out)
{
    KD_TRY(kd_model_load(run, model_dir, &out->model));
    return kd_agree(run->comm, open_local(run, model_dir, tokenizer_dir, o, out));
}

void kd_generator_close(struct kd_generator *g)
{
    kd_generation_free(&g->g);
    kd_tokenizer_free(g->tokenizer);
    kd_model_free(g->model);
    *g = (struct kd_generator){0};
}

int kd_generator_fits(const struct kd_generator *g, const struct kd_corpus *corpus,
                      const char *corpus_name)
{
    kd_corpus_warn_of_tokenizer(corpus, corpus_name, g->tokenizer);
    return kd_model_fits_corpus(g->model, corpus, corpus_name);
}

/* ---- memory ---- */

/* A generation that may be planned with other numbers. */
struct trial {
    const struct kd_run *run;
    const struct kd_generator *generator;
    struct kd_generation g;
    kd_source_fn source;
    const void *arg;
    int64_t n, batch_size;
    int64_t *value;        /* what another number is tried for */
    size_t loaded, needed; /* bytes of the model, and in all */
};

static int rehearse(struct trial *t)
{
    struct kd_run run = *t->run;
    struct kd_model *m = NULL;
    int rc = KD_OK;

    KD_GO(kd_backend_plan(t->run->be->device, &run.be));
    KD_GO(kd_model_like(t->generator->model, run.be, &m));
    t->loaded = kd_plan_bytes(run.be);
    KD_GO(kd_generate_rehearse(&run, m, &t->g, t->source, t->arg, t->n, t->batch_size));
    t->needed = kd_memory_need(t->run, kd_plan_peak_bytes(run.be));
out:
    kd_model_free(m);
    kd_backend_free(run.be);
    return rc;
}

static int try_value(void *arg, int64_t value, bool *fits)
{
    struct trial *t = arg;

    *t->value = value;
    KD_TRY(rehearse(t));
    *fits = t->needed <= t->generator->memory.have;
    return KD_OK;
}

static int advise(const struct trial *given, struct kd_memory *m)
{
    struct trial batches = *given, beams = *given;
    int64_t batch, beam;
    char count[KD_COUNT_MAX], beam_count[KD_COUNT_MAX];

    batches.value = &batches.batch_size;
    beams.value = &beams.g.num_beams;
    KD_TRY(kd_memory_largest(try_value, &batches, 1, given->batch_size, &batch));
    KD_TRY(kd_memory_largest(try_value, &beams, given->g.num_return_sequences,
                             given->g.num_beams, &beam));
    kd_memory_count(batch, count);
    kd_memory_count(beam, beam_count);
    if (batch > 0)
        return kd_format(
            m->advice, sizeof m->advice, "lower --eval_batch_size to %s%s%s", count,
            beam > 0 ? " or --num_beams to " : "", beam > 0 ? beam_count : "");
    return beam > 0 ? kd_format(m->advice, sizeof m->advice, "lower --num_beams to %s",
                                beam_count)
                    : KD_OK;
}

static int estimate(struct trial *t, struct kd_memory *m)
{
    if (t->batch_size > t->n) /* what a number must be below to change anything */
        t->batch_size = t->n;
    KD_TRY(rehearse(t));
    m->need = t->needed;
    KD_TRY(kd_memory_have(t->run, t->loaded, &m->have));
    KD_TRY(kd_format(m->options, sizeof m->options, "lower --eval_batch_size%s",
                     t->g.num_beams > 1 ? " or --num_beams" : ""));
    return kd_memory_fits(m) ? KD_OK : advise(t, m);
}

int kd_generator_memory(struct kd_run *run, struct kd_generator *g, kd_source_fn source,
                        const void *arg, int64_t n, int64_t batch_size)
{
    struct trial t = {.run = run,
                      .generator = g,
                      .g = g->g,
                      .source = source,
                      .arg = arg,
                      .n = n,
                      .batch_size = batch_size};

    KD_ALL(run->comm, estimate(&t, &g->memory));
    KD_TRY(kd_memory_agree(run, &g->memory));
    kd_memory_tell(&g->memory);
    return KD_OK;
}

int kd_generator_run(struct kd_run *run, const struct kd_generator *g,
                     kd_source_fn source, const void *arg, const int64_t *ids,
                     int64_t n, int64_t batch_size, const char *progress_label,
                     struct kd_generated *out)
{
    struct kd_generated_set own = {0};
    int rc;

    KD_GO(kd_generate_dealt(run, g->model, &g->g, source, arg, ids, n, batch_size,
                            progress_label, kd_stop_requested, &own));
    rc = kd_generated_gather(run, &own, n, g->g.num_return_sequences, out);
out:
    kd_generated_set_free(&own);
    return kd_memory_explain(rc, &g->memory);
}

int kd_generator_stopped(int rc)
{
    if (rc != KD_ESTOPPED)
        return rc;
    kd_error_clear();
    return KD_FAIL(KD_ESTOPPED,
                   "stopped on a signal before anything was written: run it again");
}
