#!/bin/bash
if [ "$NODE_RANK" == "0" ]; then
  python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-V3 --tp 16 --nnodes 2 --node-rank 0 --dist-init-addr $H:5000 --port 30000
else
  python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-V3 --tp 16 --nnodes 2 --node-rank $NODE_RANK --dist-init-addr $H:5000
fi
