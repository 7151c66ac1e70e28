/* SPDX-License-Identifier: Apache-2.0 */
/* Text files to a corpus, one example per pair of texts.
 *
 * Pairs are dealt over the ranks in blocks of equal number and encoded as they are
 * read.  How many ids there will be is known only at the end, and the file needs the
 * sizes first; so what a rank has encoded waits in a few buffers and, where they run
 * over, in nameless files beside the output, and memory stays bounded whatever the size
 * of the data.  Rows keep the files' order, so the corpus does not depend on the number
 * of ranks. */
#include "pairs.h"
#include "spill.h"

#include "kdhpc/mode/generation_options.h"

#include "kdhpc/base/json.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/comm/watchdog.h"
#include "kdhpc/store/corpus.h"
#include "kdhpc/text/tokenizer.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct tokenize_config {
    const char *tokenizer, *prefix, *task, *src_lang, *tgt_lang;
    int64_t max_source_length, max_target_length;
    struct kd_pairs_options pairs;
};

#define FIELD(f) .offset = offsetof(struct tokenize_config, f)

static const struct kd_opt_row rows[] = {
    {.name = "tokenizer",
     .type = KD_OPT_STR,
     FIELD(tokenizer),
     .help = "model or tokenizer directory",
     .flags = KD_OPT_REQUIRED},
    {.name = "max_source_length",
     .type = KD_OPT_INT,
     FIELD(max_source_length),
     .def = "1024",
     .min = 0,
     .max = KD_NO_MAX,
     .help = "longest source in ids, special tokens included (0: no limit)"},
    {.name = "max_target_length",
     .type = KD_OPT_INT,
     FIELD(max_target_length),
     .def = "128",
     .min = 0,
     .max = KD_NO_MAX,
     .help = "longest target in ids, special tokens included (0: no limit)"},
    {.name = "prefix",
     .type = KD_OPT_STR,
     FIELD(prefix),
     .help = "text put in front of every source before encoding (not stored as text)"},
    {.name = "task",
     .type = KD_OPT_STR,
     FIELD(task),
     .help = "the prefix is that of task_specific_params in the model's config.json"},
    {.name = "src_lang",
     .type = KD_OPT_STR,
     FIELD(src_lang),
     .help = "language code of the sources, e.g. en_XX (mBART tokenizers)"},
    {.name = "tgt_lang",
     .type = KD_OPT_STR,
     FIELD(tgt_lang),
     .help = "language code of the targets"},
};

static const struct kd_opt_group groups[] = {
    {"Tokenization", rows, sizeof rows / sizeof *rows, 0},
    {"Data", kd_pairs_rows, 0, offsetof(struct tokenize_config, pairs)},
};

static const char *const SPLITS[] = {"train", "val", "test"};
enum { N_SPLITS = 3, LINES_PER_BEAT = 64 };

/* ---- which splits there are ---- */

struct splits {
    const struct kd_pairs_options *o;
    enum kd_pairs_format format[N_SPLITS]; /* KD_PAIRS_AUTO: not there */
};

/** Rank 0: at least one split, each in one layout. */
static int find_splits(void *arg)
{
    struct splits *s = arg;
    bool any = false;

    for (int i = 0; i < N_SPLITS; i++) {
        KD_TRY(kd_pairs_find(s->o, SPLITS[i], &s->format[i]));
        any = any || s->format[i] != KD_PAIRS_AUTO;
    }
    return any ? KD_OK
               : KD_FAIL(KD_EINPUT,
                         "%s: no split there (looked for train, val and test, each "
                         "as .source and .target, .jsonl, or .tsv)",
                         s->o->data_dir);
}

/* ---- rows ---- */

/** One side of the rank's rows: where ids and texts begin, and the values. */
struct side {
    struct kd_spill id_starts, ids, text_starts, text;
    int64_t truncated, unknown;
};

