# SPDX-License-Identifier: Apache-2.0
# The modes pseudo-label and generate: the same labels on 1, 2 and 3 ranks and through either mode, a job that is
# killed, or stopped, and resumed, text files, labels as a training corpus, standard input and output, and what is
# refused.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
. "$KD_SOURCE_DIR/tests/mode/words.sh"
make_model model '"model_type": "bart", "decoder_layers": 2, "decoder_start_token_id": 0, "forced_eos_token_id": null, "init_std": 0.6'
label=(--mode pseudo-label --teacher model --corpus $corpus --eval_batch_size 5 --num_beams 3 --max_length 14)

echo "the same labels on 1, 2 and 3 ranks"
for np in 1 2 3; do
    kd_do $np "${label[@]}" --round_size 20 --num_return_sequences 2 --write_text --output_dir labels$np
    same_rows labels1/labels.h5 labels$np/labels.h5 /train
    expect_same labels1/train.target labels$np/train.target
    [ -z "$(ls labels$np | grep round)" ] || fail "rounds are left"
done
[ "$(wc -l <labels1/train.target)" = 96 ] || fail "not two labels a source"
awk '{ print; print }' data/train.source >twice.txt
expect_same twice.txt labels1/train.source
[ "$(sort -u labels1/train.target | wc -l)" -gt 10 ] || fail "the labels are all alike"

begin() { # DIR LAUNCHER ARGS...: label round by round in the background: $pid; returns after four rounds
    local dir=$1 launcher=$2
    shift 2
    $launcher "$KDHPC" "${label[@]}" --round_size 1 --output_dir "$dir" "$@" >out.txt 2>err.txt </dev/null &
    pid=$!
    kd_last="labelling into $dir"
    for _ in $(seq 3000); do
        [ ! -e "$dir/labels.round-00003.h5" ] || break
        sleep 0.01
    done
    [ -e "$dir/labels.round-00003.h5" ] || fail "no rounds in 30 s"
}

resumes() { # DIR: on two ranks, to the labels of a job that was never interrupted
    expect_no_path "$1/labels.h5"
    kd_do 2 "${label[@]}" --round_size 1 --resume --output_dir "$1"
    expect_text err.txt "resuming after"
    same_rows whole/labels.h5 "$1/labels.h5" /train
}

echo "killed and resumed"
kd_do 1 "${label[@]}" --round_size 1 --output_dir whole
begin killed ""
kill -9 $pid
wait $pid || true
refuses 4 "killed already holds labels.round-" "${label[@]}" --round_size 1 --output_dir killed
refuses 3 "num_beams=2" "${label[@]}" --round_size 1 --num_beams 2 --resume --output_dir killed
resumes killed
kd_do 2 "${label[@]}" --round_size 1 --resume --output_dir killed # nothing is left to do
refuses 3 "num_beams=2" "${label[@]}" --round_size 1 --num_beams 2 --resume --output_dir killed

echo "stopped by a signal, alone and to one of two ranks, and resumed"
stopped() { # DIR: exit 75, one line that tells how to go on, whole rounds and nothing else
    kd_code=0
    wait $pid || kd_code=$?
    expect_exit 75
    [ "$(grep -c 'kdhpc: stopped: .* of 48 rounds are saved: --resume goes on' err.txt)" = 1 ] || fail "no word on going on"
    [ -z "$(ls "$1" | grep -v '^labels.round-[0-9]*.h5$')" ] || fail "a stopped job left $(ls "$1")"
}
begin term ""
kill -TERM $pid
stopped term
resumes term
begin usr1 "$MPIEXEC -n 2"
kill -USR1 "$(tr ' ' '\n' <"/proc/$pid/task/$pid/children" | grep -m 1 .)"
stopped usr1
resumes usr1
mkdir slow # enough for half a minute
for _ in $(seq 200); do cat data/test.source; done >slow/test.source
cp slow/test.source slow/test.target
kd_do 2 --mode tokenize --data_dir slow --tokenizer tok --max_source_length 100 --output_dir slow
for mode in "eval --corpus slow/corpus.h5" "generate --input slow/test.source"; do
    kd_last="a slow $mode"
    "$KDHPC" --mode $mode --model model --eval_batch_size 1 --num_beams 3 --max_length 128 --min_length 127 --output_dir ended \
        >out.txt 2>err.txt </dev/null &
    pid=$!
    until grep -q "mode ${mode%% *}" err.txt; do sleep 0.01; done
    kill -TERM $pid
    kd_code=0
    wait $pid || kd_code=$?
    expect_exit 75
    expect_text err.txt "before anything was written: run it again"
    [ -z "$(ls ended)" ] || fail "a stopped run left $(ls ended)"
