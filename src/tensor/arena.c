/* SPDX-License-Identifier: Apache-2.0 */
/* Step arena: two bump allocators with common marks, one in backend memory, one in host
 * memory (on the CPU both are host memory, but callers need not know).
 *
 * A region is a list of blocks filled in order; `top` is the block being filled.
 * Blocks behind `top` are empty and wait for reuse.  A reset of a region that needed
 * more than one block frees them all and notes how much was in use at the peak: the
 * next allocation makes one block of that size, so a steady step allocates nothing and
 * finds its memory in one piece.  Callers are the autograd ops, the model and the
 * decoder. */
#include "kdhpc/tensor/arena.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

enum {
    ALIGN = 64,
    MIN_BLOCK_BYTES = 1 << 20,
    MIN_HOST_BLOCK_BYTES = 1 << 16,
};

struct block {
    char *data;
    size_t cap;
    size_t before; /* bytes in use in the blocks before this one */
};

struct region {
    struct block *blocks;
    int64_t cap_blocks;
    int n, top;
    size_t used; /* of blocks[top] */
    size_t peak, want, min_block;
    struct kd_backend *be; /* NULL: host memory */
};

struct kd_arena {
    struct region dev, host;
};

static int block_new(struct region *r, size_t bytes, char **out)
{
    void *p = NULL;

    if (r->be)
        KD_TRY(r->be->ops->alloc(r->be, bytes, &p));
    else if (!(p = aligned_alloc(ALIGN, bytes)))
        return KD_FAIL(KD_ENOMEM,
                       "cannot allocate %zu bytes for a step's bookkeeping: use a "
                       "smaller batch",
                       bytes);
    *out = p;
    return KD_OK;
}

static void region_clear(struct region *r)
{
    for (int i = 0; i < r->n; i++) {
        if (r->be)
            r->be->ops->free(r->be, r->blocks[i].data);
        else
            free(r->blocks[i].data);
    }
    r->n = 0;
}

static size_t round_up(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* Append a block that holds at least BYTES: as large as all blocks so far together, so
 * that a growing step needs a logarithmic number of them. */
static int region_grow(struct region *r, size_t bytes)
{
    size_t size = bytes > r->min_block ? bytes : r->min_block, held = 0;

    for (int i = 0; i < r->n; i++)
        held += r->blocks[i].cap;
    if (size < held / 2)
        size = held / 2;
    if (!r->n && size < r->want)
        size = r->want;
    size = round_up(size);
    KD_TRY(kd_grow(&r->blocks, &r->cap_blocks, r->n + 1, sizeof(*r->blocks)));
    r->blocks[r->n] = (struct block){NULL, size, 0};
    KD_TRY(block_new(r, size, &r->blocks[r->n].data));
    r->n++;
    return KD_OK;
}

/* Make blocks[top] have room for BYTES. */
static int region_room(struct region *r, size_t bytes)
{
    while (r->n == 0 || r->used + bytes > r->blocks[r->top].cap) {
        int next = r->n ? r->top + 1 : 0;
        size_t before = r->n ? r->blocks[r->top].before + r->used : 0;

        if (next >= r->n)
            KD_TRY(region_grow(r, bytes));
        r->blocks[next].before = before;
        r->top = next;
        r->used = 0;
    }
    return KD_OK;
}

static int region_alloc(struct region *r, size_t bytes, char **out)
{
    size_t in_use;

    bytes = round_up(bytes ? bytes : 1);
    KD_TRY(region_room(r, bytes));
    *out = r->blocks[r->top].data + r->used;
    r->used += bytes;
    in_use = r->blocks[r->top].before + r->used;
    if (in_use > r->peak)
        r->peak = in_use;
    return KD_OK;
}

static void region_reset(struct region *r)
{
    if (r->n > 1) {
        region_clear(r);
        r->want = r->peak + r->peak / 16; /* slack for ragged batches */
    }
    r->top = 0;
    r->used = 0;
}

int kd_arena_new(struct kd_backend *be, struct kd_arena **out)
{
    struct kd_arena *a;

    KD_TRY(kd_calloc(1, sizeof(*a), &a));
    a->dev.be = be;
    a->dev.min_block = MIN_BLOCK_BYTES;
    a->host.min_block = MIN_HOST_BLOCK_BYTES;
    *out = a;
    return KD_OK;
}

void kd_arena_free(struct kd_arena *a)
{
    if (!a)
        return;
    region_clear(&a->dev);
    region_clear(&a->host);
    free(a->dev.blocks);
    free(a->host.blocks);
    free(a);
}

void kd_arena_reserve(struct kd_arena *a, size_t bytes)
{
    a->dev.want = bytes;
}

int kd_arena_alloc(struct kd_arena *a, size_t bytes, void **out)
{
    char *p;

    KD_TRY(region_alloc(&a->dev, bytes, &p));
    *out = p;
    return KD_OK;
}

int kd_arena_host(struct kd_arena *a, size_t bytes, void *out)
{
    char *p;

    KD_TRY(region_alloc(&a->host, bytes, &p));
    memset(p, 0, bytes);
    memcpy(out, &p, sizeof(p)); /* OUT points to a pointer of the caller's type */
    return KD_OK;
}

int kd_arena_tensor(struct kd_arena *a, enum kd_dtype dtype, int64_t rows, int64_t cols,
                    struct kd_tensor *out)
{
    struct kd_tensor t = kd_tensor2(NULL, dtype, rows, cols);

    KD_TRY(kd_arena_alloc(a, kd_tensor_bytes(&t), &t.data));
    *out = t;
    return KD_OK;
}

struct kd_arena_mark kd_arena_mark(const struct kd_arena *a)
{
    return (struct kd_arena_mark){a->dev.top, a->host.top, a->dev.used, a->host.used};
}

void kd_arena_release(struct kd_arena *a, struct kd_arena_mark mark)
{
    a->dev.top = mark.block;
    a->dev.used = mark.used;
    a->host.top = mark.host_block;
    a->host.used = mark.host_used;
}

void kd_arena_reset(struct kd_arena *a)
{
    region_reset(&a->dev);
    region_reset(&a->host);
}

size_t kd_arena_peak_bytes(const struct kd_arena *a)
{
    return a->dev.peak;
}
