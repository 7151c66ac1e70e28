#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every fault site of the given sources, on every rank that comes by: the run must end
# with a failure, with exactly one diagnostic line, and soon.
# usage: fault_sites.sh PROGRAM MPIEXEC N_RANKS SOURCE...
set -u
program=$1 mpiexec=$2 n=$3
shift 3
limit_s=60
# Only rank 0 does this work.
root_only=" h5.rename checkpoint.search checkpoint.prune safetensors.write "
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0 runs=0

run() { # KD_FAULT value; leaves $rc and $work/err
    rm -rf "$work/run"
    mkdir "$work/run"
    KD_FAULT=$1 timeout $limit_s "$mpiexec" -n "$n" "$program" "$work/run" >"$work/out" 2>"$work/err"
    rc=$?
    runs=$((runs + 1))
}

complain() {
    echo "FAILED: $1"
    cat "$work/err"
    bad=$((bad + 1))
}

run none:0
[ $rc -eq 0 ] || complain "without a fault the run ends with $rc"
sites=$(grep -oh 'KD_FAULT("[^"]*")' "$@" | cut -d'"' -f2 | sort -u)
[ -n "$sites" ] || { echo "no fault sites found"; exit 1; }
for site in $sites; do
    for rank in $(seq 0 $((n - 1))); do
        [ "$rank" -gt 0 ] && [[ $root_only == *" $site "* ]] && continue
        run "$site:$rank"
        lines=$(grep -c '^kdhpc: error:' "$work/err")
        if [ $rc -eq 0 ]; then
            complain "$site on rank $rank: the run succeeded"
        elif [ $rc -eq 124 ]; then
            complain "$site on rank $rank: still running after $limit_s s"
        elif [ "$lines" -ne 1 ]; then
            complain "$site on rank $rank: $lines diagnostic lines"
        elif ls "$work/run" | grep -q '\.part$'; then
            complain "$site on rank $rank: left $(ls "$work/run")"
        fi
    done
done
echo "$runs runs, $bad failed"
[ $bad -eq 0 ]
