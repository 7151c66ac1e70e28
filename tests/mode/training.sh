# SPDX-License-Identifier: Apache-2.0
# Training through the command line: the same curve on any number of ranks, what a run leaves, and each option that
# changes the arithmetic against what it must do.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
. "$KD_SOURCE_DIR/tests/support/tiny.sh"

echo "sft on 1 to 4 ranks, with dropout"
for np in 1 2 3 4; do
    kd_do $np $sft --max_steps 7 --warmup_steps 2 --output_dir sft$np
done
expect_path sft1/run.yaml sft1/metrics.jsonl sft1/log.txt sft1/model/config.json sft1/model/generation_config.json \
    sft1/model/model.safetensors sft1/model/spiece.model sft1/model/tokenizer_config.json
[ -z "$(ls sft1 | grep -v -x -e run.yaml -e metrics.jsonl -e log.txt -e model)" ] || fail "more files than expected: $(ls sft1)"
check "the curve of sft" <<'P'
one = steps("sft1")
for n in (2, 3, 4):
    other = steps("sft%d" % n)
    assert_same(one[:4], other[:4], 1e-6)
    assert_same(one, other, 1e-5)
    assert_same(checks("sft1"), checks("sft%d" % n), 1e-5)
raw = [json.loads(x) for x in open("sft1/metrics.jsonl")]
train = [x for x in raw if "loss" in x]
assert [x["step"] for x in train] == list(range(1, 8))
for x in train:
    assert list(x) == ["step", "epoch", "loss", "ce", "mlm", "hid_enc", "hid_dec", "lr", "grad_norm", "tokens",
                       "tokens_per_s", "seconds", "mem_bytes"], list(x)
    assert x["loss"] == x["mlm"] > 0 and x["ce"] == x["hid_enc"] == x["hid_dec"] == 0 and x["mem_bytes"] > 1e6, x
# 40 examples, batches of 8: five updates an epoch; the rate of update u is the schedule's at u - 1.
assert [x["epoch"] for x in train] == [0.2, 0.4, 0.6, 0.8, 1, 1.2, 1.4]
for x in train:
    s = x["step"] - 1
    assert close(x["lr"], 3e-3 * (s / 2 if s < 2 else (7 - s) / 5), 1e-12), x
assert [x["step"] for x in checks("sft1")] == [5, 7] and set(checks("sft1")[0]) == {"step", "val_loss"}
digits = re.findall(r'"grad_norm":([0-9.]+)', open("sft1/metrics.jsonl").read())
assert max(len(d) for d in digits) >= 17, digits
P

echo "a sharded optimiser, moments in bfloat16"
for np in 1 2 3 4; do
    kd_do $np $sft --max_steps 7 --warmup_steps 2 --zero 1 --output_dir zero$np
done
kd_do 2 $sft --max_steps 7 --warmup_steps 2 --zero 1 --moments bfloat16 --output_dir short
check "the curves of --zero 1 and of bfloat16 moments" <<'P'
for n in (1, 2, 3, 4):
    assert_same(steps("sft%d" % n), steps("zero%d" % n), 1e-6 if n > 1 else 0)
    assert_same(checks("sft%d" % n), checks("zero%d" % n), 1e-6)
assert_same(steps("sft2"), steps("short"), 1e-2, ("loss",))
assert steps("sft2")[-1]["loss"] != steps("short")[-1]["loss"]
P

echo "a batch that one rank takes in two pieces, and two ranks in one each"
for np in 1 2; do
    kd_do $np $sft --train_batch_size 40 --max_steps 3 --output_dir pieces$np
done
check "pieces of a batch" <<'P'
assert steps("pieces1")[0]["tokens"] > 2048
assert_same(steps("pieces1"), steps("pieces2"), 1e-6)
P

echo "a run again from its own run.yaml, and its model in score"
kd_do 1 --config sft1/run.yaml --output_dir again
expect_same sft1/model/model.safetensors again/model/model.safetensors
expect_text sft1/run.yaml "# digest model "
expect_text sft1/run.yaml "# digest corpus "
for part in MPI HDF5 BLAS compiler ranks threads; do
    expect_text sft1/run.yaml "# $part: "
done
kd_do 2 --mode score --model sft1/model --corpus $corpus --split val --output_dir score
check "the validation loss" <<'P'
assert lines("sft1") == lines("again")
assert close(read_json("score/metrics.json")["loss"], checks("sft1")[-1]["val_loss"], 1e-12)
P

