/* SPDX-License-Identifier: Apache-2.0 */
/* A fuzz target without a fuzzer:  replay FILE...  Every file as it is, cut at every
 * place, and with every byte changed in a few ways, each in a buffer of its exact size,
 * so that a sanitizer sees any step beyond it.  One damaged byte is what most real
 * damage and most known attacks begin with, and the runs are the same every time. */
#include "kdhpc/base/str.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static long runs;

static void run(const char *bytes, int64_t n)
{
    uint8_t *copy = malloc(n ? (size_t)n : 1);

    if (!copy)
        exit(1);
    memcpy(copy, bytes, (size_t)n);
    (void)LLVMFuzzerTestOneInput(copy, (size_t)n);
    free(copy);
    runs++;
}

static void run_variants(struct kd_str *file)
{
    static const unsigned char flips[] = {0x01, 0x10, 0x80, 0xff};

    for (int64_t n = 0; n <= file->len; n++)
        run(file->data, n);
    for (int64_t i = 0; i < file->len; i++) {
        char was = file->data[i];

        for (size_t k = 0; k < sizeof flips; k++) {
            file->data[i] = (char)((unsigned char)was ^ flips[k]);
            run(file->data, file->len);
        }
        file->data[i] = was;
    }
}

int main(int argc, char **argv)
{
    struct kd_str file = {0};

    for (int i = 1; i < argc; i++) {
        if (kd_read_file(argv[i], &file)) {
            fprintf(stderr, "%s\n", kd_error_get()->text);
            return 1;
        }
        run_variants(&file);
    }
    kd_str_free(&file);
    printf("%ld runs\n", runs);
    return argc > 1 ? 0 : 1;
}
