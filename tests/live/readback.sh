# SPDX-License-Identifier: Apache-2.0
# What the modes write opens with transformers, PyTorch and h5py, and means the same there.  Skipped without them;
# KDHPC_TEST_PYTHON names another interpreter than python3.
. "$(dirname "$0")/python.sh"
needs transformers torch h5py sentencepiece
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
. "$KD_SOURCE_DIR/tests/support/tiny.sh"

kd_do 1 --mode make-student --teacher model --decoder_layers 1 --output_dir student
kd_do 2 $sft --max_steps 20 --learning_rate 1e-2 --save_steps 10 --output_dir sft
kd_do 1 $kd --model student --alpha_hid 1 --max_steps 5 --output_dir kd
models="model student sft/model kd/model"
for model in $models; do
    kd_do 1 --mode score --model $model --corpus $corpus --split test --output_dir $model.score
done
kd_do 1 --mode eval --model sft/model --corpus $corpus --n_obs 3 --max_length 8 --output_dir eval

code=0
"$python" "$KD_SOURCE_DIR/tests/live/readback.py" $models -- \
    $corpus sft/model.score/examples.h5 eval/examples.h5 sft/checkpoint-*.h5 || code=$?
[ $code = 0 ] || [ $code = 77 ] || fail "what was written reads differently"
exit $code
