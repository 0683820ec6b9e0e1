"""One scored plan as a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf, isnan
from typing import Any

import numpy as np

from autotune.engines.service import Knobs
from autotune.metrics import COST, ESTIMATED, LOG_SDS, OUTPUT_COST, RATE_P10, RATE_P90
from autotune.scoring.limits import (
    JOINT_PROBABILITY,
    KV_ROOM,
    LOAD_SERVED,
    Limit,
    LimitCheck,
    check_limits,
    study_limits,
)
from autotune.scoring.objective import Standing, usd_per_million
from autotune.scoring.overload import PART as OVERLOAD
from autotune.scoring.overload import WAITING, Overload
from autotune.space import Candidate, format_plan
from autotune.space.pool_plan import Pools
from autotune.study import OwnOptions, Study
from costmodel.estimate.result import MEMORY_KINDS, RESOURCES, TTFT_PARTS, Estimate, served_range
from costmodel.plan.columns import Floats
from costmodel.plan.layout import Layout
from costmodel.step.operators import GROUPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is started: plans of one launch differ at most in how many requests are let in.

    Of two pools, `max_num_batched_tokens` is the prefill pool's, whose sequences never bind; that of the decode pool
    follows from its slots.
    """

    plan: str
    """Full plan string, engine included."""
    max_num_batched_tokens: int | None = None
    weight_dtype: str | None = None
    kv_dtype: str | None = None
    decode_max_num_seqs: int | None = None
    """Slots of a decode pool, per attention-DP rank; None: the plan has no pools, or they are not known."""
    max_local_prefill_tokens: int | None = None
    """Prompts with at most so many tokens to compute are prefilled by the decode pool; None: no prompt is."""
    engine_options: OwnOptions | None = None
    """What its engine is started with where that is not as the study says; None: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A constraint that a plan breaks."""

    code: str
    value: float
    limit: float
    excess: float
    unit: str


PERCENTILES = "percentiles"
"""Part of a simulated plan's breakdown: every statistic of every latency, ms, by name (`ttft_p99_ms`)."""
VARIANT = "|"
"""What begins the part of a key that tells results of one plan apart; no plan string has it."""


def relative_excess(violation: Violation) -> float:
    """Excess over the limit's size."""
    return violation.excess / max(abs(violation.limit), 1e-12)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanResult:
    """A plan, its knobs and what it costs."""

    plan: str
    engine: str
    layout: Layout
    knobs: Knobs
    feasible: bool
    violations: tuple[Violation, ...]
    """Worst first, relative to the limit."""
    margins: Mapping[str, float]
    """Constraint -> excess in its unit; negative is room left."""
    metrics: Mapping[str, float]
    p_meets: float
    """Probability of keeping every limit on latency and throughput, given how sure the estimate is."""
    breakdown: Mapping[str, Any]
    gpu: str | None = None
    """GPU type, where it is not the cluster's own."""
    variant: str = ""
    """What tells results of one plan with several knobs apart (`apart`)."""
    pools: Pools | None = None
    """The two sides of a disaggregated plan, whose `layout` and `knobs.max_num_seqs` are the decode pool's and whose
    `knobs.max_num_batched_tokens` is the prefill pool's. None: one kind of replica does both."""
    own_options: OwnOptions | None = None
    """What its engine is started with where that is not as the study says: of what runs today. None: nothing."""

    @property
    def candidate(self) -> Candidate:
        """What of the space the plan is, its knobs left open."""
        return Candidate(engine=self.engine, layout=self.layout, gpu=self.gpu)

    @property
    def launch(self) -> Launch:
        """What starts it."""
        knobs, pools = self.knobs, self.pools
        return Launch(
            plan=self.plan,
            max_num_batched_tokens=knobs.max_num_batched_tokens,
            weight_dtype=knobs.weight_dtype,
            kv_dtype=knobs.kv_dtype,
            decode_max_num_seqs=None if pools is None else pools.decode.max_num_seqs,
            max_local_prefill_tokens=None if pools is None else pools.max_local_prefill_tokens or None,
            engine_options=self.own_options,
        )

    def apart(self) -> PlanResult:
        """The same, told apart from other results of its plan by its knobs."""
        k = self.knobs
        knobs = (k.concurrency, k.max_num_batched_tokens, k.max_num_seqs, k.weight_dtype or "", k.kv_dtype or "")
        return replace(self, variant=VARIANT + VARIANT.join(map(str, knobs)))

    def runs_as(self, other: PlanResult) -> bool:
        """Whether both are one plan with the same knobs, the same front, and engines that are started alike."""
        fronts = [None if p.pools is None else p.pools.max_local_prefill_tokens for p in (self, other)]
        one, two = ((p.plan, p.knobs, p.own_options) for p in (self, other))
        return one == two and fronts[0] == fronts[1]

    @property
    def has_room(self) -> bool:
        """Whether its KV cache holds the longest request: without that nothing can be simulated."""
        return all(v.code != KV_ROOM for v in self.violations)

    @property
    def key(self) -> str:
        """Identity within a study: engine and full plan string, and the knobs where several are kept."""
        return self.plan + self.variant


def plan_key(candidate: Candidate) -> str:
    """Full plan string, engine included."""
    return format_plan(candidate.layout, candidate.engine, candidate.gpu)


