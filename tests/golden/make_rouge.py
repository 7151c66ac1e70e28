#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write rouge_golden.h and porter_golden.h beside this file.

Needs rouge-score and nltk (pip install rouge-score).  The texts are our own; the numbers are theirs.
"""
import os
import random

from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer

here = os.path.dirname(os.path.abspath(__file__))
rnd = random.Random(7)

long_words = ("the students copied layers of a larger teacher and were running faster while losing little quality "
              "because distillation distils what matters").split()


def babble(words, n, newline=0.0):
    out = []
    for _ in range(n):
        out.append(rnd.choice(words))
        out.append("\n" if rnd.random() < newline else " ")
    return "".join(out)


PAIRS = [
    ("", ""),
    ("a target", ""),
    ("", "a prediction"),
    ("...", "!!!"),
    ("the teacher was running", "the teachers ran and the teacher runs"),
    ("a student copies the layers of its teacher", "the student copied a layer of the teacher"),
    ("the the the the", "the the"),
    ("a b a b a b", "b a b a"),
    ("first line\nsecond line\nthird", "second line\nfirst line"),
    ("\n\nfirst line\n\nsecond one\n", "first one\nsecond line\n\n"),
    ("one two three four\none three five seven", "one three two four\nfive one two three"),
    ("Straße in München", "strasse in Munchen"),
    ("\u0130stanbul and 10 \u212aelvin", "i stanbul and 10 kelvin"),
    ("e-mail: x86_64, arm64; v1.2", "email x86 64 arm64 v1 2"),
    (" ".join("abcde"[i % 5] for i in range(64)), " ".join("edcba"[i % 5] for i in range(65))),
    (babble(long_words, 65), babble(long_words, 63)),
    (babble(long_words, 130), babble(long_words, 140)),
    (babble(long_words, 130, 0.1), babble(long_words, 140, 0.1)),
    (babble(["a", "b", "c"], 200, 0.02), babble(["a", "b", "c"], 150, 0.02)),
]

WORDS = """
sky skies dying lying tying news inning innings outing outings canning cannings howe proceed exceed succeed
dies died tied spied flies cries enjoys sayings caresses ponies caress cats feed agreed plastered bled motoring sing
conflated troubled sized hopping tanned falling hissing fizzed failing filing happy enjoy by say relational conditional
rational valenci hesitanci digitizer conformabli radically radicalli differentli vileli analogousli vietnamization
predication operator feudalism decisiveness hopefulness callousness formaliti sensitiviti sensibiliti hopefulli
geologi theologi logi triplicate formative formalize electriciti electrical hopeful goodness revival allowance inference
airliner gyroscopic adjustable defensible irritant replacement adjustment dependent adoption homologou communism activate
angulariti homologous effective bowdlerize probate rate cease controll roll controlling rolls yyyy syzygy toy toys sayyed
abed ing ings ied ies eed x86 1234s aed oed owed ties e ee eing ying ation ion sion alli nationalli generalization
""".split()


def c_string(text):
    """A C literal, in pieces of 80 characters."""
    chars = ["\\n" if b == 10 else chr(b) if 32 <= b < 127 and b not in (34, 92) else "\\%03o" % b
             for b in text.encode()]
    return " ".join('"%s"' % "".join(chars[i:i + 80]) for i in range(0, max(len(chars), 1), 80))


def write(name, guard, body):
    with open(os.path.join(here, name), "w") as f:
        f.write("/* SPDX-License-Identifier: Apache-2.0 */\n/* Made by make_rouge.py; not to be edited. */\n"
                f"#ifndef {guard}\n#define {guard}\n/* clang-format off */\n{body}\n#endif\n")


scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
rows = []
for target, prediction in PAIRS:
    s = scorer.score(target, prediction)
    nums = ", ".join("{%r, %r, %r}" % tuple(float(x) for x in s[k]) for k in ("rouge1", "rouge2", "rougeL", "rougeLsum"))
    rows.append("    {%s,\n     %s,\n     {%s}}," % (c_string(target), c_string(prediction), nums))
write("rouge_golden.h", "KDHPC_GOLDEN_ROUGE_H",
      "static const struct {\n    const char *target, *prediction;\n    double prf[4][3]; /* 1, 2, L, Lsum */\n} "
      "rouge_golden[] = {\n" + "\n".join(rows) + "\n};")
stem = PorterStemmer().stem
write("porter_golden.h", "KDHPC_GOLDEN_PORTER_H",
      "static const char *const porter_golden[][2] = {\n"
      + "\n".join('    {"%s", "%s"},' % (w, stem(w)) for w in WORDS) + "\n};")
