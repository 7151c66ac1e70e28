# SPDX-License-Identifier: Apache-2.0
# A Slurm of one node for a test, from the distribution's own packages and without privileges beyond those of the
# caller: munged, slurmctld and slurmd with their configuration, sockets, spools and logs in one directory, on ports of
# its own, so that a Slurm that the machine may already have is neither used nor disturbed.  Source it; then
#   cluster_start DIR || ...       and, whatever happens afterwards,       cluster_stop
# The node pretends to cluster_cpus processors: job scripts keep the resources that they ask for, and nothing is bound.
cluster_cpus=64
cluster_life_s=180 # the daemons end by then, also where nobody is left to stop them
cluster_dir=""

cluster_tools() { # whether the programs are installed; the daemons are in sbin
    PATH=$PATH:/usr/sbin:/sbin
    command -v slurmctld slurmd munged sbatch srun scontrol scancel squeue sinfo >/dev/null
}

free_port() { # one on which nothing listens
    local port
    for _ in 1 2 3 4 5 6 7 8; do
        port=$((20000 + (RANDOM + $$) % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

cluster_config() {
    local d=$cluster_dir node
    node=$(hostname -s)
    cat >"$d/slurm.conf" <<CONF
ClusterName=kdhpc
SlurmctldHost=$node(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$d/munge.socket
StateSaveLocation=$d/state
SlurmdSpoolDir=$d/spool
SlurmctldPidFile=$d/slurmctld.pid
SlurmdPidFile=$d/slurmd.pid
SlurmctldLogFile=$d/slurmctld.log
SlurmdLogFile=$d/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
NodeName=$node NodeAddr=127.0.0.1 CPUs=$cluster_cpus State=UNKNOWN
PartitionName=all Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
}

cluster_is_idle() {
    [ "$(sinfo -h -o %T 2>/dev/null)" = idle ]
}

# The daemons stay in the foreground of background jobs, so that stopping them needs no pid files.
cluster_start() { # DIR: false, with a reason on stderr, where Slurm does not come up
    cluster_dir=$1
    cluster_pids=()
    mkdir -p "$1/state" "$1/spool"
    chmod 755 "$1"
    cluster_config
    export SLURM_CONF=$1/slurm.conf
    head -c 1024 /dev/urandom >"$1/munge.key"
    chmod 600 "$1/munge.key"
    timeout $cluster_life_s munged --foreground --force --socket="$1/munge.socket" --key-file="$1/munge.key" --pid-file="$1/munged.pid" \
        --seed-file="$1/munge.seed" --log-file="$1/munged.log" >"$1/munged.out" 2>&1 &
    cluster_pids+=($!)
    for _ in $(seq 50); do
        [ ! -S "$1/munge.socket" ] || break
        sleep 0.1
    done
    timeout $cluster_life_s slurmctld -D -c >"$1/slurmctld.out" 2>&1 &
    cluster_pids+=($!)
    timeout $cluster_life_s slurmd -D >"$1/slurmd.out" 2>&1 &
    cluster_pids+=($!)
    for _ in $(seq 75); do
        ! cluster_is_idle || return 0
        sleep 0.2
    done
    tail -n 3 "$1"/*.out >&2
    return 1
}

cluster_stop() {
    local pid i
    set +e
    [ -n "$cluster_dir" ] || return 0
    scancel --full --signal=KILL -u "$(id -un)" 2>/dev/null # a job may take its time over SIGTERM
    scancel -u "$(id -un)" 2>/dev/null
    for _ in $(seq 50); do
        [ -n "$(squeue -h 2>/dev/null)" ] || break
        sleep 0.1
    done
    for ((i = ${#cluster_pids[@]} - 1; i >= 0; i--)); do
        kill "${cluster_pids[i]}" 2>/dev/null
    done
    sleep 0.3
    for pid in "${cluster_pids[@]}"; do
        kill -9 "$pid" 2>/dev/null
    done
    wait 2>/dev/null
    cluster_dir=""
}
