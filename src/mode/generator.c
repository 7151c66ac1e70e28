/* SPDX-License-Identifier: Apache-2.0 */
/* What the modes that generate have in common: model, tokenizer and settings from one
 * place, sources dealt over the ranks, and an end between two batches when a signal
 * asks for it.  Validation during training generates too, but stops only between two
 * updates, so it deals its batches itself (validation.c). */
#include "generator.h"

#include "kdhpc/base/signal.h"

static int open_local(struct kd_run *run, const char *model_dir,
                      const char *tokenizer_dir, const struct kd_generation_options *o,
                      struct kd_generator *g)
{
    KD_TRY(kd_tokenizer_load(tokenizer_dir ? tokenizer_dir : model_dir, &g->tokenizer));
    return kd_generation_resolve(o, model_dir, g->model, (uint64_t)run->common->seed,
                                 &g->g);
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
    return rc;
}

int kd_generator_stopped(int rc)
{
    if (rc != KD_ESTOPPED)
        return rc;
    kd_error_clear();
    return KD_FAIL(KD_ESTOPPED,
                   "stopped on a signal before anything was written: run it again");
}
