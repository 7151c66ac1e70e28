# SPDX-License-Identifier: Apache-2.0
"""What the modes wrote, loaded by transformers:  family_readback.py CORPUS MODEL...

No weight is missing, unexpected or of another shape, and the losses of the test split's examples, one by one, are those
that --mode score left in MODEL.score."""
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
import h5py
import torch
import transformers
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

transformers.utils.logging.set_verbosity_error()


def rows(group):
    at, values = group["offsets"][:], group["values"][:]
    return [values[a:b].tolist() for a, b in zip(at, at[1:])]


def check(corpus, path):
    model, info = AutoModelForSeq2SeqLM.from_pretrained(path, output_loading_info=True)
    assert not any(info.values()), (path, info)
    AutoTokenizer.from_pretrained(path)
    model.eval()
    with h5py.File(corpus) as f, h5py.File(path + ".score/examples.h5") as s:
        test, nll, correct = f["test"], s["nll"][:], s["n_correct"][:]
        pairs = list(zip(rows(test["source"]), rows(test["target"])))[:len(nll)]
    assert len(pairs) == len(nll) > 0
    for i, (source, target) in enumerate(pairs):
        last = model.config.model_type == "mbart"
        start = target[-1] if last else model.config.decoder_start_token_id
        ids = torch.tensor([source])
        with torch.no_grad():
            z = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False,
                      decoder_input_ids=torch.tensor([[start] + target[:-1]])).logits[0]
        want = torch.nn.functional.cross_entropy(z.double(), torch.tensor(target), reduction="sum").item()
        assert abs(want - nll[i]) <= 1e-5 * want, (path, i, want, nll[i])
        assert correct[i] == (z.argmax(-1) == torch.tensor(target)).sum().item(), (path, i)


if __name__ == "__main__":
    for name in sys.argv[2:]:
        check(sys.argv[1], name)
