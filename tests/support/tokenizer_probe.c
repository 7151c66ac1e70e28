/* SPDX-License-Identifier: Apache-2.0 */
/* What the tokenizer of a directory makes of texts, for comparisons with other
 * libraries:
 *
 *     tokenizer_probe DIR ITEMS.json source|target
 *     tokenizer_probe DIR LINES.txt seconds
 *
 * ITEMS is an array of strings to encode, and of arrays of ids to decode.  First comes
 * the number of the tokenizer's ids, then a line for each item: its ids, a tab, the
 * decoded text in hexadecimal.  `seconds` encodes the lines of a file and prints the
 * CPU time that took and the number of ids. */
#include "kdhpc/base/json.h"
#include "kdhpc/base/log.h"
#include "kdhpc/base/mem.h"
#include "kdhpc/text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int read_ids(const struct kd_json *item, struct kd_token_ids *ids)
{
    ids->n = kd_json_len(item);
    KD_TRY(kd_grow(&ids->v, &ids->cap, ids->n, sizeof *ids->v));
    for (int64_t i = 0; i < ids->n; i++)
        ids->v[i] = (int32_t)kd_json_as_int(kd_json_at(item, i), -1);
    return KD_OK;
}

static void print_item(const struct kd_token_ids *ids, const struct kd_str *text)
{
    for (int64_t i = 0; i < ids->n; i++)
        (void)printf("%s%d", i ? " " : "", (int)ids->v[i]);
    (void)putchar('\t');
    for (int64_t i = 0; i < text->len; i++)
        (void)printf("%02x", (unsigned char)text->data[i]);
    (void)putchar('\n');
}

static int compare(const struct kd_tokenizer *t, const char *path,
                   enum kd_text_side side)
{
    struct kd_json *items = NULL;
    struct kd_token_ids ids = {0};
    struct kd_str text = {0};
    int rc = KD_OK;

    KD_TRY(kd_json_parse_file(path, &items));
    (void)printf("%lld\n", (long long)kd_tokenizer_size(t));
    for (int64_t i = 0; i < kd_json_len(items); i++) {
        const struct kd_json *item = kd_json_at(items, i);
        int64_t len = 0;
        const char *s = kd_json_as_text(item, &len);

        if (s)
            KD_GO(kd_tokenizer_encode(t, side, s, len, 0, &ids, NULL));
        else
            KD_GO(read_ids(item, &ids));
        KD_GO(kd_tokenizer_decode(t, ids.v, ids.n, &text));
        print_item(&ids, &text);
    }
out:
    kd_token_ids_free(&ids);
    kd_str_free(&text);
    kd_json_free(items);
    return rc;
}

static int measure(const struct kd_tokenizer *t, const char *path)
{
    struct kd_token_ids ids = {0};
    struct kd_str text = {0};
    clock_t start = 0;
    int64_t n = 0;
    int rc = KD_OK;

    KD_TRY(kd_read_file(path, &text));
    start = clock();
    for (int64_t at = 0; at < text.len;) {
        const char *end = memchr(text.data + at, '\n', (size_t)(text.len - at));
        int64_t len = end ? end - text.data - at : text.len - at;

        KD_GO(kd_tokenizer_encode(t, KD_SOURCE, text.data + at, len, 0, &ids, NULL));
        n += ids.n;
        at += len + 1;
    }
    (void)printf("%.6f %lld\n", (double)(clock() - start) / CLOCKS_PER_SEC,
                 (long long)n);
out:
    kd_token_ids_free(&ids);
    kd_str_free(&text);
    return rc;
}

int main(int argc, char **argv)
{
    struct kd_tokenizer *t = NULL;
    int rc = KD_OK;

    if (argc != 4) {
        (void)fprintf(stderr, "usage: %s DIR FILE source|target|seconds\n", argv[0]);
        return KD_EUSAGE;
    }
    rc = kd_tokenizer_load(argv[1], &t);
    if (!rc && strcmp(argv[3], "seconds") == 0)
        rc = measure(t, argv[2]);
    else if (!rc)
        rc =
            compare(t, argv[2], strcmp(argv[3], "target") == 0 ? KD_TARGET : KD_SOURCE);
    if (rc)
        (void)fprintf(stderr, "tokenizer_probe: %s\n", kd_error_get()->text);
    kd_tokenizer_free(t);
    return rc;
}
