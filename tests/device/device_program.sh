# SPDX-License-Identifier: Apache-2.0
# The program with --device cuda on memory that it cannot touch: every mode that runs a model leaves what it leaves on
# the CPU, bit for bit, and a checkpoint of one device goes on on the other.
. "${KD_LIB:?}" || exit 1
KDHPC=${KDHPC_GUARDED:?the program on the guarded backend}
. "$KD_SOURCE_DIR/tests/support/tiny.sh"
cpu="--device cpu"
gpu="--device cuda --dtype float32"

both() { # NP NAME ARGS...: on the CPU into NAME.cpu, on the device into NAME.gpu
    local np=$1 name=$2
    shift 2
    kd_do "$np" "$@" $cpu --output_dir "$name.cpu"
    kd_do "$np" "$@" $gpu --output_dir "$name.gpu"
}

same_training() { # NAME: the two runs of a training left the same
    expect_same "$1.cpu/model/model.safetensors" "$1.gpu/model/model.safetensors"
    name=$1 check "the logs of $1" <<'P'
import os
name = os.environ["name"]
assert lines(name + ".cpu") == lines(name + ".gpu"), (lines(name + ".cpu"), lines(name + ".gpu"))
assert steps(name + ".gpu")
P
}

echo "training and distillation"
both 1 sft $sft --max_steps 3 --label_smoothing 0.1 --gradient_accumulation_steps 2 --eval_max_gen_length 8
same_training sft
expect_text sft.gpu/run.yaml "guarded, float32"
both 2 shared $sft --max_steps 2 --n_val 0 --adafactor
same_training shared
expect_text err.txt "share its GPUs"
both 1 kd $kd --max_steps 2 --student_decoder_layers 1 --alpha_hid 1 --normalize_hidden --n_val 0
same_training kd
both 2 compat $kd --max_steps 2 --student_decoder_layers 1 --alpha_hid 1 --normalize_hidden --compat seq2seq --n_val 0
same_training compat

both 2 zero $sft --max_steps 3 --save_steps 2 --val_check_interval 2 --zero 1
same_training zero
both 2 short $kd --max_steps 2 --student_decoder_layers 1 --n_val 0 --zero 1 --moments bfloat16
same_training short

echo "generation and scores"
gen="--num_beams 3 --max_length 10 --threads 1"
both 1 labels --mode pseudo-label --teacher model --corpus $corpus --split val $gen --write_text
expect_same labels.cpu/val.target labels.gpu/val.target
both 1 generate --mode generate --model model --input "$tiny/val.source" $gen --no_repeat_ngram_size 2
expect_same generate.cpu/generations.txt generate.gpu/generations.txt
both 1 sample --mode generate --model model --input "$tiny/val.source" --do_sample --num_beams 1 --top_k 7 --max_length 10 --threads 1
expect_same sample.cpu/generations.txt sample.gpu/generations.txt
both 1 eval --mode eval --model model --corpus $corpus --split val $gen --num_beams 1
expect_same eval.cpu/generations.txt eval.gpu/generations.txt
both 2 score --mode score --model model --corpus $corpus --split val --threads 1
check "scores" <<'P'
cpu, gpu = read_json("score.cpu/metrics.json"), read_json("score.gpu/metrics.json")
same = ("loss", "perplexity", "token_accuracy", "n_tokens", "n_obs")
assert [cpu[k] for k in same] == [gpu[k] for k in same], (cpu, gpu)
P

echo "models are made on the device, too"
both 1 init --mode init-model --from "$tiny/config.json" --tokenizer tok
expect_same init.cpu/model.safetensors init.gpu/model.safetensors
both 1 student --mode make-student --teacher model --encoder_layers 1 --decoder_layers 1
expect_same student.cpu/model.safetensors student.gpu/model.safetensors

echo "checkpoints go from device to device"
long="$sft --max_steps 6 --save_steps 3 --save_total_limit 3 --n_val 0 --learning_rate 1e-3"
kd_do 1 $long $cpu --output_dir straight
for there in "$cpu" "$gpu --zero 1"; do
    back="$gpu --zero 1"
    [ "$there" = "$cpu" ] || back=$cpu
    rm -rf first second
    kd_do 2 $long --max_grad_norm 0 $there --output_dir first
    mkdir second
    cp first/checkpoint-00000003.h5 first/metrics.jsonl second
    kd_do 2 $long --max_grad_norm 0 $back --resume second --output_dir second
    expect_text err.txt "at step 3"
    expect_same first/model/model.safetensors second/model/model.safetensors
done

echo "benchmarks, and what --device and --dtype mean"
kd_do 1 --mode bench --what gemm,attention,train,kd,generate $gpu --d_model 16 --n_heads 2 --encoder_layers 2 --decoder_layers 2 \
    --student_decoder_layers 1 --vocab_size 50 --batch_size 4 --steps 1 --num_beams 2 --gen_length 4 --n_sources 4 --tokens 100 \
    --seconds 0.001 --peak_size 64 --threads 1
kd_do 1 --version
expect_text out.txt "guarded host memory"
kd_do 1 --mode generate --model model --input "$tiny/val.source" --dtype float32 $gen --output_dir auto
expect_text err.txt "guarded, float32"
kd_do 1 --mode make-student --teacher model --encoder_layers 1 --decoder_layers 1 --output_dir on_cpu
expect_text err.txt "cpu, float32"
export CUDA_VISIBLE_DEVICES=
kd_do 1 --mode generate --model model --input "$tiny/val.source" $gen --output_dir none
expect_text err.txt "cpu, float32"
kd_ranks 2 --mode generate --model model --input "$tiny/val.source" $gen --device cuda --output_dir refused
expect_error 2 "--device" "no CUDA device"
kd_alone --mode generate --model model --input "$tiny/val.source" $gen --dtype bfloat16 --output_dir refused
expect_error 2 "--dtype" "float32"
expect_no_path refused
