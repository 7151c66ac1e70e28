# SPDX-License-Identifier: Apache-2.0
# Families of models beside each other: new ones from little more than a name and a tokenizer, students of deep
# teachers, and teachers of another width, which teach by logits alone.
. "$KD_SOURCE_DIR/tests/mode/family_corpus.sh"

echo "new models"
bart='"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 32, "max_position_embeddings": 40'
t5='"d_model": 16, "d_kv": 4, "num_layers": 2, "num_heads": 2, "d_ff": 24'
new() { # NAME MODEL_TYPE MEMBERS [TOKENIZER]
    echo "{\"model_type\": \"$2\", $3}" >"$1.json"
    kd_do 1 --mode init-model --from "$1.json" --tokenizer "${4:-tok}" --output_dir "$1"
}
for type in bart mbart pegasus marian fsmt; do
    new $type $type "$bart"
done
for type in t5 mt5; do
    new $type $type "$t5"
done
for type in bart mbart pegasus marian fsmt t5 mt5; do
    kd_do 1 --mode score --model $type --corpus $corpus --output_dir $type.score
done
check "what the tokenizer gave" <<'P'
for kind in "bart mbart pegasus marian fsmt t5 mt5".split():
    config, generation = (read_json("%s/%s.json" % (kind, n)) for n in ("config", "generation_config"))
    vocab = {k: v for k, v in config.items() if "vocab_size" in k}
    names = {"fsmt": ("src_vocab_size", "tgt_vocab_size"), "marian": ("vocab_size", "decoder_vocab_size")}
    assert vocab == {k: 32 for k in names.get(kind, ("vocab_size",))}, vocab
    start = PAD if kind in STARTS_WITH_PAD else EOS
    for c in (config, generation):
        assert (c["pad_token_id"], c["eos_token_id"], c["decoder_start_token_id"]) == (PAD, EOS, start), (kind, c)
    assert generation.get("forced_eos_token_id") == (None if "t5" in kind else EOS), (kind, generation)
    assert config["architectures"], config
    assert read_json(kind + ".score/metrics.json")["loss"] < 20
P
refuses() { # CODE TEXT OPTIONS...
    local code=$1 text=$2
    shift 2
    kd_ranks 2 "$@" --output_dir refused
    expect_error "$code" "$text"
}
echo "{\"model_type\": \"fsmt\", $bart, \"tgt_vocab_size\": 31}" >short.json
refuses 3 "tgt_vocab_size is 31, but the tokenizer has 32" --mode init-model --from short.json --tokenizer tok
refuses 3 "no src_vocab_size" --mode init-model --from fsmt.json

echo "two vocabularies"
cp -r "$KD_SOURCE_DIR/tests/golden/tokenizers/fsmt_en_de" "$KD_SOURCE_DIR/tests/golden/tokenizers/marian_two" .
python3 - <<'P'
import json
for name in ("fsmt_en_de/vocab-tgt.json", "marian_two/target_vocab.json"):
    with open(name) as f:
        vocab = json.load(f)
    vocab["zzzzz</w>"] = len(vocab)  # so that the sides differ in size
    with open(name, "w") as f:
        json.dump(vocab, f)
P
new two_fsmt fsmt "$bart" fsmt_en_de
new two_marian marian "$bart, \"share_encoder_decoder_embeddings\": false, \"tie_word_embeddings\": false" marian_two
for type in two_fsmt two_marian; do
    kd_do 1 --mode tokenize --data_dir data --tokenizer $type --max_source_length 30 --max_target_length 30 --output_dir $type.corpus
    kd_do 2 --mode score --model $type --corpus $type.corpus/corpus.h5 --output_dir $type.score
    kd_do 2 --mode sft --model $type --corpus $type.corpus/corpus.h5 --max_steps 2 --threads 1 --eval_max_gen_length 8 --output_dir $type.sft
done
check "sizes of both sides" <<'P'
marian, fsmt = (read_json("two_%s/config.json" % n) for n in ("marian", "fsmt"))
assert (marian["vocab_size"], marian["decoder_vocab_size"]) == (293, 294), marian
assert (fsmt["src_vocab_size"], fsmt["tgt_vocab_size"]) == (300, 301), fsmt
P

echo "layers by depth"
new deep t5 '"d_model": 8, "d_kv": 4, "num_layers": 24, "num_decoder_layers": 16, "num_heads": 1, "d_ff": 8'
kd_do 1 --mode make-student --teacher deep --encoder_layers 6 --decoder_layers 4 --output_dir shallow
expect_text err.txt "encoder: no table for 6 of 24 layers"
new deep6 marian "$(echo "$bart" | sed 's/_layers": [12]/_layers": 6/g')"
kd_do 1 --mode make-student --teacher deep6 --decoder_layers 3 --output_dir shallow6
check "the tables" <<'P'
meta = read_json("shallow/config.json")["init_metadata"]
assert meta["copied_encoder_layers"] == [0, 5, 9, 14, 18, 23] and meta["copied_decoder_layers"] == [0, 5, 10, 15], meta
meta = read_json("shallow6/config.json")["init_metadata"]
assert meta["copied_encoder_layers"] == list(range(6)) and meta["copied_decoder_layers"] == [0, 2, 5], meta
P

