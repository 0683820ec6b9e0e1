"""What an evaluation holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autotune.evaluation.evaluate_pools import PoolSections
from autotune.scoring.objective import Behind
from autotune.space import Candidate
from autotune.study import Study
from autotune.tuning import PlanResult, TuneResult

PASSED, FAILED = "PASSED", "FAILED"
OPTIMAL, UNDECIDED, ACCEPTABLE, HARMFUL, INFEASIBLE = "OPTIMAL", "UNDECIDED", "ACCEPTABLE", "HARMFUL", "INFEASIBLE"
CONFIRMED, REFUTED, UNDECIDABLE = "confirmed", "refuted", "undecidable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A figure against its limit."""

    name: str
    value: float | None
    """None: a rule of the engine forbids the plan, so that there is no figure."""
    limit: float | None
    unit: str
    passed: bool
    margin_frac: float | None
    """Room to the limit as a share of it, negative where it is broken; None: nothing to divide by."""
    rests_on: str
    """What the figure was computed from, in words."""
    grows: bool = False
    """Whether it grows without bound, as more requests come than are served; there is no value then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """The best plan with another value of an axis, all else free."""

    value: int
    plan: str | None
    """None: no plan with it keeps every limit."""
    objective: float | None
    """What ranks plans: the study's metric, times P(meets) where more is better."""
    loss_frac: float | None
    """Loss against the best plan of all; None where there is none."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisVerdict:
    """Whether the plan's value of an axis is the right one."""

    axis: str
    """EP, PP, TP, R (replicas) or attention-DP."""
    value: int
    verdict: str
    loss_frac: float | None
    """What the best plan with this value loses against the best of all; None where it keeps no limits."""
    reason: str
    best_value: int | None
    """Value of the best plan of all."""
    alternatives: tuple[Alternative, ...]
    """Every other value, ascending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageBytes:
    """Memory of one kind on each rank of a stage (all of them hold the same)."""

    stage: int
    """From 0."""
    kind: str
    """A weight kind, kv_cache, activations, buffers, reserve or free."""
    bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimVerdict:
    """Whether a claim holds."""

    claim: str
    status: str
    """confirmed, refuted or undecidable."""
    claimed: Any
    computed: Any
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sections:
    """What a plan of one kind of replica does; what is estimated is empty where a rule of the engine forbids it."""

    candidate: Candidate
    compatibility: Mapping[str, Any]
    performance: Mapping[str, Any]
    strategy: tuple[AxisVerdict, ...]
    memory: tuple[StageBytes, ...]
    capacity: Mapping[str, Any]
    """The largest batch and the longest prompt that still fit."""
    balance: Mapping[str, Any]
    claims: tuple[ClaimVerdict, ...] = ()
    quantities: Mapping[str, Any] = field(default_factory=dict)
    """Everything that a claim can be about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The report on one plan."""

    study: Study
    """About the plan's cluster alone."""
    elsewhere: str
    """The full string of a plan on another cluster than the study file's; empty: it is on that."""
    text: str
    """The plan as it was named."""
    is_baseline: bool
    """Whether it is the study's baseline, with its knobs and dtypes, and not a plan that is named alike."""
    result: PlanResult | None
    """None: a rule of the engine forbids it."""
    tuned: TuneResult
    passed: bool
    binding: str
    """The check that fails by most, or has the least room."""
    best: PlanResult | None
    """The first plan of the ranking."""
    distance: Behind | None
    """What the plan loses against the best one; None where one of them has no place."""
    p_better_than_best: float | None
    """By the study's metric; None where the plan breaks a limit."""
    checks: tuple[Check, ...]
    sections: Sections | PoolSections
    """What it does, part by part; of a disaggregated plan, what each of its pools does."""
    conclusion: str
    assumptions: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """`PASSED` or `FAILED`."""
        return PASSED if self.passed else FAILED

    @property
    def strategy(self) -> tuple[AxisVerdict, ...]:
        """What each axis of the plan does for it; of a disaggregated plan nothing."""
        return self.sections.strategy if isinstance(self.sections, Sections) else ()

    @property
    def claims(self) -> tuple[ClaimVerdict, ...]:
        """Whether what was claimed of the plan holds; of a disaggregated plan nothing."""
        return self.sections.claims if isinstance(self.sections, Sections) else ()
