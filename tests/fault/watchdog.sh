# SPDX-License-Identifier: Apache-2.0
# A rank that goes silent while the others wait for it: its own watchdog ends the job, soon and with one line.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
deadline_s=3 limit_s=40

KD_FAULT=program.output_dir:0 kd_alone --mode score --model m --corpus c --output_dir run
if ! grep -q "fault at" err.txt; then
    echo "skipped: this build has no fault sites"
    exit 77
fi
. "$KD_SOURCE_DIR/tests/support/tiny.sh"

silent() { # SITE RANK TEXT ARGS...: RANK hangs at SITE; the line names it and holds TEXT
    local site=$1 rank=$2 text=$3 began=$SECONDS
    shift 3
    KD_FAULT=hang:$site:$rank kd_ranks 2 "$@" --deadline_s $deadline_s
    expect_error 70 "error: rank $rank gave no sign of life for" "$text" "--deadline_s"
    [ $((SECONDS - began)) -lt $limit_s ] || fail "it took $((SECONDS - began)) s"
}

for rank in 0 1; do
    echo "rank $rank does not come to the sum of the gradients"
    silent train.micro $rank "last collective: agree, number" $sft --max_steps 3 --output_dir run$rank
    expect_no_path run$rank/model
done
echo "a rank does not come to the write of the corpus"
silent h5.prepare 1 "last collective:" --mode tokenize --data_dir "$tiny" --tokenizer tok --output_dir stuck
expect_no_path stuck/corpus.h5

echo "a deadline of 0 is no watchdog, and a job that lives is left alone"
kd_do 2 $sft --max_steps 3 --deadline_s 0 --output_dir none
kd_do 2 $sft --max_steps 3 --deadline_s $deadline_s --output_dir lives
