"""The limits that a plan must keep, one row each: the metric it binds, where its bound stands, what its breaking means.

Solving, ranking, comparing and reporting read this table. A new limit on a metric is a row here and a field of the
study's `[constraints]`. The sign of an excess is Optuna's: at most 0 keeps the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autotune.metrics import METRICS, TPOT_SD, TTFT_SD
from autotune.scoring.kept_together import Kept, merged, p_together, share_of_first
from autotune.study import Study
from autotune.study.sections import PERCENTILE_FIELDS, REQUEST_LATENCIES
from costmodel.estimate.normal import normal_cdf, z_below
from costmodel.estimate.result import Service
from costmodel.plan.columns import Floats

TOLERANCE = 1e-9
JOINT_PROBABILITY = "min_p_meets"
"""The limit that follows from the others: it binds only where each of them is kept."""
KV_ROOM = "kv_capacity"
"""The limit without which no request is served: the cache holds the longest one."""
LOAD_SERVED = "request_rate_per_s"
"""The limit that the load itself sets: the requests in flight are solved to reach it, so that it never has room."""
MEAN_LATENCIES = frozenset({"ttft_ms", "tpot_ms", "e2e_ms"})
"""Limits on mean latencies, as they are held against the closed form."""
P_MEETS = "p_meets"
"""What `JOINT_PROBABILITY` binds: a figure of a plan and its limits together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitKind:
    """One limit that studies can have."""

    code: str
    """Its name in results."""
    title: str
    """What it is called on a page."""
    metric: str
    """Figure that it binds: a field of `Service`, or `P_MEETS`."""
    unit: str
    rests_on: str = "{flight:,} requests in flight, chunks of {chunk:,} tokens"
    """What its figure was computed for; takes `longest`, `flight` and `chunk`."""
    factor: float = 1.0
    """From SI to `unit`."""
    slack_frac: float = 0.0
    """By how much more the figure counts: what bisection and rounding may leave."""
    least: bool = False
    """Whether the figure must be at least the bound, instead of at most."""
    field: str = ""
    """Field of `Constraints` that holds its bound, SI."""
    bound: Callable[[Study], float | None] | None = None
    """What gives the bound, where that is no field or not a field alone; None as its value: no limit."""
    more_in_flight: str = ""
    """`worse`: more requests in flight only ever take room from it; `better`: they give it room; empty: neither."""

    @property
    def log_sd(self) -> str:
        """Which error makes keeping it a matter of probability; empty: it is kept or it is not."""
        return METRICS[self.metric].log_sd if self.metric in METRICS else ""

    def bound_of(self, study: Study) -> float | None:
        """The study's bound, SI; None: the study has no such limit."""
        if self.bound is not None:
            return self.bound(study)
        bound: float | None = getattr(study.constraints, self.field)
        return bound


def _memory_bound(study: Study) -> float:
    given = study.constraints.memory_util_frac
    return given if given is not None else max(study.engine_options.gpu_memory_utilization, 0.999)


def _mean_bound(field: str) -> Callable[[Study], float | None]:
    """A limit on a latency: on its mean, unless the study is about single requests that keep it."""

    def bound(study: Study) -> float | None:
        limit: float | None = getattr(study.constraints, field)
        return None if study.limits_single_requests else limit

    return bound


def _floor(field: str, title: str, unit: str) -> LimitKind:
    metric = field.removeprefix("min_")
    return LimitKind(
        code=field, title=title, metric=metric, unit=unit, least=True, field=field, more_in_flight="better"
    )


