/* SPDX-License-Identifier: Apache-2.0 */
/* Sums and gathers of host memory between the ranks of one node, through memory that
 * they share.
 *
 * A long array goes in chunks small enough to stay in cache: every rank copies its
 * chunk in, all meet, each adds its share of the columns in rank order, all meet, each
 * copies the sums back.  Every column is added by exactly one rank, so all ranks end
 * with the same bits.  Two sets of buffers alternate: a rank that writes chunk c + 2
 * has met everyone in chunk c + 1, so nobody still reads chunk c.  A gather goes the
 * same way with one meeting a chunk, since nothing is added.
 *
 * Against MPI_Allreduce this saves the copies through the transport's own buffers; see
 * `--mode bench --what allreduce`.  mpi.c calls it where all ranks are on one node. */
#include "kdhpc/base/mem.h"

#include "comm_impl.h"
#include "node_stage.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK = 1 << 16,        /* values of a rank in one chunk */
    LANE = 16,              /* shares are whole lanes: 64 bytes, a cache line */
    SPINS_BEFORE_YIELD = 64 /* looks at a flag before the core is offered to others */
};

/* One rank's part of the shared window. */
struct place {
    _Alignas(64) atomic_ullong met; /* meetings this rank has come to */
    _Alignas(64) float in[2][CHUNK];
    float sums[2][CHUNK]; /* its share, at the share's own position */
};

struct kd_node_stage {
    MPI_Win window;
    int rank, size;
    struct place **places; /* [size] as this process sees them */
    int64_t *skips;        /* [size] bytes before each rank's place */
    unsigned long long meetings;
    unsigned long long chunks; /* so far; its parity selects the buffers */
};

static int stage_alloc(struct kd_node_stage **out, int size)
{
    KD_TRY(KD_FAULT("comm.stage"));
    KD_TRY(kd_calloc(1, sizeof **out, out));
    (*out)->window = MPI_WIN_NULL;
    KD_TRY(kd_calloc(size, sizeof *(*out)->skips, &(*out)->skips));
    return kd_calloc(size, sizeof *(*out)->places, &(*out)->places);
}

/* MPI aligns a rank's part of the window to less than a cache line: each rank says how
 * far from its start its place begins.  Mappings are page-aligned in every process, so
 * the distance aligns it for all. */
static void find_places(struct kd_comm *comm, struct kd_node_stage *s, char *base)
{
    int64_t *skips = s->skips;

    skips[s->rank] = (int64_t)(-(uintptr_t)base % _Alignof(struct place));
    kd_comm_check(comm,
                  MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, skips, 1,
                                MPI_INT64_T, comm->world),
                  "MPI_Allgather");
    for (int r = 0; r < s->size; r++) {
        MPI_Aint bytes = 0;
        int unit = 0;
        char *start = NULL;

        kd_comm_check(comm, MPI_Win_shared_query(s->window, r, &bytes, &unit, &start),
                      "MPI_Win_shared_query");
        s->places[r] = (struct place *)(void *)(start + skips[r]);
    }
    atomic_init(&s->places[s->rank]->met, 0);
}

int kd_node_stage_new(struct kd_comm *comm, struct kd_node_stage **out)
{
    struct kd_node_stage *s = NULL;
    char *base = NULL;
    int rc = KD_OK;

    *out = NULL;
    KD_ALL_GO(comm, stage_alloc(&s, comm->size));
    s->rank = comm->rank;
    s->size = comm->size;
    kd_comm_enter(comm, "node_stage", 0);
    kd_comm_check(comm,
                  MPI_Win_allocate_shared(
                      (MPI_Aint)(sizeof(struct place) + _Alignof(struct place)), 1,
                      MPI_INFO_NULL, comm->world, &base, &s->window),
                  "MPI_Win_allocate_shared");
    find_places(comm, s, base);
    kd_comm_check(comm, MPI_Barrier(comm->world), "MPI_Barrier");
    kd_comm_leave(comm);
    *out = s;
    return KD_OK;
out:
    kd_node_stage_free(s);
    return rc;
}

void kd_node_stage_free(struct kd_node_stage *stage)
{
    if (!stage)
        return;
    if (stage->window != MPI_WIN_NULL)
        MPI_Win_free(&stage->window);
    free(stage->places);
    free(stage->skips);
    free(stage);
}

