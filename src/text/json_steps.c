/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of normaliser, pre-tokeniser and decoder as tokenizer.json writes them.
 *
 * Sequences, nested or not, become one list of steps; a component that is not known is
 * refused by name. */
#include "tokenizer_impl.h"

#include <string.h>

#define MARK "\xE2\x96\x81" /* U+2581 */

static bool is_type(const struct kd_json *j, const char *type)
{
    return strcmp(kd_json_str(j, "type", ""), type) == 0;
}

int kd_json_refuse(const char *part, const struct kd_json *j)
{
    return KD_FAIL(KD_EINPUT, "tokenizer.json: %s %s is not supported", part,
                   kd_json_str(j, "type", "(without a type)"));
}

typedef int read_step(struct kd_tokenizer *t, const struct kd_json *j);

/** Read every component of the array KEY of J. */
static int read_list(struct kd_tokenizer *t, const struct kd_json *j, const char *key,
                     read_step *read)
{
    const struct kd_json *list = kd_json_get(j, key);

    for (int64_t i = 0; i < kd_json_len(list); i++)
        KD_TRY(read(t, kd_json_at(list, i)));
    return KD_OK;
}

/** Compile J's "pattern": {"Regex"} or {"String"}; older files have a plain string. */
static int read_pattern(const struct kd_json *j, struct kd_regex **out)
{
    const struct kd_json *pattern = kd_json_get(j, "pattern");
    const char *regex = kd_json_str(pattern, "Regex", NULL),
               *string = kd_json_str(pattern, "String", kd_json_as_str(pattern, NULL));

    if (regex)
        return kd_regex_new(regex, kd_json_str(j, "type", ""), out);
    if (string)
        return kd_regex_literal(string, out);
    return KD_FAIL(KD_EINPUT, "tokenizer.json: %s has no pattern",
                   kd_json_str(j, "type", ""));
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
        return kd_json_refuse("a second normaliser of type", j);
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
    const char *string = kd_json_str(pattern, "String", kd_json_as_str(pattern, NULL)),
               *content = kd_json_str(j, "content", "");

    if (string)
        return kd_norm_add(t, KD_NORM_REPLACE, string, content);
    if (strcmp(kd_json_str(pattern, "Regex", ""), " {2,}") == 0)
        return kd_norm_add(t, KD_NORM_SPACE_RUNS, NULL, content);
    KD_TRY(kd_norm_add(t, KD_NORM_REGEX, NULL, content));
    return read_pattern(j, &t->norm[t->n_norm - 1].regex);
}

static int add_form(struct kd_tokenizer *t, enum kd_normal_form form)
{
    KD_TRY(kd_norm_add(t, KD_NORM_FORM, NULL, NULL));
    t->norm[t->n_norm - 1].form = form;
    return KD_OK;
}

int kd_norm_add_bert(struct kd_tokenizer *t, bool clean, bool cjk, int strip_accents,
                     bool lowercase)
{
    if (clean)
        KD_TRY(kd_norm_add(t, KD_NORM_BERT_CLEAN, NULL, NULL));
    if (cjk)
        KD_TRY(kd_norm_add(t, KD_NORM_BERT_CJK, NULL, NULL));
    if (strip_accents < 0 ? lowercase : strip_accents > 0) {
        KD_TRY(add_form(t, KD_NFD));
        KD_TRY(kd_norm_add(t, KD_NORM_DROP_NONSPACING, NULL, NULL));
    }
    return lowercase ? kd_norm_add(t, KD_NORM_LOWER, NULL, NULL) : KD_OK;
}

static int read_bert(struct kd_tokenizer *t, const struct kd_json *j)
{
    bool strip = kd_json_bool(j, "strip_accents", false);

    return kd_norm_add_bert(t, kd_json_bool(j, "clean_text", true),
                            kd_json_bool(j, "handle_chinese_chars", true),
                            kd_json_has(j, "strip_accents") ? strip : -1,
                            kd_json_bool(j, "lowercase", true));
}

