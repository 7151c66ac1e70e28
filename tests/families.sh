#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The README's table of model families from what the tests say when they run:  tests/families.sh BUILD_DIR
# Each test prints "passed: WHAT FIXTURE" behind what it has shown; a cell that nothing has said is "no".  KDHPC_TEST_PYTHON
# names a Python with transformers, without which nothing is said of write-back.
set -euo pipefail
build=${1:?usage: tests/families.sh BUILD_DIR}
out=$(mktemp)
trap 'rm -f "$out"' EXIT

ctest --test-dir "$build" -V -R '^(test_golden|decode_golden|family_.*)$' >"$out" 2>&1 || echo "some tests failed" >&2

fixtures=(
    "bart|BART|bart bart_uneven"
    "mbart|mBART, mBART-50|mbart"
    "pegasus|Pegasus|pegasus"
    "marian|Marian, one or two tables|marian marian_two"
    "fsmt|FSMT|fsmt"
    "t5|T5, T5 v1.1|t5 t5_gated"
    "mt5|mT5|mt5"
)
columns=(read logits loss gradient greedy beam write-back)

header="| \`model_type\` | family |" rule="|---|---|"
for c in "${columns[@]}"; do
    header+=" $c |" rule+="---|"
done
printf '%s\n%s\n' "$header" "$rule"
for row in "${fixtures[@]}"; do
    IFS='|' read -r type family names <<<"$row"
    line="| \`$type\` | $family |"
    for c in "${columns[@]}"; do
        cell=yes
        for name in $names; do
            grep -qE "passed: $c $name\$" "$out" || cell=no
        done
        line+=" $cell |"
    done
    echo "$line"
done
