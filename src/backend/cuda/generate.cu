// SPDX-License-Identifier: Apache-2.0
/* What only generation asks for: changes to scores, drawing tokens, and the table of
 * the cache's slots.
 *
 * A block draws one token.  The least key that top-k and top-p leave is found digit by
 * digit in histograms of counts or weights; then every warp adds up its part of the
 * row, and the one into whose part the draw falls looks for the token there.  Weights
 * are integers (tensor/sampling.h), so sums by atomics, in any order, are exact, and
 * the token is that of the CPU.
 *
 * Bounds: edit_scores touches the entries named (a forced token: 4 rows cols bytes);
 * sample reads 4 cols bytes per draw from memory, and up to ten times from the cache;
 * advance_slots moves 16 bytes per row and time. */
#include "launch.h"

extern "C" {
#include "kdhpc/tensor/sampling.h"
}

namespace
{

enum {
    EDIT_THREADS = 128,
    FORCE_THREADS = 256,
    DRAW_THREADS = 512,
    SLOT_THREADS = 256
};

typedef unsigned long long weight_t;

struct edit_args {
    float *x;
    const struct kd_score_edit *list;
    int64_t rows, cols, n_bans, n;
    float penalty;
    enum kd_edit_kind kind;
};

__device__ __forceinline__ float edited(const edit_args &a, int64_t i, float v)
{
    if (i < a.n_bans)
        return -INFINITY;
    if (a.kind == KD_EDIT_RAISE)
        return v == -INFINITY ? v : fmaf(fabsf(v), a.penalty, v);
    return v < 0.0f ? v * a.penalty : v / a.penalty;
}

__global__ void __launch_bounds__(EDIT_THREADS) edit_kernel(const edit_args a)
{
    const int64_t i = (int64_t)blockIdx.x * EDIT_THREADS + threadIdx.x;

    if (i >= a.n)
        return;
    const struct kd_score_edit e = a.list[i];
    const int64_t first = e.row < 0 ? 0 : e.row, end = e.row < 0 ? a.rows : e.row + 1;

    for (int64_t r = first; r < end; r++) {
        float *v = a.x + r * a.cols + e.token;

        *v = edited(a, i, *v);
    }
}

__global__ void __launch_bounds__(FORCE_THREADS)
    force_kernel(float *x, int64_t n, int cols, int forced)
{
    const int64_t i = (int64_t)blockIdx.x * FORCE_THREADS + threadIdx.x;

    if (i < n)
        x[i] = i % cols == forced ? 0.0f : -INFINITY;
}

struct slot_args {
    int32_t *slots, *now; /* now [n_rows, max_len]: the rows of this step */
    const int32_t *parents, *step;
    int64_t ld, n, max_len, stride; /* n: rows times max_len */
};

__global__ void __launch_bounds__(SLOT_THREADS) slots_kernel(const slot_args a)
{
    const int64_t i = (int64_t)blockIdx.x * SLOT_THREADS + threadIdx.x,
                  r = i / a.max_len, t = i % a.max_len;
    const int step = *a.step;

    if (i < a.n && t <= step)
        a.now[i] = t < step ? a.slots[a.parents[r] * a.ld + t]
                            : (int32_t)(step * a.stride + r);
}

__global__ void __launch_bounds__(SLOT_THREADS) slots_back_kernel(const slot_args a)
{
    const int64_t i = (int64_t)blockIdx.x * SLOT_THREADS + threadIdx.x,
                  r = i / a.max_len, t = i % a.max_len;

    if (i < a.n && t <= *a.step)
        a.slots[r * a.ld + t] = a.now[i];
}

struct draw_args {
    const float *x;
    const double *u;
    int per_row, cols, bits;
    int64_t top_k;
    float temperature;
    double top_p, min_p, typical_p, epsilon, eta;
    double *log_probs;
    int32_t *tokens;
};

/* What the threads of a draw share. */
struct draw_state {
    weight_t digits[KD_SAMPLE_DIGITS];
    weight_t part[DRAW_THREADS / WARP]; /* weights of a warp's columns: larger keys */
    weight_t ties[DRAW_THREADS / WARP]; /* and number of those that are the least */
    unsigned most, n;                   /* largest key, keys that can be drawn */
    unsigned first;                     /* of a cut: complement of its key */
    weight_t surprise;
    float mean, width; /* of surprises, and how far those drawn are from it */
    unsigned least;    /* key that is left */
    weight_t below, skip, total, target;
    int warp, token;
};

/* What find_key orders, and what it adds up. */
enum key_kind { SCORES_COUNTED, SCORES_WEIGHED, DISTANCES_WEIGHED };

struct draw {
    const draw_args &a;
    const float *x; /* the row */
    draw_state &s;
    float top;

