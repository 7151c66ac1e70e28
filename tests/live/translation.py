# SPDX-License-Identifier: Apache-2.0
"""BLEU, chrF and TER of many outputs under random options against an installed sacrebleu:

    translation.py KDHPC WORK [--text FILE]... [--rows N] [--settings N]

Targets are lines of the texts (default: inputs/tiny) and awkward ones; outputs and more references are made of them by
dropping, moving, doubling and exchanging words, by other case and punctuation.  `eval` scores the outputs; corpus scores,
counts, signatures and every row of examples.h5 must be sacrebleu's to 1e-9.  Exit code 1: something differs.
"""
import argparse
import json
import os
import random
import subprocess
import sys

import h5py
from sacrebleu.metrics import BLEU, CHRF, TER

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "golden"))
from tokenizer_kinds import AWKWARD  # noqa: E402

TINY = os.path.join(HERE, "..", "..", "inputs", "tiny")
TOKENIZER = os.path.join(HERE, "..", "golden", "tokenizers", "bart")
NEAR = 1e-9
LONGEST = 30  # words of a line: their TER takes the square of it


def noisy(r, line, others):
    """LINE as another translator might have put it; now and then nothing, the same, or something else."""
    x = r.random()
    if x < 0.1:
        return line if x < 0.05 else "" if x < 0.06 else r.choice(others)
    words = line.split(" ")
    for _ in range(r.randrange(1, 2 + len(words) // 4)):
        i, k = r.randrange(len(words)), r.randrange(1, 5)
        what = r.randrange(6)
        if what == 0 and len(words) > 1:
            del words[i]
        elif what == 1:
            phrase = words[i:i + k]
            del words[i:i + k]
            at = r.randrange(len(words) + 1)
            words[at:at] = phrase
        elif what == 2:
            words.insert(i, words[i])
        elif what == 3:
            words[i] = r.choice(r.choice(others).split(" "))
        elif what == 4:
            words[i] = r.choice([str.upper, str.title, str.lower, str.swapcase])(words[i])
        else:
            words[i] += r.choice([",", ".", "!", "...", " .", "-", "'s", "\u3002", "\u060c", " \u2013", "&quot;", "%"])
    return " ".join(words)


def write(path, lines):
    with open(path, "w", encoding="utf-8", newline="") as f:
        f.write("".join(x + "\n" for x in lines))


def draw(r):
    """Options of a run, and the same as sacrebleu has them."""
    tokenize, lower = r.choice(["13a", "intl", "char", "zh", "none"]), r.random() < 0.5
    smooth, value = r.choice([("exp", None), ("floor", None), ("floor", 0.3), ("add-k", None), ("add-k", 2.5), ("none", None)])
    chars, words, beta = r.choice([6, 6, 4, 10]), r.choice([0, 1, 2]), r.choice([2, 2, 1, 3])
    flags = ["chrf_lowercase", "chrf_whitespace", "chrf_eps_smoothing", "ter_normalized", "ter_no_punct", "ter_asian_support",
             "ter_case_sensitive"]
    on = {f: r.random() < 0.5 for f in flags}
    options = ["--bleu_tokenize", tokenize, "--bleu_smooth_method", smooth, "--bleu_lowercase", str(lower).lower(), "--chrf_char_order",
               str(chars), "--chrf_word_order", str(words), "--chrf_beta", str(beta)]
    options += ["--bleu_smooth_value", str(value)] if value else []
    for f in flags:
        options += ["--" + f, str(on[f]).lower()]
    bleu = dict(tokenize=tokenize, lowercase=lower, smooth_method=smooth, smooth_value=value, force=True)
    ter = {f[4:]: on[f] for f in flags if f.startswith("ter")}
    chrf = CHRF(chars, words, beta, *(on["chrf_" + f] for f in ("lowercase", "whitespace", "eps_smoothing")))
    return options, {"bleu": (BLEU(**bleu), BLEU(effective_order=True, **bleu)), "chrf": (chrf, chrf), "ter": (TER(**ter), TER(**ter))}


def compare(got, rows, metrics, outputs, refs):
    """What differs, and the largest difference."""
    bad, worst = [], 0.0
    for name, (corpus, alone) in metrics.items():
        want = corpus.corpus_score(outputs, refs)
        far = abs(got[name] - want.score)
        for i, x in enumerate(outputs):
            one = abs(rows[name][i] - alone.sentence_score(x, [ref[i] for ref in refs]).score)
            if one > NEAR:
                bad.append("%s of row %d by %g: %r" % (name, i, one, [x] + [ref[i] for ref in refs]))
            worst = max(worst, one)
        worst = max(worst, far)
        if far > NEAR:
            bad.append("%s: %.12f, want %.12f" % (name, got[name], want.score))
        if got[name + "_signature"] != corpus.get_signature().format():
            bad.append("signature %s, want %s" % (got[name + "_signature"], corpus.get_signature()))
        if name == "bleu" and corpus.smooth_method != "add-k":  # which changes the counts that it reports
            bad += [k for k in ("sys_len", "ref_len", "counts", "totals") if got["bleu_" + k] != getattr(want, k)]
    return bad, worst


def main():
    p = argparse.ArgumentParser()
    p.add_argument("kdhpc")
    p.add_argument("work")
    p.add_argument("--text", action="append", default=[])
    p.add_argument("--rows", type=int, default=150)
    p.add_argument("--settings", type=int, default=12)
    a = p.parse_args()
    r = random.Random(5)
    lines = []
    for path in a.text or [os.path.join(TINY, x) for x in sorted(os.listdir(TINY)) if x.endswith(".target")]:
        with open(path, encoding="utf-8") as f:
            lines += [x for x in f.read().split("\n") if 0 < len(x.split()) <= LONGEST]
    awkward = [x for x in AWKWARD if x.strip() and "\n" not in x and "\r" not in x]
    lines = r.sample(lines, min(len(lines), a.rows)) + awkward
    outputs, *more = ([noisy(r, x, lines) for x in lines] for _ in range(3))
    at = lambda name: os.path.join(a.work, name)
    os.makedirs(at("data"), exist_ok=True)
    for name, text in (("data/test.source", lines), ("data/test.target", lines), ("outputs", outputs), ("more1", more[0]), ("more2", more[1])):
        write(at(name), text)

    def run(*args):
        subprocess.run([a.kdhpc, "--threads", "1", "--log_level", "warn", "--overwrite", *args], check=True)

    run("--mode", "tokenize", "--data_dir", at("data"), "--tokenizer", TOKENIZER, "--output_dir", at("corpus"))
    n_bad, worst = 0, 0.0
    for i in range(a.settings):
        options, metrics = draw(r)
        n_more = i % 3
        options += ["--references", ",".join(at("more%d" % k) for k in range(1, n_more + 1))] if n_more else []
        run("--mode", "eval", "--predictions", at("outputs"), "--metrics", "bleu,chrf,ter", "--corpus", at("corpus/corpus.h5"),
            "--bootstrap_resamples", "0", "--output_dir", at("eval"), *options)
        with open(at("eval/metrics.json")) as f:
            got = json.load(f)
        with h5py.File(at("eval/examples.h5")) as f:
            rows = {name: f[name][:] for name in metrics}
        bad, far = compare(got, rows, metrics, outputs, [lines] + more[:n_more])
        n_bad, worst = n_bad + bool(bad), max(worst, far)
        if bad:
            print(" ".join(options), *bad[:4], sep="\n   ", flush=True)
    print("%d rows, %d settings: %d differ; largest difference %.1e" % (len(lines), a.settings, n_bad, worst))
    return 1 if n_bad else 0


if __name__ == "__main__":
    sys.exit(main())
