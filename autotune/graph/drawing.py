"""What is asked of a graph, and a built graph scheduled: the same for replicas and for pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autotune.graph.build import Built
from autotune.graph.collapse import collapsed
from autotune.graph.schedule import list_schedule
from autotune.graph.values import COLLAPSES, PlanGraph
from autotune.scoring.plan_result import PlanResult
from autotune.study import Study
from costmodel.errors import InputError, Problem

MOST_NODES = 1_500_000
"""A graph beyond this is refused: with all its exports it takes about 1 GB and half a minute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What is to be drawn of a plan; fields as the arguments of `plan_graph`."""

    phase: str
    replicas: int
    collapse: str | None
    micro_batches: int | None

    def check(self, phases: Sequence[str], most_replicas: int) -> None:
        """Raise `InputError` with every field that is malformed."""
        problems = []
        if self.phase not in phases:
            problems.append(Problem(path="phase", message=f"must be one of {', '.join(phases)}, got {self.phase!r}"))
        if self.collapse not in (None, *COLLAPSES):
            message = f"must be one of {', '.join(COLLAPSES)}, got {self.collapse!r}"
            problems.append(Problem(path="collapse", message=message))
        if not 1 <= self.replicas <= most_replicas:
            message = f"must be from 1 to the plan's {most_replicas}, got {self.replicas}"
            problems.append(Problem(path="replicas", message=message))
        if self.micro_batches is not None and self.micro_batches < 1:
            problems.append(Problem(path="micro_batches", message=f"must be at least 1, got {self.micro_batches}"))
        if problems:
            raise InputError(problems)


def scheduled(
    study: Study,
    plan: PlanResult,
    built: Built,
    drawing: Drawing,
    *,
    model_s: tuple[float, float | None],
    assumptions: Sequence[str],
) -> PlanGraph:
    """The graph of a plan with every node at its time, collapsed as asked.

    `model_s`: the cost model's seconds of the step, and of a round (`PlanGraph.model_round_s`).
    """
    start, end = list_schedule(built.tasks, built.groups, built.nodes, built.edges, len(built.ranks))
    graph = PlanGraph(
        study=study.name,
        model=study.arch.name,
        engine=plan.engine,
        plan=plan.plan,
        phase=drawing.phase,
        collapse=None,
        micro_batches=drawing.micro_batches or 1,
        replicas=drawing.replicas,
        tasks=built.tasks,
        groups=built.groups,
        ranks=built.ranks,
        nodes=built.nodes,
        edges=built.edges,
        start_s=start,
        end_s=end,
        scheduled_step_s=float(end.max()),
        model_step_s=model_s[0],
        model_round_s=model_s[1],
        violations=tuple(
            f"{v.code}: {v.value:.6g} against a limit of {v.limit:.6g} {v.unit}".rstrip() for v in plan.violations
        ),
        assumptions=(*study.assumptions, *assumptions),
    )
    return graph if drawing.collapse is None else collapsed(graph, drawing.collapse)
