/* SPDX-License-Identifier: Apache-2.0 */
/* Batches from corpus rows: ids, positions, decoder inputs, dropout keys, all ragged.
 *
 * Everything is packed into a few host buffers that are reused from step to step, and
 * uploaded with one copy each. */
#include "kdhpc/mode/batch.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>

/* Sizes of a batch, from which the buffers are cut. */
struct sizes {
    int64_t n, src_rows, tgt_rows, src_max, tgt_max;
};

static int64_t decoder_rows(const struct kd_batch_rules *rules, int64_t n_labels)
{
    return n_labels + (rules && n_labels < rules->extra_below);
}

static int measure(struct kd_batch_buffer *buf, const struct kd_batch_rules *rules,
                   const struct kd_corpus *corpus, const int64_t *index, int64_t n,
                   struct sizes *s)
{
    *s = (struct sizes){.n = n};
    KD_TRY(kd_grow(&buf->src_offsets, &buf->cap_src_offsets, n + 1, sizeof(int64_t)));
    KD_TRY(kd_grow(&buf->tgt_offsets, &buf->cap_tgt_offsets, n + 1, sizeof(int64_t)));
    for (int64_t i = 0; i < n; i++) {
        int64_t src, tgt;

        kd_corpus_source(corpus, index[i], &src);
        kd_corpus_target(corpus, index[i], &tgt);
        tgt = decoder_rows(rules, tgt);
        buf->src_offsets[i] = s->src_rows;
        buf->tgt_offsets[i] = s->tgt_rows;
        s->src_rows += src;
        s->tgt_rows += tgt;
        s->src_max = src > s->src_max ? src : s->src_max;
        s->tgt_max = tgt > s->tgt_max ? tgt : s->tgt_max;
    }
    buf->src_offsets[n] = s->src_rows;
    buf->tgt_offsets[n] = s->tgt_rows;
    KD_TRY(kd_grow(&buf->ids, &buf->cap_ids, 2 * s->src_rows + 3 * s->tgt_rows,
                   sizeof(int32_t)));
    KD_TRY(kd_grow(&buf->keys, &buf->cap_keys, s->src_rows + s->tgt_rows,
                   sizeof(uint64_t)));
    return kd_grow(&buf->mask, &buf->cap_mask, s->tgt_rows, sizeof(float));
}

/* Names (example, side, position) for the dropout counters. */
static uint64_t row_key(int64_t example, int side, int64_t position)
{
    return (uint64_t)example << 24 | (uint64_t)side << 23 | (uint64_t)position;
}

static void fill_source(struct kd_batch_buffer *buf, const struct kd_corpus *corpus,
                        int64_t example, int64_t first, int64_t n_rows)
{
    int64_t len;
    const int32_t *ids = kd_corpus_source(corpus, example, &len);

    for (int64_t t = 0; t < len; t++) {
        buf->ids[first + t] = ids[t];
        buf->ids[n_rows + first + t] = (int32_t)t;
        buf->keys[first + t] = row_key(example, 0, t);
    }
}

/* What the decoder begins with where IDS[len] are the labels. */
static int32_t first_input(const struct kd_arch *arch,
                           const struct kd_batch_rules *rules, const int32_t *ids,
                           int64_t len)
{
    bool last = arch->start_rule == KD_START_LAST_LABEL ||
                (rules && rules->start_last && arch->old_start_last);

    return last && len > 0 ? ids[len - 1] : arch->decoder_start_id;
}

int64_t kd_batch_kd_rows(const struct kd_arch *arch, const struct kd_batch_rules *rules,
                         const struct kd_corpus *corpus, int64_t example)
{
    int64_t len, n = 0;
    const int32_t *ids = kd_corpus_target(corpus, example, &len);

    if (!rules || rules->extra_below <= 0)
        return len;
    for (int64_t t = 0; t < decoder_rows(rules, len); t++)
        n += (t ? ids[t - 1] : first_input(arch, rules, ids, len)) != arch->pad_id;
    return n;
}

/* Decoder inputs: the start, then the labels; IDS, LABELS and POS are cut for the
 * target rows. */
