/* SPDX-License-Identifier: Apache-2.0 */
/* Special tokens: which there are, their flags and ids, and those that go around a
 * sequence.
 *
 * Sources, the stronger first: added_tokens_decoder of tokenizer_config.json; the
 * token keys there or (without a decoder) in special_tokens_map.json; the defaults of
 * the class.  A token that the vocabulary lacks gets the next free id, in the order in
 * which the fast tokenizers add them. */
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

/* Keys in the order in which their tokens are added. */
enum special { BOS, EOS, UNK, SEP, PAD, CLS, MASK, N_SPECIAL };

static const char *const KEYS[N_SPECIAL] = {
    "bos_token", "eos_token", "unk_token",  "sep_token",
    "pad_token", "cls_token", "mask_token",
};

#define END_OF_TEXT "<|endoftext|>"

static const char *const DEFAULTS[KD_N_LAYOUTS][N_SPECIAL] = {
    [KD_LAYOUT_T5] = {[EOS] = "</s>", [UNK] = "<unk>", [PAD] = "<pad>"},
    [KD_LAYOUT_MBART] = {"<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"},
    [KD_LAYOUT_MBART50] = {NULL, "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"},
    [KD_LAYOUT_BART] = {"<s>", "</s>", "<unk>", "</s>", "<pad>", "<s>", "<mask>"},
    [KD_LAYOUT_GPT2] = {END_OF_TEXT, END_OF_TEXT, END_OF_TEXT},
    [KD_LAYOUT_BERT] = {[UNK] = "[UNK]",
                        [SEP] = "[SEP]",
                        [PAD] = "[PAD]",
                        [CLS] = "[CLS]",
                        [MASK] = "[MASK]"},
    [KD_LAYOUT_PEGASUS] =
        {[EOS] = "</s>", [UNK] = "<unk>", [PAD] = "<pad>", [MASK] = "<mask_2>"},
    [KD_LAYOUT_MARIAN] = {[EOS] = "</s>", [UNK] = "<unk>", [PAD] = "<pad>"},
    [KD_LAYOUT_FSMT] =
        {[BOS] = "<s>", [UNK] = "<unk>", [SEP] = "</s>", [PAD] = "<pad>"},
};

/** Whether the mask of LAYOUT is like a word, with the space before it. */
static bool mask_takes_space(enum kd_layout layout)
{
    return layout == KD_LAYOUT_MBART || layout == KD_LAYOUT_MBART50 ||
           layout == KD_LAYOUT_BART;
}

/* Language codes: mBART has the first 25, mBART-50 all. */
static const char LANGS[] =
    "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ "
    "ko_KR lt_LT lv_LV my_MM ne_NP nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN af_ZA "
    "az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL "
    "ps_AF pt_XX sv_SE sw_KE ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI ";
enum { LANG_STRIDE = 6, N_LANGS_25 = 25, N_LANGS_50 = 52 };

int kd_lang_code(enum kd_layout layout, int i, char out[6])
{
    int n = layout == KD_LAYOUT_MBART     ? N_LANGS_25
            : layout == KD_LAYOUT_MBART50 ? N_LANGS_50
                                          : 0;

    if (i >= n)
        return 0;
    memcpy(out, LANGS + (size_t)i * LANG_STRIDE, LANG_STRIDE - 1);
    out[LANG_STRIDE - 1] = '\0';
    return 1;
}

struct kd_added_token kd_added_flags(const struct kd_json *j)
{
    bool special = kd_json_bool(j, "special", false);

    return (struct kd_added_token){
        .lstrip = kd_json_bool(j, "lstrip", false),
        .rstrip = kd_json_bool(j, "rstrip", false),
        .single_word = kd_json_bool(j, "single_word", false),
        .normalized = kd_json_bool(j, "normalized", !special),
        .special = special,
    };
}

/* ---- tokens that the configuration adds ---- */

struct numbered {
    int64_t id;
    const char *content;        /* borrowed */
    const struct kd_json *json; /* borrowed; NULL: no flags */
};

static int compare_numbered(const void *a, const void *b)
{
    int64_t x = ((const struct numbered *)a)->id, y = ((const struct numbered *)b)->id;

    return x < y ? -1 : x > y;
}

/** Put the tokens of {"id": {content, flags}} or {"content": id}, in order of ids. */
static int put_numbered(struct kd_tokenizer *t, const struct kd_json *object,
                        bool by_content)
{
    struct numbered *list = NULL;
    int64_t n = 0;
    int rc = KD_OK;

    KD_TRY(kd_calloc(kd_json_len(object), sizeof *list, &list));
    for (void *it = kd_json_first(object); it; it = kd_json_next(object, it)) {
        const char *key = kd_json_key(it);
        const struct kd_json *v = kd_json_value(it);

        list[n++] = by_content ? (struct numbered){kd_json_as_int(v, 0), key, NULL}
                               : (struct numbered){strtoll(key, NULL, 10),
                                                   kd_json_str(v, "content", ""), v};
    }
    qsort(list, (size_t)n, sizeof *list, compare_numbered);
    for (int64_t i = 0; i < n; i++) {
        struct kd_added_token flags = {.normalized = true};

        if (list[i].json)
            flags = kd_added_flags(list[i].json);
        KD_GO(kd_added_put(t, &flags, list[i].content));
    }
out:
    free(list);
    return rc;
}

