"""The graph of a disaggregated plan: both workers, the KV transfer between them, and what the cost model says of it."""

from __future__ import annotations

import numpy as np
import pytest

from autotune.graph import PlanGraph, plan_graph
from autotune.graph.pool_plan import BOTH, HAND_OVER, KV_TRANSFER
from autotune.study import Study
from costmodel.errors import InputError
from tests.tuning.brute import question

PLANS = ("P4:TP4+D4:TP4", "P2:TP2+D6:PP3/TP2", "P4:PP2/TP2+D4:TP4")


def _study() -> Study:
    return question(
        "llama-3.1-70b",
        cluster={"gpus": 8, "gpu": "h100_sxm", "gpus_per_node": 8},
        workload={"isl": 2003, "osl": 251},
        constraints={"ttft_ms": 4000, "tpot_ms": 40},
        engine="trtllm",
        search={"max_num_batched_tokens": [8192], "disaggregated": "only"},
    )


def _times(graph: PlanGraph, name: str) -> tuple[float, float]:
    chosen = np.array([graph.tasks[task].name == name for task in graph.nodes.task.tolist()])
    return float(graph.start_s[chosen].min()), float(graph.end_s[chosen].max())


@pytest.mark.parametrize("plan", PLANS)
def test_both_pools_agree_with_the_model(plan: str) -> None:
    """The scheduled length is within 5 % of prefill, transfer, hand-over and a decode step in a row."""
    graph = plan_graph(_study(), plan)
    assert graph.phase == BOTH
    assert abs(graph.gap_frac) < 0.05
    parts = [plan_graph(_study(), plan, phase) for phase in ("prefill", "decode")]
    assert graph.scheduled_step_s > sum(part.scheduled_step_s for part in parts)
    assert len(graph.ranks) == sum(len(part.ranks) for part in parts)
    between = len(graph.nodes.task) - sum(part.num_nodes for part in parts)
    assert between >= 3


def test_the_cache_moves_between_prefill_and_decode() -> None:
    """It is sent when the prompt is done, every node of the decode worker comes after it, and no rank is shared."""
    graph = plan_graph(_study(), PLANS[0])
    sent, arrived = _times(graph, KV_TRANSFER)
    begun, taken = _times(graph, HAND_OVER)
    second = graph.nodes.replica == 1
    assert graph.end_s[~second].max() == pytest.approx(arrived)
    assert sent < arrived <= begun < taken
    assert graph.start_s[second].min() >= arrived - 1e-12
    senders = {g.ranks for g in graph.groups if g.kind == "send"}
    assert senders == {(i, 4 + i) for i in range(4)}


def test_collapsed_graphs_keep_the_length() -> None:
    """A view of layers ends when the graph does."""
    whole, view = (plan_graph(_study(), PLANS[1], BOTH, 1, collapse) for collapse in (None, "layer"))
    assert view.num_nodes < whole.num_nodes
    assert view.scheduled_step_s == pytest.approx(whole.scheduled_step_s)


def test_wrong_arguments_are_named() -> None:
    """Replicas beyond one worker of each pool, and the phase of both where there are no pools."""
    with pytest.raises(InputError, match="must be from 1 to the plan's 1, got 2"):
        plan_graph(_study(), PLANS[0], BOTH, 2)
    with pytest.raises(InputError, match="must be one of prefill, decode, got 'both'"):
        plan_graph(_study(), "TP8", BOTH)
