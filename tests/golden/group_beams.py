# SPDX-License-Identifier: Apache-2.0
"""Diverse beam search as transformers had it until it left the library: a loop over the
parts that 4.57 still has, for one source.  Callers: the scripts that make fixtures."""

import torch
from transformers.generation.beam_search import BeamSearchScorer
from transformers.generation.logits_process import (EncoderRepetitionPenaltyLogitsProcessor,
                                                    HammingDiversityLogitsProcessor)


def penalise_every_beam():
    """Have the source's penalty apply to all beams of a source: as 4.57 has it, row i of
    the scores takes the ids of source i, whatever source and beam the row is of."""
    plain = EncoderRepetitionPenaltyLogitsProcessor.__call__

    def call(self, ids, scores):
        whole = self.encoder_input_ids
        self.encoder_input_ids = whole.repeat_interleave(len(scores) // len(whole), 0)
        scores = plain(self, ids, scores)
        self.encoder_input_ids = whole
        return scores

    EncoderRepetitionPenaltyLogitsProcessor.__call__ = call


def group_beams(model, config, source, logits_of):
    """LOGITS_OF(prefixes [n, length]) -> [n, V].  The sequences [num_return_sequences,
    length] with the start token, and their scores."""
    n, groups = config.num_beams, config.num_beam_groups
    size = n // groups
    model._prepare_special_tokens(config)
    hamming = HammingDiversityLogitsProcessor(config.diversity_penalty, n, groups)
    chain = model._get_logits_processor(config, input_ids_seq_length=1,
                                        encoder_input_ids=torch.tensor([source]))
    eos = config._eos_token_tensor
    pad = config._pad_token_tensor.item()
    scorer = BeamSearchScorer(1, n, torch.device("cpu"), config.length_penalty,
                              config.early_stopping, config.num_return_sequences, groups,
                              max_length=config.max_length)
    ids = torch.full((n, 1), config.decoder_start_token_id)
    scores = torch.full((n,), -1e9)
    scores[::size] = 0
    while True:
        tokens = torch.zeros(n, dtype=torch.long)
        logits = logits_of(ids)
        extended = torch.zeros((n, ids.shape[1] + 1), dtype=torch.long)
        for group in range(groups):
            rows = slice(group * size, (group + 1) * size)
            own = ids[rows]
            x = torch.log_softmax(logits[rows].float(), -1)
            x = chain(own, hamming(own, x, tokens, group))
            x = (x + scores[rows, None]).view(1, -1)
            best, at = torch.topk(x, max(2, 1 + len(eos)) * size)
            out = scorer.process(own, best, at % logits.shape[1], at // logits.shape[1],
                                 pad, eos, group_index=group, decoder_prompt_len=1)
            scores[rows] = out["next_beam_scores"]
            tokens[rows] = out["next_beam_tokens"]
            extended[rows] = torch.cat([own[out["next_beam_indices"]],
                                        tokens[rows, None]], -1)
        ids = extended
        if scorer.is_done or ids.shape[1] >= config.max_length:
            break
    out = scorer.finalize(ids, scores, None, None, config.max_length, pad, eos,
                          decoder_prompt_len=1)
    return out["sequences"].tolist(), out["sequence_scores"].tolist()
