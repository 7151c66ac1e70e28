/* SPDX-License-Identifier: Apache-2.0 */
/* Tokenizers: which files make one, and the run of the chain that they describe.
 *
 * tokenizer.json decides where it is present; else the class that tokenizer_config.json
 * names, else the files, else config.json's model type say how to read the model file.
 * tokenizer_config.json and special_tokens_map.json then add tokens and name the
 * special ones.  The chain is read-only once loaded; encode borrows its memory from a
 * pool, so any number of threads may encode and decode at once. */
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static const char *const FILES[] = {
    "tokenizer.json",
    "spiece.model",
    "source.spm",
    "target.spm",
    "sentencepiece.bpe.model",
    "vocab.json",
    "target_vocab.json",
    "vocab-src.json",
    "vocab-tgt.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
};
enum { N_FILES = sizeof FILES / sizeof *FILES };

void kd_token_ids_free(struct kd_token_ids *ids)
{
    free(ids->v);
    *ids = (struct kd_token_ids){0};
}

int kd_token_ids_push(struct kd_token_ids *ids, int32_t id)
{
    if (ids->n == ids->cap)
        KD_TRY(kd_grow(&ids->v, &ids->cap, ids->n + 1, sizeof *ids->v));
    ids->v[ids->n++] = id;
    return KD_OK;
}

int kd_tokenizer_files(const char *dir, const char **names, int max_names)
{
    int n = 0;

    for (int i = 0; i < N_FILES && n + 1 < max_names; i++) {
        char *path = NULL;

        KD_TRY(kd_path_join(dir, FILES[i], &path));
        if (kd_path_exists(path))
            names[n++] = FILES[i];
        free(path);
    }
    if (max_names > 0)
        names[n] = NULL;
    return KD_OK;
}

/* ---- loading ---- */

static int read_json_in(const char *dir, const char *name, struct kd_json **out)
{
    char *path = NULL;
    int rc = KD_OK;

    *out = NULL;
    KD_TRY(kd_path_join(dir, name, &path));
    if (kd_path_exists(path))
        rc = kd_json_parse_file(path, out);
    free(path);
    return rc;
}

static bool has_file(const char *dir, const char *name)
{
    char *path = NULL;
    bool has = false;

    if (kd_path_join(dir, name, &path))
        return false;
    has = kd_path_exists(path);
    free(path);
    return has;
}

static int digest_files(const char *dir, char digest[17])
{
    const char *names[N_FILES + 1] = {0};
    struct kd_str text = {0};
    XXH64_state_t *state = XXH64_createState();
    int rc = KD_OK;

    if (!state)
        return KD_FAIL(KD_ENOMEM, "no memory for a digest");
    (void)XXH64_reset(state, 0);
    KD_GO(kd_tokenizer_files(dir, names, N_FILES + 1));
    for (int i = 0; names[i]; i++) {
        char *path = NULL;

        KD_GO(kd_path_join(dir, names[i], &path));
        rc = kd_read_file(path, &text);
        free(path);
        if (rc)
            goto out;
        (void)XXH64_update(state, names[i], strlen(names[i]) + 1);
        if (text.len > 0)
            (void)XXH64_update(state, text.data, (size_t)text.len);
    }
    KD_GO(kd_format(digest, 17, "%016llx", (unsigned long long)XXH64_digest(state)));
out:
    (void)XXH64_freeState(state);
    kd_str_free(&text);
    return rc;
}

struct known_class {
    const char *name, *model_type;
    enum kd_layout layout;
};

static const struct known_class CLASSES[] = {
    {"T5Tokenizer", "t5", KD_LAYOUT_T5},
    {"T5Tokenizer", "mt5", KD_LAYOUT_T5},
    {"MBartTokenizer", "mbart", KD_LAYOUT_MBART},
    {"MBart50Tokenizer", "", KD_LAYOUT_MBART50},
    {"BartTokenizer", "bart", KD_LAYOUT_BART},
    {"RobertaTokenizer", "roberta", KD_LAYOUT_BART},
    {"LEDTokenizer", "led", KD_LAYOUT_BART},
    {"LongformerTokenizer", "longformer", KD_LAYOUT_BART},
    {"GPT2Tokenizer", "gpt2", KD_LAYOUT_GPT2},
    {"PegasusTokenizer", "pegasus", KD_LAYOUT_PEGASUS},
    {"PegasusTokenizer", "pegasus_x", KD_LAYOUT_PEGASUS},
    {"PegasusTokenizer", "bigbird_pegasus", KD_LAYOUT_PEGASUS},
    {"MarianTokenizer", "marian", KD_LAYOUT_MARIAN},
    {"FSMTTokenizer", "fsmt", KD_LAYOUT_FSMT},
    {"BertTokenizer", "bert", KD_LAYOUT_BERT},
    {"DistilBertTokenizer", "distilbert", KD_LAYOUT_BERT},
    {"ElectraTokenizer", "electra", KD_LAYOUT_BERT},
};
enum { N_CLASSES = sizeof CLASSES / sizeof *CLASSES };

