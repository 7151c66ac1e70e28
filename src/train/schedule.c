/* SPDX-License-Identifier: Apache-2.0 */
/* Learning-rate schedules of transformers.optimization, as multipliers of the peak
 * rate. Update s counts from 0, so with a warm-up the first update has rate 0, as
 * there. */
#include "kdhpc/train/optim.h"

#include <math.h>

static const double pi = 3.14159265358979323846;
static const double polynomial_end = 1e-7; /* final rate, absolute */

double kd_schedule_at(enum kd_schedule kind, int64_t s, double warmup, double total,
                      double lr)
{
    double step = (double)s, span = fmax(1.0, total - warmup);
    double progress =
        (step - warmup) / span; /* 0 at the end of the warm-up, 1 at the end */

    if (step < warmup)
        return step / fmax(1.0, warmup);
    switch (kind) {
    case KD_LR_LINEAR:
        return fmax(0.0, (total - step) / span);
    case KD_LR_COSINE:
        return fmax(0.0, 0.5 * (1.0 + cos(pi * progress)));
    case KD_LR_COSINE_RESTARTS: /* one cycle */
        return progress >= 1.0 ? 0.0
                               : fmax(0.0, 0.5 * (1.0 + cos(pi * fmod(progress, 1.0))));
    case KD_LR_POLYNOMIAL: /* power 1 */
        if (step > total)
            return polynomial_end / lr;
        return ((lr - polynomial_end) * (1.0 - progress) + polynomial_end) / lr;
    case KD_LR_CONSTANT:
        return 1.0;
    }
    return 1.0;
}
