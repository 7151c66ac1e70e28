/* SPDX-License-Identifier: Apache-2.0 */
/* Reading tokenizer.json: the same chain, spelled out component by component.
 *
 * Here are the models, the tokens around a text and the added tokens; json_steps.c has
 * the steps of normaliser, pre-tokeniser and decoder.  A component that is not known is
 * refused by name, because passing it over would give other ids. */
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/** Child KEY, or NULL where it is absent or JSON null. */
static const struct kd_json *part(const struct kd_json *j, const char *key)
{
    return kd_json_has(j, key) ? kd_json_get(j, key) : NULL;
}

static bool is_type(const struct kd_json *j, const char *type)
{
    return strcmp(kd_json_str(j, "type", ""), type) == 0;
}

/* ---- model ---- */

/** V as the reference's JSON reader has it: the shortest decimal digits of V as an
 * integer, rounded, times or by a power of ten, rounded again.  The last bit decides
 * ties between paths. */
static int as_read(double v, double *out)
{
    char text[40] = "";
    uint64_t digits = 0;
    int exponent = 0;

    *out = v;
    if (v == 0.0 || !isfinite(v))
        return KD_OK;
    for (int precision = 14; precision <= 16; precision++) {
        KD_TRY(kd_format(text, sizeof text, "%.*e", precision, fabs(v)));
        if (strtod(text, NULL) == fabs(v))
            break;
    }
    exponent = (int)strtol(strchr(text, 'e') + 1, NULL, 10);
    for (const char *p = text; *p != 'e'; p++)
        if (*p != '.') {
            digits = digits * 10 + (uint64_t)(*p - '0');
            exponent -= p > text;
        }
    for (; digits % 10 == 0; exponent++)
        digits /= 10;
    if (exponent < -300 || exponent > 300)
        return KD_OK;
    *out = exponent < 0 ? (double)digits / pow(10.0, -exponent)
                        : (double)digits * pow(10.0, exponent);
    *out = v < 0 ? -*out : *out;
    return KD_OK;
}

static int read_unigram(struct kd_tokenizer *t, const struct kd_json *j)
{
    const struct kd_json *vocab = kd_json_get(j, "vocab");
    int64_t n = kd_json_len(vocab);

    KD_TRY(kd_calloc(n, sizeof *t->unigram.score, &t->unigram.score));
    for (int64_t i = 0; i < n; i++) {
        const struct kd_json *pair = kd_json_at(vocab, i);
        const char *piece = kd_json_as_str(kd_json_at(pair, 0), NULL);

        if (!piece)
            return KD_FAIL(KD_EINPUT,
                           "tokenizer.json: piece %lld of the vocabulary is "
                           "not [text, score]",
                           (long long)i);
        KD_TRY(as_read(kd_json_as_num(kd_json_at(pair, 1), 0.0), &t->unigram.score[i]));
        KD_TRY(kd_strtab_put(&t->pieces, i, piece, (int64_t)strlen(piece)));
    }
    KD_TRY(kd_strtab_index(&t->pieces));
    t->segmenter = KD_UNIGRAM;
    t->unk_piece = (int32_t)kd_json_int(j, "unk_id", -1);
    t->byte_fallback = kd_json_bool(j, "byte_fallback", false);
    if (t->unk_piece >= n)
        return KD_FAIL(KD_EINPUT, "tokenizer.json: unk_id is not in the vocabulary");
    return kd_unigram_prepare(&t->unigram, &t->pieces,
                              kd_unigram_min_score(&t->unigram, n));
}

/** One merge: "left right", or ["left", "right"]. */
static int read_merge(struct kd_tokenizer *t, const struct kd_json *j, int64_t rank)
{
    const char *text = kd_json_as_str(j, NULL), *left = NULL, *right = NULL;
    int64_t left_len = 0;

    if (text) {
        left = text;
        right = strchr(text, ' ');
        left_len = right ? right - text : 0;
        right = right ? right + 1 : NULL;
    } else if (kd_json_is_array(j) && kd_json_len(j) == 2) {
        left = kd_json_as_str(kd_json_at(j, 0), NULL);
        right = kd_json_as_str(kd_json_at(j, 1), NULL);
        left_len = left ? (int64_t)strlen(left) : 0;
    }
    if (!left || !right)
        return KD_FAIL(KD_EINPUT, "tokenizer.json: merge %lld is not two symbols",
                       (long long)rank + 1);
    return kd_merges_add(t, left, left_len, right, (int64_t)strlen(right), rank);
}

