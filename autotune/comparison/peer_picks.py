"""A peer's picks in our ranking, and where the predictions part: at the peer's own load, then operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autotune.comparison.aiconfigurator import PeerPick
from autotune.comparison.operators import time_rows, where_from
from autotune.comparison.values import TimeRow
from autotune.engines import ENGINES
from autotune.study import Study, on_cluster
from autotune.tuning import PlanResult, TuneResult, score_plan, tune
from autotune.tuning.answer_study import place
from costmodel.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedPick:
    """One pick of the peer's beside what we make of it."""

    pick: PeerPick
    plan: str
    """Its plan string on the study's GPUs."""
    replicas: int
    idle_gpus: int
    """GPUs of the cluster that whole replicas of the pick leave idle."""
    refused: str
    """Why we have no figures of it: a rule of its engine, or a plan that cannot be read; empty: we have."""
    at_its_load: PlanResult | None
    """With as many requests in flight as the peer lets in, where one kind of replica does all."""
    at_our_load: PlanResult | None
    """With the load that we find best within the limits."""
    rank: int | None
    """Where it stands in our ranking with our load; None: it breaks a limit, or leaves GPUs idle."""
    time: tuple[TimeRow, ...]
    """GPU-seconds of a request: of the pick (`current`) and of our first plan (`candidate`), each at our load."""
    why: tuple[str, ...]
    """The largest of those differences, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """All picks, and the answer that they are held against."""

    study: Study
    result: TuneResult
    picks: tuple[ExplainedPick, ...]
    differs: tuple[str, ...]
    """How the peer's question differs from the study's."""


def explain_picks(
    study: Study, picks: Sequence[PeerPick], *, progress: Callable[[int, int], None] | None = None
) -> Explanation:
    """Find a peer's picks in the ranking of a study.

    `progress` is told of (plans scored, plans in all).
    """
    result = tune(study, progress=progress)
    found = tuple(_explained(study, result, pick) for pick in picks)
    return Explanation(study=study, result=result, picks=found, differs=_differs(study, picks))


def _differs(study: Study, picks: Sequence[PeerPick]) -> tuple[str, ...]:
    """Lengths and models that are not the study's."""
    work, said = study.workload, []
    lengths = sorted({(p.isl, p.osl) for p in picks})
    own = (round(work.isl.mean), round(work.osl.mean))
    for isl, osl in lengths:
        if (isl, osl) != own:
            said.append(f"the peer was asked of {isl:,} + {osl:,} tokens, the study is of {own[0]:,} + {own[1]:,}")
    name = study.arch.name.rpartition("/")[2].lower()
    said += [
        f"the peer was asked of {model}, the study is of {study.arch.name}"
        for model in sorted({p.model for p in picks if p.model})
        if model.rstrip("/").rpartition("/")[2].lower() != name
    ]
    gpu = study.cluster.gpu.name.lower()
    said += [
        f"the peer was asked of {system}, the study is of {study.cluster.gpu.name}"
        for system in sorted({p.system for p in picks if p.system})
        if system.lower() not in gpu and gpu not in system.lower()
    ]
    return tuple(said)


def _explained(study: Study, result: TuneResult, pick: PeerPick) -> ExplainedPick:
    gpus = study.cluster.gpus
    replicas = max(gpus // pick.gpus, 1)
    used = replicas * pick.gpus
    text = pick.plan(replicas, dense=not study.arch.is_moe)
    own, refused = study, ""
    ours: PlanResult | None = None
    theirs: PlanResult | None = None
    if used > gpus:
        refused = f"a replica takes {pick.gpus} GPUs, the study has {gpus}"
    elif pick.engine not in ENGINES:
        refused = f"its engine, {pick.engine}, is not known here"
    else:
        own = study if used == gpus else on_cluster(study, replace(study.cluster, gpus=used))
        own = replace(own, baseline=None)
        try:
            ours, refused = _scored(own, text, None)
            if not refused and pick.prefill is None:
                theirs, _ = _scored(own, text, replicas * pick.in_flight)
        except InputError as error:
            refused = "; ".join(problem.message for problem in error.problems)
    first = next(iter(result.ranked), None)
    rows = () if ours is None or first is None or first.plan == ours.plan else time_rows(ours, first)
    return ExplainedPick(
        pick=pick,
        plan=text,
        replicas=replicas,
        idle_gpus=max(gpus - used, 0),
        refused=refused,
        at_its_load=theirs,
        at_our_load=ours,
        rank=place(study, ours, result.ranked) if ours is not None and used == gpus else None,
        time=rows,
        why=where_from(rows),
    )


def _scored(study: Study, text: str, concurrency: int | None) -> tuple[PlanResult | None, str]:
    """A pick under our model, and the rule of its engine that it breaks."""
    found = score_plan(study, text, concurrency=concurrency)
    return found.result, "; ".join(f"{v.rule}: {v.message}" for v in found.resolution.violations)
