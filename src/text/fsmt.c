/* SPDX-License-Identifier: Apache-2.0 */
/* FSMT: Moses rules, then BPE whose last symbol of a word ends in </w>.
 *
 * What merges make on the way need not be in the vocabulary, so the merges work on a
 * table of their own, which begins with the source's vocabulary; what they leave beyond
 * it is unknown.  Texts of the target side are encoded as those of the source, as the
 * reference does, unless the vocabularies differ: then by the target's language and
 * vocabulary, because the ids are to be that vocabulary's. */
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

/* ---- reading ---- */

/** Two fields of the line TEXT[len]; false if there are fewer. */
static bool split_merge(const char *text, int64_t len, const char *part[2],
                        int64_t n[2])
{
    return kd_next_word(&text, &len, &part[0], &n[0]) &&
           kd_next_word(&text, &len, &part[1], &n[1]);
}

static int put_symbol(struct kd_tokenizer *t, struct kd_strtab *fresh, const char *s,
                      int64_t len)
{
    if (kd_strtab_find(&t->pieces, s, len) >= 0)
        return KD_OK;
    return kd_strtab_put(fresh, fresh->n, s, len);
}

typedef int use_merge(struct kd_tokenizer *t, void *arg, const char *const part[2],
                      const int64_t n[2], int64_t rank);

/** Call USE with every merge of TEXT; the last line has no end and is not read. */
static int each_merge(struct kd_tokenizer *t, const struct kd_str *text, use_merge *use,
                      void *arg)
{
    const char *p = text->data ? text->data : "", *end = p + text->len, *stop = NULL;
    int64_t rank = 0;

    for (; (stop = memchr(p, '\n', (size_t)(end - p))); p = stop + 1, rank++) {
        const char *part[2];
        int64_t n[2];

        if (split_merge(p, stop - p, part, n))
            KD_TRY(use(t, arg, part, n, rank));
    }
    return KD_OK;
}

/** Collect the symbols of a merge that the vocabulary lacks. */
static int collect(struct kd_tokenizer *t, void *arg, const char *const part[2],
                   const int64_t n[2], int64_t rank)
{
    struct kd_str joined = {0};
    int rc = KD_OK;

    (void)rank;
    KD_GO(put_symbol(t, arg, part[0], n[0]));
    KD_GO(put_symbol(t, arg, part[1], n[1]));
    KD_GO(kd_str_append(&joined, part[0], n[0]));
    KD_GO(kd_str_append(&joined, part[1], n[1]));
    rc = put_symbol(t, arg, joined.data, joined.len);
out:
    kd_str_free(&joined);
    return rc;
}

static int add_merge(struct kd_tokenizer *t, void *arg, const char *const part[2],
                     const int64_t n[2], int64_t rank)
{
    (void)arg;
    return kd_merges_add(t, part[0], n[0], part[1], n[1], rank);
}

static int64_t count_lines(const struct kd_str *text)
{
    int64_t n = 1;

    for (int64_t i = 0; i < text->len; i++)
        n += text->data[i] == '\n';
    return n;
}

static int read_merges(struct kd_tokenizer *t, const char *dir)
{
    struct kd_strtab fresh = {0};
    struct kd_str text = {0};
    char *path = NULL;
    int rc = KD_OK;

    KD_GO(kd_path_join(dir, "merges.txt", &path));
    KD_GO(kd_read_file(path, &text));
    KD_GO(each_merge(t, &text, collect, &fresh));
    KD_GO(kd_strtab_index(&fresh));
    for (int64_t i = 0; i < fresh.n; i++) { /* each once */
        int64_t len = 0;
        const char *s = kd_strtab_get(&fresh, i, &len);

        if (kd_strtab_find(&fresh, s, len) == i)
            KD_GO(kd_strtab_put(&t->pieces, t->pieces.n, s, len));
    }
    KD_GO(kd_strtab_index(&t->pieces));
    KD_GO(kd_merges_reserve(&t->merges, count_lines(&text)));
    rc = each_merge(t, &text, add_merge, NULL);
out:
    kd_strtab_free(&fresh);
    kd_str_free(&text);
    free(path);
    return rc;
}

