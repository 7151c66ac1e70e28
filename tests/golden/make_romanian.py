#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write romanian_golden.h beside this file: texts, and what the usual scoring of Romanian makes of them.

    make_romanian.py MOSESDECODER WMT16_SCRIPTS

Needs Perl and checkouts of moses-smt/mosesdecoder (made with 34452895) and rsennrich/wmt16-scripts.  The texts are our own.
"""
import os
import random
import subprocess
import sys

moses, wmt16 = sys.argv[1:]
rnd = random.Random(3)
TEXTS = [
    "Guvernul a anun\u0163at c\u0103 pre\u021burile vor cre\u015fte cu 3,5 % \u00een 2016.",
    "\u201eNu \u015ftiu\u201d, a spus dl. Popescu. \u201eVom vedea...\u201d",
    "D-na. Ionescu, M.Ap.N. \u015fi etc. au venit la Bucure\u015fti (azi).",
    "Cost\u0103 1.000,50 de lei, adic\u0103 10 - 12 % din PIB; vezi: a@b.c/d",
    "S-a dus la U.E. \u00een 2010. Apoi s-a \u00eentors. pt. c\u0103; pt. 5. \u015ei A. B. C. cuv\u00e2nt",
    "El a zis: \u00abDa, poate.\u00bb \u015fi a plecat\u2026 la \u00ab\u00a0han\u00a0\u00bb",
    "\u2018citat\u2019 \u015fi \u2019altul\u2019 \u015fi don\u2019t \u015fi l\u2018a, it's 'x' ''y'' `z`",
    "Text\u00a0cu spa\u0163iu\u00a0: \u015fi n\u00ba\u00a05, 20\u00a0\u00baC. \u00baC, 3\u00a0cm, 10\u00a0000, \u200bgol\t!",
    "\u00cel \u015ftiu. \u00ceNT\u00c2I \u0102la, \u0162ara, \u021aara, \u015ei \u0218i \u00c2la",
    'abc."', 'abc." <x', "a,b,c,d,5,300,e 1990,", "...", ". .. ... a...b .'", "mai mult.'", "", " ", "DOTMULTI. etc. etc. Da",
    "\u4e2d\u6587\u3002  \u3001\uff08\uff11\uff05\u3011\uff5e\u2501",
]
SIGNS = list("aA s\u015f\u0163\u021b\u0103\u00ee  .,.,;:!?'\"()-\u2013\u2014\u2026\u201e\u201c\u2018\u2019\u00ab\u00bb%59\u20ac\u00a0\u00b4`b") + ["etc.", "dl.", "...", "U.E."]
TEXTS += ["".join(rnd.choice(SIGNS) for _ in range(30)) for _ in range(20)]


def run(program, text):
    return subprocess.run(program, input=text, capture_output=True, check=True).stdout


tokenizer = os.path.join(moses, "scripts", "tokenizer")
result = "".join(t + "\n" for t in TEXTS).encode()
for program in (["perl", tokenizer + "/replace-unicode-punctuation.perl"], ["perl", tokenizer + "/normalize-punctuation.perl", "-l", "ro"],
                ["perl", tokenizer + "/remove-non-printing-char.perl"], [sys.executable, wmt16 + "/preprocess/normalise-romanian.py"],
                [sys.executable, wmt16 + "/preprocess/remove-diacritics.py"], ["perl", tokenizer + "/tokenizer.perl", "-no-escape", "-l", "ro", "-q"]):
    result = run(program, result)
result = result.decode().split("\n")[:-1]
assert len(result) == len(TEXTS)


def quote(text):
    return '"' + "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\' else "\\%03o" % b for b in text.encode()) + '"'


here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "romanian_golden.h"), "w") as f:
    f.write("/* SPDX-License-Identifier: Apache-2.0 */\n/* Made by make_romanian.py; not to be edited. */\n"
            "#ifndef KDHPC_GOLDEN_ROMANIAN_H\n#define KDHPC_GOLDEN_ROMANIAN_H\n/* clang-format off */\n"
            "static const struct {\n    const char *text, *tokens; /* with one space between */\n} golden_romanian[] = {\n")
    for text, tokens in zip(TEXTS, result):
        f.write("    {%s,\n     %s},\n" % (quote(text), quote(" ".join(tokens.split()))))
    f.write("};\n/* clang-format on */\n#endif\n")