    __device__ __forceinline__ weight_t weight(float v) const
    {
        if (s.width < INFINITY &&
            kd_sample_distance(v, top, a.temperature, s.mean) > s.width)
            return 0;
        return kd_sample_weight(v, top, a.temperature, a.bits);
    }
    __device__ __forceinline__ unsigned distance_key(float v, unsigned least) const
    {
        return kd_sample_key(v) < least
                   ? 0
                   : kd_sample_key(kd_sample_distance(v, top, a.temperature, s.mean));
    }
    __device__ __forceinline__ void survey();
    template <key_kind KIND>
    __device__ __forceinline__ void find_key(unsigned least, weight_t limit);
    __device__ __forceinline__ void sum_weights();
    __device__ __forceinline__ void limit_to_top_p();
    __device__ __forceinline__ void sum_surprise();
    __device__ __forceinline__ void limit_to_typical();
    __device__ __forceinline__ void cut(weight_t limit);
    __device__ __forceinline__ void limit_further();
    __device__ __forceinline__ void walk(double u);
    __device__ __forceinline__ void walk_warp(int warp, weight_t sum, weight_t skip);
};

/* The largest key, and how many keys can be drawn. */
__device__ __forceinline__ void draw::survey()
{
    unsigned most = 0, n = 0;

    if (threadIdx.x == 0) {
        s.most = s.n = 0;
        s.least = 1;
        s.total = s.skip = 0;
        s.token = 0;
        s.width = INFINITY;
    }
    __syncthreads();
    for (int c = (int)threadIdx.x; c < a.cols; c += DRAW_THREADS) {
        const unsigned k = kd_sample_key(x[c]);

        most = k > most ? k : most;
        n += k > 0;
    }
    (void)atomicMax(&s.most, most);
    (void)atomicAdd(&s.n, n);
    __syncthreads();
    top = kd_sample_score(s.most);
}

/* s.least = the smallest key such that those up to it count for more than LIMIT,
 * s.below = what the smaller ones count for, among scores with keys from LEAST on; of
 * distances, less the first s.skip whose score has that key. */
template <key_kind KIND>
__device__ __forceinline__ void draw::find_key(unsigned least, weight_t limit)
{
    weight_t found = 0, sum = 0; /* of the first thread: digits so far, what is below */

    __syncthreads(); /* all have their LEAST, which may come from s */
    for (int shift = 32 - KD_SAMPLE_DIGIT_BITS; shift >= 0;
         shift -= KD_SAMPLE_DIGIT_BITS) {
        if (threadIdx.x < KD_SAMPLE_DIGITS)
            s.digits[threadIdx.x] = 0;
        if (threadIdx.x == 0)
            s.least = (unsigned)found;
        __syncthreads();
        for (int c = (int)threadIdx.x; c < a.cols; c += DRAW_THREADS) {
            const unsigned k = KIND == DISTANCES_WEIGHED ? distance_key(x[c], least)
                                                         : kd_sample_key(x[c]);

            if (k >= (KIND == DISTANCES_WEIGHED ? 1 : least) &&
                (weight_t)k >> shift >> KD_SAMPLE_DIGIT_BITS == s.least)
                (void)atomicAdd(&s.digits[k >> shift & (KD_SAMPLE_DIGITS - 1)],
                                KIND == SCORES_COUNTED ? 1 : weight(x[c]));
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            int d = 0;

            if (KIND == DISTANCES_WEIGHED && s.skip > 0) {
                const float v = kd_sample_score(least);
                const unsigned k = distance_key(v, least);

                if ((weight_t)k >> shift >> KD_SAMPLE_DIGIT_BITS == s.least)
                    s.digits[k >> shift & (KD_SAMPLE_DIGITS - 1)] -= s.skip * weight(v);
            }
            while (d < KD_SAMPLE_DIGITS - 1 && sum + s.digits[d] <= limit)
                sum += s.digits[d++];
            found = found << KD_SAMPLE_DIGIT_BITS | (weight_t)d;
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        s.least = (unsigned)found;
        s.below = sum;
    }
    __syncthreads();
}

/* s.total = all weights from s.least on, less those skipped. */
__device__ __forceinline__ void draw::sum_weights()
{
    weight_t sum = 0;

    __syncthreads();
    if (threadIdx.x == 0)
        s.total = s.skip > 0 ? 0 - s.skip * weight(kd_sample_score(s.least)) : 0;
    __syncthreads();
    for (int c = (int)threadIdx.x; c < a.cols; c += DRAW_THREADS)
        sum += kd_sample_key(x[c]) >= s.least ? weight(x[c]) : 0;
    (void)atomicAdd(&s.total, sum);
    __syncthreads();
}

__device__ __forceinline__ void draw::limit_to_top_p()
{
    const weight_t limit = kd_sample_share(1.0 - a.top_p, s.total);

    find_key<SCORES_WEIGHED>(s.least, limit);
    if (threadIdx.x == 0) {
        const weight_t w = weight(kd_sample_score(s.least));

        s.skip = (limit - s.below) / w;
        s.total -= s.below + s.skip * w;
    }
    __syncthreads();
}

/* s.surprise = the sum over what is left. */
__device__ __forceinline__ void draw::sum_surprise()
{
    weight_t sum = 0;

    __syncthreads();
    if (threadIdx.x == 0) {
        const float v = kd_sample_score(s.least);

        s.surprise = s.skip > 0 ? 0 - s.skip * kd_sample_surprise(weight(v), v, top,
                                                                  a.temperature)
                                : 0;
    }
    __syncthreads();
    for (int c = (int)threadIdx.x; c < a.cols; c += DRAW_THREADS)
        if (kd_sample_key(x[c]) >= s.least)
            sum += kd_sample_surprise(weight(x[c]), x[c], top, a.temperature);
    (void)atomicAdd(&s.surprise, sum);
    __syncthreads();
}

/* Leave those whose surprise is nearest the mean, up to a mass. */
__device__ __forceinline__ void draw::limit_to_typical()
{
    const unsigned least = s.least;

    sum_surprise();
    if (threadIdx.x == 0)
        s.mean = (float)((double)s.surprise / (double)s.total);
    __syncthreads();
    find_key<DISTANCES_WEIGHED>(least, kd_sample_at_least(a.typical_p, s.total) - 1);
    if (threadIdx.x == 0) {
        s.width = kd_sample_score(s.least);
        s.least = least;
    }
    sum_weights();
}

/* Leave the likeliest token, and those from the first on, in the order of scores, that
 * weighs LIMIT or more. */
__device__ __forceinline__ void draw::cut(weight_t limit)
{
    const unsigned least = s.least;
    unsigned first = UINT32_MAX, most = 0;

    __syncthreads();
    if (threadIdx.x == 0) {
        s.first = s.most = 0;
    }
    __syncthreads();
    for (int c = (int)threadIdx.x; c < a.cols; c += DRAW_THREADS) {
        const unsigned k = kd_sample_key(x[c]);
        const weight_t w = k >= least ? weight(x[c]) : 0;

        most = w > 0 && k > most ? k : most;
        first = w > 0 && w >= limit && k < first ? k : first;
    }
    (void)atomicMax(&s.first, ~first);
    (void)atomicMax(&s.most, most);
    __syncthreads();
    if (threadIdx.x == 0) {
        first = ~s.first < s.most ? ~s.first : s.most;
        s.skip = first == least ? s.skip : 0;
        s.least = first;
    }
    sum_weights();
}

/* What comes after top-p. */
__device__ __forceinline__ void draw::limit_further()
{
    if (a.min_p > 0.0)
        cut(kd_sample_at_least(a.min_p, (weight_t)1 << a.bits));
    if (kd_sample_typical(a.typical_p))
        limit_to_typical();
    if (a.epsilon > 0.0)
        cut(kd_sample_at_least(a.epsilon, s.total));
    if (a.eta > 0.0) {
        sum_surprise();
        cut(kd_sample_at_least(kd_sample_eta(a.eta, s.total, s.surprise, a.bits),
                               s.total));
    }
}

/* The token at U: a warp has the columns from its number times a part on. */
__device__ __forceinline__ void draw::walk(double u)
{
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP,
              part = (int)ceil_div(a.cols, DRAW_THREADS) * WARP,
              end = min(a.cols, (warp + 1) * part);
    weight_t sum = 0, ties = 0;

    if (lane == 0)
        s.part[warp] = s.ties[warp] = 0;
    __syncthreads();
    for (int c = warp * part + lane; c < end; c += WARP) {
        const unsigned k = kd_sample_key(x[c]);

        sum += k > s.least ? weight(x[c]) : 0;
        ties += k == s.least;
    }
    (void)atomicAdd(&s.part[warp], sum);
    (void)atomicAdd(&s.ties[warp], ties);
    __syncthreads();

    const weight_t target = kd_sample_share(u, s.total),
                   w = weight(kd_sample_score(s.least));
    weight_t before = 0, skip = s.skip;

    for (int i = 0; i < DRAW_THREADS / WARP; i++) {
        const weight_t skipped = skip < s.ties[i] ? skip : s.ties[i],
                       here = s.part[i] + (s.ties[i] - skipped) * w;

        if (before + here > target) {
            if (threadIdx.x == 0)
                s.target = target;
            __syncthreads();
            if (warp == i)
                walk_warp(i * part, before, skip);
            __syncthreads();
            return;
        }
        before += here;
        skip -= skipped;
    }
}

/* The same within the columns from C on of one warp; SUM is the weight before them, and
 * the first SKIP ties are left out. */
__device__ __forceinline__ void draw::walk_warp(int c, weight_t sum, weight_t skip)
{
    const int lane = (int)threadIdx.x % WARP;

    for (;; c += WARP) {
        const unsigned k = c + lane < a.cols ? kd_sample_key(x[c + lane]) : 0,
                       ties = __ballot_sync(0xffffffffu, k == s.least);
        const weight_t rank = (weight_t)__popc(ties & ((1u << lane) - 1));
        const bool in = k > s.least || (k == s.least && rank >= skip);
        weight_t upto = in ? weight(x[c + lane]) : 0;
        unsigned past;

        for (int step = 1; step < WARP; step *= 2) {
            const weight_t other = __shfl_up_sync(0xffffffffu, upto, (unsigned)step);

            upto += lane >= step ? other : 0;
        }
        past = __ballot_sync(0xffffffffu, sum + upto > s.target);
        if (past) {
            if (lane == 0)
                s.token = c + __ffs((int)past) - 1;
            return;
        }
        sum += __shfl_sync(0xffffffffu, upto, WARP - 1);
        skip -= skip < (weight_t)__popc(ties) ? skip : (weight_t)__popc(ties);
    }
}

__global__ void __launch_bounds__(DRAW_THREADS) draw_kernel(const draw_args a)
{
    __shared__ draw_state state;
    const int i = (int)blockIdx.x;
    draw d = {a, a.x + (int64_t)(i / a.per_row) * a.cols, state, 0.0f};

    d.survey();
    if (state.n > 0) {
        if (a.top_k > 0 && a.top_k < state.n)
            d.find_key<SCORES_COUNTED>(1, state.n - (weight_t)a.top_k);
        d.sum_weights();
        if (a.top_p < 1.0)
            d.limit_to_top_p();
        d.limit_further();
        d.walk(a.u[i]);
    }
    if (threadIdx.x > 0)
        return;
    a.tokens[i] = state.token;
    a.log_probs[i] = state.n > 0
                         ? kd_sample_log_prob(d.x[state.token], d.top, a.temperature,
                                              a.bits, state.total)
                         : -INFINITY;
}

} // namespace

extern "C" int cuda_edit_scores(struct kd_backend *be, float *x, int64_t rows,
                                int64_t cols, const struct kd_score_edits *e)
{
    const edit_args a = {x, e->list, rows, cols, e->n_bans, e->n, e->penalty, e->kind};

    if (rows == 0 || (e->forced < 0 && e->n == 0))
        return KD_OK;
    if (e->forced >= 0)
        KD_LAUNCH(force_kernel, (unsigned)ceil_div(rows * cols, FORCE_THREADS),
                  FORCE_THREADS, 0, cuda_stream(be), x, rows * cols, (int)cols,
                  (int)e->forced);
    else
        KD_LAUNCH(edit_kernel, (unsigned)ceil_div(e->n, EDIT_THREADS), EDIT_THREADS, 0,
                  cuda_stream(be), a);
    return cuda_check_launch("edit_scores");
}

extern "C" int cuda_advance_slots(struct kd_backend *be, const struct kd_slot_step *s)
{
    const int64_t n = s->n_rows * s->max_len;
    const unsigned blocks = (unsigned)ceil_div(n, SLOT_THREADS);
    void *now;

    if (n == 0)
        return KD_OK;
    KD_TRY(cuda_scratch(be, (size_t)n * sizeof(int32_t), &now));

    const slot_args a = {s->slots, (int32_t *)now, s->parents, s->step, s->ld,
                         n,        s->max_len,     s->stride};

    KD_LAUNCH(slots_kernel, blocks, SLOT_THREADS, 0, cuda_stream(be), a);
    KD_LAUNCH(slots_back_kernel, blocks, SLOT_THREADS, 0, cuda_stream(be), a);
    return cuda_check_launch("advance_slots");
}

extern "C" int cuda_sample(struct kd_backend *be, const struct kd_sample *s)
{
    const draw_args a = {s->x,
                         s->u,
                         (int)s->per_row,
                         (int)s->cols,
                         kd_sample_bits(s->cols),
                         s->top_k,
                         (float)s->temperature,
                         s->top_p,
                         s->min_p,
                         s->typical_p,
                         s->epsilon,
                         s->eta,
                         s->log_probs,
                         s->tokens};

    if (s->n == 0)
        return KD_OK;
    KD_LAUNCH(draw_kernel, (unsigned)s->n, DRAW_THREADS, 0, cuda_stream(be), a);
    return cuda_check_launch("sample");
}
