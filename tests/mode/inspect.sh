# SPDX-License-Identifier: Apache-2.0
# The mode inspect over every kind of file that the program writes: what it says, and that damage is found and named.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
. "$KD_SOURCE_DIR/tests/support/tiny.sh"

says() { # PATH TEXT...: valid, with and without --json and --verify, and the report holds each TEXT
    local path=$1
    shift
    kd_do 1 --mode inspect --path "$path" --json
    python3 -m json.tool out.txt >/dev/null || fail "$path: --json gives no JSON"
    expect_text out.txt '"valid":true'
    kd_do 1 --mode inspect --path "$path" --verify
    for text in "valid" "$@"; do
        expect_text out.txt "$text"
    done
    expect_no_text out.txt "NOT VALID"
}

refused() { # PATH TEXT [OPTION...]: exit 3, one line that holds TEXT, and a report that is JSON
    local path=$1 text=$2
    shift 2
    kd_alone --mode inspect --path "$path" --json "$@"
    expect_error 3 "$text"
    python3 -m json.tool out.txt >/dev/null || fail "$path: --json gives no JSON"
    expect_text out.txt '"valid":false'
}

flip() { # FILE OFFSET: one bit of the byte there
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    printf "\\x$(printf %x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

offset_of() { # FILE DATASET: where its values begin
    h5dump -p -H -d "$2" "$1" | awk '$1 == "OFFSET" { print $2 }'
}

damaged() { # FILE DATASET [OFFSET]: a flipped bit is found by --verify, which names the dataset
    local at=${3:-}
    cp "$1" damaged.h5
    if [ -z "$at" ]; then
        command -v h5dump >/dev/null || return 0
        at=$(offset_of "$1" "/$2")
    fi
    flip damaged.h5 "$at"
    refused damaged.h5 "the content of $2 has digest" --verify
}

text_at() { # FILE TEXT: offset of the first such bytes
    grep -abo -F -e "$2" "$1" | head -n 1 | cut -d: -f1
}

cut_short() { # FILE: half of it, without its last byte, and its first bytes alone
    local bytes
    bytes=$(stat -c %s "$1")
    for keep in $((bytes / 2)) $((bytes - 1)) 8 0; do
        cp "$1" short.h5
        truncate -s "$keep" short.h5
        refused short.h5 short.h5
    done
}

kd_do 1 --mode pseudo-label --teacher model --corpus "$corpus" --num_beams 1 --max_length 8 --output_dir labels
kd_do 2 $kd --max_steps 4 --save_steps 2 --save_total_limit 2 --output_dir run
kd_do 2 --mode eval --model run/model --corpus "$corpus" --num_beams 1 --max_length 8 --output_dir eval
kd_do 1 --mode score --model run/model --corpus "$corpus" --split test --output_dir score
checkpoint=run/checkpoint-00000004.h5

echo "what is whole"
says "$corpus" kdhpc.corpus train/source/offsets "examples=40" "examples=8" "examples=20" digests_match
says labels/labels.h5 kdhpc.labels "examples=40" parents
says $checkpoint kdhpc.checkpoint arrays/params fingerprint "step             4"
says eval/examples.h5 kdhpc.examples output/offsets rouge2
says score/examples.h5 kdhpc.examples nll n_correct
says model bart 'd_model          16' 'vocab_size       120'
says model/model.safetensors safetensors float32
says tok tokenizer
says run "run/checkpoint-00000002.h5" "$checkpoint" run/metrics.jsonl run/run.yaml run/model
says eval eval/metrics.json eval/generations.txt eval/examples.h5
says run/metrics.jsonl "JSON lines" val_loss
says eval/metrics.json rougeLsum
kd_do 3 --mode inspect --path run --verify # all ranks look, one prints
[ "$(grep -c 'run: run, valid' out.txt)" = 1 ] || fail "not one report from three ranks"

echo "ranks that see other files: rank 0 decides, and no rank is left behind"
mkdir elsewhere
two_views() { # PATH: rank 1 looks from another directory
    kd_last="two views of $1"
    kd_code=0
    "$MPIEXEC" -n 1 -wdir "$PWD" "$KDHPC" --mode inspect --path "$1" : -n 1 -wdir "$PWD/elsewhere" \
        "$KDHPC" --mode inspect --path "$1" >out.txt 2>err.txt </dev/null || kd_code=$?
}
two_views eval/metrics.json
expect_exit 0
two_views model
expect_exit 0
two_views "$corpus" # which all ranks must open
expect_error 3 "$corpus"

echo "one bit"
damaged "$corpus" train/source_text/values "$(text_at "$corpus" "$(head -n 1 "$tiny/train.source")")"
damaged "$corpus" test/target_text/values "$(text_at "$corpus" "$(sed -n 5p "$tiny/test.target")")"
damaged "$corpus" val/source/values
damaged "$corpus" train/id
damaged labels/labels.h5 train/target/offsets
damaged labels/labels.h5 options
damaged $checkpoint arrays/params
damaged $checkpoint state
damaged eval/examples.h5 output/values
damaged eval/examples.h5 rouge1
damaged score/examples.h5 nll
cp -r run damaged_run
cp damaged.h5 damaged_run/checkpoint-00000004.h5
refused damaged_run "the content of nll has digest" --verify

echo "not whole, not ours, not there"
for file in "$corpus" labels/labels.h5 $checkpoint eval/examples.h5; do
    cut_short "$file"
done
cp -r model short_model
truncate -s -7 short_model/model.safetensors
refused short_model short_model
rm short_model/model.safetensors
refused short_model safetensors
echo "an essay, not numbers" >text.h5
refused text.h5 text.h5
echo "an essay" >essay.md
refused essay.md "essay.md is not a kind of file"
printf '{"step":1}\n{"step":' >cut.jsonl
refused cut.jsonl cut.jsonl
printf 'caf\351\n' >latin1.txt
refused latin1.txt "latin1.txt is not UTF-8"
mkdir empty
refused empty "empty holds nothing"
refused nowhere "nowhere does not exist"
kd_ranks 2 --mode inspect --path nowhere
expect_error 3 "nowhere does not exist"
kd_alone --mode inspect
expect_error 2 path
