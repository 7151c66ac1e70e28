/* SPDX-License-Identifier: Apache-2.0 */
/* Threads from the launcher's binding.
 *
 * A launcher may bind each rank to cores of its own, to a socket that several ranks
 * share, or not at all.  All cases follow from one exchange: every rank tells its host
 * and its CPU mask, and a rank divides the cores it may use by the ranks of its host
 * whose masks meet its own. */
#include "threads.h"

#include "kdhpc/base/log.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct place {
    char host[64];
    cpu_set_t cores;
};

static void own_place(struct place *p)
{
    memset(p, 0, sizeof *p);
    if (gethostname(p->host, sizeof p->host - 1))
        p->host[0] = '\0';
    if (sched_getaffinity(0, sizeof p->cores, &p->cores)) {
        /* a mask larger than cpu_set_t: take the number of cores as unbound */
        for (int i = 0; i < CPU_SETSIZE && i < sysconf(_SC_NPROCESSORS_ONLN); i++)
            CPU_SET(i, &p->cores);
    }
}

/* Ranks (this one too) on the host of ME that may run on one of its cores. */
static int ranks_sharing(const struct place *me, const struct place *all, int n)
{
    int sharing = 0;

    for (int r = 0; r < n; r++) {
        cpu_set_t both;

        CPU_AND(&both, &me->cores, &all[r].cores);
        sharing += !strcmp(me->host, all[r].host) && CPU_COUNT(&both) > 0;
    }
    return sharing > 0 ? sharing : 1;
}

static void warn_of_binding(int threads, int cores, int sharing, int node_size)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);

    if (threads > cores)
        kd_warn("rank %d is bound to %d core%s but has %d threads; try mpirun "
                "--bind-to none, or --threads %d",
                kd_log_rank(), cores, cores == 1 ? "" : "s", threads, cores);
    else if (sharing == 1 && 2L * cores * node_size <= online)
        kd_warn("each rank is bound to %d of the %ld cores of this machine; mpirun "
                "--bind-to none lets %d rank%s use all",
                cores, online, node_size, node_size == 1 ? "" : "s");
}

int kd_threads_choose(struct kd_comm *comm, int64_t asked, int *out)
{
    struct place me;
    void *all = NULL;
    int cores, sharing;

    own_place(&me);
    KD_TRY(kd_allgather_bytes(comm, &me, (int64_t)sizeof me, &all, NULL));
    cores = CPU_COUNT(&me.cores);
    sharing = ranks_sharing(&me, all, kd_comm_size(comm));
    free(all);
    *out = asked > 0 ? (int)asked : cores / sharing;
    if (*out < 1)
        *out = 1;
    warn_of_binding(*out, cores, sharing, kd_comm_node_size(comm));
    return KD_OK;
}
