/* SPDX-License-Identifier: Apache-2.0 */
/* Reading of model directories in the Hugging Face layout.
 *
 * Every rank reads the weights itself, from one mapping whose pages the ranks of a node
 * share, so a value is copied once; a broadcast would copy it twice.  It is copied
 * because the slab packs what files keep apart (queries, keys, values) and lies in huge
 * pages.  model_weights.c says which tensor of a checkpoint fills which parameter.
 * Called by every mode that takes a model; model_save.c writes. */
#include "kdhpc/mode/model_io.h"

#include "model_weights.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static int check_dir(const char *dir)
{
    if (!kd_path_exists(dir))
        return KD_FAIL(KD_EINPUT, "model directory %s does not exist", dir);
    if (!kd_path_is_dir(dir))
        return KD_FAIL(KD_EINPUT, "%s is not a model directory", dir);
    return KD_OK;
}

int kd_model_dir_config(const char *dir, struct kd_json **out)
{
    char *path = NULL;
    int rc;

    KD_TRY(check_dir(dir));
    KD_TRY(kd_path_join(dir, "config.json", &path));
    if (kd_path_exists(path))
        rc = kd_json_parse_file(path, out);
    else
        rc = KD_FAIL(KD_EINPUT, "%s is not a model directory: it has no config.json",
                     dir);
    free(path);
    return rc;
}

static int load_weights(struct kd_model *m, const char *dir)
{
    struct kd_weights *w = NULL;
    const struct kd_weight **of = NULL;
    struct kd_str heads = {0};
    int rc;

    KD_GO(kd_weights_open(dir, &w));
    KD_GO(kd_calloc(kd_model_params(m)->n, sizeof *of, &of));
    KD_GO(kd_model_match(m, w, dir, of, &heads, NULL));
    if (heads.len)
        kd_warn("%s: the head of another task is passed over%s", dir, heads.data);
    rc = kd_model_fill(m, of);
out:
    kd_str_free(&heads);
    free(of);
    kd_weights_close(w);
    return rc;
}

static int load_local(struct kd_run *run, const char *dir, struct kd_model **out)
{
    struct kd_json *config = NULL;
    struct kd_model *m = NULL;
    char **files = NULL;
    int rc;

    KD_GO(KD_FAULT("model.load"));
    KD_GO(kd_model_dir_config(dir, &config));
    KD_GO(kd_weights_files(dir, &files)); /* before memory is taken for them */
    KD_GO(kd_model_new(run->be, run->dtype, config, &m));
    KD_GO(load_weights(m, dir));
    *out = m;
    m = NULL;
out:
    kd_weights_files_free(files);
    kd_model_free(m);
    kd_json_free(config);
    return rc;
}

int kd_model_load(struct kd_run *run, const char *dir, struct kd_model **out)
{
    struct kd_model *m = NULL;
    int rc = kd_agree(run->comm, load_local(run, dir, &m));

    if (rc) {
        kd_model_free(m);
        return rc;
    }
    *out = m;
    return KD_OK;
}

/* ---- facts about a directory ---- */

int kd_model_dir_dtype(const char *dir, enum kd_dtype *out)
{
    struct kd_weights *w = NULL;

    KD_TRY(check_dir(dir));
    KD_TRY(kd_weights_open(dir, &w));
    *out = kd_weights_dtype(w);
    kd_weights_close(w);
    if (*out == KD_F64) /* which is read, but not written */
        *out = KD_F32;
    return KD_OK;
}

static int hash_file(const char *path, XXH64_state_t *state)
{
    enum { CHUNK = 1 << 20 };
    FILE *f = fopen(path, "rb");
    char *buf = NULL;
    size_t n;
    int rc;

    if (!f)
        return KD_FAIL(KD_EINPUT, "cannot read %s: %s", path, strerror(errno));
    KD_GO(kd_calloc(CHUNK, 1, &buf));
    while ((n = fread(buf, 1, CHUNK, f)) > 0)
        XXH64_update(state, buf, n);
    if (ferror(f))
        rc = KD_FAIL(KD_EINPUT, "cannot read %s: %s", path, strerror(errno));
out:
    free(buf);
    fclose(f);
    return rc;
}

static int hash_member(const char *dir, const char *name, XXH64_state_t *state)
{
    char *path = NULL;
    int rc;

    KD_TRY(kd_path_join(dir, name, &path));
    rc = hash_file(path, state);
    free(path);
    return rc;
}

int kd_model_dir_digest(const char *dir, char out[17])
{
    XXH64_state_t *state = XXH64_createState();
    char **files = NULL;
    int rc;

    if (!state)
        return KD_FAIL(KD_ENOMEM, "no memory for a digest");
    XXH64_reset(state, 0);
    KD_GO(check_dir(dir));
    KD_GO(kd_weights_files(dir, &files));
    KD_GO(hash_member(dir, "config.json", state));
    for (char **file = files; *file; file++)
        KD_GO(hash_member(dir, *file, state));
    rc = kd_format(out, 17, "%016llx", (unsigned long long)XXH64_digest(state));
out:
    XXH64_freeState(state);
    kd_weights_files_free(files);
    return rc;
}

/* ---- model and corpus ---- */

static int check_side(const char *corpus_name, const char *side, int32_t max_id,
                      int64_t vocab_size)
{
    if (max_id >= vocab_size)
        return KD_FAIL(KD_EINPUT,
                       "%s holds %s token id %d, but the model's vocabulary has %lld: "
                       "was it made with another tokenizer?",
                       corpus_name, side, (int)max_id, (long long)vocab_size);
    return KD_OK;
}

int kd_model_fits_corpus(const struct kd_model *m, const struct kd_corpus *corpus,
                         const char *corpus_name)
{
    const struct kd_arch *a = kd_model_arch(m);
    int64_t n = kd_corpus_size(corpus), n_src, n_tgt;

    KD_TRY(check_side(corpus_name, "source", kd_corpus_max_source(corpus),
                      a->source_vocab_size));
    KD_TRY(
        check_side(corpus_name, "target", kd_corpus_max_target(corpus), a->vocab_size));
    if (a->start_rule == KD_START_TOKEN && a->decoder_start_id < 0)
        return KD_FAIL(KD_EINPUT,
                       "the model has no decoder_start_token_id, with which decoder "
                       "inputs begin: give its config.json one");
    for (int64_t i = 0; i < n; i++) {
        kd_corpus_source(corpus, i, &n_src);
        kd_corpus_target(corpus, i, &n_tgt);
        if (n_src > a->max_positions || n_tgt > a->max_positions)
            return KD_FAIL(KD_EINPUT,
                           "%s: example %lld has %lld source and %lld target tokens, "
                           "the model has %lld positions: tokenize with a lower "
                           "max_source_length or max_target_length",
                           corpus_name, (long long)kd_corpus_id(corpus, i),
                           (long long)n_src, (long long)n_tgt,
                           (long long)a->max_positions);
    }
    return KD_OK;
}

void kd_corpus_warn_of_tokenizer(const struct kd_corpus *corpus,
                                 const char *corpus_name, const struct kd_tokenizer *t)
{
    const char *theirs = kd_corpus_tokenizer_digest(corpus),
               *ours = kd_tokenizer_digest(t);

    if (theirs && *theirs && strcmp(theirs, ours) != 0)
        kd_warn("%s was made with another tokenizer (digest %s, here %s): outputs may "
                "be wrong",
                corpus_name, theirs, ours);
}
