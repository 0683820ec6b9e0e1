"""What a comparison of two plans holds. Seconds, bytes, requests; shares are 0 to 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autotune.comparison.simulated_requests import SimulatedRequests
from autotune.scoring.value_and_gain import Gain
from autotune.study import Study
from autotune.tuning import PlanResult

SWITCH, KEEP, UNDECIDED = "switch", "keep", "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedPlan:
    """One of the two plans."""

    text: str
    """As it was asked for."""
    plan: str
    """The full plan string."""
    engine: str
    result: PlanResult | None
    """What it costs; None where the engine's rules forbid it."""
    rules_broken: tuple[str, ...]
    assumed: tuple[str, ...]
    """What the string left open and how it was read."""
    capacity_requests_per_s: float
    """Most requests per second within the limits; at its own load where no load keeps them."""
    at_capacity: PlanResult | None
    """The same launch at that load; None where no load keeps the limits."""
    value_per_s: float
    """Requests per second served within the limits, weighted by the objective (see `value_and_gain`)."""

    @property
    def capacity_keeps_limits(self) -> bool:
        """Whether there is any load at which it keeps the limits."""
        return self.at_capacity is not None

    @property
    def keeps(self) -> bool:
        """Whether it can be launched and keeps every limit."""
        return self.result is not None and self.result.feasible


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """One metric of both plans."""

    name: str
    current: float
    candidate: float
    better: str | None
    """`higher`, `lower`, or None where neither is."""
    p_better: float | None
    """Probability that the candidate's is better; None where the model has no error for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginRow:
    """One limit: how far each plan is off. Positive: broken; negative: room left."""

    code: str
    limit: float
    unit: str
    current_excess: float
    candidate_excess: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeRow:
    """GPU-seconds that one request takes of one group of operators in one phase."""

    phase: str
    """`prefill`, `decode`, or `rest`: GPU-seconds in which no kernel is counted, less what phases share."""
    operator: str
    current_gpu_s: float
    candidate_gpu_s: float
    gain_frac: float
    """What the difference saves of all GPU-seconds of a request of the current plan; negative costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Other traffic, and who wins there."""

    changes: Mapping[str, float]
    """What differs from the study: `prompts`, `outputs`, `load` (factors), `expert_skew`, `prefix_cache_hit_frac`."""
    candidate_wins: bool
    p_better: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A load at which the better plan changes."""

    in_flight: int
    """Requests in flight over all replicas from which on the order is the new one."""
    requests_per_s: float
    """What the plan that leads from there on serves at it."""
    better_above: str
    """`candidate` or `current`."""
    because: str
    """`limits` or the metric that is ranked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Robustness:
    """How far the answer depends on the traffic and on the calibration being right."""

    scenarios: tuple[Scenario, ...]
    skipped: int
    """Scenarios left out because the model's context is too short for them."""
    calibration_wins_frac: float
    """Share of joint draws of the calibration's errors in which the candidate wins, at the study's traffic."""
    draws: int
    flips: tuple[Flip, ...]
    better_at_low_load: str | None
    """`candidate` or `current` at one request in flight; None: cannot be told apart."""
    swept_to_in_flight: int

    @property
    def workload_wins_frac(self) -> float | None:
        """Share of the workload scenarios in which the candidate wins."""
        if not self.scenarios:
            return None
        return sum(s.candidate_wins for s in self.scenarios) / len(self.scenarios)

    @property
    def joint_wins_frac(self) -> float | None:
        """Share of all (scenario, draw) pairs in which it wins."""
        if not self.scenarios:
            return None
        return sum(s.p_better for s in self.scenarios) / len(self.scenarios)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wave:
    """One step of a rolling change."""

    replicas_down: int
    """Of the current plan."""
    replicas_started: int
    """Of the candidate."""
    duration_s: float
    capacity_requests_per_s: float
    """Of what serves meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchCost:
    """What it takes to get from the current plan to the candidate."""

    restart: bool
    """False: only the number of requests that are let in changes."""
    gpus_restarted: int
    weight_bytes: float
    """Into all GPUs together."""
    weight_bytes_per_gpu: float
    """Into the fullest."""
    weights_from: str
    load_s: float
    startup_s: float
    warmup_s: float
    drain_s: float
    replicas_down_at_once: int
    waves: tuple[Wave, ...]
    requests_drained: int
    load_requests_per_s: float
    """What arrives meanwhile."""
    served_requests_per_s: float
    """Of that, what the current plan takes."""
    lost_requests: float
    """Of those, how many find no room in what serves meanwhile."""
    gpu_s: float
    """GPU-seconds in which restarted GPUs serve nothing."""
    price: float | None
    """Of those GPU-seconds, US dollars."""

    @property
    def duration_s(self) -> float:
        """Of the whole change."""
        return sum(w.duration_s for w in self.waves)

    def loss(self, value_per_s: float) -> float:
        """What the lost requests are worth, where the current plan makes `value_per_s` of those that it takes."""
        return self.lost_requests * value_per_s / self.served_requests_per_s if self.served_requests_per_s else 0.0

    @property
    def least_capacity_requests_per_s(self) -> float:
        """At the worst moment."""
        return min((w.capacity_requests_per_s for w in self.waves), default=self.load_requests_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Switch, keep or undecided, and why in one sentence."""

    verdict: str
    rule: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The current plan and a candidate, side by side."""

    study: Study
    traffic: str | None
    """Where the traffic came from, if not from the study."""
    current: ComparedPlan
    candidate: ComparedPlan | None
    """None: no plan can be launched at all."""
    same_plan: bool
    simulated: tuple[SimulatedRequests, ...]
    """What the requests of a log meet at the current plan and at the candidate; empty: they were not simulated."""
    p_better: float
    """Probability that the candidate is better: limits first, then the ranked metric."""
    metrics: tuple[MetricRow, ...]
    margins: tuple[MarginRow, ...]
    memory_bytes: Mapping[str, tuple[float, float]]
    """Kind -> bytes on the fullest GPU, current and candidate."""
    time: tuple[TimeRow, ...]
    """Largest gain first."""
    where_from: tuple[str, ...]
    """Where the difference comes from, in words."""
    robustness: Robustness | None
    price_per_million_tokens: tuple[float, float] | None
    """US dollars, prompt and output tokens together, current and candidate."""
    price_per_million_output_tokens: tuple[float, float] | None
    switch: SwitchCost | None
    gain: Gain | None
    """What the switch brings over the horizon of `[retune]`; None where there is none to make."""
    verdict: Verdict
    beyond: tuple[str, ...] = ()
    """What of the two plans was never measured: keys of `autotune.scoring.reach.KINDS`."""
    assumptions: tuple[str, ...]