/** Put the token VALUE (a string, or an object with content and flags) as special. */
static int put_special(struct kd_tokenizer *t, enum kd_layout layout,
                       const struct kd_json *value, const char *def, bool is_mask,
                       bool flags_known, const char **content)
{
    bool object = kd_json_is_object(value);
    struct kd_added_token flags = {
        .normalized = layout == KD_LAYOUT_BART || layout == KD_LAYOUT_GPT2 ||
                      (layout == KD_LAYOUT_MBART50 && is_mask),
        .lstrip = is_mask && mask_takes_space(layout),
        .special = true,
    };
    int64_t at = 0;

    *content = NULL;
    if (value && !object && !kd_json_is_string(value)) /* null: none, not the default */
        return KD_OK;
    *content =
        object ? kd_json_str(value, "content", NULL) : kd_json_as_str(value, def);
    if (!*content)
        return KD_OK;
    if (object) {
        flags = kd_added_flags(value);
        flags.special = true;
    }
    at = kd_added_find(t, *content);
    if (at >= 0 && (flags_known || !(object || is_mask))) {
        t->added[at].special = true;
        return KD_OK;
    }
    return kd_added_put(t, &flags, *content);
}

/** The value of KEY: the map's where there is no decoder, else the configuration's. */
static const struct kd_json *special_value(const struct kd_side_files *f,
                                           const char *key)
{
    if (!kd_json_has(f->config, "added_tokens_decoder") && f->map &&
        kd_json_has(f->map, key))
        return kd_json_get(f->map, key);
    return kd_json_get(f->config, key);
}

int kd_check_counts(const struct kd_json *config)
{
    static const char *const keys[] = {"extra_ids", "offset"};
    const int64_t most = 10000;

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        int64_t n = kd_json_int(config, keys[i], 0);

        if (n < 0 || n > most)
            return KD_FAIL(KD_EINPUT,
                           "tokenizer_config.json: %s is %lld, not within 0 and %lld",
                           keys[i], (long long)n, (long long)most);
    }
    return KD_OK;
}

int64_t kd_pegasus_offset(const struct kd_json *config)
{
    return kd_json_int(config, "offset", 103);
}

/** Absent is not the same as null here. */
const char *kd_pegasus_mask_sent(const struct kd_json *config)
{
    const struct kd_json *v = kd_json_get(config, "mask_token_sent");

    if (!v)
        return "<mask_1>";
    return kd_json_is_object(v) ? kd_json_str(v, "content", NULL)
                                : kd_json_as_str(v, NULL);
}

/** Pegasus: what is listed, then <unk_k> up to as many tokens as its offset says. */
static int put_pegasus(struct kd_tokenizer *t, const struct kd_side_files *f)
{
    const struct kd_json *list = special_value(f, "additional_special_tokens");
    const char *sent = kd_pegasus_mask_sent(f->config), *content = NULL;
    int64_t n = list ? kd_json_len(list) : 1, offset = kd_pegasus_offset(f->config);
    bool has_sent = !list || !sent;

    for (int64_t i = 0; list && i < n; i++) {
        KD_TRY(put_special(t, KD_LAYOUT_PEGASUS, kd_json_at(list, i), NULL, false,
                           false, &content));
        has_sent = has_sent || (content && sent && strcmp(content, sent) == 0);
    }
    if (sent)
        KD_TRY(put_special(t, KD_LAYOUT_PEGASUS, NULL, sent, false, false, &content));
    n += has_sent ? 0 : 1;
    for (int64_t i = list ? n : 2; i < (list ? offset - 1 : offset); i++) {
        char name[32];

        KD_TRY(kd_format(name, sizeof name, "<unk_%lld>", (long long)i));
        KD_TRY(put_special(t, KD_LAYOUT_PEGASUS, NULL, name, false, false, &content));
    }
    return KD_OK;
}

static int put_additional(struct kd_tokenizer *t, enum kd_layout layout,
                          const struct kd_side_files *f, bool flags_known)
{
    const struct kd_json *list = special_value(f, "additional_special_tokens");
    int64_t extra = kd_json_int(f->config, "extra_ids", 100);
    const struct kd_added_token flags = {.special = true};
    const char *content = NULL;
    bool has_extra = false;
    char code[LANG_STRIDE];

    if (layout == KD_LAYOUT_PEGASUS)
        return put_pegasus(t, f);
    for (int i = 0; kd_lang_code(layout, i, code); i++)
        if (kd_added_find(t, code) < 0)
            KD_TRY(kd_added_put(t, &flags, code));
    for (int64_t i = 0; list && i < kd_json_len(list); i++) {
        KD_TRY(put_special(t, layout, kd_json_at(list, i), NULL, false, flags_known,
                           &content));
        has_extra = has_extra || (content && strstr(content, "<extra_id_"));
    }
    for (int64_t i = 0; layout == KD_LAYOUT_T5 && !has_extra && i < extra; i++) {
        char name[32];

        KD_TRY(kd_format(name, sizeof name, "<extra_id_%lld>", (long long)i));
        if (kd_added_find(t, name) < 0)
            KD_TRY(kd_added_put(t, &flags, name));
    }
    return KD_OK;
}

