# SPDX-License-Identifier: Apache-2.0
"""Small files of torch.save in all the ways that occur, and what they hold:  make_torchbin.py [FOLDER]

Made with torch 2.15.0 and safetensors 0.8.0.  expect.safetensors has every tensor of plain.bin as float32.
"""
import collections
import os
import sys
import zipfile

import torch
from safetensors.torch import save_file

torch.manual_seed(1)
root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "torchbin")
os.makedirs(root, exist_ok=True)


def at(name):
    return os.path.join(root, name)


base = torch.arange(24, dtype=torch.float32).reshape(4, 6) - 7.25
tied = torch.randn(3, 2)
state = collections.OrderedDict(
    matrix=torch.randn(2, 3),
    half=torch.tensor([1.0, -2.5, 65504.0, 6e-8, float("inf"), -0.0]).half(),
    brain=torch.randn(5).bfloat16(),
    double=torch.randn(2, 2, dtype=torch.float64),
    transposed=base.t(),
    window=base[1:3, 2:5],
    cube=torch.arange(24, dtype=torch.float32).reshape(2, 3, 4).permute(2, 0, 1),
    expanded=torch.tensor([[1.5], [2.5]]).expand(2, 3),
    scalar=torch.tensor(3.5),
    empty=torch.zeros(0, 4),
    parameter=torch.nn.Parameter(torch.randn(3)),
    ids=torch.arange(5),
    flags=torch.tensor([True, False]),
)
state["tied.a"] = tied
state["tied.b"] = tied
state._metadata = collections.OrderedDict({"": dict(version=1), "x": dict(version=2, assign=True)})
torch.save(state, at("plain.bin"))
torch.save(state, at("protocol4.bin"), pickle_protocol=4)
torch.save({"epoch": 3, "loss": 0.5, "none": None, "args": ["a", 1], "state_dict": dict(state)}, at("nested.bin"))
torch.save(collections.OrderedDict(matrix=state["matrix"]), at("old.bin"), _use_new_zipfile_serialization=False)
with open(at("old.bin"), "r+b") as f:  # a storage is named by where it lay in memory
    name = str(state["matrix"].untyped_storage()._cdata).encode()
    old = f.read()
    assert name in old
    f.seek(0)
    f.write(old.replace(name, b"7" * len(name)))
save_file({k: v.detach().float().contiguous().clone() for k, v in state.items()}, at("expect.safetensors"))


class Evil:
    def __reduce__(self):
        return os.system, ("echo this must never run",)


torch.save({"matrix": state["matrix"], "evil": Evil()}, at("evil.bin"))
with zipfile.ZipFile(at("plain.bin")) as src, zipfile.ZipFile(at("packed.bin"), "w", zipfile.ZIP_DEFLATED) as out:
    for info in src.infolist():
        out.writestr(zipfile.ZipInfo(info.filename), src.read(info), zipfile.ZIP_DEFLATED)
with zipfile.ZipFile(at("plain.bin")) as src, zipfile.ZipFile(at("lacking.bin"), "w") as out:
    for info in src.infolist():
        if not info.filename.endswith("data/2"):
            out.writestr(zipfile.ZipInfo(info.filename), src.read(info))
