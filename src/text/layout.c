/* SPDX-License-Identifier: Apache-2.0 */
/* From model files without a tokenizer.json to the chain that transformers would make
 * of them: SentencePiece models in the T5, Pegasus, mBART and mBART-50 layouts,
 * WordPiece from vocab.txt, and byte-level BPE from vocab.json and merges.txt.
 *
 * T5: ids are the model's, `extra_ids` sentinels after them.  Pegasus: padding and end,
 * two masks, then tokens of its pre-training up to `offset`, then the model's.  mBART:
 * four fixed ids, then the pieces from the fourth on, language codes, <mask>.  A
 * SentencePiece model of type BPE has scores instead of merges; its merges are every
 * split of every piece into two pieces, by falling score, then by falling lengths of
 * the parts. */
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

#define MARK "\xE2\x96\x81" /* U+2581 */

int kd_norm_add(struct kd_tokenizer *t, enum kd_norm_kind kind, const char *pattern,
                const char *content)
{
    struct kd_norm_step *step = &t->norm[t->n_norm];

    if (t->n_norm == KD_MAX_NORM_STEPS)
        return KD_FAIL(KD_EINPUT, "the tokenizer has more than %d normalisers",
                       KD_MAX_NORM_STEPS);
    t->n_norm++;
    step->kind = kind;
    if (pattern)
        KD_TRY(kd_strdup(pattern, &step->pattern));
    return content ? kd_strdup(content, &step->content) : KD_OK;
}

/* ---- SentencePiece ---- */

/** Pieces in the order of their ids, as they are added. */
struct piece_list {
    struct kd_tokenizer *t;
    int64_t n, cap_score;
};

static int add_piece(struct piece_list *list, const char *s, int64_t len, double score)
{
    struct kd_tokenizer *t = list->t;

    KD_TRY(kd_grow(&t->unigram.score, &list->cap_score, list->n + 1,
                   sizeof *t->unigram.score));
    t->unigram.score[list->n] = score;
    return kd_strtab_put(&t->pieces, list->n++, s, len);
}

static int add_name(struct piece_list *list, const char *name)
{
    return add_piece(list, name, (int64_t)strlen(name), 0.0);
}

static int add_model_pieces(struct piece_list *list, const struct kd_spm *m,
                            int64_t from)
{
    for (int64_t i = from; i < m->n; i++)
        KD_TRY(add_piece(list, m->bytes + m->at[i], m->at[i + 1] - m->at[i],
                         (double)m->score[i]));
    return KD_OK;
}

static int add_t5_pieces(struct piece_list *list, const struct kd_spm *m, int64_t extra)
{
    KD_TRY(add_model_pieces(list, m, 0));
    for (int64_t i = extra - 1; i >= 0; i--) {
        char name[32];

        KD_TRY(kd_format(name, sizeof name, "<extra_id_%lld>", (long long)i));
        KD_TRY(add_name(list, name));
    }
    return KD_OK;
}

static int add_mbart_pieces(struct piece_list *list, const struct kd_spm *m,
                            enum kd_layout layout)
{
    char code[6];

    KD_TRY(add_name(list, "<s>"));
    KD_TRY(add_name(list, "<pad>"));
    KD_TRY(add_name(list, "</s>"));
    KD_TRY(add_name(list, "<unk>"));
    KD_TRY(add_model_pieces(list, m, 3));
    for (int i = 0; kd_lang_code(layout, i, code); i++)
        KD_TRY(add_name(list, code));
    return add_name(list, "<mask>");
}

static int add_pegasus_pieces(struct piece_list *list, const struct kd_spm *m,
                              const struct kd_json *config)
{
    const char *sent = kd_pegasus_mask_sent(config);
    int64_t offset = kd_pegasus_offset(config);

    KD_TRY(add_name(list, kd_json_str(config, "pad_token", "<pad>")));
    KD_TRY(add_name(list, kd_json_str(config, "eos_token", "</s>")));
    if (sent) { /* with the mask of words after that of sentences */
        KD_TRY(add_name(list, sent));
        KD_TRY(add_name(list, kd_json_str(config, "mask_token", "<mask_2>")));
    }
    for (int64_t i = 2; i < offset; i++) {
        char name[32];

        KD_TRY(kd_format(name, sizeof name, "<unk_%lld>", (long long)i));
        KD_TRY(add_piece(list, name, (int64_t)strlen(name), -100.0));
    }
    return add_model_pieces(list, m, 2);
}

