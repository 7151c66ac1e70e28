# SPDX-License-Identifier: Apache-2.0
"""Updates by transformers and PyTorch on the batches of `kdhpc --mode bench`: fine-tuning, and distillation with a frozen
encoder that teacher and student share.

SDPA attention, fused AdamW, clipping, batches of similar lengths padded to their longest, no waiting for the loss.  In two
precisions, of which the faster is the peer: `autocast` keeps parameters in float32 and casts as it goes; `master` has
parameters and gradients in bfloat16 beside the float32 copy that AdamW works on.
"""
import time

import torch
import torch.nn.functional as F

from peer_common import IGNORE, Padded, bart, fresh_memory, memory_gb, now, plan, read_lengths

TEMPERATURE, WEIGHT_KL, WEIGHT_CE = 2.0, 0.8, 0.2


class Optimiser:
    def __init__(self, model, precision):
        self.live = [p for p in model.parameters() if p.requires_grad]
        self.masters = self.live
        if precision == "master":
            self.masters = [p.detach().float().requires_grad_() for p in self.live]
        fused = {"fused": True} if self.live[0].is_cuda else {}
        self.adam = torch.optim.AdamW(self.masters, lr=5e-5, weight_decay=0.0, **fused)

    def step(self):
        torch.nn.utils.clip_grad_norm_(self.live, 1.0, foreach=True)
        if self.masters is not self.live:
            for master, p in zip(self.masters, self.live):
                master.grad = p.grad.float()
                p.grad = None
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        if self.masters is not self.live:
            with torch.no_grad():
                torch._foreach_copy_(self.live, self.masters)


class FineTuning:
    def __init__(self, o, device, precision):
        self.model = bart(o, o.decoder_layers, device).train()
        if precision == "master":
            self.model.to(o.dtype)
        self.network = torch.compile(self.model, dynamic=True) if o.compile else self.model
        self.optimiser = Optimiser(self.model, precision)

    def loss(self, source, mask, decoder, labels):
        out = self.network(input_ids=source, attention_mask=mask, decoder_input_ids=decoder, use_cache=False)
        return F.cross_entropy(out.logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE)


class Distillation:
    """The frozen encoder and all that it uses, the embedding and the tied head too, are one object in both models."""

    def __init__(self, o, device, precision):
        self.teacher = bart(o, o.decoder_layers, device).to(o.dtype).eval().requires_grad_(False)
        self.model = bart(o, o.student_decoder_layers, device)
        if precision == "master":
            self.model.to(o.dtype)
        shared = self.teacher.model.shared
        self.model.model.encoder = self.teacher.model.encoder
        self.model.model.shared = self.model.model.decoder.embed_tokens = shared
        self.model.lm_head.weight = shared.weight
        self.model.train()
        self.model.model.encoder.eval()  # what is frozen has no dropout
        self.encoder = self.teacher.model.encoder
        self.networks = [self.teacher, self.model]
        if o.compile:
            self.encoder = torch.compile(self.encoder, dynamic=True)
            self.networks = [torch.compile(m, dynamic=True) for m in self.networks]
        self.optimiser = Optimiser(self.model, precision)

    def loss(self, source, mask, decoder, labels):
        with torch.no_grad():
            encoded = self.encoder(input_ids=source, attention_mask=mask)
        common = {"encoder_outputs": (encoded[0],), "attention_mask": mask, "decoder_input_ids": decoder, "use_cache": False}
        with torch.no_grad():
            t = self.networks[0](**common).logits
        s = self.networks[1](**common).logits
        live = labels != IGNORE
        s, t, labels = s[live].float(), t[live].float(), labels[live]
        kl = F.kl_div(F.log_softmax(s / TEMPERATURE, -1), F.log_softmax(t / TEMPERATURE, -1), reduction="batchmean", log_target=True)
        return WEIGHT_KL * TEMPERATURE**2 * kl + WEIGHT_CE * F.cross_entropy(s, labels)


def updates(o, device, make, precision, add):
    """Time o.steps updates after every batch was seen once."""
    lengths = read_lengths()
    generator = torch.Generator().manual_seed(o.seed)
    batches = [Padded(lengths, b, o.vocab_size, device, generator) for b in plan(lengths, o.max_tokens_per_batch, o.sortish)]
    fresh_memory(device)
    task = make(o, device, precision)
    cast = torch.autocast(device.type, o.dtype, enabled=precision == "autocast")

    def update(k):
        batch = batches[k % len(batches)]
        with cast:
            loss = task.loss(*batch.send())
        loss.backward()
        task.optimiser.step()
        return batch

    stop = time.monotonic() + o.warm_seconds
    for k in range(o.warm_steps or len(batches)):
        update(k)
        if time.monotonic() > stop:
            break
    warm, tokens, padded, marks = k + 1, 0, 0, []
    start = now(device)
    for k in range(warm, warm + o.steps):
        batch = update(k)
        tokens += batch.n_tokens
        padded += batch.n_padded
        if device.type == "cuda":
            marks.append(torch.cuda.Event(enable_timing=True))
            marks[-1].record()
    seconds = now(device) - start
    used, held = memory_gb(device)
    setup = precision + (", compiled" if o.compile else "")
    add("rate", tokens / seconds, "tokens/s", setup=setup, padding=1 - tokens / padded, warm=warm)
    if len(marks) > 1:
        gaps = sorted(a.elapsed_time(b) for a, b in zip(marks, marks[1:]))
        add("median update", gaps[len(gaps) // 2], "ms", setup=setup)
    if used:
        add("device memory", used, "GB", setup=setup, held_gb=held)


def in_each_precision(o, device, make, add):
    failure = None
    for precision in o.precisions:
        try:
            updates(o, device, make, precision, add)
        except torch.cuda.OutOfMemoryError as e:
            failure = e
            print(f"{precision}: out of memory", flush=True)
    if failure and len(o.precisions) == 1:
        raise failure


def train(o, device, add):
    in_each_precision(o, device, FineTuning, add)


def distil(o, device, add):
    in_each_precision(o, device, Distillation, add)