/** What the encoding of a split needs, and what comes of it. */
struct encoder {
    const struct tokenize_config *config;
    const struct kd_tokenizer *tokenizer;
    struct kd_pairs *pairs;
    struct kd_token_ids ids;
    struct kd_str prefixed;
    struct side side[2]; /* by enum kd_text_side */
    struct kd_spill row_ids;
    int64_t n;
};

static void encoder_init(struct encoder *e, const char *dir)
{
    e->row_ids.dir = dir;
    for (int s = 0; s < 2; s++) {
        struct side *side = &e->side[s];

        side->id_starts.dir = side->ids.dir = dir;
        side->text_starts.dir = side->text.dir = dir;
    }
}

static void encoder_free(struct encoder *e)
{
    for (int s = 0; s < 2; s++) {
        kd_spill_free(&e->side[s].id_starts);
        kd_spill_free(&e->side[s].ids);
        kd_spill_free(&e->side[s].text_starts);
        kd_spill_free(&e->side[s].text);
    }
    kd_spill_free(&e->row_ids);
    kd_pairs_close(e->pairs);
    kd_token_ids_free(&e->ids);
    kd_str_free(&e->prefixed);
}

static int side_append(struct side *s, const struct kd_token_ids *ids, int32_t unk,
                       struct kd_pairs_text text)
{
    int64_t id_start = s->ids.bytes / (int64_t)sizeof *ids->v;

    KD_TRY(kd_spill_append(&s->id_starts, &id_start, sizeof id_start));
    KD_TRY(kd_spill_append(&s->text_starts, &s->text.bytes, sizeof s->text.bytes));
    KD_TRY(kd_spill_append(&s->ids, ids->v, ids->n * (int64_t)sizeof *ids->v));
    KD_TRY(kd_spill_append(&s->text, text.data, text.len));
    for (int64_t i = 0; i < ids->n; i++)
        s->unknown += ids->v[i] == unk;
    return KD_OK;
}

/** Encode and append one side of a pair. */
static int encode_text(struct encoder *e, enum kd_text_side which,
                       struct kd_pairs_text text)
{
    const struct tokenize_config *c = e->config;
    int64_t max = which == KD_SOURCE ? c->max_source_length : c->max_target_length;
    struct side *s = &e->side[which];
    struct kd_pairs_text input = text;
    bool truncated = false;

    if (which == KD_SOURCE && *c->prefix) {
        kd_str_clear(&e->prefixed);
        KD_TRY(kd_str_append(&e->prefixed, c->prefix, (int64_t)strlen(c->prefix)));
        KD_TRY(kd_str_append(&e->prefixed, text.data, text.len));
        input = (struct kd_pairs_text){e->prefixed.data, e->prefixed.len};
    }
    KD_TRY(kd_tokenizer_encode(e->tokenizer, which, input.data, input.len, max, &e->ids,
                               &truncated));
    s->truncated += truncated;
    return side_append(s, &e->ids, kd_tokenizer_special(e->tokenizer)->unk, text);
}

/** Encode pairs [first, last). */
static int encode_rows(struct encoder *e, const char *split, int64_t first,
                       int64_t last)
{
    char label[32];
    struct kd_progress progress;

    KD_TRY(kd_format(label, sizeof label, "tokenize %s", split));
    progress = kd_progress_start(label, last - first, 0);
    KD_TRY(kd_pairs_seek(e->pairs, first));
    for (int64_t i = first; i < last; i++) {
        struct kd_pairs_text text[2];

        KD_TRY(kd_pairs_next(e->pairs, text));
        KD_TRY(encode_text(e, KD_SOURCE, text[0]));
        KD_TRY(encode_text(e, KD_TARGET, text[1]));
        KD_TRY(kd_spill_append(&e->row_ids, &i, sizeof i));
        if (++e->n % LINES_PER_BEAT == 0) {
            kd_heartbeat();
            kd_progress_update(&progress, e->n, "lines of rank 0");
        }
    }
    kd_progress_end(&progress);
    return KD_OK;
}

