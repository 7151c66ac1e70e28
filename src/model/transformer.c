/* SPDX-License-Identifier: Apache-2.0 */
/* The forward pass over whole sequences: encoder, decoder, head.
 *
 * Training and the teacher differ only in the context (tape, dropout).  A frozen
 * encoder runs without dropout and leaves nothing on the tape, since none of its
 * parameters wants a gradient.  Called by the objective and, for its encoder, by the
 * decoder with a cache. */
#include "model_impl.h"

/* Positions are rows of the table without those before its offset. */
static int check_lengths(const struct kd_model *m, const struct kd_seqs *s,
                         const char *what)
{
    if (s->max_len > m->arch.max_positions)
        return KD_FAIL(KD_EINPUT,
                       "a %s of %lld tokens does not fit the model's %lld positions",
                       what, (long long)s->max_len, (long long)m->arch.max_positions);
    return KD_OK;
}

int kd_model_encode(struct kd_ctx *ctx, struct kd_model *m, const struct kd_batch *b,
                    struct kd_var **out)
{
    struct kd_ctx inner = *ctx;
    struct kd_block block = {.ctx = &inner,
                             .m = m,
                             .stack = &m->stacks[KD_ENC],
                             .q_seqs = b->src,
                             .row_keys = b->src_keys};

    KD_TRY(check_lengths(m, &b->src, "source"));
    kd_model_bind(m);
    if (kd_model_encoder_frozen(m))
        inner.train = false;
    KD_TRY(kd_block_embed(&block, b->src_ids, b->src_pos, b->src.n_rows));
    return kd_block_stack(&block, out);
}

int kd_model_decode(struct kd_ctx *ctx, struct kd_model *m, const struct kd_batch *b,
                    struct kd_var *enc, struct kd_var **out)
{
    struct kd_block block = {.ctx = ctx,
                             .m = m,
                             .stack = &m->stacks[KD_DEC],
                             .q_seqs = b->tgt,
                             .src_seqs = b->src,
                             .row_keys = b->tgt_keys,
                             .enc = enc};

    KD_TRY(check_lengths(m, &b->tgt, "target"));
    kd_model_bind(m);
    KD_TRY(kd_block_embed(&block, b->dec_ids, b->tgt_pos, b->tgt.n_rows));
    return kd_block_stack(&block, out);
}

struct kd_head kd_model_head(struct kd_model *m)
{
    struct kd_head head = {.w = m->arch.tied_head ? &m->tables[KD_DEC] : &m->own_head,
                           .scale = m->arch.head_scale};

    kd_model_bind(m);
    if (m->logits_bias >= 0)
        head.bias = m->params.values + m->params.items[m->logits_bias].offset;
    return head;
}
