# SPDX-License-Identifier: Apache-2.0
# Things to train in seconds, made from inputs/tiny in the work directory; source it after lib.sh.
#   tok/  corpus/corpus.h5  model/ (2 + 2 layers, as a teacher too)
tiny=$KD_SOURCE_DIR/inputs/tiny
corpus=corpus/corpus.h5
export PYTHONPATH=$KD_SOURCE_DIR/tests/support PYTHONDONTWRITEBYTECODE=1

kd_do 1 --mode train-tokenizer --input "$tiny/train.source,$tiny/train.target" --vocab_size 120 --output_dir tok
kd_do 1 --mode tokenize --data_dir "$tiny" --tokenizer tok --max_source_length 48 --max_target_length 20 --output_dir corpus
kd_do 1 --mode init-model --from "$tiny/config.json" --tokenizer tok --output_dir model

# Options that every training here has: a line a step, no generation, no checkpoints.
quick="--corpus $corpus --train_batch_size 8 --learning_rate 3e-3 --logging_steps 1 --val_metric loss --save_steps -1 --threads 1"
sft="--mode sft --model model $quick"
kd="--mode kd --teacher model $quick"

check() { # WHAT: Python on standard input, with the helpers of runs.py
    python3 -c "from runs import *
$(cat)" || fail "$1"
}
