# SPDX-License-Identifier: Apache-2.0
"""What a training run left, for the assertions of test scripts (standard library only)."""
import json
import math
import re
import struct

TERMS = ("ce", "mlm", "hid_enc", "hid_dec")
TIMES = ("seconds", "tokens_per_s", "mem_bytes", "val_seconds", "test_seconds")


def lines(run):
    """All lines of metrics.jsonl, without what differs from run to run."""
    with open(run + "/metrics.jsonl") as f:
        return [{k: v for k, v in json.loads(x).items() if k not in TIMES} for x in f]


def steps(run):
    """The lines of updates."""
    return [x for x in lines(run) if "loss" in x]


def checks(run, prefix="val"):
    """The lines of validations."""
    return [x for x in lines(run) if prefix + "_loss" in x]


def close(a, b, rel=1e-6):
    return a == b or abs(a - b) <= rel * max(abs(a), abs(b))


def assert_same(a, b, rel=1e-6, keys=None):
    """Two lists of lines agree in every number (of KEYS)."""
    assert len(a) == len(b) and a, (len(a), len(b))
    for x, y in zip(a, b):
        assert x.keys() == y.keys(), (x, y)
        for k in keys or x:
            assert close(x[k], y[k], rel), (k, x, y)


def tensors(model):
    """Name -> bytes of MODEL/model.safetensors."""
    with open(model + "/model.safetensors", "rb") as f:
        data = f.read()
    n, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + n])
    header.pop("__metadata__", None)
    return {k: data[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]]
            for k, v in header.items()}


def read_json(path):
    with open(path) as f:
        return json.load(f)
