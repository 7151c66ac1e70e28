/* SPDX-License-Identifier: Apache-2.0 */
/* Label examples on their way to a corpus file or to text files: growing ragged arrays,
 * a field at a time, and lines of text. */
#include "labels.h"

#include "kdhpc/base/mem.h"
#include "kdhpc/base/str.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void kd_label_rows_free(struct kd_label_rows *r)
{
    free(r->id);
    for (int f = 0; f < KD_N_LABEL_FIELDS; f++) {
        free(r->offsets[f]);
        free(r->bytes[f]);
    }
}

int kd_label_rows_put(struct kd_label_rows *r, int f, const void *values, int64_t n,
                      size_t size)
{
    int64_t bytes = n * (int64_t)size;

    KD_TRY(kd_grow(&r->bytes[f], &r->cap_bytes[f], r->used[f] + bytes, 1));
    KD_TRY(kd_grow(&r->offsets[f], &r->cap[f], r->n + 2, sizeof(int64_t)));
    if (bytes > 0)
        memcpy(r->bytes[f] + r->used[f], values, (size_t)bytes);
    r->used[f] += bytes;
    r->offsets[f][0] = 0;
    r->offsets[f][r->n + 1] = r->used[f] / (int64_t)size;
    return KD_OK;
}

int kd_label_rows_end(struct kd_label_rows *r, int64_t id)
{
    KD_TRY(kd_grow(&r->id, &r->cap[KD_N_LABEL_FIELDS], r->n + 1, sizeof *r->id));
    r->id[r->n++] = id;
    return KD_OK;
}

static struct kd_ragged view(const struct kd_label_rows *r, int f)
{
    static const int64_t none[1] = {0};

    return (struct kd_ragged){r->n, r->n > 0 ? r->offsets[f] : none, r->bytes[f]};
}

struct kd_corpus_rows kd_label_rows_view(const struct kd_label_rows *r)
{
    return (struct kd_corpus_rows){
        .n = r->n,
        .id = r->id,
        .source = view(r, KD_LABEL_SOURCE),
        .target = view(r, KD_LABEL_TARGET),
        .source_text = view(r, KD_LABEL_SOURCE_TEXT),
        .target_text = view(r, KD_LABEL_TARGET_TEXT),
    };
}

static void put_line(FILE *f, const char *text, int64_t len)
{
    for (int64_t k = 0; k < len; k++)
        (void)putc(text[k] == '\n' || text[k] == '\r' ? ' ' : text[k], f);
    (void)putc('\n', f);
}

int kd_label_text_write(void *arg)
{
    const struct kd_label_text *w = arg;
    struct kd_str part = {0};
    bool failed;
    FILE *f;

    KD_TRY(kd_str_printf(&part, "%s.part", w->path));
    f = fopen(part.data, "wb");
    failed = f == NULL;
    for (int64_t i = 0; !failed && i < kd_corpus_size(w->labels); i++) {
        int64_t len = 0;
        const char *text = w->get(w->labels, i, &len);

        put_line(f, text, len);
    }
    if (f) {
        failed = ferror(f) || fflush(f) != 0 || fsync(fileno(f)) != 0;
        failed = fclose(f) != 0 || failed;
    }
    failed = failed || rename(part.data, w->path) != 0;
    kd_str_free(&part);
    if (failed)
        return KD_FAIL(KD_EOUTPUT, "cannot write %s: %s", w->path, strerror(errno));
    return KD_OK;
}
