/* SPDX-License-Identifier: Apache-2.0 */
/* Reading tokenizer.json: the same chain, spelled out component by component.
 *
 * Supported is what BART, RoBERTa, GPT-2, T5 and mBART tokenizers are made of; any
 * other component is refused by name, because passing it over would give other ids. */
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

/** Child KEY, or NULL where it is absent or JSON null. */
static const struct kd_json *part(const struct kd_json *j, const char *key)
{
    return kd_json_has(j, key) ? kd_json_get(j, key) : NULL;
}

static const char *type_of(const struct kd_json *j)
{
    return kd_json_str(j, "type", "");
}

static bool is_type(const struct kd_json *j, const char *type)
{
    return strcmp(type_of(j), type) == 0;
}

static int refuse(const char *part, const struct kd_json *j)
{
    return KD_FAIL(KD_EINPUT, "tokenizer.json: %s %s is not supported", part,
                   type_of(j));
}

/* ---- normaliser ---- */

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static int read_base64(const char *text, struct kd_str *out)
{
    uint32_t bits = 0;
    int n_bits = 0;

    for (; *text && *text != '='; text++) {
        int v = base64_value(*text);

        if (v < 0)
            return KD_FAIL(KD_EINPUT,
                           "tokenizer.json: the character map is not base64");
        bits = bits << 6 | (uint32_t)v;
        n_bits += 6;
        if (n_bits >= 8) {
            char byte = (char)(bits >> (n_bits - 8) & 0xFF);

            n_bits -= 8;
            KD_TRY(kd_str_append(out, &byte, 1));
        }
    }
    return KD_OK;
}

static int read_charsmap(struct kd_tokenizer *t, const struct kd_json *j)
{
    struct kd_str blob = {0};
    int rc = KD_OK;

    if (t->charsmap.units)
        return refuse("a second normaliser of type", j);
    KD_GO(read_base64(kd_json_str(j, "precompiled_charsmap", ""), &blob));
    if (blob.len == 0)
        goto out;
    KD_GO(kd_charsmap_read(blob.data, blob.len, &t->charsmap));
    rc = kd_norm_add(t, KD_NORM_CHARSMAP, NULL, NULL);
out:
    kd_str_free(&blob);
    return rc;
}

static int read_replace(struct kd_tokenizer *t, const struct kd_json *j)
{
    const struct kd_json *pattern = kd_json_get(j, "pattern");
    const char *regex = kd_json_str(pattern, "Regex", NULL),
               *string = kd_json_str(pattern, "String", NULL),
               *content = kd_json_str(j, "content", "");

    if (string)
        return kd_norm_add(t, KD_NORM_REPLACE, string, content);
    if (regex && strcmp(regex, " {2,}") == 0)
        return kd_norm_add(t, KD_NORM_SPACE_RUNS, NULL, content);
    return KD_FAIL(KD_EINPUT,
                   "tokenizer.json: a Replace of the pattern %s is not "
                   "supported",
                   regex ? regex : "(none)");
}

static int read_normalizer(struct kd_tokenizer *t, const struct kd_json *j)
{
    const struct kd_json *list = kd_json_get(j, "normalizers");

    if (!j)
        return KD_OK;
    if (is_type(j, "Sequence")) {
        for (int64_t i = 0; i < kd_json_len(list); i++) {
            if (is_type(kd_json_at(list, i), "Sequence"))
                return refuse("a nested normaliser", kd_json_at(list, i));
            KD_TRY(read_normalizer(t, kd_json_at(list, i)));
        }
        return KD_OK;
    }
    if (is_type(j, "Precompiled"))
        return read_charsmap(t, j);
    if (is_type(j, "Replace"))
        return read_replace(t, j);
    if (is_type(j, "Prepend"))
        return kd_norm_add(t, KD_NORM_PREPEND, NULL, kd_json_str(j, "prepend", ""));
    if (is_type(j, "Strip")) {
        KD_TRY(kd_norm_add(t, KD_NORM_STRIP, NULL, NULL));
        t->norm[t->n_norm - 1].strip_left = kd_json_bool(j, "strip_left", false);
        t->norm[t->n_norm - 1].strip_right = kd_json_bool(j, "strip_right", false);
        return KD_OK;
    }
    return refuse("normaliser", j);
}

/* ---- cutter, decoder ---- */

/** The prepend scheme of a Metaspace, in its present or older spelling. */
static enum kd_prepend read_prepend(const struct kd_json *j)
{
    const char *scheme = kd_json_str(j, "prepend_scheme", "always");

    if (!kd_json_bool(j, "add_prefix_space", true) || strcmp(scheme, "never") == 0)
        return KD_PREPEND_NEVER;
    return strcmp(scheme, "first") == 0 ? KD_PREPEND_FIRST : KD_PREPEND_ALWAYS;
}

static int check_replacement(const struct kd_json *j)
{
    return strcmp(kd_json_str(j, "replacement", "\xE2\x96\x81"), "\xE2\x96\x81") == 0
               ? KD_OK
               : KD_FAIL(KD_EINPUT,
                         "tokenizer.json: a Metaspace with another mark than "
                         "U+2581 is not supported");
}

