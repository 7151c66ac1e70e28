# SPDX-License-Identifier: Apache-2.0
"""Real text in several languages for the live tests, out of Debian's package descriptions:

    real_lines.py OUT_DIR [--languages en,de,fr] [--lines 20000]

Writes OUT_DIR/LANGUAGE.txt: synopses and paragraphs of descriptions, a line each, no line twice, a random choice.  apt-get
fetches the lists into OUT_DIR (about 10 MB; nothing of the system's is changed, no root needed).
"""
import argparse
import glob
import os
import random
import re
import subprocess


def fetch(lists, languages):
    os.makedirs(os.path.join(lists, "partial"), exist_ok=True)
    options = {"Dir::State::Lists": lists, "Dir::Cache": os.path.join(lists, "cache"), "Debug::NoLocking": "true",
               "Acquire::Languages": languages, "Acquire::IndexTargets::deb::Packages::DefaultEnabled": "false"}
    if os.geteuid() == 0:
        options["APT::Sandbox::User"] = "root"  # the directory is ours, not _apt's
    subprocess.run(["apt-get", "-q", *(x for k, v in options.items() for x in ("-o", "%s=%s" % (k, v))), "update"], check=True,
                   stdout=subprocess.DEVNULL)


def lines_of(lists, language):
    files = sorted(glob.glob(os.path.join(lists, "*_main_i18n_Translation-%s.*" % language)))
    text = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", *files], capture_output=True, check=True).stdout.decode()
    found = {}
    for synopsis, rest in re.findall(r"^Description-%s: (.*)((?:\n .*)*)" % language, text, re.M):
        paragraphs = re.split(r"\n \.(?=\n|$)", rest)
        for x in [synopsis] + [p.replace("\n ", " ").strip() for p in paragraphs]:
            if x.strip():
                found[x] = None
    return list(found)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("out_dir")
    p.add_argument("--languages", default="en,de,fr")
    p.add_argument("--lines", type=int, default=20000)
    a = p.parse_args()
    lists = os.path.join(os.path.abspath(a.out_dir), "lists")
    fetch(lists, a.languages)
    for language in a.languages.split(","):
        lines = lines_of(lists, language)
        random.Random(1).shuffle(lines)
        with open(os.path.join(a.out_dir, language + ".txt"), "w", encoding="utf-8") as f:
            f.write("".join(x + "\n" for x in lines[:a.lines]))
        print("%s: %d of %d lines" % (language, min(a.lines, len(lines)), len(lines)))


if __name__ == "__main__":
    main()
