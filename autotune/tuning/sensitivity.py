"""Does the choice hold where the study's figures are off? The study is changed by a factor and answered again.

Nothing is interpolated: every point scores plans with the changed study, their knobs solved anew. All plans (at most
`MOST_PLANS`, best first) are scored at the ends of an axis; those that come near the top at either end or in the
study itself are scored at every factor between, and the factor at which the first place changes hands is bisected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from math import sqrt

from autotune.scoring.best_knobs import score
from autotune.scoring.joint_uncertainty import TOLD_APART, confidence
from autotune.scoring.objective import plan_expected
from autotune.scoring.plan_result import PlanResult, plan_key
from autotune.space import Candidate
from autotune.study import Study
from autotune.tuning.answer_study import TuneResult
from autotune.tuning.plan_order import rank
from costmodel.hardware import Cluster

FACTORS = (0.5, 2.0 / 3.0, 0.8, 1.0, 1.25, 1.5, 2.0)
"""Half to twice: data sheets, traffic forecasts and achieved bandwidths are seldom off by more."""
NEAR_THE_TOP = 16
"""Plans of each end, and of the study itself, that are scored between the ends."""
MOST_PLANS = 2_000
"""Plans scored at the ends of an axis."""
FLIP_PRECISION_FRAC = 0.01
"""How narrowly the factor of a flip is bracketed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The study with one figure changed by a factor."""

    factor: float
    best: str | None
    """Plan in first place; None where no plan keeps every limit."""
    best_expected: float | None
    """Its expected objective (`autotune.scoring.objective.expected`), in the metric's unit."""
    chosen_expected: float | None
    """That of the study's winner; None where it breaks a limit."""
    chosen_breaks: tuple[str, ...]
    """Codes of the limits that the study's winner breaks here, worst first."""
    loss_frac: float | None
    """What keeping the study's winner costs against the best; None where it breaks a limit, or no plan is feasible."""
    p_best_is_better: float | None
    """Probability that the best really beats the study's winner; None where either is missing."""

    @property
    def told_apart(self) -> bool:
        """Whether keeping the study's winner is a mistake that the model's uncertainty does not excuse."""
        if self.best is None:
            return False
        return self.chosen_expected is None or (self.p_best_is_better or 0.0) >= TOLD_APART


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """The first factor, going away from the study, at which another plan (or none) is first."""

    factor: float
    to: str | None
    """None: from here on no plan keeps every limit."""
    breaks: tuple[str, ...]
    """Limits that the study's winner breaks there; empty: it is overtaken."""
    end: Point
    """The furthest point on this side whose first plan is not the study's winner: how much the flip matters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisSensitivity:
    """One figure of the study, from half to twice what the study says."""

    name: str
    """`hbm_bandwidth`, `link_bandwidth`, `isl`, `osl` or `load`."""
    base: float
    """What the study says, SI; mean lengths in tokens, load in requests in flight or per second."""
    load_is_chosen: bool
    """Of `load`: the study leaves it open, and the base is what the winner was solved for."""
    points: tuple[Point, ...]
    """By factor; factors that the model's context cannot hold are left out."""
    flips: tuple[Flip, ...]
    """At most one below and one above a factor of 1; one at 1 where the changed question already has another winner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """How far the study's figures may be off before another plan is first."""

    chosen: str
    axes: tuple[AxisSensitivity, ...]
    plans_scored: int
    plans_valid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axis:
    name: str
    base: float
    change: Callable[[float], Study | None]


def sensitivity(
    result: TuneResult,
    *,
    factors: Sequence[float] = FACTORS,
    progress: Callable[[int, int], None] | None = None,
) -> Sensitivity | None:
    """How the winner of `result` fares when the study is off.

    None where no plan is feasible, or the winner is none of `result.space`: nothing to score it by is known here.
    None, too, where the ranking was simulated: points are scored by means.

    Args:
        result: from `tune`.
        factors: positive, ascending, 1 among them.
        progress: called with (axes done, axes in all).

    Raises:
        ValueError: `factors` are not ascending, not positive, or lack 1.
    """
    if list(factors) != sorted(set(factors)) or min(factors, default=0.0) <= 0.0 or 1.0 not in factors:
        raise ValueError(f"factors must be positive, ascending and hold 1, got {tuple(factors)}")
    known = {plan_key(c): c for c in result.space.candidates}
    if not result.ranked or result.ranked[0].plan not in known or result.by_percentile is not None:
        return None
    scored = (known[p.plan] for p in (*result.ranked, *result.infeasible) if p.plan in known)
    pool = tuple(islice(scored, MOST_PLANS))
    axes = _axes(result)
    done = []
    for i, axis in enumerate(axes, start=1):
        done.append(_along(result, axis, pool, factors))
        if progress is not None:
            progress(i, len(axes))
    return Sensitivity(
        chosen=result.ranked[0].plan,
        axes=tuple(done),
        plans_scored=len(pool),
        plans_valid=len(result.space.candidates),
    )


def _axes(result: TuneResult) -> tuple[_Axis, ...]:
    study = result.study
    gpu, work = study.cluster.gpu, study.workload
    load = float(work.concurrency or work.request_rate_per_s or result.ranked[0].knobs.concurrency)
    return (
        _Axis(
            name="hbm_bandwidth",
            base=gpu.hbm_bytes_per_s,
            change=lambda f: _with_bandwidths(study, hbm=f),
        ),
        _Axis(
            name="link_bandwidth",
            base=gpu.scaleout_bytes_per_s,
            change=lambda f: _with_bandwidths(study, links=f),
        ),
        _Axis(name="isl", base=work.isl.mean, change=lambda f: _with_lengths(study, isl=f)),
        _Axis(name="osl", base=work.osl.mean, change=lambda f: _with_lengths(study, osl=f)),
        _Axis(name="load", base=load, change=lambda f: _with_load(study, load, f)),
    )