int kd_special_read(struct kd_tokenizer *t, enum kd_layout layout,
                    const struct kd_side_files *f)
{
    bool has_decoder = layout != KD_LAYOUT_PEGASUS && /* which passes it over */
                       kd_json_has(f->config, "added_tokens_decoder");
    const struct kd_json *decoder =
        has_decoder ? kd_json_get(f->config, "added_tokens_decoder") : NULL;
    int32_t *const ids[N_SPECIAL] = {[BOS] = &t->special.bos,
                                     [EOS] = &t->special.eos,
                                     [UNK] = &t->special.unk,
                                     [PAD] = &t->special.pad};

    if (decoder)
        KD_TRY(put_numbered(t, decoder, false));
    else if (f->added && !kd_json_has(f->config, "added_tokens_decoder"))
        KD_TRY(put_numbered(t, f->added, true));
    for (int k = 0; k < N_SPECIAL; k++) {
        const char *content = NULL;

        KD_TRY(put_special(t, layout, special_value(f, KEYS[k]), DEFAULTS[layout][k],
                           k == MASK && layout != KD_LAYOUT_JSON, decoder != NULL,
                           &content));
        if (content && ids[k])
            *ids[k] = kd_token_id(t, content);
    }
    return put_additional(t, layout, f, decoder != NULL);
}

/* ---- around a sequence ---- */

static int lang_id(const struct kd_tokenizer *t, const char *lang, int32_t *out)
{
    *out = kd_token_id(t, lang);
    if (*out < 0)
        return KD_FAIL(KD_EINPUT, "the tokenizer has no language code %s", lang);
    return KD_OK;
}

static int affix_langs(struct kd_tokenizer *t, bool before,
                       const struct kd_json *config)
{
    const char *src = kd_json_str(config, "src_lang", "en_XX");
    const char *langs[2] = {
        [KD_SOURCE] = src, [KD_TARGET] = kd_json_str(config, "tgt_lang", src)};

    t->has_langs = true;
    t->lang_before = before;
    for (int side = 0; side < 2; side++) {
        struct kd_affix *a = &t->affix[side];

        *a = (struct kd_affix){.n_before = before, .n_after = before ? 1 : 2};
        a->after[0] = t->special.eos;
        KD_TRY(lang_id(t, langs[side], before ? &a->before[0] : &a->after[1]));
    }
    return KD_OK;
}

/** Id of the token that CONFIG names by KEY, as a string or an object. */
static int32_t token_of(const struct kd_tokenizer *t, const struct kd_json *config,
                        const char *key, const char *def)
{
    const struct kd_json *v = kd_json_get(config, key);

    return kd_token_id(t, kd_json_is_object(v) ? kd_json_str(v, "content", def)
                                               : kd_json_as_str(v, def));
}

int kd_affix_set(struct kd_tokenizer *t, enum kd_layout layout,
                 const struct kd_json *config)
{
    struct kd_affix a = {0};

    switch (layout) {
    case KD_LAYOUT_MBART:
        return affix_langs(t, false, config);
    case KD_LAYOUT_MBART50:
        return affix_langs(t, true, config);
    case KD_LAYOUT_T5:
        a.after[a.n_after++] = kd_token_id(t, "</s>");
        break;
    case KD_LAYOUT_FSMT: /* the separator ends a text */
        t->special.eos = token_of(t, config, "sep_token", "</s>");
        a.after[a.n_after++] = t->special.eos;
        break;
    case KD_LAYOUT_PEGASUS:
    case KD_LAYOUT_MARIAN:
        a.after[a.n_after++] = t->special.eos;
        break;
    case KD_LAYOUT_BART:
    case KD_LAYOUT_BERT:
        a.before[a.n_before++] =
            token_of(t, config, "cls_token", DEFAULTS[layout][CLS]);
        a.after[a.n_after++] = token_of(t, config, "sep_token", DEFAULTS[layout][SEP]);
        break;
    default:
        if (kd_json_bool(config, "add_bos_token", false))
            a.before[a.n_before++] = t->special.bos;
    }
    for (int i = 0; i < a.n_after; i++)
        if (a.after[i] < 0)
            return KD_FAIL(KD_EINPUT, "the tokenizer has no end-of-sequence token");
    t->affix[KD_SOURCE] = t->affix[KD_TARGET] = a;
    return KD_OK;
}
