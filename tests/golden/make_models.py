# SPDX-License-Identifier: Apache-2.0
"""Golden fixtures of the encoder-decoder families, made with the reference library.

Made with torch 2.15.0 and transformers 4.57.6 (safetensors 0.8.0); run it again only to
change the fixtures: python tests/golden/make_models.py [OUT_DIR [NAME...]].  Each case is a tiny model
with random weights (biases and norms too, so that nothing hides behind a zero or a one):

  NAME/config.json, generation_config.json, model.safetensors    the model
  NAME/teacher/...                            a model of other depths, for distillation
  NAME/golden.json                            inputs, losses, generation-independent facts
  NAME/expect/model.safetensors               logits and gradients
  NAME/beams.json                             outputs of generate()

Rows are ragged in the fixtures: what the reference computes on padded batches is cut to
the real positions here.
"""
import json
import os
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import (BartConfig, BartForConditionalGeneration, FSMTConfig,
                          FSMTForConditionalGeneration, GenerationConfig, MarianConfig,
                          MarianMTModel, MBartConfig, MBartForConditionalGeneration,
                          MT5Config, MT5ForConditionalGeneration, PegasusConfig,
                          PegasusForConditionalGeneration, T5Config,
                          T5ForConditionalGeneration)

from group_beams import group_beams, penalise_every_beam

CLASSES = {
    "bart": (BartConfig, BartForConditionalGeneration),
    "mbart": (MBartConfig, MBartForConditionalGeneration),
    "pegasus": (PegasusConfig, PegasusForConditionalGeneration),
    "marian": (MarianConfig, MarianMTModel),
    "fsmt": (FSMTConfig, FSMTForConditionalGeneration),
    "t5": (T5Config, T5ForConditionalGeneration),
    "mt5": (MT5Config, MT5ForConditionalGeneration),
}
SINUSOIDS = ("pegasus", "marian", "fsmt")

CASES = {
    # post-norm, tied, scaled embedding, non-zero final_logits_bias
    "bart": dict(cls="bart", V=53, d=16, heads=(2, 4), ffn=(32, 32), layers=(2, 2),
                 act="gelu", scale=True, bias=True, teacher=(3, 3), pos=40, seed=1,
                 matches=([0, 2], [0, 2])),
    # pre-norm with final norms
    "mbart": dict(cls="mbart", V=47, d=24, heads=(4, 4), ffn=(40, 40), layers=(2, 2),
                  act="relu", scale=True, bias=True, teacher=(1, 3), pos=36, seed=2,
                  matches=([0, 0], [1, 2])),
    # unequal depths, widths and heads, odd sizes, no final_logits_bias in the file
    "bart_uneven": dict(cls="bart", V=59, d=20, heads=(4, 2), ffn=(28, 36), layers=(3, 1),
                        act="gelu_new", scale=False, bias=False, teacher=(2, 2), pos=33,
                        seed=3, matches=([0, 1, 1], [1])),
    # pre-norm, final norms, sinusoidal positions, no norm of embeddings
    "pegasus": dict(cls="pegasus", V=61, d=16, heads=(4, 2), ffn=(24, 40), layers=(2, 2),
                    act="relu", scale=True, bias=True, teacher=(3, 1), pos=40, seed=4,
                    matches=([1, 2], [0, 0]), ids=(None, 0, 1, 0)),
    # post-norm, sinusoidal positions, starts with the pad token, the last id
    "marian": dict(cls="marian", V=57, d=16, heads=(2, 4), ffn=(32, 24), layers=(2, 1),
                   act="swish", scale=True, bias=True, teacher=(2, 3), pos=40, seed=5,
                   matches=([0, 1], [2]), ids=(None, 56, 0, 56)),
    # a table for each side, and for the head (tied to neither: transformers 4.57 ties the
    # head to the encoder's table here)
    "marian_two": dict(cls="marian", V=57, V_src=57, d=20, heads=(2, 5), ffn=(32, 24),
                       layers=(1, 2), act="gelu", scale=False, bias=True, teacher=(2, 2),
                       pos=33, seed=6, matches=([1], [0, 1]), ids=(None, 56, 0, 56)),
    # tensor2tensor's positions, two vocabularies
    "fsmt": dict(cls="fsmt", V=45, V_src=63, d=18, heads=(3, 2), ffn=(28, 36),
                 layers=(2, 2), act="relu", scale=True, bias=False, teacher=(1, 3), pos=40,
                 tie=False, seed=7, matches=([0, 0], [0, 2])),
    # bias by distance, inner width beside d, tied and scaled head
    "t5": dict(cls="t5", V=53, d=16, d_kv=6, heads=4, ffn=36, layers=(2, 2), act="relu",
               bias=False, teacher=(3, 2), tie=True, buckets=(8, 20), seed=8,
               matches=([0, 2], [0, 1]), ids=(None, 0, 1, 0)),
    # gated layers, a head of its own
    "t5_gated": dict(cls="t5", V=49, d=20, d_kv=4, heads=3, ffn=28, layers=(3, 1),
                     act="gated-gelu", bias=False, teacher=(2, 2), tie=False,
                     buckets=(6, 9), seed=9, matches=([0, 1, 1], [1]), ids=(None, 0, 1, 0)),
    "mt5": dict(cls="mt5", V=51, d=16, d_kv=8, heads=2, ffn=24, layers=(3, 2),
                act="gated-silu", bias=False, teacher=(2, 3), tie=False, buckets=(32, 128),
                seed=10, matches=([0, 1, 1], [0, 2]), ids=(None, 0, 1, 0)),
}


