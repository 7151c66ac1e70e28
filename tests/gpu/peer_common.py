# SPDX-License-Identifier: Apache-2.0
"""What the measurements of PyTorch share: the batches, which are those of `kdhpc --mode bench`, and the clock."""
import os
import re
import time

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
PAD, EOS, START, FIRST_ID, IGNORE = 1, 2, 2, 3, -100


def read_lengths():
    """(source, target) tokens of the pairs in src/mode/bench_lengths.h."""
    with open(os.path.join(HERE, "..", "..", "src", "mode", "bench_lengths.h")) as f:
        text = f.read()

    def array(name):
        body = re.search(name + r"\[BENCH_LENGTHS\] = \{(.*?)\}", text, re.S).group(1)
        return [int(x) for x in re.findall(r"\d+", body)]

    return list(zip(array("bench_source_lengths"), array("bench_target_lengths")))


def stride_of(n):
    """The largest number up to 0.618 n that shares no factor with n."""
    def shared(a, b):
        while b:
            a, b = b, a % b
        return a

    stride = int(0.618 * n)
    while stride > 1 and shared(stride, n) != 1:
        stride -= 1
    return max(stride, 1)


def plan(lengths, max_tokens, sortish):
    """Batches of example numbers in the order of updates; see src/mode/bench_examples.c."""
    order = list(range(len(lengths)))
    if sortish:
        order.sort(key=lambda i: (-lengths[i][0], -lengths[i][1], i))
    batches, tokens = [[]], 0
    for i in order:
        more = sum(lengths[i])
        if batches[-1] and tokens + more > max_tokens:
            batches.append([])
            tokens = 0
        batches[-1].append(i)
        tokens += more
    stride = stride_of(len(batches))
    return [batches[k * stride % len(batches)] for k in range(len(batches))]


def source_batches(lengths, max_tokens, output):
    """Sources longest first, as many in a batch as have max_tokens, padded to the longest and with their outputs."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i][0], i))
    batches = [[]]
    for i in order:
        if batches[-1] and (lengths[batches[-1][0]][0] + output) * (len(batches[-1]) + 1) > max_tokens:
            batches.append([])
        batches[-1].append(i)
    return batches


class Padded:
    """One batch, padded on the right, in memory that can be sent while the GPU works."""

    def __init__(self, lengths, examples, vocab, device, generator):
        def rows(which, fill):
            n = [lengths[i][which] for i in examples]
            ids = torch.randint(FIRST_ID, vocab, (len(n), max(n)), generator=generator)
            live = torch.arange(max(n))[None, :] < torch.tensor(n)[:, None]
            return torch.where(live, ids, fill), live

        source, live = rows(0, PAD)
        labels, _ = rows(1, IGNORE)
        decoder = torch.full_like(labels, START)
        decoder[:, 1:] = torch.where(labels[:, :-1] == IGNORE, PAD, labels[:, :-1])
        self.parts = [source, live.long(), decoder, labels]
        if device.type == "cuda":
            self.parts = [x.pin_memory() for x in self.parts]
        self.device = device
        self.n_tokens = sum(sum(lengths[i]) for i in examples)
        self.n_padded = source.numel() + labels.numel()

    def send(self):
        """Source, its mask, decoder inputs, labels."""
        return [x.to(self.device, non_blocking=True) for x in self.parts]


def sync(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def now(device):
    sync(device)
    return time.perf_counter()


def fresh_memory(device):
    """Forget what ran before; then memory_gb counts from nothing."""
    import gc
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory_gb(device):
    """The most that tensors took at once, and the most that the allocator held for them."""
    if device.type != "cuda":
        return None, None
    return torch.cuda.max_memory_allocated() / 1e9, torch.cuda.max_memory_reserved() / 1e9


def median_seconds(call, device, least_s=0.2, most=200):
    """The median time of CALL: on a GPU of runs of calls of some milliseconds each, as in `kdhpc --mode bench`."""
    call()
    start = now(device)
    call()
    once = now(device) - start
    calls = max(1, min(256, int(3e-3 / max(once, 1e-9)))) if device.type == "cuda" else 1
    times, start = [], time.perf_counter()
    while len(times) < 3 or (len(times) < most and time.perf_counter() - start < least_s):
        t = now(device)
        for _ in range(calls):
            call()
        times.append((now(device) - t) / calls)
    times.sort()
    return times[len(times) // 2]


def bart_config(o, decoder_layers):
    """BART's shape as asked; only residual dropout, as in the program's benchmark."""
    from transformers import BartConfig
    config = BartConfig(
        vocab_size=o.vocab_size, d_model=o.d_model, encoder_layers=o.encoder_layers, decoder_layers=decoder_layers,
        encoder_attention_heads=o.n_heads, decoder_attention_heads=o.n_heads, encoder_ffn_dim=4 * o.d_model,
        decoder_ffn_dim=4 * o.d_model, max_position_embeddings=1024, dropout=0.1, attention_dropout=0.0,
        activation_dropout=0.0, pad_token_id=PAD, bos_token_id=0, eos_token_id=EOS, decoder_start_token_id=START,
        forced_eos_token_id=None, forced_bos_token_id=None)
    config._attn_implementation = "sdpa"
    return config


def bart(o, decoder_layers, device):
    """A random model in float32 on DEVICE."""
    from transformers import BartForConditionalGeneration
    with torch.device(device):
        return BartForConditionalGeneration(bart_config(o, decoder_layers)).float()
