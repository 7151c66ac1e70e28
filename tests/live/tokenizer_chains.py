# SPDX-License-Identifier: Apache-2.0
"""Random chains of tokenizer.json's components against the tokenizers library, live:

    tokenizer_chains.py PROBE WORK [--chains N] [--seed S] [--texts N]

A chain is a random normaliser, pre-tokeniser, model, post-processor and decoder with random added tokens; its model is
trained by the library on a few sentences behind that very chain.  Ids and decoded text of random texts and ids must be the
library's, as transformers loads it; a chain may be refused, but by name.  Left out is what is known to differ: a Metaspace
that marks the first word only, where the text's first character has become several words.  Exit code 1: something differs.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import unicodedata

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "golden"))
import transformers  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders as D, models as M, normalizers as N  # noqa: E402
from tokenizers import pre_tokenizers as P, processors as O, trainers as T  # noqa: E402

import tokenizer_kinds as kinds  # noqa: E402

transformers.logging.set_verbosity_error()
PATTERNS = [r"\s+", r"\d", r"[aeiou]+", r"\p{L}+|\p{N}", r"\w+|[^\w\s]+", r"[A-Z]?[a-z]+", "e", " ", ".", r"(?=[A-Z])", r"\b", r"^\w", r"\.$",
            r"(?i)THE", r"[[:punct:]]", r"\p{Lu}", r"\W", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"(\w)\1", r"\h", r"x*", r"[^\W\d]+", r"\p{Han}+",
            r"[^(\s|[.,!?])]+", r"[\p{L}&&[^a-z]]"]
BEHAVIOURS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
SCHEMES = ["always", "first", "never"]
POOLS = [(0x20, 0x7F), (0, 0x20), (0x80, 0x250), (0x300, 0x363), (0x370, 0x530), (0x590, 0x700), (0x900, 0xA00), (0x1100, 0x1200),
         (0x2000, 0x2070), (0x2150, 0x2190), (0x3000, 0x3100), (0x4E00, 0x4F00), (0xAC00, 0xAD00), (0xFB00, 0xFB50), (0xFF00, 0xFFF0),
         (0x1F300, 0x1F650)]


def pattern(r):
    p = r.choice(PATTERNS)
    return p if r.random() < 0.3 and p.strip() else Regex(p)


def normaliser(r):
    return r.choice([
        N.NFC, N.NFD, N.NFKC, N.NFKD, N.Lowercase, N.StripAccents, N.Nmt, N.ByteLevel,
        lambda: N.Strip(r.random() < 0.5, r.random() < 0.5), lambda: N.Prepend(r.choice(["\u2581", "x ", "\u00e9"])),
        lambda: N.Replace(pattern(r), r.choice(["", "_", " ", "\u2581\u2581", "$1"])),
        lambda: N.BertNormalizer(r.random() < 0.5, r.random() < 0.5, r.choice([None, True, False]), r.random() < 0.5)])()


def cutter(r):
    return r.choice([
        P.BertPreTokenizer, P.Whitespace, P.WhitespaceSplit, lambda: P.ByteLevel(r.random() < 0.5, True, r.random() < 0.6),
        lambda: P.Metaspace("\u2581", r.choice(SCHEMES), r.random() < 0.6), lambda: P.Punctuation(r.choice(BEHAVIOURS)),
        lambda: P.Digits(r.random() < 0.5), lambda: P.CharDelimiterSplit(r.choice("e -")),
        lambda: P.Split(pattern(r), r.choice(BEHAVIOURS), r.random() < 0.3)])()


def processor(r):
    around = [("<s>", 1), ("</s>", 2)]
    return r.choice([
        lambda: O.TemplateProcessing(single=r.choice(["$A </s>", "<s> $A </s>", "<s> $A", "$A", "<s> </s> $A </s> </s>"]),
                                     special_tokens=around),
        lambda: O.BertProcessing(around[1], around[0]), lambda: O.RobertaProcessing(around[1], around[0], True, r.random() < 0.5),
        lambda: O.ByteLevel(trim_offsets=r.random() < 0.5)])()


def decoder(r):
    return r.choice([
        D.ByteLevel, D.BPEDecoder, D.Fuse, D.ByteFallback, lambda: D.WordPiece("##", r.random() < 0.5),
        lambda: D.Metaspace("\u2581", r.choice(SCHEMES), r.random() < 0.6),
        lambda: D.Replace(pattern(r), r.choice(["", " ", "\u2581"])),
        lambda: D.Strip(r.choice([" ", "a", "\u2581"]), r.randrange(3), r.randrange(3))])()


def some(r, part, sequence, most):
    """None, one, or a sequence of up to MOST of PART."""
    n = r.randrange(most + 1)
    return None if n == 0 else part(r) if n == 1 else sequence([part(r) for _ in range(n)])


def model(r):
    """A model and its trainer."""
    more = dict(special_tokens=["<unk>", "<s>", "</s>"], show_progress=False, vocab_size=r.choice([120, 300, 600]))
    kind = r.choice(["bpe", "bpe", "unigram", "word_piece", "word_level"])
    if kind == "bpe":
        affix = r.choice([{}, {}, {"continuing_subword_prefix": "##"}, {"end_of_word_suffix": "</w>"}])
        return M.BPE(unk_token=r.choice([None, "<unk>"]), fuse_unk=r.random() < 0.5, byte_fallback=r.random() < 0.2,
                     ignore_merges=r.random() < 0.2, **affix), T.BpeTrainer(limit_alphabet=r.choice([40, 90]), **affix, **more)
    if kind == "unigram":
        return M.Unigram(), T.UnigramTrainer(unk_token="<unk>", **more)
    if kind == "word_piece":
        return M.WordPiece(unk_token="<unk>", max_input_chars_per_word=r.choice([8, 100])), T.WordPieceTrainer(limit_alphabet=60, **more)
    return M.WordLevel(unk_token="<unk>"), T.WordLevelTrainer(**more)


def with_bytes(r, t):
    """T, its model now and then with byte fallback and the pieces for it."""
    j = json.loads(t.to_str())
    m = j["model"]
    if m["type"] == "Unigram":
        m["byte_fallback"] = r.random() < 0.3
    if not m.get("byte_fallback") or r.random() < 0.2:
        return Tokenizer.from_str(json.dumps(j))
    for name in ("<0x%02X>" % b for b in range(256)):
        if m["type"] == "Unigram":
            m["vocab"].append([name, -20.0])
        else:
            m["vocab"].setdefault(name, len(m["vocab"]))
    return Tokenizer.from_str(json.dumps(j))


def chain(r):
    m, trainer = model(r)
    t = Tokenizer(m)
    t.normalizer, t.pre_tokenizer = some(r, normaliser, N.Sequence, 3), some(r, cutter, P.Sequence, 3)
    text = t.to_str()
    if '"prepend_scheme":"first"' in text and any('"%s"' % x in text for x in ("Prepend", "NFKC", "NFKD", "Replace")):
        t.normalizer = None
    t.train_from_iterator(kinds.SENTENCES, trainer)
    t = with_bytes(r, t)
    for part, made in (("post_processor", some(r, processor, O.Sequence, 2)), ("decoder", some(r, decoder, D.Sequence, 3))):
        if made is not None:
            setattr(t, part, made)

    def flags():
        return {k: r.random() < 0.3 for k in ("lstrip", "rstrip", "single_word", "normalized")}

    words = ["over", "C++", "\u00c9a", "<new>", "a b", " the", "ing"]
    t.add_tokens([AddedToken(x, **flags()) for x in r.sample(words, r.randrange(4))])
    t.add_special_tokens([AddedToken(x, **flags()) for x in r.sample(["<mask>", "<sp>", "\u2581q", "[X]"], r.randrange(3))])
    return t


def texts(r, n, tokens):
    out = ["", " ", "\n", "a", "\u00e9"]
    for _ in range(n):
        if r.random() < 0.3:
            out.append(r.choice(kinds.AWKWARD))
            continue
        words, pool = r.choice(kinds.SENTENCES).split(" "), r.choice(POOLS)
        for _ in range(r.randrange(1, 9)):
            x = r.random()
            words.append(r.choice(tokens) if x < 0.3 else "".join(chr(r.randrange(*pool)) for _ in range(r.randrange(1, 5))))
        words = r.sample(words, r.randrange(1, min(9, len(words))))
        out.append("".join(w + r.choice([" ", " ", " ", "", "  ", "\t", ", ", "\u00a0"]) for w in words))
    return ["".join(c for c in x if unicodedata.category(c) not in ("Cn", "Cs")) for x in out]


def attempt(f, *args):
    """F(*ARGS), or None where the library fails or panics, which is no Exception."""
    try:
        return f(*args)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        return None


def reference(path, items):
    """The items that the library takes, and [ids, text] of each."""
    t = transformers.AutoTokenizer.from_pretrained(path).backend_tokenizer

    def one(x):
        ids = t.encode(x).ids if isinstance(x, str) else x
        return [ids, t.decode(ids)]

    both = [(x, attempt(one, x)) for x in items]  # None: a word unknown to a model without an unknown token
    return [x for x, want in both if want], [want for _, want in both if want]


def check(probe, path, t, items):
    """What is wrong with chain T: (why it was refused, items that differ)."""
    t.save(os.path.join(path, "tokenizer.json"))
    kinds.write_json(path, "tokenizer_config.json",
                     {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False})
    taken, want = reference(path, items)
    file = os.path.join(path, "items.json")
    with open(file, "w") as f:
        json.dump(taken, f)
    got = subprocess.run([probe, path, file, "source"], capture_output=True)
    if got.returncode:
        return got.stderr.decode()[-400:].strip(), [] if got.returncode == 3 else ["exit %d" % got.returncode]
    rows = [x.split("\t") for x in got.stdout.decode().split("\n") if x][1:]
    got = [[[int(i) for i in a.split()], bytes.fromhex(b).decode("utf-8", "backslashreplace")] for a, b in rows]
    return None, ["%r\n      ours %s\n      want %s" % x for x in zip(taken, got, want) if x[1] != x[2]]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("probe")
    p.add_argument("work")
    p.add_argument("--chains", type=int, default=40)
    p.add_argument("--texts", type=int, default=60)
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    os.makedirs(a.work, exist_ok=True)
    same, refused, differ = 0, {}, 0
    for i in range(a.seed, a.seed + a.chains):
        r = random.Random(i)
        t = attempt(chain, r)
        if not t:
            continue  # the library cannot train it
        tokens = ["<s>", "</s>", "<unk>"] + [x.content for x in t.get_added_tokens_decoder().values()]
        items = texts(r, a.texts, tokens)
        items += [[r.randrange(t.get_vocab_size()) for _ in range(r.randrange(1, 12))] for _ in range(a.texts // 3)]
        why, bad = check(a.probe, a.work, t, items)
        if bad:
            parts = {k: v for k, v in json.loads(t.to_str()).items() if k not in ("model", "version")}
            print("chain %d: %s\n   %s" % (i, json.dumps(parts, ensure_ascii=False), "\n   ".join(bad[:3])), flush=True)
        elif why:
            refused[why] = refused.get(why, 0) + 1
        differ += bool(bad)
        same += not bad and not why
    for why, n in refused.items():
        print("refused %d: %s" % (n, why))
    print("chains: %d the same, %d refused, %d differ" % (same, sum(refused.values()), differ))
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
