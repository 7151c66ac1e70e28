#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every deck and job script that the project carries is sound:  decks.sh KDHPC SOURCE_DIR
# A deck's keys are options of some mode, its own mode takes its values, and what --print-config prints is a deck that
# resolves to itself.
set -euo pipefail
kdhpc=$1
cd "$2"
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

fail() {
    echo "decks: $*" >&2
    exit 1
}

check() { # MODE DECK ARGS...
    local mode=$1 deck=$2
    shift 2
    "$kdhpc" --mode "$mode" --config "$deck" --output_dir out "$@" --print-config >"$tmp/1.yaml" || fail "$mode: $deck"
    "$kdhpc" --mode "$mode" --config "$tmp/1.yaml" --print-config >"$tmp/2.yaml" || fail "$mode: $deck, printed"
    diff "$tmp/1.yaml" "$tmp/2.yaml" || fail "$mode: $deck does not resolve to itself"
}

# The mode that a deck is for stands in its comment; where none does, it is a deck to include.
for deck in inputs/*.yaml; do
    modes=$(sed -n 's/^#.*--mode \([a-z-]*\).*/\1/p' "$deck" | sort -u)
    for mode in $modes; do
        if [ "$mode" = eval ]; then check eval "$deck" --model m; else check "$mode" "$deck"; fi
    done
    [ -n "$modes" ] || check eval "$deck" --model m --corpus c
done
for script in jobs/*.sh jobs/*.sbatch; do
    bash -n "$script" || fail "$script"
done
# A deck with a key that no mode has must not pass.
printf 'include: %s/inputs/quickstart_sft.yaml\nlearning_rat: 1\n' "$PWD" >"$tmp/bad.yaml"
! "$kdhpc" --mode sft --config "$tmp/bad.yaml" --print-config >/dev/null 2>&1 || fail "an unknown key passed"
echo "decks: passed"
