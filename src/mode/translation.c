/* SPDX-License-Identifier: Apache-2.0 */
/* Translation metrics of eval.
 *
 * An example gives a row of counts; rows are made by contiguous shares, one a rank, and
 * put together by a sum with zeros elsewhere, which is exact.  Everything after that is
 * sums of counts, so no digit depends on the number of ranks.  Keys carry the names
 * that sacreBLEU gives its results. */
#include "translation.h"

#include "kdhpc/base/log.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/comm/watchdog.h"
#include "kdhpc/text/romanian.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define FIELD(f) .name = #f, .offset = offsetof(struct kd_translation_options, f)

const struct kd_opt_row kd_translation_rows[] = {
    {FIELD(bleu_tokenize), .type = KD_OPT_STR, .def = "13a",
     .help = "tokens of BLEU: 13a, intl, char, zh, none"},
    {FIELD(bleu_lowercase), .type = KD_OPT_BOOL, .def = "false",
     .help = "BLEU of lower-cased texts"},
    {FIELD(bleu_smooth_method), .type = KD_OPT_CHOICE, .def = "exp",
     .choices = "exp|floor|add-k|none",
     .help = "what BLEU does about n-gram orders without a match"},
    {FIELD(bleu_smooth_value), .type = KD_OPT_FLOAT, .min = 0, .max = KD_NO_MAX,
     .help = "value of floor (default 0.1) and add-k (default 1)"},
    {FIELD(chrf_char_order), .type = KD_OPT_INT, .def = "6", .min = 1, .max = 10,
     .help = "longest n-grams of characters in chrF"},
    {FIELD(chrf_word_order), .type = KD_OPT_INT, .def = "0", .min = 0, .max = 6,
     .help = "longest n-grams of words in chrF; 2: chrF++"},
    {FIELD(chrf_beta), .type = KD_OPT_INT, .def = "2", .min = 1, .max = 1000,
     .help = "weight of recall against precision in chrF"},
    {FIELD(chrf_lowercase), .type = KD_OPT_BOOL, .def = "false",
     .help = "chrF of lower-cased texts"},
    {FIELD(chrf_whitespace), .type = KD_OPT_BOOL, .def = "false",
     .help = "chrF counts white space as characters"},
    {FIELD(chrf_eps_smoothing), .type = KD_OPT_BOOL, .def = "false",
     .help = "chrF smooths by a small number, not by effective order"},
    {FIELD(ter_normalized), .type = KD_OPT_BOOL, .def = "false",
     .help = "TER after Tercom's tokenization"},
    {FIELD(ter_no_punct), .type = KD_OPT_BOOL, .def = "false",
     .help = "TER without punctuation"},
    {FIELD(ter_asian_support), .type = KD_OPT_BOOL, .def = "false",
     .help = "ter_normalized and ter_no_punct know CJK text too"},
    {FIELD(ter_case_sensitive), .type = KD_OPT_BOOL, .def = "false",
     .help = "TER of texts as they are, not lower-cased"},
    {FIELD(post_process), .type = KD_OPT_CHOICE, .def = "none",
     .choices = "none|romanian",
     .help = "of both texts before scoring; romanian: WMT16's tokens without "
             "diacritics, for --bleu_tokenize none --bleu_smooth_method none"},
    {.name = NULL},
};

const char *const kd_translation_names[KD_N_TRANSLATION] = {"bleu", "chrf", "ter"};

/* ---- options ---- */

static const char *const TOKENIZERS[] = {"13a", "intl", "char", "zh", "none"};
enum { N_TOKENIZERS = sizeof TOKENIZERS / sizeof *TOKENIZERS };

