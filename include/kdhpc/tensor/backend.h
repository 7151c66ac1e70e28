/* SPDX-License-Identifier: Apache-2.0 */
/* The operations a device must offer: one const struct of typed functions per device.
 *
 * Callers are the autograd ops, the optimiser, the decoder and comm.  They pass valid
 * shapes; a backend checks nothing but its own resources and never sees tape, comm or
 * store.  All calls are asynchronous on the backend's one compute stream; only
 * `download` and `sync` wait.  Every slot is required; the name table kd_backend_slots
 * is tied to the struct by a static assertion in backend.c.
 *
 * "acc" flags: false overwrites the destination, true adds to it.
 * Activations and their gradients are struct kd_tensor or kd_mat, of the compute type:
 * float32, or bfloat16 where the backend offers it; all of one call have the same type
 * unless its comment says otherwise.  What is `float *` is always float32: parameters
 * of norms, biases, statistics, gradients of parameters, optimiser state.  Arithmetic
 * inside a slot is float32 (sums float32 or wider); only loads and stores round.
 * Reductions run in an order that depends on shapes only, never on the thread count, so
 * the same call gives the same bits for any number of threads. */
#ifndef KDHPC_TENSOR_BACKEND_H
#define KDHPC_TENSOR_BACKEND_H

#include "kdhpc/tensor/tensor.h"

enum kd_device { KD_CPU, KD_CUDA };
enum kd_act {
    KD_ACT_NONE,
    KD_ACT_RELU,
    KD_ACT_GELU,
    KD_ACT_GELU_NEW,
    KD_ACT_SILU,
    KD_ACT_TANH
};
enum kd_norm_kind { KD_NORM_LAYER, KD_NORM_RMS };

struct kd_backend_ops;

struct kd_backend {
    const struct kd_backend_ops *ops;
    enum kd_device device;
    int n_threads; /* CPU threads of this rank */
    void *impl;    /* owned by the backend */
};

/** C[m,n] = act(alpha op(A) op(B) + beta C + bias): op(A) is [m,k], op(B) is [k,n].  A
 * and B have one type; C and pre have it too, or are float32 (logits, gradients of
 * weights).  On a CPU with AVX2 or AVX-512 a row of C has the same bits whatever rows
 * are computed with it. */
struct kd_gemm {
    bool trans_a, trans_b; /* A is stored [k,m]; B is stored [n,k] */
    float alpha, beta;
    struct kd_mat a, b, c;
    const float *bias;            /* [n] or NULL */
    const uint16_t *bias_rounded; /* [n] the same in bfloat16 where it is at hand: it
                                     saves a pass to round it; or NULL */
    enum kd_act act;
    struct kd_mat pre; /* data NULL, or where to keep the value before act [m,n] */
};

/** Inverted dropout as a function of the counter: element (r, c) is dropped iff the
 *  16-bit lane c % 8 of Philox(key = {seed lo ^ seed hi, step}, counter = {c / 8,
 * row_key lo, row_key hi, site}) is below round(p * 65536); kept values are scaled by 1
 * / (1 - p). */
struct kd_dropout {
    float p; /* 0: none, the other fields are not read */
    uint64_t seed;
    uint32_t step, site;
    const uint64_t *row_keys; /* [rows], backend memory: names (example, position) */
};

/** What is added to scaled scores by the distance of key and query: row zero + key -
 * query of TABLE [distances, H] float32, positions counted from the starts of their
 * sequences; data NULL: nothing. */
struct kd_distance_bias {
    struct kd_tensor table;
    int64_t zero;
};

/** Attention over ragged sequences; q may have other rows than k and v (cross
 * attention). Head h uses columns [h hd, (h + 1) hd) of q and out, and of k and v with
 * h * n_kv / n_heads. */