/* ---- a split ---- */

static double share(int64_t part_of, int64_t whole)
{
    return whole > 0 ? 100.0 * (double)part_of / (double)whole : 0.0;
}

/** Print what the split holds, and what was stripped from its files.  Collective. */
static int report(struct kd_comm *comm, const char *split, const struct encoder *e)
{
    enum { TRUNCATED = 1, TOKENS = 3, UNKNOWN = 5, RETURNS = 7, N_SUMS = 8 };
    int64_t v[N_SUMS] = {e->n};

    for (int s = 0; s < 2; s++) {
        v[TRUNCATED + s] = e->side[s].truncated;
        v[TOKENS + s] = e->side[s].ids.bytes / (int64_t)sizeof *e->ids.v;
        v[UNKNOWN + s] = e->side[s].unknown;
    }
    v[RETURNS] = kd_pairs_returns(e->pairs);
    KD_TRY(kd_allreduce_i64(comm, v, N_SUMS, KD_SUM));
    if (v[RETURNS] > 0)
        kd_warn("%s: stripped a carriage return off %lld line ends", split,
                (long long)v[RETURNS]);
    kd_info("%s: %lld examples, %lld tokens (%lld source, %lld target), truncated "
            "%.2f%% of sources and %.2f%% of targets, unknown %.4f%% of tokens",
            split, (long long)v[0], (long long)(v[TOKENS] + v[TOKENS + 1]),
            (long long)v[TOKENS], (long long)v[TOKENS + 1], share(v[TRUNCATED], v[0]),
            share(v[TRUNCATED + 1], v[0]),
            share(v[UNKNOWN] + v[UNKNOWN + 1], v[TOKENS] + v[TOKENS + 1]));
    return KD_OK;
}

static struct kd_corpus_stream stream_of(struct encoder *e)
{
    struct side *s = &e->side[KD_SOURCE], *t = &e->side[KD_TARGET];

    return (struct kd_corpus_stream){
        .id = kd_spill_values(&e->row_ids, KD_I64),
        .source = {kd_spill_values(&s->id_starts, KD_I64),
                   kd_spill_values(&s->ids, KD_I32)},
        .target = {kd_spill_values(&t->id_starts, KD_I64),
                   kd_spill_values(&t->ids, KD_I32)},
        .source_text = {kd_spill_values(&s->text_starts, KD_I64),
                        kd_spill_values(&s->text, KD_U8)},
        .target_text = {kd_spill_values(&t->text_starts, KD_I64),
                        kd_spill_values(&t->text, KD_U8)},
    };
}

/** Tokenize SPLIT into W.  Collective. */
static int tokenize_split(struct kd_run *run, const struct tokenize_config *c,
                          const struct kd_tokenizer *t, const char *split,
                          enum kd_pairs_format format, struct kd_corpus_writer *w)
{
    int64_t rank = kd_comm_rank(run->comm), size = kd_comm_size(run->comm), n;
    int64_t first, last;
    struct encoder e = {.config = c, .tokenizer = t};
    struct kd_corpus_stream stream;
    int rc = KD_OK;

    encoder_init(&e, run->common->output_dir);
    KD_GO(kd_pairs_open(run->comm, &c->pairs, split, format, &e.pairs));
    n = kd_pairs_count(e.pairs);
    first = n / size * rank + n % size * rank / size;
    last = n / size * (rank + 1) + n % size * (rank + 1) / size;
    KD_ALL_GO(run->comm, encode_rows(&e, split, first, last));
    stream = stream_of(&e);
    KD_GO(kd_corpus_write_stream(w, split, &stream));
    rc = report(run->comm, split, &e);
out:
    encoder_free(&e);
    return rc;
}

/* ---- the mode ---- */

/** The texts that the file keeps about its making. */
struct provenance {
    struct kd_str options;
    char *parents, *path;
};