static int read_strip(struct kd_tokenizer *t, const struct kd_json *j)
{
    KD_TRY(kd_norm_add(t, KD_NORM_STRIP, NULL, NULL));
    t->norm[t->n_norm - 1].strip_left = kd_json_bool(j, "strip_left", false);
    t->norm[t->n_norm - 1].strip_right = kd_json_bool(j, "strip_right", false);
    return KD_OK;
}

/** Normalisers that are but their name. */
static const struct {
    const char *type;
    enum kd_norm_kind kind;
    enum kd_normal_form form;
} PLAIN_NORMALIZERS[] = {
    {"NFC", KD_NORM_FORM, KD_NFC},        {"NFD", KD_NORM_FORM, KD_NFD},
    {"NFKC", KD_NORM_FORM, KD_NFKC},      {"NFKD", KD_NORM_FORM, KD_NFKD},
    {"Lowercase", KD_NORM_LOWER, KD_NFC}, {"StripAccents", KD_NORM_DROP_MARKS, KD_NFC},
    {"Nmt", KD_NORM_NMT, KD_NFC},         {"ByteLevel", KD_NORM_BYTE_CHARS, KD_NFC},
};

int kd_json_read_normalizer(struct kd_tokenizer *t, const struct kd_json *j)
{
    if (!j)
        return KD_OK;
    if (is_type(j, "Sequence"))
        return read_list(t, j, "normalizers", kd_json_read_normalizer);
    if (is_type(j, "Precompiled"))
        return read_charsmap(t, j);
    if (is_type(j, "Replace"))
        return read_replace(t, j);
    if (is_type(j, "Prepend"))
        return kd_norm_add(t, KD_NORM_PREPEND, NULL, kd_json_str(j, "prepend", ""));
    if (is_type(j, "Strip"))
        return read_strip(t, j);
    if (is_type(j, "BertNormalizer"))
        return read_bert(t, j);
    for (size_t i = 0; i < sizeof PLAIN_NORMALIZERS / sizeof *PLAIN_NORMALIZERS; i++)
        if (is_type(j, PLAIN_NORMALIZERS[i].type)) {
            KD_TRY(kd_norm_add(t, PLAIN_NORMALIZERS[i].kind, NULL, NULL));
            t->norm[t->n_norm - 1].form = PLAIN_NORMALIZERS[i].form;
            return KD_OK;
        }
    return kd_json_refuse("normaliser", j);
}

/* ---- pre-tokeniser ---- */

/** The prepend scheme of a Metaspace, in its present or older spelling. */
static enum kd_prepend read_prepend(const struct kd_json *j)
{
    const char *scheme = kd_json_str(j, "prepend_scheme", "always");

    if (!kd_json_bool(j, "add_prefix_space", true) || strcmp(scheme, "never") == 0)
        return KD_PREPEND_NEVER;
    return strcmp(scheme, "first") == 0 ? KD_PREPEND_FIRST : KD_PREPEND_ALWAYS;
}

static int read_metaspace(struct kd_tokenizer *t, const struct kd_json *j)
{
    const char *mark = kd_json_str(j, "replacement", MARK);
    struct kd_cut_step *step = NULL;

    if (strlen(mark) >= sizeof step->mark)
        return KD_FAIL(KD_EINPUT,
                       "tokenizer.json: the mark of a Metaspace, %s, is not "
                       "one character",
                       mark);
    KD_TRY(kd_cut_add_metaspace(t, read_prepend(j), kd_json_bool(j, "split", true)));
    step = &t->cut[t->n_cut - 1];
    step->mark_len = (int)strlen(mark);
    return kd_format(step->mark, sizeof step->mark, "%s", mark);
}

