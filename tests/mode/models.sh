# SPDX-License-Identifier: Apache-2.0
# Models from nothing and from a teacher: init-model takes from the tokenizer what the config leaves out and refuses
# what contradicts it; make-student copies the layers it says.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
. "$KD_SOURCE_DIR/tests/support/tiny.sh"

config_with() { # NAME JSON: the tiny config with members changed
    python3 -c "
import json, sys
config = json.load(open('$tiny/config.json'))
config.update(json.loads(sys.argv[1]))
json.dump(config, open('$1.json', 'w'))" "$2"
}

echo "init-model"
kd_do 2 --mode init-model --from "$tiny/config.json" --tokenizer tok --output_dir model2
expect_same model/model.safetensors model2/model.safetensors
expect_same model/config.json model2/config.json
expect_same tok/spiece.model model/spiece.model
kd_do 1 --mode init-model --from model --tokenizer tok --seed 43 --output_dir other
config_with padded '{"vocab_size": 128, "eos_token_id": 1}'
kd_do 1 --mode init-model --from padded.json --tokenizer tok --output_dir padded
check "the model made from nothing" <<'P'
config = read_json("model/config.json")
assert [config[k] for k in ("vocab_size", "pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id")] \
    == [120, 0, 1, None, 1], config
assert config["init_std"] == 0.1 and config["model_type"] == "bart"
# what the given config says of generation is in the other file
assert not {"num_beams", "max_length", "forced_eos_token_id"} & set(config), config
generation = {"eos_token_id": 1, "pad_token_id": 0, "decoder_start_token_id": 1, "forced_eos_token_id": 1, "num_beams": 2,
              "max_length": 12}
for name in ("model", "other"):
    assert read_json(name + "/generation_config.json") == generation, name
