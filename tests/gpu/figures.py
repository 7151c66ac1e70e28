# SPDX-License-Identifier: Apache-2.0
"""The figures of tests/gpu/run.sh: `kdhpc --mode bench` and peer.py on the same batches, and the table of both."""
import json
import os

HERE = os.path.dirname(os.path.abspath(__file__))
NAMES = ("gemm", "attention", "train", "kd", "generate", "plane")
TOKENS = 16384

# BART-large; what both programs are told.
SHAPE = {"d_model": 1024, "n_heads": 16, "encoder_layers": 12, "decoder_layers": 12, "student_decoder_layers": 3, "vocab_size": 50265,
         "num_beams": 4, "gen_length": 64, "n_sources": 2000, "tokens": TOKENS, "max_tokens_per_batch": TOKENS, "steps": 24, "warm_steps": 12}
SMALL = {"d_model": 32, "n_heads": 2, "encoder_layers": 1, "decoder_layers": 2, "student_decoder_layers": 1, "vocab_size": 80,
         "num_beams": 2, "gen_length": 3, "n_sources": 4, "tokens": 60, "max_tokens_per_batch": 60, "steps": 2, "warm_steps": 1}
GENERATION_TOKENS = 65536  # the most that PyTorch is given, too
ARGUMENTS = {
    "gemm": ["--seconds", "0.3"],
    "attention": ["--seconds", "0.3"],
    "train": ["--sortish_sampler"],
    "kd": ["--sortish_sampler", "--freeze_encoder"],
    "generate": [],
}
# (name, what it must reach, at least or at most)
MUST = {
    "MFU of training, bfloat16": (0.5, "least"),
    "training over PyTorch": (1.5, "least"),
    "distillation, frozen shared encoder, over PyTorch": (2.0, "least"),
    "beam 4 over transformers": (8.0, "least"),
    "attention, forward + backward, over PyTorch": (0.8, "least"),
    "causal attention, forward + backward, over PyTorch": (0.8, "least"),
    "device memory of training over PyTorch": (0.6, "most"),
    "device memory of distillation over PyTorch": (0.6, "most"),
    "update with the NCCL plane over one without": (1.02, "most"),
}


# ---- measuring ----

def ours(run, what, figure=None, extra=(), environment=None, limit=180):
    """Rows of `kdhpc --mode bench --what WHAT` into the results, under FIGURE."""
    figure = figure or what
    name = "bench_" + figure
    if run.left() < 30:
        run.leave_out(f"bench: {figure}")
        return
    shape = SMALL if run.o.tiny else SHAPE
    if what == "generate" and not run.o.tiny:
        shape = {**shape, "max_tokens_per_batch": GENERATION_TOKENS}
    command = [run.program, "--mode", "bench", "--what", what, "--device", "cuda", "--json", *ARGUMENTS[what], *extra]
    for key, value in shape.items():
        command += ["--" + key, str(value)]
    if run.o.tiny:
        command += ["--seconds", "0.001", "--peak_size", "16"]
    out = os.path.join(run.logs, name + ".json")
    code, seconds = run.process(name, command, min(limit, run.left()), environment, stdout=out, packed=True)
    if code != 0:
        run.fail(f"bench: {figure} " + ("took too long" if code is None else f"(exit {code})"))
        run.say(f"FAILED {figure}, kdhpc\n{run.tail(name)}")
        return
    with open(out) as f:
        rows = json.load(f)
    if figure == "plane" and not run.says(name, "nccl"):
        run.leave_out("bench: plane: this program did not say that it used NCCL")
        return
    run.results["figures"] += [{"who": "kdhpc", "figure": figure, **r} for r in rows]
    run.say(f"{figure}, kdhpc: {brief(rows)} ({seconds:.0f} s)")


def brief(rows):
    """The rows in one line."""
    return "; ".join(f"{r['name']} {r['value']:.4g} {r['unit']}" + (f" ({r['setup']})" if "setup" in r else "") for r in rows)


def theirs(run, what, figure=None, extra=(), limit=240, keep=0):
    """Rows of peer.py for one figure; KEEP seconds of the budget are left to what follows."""
    figure = figure or what
    name = "peer_" + figure
    limit = min(limit, run.left() - keep)
    if limit < 45 and not run.o.tiny:
        run.leave_out(f"bench: {figure}, PyTorch")
        return
    out = os.path.join(run.logs, name + ".jsonl")
    command = [run.o.python, os.path.join(HERE, "peer.py"), "--what", what, "--out", out, *extra]
    if run.o.tiny:
        command += ["--tiny"]
    else:
        for key, value in SHAPE.items():
            command += ["--" + key, str(value)]
    code, seconds = run.process(name, command, limit)
    rows = []
    if os.path.exists(out):
        with open(out) as f:
            rows = [r for r in map(json.loads, f) if "value" in r]
    run.results["figures"] += [{"who": "PyTorch", "figure": figure, **r} for r in rows]
    if code != 0:
        run.fail(f"bench: {figure}, PyTorch " + ("took too long" if code is None else f"(exit {code})"))
        run.say(f"FAILED {figure}, PyTorch\n{run.tail(name)}")
    if rows:
        run.say(f"{figure}, PyTorch: {brief(rows)} ({seconds:.0f} s)")


