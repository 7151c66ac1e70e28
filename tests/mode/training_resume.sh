# SPDX-License-Identifier: Apache-2.0
# Stopping and going on: the resumed run ends with the same bytes as the one that never stopped.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
. "$KD_SOURCE_DIR/tests/support/tiny.sh"

resumed_equals() { # NP NAME OPTIONS...: 8 updates at once, and from the checkpoint of update 4 in another directory
    local np=$1 name=$2
    shift 2
    kd_do "$np" "$@" --max_steps 8 --save_steps 4 --save_total_limit 3 --output_dir "$name"
    expect_path "$name/checkpoint-00000004.h5" "$name/checkpoint-00000008.h5"
    mkdir "$name.half"
    cp "$name/checkpoint-00000004.h5" "$name/metrics.jsonl" "$name.half"
    kd_do "$np" "$@" --max_steps 8 --save_steps 4 --resume "$name.half" --output_dir "$name.half"
    expect_text err.txt "resuming from $name.half/checkpoint-00000004.h5 at step 4"
    expect_same "$name/model/model.safetensors" "$name.half/model/model.safetensors"
    name=$name check "the log of a resumed run" <<'P'
import os
name = os.environ["name"]
assert lines(name) == lines(name + ".half"), (lines(name), lines(name + ".half"))
P
    expect_no_path "$name.half/checkpoint-00000004.h5"
}

echo "bit-exact resume"
resumed_equals 2 sft $sft --sortish_sampler --gradient_accumulation_steps 2 --n_val 0
resumed_equals 1 kd $kd --student_decoder_layers 1 --alpha_hid 1 --adafactor --train_batch_size 3 --n_val 0
resumed_equals 3 val $sft --val_check_interval 3 --early_stopping_patience 9

echo "--zero 0 and 1 leave the same bytes, and a checkpoint of either goes on as either, on other ranks"
free="$sft --max_grad_norm 0 --weight_decay 0.01 --n_val 0 --max_steps 6 --save_steps 3 --save_total_limit 3"
for moments in float32 bfloat16; do
    for zero in 0 1; do
        run=zero$zero.$moments
        kd_do 3 $free --moments $moments --zero $zero --output_dir $run
    done
    expect_same zero0.$moments/model/model.safetensors zero1.$moments/model/model.safetensors
    zero=zero0.$moments other=zero1.$moments check "the logs of --zero 0 and 1" <<'P'
import os
a, b = steps(os.environ["zero"]), steps(os.environ["other"])
assert_same(a, b, 0, [k for k in a[0] if k != "grad_norm"])
assert_same(a, b, 1e-12)  # the norm is added up in another order
P
    for from in 0 1; do
        for to in 0 1; do
            run=from$from.to$to.$moments
            mkdir $run
            cp zero$from.$moments/checkpoint-00000003.h5 zero$from.$moments/metrics.jsonl $run
            kd_do 2 $free --moments $moments --zero $to --resume $run --output_dir $run
            expect_text err.txt "at step 3"
            expect_same from0.to0.$moments/model/model.safetensors $run/model/model.safetensors
        done
    done
done
cmp -s zero0.float32/model/model.safetensors zero0.bfloat16/model/model.safetensors && fail "--moments changes nothing"
mkdir changed
cp zero1.bfloat16/checkpoint-00000003.h5 zero1.bfloat16/metrics.jsonl changed
kd_do 2 $free --moments float32 --zero 1 --resume changed --output_dir changed

echo "a damaged checkpoint is passed over, and the best model is carried along"
kd_do 1 $sft --max_steps 6 --save_steps 2 --save_total_limit 3 --val_check_interval 2 --lr_scheduler constant --output_dir best
mkdir copy
cp -r best/model best/checkpoint-*.h5 copy
truncate -s -2000 copy/checkpoint-00000006.h5
kd_do 2 $sft --max_steps 6 --learning_rate 0 --resume copy --output_dir elsewhere
expect_text err.txt "checkpoint-00000006.h5"
expect_text err.txt "resuming from copy/checkpoint-00000004.h5 at step 4"
check "the best model" <<'P'
assert tensors("elsewhere/model") == tensors("best/model")  # rate 0 gives nothing better
assert [x["step"] for x in steps("elsewhere")] == [5, 6]
P

echo "a damaged newer checkpoint does not push out those that follow"
kd_do 1 $sft --max_steps 5 --save_steps 1 --save_total_limit 1 --resume copy --output_dir copy
expect_path copy/checkpoint-00000005.h5
expect_no_path copy/checkpoint-00000006.h5

start() { # ARGS...: in the background: $pid; returns when ten updates are done
    "$@" >out.txt 2>err.txt </dev/null &
    pid=$!
    for _ in $(seq 600); do
        sleep 0.05
        if [ -f stopped/metrics.jsonl ] && [ "$(wc -l <stopped/metrics.jsonl)" -ge 10 ]; then
            return
        fi
    done
    kill "$pid"
    fail "no ten updates in 30 s: $*"
}

stopped_at() { # the step of the one checkpoint
    local file
    file=$(echo stopped/checkpoint-*.h5)
    file=${file#stopped/checkpoint-}
    echo $((10#${file%.h5}))
}

stops() { # waits for $pid: it must leave with 75 and a checkpoint; $step is where
    kd_last="stopped by a signal"
    kd_code=0
    wait "$pid" || kd_code=$?
    expect_exit 75
    step=$(stopped_at)
    [ "$(grep -c "kdhpc: .*step $step is saved" err.txt)" = 1 ] || fail "no word on where it stopped"
    kd_do 1 --mode inspect --path "stopped/checkpoint-$(printf %08d "$step").h5" --verify
}

echo "SIGTERM: alone, then to one of two ranks; resumed, both end as if never stopped"
forever="$sft --lr_scheduler constant --n_val 0"
start "$KDHPC" $forever --max_steps 100000 --output_dir stopped
kill -TERM "$pid"
stops
kd_do 1 $forever --max_steps $((step + 3)) --resume stopped --output_dir stopped
kd_do 1 $forever --max_steps $((step + 3)) --logging_steps 1000 --output_dir straight
expect_same stopped/model/model.safetensors straight/model/model.safetensors
check "steps of a resumed run" <<'P'
assert [x["step"] for x in steps("stopped")] == list(range(1, steps("straight")[-1]["step"] + 1))
P

rm -r stopped
start "$MPIEXEC" -n 2 "$KDHPC" $forever --max_steps 100000 --output_dir stopped
rank=$(tr ' ' '\n' <"/proc/$pid/task/$pid/children" | grep -m 1 .)
kill -TERM "$rank"
stops

echo "nothing to resume from"
mkdir empty
kd_ranks 2 $sft --resume empty --output_dir new
expect_error 3 "--resume empty: no valid checkpoint"
kd_ranks 2 $sft --resume nowhere --output_dir new
expect_error 3 "nowhere"
kd_ranks 2 $sft --resume best --train_batch_size 4 --output_dir new
expect_error 3 "--resume best: no valid checkpoint of this run"
[ -z "$(ls new)" ] || fail "a refused resume left $(ls new)"
