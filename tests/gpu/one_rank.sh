# SPDX-License-Identifier: Apache-2.0
# One rank on a device beside the CPU: losses in both types, generation in float32 to the letter, scores, and checkpoints
# that go from device to device.
. "${KD_LIB:?}" || exit 1
. "$KD_SOURCE_DIR/tests/gpu/device.sh"
cpu="--device cpu"
float32="--device cuda --dtype float32"

echo "fine-tuning"
kd_do 1 $sft $small --max_steps 4 --save_steps 2 --save_total_limit 3 $cpu --output_dir cpu
kd_do 1 $sft $small --max_steps 4 --save_steps 2 --save_total_limit 3 $float32 --output_dir float32
kd_do 1 $sft $small --max_steps 4 --device auto --output_dir bfloat16
expect_text err.txt "bfloat16"
compare float32 cpu 1e-4
compare bfloat16 cpu 2e-2
check "losses fall" <<'P'
assert all(steps(x)[-1]["loss"] < steps(x)[0]["loss"] for x in ("cpu", "float32", "bfloat16"))
P

echo "checkpoints"
mkdir to_cpu to_device
cp float32/checkpoint-00000002.h5 float32/metrics.jsonl to_cpu
cp cpu/checkpoint-00000002.h5 cpu/metrics.jsonl to_device
kd_do 1 $sft $small --max_steps 4 $cpu --resume to_cpu --output_dir to_cpu
kd_do 1 $sft $small --max_steps 4 $float32 --resume to_device --output_dir to_device
compare to_cpu cpu 1e-4
compare to_device cpu 1e-4

echo "distillation"
hidden="--student_decoder_layers 1 --alpha_hid 1 --normalize_hidden"
kd_do 1 $kd $small $hidden --max_steps 3 $cpu --output_dir kd.cpu
kd_do 1 $kd $small $hidden --max_steps 3 $float32 --output_dir kd.float32
kd_do 1 $kd $small $hidden --max_steps 3 --device cuda --output_dir kd.bfloat16
kd_do 1 $kd $small --student_decoder_layers 1 --freeze_encoder --max_steps 3 $cpu --output_dir frozen.cpu
kd_do 1 $kd $small --student_decoder_layers 1 --freeze_encoder --max_steps 3 $float32 --output_dir frozen.float32
expect_text err.txt "runs once"
compare kd.float32 kd.cpu 1e-4
compare kd.bfloat16 kd.cpu 3e-2
compare frozen.float32 frozen.cpu 1e-4

echo "generation and scores"
head -n 4 "$tiny/val.source" >some.source
for decoding in "--num_beams 3" "--num_beams 1" "--num_beams 1 --do_sample --top_k 7"; do
    name=$(echo "$decoding" | tr -d ' -')
    kd_do 1 --mode generate --model cpu/model --input some.source --max_length 8 --threads 1 $decoding $cpu --output_dir "$name.cpu"
    kd_do 1 --mode generate --model cpu/model --input some.source --max_length 8 --threads 1 $decoding $float32 --output_dir "$name.device"
    expect_same "$name.cpu/generations.txt" "$name.device/generations.txt"
done
kd_do 1 --mode generate --model cpu/model --input some.source --max_length 8 --threads 1 --num_beams 3 --device cuda --output_dir generate.bfloat16
[ "$(wc -l <generate.bfloat16/generations.txt)" = 4 ] || fail "not four outputs"
for where in "cpu 1e-9 --device cpu" "float32 1e-4 $float32" "bfloat16 2e-2 --device cuda"; do
    read -r name bound how <<<"$where"
    # shellcheck disable=SC2086
    kd_do 1 --mode score --model cpu/model --corpus $corpus --split val --threads 1 $how --output_dir "score.$name"
    name=$name bound=$bound check "scores of $name" <<'P'
import os
loss = [read_json(f"score.{x}/metrics.json")["loss"] for x in ("cpu", os.environ["name"])]
assert close(*loss, float(os.environ["bound"])), loss
P
done
