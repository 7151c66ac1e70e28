#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Transfers between GPUs that fail on one rank: the job ends soon, with code 70 and one line that says what.
# usage: comm_nccl_failures.sh TEST_COMM_NCCL MPIEXEC
set -u
program=$1 mpiexec=$2
err=$(mktemp)
trap 'rm -f "$err"' EXIT
bad=0

complain() {
    echo "FAILED: $*"
    cat "$err"
    bad=1
}

broken() { # WHAT TEXT
    timeout 60 "$mpiexec" -n 2 "$program" "$1" >/dev/null 2>"$err"
    local rc=$?
    [ $rc -eq 70 ] || complain "$1: exit $rc"
    [ "$(grep -c '^kdhpc: error:' "$err")" = 1 ] || complain "$1: not one line"
    grep -q "^kdhpc: error: $2" "$err" || complain "$1: not '$2'"
}

broken refused "rank 1: NCCL failed (starting a transfer)"
broken error "rank 1: NCCL failed (while transfers were under way)"
broken device "rank 1: the GPU failed"
broken absent "rank 0: a transfer between GPUs did not end within 2.7 s"
exit $bad
