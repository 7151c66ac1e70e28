# SPDX-License-Identifier: Apache-2.0
"""What the program wrote, read by the libraries its users have:  readback.py MODEL... -- FILE.h5...

The output of --mode score of each MODEL on inputs/tiny's test split lies in MODEL.score; the
reference's losses of the same 20 sentences must be the same, example by example.
Exit code 77: the libraries are not there.
"""
import logging
import os
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
try:
    import h5py
    import sentencepiece  # noqa: F401 (AutoTokenizer needs it)
    import torch
    import transformers
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
except ImportError as e:
    print("skipped: %s (KDHPC_TEST_PYTHON names another interpreter)" % e)
    sys.exit(77)
RECORDS = []


class Keep(logging.Handler):
    def emit(self, record):
        RECORDS.append(record.getMessage())


def load(path):
    """Model and tokenizer, without a word of complaint, also when the model generates and is saved."""
    transformers.utils.logging.set_verbosity_warning()
    logging.getLogger("transformers").addHandler(Keep(level=logging.WARNING))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        model, info = AutoModelForSeq2SeqLM.from_pretrained(path, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(path)
        model.generate(**tokenizer("a word", return_tensors="pt", return_token_type_ids=False))
        model.save_pretrained(path + ".saved")
    assert model.generation_config.num_beams == 2 and model.generation_config.max_length == 12, model.generation_config
    assert not any(info.values()), info
    assert not RECORDS and not [w for w in caught if issubclass(w.category, UserWarning)], \
        (RECORDS, [str(w.message) for w in caught])
    return model.eval(), tokenizer


def check(path):
    model, tokenizer = load(path)
    with h5py.File("corpus/corpus.h5") as f, h5py.File(path + ".score/examples.h5") as s:
        test = f["test"]
        assert s["id"][:].tolist() == list(range(20)) == test["id"][:].tolist()
        ids = {}
        for side in ("source", "target"):
            at, values = test[side]["offsets"][:], test[side]["values"][:]
            ids[side] = [values[at[i]:at[i + 1]].tolist() for i in range(20)]
            at, text = test[side + "_text"]["offsets"][:], test[side + "_text"]["values"][:]
            lines = [bytes(text[at[i]:at[i + 1]]).decode() for i in range(20)]
            limit = 48 if side == "source" else 20
            want = tokenizer(lines, truncation=True, max_length=limit)["input_ids"]
            assert ids[side] == want, side
        for i in range(20):
            y = torch.tensor([ids["target"][i]])
            start = torch.tensor([[model.config.decoder_start_token_id]])
            with torch.no_grad():
                z = model(input_ids=torch.tensor([ids["source"][i]]),
                          decoder_input_ids=torch.cat([start, y[:, :-1]], 1)).logits[0]
            nll = torch.nn.functional.cross_entropy(z.double(), y[0], reduction="sum").item()
            ours = float(s["nll"][i])
            assert abs(nll - ours) <= 1e-5 * nll, (path, i, nll, ours)
            assert s["n_labels"][i] == y.numel()
            assert s["n_correct"][i] == (z.argmax(-1) == y[0]).sum().item()


def open_h5(path):
    n = []
    with h5py.File(path) as f:
        assert f.attrs["schema"] and f.attrs["schema_version"] and f.attrs["kdhpc_version"], path
        f.visititems(lambda _, x: n.append(x[()]) if isinstance(x, h5py.Dataset) else None)
    assert n, path


between = sys.argv.index("--")
for name in sys.argv[1:between]:
    check(name)
for name in sys.argv[between + 1:]:
    open_h5(name)
