/* SPDX-License-Identifier: Apache-2.0 */
/* Unigram segmentation: the best path over pieces.
 *
 * The sums are taken left to right and a later equal path loses.  The fast tokenizers
 * sum in double precision, SentencePiece in single precision, which breaks ties of runs
 * such as "=====" differently.  Pieces
 * that begin the rest of a word are found by narrowing a range of the sorted pieces
 * byte by byte. */
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double UNKNOWN_PENALTY = 10.0;

/** Best path that ends at a byte: its score, and its last piece. */
struct kd_viterbi_node {
    double score;
    int64_t start; /* -1: no path yet */
    int32_t id;    /* -1: unknown character */
};

struct sort_item {
    const char *s;
    int64_t len;
    int32_t id;
};

static int compare_items(const void *pa, const void *pb)
{
    const struct sort_item *a = pa, *b = pb;
    int64_t n = a->len < b->len ? a->len : b->len;
    int c = memcmp(a->s, b->s, (size_t)n);

    if (c)
        return c;
    return a->len != b->len ? (a->len < b->len ? -1 : 1) : (a->id < b->id ? -1 : 1);
}

/** The first two bytes of a piece as a number; 0 for the missing one. */
static unsigned first_bytes(const char *s, int64_t len)
{
    return (unsigned)(unsigned char)s[0] << 8 | (len > 1 ? (unsigned char)s[1] : 0);
}

double kd_unigram_min_score(const struct kd_unigram *u, int64_t n)
{
    double min = INFINITY;

    for (int64_t i = 0; i < n; i++)
        if (u->score[i] < min && u->score[i] > -INFINITY)
            min = u->score[i];
    return min;
}

void kd_unigram_free(struct kd_unigram *u)
{
    free(u->score);
    free(u->sorted);
    free(u->first);
}

int kd_unigram_prepare(struct kd_unigram *u, const struct kd_strtab *pieces,
                       double min_score)
{
    struct sort_item *items = NULL;
    int64_t n = 0;
    int rc = KD_OK;

    u->pieces = pieces;
    KD_GO(kd_calloc(pieces->n, sizeof *items, &items));
    KD_GO(kd_calloc(pieces->n, sizeof *u->sorted, &u->sorted));
    KD_GO(kd_calloc(65537, sizeof *u->first, &u->first));
    for (int64_t id = 0; id < pieces->n; id++) {
        int64_t len = 0;
        const char *s = kd_strtab_get(pieces, id, &len);

        if (s && len > 0 && u->score[id] > -INFINITY &&
            kd_strtab_find(pieces, s, len) == id)
            items[n++] = (struct sort_item){s, len, (int32_t)id};
    }
    qsort(items, (size_t)n, sizeof *items, compare_items);
    u->n_sorted = n;
    u->unk_score = min_score - UNKNOWN_PENALTY;
    for (int64_t i = 0, b = 0; b <= 65536; b++) {
        while (i < n && first_bytes(items[i].s, items[i].len) < (unsigned)b)
            i++;
        u->first[b] = (int32_t)i;
    }
    for (int64_t i = 0; i < n; i++)
        u->sorted[i] = items[i].id;
out:
    free(items);
    return rc;
}

/** The pieces that may still match, and how many bytes do. */
struct range {
    int64_t lo, hi;
};

/** First place in [lo, hi) whose byte AT is at least BYTE. */
static int64_t lower_bound(const struct kd_unigram *u, struct range r, int64_t at,
                           unsigned byte)
{
    while (r.lo < r.hi) {
        int64_t mid = r.lo + (r.hi - r.lo) / 2, len = 0;
        const char *s = kd_strtab_get(u->pieces, u->sorted[mid], &len);

        if (at < len && (unsigned char)s[at] >= byte)
            r.hi = mid;
        else
            r.lo = mid + 1;
    }
    return r.lo;
}

static struct range narrow(const struct kd_unigram *u, struct range r, int64_t at,
                           unsigned char byte)
{
    struct range out = {lower_bound(u, r, at, byte), r.hi};

    out.hi = lower_bound(u, (struct range){out.lo, r.hi}, at, byte + 1u);
    return out;
}

static void relax(struct kd_viterbi_node *node, double score, int64_t start, int32_t id)
{
    if (node->start >= 0 && score <= node->score)
        return;
    node->score = score;
    node->start = start;
    node->id = id;
}

static double sum(const struct kd_unigram *u, double a, double b)
{
    return u->single ? (double)((float)a + (float)b) : a + b;
}

