/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting normalised text into words: a list of steps, each fed by the one before.
 *
 * A step hands every piece that it cuts straight to the next, the last one to the
 * model, so no list of pieces is ever made; a step that rewrites text has a buffer of
 * its own. Byte level right before a BPE model leaves the bytes as they are, and the
 * model reads them as the characters that stand for them; anywhere else they are
 * rewritten. */
#include "tokenizer_impl.h"

#include <string.h>

#define MARK "\xE2\x96\x81" /* U+2581 */

/** One run over a text: what every step needs. */
struct cutting {
    const struct kd_tokenizer *t;
    struct kd_scratch *s;
    struct kd_token_ids *ids;
};

/** A piece of text on its way; AT_START: it begins where the raw text does. */
struct piece {
    const char *text;
    int64_t len;
    bool at_start;
};

static int run_step(const struct cutting *c, int k, struct piece p);

/** Hand TEXT[start, stop) of P to step K. */
static int pass(const struct cutting *c, int k, struct piece p, int64_t start,
                int64_t stop)
{
    struct piece part = {p.text + start, stop - start, p.at_start && start == 0};

    if (stop <= start)
        return KD_OK;
    if (k == c->t->n_cut)
        return kd_segment(c->t, c->s, part.text, part.len, c->ids);
    return run_step(c, k, part);
}

/* ---- what becomes of matches ---- */

/** What a step has seen and not handed on yet: [start, stop). */
struct pending {
    int64_t start, stop;
    bool any, match;
};

static int flush(const struct cutting *c, int k, struct piece p, struct pending *w)
{
    bool any = w->any;

    w->any = false;
    return any ? pass(c, k + 1, p, w->start, w->stop) : KD_OK;
}

/** Take the part [start, stop), a match or what lies between two. */
static int take(const struct cutting *c, int k, struct piece p, struct pending *w,
                int64_t start, int64_t stop, bool match)
{
    const struct kd_cut_step *step = &c->t->cut[k];
    bool joins = false;

    match = match != step->invert;
    switch (step->behaviour) {
    case KD_CUT_REMOVED:
        return match ? KD_OK : pass(c, k + 1, p, start, stop);
    case KD_CUT_ISOLATED:
        return pass(c, k + 1, p, start, stop);
    case KD_CUT_CONTIGUOUS:
        joins = w->any && w->match == match;
        break;
    case KD_CUT_WITH_PREVIOUS:
        joins = w->any && match && !w->match;
        break;
    case KD_CUT_WITH_NEXT:
        joins = w->any && !match && w->match;
        break;
    }
    if (!joins) {
        KD_TRY(flush(c, k, p, w));
        w->start = start;
    }
    w->stop = stop;
    w->match = match;
    w->any = true;
    return KD_OK;
}

static bool in_class(const struct kd_cut_step *step, uint32_t cp)
{
    switch (step->chars) {
    case KD_CHARS_SPACE:
        return kd_is_white_space(cp);
    case KD_CHARS_PUNCTUATION:
        return kd_is_punctuation(cp);
    case KD_CHARS_NUMBER:
        return kd_is_number(cp);
    case KD_CHARS_ONE:
        break;
    }
    return cp == step->character;
}

static int cut_at_chars(const struct cutting *c, int k, struct piece p)
{
    const struct kd_cut_step *step = &c->t->cut[k];
    struct pending w = {0};
    int64_t done = 0;

    for (int64_t i = 0; i < p.len;) {
        int n = 1;
        uint32_t cp = (unsigned char)p.text[i];

        if (cp >= 0x80)
            cp = kd_utf8_next(p.text + i, p.len - i, &n);
        if (in_class(step, cp)) {
            if (i > done)
                KD_TRY(take(c, k, p, &w, done, i, false));
            KD_TRY(take(c, k, p, &w, i, i + n, true));
            done = i + n;
        }
        i += n;
    }
    if (p.len > done)
        KD_TRY(take(c, k, p, &w, done, p.len, false));
    return flush(c, k, p, &w);
}

static int cut_at_matches(const struct cutting *c, int k, struct piece p)
{
    const struct kd_cut_step *step = &c->t->cut[k];
    struct kd_regex_walk walk = KD_REGEX_WALK;
    struct pending w = {0};
    int64_t done = 0;
    bool found = true;

    for (;;) {
        KD_TRY(kd_regex_next(step->regex, c->s->match, p.text, p.len, &walk, &found));
        if (!found)
            break;
        if (walk.start > done)
            KD_TRY(take(c, k, p, &w, done, walk.start, false));
        KD_TRY(take(c, k, p, &w, walk.start, walk.stop, true));
        done = walk.stop;
    }
    if (p.len > done)
        KD_TRY(take(c, k, p, &w, done, p.len, false));
    return flush(c, k, p, &w);
}

/* ---- metaspace ---- */

static bool begins_with_mark(const struct kd_cut_step *step, const char *text,
                             int64_t len)
{
    return len >= step->mark_len &&
           memcmp(text, step->mark, (size_t)step->mark_len) == 0;
}

/** Write P with its spaces as marks, and a mark in front if asked, to OUT. */
static int write_marked(const struct kd_cut_step *step, struct piece p,
                        struct kd_str *out)
{
    bool mark = step->prepend == KD_PREPEND_ALWAYS ||
                (step->prepend == KD_PREPEND_FIRST && p.at_start);

    kd_str_clear(out);
    if (mark && *p.text != ' ' && !begins_with_mark(step, p.text, p.len))
        KD_TRY(kd_str_append(out, step->mark, step->mark_len));
    for (int64_t i = 0; i < p.len;) {
        const char *space = memchr(p.text + i, ' ', (size_t)(p.len - i));
        int64_t stop = space ? space - p.text : p.len;

        KD_TRY(kd_str_append(out, p.text + i, stop - i));
        if (space)
            KD_TRY(kd_str_append(out, step->mark, step->mark_len));
        i = stop + 1;
    }
    return KD_OK;
}