static int read_vocab(struct kd_tokenizer *t, const struct kd_json *vocab)
{
    for (void *it = kd_json_first(vocab); it; it = kd_json_next(vocab, it))
        KD_TRY(kd_strtab_put(&t->pieces, kd_json_as_int(kd_json_value(it), -1),
                             kd_json_key(it), (int64_t)strlen(kd_json_key(it))));
    return kd_strtab_index(&t->pieces);
}

static int32_t piece_id(const struct kd_tokenizer *t, const char *piece)
{
    return piece ? kd_strtab_find(&t->pieces, piece, (int64_t)strlen(piece)) : -1;
}

/** Copy of KEY's string into *OUT, NULL if it is empty or absent. */
static int read_affix(const struct kd_json *j, const char *key, char **out)
{
    const char *s = kd_json_str(j, key, "");

    return *s ? kd_strdup(s, out) : KD_OK;
}

static int read_bpe(struct kd_tokenizer *t, const struct kd_json *j)
{
    const struct kd_json *merges = kd_json_get(j, "merges");

    if (kd_json_num(j, "dropout", 0.0) > 0)
        return KD_FAIL(KD_EINPUT, "tokenizer.json: BPE with dropout is not supported");
    KD_TRY(read_affix(j, "continuing_subword_prefix", &t->merges.prefix));
    KD_TRY(read_affix(j, "end_of_word_suffix", &t->merges.suffix));
    t->merges.ignore = kd_json_bool(j, "ignore_merges", false);
    t->byte_fallback = kd_json_bool(j, "byte_fallback", false);
    t->merges.byte_level = !t->merges.prefix && !t->merges.suffix &&
                           !t->byte_fallback && t->n_cut > 0 &&
                           t->cut[t->n_cut - 1].kind == KD_CUT_BYTE_LEVEL;
    KD_TRY(read_vocab(t, kd_json_get(j, "vocab")));
    KD_TRY(kd_merges_reserve(&t->merges, kd_json_len(merges)));
    for (int64_t i = 0; i < kd_json_len(merges); i++)
        KD_TRY(read_merge(t, kd_json_at(merges, i), i));
    t->segmenter = KD_BPE;
    t->unk_piece = piece_id(t, kd_json_str(j, "unk_token", NULL));
    t->fuse_unk = kd_json_bool(j, "fuse_unk", false);
    kd_bpe_prepare(t);
    return KD_OK;
}

static int read_word_piece(struct kd_tokenizer *t, const struct kd_json *j)
{
    t->segmenter = KD_WORD_PIECE;
    KD_TRY(read_vocab(t, kd_json_get(j, "vocab")));
    t->unk_piece = piece_id(t, kd_json_str(j, "unk_token", "[UNK]"));
    t->word_pieces.max_chars = kd_json_int(j, "max_input_chars_per_word", 100);
    return kd_word_piece_prepare(t, kd_json_str(j, "continuing_subword_prefix", "##"));
}

static int read_word_level(struct kd_tokenizer *t, const struct kd_json *j)
{
    t->segmenter = KD_WORD_LEVEL;
    KD_TRY(read_vocab(t, kd_json_get(j, "vocab")));
    t->unk_piece = piece_id(t, kd_json_str(j, "unk_token", "<unk>"));
    return KD_OK;
}

/** Files of before 2021 do not name the model's type. */
static int read_model(struct kd_tokenizer *t, const struct kd_json *j)
{
    bool named = kd_json_has(j, "type");

    if (is_type(j, "Unigram") || (!named && kd_json_has(j, "unk_id")))
        return read_unigram(t, j);
    if (is_type(j, "BPE") || (!named && kd_json_has(j, "merges")))
        return read_bpe(t, j);
    if (is_type(j, "WordPiece") ||
        (!named && kd_json_has(j, "max_input_chars_per_word")))
        return read_word_piece(t, j);
    if (is_type(j, "WordLevel") || (!named && kd_json_has(j, "vocab")))
        return read_word_level(t, j);
    return kd_json_refuse("model", j);
}