/** The layout of the class NAME (with or without "Fast"), or KD_N_LAYOUTS. */
static enum kd_layout layout_of_class(const char *name)
{
    size_t len = strlen(name);

    len -= len > 4 && strcmp(name + len - 4, "Fast") == 0 ? 4 : 0;
    for (int i = 0; i < N_CLASSES; i++)
        if (strlen(CLASSES[i].name) == len && strncmp(CLASSES[i].name, name, len) == 0)
            return CLASSES[i].layout;
    return KD_N_LAYOUTS;
}

/** Layout by the class that the directory names, else by files, else model type. */
static int find_layout(const char *dir, const struct kd_side_files *f,
                       enum kd_layout *out)
{
    const char *name = kd_json_str(f->config, "tokenizer_class", NULL);
    const char *type = kd_json_str(f->model_config, "model_type", "");

    if (!name)
        name = kd_json_str(f->model_config, "tokenizer_class", NULL);
    *out = name ? layout_of_class(name) : KD_N_LAYOUTS;
    if (*out != KD_N_LAYOUTS)
        return KD_OK;
    *out = KD_LAYOUT_JSON;
    if (name && has_file(dir, "tokenizer.json"))
        return KD_OK;
    if (name)
        return KD_FAIL(
            KD_EINPUT,
            "%s: tokenizer class %s is not supported (T5, Pegasus, MBart, "
            "MBart50, Bart, Roberta, LED, Longformer, GPT2, Bert, DistilBert, "
            "Electra, or a tokenizer.json are)",
            dir, name);
    if (has_file(dir, "spiece.model"))
        *out = KD_LAYOUT_T5;
    else if (has_file(dir, "sentencepiece.bpe.model"))
        *out = KD_LAYOUT_MBART;
    else if (has_file(dir, "source.spm"))
        *out = KD_LAYOUT_MARIAN;
    else if (has_file(dir, "vocab-src.json"))
        *out = KD_LAYOUT_FSMT;
    else if (has_file(dir, "vocab.json"))
        *out = KD_LAYOUT_BART;
    else if (has_file(dir, "vocab.txt"))
        *out = KD_LAYOUT_BERT;
    for (int i = 0; i < N_CLASSES; i++)
        if (*type && strcmp(CLASSES[i].model_type, type) == 0 &&
            (*out == KD_LAYOUT_JSON || *out == KD_LAYOUT_BART || *out == KD_LAYOUT_T5))
            *out = CLASSES[i].layout;
    return KD_OK;
}

/** Fill the chain from the file that decides; *JSON: it was tokenizer.json. */
static int read_chain(struct kd_tokenizer *t, const char *dir, enum kd_layout layout,
                      const struct kd_json *config, bool *json)
{
    static const char *const model_file[KD_N_LAYOUTS] = {
        [KD_LAYOUT_T5] = "spiece.model",
        [KD_LAYOUT_MBART] = "sentencepiece.bpe.model",
        [KD_LAYOUT_MBART50] = "sentencepiece.bpe.model",
        [KD_LAYOUT_BART] = "vocab.json",
        [KD_LAYOUT_GPT2] = "vocab.json",
        [KD_LAYOUT_BERT] = "vocab.txt",
        [KD_LAYOUT_PEGASUS] = "spiece.model",
        [KD_LAYOUT_MARIAN] = "source.spm",
        [KD_LAYOUT_FSMT] = "vocab-src.json",
        [KD_LAYOUT_JSON] = "spiece.model",
    };
    const char *name = model_file[layout];
    char *path = NULL;
    int rc = KD_OK;

    *json = has_file(dir, "tokenizer.json") && layout != KD_LAYOUT_MARIAN &&
            layout != KD_LAYOUT_FSMT;
    if (*json)
        name = "tokenizer.json";
    if (!has_file(dir, name))
        return KD_FAIL(KD_EINPUT,
                       "%s: no tokenizer there (looked for tokenizer.json "
                       "and %s)",
                       dir, name);
    KD_TRY(kd_path_join(dir, name, &path));
    if (*json)
        rc = kd_read_tokenizer_json(t, path);
    else if (layout == KD_LAYOUT_BART || layout == KD_LAYOUT_GPT2)
        rc = kd_read_byte_bpe_layout(t, dir);
    else if (layout == KD_LAYOUT_MARIAN)
        rc = kd_read_marian_layout(t, dir, config);
    else if (layout == KD_LAYOUT_FSMT)
        rc = kd_read_fsmt_layout(t, dir, config);
    else if (layout == KD_LAYOUT_BERT)
        rc = kd_read_bert_layout(t, path, config);
    else
        rc = kd_read_spm_layout(t, path, layout, config);
    free(path);
    return rc;
}