static int find_tokenizer(const char *name, enum kd_bleu_tokenizer *out)
{
    for (int i = 0; i < N_TOKENIZERS; i++)
        if (strcmp(name, TOKENIZERS[i]) == 0) {
            *out = (enum kd_bleu_tokenizer)i;
            return KD_OK;
        }
    if (strcmp(name, "ja-mecab") == 0 || strcmp(name, "ko-mecab") == 0)
        return KD_FAIL(
            KD_EUSAGE,
            "--bleu_tokenize %s needs the MeCab analyser and its dictionary, "
            "which are not here: use --bleu_tokenize char, or score "
            "generations.txt with sacrebleu -tok %s",
            name, name);
    if (strcmp(name, "spm") == 0 || strncmp(name, "flores", 6) == 0)
        return KD_FAIL(KD_EUSAGE,
                       "--bleu_tokenize %s needs a SentencePiece model that is not "
                       "here: use --metrics chrf, or score generations.txt with "
                       "sacrebleu -tok %s",
                       name, name);
    return KD_FAIL(KD_EUSAGE, "--bleu_tokenize %s is none of 13a, intl, char, zh, none",
                   name);
}

int kd_translation_check(const struct kd_translation_options *o)
{
    enum kd_bleu_tokenizer tokenizer;

    return find_tokenizer(o->bleu_tokenize, &tokenizer);
}

/* ---- counting ---- */

struct kd_translation {
    enum kd_translation_metric metric;
    struct kd_bleu_options bleu;
    struct kd_chrf_options chrf;
    struct kd_ter_options ter;
    bool romanian; /* texts are rewritten first */
    int64_t n, n_refs, width;
    double *rows; /* [n][width]: struct kd_bleu, kd_chrf or kd_ter */
};

static const int64_t WIDTHS[KD_N_TRANSLATION] = {
    sizeof(struct kd_bleu) / sizeof(double), sizeof(struct kd_chrf) / sizeof(double),
    sizeof(struct kd_ter) / sizeof(double)};

static int translation_new(const struct kd_translation_options *o,
                           enum kd_translation_metric metric,
                           const struct kd_translation_texts *texts,
                           struct kd_translation **out)
{
    struct kd_translation *t;

    KD_TRY(kd_calloc(1, sizeof *t, out));
    t = *out;
    t->metric = metric;
    t->n = texts->n;
    t->n_refs = 1 + texts->n_more_refs;
    t->width = WIDTHS[metric];
    t->romanian = o->post_process == KD_POST_ROMANIAN;
    KD_TRY(find_tokenizer(o->bleu_tokenize, &t->bleu.tokenizer));
    t->bleu.smoothing = (enum kd_bleu_smoothing)o->bleu_smooth_method;
    t->bleu.smooth_value = isnan(o->bleu_smooth_value) ? -1 : o->bleu_smooth_value;
    t->bleu.lowercase = o->bleu_lowercase;
    t->chrf = (struct kd_chrf_options){(int)o->chrf_char_order, (int)o->chrf_word_order,
                                       (int)o->chrf_beta,       o->chrf_lowercase,
                                       o->chrf_whitespace,      o->chrf_eps_smoothing};
    t->ter = (struct kd_ter_options){o->ter_normalized, o->ter_no_punct,
                                     o->ter_asian_support, o->ter_case_sensitive};
    return kd_calloc(t->n * t->width, sizeof *t->rows, &t->rows);
}

void kd_translation_free(struct kd_translation *t)
{
    if (!t)
        return;
    free(t->rows);
    free(t);
}

static int count_example(struct kd_translation *t, struct kd_mt_scorer *s,
                         struct kd_text output, const struct kd_text *refs, double *row)
{
    switch (t->metric) {
    case KD_BLEU:
        return kd_bleu_add(s, &t->bleu, output, refs, t->n_refs, (struct kd_bleu *)row);
    case KD_CHRF:
        return kd_chrf_add(s, &t->chrf, output, refs, t->n_refs, (struct kd_chrf *)row);
    default:
        return kd_ter_add(s, &t->ter, output, refs, t->n_refs, (struct kd_ter *)row);
    }
}

static struct kd_text text_of(const char *line)
{
    return (struct kd_text){line, (int64_t)strlen(line)};
}

/* What a rank counts with; TEXTS [n_refs + 1] is an example: output and references,
 * as given or rewritten into BUFFERS. */
