# SPDX-License-Identifier: Apache-2.0
"""Every family, from every way of storing a checkpoint, through the program and back into transformers:

readback_families.py PROGRAM GOLDEN

What `convert` and `make-student` write loads without a missing, unexpected or mismatched tensor and without a
warning, and gives the logits of the model that went in.  Works in the current directory.
"""
import json
import logging
import os
import shutil
import subprocess
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoConfig, AutoModelForSeq2SeqLM, BertConfig, BertModel  # noqa: E402

PROGRAM, GOLDEN = sys.argv[1:3]
FAMILIES = "bart bart_uneven mbart pegasus marian marian_two fsmt t5 t5_gated mt5".split()
RECORDS = []


class Keep(logging.Handler):
    def emit(self, record):
        RECORDS.append(record.getMessage())


transformers.utils.logging.set_verbosity_warning()
transformers.utils.logging.disable_progress_bar()
logging.getLogger("transformers").addHandler(Keep(level=logging.WARNING))


def run(*args, code=0):
    done = subprocess.run([PROGRAM, *args], capture_output=True, text=True)
    assert done.returncode == code, (args, done.returncode, done.stderr)
    return done.stderr


def logits(model):
    x, y = torch.arange(3, 14)[None], torch.arange(4, 11)[None]
    with torch.no_grad():
        return model(input_ids=x, decoder_input_ids=y, use_cache=False).logits


def reference(path):
    """The model of a golden directory, made and filled by hand: transformers' loader leaves FSMT's positions unset."""
    model = AutoModelForSeq2SeqLM.from_config(AutoConfig.from_pretrained(path))
    _, unexpected = model.load_state_dict(load_file(path + "/model.safetensors"), strict=False)
    assert not unexpected, unexpected
    model.tie_weights()
    return model.eval()


def check(path, want, dtype):
    """PATH loads in silence and gives the logits WANT: the same bits, but for positions that we compute ourselves."""
    RECORDS.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        model, info = AutoModelForSeq2SeqLM.from_pretrained(path, output_loading_info=True)
    assert not any(info.values()), (path, info)
    assert not RECORDS and not caught, (path, RECORDS, [str(w.message) for w in caught])
    worst = (logits(model.eval()) - want).abs().max().item()
    assert worst <= (1e-5 if model.config.model_type == "fsmt" else 0), (path, worst)
    with open(path + "/config.json") as f:
        config = json.load(f)
    assert config.get("dtype", config.get("torch_dtype")) == dtype, config
    assert not any(n.endswith(".bin") or n.endswith(".part") for n in os.listdir(path)), os.listdir(path)


def store(path, model, state, way):
    """A directory with MODEL's config, STATE stored in one of the ways of the hub, and other files."""
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    model.config.save_pretrained(path)
    model.generation_config.save_pretrained(path)
    with open(path + "/README.md", "w") as f:
        f.write("a card\n")
    with open(path + "/training_args.bin", "wb") as f:
        f.write(b"not weights")
    names = sorted(state)
    if way == "bin":
        torch.save({k: state[k] for k in names}, path + "/pytorch_model.bin")
    elif way == "shards":
        parts = {"pytorch_model-%05d-of-00003.bin" % (i + 1): names[i::3] for i in range(3)}
        for file, part in parts.items():
            torch.save({k: state[k] for k in part}, os.path.join(path, file))
        index = {"metadata": {"total_size": 0}, "weight_map": {k: f for f, part in parts.items() for k in part}}
        with open(path + "/pytorch_model.bin.index.json", "w") as f:
            json.dump(index, f)
    else:
        save_file({k: state[k].clone().contiguous() for k in names}, path + "/model.safetensors", {"format": "pt"})


def old_names(state, prefix):
    """Without the base model's prefix, with TensorFlow's words for norms, with what old files hold beside weights."""
    out = {}
    for name, value in state.items():
        name = name[len(prefix):] if prefix and name.startswith(prefix) else name
        if "norm" in name:
            name = name.replace(".weight", ".gamma").replace(".bias", ".beta")
        out[name] = value
    out["encoder.position_ids"] = torch.arange(7)[None]
    return out