static int describe(struct kd_run *run, const struct kd_tokenizer *t,
                    struct provenance *p)
{
    struct kd_json *parents = kd_json_object();
    int rc = KD_OK;

    if (!parents)
        return KD_FAIL(KD_ENOMEM, "no memory for the list of parents");
    KD_GO(kd_json_set_str(parents, "tokenizer", kd_tokenizer_digest(t)));
    KD_GO(kd_json_dump(parents, &p->parents));
    KD_GO(kd_opts_dump(run->opts, &p->options));
    rc = kd_path_join(run->common->output_dir, "corpus.h5", &p->path);
out:
    kd_json_free(parents);
    return rc;
}

static int load_tokenizer(const struct tokenize_config *c, struct kd_tokenizer **out)
{
    KD_TRY(kd_tokenizer_load(c->tokenizer, out));
    return kd_tokenizer_set_langs(*out, c->src_lang, c->tgt_lang);
}

/** Tokenize every split into a new file.  Collective. */
static int write_corpus(struct kd_run *run, const struct tokenize_config *c,
                        const struct kd_tokenizer *t, const struct splits *splits,
                        const struct provenance *p)
{
    int64_t source_ids = kd_tokenizer_size(t), target_ids = kd_tokenizer_target_size(t);
    const struct kd_store_meta meta = {
        .schema = "kdhpc.corpus",
        .options = p->options.data,
        .parents = p->parents,
        .tokenizer_digest = kd_tokenizer_digest(t),
        .vocab_size = source_ids > target_ids ? source_ids : target_ids,
    };
    struct kd_corpus_writer *w = NULL;

    KD_TRY(kd_corpus_create(run->comm, p->path, &meta, &w));
    for (int i = 0; i < N_SPLITS; i++) {
        int rc = splits->format[i] != KD_PAIRS_AUTO
                     ? tokenize_split(run, c, t, SPLITS[i], splits->format[i], w)
                     : KD_OK;

        if (rc) {
            kd_corpus_abandon(w);
            return rc;
        }
    }
    return kd_corpus_commit(w);
}

/** Settle the prefix, which --task names in the config of the model that the tokenizer
 * may lie beside; *MODEL owns it then. */
static int find_prefix(struct tokenize_config *c, struct kd_json **model)
{
    char *path = NULL;
    int rc = KD_OK;

    KD_TRY(kd_path_join(c->tokenizer, "config.json", &path));
    if (c->task && kd_path_exists(path))
        rc = kd_json_parse_file(path, model);
    free(path);
    return rc ? rc : kd_task_prefix(*model, c->task, c->prefix, &c->prefix);
}

static int run_tokenize(struct kd_run *run, void *config)
{
    struct tokenize_config *c = config;
    struct splits splits = {.o = &c->pairs};
    struct kd_json *model = NULL;
    struct kd_tokenizer *t = NULL;
    struct provenance p = {0};
    int rc = KD_OK;

    KD_GO(kd_root_do(run->comm, find_splits, &splits));
    KD_GO(kd_bcast(run->comm, splits.format, sizeof splits.format, 0));
    KD_ALL_GO(run->comm, load_tokenizer(c, &t));
    KD_ALL_GO(run->comm, find_prefix(c, &model));
    KD_ALL_GO(run->comm, describe(run, t, &p));
    KD_GO(write_corpus(run, c, t, &splits, &p));
    kd_info("%s written", p.path);
out:
    kd_tokenizer_free(t);
    kd_json_free(model);
    kd_str_free(&p.options);
    free(p.parents);
    free(p.path);
    return rc;
}

static const char *const outputs[] = {"corpus.h5", NULL};

const struct kd_mode kd_mode_tokenize = {
    .name = "tokenize",
    .summary = "turn pairs of texts into a corpus of ids",
    .groups = groups,
    .n_groups = sizeof groups / sizeof *groups,
    .config_bytes = sizeof(struct tokenize_config),
    .outputs = outputs,
    .needs_output_dir = true,
    .run = run_tokenize,
};