t, other = tensors("model"), tensors("other")
embed = struct.unpack("<1920f", t["model.shared.weight"])
assert not any(embed[:16])  # the row of padding
rest = embed[16:]
mean, var = sum(rest) / len(rest), sum(x * x for x in rest) / len(rest)
assert abs(mean) < 0.01 and abs(var ** 0.5 - 0.1) < 0.01, (mean, var)
for name, value in t.items():
    zero = name.endswith("bias")
    one = "norm" in name and not zero
    if zero or one:
        assert set(struct.unpack("<%df" % (len(value) // 4), value)) == {float(one)}, name
    else:
        assert value != other[name], name
assert len(tensors("padded")["model.shared.weight"]) == 128 * 16 * 4
P

refuses() { # CODE TEXT OPTIONS...
    local code=$1 text=$2
    shift 2
    kd_ranks 2 "$@" --output_dir refused
    expect_error "$code" "$text"
    [ ! -e refused ] || [ -z "$(ls refused)" ] || fail "a refused run left $(ls refused)"
}
config_with pad '{"pad_token_id": 1}'
refuses 3 "pad_token_id is 1, but the tokenizer's is 0" --mode init-model --from pad.json --tokenizer tok
config_with vocab '{"vocab_size": 119}'
refuses 3 "vocab_size is 119, but the tokenizer has 120" --mode init-model --from vocab.json --tokenizer tok
refuses 3 "no vocab_size" --mode init-model --from "$tiny/config.json"
refuses 3 "nowhere.json" --mode init-model --from nowhere.json
refuses 3 "nowhere" --mode init-model --from "$tiny/config.json" --tokenizer nowhere
kd_alone --mode init-model --from "$tiny/config.json" --tokenizer tok --output_dir model
expect_error 4 "model already holds config.json"

echo "make-student"
config_with deep '{"encoder_layers": 6, "decoder_layers": 12}'
kd_do 1 --mode init-model --from deep.json --tokenizer tok --output_dir deep
student() { # NAME OPTIONS...
    local name=$1
    shift
    kd_do 1 --mode make-student --teacher deep "$@" --output_dir "$name"
}
student table --encoder_layers 2 --decoder_layers 3
expect_no_text err.txt "no table"
student spread --decoder_layers 5
expect_text err.txt "decoder: no table for 5 of 12 layers"
student lists --encoder_layers_to_copy 0,1,2,3,4,5,5 --decoder_layers_to_copy "[4, 4, 1]"
kd_do 1 --mode score --model lists --corpus $corpus --split val --output_dir score
kd_do 1 $sft --max_steps 1 --save_dtype bfloat16 --output_dir half
kd_do 2 --mode make-student --teacher half/model --decoder_layers 1 --output_dir half_student
# an old checkpoint, with generation settings in config.json alone
kd_do 1 --mode make-student --teacher model --output_dir old
rm old/generation_config.json
python3 - <<'P'
import json
config = json.load(open("old/config.json"))
config.update(num_beams=3, max_length=9, length_penalty=2.0, early_stopping=True, no_repeat_ngram_size=2)
json.dump(config, open("old/config.json", "w"))
P
kd_do 1 --mode make-student --teacher old --output_dir old_student
kd_do 1 $sft --model old --max_steps 1 --output_dir old_run
for name in old old_student; do
    kd_do 1 --mode generate --model $name --input "$tiny/test.source" --output $name.txt
done
expect_same old.txt old_student.txt
check "the students" <<'P'
teacher = tensors("deep")


def copied(name, enc, dec):
    config, t = read_json(name + "/config.json"), tensors(name)
    assert (config["encoder_layers"], config["decoder_layers"]) == (len(enc), len(dec)), config
    meta = config["init_metadata"]
    assert meta["copied_encoder_layers"] == enc and meta["copied_decoder_layers"] == dec, meta
    assert meta["teacher_type"] == "bart", meta
    seen = set()
    for tensor, value in t.items():
        m = re.match(r"(.*)\.(encoder|decoder)\.layers\.(\d+)\.(.*)", tensor)
        source = tensor
        if m:
            layer = (enc if m[2] == "encoder" else dec)[int(m[3])]
            source = "%s.%s.layers.%d.%s" % (m[1], m[2], layer, m[4])
            seen.add((m[2], int(m[3])))
        assert value == teacher[source], (tensor, source)
    assert len(seen) == len(enc) + len(dec)
    assert {x for x in teacher if ".layers." not in x} <= set(t)


copied("table", [0, 5], [0, 6, 11])
copied("spread", [0, 1, 2, 3, 4, 5], [0, 3, 6, 8, 11])
copied("lists", [0, 1, 2, 3, 4, 5, 5], [4, 4, 1])
config, generation = read_json("old_student/config.json"), read_json("old_student/generation_config.json")
moved = {"num_beams": 3, "max_length": 9, "length_penalty": 2.0, "early_stopping": True, "no_repeat_ngram_size": 2}
assert not set(moved) & set(config) and moved.items() <= generation.items(), (config, generation)
assert read_json("old_run/model/generation_config.json") == generation
half = tensors("half_student")
assert half["model.shared.weight"] == tensors("half/model")["model.shared.weight"] and len(half["model.shared.weight"]) == 3840
assert read_json("table/generation_config.json") == read_json("deep/generation_config.json")
P
expect_same table/spiece.model tok/spiece.model

refuses 2 "decoder_layers is 13, but the teacher has 12" --mode make-student --teacher deep --decoder_layers 13
refuses 2 "layer 12" --mode make-student --teacher deep --decoder_layers_to_copy 0,12
refuses 2 "decoder_layers is 3" --mode make-student --teacher deep --decoder_layers 3 --decoder_layers_to_copy 0,1
refuses 2 "encoder_layers" --mode make-student --teacher deep --encoder_layers 0
refuses 3 "nowhere" --mode make-student --teacher nowhere

echo "a save that fails leaves nothing of it"
KD_FAULT=model.save:0 kd_ranks 2 --mode make-student --teacher model --output_dir failed
if [ "$kd_code" != 0 ]; then # a build with fault sites
    expect_error 70 "fault at model.save"
    expect_no_path failed.part failed/config.json
    KD_FAULT=model.save:0 kd_alone --mode make-student --teacher deep --output_dir other --overwrite
    expect_error 70 "fault at model.save"
    expect_no_path other.part
    kd_do 1 --mode score --model other --corpus $corpus --split val --output_dir other_score # what was there is whole
fi
