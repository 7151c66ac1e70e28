# SPDX-License-Identifier: Apache-2.0
"""Beam search by transformers in bfloat16 over the sources of `kdhpc --mode bench --what generate`: outputs of one length, so
that both do the same work, and batches of similar lengths by tokens, in several sizes of which the fastest is the peer.
"""
import time

import torch

from peer_common import PAD, Padded, bart, fresh_memory, memory_gb, now, read_lengths, source_batches, stride_of


def one_size(o, device, model, budget, add):
    lengths = read_lengths()[: o.n_sources]
    batches = source_batches(lengths, budget, o.gen_length)
    generator = torch.Generator().manual_seed(o.seed)
    stride = stride_of(len(batches))

    def generate(examples):
        source, mask, _, _ = Padded(lengths, examples, o.vocab_size, device, generator).send()
        with torch.inference_mode():
            out = model.generate(input_ids=source, attention_mask=mask, num_beams=o.num_beams, do_sample=False, early_stopping=False,
                                 min_new_tokens=o.gen_length, max_new_tokens=o.gen_length, pad_token_id=PAD)
        assert out.shape == (len(examples), o.gen_length + 1), out.shape

    generate(batches[0])
    done, start = 0, now(device)
    stop = time.monotonic() + o.seconds
    for k in range(len(batches)):  # long and short ones in turn, as far as there is time
        examples = batches[k * stride % len(batches)]
        generate(examples)
        done += len(examples)
        if time.monotonic() > stop and k >= 2:
            break
    seconds = now(device) - start
    used, held = memory_gb(device)
    setup = f"batches of {budget} tokens"
    add("rate", done * o.gen_length / seconds, "tokens/s", setup=setup, sources=done)
    if used:
        add("device memory", used, "GB", setup=setup, held_gb=held)


def generate(o, device, add):
    fresh_memory(device)
    model = bart(o, o.decoder_layers, device).to(o.dtype).eval()
    for budget in o.budgets:
        try:
            one_size(o, device, model, budget, add)
        except torch.cuda.OutOfMemoryError:
            print(f"batches of {budget} tokens: out of memory", flush=True)
            fresh_memory(device)
