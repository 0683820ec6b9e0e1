"""What a simulated replica takes within the limits."""

from __future__ import annotations

from pathlib import Path

from autotune.planning.replica_capacity import one_replica, replica_rate_per_s, study_sample
from autotune.study import study_from_document
from autotune.tuning.answer_study import score_plan


def test_a_replica_is_held_against_requests_that_come_once_it_has_filled() -> None:
    """Of 1,000 requests all have come before the first one ends: they are slower once as many run as there will be."""
    document = {
        "engine": "vllm",
        "model": "llama-3.1-8b",
        "cluster": {"gpus": 8, "gpu": "h100"},
        "workload": {"isl": 500, "osl": 2000, "request_rate_per_s": 12.0},
        "constraints": {"tpot_p99_ms": 14},
    }
    study = study_from_document(document, Path("study.toml"))
    plan = score_plan(study, "TP8").result
    assert plan is not None
    one, sample = one_replica(study, plan), study_sample(study)
    filled, filling = (replica_rate_per_s(one, study, sample, 24.0, request_s=seconds) for seconds in (40.0, 0.0))
    assert 0.8 * filling < filled < filling
