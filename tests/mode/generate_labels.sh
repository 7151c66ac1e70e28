#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The modes pseudo-label and generate from the command line:  generate_labels.sh KDHPC WORK_DIR
# On a toy corpus and a random model: the same labels on 1, 2 and 3 ranks and through either mode, a job that is
# killed and resumed, text files, labels as a training corpus, standard input and output, and what is refused.
set -euo pipefail
kdhpc=$1
work=$2
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1

fail() {
    echo "generate_labels: $*" >&2
    exit 1
}

on() { # RANKS ARGS...: run quietly, show the log only if it fails
    local np=$1
    shift
    mpirun --oversubscribe -np "$np" "$kdhpc" --threads 1 --device cpu "$@" >log.txt 2>&1 || {
        cat log.txt >&2
        fail "failed on $np ranks: $*"
    }
}

exits() { # CODE WORD ARGS...: alone, must end with this code and one line that has WORD
    local want=$1 word=$2 got=0
    shift 2
    "$kdhpc" --device cpu "$@" </dev/null >log.txt 2>&1 || got=$?
    [ "$got" = "$want" ] || fail "exit $got, not $want: $* ($(cat log.txt))"
    [ "$(grep -c '^kdhpc: error:' log.txt)" = 1 ] || fail "not one error line: $*"
    grep '^kdhpc: error:' log.txt | grep -q -e "$word" || fail "the error does not say $word: $(cat log.txt)"
}

same() { # A B: the same examples
    command -v h5diff >/dev/null || return 0
    h5diff "$1" "$2" /train /train >diff.txt || fail "$1 and $2 differ: $(head -n 5 diff.txt)"
}

rm -rf "$work"
mkdir -p "$work/data"
cd "$work"

awk 'BEGIN {
    n = split("teacher student layer copies running quickly over under bridge river stone paper green blue light wind", w, " ");
    for (i = 0; i < 48; i++) {
        s = w[i % n + 1] " " w[i * 7 % n + 1] " " w[i * 5 % 11 + 1];
        t = s;
        for (k = 0; k < 3 + i * 13 % 29; k++) s = s " " w[(i * 3 + k * 5) % n + 1];
        print s > "data/train.source"; print t > "data/train.target";
    }
}'
cat >config.json <<'J'
{"model_type": "bart", "d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
 "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 128,
 "decoder_start_token_id": 0, "forced_eos_token_id": null, "init_std": 0.6}
J
on 1 --mode train-tokenizer --input data/train.source,data/train.target --vocab_size 40 --output_dir tok
on 2 --mode tokenize --data_dir data --tokenizer tok --max_source_length 100 --max_target_length 20 --output_dir corpus
on 1 --mode init-model --from config.json --tokenizer tok --output_dir model
corpus=corpus/corpus.h5
label=(--mode pseudo-label --teacher model --corpus $corpus --eval_batch_size 5 --round_size 20 --num_beams 3 --max_length 14)

echo "the same labels on 1, 2 and 3 ranks"
for np in 1 2 3; do
    on $np "${label[@]}" --num_return_sequences 2 --write_text --output_dir labels$np
    same labels1/labels.h5 labels$np/labels.h5
    cmp labels1/train.target labels$np/train.target || fail "texts differ on $np ranks"
    [ -z "$(ls labels$np | grep round)" ] || fail "rounds are left"
done
[ "$(wc -l <labels1/train.target)" = 96 ] || fail "not two labels a source"
awk '{ print; print }' data/train.source | cmp - labels1/train.source || fail "sources are not repeated in order"
sort labels1/train.target | uniq | wc -l | { read -r n; [ "$n" -gt 10 ]; } || fail "the labels are all alike"

echo "killed and resumed"
on 1 "${label[@]}" --round_size 1 --output_dir whole
"$kdhpc" --device cpu --threads 1 "${label[@]}" --round_size 1 --output_dir killed >log.txt 2>&1 &
pid=$!
for _ in $(seq 1000); do
    [ ! -e killed/labels.round-00003.h5 ] || break
    sleep 0.01