/* ---- special tokens around a sequence ---- */

/** Ids of the special token NAME of a template, appended to LIST[*N]. */
static int template_ids(const struct kd_json *j, const char *name, int32_t *list,
                        int *n)
{
    const struct kd_json *ids =
        kd_json_get(kd_json_get(kd_json_get(j, "special_tokens"), name), "ids");

    for (int64_t i = 0; i < kd_json_len(ids); i++) {
        if (*n == KD_MAX_AFFIX)
            return KD_FAIL(KD_EINPUT,
                           "tokenizer.json: more than %d special tokens "
                           "around a text",
                           KD_MAX_AFFIX);
        list[(*n)++] = (int32_t)kd_json_as_int(kd_json_at(ids, i), -1);
    }
    return KD_OK;
}

static int read_template(const struct kd_json *j, struct kd_affix *a)
{
    const struct kd_json *single = kd_json_get(j, "single");
    bool after = false;

    for (int64_t i = 0; i < kd_json_len(single); i++) {
        const struct kd_json *item = kd_json_at(single, i),
                             *token = kd_json_get(item, "SpecialToken");
        const char *name = kd_json_str(token, "id", "");

        if (!token)
            after = true;
        else if (after)
            KD_TRY(template_ids(j, name, a->after, &a->n_after));
        else
            KD_TRY(template_ids(j, name, a->before, &a->n_before));
    }
    return KD_OK;
}

static int read_post(const struct kd_json *j, struct kd_affix *a)
{
    const struct kd_json *list = kd_json_get(j, "processors");

    if (!j || is_type(j, "ByteLevel"))
        return KD_OK;
    if (is_type(j, "TemplateProcessing"))
        return read_template(j, a);
    if (is_type(j, "RobertaProcessing") || is_type(j, "BertProcessing")) {
        a->before[a->n_before++] =
            (int32_t)kd_json_as_int(kd_json_at(kd_json_get(j, "cls"), 1), -1);
        a->after[a->n_after++] =
            (int32_t)kd_json_as_int(kd_json_at(kd_json_get(j, "sep"), 1), -1);
        return KD_OK;
    }
    if (!is_type(j, "Sequence"))
        return kd_json_refuse("post-processor", j);
    for (int64_t i = 0; i < kd_json_len(list); i++) {
        const struct kd_json *one = kd_json_at(list, i);

        if (is_type(one, "ByteLevel")) /* moves offsets only */
            continue;
        if (is_type(one, "Sequence") || a->n_before || a->n_after)
            return kd_json_refuse("a chain of post-processors with", one);
        KD_TRY(read_post(one, a));
    }
    return KD_OK;
}

static int read_added(struct kd_tokenizer *t, const struct kd_json *list)
{
    for (int64_t i = 0; i < kd_json_len(list); i++) {
        const struct kd_json *j = kd_json_at(list, i);
        struct kd_added_token flags = kd_added_flags(j);
        const char *content = kd_json_str(j, "content", "");
        int64_t id = kd_json_int(j, "id", -1);

        KD_TRY(kd_added_put(t, &flags, content));
        if (kd_token_id(t, content) != id)
            return KD_FAIL(KD_EINPUT,
                           "tokenizer.json: added token %s has id %lld, but "
                           "would be %d",
                           content, (long long)id, (int)kd_token_id(t, content));
    }
    return KD_OK;
}

static int read_parts(struct kd_tokenizer *t, const struct kd_json *j)
{
    KD_TRY(kd_json_read_normalizer(t, part(j, "normalizer")));
    KD_TRY(kd_json_read_cutter(t, part(j, "pre_tokenizer")));
    KD_TRY(kd_json_read_decoder(t, part(j, "decoder")));
    KD_TRY(read_model(t, part(j, "model")));
    KD_TRY(read_post(part(j, "post_processor"), &t->affix[KD_SOURCE]));
    t->affix[KD_TARGET] = t->affix[KD_SOURCE];
    return read_added(t, part(j, "added_tokens"));
}

int kd_read_tokenizer_json(struct kd_tokenizer *t, const char *path)
{
    struct kd_json *j = NULL;
    int rc = KD_OK;

    KD_TRY(kd_json_parse_file(path, &j));
    rc = read_parts(t, j);
    kd_json_free(j);
    return rc;
}
