docker run --gpus all ^
  vllm/vllm-openai:v0.33.0 ^
  --model Qwen/Qwen3-32B ^
  --tensor-parallel-size 4
