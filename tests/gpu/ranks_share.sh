# SPDX-License-Identifier: Apache-2.0
# Ranks that share a device: they say so, their gradients are summed through host memory, and two of them leave what one
# rank on the CPU leaves: losses, generated text, scores.
. "${KD_LIB:?}" || exit 1
. "$KD_SOURCE_DIR/tests/gpu/device.sh"
export CUDA_VISIBLE_DEVICES=0 # the emulator has three devices all the same
float32="--device cuda --dtype float32"
gen="--max_length 8 --num_beams 3 --threads 1"

echo "training on $KD_NP ranks"
kd_do 1 $sft $small --max_steps 4 --device cpu --output_dir sft.cpu
kd_do "$KD_NP" $sft $small --max_steps 4 $float32 --output_dir sft.float32
[ -n "${KD_EMULATED:-}" ] || expect_text err.txt "share its GPUs"
kd_do "$KD_NP" $sft $small --max_steps 4 --device cuda --output_dir sft.bfloat16
kd_do 1 $kd $small --student_decoder_layers 1 --alpha_hid 1 --max_steps 3 --device cpu --output_dir kd.cpu
kd_do "$KD_NP" $kd $small --student_decoder_layers 1 --alpha_hid 1 --max_steps 3 $float32 --output_dir kd.float32
compare sft.float32 sft.cpu 1e-4
compare sft.bfloat16 sft.cpu 2e-2
compare kd.float32 kd.cpu 1e-4

echo "generation and scores on $KD_NP ranks"
head -n 6 "$tiny/val.source" >some.source
kd_do 1 --mode generate --model sft.cpu/model --input some.source --eval_batch_size 2 $gen --device cpu --output_dir generate.cpu
kd_do "$KD_NP" --mode generate --model sft.cpu/model --input some.source --eval_batch_size 2 $gen $float32 --output_dir generate.device
expect_same generate.cpu/generations.txt generate.device/generations.txt
kd_do 1 --mode score --model sft.cpu/model --corpus $corpus --split val --threads 1 --device cpu --output_dir score.cpu
kd_do "$KD_NP" --mode score --model sft.cpu/model --corpus $corpus --split val --threads 1 $float32 --output_dir score.device
check "scores" <<'P'
a, b = (read_json(f"score.{x}/metrics.json") for x in ("cpu", "device"))
assert close(a["loss"], b["loss"], 1e-4) and a["n_tokens"] == b["n_tokens"], (a, b)
P