struct kd_attention {
    struct kd_mat q, k, v, out;     /* [n_q, H hd], [n_kv, Hkv hd] x 2, [n_q, H hd] */
    struct kd_seqs q_seqs, kv_seqs; /* same number of sequences */
    int64_t n_heads, n_kv_heads, head_dim;
    float scale;
    bool causal; /* key position <= query position, both counted from the sequence's
                    start */
    struct kd_distance_bias bias;
    struct kd_tensor lse; /* [n_q, H] float32: log-sum-exp of the scaled scores; data
                             NULL if no backward follows */
    struct kd_dropout
        dropout; /* on probabilities: site + (head << 20), column = key position */
};

/** Self attention of one new row per hypothesis over cached keys and values.  The key
 * of hypothesis r at time t is row slots[r * slots_ld + t] of the cache, t <= *step;
 * the new ones are put into the row of *step, which no other hypothesis has. */
struct kd_attention_cached {
    struct kd_mat q, out;       /* [n_rows, H hd] */
    struct kd_mat k_new, v_new; /* [n_rows, Hkv hd] */
    struct kd_mat k, v;         /* [cache rows, Hkv hd] */
    const int32_t *slots;       /* [n_rows, slots_ld], backend memory */
    int64_t slots_ld;
    const int32_t *step; /* [1], backend memory: every hypothesis is as long */
    int64_t max_len;     /* *step + 1 or more: what launches are sized for */
    int64_t n_heads, n_kv_heads, head_dim;
    float scale;
    struct kd_distance_bias bias; /* of the query at position len - 1 */
};

/** One step of the table of slots, in place: a row takes over its parent's slots for t
 * < *step, and slots[r][*step] = *step * stride + r. */
struct kd_slot_step {
    int32_t *slots; /* [any, ld] */
    int64_t ld, n_rows, stride;
    const int32_t *parents; /* [n_rows], backend memory; not read where *step is 0 */
    const int32_t *step;    /* [1], backend memory */
    int64_t max_len;        /* *step + 1 or more */
};

/** Names a run of calls: two runs with one key make the same calls with the same
 * arguments, addresses included; only the contents of backend memory differ. */
struct kd_graph_key {
    uint64_t word[5];
};

/** One entry of scores [rows, V]. */
struct kd_score_edit {
    int32_t row, token; /* row < 0: of every row */
};

/** What happens to entries that are not banned: v < 0 ? v * penalty : v / penalty; or
 * v + |v| * penalty rounded once, where -inf stays. */
enum kd_edit_kind { KD_EDIT_PENALTY, KD_EDIT_RAISE };

/** Changes to scores before a token is chosen.  An entry is named once at most. */
struct kd_score_edits {
    const struct kd_score_edit *list; /* [n], backend memory */
    int64_t n_bans, n; /* the first n_bans entries become -inf, the others as KIND says
                        */
    float penalty;
    int32_t forced; /* >= 0: every row is 0 there and -inf elsewhere, the list is not
                       read; < 0: none */
    enum kd_edit_kind kind;
};

/** One token drawn from each of n distributions: draw i is from row i / per_row of
 * scores x, at u[i] in [0, 1), after temperature, then top-k with ties kept (0: all),
 * then the least likely left out while they are within 1 - top_p together, then lowest
 * token first among equals; then those below min_p times the likeliest, those not
 * typical, and those below epsilon, then below eta as tensor/sampling.h has it, the
 * likeliest that is left always kept.  The distribution is inverted in token order.
 * Weights are integers (tensor/sampling.h), so every backend draws the same token from
 * the same scores.  Where all scores are -inf or NaN, token is 0 and its
 * log-probability -inf.
 */
struct kd_sample {
    const float *x; /* [n / per_row, cols] */
    int64_t n, per_row, cols;
    const double *u; /* [n], backend memory */
    double temperature, top_p;
    int64_t top_k;
    double *log_probs;                     /* [n] */
    int32_t *tokens;                       /* [n] */
    double min_p, typical_p, epsilon, eta; /* off: 0, any of 0 and from 1, 0, 0 */
};

struct kd_norm {
    enum kd_norm_kind kind;
    float eps;
    const float *gamma, *beta; /* [d]; beta NULL for RMS */
};

