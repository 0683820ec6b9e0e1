"""The schedule of the graph against the cost model's closed form: two ways to the length of one step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autotune.engines import traits_by_name
from autotune.graph import PlanGraph, plan_graph
from autotune.graph.build import build
from autotune.graph.costs import phase_costs
from autotune.graph.drawing import list_schedule
from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.space import enumerate_space
from costmodel.arch import model_names
from tests.graph.plans import DEEPSEEK, QWEN, REFERENCE, random_plans, study


def test_random_plans() -> None:
    """Six models, three engines, both phases: the schedule is within 5 % of the closed form, pipeline fill included."""
    seen = [(plan_graph(asked, plan, phase), phase) for asked, plan, phase in random_plans(seed=20261124, count=45)]
    gaps = {f"{g.model} {g.plan} {phase} x{g.micro_batches}": g.gap_frac for g, phase in seen}
    assert {k: v for k, v in gaps.items() if abs(v) > 0.05} == {}
    assert {g.engine for g, _ in seen} == {"vllm", "sglang", "trtllm"}
    piped = [g for g, _ in seen if g.micro_batches > 1 and max(r.stage for r in g.ranks) > 0]
    assert len(piped) > 9
    for name in ("tp_all_reduce", "moe_all_reduce", "dp_gather"):
        assert len([g for g, _ in seen if any(t.name == name for t in g.tasks)]) > 5, name


@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize("plan", ["R1/PP1/ATP1/ADP128/EP128", "R2/PP4/ATP4/ADP4/EP16", "R1/PP16/ATP2/ADP4/EP8"])
def test_128_gpus(plan: str, phase: str) -> None:
    """DeepSeek-V3 over many nodes, its experts' tokens dispatched and combined: within 5 % as well."""
    graph = plan_graph(study(DEEPSEEK), plan, phase)
    assert abs(graph.gap_frac) < 0.05
    if (plan, phase) == ("R1/PP1/ATP1/ADP128/EP128", "decode"):
        names = [t.name for t in graph.tasks]
        assert {"ep_dispatch", "ep_combine"} < set(names)


def _rescheduled(graph: PlanGraph, name: str, factor: float) -> float:
    tasks = tuple(replace(t, seconds=t.seconds * factor) if t.name == name else t for t in graph.tasks)
    return float(list_schedule(tasks, graph.groups, graph.nodes, graph.edges, len(graph.ranks))[1].max())


@pytest.mark.parametrize("name", ["experts", "attention_decode"])
def test_agreement_can_fail(name: str) -> None:
    """One operator twice as long moves the schedule out of the tolerance: the two are not the same computation."""
    graph = plan_graph(study(REFERENCE))
    assert abs(graph.gap_frac) < 0.05
    assert _rescheduled(graph, name, 2.0) / graph.model_step_s - 1.0 > 0.05


def test_missing_pipeline_edges_show() -> None:
    """Without the hand-overs between stages the schedule is far too short."""
    graph = plan_graph(study(REFERENCE))
    sends = {i for i, t in enumerate(graph.tasks) if t.name == "pp_send"}
    kept = ~np.isin(graph.nodes.task[graph.edges.source], list(sends))
    edges = replace(
        graph.edges,
        source=graph.edges.source[kept],
        target=graph.edges.target[kept],
        order=graph.edges.order[kept],
    )
    _, end = list_schedule(graph.tasks, graph.groups, graph.nodes, edges, len(graph.ranks))
    assert end.max() < 0.9 * graph.model_step_s