/** Whether the target's vocabulary is the source's. */
static bool same_vocabulary(const struct kd_tokenizer *t)
{
    if (t->pieces.n != t->slow->target.n)
        return false;
    for (int64_t i = 0; i < t->pieces.n; i++) {
        int64_t a = 0, b = 0;
        const char *s = kd_strtab_get(&t->pieces, i, &a),
                   *u = kd_strtab_get(&t->slow->target, i, &b);

        if (!s != !u || (s && (a != b || memcmp(s, u, (size_t)a) != 0)))
            return false;
    }
    return true;
}

int kd_read_fsmt_layout(struct kd_tokenizer *t, const char *dir,
                        const struct kd_json *config)
{
    const struct kd_json *langs = kd_json_get(config, "langs");
    const char *unk = kd_json_str(config, "unk_token", "<unk>");
    struct kd_slow *slow = NULL;

    if (kd_json_len(langs) != 2)
        return KD_FAIL(KD_EINPUT,
                       "%s: tokenizer_config.json has no two languages in "
                       "\"langs\"",
                       dir);
    KD_TRY(kd_slow_new(t));
    slow = t->slow;
    for (int side = 0; side < 2; side++)
        KD_TRY(kd_moses_new(kd_json_as_str(kd_json_at(langs, side), ""),
                            &slow->moses[side]));
    KD_TRY(kd_read_vocab_json(dir, "vocab-src.json", &t->pieces));
    KD_TRY(kd_read_vocab_json(dir, "vocab-tgt.json", &slow->target));
    slow->n_vocab = t->pieces.n;
    slow->own_target = !same_vocabulary(t);
    slow->lower = kd_json_bool(config, "do_lower_case", false);
    slow->unk[KD_SOURCE] = kd_strtab_find(&t->pieces, unk, (int64_t)strlen(unk));
    slow->unk[KD_TARGET] = kd_strtab_find(&slow->target, unk, (int64_t)strlen(unk));
    if (slow->unk[KD_SOURCE] < 0 || slow->unk[KD_TARGET] < 0)
        return KD_FAIL(KD_EINPUT, "%s: a vocabulary lacks %s", dir, unk);
    KD_TRY(kd_strdup("</w>", &t->merges.suffix));
    t->segmenter = KD_BPE;
    t->unk_piece = slow->unk[KD_SOURCE];
    return read_merges(t, dir);
}

/* ---- encoding ---- */

/** The id on SIDE of the symbol ID of the merges. */
static int32_t symbol_id(const struct kd_tokenizer *t, enum kd_text_side side,
                         int32_t id)
{
    int64_t len = 0;
    const char *s = NULL;

    if (side == KD_SOURCE || !t->slow->own_target)
        return id < t->slow->n_vocab ? id : t->slow->unk[KD_SOURCE];
    s = kd_strtab_get(&t->pieces, id, &len);
    return s && id != t->unk_piece ? kd_slow_piece_id(t, side, s, len)
                                   : t->slow->unk[KD_TARGET];
}

int kd_fsmt_encode(const struct kd_tokenizer *t, struct kd_scratch *s,
                   enum kd_text_side side, const char *text, int64_t len,
                   struct kd_token_ids *ids)
{
    const struct kd_moses *m = t->slow->moses[t->slow->own_target ? side : KD_SOURCE];
    const char *p = NULL, *word = NULL;
    int64_t left = 0, n = 0;

    kd_str_clear(&s->cut[0]);
    kd_str_clear(&s->cut[1]);
    KD_TRY(kd_moses_normalise(m, text, len, &s->cut[0]));
    KD_TRY(kd_moses_tokenise(m, s->cut[0].data ? s->cut[0].data : "", s->cut[0].len,
                             &s->cut[1]));
    p = s->cut[1].data;
    left = s->cut[1].len;
    while (kd_next_word(&p, &left, &word, &n)) {
        int64_t before = ids->n;

        KD_TRY(kd_segment(t, s, word, n, ids));
        for (int64_t i = before; i < ids->n; i++)
            ids->v[i] = symbol_id(t, side, ids->v[i]);
    }
    return KD_OK;
}
