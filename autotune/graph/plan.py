"""From a study and a plan string to the graph of what the plan runs."""

from __future__ import annotations

from autotune.engines import ENGINES
from autotune.graph.build import build
from autotune.graph.collapse import collapsed
from autotune.graph.costs import PhaseCosts, phase_costs
from autotune.graph.pool_plan import BOTH, pool_graph
from autotune.graph.schedule import list_schedule
from autotune.graph.values import COLLAPSES, PHASES, InvalidPlanError, PlanGraph
from autotune.scoring.knob_grid import KnobGrid, Variant
from autotune.scoring.plan_result import PlanResult
from autotune.study import Study, cluster_of
from autotune.tuning.answer_study import BaselineResult, score_named
from costmodel.errors import InputError, Problem

MOST_NODES = 1_500_000
"""A graph beyond this is refused: with all its exports it takes about 1 GB and half a minute."""
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
    if scored.result.pools is not None:
        return pool_graph(
            study, scored, scored.result, phase or BOTH, collapse, micro_batches=micro_batches, replicas=replicas
        )
    phase = phase or "decode"
    _check(scored.result, phase, replicas, collapse, micro_batches)
    return _graph(study, scored.result, scored, phase, replicas, collapse, micro_batches)


def _check(plan: PlanResult, phase: str, replicas: int, collapse: str | None, micro_batches: int | None) -> None:
    problems = []
    if phase not in PHASES:
        problems.append(Problem(path="phase", message=f"must be one of {', '.join(PHASES)}, got {phase!r}"))
    if collapse is not None and collapse not in COLLAPSES:
        problems.append(Problem(path="collapse", message=f"must be one of {', '.join(COLLAPSES)}, got {collapse!r}"))
    most = plan.layout.replicas
    if not 1 <= replicas <= most:
        problems.append(Problem(path="replicas", message=f"must be from 1 to the plan's {most}, got {replicas}"))
    if micro_batches is not None and micro_batches < 1:
        problems.append(Problem(path="micro_batches", message=f"must be at least 1, got {micro_batches}"))
    if problems:
        raise InputError(problems)


def _graph(  # noqa: PLR0913  # those of `plan_graph`
    study: Study,
    plan: PlanResult,
    scored: BaselineResult,
    phase: str,
    replicas: int,
    collapse: str | None,
    micro_batches: int | None,
) -> PlanGraph:
    knobs = plan.knobs
    rows = KnobGrid.of(study, [Variant.of(plan)], [knobs.max_num_batched_tokens])
    costs = phase_costs(rows, float(knobs.concurrency), phase)
    count = _count(study, plan, costs, replicas, micro_batches)
    built = build(
        study.arch,
        cluster_of(study, plan.gpu, plan.layout.gpus),
        ENGINES[plan.engine].traits,
        plan.layout,
        costs,
        phase=phase,
        micro_batches=count,
        replicas=replicas,
    )
    start, end = list_schedule(built.tasks, built.groups, built.nodes, built.edges, len(built.ranks))
    graph = PlanGraph(
        study=study.name,
        model=study.arch.name,
        engine=plan.engine,
        plan=plan.plan,
        phase=phase,
        collapse=None,
        micro_batches=count,
        replicas=replicas,
        tasks=built.tasks,
        groups=built.groups,
        ranks=built.ranks,
        nodes=built.nodes,
        edges=built.edges,
        start_s=start,
        end_s=end,
        scheduled_step_s=float(end.max()),
        model_step_s=costs.model_step_s(count),
        model_round_s=costs.round_s,
        violations=tuple(
            f"{v.code}: {v.value:.6g} against a limit of {v.limit:.6g} {v.unit}".rstrip() for v in plan.violations
        ),
        assumptions=(*study.assumptions, *scored.resolution.assumed, *_assumed(plan, costs, phase, count)),
    )
    return graph if collapse is None else collapsed(graph, collapse)


def _nodes_per_micro_batch(study: Study, plan: PlanResult, costs: PhaseCosts) -> int:
    return plan.layout.width * sum(len(costs.steps[g.name]) * g.count for g in study.arch.groups)


def _count(study: Study, plan: PlanResult, costs: PhaseCosts, replicas: int, asked: int | None) -> int:
    """Micro-batches to draw."""
    each = _nodes_per_micro_batch(study, plan, costs) * replicas
    if each * (asked or 1) > MOST_NODES:
        gpus = plan.layout.pp * plan.layout.width * replicas
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
