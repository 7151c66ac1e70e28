# SPDX-License-Identifier: Apache-2.0
# One family of models (KD_FAMILY, a fixture of tests/golden) through every mode, from directories that transformers
# wrote: layers are copied and frozen as they should be, every number has the same digits on one rank and on two, and
# what is written is read again.  Ids are those of a small tokenizer, which all fixtures have room for.
. "$KD_SOURCE_DIR/tests/mode/family_corpus.sh"
family=${KD_FAMILY:?a fixture of tests/golden}

check "the fixture" <<P
adopt("$KD_SOURCE_DIR/tests/golden/$family/teacher", "teacher", "tok")
P

twice() { # NAME ARGS...: on one rank and on two, into NAME1 and NAME2
    local name=$1 np
    shift
    for np in 1 2; do
        kd_do $np "$@" --output_dir "$name$np"
    done
}
train="--corpus $corpus --train_batch_size 8 --learning_rate 3e-3 --logging_steps 1 --val_metric loss --save_steps -1 --threads 1 --max_steps 2"
generation="--corpus $corpus --num_beams 2 --max_length 10"

echo "students of $family"
kd_do 1 --mode make-student --teacher teacher --encoder_layers 1 --decoder_layers 1 --output_dir student
check "the last layers" <<P
print(*last_layers("teacher"), file=open("last", "w"))
P
read -r last_enc last_dec <last
kd_do 1 --mode make-student --teacher teacher --encoder_layers_to_copy $last_enc --decoder_layers_to_copy $last_dec --output_dir student_last
check "copied tensors" <<P
copied("teacher", "student", 0, 0)
copied("teacher", "student_last", $last_enc, $last_dec)
P
echo "passed: read $family"

echo "fine-tuning"
twice sft --mode sft --model student $train
twice adafactor --mode sft --model student $train --adafactor --dropout 0
kd_do 1 --mode sft --model student $train --freeze_encoder --output_dir frozen_encoder
kd_do 2 --mode sft --model student $train --freeze_embeds --output_dir frozen_embeds
kd_do 1 --mode sft --model student $train --dropout 0 --output_dir plain
kd_do 1 --mode sft --model student $train --dropout 0 --compat seq2seq --output_dir old
check "fine-tuning" <<P
for name in ("sft", "adafactor"):
    assert_same(steps(name + "1"), steps(name + "2"), 1e-6)
    assert_same(checks(name + "1"), checks(name + "2"), 1e-5)
    assert all(math.isfinite(x["loss"]) and x["loss"] > 0 for x in steps(name + "1"))
frozen("student", "frozen_encoder/model", in_encoder)
frozen("student", "frozen_embeds/model", in_tables)
old_start("plain", "old", "teacher")
P

echo "distillation"
twice kd --mode kd --teacher teacher --model student $train --alpha_hid 1 --normalize_hidden
twice compat --mode kd --teacher teacher --model student $train --alpha_hid 1 --compat seq2seq
kd_do 2 --mode kd --teacher teacher --student_decoder_layers 1 --freeze_encoder $train --output_dir shared
expect_text err.txt "the frozen encoder runs once for teacher and student"
check "distillation" <<P
for name in ("kd", "compat"):
    assert_same(steps(name + "1"), steps(name + "2"), 2e-6)
    assert all(x["ce"] > 0 and x["mlm"] > 0 and x["hid_enc"] + x["hid_dec"] > 0 for x in steps(name + "1")[1:])
    assert all(math.isfinite(x["loss"]) for x in steps(name + "1"))
P

echo "labels, outputs, scores"
twice labels --mode pseudo-label --teacher teacher $generation --write_text
twice eval --mode eval --model kd1/model $generation
twice score --mode score --model kd1/model --corpus $corpus
for np in 1 2; do
    kd_do $np --mode generate --model kd1/model --input data/test.source --num_beams 2 --max_length 10 --output_dir generate$np
done
expect_same labels1/train.target labels2/train.target
expect_same eval1/generations.txt eval2/generations.txt
expect_same generate1/generations.txt generate2/generations.txt
expect_same eval1/generations.txt generate1/generations.txt
check "same digits" <<P
for name in ("eval", "score"):
    a, b = (read_json(name + n + "/metrics.json") for n in "12")
    assert untimed(a) == untimed(b), (a, b)
P
kd_do 2 --mode sft --model student $train --corpus labels1/labels.h5 --n_val 0 --output_dir on_labels

python=${KDHPC_TEST_PYTHON:-python3}
if ! "$python" -c "
from importlib.util import find_spec
assert all(find_spec(m) for m in ('transformers', 'torch', 'h5py', 'sentencepiece'))" 2>/dev/null; then
    echo "not compared with transformers: $python lacks it (KDHPC_TEST_PYTHON names another interpreter)"
    exit 0
fi
for model in student kd1/model on_labels/model; do
    kd_do 1 --mode score --model $model --corpus $corpus --output_dir $model.score
done
"$python" "$KD_SOURCE_DIR/tests/mode/family_readback.py" $corpus student kd1/model on_labels/model || fail "what was written reads differently"
echo "passed: write-back $family"
