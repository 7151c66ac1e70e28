/* SPDX-License-Identifier: Apache-2.0 */
/* What only generation asks for: changes to scores, drawing tokens, and the table of
 * the cache's slots.
 *
 * A draw finds the least key that its top-k and its top-p leave, digit by digit in
 * histograms of counts or weights, and then walks over the row once more.  Weights are
 * integers (tensor/sampling.h), so nothing depends on the order of sums. */
#include "cpu_impl.h"
#include "kdhpc/tensor/sampling.h"

#include <math.h>
#include <string.h>

struct edits {
    float *x;
    int64_t rows, cols;
    const struct kd_score_edits *e;
};

static void force_task(void *arg, int64_t task, int thread)
{
    const struct edits *j = arg;
    float *x = j->x + task * j->cols;

    (void)thread;
    for (int64_t c = 0; c < j->cols; c++)
        x[c] = -INFINITY;
    x[j->e->forced] = 0.0f;
}

static void edit(const struct edits *j, int64_t i)
{
    const struct kd_score_edit at = j->e->list[i];
    int64_t first = at.row < 0 ? 0 : at.row, end = at.row < 0 ? j->rows : at.row + 1;

    for (int64_t r = first; r < end; r++) {
        float *v = j->x + r * j->cols + at.token;

        if (i < j->e->n_bans)
            *v = -INFINITY;
        else if (j->e->kind == KD_EDIT_RAISE)
            *v = *v == -INFINITY ? *v : fmaf(fabsf(*v), j->e->penalty, *v);
        else
            *v = *v < 0.0f ? *v * j->e->penalty : *v / j->e->penalty;
    }
}

int cpu_edit_scores(struct kd_backend *be, float *x, int64_t rows, int64_t cols,
                    const struct kd_score_edits *e)
{
    struct edits j = {x, rows, cols, e};

    if (e->forced >= 0)
        cpu_for(be, rows, force_task, &j);
    for (int64_t i = 0; e->forced < 0 && i < e->n; i++)
        edit(&j, i);
    return KD_OK;
}

int cpu_advance_slots(struct kd_backend *be, const struct kd_slot_step *s)
{
    int64_t len = *s->step, n = s->n_rows;
    size_t bytes = (size_t)len * sizeof *s->slots;
    int32_t *now;

    KD_TRY(cpu_scratch(be, 0, (size_t)n * bytes));
    now = cpu_shared_scratch(be);
    for (int64_t r = 0; len > 0 && r < n; r++)
        memcpy(now + r * len, s->slots + s->parents[r] * s->ld, bytes);
    for (int64_t r = 0; r < n; r++) {
        if (len > 0)
            memcpy(s->slots + r * s->ld, now + r * len, bytes);
        s->slots[r * s->ld + len] = (int32_t)(len * s->stride + r);
    }
    return KD_OK;
}

struct drawing {
    struct kd_backend *be;
    const struct kd_sample *s;
    int bits;
};

/* One row on its way: weights and keys of its scores, the former in scratch. */
struct row {
    const float *x;
    int64_t cols;
    uint64_t *weights; /* NULL: every score counts as one */
    uint32_t least;    /* keys below it are out */
};

/* *KEY = the least key such that those up to it count for more than LIMIT, *BELOW =
 * what the smaller ones count for.  All together count for more. */
static void find_key(const struct row *row, uint64_t limit, uint32_t *key,
                     uint64_t *below)
{
    uint64_t found = 0, sum = 0; /* digits found so far; what is below them */

    for (int shift = 32 - KD_SAMPLE_DIGIT_BITS; shift >= 0;
         shift -= KD_SAMPLE_DIGIT_BITS) {
        uint64_t count[KD_SAMPLE_DIGITS] = {0}, d = 0;

        for (int64_t c = 0; c < row->cols; c++) {
            uint64_t k = kd_sample_key(row->x[c]);

            if (k >= row->least && k >> shift >> KD_SAMPLE_DIGIT_BITS == found)
                count[k >> shift & (KD_SAMPLE_DIGITS - 1)] +=
                    row->weights ? row->weights[c] : 1;
        }
        while (d < KD_SAMPLE_DIGITS - 1 && sum + count[d] <= limit)
            sum += count[d++];
        found = found << KD_SAMPLE_DIGIT_BITS | d;
    }
    *key = (uint32_t)found;
    *below = sum;
}

/* What is drawn from: keys above LEAST, and of those equal to it all but the first
 * SKIP; their weights add to TOTAL. */
struct kept {
    uint32_t least;
    uint64_t skip, total;
};

static int64_t walk(const struct row *row, const struct kept *kept, double u)
{
    uint64_t target = kd_sample_share(u, kept->total), sum = 0, skip = kept->skip;

    for (int64_t c = 0; c < row->cols; c++) {
        uint32_t k = kd_sample_key(row->x[c]);

        if (k < kept->least || (k == kept->least && skip > 0 && skip--))
            continue;
        sum += row->weights[c];
        if (sum > target)
            return c;
    }
    return 0;
}

static void limit_to_top_p(const struct drawing *j, const struct row *row, float top,
                           struct kept *kept)
{
    const struct kd_sample *s = j->s;
    uint64_t limit = kd_sample_share(1.0 - s->top_p, kept->total), below, weight;

    find_key(row, limit, &kept->least, &below);
    weight = kd_sample_weight(kd_sample_score(kept->least), top, (float)s->temperature,
                              j->bits);
    kept->skip = (limit - below) / weight;
    kept->total -= below + kept->skip * weight;
}

