# SPDX-License-Identifier: Apache-2.0
# The modes eval and score: the lead baseline against what is known of it, scores against what a random model must
# have, and the same digits and files on 1, 2 and 3 ranks.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
. "$KD_SOURCE_DIR/tests/mode/words.sh"
make_model model '"model_type": "mbart", "decoder_layers": 1, "decoder_start_token_id": 1, "init_std": 0.02'

echo "the lead baseline"
kd_do 2 --mode eval --baseline lead --lead_words 3 --corpus $corpus --output_dir lead3
kd_do 1 --mode eval --baseline lead --lead_words 6 --n_obs 10 --corpus $corpus --output_dir lead6
expect_same lead3/generations.txt data/test.target
awk '{ print $1, $2, $3, $4, $5, $6 }' data/test.source | head -n 10 >six.txt
expect_same six.txt lead6/generations.txt
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
    kd_do $np --mode eval --model model --corpus $corpus --eval_batch_size 7 --num_beams 2 --max_length 12 --output_dir eval$np
    kd_do $np --mode score --model model --corpus $corpus --eval_batch_size 7 --output_dir score$np
    expect_same eval1/generations.txt eval$np/generations.txt
    same_rows eval1/examples.h5 eval$np/examples.h5 /id /rouge1 /rouge2 /rougeL /rougeLsum /output
    same_rows score1/examples.h5 score$np/examples.h5 /id /nll /n_labels /n_correct
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

echo "refusals"
refuses 2 "--model is required" --mode eval --corpus $corpus --output_dir x
refuses 2 "--baseline" --mode eval --baseline lead --model model --corpus $corpus --output_dir x
refuses 2 "num_return_sequences" --mode eval --model model --num_return_sequences 2 --num_beams 2 --corpus $corpus --output_dir x
refuses 3 "no split val" --mode eval --model model --corpus $corpus --split val --output_dir x
refuses 3 "no example" --mode score --model model --corpus $corpus --n_obs 0 --output_dir x
refuses 3 "nowhere" --mode score --model nowhere --corpus $corpus --output_dir x
refuses 4 "already holds metrics.json" --mode score --model model --corpus $corpus --output_dir score1
