"""What statements are about: a study, some of its plans, and what a plan is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from autotune.scoring.best_knobs import score
from autotune.scoring.objective import ranking_value
from autotune.scoring.plan_result import PlanResult
from autotune.space import Candidate
from autotune.study import Study
from autotune.tuning.answer_study import score_plan

REL = 1e-6
"""What rounding may leave."""
Found = Iterator[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A study, some of its plans, and what they scored."""

    study: Study
    candidates: Sequence[Candidate]
    """Empty where the plans are disaggregated: those are scored again by their names."""
    plans: Sequence[PlanResult]

    def again(self, study: Study) -> list[PlanResult]:
        """The plans under another study."""
        if self.candidates:
            return score(study, self.candidates)
        return [named for plan in self.plans if (named := score_plan(study, plan.plan).result) is not None]


def value(study: Study, plan: PlanResult) -> float:
    """What ranks a plan, larger is better; minus infinity where it breaks a limit."""
    sign = -1.0 if study.objective.direction == "minimize" else 1.0
    return sign * ranking_value(study, plan) if plan.feasible else -inf