def _with_bandwidths(study: Study, *, hbm: float = 1.0, links: float = 1.0) -> Study:
    """Every GPU of the study with so many times the bandwidth."""

    def changed(cluster: Cluster) -> Cluster:
        gpu = cluster.gpu
        faster = replace(
            gpu,
            hbm_bytes_per_s=gpu.hbm_bytes_per_s * hbm,
            scaleup_bytes_per_s=gpu.scaleup_bytes_per_s * links,
            scaleout_bytes_per_s=gpu.scaleout_bytes_per_s * links,
        )
        return replace(cluster, gpu=faster)

    axes = study.axes
    transfer = None if axes.link_bytes_per_s is None else axes.link_bytes_per_s * links
    return replace(
        study,
        cluster=changed(study.cluster),
        axes=replace(
            axes,
            link_bytes_per_s=transfer,
            other_gpus=tuple(changed(c) for c in axes.other_gpus),
            gpu_types=tuple(changed(c) for c in axes.gpu_types),
        ),
    )


def _with_lengths(study: Study, *, isl: float = 1.0, osl: float = 1.0) -> Study | None:
    """Longer or shorter prompts and outputs; None where the model's context ends before them."""
    changed, context = study.workload.longer(prompts=isl, outputs=osl), study.arch.max_position_embeddings
    if context and changed.longest_prompt + changed.osl.max > context:
        return None
    return replace(study, workload=changed)


def _with_load(study: Study, load: float, factor: float) -> Study:
    """So many times the load: the rate where the study gives one, else requests in flight, the same for every plan."""
    if study.workload.request_rate_per_s is not None:
        return replace(study, workload=replace(study.workload, request_rate_per_s=load * factor))
    fixed = replace(study.workload, concurrency=max(round(load * factor), 1))
    return replace(study, workload=fixed, search=replace(study.search, concurrency=None))


def _along(result: TuneResult, axis: _Axis, pool: Sequence[Candidate], factors: Sequence[float]) -> AxisSensitivity:
    chosen = result.ranked[0].plan
    studies = {f: s for f in factors if (s := axis.change(f)) is not None}
    ends = {f: _answer(studies[f], pool) for f in {min(studies), max(studies)} if f != 1.0}
    near = {p.plan for answer in (result.ranked, *ends.values()) for p in answer[:NEAR_THE_TOP]} | {chosen}
    few = tuple(c for c in pool if plan_key(c) in near)

    def at(factor: float, study: Study) -> Point:
        return _point(study, factor, chosen, ends.get(factor) or _answer(study, few))

    def between(factor: float) -> Point:
        study = axis.change(factor)
        if study is None:  # cannot be: it lies between two factors that the context holds
            raise ValueError(f"{axis.name} must be changeable by {factor}, it lies between factors that are")
        return at(factor, study)

    points = tuple(at(f, s) for f, s in studies.items())
    middle = next(i for i, p in enumerate(points) if p.factor == 1.0)
    if points[middle].best != chosen:
        here = points[middle]
        flips: tuple[Flip, ...] = (Flip(factor=1.0, to=here.best, breaks=here.chosen_breaks, end=here),)
    else:
        sides = (points[middle::-1], points[middle:])
        flips = tuple(flip for side in sides if (flip := _flip(side, chosen, between)) is not None)
    work = result.study.workload
    return AxisSensitivity(
        name=axis.name,
        base=axis.base,
        load_is_chosen=axis.name == "load" and work.concurrency is None and work.request_rate_per_s is None,
        points=points,
        flips=flips,
    )


def _answer(study: Study, candidates: Sequence[Candidate]) -> tuple[PlanResult, ...]:
    ranked, infeasible = rank(study, score(study, candidates))
    return (*ranked, *infeasible)


def _point(study: Study, factor: float, chosen: str, answer: Sequence[PlanResult]) -> Point:
    winner = next(p for p in answer if p.plan == chosen)
    best = answer[0] if answer[0].feasible else None
    expected = plan_expected(study, winner) if winner.feasible else None
    first = None if best is None else plan_expected(study, best)
    loss, p_better = None, None
    if best is not None and first is not None and expected is not None:
        sign = -1.0 if study.objective.direction == "minimize" else 1.0
        loss = max(0.0, sign * (1.0 - expected / first))
        p_better = 0.0 if best.plan == chosen else confidence(study, [best, winner], None)[chosen].p_best_is_better
    return Point(
        factor=factor,
        best=None if best is None else best.plan,
        best_expected=first,
        chosen_expected=expected,
        chosen_breaks=tuple(v.code for v in winner.violations),
        loss_frac=loss,
        p_best_is_better=p_better,
    )


def _flip(side: Sequence[Point], chosen: str, at: Callable[[float], Point]) -> Flip | None:
    """The first change of the first place along points that start at a factor of 1 and go away from it."""
    for held, lost in pairwise(side):
        if lost.best == chosen:
            continue
        while max(held.factor, lost.factor) / min(held.factor, lost.factor) > 1.0 + FLIP_PRECISION_FRAC:
            middle = at(sqrt(held.factor * lost.factor))
            held, lost = (middle, lost) if middle.best == chosen else (held, middle)
        end = next(p for p in reversed(side) if p.best != chosen)
        return Flip(factor=lost.factor, to=lost.best, breaks=lost.chosen_breaks, end=end)
    return None
