# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of every type against transformers, live:

    tokenizer_types.py PROBE WORK [--text FILE]... [--types a,b] [--random N] [--speed] [--keep]

Trains a tokenizer of each type on the text (default: inputs/tiny), writes its directory
under WORK, and compares what tests/support/tokenizer_probe and AutoTokenizer make of every line, of
awkward texts and of random ids; then again for what save_pretrained makes of the directory, with
more tokens added, with its tokenizer.json and without.  --speed compares the encode throughput of
one thread as well, by CPU seconds in interleaved pairs (ratio ours / theirs, median; theirs is
encode_batch_fast, or transformers where only that is there).  Exit code 77: the libraries are not
there; 1: something differs.
"""
import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
import unicodedata

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "golden"))
try:
    import sentencepiece  # noqa: F401
    import tokenizers  # noqa: F401
    import transformers
except ImportError as e:
    print("skipped: %s (KDHPC_TEST_PYTHON names another interpreter)" % e)
    sys.exit(77)
import tokenizer_kinds as kinds  # noqa: E402

transformers.logging.set_verbosity_error()


def awkward(tokenizer, lines, n):
    """Texts with every special and added token in odd places, and characters that libraries treat differently."""
    out = kinds.AWKWARD + ["\0", "a\0b", "\0 a\0\0 b\0", "\u4e2d\0\u6587"]
    added = list(tokenizer.get_added_vocab())
    tokens = added[:6] + added[-6:] + [str(t) for t in tokenizer.all_special_tokens][:12]
    for t in dict.fromkeys(tokens):
        out += [t, " " + t, t + " ", "a" + t + "b", "a " + t + " b", "a  " + t + "  b", t + t, t + " " + t,
                t[:-1], t.upper() + t.lower(), "x\n" + t + "\ty", "one" + t + ", two"]
    r = random.Random(7)
    pools = [(0x20, 0x7F), (0, 0x20), (0x80, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xA00),
             (0xE00, 0xF00), (0x1100, 0x1200), (0x2000, 0x2070), (0x20A0, 0x2190), (0x2460, 0x2500), (0x3000, 0x3100),
             (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0xFB00, 0xFB50), (0xFE00, 0xFE10), (0xFF00, 0xFFF0),
             (0x1F1E6, 0x1F200), (0x1F300, 0x1F650), (0x1F3FB, 0x1F400), (0x10400, 0x10450), (0xE0020, 0xE0030)]
    for i in range(n):
        chosen = r.sample(pools, 3)
        text = "".join(chr(r.randrange(*r.choice(chosen))) if r.random() < 0.7 else r.choice(" abeE.,'-1 ")
                       for _ in range(r.randrange(1, 24)))
        out.append("".join(c for c in text if unicodedata.category(c) != "Cn"))
    for i in range(n):  # real lines, broken and rejoined
        a, b = r.choice(lines), r.choice(lines)
        cut = r.randrange(len(a) + 1)
        out.append(a[:cut] + r.choice(["", " ", "  ", "\t", "\n", "\u00a0", "...", "--", "\u200b", "'"]) +
                   r.choice([b[:40], b[-40:], b[:30].upper(), b[:30].title()]))
    return out


def random_ids(tokenizer, n):
    r = random.Random(3)
    size = len(tokenizer)
    return [[r.randrange(size) for _ in range(r.randrange(1, 30))] for _ in range(n)]


def reference(tokenizer, kind, side, texts):
    if side == "target":
        return tokenizer(text_target=texts, verbose=False)["input_ids"]
    return tokenizer(texts, verbose=False)["input_ids"]


def compare(probe, kind, path, side, lines, n_random=1500):
    name = os.path.basename(path)
    t = transformers.AutoTokenizer.from_pretrained(path)
    texts = lines + awkward(t, lines, n_random)
    texts = [x for x in texts if kind.accepts(x)]
    want = reference(t, kind, side, texts)
    ids = random_ids(t, n_random)
    items = os.path.join(path, "items.json")
    with open(items, "w") as f:
        json.dump(texts + ids, f)
    got = subprocess.run([probe, path, items, side], capture_output=True)
    os.unlink(items)
    if got.returncode:
        print("%-26s %-6s FAILED: %s" % (name, side, got.stderr.decode()[-300:]))
        return False
    rows = [x.split("\t") for x in got.stdout.decode().split("\n") if x]
    size = int(rows.pop(0)[0])
    if size != len(t):
        print("   %d ids, want %d" % (size, len(t)))
    got = [{"ids": [int(i) for i in a.split()], "text": bytes.fromhex(b).decode()} for a, b in rows]
    assert len(got) == len(texts) + len(ids), (len(got), len(texts), len(ids))
    text = t.batch_decode(want + ids, skip_special_tokens=True)
    bad = [i for i in range(len(texts)) if got[i]["ids"] != want[i]]
    bad_text = [i for i in range(len(got)) if got[i]["text"] != text[i] and i not in set(bad)]
    fast = "fast" if t.is_fast else "slow"
    print("%-26s %-6s %s: %d texts, %d differ; %d decoded, %d differ" %
          (name, side, fast, len(texts), len(bad), len(got), len(bad_text)), flush=True)
    for i in bad[:4]:
        k = next((k for k, (a, b) in enumerate(zip(got[i]["ids"], want[i])) if a != b), min(len(got[i]["ids"]), len(want[i])))
        lo = max(0, k - 2)
        print("   text %r\n   ours %s %s\n   want %s %s" % (
            texts[i][:200], got[i]["ids"][lo:k + 6], t.convert_ids_to_tokens(got[i]["ids"][lo:k + 6]),
            want[i][lo:k + 6], t.convert_ids_to_tokens(want[i][lo:k + 6])))
    for i in bad_text[:4]:
        print("   ids  %s %s\n   ours %r\n   want %r" % (got[i]["ids"][:20], t.convert_ids_to_tokens(got[i]["ids"][:20]),
                                                     got[i]["text"][:300], text[i][:300]))
    return not bad and not bad_text and size == len(t)


def save_again(path, keep_json):
    """What save_pretrained makes of the directory, with tokens added; without the tokenizer.json unless KEEP_JSON."""
    t = transformers.AutoTokenizer.from_pretrained(path)
    t.add_tokens(["plainword", "C++", transformers.AddedToken("<new>", lstrip=True, normalized=False),
                  transformers.AddedToken("Alone", single_word=t.is_fast, normalized=True),
                  transformers.AddedToken("<both>", lstrip=True, rstrip=True)])
    t.add_special_tokens({"additional_special_tokens": [transformers.AddedToken("<sp>", rstrip=True)]},
                         replace_additional_special_tokens=False)
    again = path + (".again" if keep_json else ".files")
    shutil.rmtree(again, ignore_errors=True)
    t.save_pretrained(again)
    if not keep_json:
        if not t.is_fast or sorted(os.listdir(again)) == ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]:
            return None
        os.unlink(os.path.join(again, "tokenizer.json"))
    return again


def speed(probe, kind, path, lines):
    t = transformers.AutoTokenizer.from_pretrained(path)
    lines = lines[::max(1, len(lines) // (20000 if t.is_fast else 2000))]
    file = os.path.join(path, "lines.txt")
    with open(file, "w") as f:
        f.write("".join(x + "\n" for x in lines))
    ratios = []
    for _ in range(5 if t.is_fast else 3):
        ours = float(subprocess.run([probe, path, file, "seconds"], capture_output=True, check=True).stdout.split()[0])
        start = time.process_time()
        if t.is_fast:
            t.backend_tokenizer.encode_batch_fast(lines)
        else:
            t(lines)
        ratios.append((time.process_time() - start) / ours)
    os.unlink(file)
    print("%-22s throughput %.2f of %s" % (kind.name, statistics.median(ratios), "tokenizers" if t.is_fast else "transformers"),
          flush=True)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("probe")
    p.add_argument("work")
    p.add_argument("--text", action="append", default=[])
    p.add_argument("--types", default="")
    p.add_argument("--random", type=int, default=1500, help="random texts of each sort, and random lists of ids")
    p.add_argument("--speed", action="store_true")
    p.add_argument("--keep", action="store_true", help="use the directories that are there")
    a = p.parse_args()
    lines = []
    tiny = os.path.join(HERE, "..", "..", "inputs", "tiny")
    for path in a.text or [os.path.join(tiny, x) for x in sorted(os.listdir(tiny)) if x.endswith((".source", ".target"))]:
        with open(path, encoding="utf-8") as f:
            lines += [x for x in f.read().split("\n") if x]
    sample = random.Random(1).sample(lines, min(len(lines), 8000)) + kinds.SENTENCES
    ok = True
    for kind in kinds.KINDS:
        if a.types and not any(kind.name.startswith(x) for x in a.types.split(",")):
            continue
        path = os.path.join(a.work, kind.name)
        if not (a.keep and os.path.isdir(path)):
            shutil.rmtree(path, ignore_errors=True)
            os.makedirs(path)
            kind.make(path, sample, 8000 if len(lines) > 5000 else 400)
        for side in kind.sides:
            ok = compare(a.probe, kind, path, side, lines, a.random) and ok
        for keep_json in (True, False):
            again = save_again(path, keep_json)
            if again:
                for side in kind.sides:
                    ok = compare(a.probe, kind, again, side, lines[:1000], a.random) and ok
        if a.speed:
            speed(a.probe, kind, path, lines)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
