# SPDX-License-Identifier: Apache-2.0
"""Writes src/text/moses_tables.c: the characters and abbreviations that sacremoses 0.2.0 (MIT licence) works with.

    python tests/golden/make_moses_tables.py; clang-format -i src/text/moses_tables.c
"""
import ctypes
import os

import sacremoses.tokenize
from sacremoses._data_nonbreaking_prefixes import NONBREAKING_PREFIXES

LANGUAGES = "cs de en es et fi fr hu it lv nl pl pt ro ru sk sl sv".split()
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src", "text", "moses_tables.c")
HEAD = """/* SPDX-License-Identifier: Apache-2.0 */
/* What Moses rules know of characters and abbreviations.
 *
 * Written by tests/golden/make_moses_tables.py from the tables of sacremoses, under the
 * MIT licence, which come from an older Unicode than utf8proc's; lower case is told as
 * what differs from category Ll.  A # after an abbreviation: only before a number. */
#include "moses_impl.h"

#include <stddef.h>
"""


def ranges(chars):
    out = []
    for c in sorted(chars):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def table(name, chars):
    rows = ranges(chars)
    body = "".join("{0x%X, 0x%X}," % tuple(r) for r in rows)
    return "const struct kd_char_range KD_MOSES_%s[] = {%s};\nconst int KD_MOSES_N_%s = %d;\n" % (name, body, name, len(rows))


def prefixes(lang):
    words = []
    for line in NONBREAKING_PREFIXES["nonbreaking_prefix." + lang].splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        numeric = " #NUMERIC_ONLY#" in line
        word = line.rpartition(" ")[0] if numeric else line
        if " " not in word and word + "#" * numeric not in words:
            words.append(word + "#" * numeric)
    return words


def main():
    moses = sacremoses.tokenize.MosesTokenizer
    sets = {k: set(map(ord, getattr(moses, k))) for k in ("IsAlpha", "IsAlnum", "IsN", "IsSc", "IsLower")}
    u = ctypes.CDLL("libutf8proc.so.2")
    ll = {c for c in range(0x110000) if u.utf8proc_category(c) == 2}
    text = [HEAD, table("ALPHA", sets["IsAlpha"]), table("DIGIT", sets["IsAlnum"] - sets["IsAlpha"]), table("NUMBER", sets["IsN"]),
            table("CURRENCY", sets["IsSc"]), table("LOWER", sets["IsLower"] - ll), table("NOT_LOWER", ll - sets["IsLower"])]
    rows = []
    for lang in LANGUAGES:
        words = prefixes(lang)
        assert not any('"' in w or "\\" in w for w in words)
        lines = " ".join(words).encode()
        chunks, at = [], 0
        while at < len(lines):
            stop = min(at + 76, len(lines))
            while stop < len(lines) and lines[stop] & 0xC0 == 0x80:
                stop += 1
            chunks.append('"' + lines[at:stop].decode() + '"')
            at = stop
        rows.append('{"%s", %s},' % (lang, "\n".join(chunks)))
    text.append("const struct kd_moses_language KD_MOSES_LANGUAGES[] = {\n%s\n};\n" % "\n".join(rows))
    text.append("const int KD_MOSES_N_LANGUAGES = %d;\n" % len(LANGUAGES))
    known = sorted(x.rpartition(".")[2] for x in NONBREAKING_PREFIXES if "prefix" in x)
    others = [x for x in known if x not in LANGUAGES] + ["ja", "ko", "cjk"]
    text.append("const char *const KD_MOSES_OTHERS[] = {%s, NULL};\n" % ", ".join('"%s"' % x for x in others))
    with open(OUT, "w", encoding="utf-8") as f:
        f.write("\n".join(text))


if __name__ == "__main__":
    main()
