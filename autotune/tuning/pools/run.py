"""The disaggregated plans of a study: found, stored, and found again in the storage."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from autotune.study import Store, Study
from autotune.tuning.plans import PlanResult, to_record
from autotune.tuning.pools.results import pair_results
from autotune.tuning.pools.search import count_plans, search_pools


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSearch:
    """What was looked at to find the disaggregated plans of a result."""

    plans: int
    """Pairs of layouts that the engines accept, over all splits: every one was covered."""
    kept: int
    """Plans in the result: the best of them, or the nearest where none is feasible."""
    scored_now: int
    joined_points: int | None
    """Pairs of operating points that were evaluated, the rest being dominated; None: the storage had the answer."""
    elapsed_s: float


def disaggregated_plans(
    study: Study, stored: Mapping[str, PlanResult], store: Store | None
) -> tuple[dict[str, PlanResult], PoolSearch | None]:
    """The best disaggregated plans by key, and what was looked at; nothing where the study opens none.

    They are stored in one step, so that a storage that has any of them has them all.

    Raises:
        InputError: the storage fails.
    """
    if study.axes.disaggregated == "off":
        return {}, None
    start = time.perf_counter()
    known = {key: plan for key, plan in stored.items() if plan.pools is not None}
    if known:
        taken = time.perf_counter() - start
        return known, PoolSearch(
            plans=count_plans(study), kept=len(known), scored_now=0, joined_points=None, elapsed_s=taken
        )
    found = search_pools(study)
    plans = {p.key: p for p in pair_results(study, found.pairs)}
    if store is not None:
        store.add([to_record(p, study.objective.metric) for p in plans.values()])
    return plans, PoolSearch(
        plans=found.plans,
        kept=len(plans),
        scored_now=len(plans),
        joined_points=found.joined,
        elapsed_s=time.perf_counter() - start,
    )
