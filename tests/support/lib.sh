# SPDX-License-Identifier: Apache-2.0
# Helpers for tests that run the program from the command line; source it first:  . "${KD_LIB:?}" || exit 1
# It moves to an empty work directory and makes every failed expectation, and every failed command, end the test.
# CTest gives KDHPC (the program), MPIEXEC, KD_SOURCE_DIR, KD_WORK_DIR and KD_NP (kd_add_script_test in
# tests/CMakeLists.txt).  A run leaves out.txt, err.txt and $kd_code.
set -euo pipefail

: "${KDHPC:?the program to test}" "${KD_WORK_DIR:?an empty directory to work in}" "${KD_SOURCE_DIR:?the checkout}"
: "${MPIEXEC:=mpirun}" "${KD_NP:=1}"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMP_WAIT_POLICY=passive
kd_code=0
kd_last=""

rm -rf "$KD_WORK_DIR"
mkdir -p "$KD_WORK_DIR"
cd "$KD_WORK_DIR"

fail() { # TEXT: end the test, showing the last run
    {
        echo "FAILED: $*"
        if [ -n "$kd_last" ]; then
            echo "last run: $kd_last (exit $kd_code)"
            echo "--- out.txt"
            head -c 3000 out.txt
            echo "--- err.txt"
            head -c 3000 err.txt
        fi
    } >&2
    exit 1
}

kd_alone() { # ARGS...: run the program without a launcher
    kd_last="kdhpc $*"
    kd_code=0
    "$KDHPC" "$@" >out.txt 2>err.txt </dev/null || kd_code=$?
}

kd_ranks() { # NP ARGS...: run the program on NP ranks
    local np=$1
    shift
    kd_last="$MPIEXEC -n $np kdhpc $*"
    kd_code=0
    "$MPIEXEC" -n "$np" "$KDHPC" "$@" >out.txt 2>err.txt </dev/null || kd_code=$?
}

kd_do() { # NP ARGS...: run on NP ranks (1: alone) and expect success
    if [ "$1" = 1 ]; then
        shift
        kd_alone "$@"
    else
        kd_ranks "$@"
    fi
    expect_exit 0
}

expect_exit() { # CODE: of the last run
    [ "$kd_code" = "$1" ] || fail "exit code $kd_code, expected $1"
}

expect_error() { # CODE [TEXT...]: exit code, exactly one error line, and it holds each TEXT
    local code=$1 lines line
    shift
    expect_exit "$code"
    lines=$(grep -c '^kdhpc: error: ' err.txt || true)
    [ "$lines" = 1 ] || fail "$lines lines 'kdhpc: error: ...', expected 1"
    line=$(grep '^kdhpc: error: ' err.txt)
    for text in "$@"; do
        case $line in
        *"$text"*) ;;
        *) fail "the error line lacks '$text'" ;;
        esac
    done
}

expect_text() { # FILE TEXT: FILE holds TEXT
    grep -qF -e "$2" "$1" || fail "$1 lacks '$2'"
}

expect_no_text() { # FILE TEXT
    ! grep -qF -e "$2" "$1" || fail "$1 holds '$2'"
}

expect_empty() { # FILE
    [ ! -s "$1" ] || fail "$1 is not empty"
}

expect_path() { # PATH...: all exist
    for path in "$@"; do
        [ -e "$path" ] || fail "$path is missing"
    done
}

expect_no_path() { # PATH...: none exists
    for path in "$@"; do
        [ ! -e "$path" ] || fail "$path exists"
    done
}

expect_same() { # FILE FILE: equal bytes
    cmp "$1" "$2" >&2 || fail "$1 and $2 differ"
}