struct counter {
    struct kd_mt_scorer *scorer;
    struct kd_romanian *romanian;
    struct kd_text *texts;
    struct kd_str *buffers;
};

static int counter_open(struct counter *c, const struct kd_translation *t)
{
    KD_TRY(kd_mt_scorer_new(&c->scorer));
    KD_TRY(kd_calloc(t->n_refs + 1, sizeof *c->texts, &c->texts));
    KD_TRY(kd_calloc(t->n_refs + 1, sizeof *c->buffers, &c->buffers));
    return t->romanian ? kd_romanian_new(&c->romanian) : KD_OK;
}

static void counter_close(struct counter *c, const struct kd_translation *t)
{
    kd_mt_scorer_free(c->scorer);
    kd_romanian_free(c->romanian);
    for (int64_t k = 0; c->buffers && k <= t->n_refs; k++)
        kd_str_free(&c->buffers[k]);
    free(c->buffers);
    free(c->texts);
}

static int set_texts(struct counter *c, const struct kd_translation *t,
                     const struct kd_translation_texts *texts, int64_t i)
{
    c->texts[0] = text_of(texts->outputs[i]);
    c->texts[1].data = kd_corpus_target_text(texts->corpus, i, &c->texts[1].len);
    for (int64_t r = 1; r < t->n_refs; r++)
        c->texts[r + 1] = text_of(texts->more_refs[r - 1][i]);
    for (int64_t k = 0; t->romanian && k <= t->n_refs; k++) {
        KD_TRY(kd_romanian_apply(c->romanian, c->texts[k].data, c->texts[k].len,
                                 &c->buffers[k]));
        c->texts[k] = (struct kd_text){c->buffers[k].data, c->buffers[k].len};
    }
    return KD_OK;
}

/* This rank's contiguous share of the rows, the others left zero. */
static int count_share(struct kd_translation *t, struct kd_share share,
                       const struct kd_translation_texts *texts)
{
    struct counter c = {0};
    int rc = KD_OK;

    KD_GO(counter_open(&c, t));
    for (int64_t i = share.first; i < share.first + share.n; i++) {
        KD_GO(set_texts(&c, t, texts, i));
        KD_GO(count_example(t, c.scorer, c.texts[0], c.texts + 1,
                            t->rows + i * t->width));
        if (i % 256 == 0)
            kd_heartbeat();
    }
out:
    counter_close(&c, t);
    return rc;
}

int kd_translation_count(struct kd_run *run, const struct kd_translation_options *o,
                         enum kd_translation_metric metric,
                         const struct kd_translation_texts *texts,
                         struct kd_translation **out)
{
    int rc = KD_OK;

    *out = NULL;
    KD_ALL_GO(run->comm, translation_new(o, metric, texts, out));
    KD_ALL_GO(run->comm, count_share(*out, kd_share_of(run, texts->n), texts));
    KD_GO(kd_allreduce_f64(run->comm, (*out)->rows, (*out)->n * (*out)->width, KD_SUM));
    return KD_OK;
out:
    kd_translation_free(*out);
    *out = NULL;
    return rc;
}

/* ---- scores ---- */

static double score(const double *sums, void *arg)
{
    const struct kd_translation *t = arg;

    switch (t->metric) {
    case KD_BLEU:
        return kd_bleu_score((const struct kd_bleu *)sums, &t->bleu);
    case KD_CHRF:
        return kd_chrf_score((const struct kd_chrf *)sums, &t->chrf);
    default:
        return kd_ter_score((const struct kd_ter *)sums, t->n_refs);
    }
}

double kd_translation_example(const struct kd_translation *t, int64_t i)
{
    struct kd_translation one = *t;

    one.bleu.effective_order = true;
    return score(t->rows + i * t->width, &one);
}

static int put(struct kd_json *j, const char *metric, const char *what, double value)
{
    char key[32];

    KD_TRY(kd_format(key, sizeof key, "%s_%s", metric, what));
    return kd_json_set_num(j, key, value);
}

