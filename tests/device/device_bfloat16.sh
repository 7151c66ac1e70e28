# SPDX-License-Identifier: Apache-2.0
# The program with --device cuda on the emulator: bfloat16 is what --dtype auto means there, its losses are those of
# float32 within bounds, files are the same, and checkpoints go from device to device.
. "${KD_LIB:?}" || exit 1
KDHPC=${KDHPC_EMULATED:?the program on the emulator}
. "$KD_SOURCE_DIR/tests/support/tiny.sh"
small="$sft --train_batch_size 4 --n_train 16 --n_val 0 --dropout 0 --lr_scheduler constant --learning_rate 1e-3 --save_steps 2 --save_total_limit 3"

echo "losses on the CPU, on the device in float32, and in bfloat16"
kd_do 1 $small --max_steps 4 --device cpu --output_dir cpu
kd_do 1 $small --max_steps 2 --device cuda --dtype float32 --output_dir float32
kd_do 1 $small --max_steps 4 --device auto --output_dir bfloat16
expect_text err.txt "cuda, bfloat16"
check "losses" <<'P'
cpu = steps("cpu")
assert_same(cpu[:2], steps("float32"), 1e-4, ("loss", "grad_norm"))
assert_same(cpu, steps("bfloat16"), 2e-2, ("loss",))
assert [x["loss"] for x in cpu] != [x["loss"] for x in steps("bfloat16")]
assert cpu[-1]["loss"] < cpu[0]["loss"]
P

echo "a checkpoint of either goes on on the other"
mkdir to_cpu to_gpu
cp bfloat16/checkpoint-00000002.h5 bfloat16/metrics.jsonl to_cpu
cp cpu/checkpoint-00000002.h5 cpu/metrics.jsonl to_gpu
kd_do 1 $small --max_steps 4 --device cpu --resume to_cpu --output_dir to_cpu
kd_do 1 $small --max_steps 4 --device cuda --resume to_gpu --output_dir to_gpu
check "losses after the change" <<'P'
for run in ("to_cpu", "to_gpu"):
    assert_same(steps("cpu"), steps(run), 2e-2, ("loss",))
P

echo "on two ranks, with the optimiser whole, and sharded with moments in bfloat16"
for zero in 0 1; do
    kd_do 2 $small --max_steps 4 --max_grad_norm 0 --device cuda --zero $zero --moments bfloat16 --output_dir zero$zero
done
expect_same zero0/model/model.safetensors zero1/model/model.safetensors
mkdir to_zero
cp bfloat16/checkpoint-00000002.h5 bfloat16/metrics.jsonl to_zero
kd_do 2 $small --max_steps 4 --device cuda --zero 1 --resume to_zero --output_dir to_zero
check "losses of ranks that share the optimiser" <<'P'
for run in ("zero0", "zero1", "to_zero"):
    assert_same(steps("cpu"), steps(run), 2e-2, ("loss",))
P

echo "distillation, generation and scores"
kd_do 1 $kd --train_batch_size 4 --n_train 8 --n_val 0 --max_steps 2 --student_decoder_layers 1 --alpha_hid 1 --device cuda --output_dir kd
kd_do 1 --mode score --model bfloat16/model --corpus $corpus --split val --device cuda --threads 1 --output_dir score
kd_do 1 --mode score --model bfloat16/model --corpus $corpus --split val --device cpu --threads 1 --output_dir score.cpu
check "scores" <<'P'
assert close(read_json("score/metrics.json")["loss"], read_json("score.cpu/metrics.json")["loss"], 2e-2)
assert all(math.isfinite(x["loss"]) for x in steps("kd"))
P
head -n 2 "$tiny/val.source" >two.source
kd_do 1 --mode generate --model model --input two.source --num_beams 2 --max_length 6 --device cuda --threads 1 --output_dir generate
[ "$(wc -l <generate/generations.txt)" = 2 ] || fail "not two outputs"
