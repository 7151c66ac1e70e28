/* SPDX-License-Identifier: Apache-2.0 */
/* Reading of model directories in the Hugging Face layout.
 *
 * Every rank reads the weights itself, from one mapping whose pages the ranks of a node
 * share.  A checkpoint may hold any one name of a tied tensor, with or without the base
 * model's prefix; beyond that it must match config.json exactly: what is missing, what
 * is not expected and what has another shape goes into one error.  Called by every mode
 * that takes a model; model_save.c writes. */
#include "kdhpc/mode/model_io.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"
#include "kdhpc/store/safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { NAMES_SHOWN = 4, NAME_BYTES = 256 };

/* ---- matching names ---- */

/* A count and its first names, for one error line. */
struct name_list {
    int64_t n;
    struct kd_str text;
};

static int list_name(struct name_list *l, const char *name)
{
    if (l->n++ >= NAMES_SHOWN)
        return KD_OK;
    return kd_str_printf(&l->text, "%s%.112s", l->n > 1 ? ", " : "", name);
}

/* The tensor of the file that fills parameter INDEX, under any of its names. */
static int find_tensor(struct kd_model *m, int index, const struct kd_safetensors *file,
                       struct kd_tensor *out, bool *found)
{
    char buf[NAME_BYTES];
    const char *name;

    *found = false;
    for (int k = 0; !*found; k++) {
        name = kd_model_param_alias(m, index, k, buf, sizeof buf);
        if (!name)
            return KD_OK;
        KD_TRY(kd_safetensors_get(file, name, out, found));
    }
    return KD_OK;
}

static bool name_is_known(struct kd_model *m, const char *name)
{
    char buf[NAME_BYTES];
    const char *alias;

    if (kd_model_ignores(m, name))
        return true;
    for (int i = 0; i < kd_model_params(m)->n; i++)
        for (int k = 0; (alias = kd_model_param_alias(m, i, k, buf, sizeof buf)); k++)
            if (!strcmp(alias, name))
                return true;
    return false;
}

static int find_unexpected(struct kd_model *m, const struct kd_safetensors *file,
                           struct name_list *out)
{
    for (int i = 0; i < kd_safetensors_count(file); i++) {
        const char *name = kd_safetensors_name(file, i);

        if (!name_is_known(m, name))
            KD_TRY(list_name(out, name));
    }
    return KD_OK;
}

/* A buffer may be shorter than the vocabulary (a table that grew), and a vector may be
 * stored with a leading 1. */
static bool shape_fits(const struct kd_param *p, const struct kd_tensor *t)
{
    if (p->kind == KD_PARAM_BUFFER)
        return kd_tensor_count(t) <= p->count && t->ndim >= 1 &&
               t->shape[t->ndim - 1] == kd_tensor_count(t);
    if (t->ndim != p->ndim || t->shape[0] != p->shape[0])
        return false;
    return p->ndim == 1 || t->shape[1] == p->shape[1];
}

static int shape_error(const char *dir, const struct kd_param *p,
                       const struct kd_tensor *t)
{
    long long want[2] = {(long long)p->shape[0],
                         p->ndim > 1 ? (long long)p->shape[1] : 1};
    long long got[2] = {t->ndim > 0 ? (long long)t->shape[0] : 1,
                        t->ndim > 1 ? (long long)t->shape[1] : 1};

    return KD_FAIL(KD_EINPUT,
                   "%s: tensor %s has shape [%lld, %lld], config.json needs "
                   "[%lld, %lld]",
                   dir, p->name, got[0], got[1], want[0], want[1]);
}

/* ---- loading ---- */

static int load_param(struct kd_model *m, int index, const char *dir,
                      const struct kd_safetensors *file, float *scratch,
                      struct name_list *missing)
{
    struct kd_params *ps = kd_model_params(m);
    const struct kd_param *p = &ps->items[index];
    struct kd_tensor t;
    bool found;

    KD_TRY(find_tensor(m, index, file, &t, &found));
    if (!found)
        return kd_param_is_constant(p) ? KD_OK : list_name(missing, p->name);
    if (!shape_fits(p, &t))
        return shape_error(dir, p, &t);
    if (kd_tensor_count(&t) < p->count)
        memset(scratch, 0, (size_t)p->count * sizeof *scratch);
    kd_safetensors_to_f32(&t, scratch);
    KD_TRY(kd_params_upload(ps, index, scratch));
    return ps->be->ops->sync(ps->be); /* scratch is used again */
}

