# SPDX-License-Identifier: Apache-2.0
# Every key of every deck in inputs/ is an option with an allowed value: no mode finds an unknown one, and the deck's mode
# (where it names none, at least one mode) takes all its values.  What a deck leaves to the command line may be missing,
# so only complaints that point into a deck (FILE.yaml:LINE) count.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1

modes=$("$KDHPC" --help | sed -n '/^Modes:/,$ s/^  \([a-z-]*\) .*/\1/p')
[ "$(echo "$modes" | wc -l)" -ge 12 ] || fail "cannot list the modes"
n=0
while read -r deck; do
    n=$((n + 1))
    mode=$(sed -n 's/^mode: *//p' "$deck")
    fits=0
    for m in ${mode:-$modes}; do
        kd_alone --mode "$m" --config "$deck" --print-config
        if [ "$kd_code" = 0 ] || ! grep -q '\.yaml:[0-9]' err.txt; then
            fits=1
        elif grep -q 'is unknown' err.txt; then
            fail "$deck has an option that no mode knows"
        fi
    done
    [ $fits = 1 ] || fail "$deck fits no mode"
done < <(find "$KD_SOURCE_DIR/inputs" -name '*.yaml' | sort)
echo "$n decks"
