/* SPDX-License-Identifier: Apache-2.0 */
/* Writing of corpora and pseudo-labels: every rank gives its rows, the file holds them
 * in rank order.
 *
 * What is checked here is what the reader would refuse, so that a mode's mistake shows
 * before hours of work are committed.  tokenize and pseudo-label call this. */
#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"

#include "corpus_impl.h"

#include <stdlib.h>

const struct kd_corpus_field kd_corpus_fields[KD_CORPUS_RAGGED] = {
    {"source", KD_I32},
    {"target", KD_I32},
    {"source_text", KD_U8},
    {"target_text", KD_U8},
};

struct kd_corpus_writer {
    struct kd_comm *comm;
    struct kd_h5 *file;
    int64_t vocab_size;
};

static int write_meta(struct kd_h5 *f, const struct kd_store_meta *meta)
{
    KD_TRY(kd_h5_set_attr(f, "schema", meta->schema));
    KD_TRY(kd_h5_set_attr_i64(f, "schema_version", KD_CORPUS_VERSION));
    KD_TRY(kd_h5_set_attr(f, "parents", meta->parents ? meta->parents : "{}"));
    KD_TRY(kd_h5_set_attr(f, "tokenizer_digest",
                          meta->tokenizer_digest ? meta->tokenizer_digest : ""));
    KD_TRY(kd_h5_set_attr_i64(f, "vocab_size", meta->vocab_size));
    return kd_h5_write_text(f, "options", meta->options ? meta->options : "");
}

int kd_corpus_create(struct kd_comm *comm, const char *path,
                     const struct kd_store_meta *meta, struct kd_corpus_writer **out)
{
    struct kd_corpus_writer *w = NULL;
    int rc = KD_OK;

    *out = NULL;
    KD_ALL_GO(comm, kd_calloc(1, sizeof *w, &w));
    w->comm = comm;
    w->vocab_size = meta->vocab_size;
    KD_GO(kd_h5_create(comm, path, &w->file));
    KD_GO(write_meta(w->file, meta));
    *out = w;
    return KD_OK;
out:
    kd_corpus_abandon(w);
    return rc;
}

static const struct kd_ragged *ragged_of(const struct kd_corpus_rows *rows, int field)
{
    const struct kd_ragged *all[KD_CORPUS_RAGGED] = {
        &rows->source, &rows->target, &rows->source_text, &rows->target_text};

    return all[field];
}

static int check_ids(const char *name, const int32_t *ids, int64_t n,
                     int64_t vocab_size)
{
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || (vocab_size > 0 && ids[i] >= vocab_size))
            return KD_FAIL(KD_EINTERNAL,
                           "%s id %d to be written is outside the vocabulary of %lld",
                           name, (int)ids[i], (long long)vocab_size);
    }
    return KD_OK;
}

static int check_rows(const struct kd_corpus_writer *w,
                      const struct kd_corpus_rows *rows)
{
    KD_TRY(KD_FAULT("corpus.rows"));
    for (int k = 0; k < KD_CORPUS_RAGGED; k++) {
        const struct kd_corpus_field *field = &kd_corpus_fields[k];
        const struct kd_ragged *r = ragged_of(rows, k);

        if (r->n != rows->n || (r->n && r->offsets[0] != 0))
            return KD_FAIL(KD_EINTERNAL, "%s has %lld rows to be written, not %lld",
                           field->name, (long long)r->n, (long long)rows->n);
        if (field->dtype == KD_I32)
            KD_TRY(check_ids(field->name, r->values, r->n ? r->offsets[r->n] : 0,
                             w->vocab_size));
    }
    return KD_OK;
}

int kd_corpus_write_split(struct kd_corpus_writer *w, const char *split,
                          const struct kd_corpus_rows *rows)
{
    char path[KD_H5_NAME_MAX];

    KD_ALL(w->comm, check_rows(w, rows));
    KD_ALL(w->comm, kd_format(path, sizeof path, "%s/id", split));
    KD_TRY(kd_h5_write(w->file, path, KD_I64, rows->id, rows->n, 1));
    for (int k = 0; k < KD_CORPUS_RAGGED; k++) {
        const struct kd_corpus_field *field = &kd_corpus_fields[k];
        const struct kd_ragged *r = ragged_of(rows, k);

        KD_ALL(w->comm, kd_format(path, sizeof path, "%s/%s", split, field->name));
        KD_TRY(kd_h5_write_ragged(w->file, path, field->dtype, r->values, r->offsets,
                                  r->n));
    }
    return KD_OK;
}

/* Ids on their way into the file. */
struct checked_ids {
    const char *name;
    const struct kd_h5_values *ids;
    int64_t vocab_size;
};

static int read_checked(void *arg, int64_t at, int64_t n, const void **out)
{
    const struct checked_ids *c = arg;

    KD_TRY(c->ids->read(c->ids->arg, at, n, out));
    return check_ids(c->name, *out, n, c->vocab_size);
}

static int write_field(struct kd_corpus_writer *w, const char *split, int field,
                       const struct kd_h5_values *starts,
                       const struct kd_h5_values *values)
{
    const struct kd_corpus_field *what = &kd_corpus_fields[field];
    struct checked_ids c = {what->name, values, w->vocab_size};
    struct kd_h5_values checked = {values->n, values->per_call, read_checked, &c};
    char path[KD_H5_NAME_MAX];

    KD_ALL(w->comm, kd_format(path, sizeof path, "%s/%s", split, what->name));
    return kd_h5_write_ragged_values(w->file, path, what->dtype, starts,
                                     what->dtype == KD_I32 ? &checked : values);
}

int kd_corpus_write_stream(struct kd_corpus_writer *w, const char *split,
                           const struct kd_corpus_stream *s)
{
    char path[KD_H5_NAME_MAX];

    KD_ALL(w->comm, kd_format(path, sizeof path, "%s/id", split));
    KD_TRY(kd_h5_write_values(w->file, path, KD_I64, &s->id));
    KD_TRY(write_field(w, split, 0, &s->source.starts, &s->source.values));
    KD_TRY(write_field(w, split, 1, &s->target.starts, &s->target.values));
    KD_TRY(write_field(w, split, 2, &s->source_text.starts, &s->source_text.values));
    return write_field(w, split, 3, &s->target_text.starts, &s->target_text.values);
}

int kd_corpus_commit(struct kd_corpus_writer *w)
{
    int rc = kd_h5_commit(w->file);

    free(w);
    return rc;
}

void kd_corpus_abandon(struct kd_corpus_writer *w)
{
    if (!w)
        return;
    kd_h5_abandon(w->file);
    free(w);
}