echo "kd on 1 to 4 ranks: logits, labels, hidden states, generating validation"
for np in 1 2 3 4; do
    kd_do $np $kd --student_encoder_layers 1 --student_decoder_layers 1 --alpha_hid 3 --label_smoothing 0.1 --max_steps 4 \
        --val_metric rouge2 --n_val 4 --eval_max_gen_length 8 --do_predict --n_test 5 --output_dir kd$np
done
check "the curve of kd" <<'P'
for x in steps("kd1"):
    assert all(x[t] > 0 for t in TERMS), x
    assert close(x["loss"], 0.8 * x["ce"] + 0.2 * x["mlm"] + 3 * (x["hid_enc"] + x["hid_dec"]), 1e-12), x
for n in (2, 3, 4):
    assert_same(steps("kd1"), steps("kd%d" % n), 2e-6)
    assert_same(checks("kd1"), checks("kd%d" % n), 1e-5)
    assert_same(checks("kd1", "test"), checks("kd%d" % n, "test"), 1e-5)
val, test = checks("kd1")[-1], checks("kd1", "test")
assert set(val) == {"step", "val_loss", "val_rouge1", "val_rouge2", "val_rougeL", "val_rougeLsum", "val_gen_len"}, val
assert len(test) == 1 and 1 <= test[0]["test_gen_len"] <= 8, test
config = read_json("kd1/model/config.json")
assert config["encoder_layers"] == config["decoder_layers"] == 1
assert config["init_metadata"]["copied_decoder_layers"] == [0], config
P

echo "BLEU chooses"
kd_do 1 $sft --val_metric bleu --learning_rate 3e-2 --max_steps 60 --val_check_interval 20 --eval_max_gen_length 20 --output_dir bleu
kd_do 2 $sft --model bleu/model --val_metric bleu --learning_rate 0 --max_steps 1 --eval_max_gen_length 20 --output_dir bleu2
kd_do 1 --mode eval --model bleu/model --corpus $corpus --split val --max_length 20 --output_dir bleu_eval
check "validation by BLEU" <<'P'
best = max(checks("bleu"), key=lambda x: x["val_bleu"])
assert 0 < best["val_bleu"] < 100, best
# the model that is kept gives the digits of that validation, on any number of ranks
again = checks("bleu2")[0]
assert {k: best[k] for k in best if k != "step"} == {k: again[k] for k in again if k != "step"}, (best, again)
assert read_json("bleu_eval/metrics.json")["rouge1"] == best["val_rouge1"], best
P

echo "kd in the reference's arithmetic: statistics of the whole block on 1 to 3 ranks"
for np in 1 2 3; do
    kd_do $np $kd --student_encoder_layers 1 --alpha_hid 3 --normalize_hidden --label_smoothing 0.1 --compat seq2seq \
        --weight_decay 0.01 --gradient_accumulation_steps 2 --max_steps 3 --output_dir compat$np
done
check "compat" <<'P'
for n in (2, 3):
    assert_same(steps("compat1"), steps("compat%d" % n), 5e-6)
x = steps("compat1")[0]
assert x["mlm"] > 100 and x["hid_enc"] > 0 and x["hid_dec"] > 0, x  # smoothing as a sum over about 300 labels
P

echo "recomputed layers"
kd_do 1 $sft --max_steps 7 --warmup_steps 2 --recompute --output_dir recompute1
kd_do 2 $kd --student_encoder_layers 1 --student_decoder_layers 1 --alpha_hid 3 --label_smoothing 0.1 --max_steps 4 \
    --val_metric rouge2 --n_val 4 --eval_max_gen_length 8 --do_predict --n_test 5 --recompute --output_dir recompute2
expect_same sft1/model/model.safetensors recompute1/model/model.safetensors
expect_same kd2/model/model.safetensors recompute2/model/model.safetensors
check "the same to the bit" <<'P'
assert lines("recompute1") == lines("sft1")
assert lines("recompute2") == lines("kd2")
P

