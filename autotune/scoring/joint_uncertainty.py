"""How sure the ranking is: joint draws of the plans' errors, of which those of one cell share a part.

The calibration gives each cell's error as a linear function of a few features with a covariance, which all its
plans share, and each plan an error of its own (`costmodel.calibration.residual`). Drawing both, with one set of
draws for all plans, gives the probability that one plan is better than another although neither is known well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from autotune.engines import ENGINES
from autotune.metrics import GOODPUT, METRICS, TPOT_SD, TTFT_SD
from autotune.scoring.limits import (
    LOAD_SERVED,
    MEAN_LATENCIES,
    OF_SHARES,
    SIMULATED,
    Limit,
    hard_limit,
    probable,
    study_limits,
)
from autotune.scoring.objective import expected, looked_at, plan_figure, time_decides
from autotune.scoring.plan_result import PlanResult
from autotune.scoring.reach import bounded, unmeasured
from autotune.study import Study
from costmodel.arch import stored_in
from costmodel.calibration.residual import Residual, residual_columns
from costmodel.estimate.error_model import Latencies, Situation, draw_factors
from costmodel.estimate.normal import Z90
from costmodel.hardware import Gpu
from costmodel.plan.columns import Floats, LayoutColumns

DRAWS = 1000
SEED = 20
TOLD_APART = 0.8
"""A plan that the best beats with less than this probability cannot be told apart from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """What is known of one plan beside its estimate."""

    p_better_than_baseline: float | None
    p_best_is_better: float
    """Probability that the first plan of the ranking beats this one."""
    among_best: bool
    """Whether it cannot be told apart from the first plan."""


def confidence(study: Study, plans: Sequence[PlanResult], baseline: PlanResult | None) -> dict[str, Confidence]:
    """For ranked plans, best first; the baseline may be among them or not."""
    if not plans:
        return {}
    together = [*plans, *([] if baseline is None else [baseline])]
    drawn = Worth.of(study, together, joint_draws(study, together))
    out = {}
    for i, plan in enumerate(plans):
        beaten = 0.0 if i == 0 else drawn.p_better(0, i)
        better = None
        if baseline is not None:
            better = bounded(drawn.p_better(i, -1), unmeasured(study, plan), unmeasured(study, baseline))
        out[plan.plan] = Confidence(
            p_better_than_baseline=better, p_best_is_better=beaten, among_best=beaten < TOLD_APART
        )
    return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """What plans may really do. Arrays have shape `(len(plans), DRAWS)`, or that of the loads of one plan."""

    latencies: Latencies
    throughput_factor: Floats
    """Of every throughput: requests and tokens per second."""
    ttft_factor: Floats
    """Of the time to the first token, the wait for KV room left alone."""
    tpot_factor: Floats

    @classmethod
    def of(cls, latencies: Latencies, ttft_factor: Floats, tpot_factor: Floats) -> Draws:
        """Estimates with drawn errors in them."""
        moved, throughput_factor = latencies.moved(ttft_factor, tpot_factor)
        return cls(
            latencies=moved, throughput_factor=throughput_factor, ttft_factor=ttft_factor, tpot_factor=tpot_factor
        )

    def metric(self, name: str, values: Floats) -> Floats:
        """Draws of a metric that has a better side; `values` are its estimates, of a shape that broadcasts."""
        metric = METRICS[name]
        if metric.log_sd in (TTFT_SD, TPOT_SD):
            return np.asarray(getattr(self.latencies, name))
        if not metric.log_sd:
            return values * np.ones_like(self.throughput_factor)
        return values * self.throughput_factor if metric.sign > 0.0 else values / self.throughput_factor

    def within(self, limits: Sequence[Limit], values: Callable[[str], Floats]) -> NDArray[np.bool_]:
        """Whether the draws keep the limits that are a matter of probability; `values` as `metric`'s, by name."""
        kept = np.ones_like(self.throughput_factor, dtype=np.bool_)
        for limit in probable(limits):
            drawn = self.metric(limit.kind.metric, values(limit.kind.metric))
            kept &= drawn >= limit.bound if limit.kind.least else drawn <= limit.bound
        return kept


