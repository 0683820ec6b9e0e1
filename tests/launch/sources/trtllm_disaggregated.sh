#!/bin/bash
export TRTLLM_USE_UCX_KVCACHE=1
exec trtllm-serve disaggregated -c trtllm_disaggregated.yaml -t 7200 -r 7200