/** One vocabulary chunk of the head: losses of rows and, in place, the gradient of the
 * logits. ce_row = -log softmax(z)[label]; smooth_row = -sum_v log softmax(z)[v];
 *  kl_row = sum_v p_T (log p_T - log p_S) at temperature T, p = softmax(z / T), without
 * T^2. dz = w_ce d ce + w_smooth d smooth + w_kl d kl. Source:
 * ../spec of the references: transformers' cross-entropy, DistilBART's KL. */
struct kd_vocab_loss {
    struct kd_tensor zs; /* [rows, V] student logits, float32; may be overwritten */
    struct kd_tensor dz; /* [rows, V] their gradient, of the compute type, if grad; may
                            be zs itself where that is float32 */
    struct kd_tensor
        zt; /* [rows, V] teacher logits, float32, or data NULL; may be overwritten */
    const int32_t
        *labels; /* [rows], backend memory; < 0: the row has no ce, smooth or correct */
    const float *kl_mask; /* [rows] 1 or 0, or NULL for all rows */
    float w_ce, w_smooth, w_kl, temperature;
    bool grad;
    struct kd_tensor rows_out; /* [rows, 4] float64: ce, smooth, kl, correct (argmax ==
                                  label, first on ties) */
    int64_t ld;                /* values from row to row of zs, dz and zt; 0: V */
};

static inline int64_t kd_vocab_loss_ld(const struct kd_vocab_loss *l)
{
    return l->ld ? l->ld : l->zs.shape[1];
}

/** AdamW on a flat range; bias-corrected.  hf_order false: torch (decay first, eps
 * outside the corrected root); true: transformers 4.1 (eps before bias correction,
 * decay after the step). */
struct kd_adamw {
    float *param;
    void *m, *v;           /* [n] of the type of the moments */
    enum kd_dtype moments; /* KD_F32; KD_BF16: rounded as in tensor/rounding.h, after
                              the float32 results have changed param */
    uint16_t *copy;        /* [n] bfloat16 copy of param to write along, or NULL */
    const float *grad;
    int64_t n, step; /* step from 1 */
    int64_t first;   /* slab index of value 0; slabs are 32-byte aligned */
    uint64_t seed;   /* of the rounding */
    double lr, beta1, beta2, eps, weight_decay,
        grad_scale; /* grad_scale: clipping factor */
    bool hf_order;
};

/** Adafactor on one parameter [rows, cols] (cols 1, factored false for vectors), as
 * fairseq and transformers with scale_parameter, relative_step and warm-up off. */
struct kd_adafactor {
    float *param;
    uint16_t *copy; /* as in kd_adamw */
    const float *grad;
    float *row,
        *col; /* [rows], [cols] factored; row is [rows * cols] if not factored */
    int64_t rows, cols, step;
    bool factored;
    double lr, eps, clip_threshold, decay_rate, weight_decay, grad_scale;
};

/** A range of float32 values in backend memory. */
struct kd_span {
    const float *x;
    int64_t n;
};

struct kd_backend_ops {
    const char *name;

    /* the backend itself, see kd_backend_free */
    void (*destroy)(struct kd_backend *be);

    /* memory */
    int (*alloc)(struct kd_backend *be, size_t bytes,
                 void **out); /* 64-byte aligned, not zeroed */
    void (*free)(struct kd_backend *be, void *p);
    int (*upload)(struct kd_backend *be, void *dst, const void *src, size_t bytes);
    int (*download)(struct kd_backend *be, void *dst, const void *src,
                    size_t bytes); /* waits */
    int (*copy)(struct kd_backend *be, void *dst, const void *src, size_t bytes);
    int (*zero)(struct kd_backend *be, void *dst, size_t bytes);
    int (*sync)(struct kd_backend *be);
    void *(*stream)(struct kd_backend *be); /* the device's compute stream, for comm's
                                               own plane; NULL on the CPU */
    int (*mem_info)(struct kd_backend *be, size_t *free_bytes, size_t *total_bytes);

