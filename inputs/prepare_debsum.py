#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make a summarisation set from what every Debian or Ubuntu machine can get: package descriptions and synopses.

    prepare_debsum.py OUT_DIR [--source auto|apt|system|installed] [--lists DIR] [--force]

Writes OUT_DIR/{train,val,test}.{source,target}: the long description on one line, and the one-line synopsis.

Where the descriptions come from, tried in this order:
  apt        the English descriptions of this machine's release, fetched by apt-get into a directory of our own
             (about 10 MB; nothing of the system's is changed, no root needed)
  system     the lists that apt has already fetched
  installed  the installed packages (works offline; small, good enough to try things out)

Kept are descriptions of at least 8 words with a synopsis of at least 2, each description once.  The split hangs on
a hash of the description alone, so the same package lands in the same split on every machine and in every release.
"""
import argparse
import glob
import hashlib
import os
import subprocess
import sys
import tempfile

SPLITS = ("train", "val", "test")
KEY = "Description-en: "


def release():
    """(codename, archive components) of this machine."""
    fields = {}
    with open("/etc/os-release", encoding="utf-8") as f:
        for line in f:
            name, _, value = line.strip().partition("=")
            fields[name] = value.strip("\"'")
    ubuntu = "ubuntu" in (fields.get("ID", "") + " " + fields.get("ID_LIKE", "")).split()
    codename = (fields.get("UBUNTU_CODENAME") if ubuntu else None) or fields.get("VERSION_CODENAME", "")
    return codename, ("main", "universe") if ubuntu else ("main",)


def translation_files(lists):
    """Lists of English descriptions of the release's own suite (not of its updates)."""
    codename, components = release()
    found = []
    for c in components:
        # One per component: several mirrors of the same suite say the same.
        found += sorted(glob.glob(f"{lists}/*_dists_{codename}_{c}_i18n_Translation-en*"))[:1]
    return found


def read_lists(files):
    """Text of list files, whatever they are compressed with."""
    out = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", *files], capture_output=True, check=True)
    return out.stdout.decode("utf-8", "replace")


def fetch(lists):
    """Let apt-get fetch the lists; its first complaint, which counts only if the lists are not there afterwards."""
    os.makedirs(lists + "/partial", exist_ok=True)
    options = {
        "Dir::State::Lists": lists,
        "Dir::Cache": lists + "/cache",
        "Debug::NoLocking": "true",
        "Acquire::Languages": "en",
        "Acquire::http::Timeout": "20",
        "Acquire::Retries": "2",
        # Descriptions only: not the package indices, which are far larger.
        "Acquire::IndexTargets::deb::Packages::DefaultEnabled": "false",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Acquire::IndexTargets::deb-src::Sources::DefaultEnabled": "false",
        "Acquire::IndexTargets::deb::CNF::DefaultEnabled": "false",
    }
    if os.geteuid() == 0:
        options["APT::Sandbox::User"] = "root"  # the directory is ours, not _apt's
    command = ["apt-get", "-q"]
    for name, value in options.items():
        command += ["-o", f"{name}={value}"]
    done = subprocess.run(command + ["update"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return (done.stderr.strip().splitlines() or ["it fetched nothing"])[0]


def from_apt(lists):
    if lists and translation_files(lists):
        return read_lists(translation_files(lists))
    with tempfile.TemporaryDirectory(prefix="debsum-") as own:
        where = os.path.abspath(lists) if lists else own
        try:
            complaint = fetch(where)
        except OSError as e:  # no apt-get here
            complaint = e
        files = translation_files(where)
        if not files:
            print(f"debsum: apt-get: {complaint}", file=sys.stderr)
        return read_lists(files) if files else ""


def from_system(_):
    files = translation_files("/var/lib/apt/lists")
    return read_lists(files) if files else ""


def from_installed(_):
    form = KEY + "${Description}\\n\\n"
    return subprocess.run(["dpkg-query", "-W", "-f", form], capture_output=True, check=True).stdout.decode("utf-8", "replace")


ORIGINS = {
    "apt": (from_apt, "package descriptions of this release"),
    "system": (from_system, "package descriptions in the system's apt lists"),
    "installed": (from_installed, "descriptions of the installed packages only: a small set"),
}


def descriptions(text):
    """(synopsis, description) of each paragraph of TEXT, in order."""
    synopsis, lines = None, []
    for line in text.split("\n") + [""]:
        if synopsis is None:
            if line.startswith(KEY):
                synopsis, lines = line[len(KEY):].strip(), []
        elif line.startswith(" "):
            if line.strip() != ".":
                lines.append(line)
        else:
            yield synopsis, " ".join(" ".join(lines).split())
            synopsis = None


def split_of(description):
    h = int(hashlib.sha1(description.encode()).hexdigest(), 16) % 1000
    return "test" if h < 20 else "val" if h < 40 else "train"


def examples(text):
    seen = set()
    for synopsis, description in descriptions(text):
        if len(description.split()) >= 8 and len(synopsis.split()) >= 2 and description not in seen:
            seen.add(description)
            yield split_of(description), description, synopsis


def write(out, rows):
    """Write the six files; they appear under their names only when all are whole."""
    os.makedirs(out, exist_ok=True)
    paths = {(s, k): f"{out}/{s}.{k}" for s in SPLITS for k in ("source", "target")}
    files = {key: open(path + ".part", "w", encoding="utf-8", newline="\n") for key, path in paths.items()}
    count = dict.fromkeys(SPLITS, 0)
    for split, source, target in rows:
        files[split, "source"].write(source + "\n")
        files[split, "target"].write(target + "\n")
        count[split] += 1
    for key, f in files.items():
        f.close()
        os.rename(paths[key] + ".part", paths[key])
    return count


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("out_dir")
    p.add_argument("--source", choices=["auto", *ORIGINS], default="auto", help="where the descriptions come from")
    p.add_argument("--lists", help="keep what apt fetches here, and use what is here already")
    p.add_argument("--force", action="store_true", help="make the set again if it is there")
    a = p.parse_args()
    if not a.force and all(os.path.exists(f"{a.out_dir}/{s}.{k}") for s in SPLITS for k in ("source", "target")):
        print(f"debsum: {a.out_dir} is there already")
        return 0
    for name in ORIGINS if a.source == "auto" else [a.source]:
        get, what = ORIGINS[name]
        rows = list(examples(get(a.lists)))
        if all(any(r[0] == s for r in rows) for s in SPLITS):
            n = write(a.out_dir, rows)
            print(f"debsum: {n['train']} train, {n['val']} val, {n['test']} test examples in {a.out_dir} from {what}")
            return 0
        print(f"debsum: nothing from '{name}' ({what})", file=sys.stderr)
    print("debsum: error: no package descriptions found", file=sys.stderr)
    return 3


if __name__ == "__main__":
    sys.exit(main())
