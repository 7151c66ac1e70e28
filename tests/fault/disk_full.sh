# SPDX-License-Identifier: Apache-2.0
# A disk that fills up: exit 4, one line that says so, and nothing under a final name.  The disk is a megabyte of memory,
# for which the test must be root.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
disk=$PWD/disk
trap 'cd / && mountpoint -q "$disk" && umount "$disk"' EXIT

mkdir disk
if [ "$(id -u)" != 0 ] || ! mount -t tmpfs -o size=1m tmpfs disk 2>mount.txt; then
    echo "skipped: cannot mount a small disk"
    exit 77
fi
. "$KD_SOURCE_DIR/tests/support/tiny.sh"

full() { # NP NAME ARGS...: into disk/NAME
    local np=$1 name=$2
    shift 2
    if [ "$np" = 1 ]; then kd_alone "$@" --output_dir "disk/$name"; else kd_ranks "$np" "$@" --output_dir "disk/$name"; fi
    expect_error 4 "disk/$name"
}

mkdir large
for split in source target; do
    for _ in $(seq 250); do
        cat "$tiny/train.$split"
    done >large/train.$split
done
for np in 1 2; do
    echo "tokenize on $np ranks"
    full $np corpus --mode tokenize --data_dir large --tokenizer tok
    expect_no_path disk/corpus/corpus.h5 disk/corpus/corpus.h5.part
    rm -r disk/corpus
done

sed 's/"d_model": 16/"d_model": 64/; s/ffn_dim": 32/ffn_dim": 512/' "$tiny/config.json" >wide.json # 1.5 MB of weights
kd_do 1 --mode init-model --from wide.json --tokenizer tok --output_dir wide
train="--mode sft --model wide --corpus $corpus --train_batch_size 8 --val_metric loss --n_val 0 --threads 1 --max_steps 2"
for np in 1 2; do
    echo "sft on $np ranks: the model at the end, then a checkpoint"
    full $np model $train --save_steps -1
    expect_no_path disk/model/model
    rm -r disk/model
    full $np checkpoint $train --save_steps 1
    expect_no_path disk/checkpoint/model disk/checkpoint/checkpoint-00000001.h5
    rm -r disk/checkpoint
done
echo "make-student"
full 1 student --mode make-student --teacher wide --encoder_layers 2 --decoder_layers 1
expect_no_path disk/student/config.json disk/student/model.safetensors
