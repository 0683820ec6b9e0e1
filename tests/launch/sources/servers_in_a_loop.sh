for i in 0 1 2 3; do
  CUDA_VISIBLE_DEVICES=$((i*2)),$((i*2+1)) vllm serve Qwen/Qwen3-32B --tensor-parallel-size 2 --port $((8000+i)) --enable-chunked-prefill=false --no-enable-prefix-caching &
done
wait
