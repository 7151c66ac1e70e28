# SPDX-License-Identifier: Apache-2.0
# The mode convert on a tiny model and what inspect says of models: number formats, shards, files that come along, what
# is refused and why.  (readback_families.sh asks transformers what it thinks of the results.)
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
. "$KD_SOURCE_DIR/tests/support/tiny.sh"
golden=$KD_SOURCE_DIR/tests/golden

says() { # PATH TEXT...: valid, and the report holds each TEXT
    local path=$1
    shift
    kd_do 1 --mode inspect --path "$path"
    for text in "valid" "$@"; do
        expect_text out.txt "$text"
    done
}

convert() { # NAME OPTIONS...: of the tiny model
    local name=$1
    shift
    kd_do 1 --mode convert --model model --output_dir "$name" "$@"
}

echo "formats and shards"
echo "a card" >model/README.md
echo "not weights" >model/training_args.bin
mkdir model/onnx
mkfifo model/pipe
convert same
expect_same model/model.safetensors same/model.safetensors
expect_same model/config.json same/config.json
expect_same model/generation_config.json same/generation_config.json
expect_same model/spiece.model same/spiece.model
expect_path same/README.md
expect_no_path same/training_args.bin same/onnx same/pipe same.part
rm -r model/onnx model/pipe
cp -r model large
python3 - <<'P'
import json, struct
with open("large/model.safetensors", "r+b") as f:
    length, = struct.unpack("<Q", f.read(8))
    at = json.loads(f.read(length))["model.shared.weight"]["data_offsets"][0]
    f.seek(8 + length + at)
    f.write(struct.pack("<ffff", 70000, -65519, -1e38, float("-inf")))
P
convert large_half --model large --save_dtype float16
expect_text err.txt "model.shared.weight: 2 values are beyond the range of float16"
convert large_brain --model large --save_dtype bfloat16
expect_no_text err.txt "beyond the range"
kd_do 3 --mode convert --model model --output_dir half --save_dtype float16 --max_shard_size 0.01MB
convert brain --save_dtype bfloat16 --max_shard_size 4KiB
convert back --model brain --save_dtype float32 --max_shard_size 1000000
kd_do 1 --mode score --model half --corpus $corpus --split val --output_dir half_score
check "formats and shards" <<'P'
import glob
whole = tensors("model")
for name, dtype, limit in (("half", "float16", 10000), ("brain", "bfloat16", 4096)):
    index = read_json(name + "/model.safetensors.index.json")
    files = sorted(set(index["weight_map"].values()))
    n = len(files)
    assert n > 2 and files == ["model-%05d-of-%05d.safetensors" % (i + 1, n) for i in range(n)], files
    assert sorted(glob.glob(name + "/*.safetensors")) == [name + "/" + f for f in files]
    assert set(index["weight_map"]) == set(whole)
    assert index["metadata"]["total_size"] * 2 == sum(map(len, whole.values())), index["metadata"]
    config = read_json(name + "/config.json")
    assert config.get("dtype", config.get("torch_dtype")) == dtype, config
for name, value in tensors("back").items():  # bfloat16 is the upper half of float32, rounded
    a, b = struct.unpack("<%df" % (len(value) // 4), value), struct.unpack("<%df" % (len(value) // 4), whole[name])
    assert all(abs(x - y) <= abs(y) / 256 for x, y in zip(a, b)), name
    assert not any(value[i] or value[i + 1] for i in range(0, len(value), 4)), name
P

echo "in place"
kd_alone --mode convert --model half --output_dir half
expect_error 4 "half already holds"
kd_do 1 --mode convert --model half --output_dir half --overwrite
expect_path half/model.safetensors half/README.md half/spiece.model
expect_no_path half/model.safetensors.index.json half.part
[ "$(ls half/*.safetensors | wc -l)" = 1 ] || fail "half holds $(ls half)"
says half "dtype            float16" "parameters       trainable=" "usable           true" "class=T5Tokenizer" "ids=120" "make-student, sft"

echo "what inspect says"
says "$golden/fsmt" "fsmt" "source_vocab_size" "usable           true" "problem="
says "$golden/t5" "t5" "positions        unlimited"
says "$golden/torchbin/plain.bin" "PyTorch weights" "tensors          15"
mkdir bert
printf '{"model_type": "bert", "hidden_size": 8}' >bert/config.json
cp model/model.safetensors bert
says bert "usable           false" "reason           model_type bert is not one of this program's families" "modes            convert"
kd_do 1 --mode convert --model bert --output_dir bert_out --save_dtype bfloat16
expect_text err.txt "tensors keep their names"
cp -r model deeper
sed -i 's/"encoder_layers": 2/"encoder_layers": 3/' deeper/config.json
kd_alone --mode inspect --path deeper
expect_error 3 "do not match config.json: 16 missing (model.encoder.layers.2.self_attn.q_proj.weight, " "lists them all"
expect_text out.txt '"model.encoder.layers.2.final_layer_norm.bias"' # the last of them
kd_do 1 --mode convert --model deeper --output_dir deeper_out
expect_text err.txt "16 missing"

echo "what is refused"
refused() { # CODE TEXT OPTIONS...
    local code=$1 text=$2
    shift 2
    kd_ranks 2 --mode convert --output_dir refused "$@"
    expect_error "$code" "$text"
    expect_no_path refused.part
    [ ! -e refused ] || [ -z "$(ls refused)" ] || fail "a refused run left $(ls refused)"
}
refused 2 'max_shard_size: "5 sheep" is not a size' --model model --max_shard_size "5 sheep"
refused 2 'max_shard_size: "0GB" is not a size' --model model --max_shard_size 0GB
refused 2 save_dtype --model model --save_dtype int8
refused 3 "nowhere does not exist" --model nowhere
refused 3 "no config.json" --model tok
mkdir bad
cp model/config.json bad
refused 3 "bad has no weights" --model bad
mkfifo bad/pytorch_model.bin
refused 3 "cannot open bad/pytorch_model.bin" --model bad
rm bad/pytorch_model.bin
cp "$golden/torchbin/old.bin" bad/pytorch_model.bin
refused 3 "old format of before 1.6" --model bad
cp "$golden/torchbin/evil.bin" bad/pytorch_model.bin
refused 3 "asks for posix.system" --model bad
head -c 2000 "$golden/torchbin/plain.bin" >bad/pytorch_model.bin
refused 3 "cut short" --model bad
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n' >bad/pytorch_model.bin
refused 3 "Git LFS pointer" --model bad
printf '{"weight_map": {"x": "../model/model.safetensors"}}' >bad/model.safetensors.index.json
refused 3 "not in a file of this directory" --model bad
printf '{"weight_map": {"x": "absent.safetensors"}}' >bad/model.safetensors.index.json
refused 3 "absent.safetensors" --model bad
printf '\002\0\0\0\0\0\0\0{}' >bad/model.safetensors
refused 3 "bad: its weights hold no tensors" --model bad

echo "a conversion that fails leaves what was there"
KD_FAULT=model.convert:0 kd_ranks 2 --mode convert --model model --output_dir same --save_dtype float16 --overwrite
if [ "$kd_code" != 0 ]; then # a build with fault sites
    expect_error 70 "fault at model.convert"
    expect_no_path same.part
    expect_same model/model.safetensors same/model.safetensors
fi