static int report_mismatch(const char *dir, const struct name_list *missing,
                           const struct name_list *unexpected)
{
    if (!missing->n && !unexpected->n)
        return KD_OK;
    return KD_FAIL(KD_EINPUT,
                   "%s: the weights do not match config.json: %lld missing%s%s%s, %lld "
                   "not expected%s%s%s",
                   dir, (long long)missing->n, missing->n ? " (" : "",
                   missing->n ? missing->text.data : "",
                   missing->n > NAMES_SHOWN ? ", ...)"
                   : missing->n             ? ")"
                                            : "",
                   (long long)unexpected->n, unexpected->n ? " (" : "",
                   unexpected->n ? unexpected->text.data : "",
                   unexpected->n > NAMES_SHOWN ? ", ...)"
                   : unexpected->n             ? ")"
                                               : "");
}

static int load_weights(struct kd_model *m, const char *dir,
                        const struct kd_safetensors *file)
{
    struct kd_params *ps = kd_model_params(m);
    struct name_list missing = {0}, unexpected = {0};
    float *scratch = NULL;
    int64_t largest = 0;
    int rc;

    for (int i = 0; i < ps->n; i++)
        if (ps->items[i].count > largest)
            largest = ps->items[i].count;
    KD_TRY(kd_calloc(largest, sizeof *scratch, &scratch));
    for (int i = 0; i < ps->n; i++)
        KD_GO(load_param(m, i, dir, file, scratch, &missing));
    KD_GO(find_unexpected(m, file, &unexpected));
    rc = report_mismatch(dir, &missing, &unexpected);
out:
    kd_str_free(&missing.text);
    kd_str_free(&unexpected.text);
    free(scratch);
    return rc;
}

static int check_dir(const char *dir)
{
    if (!kd_path_exists(dir))
        return KD_FAIL(KD_EINPUT, "model directory %s does not exist", dir);
    if (!kd_path_is_dir(dir))
        return KD_FAIL(KD_EINPUT, "%s is not a model directory", dir);
    return KD_OK;
}

static int read_config(const char *dir, struct kd_json **out)
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

static int load_local(struct kd_run *run, const char *dir, struct kd_model **out)
{
    struct kd_json *config = NULL;
    struct kd_safetensors *file = NULL;
    struct kd_model *m = NULL;
    int rc;

    KD_GO(KD_FAULT("model.load"));
    KD_GO(read_config(dir, &config));
    KD_GO(kd_safetensors_open(dir, &file));
    KD_GO(kd_model_new(run->be, run->dtype, config, &m));
    KD_GO(load_weights(m, dir, file));
    *out = m;
    m = NULL;
out:
    kd_model_free(m);
    if (file)
        kd_safetensors_close(file);
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
    struct kd_safetensors *file = NULL;
    struct kd_tensor t;
    bool found = false;
    int rc;

    KD_TRY(check_dir(dir));
    KD_TRY(kd_safetensors_open(dir, &file));
    rc = kd_safetensors_count(file) > 0
             ? kd_safetensors_get(file, kd_safetensors_name(file, 0), &t, &found)
             : KD_OK;
    kd_safetensors_close(file);
    if (!rc)
        *out = found ? t.dtype : KD_F32;
    return rc;
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

/* The index, then each shard when its first tensor comes up in the index's order. */
static int hash_shards(const char *dir, const char *index_path, XXH64_state_t *state)
{
    struct kd_json *index = NULL;
    const struct kd_json *map;
    int rc;

    KD_GO(hash_file(index_path, state));
    KD_GO(kd_json_parse_file(index_path, &index));
    map = kd_json_get(index, "weight_map");
    for (void *it = map ? kd_json_first(map) : NULL; it; it = kd_json_next(map, it)) {
        const char *shard = kd_json_as_str(kd_json_value(it), "");
        bool seen = false;

        for (void *b = kd_json_first(map); b != it; b = kd_json_next(map, b))
            seen = seen || !strcmp(kd_json_as_str(kd_json_value(b), ""), shard);
        if (!seen)
            KD_GO(hash_member(dir, shard, state));
    }
out:
    kd_json_free(index);
    return rc;
}

int kd_model_dir_digest(const char *dir, char out[17])
{
    XXH64_state_t *state = XXH64_createState();
    char *weights = NULL, *index = NULL;
    int rc;

    if (!state)
        return KD_FAIL(KD_ENOMEM, "no memory for a digest");
    XXH64_reset(state, 0);
    KD_GO(check_dir(dir));
    KD_GO(kd_path_join(dir, "model.safetensors", &weights));
    KD_GO(kd_path_join(dir, "model.safetensors.index.json", &index));
    KD_GO(hash_member(dir, "config.json", state));
    KD_GO(kd_path_exists(weights) ? hash_file(weights, state)
                                  : hash_shards(dir, index, state));
    rc = kd_format(out, 17, "%016llx", (unsigned long long)XXH64_digest(state));
out:
    XXH64_freeState(state);
    free(weights);
    free(index);
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
