#!/bin/bash
NODES=(n1 n2)
for i in "${!NODES[@]}"; do
  ssh ${NODES[$i]} "docker run -d --gpus all --network host lmsysorg/sglang:v0.5.23 python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-V3 --tp 16 --nnodes 2 --node-rank $i --dist-init-addr n1:5000" &
done