static void fill_target(const struct kd_arch *arch, const struct kd_batch_rules *rules,
                        const struct kd_corpus *corpus, int64_t example, int64_t first,
                        int32_t *dec, int32_t *labels, int32_t *pos, uint64_t *keys,
                        float *mask)
{
    int64_t len, rows;
    const int32_t *ids = kd_corpus_target(corpus, example, &len);
    int32_t start = first_input(arch, rules, ids, len);

    rows = decoder_rows(rules, len);
    for (int64_t t = 0; t < rows; t++) {
        dec[first + t] = t == 0 ? start : ids[t - 1];
        labels[first + t] = t < len ? ids[t] : -1;
        pos[first + t] = (int32_t)t;
        keys[first + t] = row_key(example, 1, t);
        mask[first + t] = dec[first + t] != arch->pad_id;
    }
}

static int upload(struct kd_backend *be, struct kd_arena *arena, const void *host,
                  size_t bytes, void *out)
{
    void *p;

    KD_TRY(kd_arena_alloc(arena, bytes, &p));
    KD_TRY(be->ops->upload(be, p, host, bytes));
    *(void **)out = p;
    return KD_OK;
}

static int seqs(struct kd_backend *be, struct kd_arena *arena, const int64_t *offsets,
                int64_t n, int64_t max_len, struct kd_seqs *out)
{
    void *dev;

    KD_TRY(upload(be, arena, offsets, (size_t)(n + 1) * sizeof *offsets, &dev));
    *out = (struct kd_seqs){n, offsets[n], max_len, offsets,
                            kd_tensor1(dev, KD_I64, n + 1)};
    return KD_OK;
}

int kd_batch_build(struct kd_batch_buffer *buf, struct kd_backend *be,
                   struct kd_arena *arena, const struct kd_arch *arch,
                   const struct kd_batch_rules *rules, const struct kd_corpus *corpus,
                   const int64_t *index, int64_t n, struct kd_batch *out)
{
    struct sizes s;
    int32_t *dev_ids, *tgt;
    uint64_t *dev_keys;
    float *dev_mask = NULL;

    KD_TRY(measure(buf, rules, corpus, index, n, &s));
    tgt = buf->ids + 2 * s.src_rows;
    for (int64_t i = 0; i < n; i++) {
        fill_source(buf, corpus, index[i], buf->src_offsets[i], s.src_rows);
        fill_target(arch, rules, corpus, index[i], buf->tgt_offsets[i], tgt,
                    tgt + s.tgt_rows, tgt + 2 * s.tgt_rows, buf->keys + s.src_rows,
                    buf->mask);
    }
    KD_TRY(upload(be, arena, buf->ids,
                  (size_t)(2 * s.src_rows + 3 * s.tgt_rows) * sizeof(int32_t),
                  &dev_ids));
    KD_TRY(upload(be, arena, buf->keys,
                  (size_t)(s.src_rows + s.tgt_rows) * sizeof(uint64_t), &dev_keys));
    if (rules && rules->extra_below > 0)
        KD_TRY(upload(be, arena, buf->mask, (size_t)s.tgt_rows * sizeof(float),
                      &dev_mask));
    *out = (struct kd_batch){.src_ids = dev_ids,
                             .src_pos = dev_ids + s.src_rows,
                             .dec_ids = dev_ids + 2 * s.src_rows,
                             .labels = dev_ids + 2 * s.src_rows + s.tgt_rows,
                             .tgt_pos = dev_ids + 2 * s.src_rows + 2 * s.tgt_rows,
                             .src_keys = dev_keys,
                             .tgt_keys = dev_keys + s.src_rows,
                             .kd_mask = dev_mask};
    KD_TRY(seqs(be, arena, buf->src_offsets, n, s.src_max, &out->src));
    return seqs(be, arena, buf->tgt_offsets, n, s.tgt_max, &out->tgt);
}

void kd_batch_buffer_free(struct kd_batch_buffer *buf)
{
    free(buf->src_offsets);
    free(buf->tgt_offsets);
    free(buf->ids);
    free(buf->keys);
    free(buf->mask);
    *buf = (struct kd_batch_buffer){0};
}
