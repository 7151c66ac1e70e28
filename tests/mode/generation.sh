# SPDX-License-Identifier: Apache-2.0
# Where generation settings come from: options over a task's settings over the model's files, of which
# generation_config.json counts alone unless it was made from config.json; settings that contradict each other or that
# are not offered.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
. "$KD_SOURCE_DIR/tests/mode/words.sh"
make_model model '"model_type": "bart", "decoder_layers": 2, "decoder_start_token_id": 0, "forced_eos_token_id": null, "init_std": 0.6,
 "task_specific_params": {"short": {"num_beams": 3, "max_length": 7, "prefix": "stone paper "}, "sampled": {"do_sample": true, "top_k": 0}}'

change() { # DIR FILE JSON: members of DIR/FILE.json, null takes one away; DIR is a copy of model if it is not there
    [ -e "$1" ] || cp -r model "$1"
    python3 - "$1/$2.json" "$3" <<'P'
import json, os, sys
path, changes = sys.argv[1], json.loads(sys.argv[2])
old = json.load(open(path)) if os.path.exists(path) else {}
json.dump({k: v for k, v in {**old, **changes}.items() if v is not None}, open(path, "w"))
P
}

outputs() { # NAME ARGS...: of model, or of the last --model, for three lines, into NAME.txt
    local name=$1
    shift
    head -n 3 data/test.source >three.txt
    kd_do 1 --mode generate --model model --input three.txt --output "$name.txt" --overwrite "$@"
}

alike() { # NAME ARGS... -- ARGS...: the same outputs
    local name=$1
    shift
    local first=()
    while [ "$1" != -- ]; do
        first+=("$1")
        shift
    done
    shift
    outputs "$name" ${first[@]+"${first[@]}"}
    outputs "$name.as" "$@"
    expect_same "$name.txt" "$name.as.txt"
}

unlike() { # NAME NAME: the outputs tell one from the other
    ! cmp -s "$1.txt" "$2.txt" || fail "the outputs $1 and $2 are alike"
}

echo "tasks"
outputs default
alike task --task short -- --num_beams 3 --max_length 7 --prefix "stone paper "
unlike task default
alike over --task short --max_length 9 --prefix "" -- --num_beams 3 --max_length 9
unlike over task
alike sampled --task sampled -- --do_sample --top_k 0
refuses 2 "no task_specific_params for task 'long'" --mode generate --model model --input three.txt --task long --output x.txt
change silent config '{"task_specific_params": null}'
refuses 2 "task 'short'" --mode generate --model silent --input three.txt --task short --output x.txt
for mode in "eval --model" "pseudo-label --write_text --split test --teacher"; do
    kd_do 2 --mode $mode model --corpus $corpus --task short --output_dir "task_${mode%% *}"
    kd_do 1 --mode $mode model --corpus $corpus --num_beams 3 --max_length 7 --output_dir "plain_${mode%% *}"
done
expect_same task_eval/generations.txt plain_eval/generations.txt
expect_same task_pseudo-label/test.target plain_pseudo-label/test.target
kd_do 2 --mode tokenize --data_dir data --tokenizer model --task short --output_dir task_corpus
kd_do 1 --mode tokenize --data_dir data --tokenizer tok --prefix "stone paper " --output_dir prefix_corpus
same_rows task_corpus/corpus.h5 prefix_corpus/corpus.h5 /train /test
refuses 2 "task 'long'" --mode tokenize --data_dir data --tokenizer model --task long --output_dir x
refuses 2 "task 'short'" --mode tokenize --data_dir data --tokenizer tok --task short --output_dir x

echo "files"
alike apart --model model -- # the model's generation_config.json says nothing
change apart config '{"num_beams": 3, "max_length": 7}'
alike apart --model apart -- # it counts alone
change far generation_config '{"max_length": 129}'
alike far --max_length 128 -- --model far
expect_text err.txt "max_length 129 of the model's settings is beyond its 128 positions"
change made config '{"num_beams": 3, "max_length": 7}'
change made generation_config '{"_from_model_config": true, "max_length": 5}'
change class generation_config '{"forced_eos_token_id": 2}' # as the class of its config.json has it
alike made --model made -- --model class --num_beams 3 --max_length 7 # but not where it was made from config.json
change plain config '{"num_beams": 1, "max_length": 20, "do_sample": false, "length_penalty": 1}'
change plain generation_config '{"_from_model_config": true, "max_length": 7, "num_beams": 3}'
alike plain --model plain -- --num_beams 3 --max_length 7 # with no more than the defaults
change old config '{"num_beams": 3, "max_length": 7, "encoder_repetition_penalty": 2.5}'
rm old/generation_config.json
alike old --model old -- --model class --num_beams 3 --max_length 7 --encoder_repetition_penalty 2.5
for name in made plain old; do
    kd_do 1 --mode make-student --teacher $name --output_dir ${name}_student
    alike $name.student --model ${name}_student -- --model $name
