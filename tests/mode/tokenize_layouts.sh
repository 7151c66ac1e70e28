#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tokenize from JSON lines and tab-separated columns: the same corpus as from two files, on one rank and on three; lines
# that cannot be read, by name; and bounded memory.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1

tokenize() { # NP OUTPUT_DIR DATA_DIR ARGS...
    local np=$1 dir=$2 data=$3
    shift 3
    kd_do "$np" --mode tokenize --data_dir "$data" --tokenizer tok --output_dir "$dir" "$@"
}

digest() { # OUTPUT_DIR: of the content of its corpus
    kd_do 1 --mode inspect --path "$1/corpus.h5" --json >/dev/null
    python3 -c 'import json; print(json.load(open("out.txt"))["digest"])'
}

refused() { # TEXT ARGS...: tokenizing bad/ is exit 3 and leaves nothing
    local text=$1
    shift
    kd_alone --mode tokenize --data_dir bad --tokenizer tok --output_dir refused "$@"
    expect_error 3 "$text"
    [ ! -e refused ] || [ -z "$(ls refused)" ] || fail "a refused run left $(ls refused)"
}

mkdir files json tsv nested
for i in $(seq 1 97); do
    echo "Line $i tells \"that\" the quick \\brown fox number $((i * 7919 % 1000)) jumps over $((i % 13)) lazy dogs é中."
done >files/train.source
sed 's/.*number \([0-9]*\).*/fox \1/' files/train.source >files/train.target
head -n 9 files/train.source >files/val.source
head -n 9 files/train.target >files/val.target
python3 - <<'P'
import json
for split in "train", "val":
    pairs = list(zip(*(open(f"files/{split}.{side}", encoding="utf-8").read().splitlines() for side in ("source", "target"))))
    with open(f"json/{split}.jsonl", "w", encoding="utf-8", newline="") as a, open(f"nested/{split}.jsonl", "w") as b, \
            open(f"tsv/{split}.tsv", "w", encoding="utf-8", newline="") as c:
        c.write("target\tnote\tsource\r\n")
        for i, (s, t) in enumerate(pairs):
            a.write(json.dumps({"id": i, "target": t, "source": s}, ensure_ascii=False) + ("\r\n" if i % 2 else "\n"))
            b.write(json.dumps({"translation": {"en": s, "ro": t, "x.y": 1}, "plain.key": s}) + "\n")
            c.write(f"{t}\t\t{s}" + ("" if i == len(pairs) - 1 else "\r\n"))
P
kd_do 1 --mode train-tokenizer --input files/train.source --vocab_size 90 --character_coverage 1 --output_dir tok

tokenize 1 from_files files
want=$(digest from_files)
for np in 1 3; do
    tokenize $np from_json$np json
    expect_text err.txt "val: 9 examples"
    tokenize $np from_tsv$np tsv --data_format tsv --source_column 3 --target_column 1 --tsv_header
    tokenize $np from_nested$np nested --source_key plain.key --target_key translation.ro
    for layout in json tsv nested; do
        [ "$(digest from_$layout$np)" = "$want" ] || fail "$layout on $np ranks gives another corpus than files"
    done
done

echo "a text of several lines stays one example"
mkdir lines
printf '%s\n' '{"source": "one fox\nand a dog", "target": "fox\n\ndog"}' '{"source": "x", "target": "y"}' >lines/test.jsonl
tokenize 2 lines_out lines
expect_text err.txt "test: 2 examples"
if command -v h5dump >/dev/null; then
    h5dump -d /test/source_text/offsets -y -w 60 lines_out/corpus.h5 >offsets.txt
    expect_text offsets.txt "0, 17, 18"
fi

echo "NUL is a character like any other"
mkdir nul_files nul_json
printf 'one\000fox\n' >nul_files/test.source
echo fox >nul_files/test.target
echo '{"source": "one\u0000fox", "target": "fox"}' >nul_json/test.jsonl
tokenize 1 from_nul_files nul_files
tokenize 1 from_nul_json nul_json
[ "$(digest from_nul_json)" = "$(digest from_nul_files)" ] || fail "text ends at NUL"

echo "lines that cannot be read"
mkdir bad
bad() { printf "$1" >bad/train.jsonl; }
bad '{"source": "a", "target": "b"}\n{"source": "a", "target": }\n'
refused "train.jsonl:2: not valid JSON"
bad '{"source": "a", "target": "b"}\n[1]\n'
refused "train.jsonl:2: not a JSON object"
bad '{"source": "a", "target": "b"}\n{"source": "a", "summary": "b"}\n'
refused 'train.jsonl:2: there is no "target"'
refused 'train.jsonl:1: there is no "summary"' --target_key summary
bad '{"source": "a", "target": "b"}\n{"source": "a", "target": 7}\n'
refused 'train.jsonl:2: no text at "target"'
bad '{"source": "a", "target": "b"}\n{"source": "a", "target": " \\n"}\n'
refused "train.jsonl:2: an empty target"
bad '{"source": "a", "target": "b"}\n\n'
refused "train.jsonl:2: an empty line"
bad '{"source": "a", "target": "b\377"}\n'
refused "train.jsonl:1: not valid UTF-8 at byte 29"
printf 'a\tb\n' >bad/train.tsv
refused "more than one layout"
rm bad/train.jsonl
refused "no split there" --data_format jsonl
printf 'a\tb\nc\n' >bad/train.tsv
refused "train.tsv:2: 1 tab-separated columns, but column 2"
printf 'a\tb\n\tc\n' >bad/train.tsv
refused "train.tsv:2: an empty source"
printf 'source\ttarget\n' >bad/train.tsv
refused "train.tsv: the file is empty" --tsv_header

echo "memory does not grow with the data"
mkdir big
for i in $(seq 1 300); do cat files/train.source; done >once.txt
for i in $(seq 1 20); do cat once.txt; done >big/train.source # 582,000 lines, 49 MB
cp big/train.source big/train.target
command -v python3 >/dev/null && python3 - "$KDHPC" <<'P' || fail "memory"
import resource, subprocess, sys
# 49 MB of sources are some 20 million ids: 80 MB, and with texts of both sides 180 MB to hold.
subprocess.run([sys.argv[1], "--mode", "tokenize", "--data_dir", "big", "--tokenizer", "tok", "--output_dir", "again",
                "--progress", "none"], check=True, stderr=subprocess.DEVNULL)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print("peak of", peak, "KiB")
assert peak < 160 << 10, peak
P
