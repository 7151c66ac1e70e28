# SPDX-License-Identifier: Apache-2.0
"""Makes cases.json: what transformers' generate() returns for a language model that is
a table, a hash of (source, prefix, token), under many settings.

The logits are multiples of 2^-17 below 8 in size, so float32 holds them exactly and the
C test computes the same ones.  Run: python make_cases.py > cases.json
"""

import itertools
import json
import os
import sys

import torch
from torch import nn
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from group_beams import group_beams

MASK = (1 << 64) - 1
START, BOS, PAD, EOS = 2, 0, 1, 2
SOURCE_IDS = [7, 31, 7, 52, 8]  # of the warped steps


def mix(x):
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def logits(source, prefix, vocab, eos_bias):
    h = mix(source)
    for t in prefix:
        h = mix(h ^ (t + 1))
    z = [((mix(h ^ (v << 32)) >> 44) * 8 - (4 << 20)) / float(1 << 20) for v in range(vocab)]
    z[EOS] += eos_bias
    return z


class TableConfig(PretrainedConfig):
    model_type = "table"

    def __init__(self, vocab_size=13, eos_bias=0.0, **kw):
        self.eos_bias = eos_bias
        super().__init__(is_encoder_decoder=True, vocab_size=vocab_size, **kw)


class Encoder(nn.Module):
    main_input_name = "input_ids"

    def forward(self, input_ids=None, **kw):
        return BaseModelOutput(last_hidden_state=input_ids[:, :, None].double())


class Table(PreTrainedModel, GenerationMixin):
    config_class = TableConfig
    main_input_name = "input_ids"

    def __init__(self, config):
        super().__init__(config)
        self.encoder = Encoder()
        self.weight = nn.Parameter(torch.zeros(1))
        self.post_init()

    def get_encoder(self):
        return self.encoder

    def forward(self, input_ids=None, decoder_input_ids=None, encoder_outputs=None, **kw):
        rows = [
            logits(int(s), p.tolist(), self.config.vocab_size, self.config.eos_bias)
            for s, p in zip(encoder_outputs[0][:, 0, 0], decoder_input_ids)
        ]
        return Seq2SeqLMOutput(logits=torch.tensor(rows, dtype=torch.float32)[:, None])


def run_groups(case, model):
    rows, scores = [], []
    config = model.generation_config
    eos = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    for source in case["sources"]:
        def logits_of(prefixes):
            return torch.tensor([logits(source, p, case["vocab"], case["eos_bias"]) for p in prefixes.tolist()])

        got, score = group_beams(model, config, [source], logits_of)
        for ids in got:
            n = next((i for i, t in enumerate(ids) if i > 0 and t in eos), len(ids) - 1)
            rows.append(ids[1 : 1 + n])
        scores += score
    return {"ids": rows, "scores": scores}


def run(case):
    config = TableConfig(case["vocab"], case["eos_bias"])
    model = Table(config)
    settings = dict(
        num_beams=1, max_length=12, length_penalty=1.0, early_stopping=False,
        decoder_start_token_id=START, bos_token_id=BOS, pad_token_id=PAD, eos_token_id=EOS,
        use_cache=False, do_sample=False,
    )
    settings.update(case["settings"])
    model.generation_config = GenerationConfig(**settings)
    if settings.get("num_beam_groups", 1) > 1:
        return {**case, "settings": settings, **run_groups(case, model)}
    sources = torch.tensor([[s] for s in case["sources"]])
    out = model.generate(sources, return_dict_in_generate=True, output_scores=True)
    eos = settings["eos_token_id"]
    eos = eos if isinstance(eos, list) else [eos]
    rows, scores = [], []
    if settings["num_beams"] > 1:
        for ids, index in zip(out.sequences, out.beam_indices):
            rows.append(ids[1 : 1 + int((index >= 0).sum())].tolist())
        scores = out.sequences_scores.double().tolist()
    else:
        chosen = model.compute_transition_scores(out.sequences, out.scores, normalize_logits=True)
        for ids, lp in zip(out.sequences[:, 1:].tolist(), chosen.double().tolist()):
            n = next((i + 1 for i, t in enumerate(ids) if t in eos), len(ids))
            rows.append(ids[:n])
            scores.append(sum(lp[:n]))
    return {**case, "settings": settings, "ids": rows, "scores": scores}


