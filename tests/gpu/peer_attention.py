# SPDX-License-Identifier: Apache-2.0
"""PyTorch's large product, and its flash attention over the ragged batch of `kdhpc --mode bench --what attention`.

Attention runs in every way that this PyTorch offers for ragged sequences; all are reported, and the fastest is the peer.
"""
import inspect

import torch
import torch.nn.functional as F

from peer_common import median_seconds, read_lengths


def product(o, device, add):
    side = o.peak_side
    a, b = (torch.randn(side, side, device=device, dtype=o.dtype) for _ in range(2))
    seconds = median_seconds(lambda: a @ b, device)
    add("peak", 2e-9 * side**3 / seconds, "GFLOP/s", setup=f"{side} x {side} x {side}")


class Ragged:
    """Queries, keys and values [tokens, heads, head size] of the first sources, until there are o.tokens of them."""

    def __init__(self, o, device):
        self.lengths, total = [], 0
        for source, _ in read_lengths():
            if total >= o.tokens:
                break
            self.lengths.append(source)
            total += source
        shape = (total, o.n_heads, o.d_model // o.n_heads)
        self.qkv = [torch.randn(shape, device=device, dtype=o.dtype, requires_grad=True) for _ in range(3)]
        self.dout = torch.randn(shape, device=device, dtype=o.dtype)
        ends = torch.tensor(self.lengths).cumsum(0)
        self.offsets = torch.cat([torch.zeros(1, dtype=torch.long), ends]).to(device)
        self.offsets32 = self.offsets.int()
        self.longest, self.width = max(self.lengths), o.d_model

    def gflop(self, causal):
        """Of the two products forward."""
        pairs = sum(n * (n + 1) // 2 if causal else n * n for n in self.lengths)
        return 4e-9 * pairs * self.width


def by_varlen(r, causal):
    from torch.nn.attention.varlen import varlen_attn
    if "is_causal" in inspect.signature(varlen_attn).parameters:
        mask = {"is_causal": causal}
    else:
        mask = {"window_size": (-1, 0) if causal else (-1, -1)}
    return lambda: varlen_attn(*r.qkv, r.offsets32, r.offsets32, r.longest, r.longest, **mask)


def by_flash_attn(r, causal):
    from flash_attn import flash_attn_varlen_func  # a package of its own, seldom there
    return lambda: flash_attn_varlen_func(*r.qkv, r.offsets32, r.offsets32, r.longest, r.longest, causal=causal)


def by_nested(r, causal):
    def call():
        parts = [torch.nested.nested_tensor_from_jagged(x, r.offsets, min_seqlen=min(r.lengths), max_seqlen=r.longest).transpose(1, 2)
                 for x in r.qkv]
        return F.scaled_dot_product_attention(*parts, is_causal=causal).transpose(1, 2).values()

    return call


def by_padding(r, causal):
    """Rows spread to a padded batch beforehand; keys beyond the end are masked by causality, or by a mask."""
    rows = torch.repeat_interleave(torch.arange(len(r.lengths), device=r.dout.device), torch.tensor(r.lengths, device=r.dout.device))
    cols = torch.arange(len(rows), device=r.dout.device) - r.offsets[rows]
    shape = (len(r.lengths), r.longest, *r.dout.shape[1:])

    def spread(x):
        return torch.zeros(shape, device=x.device, dtype=x.dtype).index_put((rows, cols), x.detach()).transpose(1, 2)

    padded = [spread(x).requires_grad_() for x in r.qkv]
    live = torch.arange(r.longest, device=r.dout.device)[None, :] < torch.tensor(r.lengths, device=r.dout.device)[:, None]
    mask = None if causal else live[:, None, None, :]
    r.padded = (padded, spread(r.dout))
    return lambda: F.scaled_dot_product_attention(*padded, attn_mask=mask, is_causal=causal)


WAYS = {"varlen": by_varlen, "flash_attn": by_flash_attn, "nested": by_nested, "padded": by_padding}


def measure_way(r, way, causal, device):
    """Rates forward and backward."""
    call = WAYS[way](r, causal)
    inputs, dout = r.padded if way == "padded" else (r.qkv, r.dout)
    with torch.no_grad():
        forward = median_seconds(call, device)
    out = call()
    backward = median_seconds(lambda: torch.autograd.grad(out, inputs, dout, retain_graph=True), device)
    gflop = r.gflop(causal)
    return gflop / forward, 2.5 * gflop / backward


def attention(o, device, add):
    r = Ragged(o, device)
    for causal in (False, True):
        mask = "causal" if causal else "full"
        for way in WAYS:
            try:
                forward, backward = measure_way(r, way, causal, device)
            except Exception as e:  # not in this version, or not on this device
                print(f"attention {mask} by {way}: {type(e).__name__}: {str(e)[:120]}", flush=True)
                continue
            add(f"{mask} forward", forward, "GFLOP/s", setup=way)
            add(f"{mask} backward", backward, "GFLOP/s", setup=way)