/* Wait until every rank has come to this meeting; what they wrote before is visible. */
static void meet(struct kd_node_stage *s)
{
    unsigned long long n = ++s->meetings;

    atomic_store_explicit(&s->places[s->rank]->met, n, memory_order_release);
    for (int r = 0; r < s->size; r++) {
        int spins = 0;

        while (atomic_load_explicit(&s->places[r]->met, memory_order_acquire) < n) {
            if (++spins > SPINS_BEFORE_YIELD)
                sched_yield();
        }
    }
}

/* out[n] = x + y, n a multiple of LANE; the fixed inner count vectorises. */
static void add_lanes(float *out, const float *x, const float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i += LANE) {
        for (int j = 0; j < LANE; j++)
            out[i + j] = x[i + j] + y[i + j];
    }
}

/* Columns of a chunk of N values that rank R adds: whole lanes, the last one padded. */
static void share_of(const struct kd_node_stage *s, int64_t n, int r, int64_t *first,
                     int64_t *count)
{
    int64_t lanes = (n + LANE - 1) / LANE;
    int64_t begin = lanes * r / s->size, end = lanes * (r + 1) / s->size;

    *first = begin * LANE;
    *count = (end - begin) * LANE;
}

/* Copy the sums of a chunk of N values back to X, those of KEEP. */
static void take_sums(const struct kd_node_stage *s, int set, float *x, int64_t n,
                      struct kd_part keep)
{
    int64_t keep_end = keep.first + keep.count, first, count;

    for (int r = 0; r < s->size; r++) {
        int64_t begin, end;

        share_of(s, n, r, &first, &count);
        begin = first > keep.first ? first : keep.first;
        end = first + count < n ? first + count : n;
        end = end < keep_end ? end : keep_end;
        if (end > begin)
            memcpy(x + begin, s->places[r]->sums[set] + begin,
                   (size_t)(end - begin) * sizeof *x);
    }
}

static void sum_chunk(struct kd_node_stage *s, float *x, int64_t n, struct kd_part keep)
{
    int set = (int)(s->chunks++ & 1);
    struct place *mine = s->places[s->rank];
    int64_t first, count;

    memcpy(mine->in[set], x, (size_t)n * sizeof *x);
    meet(s);
    share_of(s, n, s->rank, &first, &count);
    add_lanes(mine->sums[set] + first, s->places[0]->in[set] + first,
              s->places[1]->in[set] + first, count);
    for (int r = 2; r < s->size; r++)
        add_lanes(mine->sums[set] + first, mine->sums[set] + first,
                  s->places[r]->in[set] + first, count);
    meet(s);
    take_sums(s, set, x, n, keep);
}

void kd_node_stage_sum(struct kd_node_stage *stage, float *x, int64_t n,
                       struct kd_part keep)
{
    for (int64_t at = 0; at < n; at += CHUNK) {
        sum_chunk(stage, x + at, n - at < CHUNK ? n - at : CHUNK, keep);
        keep.first -= CHUNK;
    }
}

enum { CHUNK_BYTES = CHUNK * (int)sizeof(float) };

/* The bytes of X that rank OWNER's part has in the chunk that starts AT of every part.
 */
static char *piece_of_part(const struct kd_node_stage *s, char *x, int64_t n,
                           int64_t value_bytes, int owner, int64_t at, size_t *bytes)
{
    struct kd_part part = kd_comm_part(n, s->size, owner);
    int64_t left = part.count * value_bytes - at;

    *bytes = left <= 0 ? 0 : left < CHUNK_BYTES ? (size_t)left : (size_t)CHUNK_BYTES;
    return *bytes ? x + part.first * value_bytes + at : x;
}

void kd_node_stage_gather(struct kd_node_stage *stage, void *x, int64_t n,
                          int64_t value_bytes)
{
    struct kd_node_stage *s = stage;
    int64_t longest = kd_comm_part(n, s->size, s->size - 1).count * value_bytes;
    size_t bytes;

    for (int64_t at = 0; at < longest; at += CHUNK_BYTES) {
        int set = (int)(s->chunks++ & 1);
        char *here = piece_of_part(s, x, n, value_bytes, s->rank, at, &bytes);

        memcpy(s->places[s->rank]->in[set], here, bytes);
        meet(s);
        for (int r = 0; r < s->size; r++) {
            here = piece_of_part(s, x, n, value_bytes, r, at, &bytes);
            if (r != s->rank)
                memcpy(here, s->places[r]->in[set], bytes);
        }
    }
}
