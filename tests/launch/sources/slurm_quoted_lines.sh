#!/bin/bash
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
DP_LOCAL=8
srun --container-image=vllm/vllm-openai:v0.24.0 --container-mounts=/data:/data bash -c '
vllm serve deepseek-ai/DeepSeek-R1 --enable-expert-parallel --data-parallel-size $((SLURM_NNODES*8)) --data-parallel-size-local 8 --data-parallel-start-rank $((SLURM_PROCID*8)) --data-parallel-address $MASTER --data-parallel-hybrid-lb
'