    /* recorded work.  begin: *done = true says that the backend has repeated what it
     * recorded under the key, so that the calls are not made; else they are, none of
     * which may wait, allocate or move host memory once the key has been seen, and then
     * end, with ok = false if one of them failed.  drop: forget all keys, before memory
     * goes away that their calls name.  A backend without such a thing never does
     * anything here. */
    int (*graph_begin)(struct kd_backend *be, const struct kd_graph_key *key,
                       bool *done);
    int (*graph_end)(struct kd_backend *be, bool ok);
    void (*graph_drop)(struct kd_backend *be);

    /* product */
    int (*gemm)(struct kd_backend *be, const struct kd_gemm *g);
    /* out[n] (+)= sum over rows of x[rows, n] */
    int (*col_sum)(struct kd_backend *be, struct kd_mat x, float *out, bool acc);

    /* attention.  back: from dout [n_q, H hd] to dq, dk, dv (windows like q, k, v;
     * overwritten); dbias [distances, H] += (NULL: not wanted). */
    int (*attention)(struct kd_backend *be, const struct kd_attention *a);
    int (*attention_back)(struct kd_backend *be, const struct kd_attention *a,
                          struct kd_mat dout, struct kd_mat dq, struct kd_mat dk,
                          struct kd_mat dv, float *dbias);
    int (*attention_cached)(struct kd_backend *be, const struct kd_attention_cached *a);
    int (*advance_slots)(struct kd_backend *be, const struct kd_slot_step *s);

    /* pointwise; all tensors of one shape */
    int (*add)(struct kd_backend *be, struct kd_tensor x, struct kd_tensor y,
               struct kd_tensor out);
    int (*axpy)(struct kd_backend *be, float alpha, struct kd_tensor x,
                struct kd_tensor y); /* y += alpha x; x and y may differ in type */
    int (*scale)(struct kd_backend *be, float alpha, struct kd_tensor x);
    /* y = act(pre), on a CPU the bits of gemm's; y may be pre */
    int (*act)(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
               struct kd_tensor y);
    int (*act_back)(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                    struct kd_tensor dy,
                    struct kd_tensor dx); /* dx = dy act'(pre); dx may be dy */
    /* gated: y = act(a) * b with pre [rows, 2 cols] = a | b, y [rows, cols].
     * back: dpre = dy * b * act'(a) | dy * act(a); dpre may be pre */
    int (*glu)(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
               struct kd_tensor y);
    int (*glu_back)(struct kd_backend *be, enum kd_act act, struct kd_tensor pre,
                    struct kd_tensor dy, struct kd_tensor dpre);
    /* out (+)= dropout(x), x [rows, cols]; its own backward; out may be x without acc
     */
    int (*dropout)(struct kd_backend *be, const struct kd_dropout *d,
                   struct kd_tensor x, struct kd_tensor out, bool acc);
    int (*cast)(struct kd_backend *be, struct kd_tensor src, struct kd_tensor dst);

    /* norm with its residual: sum = x + dropout(sub), y = norm(sum), all [rows, cols].
     * x or sub may be absent (data NULL; not both), sum may be absent if x or sub is or
     * it is not needed; stats [rows, 2] (mean, 1 / sigma) may be NULL.
     * back: ds = dnorm(dy) + dsum; dx (+)= ds, dsub = dropout(ds) (overwritten),
     * dgamma, dbeta += .  Absent parts have data NULL (dsum, dx, dsub) or are NULL
     * (dgamma, dbeta). */
    int (*norm)(struct kd_backend *be, const struct kd_norm *norm, struct kd_tensor x,
                struct kd_tensor sub, const struct kd_dropout *drop,
                struct kd_tensor sum, struct kd_tensor y, float *stats);
    int (*norm_back)(struct kd_backend *be, const struct kd_norm *norm,
                     struct kd_tensor sum, const float *stats, struct kd_tensor dy,
                     struct kd_tensor dsum, const struct kd_dropout *drop,
                     struct kd_tensor dx, bool acc_dx, struct kd_tensor dsub,
                     float *dgamma, float *dbeta);

