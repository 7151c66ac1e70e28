# SPDX-License-Identifier: Apache-2.0
# The bench mode: every benchmark runs alone and on two ranks, its JSON can be read, values are positive, shares are
# value / bound, and the work that bounds training is counted as it should be.
. "${KD_LIB:?}" || exit 1

tiny="--d_model 16 --n_heads 2 --encoder_layers 2 --decoder_layers 2 --student_decoder_layers 2 --vocab_size 50
    --batch_size 4 --steps 2 --num_beams 2 --gen_length 4 --n_sources 6 --tokens 100 --megabytes 1 --seconds 0.001"
data=gemm,attention,train,kd,generate,store,allreduce,metrics,tokenizer

check() { # NP: the JSON of out.txt
    NP=$1 python3 - <<'PY' || fail "the JSON is not as expected"
import json, math, os

rows = json.load(open("out.txt"))
ranks = int(os.environ["NP"])
seen = {r["what"] for r in rows}
wanted = {"gemm", "attention", "train", "kd", "generate", "store", "metrics"} | ({"allreduce"} if ranks > 1 else set())
assert seen == wanted, seen  # nothing to sum on one rank, no tokenizer given
for r in rows:
    assert math.isfinite(r["value"]) and r["value"] > 0, r
    assert r["name"] and r["unit"], r
    assert ("bound" in r) == ("share" in r), r
    if "bound" in r:
        assert math.isclose(r["share"], r["value"] / r["bound"], rel_tol=1e-12) and r["bound"] > 0, r
bound = {r["what"]: r["bound"] for r in rows if r["what"] in ("train", "kd", "generate") and "bound" in r}
assert len(bound) == 3, bound
# a student as large as its teacher: three forward passes' worth for it, one for the teacher
assert math.isclose(bound["kd"] / bound["train"], 3 / 4, rel_tol=1e-9), bound
PY
}

for np in 1 2; do
    # shellcheck disable=SC2086
    kd_do $np --mode bench --what $data --json --threads 1 --output_dir out $tiny
    check $np
    expect_text err.txt "tokenizer is left out"
    [ -z "$(ls -A out)" ] || fail "the benchmarks left files behind"
done

kd_do 1 --mode bench --what gemm,metrics --threads 1 --d_model 16 --tokens 50 --vocab_size 50 --seconds 0.001
expect_text out.txt "qkv forward 50x48x16"
expect_text out.txt "pairs/s"

for np in 1 2; do
    kd_do $np --mode bench --what load --threads 1 --model "$KD_SOURCE_DIR/tests/golden/bart"
    expect_text out.txt "MB of parameters"
done
kd_do 1 --mode bench --what load --threads 1
expect_text err.txt "load is left out"

echo "batches by tokens, a frozen encoder"
frozen="$tiny --decoder_layers 4 --student_decoder_layers 1 --max_tokens_per_batch 400 --n_sources 20 --warm_steps 2 --sortish_sampler --threads 1"
kd_do 1 --mode bench --what train,kd,generate --json $frozen
mv out.txt all.json
kd_do 1 --mode bench --what train,kd,generate --json $frozen --freeze_encoder
python3 - <<'PY' || fail "the work of a frozen encoder is not as expected"
import json

def bound(path):
    return {r["what"]: r["bound"] for r in json.load(open(path)) if "bound" in r}

trained, frozen = bound("all.json"), bound("out.txt")
# trained: three passes; frozen: the encoder once, the head and the source's keys and values without a gradient of weights
assert 1 < frozen["train"] / trained["train"] < 3, (trained, frozen)
assert frozen["kd"] / trained["kd"] > frozen["train"] / trained["train"], (trained, frozen)
assert any("400 tokens" in r["name"] for r in json.load(open("out.txt")))
PY

kd_alone --mode bench --what gemm,speed
expect_error 2 "speed" "tokenizer"
kd_alone --mode bench --what kd --decoder_layers 2 --student_decoder_layers 3
expect_error 2 "student_decoder_layers"