echo "accumulation, corpus order, token budgets"
kd_do 1 $sft --shuffle false --max_steps 6 --output_dir batch8
kd_do 2 $sft --shuffle false --max_steps 6 --train_batch_size 4 --gradient_accumulation_steps 2 --output_dir batch4
kd_do 1 $sft --n_train 8 --num_train_epochs 1 --n_val 0 --output_dir first8
kd_do 1 $sft --max_tokens_per_batch 400 --sortish_sampler --num_train_epochs 1 --seed 7 --output_dir tokens
check "batches" <<'P'
assert_same(steps("batch8"), steps("batch4"), 1e-6, ("step", "loss", "tokens", "lr"))
assert_same(steps("batch8"), steps("batch4"), 1e-5)
assert steps("batch8")[0]["tokens"] == steps("first8")[0]["tokens"] != steps("sft1")[0]["tokens"]
assert not checks("first8") and len(steps("first8")) == 1
total = [x["tokens"] for x in steps("sft1") if x["epoch"] == 1][0]
seen = [0] + [x["tokens"] for x in steps("tokens")]
each = [b - a for a, b in zip(seen, seen[1:])]
assert seen[-1] == total == [x["tokens"] for x in steps("batch8") if x["epoch"] == 1][0]
assert max(each) <= 400 and len(each) >= total / 400 and sum(each) / len(each) > 300, each
P

echo "freezing"
kd_do 2 $kd --student_decoder_layers 1 --alpha_hid 1 --freeze_encoder --max_steps 3 --output_dir frozen
expect_text err.txt "the frozen encoder runs once for teacher and student"
kd_do 1 $sft --freeze_embeds --weight_decay 0.1 --max_steps 2 --output_dir embeds
check "frozen parameters" <<'P'
before, frozen, embeds = tensors("model"), tensors("frozen/model"), tensors("embeds/model")
for name, value in frozen.items():
    same = value == before[name]
    assert same == (".encoder." in name or "shared" in name or name == "final_logits_bias"), name
for name, value in embeds.items():
    still = "shared" in name or "embed_positions" in name or name == "final_logits_bias"
    assert (value == before[name]) == still or name.endswith("k_proj.bias"), name
assert all(x["hid_enc"] == 0 and x["hid_dec"] > 0 for x in steps("frozen"))
P

echo "adafactor with smoothing, bfloat16, early stopping"
kd_do 1 $sft --adafactor --learning_rate 1e-2 --label_smoothing 0.1 --dropout 0 --lr_scheduler constant --num_train_epochs 4 \
    --save_dtype bfloat16 --output_dir adafactor
kd_do 1 --mode score --model adafactor/model --corpus $corpus --split val --output_dir score16
kd_do 1 $sft --learning_rate 0 --num_train_epochs 9 --early_stopping_patience 2 --output_dir patience
check "adafactor and patience" <<'P'
curve, val = [x["loss"] for x in steps("adafactor")], checks("adafactor")
assert curve[-1] < 0.85 * curve[0], curve
assert val[-1]["val_loss"] < val[0]["val_loss"] < steps("adafactor")[0]["mlm"], val
# the best model, rounded to bfloat16
assert close(read_json("score16/metrics.json")["loss"], min(x["val_loss"] for x in val), 5e-3)
assert len(tensors("adafactor/model")["model.shared.weight"]) == 120 * 16 * 2
# a first best, then two without progress
assert [x["step"] for x in checks("patience")] == [5, 10, 15] and steps("patience")[-1]["step"] == 15
P

echo "a task: its metric, and its settings of generation, in validation and in the model"
cp -r model tasks
python3 - <<'P'
import json
config = json.load(open("tasks/config.json"))
config["task_specific_params"] = {"translation_a_to_b": {"prefix": "a: ", "num_beams": 1, "max_length": 6}}
json.dump(config, open("tasks/config.json", "w"))
P
task="--mode sft --model tasks --corpus $corpus --max_steps 1 --n_val 4 --save_steps -1 --threads 1"
kd_do 2 $task --task translation_a_to_b --output_dir task
kd_do 1 $task --task summarization --output_dir no_task
kd_do 1 --mode eval --model task/model --corpus $corpus --task translation --n_obs 4 --output_dir task_eval
check "the task" <<'P'
val, other, metrics = checks("task")[0], checks("no_task")[0], read_json("task_eval/metrics.json")
assert "val_bleu" in val and "val_bleu" not in other and "val_rouge2" in other, (val, other)
assert val["val_gen_len"] <= 5 and "bleu" in metrics and "rouge1" not in metrics and metrics["gen_len"] <= 5, metrics
generation = read_json("task/model/generation_config.json")
assert dict(read_json("model/generation_config.json"), num_beams=1, max_length=6) == generation, generation
assert read_json("no_task/model/generation_config.json") == read_json("model/generation_config.json")
P
kd_alone $task --task translation_b_to_a --output_dir refused
expect_error 2 "no task_specific_params for task 'translation_b_to_a'"
