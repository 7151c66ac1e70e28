# SPDX-License-Identifier: Apache-2.0
"""What PyTorch and transformers make of the work of `kdhpc --mode bench`: a line of JSON for each figure.

peer.py --out FILE [--what gemm,attention,train,kd,generate] [--tiny]; --tiny takes small shapes and the CPU.
A figure that fails is told, and the others go on.
"""
import argparse
import json
import os
import sys
import traceback

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import torch  # noqa: E402

import peer_attention  # noqa: E402
import peer_generate  # noqa: E402
import peer_train  # noqa: E402

WHAT = {"gemm": peer_attention.product, "attention": peer_attention.attention, "train": peer_train.train, "kd": peer_train.distil,
        "generate": peer_generate.generate}


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", required=True)
    p.add_argument("--what", default=",".join(WHAT))
    p.add_argument("--tiny", action="store_true")
    p.add_argument("--compile", action="store_true", help="torch.compile in train and kd")
    p.add_argument("--precisions", default="master,autocast")
    p.add_argument("--sortish", type=int, default=1, help="updates on examples of similar lengths")
    p.add_argument("--budgets", default="16384,32768,65536", help="tokens of a generation batch, padded sources and outputs")
    p.add_argument("--seconds", type=float, default=12, help="time for one size of generation batches")
    p.add_argument("--warm_seconds", type=float, default=120)
    for name, value in (("d_model", 1024), ("n_heads", 16), ("encoder_layers", 12), ("decoder_layers", 12), ("student_decoder_layers", 3),
                        ("vocab_size", 50265), ("tokens", 16384), ("max_tokens_per_batch", 16384), ("steps", 24), ("warm_steps", 0),
                        ("num_beams", 4), ("gen_length", 64), ("n_sources", 2000), ("peak_side", 8192), ("seed", 42)):
        p.add_argument("--" + name, type=int, default=value)
    o = p.parse_args()
    if o.tiny:
        o.d_model, o.n_heads, o.encoder_layers, o.decoder_layers, o.student_decoder_layers = 32, 2, 2, 2, 1
        o.vocab_size, o.tokens, o.max_tokens_per_batch, o.steps, o.warm_steps = 200, 400, 600, 3, 1
        o.num_beams, o.gen_length, o.n_sources, o.peak_side, o.budgets, o.seconds = 2, 4, 24, 64, "300,600", 0.1
    o.precisions, o.budgets = o.precisions.split(","), [int(x) for x in o.budgets.split(",")]
    o.dtype = torch.bfloat16
    return o


def main():
    o = options()
    device = torch.device("cpu" if o.tiny else "cuda")
    torch.manual_seed(o.seed)
    if device.type == "cuda":
        print(torch.__version__, torch.cuda.get_device_name(), flush=True)
    failed = False
    with open(o.out, "a") as f:
        for what in o.what.split(","):
            def add(name, value, unit, **more):
                row = {"what": what, "name": name, "value": value, "unit": unit, **more}
                print(row, flush=True)
                f.write(json.dumps(row) + "\n")
                f.flush()

            try:
                WHAT[what](o, device, add)
            except Exception:
                failed = True
                print(f"{what} failed", flush=True)
                traceback.print_exc()
            f.write(json.dumps({"what": what, "done": True}) + "\n")
            f.flush()
    sys.exit(1 if failed else 0)


main()
