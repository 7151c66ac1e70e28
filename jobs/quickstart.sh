#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh Debian or Ubuntu machine to distilled students: packages, build, data, then every stage on two ranks,
# and one table at the end.  About ten minutes on two cores.  Run it again and what is done is not done again;
# `rm -r run/quickstart` starts anew.
#
#   jobs/quickstart.sh            KDHPC_RANKS=4 jobs/quickstart.sh            KDHPC_SKIP_PACKAGES=1 jobs/quickstart.sh
set -euo pipefail
cd "$(dirname "$0")/.."

ranks=${KDHPC_RANKS:-2}
run=run/quickstart
kdhpc=build/src/kdhpc
cores=$(nproc)
threads=$((cores > ranks ? cores / ranks : 1))
start=$SECONDS
n_stages=15
n=0

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1

# stage NAME COMMAND...: run it unless an earlier run of this script has finished it.
stage() {
    local name=$1 began=$SECONDS
    shift
    n=$((n + 1))
    if [ -e "$run/.done/$name" ]; then
        echo "== [$n/$n_stages] $name: done before"
        return
    fi
    echo "== [$n/$n_stages] $name"
    "$@"
    mkdir -p "$run/.done"
    touch "$run/.done/$name"
    echo "== [$n/$n_stages] $name: $((SECONDS - began)) s (in all $((SECONDS - start)) s)"
}

# always NAME COMMAND...: a step that finds out itself what is left to do.
always() {
    n=$((n + 1))
    echo "== [$n/$n_stages] $1"
    shift
    "$@"
}

# A stage that was cut short may have left files: overwrite them.
kd() {
    mpirun --oversubscribe --bind-to none -np "$ranks" "$kdhpc" --threads "$threads" --overwrite "$@"
}

evaluate() { # NAME MODEL_DIR
    stage "eval-$1" kd --mode eval --config inputs/quickstart_eval.yaml --model "$2" --output_dir "$run/eval/$1"
}

build() {
    [ -e build/CMakeCache.txt ] || cmake -S . -B build -G Ninja -DBUILD_TESTING=OFF
    cmake --build build --target kdhpc --parallel "$cores"
}

if [ -n "${KDHPC_SKIP_PACKAGES:-}" ]; then
    always packages echo "skipped"
else
    always packages jobs/install_packages.sh
fi
always build build
always data python3 inputs/prepare_debsum.py "$run/data"

stage tokenize kd --mode tokenize --config inputs/quickstart_tokenize.yaml
stage eval-lead kd --mode eval --config inputs/quickstart_eval.yaml --baseline lead --lead_words 10 --output_dir "$run/eval/lead"
evaluate teacher inputs/teacher
stage make-student kd --mode make-student --config inputs/quickstart_make_student.yaml
evaluate student "$run/student"
stage sft kd --mode sft --config inputs/quickstart_sft.yaml
evaluate sft "$run/sft/model"
stage pseudo-label kd --mode pseudo-label --config inputs/quickstart_pseudo_label.yaml
stage sft-pseudo kd --mode sft --config inputs/quickstart_sft_pseudo.yaml
evaluate sft-pseudo "$run/sft-pseudo/model"
stage kd kd --mode kd --config inputs/quickstart_kd.yaml
evaluate kd "$run/kd/model"

echo
python3 jobs/quickstart_table.py "$run"
echo
echo "quickstart: $((SECONDS - start)) s; everything is under $run"
