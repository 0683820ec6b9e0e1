"""A study that is compared on, and plans of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autotune.study import Study, study_from_document
from autotune.tuning import PlanResult
from autotune.tuning.answer_study import score_plan


def dense(**tables: Any) -> Study:
    """A dense model on 16 GPUs of two nodes, with a switch whose seconds are primes."""
    document: dict[str, Any] = {
        "engine": "vllm",
        "model": "llama-3.1-8b",
        "cluster": {"gpus": 16, "gpu": "h100_sxm", "gpus_per_node": 8},
        "workload": {"isl": 1009, "osl": 211, "concurrency": 64},
        "search": {"max_num_batched_tokens": [4096]},
        "switch": {"startup_s": 101.0, "warmup_s": 13.0, "drain_s": 0.7, "storage_gb_per_s": 3.0},
        **tables,
    }
    return study_from_document(document, Path("dense.toml"))


def scored(study: Study, text: str) -> PlanResult:
    """A plan that can be launched."""
    found = score_plan(study, text).result
    assert found is not None
    return found