struct split {
    int32_t left, right, whole;
    int32_t left_chars, right_chars;
    float score;
};

static int compare_splits(const void *pa, const void *pb)
{
    const struct split *a = pa, *b = pb;

    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    if (a->left_chars != b->left_chars)
        return a->left_chars > b->left_chars ? -1 : 1;
    if (a->right_chars != b->right_chars)
        return a->right_chars > b->right_chars ? -1 : 1;
    if (a->whole != b->whole)
        return a->whole < b->whole ? -1 : 1;
    if (a->left != b->left)
        return a->left < b->left ? -1 : 1;
    return a->right < b->right ? -1 : a->right > b->right;
}

static int32_t count_chars(const char *s, int64_t len)
{
    int32_t n = 0;

    for (int64_t i = 0; i < len; i++)
        n += ((unsigned char)s[i] & 0xC0) != 0x80;
    return n;
}

struct split_list {
    struct split *v;
    int64_t n, cap;
};

/** Append the splits of piece ID into two pieces. */
static int add_splits(const struct kd_tokenizer *t, int32_t id, struct split_list *list)
{
    int64_t len = 0;
    const char *s = kd_strtab_get(&t->pieces, id, &len);

    for (int64_t i = 1; i < len; i++) {
        struct split p = {.whole = id, .score = (float)t->unigram.score[id]};

        if (((unsigned char)s[i] & 0xC0) == 0x80)
            continue;
        p.left = kd_strtab_find(&t->pieces, s, i);
        p.right = kd_strtab_find(&t->pieces, s + i, len - i);
        if (p.left < 0 || p.right < 0)
            continue;
        p.left_chars = count_chars(s, i);
        p.right_chars = count_chars(s + i, len - i);
        KD_TRY(kd_grow(&list->v, &list->cap, list->n + 1, sizeof *list->v));
        list->v[list->n++] = p;
    }
    return KD_OK;
}

static int merges_from_scores(struct kd_tokenizer *t)
{
    struct split_list list = {0};
    int rc = KD_OK;

    for (int64_t id = 0; id < t->pieces.n; id++)
        KD_GO(add_splits(t, (int32_t)id, &list));
    if (list.n)
        qsort(list.v, (size_t)list.n, sizeof *list.v, compare_splits);
    KD_GO(kd_merges_reserve(&t->merges, list.n));
    for (int64_t i = 0; i < list.n; i++) {
        int64_t left = 0, right = 0;
        const char *l = kd_strtab_get(&t->pieces, list.v[i].left, &left);
        const char *r = kd_strtab_get(&t->pieces, list.v[i].right, &right);

        KD_GO(kd_merges_add(t, l, left, r, right, i));
    }
out:
    free(list.v);
    return rc;
}

/** Control pieces are special tokens, user-defined ones plain added tokens. */
static int add_model_tokens(struct kd_tokenizer *t, const struct kd_spm *m)
{
    for (int64_t i = 0; i < m->n; i++) {
        struct kd_added_token flags = {.special = m->kind[i] == KD_SPM_CONTROL};
        char *name = NULL;
        int rc = KD_OK;

        if (m->kind[i] != KD_SPM_CONTROL && m->kind[i] != KD_SPM_USER)
            continue;
        KD_TRY(kd_strndup(m->bytes + m->at[i], m->at[i + 1] - m->at[i], &name));
        rc = kd_added_put(t, &flags, name);
        free(name);
        KD_TRY(rc);
    }
    return KD_OK;
}

/** The pieces of LAYOUT in the order of their ids, and the one for the unknown. */
static int add_layout_pieces(struct kd_tokenizer *t, const struct kd_spm *m,
                             enum kd_layout layout, const struct kd_json *config)
{
    struct piece_list list = {.t = t};