static int read_behaviour(const struct kd_json *j, enum kd_cut_behaviour *out)
{
    static const char *const names[] = {
        [KD_CUT_REMOVED] = "Removed",
        [KD_CUT_ISOLATED] = "Isolated",
        [KD_CUT_WITH_PREVIOUS] = "MergedWithPrevious",
        [KD_CUT_WITH_NEXT] = "MergedWithNext",
        [KD_CUT_CONTIGUOUS] = "Contiguous",
    };
    const char *name = kd_json_str(j, "behavior", "Isolated");

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], name) == 0) {
            *out = (enum kd_cut_behaviour)i;
            return KD_OK;
        }
    return KD_FAIL(KD_EINPUT, "tokenizer.json: split behaviour %s is not supported",
                   name);
}

static int add_chars(struct kd_tokenizer *t, enum kd_char_class chars,
                     enum kd_cut_behaviour behaviour, uint32_t character)
{
    struct kd_cut_step *step = kd_cut_add(t, KD_CUT_CHARS);

    if (!step)
        return KD_FAIL(KD_EINPUT, "the tokenizer has more than %d pre-tokenisers",
                       KD_MAX_CUT_STEPS);
    step->chars = chars;
    step->behaviour = behaviour;
    step->character = character;
    return KD_OK;
}

/* \w of the other engine: no numbers but Nd and Nl, and the joiners. */
static const char WORDS_OR_SIGNS[] =
    "[\\p{L}\\p{Nl}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}\\x{24b6}-\\x{24e9}"
    "\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}]++|"
    "[^\\s\\p{L}\\p{Nl}\\p{M}\\p{Nd}\\p{Pc}\\x{200c}\\x{200d}\\x{24b6}-\\x{24e9}"
    "\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{1f189}]++";

/** A step that cuts at a pattern; its regex is yet to be set. */
static int add_regex(struct kd_tokenizer *t, enum kd_cut_behaviour behaviour,
                     bool invert, struct kd_cut_step **out)
{
    *out = kd_cut_add(t, KD_CUT_REGEX);
    if (!*out)
        return KD_FAIL(KD_EINPUT, "the tokenizer has more than %d pre-tokenisers",
                       KD_MAX_CUT_STEPS);
    (*out)->behaviour = behaviour;
    (*out)->invert = invert;
    return KD_OK;
}

static int read_split(struct kd_tokenizer *t, const struct kd_json *j)
{
    enum kd_cut_behaviour behaviour = KD_CUT_ISOLATED;
    struct kd_cut_step *step = NULL;

    KD_TRY(read_behaviour(j, &behaviour));
    KD_TRY(add_regex(t, behaviour, kd_json_bool(j, "invert", false), &step));
    return read_pattern(j, &step->regex);
}

static int read_whitespace(struct kd_tokenizer *t)
{
    struct kd_cut_step *step = NULL;

    KD_TRY(add_regex(t, KD_CUT_REMOVED, true, &step));
    return kd_regex_new(WORDS_OR_SIGNS, "Whitespace", &step->regex);
}

static int read_delimiter(struct kd_tokenizer *t, const struct kd_json *j)
{
    const char *s = kd_json_str(j, "delimiter", "");
    int n = 0;

    if (!*s)
        return KD_FAIL(KD_EINPUT,
                       "tokenizer.json: CharDelimiterSplit has no delimiter");
    return add_chars(t, KD_CHARS_ONE, KD_CUT_REMOVED,
                     kd_utf8_next(s, (int64_t)strlen(s), &n));
}

