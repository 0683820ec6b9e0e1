#!/bin/bash
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8
MODEL=deepseek-ai/DeepSeek-R1   # the model
TP=$((SLURM_NNODES * SLURM_GPUS_PER_NODE))
EXTRA_ARGS="--mem-fraction-static 0.85 --chunked-prefill-size 8192"
ARGS=(
  --trust-remote-code
  --kv-cache-dtype fp8_e4m3
)
HEAD=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n1)
srun --ntasks-per-node=1 bash -c 'echo hi'
srun --nodes=$SLURM_NNODES python3 -m sglang.launch_server --model-path $MODEL --tp $TP --ep-size ${TP} \
  --nnodes $SLURM_NNODES --node-rank $SLURM_NODEID --dist-init-addr $HEAD:5000 $EXTRA_ARGS "${ARGS[@]}" &
wait
