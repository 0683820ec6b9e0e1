"""The disaggregated plans of a study: found, stored, and found again in the storage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from autotune.scoring.plan_order import rank
from autotune.scoring.plan_result import PlanResult
from autotune.scoring.trial_record import Recorder, plan_of
from autotune.storage import Store, TrialRecord
from autotune.study import Study, cluster_choices, on_cluster

COUNT_ATTR = "disaggregated_plans"
"""Attribute of a stored disaggregated plan: how many were stored in one step."""


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


def pool_records(recorder: Recorder, plans: Iterable[PlanResult], kept: int) -> list[TrialRecord]:
    """Disaggregated plans as trials, of so many that belong together."""
    return [recorder.record(p, **{COUNT_ATTR: kept}) for p in plans]


def disaggregated_plans(
    study: Study,
    stored: Sequence[TrialRecord],
    store: Store | None,
    recorder: Recorder,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, PlanResult], PoolSearch | None]:
    """The best disaggregated plans by key, and what was looked at; nothing where the study opens none.

    Each says how many were stored with it, so that a torn write is seen and the search done again. The search is by
    means: where single requests are limited, those that come first with these limits taken as limits on means.

    Raises:
        InputError: the storage fails.
    """
    if study.axes.disaggregated == "off":
        return {}, None
    # most studies open none, and this is half of what their start imports
    from autotune.disaggregated.local_prefill import by_local_prefill
    from autotune.disaggregated.plan_results import best_knobs, pair_results
    from autotune.disaggregated.refine_loads import at_best_loads
    from autotune.disaggregated.search import KEPT, search_pools
    from autotune.disaggregated.splits import count_plans

    start = time.perf_counter()
    kept = [r for r in stored if COUNT_ATTR in r.attrs]
    known = {r.key: plan_of(r) for r in kept}
    if known and len(known) == kept[0].attrs[COUNT_ATTR]:
        taken = time.perf_counter() - start
        return known, PoolSearch(
            plans=sum(count_plans(on_cluster(study, c)) for c in cluster_choices(study)),
            kept=len(known),
            scored_now=0,
            joined_points=None,
            elapsed_s=taken,
        )
    plans: dict[str, PlanResult] = {}
    counted = joined = 0
    for cluster in cluster_choices(study):
        home = on_cluster(study, cluster)
        by_means = replace(home, constraints=home.constraints.on_means())
        found = list[PlanResult]()
        for own in by_local_prefill(home):
            asked = replace(own, constraints=by_means.constraints)
            pools = search_pools(asked, progress=progress)
            joined += pools.joined
            found += pair_results(own, at_best_loads(asked, pools.others), home=study.cluster.gpu.name)
        counted += count_plans(home)
        best = best_knobs(by_means, found)
        # searches with several settings of the front have found more
        first = best.values() if len(best) <= KEPT else list(chain(*rank(by_means, list(best.values()))))[:KEPT]
        plans.update((plan.key, plan) for plan in first)
    plans.update(known)
    if store is not None:
        store.add(pool_records(recorder, plans.values(), len(plans)))
    return plans, PoolSearch(
        plans=counted,
        kept=len(plans),
        scored_now=len(plans),
        joined_points=joined,
        elapsed_s=time.perf_counter() - start,
    )
