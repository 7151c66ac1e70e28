# SPDX-License-Identifier: Apache-2.0
# Every deck of inputs/ is sound: no mode finds an unknown key, every mode that the deck's comments call with it (or,
# for a deck to include, at least one mode) takes all its values, and what --print-config prints resolves to itself.
# What a deck leaves to the command line is given there.  Every job script is bash.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
cd "$KD_SOURCE_DIR"
tmp=$KD_WORK_DIR

resolve() { # MODE DECK: --print-config, with whatever required option the deck leaves out
    local args=() missing
    for _ in 1 2 3 4; do
        kd_code=0
        "$KDHPC" --mode "$1" --config "$2" --output_dir out "${args[@]}" --print-config >"$tmp/out.txt" 2>"$tmp/err.txt" || kd_code=$?
        missing=$(sed -n 's/^kdhpc: error:.*--\([a-z_]*\) is required.*/\1/p' "$tmp/err.txt")
        [ -n "$missing" ] || break
        args+=("--$missing" x)
    done
    return $kd_code
}

modes=$("$KDHPC" --help | sed -n '/^Modes:/,$ s/^  \([a-z-]*\) .*/\1/p')
[ "$(echo "$modes" | wc -l)" -ge 12 ] || fail "cannot list the modes"
n=0
for deck in inputs/*.yaml; do
    n=$((n + 1))
    named=$(sed -n 's/^#.*--mode \([a-z-]*\).*/\1/p; s/^mode: *//p' "$deck" | sort -u)
    fits=0
    for mode in ${named:-$modes}; do
        if resolve "$mode" "$deck"; then
            fits=$((fits + 1))
            cp "$tmp/out.txt" "$tmp/printed.yaml"
            resolve "$mode" "$tmp/printed.yaml" || fail "$mode: $deck, printed: $(cat "$tmp/err.txt")"
            expect_same "$tmp/printed.yaml" "$tmp/out.txt"
        elif [ -n "$named" ] || grep -q 'is unknown' "$tmp/err.txt"; then
            fail "$mode: $deck: $(cat "$tmp/err.txt")"
        fi
    done
    [ $fits -gt 0 ] || fail "$deck fits no mode"
done
for script in jobs/*.sh jobs/*.sbatch; do
    bash -n "$script" || fail "$script"
done
printf 'include: %s/inputs/quickstart_sft.yaml\nlearning_rat: 1\n' "$PWD" >"$tmp/bad.yaml"
! resolve sft "$tmp/bad.yaml" || fail "an unknown key passed"
expect_text "$tmp/err.txt" "is unknown"
echo "$n decks"
