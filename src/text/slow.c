/* SPDX-License-Identifier: Apache-2.0 */
/* Tokenizers of which transformers has no fast kind: Marian and FSMT.
 *
 * Text is split at added tokens first; what lies between goes whole to the model: two
 * SentencePiece models (Marian, spm_encode.c), or Moses rules and BPE (FSMT, fsmt.c).
 * Pieces get their ids from a vocabulary that is not the model's.  Decoding takes the
 * target side's. */
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

#define MARK "\xE2\x96\x81" /* U+2581 */

int kd_slow_new(struct kd_tokenizer *t)
{
    return kd_calloc(1, sizeof *t->slow, &t->slow);
}

void kd_slow_free(struct kd_slow *slow)
{
    for (int side = 0; slow && side < 2; side++) {
        kd_spm_encoder_free(slow->spm[side]);
        kd_moses_free(slow->moses[side]);
    }
    if (slow)
        kd_strtab_free(&slow->target);
    free(slow);
}

static int32_t id_in(const struct kd_strtab *pieces, const char *piece)
{
    return kd_strtab_find(pieces, piece, (int64_t)strlen(piece));
}

static int open_spm(const char *dir, const char *name, struct kd_spm_encoder **out)
{
    char *path = NULL;
    int rc = kd_path_join(dir, name, &path);

    if (!rc)
        rc = kd_spm_encoder_new(path, out);
    free(path);
    return rc;
}

int kd_read_marian_layout(struct kd_tokenizer *t, const char *dir,
                          const struct kd_json *config)
{
    const char *unk = kd_json_str(config, "unk_token", "<unk>");

    KD_TRY(kd_slow_new(t));
    KD_TRY(open_spm(dir, "source.spm", &t->slow->spm[KD_SOURCE]));
    KD_TRY(open_spm(dir, "target.spm", &t->slow->spm[KD_TARGET]));
    KD_TRY(kd_read_vocab_json(dir, "vocab.json", &t->pieces));
    t->slow->n_vocab = t->pieces.n;
    t->slow->own_target = kd_json_bool(config, "separate_vocabs", false);
    if (t->slow->own_target)
        KD_TRY(kd_read_vocab_json(dir, "target_vocab.json", &t->slow->target));
    t->slow->unk[KD_SOURCE] = t->slow->unk[KD_TARGET] = id_in(&t->pieces, unk);
    if (t->slow->own_target)
        t->slow->unk[KD_TARGET] = id_in(&t->slow->target, unk);
    if (t->slow->unk[KD_SOURCE] < 0 || t->slow->unk[KD_TARGET] < 0)
        return KD_FAIL(KD_EINPUT, "%s: a vocabulary lacks %s", dir, unk);
    return KD_OK;
}

int32_t kd_slow_piece_id(const struct kd_tokenizer *t, enum kd_text_side side,
                         const char *piece, int64_t len)
{
    bool target = side == KD_TARGET && t->slow->own_target;
    int32_t id = kd_strtab_find(target ? &t->slow->target : &t->pieces, piece, len);

    if (id < 0 || (!target && id >= t->slow->n_vocab))
        return t->slow->unk[side];
    return id;
}

/* ---- encoding ---- */

/** A leading >>code<< is one piece; the rest is SentencePiece's. */
static int marian_encode(const struct kd_tokenizer *t, struct kd_scratch *s,
                         enum kd_text_side side, const char *text, int64_t len,
                         struct kd_token_ids *ids)
{
    const char *end =
        len >= 2 && memcmp(text, ">>", 2) == 0 ? memmem(text, (size_t)len, "<<", 2) : 0;
    int64_t n = end ? end + 2 - text : 0;

    if (n)
        KD_TRY(kd_token_ids_push(ids, kd_slow_piece_id(t, side, text, n)));
    kd_str_clear(&s->word);
    KD_TRY(kd_spm_encoder_run(t->slow->spm[side], s, text + n, len - n, &s->word));
    for (int64_t i = 0; i < s->word.len; i += n + 1) {
        const char *piece = s->word.data + i;
        int64_t at = -1;

        n = (const char *)memchr(piece, *KD_PIECE_END, (size_t)(s->word.len - i)) -
            piece;
        at = kd_added_find_bytes(t, piece, n);
        KD_TRY(kd_token_ids_push(ids, at >= 0 ? t->added[at].id
                                              : kd_slow_piece_id(t, side, piece, n)));
    }
    return KD_OK;
}

/** Lower case but for special tokens, character by character. */
static int lower_text(const struct kd_tokenizer *t, const char *text, int64_t len,
                      struct kd_str *out)
{
    struct kd_added_match m = {0};
    int64_t done = 0;

    while (kd_added_next(t, &t->raw_index, text, len, done, done, &m)) {
        KD_TRY(kd_str_append_lower(out, text + done, m.start - done, false));
        KD_TRY(kd_str_append(out, text + m.start, m.stop - m.start));
        done = m.stop;
    }
    return kd_str_append_lower(out, text + done, len - done, false);
}

int kd_slow_encode(const struct kd_tokenizer *t, struct kd_scratch *s,
                   enum kd_text_side side, const char *text, int64_t len,
                   struct kd_token_ids *ids)
{
    struct kd_added_match m = {0};
    int64_t done = 0;
    bool more = true;