int kd_json_read_cutter(struct kd_tokenizer *t, const struct kd_json *j)
{
    enum kd_cut_behaviour behaviour = KD_CUT_ISOLATED;

    if (!j)
        return KD_OK;
    if (is_type(j, "Sequence"))
        return read_list(t, j, "pretokenizers", kd_json_read_cutter);
    if (is_type(j, "Metaspace"))
        return read_metaspace(t, j);
    if (is_type(j, "ByteLevel"))
        return kd_cut_add_byte_level(t, kd_json_bool(j, "add_prefix_space", true),
                                     kd_json_bool(j, "use_regex", true));
    if (is_type(j, "WhitespaceSplit"))
        return add_chars(t, KD_CHARS_SPACE, KD_CUT_REMOVED, 0);
    if (is_type(j, "Whitespace"))
        return read_whitespace(t);
    if (is_type(j, "BertPreTokenizer")) {
        KD_TRY(add_chars(t, KD_CHARS_SPACE, KD_CUT_REMOVED, 0));
        return add_chars(t, KD_CHARS_PUNCTUATION, KD_CUT_ISOLATED, 0);
    }
    if (is_type(j, "Punctuation")) {
        KD_TRY(read_behaviour(j, &behaviour));
        return add_chars(t, KD_CHARS_PUNCTUATION, behaviour, 0);
    }
    if (is_type(j, "Digits"))
        return add_chars(t, KD_CHARS_NUMBER,
                         kd_json_bool(j, "individual_digits", false)
                             ? KD_CUT_ISOLATED
                             : KD_CUT_CONTIGUOUS,
                         0);
    if (is_type(j, "Split"))
        return read_split(t, j);
    if (is_type(j, "CharDelimiterSplit"))
        return read_delimiter(t, j);
    return kd_json_refuse("pre-tokeniser", j);
}

/* ---- decoder ---- */

static int add_flagged(struct kd_tokenizer *t, enum kd_decode_kind kind,
                       const char *pattern, bool flag)
{
    KD_TRY(kd_decode_add(t, kind, pattern, NULL));
    t->decode[t->n_decode - 1].flag = flag;
    return KD_OK;
}

static int read_decode_strip(struct kd_tokenizer *t, const struct kd_json *j)
{
    KD_TRY(kd_decode_add(t, KD_DECODE_STRIP, kd_json_str(j, "content", " "), NULL));
    t->decode[t->n_decode - 1].start = kd_json_int(j, "start", 0);
    t->decode[t->n_decode - 1].stop = kd_json_int(j, "stop", 0);
    return KD_OK;
}

static int read_decode_replace(struct kd_tokenizer *t, const struct kd_json *j)
{
    KD_TRY(kd_decode_add(t, KD_DECODE_REPLACE, NULL, kd_json_str(j, "content", "")));
    return read_pattern(j, &t->decode[t->n_decode - 1].regex);
}

static int read_decode_step(struct kd_tokenizer *t, const struct kd_json *j)
{
    if (is_type(j, "Sequence"))
        return read_list(t, j, "decoders", read_decode_step);
    if (is_type(j, "ByteLevel"))
        return kd_decode_add(t, KD_DECODE_BYTE_LEVEL, NULL, NULL);
    if (is_type(j, "Metaspace"))
        return add_flagged(t, KD_DECODE_METASPACE, kd_json_str(j, "replacement", MARK),
                           read_prepend(j) != KD_PREPEND_NEVER);
    if (is_type(j, "WordPiece"))
        return add_flagged(t, KD_DECODE_WORD_PIECE, kd_json_str(j, "prefix", "##"),
                           kd_json_bool(j, "cleanup", true));
    if (is_type(j, "BPEDecoder"))
        return kd_decode_add(t, KD_DECODE_SUFFIX, kd_json_str(j, "suffix", "</w>"),
                             NULL);
    if (is_type(j, "Replace"))
        return read_decode_replace(t, j);
    if (is_type(j, "Strip"))
        return read_decode_strip(t, j);
    if (is_type(j, "Fuse"))
        return kd_decode_add(t, KD_DECODE_FUSE, NULL, NULL);
    if (is_type(j, "ByteFallback"))
        return kd_decode_add(t, KD_DECODE_BYTE_FALLBACK, NULL, NULL);
    return kd_json_refuse("decoder", j);
}

int kd_json_read_decoder(struct kd_tokenizer *t, const struct kd_json *j)
{
    t->decode_joins = !j;
    return j ? read_decode_step(t, j) : KD_OK;
}
