"""The loads of disaggregated plans against a fine grid of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autotune.disaggregated.operating_points import served_together
from autotune.disaggregated.pairs import Pair, ranking_key
from autotune.disaggregated.plan_results import disaggregated_plan, pair_results
from autotune.disaggregated.pool_rows import Evaluator
from autotune.disaggregated.refine_loads import at_best_loads
from autotune.disaggregated.search import search_pools
from autotune.study import Study
from tests.properties.studies import study_of

GRID = 300
CLOSE = 1e-3
"""What a grid of so many loads leaves, and some."""
LIMITS = ({}, {"e2e_ms": 23571.0}, {"ttft_ms": 1500.0, "tpot_ms": 60.0}, {"e2e_ms": 23571.0, "min_gpu_util_frac": 0.8})


def asked(
    limits: dict[str, float], workload: dict[str, float] | None = None, objective: dict[str, str] | None = None
) -> Study:
    """A study whose plans have loads to choose."""
    return study_of({
        "objective": objective or {"maximize": "total_tokens_per_s_per_gpu"},
        "name": "loads",
        "engine": "vllm",
        "model": "CohereLabs/c4ai-command-a-03-2025",
        "cluster": {"gpus": 16, "gpu": "h100_pcie"},
        "workload": {"isl": 518, "osl": 175, "prefix_cache_hit_frac": 0.857, **(workload or {})},
        "constraints": limits,
        "search": {"max_num_batched_tokens": [16384]},
    })  # fmt: skip


def _best_of_a_grid(study: Study, pair: Pair) -> float:
    """The key of the best of many loads of either pool, up to the most that each is tried at."""
    sides = []
    for points, at, copies in (
        (pair.prefill, pair.prefill_at, pair.prefill_copies),
        (pair.decode, pair.decode_at, pair.decode_copies),
    ):
        row, most = points.row[at], points.at[points.row == points.row[at]].max()
        replicas = points.rows.layouts[points.layout[at]].layout.replicas
        loads = np.linspace(0.0, most, GRID + 1)[1:]
        if points.rows.role == "decode":
            loads = np.unique(np.maximum(np.rint(loads / replicas), 1.0) * replicas)
        found = Evaluator(points.rows, np.full(loads.size, row))(loads).columns
        sides.append((points.rows.cluster, found.times(np.full(loads.size, float(copies))), loads.size))
    (first, prefill, p_size), (second, decode, d_size) = sides
    rows, columns = (index.ravel() for index in np.indices((p_size, d_size)))
    service, price = served_together(study, first, prefill.take(rows), second, decode.take(columns))
    return float(ranking_key(study, service, price, feasible=True).max())


@pytest.mark.parametrize("limits", LIMITS, ids=lambda limits: "+".join(limits) or "none")
def test_no_load_of_a_fine_grid_is_better(limits: dict[str, float]) -> None:
    """Plans at their loads come up to the best of 300 loads of either pool, and none is worse than the search said."""
    study = asked(limits)
    pairs = search_pools(study, keep=12).pairs
    better = 0
    for before, after in zip(pairs, at_best_loads(study, pairs), strict=True):
        assert after.feasible
        assert after.layouts == before.layouts
        assert after.key >= before.key
        assert after.key >= _best_of_a_grid(study, before) * (1.0 - CLOSE)
        better += after.key > before.key * (1.0 + CLOSE)
    assert bool(better) == bool(limits)


def test_a_request_rate_leaves_nothing_to_choose() -> None:
    """Pairs stay as the search found them."""
    study = asked({}, {"request_rate_per_s": 10.0})
    pairs = search_pools(study, keep=3).pairs
    assert at_best_loads(study, pairs) == list(pairs)


@pytest.mark.parametrize("objective", [{"minimize": "tpot_s"}, {"maximize": "requests_per_s"}], ids=str)
def test_admission_follows_the_objective(objective: dict[str, str]) -> None:
    """With requests in flight that are given, all are admitted where throughput alone counts, and few for TPOT.

    So a looser limit on TPOT takes nothing from a plan that was admitted few for it.
    """
    study, free = (asked(limits, {"concurrency": 200}, objective) for limits in ({"tpot_ms": 40.0}, {}))
    pairs = at_best_loads(free, search_pools(free, keep=5).pairs)
    full = [pair.decode.at[pair.decode_at] == pair.decode.most[pair.decode_at] for pair in pairs]
    assert full == [objective == {"maximize": "requests_per_s"}] * 5
    looser = replace(study, constraints=replace(study.constraints, tpot_s=0.06))
    tight, loose = (
        pair_results(s, at_best_loads(s, search_pools(s, keep=1).pairs), home="h100_pcie")[0].metrics
        for s in (study, looser)
    )
    assert loose["tpot_s"] <= tight["tpot_s"] or "maximize" in objective
    assert loose["requests_per_s"] >= tight["requests_per_s"] or "minimize" in objective


def test_the_token_budget_that_serves_most() -> None:
    """With requests in flight that are given, a choice of token budgets serves as many as the better one alone.

    Loads of decode pools are tried so far apart here that both budgets seem to serve alike.
    """
    served = {}
    for budgets in ((8192, 2048), (8192,), (2048,)):
        study = study_of({
            "name": "budgets",
            "engine": "vllm",
            "model": "XiaomiMiMo/MiMo-7B-Base",
            "cluster": {"gpus": 4, "gpu": "b200_sxm"},
            "workload": {"isl": 89, "osl": 4, "concurrency": 1000},
            "objective": {"minimize": "ttft_s"},
            "search": {"max_num_batched_tokens": list(budgets)},
        })  # fmt: skip
        gpu = study.cluster.gpu
        quick = {dtype: 1.5 * flops for dtype, flops in gpu.peak_flops_per_s.items()}
        faster = replace(gpu, peak_flops_per_s=quick, base=gpu.measured_as)
        faster_study = replace(study, cluster=replace(study.cluster, gpu=faster))
        plan = disaggregated_plan(faster_study, "P2:R2+D2:R2")[1]
        assert plan is not None
        served[budgets] = plan.metrics["requests_per_s"]
    assert served[8192,] > 1.3 * served[2048,]
    assert served[8192, 2048] == served[8192,]