static int load_into(struct kd_tokenizer *t, const char *dir, struct kd_side_files *f)
{
    enum kd_layout layout = KD_LAYOUT_T5;
    bool json = false;

    if (!kd_path_is_dir(dir))
        return KD_FAIL(KD_EINPUT, "tokenizer directory %s does not exist", dir);
    KD_TRY(read_json_in(dir, "tokenizer_config.json", &f->config));
    KD_TRY(read_json_in(dir, "config.json", &f->model_config));
    KD_TRY(read_json_in(dir, "special_tokens_map.json", &f->map));
    KD_TRY(read_json_in(dir, "added_tokens.json", &f->added));
    if (!f->config && !(f->config = kd_json_object()))
        return KD_FAIL(KD_ENOMEM, "no memory for an empty object");
    KD_TRY(kd_check_counts(f->config));
    KD_TRY(find_layout(dir, f, &layout));
    KD_TRY(digest_files(dir, t->digest));
    KD_TRY(kd_graphemes_new(&t->graphemes));
    KD_TRY(read_chain(t, dir, layout, f->config, &json));
    if (t->n_cut == 1 && t->cut[0].kind == KD_CUT_BYTE_LEVEL)
        t->cut[0].add_prefix_space = kd_json_bool(f->config, "add_prefix_space", false);
    t->cleanup = kd_json_bool(f->config, "clean_up_tokenization_spaces",
                              layout == KD_LAYOUT_BERT && !json);
    KD_TRY(kd_special_read(t, layout, f));
    if (!json || layout == KD_LAYOUT_MBART || layout == KD_LAYOUT_MBART50)
        KD_TRY(kd_affix_set(t, layout, f->config));
    return kd_added_prepare(t);
}

static int pool_new(struct kd_scratch_pool **out)
{
    struct kd_scratch_pool *pool = NULL;

    KD_TRY(kd_calloc(1, sizeof *pool, &pool));
    if (pthread_mutex_init(&pool->lock, NULL)) {
        free(pool);
        return KD_FAIL(KD_EINTERNAL, "cannot make a lock for the tokenizer");
    }
    *out = pool;
    return KD_OK;
}

int kd_tokenizer_load(const char *dir, struct kd_tokenizer **out)
{
    struct kd_side_files files = {0};
    struct kd_tokenizer *t = NULL;
    int rc = KD_OK;

    *out = NULL;
    KD_TRY(kd_calloc(1, sizeof *t, &t));
    t->special = (struct kd_special_ids){.bos = -1, .eos = -1, .pad = -1, .unk = -1};
    t->unk_piece = -1;
    rc = pool_new(&t->pool);
    if (!rc)
        rc = load_into(t, dir, &files);
    kd_json_free(files.config);
    kd_json_free(files.model_config);
    kd_json_free(files.map);
    kd_json_free(files.added);
    if (rc)
        kd_tokenizer_free(t);
    else
        *out = t;
    return rc;
}

void kd_tokenizer_free(struct kd_tokenizer *t)
{
    if (!t)
        return;
    if (t->pool) {
        kd_scratch_free_all(t->pool);
        (void)pthread_mutex_destroy(&t->pool->lock);
    }
    free(t->pool);
    kd_added_free(t);
    for (int i = 0; i < t->n_cut; i++)
        kd_regex_free(t->cut[i].regex);
    kd_decode_free(t);
    kd_graphemes_free(t->graphemes);
    kd_slow_free(t->slow);
    kd_charsmap_free(&t->charsmap);
    for (int i = 0; i < t->n_norm; i++) {
        free(t->norm[i].pattern);
        free(t->norm[i].content);
        kd_regex_free(t->norm[i].regex);
    }
    kd_strtab_free(&t->pieces);
    kd_unigram_free(&t->unigram);
    free(t->merges.pair);
    free(t->merges.rank);
    free(t->merges.result);
    free(t->merges.prefix);
    free(t->merges.suffix);
    kd_strtab_free(&t->word_pieces.tails);
    free(t);
}

int64_t kd_tokenizer_size(const struct kd_tokenizer *t)
{
    return t->size;
}

