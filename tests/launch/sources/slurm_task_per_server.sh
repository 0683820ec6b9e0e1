#!/bin/bash
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
srun vllm serve meta-llama/Llama-3.3-70B-Instruct --tensor-parallel-size 8 --port 8000
