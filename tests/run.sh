#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Every test, from a fresh machine: install what is missing, build with warnings as errors, run all tests, run the unit,
# op and fuzz tests again under the address and undefined-behaviour sanitizers, and, where clang is, compile with it too.
# Ends with ctest's own summary and a non-zero status if anything failed.  KD_JOBS sets the number of parallel jobs.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${KD_JOBS:-$(nproc)}
export CTEST_PARALLEL_LEVEL=$jobs

step() {
    printf '\n== %s\n' "$*"
}

build() { # FOLDER TARGETS -- CMAKE_ARGS...
    local folder=$1 targets=()
    shift
    while [ "$1" != -- ]; do
        targets+=("$1")
        shift
    done
    shift
    cmake -S . -B "$folder" -G Ninja -DKDHPC_WERROR=ON "$@"
    cmake --build "$folder" -j "$jobs" --target "${targets[@]}"
}

step "packages"
jobs/install_packages.sh

step "clang"
clang=$(command -v clang || true)
if [ -n "$clang" ] && echo 'int main(void){return 0;}' | "$clang" -fopenmp -x c - -o /dev/null 2>/dev/null; then
    build build-clang kdhpc -- -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ -DBUILD_TESTING=OFF -DKDHPC_CUDA=OFF
else
    echo "skipped: no clang with OpenMP on this machine"
fi

step "unit, op and fuzz tests under sanitizers"
build build-sanitize kd_tests_unit kd_tests_op kd_tests_fuzz -- -DCMAKE_BUILD_TYPE=Debug '-DCMAKE_C_FLAGS_DEBUG=-g -O1' -DKDHPC_SANITIZE=address,undefined
ctest --test-dir build-sanitize -L '^(unit|op|fuzz)$' --output-on-failure

step "all tests"
build build-test all --
ctest --test-dir build-test --output-on-failure
