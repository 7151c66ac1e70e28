# SPDX-License-Identifier: Apache-2.0
# For scripts on the program with --device cuda; source it after lib.sh, with KDHPC_ON_DEVICE.  Ends the test as skipped
# where there is no device.
KDHPC=${KDHPC_ON_DEVICE:?the program with the CUDA backend}
kd_alone --mode bench --what gemm --device cuda --d_model 16 --tokens 16 --vocab_size 16 --peak_size 16 --seconds 0.001
if [ "$kd_code" = 2 ]; then
    echo "skipped: no device ($(head -n 1 err.txt))"
    exit 77
fi
expect_exit 0
. "$KD_SOURCE_DIR/tests/support/tiny.sh"

small="--train_batch_size 8 --n_train 16 --n_val 0 --dropout 0 --lr_scheduler constant --learning_rate 1e-3"

# compare RUN REFERENCE BOUND: the losses (and norms of gradients, in BOUND's ten-fold) of two trainings
compare() {
    run=$1 reference=$2 bound=$3 check "the losses of $1 beside those of $2" <<'P'
import os
run, reference, bound = os.environ["run"], os.environ["reference"], float(os.environ["bound"])
assert_same(steps(reference), steps(run), bound, ("loss",))
assert_same(steps(reference), steps(run), 10 * bound, ("grad_norm",))
P
}