/* Take weights from what KEPT leaves out, so that weights say all. */
static void settle(struct row *row, struct kept *kept)
{
    uint64_t skip = kept->skip;

    for (int64_t c = 0; c < row->cols; c++) {
        uint32_t k = kd_sample_key(row->x[c]);

        if (k < kept->least || (k == kept->least && skip > 0 && skip--))
            row->weights[c] = 0;
    }
    kept->least = 1;
    kept->skip = 0;
}

static uint64_t surprise(const struct drawing *j, const struct row *row, float top)
{
    uint64_t sum = 0;

    for (int64_t c = 0; c < row->cols; c++)
        sum += kd_sample_surprise(row->weights[c], row->x[c], top,
                                  (float)j->s->temperature);
    return sum;
}

/* Leave the likeliest token, and those from the first on, in the order of scores, that
 * weighs LIMIT or more. */
static void cut(struct row *row, struct kept *kept, uint64_t limit)
{
    uint32_t least = UINT32_MAX, most = 0;

    for (int64_t c = 0; c < row->cols; c++) {
        uint32_t k = kd_sample_key(row->x[c]);

        if (row->weights[c] > 0 && k > most)
            most = k;
        if (row->weights[c] > 0 && row->weights[c] >= limit && k < least)
            least = k;
    }
    least = least < most ? least : most;
    kept->total = 0;
    for (int64_t c = 0; c < row->cols; c++) {
        if (kd_sample_key(row->x[c]) < least)
            row->weights[c] = 0;
        kept->total += row->weights[c];
    }
}

/* Leave those whose surprise is nearest the mean, up to a mass. */
static void limit_to_typical(const struct drawing *j, const struct row *row, float top,
                             struct kept *kept, float *distance)
{
    const float temperature = (float)j->s->temperature,
                mean = (float)((double)surprise(j, row, top) / (double)kept->total);
    struct row by_distance = {distance, row->cols, row->weights, 1};
    uint64_t limit = kd_sample_at_least(j->s->typical_p, kept->total) - 1, below;
    uint32_t last;

    for (int64_t c = 0; c < row->cols; c++)
        distance[c] = kd_sample_distance(row->x[c], top, temperature, mean);
    find_key(&by_distance, limit, &last, &below);
    kept->total = 0;
    for (int64_t c = 0; c < row->cols; c++) {
        if (kd_sample_key(distance[c]) > last)
            row->weights[c] = 0;
        kept->total += row->weights[c];
    }
}

/* What comes after top-p; DISTANCE is room for a row. */
static void limit_further(const struct drawing *j, struct row *row, float top,
                          struct kept *kept, float *distance)
{
    const struct kd_sample *s = j->s;

    settle(row, kept);
    if (s->min_p > 0.0)
        cut(row, kept, kd_sample_at_least(s->min_p, (uint64_t)1 << j->bits));
    if (kd_sample_typical(s->typical_p))
        limit_to_typical(j, row, top, kept, distance);
    if (s->epsilon > 0.0)
        cut(row, kept, kd_sample_at_least(s->epsilon, kept->total));
    if (s->eta > 0.0)
        cut(row, kept,
            kd_sample_at_least(
                kd_sample_eta(s->eta, kept->total, surprise(j, row, top), j->bits),
                kept->total));
}

static void draw_task(void *arg, int64_t task, int thread)
{
    const struct drawing *j = arg;
    const struct kd_sample *s = j->s;
    const float temperature = (float)s->temperature;
    struct row row = {s->x + task / s->per_row * s->cols, s->cols, NULL, 1};
    uint64_t *weights = cpu_thread_scratch(j->be, thread), below;
    struct kept kept = {.least = 1};
    uint32_t most = 0;
    int64_t n = 0, c;
    float top;

    for (int64_t i = 0; i < row.cols; i++) {
        uint32_t k = kd_sample_key(row.x[i]);

        most = k > most ? k : most;
        n += k > 0;
    }
    s->tokens[task] = 0;
    s->log_probs[task] = -INFINITY;
    if (n == 0)
        return;
    top = kd_sample_score(most);
    if (s->top_k > 0 && s->top_k < n)
        find_key(&row, (uint64_t)(n - s->top_k), &kept.least, &below);
    row.least = kept.least;
    for (int64_t i = 0; i < row.cols; i++) {
        weights[i] = kd_sample_key(row.x[i]) < row.least
                         ? 0
                         : kd_sample_weight(row.x[i], top, temperature, j->bits);
        kept.total += weights[i];
    }
    row.weights = weights;
    if (s->top_p < 1.0)
        limit_to_top_p(j, &row, top, &kept);
    if (s->min_p > 0.0 || kd_sample_typical(s->typical_p) || s->epsilon > 0.0 ||
        s->eta > 0.0)
        limit_further(j, &row, top, &kept, (void *)(weights + row.cols));
    c = walk(&row, &kept, s->u[task]);
    s->tokens[task] = (int32_t)c;
    s->log_probs[task] =
        kd_sample_log_prob(row.x[c], top, temperature, j->bits, kept.total);
}

int cpu_sample(struct kd_backend *be, const struct kd_sample *s)
{
    struct drawing j = {be, s, kd_sample_bits(s->cols)};

    if (s->n == 0)
        return KD_OK;
    KD_TRY(cpu_scratch(be, (size_t)s->cols * (sizeof(uint64_t) + sizeof(float)), 0));
    cpu_for(be, s->n, draw_task, &j);
    return KD_OK;
}
