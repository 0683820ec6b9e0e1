"""From a study and a plan string to the graph of what the plan runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autotune.engines import ENGINES
from autotune.graph.build import build
from autotune.graph.costs import PhaseCosts, phase_costs
from autotune.graph.drawing import MOST_NODES, Drawing, scheduled
from autotune.graph.pool_plan import BOTH, pool_graph
from autotune.graph.values import PHASES, InvalidPlanError, PlanGraph
from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.scoring.plan_result import PlanResult
from autotune.study import Study, cluster_of
from autotune.tuning.answer_study import score_named
from costmodel.errors import InputError

PATIENT_NODES = 400_000
"""Once the pipeline is full, further micro-batches are drawn up to here: all exports take about 10 s."""


def plan_graph(
    study: Study,
    plan: str | None = None,
    phase: str | None = None,
    replicas: int = 1,
    collapse: str | None = None,
    *,
    micro_batches: int | None = None,
) -> PlanGraph:
    """Draw and schedule what a plan runs in one phase.

    Args:
        study: from `load_study`.
        plan: a plan string; None is the study's baseline with its knobs.
        phase: `prefill` (one prompt of mean length, alone in its replica) or `decode` (one token for every
            running sequence); of a disaggregated plan also `both`, with the KV transfer between the pools. None:
            `decode`, of a disaggregated plan `both`.
        replicas: how many of the plan's replicas to draw; they are identical and share nothing.
        collapse: `rank` joins the ranks of a stage, `layer` the operators of a layer as well; None: neither.
        micro_batches: of the step; None: as many as the plan runs, or fewer where the graph would become too large.

    Raises:
        InputError: an argument is malformed, the study has no baseline, or the graph would be too large.
        InvalidPlanError: the engine's rules forbid the plan.
    """
    scored = score_named(study, plan, path="--plan", missing="the study has none: name the plan to draw")
    if scored.result is None:
        raise InvalidPlanError(scored.text, scored.resolution.violations)
    pooled = scored.result.pools is not None
    usual = BOTH if pooled else "decode"
    drawing = Drawing(phase=phase or usual, replicas=replicas, collapse=collapse, micro_batches=micro_batches)
    return (pool_graph if pooled else _graph)(study, scored.result, drawing, scored.resolution.assumed)


def _graph(study: Study, plan: PlanResult, drawing: Drawing, assumed: Sequence[str]) -> PlanGraph:
    drawing.check(PHASES, plan.layout.replicas)
    knobs, phase = plan.knobs, drawing.phase
    rows = KnobGrid.of(study, [Variant.of(plan)], [knobs.max_num_batched_tokens])
    costs = phase_costs(rows, float(knobs.concurrency), phase)
    count = _count(study, plan, costs, drawing)
    built = build(
        study.arch,
        cluster_of(study, plan.gpu, plan.layout.gpus),
        ENGINES[plan.engine].traits,
        plan.layout,
        costs,
        phase=phase,
        micro_batches=count,
        replicas=drawing.replicas,
    )
    return scheduled(
        study,
        plan,
        built,
        replace(drawing, micro_batches=count),
        model_s=(costs.model_step_s(count), costs.round_s),
        assumptions=(*assumed, *_assumed(plan, costs, phase, count)),
    )


def _count(study: Study, plan: PlanResult, costs: PhaseCosts, drawing: Drawing) -> int:
    """Micro-batches to draw."""
    replicas, asked, width = drawing.replicas, drawing.micro_batches, plan.layout.width
    each = width * sum(len(costs.steps[g.name]) * g.count for g in study.arch.groups) * replicas
    if each * (asked or 1) > MOST_NODES:
        gpus = plan.layout.pp * width * replicas
        raise InputError.single(
            "micro_batches" if asked else "replicas" if replicas > 1 else "plan",
            f"the graph of {gpus} GPUs has about {each} nodes for each micro-batch, and may have {MOST_NODES} in all",
        )
    return asked or min(costs.micro_batches, max(PATIENT_NODES // each, min(plan.layout.pp, MOST_NODES // each)))


def _assumed(plan: PlanResult, costs: PhaseCosts, phase: str, count: int) -> tuple[str, ...]:
    out = [_step_in_words(costs, phase)]
    if phase == "prefill" and plan.layout.attn_dp > 1:
        out.append("the prompt is the work of attention-DP rank 0; the others take part in its experts alone")
    if count != costs.micro_batches:
        out.append(f"{count} micro-batches are drawn where the step has {costs.micro_batches}: each costs the same")
    if costs.each != 1.0:
        out.append("the time of drafting is spread over the operators of the step that verifies")
    out.append("every rank is drawn with the work of the busiest: the fullest experts, the busiest attention rank")
    out.append("a step launches the attention kernels of prompts and of decoding, also where one has nothing to do")
    out.append("operators of a layer do not overlap, as in the measurements that the cost model was fitted on")
    out.append("seconds are the cost model's formulas; the residuals that calibration adds to TTFT and TPOT are not in")
    return tuple(out)


def _step_in_words(costs: PhaseCosts, phase: str) -> str:
    count = costs.micro_batches
    if phase == "decode":
        what = "one token" if costs.each == 1.0 else f"{costs.each:g} tokens (the last one and the drafted ones)"
        return (
            f"{what} for each of the {costs.tokens:.4g} sequences that an attention rank decodes in each of {count} "
            f"micro-batches, at a mean context of {costs.context:.6g} tokens"
        )
    return (
        f"one prompt of mean length, alone in its replica, in {count} chunks of {costs.tokens:.6g} tokens, each at the "
        "mean cost of all"
    )