def ids_of(c):
    """bos, pad, eos, decoder start"""
    return c.get("ids", (0, 1, 2, 2))


def t5_config_of(c, layers):
    bos, pad, eos, start = ids_of(c)
    return CLASSES[c["cls"]][0](
        vocab_size=c["V"], d_model=c["d"], d_kv=c["d_kv"], d_ff=c["ffn"],
        num_layers=layers[0], num_decoder_layers=layers[1], num_heads=c["heads"],
        relative_attention_num_buckets=c["buckets"][0],
        relative_attention_max_distance=c["buckets"][1], feed_forward_proj=c["act"],
        tie_word_embeddings=c["tie"], dropout_rate=0.1, bos_token_id=bos,
        pad_token_id=pad, eos_token_id=eos, decoder_start_token_id=start)


def fsmt_config_of(c, layers):
    bos, pad, eos, start = ids_of(c)
    return FSMTConfig(
        langs=["en", "de"], src_vocab_size=c["V_src"], tgt_vocab_size=c["V"],
        d_model=c["d"], max_position_embeddings=c["pos"], encoder_layers=layers[0],
        decoder_layers=layers[1], encoder_attention_heads=c["heads"][0],
        decoder_attention_heads=c["heads"][1], encoder_ffn_dim=c["ffn"][0],
        decoder_ffn_dim=c["ffn"][1], activation_function=c["act"],
        scale_embedding=c["scale"], tie_word_embeddings=c["tie"], dropout=0.1,
        attention_dropout=0.1, activation_dropout=0.0, bos_token_id=bos,
        pad_token_id=pad, eos_token_id=eos, decoder_start_token_id=start,
        forced_eos_token_id=None, init_std=0.3)


def config_of(c, layers):
    if "d_kv" in c:
        return t5_config_of(c, layers)
    if c["cls"] == "fsmt":
        return fsmt_config_of(c, layers)
    bos, pad, eos, start = ids_of(c)
    extra = {}
    if "V_src" in c:
        extra = dict(share_encoder_decoder_embeddings=False, decoder_vocab_size=c["V"],
                     tie_word_embeddings=False)
    if c["cls"] == "marian":
        extra["scale_embedding"] = c["scale"]
    return CLASSES[c["cls"]][0](
               vocab_size=c.get("V_src", c["V"]),d_model=c["d"], max_position_embeddings=c["pos"],
               encoder_layers=layers[0], decoder_layers=layers[1],
               encoder_attention_heads=c["heads"][0], decoder_attention_heads=c["heads"][1],
               encoder_ffn_dim=c["ffn"][0], decoder_ffn_dim=c["ffn"][1],
               activation_function=c["act"], **{"scale_embedding": c["scale"], **extra},
               dropout=0.1, attention_dropout=0.1, activation_dropout=0.0,
               bos_token_id=bos, pad_token_id=pad, eos_token_id=eos,
               decoder_start_token_id=start, forced_eos_token_id=None, init_std=0.3)


def model_of(c, layers, seed):
    torch.manual_seed(seed)
    _, pad, eos, _ = ids_of(c)
    model = CLASSES[c["cls"]][1](config_of(c, layers)).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if c["cls"] in SINUSOIDS and "embed_positions" in name:
                continue
            if name.endswith("bias"):
                p.normal_(0.0, 0.2)
            elif "norm" in name:
                p.normal_(1.0, 0.2)
            elif "shared" in name or "embed" in name or "lm_head" in name:
                p.normal_(0.0, 0.35)
            elif "relative" in name:
                p.normal_(0.0, 0.6)
            elif "d_kv" in c:  # init_std of the others
                p.normal_(0.0, 0.3)
        if c["cls"] in ("bart", "mbart"):
            model.model.shared.weight[pad].normal_(0.0, 0.35)
        if c["bias"]:
            model.final_logits_bias.normal_(0.0, 0.5)
            model.final_logits_bias[0, eos] += 1.7
            model.final_logits_bias[0, pad] -= 2.0
    return model