/** Extend the paths that end at AT by every piece that begins there. */
static bool relax_pieces(const struct kd_unigram *u, struct kd_viterbi_node *nodes,
                         const char *word, int64_t len, int64_t at, int64_t char_len)
{
    unsigned key = (unsigned)(unsigned char)word[at] << 8;
    struct range r = {u->first[key], u->first[key + 256]};
    bool single = false;

    for (int64_t n = 1; at + n <= len && r.lo < r.hi; n++) {
        int64_t piece_len = 0;

        if (n == 2) { /* the table knows the range of two bytes */
            key |= (unsigned char)word[at + 1];
            r = (struct range){u->first[key], u->first[key + 1]};
        } else if (n > 2) {
            r = narrow(u, r, n - 1, (unsigned char)word[at + n - 1]);
        }
        if (r.lo >= r.hi)
            break;
        (void)kd_strtab_get(u->pieces, u->sorted[r.lo], &piece_len);
        if (piece_len != n)
            continue;
        relax(&nodes[at + n], sum(u, u->score[u->sorted[r.lo]], nodes[at].score), at,
              u->sorted[r.lo]);
        single = single || n == char_len;
    }
    return single;
}

int kd_byte_pieces(const struct kd_tokenizer *t, const char *text, int64_t len,
                   struct kd_token_ids *ids, bool *done)
{
    int64_t before = ids->n;

    *done = true;
    for (int64_t i = 0; i < len && *done; i++) {
        char name[8];
        int32_t id = -1;

        KD_TRY(kd_format(name, sizeof name, "<0x%02X>", (unsigned char)text[i]));
        id = kd_strtab_find(&t->pieces, name, (int64_t)strlen(name));
        *done = id >= 0;
        if (*done)
            KD_TRY(kd_token_ids_push(ids, id));
    }
    if (!*done)
        ids->n = before;
    return KD_OK;
}

/** Append the unknown text WORD[len] as one id. */
static int push_unknown(const struct kd_tokenizer *t, const char *word, int64_t len,
                        struct kd_token_ids *ids)
{
    int32_t id = kd_strtab_find(&t->pieces, word, len);
    bool done = false;

    if (id >= 0)
        return kd_token_ids_push(ids, id);
    if (t->byte_fallback)
        KD_TRY(kd_byte_pieces(t, word, len, ids, &done));
    if (done)
        return KD_OK;
    if (t->unk_piece < 0)
        return KD_FAIL(KD_EINPUT,
                       "the tokenizer has no unknown token, and the text has "
                       "a character that it does not know");
    return kd_token_ids_push(ids, t->unk_piece);
}

int kd_unigram_best_path(const struct kd_unigram *u, struct kd_scratch *s,
                         const char *word, int64_t len, kd_take_piece *take, void *arg)
{
    struct kd_viterbi_node *nodes = NULL;
    int64_t next = 0;

    KD_TRY(kd_grow(&s->nodes, &s->cap_nodes, len + 1, sizeof *s->nodes));
    nodes = s->nodes;
    for (int64_t i = 0; i <= len; i++)
        nodes[i] = (struct kd_viterbi_node){.start = -1};
    for (int64_t i = 0; i < len;) {
        int n = 0;

        (void)kd_utf8_next(word + i, len - i, &n);
        if (!relax_pieces(u, nodes, word, len, i, n))
            relax(&nodes[i + n], sum(u, u->unk_score, nodes[i].score), i, -1);
        i += n;
    }
    /* Turn the chain of starts round: nodes[start].score is free to hold the end. */
    for (int64_t end = len; end > 0; end = nodes[end].start) {
        nodes[nodes[end].start].score = (double)end;
    }
    for (int64_t i = 0; i < len; i = next) {
        next = (int64_t)nodes[i].score;
        KD_TRY(take(arg, word, i, next, nodes[next].id));
    }
    return KD_OK;
}

/** Where the pieces of a word go; unknown characters in a row, from UNKNOWN on, are
 * one.
 */
struct taking {
    const struct kd_tokenizer *t;
    struct kd_token_ids *ids;
    int64_t unknown; /* -1: none */
};

static int take_id(void *arg, const char *word, int64_t start, int64_t stop, int32_t id)
{
    struct taking *k = arg;

    (void)stop;
    if (id < 0 || id == k->t->unk_piece) {
        if (k->unknown < 0)
            k->unknown = start;
        return KD_OK;
    }
    if (k->unknown >= 0)
        KD_TRY(push_unknown(k->t, word + k->unknown, start - k->unknown, k->ids));
    k->unknown = -1;
    return kd_token_ids_push(k->ids, id);
}

int kd_unigram_segment(const struct kd_tokenizer *t, struct kd_scratch *s,
                       const char *word, int64_t len, struct kd_token_ids *ids)
{
    struct taking k = {t, ids, -1};

    KD_TRY(kd_unigram_best_path(&t->unigram, s, word, len, take_id, &k));
    return k.unknown >= 0 ? push_unknown(t, word + k.unknown, len - k.unknown, ids)
                          : KD_OK;
}