    if (layout == KD_LAYOUT_MBART || layout == KD_LAYOUT_MBART50) {
        KD_TRY(add_mbart_pieces(&list, m, layout));
        t->unk_piece = 3;
    } else if (layout == KD_LAYOUT_PEGASUS) {
        KD_TRY(add_pegasus_pieces(&list, m, config));
        t->unk_piece = m->unk_id + (int32_t)kd_pegasus_offset(config);
    } else {
        KD_TRY(add_t5_pieces(&list, m, kd_json_int(config, "extra_ids", 100)));
        t->unk_piece = m->unk_id;
    }
    if (t->unk_piece >= list.n)
        return KD_FAIL(KD_EINPUT, "the SentencePiece model has no unknown piece");
    return kd_strtab_index(&t->pieces);
}

static enum kd_prepend prepend_of(enum kd_layout layout, const struct kd_json *config)
{
    bool t5 = layout == KD_LAYOUT_T5 || layout == KD_LAYOUT_JSON;

    if (t5 && kd_json_get(config, "add_prefix_space") &&
        !kd_json_bool(config, "add_prefix_space", false)) /* null is not absent here */
        return KD_PREPEND_NEVER;
    return t5 && kd_json_has(config, "legacy") && !kd_json_bool(config, "legacy", true)
               ? KD_PREPEND_FIRST
               : KD_PREPEND_ALWAYS;
}

static int build_spm(struct kd_tokenizer *t, const struct kd_spm *m,
                     enum kd_layout layout, const struct kd_json *config)
{
    enum kd_prepend prepend = prepend_of(layout, config);
    struct kd_cut_step *step = NULL;

    KD_TRY(add_layout_pieces(t, m, layout, config));
    t->fuse_unk = true;
    t->segmenter = m->model_type == 2 ? KD_BPE : KD_UNIGRAM;
    if (t->segmenter == KD_BPE)
        KD_TRY(merges_from_scores(t));
    else
        KD_TRY(kd_unigram_prepare(&t->unigram, &t->pieces,
                                  kd_unigram_min_score(&t->unigram, t->pieces.n)));
    KD_TRY(add_model_tokens(t, m));
    if (m->charsmap_len) {
        KD_TRY(kd_charsmap_read(m->charsmap, m->charsmap_len, &t->charsmap));
        KD_TRY(kd_norm_add(t, KD_NORM_CHARSMAP, NULL, NULL));
    }
    KD_TRY(kd_norm_add(t, KD_NORM_STRIP, NULL, NULL));
    t->norm[t->n_norm - 1].strip_right = true;
    KD_TRY(kd_norm_add(t, KD_NORM_SPACE_RUNS, NULL, MARK));
    if (layout == KD_LAYOUT_PEGASUS && (step = kd_cut_add(t, KD_CUT_CHARS)))
        step->chars = KD_CHARS_SPACE; /* and removed */
    KD_TRY(kd_cut_add_metaspace(t, prepend, true));
    KD_TRY(kd_decode_add(t, KD_DECODE_METASPACE, MARK, NULL));
    t->decode[0].flag = prepend != KD_PREPEND_NEVER;
    return KD_OK;
}

int kd_read_spm_layout(struct kd_tokenizer *t, const char *path, enum kd_layout layout,
                       const struct kd_json *config)
{
    struct kd_spm m = {0};
    int rc = KD_OK;

    KD_GO(kd_spm_read(path, &m));
    if (m.model_type != 1 && m.model_type != 2) {
        rc = KD_FAIL(KD_EINPUT, "%s: neither a unigram nor a BPE model", path);
        goto out;
    }
    rc = build_spm(t, &m, layout, config);
out:
    kd_spm_free(&m);
    return rc;
}

/* ---- WordPiece ---- */

/** The id of a piece is the number of its line. */
static int parse_vocab(struct kd_tokenizer *t, const struct kd_str *text)
{
    const char *p = text->data ? text->data : "", *end = p + text->len;

    for (int64_t id = 0; p < end; id++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        int64_t len = (stop ? stop : end) - p;

        KD_TRY(kd_strtab_put(&t->pieces, id, p, len - (len > 0 && p[len - 1] == '\r')));
        p += len + 1;
    }
    return kd_strtab_index(&t->pieces);
}

