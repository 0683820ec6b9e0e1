"""What plans are ranked by: one formula for columns of estimates and for single plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from autotune.metrics import COST, GOODPUT, GPUS, METRICS, MINIMIZE, PER_GPU
from autotune.scoring.limits import JOINT_PROBABILITY, LOAD_SERVED, Limit, LimitCheck, hard_limit
from autotune.study import Study
from costmodel.estimate.result import Service
from costmodel.plan.columns import Floats, Ints


def usd_per_million(price_per_hour: Floats, tokens_per_s: Floats) -> Floats:
    """US dollars per million tokens: the price of all GPUs over what they do. Infinite where they do nothing."""
    cost = price_per_hour / 3600.0 / np.maximum(tokens_per_s, 1e-300) * 1e6
    return np.where(tokens_per_s > 0.0, cost, np.inf)


def figure(service: Service, name: str, price_per_hour: Floats) -> Floats:
    """A metric as a column, shape `(num_plans,)`; the price is of all GPUs of each plan, NaN where it is not known.

    Goodput is what it is if every request keeps the limits: only a simulation knows how many do.
    """
    if name == COST:
        return usd_per_million(price_per_hour, service.total_tokens_per_s)
    if name == GOODPUT:
        return np.asarray(service.requests_per_s / service.gpus)
    column: Floats = getattr(service, name)
    return column


def expected(study: Study, figures: Mapping[str, Floats], p_meets: Floats) -> Floats:
    """What can be expected of plans that may break their limits, in the objective's direction, shape `(num_plans,)`.

    Args:
        study: the question.
        figures: the metrics that `looked_at` names.
        p_meets: probability of keeping every limit.

    A metric to maximize counts by the probability that the limits are kept, and so does the cost: it is per token of a
    plan that may be no use. GPU counts are whole numbers, and plans with as many are ordered by throughput per GPU,
    which takes a place between 0 and 1. Latencies are taken as they are: their own limits bound them.
    """
    metric = METRICS[study.objective.metric]
    if metric.name == COST:
        return figures[COST] / np.maximum(p_meets, 1e-300)
    if metric.name == GPUS:
        useful = np.maximum(figures[PER_GPU] * p_meets, 0.0)
        return np.asarray(figures[GPUS] - useful / (1.0 + useful))
    return figures[metric.name] * p_meets if metric.sign > 0.0 else figures[metric.name]


def looked_at(study: Study) -> tuple[str, ...]:
    """Metrics that `expected` reads."""
    metric = study.objective.metric
    return (PER_GPU, GPUS) if metric == GPUS else (metric,)


class Scored(Protocol):
    """What `plan_expected` reads of a `PlanResult`."""

    @property
    def metrics(self) -> Mapping[str, float]: ...  # noqa: D102
    @property
    def p_meets(self) -> float: ...  # noqa: D102


def plan_figure(plan: Scored, name: str) -> float:
    """A metric of one plan; goodput that was not simulated is what it is if every request keeps the limits."""
    if name == GOODPUT and name not in plan.metrics:
        return plan.metrics["requests_per_s"] / plan.metrics["gpus"]
    return plan.metrics[name]


def plan_expected(study: Study, plan: Scored) -> float:
    """`expected` of one plan."""
    return float(expected(study, _figures(study, plan), np.array([plan.p_meets]))[0])


def _figures(study: Study, plan: Scored) -> dict[str, Floats]:
    """What `expected` reads of one plan, as columns of one row."""
    return {name: np.array([plan_figure(plan, name)]) for name in looked_at(study)}


def ranking_name(study: Study) -> str:
    """Name of `ranking_value`: the metric's own where it is taken as it is."""
    metric = study.objective.metric
    return metric if metric.endswith("_s") and study.objective.direction == MINIMIZE else f"expected_{metric}"


def ranking_value(study: Study, plan: Scored) -> float:
    """What a plan is ranked by, one number in the objective's direction: what can be expected of it.

    At a given request rate all plans that take it serve alike: the probability to keep the limits counts to three
    digits, what can be expected too, and of plans that are equal in them the time of a request decides, in the digits
    behind.
    """
    columns = _figures(study, plan), np.array([plan.p_meets]), np.array([plan.metrics["e2e_s"]])
    return float(_ranking_values(study, *columns)[0])


CLOSE_FRAC = 0.01
"""A plan that loses less than this is as good as the best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """What a plan loses against another."""

    frac: float
    """Share of what the other does; below 0 the plan is ahead."""
    metric: str
    """What it is a share of: the study's metric, or `e2e_s`."""


def behind(study: Study, plan: Scored, best: Scored) -> Behind | None:
    """What a plan loses against another by what ranks plans; None: the other one is worth nothing.

    At a given request rate plans serve alike: where that differs by at most `CLOSE_FRAC`, it is how much longer a
    request takes, if that is more.
    """
    own, top = plan_expected(study, plan), plan_expected(study, best)
    if top <= 0.0:
        return None
    metric = study.objective.metric
    served = Behind(frac=own / top - 1.0 if study.objective.direction == MINIMIZE else 1.0 - own / top, metric=metric)
    if not time_decides(study) or served.frac > CLOSE_FRAC:
        return served
    took = Behind(frac=plan.metrics["e2e_s"] / best.metrics["e2e_s"] - 1.0, metric="e2e_s")
    return max(served, took, key=lambda x: x.frac)