def save(model, path, keep_bias):
    os.makedirs(path, exist_ok=True)
    model.generation_config = GenerationConfig.from_model_config(model.config)
    model.save_pretrained(path)
    trained = {k for k, p in model.named_parameters() if p.requires_grad}  # one name each
    state = {k: v.clone() for k, v in model.state_dict().items() if k in trained}
    if keep_bias:
        state["final_logits_bias"] = model.final_logits_bias.clone()
    save_file(state, os.path.join(path, "model.safetensors"), metadata={"format": "pt"})


def pad_rows(rows, fill):
    width = max(map(len, rows))
    return torch.tensor([r + [fill] * (width - len(r)) for r in rows])


def ragged(t, lengths):
    return torch.cat([t[i, :n] for i, n in enumerate(lengths)])


def run(model, src, dec):
    pad = model.config.pad_token_id
    base = model.model if hasattr(model, "model") else model
    ids = pad_rows(src, pad)
    mask = pad_rows([[1] * len(r) for r in src], 0)
    hooks, inner = [], {}
    for stack in ("encoder", "decoder"):
        part = getattr(base, stack)
        for k, layer in enumerate(part.block if hasattr(part, "block") else part.layers):
            def keep(_m, _a, out, key=(stack, k)):
                h = out[0] if isinstance(out, tuple) else out
                inner[key] = h.transpose(0, 1) if model.config.model_type == "fsmt" else h
            hooks.append(layer.register_forward_hook(keep))
    out = model(input_ids=ids, attention_mask=mask, decoder_input_ids=pad_rows(dec, pad),
                use_cache=False)
    for h in hooks:
        h.remove()
    ns, nt = [len(r) for r in src], [len(r) for r in dec]
    states = {k: ragged(v, ns if k[0] == "encoder" else nt) for k, v in inner.items()}
    return ragged(out.logits, nt), states


def hidden(s, t, normalize):
    if normalize:
        s, t = F.layer_norm(s, s.shape[-1:]), F.layer_norm(t, t.shape[-1:])
    return ((s - t) ** 2).sum() / s.numel()


def golden(c, model, teacher, path):
    _, pad, eos, start = ids_of(c)
    gen = torch.Generator().manual_seed(100 + c["seed"])
    src, lab = [], []
    for ns, nt in ((5, 4), (1, 1), (11, 7), (8, 9)):
        src.append(torch.randint(4, c.get("V_src", c["V"]), (ns,), generator=gen).tolist())
        lab.append(torch.randint(4, c["V"], (nt,), generator=gen).tolist() + [eos])
    src[0][2] = max(pad - 1, 0)
    if c["cls"] != "fsmt":  # which masks it and gives it no position
        lab[2][3] = pad  # a pad id inside a sequence: its lookup may give no gradient
    first = [r[-1] if c["cls"] == "mbart" else start for r in lab]
    dec = [[f] + r[:-1] for f, r in zip(first, lab)]
    labels = torch.tensor(sum(lab, []))
    logits, states = run(model, src, dec)
    z = logits.double()  # losses in float64, so that the fixture is sharper than a test
    logp = F.log_softmax(z, -1)
    ce = F.nll_loss(logp, labels)
    smooth = 0.9 * ce + 0.1 / c["V"] * (-logp.sum(-1)).mean()
    ce.backward(retain_graph=True)
    expect = {"logits": logits.detach().clone()}
    for name, p in model.named_parameters():
        if p.requires_grad:
            expect["grad." + name] = p.grad.clone()
    with torch.no_grad():
        t_logits, t_states = run(teacher, src, dec)
    T = 2.0
    kl = T * T * F.kl_div(F.log_softmax(z / T, -1), F.log_softmax(t_logits.double() / T, -1),
                          log_target=True, reduction="sum") / len(labels)
    hid = {}
    for stack, matches in zip(("encoder", "decoder"), c["matches"]):
        for normalize in (False, True):
            hid[stack[:3] + ("_norm" if normalize else "_plain")] = sum(
                hidden(states[stack, k].double(), t_states[stack, m].double(), normalize)
                for k, m in enumerate(matches)).item()
    # the gradient of a blend, of a few parameters: every loss path meets there
    model.zero_grad()
    blend = 0.8 * kl + 0.2 * smooth
    for stack, matches in zip(("encoder", "decoder"), c["matches"]):
        for k, m in enumerate(matches):
            blend = blend + 3.0 * hidden(states[stack, k], t_states[stack, m], True)
    blend.backward()
    for name, p in model.named_parameters():
        if p.requires_grad and (p.ndim == 1 or "shared" in name or "embed_tokens" in name):
            expect["blend." + name] = p.grad.clone()
    os.makedirs(path + "/expect", exist_ok=True)
    save_file(expect, path + "/expect/model.safetensors", metadata={"format": "pt"})
    with open(path + "/golden.json", "w") as f:
        json.dump(dict(source=src, labels=lab, decoder=dec, loss=ce.item(),
                       smooth_loss=smooth.item(), label_smoothing=0.1, kl_loss=kl.item(),
                       temperature=T, encoder_matches=c["matches"][0],
                       decoder_matches=c["matches"][1], hidden=hid, blend=dict(
                           alpha_ce=0.8, alpha_mlm=0.2, alpha_hid=3.0, normalize=True,
                           loss=blend.item()),
                       n_parameters=sum(p.numel() for p in model.parameters()
                                        if p.requires_grad)), f)


