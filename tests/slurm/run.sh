# SPDX-License-Identifier: Apache-2.0
# The job scripts on a real Slurm of one node: the whole chain, a training that is stopped and queued again, one that is
# cancelled, and both launchers.  Skipped where Slurm and munge are not installed (Debian: slurm-wlm munge), cannot
# start, or cannot start this program's MPI.  Everything that waits gives up, so the test ends within two minutes; an
# idle machine of two cores needs less than one.
. "${KD_LIB:?tests/support/lib.sh}" || exit 1
. "$KD_SOURCE_DIR/tests/slurm/cluster.sh"
give_up_s=100

skip() {
    echo "skipped: $*"
    exit 77
}

cluster_tools || skip "slurmctld, slurmd, munged and Slurm's commands are not installed"
slurm=$(mktemp -d) # not below the build folder: the path of a socket is short
trap 'cluster_stop; rm -rf "$slurm"' EXIT
trap 'exit 1' TERM INT
cluster_start "$slurm" || skip "Slurm does not start here"
timeout 20 srun -n 2 --mpi=pmix "$KDHPC" --mode inspect --path "$KD_SOURCE_DIR/inputs/tiny/config.json" >out.txt 2>&1 ||
    skip "srun --mpi=pmix cannot start this MPI: $(tail -n 1 out.txt)"
. "$KD_SOURCE_DIR/tests/support/tiny.sh"
export KDHPC
mkdir jobs # with resources for a small machine, as each site edits them
for script in "$KD_SOURCE_DIR"/jobs/*.sbatch; do
    sed 's/ntasks-per-node=4/ntasks-per-node=2/; s/cpus-per-task=8/cpus-per-task=1/' "$script" >"jobs/$(basename "$script")"
done

cat >deck.yaml <<Y
teacher: model
tokenizer: tok
data_dir: $tiny
max_source_length: 48
max_target_length: 20
encoder_layers: 2
decoder_layers: 1
num_beams: 1
max_length: 8
train_batch_size: 8
max_steps: 4
val_metric: loss
eval_batch_size: 16
threads: 1
Y

job_is() { # JOB STATE...: whether its state is one of these
    local state
    state=$(scontrol -o show job "$1" | sed 's/.* JobState=\([A-Z_]*\).*/\1/')
    shift
    [[ " $* " == *" $state "* ]]
}

logs() {
    tail -n 20 *.log "$slurm"/slurm*.log >&2
    fail "$@"
}

wait_for() { # WHAT COMMAND...: until COMMAND holds
    local what=$1
    shift
    until "$@"; do
        [ $SECONDS -lt $give_up_s ] || logs "still waiting for $what after $SECONDS s"
        sleep 0.2
    done
}

queue_is_empty() {
    [ -z "$(squeue -h)" ]
}

began() { # RUN_DIR: its first update is done
    grep -qs '"step":1,' "$1/metrics.jsonl"
}

whole() { # DIR: whatever has its final name in it is valid
    for file in "$1"/*.h5 "$1"/model; do
        [ ! -e "$file" ] || kd_do 1 --mode inspect --path "$file" --verify
    done
}

echo "the chain: each stage after those it needs ($SECONDS s)"
export KDHPC_LAUNCH="srun --mpi=pmix"
chain=$(sbatch --parsable jobs/chain.sbatch deck.yaml chain)
wait_for "the chain to be submitted" job_is "$chain" COMPLETED FAILED
job_is "$chain" COMPLETED || logs "the chain was not submitted"
wait_for "the chain" queue_is_empty
for job in $(seq "$chain" $((chain + 7))); do
    job_is "$job" COMPLETED || logs "job $job of the chain: $(scontrol -o show job "$job")"
done
for name in sft kd; do
    expect_path "chain/$name/model/model.safetensors" "chain/eval-$name/metrics.json" "chain/eval-$name/examples.h5"
done

echo "mpirun in the allocation gives the same corpus ($SECONDS s)"
job=$(KDHPC_LAUNCH=$MPIEXEC sbatch --parsable jobs/tokenize.sbatch deck.yaml mpirun)
wait_for "tokenize under mpirun" job_is "$job" COMPLETED FAILED
digest() {
    "$KDHPC" --mode inspect --path "$1" --json 2>/dev/null | python3 -c 'import json, sys; print(json.load(sys.stdin)["digest"])'
}
[ "$(digest mpirun/corpus.h5)" = "$(digest chain/corpus/corpus.h5)" ] || fail "srun and mpirun give different corpora"

stop_and_requeue() { # LAUNCHER DIR
    local job step
    echo "$1: stopped, queued again, and on to the end ($SECONDS s)"
    sed 's/^max_steps.*/max_steps: 1000000\nn_val: 0/' deck.yaml >long.yaml
    job=$(KDHPC_LAUNCH=$1 sbatch --parsable jobs/sft.sbatch long.yaml "$2" --model model --corpus "$corpus")
    wait_for "the first update" began "$2"
    scancel --batch --signal=USR1 "$job"
    wait_for "the requeue" job_is "$job" PENDING
    step=$(basename "$2"/checkpoint-*.h5 .h5)
    step=$((10#${step#checkpoint-}))
    expect_no_path "$2/model"
    sed -i "s/^max_steps.*/max_steps: $((step + 3))/" long.yaml # what is left of it need not take long
    # Slurm waits two minutes before it starts a requeued job.  Not "now": a node refuses what was signed in the second of
    # the requeue ("Job credential revoked"), and Slurm takes that for the end of the job.
    scontrol update JobId="$job" StartTime=now+1
    wait_for "the resumed job" job_is "$job" COMPLETED FAILED
    job_is "$job" COMPLETED || logs "the resumed job failed"
    expect_text "kdhpc-sft-$job.log" "resuming from $2/checkpoint-"
    expect_text "$2/metrics.jsonl" "\"step\":$((step + 3)),"
    whole "$2"
}

stop_and_requeue "$KDHPC_LAUNCH" stopped
stop_and_requeue "$MPIEXEC" stopped_mpirun

echo "cancelled: nothing half-written under its final name ($SECONDS s)"
sed 's/^max_steps.*/max_steps: 1000000\nsave_steps: 1\nval_check_interval: 2\nn_val: 2/' deck.yaml >save.yaml
job=$(sbatch --parsable jobs/kd.sbatch save.yaml cancelled --model model --corpus "$corpus")
wait_for "the first update" began cancelled
scancel "$job"
wait_for "the cancelled job" queue_is_empty
job_is "$job" CANCELLED || logs "the cancelled job is not cancelled"
whole cancelled
echo "passed ($SECONDS s)"
