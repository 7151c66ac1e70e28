#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The modes train-tokenizer and tokenize: files written, the same corpus on every number of ranks, and refusals.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1

train() { # NP OUTPUT_DIR ARGS...
    local np=$1 dir=$2
    shift 2
    kd_do "$np" --mode train-tokenizer --input data/train.source,data/train.target --output_dir "$dir" "$@"
}

tokenize() { # NP OUTPUT_DIR ARGS...
    local np=$1 dir=$2
    shift 2
    kd_do "$np" --mode tokenize --data_dir data --tokenizer tok --output_dir "$dir" "$@"
}

refused() { # NP TEXT...: tokenizing bad/ is exit 3, leaves nothing, and says TEXT
    local np=$1
    shift
    if [ "$np" = 1 ]; then
        set -- kd_alone "$@"
    else
        set -- "kd_ranks $np" "$@"
    fi
    $1 --mode tokenize --data_dir bad --tokenizer tok --output_dir refused
    shift
    expect_error 3 "$@"
    expect_no_path refused/corpus.h5 refused/corpus.h5.part
}

bad() { # a fresh bad/ with SOURCE and TARGET bytes (printf escapes)
    rm -rf bad
    mkdir bad
    printf "$1" >bad/train.source
    printf "$2" >bad/train.target
}

mkdir data
for i in $(seq 1 211); do
    echo "Line $i tells that the quick brown fox number $((i * 7919 % 1000)) jumps over $((i % 13)) lazy dogs é中."
done >data/train.source
sed 's/.*number \([0-9]*\).*/fox \1/' data/train.source >data/train.target
head -5 data/train.source | sed 's/$/\r/' >data/test.source # carriage returns, and no newline at the end
head -5 data/train.target | head -c -1 >data/test.target

train 2 tok --vocab_size 120 --character_coverage 1
expect_path tok/spiece.model tok/tokenizer_config.json tok/special_tokens_map.json
train 1 tok2 --vocab_size 120 --character_coverage 1
expect_same tok/spiece.model tok2/spiece.model
train 1 bpe --vocab_size 120 --type bpe --input_sentences 150
expect_path bpe/spiece.model
kd_alone --mode train-tokenizer --input data/train.source --vocab_size 99999 --output_dir big
expect_error 3 "too high"
kd_alone --mode train-tokenizer --input data/train.source --input_sentences 50 --output_dir small
expect_error 2 input_sentences
kd_alone --mode train-tokenizer --input missing.txt --output_dir none
expect_error 3 missing.txt

tokenize 1 one
expect_text err.txt "train: 211 examples"
expect_text err.txt "test: 5 examples"
expect_text err.txt "unknown 0.0000%"
expect_text err.txt "stripped a carriage return off 5 line ends"
expect_text err.txt "truncated 0.00% of sources"
tokenize 2 two
tokenize 3 three
if command -v h5dump >/dev/null; then
    for np in one two three; do
        h5dump -g /train -g /test $np/corpus.h5 | tail -n +2 >$np.txt
    done
    expect_same one.txt two.txt
    expect_same one.txt three.txt
    h5dump -d /test/source_text/offsets -y -w 60 one/corpus.h5 >offsets.txt
    expect_text offsets.txt "0, $(head -1 data/train.source | tr -d '\n' | wc -c)," # without its \r
fi
tokenize 1 short --max_source_length 4 --max_target_length 3 --prefix "summarize: "
expect_text err.txt "844 source, 633 target), truncated 100.00% of sources and 100.00% of targets"
kd_alone --mode tokenize --data_dir data --tokenizer tok --output_dir lang --src_lang en_XX
expect_error 3 en_XX

bad 'a\nb\n' 'x\ny\nz\n'
refused 1 "train.source has 2 lines" "train.target has 3"
bad 'a\n\nc\nd\n' 'x\ny\nz\nw\n'
refused 1 train.source:2: empty
bad 'a\nb\nc\nd\n' 'x\ny\nz\n  \n'
refused 2 train.target:4: empty
bad 'a\nb\nc\nd\n' 'x\ny\n\303\050\nw\n'
refused 1 train.target:3: UTF-8
bad '' ''
refused 1 empty
rm bad/train.target
refused 2 train.target missing
rm bad/train.source
refused 1 "no split"
bad '\357\273\277a\nb' 'x\ny\n'
kd_do 2 --mode tokenize --data_dir bad --tokenizer tok --output_dir mark
expect_text err.txt "byte order mark"
expect_text err.txt "train: 2 examples"
