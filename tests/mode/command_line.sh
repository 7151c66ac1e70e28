# SPDX-License-Identifier: Apache-2.0
# The command line itself: texts, resolution, refusals, exit codes, and that nothing is made before the checks.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1

modes="train-tokenizer tokenize init-model make-student sft kd pseudo-label eval score generate inspect bench"

# Texts come without MPI: with a transport that does not exist, MPI cannot start.
no_mpi() {
    OMPI_MCA_pml=none_such kd_alone "$@"
}
no_mpi --help
expect_exit 0
expect_empty err.txt
for mode in $modes; do
    expect_text out.txt "  $mode "
done
no_mpi --version
expect_exit 0
for part in "kdhpc " "MPI: " "HDF5: " "BLAS: " "compiler: " "CUDA: " "NCCL: "; do
    expect_text out.txt "$part"
done
for mode in $modes; do
    no_mpi --mode "$mode" --help
    expect_exit 0
    expect_empty err.txt
    for option in output_dir overwrite seed device dtype tf32 threads log_level progress deadline_s; do
        expect_text out.txt "--$option "
    done
    twice=$(grep -o '^  --[^ ]*' out.txt | sort | uniq -d)
    [ -z "$twice" ] || fail "options twice in mode $mode: $twice"
done
OMPI_COMM_WORLD_RANK=1 kd_alone --help # only the first rank speaks
expect_exit 0
expect_empty out.txt

# A resolved deck runs again, hyphens and underscores are one, and the command line wins.
cat >part.yaml <<'DECK'
max_steps: 3
learning_rate: 0.25
DECK
cat >deck.yaml <<'DECK'
# a deck for a chain of modes: num_return_sequences is of another one
include: part.yaml
mode: sft
model: some/model
corpus: [a.h5, "b c.h5"]
max-steps: 5
num_return_sequences: 2
DECK
no_mpi --config deck.yaml --train-batch-size=7 --output_dir run --sortish_sampler --print-config
expect_exit 0
expect_empty err.txt
for line in "mode: sft" "max_steps: 5" "learning_rate: 0.25" "train_batch_size: 7" "sortish_sampler: true" \
    'corpus: [a.h5, "b c.h5"]' "output_dir: run" "seed: 42"; do
    grep -qxF -e "$line" out.txt || fail "the resolved deck lacks '$line'"
done
cp out.txt first.yaml
no_mpi --mode sft --config first.yaml --print_config
expect_exit 0
expect_same first.yaml out.txt
expect_no_path run

# Refusals: exit 2, one line with the option, its origin and what is allowed; nothing is made.
usage() { # ARGS... -- TEXT...
    local args=()
    while [ "$1" != -- ]; do
        args+=("$1")
        shift
    done
    shift
    kd_alone "${args[@]}"
    expect_error 2 "$@"
    expect_empty out.txt
    expect_no_path run
}
score="--mode score --model m --corpus c --output_dir run"
usage -- "--mode is required" "pseudo-label"
usage --mode scor -- "did you mean score?"
usage word -- "--mode is required"
usage $score word -- "'word' (command line)"
usage $score --modle x -- "--modle (command line)" "did you mean --model?"
usage $score --alpha_ce 1 -- "--alpha_ce (command line)" "another mode"
usage $score --deadline-s -1 -- "--deadline_s (command line)" "'-1'" "a number >= 0"
usage $score --seed x -- "--seed (command line)" "'x'" "an integer"
usage $score --device gpu -- "--device" "auto|cpu|cuda"
CUDA_VISIBLE_DEVICES= usage $score --device cuda -- "--device" "no CUDA device"
usage $score --device cpu --dtype bfloat16 -- "--dtype" "float32"
usage --mode score --model m --corpus c -- "--output_dir is required"
usage --mode score --corpus c --output_dir run -- "--model is required"
usage --mode kd --config deck.yaml -- "deck.yaml:3" "not for kd"
echo "modle: x" >bad.yaml
usage $score --config bad.yaml -- "bad.yaml:1" "did you mean --model?"
printf 'seed: 1\nseed: 2\n' >twice.yaml
usage $score --config twice.yaml -- "twice.yaml:2" "twice.yaml:1"
printf 'seed: 1\nthreads: -4\n' >bounds.yaml
usage $score --config bounds.yaml -- "--threads (bounds.yaml:2)" "'-4'" "from 0 to 4096"
kd_alone $score --config none.yaml
expect_error 3 "none.yaml"
kd_ranks 2 $score --modle x
expect_error 2 "did you mean --model?"

# What is there is not replaced unless asked for; the refusal is one for all ranks.
mkdir -p run
echo precious >run/metrics.json
kd_alone $score
expect_error 4 "run already holds metrics.json" "--overwrite"
kd_ranks 2 $score
expect_error 4 "run already holds metrics.json"
expect_text run/metrics.json precious
kd_alone $score --overwrite
expect_error 3
mkdir -p trained
echo precious >trained/metrics.jsonl
kd_alone --mode sft --model m --corpus c --output_dir trained
expect_error 4 "--resume"
kd_alone --mode sft --model m --corpus c --output_dir trained --resume trained
[ "$kd_code" != 4 ] || fail "a resumed run was refused its own directory"
touch file
kd_alone --mode score --model m --corpus c --output_dir file/below
expect_error 4 "file"
