# SPDX-License-Identifier: Apache-2.0
# The program on several emulated devices: tensors go from GPU to GPU where every rank has one, through host memory where
# ranks share or KD_PLANE says so, and what a run leaves does not depend on it.  Failures end the run with one line.
. "${KD_LIB:?}" || exit 1
KDHPC=${KDHPC_EMULATED:?the program on the emulator}
. "$KD_SOURCE_DIR/tests/support/tiny.sh"
train="$sft --train_batch_size 4 --n_train 8 --n_val 0 --max_steps 2 --device cuda --dtype float32"

echo "two ranks, one plane or the other"
kd_do 2 $train --output_dir nccl
expect_text err.txt "from GPU to GPU"
KD_PLANE=mpi kd_do 2 $train --output_dir mpi
expect_text err.txt "through host memory: KD_PLANE=mpi"
expect_same nccl/model/model.safetensors mpi/model/model.safetensors
KD_HOST_DEVICES=1 kd_do 2 $train --output_dir shared
expect_text err.txt "through host memory: ranks of a node share a GPU"
expect_same nccl/model/model.safetensors shared/model/model.safetensors

echo "one rank, with the plane and without"
kd_do 1 $train --output_dir one
expect_no_text err.txt "ranks exchange"
KD_PLANE=nccl kd_do 1 $train --output_dir alone
expect_text err.txt "from GPU to GPU"
expect_same one/model/model.safetensors alone/model/model.safetensors
check "losses of one rank and of two" <<'P'
assert_same(steps("one"), steps("nccl"), 1e-5, ("loss", "grad_norm"))
P

echo "a sharded optimiser gathers what it has"
kd_do 2 $train --zero 1 --max_grad_norm 0 --output_dir zero
kd_do 2 $train --zero 0 --max_grad_norm 0 --output_dir whole
expect_same zero/model/model.safetensors whole/model/model.safetensors

echo "failures"
KD_PLANE=other kd_ranks 2 $train --output_dir refused
expect_error 2 "KD_PLANE" "mpi, nccl"
KD_PLANE=nccl KD_HOST_DEVICES=1 kd_ranks 2 $train --output_dir refused
expect_error 3 "KD_PLANE=nccl" "share a GPU"
KD_NCCL_HOST=connect:1:0 kd_ranks 2 $train --output_dir refused
expect_error 70 "rank 1" "NCCL failed"
KD_NCCL_HOST=call:1:1 kd_ranks 2 $train --output_dir refused --overwrite
expect_error 70 "starting a transfer"
KD_NCCL_HOST=async:0:1 kd_ranks 2 $train --output_dir refused --overwrite
expect_error 70 "rank 0" "while transfers were under way"
