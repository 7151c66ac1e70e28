# SPDX-License-Identifier: Apache-2.0
"""Fixtures of tests/golden as models of a tiny tokenizer, and what modes must do to their tensors (standard library
only)."""
import json
import os
import random
import re
import shutil
import struct

from runs import close, read_json, steps, tensors

PAD, EOS = 0, 1  # of the tokenizer
STARTS_WITH_PAD = ("pegasus", "marian", "t5", "mt5")


def write_data(folder):
    """Lines of made-up words from few letters, so that few pieces are enough."""
    rng = random.Random(1)
    words = ["".join(rng.choice("abcdefgh") for _ in range(rng.randint(1, 4))) for _ in range(30)]
    os.mkdir(folder)
    for split, n in (("train", 24), ("val", 5), ("test", 7)):
        for side, most in (("source", 8), ("target", 4)):
            with open("%s/%s.%s" % (folder, split, side), "w") as f:
                for _ in range(n):
                    f.write(" ".join(rng.choice(words) for _ in range(rng.randint(1, most))) + "\n")


def adopt(fixture, folder, tokenizer):
    """A copy of FIXTURE that says the special ids of TOKENIZER, whose files it gets."""
    shutil.copytree(tokenizer, folder)
    shutil.copy(fixture + "/model.safetensors", folder)
    kind = read_json(fixture + "/config.json")["model_type"]
    ids = dict(bos_token_id=None, pad_token_id=PAD, eos_token_id=EOS,
               decoder_start_token_id=PAD if kind in STARTS_WITH_PAD else EOS)
    for name in ("config.json", "generation_config.json"):
        with open("%s/%s" % (folder, name), "w") as f:
            json.dump({**read_json(fixture + "/" + name), **ids}, f)


def weights(model):
    """Name -> bytes; FSMT's table of targets may go by the name of its head."""
    return {n.replace("decoder.output_projection.", "decoder.embed_tokens."): v for n, v in tensors(model).items()}


def depths(config):
    names = ("num_layers", "num_decoder_layers") if "d_kv" in config else ("encoder_layers", "decoder_layers")
    return [config[n] for n in names]


def last_layers(model):
    return [n - 1 for n in depths(read_json(model + "/config.json"))]


def copied(teacher, student, enc, dec):
    """STUDENT has one layer a stack, ENC and DEC of TEACHER; what belongs to no layer is whole."""
    config, t, s = read_json(student + "/config.json"), weights(teacher), weights(student)
    assert depths(config) == [1, 1] and config["init_metadata"]["copied_decoder_layers"] == [dec], config
    for name, value in s.items():
        source = name
        if "relative_attention_bias" not in name:  # a stack's, though it bears a layer's name
            source = re.sub(r"encoder\.(layers|block)\.0\.", r"encoder.\1.%d." % enc, source)
            source = re.sub(r"decoder\.(layers|block)\.0\.", r"decoder.\1.%d." % dec, source)
        if source in t or not ("embed_positions" in name or name == "final_logits_bias"):  # which files may lack
            assert value == t[source], (name, source)
    outside = {n for n in t if not re.search(r"(layers|block)\.\d", n) or "relative_attention_bias" in n}
    assert outside <= set(s), outside - set(s)


def in_encoder(name):
    return "encoder." in name or "shared" in name


def in_tables(name):
    return "shared" in name or "embed_tokens" in name or "embed_positions" in name


def frozen(before, after, is_frozen):
    """Training changed all but what IS_FROZEN (by name) and constants."""
    a, b, config = weights(before), weights(after), read_json(after + "/config.json")
    sinusoids = config["model_type"] in ("pegasus", "marian", "fsmt")
    for name in a:
        if "k_proj.bias" in name:  # attention does not depend on it
            continue
        constant = name == "final_logits_bias" or (sinusoids and "embed_positions" in name)
        assert (a[name] == b[name]) == (constant or is_frozen(name)), name
    assert any(a[n] != b[n] for n in a)


def old_start(plain, old, model):
    """The reference of 2020 began targets with their last id in all families but T5; what a run without it does
    differs where decoders start with something else than eos."""
    kind = read_json(model + "/config.json")["model_type"]
    same = close(steps(plain)[0]["mlm"], steps(old)[0]["mlm"], 1e-12)
    assert same == (kind not in ("pegasus", "marian")), (kind, steps(plain)[0], steps(old)[0])


def untimed(metrics):
    """metrics.json without what differs from run to run."""
    return {k: v for k, v in metrics.items() if "second" not in k and "per_s" not in k}
