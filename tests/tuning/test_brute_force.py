"""`tune` against brute force on small clusters: the same plans are feasible, and the same one is best."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autotune.scoring.objective import plan_expected
from autotune.space import format_plan
from autotune.study import Study
from autotune.tuning import TuneResult, tune
from tests.tuning.brute import all_layouts, best_by_plan, evaluate, keeps, objective, question

MOST = 3000
"""Requests in flight per replica that brute force tries; beyond the KV room of every plan below."""
FEW = 600
"""The same where latency or throughput binds: a better plan beyond would be found by `tune` and not by brute force."""


def found_by_tune(study: Study, result: TuneResult) -> dict[str, float]:
    """Objective of every ranked plan, larger is better."""
    sign = -1.0 if study.objective.direction == "minimize" else 1.0
    return {p.plan: sign * plan_expected(study, p) for p in result.ranked}


def check(study: Study, wanted: dict[str, float], rel: float = 1e-9) -> TuneResult:
    """The same plans are feasible, none is better or worse than brute force has it, and the best is the best."""
    result = tune(study)
    found = found_by_tune(study, result)
    assert set(found) == set(wanted)
    for plan, value in wanted.items():
        assert found[plan] == pytest.approx(value, rel=rel), plan
    if wanted:
        assert wanted[result.ranked[0].plan] == pytest.approx(max(wanted.values()), rel=rel)
    assert result.complete
    return result


@pytest.mark.parametrize(
    ("model", "engine", "gpus"),
    [("mixtral-8x7b", "vllm", 4), ("mixtral-8x7b", "any", 4), ("llama-3.1-8b", "vllm", 4), ("llama-3.1-8b", "any", 8)],
)
def test_most_throughput_without_limits(model: str, engine: str, gpus: int) -> None:
    """With no limit but the KV room, the most in flight that it holds is the best, or as good as any.

    Once prefill saturates, throughput is flat: the last third of the range then differs by less than a per cent.
    """
    study = question(model, gpus, engine=engine, workload={"isl": 5003, "osl": 1009})
    result = check(study, best_by_plan(study, range(1, MOST)), rel=0.01)
    names = {format_plan(layout, engine) for engine, layout in all_layouts(study)}
    assert names == {p.plan for p in (*result.ranked, *result.infeasible)}


@pytest.mark.parametrize("metric", ["tpot_s", "ttft_s"])
def test_least_latency_with_a_throughput_to_reach(metric: str) -> None:
    """The fewest in flight that reach the wanted throughput are the quickest.

    A first token may come sooner by less than a per cent with more in flight, in a pipeline that they fill.
    """
    study = question(
        gpus=8,
        objective={"minimize": metric},
        constraints={"min_output_tokens_per_s_per_gpu": 97},
        engine="any",
        search={"max_num_batched_tokens": [4096], "min_p_meets": 0.0},
    )
    wanted = best_by_plan(study, range(1, FEW))
    assert len(wanted) > 3
    check(study, wanted, rel=0.01 if metric == "ttft_s" else 1e-9)


@pytest.mark.parametrize("metric", ["tpot_s", "ttft_s"])
@pytest.mark.parametrize(
    "constraints",
    [
        {"tpot_ms": 20},
        {"ttft_ms": 400, "tpot_ms": 30},
        {"tpot_ms": 25, "ttft_ms": 700, "min_output_tokens_per_s_per_gpu": 60},
        {"ttft_ms": 700, "min_gpu_util_frac": 0.6},
    ],
    ids=lambda c: "-".join(c),
)
def test_least_latency_within_limits_on_latency(constraints: dict[str, Any], metric: str) -> None:
    """The probability to keep limits on latency falls with more in flight, that of a floor rises: neither misleads."""
    study = question(
        gpus=8,
        engine="any",
        objective={"minimize": metric},
        constraints=constraints,
        search={"max_num_batched_tokens": [1024, 4096], "min_p_meets": 0.5},
    )
    wanted = best_by_plan(study, range(1, FEW))
    assert len(wanted) > 3
    check(study, wanted)


@pytest.mark.parametrize("in_flight", [1, 7, 64, 997])
def test_concurrency_that_the_workload_fixes(in_flight: int) -> None:
    """Nothing is solved: each plan is what it is at that load, waiting for KV room included."""
    study = question(
        gpus=4,
        engine="any",
        workload={"isl": 1009, "osl": 211, "concurrency": in_flight},
        constraints={"tpot_ms": 40, "ttft_ms": 3000},
    )
    wanted: dict[str, float] = {}
    for engine, layout in all_layouts(study):
        e = evaluate(study, engine, layout, np.array([float(in_flight)]), study.search.max_num_batched_tokens)
        good = keeps(study, e)
        if good.any():
            wanted[format_plan(layout, engine)] = float(objective(study, e)[good].max())
    check(study, wanted)


def test_concurrencies_that_the_study_lists() -> None:
    """Each listed number is tried with each token budget."""
    listed = [8, 40, 200]
    study = question(
        gpus=8,
        constraints={"tpot_ms": 30, "ttft_ms": 1000},
        search={"max_num_batched_tokens": [1024, 4096], "concurrency": listed, "min_p_meets": 0.0},
    )
    wanted: dict[str, float] = {}
    for engine, layout in all_layouts(study):
        e = evaluate(study, engine, layout, np.array(listed, dtype=np.float64), study.search.max_num_batched_tokens)
        good = keeps(study, e)
        if good.any():
            wanted[format_plan(layout, engine)] = float(objective(study, e)[good].max())
    assert wanted
    check(study, wanted)


LIMITED: list[dict[str, Any]] = [
    {"tpot_ms": 20},
    {"ttft_ms": 400},
    {"tpot_ms": 25, "ttft_ms": 700},
    {"tpot_ms": 25, "ttft_ms": 700, "min_output_tokens_per_s_per_gpu": 150},
    {"memory_util_frac": 0.7},
]


@pytest.mark.parametrize("min_p_meets", [0.0, 0.8])
@pytest.mark.parametrize("constraints", LIMITED, ids=lambda c: "-".join(c))
def test_most_throughput_within_limits(constraints: dict[str, Any], min_p_meets: float) -> None:
    """The same plans are feasible, each at its best load."""
    study = question(
        gpus=8,
        constraints=constraints,
        search={"max_num_batched_tokens": [1024, 4096], "min_p_meets": min_p_meets},
    )
    wanted = best_by_plan(study, range(1, FEW if "tpot_ms" in constraints else MOST))
    result = tune(study)
    found = found_by_tune(study, result)
    assert set(found) == set(wanted)
    for plan, value in wanted.items():
        assert found[plan] == pytest.approx(value, rel=1e-9), plan
    if wanted:
        assert wanted[result.ranked[0].plan] == pytest.approx(max(wanted.values()), rel=1e-9)
