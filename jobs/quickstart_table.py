#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Print what the quickstart found: a table of its models, and a few sources with all outputs.

    quickstart_table.py RUN_DIR
"""
import json
import math
import os
import struct
import sys
import textwrap

ROWS = [  # name of the evaluation, what it is, model directory (below RUN_DIR unless it exists as it stands)
    ("lead", "lead: first 10 words", None),
    ("teacher", "teacher", "inputs/teacher"),
    ("student", "student as copied", "student"),
    ("sft", "student, fine-tuned", "sft/model"),
    ("sft-pseudo", "  on pseudo-labels", "sft-pseudo/model"),
    ("kd", "student, distilled", "kd/model"),
]
N_EXAMPLES = 5


def parameters(model):
    """Number of weights in a model directory, from the header of its file."""
    with open(os.path.join(model, "model.safetensors"), "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    return sum(math.prod(t["shape"]) for name, t in header.items() if name not in ("__metadata__", "final_logits_bias"))


def lines(path):
    with open(path, encoding="utf-8") as f:
        return [line.rstrip("\n") for line in f]


def main():
    run = sys.argv[1]
    done = [r for r in ROWS if os.path.exists(f"{run}/eval/{r[0]}/metrics.json")]
    print(f"{'model':<22} {'parameters':>11} {'ROUGE-1':>8} {'ROUGE-2':>8} {'ROUGE-L':>8} {'outputs/s':>10}")
    for name, what, model in done:
        with open(f"{run}/eval/{name}/metrics.json", encoding="utf-8") as f:
            m = json.load(f)
        size = speed = "-"
        if model:
            size = f"{parameters(model if os.path.isdir(model) else f'{run}/{model}') / 1e6:.2f} M"
            speed = f"{1 / m['seconds_per_sample']:.1f}"
        print(f"{what:<22} {size:>11} {m['rouge1']:>8.2f} {m['rouge2']:>8.2f} {m['rougeL']:>8.2f} {speed:>10}")
    n = m["n_obs"]
    print(f"\n{n} examples of the test split; the last ROUGE-1 is within {m['rouge1_low']:.2f} to {m['rouge1_high']:.2f} (95%).")
    sources, targets = lines(f"{run}/data/test.source"), lines(f"{run}/data/test.target")
    outputs = {name: lines(f"{run}/eval/{name}/generations.txt") for name, _, _ in done}
    for i in range(0, n, max(1, n // N_EXAMPLES)):
        if i // max(1, n // N_EXAMPLES) >= N_EXAMPLES:
            break
        print(f"\n{textwrap.shorten(sources[i], 300)}\n  {'by people':<22} {targets[i]}")
        for name, what, _ in done:
            print(f"  {what:<22} {outputs[name][i]}")


if __name__ == "__main__":
    main()
