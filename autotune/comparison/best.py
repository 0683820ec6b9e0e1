"""The best plan for a study, also where recorded traffic sets the load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from autotune.comparison.capacity import drawn_capacities
from autotune.comparison.robustness import rescored, rescored_each
from autotune.comparison.simulated_requests import simulated_requests
from autotune.scoring.best_knobs import score
from autotune.scoring.objective import CLOSE_FRAC
from autotune.scoring.plan_order import rank
from autotune.scoring.value_and_gain import served_within_limits
from autotune.study import IntRange, Objective, Study, in_place
from autotune.tuning import PlanResult, tune
from costmodel.plan.columns import Floats

SHORTLIST = 24
"""Plans that are evaluated at every kind of request, the first of a ranking at mean lengths."""
POOLED_SHORTLIST = 6
"""The same of disaggregated plans: pools meet the mean lengths in both rankings, so that their order hardly changes."""

COUNTED = 3
"""Plans that are held against the requests of a log one by one, where their capacities leave them this close."""

Progress = Callable[[int, int], None]


def best_plan(study: Study, *, also: Sequence[str] = (), progress: Progress | None = None) -> PlanResult | None:
    """The first of the ranking, the nearest plan where none keeps every limit; None: nothing can be launched.

    Under recorded traffic (`Workload.points`) with a metric to maximise, the load is what comes, and the best plan is
    the one that can be expected to serve most of it within the limits, over all that the calibration leaves open: what
    `retune` decides by. Those that serve all of it are ordered by how much of such traffic they could take, and where
    the requests of a log are at hand those that serve as much within a percent by how many of them keep the limits.
    Disaggregated plans are scored at the traffic's mean lengths (`pool_load`).

    Args:
        study: its baseline is left out of the search.
        also: full plan strings that are looked at whatever the ranking at mean lengths says of them.
        progress: as in `tune`.
    """
    own = replace(in_place(study, pools=True), baseline=None)
    if not study.workload.points:
        found = tune(own, progress=progress)
        return next(iter(found.ranked or found.infeasible), None)
    asked = capacity_study(own) if study.objective.direction == "maximize" else own
    rough = tune(replace(asked, workload=replace(asked.workload, points=())), progress=progress)
    plans = [*rough.ranked, *rough.infeasible]
    whole = _shortlist([p for p in plans if p.pools is None], also, SHORTLIST)
    pooled = _shortlist([p for p in plans if p.pools is not None], also, POOLED_SHORTLIST)
    scored = score(asked, [p.candidate for p in whole]) if whole else []
    ranked, others = rank(asked, [*scored, *rescored_each(asked, pooled)])
    best = next(iter(ranked or others), None)
    served = served_within_limits(study, drawn_capacities(asked, ranked))
    if ranked and served is not None:
        best = _most_served(study, ranked, served.mean(axis=1))
    return None if best is None else rescored(study, best)


def _most_served(study: Study, plans: Sequence[PlanResult], served_per_s: Floats) -> PlanResult:
    """The plan that is expected to serve most; of those that are close, the one that serves most of a log's requests.

    Args:
        study: under the traffic.
        plans: that may be it.
        served_per_s: what each is expected to serve by its capacity.
    """
    most = np.argsort(-served_per_s, kind="stable")
    close = [plans[i] for i in most if served_per_s[i] >= (1.0 - CLOSE_FRAC) * served_per_s[most[0]]][:COUNTED]
    requests = study.workload.recorded
    counted = None
    if requests is not None and len(close) > 1:
        counted = simulated_requests(study, requests, rescored_each(study, close))
    return close[0] if counted is None else close[int(counted[1].mean(axis=1).argmax())]


def _shortlist(plans: Sequence[PlanResult], also: Sequence[str], first: int) -> list[PlanResult]:
    """The first plans, and those of `also`."""
    return [*plans[:first], *(p for p in plans[first:] if p.plan in also)]


def capacity_study(study: Study) -> Study:
    """The study that asks for the most requests per second within the limits, at whatever load that is."""
    most = study.engine_options.max_num_seqs * study.cluster.gpus
    return replace(
        study,
        workload=replace(study.workload, concurrency=None, request_rate_per_s=None),
        search=replace(study.search, concurrency=IntRange(min=1, max=most)),
        objective=Objective(metric="requests_per_s", direction="maximize"),
    )


def at_capacity(study: Study, plan: PlanResult) -> PlanResult | None:
    """A launch at the most requests per second within the limits; None where no load keeps them."""
    found = rescored(capacity_study(study), plan)
    return found if found.feasible else None
