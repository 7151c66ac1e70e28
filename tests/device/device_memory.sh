# SPDX-License-Identifier: Apache-2.0
# The memory that a run says it needs is what it takes: from its own count on the CPU, from the guarded and the emulated
# device's.  On a device that is too small it ends before it starts, with the option that makes it fit, and then fits.
. "${KD_LIB:?}" || exit 1
: "${KDHPC_GUARDED:?the program on the guarded backend}" "${KDHPC_EMULATED:?the program on the emulator}"
. "$KD_SOURCE_DIR/tests/support/tiny.sh"
plain=$KDHPC
export EXTRA=$((64 << 20)) WORKSPACE=$((32 << 20)) # what an estimate adds, what the emulated backend takes before it
gpu="--device cuda --dtype float32"

# Wide enough that not everything is a smallest block.
python3 - "$tiny/config.json" <<'P'
import json, sys
c = json.load(open(sys.argv[1]))
c.update(d_model=96, encoder_ffn_dim=384, decoder_ffn_dim=384, encoder_attention_heads=4, decoder_attention_heads=4)
json.dump(c, open("wide.json", "w"))
c.update(encoder_layers=1, decoder_layers=1, d_model=64, encoder_ffn_dim=128, decoder_ffn_dim=128)
json.dump(c, open("small.json", "w"))
P
kd_do 1 --mode init-model --from wide.json --tokenizer tok --output_dir wide
kd_do 1 --mode init-model --from small.json --tokenizer tok --output_dir small
sft="--mode sft --model wide $quick --train_batch_size 20 --log_level debug"
kd="--mode kd --teacher wide $quick --train_batch_size 20 --log_level debug"

needs() { # bytes that the last run said it needs
    sed -n 's/^.*needs \([0-9]*\) bytes of .*/\1/p' err.txt
}

within() { # WHAT ESTIMATE REAL: both agree within 2 %
    awk -v e="$2" -v r="$3" 'BEGIN { exit !(r > 1e6 && e >= 0.98 * r && e <= 1.02 * r) }' || fail "$1: $2 bytes estimated, $3 used"
}

echo "the CPU"
for options in "--n_val 0" "--n_val 0 --recompute" "--n_val 0 --adafactor --max_tokens_per_batch 700"; do
    kd_do 1 $sft $options --device cpu --num_train_epochs 1 --output_dir cpu --overwrite
    expect_text err.txt "needs "
    expect_text cpu/log.txt "needs "
    estimate=$(needs) options=$options check "the estimate" <<'P'
import os
values = sum(len(v) for v in tensors("wide").values()) // 4
err = open("err.txt").read()
arena, pool = map(int, re.search(r"steps used (\d+) bytes of arena and (\d+) bytes", err).groups())
state = 2 if "adafactor" in os.environ["options"] else 4
real = 4 * values * state + arena + pool
assert 0.98 * real < int(os.environ["estimate"]) < 1.03 * real, (os.environ["estimate"], real, arena, pool)
P
done

echo "the guarded device"
KDHPC=$KDHPC_GUARDED
export GUARD_PEAK=peak.txt
guarded() { # ARGS...: run, and compare
    kd_do 1 "$@" $gpu
    within "$*" $(($(needs) - EXTRA)) "$(cat peak.txt)"
}
guarded $sft --n_val 0 --num_train_epochs 1 --output_dir g1
guarded $sft --n_val 0 --num_train_epochs 1 --recompute --output_dir g2
[ "$(cat peak.txt)" -lt "$(($(needs) - EXTRA + 1000000))" ] || fail "recomputing needs too much"
guarded $sft --n_val 12 --val_metric rouge2 --eval_max_gen_length 30 --eval_beams 4 --train_batch_size 2 --max_steps 2 --do_predict \
    --val_check_interval 2 --output_dir g3
