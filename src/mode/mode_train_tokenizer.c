/* SPDX-License-Identifier: Apache-2.0 */
/* Train a SentencePiece tokenizer on text files and write it as a T5Tokenizer
 * directory.
 *
 * Rank 0 trains, the others wait for its vote.  The library gives no sign of life while
 * it works, so a second thread gives the heartbeat.  The number of training threads is
 * fixed, because the library's sums depend on it and the result should not depend on
 * the machine. */
#include "kdhpc/mode/mode.h"

#include "kdhpc/comm/watchdog.h"
#include "kdhpc/text/tokenizer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

enum { TRAINING_THREADS = 4, LEAST_SAMPLE = 100 /* the library's bound */ };

struct train_config {
    struct kd_str_list input;
    int64_t vocab_size, input_sentences;
    int type; /* 0 unigram, 1 bpe */
    double character_coverage;
};

static const struct kd_opt_row rows[] = {
    {.name = "input",
     .type = KD_OPT_STR_LIST,
     .offset = offsetof(struct train_config, input),
     .help = "text files to train on, one sentence or document a line",
     .flags = KD_OPT_REQUIRED},
    {.name = "vocab_size",
     .type = KD_OPT_INT,
     .offset = offsetof(struct train_config, vocab_size),
     .def = "8000",
     .min = 4,
     .max = 10000000,
     .help = "pieces, with the three special ones"},
    {.name = "type",
     .type = KD_OPT_CHOICE,
     .offset = offsetof(struct train_config, type),
     .def = "unigram",
     .choices = "unigram|bpe",
     .help = "kind of model"},
    {.name = "character_coverage",
     .type = KD_OPT_FLOAT,
     .offset = offsetof(struct train_config, character_coverage),
     .def = "0.9995",
     .min = 0.98,
     .max = 1.0,
     .help = "share of the text's characters that get a piece of their own"},
    {.name = "input_sentences",
     .type = KD_OPT_INT,
     .offset = offsetof(struct train_config, input_sentences),
     .def = "0",
     .min = 0,
     .max = KD_NO_MAX,
     .help = "train on this many lines, over 100, sampled by the seed (0: all)"},
};

static const struct kd_opt_group groups[] = {
    {"Tokenizer", rows, sizeof rows / sizeof *rows, 0},
};

static int check(const struct kd_common *common, void *config)
{
    const struct train_config *c = config;

    (void)common;
    if (c->input_sentences > 0 && c->input_sentences <= LEAST_SAMPLE)
        return KD_FAIL(KD_EUSAGE, "input_sentences is %lld; it must be 0 or over %d",
                       (long long)c->input_sentences, LEAST_SAMPLE);
    return c->input.n > 0 ? KD_OK : KD_FAIL(KD_EUSAGE, "input: no file is named");
}

/* ---- a heartbeat beside the library ---- */

struct pulse {
    pthread_t thread;
    atomic_bool stop;
};

static void *beat(void *arg)
{
    struct pulse *p = arg;
    const struct timespec pause = {.tv_nsec = 50 * 1000 * 1000};

    while (!atomic_load(&p->stop)) {
        kd_heartbeat();
        (void)nanosleep(&pause, NULL);
    }
    return NULL;
}

struct job {
    const struct train_config *config;
    const struct kd_common *common;
};

static int train(void *arg)
{
    const struct job *job = arg;
    const struct train_config *c = job->config;
    const struct kd_tokenizer_training training = {
        .inputs = c->input.v,
        .n_inputs = c->input.n,
        .vocab_size = c->vocab_size,
        .bpe = c->type == 1,
        .character_coverage = c->character_coverage,
        .input_sentences = c->input_sentences,
        .n_threads = TRAINING_THREADS,
        .seed = (uint64_t)job->common->seed,
    };
    struct pulse pulse = {.stop = false};
    int rc = KD_OK;

    if (pthread_create(&pulse.thread, NULL, beat, &pulse))
        return KD_FAIL(KD_EINTERNAL, "cannot start a thread for the heartbeat");
    rc = kd_tokenizer_train(&training, job->common->output_dir);
    atomic_store(&pulse.stop, true);
    (void)pthread_join(pulse.thread, NULL);
    return rc;
}

static int run_train_tokenizer(struct kd_run *run, void *config)
{
    const struct train_config *c = config;
    struct job job = {c, run->common};
    double start = kd_now_s();

    kd_info("training a %s tokenizer of %lld pieces on %lld file%s",
            c->type == 1 ? "BPE" : "unigram", (long long)c->vocab_size,
            (long long)c->input.n, c->input.n == 1 ? "" : "s");
    KD_TRY(kd_root_do(run->comm, train, &job));
    kd_info("%s: tokenizer written after %.1f s", run->common->output_dir,
            kd_now_s() - start);
    return KD_OK;
}

static const char *const outputs[] = {"spiece.model", "tokenizer_config.json",
                                      "special_tokens_map.json", NULL};

const struct kd_mode kd_mode_train_tokenizer = {
    .name = "train-tokenizer",
    .summary = "train a SentencePiece tokenizer on text files",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .config_bytes = sizeof(struct train_config),
    .outputs = outputs,
    .needs_output_dir = true,
    .check = check,
    .run = run_train_tokenizer,
};