    if (t->slow->lower) {
        kd_str_clear(&s->norm[0]);
        KD_TRY(lower_text(t, text, len, &s->norm[0]));
        text = s->norm[0].data ? s->norm[0].data : "";
        len = s->norm[0].len;
    }
    while (more) {
        int64_t stop = 0;

        more = kd_added_next(t, &t->raw_index, text, len, done, done, &m);
        stop = more ? m.start : len;
        if (stop > done && t->slow->spm[side])
            KD_TRY(marian_encode(t, s, side, text + done, stop - done, ids));
        else if (stop > done)
            KD_TRY(kd_fsmt_encode(t, s, side, text + done, stop - done, ids));
        if (more)
            KD_TRY(kd_token_ids_push(ids, m.id));
        done = m.stop;
    }
    return KD_OK;
}

/* ---- decoding ---- */

static int append_with_spaces(const char *text, int64_t len, struct kd_str *out)
{
    const char *at = NULL, *end = NULL;

    kd_python_strip(&text, &len);
    end = text + len;
    while ((at = memmem(text, (size_t)(end - text), MARK, sizeof MARK - 1))) {
        KD_TRY(kd_str_append(out, text, at - text));
        KD_TRY(kd_str_append(out, " ", 1));
        text = at + sizeof MARK - 1;
    }
    return kd_str_append(out, text, end - text);
}

/** Pieces, a NUL after each, as SentencePiece joins them. */
static int marian_join(const struct kd_slow *slow, const struct kd_str *pieces,
                       struct kd_str *out)
{
    struct kd_str text = {0}, spaced = {0};
    const char *p = NULL;
    int64_t n = 0;
    int rc = KD_OK;

    KD_GO(kd_spm_decode(kd_spm_encoder_library(slow->spm[KD_TARGET]), pieces->data,
                        pieces->len, &text));
    KD_GO(append_with_spaces(text.data ? text.data : "", text.len, &spaced));
    p = spaced.data ? spaced.data : "";
    n = spaced.len;
    kd_python_strip(&p, &n);
    rc = kd_str_append(out, p, n);
out:
    kd_str_free(&text);
    kd_str_free(&spaced);
    return rc;
}

/** Pieces, a NUL after each: those with </w> end a word, others go on. */
static int fsmt_join(const struct kd_slow *slow, const struct kd_str *pieces,
                     struct kd_str *out)
{
    static const char END[] = "</w>";
    const int64_t n_end = sizeof END - 1;
    struct kd_str words = {0};
    int rc = KD_OK;

    KD_GO(kd_str_append(&words, "", 0));
    for (int64_t i = 0; i < pieces->len;) {
        const char *p = pieces->data + i;
        bool end = strncmp(p, END, (size_t)n_end) == 0;

        if (end)
            KD_GO(kd_str_append(&words, " ", 1));
        else if (*p && *p != ' ')
            KD_GO(kd_str_append(&words, p, 1));
        i += end ? n_end : 1;
    }
    rc = kd_moses_detokenise(slow->moses[KD_TARGET], words.data, words.len, out);
out:
    kd_str_free(&words);
    return rc;
}

/** Join what PIECES holds and empty it; texts have a space between. */
static int flush(const struct kd_slow *slow, struct kd_str *pieces, bool always,
                 bool *any, struct kd_str *out)
{
    struct kd_str text = {0};
    int rc = KD_OK;

    if (pieces->len == 0)
        return KD_OK;
    KD_GO(slow->spm[KD_TARGET] ? marian_join(slow, pieces, &text)
                               : fsmt_join(slow, pieces, &text));
    kd_str_clear(pieces);
    if (text.len == 0 && !always)
        goto out;
    if (*any)
        KD_GO(kd_str_append(out, " ", 1));
    *any = true;
    rc = text.len ? kd_str_append(out, text.data, text.len) : KD_OK;
out:
    kd_str_free(&text);
    return rc;
}

int kd_slow_decode(const struct kd_tokenizer *t, const int32_t *ids, int64_t n,
                   struct kd_str *out)
{
    const struct kd_strtab *table = t->slow->target.n ? &t->slow->target : &t->pieces;
    struct kd_str pieces = {0};
    bool any = false;
    int rc = KD_OK;

    for (int64_t i = 0; i < n; i++) {
        int32_t at = ids[i] >= 0 && ids[i] < t->size ? t->added_by_id[ids[i]] : -1;
        int64_t len = 0;
        const char *piece = kd_strtab_get(table, ids[i], &len);

        if (at < 0 && piece)
            at = (int32_t)kd_added_find_bytes(t, piece, len);
        if (at < 0 && piece) {
            KD_GO(kd_str_append(&pieces, piece, len));
            KD_GO(kd_str_append(&pieces, "", 1));
        }
        if (at < 0 || t->added[at].special)
            continue;
        KD_GO(flush(t->slow, &pieces, false, &any, out));
        if (any)
            KD_GO(kd_str_append(out, " ", 1));
        any = true;
        KD_GO(kd_str_append(out, t->added[at].content, t->added[at].content_len));
    }
    rc = flush(t->slow, &pieces, true, &any, out);
out:
    kd_str_free(&pieces);
    return rc;
}