echo "a teacher of another width"
new small t5 '"d_model": 12, "d_kv": 5, "num_layers": 1, "num_heads": 3, "d_ff": 20'
kd="--mode kd --teacher t5 --corpus $corpus --train_batch_size 8 --learning_rate 3e-3 --logging_steps 1 --val_metric loss
    --save_steps -1 --threads 1 --max_steps 3"
for np in 1 2; do
    kd_do $np $kd --model small --output_dir kd$np
    kd_do $np $kd --model small --compat seq2seq --output_dir compat$np
done
kd_do 2 $kd --model small --compat seq2seq --freeze_encoder --train_batch_size 1 --output_dir frozen
check "distillation across widths" <<'P'
for name in ("kd", "compat"):
    assert_same(steps(name + "1"), steps(name + "2"), 2e-6)
    assert all(x["ce"] > 0 and math.isfinite(x["loss"]) for x in steps(name + "1"))
    assert read_json(name + "1/model/config.json")["d_model"] == 12
P
echo "mBART without a start: outputs begin with what targets end in"
new noisy mbart "$bart, \"init_std\": 1"
cp -r noisy startless
python3 - <<'P'
import json
for name, other in (("config", {}), ("generation_config", {"bos_token_id": 5})):
    with open("noisy/%s.json" % name) as f:
        config = json.load(f)
    del config["decoder_start_token_id"]
    with open("startless/%s.json" % name, "w") as f:
        json.dump({**config, **other}, f)
P
kd_do 2 --mode sft --model startless --corpus $corpus --max_steps 1 --learning_rate 0 --threads 1 --eval_max_gen_length 12 --output_dir started
expect_text err.txt "outputs will begin with id 1, which all targets end in"
kd_do 1 --mode eval --model started/model --corpus $corpus --split val --max_length 12 --output_dir started_eval
check "what is saved, and what validation did" <<'P'
val, metrics = checks("started")[-1], read_json("started_eval/metrics.json")
assert val["val_rouge1"] == metrics["rouge1"] > 0 and val["val_gen_len"] == metrics["gen_len"], (val, metrics)
for name in ("config", "generation_config"):
    assert "decoder_start_token_id" not in read_json("startless/%s.json" % name)
    assert read_json("started/model/%s.json" % name)["decoder_start_token_id"] == EOS
P

echo "in the reference's arithmetic the padding id that T5's decoders begin with is not distilled"
for length in 1 2; do
    kd_do 1 --mode tokenize --data_dir data --tokenizer tok --max_target_length $length --output_dir corpus_$length
done
for run in 1:none 2:none 1:seq2seq 2:seq2seq; do
    kd_do 1 $kd --model small --corpus corpus_${run%:*}/corpus.h5 --compat ${run#*:} --dropout 0 --shuffle false \
        --train_batch_size 24 --max_steps 1 --n_val 0 --output_dir start_${run%:*}_${run#*:}
done
check "the rows that distillation sees" <<'P'
one, two, old_one, old_two = (steps("start_" + n)[0]["ce"] for n in ("1_none", "2_none", "1_seq2seq", "2_seq2seq"))
assert old_one == 0 and close(old_two, 2 * two - one, 1e-5), (one, two, old_one, old_two)
assert abs(old_two - two) > 1e-3 * two
P

refuses 3 "hidden states differ in width (student 12, teacher 16)" $kd --model small --alpha_hid 1
refuses 3 "decoders of mbart begin with the last label, those of t5 do not" $kd --model mbart
refuses 3 "decoder_start_token_id is 1, the teacher's 0" $kd --model bart
echo "{\"model_type\": \"fsmt\", $bart, \"src_vocab_size\": 40, \"tgt_vocab_size\": 32}" >wide.json
kd_do 1 --mode init-model --from wide.json --tokenizer tok --output_dir wide
refuses 3 "the student has 40 source vocabulary entries, the teacher 32" $kd --teacher fsmt --model wide
echo "{\"model_type\": \"fsmt\", $bart, \"src_vocab_size\": 8, \"tgt_vocab_size\": 32}" >narrow.json
kd_do 1 --mode init-model --from narrow.json --output_dir narrow
refuses 3 "line 1 has token id" --mode generate --model narrow --tokenizer tok --input data/test.source
refuses 3 "source token id" --mode score --model narrow --corpus $corpus
sed 's/"src_vocab_size": 8, "tgt_vocab_size": 32/"src_vocab_size": 32, "tgt_vocab_size": 8/' narrow.json >narrow_target.json
kd_do 1 --mode init-model --from narrow_target.json --output_dir narrow_target
refuses 3 "target token id" --mode score --model narrow_target --corpus $corpus
python3 -c '
import json
config = json.load(open("t5/config.json"))
json.dump({**config, "decoder_start_token_id": None}, open("t5/config.json", "w"))'
refuses 3 "no decoder_start_token_id" --mode score --model t5 --corpus $corpus
