"""The metrics that tables and charts single out, from the one table of all."""

from __future__ import annotations

from autotune.metrics import METRICS

TTFT, TPOT = METRICS["ttft_longest_s"], METRICS["tpot_s"]
PER_GPU, OUT_PER_GPU = METRICS["total_tokens_per_s_per_gpu"], METRICS["output_tokens_per_s_per_gpu"]
COST = METRICS["usd_per_million_tokens"]