def estimates(plans: Sequence[PlanResult]) -> Callable[[str], Floats]:
    """Metric -> its estimate of each plan, shape `(len(plans), 1)`."""
    return lambda name: np.array([plan_figure(plan, name) for plan in plans])[:, None]


def p_greater(first: Floats, second: Floats) -> float:
    """P(first > second) over draws; a tie counts half."""
    return float((first > second).mean() + 0.5 * (first == second).mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """Which of two plans is better: keeping the limits first, the ranked metric second.

    In each draw of the errors a plan that breaks a limit is worth less than any that keeps them all, and two that break
    limits count half. Where the number in flight is free and both plans keep the limits at their own, the metric alone
    decides, as in rankings: a plan that turns out slower than estimated is run with fewer in flight.
    """

    plans: Sequence[PlanResult]
    ranked: Floats
    """Draws of the objective, larger is better, shape `(len(plans), DRAWS)`."""
    kept: NDArray[np.bool_]
    """Whether every limit is kept, of the same shape."""
    free: bool
    """Whether the study leaves open how many are in flight."""

    @classmethod
    def of(cls, study: Study, plans: Sequence[PlanResult], drawn: Draws) -> Worth:
        """What plans are worth in each draw."""
        # some errors let a plan keep every limit: those that have none are kept, and it takes the load
        able = [not any(hard_limit(v.code) or v.code == LOAD_SERVED for v in plan.violations) for plan in plans]
        of_means = [x for x in study_limits(study) if not (study.means_of_requests and x.code in MEAN_LATENCIES)]
        within = drawn.within(of_means, estimates(plans)) & _requests_within(plans, drawn)
        work = study.workload
        free = work.concurrency is None and work.request_rate_per_s is None
        return cls(
            plans=plans, ranked=ranked_draws(study, plans, drawn), kept=np.array(able)[:, None] & within, free=free
        )

    def p_better(self, one: int, other: int) -> float:
        """Probability that a plan is better than another, by their places; one half of a plan and itself."""
        mine, theirs = self.plans[one], self.plans[other]
        if mine.runs_as(theirs):
            return 0.5
        if self.free and mine.feasible and theirs.feasible:
            return p_greater(self.ranked[one], self.ranked[other])
        first, second = (np.where(self.kept[i], self.ranked[i], -np.inf) for i in (one, other))
        return p_greater(first, second)


def ranked_draws(study: Study, plans: Sequence[PlanResult], drawn: Draws) -> Floats:
    """Draws of the objective, larger is better, shape `(len(plans), DRAWS)`."""
    values = estimates(plans)
    if study.objective.metric == GOODPUT:
        return _goodput(plans, drawn)
    sign = METRICS[study.objective.metric].sign
    if time_decides(study):
        # what comes is served by each that can, so that the time a request takes decides between equals
        took = drawn.latencies.e2e_s
        return np.asarray(values(study.objective.metric) * (1.0 - 1e-6 * took / took.max()))
    figures = {name: drawn.metric(name, values(name)) for name in looked_at(study)}
    return sign * expected(study, figures, np.ones(1))


def _requests_within(plans: Sequence[PlanResult], drawn: Draws) -> NDArray[np.bool_]:
    """Whether the draws keep the limits on requests that plans were simulated for, as goodput is drawn."""
    kept = np.ones_like(drawn.throughput_factor, dtype=np.bool_)
    for row, plan in enumerate(plans):
        for code in SIMULATED.keys() & plan.margins.keys():
            found = plan.breakdown["simulated"][code]
            if isnan(found["value"]):
                continue  # no request has such a latency
            sides = found["value"] - found["likely_low"], found["likely_high"] - found["value"]
            worse, better = sides if code in OF_SHARES else sides[::-1]
            room = np.array([[-plan.margins[code]]])
            drawn_room = drawn_in_range(room, room - worse, room + better, drawn.throughput_factor[[row]])
            kept[row] &= drawn_room[0] >= 0.0
    return kept


def _goodput(plans: Sequence[PlanResult], drawn: Draws) -> Floats:
    """Draws of goodput: as its likely range says, more of it where steps turn out quicker, and at most what comes.

    Between plans that serve all in time the time of a request decides.
    """
    values = estimates(plans)(GOODPUT)
    found = [plan.breakdown.get("simulated", {}).get(GOODPUT) for plan in plans]
    low, high = (
        np.array([plan_figure(p, GOODPUT) if x is None else x[end] for p, x in zip(plans, found, strict=True)])[:, None]
        for end in ("likely_low", "likely_high")
    )
    moved = drawn_in_range(values, low, high, drawn.throughput_factor)
    most = np.array([p.metrics["requests_per_s"] / p.metrics["gpus"] for p in plans])[:, None]
    took = drawn.latencies.e2e_s
    return np.asarray(np.clip(moved, 0.0, np.maximum(most, high)) * (1.0 - 1e-6 * took / took.max()))


def drawn_in_range(values: Floats, low: Floats, high: Floats, throughput_factor: Floats) -> Floats:
    """Draws of figures with these 80 % likely ranges, higher where steps turn out quicker.

    Figures have shape `(num_plans, 1)`, throughput factors and the result `(num_plans, draws)`.
    """
    quick = np.log(throughput_factor)
    quick = (quick - quick.mean(axis=1, keepdims=True)) / np.maximum(quick.std(axis=1, keepdims=True), 1e-300)
    return values + quick / Z90 * np.where(quick > 0.0, high - values, values - low)


def joint_draws(study: Study, plans: Sequence[PlanResult]) -> Draws:
    """What the plans may really do: one set of draws of the error that a cell's plans share, one more for each plan.

    A plan's own draws are those of its name, so that two plans are told apart alike wherever they are asked about.
    """
    work = study.workload
    layout = LayoutColumns.of([p.layout for p in plans], [ENGINES[p.engine].traits for p in plans])
    in_flight = np.array([float(p.knobs.concurrency) for p in plans]) / layout.replicas
    situation = Situation.of(layout, in_flight, np.array([work.isl.mean]), np.array([work.osl.mean]))
    factors = draw_factors(_cells(study, plans), situation, draws=DRAWS, seed=SEED, own_seeds=_own_seeds(plans))
    values = estimates(plans)
    wait = np.array([p.breakdown["ttft_parts_s"].get("kv_wait", 0.0) for p in plans])[:, None]
    latencies = Latencies(
        first_s=values("ttft_s") - wait,
        wait_s=wait,
        longest_extra_s=values("ttft_longest_s") - values("ttft_s"),
        tpot_s=values("tpot_s"),
        outputs=max(work.osl.mean - 1.0, 0.0),
    )
    return Draws.of(latencies, factors[0], factors[1])


def _own_seeds(plans: Sequence[PlanResult]) -> list[tuple[int, int]]:
    """Of each plan its name's, and its place among those of that name with other knobs."""
    knobs: dict[str, list[tuple[int, int, str, str]]] = {}
    for plan in plans:
        knobs.setdefault(plan.plan, []).append(_by_knobs(plan))
    sorted_knobs = {name: sorted(set(found)) for name, found in knobs.items()}
    return [(crc32(p.plan.encode()), sorted_knobs[p.plan].index(_by_knobs(p))) for p in plans]


def _by_knobs(plan: PlanResult) -> tuple[int, int, str, str]:
    knobs = plan.knobs
    return knobs.concurrency, knobs.max_num_batched_tokens, knobs.weight_dtype or "", knobs.kv_dtype or ""


def _cells(study: Study, plans: Sequence[PlanResult]) -> list[tuple[Residual, list[int]]]:
    groups: dict[tuple[str, str | None, str | None], list[int]] = {}
    for i, p in enumerate(plans):
        groups.setdefault((p.engine, p.knobs.weight_dtype, p.gpu), []).append(i)
    types: dict[str | None, Gpu] = {None: study.cluster.gpu, **{c.gpu.name: c.gpu for c in study.axes.gpu_types}}
    profile, version = study.calibration, study.engine_version
    own = None if profile is None else profile.values()
    return [
        (residual_columns([(stored_in(study.arch, dtype), types[gpu], ENGINES[engine].traits, version)], own), rows)
        for (engine, dtype, gpu), rows in groups.items()
    ]
