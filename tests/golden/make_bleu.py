#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write bleu_golden.h beside this file: pairs, each with the counts and the score of all pairs up to it.

Needs sacrebleu (pip install sacrebleu).  The texts are our own; the numbers are theirs.
"""
import os
import random

import sacrebleu

rnd = random.Random(11)
words = "the students copied layers of a larger teacher , and were 3.5 times faster ( at least ) -- on 10-core machines .".split()


def babble(n):
    return " ".join(rnd.choice(words) for _ in range(n))


PAIRS = [
    ("", ""),
    ("a target", ""),
    ("unrelated", "nothing shared"),
    ("one word", "word"),
    ("the teacher was running", "the teachers ran and the teacher runs"),
    ("It costs 1,000.50 dollars, not 1.5%.", "It costs 1,000.50 dollars , not 1.5 % ."),
    ("Wait... what?! (really)", "Wait ... what ? ! ( really )"),
    ("10-12 kg, pre-war; e-mail: a@b.c/d", "10 - 12 kg , pre-war ; e-mail : a @ b.c / d"),
    ("&quot;Tom &amp; Jerry&quot; &lt;b&gt; &amp;lt;", '"Tom & Jerry" <b> <'),
    ("don't, can't, it's", "do n't , ca n't , it 's"),
    ("soft-\nbreak and\nline <skipped>here", "softbreak and line here"),
    ("Stra\u00dfe in M\u00fcnchen, 5\u00a0km\u3000weit.", "Stra\u00dfe in M\u00fcnchen , 5 km weit ."),
    ("\u4e2d\u6587\u3002,\u00e9.\u00e9", "\u4e2d\u6587\u3002 , \u00e9 . \u00e9"),
    (". , .., 1.,2 .3 4. 5,", ". , . ., 1. ,2 .3 4 . 5 ,"),
    ("a b a b a b a b", "b a b a"),
] + [(babble(30), babble(28)) for _ in range(3)]


def quote(text):
    return '"' + "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\' else "\\%03o" % b for b in text.encode()) + '"'


here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "bleu_golden.h"), "w") as f:
    f.write("/* SPDX-License-Identifier: Apache-2.0 */\n/* Made by make_bleu.py; not to be edited. */\n"
            "#ifndef KDHPC_GOLDEN_BLEU_H\n#define KDHPC_GOLDEN_BLEU_H\n/* clang-format off */\n"
            "static const struct {\n    const char *target, *prediction;\n"
            "    double correct[4], total[4], prediction_tokens, target_tokens, score; /* of all pairs so far */\n"
            "} bleu_golden[] = {\n")
    for i in range(len(PAIRS)):
        targets, predictions = zip(*PAIRS[:i + 1])
        b = sacrebleu.corpus_bleu(list(predictions), [list(targets)])
        f.write("    {%s,\n     %s,\n     {%s}, {%s}, %d, %d, %r},\n"
                % (quote(PAIRS[i][0]), quote(PAIRS[i][1]), ", ".join(map(str, b.counts)), ", ".join(map(str, b.totals)),
                   b.sys_len, b.ref_len, b.score))
    f.write("};\n/* clang-format on */\n#endif\n")