def options_of(eos):
    def with_eos(v):
        return [eos if x == "eos" else x for x in v] if isinstance(v, list) else v

    return [{k: eos if v == "eos" else with_eos(v) for k, v in o.items()}
            for o in OPTIONS]


OPTIONS = [
    dict(num_beams=1, max_length=14),
    dict(num_beams=1, max_length=16, min_length=8, no_repeat_ngram_size=2),
    dict(num_beams=1, max_length=16, repetition_penalty=1.3),
    dict(num_beams=1, max_length=10, forced_bos_token_id=7, forced_eos_token_id="eos"),
    dict(num_beams=2, max_length=14),
    dict(num_beams=4, max_length=14),
    dict(num_beams=4, max_length=14, length_penalty=0.0),
    dict(num_beams=4, max_length=14, length_penalty=0.6),
    dict(num_beams=4, max_length=14, length_penalty=2.0),
    dict(num_beams=4, max_length=14, length_penalty=-1.0),
    dict(num_beams=4, max_length=14, early_stopping=True),
    dict(num_beams=4, max_length=14, early_stopping=True, length_penalty=2.0),
    dict(num_beams=4, max_length=14, early_stopping="never"),
    dict(num_beams=4, max_length=14, early_stopping="never", length_penalty=2.0),
    dict(num_beams=4, max_length=16, min_length=9),
    dict(num_beams=4, max_length=18, no_repeat_ngram_size=2),
    dict(num_beams=4, max_length=18, no_repeat_ngram_size=3, min_length=10,
         length_penalty=2.0, early_stopping=True),
    dict(num_beams=4, max_length=14, repetition_penalty=1.3),
    dict(num_beams=4, max_length=14, num_return_sequences=4),
    dict(num_beams=5, max_length=12, num_return_sequences=3, early_stopping=True),
    dict(num_beams=4, max_length=10, forced_bos_token_id=7, forced_eos_token_id="eos"),
    dict(num_beams=4, max_length=12, forced_eos_token_id="eos", num_return_sequences=2),
    dict(num_beams=3, max_length=6, num_return_sequences=3),
    dict(num_beams=4, max_length=25, min_length=20, no_repeat_ngram_size=1),
    dict(num_beams=1, max_length=16, encoder_no_repeat_ngram_size=1, min_length=6),
    dict(num_beams=1, max_length=16, encoder_repetition_penalty=1.5),
    dict(num_beams=1, max_length=16, begin_suppress_tokens=[7, "eos", 9, 30],
         exponential_decay_length_penalty=[4, 1.2]),
    dict(num_beams=4, max_length=16, encoder_no_repeat_ngram_size=2,
         encoder_repetition_penalty=0.7, repetition_penalty=1.2),
    dict(num_beams=4, max_length=16, encoder_repetition_penalty=1.6,
         num_return_sequences=2, renormalize_logits=True),
    dict(num_beams=4, max_length=18, renormalize_logits=True, no_repeat_ngram_size=2,
         suppress_tokens=[5, 11, 12, 13]),
    dict(num_beams=4, max_length=16, exponential_decay_length_penalty=[3, 1.3],
         begin_suppress_tokens=["eos", 8]),
    dict(num_beams=4, max_length=14, num_beam_groups=2, diversity_penalty=0.8,
         num_return_sequences=4),
    dict(num_beams=6, max_length=14, num_beam_groups=3, diversity_penalty=1.5,
         num_return_sequences=3, length_penalty=2.0, early_stopping=True),
    dict(num_beams=3, max_length=16, num_beam_groups=3, diversity_penalty=0.5,
         num_return_sequences=3, min_length=6, no_repeat_ngram_size=2,
         early_stopping="never", length_penalty=0.6),
    dict(num_beams=4, max_length=12, num_beam_groups=2, diversity_penalty=2.0,
         num_return_sequences=2, forced_bos_token_id=7, forced_eos_token_id="eos",
         encoder_repetition_penalty=1.3),
]