done
unlike old made

echo "several sequences"
kd_do 1 --mode generate --model model --input three.txt --num_beams 3 --num_return_sequences 3 --output beams.txt
outputs best --num_beams 3
sed -n '1~3p' beams.txt >first.txt
expect_same first.txt best.txt
change many generation_config '{"num_beams": 3, "num_return_sequences": 3}'
kd_do 1 --mode eval --model many --corpus $corpus --output_dir many_eval
expect_text err.txt "asks for 3 sequences a source; eval takes the best one"
kd_do 1 --mode eval --model model --num_beams 3 --corpus $corpus --output_dir one_eval
expect_same many_eval/generations.txt one_eval/generations.txt
refuses 2 "num_return_sequences must be 1 for eval" --mode eval --model model --corpus $corpus --num_beams 3 --num_return_sequences 2 --output_dir x

echo "contradictions"
no() { # TEXT ARGS...
    local text=$1
    shift
    refuses 2 "$text" --mode generate --model model --input three.txt --output x.txt "$@"
}
no "sampling takes num_beams 1" --do_sample --num_beams 2
no "sampling takes num_beams 1" --do_sample --num_beams 4 --num_beam_groups 2 --diversity_penalty 1
no "num_beam_groups 3 must divide num_beams 4" --num_beams 4 --num_beam_groups 3 --diversity_penalty 1
no "diversity_penalty" --num_beams 4 --num_beam_groups 2
no "repetition_penalty" --repetition_penalty 0
no "encoder_repetition_penalty" --encoder_repetition_penalty -1
no "needs num_beams of at least that" --num_return_sequences 2
no "num_return_sequences 3 must be at most num_beams 2" --num_beams 2 --num_return_sequences 3
no "top_p" --do_sample --top_p 0
no "temperature" --do_sample --temperature 0
no "max_length" --max_length 1
no "max_length 129 is beyond the model's 128 positions" --max_length 129

echo "files that contradict themselves, or ask for what is not there"
wrong() { # TEXT JSON
    rm -rf wrong
    change wrong generation_config "$2"
    refuses 3 "$1" --mode generate --model wrong --input three.txt --output x.txt
}
wrong "bad_words_ids" '{"bad_words_ids": [[3, 4], []]}'
wrong "'bad_words_ids' must be a list" '{"bad_words_ids": 3}'
wrong "bad_words_ids 40 is not below the model's vocabulary of 40" '{"bad_words_ids": [[3, 40]]}'
wrong "suppressed token 77 is not below" '{"suppress_tokens": [77]}'
wrong "begin_suppress_tokens 77 is not below" '{"begin_suppress_tokens": [77]}'
wrong "forced_bos_token_id 77 is not below" '{"forced_bos_token_id": 77}'
wrong "'early_stopping' must be" '{"early_stopping": "soon"}'
wrong "'penalty_alpha' is not supported" '{"penalty_alpha": 0.6, "top_k": 4}'
for setting in '"guidance_scale": 1.5' '"constraints": [1]' '"force_words_ids": [[3]]' '"sequence_bias": [[[3], 1.0]]' \
    '"watermarking_config": {"greenlist_ratio": 0.25}' '"prompt_lookup_num_tokens": 3' '"dola_layers": "low"' \
    '"stop_strings": ["a"]' '"forced_decoder_ids": [[1, 3]]' '"max_time": 2.0' '"token_healing": true' \
    '"assistant_early_exit": 2'; do
    name=${setting#\"}
    wrong "'${name%%\"*}' is not supported" "{$setting}"
done
change idle generation_config '{"cache_implementation": "static", "num_assistant_tokens": 5, "assistant_confidence_threshold": 0.4,
    "use_cache": false, "max_matching_ngram_size": 2, "low_memory": true, "guidance_scale": 1.0, "dola_layers": null}'
alike idle --model idle -- # settings that change nothing
expect_no_text err.txt "passed over"
change odd generation_config '{"num_beems": 4}'
outputs odd --model odd
expect_text err.txt "'num_beems' is not a generation setting and is passed over"
