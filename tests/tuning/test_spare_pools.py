"""Pools that serve little more than comes may not serve it, in every command that says how surely limits are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.comparison import compare
from autotune.disaggregated.rescore import both_pools
from autotune.evaluation import evaluate
from autotune.scoring.plan_result import PlanResult
from autotune.study import Study, study_from_document
from autotune.tuning import score_plan, tune
from costmodel.estimate.normal import normal_cdf
from costmodel.estimate.result import spare_sd

PLANS = {"decode": "P8:R1 TP8 + D8:R1 TP8", "prefill": "P4:R1 TP4 + D8:R1 TP8"}
"""By which pool has less to spare."""
SLOTS = {"decode": 64, "prefill": 1024}


def asked(slower: str, rate: float) -> Study:
    """Llama-3.1-70B with limits that latencies never break."""
    table: dict[str, Any] = {
        "model": "llama-70b",
        "engine": "vllm",
        "cluster": {"gpus": 16 if slower == "decode" else 12, "gpu": "h100"},
        "workload": {"isl": 1000, "osl": 200, "request_rate_per_s": rate},
        "constraints": {"ttft_ms": 1e6, "tpot_ms": 1e5},
        "search": {"disaggregated": "only", "min_p_meets": 0.0},
        "disaggregation": {"decode_max_num_seqs": SLOTS[slower]},
        "baseline": {"plan": PLANS[slower]},
    }
    return study_from_document(table, Path("spare.toml"))


def scored(study: Study, plan: str) -> PlanResult:
    """The plan."""
    found = score_plan(study, plan).result
    assert found is not None
    return found


def most(slower: str) -> float:
    """Requests per second that the plan serves where far more come."""
    return scored(asked(slower, 1e4), PLANS[slower]).metrics["requests_per_s"]


def test_spare_by_hand() -> None:
    """Logs over their standard deviation: none below what comes, no end without an error."""
    found = spare_sd(np.array([np.e, 0.5, 2.0]), 1.0, np.array([0.5, 0.5, 0.0]))
    assert found == pytest.approx([2.0, 0.0, np.inf])


@pytest.mark.parametrize("slower", list(PLANS))
def test_pools_near_their_most_may_not_serve_the_rate(slower: str) -> None:
    """At 97 % it is little more than even, as surely as rates are known; the less comes the surer."""
    able = most(slower)
    shares = (0.33, 0.8, 0.9, 0.97)
    kept = [scored(asked(slower, share * able), PLANS[slower]).p_meets for share in shares]
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > 0.99
    assert 0.5 < kept[-1] < 0.75
    study = asked(slower, 0.97 * able)
    pools = both_pools(study, scored(study, PLANS[slower]))
    sd = float(pools[0 if slower == "prefill" else 1].factors.throughput_log_sd[0])
    assert kept[-1] == pytest.approx(float(normal_cdf(np.array([np.log(1.0 / 0.97) / sd]))[0]), abs=0.03)


def test_every_command_says_so() -> None:
    """`evaluate`, `tune` and `compare` have the same probability of the same plan."""
    study = asked("decode", 0.97 * most("decode"))
    plan = scored(study, PLANS["decode"])
    result = tune(study)
    (row,) = (p for p in (*result.ranked, *result.infeasible) if p.plan == plan.plan)
    assert row.p_meets == pytest.approx(plan.p_meets, rel=1e-9)
    evaluated = evaluate(study).result
    assert evaluated is not None
    assert evaluated.p_meets == pytest.approx(plan.p_meets, rel=1e-9)
    compared = compare(study, candidate=PLANS["decode"], scenarios=False).current.result
    assert compared is not None
    assert compared.p_meets == pytest.approx(plan.p_meets, rel=1e-9)
