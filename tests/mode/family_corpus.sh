# SPDX-License-Identifier: Apache-2.0
# What tests of families share; source it in the work directory.  A small corpus, whose ids every fixture of
# tests/golden has room for (data/, tok/, corpus/corpus.h5), and check, which runs Python.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
export PYTHONPATH=$KD_SOURCE_DIR/tests/support PYTHONDONTWRITEBYTECODE=1

check() { # WHAT: Python on standard input, with the helpers of runs.py
    python3 -c "from runs import *
from families import *
$(cat)" || fail "$1"
}

check "the input" <<P
write_data("data")
P
kd_do 1 --mode train-tokenizer --input data/train.source,data/train.target --vocab_size 32 --output_dir tok
kd_do 1 --mode tokenize --data_dir data --tokenizer tok --max_source_length 24 --max_target_length 12 --output_dir corpus
corpus=corpus/corpus.h5
