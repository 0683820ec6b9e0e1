python -m sglang_router.launch_server --model-path meta-llama/Llama-3.3-70B-Instruct --dp-size 2 --tp-size 4 --host 0.0.0.0
