/* SPDX-License-Identifier: Apache-2.0 */
/* See count_backend.h.  The table is a copy of the other's with a few slots replaced;
 * the rest finds its state through the same `impl`. */
#include "count_backend.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>

struct counting {
    struct kd_backend base; /* first: slots get its address */
    struct kd_backend_ops ops;
    struct kd_backend *inner;
    struct counts counts;
};

static struct counting *counting_of(struct kd_backend *be)
{
    return (struct counting *)(void *)be;
}

static void count_destroy(struct kd_backend *be)
{
    kd_backend_free(counting_of(be)->inner);
    free(be);
}

static int count_upload(struct kd_backend *be, void *dst, const void *src, size_t bytes)
{
    struct counting *c = counting_of(be);

    c->counts.uploads++;
    c->counts.up_bytes += bytes;
    return c->inner->ops->upload(c->inner, dst, src, bytes);
}

static int count_download(struct kd_backend *be, void *dst, const void *src,
                          size_t bytes)
{
    struct counting *c = counting_of(be);

    c->counts.downloads++;
    c->counts.down_bytes += bytes;
    return c->inner->ops->download(c->inner, dst, src, bytes);
}

static int count_sync(struct kd_backend *be)
{
    struct counting *c = counting_of(be);

    c->counts.syncs++;
    return c->inner->ops->sync(c->inner);
}

static int count_graph_begin(struct kd_backend *be, const struct kd_graph_key *key,
                             bool *done)
{
    struct counting *c = counting_of(be);
    int rc = c->inner->ops->graph_begin(c->inner, key, done);

    c->counts.runs++;
    c->counts.repeated += *done;
    return rc;
}

int count_backend(struct kd_backend *inner, struct kd_backend **out)
{
    struct counting *c = NULL;

    KD_TRY(kd_calloc(1, sizeof *c, &c));
    c->inner = inner;
    c->ops = *inner->ops;
    c->ops.destroy = count_destroy;
    c->ops.upload = count_upload;
    c->ops.download = count_download;
    c->ops.sync = count_sync;
    c->ops.graph_begin = count_graph_begin;
    c->base = *inner;
    c->base.ops = &c->ops;
    *out = &c->base;
    return KD_OK;
}

struct counts *count_of(struct kd_backend *be)
{
    return &counting_of(be)->counts;
}
