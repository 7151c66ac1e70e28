/* SPDX-License-Identifier: Apache-2.0 */
/* SentencePiece encoding as the library itself does it, to pieces.
 *
 * Normalisation takes the longest entry of the character map at each byte, drops spaces
 * at the ends and all but one in a row, and puts one in front.  The unigram search sums
 * in single precision; releases of the library differ in the precision of its ties, so
 * it is done here as the reference's release does it.  Models of another type are given
 * to the library. */
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MARK "\xE2\x96\x81" /* U+2581 */
enum { MARK_LEN = 3 };

struct kd_spm_encoder {
    struct kd_spm m;
    struct kd_spm_processor *library;
    struct kd_strtab pieces;
    struct kd_unigram unigram;
    struct kd_charsmap charsmap;
    int64_t max_user; /* bytes of the longest user-defined piece */
};

/** Scores by id: what is not text never matches, user-defined pieces always win. */
static int set_scores(struct kd_spm_encoder *e)
{
    float min = INFINITY, max = -INFINITY;

    KD_TRY(kd_calloc(e->m.n, sizeof *e->unigram.score, &e->unigram.score));
    for (int64_t i = 0; i < e->m.n; i++)
        if (e->m.kind[i] == KD_SPM_NORMAL) {
            min = fminf(min, e->m.score[i]);
            max = fmaxf(max, e->m.score[i]);
        }
    for (int64_t i = 0; i < e->m.n; i++) {
        int64_t len = e->m.at[i + 1] - e->m.at[i];

        e->unigram.score[i] = -INFINITY;
        if (e->m.kind[i] == KD_SPM_NORMAL)
            e->unigram.score[i] = (double)e->m.score[i];
        if (e->m.kind[i] == KD_SPM_USER) {
            e->unigram.score[i] = (double)len * (double)max - 0.1;
            e->max_user = len > e->max_user ? len : e->max_user;
        }
        KD_TRY(kd_strtab_put(&e->pieces, i, e->m.bytes + e->m.at[i], len));
    }
    KD_TRY(kd_strtab_index(&e->pieces));
    e->unigram.single = true;
    return kd_unigram_prepare(&e->unigram, &e->pieces, (double)min);
}

static int encoder_fill(struct kd_spm_encoder *e, const char *path)
{
    KD_TRY(kd_spm_read(path, &e->m));
    KD_TRY(kd_spm_open(path, &e->library));
    if (e->m.charsmap_len)
        KD_TRY(kd_charsmap_read(e->m.charsmap, e->m.charsmap_len, &e->charsmap));
    return set_scores(e);
}

int kd_spm_encoder_new(const char *path, struct kd_spm_encoder **out)
{
    struct kd_spm_encoder *e = NULL;
    int rc = KD_OK;

    *out = NULL;
    KD_TRY(kd_calloc(1, sizeof *e, &e));
    rc = encoder_fill(e, path);
    if (rc)
        kd_spm_encoder_free(e);
    else
        *out = e;
    return rc;
}

void kd_spm_encoder_free(struct kd_spm_encoder *e)
{
    if (!e)
        return;
    kd_spm_free(&e->m);
    kd_spm_close(e->library);
    kd_strtab_free(&e->pieces);
    kd_unigram_free(&e->unigram);
    kd_charsmap_free(&e->charsmap);
    free(e);
}

const struct kd_spm_processor *kd_spm_encoder_library(const struct kd_spm_encoder *e)
{
    return e->library;
}

/* ---- normalisation ---- */

/** Bytes of the user-defined piece that begins TEXT[len], 0 if none does. */
static int64_t user_piece(const struct kd_spm_encoder *e, const char *text, int64_t len)
{
    for (int64_t n = len < e->max_user ? len : e->max_user; n > 0; n--) {
        int32_t id = kd_strtab_find(&e->pieces, text, n);

        if (id >= 0 && e->m.kind[id] == KD_SPM_USER)
            return n;
    }
    return 0;
}

/** What the start of TEXT[len] becomes: *TO[*TO_LEN]; returns the bytes it is made of.
 */
