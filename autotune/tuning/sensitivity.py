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

from autotune.scoring.best_knobs import score_asked
from autotune.scoring.joint_uncertainty import TOLD_APART, confidence
from autotune.scoring.objective import behind, plan_expected
from autotune.scoring.plan_order import rank
from autotune.scoring.plan_result import PlanResult, plan_key
from autotune.space import Candidate
from autotune.study import Study
from autotune.tuning.answer import TuneResult
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
    loses_time: bool
    """Whether that is how much longer a request takes: at a request rate plans serve alike."""
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
    result: TuneResult, *, factors: Sequence[float] = FACTORS, progress: Callable[[int, int], None] | None = None
) -> Sensitivity | None:
    """How the winner of `result` fares when the study is off.

    None where no plan is feasible, or the winner is none of `result.space`: nothing to score it by is known here.
    None, too, where the ranking was simulated: points are scored by means.

    Args:
        result: from `tune`.
        factors: positive, ascending, 1 among them.
        progress: called with (steps done, steps in all): the ends of every axis, what is between them, the flips.

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
    return Sensitivity(
        chosen=result.ranked[0].plan,
        axes=_along(result, pool, factors, progress or (lambda _done, _steps: None)),
        plans_scored=len(pool),
        plans_valid=len(result.space.candidates),
    )


def _axes(result: TuneResult) -> tuple[_Axis, ...]:
    study = result.study
    gpu, work = study.cluster.gpu, study.workload
    load = float(work.concurrency or work.request_rate_per_s or result.ranked[0].knobs.concurrency)
    return (
        _Axis(name="hbm_bandwidth", base=gpu.hbm_bytes_per_s, change=lambda f: _with_bandwidths(study, hbm=f)),
        _Axis(name="link_bandwidth", base=gpu.scaleout_bytes_per_s, change=lambda f: _with_bandwidths(study, links=f)),
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


def _along(
    result: TuneResult, pool: Sequence[Candidate], factors: Sequence[float], progress: Callable[[int, int], None]
) -> tuple[AxisSensitivity, ...]:
    """Every axis, step by step together: a call of the cost model takes as long for one of them as for all."""
    chosen, axes, steps = result.ranked[0].plan, _axes(result), 3
    studies = [{f: s for f in factors if (s := axis.change(f)) is not None} for axis in axes]
    ends = [(i, f) for i, known in enumerate(studies) for f in sorted({min(known), max(known)}) if f != 1.0]
    answers = dict(zip(ends, _answers([(studies[i][f], pool) for i, f in ends]), strict=True))
    progress(1, steps)
    few = []
    for i in range(len(axes)):
        seen = (result.ranked, *(answer for (axis, _), answer in answers.items() if axis == i))
        near = {p.plan for answer in seen for p in answer[:NEAR_THE_TOP]} | {chosen}
        few.append(tuple(c for c in pool if plan_key(c) in near))
    between = [(i, f) for i, known in enumerate(studies) for f in known if (i, f) not in answers]
    answers |= zip(between, _answers([(studies[i][f], few[i]) for i, f in between]), strict=True)
    points = [
        tuple(_point(study, f, chosen, answers[i, f]) for f, study in known.items()) for i, known in enumerate(studies)
    ]
    progress(2, steps)

    def at(asked: Sequence[tuple[int, float]]) -> list[Point]:
        changed = [(i, f, study) for i, f in asked if (study := axes[i].change(f)) is not None]
        found = _answers([(study, few[i]) for i, _, study in changed])
        return [_point(study, f, chosen, answer) for (_, f, study), answer in zip(changed, found, strict=True)]

    flips = _flips(points, chosen, at)
    progress(3, steps)
    work = result.study.workload
    return tuple(
        AxisSensitivity(
            name=axis.name,
            base=axis.base,
            load_is_chosen=axis.name == "load" and work.concurrency is None and work.request_rate_per_s is None,
            points=own,
            flips=turns,
        )
        for axis, own, turns in zip(axes, points, flips, strict=True)
    )


def _answers(asked: Sequence[tuple[Study, Sequence[Candidate]]]) -> list[tuple[PlanResult, ...]]:
    """The plans of each study, best first; studies under one load are scored together, as many as memory allows."""
    groups: list[list[int]] = []
    for i, (study, candidates) in enumerate(asked):
        held = 0 if not groups else sum(len(asked[k][1]) for k in groups[-1])
        if groups and _load(asked[groups[-1][0]][0]) == _load(study) and held + len(candidates) <= MOST_PLANS:
            groups[-1].append(i)
        else:
            groups.append([i])
    scored = [results for group in groups for results in score_asked([asked[i] for i in group])]
    ranked = [rank(study, results) for (study, _), results in zip(asked, scored, strict=True)]
    return [(*feasible, *infeasible) for feasible, infeasible in ranked]


def _load(study: Study) -> tuple[float | None, float | None]:
    return study.workload.concurrency, study.workload.request_rate_per_s


def _point(study: Study, factor: float, chosen: str, answer: Sequence[PlanResult]) -> Point:
    winner = next(p for p in answer if p.plan == chosen)
    best = answer[0] if answer[0].feasible else None
    expected = plan_expected(study, winner) if winner.feasible else None
    first = None if best is None else plan_expected(study, best)
    lost, p_better = None, None
    if best is not None and expected is not None:
        lost = behind(study, winner, best)
        p_better = 0.0 if best.plan == chosen else confidence(study, [best, winner], None)[chosen].p_best_is_better
    return Point(
        factor=factor,
        best=None if best is None else best.plan,
        best_expected=first,
        chosen_expected=expected,
        chosen_breaks=tuple(v.code for v in winner.violations),
        loss_frac=None if lost is None else max(0.0, lost.frac),
        loses_time=lost is not None and lost.metric == "e2e_s",
        p_best_is_better=p_better,
    )


@dataclass(slots=True, kw_only=True)
class _Turn:
    """Between two points next to each other the first place changes hands."""

    axis: int
    held: Point
    lost: Point
    side: Sequence[Point]


def _flips(
    points: Sequence[Sequence[Point]], chosen: str, at: Callable[[Sequence[tuple[int, float]]], list[Point]]
) -> list[tuple[Flip, ...]]:
    """The first change of the first place on each side of a factor of 1, of every axis."""
    found: list[list[Flip]] = [[] for _ in points]
    turns = []
    for axis, own in enumerate(points):
        middle = next(i for i, p in enumerate(own) if p.factor == 1.0)
        if own[middle].best != chosen:
            here = own[middle]
            found[axis].append(Flip(factor=1.0, to=here.best, breaks=here.chosen_breaks, end=here))
            continue
        for side in (own[middle::-1], own[middle:]):
            change = next(((held, lost) for held, lost in pairwise(side) if lost.best != chosen), None)
            if change is not None:
                turns.append(_Turn(axis=axis, held=change[0], lost=change[1], side=side))
    while wide := [t for t in turns if _apart(t.held, t.lost) > 1.0 + FLIP_PRECISION_FRAC]:
        middles = at([(t.axis, sqrt(t.held.factor * t.lost.factor)) for t in wide])
        for turn, point in zip(wide, middles, strict=True):
            if point.best == chosen:
                turn.held = point
            else:
                turn.lost = point
    for turn in turns:
        lost, end = turn.lost, next(p for p in reversed(turn.side) if p.best != chosen)
        found[turn.axis].append(Flip(factor=lost.factor, to=lost.best, breaks=lost.chosen_breaks, end=end))
    return [tuple(flips) for flips in found]


def _apart(one: Point, other: Point) -> float:
    return max(one.factor, other.factor) / min(one.factor, other.factor)