static int put_list(struct kd_json *j, const char *key, const double *v, bool counts)
{
    struct kd_json *list = kd_json_array();
    int rc = list ? KD_OK : KD_FAIL(KD_ENOMEM, "no memory for %s", key);

    for (int n = 0; !rc && n < KD_BLEU_ORDERS; n++)
        rc = counts ? kd_json_append_int(list, (int64_t)v[n])
                    : kd_json_append_num(list, v[n]);
    if (rc) {
        kd_json_free(list);
        return rc;
    }
    return kd_json_set_json(j, key, list);
}

static int report_bleu(const struct kd_translation *t, const struct kd_bleu *b,
                       struct kd_json *j, struct kd_str *signature)
{
    double precisions[KD_BLEU_ORDERS];

    kd_bleu_precisions(b, &t->bleu, precisions);
    KD_TRY(put_list(j, "bleu_counts", b->correct, true));
    KD_TRY(put_list(j, "bleu_totals", b->total, true));
    KD_TRY(put_list(j, "bleu_precisions", precisions, false));
    KD_TRY(put(j, "bleu", "bp", kd_bleu_brevity(b)));
    KD_TRY(kd_json_set_int(j, "bleu_sys_len", (int64_t)b->output_tokens));
    KD_TRY(kd_json_set_int(j, "bleu_ref_len", (int64_t)b->reference_tokens));
    return kd_bleu_signature(&t->bleu, t->n_refs, signature);
}

static int report_chrf(const struct kd_translation *t, struct kd_json *j,
                       struct kd_str *signature)
{
    struct kd_str name = {0};
    int rc = KD_OK;

    KD_GO(kd_chrf_name(&t->chrf, &name));
    KD_GO(kd_json_set_str(j, "chrf_name", name.data));
    KD_GO(kd_chrf_signature(&t->chrf, t->n_refs, signature));
out:
    kd_str_free(&name);
    return rc;
}

static int report_ter(const struct kd_translation *t, const struct kd_ter *sums,
                      struct kd_json *j, struct kd_str *signature)
{
    KD_TRY(kd_json_set_int(j, "ter_num_edits", (int64_t)sums->edits));
    KD_TRY(put(j, "ter", "ref_length", sums->reference_tokens / (double)t->n_refs));
    return kd_ter_signature(&t->ter, t->n_refs, signature);
}

int kd_translation_report(const struct kd_translation *t, int64_t resamples,
                          uint64_t seed, struct kd_json *j)
{
    const char *name = kd_translation_names[t->metric];
    struct kd_translation view = *t;
    struct kd_str signature = {0};
    double *sums = NULL, value, low, high;
    char key[32];
    int rc = KD_OK;

    KD_GO(kd_calloc(t->width, sizeof *sums, &sums));
    for (int64_t i = 0; i < t->n; i++)
        for (int64_t k = 0; k < t->width; k++)
            sums[k] += t->rows[i * t->width + k];
    value = low = high = score(sums, &view);
    if (resamples > 0)
        KD_GO(kd_bootstrap_sums(t->rows, t->n, t->width, resamples, seed, score, &view,
                                &low, &high));
    KD_GO(kd_json_set_num(j, name, value));
    KD_GO(put(j, name, "low", low));
    KD_GO(put(j, name, "high", high));
    if (t->metric == KD_BLEU)
        KD_GO(report_bleu(t, (const struct kd_bleu *)sums, j, &signature));
    else if (t->metric == KD_CHRF)
        KD_GO(report_chrf(t, j, &signature));
    else
        KD_GO(report_ter(t, (const struct kd_ter *)sums, j, &signature));
    KD_GO(kd_format(key, sizeof key, "%s_signature", name));
    KD_GO(kd_json_set_str(j, key, signature.data));
    if (t->romanian)
        KD_GO(kd_json_set_str(j, "post_process", "romanian"));
    kd_info("eval: %s %.2f  (%s)", name, value, signature.data);
out:
    kd_str_free(&signature);
    free(sums);
    return rc;
}