/** Bytes up to the next mark after the first byte of TEXT[len]. */
static int64_t up_to_mark(const struct kd_cut_step *step, const char *text, int64_t len)
{
    const char *p = text + 1, *end = text + len;

    while (p < end && (p = memchr(p, step->mark[0], (size_t)(end - p)))) {
        if (begins_with_mark(step, p, end - p))
            return p - text;
        p++;
    }
    return len;
}

static int cut_metaspace(const struct cutting *c, int k, struct piece p)
{
    const struct kd_cut_step *step = &c->t->cut[k];
    struct kd_str *buffer = &c->s->cut[k];
    struct piece marked = {.at_start = p.at_start};

    KD_TRY(write_marked(step, p, buffer));
    marked.text = buffer->data;
    marked.len = buffer->len;
    if (!step->split)
        return pass(c, k + 1, marked, 0, marked.len);
    for (int64_t i = 0, n = 0; i < marked.len; i += n) {
        n = up_to_mark(step, marked.text + i, marked.len - i);
        KD_TRY(pass(c, k + 1, marked, i, i + n));
    }
    return KD_OK;
}

/* ---- byte level ---- */

/* Contractions; letters, digits, others, each with one space before them if there is
 * one; white space, which leaves its last character to a word that follows. */
static const char BYTE_LEVEL_PATTERN[] =
    "'(?:[stmd]|re|ve|ll)| ?\\p{L}++| ?\\p{N}++| ?[^\\s\\p{L}\\p{N}]++|"
    "\\s+(?!\\S)|\\s++";

/** Hand on TEXT[start, stop) as the model reads bytes. */
static int pass_bytes(const struct cutting *c, int k, struct piece p, int64_t start,
                      int64_t stop)
{
    struct kd_str *buffer = &c->s->bytes[k];

    if (c->t->merges.byte_level && k + 1 == c->t->n_cut)
        return pass(c, k + 1, p, start, stop);
    kd_str_clear(buffer);
    KD_TRY(kd_str_append_byte_chars(buffer, p.text + start, stop - start));
    p.text = buffer->data;
    return pass(c, k + 1, p, 0, buffer->len);
}

static int cut_byte_level(const struct cutting *c, int k, struct piece p)
{
    const struct kd_cut_step *step = &c->t->cut[k];
    struct kd_regex_walk walk = KD_REGEX_WALK;
    bool found = true;

    if (step->add_prefix_space && *p.text != ' ') {
        struct kd_str *buffer = &c->s->cut[k];

        kd_str_clear(buffer);
        KD_TRY(kd_str_append(buffer, " ", 1));
        KD_TRY(kd_str_append(buffer, p.text, p.len));
        p.text = buffer->data;
        p.len = buffer->len;
    }
    if (!step->regex)
        return pass_bytes(c, k, p, 0, p.len);
    while (walk.at < p.len) { /* the matches cover the text */
        KD_TRY(kd_regex_next(step->regex, c->s->match, p.text, p.len, &walk, &found));
        if (!found)
            break;
        KD_TRY(pass_bytes(c, k, p, walk.start, walk.stop));
    }
    return KD_OK;
}

static int run_step(const struct cutting *c, int k, struct piece p)
{
    switch (c->t->cut[k].kind) {
    case KD_CUT_CHARS:
        return cut_at_chars(c, k, p);
    case KD_CUT_REGEX:
        return cut_at_matches(c, k, p);
    case KD_CUT_METASPACE:
        return cut_metaspace(c, k, p);
    case KD_CUT_BYTE_LEVEL:
        break;
    }
    return cut_byte_level(c, k, p);
}

int kd_cut_and_segment(const struct kd_tokenizer *t, struct kd_scratch *s,
                       const char *text, int64_t len, bool at_start,
                       struct kd_token_ids *ids)
{
    struct cutting c = {t, s, ids};

    return pass(&c, 0, (struct piece){text, len, at_start}, 0, len);
}

/* ---- making steps ---- */

struct kd_cut_step *kd_cut_add(struct kd_tokenizer *t, enum kd_cut_kind kind)
{
    struct kd_cut_step *step = NULL;

    if (t->n_cut == KD_MAX_CUT_STEPS)
        return NULL;
    step = &t->cut[t->n_cut++];
    step->kind = kind;
    return step;
}

int kd_cut_add_byte_level(struct kd_tokenizer *t, bool add_prefix_space, bool use_regex)
{
    struct kd_cut_step *step = kd_cut_add(t, KD_CUT_BYTE_LEVEL);

    if (!step)
        return KD_FAIL(KD_EINPUT, "the tokenizer has more than %d pre-tokenisers",
                       KD_MAX_CUT_STEPS);
    step->add_prefix_space = add_prefix_space;
    return use_regex ? kd_regex_new(BYTE_LEVEL_PATTERN, "ByteLevel", &step->regex)
                     : KD_OK;
}

int kd_cut_add_metaspace(struct kd_tokenizer *t, enum kd_prepend prepend, bool split)
{
    struct kd_cut_step *step = kd_cut_add(t, KD_CUT_METASPACE);

    if (!step)
        return KD_FAIL(KD_EINPUT, "the tokenizer has more than %d pre-tokenisers",
                       KD_MAX_CUT_STEPS);
    memcpy(step->mark, MARK, sizeof MARK);
    step->mark_len = (int)sizeof MARK - 1;
    step->prepend = prepend;
    step->split = split;
    return KD_OK;
}
