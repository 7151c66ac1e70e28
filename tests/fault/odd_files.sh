# SPDX-License-Identifier: Apache-2.0
# Files that are damaged, of another version or from elsewhere, and places that cannot be written to, on two ranks: the
# right exit code, one line that names the file and says what is wrong, and nothing left behind.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
. "$KD_SOURCE_DIR/tests/support/tiny.sh"
: "${KD_ODD_FILE:?the program that writes odd files}"
trap 'cd / && mountpoint -q "$KD_WORK_DIR/closed" && umount "$KD_WORK_DIR/closed"' EXIT

refuses() { # CODE TEXT OPTIONS...
    local code=$1 text=$2
    shift 2
    kd_ranks 2 "$@" --output_dir refused
    expect_error "$code" "$text"
    [ ! -e refused ] || [ -z "$(ls refused)" ] || fail "a refused run left $(ls refused)"
}

score="--mode score --model model --threads 1"
label="--mode pseudo-label --teacher model --num_beams 1 --max_length 8 --threads 1"

echo "corpora"
echo "not HDF5" >text.h5
for keep in 0 2000 -1; do
    cp $corpus cut.h5
    if [ "$keep" = -1 ]; then truncate -s -1 cut.h5; else truncate -s "$keep" cut.h5; fi
    refuses 3 "cut.h5: not a whole HDF5 file" $sft --corpus cut.h5
done
for mode in "$score" "$label" "$kd --model model"; do
    refuses 3 "text.h5: not a whole HDF5 file" $mode --corpus text.h5
done
refuses 3 "is not a file" $score --corpus corpus
"$KD_ODD_FILE" version v9.h5 kdhpc.corpus 9
for mode in "$score" "$sft"; do
    refuses 3 "v9.h5 has version 9 of its schema; this program reads version 1" $mode --corpus v9.h5
done
"$KD_ODD_FILE" version chorus.h5 kdhpc.chorus 1
refuses 3 "chorus.h5 is a kdhpc.chorus, not a corpus" $sft --corpus chorus.h5
kd_do 1 --mode train-tokenizer --input "$tiny/train.source,$tiny/train.target" --vocab_size 110 --output_dir tok2
kd_do 1 --mode init-model --from "$tiny/config.json" --tokenizer tok2 --output_dir model2
kd_do 1 --mode tokenize --data_dir "$tiny" --tokenizer tok2 --max_source_length 48 --max_target_length 20 --output_dir corpus2
kd_do 1 $label --teacher model2 --corpus corpus2/corpus.h5 --output_dir labels2
refuses 3 "labels2/labels.h5 was tokenized with another tokenizer" $sft --corpus "$corpus,labels2/labels.h5"

echo "checkpoints"
kd_do 1 $sft --n_val 0 --max_steps 2 --save_steps 1 --output_dir run
good=run/checkpoint-00000002.h5
refuses 3 "$good is a kdhpc.checkpoint, not a corpus" $score --corpus $good
resume="$sft --n_val 0 --max_steps 4 --resume odd"
odd=odd/checkpoint-00000003.h5
mkdir odd
"$KD_ODD_FILE" incomplete $good odd 3
refuses 3 "$odd has no dataset arrays/" $resume

passes_over() { # TEXT: the checkpoint is not taken, TEXT says why, and the run goes on from the one before it
    refuses 3 "odd" $resume
    expect_text err.txt "passing over a checkpoint: $1"
    cp $good odd
    kd_ranks 2 $resume --output_dir resumed
    expect_exit 0
    expect_text err.txt "passing over a checkpoint: $1"
    expect_text err.txt "resuming from odd/checkpoint-00000002.h5 at step 2"
    rm -r resumed odd/checkpoint-00000002.h5
}

cp text.h5 $odd
passes_over "$odd: not a whole HDF5 file"
cp $corpus $odd
passes_over "$odd is a kdhpc.corpus, not a checkpoint"
"$KD_ODD_FILE" version $odd kdhpc.checkpoint 9
passes_over "$odd has version 9 of its schema; this program reads version 1"

echo "places"
mkdir closed
if [ "$(id -u)" != 0 ]; then
    chmod 555 closed
elif ! mount -t tmpfs -o ro tmpfs closed 2>mount.txt; then
    echo "not tried: root is stopped by a read-only mount only, and there can be none here"
    exit 0
fi
for mode in "$sft --max_steps 1" "$label --corpus $corpus" "$score --corpus $corpus" \
    "--mode tokenize --data_dir $tiny --tokenizer tok" "--mode make-student --teacher model --decoder_layers 1"; do
    kd_ranks 2 $mode --output_dir closed/run
    expect_error 4 "closed/run"
done
kd_ranks 2 $score --corpus $corpus --output_dir closed
expect_error 4 "closed"
[ -z "$(ls closed)" ] || fail "something was written into closed"
