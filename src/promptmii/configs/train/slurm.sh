#!/bin/bash
#SBATCH --job-name=promptmii
#SBATCH --nodes=3                 # two train, the last one serves the follower
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --time=48:00:00
#SBATCH --requeue                 # the run goes on from its newest checkpoint
#
# Multi-node training: sbatch slurm.sh RECIPE TASKS RUN [MODEL OF THE FOLLOWER]
#     sbatch slurm.sh llama-3.1-8b-16gpu corpus/ runs/llama-8b
# The recipe needs plan.processes = 8 x (nodes - 1), and batches that it divides. For other numbers of nodes check with
#     promptmii train RECIPE --tasks TASKS --dry-run
set -euo pipefail
recipe=$1 tasks=$2 run=$3 follower=${4:-meta-llama/Llama-3.1-8B-Instruct}

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
count=${#nodes[@]}
trainers=$((count - 1))
server=${nodes[$trainers]}
head=${nodes[0]}

# One vLLM server per GPU of the last node; labelling is short, so plain copies beat tensor parallelism.
srun --nodes=1 --ntasks=1 --nodelist="$server" bash -c "
    for i in \$(seq 0 7); do
        CUDA_VISIBLE_DEVICES=\$i vllm serve '$follower' --port \$((8000 + i)) --enable-prefix-caching &
    done
    wait" &
servers=$!
trap 'kill $servers 2>/dev/null || true' EXIT

OPENAI_BASE_URL=$(for i in $(seq 0 7); do printf 'http://%s:%d/v1,' "$server" $((8000 + i)); done)
export OPENAI_BASE_URL=${OPENAI_BASE_URL%,} OPENAI_API_KEY=${OPENAI_API_KEY:-none}
for i in $(seq 0 7); do
    until curl --silent --fail "http://$server:$((8000 + i))/health" > /dev/null; do
        kill -0 $servers || { echo "The follower's servers have ended." >&2; exit 1; }
        sleep 5
    done
done

recipes=$(python -c 'from promptmii.configs import FOLDER; print(FOLDER)')/train
resume=()
[ -e "$run/config.json" ] && resume=(--resume)

# `standard`: srun has started the launcher on every node; Accelerate's default would start the others by pdsh from a list of hosts.
srun --nodes="$trainers" --ntasks="$trainers" --nodelist="$(IFS=,; echo "${nodes[*]:0:$trainers}")" bash -c "
    accelerate launch --config_file '$recipes/zero3.yaml' \
        --num_machines $trainers --num_processes $((8 * trainers)) --machine_rank \$SLURM_PROCID \
        --main_process_ip $head --main_process_port 29500 --deepspeed_multinode_launcher standard \
        -m promptmii train '$recipe' --tasks '$tasks' -o '$run' ${resume[*]}"
