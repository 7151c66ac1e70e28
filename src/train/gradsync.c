/* SPDX-License-Identifier: Apache-2.0 */
/* Buckets of the gradient slab and their sums over the ranks.
 *
 * The plan depends on the parameter table only, so it is the same on every rank, and
 * bucket b starts only after bucket b - 1: then all ranks post the same reductions in
 * the same order, whatever order backward reports ranges in, and also when a rank fails
 * half way and its ranges never come.  Padding between trainable parameters rides along
 * (it is zero everywhere); frozen parameters end a bucket.
 *
 * Sharded, a rank owns a part of every bucket rather than a part of the slab: so each
 * bucket can be scattered as soon as it is final, and all ranks have the same work in
 * it.
 *
 * A start that fails does so alike on every rank, but one rank may be in its backward
 * pass and another already in the finish.  So after a failure nobody starts anything
 * more in this update, and all meet again in the sums that are under way.  The trainer
 * calls this. */
#include "kdhpc/train/gradsync.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

struct bucket {
    int64_t begin, end; /* slab values */
    int64_t trainable;  /* values of parameters in it, without padding */
    int64_t missing;    /* of them not yet final in this update */
    struct kd_transfer *sum;
};

struct kd_gradsync {
    struct kd_comm *comm;
    const struct kd_params *params;
    int64_t n, cap;
    struct bucket *buckets; /* from the slab's end to its start */
    bool sharded;
    struct kd_part *owned; /* [n_owned] if sharded */
    int64_t n_owned;
    int64_t n_started;
    int failed; /* status of the start that failed in this update, or KD_OK */
};

/* Parameters in the order of descending offsets. */
static int from_the_end(const void *a, const void *b)
{
    const struct kd_param *x = *(const struct kd_param *const *)a,
                          *y = *(const struct kd_param *const *)b;

    return x->offset < y->offset ? 1 : x->offset > y->offset ? -1 : 0;
}

static int add_bucket(struct kd_gradsync *s, const struct kd_param *p)
{
    KD_TRY(kd_grow(&s->buckets, &s->cap, s->n + 1, sizeof *s->buckets));
    s->buckets[s->n++] = (struct bucket){
        .begin = p->offset, .end = p->offset + p->count, .trainable = p->count};
    return KD_OK;
}

static int plan(struct kd_gradsync *s, const struct kd_param **order,
                int64_t max_values)
{
    bool open = false;

    for (int i = 0; i < s->params->n; i++) {
        const struct kd_param *p = order[i];

        if (p->frozen || p->count == 0) {
            open = open && !p->frozen;
            continue;
        }
        if (open && s->buckets[s->n - 1].end - p->offset <= max_values) {
            s->buckets[s->n - 1].begin = p->offset;
            s->buckets[s->n - 1].trainable += p->count;
        } else {
            KD_TRY(add_bucket(s, p));
            open = true;
        }
    }
    return KD_OK;
}

static void rewind_buckets(struct kd_gradsync *s)
{
    s->n_started = 0;
    s->failed = KD_OK;
    for (int64_t b = 0; b < s->n; b++)
        s->buckets[b].missing = s->buckets[b].trainable;
}

static struct kd_tensor bucket_of(const struct bucket *b, float *slab)
{
    return kd_tensor1(slab + b->begin, KD_F32, b->end - b->begin);
}

static int find_owned(struct kd_gradsync *s)
{
    KD_TRY(kd_calloc(s->n, sizeof *s->owned, &s->owned));
    for (int64_t i = s->n - 1; i >= 0; i--) {
        const struct bucket *b = &s->buckets[i];
        struct kd_part part = kd_comm_part(b->end - b->begin, kd_comm_size(s->comm),
                                           kd_comm_rank(s->comm));

        part.first += b->begin;
        if (part.count > 0)
            s->owned[s->n_owned++] = part;
    }
    return KD_OK;
}