def options_for(c):
    _, pad, eos, _ = ids_of(c)
    for options in options_of(eos):
        if c.get("V_src", c["V"]) != c["V"]:  # ids of the source are none of the decoder's
            options = {k: v for k, v in options.items() if not k.startswith("encoder_")}
        if c["cls"] == "fsmt":  # gives a pad that was generated no position
            options["bad_words_ids"] = [[pad]]
        yield options


def trim(row, eos):
    row = row[1:]
    return row[:row.index(eos) + 1] if eos in row else row


def whole_prefix(model):
    """FSMT wants the whole prefix in each step, to count positions, and cuts it itself;
    transformers 4.57 hands it the last token, which then always has the first position."""
    prepare = model.prepare_inputs_for_generation

    def with_prefix(ids, **kwargs):
        return {**prepare(ids, **kwargs), "decoder_input_ids": ids}

    model.prepare_inputs_for_generation = with_prefix


def by_groups(model, source, config, eos):
    def logits_of(prefixes):
        ids = torch.tensor([source] * len(prefixes))
        return model(input_ids=ids, decoder_input_ids=prefixes, use_cache=False).logits[:, -1]

    rows, scores = group_beams(model, config, source, logits_of)
    return [trim(r, eos) for r in rows], scores


def only_options(c, model):
    """What an option leaves at its default would come from the model's own settings."""
    bos, pad, eos, start = ids_of(c)
    model.generation_config = GenerationConfig(bos_token_id=bos, pad_token_id=pad,
                                               eos_token_id=eos,
                                               decoder_start_token_id=start)
    if c["cls"] == "fsmt":
        whole_prefix(model)


def generate(c, model, sources, options):
    defaults = dict(min_length=0, length_penalty=1.0, early_stopping=False,
                    no_repeat_ngram_size=0, repetition_penalty=1.0, num_return_sequences=1,
                    forced_bos_token_id=None, forced_eos_token_id=None)
    bos, pad, eos, start = ids_of(c)
    config = GenerationConfig(bos_token_id=bos, pad_token_id=pad, eos_token_id=eos,
                              decoder_start_token_id=start, do_sample=False,
                              return_dict_in_generate=True, output_scores=True,
                              **{**defaults, **options})
    if options.get("num_beam_groups", 1) > 1:
        with torch.no_grad():
            out = [by_groups(model, s, config, eos) for s in sources]
        return sum((o[0] for o in out), []), sum((o[1] for o in out), []), {**defaults, **options}
    out = model.generate(input_ids=pad_rows(sources, pad),
                         attention_mask=pad_rows([[1] * len(r) for r in sources], 0),
                         generation_config=config)
    scores = getattr(out, "sequences_scores", None)
    return ([trim(r, eos) for r in out.sequences.tolist()],
            None if scores is None else scores.tolist(), {**defaults, **options})


def beams(c, model, path):
    gen = torch.Generator().manual_seed(200 + c["seed"])
    eos = ids_of(c)[2]
    only_options(c, model)
    sources = [torch.randint(3, c.get("V_src", c["V"]), (n,), generator=gen).tolist() + [eos]
               for n in (3, 12, 7, 1, 20)]
    cases = []
    for options in options_for(c):
        ids, scores, full = generate(c, model, sources, options)
        alone = [generate(c, model, [s], options) for s in sources]
        if any(k.startswith("encoder_") for k in options):
            # a padded source holds pads for these
            ids, scores = sum((a[0] for a in alone), []), sum((a[1] or [] for a in alone), [])
        assert ids == sum((a[0] for a in alone), []), (path, options)
        cases.append(dict(options=full, sources=sources, outputs=ids, scores=scores or None))
    with open(path + "/beams.json", "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(x) for x in cases) + "\n]\n")


def main():
    penalise_every_beam()
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    for name in sys.argv[2:] or CASES:
        c = CASES[name]
        path = os.path.join(root, name)
        model = model_of(c, c["layers"], c["seed"])
        save(model, path, c["bias"])
        teacher = model_of(c, c["teacher"], 10 + c["seed"])
        save(teacher, path + "/teacher", c["bias"])
        golden(c, model, teacher, path)
        beams(c, model, path)


if __name__ == "__main__":
    main()
