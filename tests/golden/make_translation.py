#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write translation_golden.h beside this file: outputs with two references each, and BLEU, chrF and TER of them for many options.

Needs sacrebleu 2.6.0 (pip install sacrebleu==2.6.0).  The texts are our own; the numbers are theirs.
"""
import itertools
import os
import random

import sacrebleu
from sacrebleu.metrics import BLEU, CHRF, TER

assert sacrebleu.__version__ == "2.6.0", "these values belong to sacrebleu 2.6.0"
rnd = random.Random(11)
words = "the students copied layers of a larger teacher , and were 3.5 times faster ( at least ) -- on 10-core machines .".split()


def babble(n):
    return " ".join(rnd.choice(words) for _ in range(n))


def shifted(text):
    w = text.split()
    for _ in range(3):
        i = rnd.randrange(len(w))
        phrase, w = w[i:i + rnd.randint(1, 5)], w[:i] + w[i + 5:]
        k = rnd.randint(0, len(w))
        w = w[:k] + phrase + w[k:]
    return " ".join(w)


ROWS = [  # output, reference, another reference
    ("", "", ""),
    ("", "a target", "one"),
    ("nothing shared", "unrelated", ""),
    ("word", "one word", "a word"),
    ("the teachers ran and the teacher runs", "the teacher was running", "the teachers were running and running"),
    ("It costs 1,000.50 dollars , not 1.5 % .", "It costs 1,000.50 dollars, not 1.5%.", "The price is $1,000.50, not 1.5%"),
    ("Wait ... what ? ! ( really )", "Wait... what?! (really)", "Wait, what?"),
    ("10 - 12 kg , pre-war ; e-mail : a @ b.c / d", "10-12 kg, pre-war; e-mail: a@b.c/d", "10\u201312 kg; e\u2011mail"),
    ('"Tom & Jerry" <b> <', "&quot;Tom &amp; Jerry&quot; &lt;b&gt; &amp;lt;", "'Tom &amp; Jerry'"),
    ("do n't , ca n't , it 's", "don't, can't, it's", "It's Anna's, James', the 90's."),
    ("the library's, its users' and Go's", "The libraries 's, its users', Go's ", "the library's, providing"),
    ("softbreak and line here", "soft-\nbreak and\nline <skipped>here", "soft\n-break and line-\n"),
    ("Stra\u00dfe in M\u00fcnchen , 5 km weit .", "Stra\u00dfe in M\u00fcnchen, 5\u00a0km\u3000weit.", "STRASSE IN M\u00dcNCHEN"),
    ("Guvernul a anun\u0163at c\u0103 pre\u021burile vor cre\u015fte.", "Guvernul a anun\u021bat c\u0103 pre\u021burile cresc.", "Guvernul anunta cresteri."),
    ("\u4e2d\u6587\u3002 , \u00e9 . \u00e9", "\u4e2d\u6587\u3002,\u00e9.\u00e9", "\u4e2d\u56fd\u8bed\u6587\u3001\u3002"),
    ("\u6211\u4eec\u4eca\u5929\u53bb\u5b66\u6821\u3002", "\u6211\u4eca\u5929\u4e0a\u5b66\u53bb\u4e86\uff08\u5f88\u65e9\uff09\u3002", "\u4eca\u5929\uff0c\u6211\u4eec\u4e0a\u5b66\u3002Yes, \u662f\u7684"),
    ("\u3053\u308c\u306f\u30c6\u30b9\u30c8\u3067\u3059\u3002", "\u30c6\u30b9\u30c8\u3067\u3059\u3001\u3053\u308c\u306f\u3002", "\u3072\u3089\u304c\u306a\u30fb\u30ab\u30bf\u30ab\u30ca\uff71\uff72"),
    ("\u0645\u0631\u062d\u0628\u0627\u060c \u0643\u064a\u0641 \u0627\u0644\u062d\u0627\u0644\u061f", "\u0645\u0631\u062d\u0628\u0627 \u0643\u064a\u0641 \u062d\u0627\u0644\u0643\u061f \u0661\u0662\u0663", "\u0623\u0647\u0644\u0627\u060c \u0661\u066b\u0662"),
    ("\u039f\u0394\u03a5\u03a3\u03a3\u0395\u03a5\u03a3, \u0391\u03a3. \u03a3\u2019\u0391\u03a3\u00ad", "\u03bf\u03b4\u03c5\u03c3\u03c3\u03b5\u03c5\u03c2, \u03b1\u03c2. \u03c3\u2019\u03b1\u03c2", "\u039f\u0394\u03a5\u03a3 \u0391\u03a3'\u0391"),
    ("\u0130stanbul IS\u0131 \u01c5 \u1e9e \u212a", "i\u0307stanbul \u0131s\u0131 \u01c6 \u00df k", "istanbul isi"),
    ("\u20ac5 + $3 = \u00a32\u00bd, x\u00b2 \u2260 \u2163 \u2022 \U0001f642\u200d\U0001f1eb", "\u20ac 5+$3=\u00a32\u00bd, x\u00b2\u2260\u2163 \u2022\U0001f642", "5\u20ac, \u2461 \u00ab\u2026\u00bb \u2013 \u201cyes\u201d"),
    ("tab\tand\x1cseparators\x85here\u2028now ", " tab and separators here now", "\ttab\vand\fthere"),
    (". , .., 1.,2 .3 4 . 5 ,", ". , .., 1.,2 .3 4. 5,", ".1,.2,.3."),
    ("b a b a", "a b a b a b a b", "a b a"),
    ("(hi) 'tis \"so\" -x- a, ,b c. !", "(hi 'tis so\" x- a ,b c!", "hi) tis, so"),
    ("many words in the output and so few in the other " * 8, "few words", "one"),
    ("few words", "many words in the reference and so few in the other " * 8, "few"),
]
for n in (28, 40, 70):
    r = babble(n)
    ROWS.append((shifted(r), r, shifted(r)))
for vocabulary in ("ab", "abcd"):
    ROWS.append(tuple(" ".join(rnd.choice(vocabulary) for _ in range(n)) for n in (60, 75, 30)))


def quote(text):
    if not text.isascii() or any(c in text for c in '"\\\n\r\t\v\f\x1c'):
        return '"' + "".join(chr(b) if 32 <= b < 127 and chr(b) not in '"\\' else "\\%03o" % b for b in text.encode()) + '"'
    return '"' + text + '"'


OUTPUTS = [r[0] for r in ROWS]
REFS = [[r[1] for r in ROWS], [r[2] for r in ROWS]]
yes = ("false", "true")
here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "translation_golden.h"), "w") as f:
    f.write("/* SPDX-License-Identifier: Apache-2.0 */\n/* Made by make_translation.py; not to be edited. */\n"
            "#ifndef KDHPC_GOLDEN_TRANSLATION_H\n#define KDHPC_GOLDEN_TRANSLATION_H\n\n"
            '#include "kdhpc/metric/metric.h"\n\n/* clang-format off */\n'
            "enum { GOLDEN_REFS = 2 };\n"
            "static const struct {\n    const char *output, *refs[GOLDEN_REFS];\n} golden_rows[] = {\n")
    for o, a, b in ROWS:
        f.write("    {%s,\n     {%s,\n      %s}},\n" % (quote(o), quote(a), quote(b)))
    f.write("};\n\n/* SCORE of all rows with N_REFS references. */\n"
            "static const struct {\n    struct kd_bleu_options options;\n    int n_refs;\n    double score, correct[4], total[4], output_tokens, reference_tokens;\n"
            "    const char *signature;\n} golden_bleu[] = {\n")
    for tok, (smooth, value), lower, eff, n in itertools.product(
            ("13a", "intl", "char", "zh", "none"), (("exp", None), ("floor", None), ("floor", 0.3), ("add-k", None), ("add-k", 2.5), ("none", None)),
            (0, 1), (0, 1), (1, 2)):
        if (smooth, value) != ("exp", None) and (eff or lower):
            continue
        m = BLEU(tokenize=tok, smooth_method=smooth, smooth_value=value, lowercase=bool(lower), effective_order=bool(eff), force=True)
        s = m.corpus_score(OUTPUTS, REFS[:n])
        m0 = BLEU(tokenize=tok, lowercase=bool(lower), force=True).corpus_score(OUTPUTS, REFS[:n])  # counts before add-k changes them
        f.write('    {{%s, %s, %r, %s, %s}, %d, %r, {%s}, {%s}, %d, %d,\n     "%s"},\n'
                % ("KD_BLEU_" + tok.upper(), {"exp": "KD_BLEU_EXP", "floor": "KD_BLEU_FLOOR", "add-k": "KD_BLEU_ADD_K", "none": "KD_BLEU_UNSMOOTHED"}[smooth],
                   -1 if value is None else value, yes[lower], yes[eff], n, s.score, ", ".join(map(str, m0.counts)), ", ".join(map(str, m0.totals)),
                   s.sys_len, s.ref_len, m.get_signature().format()))
    f.write("};\n\nstatic const struct {\n    struct kd_chrf_options options;\n    int n_refs;\n    double score;\n    const char *name, *signature;\n} golden_chrf[] = {\n")
    for (nc, nw, beta), lower, space, eps, n in itertools.product(((6, 0, 2), (6, 2, 2), (4, 1, 1), (10, 3, 3)), (0, 1), (0, 1), (0, 1), (1, 2)):
        m = CHRF(char_order=nc, word_order=nw, beta=beta, lowercase=bool(lower), whitespace=bool(space), eps_smoothing=bool(eps))
        s = m.corpus_score(OUTPUTS, REFS[:n])
        f.write('    {{%d, %d, %d, %s, %s, %s}, %d, %r, "%s",\n     "%s"},\n'
                % (nc, nw, beta, yes[lower], yes[space], yes[eps], n, s.score, s.name, m.get_signature().format()))
    f.write("};\n\nstatic const struct {\n    struct kd_ter_options options;\n    int n_refs;\n    double score;\n    const char *signature;\n} golden_ter[] = {\n")
    for norm, punct, asian, case, n in itertools.product((0, 1), (0, 1), (0, 1), (0, 1), (1, 2)):
        m = TER(normalized=bool(norm), no_punct=bool(punct), asian_support=bool(asian), case_sensitive=bool(case))
        s = m.corpus_score(OUTPUTS, REFS[:n])
        f.write('    {{%s, %s, %s, %s}, %d, %r,\n     "%s"},\n' % (yes[norm], yes[punct], yes[asian], yes[case], n, s.score, m.get_signature().format()))
    f.write("};\n\n/* Each row alone, with one reference: BLEU with effective order, chrF++, TER. */\nstatic const double golden_alone[][3] = {\n")
    bleu, chrf, ter = BLEU(effective_order=True), CHRF(word_order=2), TER()
    for o, a, _ in ROWS:
        f.write("    {%r, %r, %r},\n" % tuple(m.sentence_score(o, [a]).score for m in (bleu, chrf, ter)))
    f.write("};\n/* clang-format on */\n#endif\n")
