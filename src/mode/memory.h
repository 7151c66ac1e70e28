/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that a run needs, told or refused before it starts. */
#ifndef KDHPC_SRC_MODE_MEMORY_H
#define KDHPC_SRC_MODE_MEMORY_H

#include "kdhpc/mode/mode.h"

enum { KD_ADVICE_MAX = 256 };

/** What a run was estimated to need, for this rank.  Zero-initialise: nothing yet. */
struct kd_memory {
    size_t need, have;           /* bytes of the memory that it computes in */
    char options[KD_ADVICE_MAX]; /* "lower --x or set --y" */
    char advice[KD_ADVICE_MAX];  /* the same with numbers, where need is too much */
    size_t most;                 /* need of the rank that needs most */
    bool agreed;                 /* it fits on all ranks */
};

/** *OUT = bytes that this rank may use of the memory it computes in, OURS of which it
 * uses already: its share of what is free on its GPU, or of its node.  Local. */
int kd_memory_have(const struct kd_run *run, size_t ours, size_t *out) KD_MUST_CHECK;

/** What a run on RUN's backend needs, from the PLANNED bytes: and what the slots of a
 * device keep for themselves.  Local. */
size_t kd_memory_need(const struct kd_run *run, size_t planned);

/** Whether M fits.  Local. */
static inline bool kd_memory_fits(const struct kd_memory *m)
{
    return m->need <= m->have;
}

/** KD_ENOMEM with M's advice if it does not fit on some rank.  Collective. */
int kd_memory_agree(struct kd_run *run, struct kd_memory *m) KD_MUST_CHECK;

/** Say in one line what was agreed.  Local. */
void kd_memory_tell(const struct kd_memory *m);

/** RC; where memory ran out although M was agreed, the text says so.  Local. */
int kd_memory_explain(int rc, const struct kd_memory *m) KD_MUST_CHECK;

/** *FITS: whether a run with VALUE for an option would.  Local. */
typedef int (*kd_memory_try_fn)(void *arg, int64_t value, bool *fits);

/** *OUT = a readable number in [LOW, HIGH) with which TRY says that it fits, near the
 * largest one; -1 if LOW does not fit.  HIGH is known not to.  Local. */
int kd_memory_largest(kd_memory_try_fn try, void *arg, int64_t low, int64_t high,
                      int64_t *out) KD_MUST_CHECK;

/** N with a comma between thousands, into OUT.  Local. */
enum { KD_COUNT_MAX = 32 };
void kd_memory_count(int64_t n, char out[KD_COUNT_MAX]);

#endif