int64_t kd_tokenizer_target_size(const struct kd_tokenizer *t)
{
    return t->slow && t->slow->target.n > t->size ? t->slow->target.n : t->size;
}

const struct kd_special_ids *kd_tokenizer_special(const struct kd_tokenizer *t)
{
    return &t->special;
}

const char *kd_tokenizer_digest(const struct kd_tokenizer *t)
{
    return t->digest;
}

static int set_lang(struct kd_tokenizer *t, enum kd_text_side side, const char *lang)
{
    int32_t id = 0;

    if (!lang)
        return KD_OK;
    if (!t->has_langs)
        return KD_FAIL(KD_EINPUT, "language code %s given, but the tokenizer has none",
                       lang);
    id = kd_token_id(t, lang);
    if (id < 0 || strlen(lang) != 5 || lang[2] != '_')
        return KD_FAIL(KD_EINPUT,
                       "the tokenizer has no language code %s (they look like en_XX)",
                       lang);
    if (t->lang_before)
        t->affix[side].before[0] = id;
    else
        t->affix[side].after[1] = id;
    return KD_OK;
}

int kd_tokenizer_set_langs(struct kd_tokenizer *t, const char *src_lang,
                           const char *tgt_lang)
{
    KD_TRY(set_lang(t, KD_SOURCE, src_lang));
    return set_lang(t, KD_TARGET, tgt_lang);
}

int32_t kd_tokenizer_target_lang(const struct kd_tokenizer *t, bool *in_front)
{
    const struct kd_affix *a = &t->affix[KD_TARGET];

    *in_front = t->lang_before;
    return t->lang_before ? a->before[0] : a->after[1];
}

/* ---- encoding ---- */

/** Normalise TEXT[len] between two added tokens, split again, cut and segment. */
static int encode_gap(const struct kd_tokenizer *t, struct kd_scratch *s,
                      const char *text, int64_t len, bool at_start,
                      struct kd_token_ids *ids)
{
    struct kd_added_match m = {0};
    const char *norm = NULL;
    int64_t n = 0, done = 0, from = 0;

    KD_TRY(kd_normalise(t, s, text, len, &norm, &n, &at_start));
    while (kd_added_next(t, &t->normalized_index, norm, n, from, done, &m)) {
        KD_TRY(kd_cut_and_segment(t, s, norm + done, m.start - done,
                                  at_start && done == 0, ids));
        KD_TRY(kd_token_ids_push(ids, m.id));
        done = m.stop;
        from = m.next;
    }
    return kd_cut_and_segment(t, s, norm + done, n - done, at_start && done == 0, ids);
}

static int encode_text(const struct kd_tokenizer *t, struct kd_scratch *s,
                       const char *text, int64_t len, struct kd_token_ids *ids)
{
    struct kd_added_match m = {0};
    int64_t done = 0, from = 0;

    while (kd_added_next(t, &t->raw_index, text, len, from, done, &m)) {
        if (m.start > done)
            KD_TRY(encode_gap(t, s, text + done, m.start - done, done == 0, ids));
        KD_TRY(kd_token_ids_push(ids, m.id));
        done = m.stop;
        from = m.next;
    }
    return done < len ? encode_gap(t, s, text + done, len - done, done == 0, ids)
                      : KD_OK;
}

int kd_tokenizer_encode(const struct kd_tokenizer *t, enum kd_text_side side,
                        const char *text, int64_t len, int64_t max_length,
                        struct kd_token_ids *ids, bool *truncated)
{
    const struct kd_affix *affix = &t->affix[side];
    int64_t bad = kd_utf8_invalid_at(text, len), room = 0;
    struct kd_scratch *s = NULL;
    int rc = KD_OK;

    if (truncated)
        *truncated = false;
    if (bad >= 0)
        return KD_FAIL(KD_EINPUT, "text is not valid UTF-8 at byte %lld",
                       (long long)bad);
    ids->n = 0;
    KD_TRY(kd_scratch_take(t, &s));
    for (int i = 0; i < affix->n_before; i++)
        KD_GO(kd_token_ids_push(ids, affix->before[i]));
    KD_GO(t->slow ? kd_slow_encode(t, s, side, text, len, ids)
                  : encode_text(t, s, text, len, ids));
    room = max_length - affix->n_after;
    if (max_length > 0 && ids->n > room) {
        ids->n = room > affix->n_before ? room : affix->n_before;
        if (truncated)
            *truncated = true;
    }
    for (int i = 0; i < affix->n_after; i++)
        KD_GO(kd_token_ids_push(ids, affix->after[i]));
out:
    kd_scratch_give(t, s);
    return rc;
}
