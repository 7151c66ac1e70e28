#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The README's table of model families from what the tests say when they run:  tests/families.sh BUILD_DIR
# Each test prints "passed: WHAT FIXTURE" behind what it has shown; a cell that nothing has said is "no".  KDHPC_TEST_PYTHON
# names a Python with transformers, without which nothing is said of write-back.
set -euo pipefail
build=${1:?usage: tests/families.sh BUILD_DIR}
out=$(mktemp)
trap 'rm -f "$out"' EXIT

ctest --test-dir "$build" -V -R '^(test_golden|decode_golden|test_tokenizer|family_.*)$' >"$out" 2>&1 || echo "some tests failed" >&2

fixtures=( # model_type|family|models|tokenizers
    "bart|BART|bart bart_uneven|bart bart_json"
    "mbart|mBART, mBART-50|mbart|mbart mbart50"
    "pegasus|Pegasus|pegasus|pegasus"
    "marian|Marian, one or two tables|marian marian_two|marian_codes marian_two"
    "fsmt|FSMT|fsmt|fsmt_de_en fsmt_en_de fsmt_fr_fr fsmt_ru_en_lower"
    "t5|T5, T5 v1.1|t5 t5_gated|t5 t5_bpe t5_json"
    "mt5|mT5|mt5|t5"
)
columns=(read logits loss gradient greedy beam write-back tokenizer)

header="| \`model_type\` | family |" rule="|---|---|"
for c in "${columns[@]}"; do
    header+=" $c |" rule+="---|"
done
printf '%s\n%s\n' "$header" "$rule"
for row in "${fixtures[@]}"; do
    IFS='|' read -r type family models tokenizers <<<"$row"
    line="| \`$type\` | $family |"
    for c in "${columns[@]}"; do
        cell=yes
        [ "$c" = tokenizer ] && names=$tokenizers || names=$models
        for name in $names; do
            grep -qE "passed: $c $name\$" "$out" || cell=no
        done
        line+=" $cell |"
    done
    echo "$line"
done
