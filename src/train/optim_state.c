/* SPDX-License-Identifier: Apache-2.0 */
/* Optimiser state on its way to and from checkpoints.
 *
 * A file has one float32 value for each place of an array, whoever held it and in what
 * type: bfloat16 moments are float32 values that need fewer bits, so they go out and
 * come back exactly.  With sharded state the ranks that write a share of the file are
 * not those that hold it.  So the array passes all ranks in windows: each sends what it
 * holds of a window as records of (place, number, values), and keeps what it wants of
 * the records of all.  Nothing of the size of the array exists on any rank. */
#include "optim_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { WINDOW_VALUES = 1 << 22 };

struct record {
    int64_t first, count; /* float32 values that follow, padded to 8 bytes */
};

static const char *const names[] = {"second_moment", "first_moment"};

static void *state_of(const struct kd_optim *opt, int k)
{
    return k == 0 ? opt->v : k == 1 ? opt->m : NULL;
}

const char *kd_optim_state(const struct kd_optim *opt, int k, int64_t *n)
{
    if (!state_of(opt, k))
        return NULL;
    *n = opt->n_whole;
    return names[k];
}

/* Values [AT, AT + N) of what this rank holds of array K, to and from the host. */
static int load(const struct kd_optim *opt, int k, int64_t at, int64_t n, float *out)
{
    struct kd_backend *be = opt->params->be;
    uint16_t *bits = NULL;
    int rc = KD_OK;

    if (opt->o.moments == KD_F32)
        return be->ops->download(be, out, (float *)state_of(opt, k) + at,
                                 (size_t)n * sizeof *out);
    KD_TRY(kd_calloc(n, sizeof *bits, &bits));
    rc = be->ops->download(be, bits, (uint16_t *)state_of(opt, k) + at,
                           (size_t)n * sizeof *bits);
    for (int64_t i = 0; !rc && i < n; i++)
        out[i] = kd_bf16_to_f32(bits[i]);
    free(bits);
    return rc;
}

static int store(const struct kd_optim *opt, int k, int64_t at, int64_t n,
                 const float *in)
{
    struct kd_backend *be = opt->params->be;
    uint16_t *bits = NULL;
    int rc = KD_OK, done;

    if (opt->o.moments == KD_F32)
        return be->ops->upload(be, (float *)state_of(opt, k) + at, in,
                               (size_t)n * sizeof *in);
    KD_TRY(kd_calloc(n, sizeof *bits, &bits));
    for (int64_t i = 0; i < n; i++)
        bits[i] = kd_f32_to_bf16(in[i]);
    rc = be->ops->upload(be, (uint16_t *)state_of(opt, k) + at, bits,
                         (size_t)n * sizeof *bits);
    done = be->ops->sync(be); /* BITS goes */
    free(bits);
    return rc ? rc : done;
}

/* Values [FIRST, FIRST + N) of state that is all here. */
static int get_own(const struct kd_optim *opt, int k, int64_t first, int64_t n,
                   float *out)
{
    memset(out, 0, (size_t)n * sizeof *out);
    for (int64_t i = 0; i < opt->n_ranges; i++) {
        const struct kd_optim_range *r = &opt->ranges[i];
        int64_t begin, count = kd_optim_overlap(r, first, first + n, &begin);

        if (count > 0)
            KD_TRY(
                load(opt, k, r->at + begin - r->offset, count, out + (begin - first)));
    }
    return KD_OK;
}

static int64_t record_bytes(int64_t count)
{
    return (int64_t)sizeof(struct record) +
           (count + count % 2) * (int64_t)sizeof(float);
}

/* What this rank holds of places [FIRST, END), as records in malloc'ed *OUT. */
static int pack(const struct kd_optim *opt, int k, int64_t first, int64_t end,
                char **out, int64_t *bytes)
{
    char *to;

    *bytes = 0;
    for (int pass = 0; pass < 2; pass++) {
        to = *out;
        for (int64_t i = 0; i < opt->n_ranges; i++) {
            const struct kd_optim_range *r = &opt->ranges[i];
            struct record head;

            head.count = kd_optim_overlap(r, first, end, &head.first);
            if (head.count <= 0)
                continue;
            if (pass == 0) {
                *bytes += record_bytes(head.count);
                continue;
            }
            memcpy(to, &head, sizeof head);
            KD_TRY(load(opt, k, r->at + head.first - r->offset, head.count,
                        (float *)(void *)(to + sizeof head)));
            to += record_bytes(head.count);
        }
        if (pass == 0)
            KD_TRY(kd_calloc(*bytes, 1, out));
    }
    return KD_OK;
}

/* Take from the records what is in [FIRST, FIRST + N). */
static void unpack(const char *records, int64_t bytes, int64_t first, int64_t n,
                   float *out)
{
    for (const char *at = records; at < records + bytes;) {
        struct record head;
        struct kd_optim_range r = {0};
        int64_t begin, count;

        memcpy(&head, at, sizeof head);
        r.offset = head.first;
        r.count = head.count;
        count = kd_optim_overlap(&r, first, first + n, &begin);
        if (count > 0)
            memcpy(out + (begin - first),
                   at + sizeof head + (size_t)(begin - head.first) * sizeof *out,
                   (size_t)count * sizeof *out);
        at += record_bytes(head.count);
    }
}

/* One window of the array.  Collective. */
static int exchange(struct kd_optim *opt, struct kd_comm *comm, int k, int64_t window,
                    int64_t first, int64_t n, float *out)
{
    int64_t end = window + WINDOW_VALUES, bytes = 0, all_bytes = 0;
    int64_t *sizes = NULL;
    char *own = NULL;
    void *all = NULL;
    int rc = KD_OK;

    KD_ALL_GO(comm, kd_calloc(kd_comm_size(comm), sizeof *sizes, &sizes));
    KD_ALL_GO(comm, pack(opt, k, window, end, &own, &bytes));
    KD_GO(kd_allgather_bytes(comm, own, bytes, &all, sizes));
    for (int r = 0; r < kd_comm_size(comm); r++)
        all_bytes += sizes[r];
    unpack(all, all_bytes, first, n, out);
out:
    free(all);
    free(own);
    free(sizes);
    return rc;
}

int kd_optim_get_state(struct kd_optim *opt, struct kd_comm *comm, int k, int64_t first,
                       int64_t n, float *out)
{
    if (!opt->shared)
        return kd_agree(comm, get_own(opt, k, first, n, out));
    memset(out, 0, (size_t)n * sizeof *out);
    for (int64_t window = 0; window < opt->n_whole; window += WINDOW_VALUES)
        KD_TRY(exchange(opt, comm, k, window, first, n, out));
    return KD_OK;
}

int kd_optim_put_state(struct kd_optim *opt, int k, int64_t first, int64_t n,
                       const float *in)
{
    struct kd_backend *be = opt->params->be;
    int rc = KD_OK, done;

    for (int64_t i = 0; i < opt->n_ranges && !rc; i++) {
        const struct kd_optim_range *r = &opt->ranges[i];
        int64_t begin, count = kd_optim_overlap(r, first, first + n, &begin);

        if (count > 0)
            rc = store(opt, k, r->at + begin - r->offset, count, in + (begin - first));
    }
    done = be->ops->sync(be); /* the caller's memory goes */
    return rc ? rc : done;
}
