"""Documents of other parts of the product, as their contracts fix them."""

from __future__ import annotations

from typing import Any

GIB = 2**30


def evaluation_document(**changes: Any) -> dict[str, Any]:
    """An evaluation with every fixed field, each of its verdicts, and parts of different shapes."""
    document: dict[str, Any] = {
        "study": "reference-128",
        "verdict": "FAILED",
        "plan": "vllm:R4/PP2/ATP4/ADP4/MTP1/EP16",
        "layout": {"replicas": 4, "pp": 2, "stage_layers": [8, 8], "attn_tp": 4, "attn_dp": 4, "moe_ep": 16},
        "summary": {"binding": "min_stage_tokens_per_s_per_gpu", "distance_frac": -0.28, "p_meets": 0.0},
        "checks": [
            {"name": "ttft_ms", "value": 107.2, "limit": 10000.0, "unit": "ms", "passed": True},
            {"name": "gpus", "value": 128, "limit": 128, "unit": "GPUs", "passed": True},
            {"name": "memory_util_frac", "value": 0.067, "limit": 0.9, "unit": "of GPU memory", "passed": True},
            {
                "name": "min_stage_tokens_per_s_per_gpu",
                "value": 26068.0,
                "limit": 100000.0,
                "unit": "tokens/s per GPU of a stage",
                "passed": False,
            },
            {"name": "bandwidth_util_frac", "value": 0.25, "limit": None, "unit": "of time", "passed": True},
        ],
        "compatibility": {
            "gpus": 128,
            "ranks_per_node": 8,
            "engines": ["vllm", "sglang"],
            "expert_modules": {"distinct": 256, "instances": 1024, "per_gpu": 8, "per_layer": 1},
            "axes": [{"axis": "TP", "size": 4, "tier": "NVLink"}, {"axis": "EP", "size": 16, "tier": "network"}],
        },
        "performance": {"ttft_s": 0.1072, "tpot_s": 0.0054, "stage_tokens_per_s_per_gpu": 26068.0},
        "strategy": [
            {"axis": "EP", "value": 16, "verdict": "OPTIMAL", "loss_frac": 0.0, "reason": "no other is better"},
            {"axis": "TP", "value": 4, "verdict": "ACCEPTABLE", "loss_frac": 0.031, "reason": "TP4 adds 0.31 ms"},
            {"axis": "PP", "value": 2, "verdict": "HARMFUL", "loss_frac": 0.12, "reason": "PP16 is better"},
            {"axis": "DP", "value": 4, "verdict": "INFEASIBLE", "loss_frac": None, "reason": "breaks a limit"},
        ],
        "memory": [
            {"stage": stage, "kind": kind, "bytes": held * GIB}
            for stage in (0, 1)
            for kind, held in (("experts", 1.13), ("attention", 0.13), ("kv_cache", 1.2 + stage), ("free", 55.0))
        ],
        "balance": {"experts_per_gpu": 1, "imbalance_frac": 0.0, "layers_per_stage": [8, 8]},
        "claims": [
            {"claim": "128 GPUs", "status": "confirmed", "claimed": 128, "computed": 128, "reason": "4 x 2 x 16"},
            {"claim": "2:1 modules", "status": "refuted", "claimed": "2:1", "computed": "8:1", "reason": "replicas"},
            {"claim": "about 20 GB", "status": "undecidable", "claimed": 2e10, "computed": None, "reason": "no width"},
        ],
        "assumptions": ["the report gives no hidden size: 2,048"],
    }
    return document | changes
