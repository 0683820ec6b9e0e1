cat > /tmp/extra.yaml <<EOF
tensor_parallel_size: 8
moe_expert_parallel_size: 8
enable_attention_dp: true
kv_cache_config:
  dtype: fp8
  free_gpu_memory_fraction: 0.85
EOF
mpirun -n 8 trtllm-llmapi-launch trtllm-serve deepseek-ai/DeepSeek-R1 --max_batch_size 256 --extra_llm_api_options /tmp/extra.yaml
