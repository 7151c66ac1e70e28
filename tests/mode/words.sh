# SPDX-License-Identifier: Apache-2.0
# A corpus of which everything is known, in the work directory; source it after lib.sh.
#   data/{train,test}.{source,target}  tok/  corpus/corpus.h5
# 48 sources of 6 to 34 words of a few, and targets that are their first three words.
export OMP_NUM_THREADS=1
mkdir data
awk 'BEGIN {
    n = split("teacher student layer copies running quickly over under bridge river stone paper green blue light wind", w, " ");
    for (i = 0; i < 48; i++) {
        s = w[i % n + 1] " " w[i * 7 % n + 1] " " w[i * 5 % 11 + 1];
        t = s;
        for (k = 0; k < 3 + i * 13 % 29; k++) s = s " " w[(i * 3 + k * 5) % n + 1];
        print s > "data/train.source"; print t > "data/train.target";
    }
}'
cp data/train.source data/test.source
cp data/train.target data/test.target
corpus=corpus/corpus.h5
kd_do 1 --mode train-tokenizer --input data/train.source,data/train.target --vocab_size 40 --output_dir tok
kd_do 2 --mode tokenize --data_dir data --tokenizer tok --max_source_length 100 --max_target_length 20 --output_dir corpus

make_model() { # NAME KEYS: a tiny model with the given JSON members
    cat >"$1.json" <<J
{"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
 "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 128, $2}
J
    kd_do 1 --mode init-model --from "$1.json" --tokenizer tok --output_dir "$1"
}

same_rows() { # A.h5 B.h5 OBJECT...: equal content (where h5diff is there to tell)
    local a=$1 b=$2
    shift 2
    command -v h5diff >/dev/null || return 0
    for object in "$@"; do
        h5diff "$a" "$b" "$object" "$object" >diff.txt || fail "$object of $a and $b differ: $(head -n 5 diff.txt)"
    done
}

refuses() { # CODE TEXT ARGS...: the exit code, one line that holds TEXT, and nothing is left in x
    local code=$1 text=$2
    shift 2
    kd_alone "$@"
    expect_error "$code" "$text"
    [ ! -e x ] || [ -z "$(ls x)" ] || fail "a refused run left $(ls x)"
}