done

echo "what lies in the output directory"
kd_do 1 "${label[@]}" --output_dir again
cp again/labels.h5 old.h5
begin again "" --num_beams 2 --overwrite # the old labels are not those of the job that goes on
kill -9 $pid
wait $pid || true
kd_do 1 "${label[@]}" --num_beams 2 --round_size 1 --resume --output_dir again
kd_do 1 "${label[@]}" --num_beams 2 --round_size 1 --output_dir straight
same_rows again/labels.h5 straight/labels.h5 /train
mkdir texts
cp data/train.source texts
kd_alone "${label[@]}" --write_text --output_dir texts
expect_error 4 "texts/train.source exists" "--overwrite"
expect_same data/train.source texts/train.source
expect_no_path texts/labels.h5

echo "sampling does not depend on ranks or batches"
for np in 1 3; do
    kd_do $np --mode generate --model model --input data/train.source --num_beams 1 --do_sample --top_k 0 --max_length 12 \
        --num_return_sequences 2 --eval_batch_size $((4 + np)) --output sampled$np.txt
done
expect_same sampled1.txt sampled3.txt
kd_do 1 --mode generate --model model --input data/train.source --num_beams 1 --do_sample --top_k 0 --max_length 12 \
    --num_return_sequences 2 --seed 7 --output sampled7.txt
! cmp -s sampled1.txt sampled7.txt || fail "the seed does not matter"

echo "generate equals pseudo-label, from a file or standard input"
gen=(--mode generate --model model --num_beams 3 --max_length 14 --num_return_sequences 2 --max_source_length 100)
kd_do 2 "${gen[@]}" --input data/train.source --output_dir gen
expect_same gen/generations.txt labels1/train.target
"$KDHPC" "${gen[@]}" --input - --output - <data/train.source 2>err.txt >stdout.txt || fail "stdin"
expect_same stdout.txt labels1/train.target
"$MPIEXEC" -n 2 "$KDHPC" "${gen[@]}" --input - --output piped.txt <data/train.source >out.txt 2>err.txt || fail "stdin on 2 ranks"
expect_same piped.txt labels1/train.target
printf 'green blue\n\nriver' >short.txt
kd_do 1 --mode generate --model model --input short.txt --num_beams 1 --output short.out
[ "$(wc -l <short.out)" = 3 ] || fail "not a line out for a line in"
: >empty.txt
kd_do 2 --mode generate --model model --input empty.txt --output empty.out
expect_empty empty.out

echo "labels are a corpus, alone or with others"
train=(--mode sft --model model --max_steps 2 --train_batch_size 8 --val_check_interval 1.0)
kd_do 2 "${train[@]}" --corpus labels1/labels.h5 --output_dir sft1
kd_do 1 "${train[@]}" --corpus $corpus,labels1/labels.h5 --do_predict --n_test 3 --output_dir sft2 # the test split of one of them
expect_text sft2/metrics.jsonl test_rouge2

echo "refusals"
printf 'fine\nbad \377 byte\n' >bad.txt
refuses 3 bad.txt:2 --mode generate --model model --input bad.txt --output x.txt
refuses 3 nowhere --mode generate --model model --input nowhere.txt --output x.txt
refuses 2 output --mode generate --model model --input short.txt
refuses 4 short.out --mode generate --model model --input short.txt --output short.out
refuses 4 "cannot write nodir/x.txt" --mode generate --model model --input short.txt --output nodir/x.txt
refuses 4 "data is a directory" --mode generate --model model --input short.txt --output data --overwrite
refuses 2 num_return_sequences --mode generate --model model --input short.txt --num_beams 2 --num_return_sequences 3 --output x.txt
refuses 2 max_length --mode generate --model model --input short.txt --max_length 500 --output x.txt
refuses 2 early_stopping --mode generate --model model --input short.txt --early_stopping=maybe --output x.txt
refuses 3 "no split val" "${label[@]}" --split val --output_dir x
refuses 2 teacher --mode pseudo-label --corpus $corpus --output_dir x
expect_no_path x.txt