def measure(run):
    """Every figure, ours first, so that a budget that runs out costs the comparison and not the figure."""
    wanted = [x for x in run.o.figures.split(",") if x] or list(NAMES)
    for what in ("gemm", "attention", "train"):
        if what in wanted:
            ours(run, what)
    if "plane" in wanted:  # close to the run it is compared with
        ours(run, "train", "plane", environment={"KD_PLANE": "nccl"})
    for what in ("kd", "generate"):
        if what in wanted:
            ours(run, what)
    if set(wanted) & {"gemm", "attention"}:
        theirs(run, "gemm,attention", "attention")
    for what in ("train", "kd", "generate"):
        if what in wanted:
            theirs(run, what)


def measure_compiled(run):
    """Training once more by torch.compile, which takes minutes to warm up."""
    for what in ("train", "kd"):
        theirs(run, what, what, extra=["--compile", "--precisions", "master"], limit=200)


# ---- the table ----

def pick(rows, figure, who, **match):
    """Values of the rows of one figure whose fields are as in MATCH."""
    return [r for r in rows if r["figure"] == figure and r["who"] == who and all(r.get(k) == v for k, v in match.items())]


def best(rows, figure, who, **match):
    return max(pick(rows, figure, who, **match), key=lambda r: r["value"], default=None)


def attention_rates(rows, who, mask):
    """GFLOP/s of forward and backward together, of each set-up; the backward pass has 2.5 times the work."""
    rates = []
    for f in pick(rows, "attention", who, name=mask + " forward"):
        for b in pick(rows, "attention", who, name=mask + " backward", setup=f.get("setup")) if who != "kdhpc" else \
                pick(rows, "attention", who, name=mask + " backward"):
            rates.append((3.5 / (1 / f["value"] + 2.5 / b["value"]), f.get("setup", "")))
    return max(rates, default=(None, ""))


def memory(rows, figure, who, setup=None):
    match = {"name": "device memory", **({"setup": setup} if setup else {})}
    found = pick(rows, figure, who, **match)
    return found[0]["value"] if found else None


def line(name, mine, other, value, note=""):
    must, side = MUST[name]
    ok = None if value is None else value >= must if side == "least" else value <= must
    return {"figure": name, "kdhpc": mine, "PyTorch": other, "value": value, "must": must, "side": side, "ok": ok, "note": note}


def ratio(a, b):
    return a / b if a is not None and b else None


def speed_lines(rows):
    """Training, distillation, generation: rates, and memory beside the set-up that was fastest."""
    lines = []
    for figure, name, memory_name in (("train", "training over PyTorch", "device memory of training over PyTorch"),
                                      ("kd", "distillation, frozen shared encoder, over PyTorch", "device memory of distillation over PyTorch"),
                                      ("generate", "beam 4 over transformers", None)):
        mine, other = best(rows, figure, "kdhpc", unit="tokens/s"), best(rows, figure, "PyTorch", unit="tokens/s")
        a, b = mine and mine["value"], other and other["value"]
        setup = other["setup"] if other else ""
        lines.append(line(name, a, b, ratio(a, b), "tokens/s; PyTorch: " + setup))
        if memory_name:
            a, b = memory(rows, figure, "kdhpc"), memory(rows, figure, "PyTorch", setup)
            lines.append(line(memory_name, a, b, ratio(a, b), "GB; ours with all that lies unused, PyTorch's of tensors alone: " + setup))
    return lines


def table(results):
    """One line a figure, from the rows of both."""
    rows = results["figures"]
    peaks = [r["value"] for r in rows if r["name"] == "peak"]
    own_peak = pick(rows, "gemm", "kdhpc", name="peak")
    train = best(rows, "train", "kdhpc", unit="tokens/s")
    other = best(rows, "train", "PyTorch", unit="tokens/s")
    lines, mfu, their_mfu = [], None, None
    if train and own_peak:
        scale = own_peak[0]["value"] / max(peaks) / train["bound"]
        mfu, their_mfu = train["value"] * scale, other and other["value"] * scale
    lines.append(line("MFU of training, bfloat16", mfu, their_mfu, mfu,
                      f"of {max(peaks) / 1e3:.3g} TFLOP/s, the faster of both programs' products" if peaks else ""))
    lines += speed_lines(rows)
    for mask, name in (("full", "attention, forward + backward, over PyTorch"), ("causal", "causal attention, forward + backward, over PyTorch")):
        (a, _), (b, setup) = attention_rates(rows, "kdhpc", mask), attention_rates(rows, "PyTorch", mask)
        lines.append(line(name, a, b, ratio(a, b), "GFLOP/s; PyTorch: " + setup))
    plain, plane = pick(rows, "train", "kdhpc", name="median update"), pick(rows, "plane", "kdhpc", name="median update")
    a, b = (x[0]["value"] if x else None for x in (plane, plain))
    lines.append(line("update with the NCCL plane over one without", a, b, ratio(a, b), "ms; the second column is without"))
    return lines


def show(lines, rows):
    if not rows:
        return
    def number(x):
        return "-" if x is None else f"{x:.4g}"

    print(f"\n{'figure':52} {'kdhpc':>10} {'PyTorch':>10} {'value':>8} {'must':>8}")
    for x in lines:
        bound = (">= " if x["side"] == "least" else "<= ") + f"{x['must']:g}"
        verdict = "not measured" if x["ok"] is None else "yes" if x["ok"] else "NO"
        print(f"{x['figure']:52} {number(x['kdhpc']):>10} {number(x['PyTorch']):>10} {number(x['value']):>8} {bound:>8}  {verdict:12} {x['note']}")
