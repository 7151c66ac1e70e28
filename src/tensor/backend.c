/* SPDX-License-Identifier: Apache-2.0 */
/* The names of a backend's slots, in the order of the struct, and the way out of a
 * backend.
 *
 * The static assertion ties the table to the struct: whoever adds a slot adds its name
 * here, and the tests then ask every backend for it. */
#include "kdhpc/tensor/backend.h"

/* The struct is `name` and then functions only. */
const char *const kd_backend_slots[] = {
    "destroy",
    "alloc",
    "free",
    "upload",
    "download",
    "copy",
    "zero",
    "sync",
    "stream",
    "mem_info",
    "graph_begin",
    "graph_end",
    "graph_drop",
    "gemm",
    "col_sum",
    "attention",
    "attention_back",
    "attention_cached",
    "advance_slots",
    "add",
    "axpy",
    "scale",
    "act",
    "act_back",
    "glu",
    "glu_back",
    "dropout",
    "cast",
    "norm",
    "norm_back",
    "gather_rows",
    "scatter_add_rows",
    "log_softmax",
    "log_sum",
    "topk",
    "edit_scores",
    "sample",
    "vocab_loss",
    "mse_rows",
    "adamw",
    "adafactor",
    "sum_sq",
};

const int kd_backend_n_slots = sizeof kd_backend_slots / sizeof *kd_backend_slots;

_Static_assert(sizeof(struct kd_backend_ops) ==
                   sizeof(const char *) + sizeof kd_backend_slots /
                                              sizeof *kd_backend_slots *
                                              sizeof(void (*)(void)),
               "every slot of struct kd_backend_ops has its name in kd_backend_slots");

void kd_backend_free(struct kd_backend *be)
{
    if (be)
        be->ops->destroy(be);
}
