#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The modes eval and score from the command line:  eval_score.sh KDHPC WORK_DIR
# On a toy corpus and a random model: the lead baseline against what is known of it, scores against what a random
# model must have, and the same digits and files on 1, 2 and 3 ranks.
set -euo pipefail
kdhpc=$1
work=$2
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1

fail() {
    echo "eval_score: $*" >&2
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

exits() { # CODE ARGS...: alone, must end with this code and one line that says why
    local want=$1 got=0
    shift
    "$kdhpc" --device cpu "$@" >log.txt 2>&1 || got=$?
    [ "$got" = "$want" ] || fail "exit $got, not $want: $* ($(cat log.txt))"
    [ "$(grep -c '^kdhpc: error:' log.txt)" = 1 ] || fail "not one error line: $*"
}

rm -rf "$work"
mkdir -p "$work/data"
cd "$work"

# Sources of many lengths; the target of line i is its first three words, so lead 3 is perfect and lead 6 is not.
awk 'BEGIN {
    n = split("teacher student layer copies running quickly over under bridge river stone paper green blue light wind", w, " ");
    for (i = 0; i < 48; i++) {
        s = w[i % n + 1] " " w[i * 7 % n + 1] " " w[i * 5 % 11 + 1];
        t = s;
        for (k = 0; k < 3 + i * 13 % 29; k++) s = s " " w[(i * 3 + k * 5) % n + 1];
        print s > "data/test.source"; print t > "data/test.target";
        print s > "data/train.source"; print t > "data/train.target";
    }
}'
cat >config.json <<'J'
{"model_type": "mbart", "d_model": 16, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2,
 "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 128,
 "decoder_start_token_id": 1, "forced_eos_token_id": 1, "init_std": 0.02}
J
on 1 --mode train-tokenizer --input data/train.source,data/train.target --vocab_size 40 --output_dir tok
on 2 --mode tokenize --data_dir data --tokenizer tok --max_source_length 100 --max_target_length 20 --output_dir corpus
on 1 --mode init-model --from config.json --tokenizer tok --output_dir model
corpus=corpus/corpus.h5

echo "the lead baseline"
on 2 --mode eval --baseline lead --lead_words 3 --corpus $corpus --output_dir lead3
on 1 --mode eval --baseline lead --lead_words 6 --n_obs 10 --corpus $corpus --output_dir lead6
cmp lead3/generations.txt data/test.target || fail "lead 3 is not the first three words"
awk '{ print $1, $2, $3, $4, $5, $6 }' data/test.source | head -n 10 | cmp - lead6/generations.txt || fail "lead 6"
python3 - <<'P' || fail "metrics of the lead baseline"
import json
three, six = json.load(open("lead3/metrics.json")), json.load(open("lead6/metrics.json"))
assert three["n_obs"] == 48 and six["n_obs"] == 10, (three, six)
for k in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
    assert three[k] == three[k + "_low"] == three[k + "_high"] == 100, three
    assert six[k + "_low"] <= six[k] <= six[k + "_high"] < 100, six
# Six words of which the first three are the target: precision 1/2, recall 1.
assert abs(six["rougeL"] - 200 / 3) < 1e-9, six
P

echo "eval and score on 1, 2 and 3 ranks"
for np in 1 2 3; do
    on $np --mode eval --model model --corpus $corpus --eval_batch_size 7 --num_beams 2 --max_length 12 --output_dir eval$np
    on $np --mode score --model model --corpus $corpus --eval_batch_size 7 --output_dir score$np
    cmp eval1/generations.txt eval$np/generations.txt || fail "outputs differ on $np ranks"
done
[ "$(wc -l <eval1/generations.txt)" = 48 ] || fail "not one output a line"
python3 - <<'P' || fail "metrics"
import json, math
for mode, timed in (("eval", ("seconds_per_sample", "generated_tokens_per_s")), ("score", ("seconds",))):
    all_ranks = [json.load(open(f"{mode}{n}/metrics.json")) for n in (1, 2, 3)]
    for m in all_ranks:
        for k in timed:
            assert m.pop(k) > 0, k
    assert all_ranks[0] == all_ranks[1] == all_ranks[2], all_ranks
e, s = json.load(open("eval1/metrics.json")), json.load(open("score1/metrics.json"))
assert e["n_obs"] == s["n_obs"] == 48 and 1 <= e["gen_len"] <= 12, e
assert abs(s["perplexity"] - math.exp(s["loss"])) < 1e-9 * s["perplexity"], s
# A random model knows nothing: the loss is near that of the uniform distribution over its vocabulary.
vocab = json.load(open("model/config.json"))["vocab_size"]
assert abs(s["loss"] - math.log(vocab)) < 0.5, (s, vocab)
assert 0 <= s["token_accuracy"] < 0.5 and s["n_tokens"] > 4 * 48, s
P
if command -v h5diff >/dev/null; then
    for np in 2 3; do
        for d in id rouge1 rouge2 rougeL rougeLsum output; do
            h5diff eval1/examples.h5 eval$np/examples.h5 /$d /$d || fail "eval examples /$d differ on $np ranks"
        done
        for d in id nll n_labels n_correct; do
            h5diff score1/examples.h5 score$np/examples.h5 /$d /$d || fail "score examples /$d differ on $np ranks"
        done
    done
fi

echo "refusals"
exits 2 --mode eval --corpus $corpus --output_dir x
exits 2 --mode eval --baseline lead --model model --corpus $corpus --output_dir x
exits 2 --mode eval --model model --num_return_sequences 2 --num_beams 2 --corpus $corpus --output_dir x
exits 3 --mode eval --model model --corpus $corpus --split val --output_dir x
exits 3 --mode score --model model --corpus $corpus --n_obs 0 --output_dir x
exits 3 --mode score --model nowhere --corpus $corpus --output_dir x
exits 4 --mode score --model model --corpus $corpus --output_dir score1
[ ! -e x ] || [ -z "$(ls x)" ] || fail "a refused run left $(ls x)"
echo "eval_score: passed"
