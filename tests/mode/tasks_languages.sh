# SPDX-License-Identifier: Apache-2.0
# Tasks that a model's config.json knows and languages that its tokenizer has codes for, in every mode that they concern.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
. "$KD_SOURCE_DIR/tests/mode/words.sh"

echo "a task of the model's config has settings, and a prefix for texts that are not yet ids"
make_model tasks '"model_type": "bart", "decoder_layers": 2, "decoder_start_token_id": 0, "forced_eos_token_id": null, "init_std": 0.6,
    "task_specific_params": {"short": {"prefix": "wind stone ", "num_beams": 3, "max_length": 8}}'
short=(--num_beams 3 --max_length 8)
from=(--mode tokenize --data_dir data --tokenizer tasks --max_source_length 100 --max_target_length 20)
for way in task prefix; do
    value=short
    [ $way = task ] || value="wind stone "
    kd_do 2 "${from[@]}" --$way "$value" --output_dir by_$way
done
same_rows by_task/corpus.h5 by_prefix/corpus.h5 /train
kd_do 1 --mode generate --model tasks --input data/train.source --prefix "wind stone " "${short[@]}" --output by_prefix.txt
for mode in generate pseudo-label eval; do
    case $mode in
    generate) from=(--model tasks --input data/train.source) ;;
    pseudo-label) from=(--teacher tasks --corpus by_task/corpus.h5 --write_text) ;;
    eval) from=(--model tasks --corpus by_task/corpus.h5 --split train) ;;
    esac
    kd_do 1 --mode $mode --task short "${from[@]}" --output_dir task_$mode
    expect_same by_prefix.txt task_$mode/$([ $mode = pseudo-label ] && echo train.target || echo generations.txt)
done
kd_do 1 --mode generate --model tasks --input data/train.source --task short --prefix "" --output plain.txt
! cmp -s plain.txt by_prefix.txt || fail "the prefix does not matter"
refuses 2 "no task_specific_params for task 'long'" --mode generate --model tasks --input data/train.source --task long --output x.txt
refuses 2 "no task_specific_params for task 'long'" --mode tokenize --data_dir data --tokenizer tasks --task long --output_dir x
train=(--mode sft --model tasks --corpus by_task/corpus.h5 --max_steps 1 --do_predict --n_test 9)
kd_do 1 "${train[@]}" --task short --output_dir sft_task
kd_do 1 "${train[@]}" --eval_beams 3 --eval_max_gen_length 8 --output_dir sft_short
kd_do 1 "${train[@]}" --output_dir sft_plain
for run in task short plain; do
    grep -o '"test_rouge.*"test_seconds' sft_$run/metrics.jsonl >$run.txt || fail "no test in sft_$run"
done
expect_same task.txt short.txt
! cmp -s task.txt plain.txt || fail "validation does not know the task"
refuses 2 "no task_specific_params for task 'long'" "${train[@]}" --task long --output_dir x

echo "outputs in a language: mBART's decoder starts with it, mBART-50's is forced to"
printf 'green blue\n\nriver' >short.txt
make_language_model() { # NAME KEY CODES: outputs of NAME.told begin with fr_XX, the eighth of CODES before the last id
    kd_do 1 --mode init-model --from mbart.json --tokenizer "$KD_SOURCE_DIR/tests/golden/tokenizers/$1" --output_dir $1
    cp -r $1 $1.told
    python3 - $1.told "$2" $3 <<'P'
import json, sys
folder, key, codes = sys.argv[1:]
with open(folder + "/config.json") as c, open(folder + "/generation_config.json") as g:
    told = {**json.load(g), key: json.load(c)["vocab_size"] - 1 - int(codes) + 7}
with open(folder + "/generation_config.json", "w") as f:
    json.dump(told, f)
P
}
cat >mbart.json <<'J'
{"model_type": "mbart", "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
 "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64, "decoder_start_token_id": 2, "init_std": 0.6}
J
make_language_model mbart decoder_start_token_id 25
make_language_model mbart50 forced_bos_token_id 52
for kind in mbart mbart50; do
    from=(--mode generate --input short.txt --max_length 12)
    kd_do 1 "${from[@]}" --model $kind.told --output $kind.told.txt
    kd_do 2 "${from[@]}" --model $kind --tgt_lang fr_XX --output $kind.fr.txt
    kd_do 1 "${from[@]}" --model $kind --tgt_lang de_DE --output $kind.de.txt
    kd_do 1 "${from[@]}" --model $kind --tgt_lang fr_XX --src_lang cs_CZ --output $kind.cs_fr.txt
    expect_same $kind.told.txt $kind.fr.txt
    for other in de cs_fr; do
        ! cmp -s $kind.fr.txt $kind.$other.txt || fail "the languages of $kind do not matter"
    done
done
refuses 3 "no language code xx_YY" --mode generate --model mbart --input short.txt --tgt_lang xx_YY --output x.txt