def cases():
    base = itertools.count()

    def case(vocab=17, eos_bias=1.0, n=5, **settings):
        first = next(base) * 100
        return {"vocab": vocab, "eos_bias": eos_bias,
                "sources": [first + i for i in range(n)], "settings": settings}

    for beams, lp, stop in itertools.product((2, 4, 5), (0.0, 0.6, 1.0, 2.0, -1.0), (False, True, "never")):
        yield case(num_beams=beams, length_penalty=lp, early_stopping=stop)
    for beams in (1, 2, 4):
        yield case(num_beams=beams)
        yield case(num_beams=beams, eos_bias=-2.0)
        yield case(num_beams=beams, eos_bias=3.0)
        yield case(num_beams=beams, min_length=6, eos_bias=3.0)
        yield case(num_beams=beams, min_new_tokens=4, max_new_tokens=7, eos_bias=3.0)
        yield case(num_beams=beams, forced_bos_token_id=BOS, forced_eos_token_id=EOS)
        yield case(num_beams=beams, forced_eos_token_id=EOS, eos_bias=-4.0, early_stopping=beams > 1)
        yield case(num_beams=beams, no_repeat_ngram_size=1, vocab=30)
        yield case(num_beams=beams, no_repeat_ngram_size=2, vocab=5, eos_bias=-3.0)
        yield case(num_beams=beams, no_repeat_ngram_size=3, vocab=4, eos_bias=-3.0, max_length=25)
        yield case(num_beams=beams, repetition_penalty=1.3)
        yield case(num_beams=beams, repetition_penalty=0.7, eos_bias=-1.0)
        yield case(num_beams=beams, bad_words_ids=[[5], [7], [2]])
        yield case(num_beams=beams, eos_token_id=[2, 9])
        yield case(num_beams=beams, eos_token_id=[2, 3, 4], vocab=6)
        yield case(num_beams=beams, eos_token_id=[2, 3, 4, 0], vocab=6, eos_bias=3.0)
        yield case(num_beams=beams, max_length=2)
        yield case(num_beams=beams, max_length=3, forced_eos_token_id=EOS)
        yield case(num_beams=beams, vocab=3, eos_bias=0.0)
        yield case(num_beams=beams, vocab=400, eos_bias=3.0, n=9, max_length=30, repetition_penalty=1.1,
                   no_repeat_ngram_size=3, min_length=4, forced_bos_token_id=BOS, forced_eos_token_id=EOS)
    for beams in (1, 4):
        yield case(num_beams=beams, vocab=6, eos_bias=-2.0, max_length=20,
                   bad_words_ids=[[3, 4], [4, 5, 3], [1, 1], [2], [0, 2], [2, 4, 0]])
        yield case(num_beams=beams, vocab=4, eos_bias=-1.0, bad_words_ids=[[3], [2, 1], [1, 0, 1, 0, 1]])
        yield case(num_beams=beams, eos_bias=2.0, begin_suppress_tokens=[2, 5, 9, 11])
        yield case(num_beams=beams, eos_bias=2.0, vocab=8, begin_suppress_tokens=[2, 5, 6, 7],
                   forced_bos_token_id=BOS, suppress_tokens=[4])
        yield case(num_beams=beams, eos_bias=-1.0, exponential_decay_length_penalty=[2, 1.2])
        yield case(num_beams=beams, eos_bias=1.0, exponential_decay_length_penalty=[3, 0.7], eos_token_id=[2, 9])
        yield case(num_beams=beams, eos_bias=1.0, exponential_decay_length_penalty=[0, 1.03],
                   repetition_penalty=1.2, forced_eos_token_id=EOS)
        yield case(num_beams=beams, renormalize_logits=True, bad_words_ids=[[5], [7], [2, 3]])
        yield case(num_beams=beams, renormalize_logits=True, repetition_penalty=1.3, no_repeat_ngram_size=2,
                   forced_bos_token_id=BOS)
    for (beams, groups), lp, stop in itertools.product(((2, 2), (4, 2), (6, 3), (6, 2)), (0.0, 1.0, 2.0), (False, True, "never")):
        yield case(num_beams=beams, num_beam_groups=groups, diversity_penalty=0.7, length_penalty=lp,
                   early_stopping=stop, num_return_sequences=beams)
    groups = dict(num_beams=4, num_beam_groups=2, num_return_sequences=3)
    yield case(**groups, diversity_penalty=5.0, eos_bias=-3.0)
    yield case(**groups, diversity_penalty=0.3, eos_bias=3.0, length_penalty=-1.0)
    yield case(**groups, diversity_penalty=1.0, eos_token_id=[2, 9, 4], vocab=20)
    yield case(**groups, diversity_penalty=1.0, eos_token_id=[2, 3, 4], vocab=6)
    yield case(**groups, diversity_penalty=1.0, repetition_penalty=1.4, no_repeat_ngram_size=2)
    yield case(**groups, diversity_penalty=1.0, forced_bos_token_id=BOS, forced_eos_token_id=EOS, eos_bias=-4.0)
    yield case(**groups, diversity_penalty=2.0, vocab=400, n=9, max_length=25, min_length=6, eos_bias=3.0,
               bad_words_ids=[[5], [7, 7]])
    for beams in (2, 4):
        yield case(num_beams=beams, num_return_sequences=beams, eos_token_id=[2, 3, 4, 5], vocab=8, n=12,
                   length_penalty=2.5, early_stopping="never")
    for beams, k in ((2, 2), (4, 2), (4, 4), (6, 6)):
        for stop in (False, True, "never"):
            yield case(num_beams=beams, num_return_sequences=k, early_stopping=stop, length_penalty=0.8)

    # what "never" compares with, and what groups pay for ids that are penalised too
    for lp, bias in itertools.product((-2.0, -0.5, 0.5, 2.0), (0.0, 2.0)):
        yield case(num_beams=3, length_penalty=lp, early_stopping="never", max_length=6, eos_bias=bias, n=16)
        yield case(num_beams=4, num_beam_groups=2, diversity_penalty=0.4, length_penalty=lp, early_stopping="never",
                   max_length=6, eos_bias=bias, n=16)
    for groups in ({}, dict(num_beam_groups=2, diversity_penalty=0.4)):
        yield case(num_beams=4, num_return_sequences=4, length_penalty=-1.0, early_stopping="never", max_length=14, vocab=4,
                   eos_bias=2.0, n=16, **groups)
    for penalty in (0.5, 2.0):
        yield case(num_beams=4, num_beam_groups=4, diversity_penalty=1.5, repetition_penalty=penalty, num_return_sequences=4,
                   vocab=7, eos_bias=-2.0, n=16)


