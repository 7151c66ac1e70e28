/* SPDX-License-Identifier: Apache-2.0 */
/* Work that is the same call for call under a key, recorded the second time and then
 * repeated by one launch (CUDA graphs): a step of decoding is some two hundred
 * launches, which take the host longer than the device.
 *
 * The first time the calls run as they are, so that scratch memory, the choices of
 * algorithms and the kernels themselves are there when they are recorded.  A graph
 * names memory by address: whoever gives memory back that graphs may name drops them
 * first, as cuda_scratch does when it grows.
 *
 * KD_GRAPHS=0 in the environment makes every call as it comes. */
#include "cuda_impl.h"

#include "kdhpc/base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { GRAPHS = 128 }; /* places; a later key takes the oldest one's */

struct graph {
    struct kd_graph_key key;
    cudaGraphExec_t exec; /* NULL: seen once */
};

struct cuda_graphs {
    bool off;
    struct graph *recording; /* or NULL */
    int n, next;             /* keys; the place for a new one */
    struct graph graphs[GRAPHS];
};

int cuda_graphs_open(struct cuda *cuda)
{
    const char *want = getenv("KD_GRAPHS");

    KD_TRY(kd_calloc(1, sizeof *cuda->graphs, &cuda->graphs));
    cuda->graphs->off = want && strcmp(want, "0") == 0;
    return KD_OK;
}

void cuda_graphs_forget(struct cuda *cuda)
{
    struct cuda_graphs *g = cuda->graphs;

    for (int i = 0; g && i < g->n; i++) {
        if (g->graphs[i].exec)
            (void)cudaGraphExecDestroy(g->graphs[i].exec);
        g->graphs[i].exec = NULL;
    }
}

void cuda_graphs_close(struct cuda *cuda)
{
    cuda_graphs_forget(cuda);
    free(cuda->graphs);
}

static struct graph *find(struct cuda_graphs *g, const struct kd_graph_key *key)
{
    for (int i = 0; i < g->n; i++)
        if (memcmp(&g->graphs[i].key, key, sizeof *key) == 0)
            return &g->graphs[i];
    return NULL;
}

/* A place for KEY; whoever had it before has no work under way. */
static int add(struct kd_backend *be, const struct kd_graph_key *key)
{
    struct cuda_graphs *g = cuda_of(be)->graphs;
    struct graph *to = &g->graphs[g->next];

    if (to->exec) {
        KD_TRY(be->ops->sync(be));
        KD_TRY(cuda_check(cudaGraphExecDestroy(to->exec), "dropping a graph"));
    }
    *to = (struct graph){.key = *key};
    g->next = (g->next + 1) % GRAPHS;
    g->n += g->n < GRAPHS;
    return KD_OK;
}

int cuda_graph_begin(struct kd_backend *be, const struct kd_graph_key *key, bool *done)
{
    struct cuda_graphs *g = cuda_of(be)->graphs;
    struct graph *known = find(g, key);

    *done = false;
    if (g->off)
        return KD_OK;
    if (!known)
        return add(be, key);
    if (known->exec) {
        *done = true;
        return cuda_check(cudaGraphLaunch(known->exec, cuda_stream(be)),
                          "repeating recorded work");
    }
    KD_TRY(cuda_check(
        cudaStreamBeginCapture(cuda_stream(be), cudaStreamCaptureModeThreadLocal),
        "recording"));
    g->recording = known;
    return KD_OK;
}

int cuda_graph_end(struct kd_backend *be, bool ok)
{
    struct cuda_graphs *g = cuda_of(be)->graphs;
    struct graph *to = g->recording;
    cudaGraph_t graph = NULL;
    cudaError_t error;

    if (!to)
        return KD_OK;
    g->recording = NULL;
    error = cudaStreamEndCapture(cuda_stream(be), &graph);
    if (ok && error == cudaSuccess)
        error = cudaGraphInstantiate(&to->exec, graph, 0);
    if (graph)
        (void)cudaGraphDestroy(graph);
    if (!ok) { /* the caller has the failure */
        (void)cudaGetLastError();
        return KD_OK;
    }
    KD_TRY(cuda_check(error, "recording a step (KD_GRAPHS=0 runs without)"));
    return cuda_check(cudaGraphLaunch(to->exec, cuda_stream(be)), "running a graph");
}

void cuda_graph_drop(struct kd_backend *be)
{
    struct cuda_graphs *g = cuda_of(be)->graphs;

    if (g->n == 0)
        return;
    (void)cudaStreamSynchronize(cuda_stream(be)); /* errors come up in what is next */
    cuda_graphs_forget(cuda_of(be));
    g->n = g->next = 0;
}
