/* SPDX-License-Identifier: Apache-2.0 */
/* Sums between the ranks of one node; see node_stage.c. */
#ifndef KDHPC_SRC_COMM_NODE_STAGE_H
#define KDHPC_SRC_COMM_NODE_STAGE_H

#include "kdhpc/comm/comm.h"

struct kd_node_stage;

/** Make / free the shared staging memory of ranks that are all on one node, two or
 * more.  Collective. */
int kd_node_stage_new(struct kd_comm *comm, struct kd_node_stage **out) KD_MUST_CHECK;
void kd_node_stage_free(struct kd_node_stage *stage);

/** Sum X[n] over the ranks, in rank order, and put the values of KEEP in place.
 * Collective; cannot fail. */
void kd_node_stage_sum(struct kd_node_stage *stage, float *x, int64_t n,
                       struct kd_part keep);

/** Copy each rank's part of X (N values of VALUE_BYTES) to all.  Collective; cannot
 * fail. */
void kd_node_stage_gather(struct kd_node_stage *stage, void *x, int64_t n,
                          int64_t value_bytes);

#endif
