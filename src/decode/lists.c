/* SPDX-License-Identifier: Apache-2.0 */
/* The lists of ids in generation settings: bad words, suppressed tokens, and the pair
 * of exponential_decay_length_penalty.  A bad word of one id is an id never produced; a
 * word that is only eos is dropped, as transformers does.  Callers: config.c. */
#include "decode_impl.h"
#include "kdhpc/base/json.h"
#include "kdhpc/base/mem.h"

#include <math.h>
#include <stdlib.h>

static int64_t list_len(const struct kd_json *v)
{
    return v && kd_json_is_array(v) ? kd_json_len(v) : 0;
}

static int get_one(const struct kd_json *list, int64_t i, const char *key, int32_t *out)
{
    int64_t id = kd_json_as_int(kd_json_at(list, i), -1);

    if (id < 0 || id > INT32_MAX)
        return KD_FAIL(KD_EINPUT, "generation config: '%s' holds what is not an id",
                       key);
    *out = (int32_t)id;
    return KD_OK;
}

/* Word W: of one id among those suppressed, else among G's bad words, which have
 * room. */
static int get_word(const struct kd_json *w, struct kd_generation *g)
{
    struct kd_words *words = &g->bad_words;
    int64_t n = list_len(w), at = words->n > 0 ? words->ends[words->n - 1] : 0;

    if (n == 0)
        return KD_FAIL(KD_EINPUT, "generation config: 'bad_words_ids' must be a list "
                                  "of lists of ids");
    if (n == 1) {
        KD_TRY(get_one(w, 0, "bad_words_ids", &g->suppress[g->n_suppress]));
        g->n_suppress += !kd_is_eos(g, g->suppress[g->n_suppress]);
        return KD_OK;
    }
    for (int64_t i = 0; i < n; i++)
        KD_TRY(get_one(w, i, "bad_words_ids", &words->ids[at + i]));
    words->ends[words->n++] = at + n;
    return KD_OK;
}

static int get_words(const struct kd_json *words, int64_t n, struct kd_generation *g)
{
    int64_t n_ids = 0;

    for (int64_t i = 0; i < n; i++)
        n_ids += list_len(kd_json_at(words, i));
    KD_TRY(kd_calloc(n_ids, sizeof *g->bad_words.ids, &g->bad_words.ids));
    KD_TRY(kd_calloc(n, sizeof *g->bad_words.ends, &g->bad_words.ends));
    for (int64_t i = 0; i < n; i++)
        KD_TRY(get_word(kd_json_at(words, i), g));
    return KD_OK;
}

/* transformers bans suppressed tokens after it forces one, which leaves nothing. */
static int get_suppressed(const struct kd_json *tokens, int64_t n,
                          struct kd_generation *g)
{
    for (int64_t i = 0; i < n; i++) {
        int32_t id = -1;

        KD_TRY(get_one(tokens, i, "suppress_tokens", &id));
        if (id == g->forced_bos_id || id == g->forced_eos_id)
            return KD_FAIL(KD_EINPUT,
                           "generation config: 'suppress_tokens' holds %d, which "
                           "forced_bos_token_id or forced_eos_token_id forces",
                           (int)id);
        g->suppress[g->n_suppress++] = id;
    }
    return KD_OK;
}

/* The list J has for KEY, NULL if none; *N: its length. */
static int get_list(const struct kd_json *j, const char *key,
                    const struct kd_json **list, int64_t *n)
{
    *list = kd_json_has(j, key) ? kd_json_get(j, key) : NULL;
    *n = list_len(*list);
    if (*list && !kd_json_is_array(*list))
        return KD_FAIL(KD_EINPUT, "generation config: '%s' must be a list", key);
    return KD_OK;
}

static int get_decay(const struct kd_json *v, int64_t n, struct kd_generation *g)
{
    g->decay_factor = 1.0;
    if (!v)
        return KD_OK;
    g->decay_start = kd_json_as_int(kd_json_at(v, 0), -1);
    g->decay_factor = kd_json_as_num(kd_json_at(v, 1), NAN);
    if (n != 2 || g->decay_start < 0 || !isfinite(g->decay_factor) ||
        g->decay_factor < 0)
        return KD_FAIL(KD_EINPUT, "generation config: "
                                  "'exponential_decay_length_penalty' must be a "
                                  "number of tokens and a factor");
    return KD_OK;
}

int kd_generation_lists(const struct kd_json *j, struct kd_generation *g)
{
    const struct kd_json *words, *tokens, *begin, *decay;
    int64_t n_words, n_tokens, n_begin, n_decay;

    KD_TRY(get_list(j, "bad_words_ids", &words, &n_words));
    KD_TRY(get_list(j, "suppress_tokens", &tokens, &n_tokens));
    KD_TRY(get_list(j, "begin_suppress_tokens", &begin, &n_begin));
    KD_TRY(get_list(j, "exponential_decay_length_penalty", &decay, &n_decay));
    KD_TRY(get_decay(decay, n_decay, g));
    if (n_words + n_tokens > 0) /* a dropped word is written and then passed over */
        KD_TRY(kd_calloc(n_words + n_tokens, sizeof *g->suppress, &g->suppress));
    if (n_words > 0)
        KD_TRY(get_words(words, n_words, g));
    KD_TRY(get_suppressed(tokens, n_tokens, g));
    if (n_begin > 0)
        KD_TRY(kd_calloc(n_begin, sizeof *g->begin_suppress, &g->begin_suppress));
    for (int64_t i = 0; i < n_begin; i++) {
        KD_TRY(get_one(begin, i, "begin_suppress_tokens", &g->begin_suppress[i]));
        g->n_begin_suppress++;
    }
    return KD_OK;
}