LIMITS: tuple[LimitKind, ...] = (
    LimitKind(
        code=KV_ROOM,
        title="KV room for the longest request",
        metric="kv_fits_longest",
        unit="longest requests",
        rests_on="one request of {longest:,} prompt tokens beside its output",
        least=True,
        bound=lambda _: 1.0,
        more_in_flight="worse",
    ),
    LimitKind(
        code="ttft_ms",
        title="TTFT at the longest prompt",
        metric="ttft_longest_s",
        unit="ms",
        rests_on="the longest prompt of {longest:,} tokens, {flight:,} requests in flight",
        factor=1e3,
        field="ttft_s",
        bound=_mean_bound("ttft_s"),
        more_in_flight="worse",
    ),
    LimitKind(
        code="tpot_ms",
        title="TPOT",
        metric="tpot_s",
        unit="ms",
        rests_on="mean lengths, {flight:,} requests in flight",
        factor=1e3,
        field="tpot_s",
        bound=_mean_bound("tpot_s"),
        more_in_flight="worse",
    ),
    LimitKind(
        code="e2e_ms",
        title="Time of a request",
        metric="e2e_s",
        unit="ms",
        rests_on="mean lengths, {flight:,} requests in flight",
        factor=1e3,
        field="e2e_s",
        bound=_mean_bound("e2e_s"),
        more_in_flight="worse",
    ),
    LimitKind(
        code="memory_util_frac",
        title="GPU memory in use",
        metric="memory_util_frac",
        unit="of GPU memory",
        rests_on="the fullest GPU, {flight:,} requests in flight",
        field="memory_util_frac",
        bound=_memory_bound,
        more_in_flight="worse",
    ),
    _floor("min_total_tokens_per_s_per_gpu", "Throughput per GPU", "tokens/s per GPU"),
    _floor("min_output_tokens_per_s_per_gpu", "Output throughput per GPU", "tokens/s per GPU"),
    _floor("min_stage_tokens_per_s_per_gpu", "Throughput per GPU of a stage", "tokens/s per GPU of a stage"),
    _floor("min_gpu_util_frac", "GPU busy", "of time"),
    LimitKind(
        code=JOINT_PROBABILITY,
        title="Probability to keep every limit",
        metric=P_MEETS,
        unit="probability",
        rests_on="how sure the estimate is on this model, GPU and engine",
        least=True,
        bound=lambda study: study.search.min_p_meets or None,
    ),
    LimitKind(
        code=LOAD_SERVED,
        title="Requests served",
        metric="requests_per_s",
        unit="requests/s",
        rests_on="{flight:,} requests in flight: as many as the rate needs, so that there is no room in it",
        slack_frac=1e-6,
        least=True,
        bound=lambda study: study.workload.request_rate_per_s,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit of one study."""

    kind: LimitKind
    bound: float
    """SI."""
    probable: bool
    """Whether it counts in P(meets): a limit on latency or throughput that the study asks for. What is served of a
    request rate is what comes, which `LOAD_SERVED` binds: then a floor of throughput is kept or it is not."""
    overload: bool = False
    """Whether falling short of it leaves no latency: what is not served of a rate that goes on waits without end."""

    @property
    def code(self) -> str:
        """Its name in results."""
        return self.kind.code

    @property
    def limit(self) -> float:
        """The bound in the limit's unit."""
        return self.bound * self.kind.factor

    @property
    def size(self) -> float:
        """What an excess is divided by to be compared with those over other limits."""
        return max(abs(self.limit), 1e-12)

    def value(self, figures: Mapping[str, float], p_meets: float) -> float:
        """A plan's figure in the limit's unit; room of which there is less than none is none."""
        figure = p_meets if self.kind.metric == P_MEETS else figures[self.kind.metric]
        return max(figure * self.kind.factor * (1.0 + self.kind.slack_frac), 0.0)

    def excess(self, values: Floats) -> Floats:
        """By how much figures in the limit's unit break it, same shape; at most 0 where it is kept."""
        over = self.limit - values if self.kind.least else values - self.limit
        return np.where(over <= TOLERANCE * abs(self.limit), np.minimum(over, 0.0), over)

    def z_kept(self, value: Floats, log_sd: Floats) -> Floats:
        """Standard deviations of its log by which a figure keeps the limit, below 0 if it does not, same shape."""
        if self.kind.least:  # at least a bound: the inverse at most the bound's
            return z_below(1.0 / self.bound, 1.0 / np.maximum(value, 1e-300), log_sd)
        return z_below(self.bound, value, log_sd)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitCheck:
    """Plans held against limits. Tables have shape `(len(limits), num_plans)`."""

    values: Floats
    """Each in its limit's unit."""
    excess: Floats
    """By how much each limit is broken, in its unit; at most 0 where it is kept, infinite where there is no figure."""
    p_meets: Floats
    """Probability of keeping every limit on latency and throughput, shape `(num_plans,)`."""

    def kept(self) -> NDArray[np.bool_]:
        """Whether a plan keeps every limit, shape `(num_plans,)`."""
        return np.asarray((self.excess <= 0.0).all(axis=0))


def study_limits(study: Study) -> tuple[Limit, ...]:
    """The study's limits, and those of the hardware and the engine that always hold."""
    bounds = [(kind, kind.bound_of(study)) for kind in LIMITS]
    work = study.workload
    paced, goes_on = work.request_rate_per_s is not None, work.recorded is None and not work.points
    return tuple(
        Limit(
            kind=kind,
            bound=bound,
            probable=bool(kind.field and kind.log_sd) and not (paced and kind.least),
            overload=kind.code == LOAD_SERVED and goes_on,
        )
        for kind, bound in bounds
        if bound is not None
    )


def probable(limits: Sequence[Limit]) -> tuple[Limit, ...]:
    """The limits that count in P(meets)."""
    return tuple(limit for limit in limits if limit.probable)


def p_meets(limits: Sequence[Limit], service: Service) -> Floats:
    """Probability that a plan keeps every limit on latency and throughput, shape `(num_plans,)`.

    Under more load than it serves a plan keeps none, unless it serves more than is estimated; and where it serves
    little more than comes, it may be that it does not, which goes with the pace of its steps.
    """
    kept = means_kept(limits, lambda name: getattr(service, name), service.kv_wait_s)
    if any(limit.overload for limit in limits):
        kept = merged([*kept.items(), (TPOT_SD, Kept(z=service.spare_sd, first=np.zeros(1)))])
    out = p_together(kept) * np.ones_like(service.tpot_s)
    for limit in limits:
        if limit.overload:
            served = getattr(service, limit.kind.metric)
            carried = limit.excess(served * (1.0 + limit.kind.slack_frac)) <= 0.0
            out = np.where(carried, out, out * normal_cdf(limit.z_kept(served, getattr(service, limit.kind.log_sd))))
    return out


def means_kept(limits: Sequence[Limit], figure: Callable[[str], Floats], kv_wait_s: Floats) -> dict[str, Kept]:
    """How surely the limits that are a matter of probability are kept, by latency (`autotune.scoring.kept_together`).

    Args:
        limits: of a study.
        figure: an estimate by its name, and its error's standard deviation, shape `(num_plans,)`.
        kv_wait_s: the part of TTFT that is a wait for KV room, which has no error of its own, same shape.
    """
    asked = probable(limits)
    if not asked:
        return {}
    first_share = (figure("ttft_s") - kv_wait_s) / np.maximum(figure("e2e_s") - kv_wait_s, 1e-300)
    sds = figure(TTFT_SD), figure(TPOT_SD)
    return merged(
        (sd, Kept(z=limit.z_kept(figure(limit.kind.metric), figure(sd)), first=share_of_first(sd, first_share, *sds)))
        for limit in asked
        for sd in (limit.kind.log_sd,)
    )


def check_limits(limits: Sequence[Limit], service: Service) -> LimitCheck:
    """Hold plans against limits."""
    meets = p_meets(limits, service)
    values = np.empty((len(limits), meets.size))
    for row, kind in enumerate(limit.kind for limit in limits):
        figure = meets if kind.metric == P_MEETS else getattr(service, kind.metric)
        values[row] = figure * kind.factor * (1.0 + kind.slack_frac)
    excess = np.stack([limit.excess(row) for limit, row in zip(limits, values, strict=True)])
    return LimitCheck(values=values, excess=np.where(np.isnan(excess), np.inf, excess), p_meets=meets)


ATTAINMENT = "attainment_frac"
SERVED_WITHIN = "served_within_limits"
"""The limit that goodput sets itself: a plan without a request within the limits has none."""
OF_SHARES = frozenset({ATTAINMENT, SERVED_WITHIN})
"""Limits on the share of simulated requests that keep several limits at once."""
_WHOSE = {
    "ttft": ("TTFT", "requests"),
    "tpot": ("TPOT", "requests"),
    "itl": ("ITL", "tokens"),
    "e2e": ("End to end", "requests"),
}
SIMULATED = {
    **{f"{x}_{share}_ms": f"{_WHOSE[x][0]} {share} over {_WHOSE[x][1]}" for x, share in PERCENTILE_FIELDS},
    **{f"{x}_mean_ms": f"{_WHOSE[x][0]}, mean over {_WHOSE[x][1]}" for x in REQUEST_LATENCIES},
    ATTAINMENT: "Share of requests within all limits",
    SERVED_WITHIN: "Requests within the limits",
}
"""Limits on simulated requests: what each is called on a page, by code."""
TITLES = {kind.code: kind.title for kind in LIMITS} | SIMULATED
"""Every limit -> what it is called on a page."""


def hard_limit(code: str) -> bool:
    """Whether breaking the limit is no matter of probability or of load: memory, room for a request, utilisation.

    Limits that are of simulated requests are none of these.
    """
    if code in SIMULATED:
        return False
    kind = next(kind for kind in LIMITS if kind.code == code)
    return not kind.log_sd and code != JOINT_PROBABILITY