int kd_gradsync_plan(struct kd_comm *comm, const struct kd_params *params,
                     int64_t bucket_bytes, bool sharded, struct kd_gradsync **out)
{
    const struct kd_param **order = NULL;
    int rc = KD_OK;

    KD_TRY(KD_FAULT("gradsync.new"));
    KD_TRY(kd_calloc(1, sizeof **out, out));
    (*out)->comm = comm;
    (*out)->params = params;
    if (strcmp(kd_comm_plane(comm), "self") == 0)
        return KD_OK;
    KD_TRY(kd_calloc(params->n, sizeof *order, &order));
    for (int i = 0; i < params->n; i++)
        order[i] = &params->items[i];
    qsort(order, (size_t)params->n, sizeof *order, from_the_end);
    rc = plan(*out, order, bucket_bytes / (int64_t)sizeof(float));
    free(order);
    rewind_buckets(*out);
    (*out)->sharded = sharded && kd_comm_size(comm) > 1;
    if (!rc && (*out)->sharded)
        rc = find_owned(*out);
    return rc;
}

int kd_gradsync_new(struct kd_comm *comm, const struct kd_params *params,
                    int64_t bucket_bytes, bool sharded, struct kd_gradsync **out)
{
    int rc;

    *out = NULL;
    rc = kd_agree(comm, kd_gradsync_plan(comm, params, bucket_bytes, sharded, out));
    if (rc) {
        kd_gradsync_free(*out);
        *out = NULL;
    }
    return rc;
}

void kd_gradsync_free(struct kd_gradsync *s)
{
    if (!s)
        return;
    free(s->buckets);
    free(s->owned);
    free(s);
}

const struct kd_part *kd_gradsync_owned(const struct kd_gradsync *s, int64_t *n)
{
    *n = s->n_owned;
    return s->owned;
}

/* Start the next bucket, unless a start has failed before.  Collective. */
static int start_next(struct kd_gradsync *s)
{
    struct bucket *b = &s->buckets[s->n_started];
    struct kd_tensor t = bucket_of(b, s->params->grads);
    struct kd_backend *be = s->params->be;

    if (!s->failed)
        s->failed = s->sharded ? kd_reduce_scatter_start(s->comm, be, t, &b->sum)
                               : kd_allreduce_start(s->comm, be, t, &b->sum);
    if (!s->failed)
        s->n_started++;
    return s->failed;
}

/* Length of the common part of two ranges. */
static int64_t overlap(int64_t a_begin, int64_t a_end, int64_t b_begin, int64_t b_end)
{
    int64_t begin = a_begin > b_begin ? a_begin : b_begin;
    int64_t end = a_end < b_end ? a_end : b_end;

    return end > begin ? end - begin : 0;
}

int kd_gradsync_ready(struct kd_gradsync *s, int64_t offset, int64_t count)
{
    for (int64_t i = s->n_started; i < s->n; i++) {
        struct bucket *b = &s->buckets[i];

        b->missing -= overlap(b->begin, b->end, offset, offset + count);
    }
    while (s->n_started < s->n && s->buckets[s->n_started].missing <= 0)
        KD_TRY(start_next(s));
    return KD_OK;
}

int kd_gradsync_finish(struct kd_gradsync *s)
{
    int rc = KD_OK;

    while (s->n_started < s->n && !rc)
        rc = start_next(s);
    for (int64_t i = 0; i < s->n_started; i++) {
        struct bucket *b = &s->buckets[i];
        int failed = kd_transfer_finish(s->comm, b->sum);

        b->sum = NULL;
        if (!rc)
            rc = failed;
    }
    rewind_buckets(s);
    return rc;
}

/* In the order of the sums.  One bucket at a time: where a transfer goes through host
 * memory, only one is there at once, and where it does not, its finish does not wait.
 */
int kd_gradsync_gather(struct kd_gradsync *s, float *slab)
{
    for (int64_t i = 0; s->sharded && i < s->n; i++) {
        struct kd_transfer *x = NULL;

        KD_TRY(kd_allgather_start(s->comm, s->params->be,
                                  bucket_of(&s->buckets[i], slab), &x));
        KD_TRY(kd_transfer_finish(s->comm, x));
    }
    return KD_OK;
}