def time_decides(study: Study) -> bool:
    """Whether plans serve the same, as much as arrives, so that the time of a request decides between them.

    Not of goodput: of what arrives each serves another part within the limits.
    """
    return time_breaks_ties(study) and study.objective.metric != GOODPUT


def time_breaks_ties(study: Study) -> bool:
    """Whether what plans serve of a given rate counts to three digits, and then the time of a request."""
    return study.objective.direction != MINIMIZE and study.workload.request_rate_per_s is not None


def _ranking_values(study: Study, figures: Mapping[str, Floats], p_meets: Floats, e2e_s: Floats) -> Floats:
    """`ranking_value` of columns, shape `(num_plans,)`."""
    if not time_breaks_ties(study):
        return expected(study, figures, p_meets)
    coarse, digit = _three_digits(expected(study, figures, _three_digits(p_meets)[0]))
    return np.asarray(coarse + digit / (1.0 + e2e_s))


ROUNDING = 1e-9
"""By how much, relative to it, a figure may lie below the half of a digit and still be rounded up: a rate is a round
number, so that what serves it often lies on a half but for noise."""


def _three_digits(value: Floats) -> tuple[Floats, Floats]:
    """Figures to three digits that count, and what one of the last digit is worth, both of their shape."""
    raised = value * (1.0 + ROUNDING)
    digit = np.where(value > 0.0, 10.0 ** (np.floor(np.log10(np.maximum(raised, 1e-300))) - 2.0), 1e-300)
    return np.floor(raised / digit + 0.5) * digit, digit


QUICKER_FRAC = 1e-6
"""By how much goodput counts as less for each second of a request's time: between knobs that gain alike it decides."""
TIER = 1e9
"""More than any limit is broken by, relative to it."""


def _broken(limits: Sequence[Limit], over: Floats) -> Floats:
    """How far off plans are, by what they break of each limit relative to it, shape `(num_plans,)`.

    Under more load than a plan serves, be it in the fullest bin of a log, its latencies say nothing, and what it falls
    short by is all that counts: whoever carries the rate goes before it, and both before those that cannot run.
    """
    out: Floats = over[[limit.code != JOINT_PROBABILITY for limit in limits]].max(axis=0)
    load = [limit.code == LOAD_SERVED for limit in limits]
    if any(load):
        hard = [hard_limit(limit.code) and limit.code != LOAD_SERVED for limit in limits]
        for tier, chosen in ((TIER, load), (2.0 * TIER, hard)):
            own = over[chosen].max(axis=0)
            out = np.where(own > 0.0, tier + own, out)
    return out


GAIN_BITS = 46
"""Of a gain that count, fourteen digits: where a rate is given all that serve it gain alike but for rounding, and then
the first knobs are taken, not those with the luckier last digit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where plans stand: those that keep every limit by their gain, then the others by how far they are off.

    Arrays of one shape, whose last axis is the plans.
    """

    worst: Floats
    """Excess over the limit that is broken most, relative to it; 0 where every limit is kept."""
    broken: Floats
    """The same of the limits themselves, whatever the probability is to keep them all."""
    gain: Floats
    """`ranking_value`, larger is better; no figure counts as nothing at all."""

    @classmethod
    def of(
        cls, study: Study, limits: Sequence[Limit], check: LimitCheck, service: Service, price_per_hour: Floats
    ) -> Standing:
        """The standing of plans that were held against limits; prices as `figure`'s."""
        figures = {name: figure(service, name, price_per_hour) for name in looked_at(study)}
        value = _ranking_values(study, figures, check.p_meets, service.e2e_s)
        gain = METRICS[study.objective.metric].sign * value
        if study.objective.metric == GOODPUT:
            # whoever takes the load may serve all of it in time: then the quicker knobs are taken
            gain = gain / (1.0 + QUICKER_FRAC * service.e2e_s)
        over = np.maximum(check.excess, 0.0) / np.array([limit.size for limit in limits])[:, None]
        broken = _broken(limits, over)
        worst = np.where(broken > 0.0, broken, over.max(axis=0))
        mantissa, exponent = np.frexp(np.where(np.isnan(gain), -np.inf, gain))
        return cls(worst=worst, broken=broken, gain=np.ldexp(np.rint(mantissa * 2.0**GAIN_BITS), exponent - GAIN_BITS))

    def in_rows(self, size: int) -> Standing:
        """As a table with so many plans in a row, shape `(rows, size)`."""
        shape = (-1, size)
        return Standing(
            worst=self.worst.reshape(shape), broken=self.broken.reshape(shape), gain=self.gain.reshape(shape)
        )

    def first_of_each(self, owner: Ints) -> Ints:
        """The best entry of each owner, as an index into the flattened table; ties go to the first plan, then row.

        Args:
            owner: of each plan, ascending from 0, shape `(num_plans,)`; the table is of shape `(rows, num_plans)`.
        """
        rows, size = self.worst.shape
        place = np.arange(rows * size).reshape(rows, size).T.ravel()
        owners = np.repeat(owner, rows)
        worst, gain = self.worst.T.ravel(), np.where(self.worst > 0.0, 0.0, self.gain).T.ravel()
        order = np.lexsort((-gain, worst, owners))
        return place[order[np.searchsorted(owners[order], np.arange(owner[-1] + 1))]]
