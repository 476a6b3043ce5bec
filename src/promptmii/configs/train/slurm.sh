#!/bin/bash
#SBATCH --job-name=promptmii
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --time=48:00:00
#SBATCH --requeue                 # the run resumes from its newest checkpoint
#
# The job that `promptmii launch RECIPE --slurm ...` queues, with the nodes and GPUs set. It takes the arguments of
# `promptmii train`. The last node serves the model FOLLOWER; if that is empty, all nodes train.
set -euo pipefail

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
gpus=${SLURM_GPUS_PER_NODE##*:}
trainers=${#nodes[@]}

if [ -n "${FOLLOWER:-}" ]; then
    trainers=$((trainers - 1))
    server=${nodes[$trainers]}
    ports=$(seq -s ' ' 8000 $((7999 + gpus)))
    # One vLLM server per GPU. Answers are short, so independent copies beat tensor parallelism.
    srun --nodes=1 --ntasks=1 --nodelist="$server" bash -c "
        for port in $ports; do
            CUDA_VISIBLE_DEVICES=\$((port - 8000)) vllm serve '$FOLLOWER' --port \$port --enable-prefix-caching \
                --generation-config vllm &
        done
        wait" &
    servers=$!
    trap 'kill $servers 2>/dev/null || true' EXIT
    OPENAI_BASE_URL=$(for port in $ports; do printf 'http://%s:%d/v1,' "$server" "$port"; done)
    export OPENAI_BASE_URL=${OPENAI_BASE_URL%,} OPENAI_API_KEY=${OPENAI_API_KEY:-none}
    for port in $ports; do
        until curl --silent --fail "http://$server:$port/health" > /dev/null; do
            kill -0 $servers || { echo "The follower's servers have ended." >&2; exit 1; }
            sleep 1
        done
    done
fi

[ "${SLURM_RESTART_COUNT:-0}" -eq 0 ] || set -- "$@" --resume
srun --nodes="$trainers" --ntasks="$trainers" --nodelist="$(IFS=,; echo "${nodes[*]:0:$trainers}")" \
    bash -c 'exec promptmii launch "$@" --machine "$SLURM_PROCID"' launch "$@" --machines "$trainers" --first "${nodes[0]}"
