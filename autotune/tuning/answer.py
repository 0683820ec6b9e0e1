"""The answer to a study, and to one plan of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autotune.disaggregated.tune_pools import PoolSearch
from autotune.scoring.joint_uncertainty import Confidence
from autotune.scoring.plan_result import PlanResult
from autotune.space import Resolution, Space
from autotune.study import Study

if TYPE_CHECKING:
    from autotune.tuning.simulate_ranking import SimulatedRanking


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineResult:
    """The plan in production: what its string meant, and what it costs or which rules it breaks."""

    text: str
    resolution: Resolution
    result: PlanResult | None
    """None where the engine's rules forbid it."""
    is_baseline: bool = False
    """Whether it is the study's baseline, with its knobs and dtypes, and not a plan that is named alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """The answer to a study."""

    study: Study
    complete: bool
    """Whether every valid plan was scored."""
    space: Space
    ranked: tuple[PlanResult, ...]
    """Feasible plans, best first; where plans are simulated, those that none can come before that was not."""
    infeasible: tuple[PlanResult, ...]
    """The others, nearest first."""
    baseline: BaselineResult | None
    confidence: Mapping[str, Confidence]
    """By plan: of the feasible ones, or of the others where none is."""
    scored_now: int
    """Plans scored by this run; the rest came from the storage."""
    elapsed_s: float
    storage: str | None
    pools: PoolSearch | None = None
    """What was looked at for disaggregated plans; None where the study opens none."""
    by_percentile: SimulatedRanking | None = None
    """How the ranking was simulated; None where the study has no limit on percentiles."""

    @property
    def feasible_count(self) -> int:
        """Plans of `space` that keep every limit: disaggregated ones are counted in `pools`."""
        return sum(p.pools is None for p in (*self.ranked, *self._behind))

    @property
    def not_simulated_count(self) -> int:
        """Plans of `space` that keep every limit on means, and could at best come behind those that are ranked."""
        return 0 if self.by_percentile is None else sum(p.pools is None for p in self.by_percentile.left)

    @property
    def kept_count(self) -> int:
        """Plans that are known to keep every limit, disaggregated ones included."""
        return len(self.ranked) + len(self._behind)

    @property
    def unplaced(self) -> tuple[PlanResult, ...]:
        """Plans that may keep every limit and come behind the last of `ranked`: of most it was not simulated."""
        return () if self.by_percentile is None else (*self.by_percentile.behind, *self.by_percentile.left)

    @property
    def _behind(self) -> tuple[PlanResult, ...]:
        return () if self.by_percentile is None else self.by_percentile.behind

    @property
    def infeasible_counts(self) -> dict[str, int]:
        """Plans by the constraint that binds them: the one they break by most, relative to its limit."""
        counts: dict[str, int] = {}
        for plan in (p for p in self.infeasible if p.pools is None):
            code = plan.violations[0].code
            counts[code] = counts.get(code, 0) + 1
        return dict(sorted(counts.items()))