@pytest.mark.parametrize(
    ("plan", "isl", "budget", "chunks"),
    [
        ("vllm:R1/PP6/ATP8", 20480, 1025, 20),
        ("trtllm:R2/PP3/ATP8", 1280, 65, 20),
        ("sglang:R1/PP12/ATP4", 1280, 64, 20),
    ],
)
def test_launch_bound_chunks_on_uneven_stages(plan: str, isl: int, budget: int, chunks: int) -> None:
    """Chunks whose launches take longer than their kernels: the stage with the most layers sets the pace.

    vLLM launches steps of up to 512 tokens as captured graphs; a token of the budget is the decoding request's.
    """
    asked = study(
        QWEN,
        "model=llama-3.1-8b",
        "engine=any",
        "cluster.gpus=48",
        "workload.concurrency=1",
        "workload.prefix_cache_hit_frac=0",
        f"workload.isl={isl}",
        f"workload.longest_prompt={isl}",
        f"search.max_num_batched_tokens=[{budget}]",
    )
    graph = plan_graph(asked, plan, "prefill")
    assert any(t.name == "launch_wait" for t in graph.tasks)
    assert graph.micro_batches == chunks
    assert graph.gap_frac == pytest.approx(0.0, abs=0.03)


@pytest.mark.parametrize("plan", ["vllm:R1/PP16/ATP8/EP8", "trtllm:R1/PP16/ATP8/MTP8"])
def test_last_stage_hands_nothing_on(plan: str) -> None:
    """Stages of one small layer, the last with the head: a send that is not there would be 5 % of it."""
    graph = plan_graph(study(REFERENCE, "engine=any", "workload.concurrency=17"), plan)
    assert graph.micro_batches == 16
    assert graph.gap_frac == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("plan", ["trtllm:R1/PP4/ATP1/ADP8/MTP2/EP4", "vllm:R2/PP16/ATP1"])
def test_slow_network(plan: str) -> None:
    """Sends of several milliseconds between stages: they go out and come in at the same time."""
    asked = study(
        REFERENCE,
        "engine=any",
        "cluster.gpus=32",
        "cluster.gpu.scaleout_gb_per_s=2",
        "search.max_num_batched_tokens=[4096]",
    )
    graph = plan_graph(asked, plan, "prefill")
    assert max(t.seconds for t in graph.tasks if t.name == "pp_send") > 3e-3
    assert graph.gap_frac == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("concurrency", [4.0, 32.0, 400.0])
@pytest.mark.parametrize("file", [REFERENCE, DEEPSEEK])
def test_pace_of_a_full_pipeline(file: str, concurrency: float) -> None:
    """Each sequence's next token needs its last one: round after round takes the model's round time."""
    asked = study(file, "engine=any", "cluster.gpus=8")
    for candidate in [c for c in enumerate_space(asked.arch, gpus=8, engine="any").candidates if c.layout.pp > 1][::15]:
        rows = KnobGrid.of(asked, [Variant(candidate=candidate, weight_dtype=None, kv_dtype=None)], [4096])
        costs = phase_costs(rows, concurrency, "decode")
        if rows.steady(np.array([concurrency])).micro_batches[0] != costs.micro_batches:
            continue
        ends = []
        for rounds in (3, 4):
            built = build(
                asked.arch,
                asked.cluster,
                traits_by_name()[candidate.engine],
                candidate.layout,
                costs,
                phase="decode",
                micro_batches=costs.micro_batches,
                replicas=1,
                rounds=rounds,
            )
            ends.append(list_schedule(built.tasks, built.groups, built.nodes, built.edges, len(built.ranks))[1].max())
        assert ends[1] - ends[0] == pytest.approx(costs.round_s, rel=0.05), candidate.layout


@pytest.mark.parametrize("name", model_names())
def test_every_model_can_be_drawn(name: str) -> None:
    """No operator of the cost model is without a place in its layer, and no model leaves the tolerance."""
    asked = study(QWEN, f"model={name}", "engine=any", "cluster.gpus=8", "workload.isl=1000")
    candidate = enumerate_space(asked.arch, gpus=8, engine="any").candidates[-1]
    rows = KnobGrid.of(asked, [Variant(candidate=candidate, weight_dtype=None, kv_dtype=None)], [4096])
    for phase in ("prefill", "decode"):
        costs = phase_costs(rows, 16.0, phase)
        step = rows.batch.step(costs.whole.work)
        for layer, tasks in costs.steps.items():
            booked = float(np.asarray(step.per_layer_s.get(layer, 0.0)).reshape(-1)[0])
            assert sum(t.seconds for _, t in tasks) == pytest.approx(booked, rel=1e-9), layer