static int64_t normal_prefix(const struct kd_spm_encoder *e, const char *text,
                             int64_t len, const char **to, int64_t *to_len)
{
    int64_t n = e->max_user ? user_piece(e, text, len) : 0;
    const char *mapped = NULL;
    int n_char = 0;

    *to = text;
    if (n == 0 && e->charsmap.ascii_is_plain && len > 1 &&
        (unsigned char)*text < 0x7F && *text >= 0x20 && (unsigned char)text[1] < 0x80 &&
        text[1] >= 0x20) {
        *to_len = 1;
        return 1;
    }
    if (n == 0 && (mapped = kd_charsmap_longest(&e->charsmap, text, len, &n))) {
        *to = mapped;
        *to_len = (int64_t)strlen(mapped);
        return n;
    }
    if (n == 0) {
        (void)kd_utf8_next(text, len, &n_char);
        n = n_char;
    }
    *to_len = n;
    return n;
}

static int append_space(const struct kd_spm_encoder *e, struct kd_str *out)
{
    return e->m.escape_space ? kd_str_append(out, MARK, MARK_LEN)
                             : kd_str_append(out, " ", 1);
}

static int append_escaped(const struct kd_spm_encoder *e, const char *s, int64_t len,
                          struct kd_str *out)
{
    for (int64_t i = 0; i < len;) {
        const char *space = memchr(s + i, ' ', (size_t)(len - i));
        int64_t stop = space ? space - s : len;

        KD_TRY(kd_str_append(out, s + i, stop - i));
        if (space)
            KD_TRY(append_space(e, out));
        i = stop + 1;
    }
    return KD_OK;
}

/** Bytes at the start of TEXT[len] that become single spaces. */
static int64_t heading_space(const struct kd_spm_encoder *e, const char *text,
                             int64_t len)
{
    int64_t at = 0;

    while (e->m.tidy_space && at < len) {
        const char *to = NULL;
        int64_t to_len = 0, n = normal_prefix(e, text + at, len - at, &to, &to_len);

        if (to_len != 1 || *to != ' ')
            break;
        at += n;
    }
    return at;
}

static void drop_trailing_space(const struct kd_spm_encoder *e, struct kd_str *out)
{
    const char *space = e->m.escape_space ? MARK : " ";
    int64_t n = e->m.escape_space ? MARK_LEN : 1;

    while (out->len >= n && memcmp(out->data + out->len - n, space, (size_t)n) == 0)
        out->len -= n;
}

static int normalise(const struct kd_spm_encoder *e, const char *text, int64_t len,
                     struct kd_str *out)
{
    int64_t at = heading_space(e, text, len);
    bool after_space = e->m.tidy_space;

    if (at == len)
        return KD_OK;
    if (!e->m.suffix_space && e->m.dummy_prefix)
        KD_TRY(append_space(e, out));
    while (at < len) {
        const char *to = NULL;
        int64_t to_len = 0, n = normal_prefix(e, text + at, len - at, &to, &to_len);

        while (after_space && to_len > 0 && *to == ' ') {
            to++;
            to_len--;
        }
        KD_TRY(append_escaped(e, to, to_len, out));
        if (to_len > 0)
            after_space = e->m.tidy_space && to[to_len - 1] == ' ';
        at += n;
    }
    if (e->m.tidy_space)
        drop_trailing_space(e, out);
    return e->m.suffix_space && e->m.dummy_prefix ? append_space(e, out) : KD_OK;
}

/* ---- pieces ---- */

/** Pieces on their way out; unknown characters in a row are one. */
struct writing {
    struct kd_str *out;
    bool unknown;
};

static int write_piece(void *arg, const char *word, int64_t start, int64_t stop,
                       int32_t id)
{
    struct writing *w = arg;

    if (w->unknown && id < 0)
        w->out->len--; /* the end of the one before */
    w->unknown = id < 0;
    KD_TRY(kd_str_append(w->out, word + start, stop - start));
    return kd_str_append(w->out, KD_PIECE_END, 1);
}

int kd_spm_encoder_run(const struct kd_spm_encoder *e, struct kd_scratch *s,
                       const char *text, int64_t len, struct kd_str *out)
{
    struct writing w = {out, false};

    if (e->m.model_type != 1)
        return kd_spm_encode(e->library, text, len, out);
    kd_str_clear(&s->symbol);
    KD_TRY(normalise(e, text, len, &s->symbol));
    return kd_unigram_best_path(&e->unigram, s, s->symbol.data ? s->symbol.data : "",
                                s->symbol.len, write_piece, &w);
}