def family(name):
    model = reference(os.path.join(GOLDEN, name))
    want, full = logits(model), model.state_dict()
    prefix = "model." if any(k.startswith("model.") for k in full) else ""
    run("--mode", "convert", "--model", os.path.join(GOLDEN, name), "--output_dir", "plain")
    check("plain", want, "float32")
    for way, state in (("bin", full), ("shards", full), ("safetensors", old_names(full, prefix))):
        store("in", model, state, way)
        shutil.rmtree("out", ignore_errors=True)
        run("--mode", "convert", "--model", "in", "--output_dir", "out")
        check("out", want, "float32")
        assert {"README.md", "model.safetensors"} <= set(os.listdir("out")), os.listdir("out")
        run("--mode", "make-student", "--teacher", "in", "--output_dir", "out", "--overwrite")
        check("out", want, "float32")
    for dtype in ("float16", "bfloat16"):
        half = reference(os.path.join(GOLDEN, name))
        with torch.no_grad():
            for key, p in list(half.named_parameters()) + list(half.named_buffers()):
                if p.is_floating_point() and ("embed_positions" not in key or p.requires_grad):
                    p.copy_(p.to(getattr(torch, dtype)).float())
        store("in", model, {k: v.to(getattr(torch, dtype)) if v.is_floating_point() and not (
            "embed_positions" in k and model.config.model_type in ("pegasus", "marian", "fsmt")) else v
            for k, v in full.items()}, "bin")
        run("--mode", "convert", "--model", "in", "--output_dir", "out", "--overwrite")
        check("out", logits(half), dtype)
        run("--mode", "convert", "--model", "plain", "--save_dtype", dtype, "--max_shard_size", "10KB", "--output_dir",
            "out", "--overwrite")
        check("out", logits(half), dtype)
        check_shards("out", 10000)
        run("--mode", "convert", "--model", "out", "--output_dir", "out", "--overwrite")  # in place, one file again
        check("out", logits(half), dtype)
        assert "model.safetensors.index.json" not in os.listdir("out"), os.listdir("out")
    report = json.loads(subprocess.run([PROGRAM, "--mode", "inspect", "--path", "plain", "--json"], check=True,
                                       capture_output=True, text=True).stdout)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert report["usable"] and report["parameters"]["trainable"] == trained, (report, trained)


def check_shards(path, limit):
    with open(path + "/model.safetensors.index.json") as f:
        index = json.load(f)
    files, total = {}, 0
    for name, file in index["weight_map"].items():
        files.setdefault(file, []).append(name)
    assert len(files) > 1 and sorted(files) == sorted(n for n in os.listdir(path) if n.endswith(".safetensors"))
    for file, names in files.items():
        with safe_open(os.path.join(path, file), "pt") as f:
            assert sorted(f.keys()) == sorted(names) and f.metadata() == {"format": "pt"}
            sizes = [f.get_tensor(k).nbytes for k in names]
        total += sum(sizes)
        assert sum(sizes) <= limit or len(sizes) == 1, (file, sizes)
    assert total == index["metadata"]["total_size"], (total, index["metadata"])


def another_family():
    """Tensors of a model that is not ours keep names and values, integers too; memory and order do not matter."""
    config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
                        max_position_embeddings=20)
    torch.manual_seed(3)
    model = BertModel(config).eval()
    state = dict(model.state_dict(), **{"embeddings.position_ids": torch.arange(20)[None]})
    os.makedirs("bert")
    config.save_pretrained("bert")
    torch.save(state, "bert/pytorch_model.bin")
    assert "tensors keep their names" in run("--mode", "convert", "--model", "bert", "--output_dir", "bert_out")
    got = load_file("bert_out/model.safetensors")
    assert got.keys() == state.keys() and all(torch.equal(got[k], state[k]) for k in got)
    run("--mode", "convert", "--model", "bert", "--output_dir", "bert_out", "--overwrite", "--save_dtype", "bfloat16")
    got = load_file("bert_out/model.safetensors")
    assert got["embeddings.position_ids"].dtype == torch.int64
    assert torch.equal(got["pooler.dense.weight"], state["pooler.dense.weight"].bfloat16())
    BertModel.from_pretrained("bert_out")


for name in FAMILIES:
    family(name)
    print(name, flush=True)
    shutil.rmtree("plain")
another_family()
