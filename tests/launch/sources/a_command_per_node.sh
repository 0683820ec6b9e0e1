# Node 0
vllm serve deepseek-ai/DeepSeek-V3 --data-parallel-size 16 --data-parallel-size-local 8 --data-parallel-address 10.0.0.1 --enable-expert-parallel
# Node 1
vllm serve deepseek-ai/DeepSeek-V3 --headless --data-parallel-size 16 --data-parallel-size-local 8 --data-parallel-start-rank 8 --data-parallel-address 10.0.0.1 --enable-expert-parallel