    /* rows.  gather: out[r] = scale * table[ids[r]] + (pos ? pos[pos_ids[r]] : 0); out
     * [rows, cols], table and pos [any, cols] (pos data NULL: none).
     * scatter_add: table[ids[r]] += scale * dx[r], in ascending r for each id; rows
     * with id == skip_id are left out. */
    int (*gather_rows)(struct kd_backend *be, struct kd_tensor table,
                       const int32_t *ids, float scale, struct kd_tensor pos,
                       const int32_t *pos_ids, struct kd_tensor out);
    int (*scatter_add_rows)(struct kd_backend *be, struct kd_tensor dx,
                            const int32_t *ids, int32_t skip_id, float scale,
                            float *table, int64_t table_rows);
    int (*log_softmax)(struct kd_backend *be, float *x, int64_t rows,
                       int64_t cols); /* in place; float32, as decoding wants it */
    /* sums[rows, 2]: log softmax(x)[r][c] = (x[r][c] - sums[r][0]) - sums[r][1], the
     * bits of log_softmax */
    int (*log_sum)(struct kd_backend *be, const float *x, int64_t rows, int64_t cols,
                   float *sums);
    /* k largest of each row, descending, ties by lowest column; of (x - sums[r][0]) -
     * sums[r][1] where sums [rows, 2] is not NULL */
    int (*topk)(struct kd_backend *be, const float *x, const float *sums, int64_t rows,
                int64_t cols, int64_t k, float *values, int32_t *columns);

    /* generation, float32 scores */
    int (*edit_scores)(struct kd_backend *be, float *x, int64_t rows, int64_t cols,
                       const struct kd_score_edits *e);
    int (*sample)(struct kd_backend *be, const struct kd_sample *s);

    /* loss */
    int (*vocab_loss)(struct kd_backend *be, const struct kd_vocab_loss *l);
    /* rows_out[r] (float64) = |a_s s_r - a_t t_r|^2 with the identity, or after
     * standardising each row (normalize: biased variance, eps 1e-5).  ds (+)= w *
     * gradient if ds has data; row_mask as in kd_vocab_loss. */
    int (*mse_rows)(struct kd_backend *be, struct kd_tensor s, struct kd_tensor t,
                    const float *row_mask, bool normalize, float w, double *rows_out,
                    struct kd_tensor ds, bool acc);

    /* optimiser; sum_sq: out[1] (backend memory) = sum of the squares of all values of
     * the spans, in float64 (non-finite if any value is) */
    int (*adamw)(struct kd_backend *be, const struct kd_adamw *a);
    int (*adafactor)(struct kd_backend *be, const struct kd_adafactor *a);
    int (*sum_sq)(struct kd_backend *be, const struct kd_span *spans, int64_t n_spans,
                  double *out);
};

/** Names of the function slots, in order, and their number.  Local. */
extern const char *const kd_backend_slots[];
extern const int kd_backend_n_slots;

/** The CPU backend with N_THREADS (>= 1) threads.  Local; *OUT is freed by
 * kd_backend_free. */
int kd_backend_cpu(int n_threads, struct kd_backend **out) KD_MUST_CHECK;
void kd_backend_free(struct kd_backend *be);

/** Number of CUDA devices that this process can use; 0 where there are none or the
 * build has no CUDA.  Local. */
int kd_cuda_devices(void);

/** The CUDA backend on device INDEX.  Local; *OUT is freed by kd_backend_free.
 * KD_EINPUT without such a device (the line says why), KD_ENOMEM. */
int kd_backend_cuda(int index, struct kd_backend **out) KD_MUST_CHECK;

/** Whether float32 products of BE, if it is a CUDA backend, may round their inputs to
 * TF32 (10 bits); off when made.  Local. */
void kd_backend_cuda_tf32(struct kd_backend *be, bool on);

/** One line about CUDA in this build, e.g. "CUDA 13.0 for sm_80 sm_90, driver 13.0,
 * NVIDIA H100 80GB HBM3", or "no CUDA".  Local. */
const char *kd_backend_cuda_library(void);

/** One line about the products' kernels and the library beside them, e.g. "AVX-512
 * kernels; OpenBLAS 0.3.21 (openmp)".  Local. */
const char *kd_backend_cpu_library(void);

#endif