static int read_cutter(struct kd_tokenizer *t, const struct kd_json *j)
{
    const struct kd_json *list = kd_json_get(j, "pretokenizers");

    if (is_type(j, "Sequence") && kd_json_len(list) == 2 &&
        is_type(kd_json_at(list, 0), "WhitespaceSplit")) {
        t->white_space_first = true;
        j = kd_json_at(list, 1);
        if (!is_type(j, "Metaspace"))
            return refuse("after WhitespaceSplit, pre-tokeniser", j);
    } else if (is_type(j, "Sequence") && kd_json_len(list) == 1) {
        j = kd_json_at(list, 0);
    }
    if (is_type(j, "Metaspace")) {
        t->cutter = KD_CUT_METASPACE;
        t->prepend = read_prepend(j);
        t->metaspace_split = kd_json_bool(j, "split", true);
        return check_replacement(j);
    }
    if (is_type(j, "ByteLevel")) {
        t->cutter = KD_CUT_BYTE_LEVEL;
        t->use_regex = kd_json_bool(j, "use_regex", true);
        return KD_OK;
    }
    return refuse("pre-tokeniser", j);
}

static int read_decoder(struct kd_tokenizer *t, const struct kd_json *j)
{
    if (is_type(j, "Metaspace")) {
        t->decode_drop_first_mark = read_prepend(j) != KD_PREPEND_NEVER;
        return check_replacement(j);
    }
    if (!is_type(j, "ByteLevel"))
        return refuse("decoder", j);
    t->decode_byte_level = true;
    return KD_OK;
}

/* ---- model ---- */

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
        t->unigram.score[i] = kd_json_as_num(kd_json_at(pair, 1), 0.0);
        KD_TRY(kd_strtab_put(&t->pieces, i, piece, (int64_t)strlen(piece)));
    }
    KD_TRY(kd_strtab_index(&t->pieces));
    t->segmenter = KD_UNIGRAM;
    t->unk_piece = (int32_t)kd_json_int(j, "unk_id", -1);
    t->byte_fallback = kd_json_bool(j, "byte_fallback", false);
    if (t->unk_piece >= n)
        return KD_FAIL(KD_EINPUT, "tokenizer.json: unk_id is not in the vocabulary");
    return kd_unigram_prepare(t);
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

static int read_bpe(struct kd_tokenizer *t, const struct kd_json *j)
{
    const struct kd_json *vocab = kd_json_get(j, "vocab"),
                         *merges = kd_json_get(j, "merges");
    const char *unk = kd_json_str(j, "unk_token", NULL);

    if (*kd_json_str(j, "continuing_subword_prefix", "") ||
        *kd_json_str(j, "end_of_word_suffix", "") ||
        kd_json_bool(j, "ignore_merges", false) || kd_json_num(j, "dropout", 0.0) > 0)
        return KD_FAIL(KD_EINPUT, "tokenizer.json: BPE with prefixes, suffixes, "
                                  "ignored merges or dropout is not supported");
    for (void *it = kd_json_first(vocab); it; it = kd_json_next(vocab, it))
        KD_TRY(kd_strtab_put(&t->pieces, kd_json_as_int(kd_json_value(it), -1),
                             kd_json_key(it), (int64_t)strlen(kd_json_key(it))));
    KD_TRY(kd_strtab_index(&t->pieces));
    KD_TRY(kd_merges_reserve(&t->merges, kd_json_len(merges)));
    for (int64_t i = 0; i < kd_json_len(merges); i++)
        KD_TRY(read_merge(t, kd_json_at(merges, i), i));
    t->segmenter = KD_BPE;
    t->unk_piece = unk ? kd_strtab_find(&t->pieces, unk, (int64_t)strlen(unk)) : -1;
    t->fuse_unk = kd_json_bool(j, "fuse_unk", false);
    t->byte_fallback = kd_json_bool(j, "byte_fallback", false);
    kd_bpe_prepare(t);
    return KD_OK;
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
        return refuse("post-processor", j);
    for (int64_t i = 0; i < kd_json_len(list); i++) {
        if (is_type(kd_json_at(list, i), "Sequence") || a->n_before || a->n_after)
            return refuse("a chain of post-processors with", kd_json_at(list, i));
        KD_TRY(read_post(kd_json_at(list, i), a));
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
    const struct kd_json *model = part(j, "model");
    bool unigram = is_type(model, "Unigram") ||
                   (!kd_json_has(model, "type") && kd_json_has(model, "unk_id"));

    KD_TRY(read_normalizer(t, part(j, "normalizer")));
    KD_TRY(read_cutter(t, part(j, "pre_tokenizer")));
    KD_TRY(read_decoder(t, part(j, "decoder")));
    t->merges.byte_level = t->cutter == KD_CUT_BYTE_LEVEL;
    if (!unigram && !is_type(model, "BPE") && kd_json_has(model, "type"))
        return refuse("model", model);
    KD_TRY(unigram ? read_unigram(t, model) : read_bpe(t, model));
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
