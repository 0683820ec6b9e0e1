"""One plan for traffic that comes and goes: what serves most over several windows taken together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autotune.comparison.best import SHORTLIST, capacity_study
from autotune.comparison.capacity import drawn_capacities
from autotune.comparison.robustness import rescored_each
from autotune.scoring.value_and_gain import served_within_limits
from autotune.study import Study
from autotune.tuning import PlanResult, tune


@dataclass(frozen=True, slots=True, kw_only=True)
class WeighedWindow:
    """A kind of traffic, and how much of the time it comes."""

    study: Study
    """With this traffic as its workload."""
    share: float


def best_over(windows: Sequence[WeighedWindow], also: Sequence[PlanResult] = ()) -> PlanResult | None:
    """The launch that can be expected to serve most within the limits over all windows, in proportion to their shares.

    Looked at are the first plans of each window's own ranking, with the settings that are best for it, and `also`. None
    where a latency is minimised or a window has no rate: what is served then says nothing.
    """
    launches: dict[object, PlanResult] = {plan.launch: plan for plan in also}
    for window in windows:
        asked = capacity_study(replace(window.study, baseline=None))
        rough = tune(replace(asked, workload=replace(asked.workload, points=())))
        launches |= {plan.launch: plan for plan in (*rough.ranked, *rough.infeasible)[:SHORTLIST]}
    plans, total = list(launches.values()), 0.0
    for window in windows:
        asked = capacity_study(window.study)
        found = rescored_each(asked, plans)
        served = served_within_limits(window.study, drawn_capacities(asked, [p if p.feasible else None for p in found]))
        if served is None:
            return None
        total = total + window.share * served.mean(axis=1)
    return plans[int(np.argmax(total))] if plans else None
