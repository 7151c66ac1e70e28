/* SPDX-License-Identifier: Apache-2.0 */
/* A table of strings and ids: vocabulary pieces both ways.
 *
 * The strings lie one after another in one buffer; the way back is open addressing
 * over ids, built once when all strings are in.  Read-only afterwards, so threads
 * share it. */
#include "tokenizer_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { MAX_IDS = 1 << 24 };

uint64_t kd_text_hash(const char *s, int64_t len)
{
    return XXH3_64bits(s, (size_t)len);
}

int kd_strtab_put(struct kd_strtab *t, int64_t id, const char *s, int64_t len)
{
    if (id < 0 || id >= MAX_IDS)
        return KD_FAIL(KD_EINPUT, "token id %lld of \"%.40s\" is out of bounds",
                       (long long)id, s);
    KD_TRY(kd_grow(&t->at, &t->cap_at, id + 1, sizeof *t->at));
    KD_TRY(kd_grow(&t->len, &t->cap_len, id + 1, sizeof *t->len));
    for (; t->n <= id; t->n++)
        t->at[t->n] = -1;
    if (t->at[id] < 0)
        t->n_strings++;
    t->at[id] = t->bytes.len;
    t->len[id] = (int32_t)len;
    return kd_str_append(&t->bytes, s, len);
}

const char *kd_strtab_get(const struct kd_strtab *t, int64_t id, int64_t *len)
{
    if (id < 0 || id >= t->n || t->at[id] < 0)
        return NULL;
    *len = t->len[id];
    return t->bytes.data + t->at[id];
}

/** Slot of the string, or the free slot where it belongs. */
static int64_t find_slot(const struct kd_strtab *t, const char *s, int64_t len)
{
    int64_t mask = t->n_slots - 1, i = (int64_t)(kd_text_hash(s, len) & (uint64_t)mask);

    for (; t->slots[i] >= 0; i = (i + 1) & mask) {
        int32_t id = t->slots[i];

        if (t->len[id] == len && memcmp(t->bytes.data + t->at[id], s, (size_t)len) == 0)
            break;
    }
    return i;
}

int kd_strtab_index(struct kd_strtab *t)
{
    free(t->slots);
    t->slots = NULL;
    for (t->n_slots = 16; t->n_slots < 2 * t->n_strings;)
        t->n_slots *= 2;
    KD_TRY(kd_calloc(t->n_slots, sizeof *t->slots, &t->slots));
    memset(t->slots, 0xff, (size_t)t->n_slots * sizeof *t->slots);
    for (int64_t id = 0; id < t->n; id++)
        if (t->at[id] >= 0)
            t->slots[find_slot(t, t->bytes.data + t->at[id], t->len[id])] = (int32_t)id;
    return KD_OK;
}

int32_t kd_strtab_find(const struct kd_strtab *t, const char *s, int64_t len)
{
    return t->n_slots ? t->slots[find_slot(t, s, len)] : -1;
}

void kd_strtab_free(struct kd_strtab *t)
{
    kd_str_free(&t->bytes);
    free(t->at);
    free(t->len);
    free(t->slots);
    *t = (struct kd_strtab){0};
}