def worst_first(violations: Iterable[Violation]) -> tuple[Violation, ...]:
    """What a plan breaks, the worst first; last what follows from the others: latencies without end, a probability."""
    return tuple(
        sorted(violations, key=lambda v: (v.code == JOINT_PROBABILITY, v.value == inf, -relative_excess(v), v.code))
    )


def _broken(limits: Sequence[Limit], values: Floats, excess: Floats) -> tuple[Violation, ...]:
    """What one plan breaks, worst first; values and excesses of shape `(len(limits),)`.

    Weights beyond the memory leave no room, said as 0; the excess keeps how far beyond, for the order of plans.
    """
    return worst_first(
        Violation(
            code=limit.code, value=max(float(value), 0.0), limit=limit.limit, excess=float(over), unit=limit.kind.unit
        )
        for limit, value, over in zip(limits, values, excess, strict=True)
        if over > 0.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRows:
    """Plans at one load each, estimated and held against the study's limits. Columns have shape `(num_plans,)`."""

    limits: tuple[Limit, ...]
    estimate: Estimate
    check: LimitCheck
    standing: Standing
    price_per_hour: Floats
    """Of all GPUs of each plan, US dollars; NaN where it is not known."""

    @classmethod
    def of(cls, study: Study, estimate: Estimate, price_per_hour: Floats) -> ScoredRows:
        """Hold estimates against the study."""
        limits = study_limits(study)
        check = check_limits(limits, estimate)
        standing = Standing.of(study, limits, check, estimate, price_per_hour)
        return cls(limits=limits, estimate=estimate, check=check, standing=standing, price_per_hour=price_per_hour)

    def result(  # noqa: PLR0913  # one for each field that no row holds
        self,
        row: int,
        *,
        plan: str,
        engine: str,
        layout: Layout,
        knobs: Knobs,
        gpu: str | None = None,
        pools: Pools | None = None,
        own_options: OwnOptions | None = None,
    ) -> PlanResult:
        """The plan of one row."""
        breakdown = plan_breakdown(self.estimate, row)
        values, excess = self.check.values[:, row], self.check.excess[:, row]
        if (overload := self._overload(row)) is not None:
            breakdown[OVERLOAD] = asdict(overload)
            grows = np.array([limit.kind.metric in WAITING for limit in self.limits])
            values, excess = np.where(grows, inf, values), np.where(grows, inf, excess)
        broken = _broken(self.limits, values, excess)
        return PlanResult(
            plan=plan,
            engine=engine,
            layout=layout,
            knobs=knobs,
            feasible=not broken,
            violations=broken,
            margins={limit.code: float(over) for limit, over in zip(self.limits, excess, strict=True)},
            metrics=plan_metrics(self.estimate, row, float(self.price_per_hour[row])) | self._likely(row, pools),
            p_meets=float(self.check.p_meets[row]),
            breakdown=breakdown,
            gpu=gpu,
            pools=pools,
            own_options=own_options,
        )

    def _likely(self, row: int, pools: Pools | None) -> dict[str, float]:
        """Ends of the likely range of what one row serves, over its estimate."""
        offered = next((limit.bound for limit in self.limits if limit.code == LOAD_SERVED), None)
        found = self.estimate
        # what pools could serve goes with their rates' error, what replicas could with the pace of their steps
        ends = served_range(found, found.tpot_log_sd if pools is None else found.throughput_log_sd, offered)
        return {name: float(end[row]) for name, end in zip((RATE_P10, RATE_P90), ends, strict=True)}

    def _overload(self, row: int) -> Overload | None:
        """What comes and what is served, where that is less and goes on."""
        for i, limit in enumerate(self.limits):
            if limit.overload and self.check.excess[i, row] > 0.0:
                served = float(getattr(self.estimate, limit.kind.metric)[row])
                return Overload(offered_per_s=limit.bound, served_per_s=served)
        return None


def plan_metrics(estimate: Estimate, row: int, price_per_hour: float) -> dict[str, float]:
    """Every figure of one row; those in US dollars where the price of all its GPUs is known, which is not NaN."""
    out = {name: float(getattr(estimate, name)[row]) for name in (*ESTIMATED, *LOG_SDS)}
    if not isnan(price_per_hour):
        price = np.array(price_per_hour)
        out[COST] = float(usd_per_million(price, estimate.total_tokens_per_s[row]))
        out[OUTPUT_COST] = float(usd_per_million(price, estimate.output_tokens_per_s[row]))
    return out


def plan_breakdown(estimate: Estimate, row: int) -> dict[str, Any]:
    """Where the time and the memory of one row go."""

    def named(names: tuple[str, ...], table: Floats) -> dict[str, float]:
        return {n: float(x) for n, x in zip(names, table[:, row], strict=True) if x}

    return {
        "bottleneck": GROUPS[int(estimate.bottleneck[row])],
        "binding_resource": RESOURCES[int(estimate.binding[row])],
        "prefill_s": named(GROUPS, estimate.prefill_s),
        "decode_s": named(GROUPS, estimate.decode_s),
        "prefill_passes_per_request": float(estimate.prefill_passes_per_request[row]),
        "decode_passes_per_request": float(estimate.decode_passes_per_request[row]),
        "prefill_chunks": float(estimate.prefill_chunks[row]),
        "ttft_parts_s": named(TTFT_PARTS, estimate.ttft_parts_s),
        "memory_bytes": named(MEMORY_KINDS, estimate.memory_bytes),
    }
