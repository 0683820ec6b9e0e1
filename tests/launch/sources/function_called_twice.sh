MODEL=Qwen/Qwen3-32B
start() {
  local gpus=$1 port=$2
  CUDA_VISIBLE_DEVICES=$gpus vllm serve $MODEL -tp 4 --port $port &
}
start 0,1,2,3 8000
start 4,5,6,7 8001