done
kill -9 $pid 2>/dev/null || true
wait $pid 2>/dev/null || true
[ -e killed/labels.round-00003.h5 ] || fail "no rounds before the kill: $(cat log.txt)"
[ ! -e killed/labels.h5 ] || fail "the job ended before it was killed"
exits 4 labels "${label[@]}" --round_size 1 --output_dir killed
exits 3 num_beams=2 "${label[@]}" --round_size 1 --num_beams 2 --resume --output_dir killed
on 2 "${label[@]}" --round_size 1 --resume --output_dir killed
grep -q "resuming after" log.txt || fail "the resumed job does not say so"
same whole/labels.h5 killed/labels.h5
on 2 "${label[@]}" --round_size 1 --resume --output_dir killed
exits 3 num_beams "${label[@]}" --round_size 1 --num_beams 2 --resume --output_dir killed

echo "sampling does not depend on ranks or batches"
for np in 1 3; do
    on $np --mode generate --model model --input data/train.source --num_beams 1 --do_sample --top_k 0 --max_length 12 \
        --num_return_sequences 2 --eval_batch_size $((4 + np)) --output sampled$np.txt
done
cmp sampled1.txt sampled3.txt || fail "samples differ"
on 1 --mode generate --model model --input data/train.source --num_beams 1 --do_sample --top_k 0 --max_length 12 \
    --num_return_sequences 2 --seed 7 --output sampled7.txt
cmp -s sampled1.txt sampled7.txt && fail "the seed does not matter"

echo "generate equals pseudo-label, from a file or standard input"
gen=(--mode generate --model model --num_beams 3 --max_length 14 --num_return_sequences 2 --max_source_length 100)
on 2 "${gen[@]}" --input data/train.source --output_dir gen
cmp gen/generations.txt labels1/train.target || fail "the modes differ"
"$kdhpc" --device cpu --threads 1 "${gen[@]}" --input - --output - <data/train.source 2>log.txt >stdout.txt || fail "stdin: $(cat log.txt)"
cmp stdout.txt labels1/train.target || fail "standard output differs"
mpirun --oversubscribe -np 2 "$kdhpc" --device cpu --threads 1 "${gen[@]}" --input - --output piped.txt <data/train.source >log.txt 2>&1 ||
    fail "stdin on 2 ranks: $(cat log.txt)"
cmp piped.txt labels1/train.target || fail "standard input on 2 ranks differs"
printf 'green blue\n\nriver' >short.txt
on 1 --mode generate --model model --input short.txt --num_beams 1 --output short.out
[ "$(wc -l <short.out)" = 3 ] || fail "not a line out for a line in"
: >empty.txt
on 2 --mode generate --model model --input empty.txt --output empty.out
[ ! -s empty.out ] || fail "outputs without input"

echo "labels are a corpus, alone or with others"
train=(--mode sft --model model --max_steps 2 --train_batch_size 8 --val_check_interval 1.0)
on 2 "${train[@]}" --corpus labels1/labels.h5 --output_dir sft1
on 1 "${train[@]}" --corpus $corpus,labels1/labels.h5 --output_dir sft2

echo "refusals"
printf 'fine\nbad \377 byte\n' >bad.txt
exits 3 bad.txt:2 --mode generate --model model --input bad.txt --output x.txt
exits 3 nowhere --mode generate --model model --input nowhere.txt --output x.txt
exits 2 output --mode generate --model model --input short.txt
exits 4 short.out --mode generate --model model --input short.txt --output short.out
exits 2 num_return_sequences --mode generate --model model --input short.txt --num_beams 2 --num_return_sequences 3 --output x.txt
exits 2 max_length --mode generate --model model --input short.txt --max_length 500 --output x.txt
exits 2 early_stopping --mode generate --model model --input short.txt --early_stopping=maybe --output x.txt
exits 3 test "${label[@]}" --split test --output_dir x
exits 2 teacher --mode pseudo-label --corpus $corpus --output_dir x
[ ! -e x.txt ] || fail "a refused run left an output"
[ ! -e x ] || [ -z "$(ls x)" ] || fail "a refused run left $(ls x)"
echo "generate_labels: passed"