def warps():
    settings = [dict(temperature=t, top_k=k, top_p=p)
                for t, k, p in ((1.0, 0, 1.0), (0.7, 0, 1.0), (1.0, 5, 1.0), (1.5, 6, 0.8), (1.0, 0, 0.5))]
    settings += [dict(min_p=0.2), dict(typical_p=0.3), dict(typical_p=0.9), dict(typical_p=0.05), dict(epsilon_cutoff=0.06), dict(eta_cutoff=0.3),
                 dict(epsilon_cutoff=0.9), dict(eta_cutoff=0.8, temperature=0.6),
                 dict(temperature=1.4, top_k=9, top_p=0.95, min_p=0.05, typical_p=0.8, epsilon_cutoff=0.02, eta_cutoff=0.1),
                 dict(temperature=0.8, top_p=0.9, typical_p=0.6), dict(top_k=7, eta_cutoff=0.5, renormalize_logits=True)]
    alone = [dict(temperature=0.5), dict(temperature=2.5), dict(top_k=1), dict(top_k=13), dict(top_p=0.3), dict(top_p=0.85),
             dict(min_p=0.02), dict(min_p=0.3), dict(typical_p=0.2), dict(typical_p=0.7), dict(epsilon_cutoff=0.004),
             dict(epsilon_cutoff=0.03), dict(eta_cutoff=0.002), dict(eta_cutoff=0.05)]
    settings += [dict(epsilon_cutoff=1.0), dict(eta_cutoff=1.0)] + alone + [{**a, **b} for a, b in itertools.combinations(alone[1::2], 2)]
    # after what is done to logits in any search
    settings += [{**chain, **warp} for chain in (
        dict(repetition_penalty=3.0), dict(suppress_tokens=[3, 17, 20], begin_suppress_tokens=[1, 40]),
        dict(bad_words_ids=[[4], [2, 5], [33]], min_length=3), dict(no_repeat_ngram_size=1, renormalize_logits=True),
        dict(encoder_repetition_penalty=2.0, encoder_no_repeat_ngram_size=1)) for warp in (
            dict(temperature=0.6, top_k=20), dict(top_p=0.7), dict(typical_p=0.5), dict(temperature=1.4, eta_cutoff=0.02))]
    for i, given in enumerate(settings):
        full = dict(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, eos_token_id=EOS, pad_token_id=PAD, bos_token_id=BOS,
                    decoder_start_token_id=START)
        source, vocab = (77, 11) if i < 16 else (77 + i, 60)
        model = Table(TableConfig(vocab))
        config = GenerationConfig(**{**full, **given})
        model._prepare_special_tokens(config)
        chain = model._get_logits_processor(config, input_ids_seq_length=1, encoder_input_ids=torch.tensor([SOURCE_IDS]))
        z = torch.tensor([logits(source, [START], vocab, 0.0)], dtype=torch.float32)
        yield {**full, **given, "source": source, "source_ids": SOURCE_IDS, "vocab": vocab,
               "probabilities": torch.softmax(chain(torch.tensor([[START]]), z).double(), -1)[0].tolist()}


print(json.dumps({"cases": [run(c) for c in cases()], "warps": list(warps())}))
