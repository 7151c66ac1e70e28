# SPDX-License-Identifier: Apache-2.0
# What training refuses, on two ranks: the right exit code, one error line, and nothing left behind.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
. "$KD_SOURCE_DIR/tests/support/tiny.sh"

refuses() { # CODE TEXT OPTIONS...
    local code=$1 text=$2
    shift 2
    kd_ranks 2 "$@" --output_dir refused
    expect_error "$code" "$text"
    [ ! -e refused ] || [ -z "$(ls refused)" ] || fail "a refused run left $(ls refused)"
}

echo "inputs"
refuses 3 "nowhere" $sft --model nowhere
refuses 3 "nowhere.h5" $sft --corpus nowhere.h5
head -c 20000 $corpus >cut.h5
refuses 3 "cut.h5" $sft --corpus cut.h5
echo "not HDF5" >text.h5
refuses 3 "text.h5" $sft --corpus text.h5
mkdir only_val
cp "$tiny"/val.* only_val
kd_do 1 --mode tokenize --data_dir only_val --tokenizer tok --output_dir only_val
refuses 3 "no split train" $sft --corpus only_val/corpus.h5
refuses 3 "--max_tokens_per_batch 30" $sft --max_tokens_per_batch 30
refuses 3 "no examples" $sft --n_train 0

mkdir no_test
cp "$tiny"/train.* "$tiny"/val.* no_test
kd_do 1 --mode tokenize --data_dir no_test --tokenizer tok --max_source_length 48 --max_target_length 20 --output_dir no_test
refuses 3 "no_test/corpus.h5 has none" $sft --do_predict --corpus no_test/corpus.h5
refuses 2 "--n_test 0" $sft --do_predict --n_test 0

echo "models that do not fit"
sed 's/"d_model": 16/"vocab_size": 110, "pad_token_id": 0, "bos_token_id": null, "eos_token_id": 1, "decoder_start_token_id": 1, "d_model": 16/' \
    "$tiny/config.json" >small.json
kd_do 1 --mode init-model --from small.json --output_dir small
refuses 3 "the model's vocabulary has 110" $sft --model small --tokenizer tok
sed 's/"vocab_size": 110/"vocab_size": 130/' small.json >large.json
kd_do 1 --mode init-model --from large.json --output_dir large
refuses 3 "130 vocabulary entries, the teacher 120" $kd --model large --tokenizer tok
sed 's/: 64/: 47/' "$tiny/config.json" >short.json
kd_do 1 --mode init-model --from short.json --tokenizer tok --output_dir short
refuses 3 "the model has 47 positions" $sft --model short
refuses 3 "the model has 47 positions" $kd --model model --teacher short
sed 's/: 64/: 48/' "$tiny/config.json" >exact.json
kd_do 1 --mode init-model --from exact.json --tokenizer tok --output_dir exact
kd_do 1 $sft --model exact --max_steps 1 --output_dir fits
sed 's/"d_model": 16/"d_model": 24/' "$tiny/config.json" >wide.json
kd_do 1 --mode init-model --from wide.json --tokenizer tok --output_dir wide
refuses 3 "--alpha_hid 0" $kd --model wide --alpha_hid 1 --hidden_matches 0,1

cp -r tok other
echo >>other/tokenizer_config.json
kd_do 2 $sft --tokenizer other --max_steps 1 --output_dir warned
expect_text err.txt "was made with another tokenizer"

echo "matches and depths"
refuses 2 "--hidden_matches" $kd --model exact --alpha_hid 1
refuses 2 "has 3 entries" $kd --model exact --alpha_hid 1 --hidden_matches 0,1,1
refuses 2 "layers 0 to 1" $kd --model exact --alpha_hid 1 --hidden_matches 0,2
refuses 2 "--student_decoder_layers 3" $kd --student_decoder_layers 3
refuses 2 "--model is a finished student" $kd --model exact --student_decoder_layers 1

echo "Adafactor has no moments to shard or to shorten"
refuses 2 "--zero 1" $sft --adafactor --zero 1
refuses 2 "--moments" $kd --adafactor --moments bfloat16
refuses 2 "--zero" $sft --zero 2

echo "an output directory that is taken"
kd_do 1 $sft --max_steps 1 --output_dir taken
cp -r taken before
kd_ranks 2 $sft --max_steps 1 --output_dir taken
expect_error 4 "taken already holds run.yaml" "--overwrite" "--resume"
diff -r taken before >&2 || fail "a refused run changed taken"
kd_do 1 $sft --max_steps 2 --overwrite --output_dir taken
mkdir of_another
touch of_another/checkpoint-00000009.h5 # newer than all that a run of four updates writes
kd_ranks 2 $sft --max_steps 4 --save_steps 2 --output_dir of_another
expect_error 4 "of_another already holds checkpoint-00000009.h5"
kd_do 2 $sft --max_steps 4 --save_steps 2 --overwrite --output_dir of_another
expect_path of_another/checkpoint-00000004.h5
expect_no_path of_another/checkpoint-00000009.h5

echo "numbers that are not"
python3 - <<'P'
import struct
data = bytearray(open("model/model.safetensors", "rb").read())
data[-64 * 4:] = struct.pack("<f", float("nan")) * 64
import os, shutil
shutil.copytree("model", "broken")
open("broken/model.safetensors", "wb").write(data)
P
kd_ranks 2 $sft --model broken --max_skipped_steps 2 --n_val 0 --output_dir nan
expect_error 6 "at step 3" "--max_skipped_steps"
[ "$(grep -c 'update skipped' err.txt)" = 2 ] || fail "not two updates skipped"
expect_no_path nan/model
kd_ranks 2 $sft --learning_rate 1e30 --max_grad_norm 0 --max_steps 50 --max_skipped_steps 3 --n_val 0 --output_dir hot
expect_error 6 "lower --learning_rate"
expect_no_path hot/model
