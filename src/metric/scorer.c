/* SPDX-License-Identifier: Apache-2.0 */
/* The working memory of BLEU, chrF and TER: grows to what the longest example needs
 * and is reused, so that scoring allocates nothing once it is warm. */
#include "metric_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

int kd_mt_scorer_new(struct kd_mt_scorer **out)
{
    struct kd_mt_scorer *s;
    int rc = KD_OK;

    *out = NULL;
    KD_TRY(kd_calloc(1, sizeof *s, &s));
    KD_GO(kd_words_new(&s->words));
    KD_GO(kd_ngrams_new(&s->ngrams));
    *out = s;
    return KD_OK;
out:
    kd_mt_scorer_free(s);
    return rc;
}

void kd_mt_scorer_free(struct kd_mt_scorer *s)
{
    if (!s)
        return;
    for (int64_t r = 0; r < s->n_refs_cap; r++)
        free(s->refs[r].v);
    free(s->refs);
    free(s->hyp.v);
    free(s->points.v);
    free(s->spare.v);
    kd_words_free(s->words);
    kd_ngrams_free(s->ngrams);
    kd_ter_work_free(s->ter);
    free(s);
}

int kd_mt_scorer_refs(struct kd_mt_scorer *s, int64_t n)
{
    int64_t old = s->n_refs_cap;

    if (n <= old)
        return KD_OK;
    KD_TRY(kd_grow(&s->refs, &s->n_refs_cap, n, sizeof *s->refs));
    memset(s->refs + old, 0, (size_t)(s->n_refs_cap - old) * sizeof *s->refs);
    return KD_OK;
}
