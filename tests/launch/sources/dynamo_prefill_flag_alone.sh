#!/bin/bash
python -m dynamo.frontend --http-port 8000 &
CUDA_VISIBLE_DEVICES=0,1 python3 -m dynamo.vllm --model Qwen/Qwen3-32B --tensor-parallel-size 2 &
CUDA_VISIBLE_DEVICES=2,3 python3 -m dynamo.vllm --model Qwen/Qwen3-32B --tensor-parallel-size 2 --is-prefill-worker