guarded $kd --student_decoder_layers 1 --alpha_hid 3 --freeze_encoder --n_val 0 --num_train_epochs 1 --output_dir g4
guarded $kd --student_encoder_layers 1 --alpha_hid 3 --normalize_hidden --compat seq2seq --n_val 0 --num_train_epochs 1 --output_dir g5
gen="--model wide --max_length 30 --log_level debug --threads 1"
guarded --mode generate $gen --input "$tiny/train.source" --num_beams 4 --output_dir g6
guarded --mode eval $gen --corpus $corpus --split train --num_beams 1 --eval_batch_size 16 --output_dir g7
guarded --mode generate $gen --input "$tiny/train.source" --num_beams 1 --do_sample --num_return_sequences 3 --output_dir g8
guarded --mode pseudo-label --teacher wide ${gen#--model wide} --corpus $corpus --split train --num_beams 2 --output_dir g9
unset GUARD_PEAK

echo "a device that is too small"
advised() { # OPTION: the number that the last error names for it
    sed -n "s/.*lower --$1 to \([0-9,]*\).*/\1/p" err.txt | tr -d ,
}
refused() { # BYTES ARGS...: on a device of so many
    export GUARD_HAS=$(($1 + EXTRA))
    shift
    kd_alone "$@" $gpu
    expect_error 5 "needs " " of "
    expect_no_text err.txt "loss"
}
train="$sft --n_val 0 --num_train_epochs 1 --overwrite --output_dir s"
refused 20000000 $train --max_tokens_per_batch 1300
n=$(advised max_tokens_per_batch)
[ "$n" -lt 1300 ] && [ "$n" -gt 70 ] || fail "advice is $n tokens"
kd_do 1 $train --max_tokens_per_batch "$n" $gpu
refused 20000000 $train
expect_error 5 " or set --recompute"
n=$(advised train_batch_size)
[ "$n" -lt 20 ] && [ "$n" -ge 1 ] || fail "advice is $n examples"
kd_do 1 $train --train_batch_size "$n" $gpu
kd_do 1 $train --recompute $gpu
refused 9000000 $train
expect_error 5 "smaller batches do not help"
refused 9000000 $train --max_tokens_per_batch 1300
expect_error 5 "smaller batches do not help"
export GUARD_HAS=$((2 * (14000000 + EXTRA))) # that two ranks share
kd_ranks 2 $train --max_tokens_per_batch 1300 $gpu
expect_error 5 "needs " "max_tokens_per_batch to "
refused 17000000 --mode generate $gen --input "$tiny/train.source" --num_beams 4 --overwrite --output_dir s
expect_error 5 "lower --eval_batch_size to " " or --num_beams to "
kd_do 1 --mode generate $gen --input "$tiny/train.source" --num_beams 4 --eval_batch_size "$(advised eval_batch_size)" --overwrite \
    --output_dir s $gpu
refused 14000000 $train --train_batch_size 1 --n_val 12 --val_metric rouge2 --eval_beams 8 --eval_max_gen_length 60
kd_do 1 $train --train_batch_size 1 --n_val 12 --val_metric rouge2 --eval_beams 8 --eval_max_gen_length 60 \
    --eval_batch_size "$(advised eval_batch_size)" $gpu
unset GUARD_HAS

echo "memory that runs out later"
GUARD_GIVES=18000000 kd_alone $train --max_tokens_per_batch 1300 $gpu
expect_error 5 "gives no more" "estimate was that it needs " "lower --max_tokens_per_batch or set --recompute"
GUARD_GIVES=4000000 kd_alone --mode generate $gen --input "$tiny/train.source" --num_beams 4 --overwrite --output_dir s $gpu
expect_error 5 "gives no more" "estimate was that it needs " "lower --eval_batch_size or --num_beams"

echo "the emulated device"
KDHPC=$KDHPC_EMULATED
export EMULATED_PEAK=peak.txt
for options in "--dtype float32" "--dtype bfloat16 --recompute"; do
    kd_do 1 --mode sft --model small $quick --train_batch_size 4 --log_level debug --n_val 0 --n_train 4 --max_steps 1 --device cuda \
        $options --overwrite --output_dir e
    within "emulated $options" $(($(needs) - EXTRA)) $(($(cat peak.txt) - WORKSPACE))
done