int kd_read_bert_layout(struct kd_tokenizer *t, const char *path,
                        const struct kd_json *config)
{
    bool strip = kd_json_bool(config, "strip_accents", false);
    const char *unk = kd_json_str(config, "unk_token", "[UNK]");
    struct kd_cut_step *step = NULL;
    struct kd_str text = {0};
    int rc = KD_OK;

    KD_GO(kd_read_file(path, &text));
    KD_GO(parse_vocab(t, &text));
    t->segmenter = KD_WORD_PIECE;
    t->unk_piece = kd_strtab_find(&t->pieces, unk, (int64_t)strlen(unk));
    t->word_pieces.max_chars = 100;
    KD_GO(kd_word_piece_prepare(t, "##"));
    KD_GO(kd_norm_add_bert(t, true,
                           kd_json_bool(config, "tokenize_chinese_chars", true),
                           kd_json_has(config, "strip_accents") ? strip : -1,
                           kd_json_bool(config, "do_lower_case", true)));
    step = kd_cut_add(t, KD_CUT_CHARS);
    step->chars = KD_CHARS_SPACE;
    step = kd_cut_add(t, KD_CUT_CHARS);
    step->chars = KD_CHARS_PUNCTUATION;
    step->behaviour = KD_CUT_ISOLATED;
    KD_GO(kd_decode_add(t, KD_DECODE_WORD_PIECE, "##", NULL));
    t->decode[0].flag = true;
out:
    kd_str_free(&text);
    return rc;
}

/* ---- byte-level BPE ---- */

int kd_read_vocab_json(const char *dir, const char *name, struct kd_strtab *pieces)
{
    struct kd_json *j = NULL;
    char *path = NULL;
    int rc = KD_OK;

    KD_TRY(kd_path_join(dir, name, &path));
    KD_GO(kd_json_parse_file(path, &j));
    if (!kd_json_is_object(j)) {
        rc = KD_FAIL(KD_EINPUT, "%s: not a JSON object of pieces and ids", path);
        goto out;
    }
    for (void *it = kd_json_first(j); it; it = kd_json_next(j, it))
        KD_GO(kd_strtab_put(pieces, kd_json_as_int(kd_json_value(it), -1),
                            kd_json_key(it), (int64_t)strlen(kd_json_key(it))));
    rc = kd_strtab_index(pieces);
out:
    kd_json_free(j);
    free(path);
    return rc;
}

static int64_t count_lines(const char *s, int64_t len)
{
    int64_t n = 1;

    for (int64_t i = 0; i < len; i++)
        n += s[i] == '\n';
    return n;
}

/** The first line is a header, and what follows the last newline is not read. */
static int parse_merges(struct kd_tokenizer *t, const struct kd_str *text,
                        const char *path)
{
    const char *p = text->data ? text->data : "", *end = p + text->len;
    int64_t rank = -1;

    KD_TRY(kd_merges_reserve(&t->merges, count_lines(p, text->len)));
    for (const char *stop = NULL; (stop = memchr(p, '\n', (size_t)(end - p)));
         p = stop + 1, rank++) {
        int64_t len = stop - p - (stop > p && stop[-1] == '\r');
        const char *space = memchr(p, ' ', (size_t)len);

        if (rank < 0)
            continue;
        if (!space || space == p || space == p + len - 1)
            return KD_FAIL(KD_EINPUT, "%s:%lld: not two symbols with a space between",
                           path, (long long)rank + 2);
        KD_TRY(kd_merges_add(t, p, space - p, space + 1, p + len - space - 1, rank));
    }
    return KD_OK;
}

int kd_read_byte_bpe_layout(struct kd_tokenizer *t, const char *dir)
{
    char *merges = NULL;
    struct kd_str text = {0};
    int rc = KD_OK;

    KD_GO(kd_path_join(dir, "merges.txt", &merges));
    KD_GO(kd_read_vocab_json(dir, "vocab.json", &t->pieces));
    KD_GO(kd_read_file(merges, &text));
    KD_GO(parse_merges(t, &text, merges));
    t->segmenter = KD_BPE;
    t->merges.byte_level = true;
    kd_bpe_prepare(t);
    KD_GO(kd_cut_add_byte_level(t, false, true));
    rc = kd_decode_add(t, KD_DECODE_BYTE_LEVEL, NULL, NULL);
out:
    kd_str_free(&text);
    free(merges);
    return rc;
}
