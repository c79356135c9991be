#!/usr/bin/env bash
# Stage 1 on several nodes of 8 GPUs: sbatch --nodes=8 fcot_vl/recipes/scale/slurm.sh TEACHER DATA OUTPUT [more flags of realign]
# The output folder must lie on a file system that all nodes see. After a node is lost, the same command goes on from the
# last whole checkpoint, on any number of nodes that divides 64.
#SBATCH --job-name=fcot-vl-realign
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
teacher=$1 data=$2 output=$3
shift 3
GPUS=8
host=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
packs=512 # a step; the paper's
export OMP_NUM_THREADS=8
srun --kill-on-bad-exit=1 torchrun \
  --nnodes "$SLURM_NNODES" --nproc-per-node "$GPUS" \
  --rdzv-backend c10d --rdzv-endpoint "$host:29500" --rdzv-id "$SLURM_JOB_ID" \
  -m fcot_vl realign --recipe scale/realign \
  --teacher "$teacher" --data "$data" --output "$output" \
  --gradient-accumulation-steps $((packs / GPUS / SLURM_NNODES)) "$@"
